"""Compare runs: success against cost, learning, the price of complexity, tasks, and where experts are used in each.

    marimo edit cross_task_viz.py                                         # or: marimo run cross_task_viz.py
    python cross_task_viz.py -- --all_views --page runs.html              # a page to keep; needs no network
    python cross_task_viz.py -- --results_path evaluation_results.csv --cache_dir evaluation_cache --plots_dir plots

All three take the flags of the last, after `--`; --studies_dir is where studies are (studies/out).

The cells stand in the order in which they are read: what is shown first, then what it is made from.
"""

import marimo

__generated_with = "0.25.2"
app = marimo.App(width="full", app_title="Routing across tasks")

with app.setup(hide_code=True):
    import sys
    from pathlib import Path

    import marimo as mo

    from pipeline.command.displays import draw_without_display

    draw_without_display()  # before matplotlib is imported
    from pipeline.command.names import name_command
    from pipeline.places import find_caches, runs_plot_path
    from plotting.aggregate import get_available_analyses
    from plotting.browsing import (
        attempt,
        choose_places,
        label_place,
        name_selection,
        refuse_unknown,
        try_caches,
        try_results,
    )
    from plotting.groupings import GROUPINGS
    from plotting.options import SCALES
    from plotting.page import show_figure, show_note, show_table, write_page
    from plotting.replicates import find_settings
    from plotting.studies import HOW, find_studies, show_study
    from plotting.style import save_figure
    from plotting.tables import name_rows, results_table, select_rows, task_names, ticked_rows
    from plotting.task_maps import plot_task_heatmaps
    from plotting.views import GROUPED_VIEWS, OTHER_VIEWS, ViewOptions, draw_results_view, draw_view, list_views

    TABS = {
        "Success and cost": "success_lpc",
        "Learning": "learning",
        "Price of complexity": "alpha",
        "Tasks": "tasks",
        "Heatmaps": "across_tasks",
        "Routing over runs": "over_runs",
        "Study": "study",
    }

    def keep_page(path, parts):
        """Write the page that was asked for, or leave with the reason why not."""
        try:
            write_page(path, "Routing across tasks", parts)
        except OSError as error:
            sys.exit(f"--page {path}: cannot be written ({error.strerror}); expected the path of a file")


# ------------------------------------------------------------------------------------------------------ what is shown


@app.cell(hide_code=True)
def _(all_views, caches_field, group_field, save_button, scale_field, setting_field, study_field, tabs, view_field):
    _shown = [caches_field] if all_views or tabs.value == "Heatmaps" else []
    if setting_field.options and (all_views or tabs.value == "Routing over runs"):
        _shown += [setting_field, *([view_field] if view_field.options else [])]
        _shown += [group_field] if view_field.value in GROUPED_VIEWS else []
    _shown += [scale_field] if all_views or tabs.value in ("Heatmaps", "Routing over runs") else []
    _shown += [study_field] if study_field.options and (all_views or tabs.value == "Study") else []
    _shown += [save_button] if all_views or tabs.value != "Study" else []  # its figures are files already
    mo.vstack([tabs, mo.hstack(_shown, justify="start", gap=1.5, align="center", wrap=True)])
    return


@app.cell(hide_code=True)
def _(parts):
    mo.vstack([mo.Html(part) for part in parts]) if parts else None
    return


@app.cell(hide_code=True)
def _(study_parts):
    mo.vstack([mo.Html(part) for part in study_parts]) if study_parts else None
    return


@app.cell(hide_code=True)
def _(paths, save_button):
    mo.stop(not save_button.value or not paths)
    _saved = [save_figure(figure, path)[0] for figure, path in paths]
    mo.status.toast("Saved", "; ".join(map(str, _saved)))
    mo.callout(mo.md("\n\n".join(f"Saved `{path}`" for path in _saved)), kind="success")
    return


