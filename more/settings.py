"""Settings of a training run of a language model: fields, presets, and what they come to."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from more.config import PRESETS, Dispatch, ExpertAttention, Match, ModelConfig, ModelType
from more.data import DataName, DataSettings
from more.stories import EmbeddedSettings
from more.tasks import TASK_NAMES, TaskName, TaskSettings
from pipeline.command.cli import check_numbers
from pipeline.config import ConfigError

TRAINING_PRESETS: dict[str, dict[str, Any]] = {
    "standard": {"data": "auto", "batch_size": 4, "lr": 1e-4, "epochs": 1.0, "dropout": 0.1},
    "debug": {"data": "embedded", "batch_size": 8, "lr": 3e-3, "epochs": 1.0, "dropout": 0.0, "torch_threads": 1},
    "chains": {"data": "chains", "batch_size": 64, "lr": 3e-3, "epochs": 1.0, "dropout": 0.0, "torch_threads": 1},
}
"""Values of the fields that are null by default, by preset; sizes of the model are in `more.config.PRESETS`.

On matrices as small as those of debug a second thread waits more than it works: on busy cores 4,352 tokens/s with
torch's own number of threads, 18,211 with one.
"""

SIZES = ("d_model", "num_heads", "num_layers", "num_experts", "top_k", "dropout")
"""Fields that are the model's and null by default."""

TASK_FIELDS = {"length": "task_length", "streams": "task_streams", "symbols": "task_symbols"}
TASK_FIELDS |= {name: name for name in ("train_depth", "test_depth", "num_sequences")}
"""Fields of a generated task by their names in `TaskSettings`; null takes the task's own."""


