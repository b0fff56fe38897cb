"""See what the routers of one checkpoint did: where on the grid, when in an episode, near what, and at what cost.

    marimo edit routing_viz.py                                     # or: marimo run routing_viz.py
    python routing_viz.py -- --all_views --page routing.html       # a page to keep, with every view; needs no network
    python routing_viz.py -- --cache_dir evaluation_cache --checkpoint_dir checkpoints --plots_dir plots

All three take the flags of the last, after `--`; --results_path is where a fresh evaluation adds its row.

The cells stand in the order in which they are read: what is shown first, then what it is made from.
"""

import marimo

__generated_with = "0.25.2"
app = marimo.App(width="full", app_title="Routing")

with app.setup(hide_code=True):
    import sys
    from functools import partial
    from pathlib import Path

    import marimo as mo

    from pipeline.command.displays import draw_without_display

    draw_without_display()  # before matplotlib is imported
    from pipeline.command.names import name_command
    from pipeline.places import (
        PlaceError,
        cache_path,
        find_caches,
        find_checkpoints,
        list_likely_checkpoints,
        plot_path,
    )
    from pipeline.what_if.choices import STRENGTHS, WAYS, build_dial, build_knockout, list_places
    from plotting.aggregate import get_available_analyses, group_routing_data
    from plotting.behaviour import known_facts
    from plotting.browsing import attempt, describe_cache, file_word, refuse_unknown, try_cache
    from plotting.choices import choose_first, find_choices
    from plotting.data import as_routing_data
    from plotting.examples import find_examples
    from plotting.groupings import GROUPINGS
    from plotting.options import SCALES, STATE_WORDS
    from plotting.page import show_caption, show_figure, show_note, show_player, show_table, write_page
    from plotting.pairs import TABLE_NOTE, compare_groups, what_if_table
    from plotting.style import save_figure
    from plotting.tables import metrics_table
    from plotting.temporal import find_events
    from plotting.views import GROUPED_VIEWS, ViewOptions, describe_lack, draw_view, list_views
    from plotting.what_if import plot_what_if

    CACHE, FRESH = "use cache", "evaluate afresh"
    TABS = {
        "Heatmaps": ["overall"],
        "Time": ["elapsed", "without_time"],
        "Episode": ["episode"],
        "Events": ["events"],
        "Weights": ["weights", "entropy"],
        "Paths": ["paths"],
        "Near objects": ["distances"],
        "Specialisation": ["specialisation"],
        "Actions": ["actions", "actions_by_carrying"],
        "Behaviour": ["behaviour", "cell_actions"],
        "Association": ["association"],
        "What if": [],  # played, not drawn from the cache
    }
    DIAL, KNOCKOUT = "complexity dial", "knock-out"
    WHOLE_VIEWS = ("overall", "episode", "elapsed", "without_time", *GROUPED_VIEWS)  # never of one group's steps alone
    remembered = {}  # what was chosen for one checkpoint and is kept for the next, where it can be


# ------------------------------------------------------------------------------------------------------ what is shown


@app.cell(hide_code=True)
def _(
    all_views,
    analysis_field,
    counts_field,
    episode_field,
    event_field,
    part_field,
    save_button,
    scale_field,
    state_field,
    tabs,
    what_if_controls,
    window_field,
):
    _controls = {
        "Heatmaps": [analysis_field, counts_field, scale_field],
        "Time": [scale_field],
        "Episode": [episode_field, scale_field],
        "Events": [event_field, window_field, analysis_field, part_field, scale_field],
        "Near objects": [analysis_field, part_field, scale_field],
        "Behaviour": [analysis_field, *([state_field] if state_field.options else [])],
        "Association": [analysis_field],
        "What if": [*what_if_controls, analysis_field, counts_field, scale_field],
    }
    _every = [analysis_field, counts_field, part_field, event_field, window_field, episode_field, scale_field]
    _shown = _every if all_views else _controls.get(tabs.value, [analysis_field, part_field])
    mo.vstack([tabs, mo.hstack([*_shown, save_button], justify="start", gap=1.5, align="center", wrap=True)])
    return


@app.cell(hide_code=True)
def _(parts):
    mo.vstack([mo.Html(part) for part in parts])
    return


