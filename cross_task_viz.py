"""Compare runs: success against cost, learning, the price of complexity, tasks, and where experts are used in each.

    marimo edit cross_task_viz.py                                         # or: marimo run cross_task_viz.py
    marimo export html cross_task_viz.py -o runs.html -- --all_views      # a page to keep
    python cross_task_viz.py -- --results_path evaluation_results.csv --cache_dir evaluation_cache --plots_dir plots

All three take the flags of the last, after `--`.
"""

import marimo

__generated_with = "0.25.2"
app = marimo.App(width="medium", app_title="Routing across tasks")

with app.setup(hide_code=True):
    from pathlib import Path

    import marimo as mo

    from pipeline.command.displays import draw_without_display

    draw_without_display()  # before matplotlib is imported
    from pipeline.places import find_caches
    from plotting.browsing import (
        as_image,
        attempt,
        choose_places,
        label_place,
        plot_task_heatmaps,
        results_table,
        select_rows,
        task_names,
        try_caches,
        try_results,
    )
    from plotting.replicates import find_settings
    from plotting.style import save_figure
    from plotting.views import OTHER_VIEWS, ViewOptions, draw_results_view, draw_view, list_views

    TABS = {
        "Success and cost": "success_lpc",
        "Learning": "learning",
        "Price of complexity": "alpha",
        "Tasks": "tasks",
        "Heatmaps": "across_tasks",
        "Routing over runs": "over_runs",
    }


@app.cell(hide_code=True)
def _():
    _given = mo.cli_args()
    results_path = str(_given.get("results_path") or "evaluation_results.csv")
    cache_dir = str(_given.get("cache_dir") or "evaluation_cache")
    plots_dir = str(_given.get("plots_dir") or "plots")
    all_views = "all_views" in _given
    return all_views, cache_dir, plots_dir, results_path


@app.cell(hide_code=True)
def _():
    mo.md("""
    # Routing across tasks

    Every row of `evaluation_results.csv` is a checkpoint, evaluated on a fixed list of levels. A *run* is a task, trial
    and seed; runs that differ in trial or seed only are replicates of one *setting*. **LPC**, Learned Pathway
    Complexity, is what routing costs: the router's weight times the expert's size squared, summed over experts and
    layers. Low is cheap.
    """)
    return


@app.cell(hide_code=True)
def _(cache_dir, results_path):
    results_field = mo.ui.text(results_path, label="Results", full_width=True)
    folder_field = mo.ui.text(cache_dir, label="Folder of caches", full_width=True)
    reload_button = mo.ui.button(label="Read again")
    mo.hstack([results_field, folder_field, reload_button], widths=[4, 4, 1], align="end")
    return folder_field, reload_button, results_field


@app.cell(hide_code=True)
def _(folder_field, reload_button, results_field):
    reload_button  # pressing it runs this cell
    results, results_problem = try_results(results_field.value)
    places = find_caches(folder_field.value)
    return places, results, results_problem


@app.cell(hide_code=True)
def _(results, results_field, results_problem):
    first_steps = f"""
    **`{results_field.value}` holds no results yet.** Train, evaluate, then press *Read again*:

    ```text
    python train_mop.py --config config.yaml --seed 0
    python train_mop.py --config config.yaml --seed 1
    python batch_eval.py
    ```
    """
    mo.stop(not results.empty)
    mo.callout(results_problem, kind="danger") if results_problem else mo.callout(mo.md(first_steps), kind="info")
    return


@app.cell(hide_code=True)
def _(results):
    mo.stop(results.empty)
    tasks_field = mo.ui.multiselect(task_names(results), label="Tasks (none chosen: all)")
    last_field = mo.ui.checkbox(label="only the last checkpoint of each run")
    mo.hstack([tasks_field, last_field], justify="start", gap=2, align="center")
    return last_field, tasks_field


