"""R training runs as one tensor program: everything of them that is carried from update to update, and the update."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from babyai.level_seeds import SeedStreams
from babyai.missions import MissionEncoder
from babyai.vector_env import VectorEnv
from pipeline.command.devices import derive_seed
from pipeline.config import TrainConfig
from pipeline.engine.compiled.engine import CompiledEngine
from pipeline.engine.missions import MissionVectors
from pipeline.engine.torch_engine import TorchEngine
from pipeline.engine.weights import ReplicaWeights
from pipeline.policies import build_policy, build_projection
from pipeline.records.metrics import EpisodeWindow
from pipeline.training.losses import LossTerms, compute_losses
from pipeline.training.rollout import Acting, Rollout

SCALARS = (
    "train/task_loss",
    "train/lpc",
    "train/penalty",
    "train/total_loss",
    "train/accuracy",
    "train/labelled_fraction",
    "train/grad_norm",
)


class ReplicaBatch:
    """Runs that are stepped together: policies, optimiser, environments and what they carry from update to update.

    Args:
        configs: Settings as resolved, equal but for `seed`, `trial` and `lpc_alpha`.
        encoder: Sentence encoder of all runs.
        device: Where the policies run.
        resume: Content of a checkpoint of each run to go on from, or None.
        engine: What acts and computes gradients; None takes the compiled one on the CPU, torch elsewhere and for
            `compile_policy`.
        threads: Threads of the compiled engine.
        announce: Called with a line if `torch.compile` fails.

    Attributes:
        configs: As given.
        policies: The policies; their parameters are views of common arrays and always up to date.
        projections: The mission projections.
        envs: The environments.
        generators: The runs' generators of action noise and dropout.
        windows: The runs' last episodes.
        episodes: Episodes ended, per run.
    """

    def __init__(
        self,
        configs: Sequence[TrainConfig],
        encoder: MissionEncoder,
        device: torch.device,
        resume: Sequence[dict[str, Any]] | None = None,
        *,
        engine: type[CompiledEngine | TorchEngine] | None = None,
        threads: int = 1,
        announce: Callable[[str], object] = print,
    ) -> None:
        self.configs = list(configs)
        first = self.configs[0]
        trained = first.train_lang_proj
        self.policies = [build_policy(config).to(device) for config in configs]
        self.projections = [build_projection(config, encoder.width).to(device) for config in configs]
        for projection in self.projections:
            projection.requires_grad_(trained)
        self.envs = [
            VectorEnv(
                config.task_id,
                config.num_envs,
                SeedStreams(config.seed, config.num_envs),
                max_steps=config.max_steps,
                plan_every=config.plan_every,
            )
            for config in configs
        ]
        self.generators = [torch.Generator().manual_seed(derive_seed(config.seed, 2)) for config in configs]
        self.windows = [EpisodeWindow(config.window) for config in configs]
        self.episodes = [0] * len(configs)
        self._sizes = getattr(self.policies[0], "layer_expert_sizes", [])
        self._alpha = torch.tensor([config.lpc_alpha for config in configs], device=device)
        self._weights = ReplicaWeights(self.policies, self.projections if trained else [], first.lr)
        if resume is not None:
            for replica, content in enumerate(resume):
                self.policies[replica].load_state_dict(content["policy_state_dict"])
                self.projections[replica].load_state_dict(content["lang_proj_state_dict"])
                self._weights.load_optimizer_state(replica, content["optimizer_state_dict"])
        missions = [
            MissionVectors(encoder, projection, trainable=trained) for projection in self.projections
        ]  # after the weights are final: a frozen projection is applied once
        compile_policy = first.compile_policy
        engine = engine or (CompiledEngine if device.type == "cpu" and not compile_policy else TorchEngine)
        self._rollout = Rollout(
            self.policies[0],
            self._weights,
            self.envs,
            missions,
            self.generators,
            first.unroll_len,
            engine.count_groups(first.num_envs),
            partial(CompiledEngine, threads=threads) if engine is CompiledEngine else engine,
        )
        if compile_policy and isinstance(self._rollout.engine, TorchEngine):
            self._rollout.engine.compile(announce)
        if resume is None:
            self._rollout.load([env.reset() for env in self.envs], None)
        else:
            self._load([content["resume"] for content in resume], device)
        self.sums = torch.zeros(len(configs), len(SCALARS) + 2 * len(self._sizes), device=device)

    def run_update(self, expert_prob: float) -> list[str | None]:
        """Act for an unroll and take one optimiser step; return why a run could not, or None, for each.

        A run whose loss is no longer finite keeps its weights; the others go on.

        Args:
            expert_prob: Probability that a step executes the expert's action.
        """
        config, rollout, weights = self.configs[0], self._rollout, self._weights
        rollout.collect(
            Acting(
                sample=config.action_selection == "sample",
                expert_prob=expert_prob,
                dropout=(config.expert_dropout_beta, config.expert_dropout_gamma) if config.expert_dropout else None,
            )
        )
        logits, routing = rollout.replay()
        terms = compute_losses(
            logits,
            rollout.expert_action,
            rollout.expert_valid,
            routing,
            self._sizes,
            alpha=self._alpha,
            normalize=config.normalize_lpc,
            denominator=config.lpc_denominator,
            eps=config.lpc_eps,
            exponent=config.lpc_exponent,
        )
        rollout.engine.differentiate(terms.total.sum())
        norms = weights.norms()
        row = _summary(terms, norms, routing)
        finite = norms.isfinite().tolist()  # the update's only wait for the device besides the actions
        weights.step(norms, finite, config.grad_clip)
        self.sums += row
        for replica, ended in enumerate(rollout.ended):
            for episode in ended:
                self.windows[replica].add(episode.outcome, episode.steps, episode.expert_steps)
            self.episodes[replica] += len(ended)
        if all(finite):
            return [None] * len(finite)
        losses = zip(finite, terms.total.tolist(), norms.tolist(), strict=True)
        return [None if fine else f"loss {loss:g}, gradient norm {norm:g}" for fine, loss, norm in losses]

    def take_means(self, replica: int, updates: int) -> dict[str, float]:
        """Return the metrics of a run's losses, averaged over the updates since this was called last."""
        means = (self.sums[replica] / updates).tolist()
        self.sums[replica] = 0.0
        layers = len(self._sizes)
        names = [*SCALARS, *(f"train/lpc/layer_{i}" for i in range(layers))]
        return dict(zip([*names, *(f"train/router_entropy/layer_{i}" for i in range(layers))], means, strict=True))

    def content(self, replica: int) -> dict[str, Any]:
        """Return a run's share of a checkpoint, as copies: as if it had been trained by itself."""
        return {
            "policy_state_dict": _copies(self.policies[replica].state_dict()),
            "optimizer_state_dict": self._weights.optimizer_state(replica),
            "lang_proj_state_dict": _copies(self.projections[replica].state_dict()),
            "resume": {
                "env": self.envs[replica].state_dict(),
                "hidden": [state[replica].clone() for state in self.hidden],
                "generator": self.generators[replica].get_state(),
                "window": self.windows[replica].state(),
                "episodes": self.episodes[replica],
            },
        }

    @property
    def hidden(self) -> list[Tensor]:
        """The policies' state between the last unroll and the next, one (R, N, H) tensor per layer."""
        return self._rollout.engine.hidden

    def _load(self, states: Sequence[dict[str, Any]], device: torch.device) -> None:
        current = []
        for replica, state in enumerate(states):
            current.append(self.envs[replica].load_state_dict(state["env"]))
            self.generators[replica].set_state(state["generator"].cpu())
            self.windows[replica].load(state["window"])
            self.episodes[replica] = state["episodes"]
        layers = zip(*(state["hidden"] for state in states), strict=True)
        self._rollout.load(current, [torch.stack([state.to(device) for state in layer]) for layer in layers])


def _copies(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return weights apart from the arrays they are views of, which a file would otherwise hold whole."""
    return {name: value.detach().clone() for name, value in weights.items()}


@torch.no_grad()
def _summary(terms: LossTerms, norms: Tensor, routing: list[Tensor]) -> Tensor:
    """Return what is logged of an update, (R, SCALARS + layers + layers): LPC and entropy of each layer at the end."""
    scalars = [terms.task, terms.lpc, terms.penalty, terms.total, terms.accuracy, terms.labelled, norms]
    entropies = [torch.special.entr(weights).sum(dim=-1).flatten(1).mean(dim=1) for weights in routing]
    return torch.cat([torch.stack(scalars, 1), terms.lpc_per_layer, *(e.unsqueeze(1) for e in entropies)], dim=1)
