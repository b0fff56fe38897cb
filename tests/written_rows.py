"""Rows of results to be written, for tests of the file that they go to."""

ROW = {
    "checkpoint_path": "checkpoints/BabyAI-GoToObj-v0/trial_1/seed_0/checkpoint_final.pt",
    "task_id": "BabyAI-GoToObj-v0",
    "trial": 1,
    "num_episodes": 100,
    "success_rate": 0.93,
    "lr": 1e-4,
    "lpc_alpha": 0.0,
    "expert_hidden_sizes": [[0, 16, 32], [0, 16]],
    "max_steps": None,
    "normalize_lpc": False,
    "has_routing": True,
    "eval_seed": 0,
    "checkpoint_digest": "ab" * 32,
}


def row(k=0, **changes):
    """Return a row of checkpoint k."""
    return {**ROW, "checkpoint_path": f"checkpoints/{k}.pt", **changes}
