"""Training of a language model: one update, validation, and what continuing bit for bit needs.

The loss that is reported is the cross-entropy alone; balance loss and z-loss are minimised with it, with the same
weights for every variant, and reported apart.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from more.checkpoints import build_model, load_model, save_checkpoint
from more.corpus import BatchPlan, load_corpus, load_tokenizer
from more.cost import count_token_operations
from more.data import Source, open_source
from more.estimate import (
    check_compiler,
    check_memory,
    compute_least_memory,
    measure_free_memory,
    memory_shortage_told,
)
from more.initialisation import adopt, embed_by_parts
from more.model import MoreModel, compute_routing_terms, count_parameters, count_passes, routing_losses
from more.monitoring import RouterFigures
from more.parallel import ALONE, Group, cut
from more.progress import UpdateSums, build_figures, collect_figures
from more.settings import TrainingConfig
from more.task_data import TaskPlan, TaskSource, Vocabulary, count_asked, is_task
from pipeline.command.devices import derive_seed, resolve_device
from pipeline.command.errors import UserError
from pipeline.config import ConfigError

LEAST_LR = 0.1
"""Learning rate at the end over that after warm-up."""


SMALLER = "--preset debug trains a small model; smaller --d_model, --num_layers, --num_experts or --batch_size help too"
"""What takes less memory."""


class TrainingError(UserError, RuntimeError):
    """Training cannot go on; the message says why and what to do."""


class UnsavedError(UserError):
    """The last checkpoint of a run cannot be written; the message says where, why and what is left."""


FAILURES = (TrainingError, UnsavedError)
"""What ends a run that had begun."""


def compute_lr(update: int, total: int, lr: float, warmup: float) -> float:
    """Return the learning rate of update `update` (from 0): up a line to `lr`, then down a cosine to a tenth of it."""
    rising = max(1, round(warmup * total))
    if update < rising:
        return lr * (update + 1) / rising
    progress = (update - rising) / max(1, total - rising)
    return lr * (LEAST_LR + (1 - LEAST_LR) * (1 + math.cos(math.pi * progress)) / 2)


def _count_groups(state: Mapping[str, Any]) -> list[int]:
    """Return how many parameters each group of an optimiser's state has."""
    return [len(group["params"]) for group in state["param_groups"]]


