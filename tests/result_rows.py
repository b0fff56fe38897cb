"""Rows of results as `read_results` gives them, for tests of what is made from them."""

from pipeline.records.cells import COLUMNS

SIZES = [[0, 16, 32], [0, 16, 32]]


def row(success, lpc, *, seed=0, trial=1, update=100, task="BabyAI-GoToObj-v0", final=True, digest=None, **more):
    """Return a row as `read_results` gives it; LPC differs between outcomes unless told otherwise."""
    found = dict.fromkeys(COLUMNS)
    found |= {
        "checkpoint_path": f"c/{task}/trial_{trial}/seed_{seed}/checkpoint_{'final' if final else update}.pt",
        "checkpoint_digest": digest or f"{task} {trial} {seed} {update}",
        "task_id": task,
        "trial": trial,
        "seed": seed,
        "update": update,
        "num_episodes": 100,
        "success_rate": success,
        "mean_lpc": lpc,
        "policy": "moe" if lpc is not None else "gru",
        "expert_hidden_sizes": SIZES if lpc is not None else None,
        "lpc_alpha": 1e-5,
        "num_updates": 100,
    }
    if lpc is not None:
        found |= {"mean_lpc_per_episode": 0.9 * lpc, "mean_lpc_success": 0.8 * lpc, "mean_lpc_timeout": 1.3 * lpc}
    return found | more


def constant(lpc):
    """Return what a router that always costs the same leaves in a row."""
    return {"mean_lpc_per_episode": lpc, "mean_lpc_success": lpc, "mean_lpc_timeout": lpc * (1 + 1e-7)}


SEEDS = [row(0.9, 100.0, seed=0), row(0.8, 200.0, seed=1), row(0.4, 600.0, seed=2)]
"""Three runs of one setting."""
