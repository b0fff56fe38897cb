"""Acting and gradients of R replicas on the CPU through compiled calls; the interface is that of `TorchEngine`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mixture_of_experts import ExpertDropout
from pipeline.compiled_backward import backpropagate
from pipeline.compiled_step import act_step
from pipeline.kernels import gather
from pipeline.policy_layout import ALIGN, Layout
from pipeline.replicas import ReplicaWeights

_GROUP = 16  # environments: fewer leave rows of weights that are read for too few rows of states


class CompiledEngine:
    """The policies of R replicas over one unroll of T steps; see `TorchEngine` for the arguments.

    A replica's environments may be divided into groups: what a step of a group needs then stays in the cache, and
    groups are spread over torch's threads. Arrays have an axis of G groups for the R replicas, those of a replica next
    to each other, and n environments in each. Results depend on the groups in the last bits, on threads not at all.
    """

    @staticmethod
    def count_groups(num_envs: int) -> int:
        """Return into how many groups a replica's environments are best divided."""
        return (
            max(groups for groups in range(1, num_envs // _GROUP + 1) if num_envs % groups == 0)
            if num_envs >= _GROUP
            else 1
        )

    def __init__(self, policy: nn.Module, weights: ReplicaWeights, inputs: Tensor, episode_start: Tensor) -> None:
        self._weights, packing = weights, weights.packing
        self._layout = layout = Layout(packing, getattr(policy, "layer_expert_sizes", []), inputs.shape[-1])
        shape = inputs.shape[:3]
        self._inputs, self._start = inputs, episode_start.numpy()
        self._tape = torch.zeros(*shape, layout.tape)
        self._grads = torch.zeros(*shape, layout.grads)
        self._policy, self._layers = layout.policy.view(np.recarray)[0], layout.layers.view(np.recarray)
        self._logits = torch.zeros(*shape, self._policy.actions)
        self._first = np.zeros((shape[0], shape[2], layout.tape), np.float32)
        self._grad_probs = torch.zeros(*shape, len(layout.sizes))
        self._noise, self._drop = np.zeros((*shape, 1), np.float32), (np.float32(0), np.float32(0))
        self._index, self._back = packing.index.numpy(), packing.back.numpy()
        self._flat, self._gradient = weights.flat.numpy(), weights.gradient.numpy()
        replicas = len(weights.flat)
        self._packed = np.zeros((replicas, packing.size), np.float32)
        # One number more at least, always zero: the gradient of weights that are not packed. Rows begin at cache lines,
        # as those of the tape do: the last bits of MKL's products depend on that.
        columns = (packing.size // ALIGN + 1) * ALIGN
        self._packed_gradient = torch.zeros(replicas, columns)
        self._group_gradients = torch.zeros(shape[0], columns) if shape[0] > replicas else self._packed_gradient
        threads = min(torch.get_num_threads(), shape[0])
        self._shares = list(pairwise([shape[0] * i // threads for i in range(threads + 1)]))
        self._pool = ThreadPoolExecutor(threads) if threads > 1 else None
        self._arrays = (inputs.numpy(), self._start, self._packed, self._first)
        self._results = (self._tape.numpy(), self._logits.numpy())
        self._logits_by_step = [self._logits[:, t] for t in range(shape[1])]
        self._products = self._list_products()
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
        gather(self._flat, self._index, self._packed)
        self._first[:] = self._results[0][:, -1]
        if dropped:
            self._noise = torch.cat([d.noise for d in dropped], dim=-1).numpy()
            self._drop = (np.float32(dropped[0].beta), np.float32(dropped[0].gamma))

    def act(self, t: int) -> Tensor:
        """Take step t of the unroll; return logits (R, N, actions)."""
        layout = self._layout
        arrays = (*self._arrays, self._noise, *self._drop, *self._results)
        self._share_out(act_step, layout.policy, layout.layers, layout.sizes, t, *arrays)
        return self._logits_by_step[t]

    def _share_out(self, function: Callable[..., None], *arguments: Any) -> None:
        """Call a compiled function for all groups, in as many calls as there are threads."""
        if self._pool is None:
            function(*arguments, *self._shares[0])
        else:
            list(self._pool.map(lambda share: function(*arguments, *share), self._shares))

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

    @torch.no_grad()
    def differentiate(self, loss: Tensor) -> None:
        """Fill `ReplicaWeights.gradient` from a loss computed from what `replay` returned last."""
        grad_logits, *grad_probs = torch.autograd.grad(loss, self._leaves)
        grad_logits = grad_logits.contiguous()
        if grad_probs:
            torch.cat(grad_probs, dim=-1, out=self._grad_probs)
        layout = self._layout
        self._share_out(
            backpropagate,
            layout.policy,
            layout.layers,
            layout.sizes,
            self._start,
            self._packed,
            self._results[0],
            grad_logits.numpy(),
            self._grad_probs.numpy(),
            self._grads.numpy(),
            self._group_gradients.numpy(),
        )
        if self._group_gradients is not self._packed_gradient:
            torch.sum(self._group_gradients.unflatten(0, (len(self._packed), -1)), dim=1, out=self._packed_gradient)
        for rows, grads, out in self._products:
            torch.bmm(rows, grads, out=out)
        gather(self._packed_gradient.numpy(), self._back, self._gradient)
        if self._sentences:
            self._differentiate_missions()

    def _list_products(self) -> list[tuple[Tensor, Tensor, Tensor]]:
        """Return what weight gradients are products of: inputs (R, K, steps), gradients (R, steps, M), place (R, K, M).

        Steps are those of all environments. The head has its gradient already.
        """
        replicas = len(self._packed)
        inputs, tape, grads = (
            array.view(replicas, -1, array.shape[-1]) for array in (self._inputs, self._tape, self._grads)
        )
        products: list[tuple[Tensor, Tensor, Tensor]] = []

        def add(rows: Tensor, gradients: Tensor, width: int, at: int) -> None:
            depth = rows.shape[-1]
            place = self._packed_gradient[:, at : at + depth * width].unflatten(1, (depth, width))
            products.append((rows.mT, gradients, place))

        plan, layers = self._policy, self._layers
        if plan.projected:
            width = layers[0].width
            add(inputs, grads[..., plan.first_gradient :][..., :width], width, plan.projection)
        for layer in layers:
            x = tape[..., layer.x : layer.x + layer.width]
            add(x, grads[..., layer.gradient :][..., : layer.num_gates], layer.num_gates, layer.gates)
            for cell in (layer.router, layer.expert):
                if cell.units:
                    before = tape[..., cell.kept : cell.kept + cell.units]
                    add(before, grads[..., cell.gradient :][..., : 3 * cell.units], 3 * cell.units, cell.weight)
            if layer.experts:
                features = tape[..., layer.router.features :][..., : layer.router.units]
                add(
                    features,
                    grads[..., layer.router_gradient :][..., : layer.experts],
                    layer.experts,
                    layer.router_weight,
                )
            if layer.expert.units:
                gated = tape[..., layer.gated : layer.gated + layer.expert.units]
                add(gated, grads[..., layer.mixed_gradient :][..., : layer.width], layer.width, layer.projection)
        return products

    def _differentiate_missions(self) -> None:
        """Fill in the gradients of the mission projections."""
        plan, first = self._policy, self._layers[0]
        at, width = (plan.first_gradient, first.width) if plan.projected else (first.gradient, first.num_gates)
        matrix = plan.projection if plan.projected else first.gates
        packed = torch.from_numpy(self._packed)[:, matrix : matrix + plan.inputs * width]
        for replica, sentences in enumerate(self._sentences):
            weight, bias = self._weights.projection_gradients[replica]
            to_missions = packed[replica].view(plan.inputs, width)[-len(weight) :]  # (lang_dim, width)
            grads = self._grads.view(len(self._packed), -1, self._grads.shape[-1])[replica, :, at : at + width]
            gradient = grads @ to_missions.mT  # (steps, lang_dim)
            torch.mm(gradient.mT, sentences.flatten(0, -2), out=weight)
            bias.copy_(gradient.sum(dim=0))
