"""Checkpoints for tests: what a run saves, and what outside code of this model family does."""

from pathlib import Path

import numpy as np
import torch
from torch import nn

from mixture_of_experts import MixtureOfExpertsPolicy
from pipeline.config import TrainConfig
from pipeline.engine.packed import pack_replicas
from pipeline.policies import build_policy, build_projection

ENCODER = {"kind": "builtin", "name": "builtin", "fingerprint": "f" * 64, "width": 12}
SMALL = {
    "input_dim": 6,
    "lang_dim": 3,
    "intermediate_dim": 8,
    "router_hidden_size": 5,
    "hidden_size": 7,
    "expert_hidden_sizes": [[0, 3], [2, 0, 4]],
}


def make_content(config: TrainConfig, **changes) -> dict:
    """Return what a training run saves, with an untrained policy."""
    return {
        "policy_state_dict": build_policy(config).state_dict(),
        "optimizer_state_dict": {},
        "config": {**config.to_dict(), "num_actions": 7, "update": 12},
        "update": 12,
        "lang_proj_state_dict": build_projection(config, 12).state_dict(),
        "lang_encoder": ENCODER,
        "resume": None,
        **changes,
    }


def logits_of(policy: nn.Module, obs_dim: int = 6, lang_dim: int = 3) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    obs, lang = (torch.randn(1, 4, 2, width, generator=generator) for width in (obs_dim, lang_dim))
    with torch.no_grad():
        packed = pack_replicas([policy])
        return packed.sequence(obs, lang, packed.init_hidden(2), torch.zeros(1, 4, 2, dtype=torch.bool)).logits


FOREIGN_SIZES = [
    [[0, 16, 32]] * 3,
    [[16, 0, 32]],
    [[4, 0], [0, 0, 4, 0]],
    [[3]],
]


def make_foreign(sizes: list[list[int]] = FOREIGN_SIZES[0], **changes) -> dict:
    """Return a checkpoint as outside code of this family writes it, with numpy numbers in its config."""
    torch.manual_seed(0)
    policy = MixtureOfExpertsPolicy(np.int64(152), 24, sizes, 12, 7, 32)
    return {
        "policy_state_dict": policy.state_dict(),
        "config": {
            "task_id": "BabyAI-GoToObj-v0",
            "trial": np.int64(2),
            "num_envs": np.int64(8),
            "unroll_len": np.int32(16),
            "lr": np.float64(3e-4),
            "lpc_alpha": np.float32(0.5),
            "normalize_lpc": np.bool_(True),
            "expert_hidden_sizes": [[np.int64(99)]],  # the weights know better
            "hidden_dim_of_another_project": np.int64(5),
            "max_steps": None,
        },
        "update": np.int64(1000),
        "lang_proj_state_dict": nn.Linear(768, 32).state_dict(),
        **changes,
    }


def save_foreign(path: Path, content: dict) -> Path:
    torch.save(content, path)
    return path


def flip_in(path: Path, tensor: torch.Tensor) -> None:
    """Change a byte of a tensor within a file."""
    data, values = bytearray(path.read_bytes()), tensor.numpy().tobytes()
    assert data.count(values) == 1
    data[data.index(values) + len(values) // 2] ^= 0x10
    path.write_bytes(data)


def fill_disk(monkeypatch) -> None:
    """Let torch.save fail as it does on a full disk, of which it tells as of a mistake of its own."""

    def full(*_: object) -> None:
        try:
            raise OSError(28, "No space left on device")
        except OSError:
            raise RuntimeError("unexpected pos 40832 vs 40720")  # noqa: B904

    monkeypatch.setattr(torch, "save", full)
