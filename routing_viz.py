"""See what the routers of one checkpoint did: where on the grid, when in an episode, near what, and at what cost.

    marimo edit routing_viz.py                                     # or: marimo run routing_viz.py
    marimo export html routing_viz.py -o x.html -- --all_views     # a page to keep, with every view
    python routing_viz.py -- --cache_dir evaluation_cache --checkpoint_dir checkpoints --plots_dir plots

All three take the flags of the last, after `--`; --results_path is where a fresh evaluation adds its row.
"""

import marimo

__generated_with = "0.25.2"
app = marimo.App(width="medium", app_title="Routing")

with app.setup(hide_code=True):
    from functools import partial

    import marimo as mo

    from pipeline.command.displays import draw_without_display

    draw_without_display()  # before matplotlib is imported
    from pipeline.places import PlaceError, cache_path, find_caches, find_checkpoints, plot_path
    from plotting.aggregate import get_available_analyses, group_routing_data
    from plotting.browsing import (
        as_image,
        attempt,
        choose_places,
        describe_cache,
        find_examples,
        label_place,
        metrics_table,
        try_cache,
    )
    from plotting.data import as_routing_data
    from plotting.groupings import GROUPINGS
    from plotting.style import save_figure
    from plotting.temporal import find_events
    from plotting.views import ViewOptions, draw_view, list_views

    CACHE, FRESH = "use cache", "evaluate afresh"
    TABS = {
        "Heatmaps": ["overall"],
        "Episode": ["episode"],
        "Events": ["events"],
        "Distributions": ["weights", "entropy"],
        "Paths": ["paths"],
        "Near objects": ["distances"],
        "Specialisation": ["specialisation"],
        "Actions": ["actions"],
    }


@app.cell(hide_code=True)
def _():
    _given = mo.cli_args()
    cache_dir = str(_given.get("cache_dir") or "evaluation_cache")
    checkpoint_dir = str(_given.get("checkpoint_dir") or "checkpoints")
    results_path = str(_given.get("results_path") or "evaluation_results.csv")
    plots_dir = str(_given.get("plots_dir") or "plots")
    all_views = "all_views" in _given
    return all_views, cache_dir, checkpoint_dir, plots_dir, results_path


@app.cell(hide_code=True)
def _():
    mo.md("""
    # Routing

    At every step a *router* in each layer spreads a weight of 1 over *experts* of different sizes; a *skip* expert
    costs nothing. Here you see what the routers of one checkpoint did on a fixed list of levels. **LPC**, Learned
    Pathway Complexity, is the cost: weight times size squared, summed over experts and layers.
    """)
    return


@app.cell(hide_code=True)
def _(cache_dir, checkpoint_dir):
    source_field = mo.ui.radio([CACHE, FRESH], value=CACHE, inline=True)
    cache_dir_field = mo.ui.text(cache_dir, label="Folder of caches", full_width=True)
    checkpoint_dir_field = mo.ui.text(checkpoint_dir, label="Folder of checkpoints", full_width=True)
    reload_button = mo.ui.button(label="Look again")
    _folders = mo.hstack([cache_dir_field, checkpoint_dir_field, reload_button], widths=[5, 5, 2], align="end")
    mo.vstack([source_field, _folders])
    return cache_dir_field, checkpoint_dir_field, reload_button, source_field


@app.cell(hide_code=True)
def _(cache_dir_field, checkpoint_dir_field, reload_button, source_field):
    reload_button  # pressing it runs this cell
    picker_problem = ""
    places = []
    if source_field.value == CACHE:
        places = find_caches(cache_dir_field.value)
    else:
        try:
            places = find_checkpoints(checkpoint_dir_field.value)
        except PlaceError as error:
            picker_problem = str(error)
    return picker_problem, places


@app.cell(hide_code=True)
def _(cache_dir_field, checkpoint_dir_field, picker_problem, places, source_field):
    folder = cache_dir_field.value if source_field.value == CACHE else checkpoint_dir_field.value
    nothing_yet = f"""
    **There is nothing in `{folder}` yet.** Train, evaluate, then press *Look again*:

    ```text
    python train_mop.py --config config.yaml
    python batch_eval.py
    ```
    """
    mo.stop(bool(places))
    mo.callout(picker_problem, kind="danger") if picker_problem else mo.callout(mo.md(nothing_yet), kind="info")
    return


@app.cell(hide_code=True)
def _(places):
    mo.stop(not places)
    place_field = mo.ui.dropdown(
        {label_place(place): place for place in places},
        label_place(choose_places(places)[0]),
        label="Checkpoint",
        searchable=True,
        full_width=True,
    )
    place_field
    return (place_field,)