@app.cell(hide_code=True)
def _(last_field, results, tasks_field):
    listed = select_rows(results, tasks=tasks_field.value, last_only=last_field.value)
    table = mo.ui.table(
        results_table(listed),
        page_size=8,
        selection="multi",
        show_column_summaries=False,
        show_data_types=False,
        freeze_columns_left=["task"],
        label="Click the name of a column to sort by it. Tick rows to draw only these; with none ticked all are drawn.",
    )
    table
    return listed, table


@app.cell(hide_code=True)
def _(listed, table):
    drawn = listed if table.value.empty else listed[listed["checkpoint_path"].isin(table.value["checkpoint"])]
    return (drawn,)


@app.cell(hide_code=True)
def _(results):
    mo.stop(results.empty)
    tabs = mo.ui.tabs(dict.fromkeys(TABS, ""))
    tabs
    return (tabs,)


@app.cell(hide_code=True)
def _(all_views, places, tabs):
    caches_field = mo.ui.multiselect(
        {label_place(place): place for place in places},
        [label_place(place) for place in choose_places(places)[:6]],
        label="Caches",
        full_width=True,
    )
    caches_field if all_views or tabs.value == "Heatmaps" else None
    return (caches_field,)


@app.cell(hide_code=True)
def _(all_views, places, tabs):
    _settings = {}
    if all_views or tabs.value == "Routing over runs":
        _settings = {setting.label: setting for setting in find_settings(places)[0]}
    setting_field = mo.ui.dropdown(
        _settings, next(iter(_settings), None), label="Runs", searchable=True, full_width=True
    )
    setting_field if _settings else None
    return (setting_field,)


@app.cell(hide_code=True)
def _(setting_field):
    joined, joined_problem = None, "No runs that differ in trial or seed only have a cache each: train more seeds."
    if setting_field.value is not None:
        joined, joined_problem = attempt(setting_field.value.load, None)
    return joined, joined_problem


@app.cell(hide_code=True)
def _(joined):
    _views = [view for view in list_views(joined) if view in OTHER_VIEWS] if joined is not None else []
    view_field = mo.ui.dropdown(_views, next(iter(_views), None), label="View")
    view_field if _views else None
    return (view_field,)


@app.cell(hide_code=True)
def _(all_views, caches_field, drawn, joined, joined_problem, setting_field, tabs, view_field):
    figures, _blocks = {}, []
    for _tab in TABS if all_views else [tabs.value]:
        if _tab == "Heatmaps":
            _drawn = {"routing_heatmap_across_tasks": plot_task_heatmaps(*try_caches(caches_field.value))}
            _problem = ""
        elif _tab == "Routing over runs":
            _drawn, _problem = {}, joined_problem
            if view_field.value is not None:
                _drawn, _problem = attempt(lambda: draw_view(joined, view_field.value, ViewOptions()), {})
                _drawn = {f"{setting_field.value.folder}_{name}": figure for name, figure in _drawn.items()}
        else:
            _drawn, _problem = attempt(lambda view=TABS[_tab]: draw_results_view(drawn, view), {})
        figures |= _drawn
        _images = [mo.image(**as_image(figure, name)) for name, figure in _drawn.items()]
        _blocks.append(mo.hstack(_images, justify="start", wrap=True))
        _blocks += [mo.callout(_problem, kind="warn")] if _problem else []
    mo.vstack(_blocks)
    return (figures,)


@app.cell(hide_code=True)
def _(tabs):
    tabs  # without data there are none, and nothing to save
    save_button = mo.ui.run_button(label="Save as PNG")
    save_button
    return (save_button,)


@app.cell(hide_code=True)
def _(figures, plots_dir, save_button):
    mo.stop(not save_button.value)
    _paths = [save_figure(figure, Path(plots_dir) / f"{name}.png")[0] for name, figure in figures.items()]
    mo.callout(mo.md("\n\n".join(f"Saved `{path}`" for path in _paths)), kind="success")
    return


if __name__ == "__main__":
    app.run()
