"""The typed configuration of a training run: one dataclass, read from YAML and flags, checked before anything starts.

    python train_mop.py --config config.yaml --seed 3 --lpc_alpha 1e-4

Precedence is flag > YAML > default, wherever `--config` stands. jsonargparse does the parsing, the type checks and
`--help`.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import UnionType
from typing import Any, Literal, get_args, get_origin, get_type_hints

import yaml

ALIASES = {
    "mop_layers": "expert_hidden_sizes",
    "mop_intermediate_dim": "intermediate_dim",
    "mop_router_dim": "router_hidden_size",
}
"""Other spellings of fields, from outside code of this model family."""

NOT_IDENTITY = frozenset(
    {
        "num_updates",
        "log_interval",
        "checkpoint_dir",
        "checkpoint_interval",
        "log_dir",
        "tensorboard",
        "wandb_project",
        "eval_interval",
        "eval_episodes",
        "final_eval_episodes",
        "lang_encoder",
        "device",
        "torch_threads",
    }
)
"""Fields that may change when a run is resumed.

The first do not change what the weights are after a given update. An encoder is recognised by its weights, which are
verified when it is loaded, not by its name or folder. Device and threads change results in the last bits only.
"""


class ConfigError(ValueError):
    """A configuration that cannot be used; the message names key, expectation and what was found."""


@dataclass(frozen=True)
class TrainConfig:
    """Settings of one training run.

    Attributes:
        task_id: BabyAI level family, e.g. BabyAI-GoToObj-v0 or GoToObj; `python -m babyai.levels` lists them.
        trial: Number of the experiment; runs that differ in more than the seed get different trials.
        seed: Fixes everything random: weights, mission projection, levels, action sampling, dropout.
        policy: moe (plain Mixture-of-Experts) or mop (the paper's block: ReLU, residual, LayerNorm). train.py sets gru.
        num_envs: Environments stepped together.
        unroll_len: Steps between two weight updates; gradients stop at its borders.
        num_updates: Weight updates in all; env-steps = num_updates x num_envs x unroll_len.
        lr: Learning rate of Adam.
        grad_clip: Largest norm of the gradient; null leaves it alone.
        action_selection: How the student acts while it learns. greedy or sample.
        expert_action_prob: Probability at update 0 that a step executes the expert's action instead of the student's.
        expert_action_decay: Updates over which that probability falls linearly to 0; 0 keeps it constant.
        input_dim: Width of the observation vector (7 x 7 x 3 view + 4 directions + 1 carrying).
        lang_dim: Width to which the mission's sentence vector is projected.
        lang_encoder: auto, builtin, a Hugging Face id, or a local folder. auto takes DistilBERT where it can be had.
        train_lang_proj: Train the mission projection; false keeps it random and frozen, the classic setup.
        intermediate_dim: Width between the layers.
        expert_hidden_sizes: Expert sizes, one list per layer; 0 is a free skip connection.
        router_hidden_size: Width of each router's GRU.
        expert_norm: LayerNorm in the experts of policy mop. none or layer.
        hidden_size: Width of the baseline's GRU (train.py only).
        lpc_alpha: Price of complexity; the penalty is lpc_alpha x LPC (see normalize_lpc). 0 makes experts free.
        normalize_lpc: Divide the penalty by (task loss + lpc_eps), equation 2 of the paper.
        lpc_denominator: detached (no gradient through that division) or paper (as published; see docs/training.md).
        lpc_eps: Added to that denominator.
        lpc_exponent: Cost of an expert is its size to this power.
        expert_dropout: Drop experts that the router hardly uses while training (equation 3 of the paper).
        expert_dropout_beta: Largest drop probability.
        expert_dropout_gamma: Routing weight above which an expert is never dropped.
        max_steps: Steps after which an episode is cut; null takes the level's own limit.
        plan_every: Every k-th level of each environment is solved by the expert first, for the path ratio; 0 = never.
        window: Episodes over which success rate and path ratio are averaged.
        log_interval: Updates between two lines of metrics.
        checkpoint_dir: Folder of all checkpoints.
        checkpoint_interval: Updates between two checkpoints; 0 writes the final one only.
        log_dir: Folder of metrics (JSONL and TensorBoard).
        tensorboard: Write TensorBoard event files.
        wandb_project: Weights & Biases project; null leaves it off.
        eval_interval: Updates between two evaluations on fixed levels; 0 = none during training.
        eval_episodes: Levels of such an evaluation.
        final_eval_episodes: Levels of the evaluation that ends training; 0 = none.
        device: auto (GPU where there is one), cpu, cuda or cuda:N.
        torch_threads: CPU threads of torch; part of what fixes a run bit for bit.
    """

    task_id: str = "BabyAI-GoToObj-v0"
    trial: int = 1
    seed: int = 0
    policy: Literal["moe", "mop", "gru"] = "moe"
    num_envs: int = 16
    unroll_len: int = 32
    num_updates: int = 500
    lr: float = 1e-3
    grad_clip: float | None = None
    action_selection: Literal["greedy", "sample"] = "greedy"
    expert_action_prob: float = 0.0
    expert_action_decay: int = 0
    input_dim: int = 152
    lang_dim: int = 32
    lang_encoder: str = "auto"
    train_lang_proj: bool = False
    intermediate_dim: int = 64
    expert_hidden_sizes: list[list[int]] = field(default_factory=lambda: [[0, 16, 32]] * 3)
    router_hidden_size: int = 64
    expert_norm: Literal["none", "layer"] = "none"
    hidden_size: int = 128
    lpc_alpha: float = 0.0
    normalize_lpc: bool = False
    lpc_denominator: Literal["detached", "paper"] = "detached"
    lpc_eps: float = 1e-2
    lpc_exponent: float = 2.0
    expert_dropout: bool = False
    expert_dropout_beta: float = 0.8
    expert_dropout_gamma: float = 0.1
    max_steps: int | None = None
    plan_every: int = 8
    window: int = 100
    log_interval: int = 10
    checkpoint_dir: str = "checkpoints"
    checkpoint_interval: int = 500
    log_dir: str = "runs"
    tensorboard: bool = True
    wandb_project: str | None = None
    eval_interval: int = 0
    eval_episodes: int = 100
    final_eval_episodes: int = 200
    device: str = "auto"
    torch_threads: int = 1

    def __post_init__(self) -> None:
        """Check ranges; types have been checked by whoever read them."""
        object.__setattr__(self, "expert_hidden_sizes", parse_expert_sizes(self.expert_hidden_sizes))
        at_least_one = (
            "num_envs unroll_len num_updates input_dim lang_dim intermediate_dim router_hidden_size hidden_size window "
            "log_interval torch_threads"
        )
        for name in at_least_one.split():
            self._require(name, getattr(self, name) >= 1, "at least 1")
        at_least_zero = (
            "trial seed lpc_alpha expert_action_decay plan_every checkpoint_interval eval_interval eval_episodes "
            "final_eval_episodes"
        )
        for name in at_least_zero.split():
            self._require(name, getattr(self, name) >= 0, "0 or more")
        self._require("lpc_alpha", self.lpc_alpha < float("inf"), "a finite number")
        for name in ("lr", "lpc_eps", "lpc_exponent"):
            self._require(name, 0 < getattr(self, name) < float("inf"), "a positive number")
        for name in ("expert_action_prob", "expert_dropout_beta"):
            self._require(name, 0 <= getattr(self, name) <= 1, "a probability, 0 to 1")
        self._require("expert_dropout_gamma", 0 < self.expert_dropout_gamma <= 1, "a weight above 0, at most 1")
        self._require("grad_clip", self.grad_clip is None or self.grad_clip > 0, "a positive number or null")
        self._require("max_steps", self.max_steps is None or self.max_steps >= 1, "at least 1, or null")
        device = self.device.partition(":")
        self._require(
            "device",
            self.device in ("auto", "cpu", "cuda") or (device[0] == "cuda" and device[2].isdigit()),
            "auto, cpu, cuda or cuda:N",
        )

    def _require(self, name: str, holds: bool, expected: str) -> None:
        if not holds:
            raise ConfigError(f"{name}: expected {expected}, found {getattr(self, name)!r}")

    def to_dict(self) -> dict[str, Any]:
        """Return all fields as plain types."""
        return dataclasses.asdict(self)

    def identity(self) -> dict[str, Any]:
        """Return the fields that decide what the weights are after a given update."""
        return {name: value for name, value in self.to_dict().items() if name not in NOT_IDENTITY}


def parse_expert_sizes(value: Any) -> list[list[int]]:
    """Return expert sizes per layer from any accepted spelling.

    Accepted: `[[0, 16, 32], [0, 16, 32]]`, `[16, 32]` (one layer), `["32,64,128", "64,128,256"]`, `"16,32;32,64"`.

    Raises:
        ConfigError: If it is none of these.
    """
    expected = 'expected sizes such as [[0, 16, 32], [0, 16, 32]], [16, 32] or "16,32;32,64"'
    layers = value.split(";") if isinstance(value, str) else value
    if not isinstance(layers, list | tuple) or not layers:
        raise ConfigError(f"expert_hidden_sizes: {expected}, found {value!r}")
    if all(isinstance(entry, int) for entry in layers):
        layers = [layers]
    parsed = []
    for layer in layers:
        sizes = layer.split(",") if isinstance(layer, str) else layer
        try:
            whole = [int(size) for size in sizes if isinstance(size, int | str) and not isinstance(size, bool)]
        except (TypeError, ValueError):
            whole = []
        if not whole or len(whole) != len(sizes) or min(whole) < 0:
            raise ConfigError(f"expert_hidden_sizes: {expected}, found {value!r}")
        parsed.append(whole)
    return parsed


def read_yaml(path: str | Path) -> dict[str, Any]:
    """Return the mapping in a YAML file, with field names in place of their other spellings.

    Raises:
        ConfigError: If the file is missing, no valid YAML, no mapping, or names a field twice.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
        loaded = yaml.safe_load(text)
    except OSError as error:
        raise ConfigError(f"--config {path}: cannot be read ({error.strerror}); give the path of a YAML file") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"--config {path}: expected valid YAML, found: {error}") from None
    if loaded is None:
        return {}
    if not isinstance(loaded, dict):
        raise ConfigError(f"--config {path}: expected lines of `key: value`, found {type(loaded).__name__}")
    # From the nodes, because safe_load lets the last of several equal keys win without a word.
    written: dict[str, str] = {}
    for node, _ in yaml.compose(text, Loader=yaml.SafeLoader).value:
        name = ALIASES.get(node.value, node.value)
        if name in written:
            raise ConfigError(f"--config {path}: {name} is given twice (as {written[name]} and as {node.value})")
        written[name] = node.value
    values = {ALIASES.get(key, key): value for key, value in loaded.items()}
    if "expert_hidden_sizes" in values:
        values["expert_hidden_sizes"] = parse_expert_sizes(values["expert_hidden_sizes"])
    return values