@app.cell(hide_code=True)
def _(all_views, cache, change, checkpoint_dir_field, levels_field, place_field, tabs):
    pair, pair_problem = None, ""
    if all_views or tabs.value == "What if":
        try:
            with mo.status.spinner("Playing", subtitle="loading torch", remove_on_exit=True) as _spinner:
                from pipeline.what_if.play import try_what_if

                pair, pair_problem = try_what_if(
                    cache,
                    change,
                    levels_field.value,
                    candidates=list_likely_checkpoints(checkpoint_dir_field.value, place_field.value),
                    say=lambda words: _spinner.update(subtitle=words),
                )
        except ImportError as error:
            pair_problem = f"Playing needs what is in requirements.txt: {error}"
    return pair, pair_problem


@app.cell(hide_code=True)
def _(figures, place_field, plots_dir, save_button):
    mo.stop(not save_button.value)
    _paths = [save_figure(figure, plot_path(plots_dir, place_field.value, name))[0] for name, figure in figures.items()]
    mo.status.toast("Saved", "; ".join(map(str, _paths)))
    mo.callout(mo.md("\n\n".join(f"Saved `{path}`" for path in _paths)), kind="success")
    return


@app.cell(hide_code=True)
def _(cache_dir_field, cache_problem, checkpoint_dir_field, page, picker_problem, places, source_field):
    _cached = source_field.value == CACHE
    _problem = picker_problem or cache_problem
    _nothing_yet = mo.md(f"""
    **There is nothing in `{cache_dir_field.value if _cached else checkpoint_dir_field.value}` yet.**
    Train, evaluate, then press *Look again*:

    ```text
    {name_command("train")} --config config.yaml
    {name_command("evaluate")}
    ```
    """)
    mo.stop(bool(places) and not _problem)
    if page:
        _evaluate = name_command("evaluate")
        sys.exit(_problem or f"{cache_dir_field.value}: holds no caches; train, then evaluate: {_evaluate}")
    _kind = "danger" if _cached or picker_problem else "info"
    mo.callout(_problem or _nothing_yet, kind=_kind if _problem else "info")
    return


@app.cell(hide_code=True)
def _(cache, cache_dir_field, checkpoint_dir_field, evaluate_controls, place_field, reload_button, source_field):
    _about = mo.md("""
    At every step a *router* in each layer spreads a weight of 1 over *experts* of different sizes; a *skip* expert
    costs nothing. Here you see what the routers of one checkpoint did on a fixed list of levels.

    **LPC**, Learned Pathway Complexity, is the cost: weight times size squared, summed over experts and layers.
    """)
    _folders = mo.vstack([cache_dir_field, checkpoint_dir_field, reload_button])
    mo.sidebar(
        [
            mo.md("# Routing"),
            source_field,
            place_field,
            *([evaluate_controls] if source_field.value == FRESH else []),
            *([mo.md(describe_cache(cache)).style({"overflow-wrap": "anywhere"})] if cache else []),
            _about,
            mo.accordion({"Folders": _folders}),
        ],
        width="330px",
    )
    return


# ------------------------------------------------------------------------------------------------ which checkpoint


@app.cell(hide_code=True)
def _():
    _given = mo.cli_args()
    if (
        mo.app_meta().mode == "script" and Path(sys.argv[0]).name == "routing_viz.py"
    ):  # not where another program runs the cells
        refuse_unknown(_given.to_dict(), "cache_dir checkpoint_dir results_path plots_dir page all_views".split())
    cache_dir = str(_given.get("cache_dir") or "evaluation_cache")
    checkpoint_dir = str(_given.get("checkpoint_dir") or "checkpoints")
    results_path = str(_given.get("results_path") or "evaluation_results.csv")
    plots_dir = str(_given.get("plots_dir") or "plots")
    page = str(_given.get("page") or "")
    all_views = "all_views" in _given
    return all_views, cache_dir, checkpoint_dir, page, plots_dir, results_path


