"""Weights of R replicas in one array: policies, packed form, gradients and Adam all read and write it in place.

Each replica's weights are one row of `flat` (R, P). Its modules' parameters are views of that row, so that
`state_dict`, `load_state_dict` and evaluation see the weights of the moment. The packed form is a rearrangement of the
rows (`Packing`); one gather makes it, the opposite one brings gradients back. Adam has one parameter per replica, its
row: its steps are elementwise, hence the same as with one parameter per weight matrix.

Where the codes of observations are embedded, the packed form has one map of one-hot vectors in place of the embedding
and the linear map behind it. That product stands in the row too, behind what is trained: `derive` computes it from the
weights of the moment, `fold_gradient` takes its gradient back to the two.

Of a replica that trains some parts only, the gradient of the other weights is 0. Adam's moments of these stay 0, and so
does each of its steps: the weights keep their bits.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.adam import adam

from mixture_of_experts import widen_embedding
from pipeline.engine.packed import PROJECTION, TABLE, arrange
from pipeline.parts import part_of

_MOMENTS = ("exp_avg", "exp_avg_sq")
# torch.optim.Adam's own, but for the fused step: it updates all weights in one call, where on these small networks a
# loop over tensors costs more.
_ADAM: dict[str, Any] = {
    "betas": (0.9, 0.999),
    "eps": 1e-8,
    "weight_decay": 0,
    "amsgrad": False,
    "maximize": False,
    "foreach": None,
    "capturable": False,
    "differentiable": False,
    "fused": True,
    "decoupled_weight_decay": False,
}
_ALIGN = 16  # floats: rows begin at a cache line, and vector instructions see each replica alike


class Packing:
    """How a row of P weights is rearranged into a row of Q packed ones; found by packing the weights' own positions.

    Attributes:
        places: The packed form of the positions, counted from 1; 0 is padding. Arrays are (1, ...).
        arrays: Its arrays in the order of a packed row.
        offsets: Where each begins.
        index: (Q,) int64, position in a row of weights of each packed number.
        back: (P,) int64, position in a packed row of each weight's gradient; Q, one too far, for weights not packed.
    """

    def __init__(self, policy: nn.Module, positions: Mapping[str, Tensor], width: int, zero: int) -> None:
        """Find the places.

        Args:
            policy: Gives the architecture.
            positions: Name of each parameter -> its weights' positions in a row, float64, in the shape that `arrange`
                takes.
            width: P.
            zero: Position of a column that is always zero.
        """
        self.arrays: list[Tensor] = []
        named = {name: view[None] + 1 for name, view in positions.items()}
        self.places = arrange(policy, named, place=self._note)
        self.offsets = list(accumulate((array.numel() for array in self.arrays), initial=0))
        self.size = self.offsets.pop()
        found = torch.cat([array.reshape(-1) for array in self.arrays]).long() - 1
        self.index = torch.where(found < 0, zero, found)
        self.back = torch.full((width,), self.size)
        self.back[found[found >= 0]] = torch.arange(self.size)[found >= 0]

    def _note(self, array: Tensor) -> Tensor:
        self.arrays.append(array)
        return array

    def offset(self, array: Tensor) -> int:
        """Return where an array of `places` begins in a packed row."""
        return self.offsets[next(i for i, other in enumerate(self.arrays) if other is array)]


class ReplicaWeights:
    """The trained weights of R replicas.

    Attributes:
        flat: (R, P); whoever reads it calls `derive` first.
        gradient: (R, P), filled by whoever computes it, who then calls `fold_gradient`.
        packing: Where each weight of a row goes in the packed form.
        projections: Per replica, weight and bias of a trained mission projection as leaves for autograd.
        projection_gradients: Per replica, the places of their gradients within `gradient`.
    """

    def __init__(
        self,
        policies: Sequence[nn.Module],
        projections: Sequence[nn.Linear],
        lr: float,
        train_only: Sequence[Sequence[str] | None] = (),
    ) -> None:
        """Move the weights of the replicas into one array.

        Args:
            policies: One per replica, of one architecture; their parameters become views.
            projections: Mission projections that are trained too, one per replica, or none.
            lr: Learning rate of Adam.
            train_only: Parts that each replica trains (`pipeline.parts`), None: all; empty: all of every replica.
        """
        trained = [list(policy.named_parameters()) for policy in policies]
        in_policy = len(trained[0])
        for parameters, projection in zip(trained, projections, strict=False):
            parameters += [(f"lang_proj.{name}", parameter) for name, parameter in projection.named_parameters()]
        self._names = [name for name, _ in trained[0]]
        self._shapes = [parameter.shape for _, parameter in trained[0]]
        counts = [math.prod(shape) for shape in self._shapes]
        self._offsets = list(accumulate(counts, initial=0))
        self._size = self._offsets.pop()
        like = trained[0][0][1]
        # At least one spare column, always zero: padding of packed arrays.
        self._trained = width = (self._size // _ALIGN + 1) * _ALIGN
        self._embeds = TABLE in self._names
        if self._embeds:
            shapes = (self._shapes[self._names.index(name)] for name in (TABLE, PROJECTION))
            self._wide = widen_embedding(*(torch.empty(shape, device="meta") for shape in shapes)).shape
            width += -(-math.prod(self._wide) // _ALIGN) * _ALIGN
        self.flat = torch.zeros(len(policies), width, dtype=like.dtype, device=like.device)
        for row, parameters in zip(self.flat, trained, strict=True):
            for (_, parameter), view in zip(parameters, self._views(row), strict=True):
                view.copy_(parameter.detach())
                parameter.data = view
        places = torch.arange(width, dtype=torch.float64)
        positions = dict(zip(self._names[:in_policy], self._views(places), strict=False))
        if self._embeds:
            positions[PROJECTION] = self._product(places[None])[0]
        self.packing = Packing(policies[0], positions, width, zero=self._trained - 1)
        self.gradient = torch.zeros_like(self.flat)
        # Per replica, the projection's weight and bias as leaves, and where their gradients go; empty if frozen.
        self.projections = [
            [view.detach().requires_grad_() for view in self._views(row)[in_policy:]] for row in self.flat
        ]
        self.projection_gradients = [self._views(row)[in_policy:] for row in self.gradient]
        self._rows, self._gradients = (array[:, : self._trained] for array in (self.flat, self.gradient))
        self._frozen = self._find_frozen(train_only)
        self._lr = lr
        self._moments: list[dict[str, Tensor]] = [{} for _ in policies]  # as Adam has them: none before the first step

    def _views(self, row: Tensor) -> list[Tensor]:
        """Return a row's weights (P,) as views of each parameter's shape."""
        return [
            row[start : start + math.prod(shape)].view(shape)
            for start, shape in zip(self._offsets, self._shapes, strict=True)
        ]

    def _find_frozen(self, train_only: Sequence[Sequence[str] | None]) -> Tensor | None:
        """Return which weights of each replica stay as they are, bool (R, trained); None: none at all."""
        if all(parts is None for parts in train_only):
            return None
        frozen = torch.ones(self._gradients.shape, dtype=torch.bool, device=self.flat.device)
        for row, parts in zip(frozen, train_only, strict=True):
            for name, view in zip(self._names, self._views(row), strict=True):
                view.fill_(parts is not None and part_of(name) not in parts)
        return frozen

    def _stacked(self, rows: Tensor, name: str) -> Tensor:
        """Return a parameter's part of rows (R, P) as a view (R, *shape)."""
        index = self._names.index(name)
        start, shape = self._offsets[index], self._shapes[index]
        return rows[:, start : start + math.prod(shape)].unflatten(1, shape)

    def _product(self, rows: Tensor) -> Tensor:
        """Return the part of rows (R, P) that is the map of one-hot vectors, a view (R, out, in)."""
        return rows[:, self._trained : self._trained + math.prod(self._wide)].unflatten(1, self._wide)

    @torch.no_grad()
    def derive(self) -> None:
        """Compute what of `flat` is a product of trained weights."""
        if self._embeds:
            factors = (self._stacked(self.flat, name) for name in (TABLE, PROJECTION))
            self._product(self.flat).copy_(widen_embedding(*factors))

    def fold_gradient(self) -> None:
        """Take the gradient of what `derive` computes to what that is computed from; clear it of what is frozen."""
        if self._embeds:
            self._fold_product()
        if self._frozen is not None:
            self._gradients.masked_fill_(self._frozen, 0.0)  # one that is not finite would survive a product

    def _fold_product(self) -> None:
        names = (TABLE, PROJECTION)
        factors = [self._stacked(self.flat, name).detach().requires_grad_() for name in names]
        with torch.enable_grad():
            product = widen_embedding(*factors)
        for name, gradient in zip(
            names, torch.autograd.grad(product, factors, self._product(self.gradient)), strict=True
        ):
            self._stacked(self.gradient, name).copy_(gradient)

    def norms(self) -> Tensor:
        """Return the norm of each replica's gradient, of what it trains, (R,)."""
        return torch.stack([row.dot(row) for row in self._gradients]).sqrt()

    @torch.no_grad()
    def step(self, norms: Tensor, finite: Sequence[bool], grad_clip: float | None) -> None:
        """Take a step of Adam along `gradient`.

        Args:
            norms: (R,) of the gradients.
            finite: Replicas that take part; the others' weights and moments stay as they are.
            grad_clip: Largest norm, or None.
        """
        if grad_clip is not None:
            self.gradient.mul_((grad_clip / (norms + 1e-6)).clamp(max=1.0).unsqueeze(1))
        chosen = [replica for replica, takes_part in enumerate(finite) if takes_part]
        for replica in chosen:
            if not self._moments[replica]:
                row = self._rows[replica]
                step = torch.zeros((), dtype=torch.float32, device=row.device)
                self._moments[replica] = {"step": step, **{name: torch.zeros_like(row) for name in _MOMENTS}}
        states = [self._moments[replica] for replica in chosen]
        # What torch.optim.Adam calls: the class itself loads torch.compile, which takes as long as torch.
        adam(
            [self._rows[replica] for replica in chosen],
            [self._gradients[replica] for replica in chosen],
            *([state[name] for state in states] for name in _MOMENTS),
            [],
            [state["step"] for state in states],
            lr=self._lr,
            **{name: value for name, value in _ADAM.items() if name != "betas"},
            beta1=_ADAM["betas"][0],
            beta2=_ADAM["betas"][1],
        )

    def optimizer_state(self, replica: int) -> dict[str, Any]:
        """Return what `torch.optim.Adam(parameters).state_dict()` would be for a replica's parameters by themselves."""
        state = self._moments[replica]
        parts = {name: self._views(value) for name, value in state.items() if name != "step"}
        group = {"lr": self._lr, **_ADAM, "params": list(range(len(self._names)))}
        if not state:
            return {"state": {}, "param_groups": [group]}
        return {
            "state": {
                i: {"step": state["step"].clone(), **{name: views[i].clone() for name, views in parts.items()}}
                for i in range(len(self._names))
            },
            "param_groups": [group],
        }

    def load_optimizer_state(self, replica: int, content: Mapping[str, Any]) -> None:
        """Take over a replica's optimiser state from `optimizer_state`, or of a run by itself.

        Raises:
            ValueError: If it is of other parameters.
        """
        saved = content["state"]
        if not saved:
            return
        row = self._rows[replica]
        if sorted(saved) != list(range(len(self._names))):
            raise ValueError(f"optimizer: expected {len(self._names)} parameters, found {len(saved)}")
        state = {"step": torch.as_tensor(saved[0]["step"], dtype=torch.float32).to(row.device).clone()}
        for name in _MOMENTS:
            state[name] = torch.zeros_like(row)
            for i, view in enumerate(self._views(state[name])):
                if saved[i][name].shape != view.shape:
                    raise ValueError(
                        f"optimizer: expected {tuple(view.shape)} for {self._names[i]}, found "
                        f"{tuple(saved[i][name].shape)}"
                    )
                view.copy_(saved[i][name])
        self._moments[replica] = state
