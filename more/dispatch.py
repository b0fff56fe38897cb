"""Rows sorted by the expert they go to, and products of each row with its expert's matrix.

    groups = group_rows(indices, num_experts=8)     # once per layer
    rows = x.flatten(0, 1)[groups.token]            # (rows, d), those of an expert side by side
    product = groups.bind(weight)                   # weight (experts, in, out): cast or split once
    rows = product(rows)                            # as often as there are recurrent steps

Two ways give the same products: `torch.nn.functional.grouped_mm`, one kernel, and a loop over experts, which runs for
every number type and width and is the reference.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from more.untraced import not_traced

Product = Callable[[Tensor], Tensor]


class Groups:
    """Assignments of tokens to experts, sorted by expert and within an expert by token.

    Attributes:
        order: (rows,) which assignment each row is; assignment = token x top_k + slot.
        token: (rows,) the token of each row.
        expert: (rows,) the expert of each row, ascending.
        offsets: (experts,) int32, row at which each expert ends.
        num_assignments: Assignments before padding was left out.
    """

    def __init__(self, order: Tensor, token: Tensor, expert: Tensor, offsets: Tensor, total: int, how: str) -> None:
        self.order, self.token, self.expert, self.offsets = order, token, expert, offsets
        self.num_assignments = total
        self._how = how

    @functools.cached_property
    def sizes(self) -> list[int]:
        """Rows of each expert; on a GPU this waits for it."""
        ends = self.offsets.tolist()
        return [end - start for start, end in zip([0, *ends], ends, strict=False)]

    def bind(self, weight: Tensor) -> Product:
        """Return the function (rows, in) -> (rows, out) that multiplies each row by its expert's matrix.

        Args:
            weight: (experts, in, out). Under autocast it is cast here, once for all calls.

        Raises:
            ValueError: If the config asks for grouped and that does not run here.
        """
        device = weight.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else weight.dtype
        weight = weight.to(dtype)
        aligned = all(width * dtype.itemsize % 16 == 0 for width in weight.shape[1:])
        runs = self._how != "loop" and aligned and grouped_mm_runs(device, dtype)
        if self._how == "grouped" and not runs:
            raise ValueError(
                f"dispatch: grouped_mm does not run on {device} for {dtype} matrices of {tuple(weight.shape[1:])} "
                f"(widths must fill 16 bytes); choose auto or loop"
            )
        if runs:
            return lambda rows: _multiply_grouped(rows.to(dtype), weight, self.offsets)
        matrices = weight.unbind(0)  # its backward writes one gradient; indexing would write one per expert
        return lambda rows: torch.cat(
            [part @ matrix for part, matrix in zip(rows.to(dtype).split(self.sizes), matrices, strict=True)]
        )

    def pick(self, parameter: Tensor) -> Tensor:
        """Return for each row its expert's entry of a parameter (experts, ...), shape (rows, ...)."""
        return parameter.index_select(0, self.expert)

    def scatter(self, rows: Tensor) -> Tensor:
        """Return rows (rows, ...) at the place of their assignments, (assignments, ...); zeros for padding."""
        return rows.new_zeros(self.num_assignments, *rows.shape[1:]).index_copy(0, self.order, rows)


def group_rows(indices: Tensor, num_experts: int, valid: Tensor | None = None, how: str = "auto") -> Groups:
    """Return the assignments sorted by expert.

    Args:
        indices: (tokens, top_k) experts of each token.
        num_experts: Experts of the layer.
        valid: (tokens,) bool, False for padding, which goes to no expert; None if there is none.
        how: "auto", "grouped" or "loop", see `ModelConfig.dispatch`.
    """
    top_k = indices.shape[1]
    experts = indices if valid is None else indices.masked_fill(~valid[:, None], num_experts)
    expert, order = experts.flatten().sort(stable=True)
    counts = torch.bincount(expert, minlength=num_experts)[:num_experts]
    if valid is not None:
        real = int(counts.sum())
        expert, order = expert[:real], order[:real]
    offsets = counts.cumsum(0).to(torch.int32)
    return Groups(order, order // top_k, expert, offsets, indices.numel(), how)


@not_traced  # what torch traces grouped_mm by refuses float32, which the kernel itself takes
def _multiply_grouped(rows: Tensor, weight: Tensor, offsets: Tensor) -> Tensor:
    product = F.grouped_mm(rows, weight, offs=offsets)
    if product.requires_grad:  # its backward refuses an expanded gradient, as sum() makes
        product.register_hook(lambda gradient: gradient.contiguous())
    return product


@not_traced  # it is tried
def grouped_mm_runs(device: str, dtype: torch.dtype) -> bool:
    """Return whether `grouped_mm` runs forwards and backwards, by trying it. torch 2.13 refuses float64."""
    return _try_grouped_mm(device, dtype)


@functools.cache
def _try_grouped_mm(device: str, dtype: torch.dtype) -> bool:
    with torch.inference_mode(False), torch.enable_grad(), torch.autocast(device, enabled=False):
        rows = torch.zeros(16, 16, dtype=dtype, device=device, requires_grad=True)
        weight = torch.zeros(2, 16, 16, dtype=dtype, device=device, requires_grad=True)
        offsets = torch.tensor([16, 16], dtype=torch.int32, device=device)
        try:
            _multiply_grouped(rows, weight, offsets).sum().backward()
        except (RuntimeError, AttributeError):
            return False
    return True