def _split_argv(argv: Sequence[str]) -> tuple[str | None, list[str]]:
    """Return the path after `--config` and the other arguments, with field names in place of other spellings."""
    path, rest = None, []
    tokens = list(argv)
    while tokens:
        token = tokens.pop(0)
        flag, has_value, value = token.partition("=")
        name = flag[2:].replace("-", "_") if flag.startswith("--") else ""
        name = ALIASES.get(name, name)
        if name in ("config", "expert_hidden_sizes"):
            if not has_value:
                if not tokens:
                    raise ConfigError(f"{flag}: expected a value after it")
                value = tokens.pop(0)
            if name == "config":
                path = value
                continue
            try:
                sizes = yaml.safe_load(value) if value.lstrip().startswith("[") else value
            except yaml.YAMLError:
                sizes = value
            rest += ["--expert_hidden_sizes", json.dumps(parse_expert_sizes(sizes))]
        else:
            rest.append(f"--{name}{has_value}{value}" if name else token)
    return path, rest


def build_parser(description: str, config_class: type = TrainConfig) -> Any:
    """Return a jsonargparse parser with one flag per field of a config class; help texts come from its docstring."""
    import jsonargparse  # lazily: whoever only wants the dataclass need not have it

    parser = jsonargparse.ArgumentParser(description=description, exit_on_error=False, allow_abbrev=False)
    parser.add_argument("--config", type=str, default=None, help="YAML file with any of the fields below.")
    parser.add_class_arguments(config_class)
    return parser


