"""Aggregation of recorded routing and its figures, in one place; stateless, without torch and minigrid.

    from pipeline.records.cache import read_cache
    from plotting_utils import plot_grouped_routing, plot_overall_routing, save_figure
    cache = read_cache("evaluation_cache/BabyAI-GoToObj-v0/trial_1/seed_0/routing_data.json")
    save_figure(plot_overall_routing(cache), "plots/BabyAI-GoToObj-v0/trial_1/seed_0/routing_heatmap.png")

    python plotting_utils.py --cache evaluation_cache/BabyAI-GoToObj-v0/trial_1/seed_0/routing_data.json --list
    python plotting_utils.py --all_caches evaluation_cache --view starting_room,paths --formats png,pdf
    python plotting_utils.py --results evaluation_results.csv --view success_lpc

It re-exports from the package `plotting`: `plotting.data` is what all functions take, `plotting.aggregate` the numbers,
`plotting.cells` single maps, `plotting.heatmaps` whole figures, `plotting.style` colours, fonts and saving,
`plotting.views` every view by its name, `plotting.command` the command line.
"""

if __name__ == "__main__":
    import sys

    from plotting.command import main

    sys.exit(main())
else:  # the command line needs none of it before it has read its flags
    from pipeline.records.intervals import group_means, mean_interval, share_interval
    from plotting.across import plot_success_against_lpc, plot_task_bars
    from plotting.actions import plot_actions_by, plot_cell_actions
    from plotting.aggregate import (
        PositionAverages,
        RoutingGroups,
        aggregate_routing_by_position,
        compute_grid_bounds,
        get_available_analyses,
        group_routing_data,
        room_labels_for_groups,
    )
    from plotting.association import compute_associations, plot_associations
    from plotting.behaviour import compute_behaviour, plot_behaviour
    from plotting.cells import (
        draw_expert_legend,
        render_lpc_heatmap,
        render_routing_heatmap,
        render_visits_heatmap,
    )
    from plotting.data import RoutingData, as_routing_data
    from plotting.distributions import (
        compute_entropy,
        compute_path_frequencies,
        plot_action_frequencies,
        plot_entropy_distribution,
        plot_path_frequencies,
        plot_weight_distributions,
    )
    from plotting.elapsed import compute_elapsed, plot_elapsed
    from plotting.heatmaps import plot_grouped_routing, plot_overall_routing
    from plotting.levels import draw_level
    from plotting.logs import read_logs
    from plotting.options import parse_width
    from plotting.origin import describe_origin
    from plotting.prices import find_price_series, plot_price_maps
    from plotting.relations import (
        compute_distance_profile,
        compute_specialisation,
        plot_distance_profiles,
        plot_specialisation,
    )
    from plotting.replicates import join_runs
    from plotting.runs import collect_runs, group_settings, last_checkpoints, pareto_front
    from plotting.scales import compute_lpc_scale
    from plotting.source import source_of, write_source
    from plotting.style import (
        EXPERT_CMAPS,
        EXPERT_COLORS,
        UNVISITED_COLOR,
        alpha_color,
        expert_colors,
        expert_labels,
        figure_size,
        figure_style,
        save_figure,
    )
    from plotting.sweeps import plot_alpha_sweep, plot_learning_over_updates
    from plotting.task_maps import plot_task_heatmaps
    from plotting.temporal import compute_event_aligned, find_events, plot_episode, plot_event_aligned
    from plotting.views import ViewOptions, draw_results_view, draw_view, list_views
    from plotting.what_if import plot_what_if
    from plotting.without_time import plot_without_time