@app.cell(hide_code=True)
def _(page, results, results_field, results_problem, study_field):
    _first_steps = mo.md(f"""
    **`{results_field.value}` holds no results yet.** Train, evaluate, then press *Read again*:

    ```text
    {name_command("train")} --config config.yaml --seed 0
    {name_command("train")} --config config.yaml --seed 1
    {name_command("evaluate")}
    ```
    """)
    mo.stop(not results.empty)
    if page and study_field.value is None:
        _evaluate = name_command("evaluate")
        sys.exit(results_problem or f"{results_field.value}: holds no results; train, then: {_evaluate}")
    mo.callout(results_problem, kind="danger") if results_problem else mo.callout(_first_steps, kind="info")
    return


@app.cell(hide_code=True)
def _(table):
    table
    return


@app.cell(hide_code=True)
def _(folder_field, last_field, reload_button, results_field, studies_field, tasks_field):
    _about = mo.md("""
    Every row of the results is a checkpoint, evaluated on a fixed list of levels. A *run* is a task, trial and seed;
    runs that differ in trial or seed only are replicates of one *setting*.

    **LPC**, Learned Pathway Complexity, is what routing costs: the router's weight times the expert's size squared,
    summed over experts and layers. Low is cheap.
    """)
    _folders = mo.vstack([results_field, folder_field, studies_field, reload_button])
    mo.sidebar(
        [mo.md("# Across tasks"), tasks_field, last_field, _about, mo.accordion({"Files": _folders})], width="330px"
    )
    return


# -------------------------------------------------------------------------------------------------------- which runs


@app.cell(hide_code=True)
def _():
    _given = mo.cli_args()
    if (
        mo.app_meta().mode == "script" and Path(sys.argv[0]).name == "cross_task_viz.py"
    ):  # not where another program runs the cells
        refuse_unknown(_given.to_dict(), "results_path cache_dir plots_dir studies_dir page all_views".split())
    results_path = str(_given.get("results_path") or "evaluation_results.csv")
    cache_dir = str(_given.get("cache_dir") or "evaluation_cache")
    plots_dir = str(_given.get("plots_dir") or "plots")
    studies_dir = str(_given.get("studies_dir") or "studies/out")
    page = str(_given.get("page") or "")
    all_views = "all_views" in _given
    return all_views, cache_dir, page, plots_dir, results_path, studies_dir


@app.cell(hide_code=True)
def _(cache_dir, results_path, studies_dir):
    results_field = mo.ui.text(results_path, label="Results", full_width=True)
    folder_field = mo.ui.text(cache_dir, label="Folder of caches", full_width=True)
    studies_field = mo.ui.text(studies_dir, label="Folder of studies", full_width=True)
    reload_button = mo.ui.button(label="Read again")
    return folder_field, reload_button, results_field, studies_field


@app.cell(hide_code=True)
def _(folder_field, reload_button, results_field):
    reload_button  # pressing it runs this cell
    results, results_problem = try_results(results_field.value)
    places = find_caches(folder_field.value)
    return places, results, results_problem


@app.cell(hide_code=True)
def _(reload_button, studies_field):
    reload_button
    _studies = find_studies(studies_field.value)
    study_field = mo.ui.dropdown(_studies, next(iter(_studies), None), label="Study")
    return (study_field,)


@app.cell(hide_code=True)
def _(results):
    tasks_field = mo.ui.multiselect(task_names(results), label="Tasks (none chosen: all)", full_width=True)
    last_field = mo.ui.checkbox(label="only the last checkpoint of each run")
    return last_field, tasks_field


@app.cell(hide_code=True)
def _(last_field, results, tasks_field):
    mo.stop(results.empty)
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
    return listed, table


@app.cell(hide_code=True)
def _(listed, table):
    drawn = ticked_rows(listed, table.value)
    return (drawn,)


@app.cell(hide_code=True)
def _():
    tabs = mo.ui.tabs(dict.fromkeys(TABS, ""))
    save_button = mo.ui.run_button(label="Save as PNG")
    scale_field = mo.ui.dropdown(SCALES, SCALES[0], label="Scale of LPC")
    return save_button, scale_field, tabs


