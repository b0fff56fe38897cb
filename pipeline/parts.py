"""Parts of a policy by name, of which some can be trained while the others stay; and whose weights a run starts from.

parse_parts("router,head")                           # ["router", "head"]
part_of("moe_layers.0.router.gru.weight_ih_l0")      # "router"
fill_start("checkpoints/six/trial_1/seed_{seed}/checkpoint_final.pt", 3)
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.command.errors import ConfigError, check_known

PARTS: Mapping[str, str] = {
    "input": r"(encoder|input_projection|mission_scale)\.",
    "router": r"moe_layers\.\d+\.router\.",
    "experts": r"moe_layers\.\d+\.experts\.",
    "norms": r"norms\.",
    "gru": r"gru\.",
    "head": r"head\.",
    "mission": r"lang_proj\.",
}
"""Each part with how names of its weights in a checkpoint begin (a regular expression).

What turns observation and mission into features, with the table of an embedding; all layers' routers; all layers'
experts; the LayerNorms behind the blocks of policy mop; the memory of policy gru; the last map, to actions; the mission
projection, where it is trained.
"""

ONLY_OF: Mapping[str, tuple[str, ...]] = {
    "router": ("moe", "mop"),
    "experts": ("moe", "mop"),
    "norms": ("mop",),
    "gru": ("gru",),
}
"""Parts that not every policy has, with the policies that have them."""

SEED = "{seed}"
"""What stands for a run's seed in `start_from`."""

LATER_PARTS: dict[str, Any] = {"start_from": None, "train_only": None}
"""Fields of settings that choose them, with what they are where they play no part."""


def part_of(name: str) -> str:
    """Return the part that a weight belongs to.

    Args:
        name: As a policy's state dict has it; with `lang_proj.` before it of the mission projection.

    Raises:
        ValueError: If it belongs to none.
    """
    for part, begin in PARTS.items():
        if re.match(begin, name):
            return part
    raise ValueError(f"{name}: expected a weight of {', '.join(PARTS)}")


def parse_parts(value: Any, field: str = "train_only") -> list[str] | None:
    """Return parts from what YAML or a flag has, `[router, head]` or `router,head`; None where all are trained.

    Raises:
        ConfigError: If they are no list of known parts, each once.
    """
    if value is None or value == "null":
        return None
    names = value.strip().removeprefix("[").removesuffix("]").split(",") if isinstance(value, str) else value
    if not isinstance(names, list | tuple) or not names or not all(isinstance(name, str) for name in names):
        raise ConfigError(f"{field}: expected some of {', '.join(PARTS)}, such as [router, head], found {value!r}")
    names = [name.strip() for name in names]
    for name in names:
        check_known(field, [name], PARTS)
        if names.count(name) > 1:
            raise ConfigError(f"{field}: expected each part once, found {name} twice")
    return [part for part in PARTS if part in names]


def check_parts(parts: list[str] | None, policy: str, train_lang_proj: bool, obs_encoding: str) -> None:
    """Refuse parts that a policy does not have, or does not train.

    Raises:
        ConfigError: If one is so.
    """
    has = [name for name in PARTS if policy in ONLY_OF.get(name, (policy,)) and name != "mission"]
    why = ""
    if (policy, obs_encoding) == ("gru", "raw"):
        has.remove("input")
        why = " with obs_encoding raw, which its GRU reads itself,"
    for part in parts or ():
        if part not in (*has, "mission"):
            raise ConfigError(f"train_only: policy {policy}{why} has {', '.join(has)}; found {part!r}")
        if part == "mission" and not train_lang_proj:
            raise ConfigError(
                "train_only: expected train_lang_proj: true with mission, found false: the mission projection is frozen"
            )


def parse_start(value: Any) -> str | None:
    """Return the path of a checkpoint, in which `{seed}` may stand for a run's seed; None where there is none.

    Raises:
        ConfigError: If it is no such path.
    """
    if value is None or value == "null":
        return None
    if not isinstance(value, str) or not value.strip() or re.search(r"[{}]", value.replace(SEED, "")):
        raise ConfigError(
            f"start_from: expected the path of a checkpoint, in which {SEED} stands for a run's seed, found {value!r}"
        )
    return value


def fill_start(start_from: str | None, seed: int) -> Path | None:
    """Return the checkpoint that a run starts from."""
    return None if start_from is None else Path(start_from.replace(SEED, str(seed)))
