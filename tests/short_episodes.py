"""Short episodes of an untrained policy, to replay and to film."""

import torch

from babyai.missions import build_mission_encoder
from mixture_of_experts import MixtureOfExpertsPolicy
from pipeline.evaluation.play import Evaluation, evaluate

TASK = "BabyAI-GoToObjS4-v0"


def play_short_episodes() -> Evaluation:
    """Return six episodes of at most six steps, with their routing."""
    torch.manual_seed(0)
    policy = MixtureOfExpertsPolicy(152, 8, [[0, 4, 8], [0, 4, 8]], 8, 7, lang_dim=32)
    encoder = build_mission_encoder("builtin")
    projection = torch.nn.Linear(encoder.width, 32)
    return evaluate(policy, encoder, projection, TASK, range(6), max_steps=6)