def parse_config(
    description: str,
    argv: Sequence[str] | None = None,
    *,
    extra_flags: dict[str, str] | None = None,
    **forced: Any,
) -> tuple[TrainConfig, dict[str, bool]]:
    """Return the configuration given by YAML and flags, and the extra switches.

    Args:
        description: What `--help` says first.
        argv: Arguments; those of the process by default.
        extra_flags: Switches that are no fields of the config, name -> help (e.g. resume).
        **forced: Fields that the script sets whatever YAML and flags say (the baseline's policy).

    Raises:
        ConfigError: On an unknown key, a wrong type or an impossible value.
    """
    parser = build_parser(description)
    for name, text in (extra_flags or {}).items():
        parser.add_argument(f"--{name}", action="store_true", help=text)
    path, rest = _split_argv(sys.argv[1:] if argv is None else argv)
    # jsonargparse wraps argparse's errors and its own in one another, hence `except Exception`.
    if path is not None:
        given = read_yaml(path)
        _check_keys(given, path)
        try:
            parsed = parser.parse_object(given)
        except Exception as error:
            raise ConfigError(f"--config {path}: {_explain(str(error), given)}") from None
        parser.set_defaults({key: parsed[key] for key in given})
    try:
        namespace = parser.parse_args(rest)
    except Exception as error:
        raise ConfigError(_explain(str(error), {})) from None
    values = namespace.as_dict()
    switches = {name: bool(values.pop(name)) for name in (extra_flags or {})}
    values.pop("config", None)
    return TrainConfig(**{**values, **forced}), switches


