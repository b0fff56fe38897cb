"""The typed configuration of a training run: one dataclass, its ranges checked before anything starts."""

from __future__ import annotations

import dataclasses
import operator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml

from pipeline.command.errors import ConfigError
from pipeline.mixtures import OF_MIXTURES, check_mixture, parse_task_ids, parse_weights
from pipeline.parts import LATER_PARTS, check_parts, fill_start, parse_parts, parse_start

NOT_IDENTITY = frozenset(
    {
        "num_updates",
        "log_interval",
        "checkpoint_dir",
        "checkpoint_interval",
        "checkpoint_minutes",
        "checkpoint_updates",
        "log_dir",
        "tensorboard",
        "wandb_project",
        "eval_interval",
        "eval_episodes",
        "final_eval_episodes",
        "lang_encoder",
        "device",
        "torch_threads",
        "compile_policy",
    }
)
"""Fields that may change when a run is resumed.

The first do not change what the weights are after a given update. An encoder is recognised by its weights, which are
verified when it is loaded, not by its name or folder. Device and compilation change results in the last bits only.
"""

LATER_FIELDS: dict[str, Any] = {
    **OF_MIXTURES,
    "obs_encoding": "raw",
    **LATER_PARTS,
    "solo_env_share": 0.0,
    "mission_fusion": "concat",
}
"""Fields that came later, with what they are where they play no part: what a run that was saved before there were such
fields would have said."""


def parse_expert_sizes(value: Any) -> list[list[int]]:
    """Return expert sizes per layer from any accepted spelling, as `mixture_of_experts.normalize_expert_sizes` does.

    It is here for whoever does without torch; the model imports nothing of the project. A test holds the two equal.

    Accepted: `[[0, 16, 32], [0, 16, 32]]`, `[16, 32]` (one layer), `["32,64,128", "64,128,256"]`, `"16,32;32,64"`.

    Raises:
        ConfigError: If it is none of these.
    """
    try:
        layers = value.split(";") if isinstance(value, str) else list(value if isinstance(value, list | tuple) else ())
        if not any(isinstance(layer, str | list | tuple) for layer in layers):
            layers = [layers]
        sizes = [layer.split(",") if isinstance(layer, str) else list(layer) for layer in layers]
        parsed = [[operator.index(int(s) if isinstance(s, str) else s) for s in row] for row in sizes]
        usable = all(row and min(row) >= 0 for row in parsed)
        usable = usable and not any(isinstance(s, bool) for row in sizes for s in row)
    except (TypeError, ValueError):
        usable = False
    if not usable:
        expected = 'expected sizes such as [[0, 16, 32], [0, 16, 32]], [16, 32] or "16,32;32,64"'
        raise ConfigError(f"expert_hidden_sizes: {expected}, found {value!r}")
    return parsed


