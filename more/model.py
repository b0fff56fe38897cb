"""The language model: a pre-norm decoder whose feed-forward parts are mixtures of experts.

    model = MoreModel(ModelConfig(model_type="more_a", num_recurrences=4, **PRESETS["debug"]))
    output = model(tokens)                                          # (batch, time) -> logits (batch, time, vocab)
    loss = F.cross_entropy(output.logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten())
    terms = routing_losses(output)                                  # terms.balance, terms.z

Each block: x += Attention(RMSNorm(x)); x += Mixture(RMSNorm(x)). The head shares the embedding's weights.

`looped`, the control of recurrence in experts, passes all blocks r times, the embedding added before each pass (Yang et
al., Looped Transformers are Better at Learning Learning Algorithms, https://arxiv.org/abs/2311.12424); at r = 1 it is
base.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mixture_of_experts import RouterOutput, RouterTerms, compute_router_terms
from more.attention import CausalSelfAttention, KeyValues, Place, build_rotary_table
from more.config import ModelConfig, compute_widths, count_expert_parameters, count_used_parameters
from more.experts import Stopping
from more.layer import MixtureLayer
from more.streams import ExpertCache

NORM_EPS = 1e-6


class Cache:
    """What a model keeps of the tokens it has read, so that it need not read them again.

    Args:
        model: Whose cache it is.
        batch: Sequences.
        capacity: Room for so many tokens each.
        num_recurrences: r of all calls that use it; None is the config's.

    Attributes:
        lengths: (batch,) tokens read of each sequence.
        longest: The largest of them.
    """

    def __init__(self, model: MoreModel, batch: int, capacity: int, num_recurrences: int | None = None) -> None:
        config = model.config
        if not 1 <= capacity <= config.max_length:
            raise ValueError(f"capacity: expected 1 to {config.max_length} (max_length), found {capacity}")
        self.capacity, self.longest = capacity, 0
        self.num_recurrences = config.num_recurrences if num_recurrences is None else num_recurrences
        like = model.embedding.weight.detach()
        heads, head_dim = config.num_heads, config.d_model // config.num_heads
        self.lengths = torch.zeros(batch, dtype=torch.long, device=like.device)
        applied = config.num_layers * count_passes(config, self.num_recurrences)
        self.attention = [KeyValues(batch, capacity, heads, head_dim, like) for _ in range(applied)]
        self.experts: list[ExpertCache | None] = [None] * applied
        if config.model_type == "more_a":
            sizes = (batch, capacity, config.top_k, config.num_experts, self.num_recurrences, heads, head_dim)
            self.experts = [ExpertCache(*sizes, like) for _ in range(config.num_layers)]

    def select(self, rows: Tensor) -> None:
        """Keep the given sequences (indices), in that order; one may be taken several times."""
        self.lengths = self.lengths[rows]
        self.longest = max(self.lengths.tolist(), default=0)  # a longer one may be gone, and no longer takes room
        for kept in [*self.attention, *self.experts]:
            if kept is not None:
                kept.select(rows)


class MoreOutput(NamedTuple):
    """What a forward pass returns.

    Attributes:
        logits: (batch, time, vocab).
        routing: What each layer's router decided, with leading shape (batch, time); of looped pass by pass.
        cache: The one that was given, now holding these tokens too, or None.
        mask: (batch, time) bool, False for padding; None if `lengths` was not given.
        passes: Through the blocks: r for looped, else 1.
    """

    logits: Tensor
    routing: list[RouterOutput]
    cache: Cache | None
    mask: Tensor | None
    passes: int = 1


def count_passes(config: ModelConfig, num_recurrences: int) -> int:
    """Return how often the blocks are passed at r = `num_recurrences`."""
    return num_recurrences if config.model_type == "looped" else 1


class Block(nn.Module):
    """Attention and mixture, each on a normalised input and added to it.

    Args:
        config: Of the model.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.attention_norm = nn.RMSNorm(config.d_model, eps=NORM_EPS)
        self.attention = CausalSelfAttention(config.d_model, config.num_heads)
        self.mixture_norm = nn.RMSNorm(config.d_model, eps=NORM_EPS)
        self.mixture = MixtureLayer(
            config.model_type,
            config.d_model,
            config.num_heads,
            config.num_experts,
            config.top_k,
            compute_widths(config),
            config.dispatch,
            config.expert_attention,
        )
        self.dropout = nn.Dropout(config.dropout)  # never on sorted rows: their order depends on later tokens

    def forward(
        self,
        x: Tensor,
        steps: int,
        place: Place,
        kept: KeyValues | None,
        expert_cache: ExpertCache | None,
        stopping: Stopping | None = None,
    ) -> tuple[Tensor, RouterOutput]:
        """Return (batch, time, d_model) and what the router decided."""
        x = x + self.dropout(self.attention(self.attention_norm(x), place, kept))
        mixed, routed = self.mixture(self.mixture_norm(x), steps, place, expert_cache, stopping)
        return x + self.dropout(mixed), routed