def _check_keys(given: dict[Any, Any], path: str) -> None:
    """Refuse unknown keys, and null for a field that takes none, which jsonargparse lets pass."""
    hints = get_type_hints(TrainConfig)
    for key, value in given.items():
        if key not in hints:
            raise ConfigError(f"--config {path}: {_unknown(str(key))}")
        if value is None and type(None) not in get_args(hints[key]):
            raise ConfigError(f"--config {path}: {key}: expected {_type_name(hints[key])}, found null")


def _unknown(key: str) -> str:
    known = {f.name for f in dataclasses.fields(TrainConfig)} | set(ALIASES)
    if key in known:
        return f"expected --{key}, found it without its two dashes"
    close = difflib.get_close_matches(key, sorted(known), n=3)
    hint = f"did you mean {' or '.join(close)}?" if close else "--help lists the known keys"
    return f"unknown key {key!r}; {hint}"


def _type_name(hint: Any) -> str:
    """Return a field's type in words: `float`, `float or null`, `one of moe, mop, gru`."""
    if get_origin(hint) is Literal:
        return f"one of {', '.join(map(str, get_args(hint)))}"
    parts = get_args(hint) if isinstance(hint, UnionType) else (hint,)
    return " or ".join("null" if part is type(None) else getattr(part, "__name__", str(part)) for part in parts)


_WRONG_TYPE = re.compile(r'Parser key "(\w+)": .*(?:Got|Given) value: (.*)')


def _explain(message: str, given: dict[str, Any]) -> str:
    """Return a message of jsonargparse in our form: what was expected, what was found, what to do.

    Args:
        message: Of the exception.
        given: Values by key as YAML has them; flags are text, so that the message itself says what was found.
    """
    text = " ".join(message.split())
    marker = "unrecognized arguments: "
    if marker in text:
        flag = text.split(marker, 1)[1].split()[0]
        return _unknown(flag.lstrip("-").partition("=")[0])
    if match := _WRONG_TYPE.search(text):
        key, found = match.groups()
        return f"{key}: expected {_type_name(get_type_hints(TrainConfig)[key])}, found {given.get(key, found)!r}"
    return text.removeprefix("error: ")


def resolved_yaml(config: TrainConfig) -> str:
    """Return a configuration as YAML text that `--config` reads back."""
    return yaml.safe_dump(config.to_dict(), sort_keys=False, default_flow_style=None)
