"""Caches for tests: written from drawn tables, read in every way."""

import json

from pipeline.records.cache import CacheError, read_cache, read_header, write_cache
from pipeline.records.metrics import compute_metrics
from tests.tables import SIZES, random_tables

HEADER = {
    "checkpoint_path": "checkpoints/BabyAI-GoToObj-v0/trial_1/seed_0/checkpoint_final.pt",
    "checkpoint_digest": "ab" * 32,
    "task_id": "BabyAI-GoToObj-v0",
    "trial": 1,
    "seed": 0,
    "update": None,
    "eval_seed": 0,
    "max_steps": None,
    "evaluated_at": "2026-01-02T03:04:05+00:00",
}


def write(path, seed=0, lengths=(3, 2), sizes=SIZES, *, record=True, **options):
    routing, episodes = random_tables(seed, list(lengths), sizes)
    metrics = compute_metrics(episodes, bot_plan_failures=1)
    routing = routing if record else None
    write_cache(path, header=HEADER, metrics=metrics, episodes=episodes, routing=routing, **options)
    return routing, episodes, metrics


def load(path):
    def refuse(name):
        raise AssertionError(f"{name} is no JSON")

    return json.loads(path.read_text(encoding="utf-8"), parse_constant=refuse)


def read_all(path):
    """What a careless reader does; every failure is to be a CacheError that names the file."""
    try:
        read_header(path)
    except CacheError as error:
        assert str(path) in str(error)
    return read_cache(path)
