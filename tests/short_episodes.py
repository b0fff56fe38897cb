"""Short episodes of an untrained policy, to replay and to film."""

from pathlib import Path

import torch

from babyai.missions import build_mission_encoder
from mixture_of_experts import MixtureOfExpertsPolicy
from pipeline.evaluation.play import Evaluation, evaluate
from pipeline.records.cache import Cache, read_cache, write_cache

TASK = "BabyAI-GoToObjS4-v0"


def play_short_episodes() -> Evaluation:
    """Return six episodes of at most six steps, with their routing."""
    torch.manual_seed(0)
    policy = MixtureOfExpertsPolicy(152, 8, [[0, 4, 8], [0, 4, 8]], 8, 7, lang_dim=32)
    encoder = build_mission_encoder("builtin")
    projection = torch.nn.Linear(encoder.width, 32)
    return evaluate(policy, encoder, projection, TASK, range(6), max_steps=6)


def write_short_episodes(path: Path) -> Cache:
    """Write these episodes as a cache; return it."""
    played = play_short_episodes()
    header = {"checkpoint_path": "checkpoint_final.pt", "evaluated_at": "2026-01-02T03:04:05+00:00"}
    header |= {"task_id": TASK, "max_steps": 6}
    write_cache(path, header=header, metrics=played.metrics, episodes=played.episodes, routing=played.routing)
    return read_cache(path)