@app.cell(hide_code=True)
def _():
    get_fresh, set_fresh = mo.state((None, None))  # (the checkpoint, its evaluation)
    return get_fresh, set_fresh


@app.cell(hide_code=True)
def _(source_field):
    episodes_field = mo.ui.slider(10, 1000, 10, 100, label="Episodes", show_value=True)
    environments_field = mo.ui.slider(1, 64, 1, 16, label="Environments stepped together", show_value=True)
    keep_field = mo.ui.checkbox(label="keep: write the cache, in place of an earlier one, and the row of results")
    evaluate_button = mo.ui.run_button(label="Evaluate", kind="success")
    evaluate_controls = mo.vstack(
        [mo.hstack([episodes_field, environments_field, evaluate_button], justify="start", gap=2), keep_field]
    )
    evaluate_controls if source_field.value == FRESH else None
    return environments_field, episodes_field, evaluate_button, keep_field


@app.cell(hide_code=True)
def _(
    cache_dir_field,
    environments_field,
    episodes_field,
    evaluate_button,
    keep_field,
    place_field,
    results_path,
    set_fresh,
):
    mo.stop(not evaluate_button.value)
    from pipeline.command.errors import MISTAKES

    try:
        from pipeline.evaluation.checkpoint import EvaluationSettings
        from pipeline.evaluation.fresh import evaluate_fresh, keep_fresh
    except ImportError as error:
        mo.stop(True, mo.callout(f"Evaluating needs what is in requirements.txt: {error}", kind="danger"))

    _place = place_field.value
    _settings = EvaluationSettings(num_episodes=episodes_field.value, num_envs=environments_field.value)
    try:
        with mo.status.progress_bar(total=_settings.num_episodes, title=label_place(_place), show_eta=True) as _bar:
            _cache = evaluate_fresh(_place, _settings, progress=_bar.update)
        set_fresh((_place, _cache))  # it is shown even if it cannot be written
        if keep_field.value:
            _path = cache_path(cache_dir_field.value, _place.task_id, _place.trial, _place.seed, _place.update)
            keep_fresh(_cache, _path, results_path)
        _done = mo.callout(f"Wrote {_path} and its row in {results_path}", kind="success") if keep_field.value else None
    except MISTAKES as error:
        _done = mo.callout(f"{error}", kind="danger")
    _done
    return


@app.cell(hide_code=True)
def _(get_fresh, place_field, source_field):
    if source_field.value == CACHE:
        cache, cache_problem = try_cache(place_field.value.path)
    else:
        cache = get_fresh()[1] if get_fresh()[0] == place_field.value else None
        cache_problem = "" if cache else "Not evaluated yet: choose how many episodes and press Evaluate."
    mo.callout(cache_problem, kind="danger" if source_field.value == CACHE else "info") if cache_problem else None
    return (cache,)


@app.cell(hide_code=True)
def _(cache):
    mo.stop(cache is None)
    data = as_routing_data(cache)
    _metrics = mo.ui.table(
        metrics_table(cache.metrics),
        selection=None,
        show_column_summaries=False,
        show_data_types=False,
        show_download=False,
        show_search=False,
        column_widths={"metric": 140, "value": 110, "over": 800},
    )
    mo.vstack([mo.md(describe_cache(cache)), _metrics])
    return (data,)


@app.cell(hide_code=True)
def _(data):
    _supported = list_views(data)
    view_names = {tab: views for tab, views in TABS.items() if set(views) <= set(_supported)}
    tabs = mo.ui.tabs(dict.fromkeys(view_names, ""))
    tabs
    return tabs, view_names


@app.cell(hide_code=True)
def _(data):
    _names = {GROUPINGS[name].title.capitalize(): name for name in get_available_analyses(data)}
    analysis_field = mo.ui.dropdown(_names, next(iter(_names)), label="Group by")
    counts_field = mo.ui.checkbox(label="write the number of steps into the cells")
    return analysis_field, counts_field


@app.cell(hide_code=True)
def _(analysis_field, data):
    groups = group_routing_data(data, analysis_field.value)
    part_field = mo.ui.dropdown({label: key for key, label in groups.labels.items()}, label="Steps (none chosen: all)")
    return groups, part_field


@app.cell(hide_code=True)
def _(data):
    _events = {f"{name.replace('_', ' ')} ({n:,} episodes)": name for name, n in find_events(data).items()}
    event_field = mo.ui.dropdown(_events, next(iter(_events), None), label="Event")
    window_field = mo.ui.slider(2, 40, 1, 10, label="Steps before and after", show_value=True)
    return event_field, window_field