@app.cell(hide_code=True)
def _(cache_dir, checkpoint_dir):
    source_field = mo.ui.radio([CACHE, FRESH], value=CACHE, inline=True)
    cache_dir_field = mo.ui.text(cache_dir, label="Folder of caches", full_width=True)
    checkpoint_dir_field = mo.ui.text(checkpoint_dir, label="Folder of checkpoints", full_width=True)
    reload_button = mo.ui.button(label="Look again")
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
            if any(place.is_mixture for place in places):  # which levels it has a checkpoint tells, to torch alone
                from pipeline.evaluation.select import spread_levels

                places = spread_levels(places)
        except PlaceError as error:
            picker_problem = str(error)
        except ImportError as error:
            picker_problem = f"Evaluating needs what is in requirements.txt: {error}"
    return picker_problem, places


@app.cell(hide_code=True)
def _(cache_dir_field, places):
    _choices = find_choices(places, cache_dir_field.value)
    _first = choose_first(_choices).label if _choices else None
    place_field = mo.ui.dropdown(
        {choice.label: choice.place for choice in _choices},
        _first,
        label="Checkpoint",
        searchable=True,
        full_width=True,
    )
    return (place_field,)


@app.cell(hide_code=True)
def _():
    get_fresh, set_fresh = mo.state({})  # of one checkpoint: its evaluation on each level that it has played
    return get_fresh, set_fresh


@app.cell(hide_code=True)
def _():
    episodes_field = mo.ui.slider(10, 1000, 10, 100, label="Episodes", show_value=True)
    environments_field = mo.ui.slider(1, 64, 1, 16, label="Environments stepped together", show_value=True)
    evaluate_button = mo.ui.run_button(label="Evaluate", kind="success")
    keep_button = mo.ui.run_button(label="Keep it as cache and in the results")
    replace_field = mo.ui.checkbox(label="it may replace an evaluation on more episodes")
    every_level_field = mo.ui.checkbox(label="on all levels of its mixture")
    return environments_field, episodes_field, evaluate_button, every_level_field, keep_button, replace_field


@app.cell(hide_code=True)
def _(environments_field, episodes_field, evaluate_button, every_level_field, keep_button, place_field, replace_field):
    _mixed = place_field.value is not None and place_field.value.eval_task_id is not None
    _levels = [every_level_field] if _mixed else []
    evaluate_controls = mo.vstack(
        [episodes_field, environments_field, *_levels, evaluate_button, keep_button, replace_field]
    )
    return (evaluate_controls,)


@app.cell(hide_code=True)
def _(
    environments_field, episodes_field, evaluate_button, every_level_field, get_fresh, place_field, places, set_fresh
):
    mo.stop(not evaluate_button.value or place_field.value is None)
    from pipeline.command.errors import MISTAKES

    try:
        from pipeline.evaluation.fresh import evaluate_fresh
        from pipeline.evaluation.settings import EvaluationSettings
    except ImportError as error:
        mo.stop(True, mo.callout(f"Evaluating needs what is in requirements.txt: {error}", kind="danger"))

    _settings = EvaluationSettings(num_episodes=episodes_field.value, num_envs=environments_field.value)
    _chosen, _done = place_field.value, None
    _meant = [place for place in places if place.path == _chosen.path] if every_level_field.value else [_chosen]
    try:
        _options = {"title": str(_chosen), "show_eta": True, "remove_on_exit": True}
        with mo.status.progress_bar(total=_settings.num_episodes * len(_meant), **_options) as _bar:
            _caches = {place: evaluate_fresh(place, _settings, progress=_bar.update) for place in _meant}
        _others = {place: cache for place, cache in get_fresh().items() if place.path == _chosen.path}
        set_fresh(_others | _caches)
    except MISTAKES as error:
        _done = mo.callout(f"{error}", kind="danger")
    _done
    return


@app.cell(hide_code=True)
def _(cache_dir_field, get_fresh, keep_button, replace_field, results_path):
    _fresh = get_fresh()
    mo.stop(not keep_button.value)
    mo.stop(not _fresh, mo.callout("Nothing has been evaluated yet: press Evaluate.", kind="info"))
    from pipeline.command.errors import explain
    from pipeline.evaluation.fresh import keep_fresh

    _paths = []
    try:
        for _place, _cache in _fresh.items():
            _names = (_place.task_id, _place.trial, _place.seed, _place.update, _place.eval_task_id)
            _path = cache_path(cache_dir_field.value, *_names)
            keep_fresh(_cache, _path, results_path, replace_more=replace_field.value)
            _paths.append(str(_path))
        _words = f"Wrote {', '.join(_paths)} and {'its row' if len(_paths) == 1 else 'their rows'} in {results_path}"
        _kind = "success"
    except (ValueError, OSError) as error:  # UserErrors of the evaluation are ValueErrors
        _written = f" (kept before that: {', '.join(_paths)})" if _paths else ""
        _words, _kind = f"{explain(error)}{_written}", "danger"
    mo.status.toast("Kept" if _kind == "success" else "Not kept", _words, kind=None if _kind == "success" else _kind)
    mo.callout(_words, kind=_kind)
    return


