"""Small caches, results and a checkpoint for the tests of notebooks, made without training."""

from dataclasses import replace
from pathlib import Path

from pipeline.places import checkpoint_path, find_checkpoints, run_folder
from pipeline.records.adding import append_result
from pipeline.records.cache import cache_path, write_cache
from pipeline.records.metrics import compute_metrics
from tests.tables import build_context, random_tables

TASKS = ("BabyAI-GoToObj-v0", "BabyAI-Unlock-v0")
SIZES = [[0, 16, 32], [0, 16, 32]]
ALPHAS = (1e-5, 2e-5)


def write_example(folder: Path) -> dict[str, str]:
    """Write a cache of each of two tasks and rows of results; return the notebooks' flags that lead there."""
    flags = name_folders(folder)
    for number, task_id in enumerate(TASKS):
        routing, episodes = random_tables(number, [5, 9, 1, 12], SIZES)
        routing = replace(routing, position=routing.position % 6 + 1)  # within the first room
        level = (_two_rooms, build_context)[number]  # grids of different shapes, and so figures
        episodes = replace(episodes, env_context=tuple(level(k) for k in range(len(episodes))))
        metrics = compute_metrics(episodes, bot_plan_failures=0)
        for seed, update in ((0, None), (0, 100), (1, None)):
            name = "final" if update is None else update
            header = {
                "checkpoint_path": f"checkpoints/{task_id}/trial_1/seed_{seed}/checkpoint_{name}.pt",
                "task_id": task_id,
                "trial": 1,
                "seed": seed,
                "update": update or 200,
                "eval_seed": 0,
                "max_steps": None,
                "evaluated_at": "2026-03-01T12:00:00+00:00",
                "expert_hidden_sizes": SIZES,
                "config": {"lpc_alpha": ALPHAS[number]},
            }
            path = cache_path(flags["cache_dir"], task_id, 1, seed, update)
            write_cache(path, header=header, metrics=metrics, episodes=episodes, routing=routing)
            model = {"policy": "moe", "lpc_alpha": ALPHAS[number], "checkpoint_digest": f"{number}{seed}{name}"}
            append_result(flags["results_path"], {**header, **metrics, **model, "num_episodes": len(episodes)})
    return flags


def write_trained(folder: Path, sizes: list[list[int]] = SIZES) -> dict[str, str]:
    """Write an untrained checkpoint, its cache and its row; return the notebooks' flags that lead there."""
    from pipeline.evaluation.fresh import evaluate_fresh, keep_fresh
    from pipeline.evaluation.settings import EvaluationSettings
    from tests.pipeline.training.test_training import debug_config, train

    flags, config = name_folders(folder), debug_config(expert_hidden_sizes=sizes, max_steps=12)
    path = checkpoint_path(run_folder(flags["checkpoint_dir"], config), None)
    path.parent.mkdir(parents=True)
    train(config, 0).save(0, path)
    (place,) = find_checkpoints(flags["checkpoint_dir"])
    cache = evaluate_fresh(place, EvaluationSettings(num_episodes=8))
    keep_fresh(cache, cache_path(flags["cache_dir"], *place.run), flags["results_path"])
    return flags


def name_folders(folder: Path) -> dict[str, str]:
    """Return the flags of the notebooks for a folder that may be empty."""
    return {
        "cache_dir": str(folder / "evaluation_cache"),
        "checkpoint_dir": str(folder / "checkpoints"),
        "results_path": str(folder / "evaluation_results.csv"),
        "plots_dir": str(folder / "plots"),
        "studies_dir": str(folder / "studies"),
    }


def _two_rooms(k: int) -> dict:
    rooms = {"room_grid_shape": [2, 1], "room_bounds": [[0, 0, 8, 8], [7, 0, 8, 8]]}
    return {**build_context(k), **rooms, "grid_size": [15, 8], "agent_start_room": [7 * (k % 2), 0]}
