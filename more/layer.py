"""The mixture layer: the project's router, tokens sorted by expert once, experts, and the weighted sum."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mixture_of_experts import Router, RouterOutput
from more.attention import Place
from more.config import ExpertWidths
from more.dispatch import group_rows
from more.experts import EXPERTS, RecurrentDepthExperts, Stopping
from more.streams import ExpertCache, Streams


class MixtureLayer(nn.Module):
    """Sum over the chosen experts of router probability x expert(x).

    Args:
        model_type: Key of `more.experts.EXPERTS`.
        d_model: Width of input and output.
        num_heads: Heads of expert attention (more_a).
        num_experts: Experts.
        top_k: Experts that a token goes to.
        widths: Of the parts of an expert.
        dispatch: "auto", "grouped" or "loop".
        expert_attention: "same" or "all", what attending experts see.
    """

    def __init__(
        self,
        model_type: str,
        d_model: int,
        num_heads: int,
        num_experts: int,
        top_k: int,
        widths: ExpertWidths,
        dispatch: str = "auto",
        expert_attention: str = "all",
    ) -> None:
        super().__init__()
        self.num_heads, self.num_experts, self.top_k, self.dispatch = num_heads, num_experts, top_k, dispatch
        self.expert_attention = expert_attention
        self.router = Router(d_model, 0, num_experts, recurrent=False, top_k=top_k)
        self.experts = EXPERTS[model_type](num_experts, d_model, widths)
        self.attends = isinstance(self.experts, RecurrentDepthExperts)

    def forward(
        self,
        x: Tensor,
        steps: int,
        place: Place,
        cache: ExpertCache | None = None,
        stopping: Stopping | None = None,
    ) -> tuple[Tensor, RouterOutput]:
        """Return the mixture (batch, time, d_model) and what the router decided, with leading shape (batch, time).

        Args:
            x: (batch, time, d_model).
            steps: r.
            place: Where the tokens stand. Padding goes to no expert and gets zeros.
            cache: Of this layer's expert attention (more_a), or None.
            stopping: Lets rows of recurrent experts stop early, and notes their steps; None: all take r.
        """
        batch, time, d_model = x.shape
        routed = self.router(x)
        indices = routed.indices
        if indices is None:  # every expert is taken
            indices = torch.arange(self.num_experts, device=x.device).expand(batch, time, -1)
        valid = None if place.valid is None else place.valid.flatten()
        groups = group_rows(indices.flatten(0, 1), self.num_experts, valid, self.dispatch)
        streams = None
        if self.attends:
            streams = Streams(groups, indices, place, self.num_heads, self.num_experts, cache, self.expert_attention)
        watched = None if stopping is None else stopping.watch()
        rows = self.experts(x.flatten(0, 1).index_select(0, groups.token), groups, steps, streams, watched)
        if watched is not None and watched.taken is not None:
            stopping.note(groups.scatter(watched.taken).view(batch, time, self.top_k))
        weights = routed.weights.gather(-1, indices).flatten(0, 1)  # (tokens, top_k)
        outputs = groups.scatter(rows).view(batch * time, self.top_k, d_model)
        mixed = torch.einsum("tk,tkd->td", weights.to(outputs.dtype), outputs)
        return mixed.view(batch, time, d_model), routed
