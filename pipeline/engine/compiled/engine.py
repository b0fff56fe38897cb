"""Acting and gradients of R replicas on the CPU through compiled calls; the interface is that of `TorchEngine`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from babyai.compiled.turn import act_slots
from mixture_of_experts import ExpertDropout
from pipeline.engine.compiled.backward import backpropagate
from pipeline.engine.compiled.kernels import gather
from pipeline.engine.compiled.layout import ALIGN, Layout
from pipeline.engine.compiled.loss import PER_LAYER, sum_losses
from pipeline.engine.compiled.step import act_step
from pipeline.engine.compiled.unroll import Acts
from pipeline.engine.weights import ReplicaWeights

_GROUP = 16  # environments: fewer leave rows of weights that are read for too few rows of states


def is_on_disk(on_cpu: bool) -> bool:
    """Return whether what training compiles was compiled on this machine before: the policy too, or the world alone."""
    function = backpropagate if on_cpu else act_slots
    return not hasattr(function, "_cache") or function._cache.holds(function.targetctx)


class CompiledEngine:
    """The policies of R replicas over one unroll of T steps; see `TorchEngine` for the arguments.

    A replica's environments may be divided into groups: what a step of a group needs then stays in the cache, and
    groups are spread over `threads`. Arrays have an axis of G groups for the R replicas, those of a replica next to
    each other, and n environments in each. Results depend on the groups in the last bits, on threads not at all as long
    as torch itself has one.

    Attributes:
        shares: First group, and one past the last, of each thread.
    """

    @staticmethod
    def count_groups(num_envs: int) -> int:
        """Return into how many groups a replica's environments are best divided."""
        return (
            max(groups for groups in range(1, num_envs // _GROUP + 1) if num_envs % groups == 0)
            if num_envs >= _GROUP
            else 1
        )

    def __init__(
        self,
        policy: nn.Module,
        weights: ReplicaWeights,
        inputs: Tensor,
        episode_start: Tensor,
        *,
        threads: int = 1,
    ) -> None:
        self._weights, packing = weights, weights.packing
        self._layout = layout = Layout(packing, getattr(policy, "layer_expert_sizes", []), inputs.shape[-1])
        shape = inputs.shape[:3]
        self._inputs, self._start = inputs, episode_start.numpy()
        self._tape = torch.zeros(*shape, layout.tape)
        # Rows of gradients are done with after their step, but where the mission projection is trained
        self._grads = torch.zeros(shape[0], shape[1] if weights.projections[0] else 1, shape[2], layout.grads)
        self._policy, self._layers = layout.policy.view(np.recarray)[0], layout.layers.view(np.recarray)
        self._logits = torch.zeros(*shape, self._policy.actions)
        self._first = np.zeros((shape[0], shape[2], layout.tape), np.float32)
        self._grad_logits, self._grad_probs = torch.zeros_like(self._logits), torch.zeros(*shape, len(layout.sizes))
        self._noise, self._drop = np.zeros((*shape, 1), np.float32), (np.float32(0), np.float32(0))
        index, self._back = packing.index.numpy(), packing.back.numpy()
        self._index = np.concatenate([index, index[layout.turned]])
        self._flat, self._gradient = weights.flat.numpy(), weights.gradient.numpy()
        replicas = len(weights.flat)
        self._packed = np.zeros((replicas, len(self._index)), np.float32)
        # One number more at least, always zero: the gradient of weights that are not packed. Rows begin at cache lines.
        columns = (packing.size // ALIGN + 1) * ALIGN
        self._packed_gradient = torch.zeros(replicas, columns)
        self._group_gradients = torch.zeros(shape[0], columns) if shape[0] > replicas else self._packed_gradient
        threads = min(threads, shape[0])
        self.shares = list(pairwise([shape[0] * i // threads for i in range(threads + 1)]))
        self._pool = ThreadPoolExecutor(threads) if threads > 1 else None
        self._arrays = (inputs.numpy(), self._start, self._packed, self._first)
        self._results = (self._tape.numpy(), self._logits.numpy())
        self._logits_by_step = [self._logits[:, t] for t in range(shape[1])]
        self._leaves: list[Tensor] = []
        self._sentences: Sequence[Tensor] = []

    def init_hidden(self) -> list[Tensor]:
        """Return a zero state: one (R, N, H) tensor per layer, N over all groups of a replica."""
        return [torch.zeros_like(state) for state in self.hidden]

    @property
    def hidden(self) -> list[Tensor]:
        """The state after the last step, one (R, N, H) tensor per layer; may be set between unrolls."""
        replicas = len(self._packed)
        return [
            torch.cat(cells, dim=-1).view(replicas, -1, sum(c.shape[-1] for c in cells)) for cells in self._states()
        ]

    @hidden.setter
    def hidden(self, hidden: Sequence[Tensor]) -> None:
        for cells, given in zip(self._states(), hidden, strict=True):
            for place, state in zip(cells, given.split([cell.shape[-1] for cell in cells], dim=-1), strict=True):
                place.copy_(state.reshape(place.shape))

    def _states(self) -> list[list[Tensor]]:
        """Return the states after the unroll's last step (G, n, h), as views of the tape."""
        last = self._tape[:, -1]
        return [
            [
                last[..., cell.kept + 5 * cell.units : cell.kept + 6 * cell.units]
                for cell in (layer.router, layer.expert)
            ]
            for layer in self._layers
        ]

    def begin(self, dropped: list[ExpertDropout] | None) -> None:
        """Begin an unroll with the weights of the moment; noise of the dropout is (R, T, N, experts) per layer."""
        self._weights.derive()
        gather(self._flat, self._index, self._packed)
        self._first[:] = self._results[0][:, -1]
        if dropped:
            self._noise = torch.cat([d.noise for d in dropped], dim=-1).numpy()
            self._drop = (np.float32(dropped[0].beta), np.float32(dropped[0].gamma))

    @property
    def acts(self) -> Acts:
        """What `act_step` takes."""
        layout = self._layout
        arrays = (*self._arrays, self._noise, *self._drop, *self._results)
        return Acts(layout.policy, layout.layers, layout.sizes, layout.codes, *arrays)

    def act(self, t: int) -> Tensor:
        """Take step t of the unroll; return logits (R, N, actions)."""
        acts = self.acts
        self.map(lambda share: act_step(*acts[:4], t, *acts[4:], *share), self.shares)
        return self._logits_by_step[t]

    def map(self, function: Callable[[Any], object], items: Sequence[Any]) -> None:
        """Call a function with each item, on all threads."""
        list(map(function, items) if self._pool is None else self._pool.map(function, items))

    def replay(self, sentences: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """Return logits (R, T, N, actions) and routing per layer of the unroll, for a loss to be computed from.

        Args:
            sentences: Per replica, sentence vectors (T, N, width) where the mission projection is trained; else empty.
        """
        self._sentences = sentences
        routing = [
            self._tape[..., layer.probs : layer.probs + layer.experts] for layer in self._layers if layer.experts
        ]
        self._leaves = [value.detach().requires_grad_() for value in (self._logits, *routing)]
        return self._leaves[0], self._leaves[1:]

    def differentiate(self, loss: Tensor) -> None:
        """Fill `ReplicaWeights.gradient` from a loss computed from what `replay` returned last."""
        grad_logits, *grad_probs = torch.autograd.grad(loss, self._leaves)
        self._grad_logits.copy_(grad_logits)
        if grad_probs:
            torch.cat(grad_probs, dim=-1, out=self._grad_probs)
        self._backpropagate()

    def sum_losses(
        self, labels: Tensor, valid: Tensor, costs: np.ndarray, levels: np.ndarray, num_levels: int
    ) -> np.ndarray:
        """Return (R, levels, ...) sums over the unroll, see `pipeline.engine.compiled.loss.sum_losses`.

        Args:
            labels: Of all steps, int64, in the order of the engine's inputs.
            valid: Which are labels, likewise.
            costs: Of each expert of each layer.
            levels: Of all steps of a replica, int64.
            num_levels: How many levels there are.
        """
        shape = self._start.shape
        arrays = (labels.numpy().reshape(shape), valid.numpy().reshape(shape), levels.reshape(-1, *shape[1:]))
        sums = np.zeros((shape[0], num_levels, PER_LAYER + 2 * max(1, len(self._layers))))
        arguments = (self._layout.layers, costs, *self._results, *arrays, sums, self._grad_logits.numpy())
        self.map(lambda share: sum_losses(*arguments, *share), self.shares)
        return sums.reshape(len(self._packed), -1, *sums.shape[1:]).sum(axis=1)

    def differentiate_losses(
        self,
        to_task: np.ndarray,
        to_lpc: np.ndarray,
        costs: np.ndarray,
        levels: np.ndarray,
        sentences: Sequence[Tensor],
    ) -> None:
        """Fill `ReplicaWeights.gradient` after `sum_losses`, whose levels and costs are given again.

        Args:
            to_task: (R, levels) derivative of a replica's loss by the cross-entropy of a labelled step of a level.
            to_lpc: (R, levels) that by the LPC of a step.
            costs: Of each expert of each layer.
            levels: Of all steps of a replica.
            sentences: As for `replay`.
        """
        self._sentences = sentences
        places = (*self._start.shape, 1)
        self._grad_logits.numpy()[...] *= to_task[:, levels].reshape(places)
        self._grad_probs.numpy()[...] = to_lpc[:, levels].reshape(places) * costs
        self._backpropagate()

    @torch.no_grad()
    def _backpropagate(self) -> None:
        """Fill `ReplicaWeights.gradient` from the gradients of logits and routing."""
        layout = self._layout
        arguments = (
            layout.policy,
            layout.layers,
            layout.sizes,
            layout.codes,
            self._arrays[0],
            self._start,
            self._packed,
            self._results[0],
            self._grad_logits.numpy(),
            self._grad_probs.numpy(),
            self._grads.numpy(),
            self._group_gradients.numpy(),
        )
        self.map(lambda share: backpropagate(*arguments, *share), self.shares)
        if self._group_gradients is not self._packed_gradient:
            torch.sum(self._group_gradients.unflatten(0, (len(self._packed), -1)), dim=1, out=self._packed_gradient)
        gather(self._packed_gradient.numpy(), self._back, self._gradient)
        if self._sentences:
            self._differentiate_missions()
        self._weights.fold_gradient()

    def _differentiate_missions(self) -> None:
        """Fill in the gradients of the mission projections."""
        policy, first = self._policy, self._layers[0]
        packed = torch.from_numpy(self._packed)
        if policy.projected:
            at, width = policy.first_gradient, first.width
            if policy.codes:
                rows = policy.columns + policy.inputs - policy.codes
                to_inputs = packed[:, policy.projection :][:, : rows * width].unflatten(1, (rows, width)).mT
            else:
                to_inputs = packed[:, policy.projection :][:, : width * policy.inputs].unflatten(
                    1, (width, policy.inputs)
                )
        else:
            at, width = first.gradient, first.num_gates
            to_inputs = packed[:, first.gates :][:, : width * policy.inputs].unflatten(1, (policy.inputs, width)).mT
        grads = self._grads.view(len(packed), -1, self._grads.shape[-1])
        for replica, sentences in enumerate(self._sentences):
            weight, bias = self._weights.projection_gradients[replica]
            gradient = grads[replica, :, at : at + width] @ to_inputs[replica, :, -len(weight) :]  # (steps, lang_dim)
            if policy.missions:
                scale = packed[replica, policy.scale :][: policy.missions * width].view(policy.missions, width)
                of_factor = grads[replica, :, policy.factor_gradient : policy.factor_gradient + width]
                gradient = gradient + of_factor @ scale.mT
            torch.mm(gradient.mT, sentences.flatten(0, -2), out=weight)
            bias.copy_(gradient.sum(dim=0))


class SteppedEngine(CompiledEngine):
    """Acts likewise, called at every step of an unroll: the yardstick of an unroll that is one call."""