@app.cell(hide_code=True)
def _(places):
    caches_field = mo.ui.multiselect(
        {label_place(place): place for place in places},
        [label_place(place) for place in choose_places(places)[:6]],
        label="Caches",
    )
    return (caches_field,)


@app.cell(hide_code=True)
def _(all_views, places, tabs):
    _settings = {}
    if all_views or tabs.value == "Routing over runs":
        _settings = {setting.label: setting for setting in find_settings(places)[0]}
    setting_field = mo.ui.dropdown(_settings, next(iter(_settings), None), label="Runs", searchable=True)
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
    _names = get_available_analyses(joined) if joined is not None else ["overall"]
    _groupings = {GROUPINGS[name].title.capitalize(): name for name in _names}
    group_field = mo.ui.dropdown(_groupings, next(iter(_groupings)), label="Group by")
    return group_field, view_field


# ------------------------------------------------------------------------------------------------------ what is drawn


@app.cell(hide_code=True)
def _(
    all_views,
    caches_field,
    drawn,
    group_field,
    joined,
    joined_problem,
    plots_dir,
    results,
    scale_field,
    setting_field,
    tabs,
    view_field,
):
    _rows, _every = name_rows(drawn), name_rows(results)
    _tasks = {label: place.played for label, place in caches_field.options.items()}
    _chosen = {label_place(place): place.played for place in caches_field.value}
    _options = ViewOptions(group_by=group_field.value, scale=scale_field.value)
    paths, parts = [], []
    for _tab in [tab for tab in (TABS if all_views else [tabs.value]) if tab != "Study"]:
        _problem = ""
        if _tab == "Heatmaps":
            _name = f"routing_heatmap_across_tasks{name_selection(_chosen, _tasks)}"
            _figure = plot_task_heatmaps(*try_caches(caches_field.value), scale=_options.scale)
            _drawn = {Path(plots_dir) / f"{_name}.png": _figure}
        elif _tab == "Routing over runs":
            _found, _problem, _setting = {}, joined_problem, setting_field.value
            if view_field.value is not None:
                _found, _problem = attempt(lambda: draw_view(joined, view_field.value, _options), {})
            _drawn = {
                runs_plot_path(plots_dir, _setting.task_id, _setting.folder, name): figure
                for name, figure in _found.items()
            }
        else:
            _found, _problem = attempt(lambda view=TABS[_tab]: draw_results_view(drawn, view), {})
            _selected = name_selection(_rows, _every)
            _drawn = {Path(plots_dir) / f"{name}{_selected}.png": figure for name, figure in _found.items()}
        paths += [(figure, path) for path, figure in _drawn.items()]
        parts += [show_figure(figure, path.stem) for path, figure in _drawn.items()]
        parts += [show_note(_problem)] if _problem else []
    return parts, paths


@app.cell(hide_code=True)
def _(all_views, results, studies_field, study_field, tabs):
    study_parts = []
    _wanted = all_views or tabs.value == "Study"
    if _wanted and study_field.value is None:
        study_parts = [show_note(f"{studies_field.value}: {HOW}")]
    elif _wanted or (results.empty and study_field.value is not None):  # without results it is all there is
        study_parts, _problem = attempt(lambda: show_study(study_field.value), [])
        study_parts += [show_note(_problem)] if _problem else []
    return (study_parts,)


@app.cell(hide_code=True)
def _(drawn, page, parts, study_parts):
    mo.stop(not page)
    keep_page(page, [*parts, *study_parts, show_table(results_table(drawn))])
    return


@app.cell(hide_code=True)
def _(page, results, study_field, study_parts):
    mo.stop(not page or not results.empty or study_field.value is None)  # a study alone
    keep_page(page, study_parts)
    return


if __name__ == "__main__":
    app.run()