class MoreModel(nn.Module):
    """Language model of any variant.

    Args:
        config: Sizes and variant.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocab_size, config.d_model)
        self.dropout = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.num_layers))
        self.norm = nn.RMSNorm(config.d_model, eps=NORM_EPS)
        self.reset()

    def reset(self) -> None:
        """Draw the weights as GPT-2 does, from torch's global generator.

        Normal with standard deviation 0.02 at GPT-2's width 768, so that other widths see equally large activations;
        what is added to the residual stream is divided by sqrt(2 x layers); biases start at zero.
        """
        std = 0.02 * (768 / self.config.d_model) ** 0.5
        residual_std = std / (2 * self.config.num_layers) ** 0.5
        nn.init.normal_(self.embedding.weight, std=std)
        for block in self.blocks:
            nn.init.normal_(block.attention.query_key_value.weight, std=std)
            nn.init.normal_(block.attention.out.weight, std=residual_std)
            nn.init.normal_(block.mixture.router.fc.weight, std=std)
            nn.init.zeros_(block.mixture.router.fc.bias)
            block.mixture.experts.reset(std, residual_std)

    def forward(
        self,
        tokens: Tensor,
        *,
        num_recurrences: int | None = None,
        lengths: Tensor | None = None,
        cache: Cache | None = None,
        stopping: Stopping | None = None,
    ) -> MoreOutput:
        """Return logits and routing.

        Args:
            tokens: (batch, time) token numbers.
            num_recurrences: r of this call; None is the config's.
            lengths: (batch,) how many of `tokens` are real, from the left; the rest is padding, which reaches no
                expert, no statistic of `routing_losses` and no real token. None: all are real.
            cache: Continue sequences after what it holds, and add these tokens to it. Not under gradients.
            stopping: Lets tokens stop iterating, and notes the steps that each takes; None: all take r.

        Raises:
            ValueError: If shapes, r, or the length do not fit model and cache.
        """
        features, routing, mask = self.compute_features(
            tokens, num_recurrences=num_recurrences, lengths=lengths, cache=cache, stopping=stopping
        )
        passes = len(routing) // self.config.num_layers
        return MoreOutput(self.compute_logits(features), routing, cache, mask, passes)

    def compute_features(
        self,
        tokens: Tensor,
        *,
        num_recurrences: int | None = None,
        lengths: Tensor | None = None,
        cache: Cache | None = None,
        stopping: Stopping | None = None,
    ) -> tuple[Tensor, list[RouterOutput], Tensor | None]:
        """Return what `compute_logits` takes (batch, time, d_model), routing per layer, and the mask of real tokens.

        As `forward`, for callers who need the logits of some positions only.
        """
        steps = self._check(tokens, num_recurrences, lengths, cache)
        place = self._locate(tokens, lengths, cache)
        x = embedded = self.dropout(self.embedding(tokens))  # (batch, time, d_model)
        passes, layers = count_passes(self.config, steps), len(self.blocks)
        if stopping is not None:
            stopping.begin()
        watched = stopping.watch() if stopping is not None and self.config.model_type == "looped" else None
        inner = stopping if watched is None else None
        routing, seen = [], []  # what went into the blocks of the last pass and came out of the last one
        for number in range(passes):
            before, seen = seen, []
            x = x + embedded if number else x
            for layer, block in enumerate(self.blocks):
                if watched is not None:  # a token that has stopped shows every layer what it showed in its last pass
                    x = watched.keep(before[layer] if before else None, x)
                    seen.append(x)
                index = number * layers + layer
                kept = (None, None) if cache is None else (cache.attention[index], cache.experts[index])
                x, routed = block(x, steps, place, *kept, inner)
                routing.append(routed)
            if watched is not None:
                x = watched.step(before[-1] if before else None, x)
                seen.append(x)
        if watched is not None:
            taken = watched.taken if place.valid is None else watched.taken * place.valid
            stopping.note(taken[..., None])
        if cache is not None:
            cache.lengths = cache.lengths + (tokens.shape[1] if lengths is None else lengths)
            cache.longest = cache.longest + tokens.shape[1] if lengths is None else int(cache.lengths.max())
        return self.norm(x), routing, place.valid

    def compute_logits(self, features: Tensor) -> Tensor:
        """Return (..., vocab) for features (..., d_model)."""
        return F.linear(features, self.embedding.weight)

    def _locate(self, tokens: Tensor, lengths: Tensor | None, cache: Cache | None) -> Place:
        time, device = tokens.shape[1], tokens.device
        positions = torch.arange(time, device=device)[None]  # (1, time)
        valid = None if lengths is None else positions < lengths[:, None]  # (batch, time)
        seen, mask, places = 0, None, None
        if cache is not None:
            positions = cache.lengths[:, None] + positions  # (batch, time)
            starts = cache.capacity * torch.arange(len(tokens), device=device)
            places = (starts[:, None] + positions).flatten()
            if cache.longest:
                seen = cache.longest + time
                mask = torch.arange(seen, device=device) <= positions[..., None]  # (batch, time, seen)
        head_dim = self.config.d_model // self.config.num_heads
        turns = build_rotary_table(self.config.max_length, head_dim, device)
        return Place(positions, turns[positions], places, valid, mask, seen)

    def _check(self, tokens: Tensor, steps: int | None, lengths: Tensor | None, cache: Cache | None) -> int:
        if tokens.dim() != 2 or 0 in tokens.shape:
            raise ValueError(f"tokens: expected (batch, time), neither empty, found shape {tuple(tokens.shape)}")
        batch, time = tokens.shape
        limit = self.config.max_length if cache is None else cache.capacity
        before = 0 if cache is None else cache.longest
        if before + time > limit:
            raise ValueError(
                f"tokens: {before} + {time} exceed the longest sequence, {limit} (max_length of the model or capacity "
                "of the cache); shorten the sequence"
            )
        if lengths is not None and (lengths.shape != (batch,) or lengths.is_floating_point()):
            raise ValueError(f"lengths: expected {batch} integers, found {lengths.dtype} of {tuple(lengths.shape)}")
        if lengths is not None and not 0 <= int(lengths.min()) <= int(lengths.max()) <= time:
            raise ValueError(f"lengths: expected 0 to {time} (tokens given), found {lengths.tolist()}")
        if steps is None:
            steps = self.config.num_recurrences if cache is None else cache.num_recurrences
        if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
            raise ValueError(f"num_recurrences: expected an integer of at least 1, found {steps!r}")
        if cache is not None:
            if torch.is_grad_enabled():
                raise ValueError("cache: expected a call under torch.no_grad(), found gradients enabled")
            if len(cache.lengths) != batch:
                raise ValueError(f"cache: expected one of {batch} sequences, found {len(cache.lengths)}")
            if cache.num_recurrences != steps:
                raise ValueError(f"num_recurrences: the cache was made with {cache.num_recurrences}, found {steps}")
        return steps


# ---------------------------------------------------------------------------------------------------- what it costs


class RoutingLosses(NamedTuple):
    """Means over the layers."""

    balance: Tensor  # () 1 when balanced, see mixture_of_experts.RouterTerms
    z: Tensor  # ()


def compute_routing_terms(output: MoreOutput, merge: Callable[[Tensor], Tensor] | None = None) -> list[RouterTerms]:
    """Return each layer's router terms over the real tokens (`mixture_of_experts.compute_router_terms`).

    Where blocks are passed several times, a layer's terms are the means over its passes.

    Args:
        output: Of a forward pass.
        merge: Of a batch that several processes read: makes the load of all of it (routings, experts) of the load of
            this part, on which the balance loss is then taken.
    """

    def pick(routed: RouterOutput) -> RouterOutput:
        return RouterOutput(*(None if part is None else part[output.mask] for part in routed))

    terms = [compute_router_terms(routed if output.mask is None else pick(routed)) for routed in output.routing]
    if merge is not None:
        loads = merge(torch.stack([term.load for term in terms]))
        terms = [
            term._replace(load=load, balance=len(load) * (load * term.importance).sum())
            for term, load in zip(terms, loads, strict=True)
        ]
    if output.passes == 1:
        return terms
    layers = len(terms) // output.passes
    return [
        RouterTerms(*(torch.stack(parts).mean(dim=0) for parts in zip(*terms[layer::layers], strict=True)))
        for layer in range(layers)
    ]


def routing_losses(output: MoreOutput, terms: Sequence[RouterTerms] | None = None) -> RoutingLosses:
    """Return balance loss and z-loss, averaged over the layers, of the real tokens.

    Args:
        output: Of a forward pass.
        terms: Its `compute_routing_terms`, where the caller has them; None computes them.
    """
    terms = compute_routing_terms(output) if terms is None else terms
    return RoutingLosses(
        torch.stack([term.balance for term in terms]).mean(), torch.stack([term.z for term in terms]).mean()
    )


class ParameterCount(NamedTuple):
    """Parameters of a model; the embedding, which is the head too, counts once."""

    total: int
    active: int  # that one token uses: of each layer's experts only top_k, and of them what its r steps touch
    expert: int  # of one expert, as stored


def count_parameters(model: MoreModel, num_recurrences: int | None = None) -> ParameterCount:
    """Return how many parameters a model has, and how many a token uses.

    A recurrent expert's count as often as they are stored, once, and not as often as they are applied; for that see
    `more.cost`. At r = 1 those that work on an empty state are not used.

    Args:
        model: Any variant.
        num_recurrences: r; None is the config's.
    """
    config = model.config
    r = config.num_recurrences if num_recurrences is None else num_recurrences
    total = sum(parameter.numel() for parameter in model.parameters())
    sizes = (config.model_type, config.d_model, compute_widths(config))
    expert, used = count_expert_parameters(*sizes), count_used_parameters(*sizes, r)
    idle = config.num_layers * (config.num_experts * expert - config.top_k * used)
    return ParameterCount(total, total - idle, expert)