@dataclass(frozen=True)
class TrainingConfig:
    """Settings of one training run. Fields that are null take the preset's value.

    Attributes:
        model_type: base (feed-forward experts), more_a, more_b, more_c, more_d (recurrent experts), or looped (base
            whose blocks are passed several times, a control); docs/more.md. Null takes that of init_from, else base.
        num_recurrences: Steps r of every recurrent expert, passes of looped; base has none. Null takes those of
            init_from, else 1.
        sample_recurrences: Draw r anew for each update, evenly from 1 to 2 x num_recurrences - 1 (mean
            num_recurrences). Validation uses num_recurrences.
        preset: standard (d_model 512, 6 layers, 8 experts), debug (trains on two cores in a minute or two), or chains
            (one layer, one expert, a generated task).
        d_model: Width of the residual stream.
        num_heads: Attention heads.
        num_layers: Blocks.
        num_experts: Experts of each block.
        top_k: Experts that each token goes to.
        dropout: Dropout probability.
        match: Sizes the variants like base: none, total (parameters), active (parameters that a token uses) or
            operations (multiply-adds for a token, of a base with num_recurrences x the layers). Null takes that of
            init_from, else active; unmatched, more_b has about ten times the parameters of base.
        expert_attention: What the experts of more_a attend to: same (earlier tokens at the same expert) or all. Null
            takes all, or that of init_from.
        dispatch: How tokens meet their experts: auto, grouped or loop.
        seq_length: Longest window, tokens, and the longest context in evaluation.
        epochs: Passes over the training text; parts of one are allowed.
        updates: Weight updates instead of epochs; null = epochs decide. More of them with --resume lengthen a run.
        batch_size: A batch holds at most batch_size x seq_length targets, whatever the lengths of its windows.
        accumulate: Parts in which the batch of an update is read, one after the other, to save memory. The update is
            the same but for the balance loss, which is averaged over the parts.
        lr: Largest learning rate of AdamW.
        warmup: Share of the updates in which the rate rises to lr; then it falls by a cosine to a tenth of it.
        weight_decay: Of the matrices; gains and biases have none.
        grad_clip: Largest norm of the gradient.
        balance_weight: Weight of the balance loss (mean over layers), the same for every model_type.
        z_weight: Weight of the router's z-loss, likewise.
        precision: auto (bfloat16 autocast on a GPU, float32 on the CPU), float32 or bfloat16.
        compile: Compile the model with torch.compile, which takes minutes at the start.
        init_from: Checkpoint whose weights, tokenizer and sizes the run starts with, to go on learning from other data.
        seed: Fixes everything random of the run: weights, order, dropout, sampled recurrences.
        data: auto (data_dir if given, else the hub, else embedded), hub, embedded, or a generated task: chains (of
            assignments), hops (of pointers) or modular (running sums).
        data_dir: Folder with WikiText-103, bAbI and the GPT-2 tokenizer.
        text_file: Your own text, UTF-8, instead of all that; its first 90 % are learned from. The tokenizer is that of
            data_dir or init_from, else one of tokenizer_size that is trained on it.
        data_seed: Of the embedded data.
        tokenizer_size: Tokens of the tokenizer that is trained where GPT-2's is not found.
        num_stories: Embedded training stories of task 2; task 1 has twice, task 3 half as many.
        largest_summand: Embedded sums a+b have 0 <= a, b <= this.
        task_length: Tokens of a generated task's sequence at which something is asked; null takes the task's own.
        task_streams: Chains, pointers or sums that are interleaved; likewise.
        task_symbols: Values that a task has; likewise.
        train_depth: Steps that the deepest answers of a task take in training; likewise.
        test_depth: The same in the test, which is to hold longer ones; likewise.
        num_sequences: Training sequences of a task; likewise.
        cache_dir: Folder of tokenised data.
        log_interval: Updates between two lines of metrics.
        eval_interval: Updates between two validations; 0 = at the end only.
        eval_batches: Batches of a validation at most.
        checkpoint_dir: Folder of all checkpoints; the run's is <model_type>_rec<num_recurrences> in it.
        checkpoint_interval: Updates between two checkpoints to resume from (the newest is kept); 0 = none.
        checkpoint_minutes: Minutes after which one is written in any case; 0 = none.
        log_dir: Folder of metrics (JSONL and TensorBoard); the run's folder in it is named likewise.
        tensorboard: Write TensorBoard event files.
        wandb_project: Weights & Biases project; null leaves it off.
        device: auto (GPU where there is one), cpu, cuda or cuda:N.
        torch_threads: CPU threads of torch; null takes 1 in debug and chains, whose matrices are too small for more,
            and what torch chooses in standard. Part of what fixes a run bit for bit.
    """

    model_type: ModelType | None = None
    num_recurrences: int | None = None
    sample_recurrences: bool = False
    preset: Literal["standard", "debug", "chains"] = "standard"
    d_model: int | None = None
    num_heads: int | None = None
    num_layers: int | None = None
    num_experts: int | None = None
    top_k: int | None = None
    dropout: float | None = None
    match: Match | None = None
    expert_attention: ExpertAttention | None = None
    dispatch: Dispatch = "auto"
    seq_length: int | None = None
    epochs: float | None = None
    updates: int | None = None
    batch_size: int | None = None
    accumulate: int = 1
    lr: float | None = None
    warmup: float = 0.05
    weight_decay: float = 0.1
    grad_clip: float = 1.0
    balance_weight: float = 0.01
    z_weight: float = 0.001
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    compile: bool = False
    init_from: str | None = None
    seed: int = 42
    data: DataName | TaskName | None = None
    data_dir: str | None = None
    text_file: str | None = None
    data_seed: int = 0
    tokenizer_size: int = 512
    num_stories: int = 6000
    largest_summand: int = 29
    task_length: int | None = None
    task_streams: int | None = None
    task_symbols: int | None = None
    train_depth: int | None = None
    test_depth: int | None = None
    num_sequences: int | None = None
    cache_dir: str = "data_cache"
    log_interval: int = 50
    eval_interval: int = 500
    eval_batches: int = 50
    checkpoint_dir: str = "checkpoints"
    checkpoint_interval: int = 500
    checkpoint_minutes: float = 5.0
    log_dir: str = "runs"
    tensorboard: bool = True
    wandb_project: str | None = None
    device: str = "auto"
    torch_threads: int | None = None

    def __post_init__(self) -> None:
        """Check ranges; what concerns the model, `ModelConfig` checks.

        Raises:
            ConfigError: If a value cannot be used.
        """
        check_numbers(self, 1, "num_recurrences", "accumulate")
        positive = ("updates", "batch_size", "lr", "epochs", "seq_length", "grad_clip", "log_interval", "torch_threads")
        check_numbers(self, 1, *positive, "eval_batches", "num_stories", "largest_summand")
        zero = ("eval_interval", "checkpoint_interval", "weight_decay", "balance_weight", "z_weight", "seed")
        check_numbers(self, 0, *zero, "data_seed", "checkpoint_minutes")
        if not 0 <= self.warmup <= 1:
            raise ConfigError(f"warmup: expected a share from 0 to 1, found {self.warmup!r}")
        if self.batch_size is not None and self.accumulate > self.batch_size:
            raise ConfigError(
                f"accumulate: expected at most batch_size parts, {self.batch_size}, found {self.accumulate}"
            )
        if self.updates is not None and self.epochs is not None:
            raise ConfigError("updates and epochs exclude each other; give one of them")
        if self.data in TASK_NAMES and self.data_dir is not None:
            raise ConfigError(f"data_dir and data: {self.data} exclude each other; leave one out")

    def resolve(self) -> TrainingConfig:
        """Return the settings with the preset's values in place of null."""
        values = dataclasses.asdict(self)
        model = ModelConfig()
        sizes = {name: PRESETS[self.preset].get(name, getattr(model, name)) for name in SIZES}
        preset = {**sizes, "model_type": "base", "num_recurrences": 1, "match": "active", "expert_attention": "all"}
        preset |= TRAINING_PRESETS[self.preset]
        preset["seq_length"] = PRESETS[self.preset].get("max_length", model.max_length)
        if self.data_dir is not None or self.text_file is not None:
            preset["data"] = "auto"
        for name in ("text_file", "init_from"):  # absolute, so that another folder makes no other run of it
            if values[name] is not None:
                values[name] = str(Path(values[name]).expanduser().absolute())
        if self.updates is not None:
            preset.pop("epochs")
        preset |= self._resolve_task(self.data or preset["data"])
        if (self.model_type or "base") != "more_a":  # no expert attends, and what they would see makes no other run
            values["expert_attention"] = "all"
        return TrainingConfig(**{**values, **{k: v for k, v in preset.items() if values[k] is None}})

    def _resolve_task(self, data: str) -> dict[str, Any]:
        """Return what a generated task makes of fields that are null."""
        given = {name: getattr(self, field) for name, field in TASK_FIELDS.items()}
        if data not in TASK_NAMES:
            for name, value in given.items():
                if value is not None:
                    raise ConfigError(
                        f"{TASK_FIELDS[name]}: expected data {', '.join(TASK_NAMES)} beside it, found {data}"
                    )
            return {}
        task = TaskSettings.of(data, **given)
        if self.seq_length is not None and self.seq_length < task.total_length:
            raise ConfigError(
                f"seq_length: expected at least {task.total_length}, a sequence of {data}, found {self.seq_length}"
            )
        fields = {field: getattr(task, name) for name, field in TASK_FIELDS.items()}
        return {"seq_length": task.total_length, **fields}

    def task_settings(self) -> TaskSettings | None:
        """Return what of the (resolved) settings concerns a generated task; None if the data is text."""
        if self.data not in TASK_NAMES:
            return None
        return TaskSettings.of(self.data, **{name: getattr(self, field) for name, field in TASK_FIELDS.items()})

    def data_settings(self) -> DataSettings:
        """Return what of the (resolved) settings concerns data."""
        embedded = EmbeddedSettings(
            num_stories=self.num_stories,
            num_sheets=max(1, self.num_stories // 2),
            num_paragraphs=max(1, self.num_stories // 6),
            largest_summand=self.largest_summand,
        )
        return DataSettings(self.data, self.data_dir, self.data_seed, self.tokenizer_size, embedded, self.text_file)

    def model_config(self, vocab_size: int) -> ModelConfig:
        """Return the model's sizes.

        Raises:
            ConfigError: If they do not fit together.
        """
        names = ("model_type", "num_recurrences", *SIZES, "match", "dispatch", "expert_attention")
        values = {name: getattr(self, name) for name in names}
        try:
            return ModelConfig(**values, vocab_size=vocab_size, max_length=self.seq_length)
        except ValueError as error:
            raise ConfigError(str(error)) from None

    def run_name(self) -> str:
        """Return the name of the run's folders, `<model_type>_rec<num_recurrences>`."""
        return f"{self.model_type or 'base'}_rec{self.num_recurrences or 1}"

    def identity(self) -> dict[str, Any]:
        """Return the settings that decide what is learned; two runs that differ in one of them are two runs."""
        beside = {
            *("log_interval", "eval_interval", "eval_batches", "checkpoint_dir", "checkpoint_interval", "log_dir"),
            *("checkpoint_minutes", "tensorboard", "wandb_project", "device", "cache_dir", "data_dir", "torch_threads"),
            "compile",
        }
        return {name: value for name, value in dataclasses.asdict(self).items() if name not in beside}
