"""Acting and gradients of R replicas with torch, on any device (`compiled/engine.py`: the same, compiled)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mixture_of_experts import ExpertDropout
from pipeline.engine.packed import arrange
from pipeline.engine.packed_policy import Mix, PackedLayer
from pipeline.engine.weights import ReplicaWeights


class TorchEngine:
    """The policies of R replicas over one unroll of T steps of N environments.

    Acting keeps what is recurrent; the pass with gradients takes it from there and leaves the rest to autograd.

    Args:
        policy: Gives the architecture.
        weights: Weights of the replicas.
        inputs: (R, T, N, obs_dim + lang_dim), filled by the caller step by step.
        episode_start: (R, T, N) bool, likewise.
    """

    @staticmethod
    def count_groups(num_envs: int) -> int:
        """Return into how many groups a replica's environments are divided: into none."""
        return 1

    def __init__(self, policy: nn.Module, weights: ReplicaWeights, inputs: Tensor, episode_start: Tensor) -> None:
        self._weights, self._inputs, self._start = weights, inputs, episode_start
        packing, flat = weights.packing, weights.flat
        self._index, self._back = packing.index.to(flat.device), packing.back.to(flat.device)
        self._buffer = flat.new_zeros(len(flat), packing.size)
        sizes = [array.numel() for array in packing.arrays]
        self._leaves = [
            part.unflatten(1, array.shape[1:]).detach().requires_grad_()
            for part, array in zip(self._buffer.split(sizes, dim=1), packing.arrays, strict=True)
        ]
        leaves = iter(self._leaves)
        named = {name: parameter.detach()[None] for name, parameter in policy.named_parameters()}
        self._packed = arrange(policy, named, place=lambda _: next(leaves))
        self._tapes = self._packed.tapes(*inputs.shape[1:3])
        self._steps = [(inputs[:, t], episode_start[:, t, :, None]) for t in range(inputs.shape[1])]
        self._hidden = self._before = self._packed.split_hidden(self.init_hidden())
        self._dropped: list[ExpertDropout] | None = None
        self._mix: Mix = PackedLayer.mix

    def init_hidden(self) -> list[Tensor]:
        """Return a zero state: one (R, N, H) tensor per layer."""
        return self._packed.init_hidden(self._inputs.shape[2])

    @property
    def hidden(self) -> list[Tensor]:
        """The state after the last step, one (R, N, H) tensor per layer; may be set between unrolls."""
        return self._packed.join_hidden(self._hidden)

    @hidden.setter
    def hidden(self, hidden: Sequence[Tensor]) -> None:
        self._hidden = self._packed.split_hidden(hidden)

    @torch.no_grad()
    def begin(self, dropped: list[ExpertDropout] | None) -> None:
        """Begin an unroll with the weights of the moment; noise of the dropout is (R, T, N, experts) per layer."""
        self._weights.derive()
        torch.index_select(self._weights.flat, 1, self._index, out=self._buffer)
        self._before, self._dropped = self._hidden, dropped

    def act(self, t: int) -> Tensor:
        """Take step t of the unroll; return logits (R, N, actions)."""
        inputs, start = self._steps[t]
        dropped = self._dropped and [d._replace(noise=d.noise[:, t]) for d in self._dropped]
        logits, self._hidden = self._packed.act(inputs, self._hidden, start, self._tapes, t, dropped)
        return logits

    def replay(self, sentences: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """Return logits (R, T, N, actions) and routing per layer of the unroll, for a loss to be computed from.

        Args:
            sentences: Per replica, sentence vectors (T, N, width) where the mission projection is trained; else empty.
        """
        inputs = self._inputs
        if sentences:
            projected = [F.linear(rows, *leaf) for rows, leaf in zip(sentences, self._weights.projections, strict=True)]
            vectors = torch.stack(projected)
            inputs = torch.cat([inputs[..., : -vectors.shape[-1]], vectors], dim=-1)
        return self._packed.replay(inputs, self._before, self._start, self._tapes, self._dropped, self._mix)

    def compile(self, announce: Callable[[str], object]) -> None:
        """Run what is not recurrent of the training pass through `torch.compile`; where it fails, say so, go on."""
        compiled = torch.compile(PackedLayer.mix, dynamic=False)
        try:
            self._try_out(compiled)
        except Exception as error:  # of many kinds: no compiler, no Triton, an operation it does not know
            reason = " ".join(str(error).split())[:200]
            announce(f"torch.compile failed ({type(error).__name__}: {reason}); going on without it")
        else:
            self._mix = compiled

    def _try_out(self, mix: Mix) -> None:
        """Run each layer forwards and backwards on zeros of the shapes of training."""
        replicas, steps, envs = self._start.shape
        for layer in self._packed.layers:
            shape = (replicas, steps * envs)
            x = self._inputs.new_zeros(*shape, layer.gates.weight.shape[1], requires_grad=True)
            states = [self._inputs.new_zeros(*shape, size, requires_grad=True) for size in layer.sizes]
            mix(layer, x, states, None)[0].sum().backward()

    def differentiate(self, loss: Tensor) -> None:
        """Fill `ReplicaWeights.gradient` from a loss computed from what `replay` returned last."""
        weights = self._weights
        projections = [leaf for replica in weights.projections for leaf in replica]
        grads = torch.autograd.grad(loss, [*self._leaves, *projections])
        replicas = len(weights.flat)
        packed = [grad.reshape(replicas, -1) for grad in grads[: len(self._leaves)]]
        packed.append(weights.flat.new_zeros(replicas, 1))
        torch.index_select(torch.cat(packed, dim=1), 1, self._back, out=weights.gradient)
        places = [view for replica in weights.projection_gradients for view in replica]
        for view, grad in zip(places, grads[len(self._leaves) :], strict=True):
            view.copy_(grad)
        weights.fold_gradient()