@app.cell(hide_code=True)
def _(data):
    _last = len(data.episodes) - 1
    episode_field = mo.ui.number(0, _last, 1, data.typical_episode, label=f"Episode (0 to {_last:,})")
    return (episode_field,)


@app.cell(hide_code=True)
def _(all_views, analysis_field, counts_field, episode_field, event_field, part_field, tabs, window_field):
    _controls = {
        "Heatmaps": [analysis_field, counts_field],
        "Episode": [episode_field],
        "Events": [event_field, window_field, analysis_field, part_field],
    }
    _every = [analysis_field, counts_field, part_field, event_field, window_field, episode_field]
    _shown = _every if all_views else _controls.get(tabs.value, [analysis_field, part_field])
    mo.hstack(_shown, justify="start", gap=2, align="center", wrap=True)
    return


@app.cell(hide_code=True)
def _(analysis_field, cache, data):
    pictures, missions, picture_note = {}, {}, ""
    try:
        from film.scenes import render_examples
    except ImportError as error:
        picture_note = f"Levels are drawn from their description; pictures need `pip install minigrid` ({error})."
    else:
        _examples = find_examples(data, analysis_field.value)
        pictures, _problems = render_examples(cache, _examples)
        missions = {example.key: example.mission for example in _examples if example.key in pictures}
        picture_note = f"Some levels could not be made again: {_problems[0]}" if _problems else ""
    return missions, picture_note, pictures


@app.cell(hide_code=True)
def _(all_views, cache, episode_field, tabs):
    player, player_note = None, ""
    if all_views or tabs.value == "Episode":
        try:
            from film.scenes import SCENE_ERRORS, EpisodePlayer
        except ImportError as error:
            player_note = f"The grid cannot be shown without minigrid: `pip install minigrid` ({error})."
        else:
            try:
                player = EpisodePlayer(cache, episode_field.value)
            except SCENE_ERRORS as error:
                player_note = f"The episode cannot be played again: {error}"
    step_field = mo.ui.slider(0, player.steps if player else 1, 1, 0, label="Step", show_value=True, full_width=True)
    return player, player_note, step_field


@app.cell(hide_code=True)
def _(player, player_note, step_field):
    _frame = mo.vstack([step_field, mo.image(player.draw(step_field.value), width="100%")]) if player else None
    mo.callout(mo.md(player_note), kind="warn") if player_note else _frame
    return


@app.cell(hide_code=True)
def _(
    all_views,
    analysis_field,
    counts_field,
    data,
    episode_field,
    event_field,
    groups,
    missions,
    part_field,
    picture_note,
    pictures,
    tabs,
    view_names,
    window_field,
):
    _heatmaps = {"show_counts": counts_field.value, "pictures": pictures, "missions": missions}
    _options = ViewOptions(episode_field.value, event_field.value, window_field.value, window_field.value, **_heatmaps)
    _part = data if part_field.value is None else groups[part_field.value]
    figures, _blocks = {}, []
    for _tab in view_names if all_views else [tabs.value]:
        for _view in view_names[_tab]:
            _data = data if _view in ("overall", "episode") else _part
            _name = analysis_field.value if _view == "overall" else _view
            _drawn, _problem = attempt(partial(draw_view, _data, _name, _options), {})
            figures |= _drawn
            if _view == "overall" and mo.running_in_notebook():
                _blocks += [mo.mpl.interactive(figure) for figure in _drawn.values()]
            else:
                _blocks += [mo.image(**as_image(figure, name)) for name, figure in _drawn.items()]
            _blocks += [mo.callout(_problem, kind="warn")] if _problem else []
            _blocks += [mo.md(picture_note)] if picture_note and _view == "overall" else []
    mo.vstack(_blocks)
    return (figures,)


@app.cell(hide_code=True)
def _(tabs):
    tabs  # without data there are none, and nothing to save
    save_button = mo.ui.run_button(label="Save as PNG")
    save_button
    return (save_button,)


@app.cell(hide_code=True)
def _(figures, place_field, plots_dir, save_button):
    mo.stop(not save_button.value)
    _paths = [save_figure(figure, plot_path(plots_dir, place_field.value, name))[0] for name, figure in figures.items()]
    mo.callout(mo.md("\n\n".join(f"Saved `{path}`" for path in _paths)), kind="success")
    return


if __name__ == "__main__":
    app.run()
