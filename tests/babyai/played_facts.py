"""Facts as the vector environment records them, episode by episode."""

import numpy as np

from babyai.facts import EVENT_NAMES, FACT_FIELDS, FORWARD, OBJECT_NAMES
from babyai.level_seeds import SeedList
from babyai.steps import VectorStep
from babyai.vector_env import VectorEnv

FIELDS = [name for name, *_ in FACT_FIELDS]


def follow_expert(step: VectorStep) -> np.ndarray:
    return np.where(step.expert_valid, step.expert_action, FORWARD)


def play(task_id: str, seeds, num_envs: int = 1, act=follow_expert, **options) -> dict[int, tuple]:
    """Every episode by level seed: its end, its rows of facts, the actions taken, the events that these caused."""
    env = VectorEnv(task_id, num_envs, SeedList(seeds), plan_every=1, record=True, **options)
    step, episodes = env.reset(), {}
    open_rows: list[list] = [[] for _ in range(num_envs)]
    while step.active.any():
        actions = act(step)
        following = env.step(actions)
        for slot in np.flatnonzero(step.active):
            row = {name: getattr(step.facts, name)[slot] for name in FIELDS if not name.startswith("event")}
            row["event"] = EVENT_NAMES[following.facts.event[slot]]
            thing = following.facts.event_object[slot]
            row["object"] = OBJECT_NAMES[thing] if thing >= 0 else None
            row["action"], row["valid"] = int(actions[slot]), bool(step.expert_valid[slot])
            open_rows[slot].append(row)
        for end in following.ended:
            assert len(open_rows[end.slot]) == end.steps
            episodes[end.level_seed] = end, open_rows[end.slot]
            open_rows[end.slot] = []
        step = following
    return episodes