# ------------------------------------------------------------------------------------------------- what it holds


@app.cell(hide_code=True)
def _(get_fresh, place_field, source_field):
    cache, cache_problem = None, ""
    if place_field.value is None:
        pass
    elif source_field.value == CACHE:
        cache, cache_problem = try_cache(place_field.value.path)
    elif place_field.value in get_fresh():
        cache = get_fresh()[place_field.value]
    else:
        cache_problem = "Not evaluated yet: choose how many episodes and press Evaluate."
    return cache, cache_problem


@app.cell(hide_code=True)
def _(cache):
    mo.stop(cache is None)
    data = as_routing_data(cache)
    return (data,)


@app.cell(hide_code=True)
def _():
    tabs = mo.ui.tabs(dict.fromkeys(TABS, ""))
    save_button = mo.ui.run_button(label="Save as PNG")
    scale_field = mo.ui.dropdown(SCALES, SCALES[0], label="Scale of LPC")
    return save_button, scale_field, tabs


@app.cell(hide_code=True)
def _(data):
    _names = {GROUPINGS[name].title.capitalize(): name for name in get_available_analyses(data)}
    _kept = [title for title, name in _names.items() if name == remembered.get("analysis")]
    analysis_field = mo.ui.dropdown(
        _names, next(iter([*_kept, *_names])), label="Group by", on_change=partial(remembered.__setitem__, "analysis")
    )
    counts_field = mo.ui.checkbox(label="numbers of steps in the cells, where they fit")
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
    _facts = {STATE_WORDS[fact]: fact for fact in known_facts(data)}
    state_field = mo.ui.multiselect(_facts, [*_facts], label="A state is the cell with")
    return (state_field,)


@app.cell(hide_code=True)
def _(data):
    _places = list_places(data.expert_sizes)
    change_field = mo.ui.dropdown([DIAL, KNOCKOUT], DIAL, label="Change")
    strength_field = mo.ui.slider(
        steps=[*STRENGTHS], value=1.0, label="\u03bb \u00d7 cost of the largest expert", show_value=True, debounce=True
    )
    expert_field = mo.ui.dropdown([*_places], next(iter(_places), None), label="Take out")
    way_field = mo.ui.dropdown({words: what for what, words in WAYS.items()}, WAYS["zero"], label="Its output becomes")
    renormalise_field = mo.ui.checkbox(label="the other weights sum to 1 again")
    levels_field = mo.ui.slider(10, 100, 10, 50, label="Levels", show_value=True)
    return change_field, expert_field, levels_field, renormalise_field, strength_field, way_field


@app.cell(hide_code=True)
def _(cache, change_field, data, expert_field, levels_field, renormalise_field, strength_field, way_field):
    _knockout = [expert_field, way_field, *([renormalise_field] if way_field.value == "zero" else [])]
    what_if_controls, change = [], None
    if data.has_routing and data.expert_sizes:
        what_if_controls = [
            change_field,
            *([strength_field] if change_field.value == DIAL else _knockout),
            levels_field,
        ]
        _renormalise = {"renormalise": renormalise_field.value}
        if change_field.value == DIAL:
            change = build_dial(strength_field.value, data.expert_sizes, data.lpc_exponent)
        else:
            change = build_knockout(expert_field.value, way_field.value, data.expert_sizes, **_renormalise)
    return change, what_if_controls


@app.cell(hide_code=True)
def _(data):
    _last = len(data.episodes) - 1
    episode_field = mo.ui.number(0, _last, 1, data.typical_episode, label=f"Episode (0 to {_last:,})")
    return (episode_field,)


# ---------------------------------------------------------------------------------------------------- what is drawn