class Trainer:
    """One training run: data, model, optimiser, and how far it is.

    Args:
        config: Settings, resolved or not.
        announce: Called with each line worth telling.
        resume: Content of a checkpoint of this run to go on from, or None.
        group: The processes that train it together; each has a trainer of the same settings.

    Attributes:
        config: Settings as resolved.
        group: Likewise.
        mean_tokens: Targets of an update, mean over an epoch.
        mean_work: Work of an update, likewise, in multiply-adds of reading it once.
        total: Updates in all.
        update: Updates done.
        tokens: Targets learned from.
        work: Work done since this trainer was made, as `mean_work` counts it.
    """

    def __init__(
        self,
        config: TrainingConfig,
        *,
        announce: Callable[[str], object] = print,
        resume: Mapping[str, Any] | None = None,
        group: Group = ALONE,
    ) -> None:
        self.config = config = adopt(config).resolve()
        self.group = group
        if config.torch_threads is not None:
            torch.set_num_threads(config.torch_threads)
        self.device = group.device or resolve_device(config.device)
        config.model_config(vocab_size=1)  # sizes that do not fit are refused before data is fetched
        if config.compile:
            check_compiler(self.device)
        start = None if config.init_from is None else load_model(config.init_from)
        self.source: Source | TaskSource
        if (task := config.task_settings()) is not None:
            self.source = TaskSource(task, config.data_seed)
            self.tokenizer = self.source.tokenizer
            if start is not None and start.tokenizer.json != self.tokenizer.json:
                raise ConfigError(
                    f"init_from: expected a model of the words of this {task.name}, found one of other words in "
                    f"{config.init_from}; give it the task that it was trained on"
                )
            announce(self.source.announcement())
        else:
            if start is not None and is_task(start.data):
                raise ConfigError(
                    f"init_from: {config.init_from} knows the words of {start.data['text']} alone; expected a model of "
                    "text, or --preset chains and the task that it was trained on"
                )
            known = start and (start.tokenizer, f"that of {config.init_from}")
            with group.leader_first():
                self.source = open_source(config.data_settings(), announce, tokenizer=known)
                self.tokenizer = load_tokenizer(self.source, config.cache_dir)
        self.data = self.source.describe()
        self.model_config = config.model_config(self.tokenizer.vocab_size)
        self.least_memory = self._check_memory()
        with memory_shortage_told(SMALLER):
            self.model = build_model(self.model_config, derive_seed(config.seed, 0))
            if isinstance(self.tokenizer, Vocabulary):
                embed_by_parts(self.model, self.tokenizer.parts())
            self.model = self.model.to(self.device)
        if start is not None:
            self.model.load_state_dict(start.model.state_dict())
        del start
        self._forward = torch.compile(self.model, dynamic=True) if config.compile else self.model
        with group.leader_first():
            self.plan, self.valid_plan = (self._plan_batches(split, announce) for split in ("train", "valid"))
        self.total = config.updates or max(1, round(config.epochs * self.plan.batches_per_epoch))
        self.optimizer = self._build_optimizer()
        self.mean_tokens = self.plan.tokens_per_epoch / self.plan.batches_per_epoch
        self.mean_work = self.mean_tokens * count_token_operations(self.model_config)  # as r is drawn, it is so too
        self.update = self.tokens = self.work = 0
        self._sums = UpdateSums(self.device)
        if resume is not None:
            self._restore(resume)
        group.copy_from_leader(self.model.state_dict().values())

    def _check_memory(self) -> int:
        """Return the bytes that training takes at least, having refused what cannot fit before it is built."""
        config = self.config
        with torch.device("meta"):
            count = count_parameters(MoreModel(self.model_config))
        rows = -(-config.batch_size // (config.accumulate * self.group.size))  # read at a time
        needed = compute_least_memory(count.total, self.tokenizer.vocab_size, rows * config.seq_length)
        what = f"{config.run_name()}, of {count.total:,} parameters,"
        check_memory(needed, measure_free_memory(self.device), what, SMALLER)
        return needed

    def _plan_batches(self, split: str, announce: Callable[[str], object]) -> BatchPlan | TaskPlan:
        config = self.config
        seed = derive_seed(config.seed, 1) if split == "train" else 0
        if isinstance(self.source, TaskSource):
            return self.source.plan(split, config.batch_size, seed)
        corpus = load_corpus(self.source, self.tokenizer, split, config.cache_dir, announce)
        return BatchPlan(corpus, config.seq_length, config.batch_size * config.seq_length, seed)

    def _build_optimizer(self, *, by_shape: bool = False) -> torch.optim.AdamW:
        """Return the optimiser; matrices decay, gains and biases do not, those of experts included.

        Args:
            by_shape: Let those of experts decay, which are tables with a row for each expert, as they once did.
        """
        decayed, others = [], []
        for name, parameter in self.model.named_parameters():
            spared = parameter.dim() < 2 or (not by_shape and name.endswith(("bias", "gain")))
            (others if spared else decayed).append(parameter)
        groups = [{"params": decayed}, {"params": others, "weight_decay": 0.0}]
        return torch.optim.AdamW(groups, lr=self.config.lr, betas=(0.9, 0.95), weight_decay=self.config.weight_decay)

    def _restore(self, resume: Mapping[str, Any]) -> None:
        if resume["data"]["digest"] != self.data["digest"] or resume["tokenizer"] != self.tokenizer.json:
            raise ConfigError(
                "resume: the data or the tokenizer is not what the run began with "
                f"({resume['data']['text']}; {resume['data']['tokenizer']}); restore it, or pass --overwrite"
            )
        self.model.load_state_dict(resume["model_state_dict"])
        if "optimizer_state_dict" in resume:  # else a run that was complete goes on, with moments that begin at zero
            stored = resume["optimizer_state_dict"]
            if _count_groups(stored) != _count_groups(self.optimizer.state_dict()):  # it goes on as it began
                self.optimizer = self._build_optimizer(by_shape=True)
            self.optimizer.load_state_dict(stored)
        self.update, self.tokens = resume["update"], resume["tokens"]
        if "metric_sums" in resume:  # older checkpoints lack them: their next line is of what follows
            self._sums.load_state_dict(resume["metric_sums"])

    # --------------------------------------------------------------------------------------------------------- update

    def draw_recurrences(self) -> int:
        """Return r of the next update: `num_recurrences`, or drawn from 1 to twice that - 1, by (seed, update)."""
        mean = self.config.num_recurrences
        if not self.config.sample_recurrences:
            return mean
        return int(np.random.default_rng([self.config.seed, 2, self.update]).integers(1, 2 * mean))

    def run_update(self) -> None:
        """Take one step of AdamW on one batch, read in parts and by all processes of the group.

        Raises:
            TrainingError: If the gradient is not finite.
        """
        config = self.config
        batch = self.plan.batch(self.update)
        count = count_asked(batch[1])
        steps = self.draw_recurrences()
        lr = compute_lr(self.update, self.total, config.lr, config.warmup)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.model.train()
        self.optimizer.zero_grad(set_to_none=True)
        figures = None
        for number, rows in enumerate(cut(len(batch[0]), config.accumulate)):
            found = self._read_part(batch, rows, number, steps)
            figures = found if figures is None else figures + found
        figures = self.group.add_up(figures)
        self.group.add_up_gradients(self.model.parameters())
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), config.grad_clip)
        if not torch.isfinite(norm):
            raise TrainingError(
                f"update {self.update}: the gradient is not finite (loss {figures[0].item() / count:g}); lower --lr or "
                "--grad_clip, or use --precision float32"
            )
        self.optimizer.step()
        self._sums.add(figures, norm.detach(), steps, count, config.num_layers)
        self.update += 1
        self.tokens += count
        self.work += batch[1].size * count_token_operations(self.model_config, steps)

    def _read_part(self, batch: tuple[np.ndarray, np.ndarray], rows: slice, number: int, steps: int) -> Tensor:
        """Add this process's share of a part of a batch to the gradients, and return the figures of the share.

        The cross-entropy is weighted by the targets of the share, auxiliary losses by its tokens. The z-loss is a mean
        over tokens and so that of the whole batch. The balance loss is that of the part, all processes together: its
        load is theirs. Over the parts of a batch it is averaged, as usual where gradients are accumulated; a load of
        the whole batch would be known only after all parts have been read.

        Args:
            batch: Inputs and targets.
            rows: Of the part.
            number: Of the part, for dropout.
            steps: r.

        Returns:
            As `more.progress.collect_figures` does; sums over parts and processes are the figures of the batch.
        """
        config, model = self.config, self.model_config
        own = self.group.share(rows.stop - rows.start)
        inputs, targets = (part[rows][own] for part in batch)
        if not inputs.size:
            if self.group.size > 1 and rows.stop > rows.start:  # the others ask for the load
                applied = config.num_layers * count_passes(model, steps)
                self.group.add_up(torch.zeros(applied, config.num_experts, device=self.device))
            return build_figures(config.num_layers, config.num_experts, self.device)
        asked, share = count_asked(targets), targets.size / batch[1].size
        within = targets.size / batch[1][rows].size  # share of the part's tokens
        inputs, targets = self._to_device((inputs, targets))
        with self._seeded_dropout(number), self._autocast():
            output = self._forward(inputs, num_recurrences=steps)
            loss = F.cross_entropy(output.logits.float().flatten(0, 1), targets.flatten())
        merge = (lambda loads: self.group.add_up(loads * within)) if self.group.size > 1 else None
        terms = compute_routing_terms(output, merge)
        balance, z = (share * value for value in routing_losses(output, terms))
        of_targets = asked / count_asked(batch[1])
        (of_targets * loss + config.balance_weight * balance + config.z_weight * z).backward()
        return collect_figures(loss, asked, balance, z, terms, share)

    def time_trial(self) -> float:
        """Return the seconds that forward and backward take for one token; nothing is learned and nothing changes."""
        batches = [self.plan.batch(self.update + number) for number in range(4)]
        batch = max(batches, key=lambda batch: batch[1].size)
        rows = cut(len(batch[0]), self.config.accumulate * self.group.size)[-1]  # the longest: a process's share
        inputs, targets = self._to_device(tuple(part[rows] for part in batch))
        found: list[float] = []
        least = 2 if self.config.compile else 1  # the first also prepares; where it compiles it says nothing
        self.model.train()
        while len(found) < least or (len(found) < 3 and sum(found) < 2.0):
            began = time.perf_counter()
            with self._seeded_dropout(), self._autocast():
                logits = self._forward(inputs, num_recurrences=self.config.num_recurrences).logits
                loss = F.cross_entropy(logits.float().flatten(0, 1), targets.flatten())
            loss.backward()
            loss.item()  # waits for a GPU
            found.append(time.perf_counter() - began)
        self.optimizer.zero_grad(set_to_none=True)
        self._sums.leave_out(None)
        return min(found) / targets.numel()

    @property
    def loss(self) -> float:
        """Cross-entropy per token since the last line of metrics."""
        return self._sums.loss

    def _to_device(self, batch: tuple[np.ndarray, np.ndarray]) -> tuple[Tensor, Tensor]:
        inputs, targets = (torch.from_numpy(np.ascontiguousarray(part)) for part in batch)
        return inputs.to(self.device), targets.to(self.device)

    @contextmanager
    def _seeded_dropout(self, part: int = 0) -> Iterator[None]:
        """Within the block torch's generators start from (seed, update), so that a resumed run drops the same.

        Each process and each part of a batch drops its own.
        """
        number = part * self.group.size + self.group.rank
        with torch.random.fork_rng(devices=[self.device] if self.device.type == "cuda" else []):
            torch.manual_seed(derive_seed(self.config.seed, 3, self.update, *([number] if number else [])))
            yield

    def _autocast(self) -> torch.autocast:
        wanted = {"auto": self.device.type == "cuda", "float32": False, "bfloat16": True}[self.config.precision]
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=wanted)

    # -------------------------------------------------------------------------------------------------------- figures

    def take_metrics(self) -> tuple[dict[str, float], list[RouterFigures]]:
        """Return the metrics and each layer's router figures since the last call."""
        taken, figures = self._sums.take()
        return {"tokens": self.tokens, "Learning_Rate": self.optimizer.param_groups[0]["lr"], **taken}, figures

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """Return the cross-entropy per token on at most `eval_batches` batches of validation, always the same ones."""
        began = time.perf_counter()
        self.model.eval()
        total = count = 0
        batches = min(self.config.eval_batches, self.valid_plan.batches_per_epoch)
        for number in range(self.group.rank, batches, self.group.size):
            batch = self.valid_plan.batch(number)
            inputs, targets = self._to_device(batch)
            with self._autocast():
                logits = self.model(inputs).logits
            total += float(F.cross_entropy(logits.float().flatten(0, 1), targets.flatten(), reduction="sum"))
            count += count_asked(batch[1])
        total, count = self.group.add_up(torch.tensor([total, count], dtype=torch.float64, device=self.device)).tolist()
        self._sums.leave_out(time.perf_counter() - began)  # tokens per second are those of training
        return {"Loss/valid": total / count, "Perplexity_valid": math.exp(min(total / count, 50.0))}

    def save(self, path: Path, *, resumable: bool, timed: bool = False) -> None:
        """Write a checkpoint.

        Args:
            path: Where.
            resumable: With the optimiser's state and what the next line of metrics adds up, to be resumed from.
            timed: It is there until the next one is; whoever resumes from it reads that here.
        """
        content = {
            "model_state_dict": self.model.state_dict(),
            "model_config": dataclasses.asdict(self.model_config),
            "training_config": dataclasses.asdict(self.config),
            "data": self.data,
            "tokenizer": self.tokenizer.json,
            "update": self.update,
            "total": self.total,
            "tokens": self.tokens,
        }
        if resumable:
            content["optimizer_state_dict"] = self.optimizer.state_dict()
            content["metric_sums"] = self._sums.state_dict()
        if timed:
            content["timed"] = True
        save_checkpoint(path, content)