@dataclass(frozen=True)
class TrainConfig:
    """Settings of one training run.

    Metadata of a field is for the command line: other spellings, which outside code of this model family uses, and how
    its value is read (`pipeline.command.cli`).

    Attributes:
        task_id: BabyAI level family, e.g. BabyAI-GoToObj-v0 or GoToObj; `python -m babyai.levels` lists them. A list
            such as [GoToObj, PickupLoc] trains one policy on all of them.
        task_weights: Shares of the env-steps that the levels of a list get, e.g. [1, 1, 2]; null = equal ones.
        mixture: Name of the list, which names its folders where a level would; needed with a list, null otherwise.
        task_input: What the policy is told of the level beside the mission. none, or onehot (its place in the list).
        trial: Number of the experiment; runs that differ in more than the seed get different trials.
        seed: Fixes everything random: weights, mission projection, levels, action sampling, dropout.
        policy: moe (plain Mixture-of-Experts) or mop (the paper's block: ReLU, residual, LayerNorm). train.py sets gru.
        num_envs: Environments stepped together.
        unroll_len: Steps between two weight updates; gradients stop at its borders.
        num_updates: Weight updates in all; env-steps = num_updates x num_envs x unroll_len.
        lr: Learning rate of Adam.
        grad_clip: Largest norm of the gradient; null leaves it alone.
        start_from: Checkpoint whose weights the run starts from, those of the mission projection too; in its path
            {seed} stands for the run's seed. null = weights drawn from the seed.
        train_only: Parts of the policy that are trained, such as [router, head]; the others stay as they are, bit for
            bit. Parts are input, router, experts, norms, gru, head and mission; null = all.
        action_selection: How the student acts while it learns. greedy or sample.
        expert_action_prob: Probability at update 0 that a step executes the expert's action instead of the student's.
        expert_action_decay: Updates over which that probability falls linearly to 0; 0 keeps it constant.
        solo_env_share: Where the expert acts, share of each level's environments in which it never does and labels are
            not learned: success of recent episodes is that of these, the student's own. 0 = none; otherwise at least
            one of a level's, never all (none of a level that has but one).
        input_dim: Width of the observation vector (7 x 7 x 3 view + 4 directions + 1 carrying).
        obs_encoding: What the policy makes of the view's codes. raw (numbers), onehot, or embedding (learned vectors).
        mission_fusion: How the mission meets what is seen. concat (beside it), or film (it scales the features too).
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
        checkpoint_interval: Updates between two checkpoints that stay; 0 = none before the final one.
        checkpoint_updates: Updates after each of which a checkpoint stays besides, e.g. [10, 30, 100].
        checkpoint_minutes: Minutes between two checkpoints against mishaps, each in the last one's place; 0 = none.
        log_dir: Folder of metrics (JSONL and TensorBoard).
        tensorboard: Write TensorBoard event files.
        wandb_project: Weights & Biases project; null leaves it off.
        eval_interval: Updates between two evaluations on fixed levels; 0 = none during training.
        eval_episodes: Levels of such an evaluation.
        final_eval_episodes: Levels of the evaluation that ends training; 0 = none.
        device: auto (GPU where there is one), cpu, cuda or cuda:N.
        torch_threads: CPU threads: one run spreads groups of 16 environments over them (beside a GPU shares of 256), a
            sweep its runs; results are the same.
        compile_policy: Run the training pass through torch.compile, for GPUs; where that fails, a line says so and it
            runs without. On the CPU the compiled engine that is used otherwise is faster.
    """

    task_id: str | list[str] = field(default="BabyAI-GoToObj-v0", metadata={"read": parse_task_ids})
    task_weights: list[float] | None = field(default=None, metadata={"read": parse_weights})
    mixture: str | None = None
    task_input: Literal["none", "onehot"] = "none"
    trial: int = 1
    seed: int = 0
    policy: Literal["moe", "mop", "gru"] = "moe"
    num_envs: int = 16
    unroll_len: int = 32
    num_updates: int = 500
    lr: float = 1e-3
    grad_clip: float | None = None
    start_from: str | None = field(default=None, metadata={"read": parse_start})
    train_only: list[str] | None = field(default=None, metadata={"read": parse_parts})
    action_selection: Literal["greedy", "sample"] = "greedy"
    expert_action_prob: float = 0.0
    expert_action_decay: int = 0
    solo_env_share: float = 0.0
    input_dim: int = 152
    obs_encoding: Literal["raw", "onehot", "embedding"] = "raw"
    mission_fusion: Literal["concat", "film"] = "concat"
    lang_dim: int = 32
    lang_encoder: str = "auto"
    train_lang_proj: bool = False
    intermediate_dim: int = field(default=64, metadata={"aliases": ("mop_intermediate_dim",)})
    expert_hidden_sizes: list[list[int]] = field(
        default_factory=lambda: [[0, 16, 32]] * 3, metadata={"aliases": ("mop_layers",), "read": parse_expert_sizes}
    )
    router_hidden_size: int = field(default=64, metadata={"aliases": ("mop_router_dim",)})
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
    checkpoint_updates: list[int] = field(default_factory=list)
    checkpoint_minutes: float = 5.0
    log_dir: str = "runs"
    tensorboard: bool = True
    wandb_project: str | None = None
    eval_interval: int = 0
    eval_episodes: int = 100
    final_eval_episodes: int = 200
    device: str = "auto"
    torch_threads: int = 1
    compile_policy: bool = False

    def __post_init__(self) -> None:
        """Check ranges; types have been checked by whoever read them."""
        object.__setattr__(self, "expert_hidden_sizes", parse_expert_sizes(self.expert_hidden_sizes))
        object.__setattr__(self, "task_id", parse_task_ids(self.task_id))
        object.__setattr__(self, "task_weights", parse_weights(self.task_weights))
        object.__setattr__(self, "start_from", parse_start(self.start_from))
        object.__setattr__(self, "train_only", parse_parts(self.train_only))
        self._check_levels()
        check_parts(self.train_only, self.policy, self.train_lang_proj, self.obs_encoding)
        if (self.policy, self.obs_encoding, self.mission_fusion) == ("gru", "raw", "film"):
            raise ConfigError(
                "mission_fusion: expected concat with policy gru and obs_encoding raw, whose GRU reads observation and "
                "mission itself, found 'film'; pass --mission_fusion concat, or --obs_encoding onehot"
            )
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
        for name, value in self.to_dict().items():  # as large as paths, results and tables can hold
            self._require(name, not isinstance(value, int) or value < 2**63, "less than 2^63")
        evaluated = self.eval_interval == 0 or self.eval_episodes >= 1
        self._require("eval_episodes", evaluated, "at least 1 with an eval_interval (0 evaluates at the end alone)")
        updates = self.checkpoint_updates
        self._require("checkpoint_updates", all(1 <= update < 2**63 for update in updates), "updates, 1 or more")
        sizes = [size for layer in self.expert_hidden_sizes for size in layer]
        self._require("expert_hidden_sizes", max(sizes) < 2**63, "sizes less than 2^63")
        self._require("lpc_alpha", self.lpc_alpha < float("inf"), "a finite number")
        self._require("checkpoint_minutes", 0 <= self.checkpoint_minutes < float("inf"), "minutes, or 0 for none")
        for name in ("lr", "lpc_eps", "lpc_exponent"):
            self._require(name, 0 < getattr(self, name) < float("inf"), "a positive number")
        for name in ("expert_action_prob", "expert_dropout_beta"):
            self._require(name, 0 <= getattr(self, name) <= 1, "a probability, 0 to 1")
        self._require("solo_env_share", 0 <= self.solo_env_share < 1, "a share of the environments below 1")
        self._require("expert_dropout_gamma", 0 < self.expert_dropout_gamma <= 1, "a weight above 0, at most 1")
        self._require("grad_clip", self.grad_clip is None or self.grad_clip > 0, "a positive number or null")
        self._require("max_steps", self.max_steps is None or self.max_steps >= 1, "at least 1, or null")
        device = self.device.partition(":")
        self._require(
            "device",
            self.device in ("auto", "cpu", "cuda") or (device[0] == "cuda" and device[2].isdigit()),
            "auto, cpu, cuda or cuda:N",
        )

    def _check_levels(self) -> None:
        """Check what belongs to several levels; a list of one without a name is that level."""
        if isinstance(self.task_id, list):
            if len(self.task_id) > 1 or self.mixture is not None:
                check_mixture(self.task_id, self.task_weights, self.mixture, self.num_envs)
                return
            check_mixture(self.task_id, self.task_weights, "one", self.num_envs)
            object.__setattr__(self, "task_id", self.task_id[0])
            object.__setattr__(self, "task_weights", None)
        for name in ("mixture", "task_weights"):
            if getattr(self, name) is not None:
                raise ConfigError(
                    f"{name}: expected a list of levels in task_id with it, found {self.task_id!r}; pass --{name} null "
                    "for a single level"
                )

    @property
    def levels(self) -> list[str]:
        """The levels that are trained on, one or several, in the order of `task_id`."""
        return [self.task_id] if isinstance(self.task_id, str) else list(self.task_id)

    @property
    def run_name(self) -> str:
        """What stands for the levels in paths and results: the mixture's name, or the level's."""
        return self.task_id if isinstance(self.task_id, str) else str(self.mixture)

    @property
    def policy_input_dim(self) -> int:
        """Width of the observation with what the policy is told of the level."""
        return self.input_dim + (len(self.levels) if self.task_input == "onehot" else 0)

    @property
    def start(self) -> Path | None:
        """The checkpoint whose weights the run starts from."""
        return fill_start(self.start_from, self.seed)

    def _require(self, name: str, holds: bool, expected: str) -> None:
        if not holds:
            raise ConfigError(f"{name}: expected {expected}, found {getattr(self, name)!r}")

    def to_dict(self) -> dict[str, Any]:
        """Return all fields as plain types."""
        return dataclasses.asdict(self)

    def identity(self) -> dict[str, Any]:
        """Return the fields that decide what the weights are after a given update.

        Those of `LATER_FIELDS` are not among them where they play no part, so that digests of what was trained before
        there were such fields stay what they are; two runs are compared by `full_identity`.
        """
        full = self.full_identity()
        return {name: value for name, value in full.items() if name not in LATER_FIELDS or value != LATER_FIELDS[name]}

    def full_identity(self) -> dict[str, Any]:
        """Return the fields that decide what the weights are after a given update, all of them."""
        return {name: value for name, value in self.to_dict().items() if name not in NOT_IDENTITY}


def resolved_yaml(config: TrainConfig) -> str:
    """Return a configuration as YAML text that `--config` reads back."""
    return yaml.safe_dump(config.to_dict(), sort_keys=False, default_flow_style=None)