@app.cell(hide_code=True)
def _(analysis_field, cache, data):
    pictures, missions, picture_note = {}, {}, ""
    try:
        from film.scenes import render_examples
    except ImportError as error:
        picture_note = (
            f"Levels are drawn from their description; pictures need minigrid: pip install minigrid ({error})."
        )
    else:
        _examples = find_examples(data, analysis_field.value)
        pictures, _problems = render_examples(cache, _examples)
        missions = {example.key: example.mission for example in _examples if example.key in pictures}
        picture_note = f"Some levels could not be made again: {_problems[0]}" if _problems else ""
    return missions, picture_note, pictures


@app.cell(hide_code=True)
def _(all_views, cache, episode_field, tabs):
    player = ""
    if all_views or tabs.value == "Episode":
        try:
            from film.player import build_player
            from film.scenes import SCENE_ERRORS
        except ImportError as error:
            player = show_note(f"The grid cannot be shown without minigrid: pip install minigrid ({error}).")
        else:
            try:
                _film = build_player(cache, episode_field.value)
                player = show_player(_film.html, _film.size)
            except SCENE_ERRORS as error:
                player = show_note(f"The episode cannot be played again: {error}")
    return (player,)


@app.cell(hide_code=True)
def _(
    all_views,
    analysis_field,
    cache,
    counts_field,
    data,
    episode_field,
    event_field,
    groups,
    missions,
    pair,
    pair_problem,
    part_field,
    picture_note,
    pictures,
    player,
    scale_field,
    state_field,
    tabs,
    window_field,
):
    _heatmaps = {"show_counts": counts_field.value, "pictures": pictures, "missions": missions}
    _grouped = {"group_by": analysis_field.value, "state": state_field.value, "scale": scale_field.value}
    _steps = (window_field.value, window_field.value)
    _options = ViewOptions(episode_field.value, event_field.value, *_steps, **_grouped, **_heatmaps)
    _part, _suffix = data, ""
    if part_field.value is not None:
        _part = groups[part_field.value]
        _suffix = f"_{analysis_field.value}_{file_word(groups.labels[part_field.value])}"
    _supported = list_views(data)
    figures, parts = {}, []
    for _tab in TABS if all_views else [tabs.value]:
        for _view in TABS[_tab]:
            if _view not in _supported:
                _why = "" if all_views or figures else describe_lack(data, _view)
                parts += [show_note(f"{_tab}: {_why}")] if _why else []
                continue
            _whole = _view in WHOLE_VIEWS
            _name = analysis_field.value if _view == "overall" else _view
            _drawn, _problem = attempt(partial(draw_view, data if _whole else _part, _name, _options), {})
            _drawn = {f"{name}{'' if _whole else _suffix}": figure for name, figure in _drawn.items()}
            figures |= _drawn
            parts += [player] if _view == "episode" and player else []
            parts += [show_figure(figure, name) for name, figure in _drawn.items()]
            parts += [show_note(note) for note in (_problem, picture_note if _view == "overall" else "") if note]
    if pair is not None:
        _marks = {"scale": scale_field.value, "show_counts": counts_field.value, "title": data.title}
        _figure, _problem = attempt(partial(plot_what_if, *pair, analysis_field.value, **_marks), None)
        _name = f"routing_what_if_{file_word(pair[1].name)}_by_{analysis_field.value}"
        figures |= {_name: _figure} if _figure else {}
        parts += [show_note(_problem)] if _problem else [show_figure(_figure, _name)]
        parts += [] if _problem else [show_table(what_if_table(compare_groups(*pair, analysis_field.value)))]
        parts += [] if _problem else [show_caption(TABLE_NOTE)]
    parts += [show_note(f"What if: {pair_problem}")] if pair_problem else []
    parts += [show_table(metrics_table(cache.metrics))] if all_views or tabs.value != "What if" else []
    return figures, parts


@app.cell(hide_code=True)
def _(cache, page, parts, place_field):
    mo.stop(not page)
    try:
        write_page(page, f"Routing: {place_field.selected_key}", [mo.md(describe_cache(cache)).text, *parts])
    except OSError as error:
        sys.exit(f"--page {page}: cannot be written ({error.strerror}); expected the path of a file")
    return


if __name__ == "__main__":
    app.run()
