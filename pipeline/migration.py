"""Checkpoints written by other code of this model family, which have fewer keys, brought into today's form."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from babyai.missions import FOREIGN_DESCRIPTION
from pipeline.config import LATER_FIELDS, TrainConfig
from pipeline.plain_objects import NumpyArray

_FIELDS = (
    "task_id",
    "trial",
    "seed",
    "num_envs",
    "unroll_len",
    "num_updates",
    "lr",
    "lpc_alpha",
    "normalize_lpc",
    "max_steps",
)


def fill_config(content: dict[str, Any]) -> dict[str, Any]:
    """Return a checkpoint of this project whose config says all of today's fields.

    One that was written before a policy could learn many levels says nothing of them; it was trained on one. One from
    before there were encodings of observations sees the raw codes.
    """
    config = content.get("config")
    return {**content, "config": {**LATER_FIELDS, **config}} if isinstance(config, dict) else content


def migrate_foreign(content: dict[str, Any]) -> dict[str, Any]:
    """Return a checkpoint of outside code of this model family in today's form.

    Such a checkpoint may lack `policy`, `lang_encoder`, sizes, and hold arrays in its config. Sizes are read
    from the weights, which cannot be wrong about them; of the rest only what evaluation or a table of results needs is
    kept, and what it does not say is listed as `unknown_fields`. One without the mission projection is refused: it was
    random, so with another one every instruction would be noise.

    Raises:
        ValueError: If the projection is missing or the weights are of no known policy.
    """
    if not isinstance(content.get("lang_proj_state_dict"), dict):
        raise ValueError(
            "has no lang_proj_state_dict. The projection of the mission was random when this was trained; "
            "with another one its instructions would be noise. Evaluate it where it was trained, or train again"
        )
    weights = content["policy_state_dict"]
    try:
        sizes = _sizes_from_weights(weights, lang_dim=content["lang_proj_state_dict"]["weight"].shape[0])
        num_actions = weights["head.weight"].shape[0]
    except (KeyError, AttributeError, IndexError, TypeError, ValueError) as error:
        raise ValueError(
            f"expected the weights of MixtureOfExpertsPolicy, StatefulMoPPolicy or GRUPolicy, found "
            f"{sorted(map(str, weights))[:6]} (missing {error})"
        ) from None
    try:
        config = {key: _plain(value) for key, value in (content.get("config") or {}).items()}
        update = int(_plain(content.get("update", config.get("update", 0))))
        kept = {key: config[key] for key in _FIELDS if config.get(key) is not None}
        resolved = TrainConfig(**{**kept, **sizes, "lang_encoder": FOREIGN_DESCRIPTION["name"]})
    except (TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"its config cannot be used: {error}") from None
    told = {*kept, *sizes, "lang_encoder"}
    return {
        **content,
        "config": {**resolved.to_dict(), "num_actions": num_actions, "update": update},
        "update": update,
        "unknown_fields": sorted({field.name for field in dataclasses.fields(TrainConfig)} - told),
        "lang_encoder": dict(FOREIGN_DESCRIPTION),
        "resume": None,
    }


def _plain(value: Any) -> Any:
    """Return arrays and tensors as lists, those of one element as Python numbers, also within lists."""
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    if isinstance(value, Tensor) and value.numel() == 1:
        return value.item()
    return value.tolist() if isinstance(value, Tensor | NumpyArray) else value


def _sizes_from_weights(weights: Mapping[str, Tensor], lang_dim: int) -> dict[str, Any]:
    """Return the fields of a config that a policy's weights determine.

    Raises:
        KeyError: If an expected weight is missing.
    """
    if "gru.weight_ih_l0" in weights:
        return {
            "policy": "gru",
            "hidden_size": weights["gru.weight_hh_l0"].shape[1],
            "input_dim": weights["gru.weight_ih_l0"].shape[1] - lang_dim,
            "lang_dim": lang_dim,
        }
    layers = 1 + max(int(key.split(".")[1]) for key in weights if key.startswith("moe_layers."))
    sizes = []
    for layer in range(layers):
        experts = weights[f"moe_layers.{layer}.router.fc.weight"].shape[0]
        names = [f"moe_layers.{layer}.experts.{expert}.gru.weight_hh_l0" for expert in range(experts)]
        sizes.append([weights[name].shape[1] if name in weights else 0 for name in names])
    return {
        "policy": "mop" if "norms.0.weight" in weights else "moe",
        "expert_norm": "layer" if any(".norm." in key for key in weights) else "none",
        "expert_hidden_sizes": sizes,
        "intermediate_dim": weights["input_projection.weight"].shape[0],
        "input_dim": weights["input_projection.weight"].shape[1] - lang_dim,
        "lang_dim": lang_dim,
        "router_hidden_size": weights["moe_layers.0.router.gru.weight_hh_l0"].shape[1],
    }
