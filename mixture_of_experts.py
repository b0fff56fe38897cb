"""The Mixture-of-Experts policy, whole: router, experts of different sizes, layers, and the price of complexity.

Read it top to bottom; it needs torch alone. A policy reads an observation and a mission vector and returns action
logits; what it remembers (the states of every router and expert) is a value that the caller carries:

    policy = MixtureOfExpertsPolicy(152, 64, [[0, 16, 32], [0, 16, 32]], router_hidden_size=64, num_actions=7)
    hidden = policy.init_hidden(batch_size=4, device="cpu")
    logits, hidden, routing = policy(obs, mission, hidden, return_routing_info=True)
    hidden = reset_hidden_on_done(hidden, dones)                    # where an episode has ended
    lpc = compute_lpc(routing, policy.layer_expert_sizes)           # what the routers' choice costs

This is the plain form, one `nn.GRU` call for each router and expert. The training loop runs the same weights through
the packed form of `pipeline/engine/packed.py`; a test holds the two together.

Source: Cook, Akarca, Costa, Achterberg, "Brain-Like Processing Pathways Form in Models With Heterogeneous Experts",
NeurIPS 2025, https://arxiv.org/abs/2506.02813 ("the paper" below).
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LayerHidden = tuple[Tensor, list[Tensor]]  # (router state, one state per expert), each (1, batch, size)

VIEW_CELLS = 7 * 7
CODE_COUNTS = (11, 6, 3)  # objects, colours, states: minigrid's OBJECT_TO_IDX, COLOR_TO_IDX, STATE_TO_IDX
NUM_CODES = len(CODE_COUNTS) * VIEW_CELLS  # numbers at the head of an observation that are codes
ENCODINGS = ("raw", "onehot", "embedding")
FUSIONS = ("concat", "film")
EMBEDDING_DIM = 16


def normalize_expert_sizes(expert_hidden_sizes: str | Sequence[int | str | Sequence[int]]) -> list[list[int]]:
    """Return expert sizes as one list per layer, from any accepted spelling.

    Whoever does without torch calls `pipeline.config.parse_expert_sizes`, which reads the same spellings: this module
    imports nothing of the project. A test holds the two equal.

    Args:
        expert_hidden_sizes: `[[0, 16, 32], [0, 16, 32]]`, `[16, 32]` (one layer), `["32,64,128", "64,128,256"]` or
            `"16,32;32,64"`. Size 0 is a skip expert. numpy's integers will do, which outside code reads from its
            checkpoints.

    Raises:
        ValueError: If there is no layer, an empty layer, a mixture of layers and sizes, or a size that is no
            integer >= 0.
    """
    try:
        layers = expert_hidden_sizes.split(";") if isinstance(expert_hidden_sizes, str) else list(expert_hidden_sizes)
        if not any(isinstance(layer, str | list | tuple) for layer in layers):
            layers = [layers]
        sizes = [layer.split(",") if isinstance(layer, str) else list(layer) for layer in layers]
        parsed = [[operator.index(int(s) if isinstance(s, str) else s) for s in row] for row in sizes]
        usable = all(row and min(row) >= 0 for row in parsed)
        usable = usable and not any(isinstance(s, bool) for row in sizes for s in row)
    except (TypeError, ValueError):
        usable = False
    if not usable:
        raise ValueError(
            'expert_hidden_sizes: expected sizes such as [[0, 16, 32], [0, 16, 32]], [16, 32] or "16,32;32,64", found '
            f"{expert_hidden_sizes!r}"
        )
    return parsed


# ------------------------------------------------------------------------------------------------------ what is seen


def check_encoding(obs_encoding: str) -> None:
    """Refuse a name of no encoding.

    Raises:
        ValueError: If it is one.
    """
    if obs_encoding not in ENCODINGS:
        raise ValueError(f"obs_encoding: expected {', '.join(ENCODINGS)}, found {obs_encoding!r}")


class ObservationEncoder(nn.Module):
    """What a policy makes of the codes in an observation, before its first linear map.

    An observation is 147 codes (an object, a colour and a state for each cell of the view), then other numbers, which
    are left as they are. A code that is no value of its vocabulary (negative, too large, a fraction, NaN) stands for
    nothing.

    Args:
        obs_encoding: `raw` leaves codes the numbers they are. `onehot` makes a code a vector with a 1 at its place in
            its vocabulary. `embedding` makes a cell the sum of a learned vector for each of its codes, the same vectors
            in all cells: the bag of words of the BabyAI baselines (https://arxiv.org/abs/2007.12770).
        embedding_dim: Width of these vectors.
    """

    def __init__(self, obs_encoding: str = "raw", embedding_dim: int = EMBEDDING_DIM) -> None:
        super().__init__()
        check_encoding(obs_encoding)
        self.obs_encoding = obs_encoding
        if obs_encoding == "embedding":
            self.table = nn.Parameter(torch.randn(sum(CODE_COUNTS), embedding_dim))

    def width(self, input_dim: int) -> int:
        """Return the width of what an observation of width `input_dim` becomes.

        Raises:
            ValueError: If it is too narrow to hold the codes.
        """
        if self.obs_encoding == "raw":
            return input_dim
        if input_dim < NUM_CODES:
            raise ValueError(
                f"input_dim: expected at least {NUM_CODES}, the codes that obs_encoding {self.obs_encoding} reads, "
                f"found {input_dim}"
            )
        per_cell = sum(CODE_COUNTS) if self.obs_encoding == "onehot" else self.table.shape[1]
        return input_dim - NUM_CODES + VIEW_CELLS * per_cell

    def forward(self, x: Tensor) -> Tensor:
        """Return (..., width) for observations (..., input_dim)."""
        if self.obs_encoding == "raw":
            return x
        wide = encode_one_hot(x)
        return wide if self.obs_encoding == "onehot" else self._embed(wide)

    def _embed(self, wide: Tensor) -> Tensor:
        cells, rest = wide.tensor_split([VIEW_CELLS * sum(CODE_COUNTS)], dim=-1)
        vectors = cells.unflatten(-1, (VIEW_CELLS, -1)) @ self.table  # (..., cells, embedding_dim)
        return torch.cat([vectors.flatten(-2), rest], dim=-1)


def encode_one_hot(x: Tensor) -> Tensor:
    """Return observations (..., 147 + rest) with each code as a one-hot vector, (..., 980 + rest).

    The codes come in by channel (objects of all cells, colours, states); the vectors of a cell go out side by side. A
    code that its vocabulary does not have becomes zeros.
    """
    codes, rest = x.tensor_split([NUM_CODES], dim=-1)
    by_channel = codes.unflatten(-1, (len(CODE_COUNTS), VIEW_CELLS, 1)).unbind(dim=-3)
    known = zip(by_channel, CODE_COUNTS, strict=True)
    cells = torch.cat([of_all == torch.arange(count, device=x.device) for of_all, count in known], dim=-1)
    return torch.cat([cells.flatten(-2).to(x.dtype), rest], dim=-1)  # cells: (..., 49, 20)


def widen_embedding(table: Tensor, weight: Tensor) -> Tensor:
    """Return the weight that gives for one-hot vectors what `weight` gives for embedded cells.

    Embedding and linear map are one linear map of one-hot vectors: this is their product, cell by cell.

    Args:
        table: (..., codes, K) of `ObservationEncoder`.
        weight: (..., out, 49 * K + rest) of the linear map behind it.

    Returns:
        (..., out, 980 + rest).
    """
    cells, rest = weight.tensor_split([VIEW_CELLS * table.shape[-1]], dim=-1)
    wide = cells.unflatten(-1, (VIEW_CELLS, -1)) @ table.mT.unsqueeze(-3)  # (..., out, cells, codes)
    return torch.cat([wide.flatten(-2), rest], dim=-1)


# ------------------------------------------------------------------------------------------- how the mission is read


def check_fusion(mission_fusion: str) -> None:
    """Refuse a name of no fusion.

    Raises:
        ValueError: If it is one.
    """
    if mission_fusion not in FUSIONS:
        raise ValueError(f"mission_fusion: expected {' or '.join(FUSIONS)}, found {mission_fusion!r}")


def build_mission_scale(mission_fusion: str, lang_dim: int, width: int) -> nn.Linear | None:
    """Return the map by which a mission scales `width` features; None where it does not (`concat`)."""
    check_fusion(mission_fusion)
    return nn.Linear(lang_dim, width, bias=False) if mission_fusion == "film" else None


def read_inputs(seen: Tensor, mission: Tensor, projection: nn.Linear, scale: nn.Linear | None) -> Tensor:
    """Return the features (..., width) of what is seen (..., in) and of the mission (..., lang_dim).

    `concat` (no scale) is one linear map of the two side by side, so that the mission adds the same to the features
    whatever is seen: W x + b + V m. With `film` it scales what is seen as well, (W x + b) * (1 + S m) + V m:
    feature-wise linear modulation, by which the BabyAI baselines read missions. A network must multiply the two to
    tell whether what it sees is what it was sent for, and out of sums it learns that late or not at all.

    Source: Perez et al., "FiLM: Visual Reasoning with a General Conditioning Layer", 2018,
    https://arxiv.org/abs/1709.07871, equation 2; BabyAI's: https://arxiv.org/abs/1810.08272.
    """
    if scale is None:
        return projection(torch.cat([seen, mission], dim=-1))
    of_seen, of_mission = projection.weight.tensor_split([seen.shape[-1]], dim=-1)
    scaled = F.linear(seen, of_seen, projection.bias) * (1 + scale(mission))
    return scaled + F.linear(mission, of_mission)


# ----------------------------------------------------------------------------------------------------------- router


class RouterOutput(NamedTuple):
    """What a router decided for a batch of inputs with leading shape `...`."""

    weights: Tensor  # (..., experts) what the expert outputs are multiplied by; zero for an expert not taken
    probs: Tensor  # (..., experts) softmax of the logits, before expert dropout and top-k: the basis of LPC
    logits: Tensor  # (..., experts) float32, or float64 in a float64 model
    indices: Tensor | None  # (..., top_k) experts taken, best first; None when every expert is
    hidden: Tensor | None  # (1, batch, hidden_size); None for a memoryless router


class RouterTerms(NamedTuple):
    """Figures by which a router is watched or regularised; all differentiable but `load`."""

    load: Tensor  # (experts,) share of the assignments; of the argmax where every expert is taken
    importance: Tensor  # (experts,) mean probability
    entropy: Tensor  # () mean entropy of a single decision, nats
    balance: Tensor  # () experts * sum(load * importance); 1 when balanced
    z: Tensor  # () mean squared logsumexp of the logits


class Router(nn.Module):
    """Distributes each input over the experts of its layer.

    With memory (`recurrent=True`) it is GRU -> Linear -> softmax, as in the paper; without, Linear -> softmax, as in
    language models. Dense by default; with `top_k` only the k most probable experts are taken, each with its raw
    probability. Renormalising would make the single weight of top-1 equal to 1 and cut the task's gradient off.

    Args:
        input_dim: Width of the input.
        hidden_size: Width of the GRU; unused (may be 0) when `recurrent` is False.
        num_experts: Experts to choose from.
        recurrent: Whether the router remembers.
        top_k: Experts taken for each input; None takes all.
        relu: Apply ReLU between GRU and Linear (the paper's router; the plain policy has none).
    """

    def __init__(
        self,
        input_dim: int,
        hidden_size: int,
        num_experts: int,
        *,
        recurrent: bool = True,
        top_k: int | None = None,
        relu: bool = False,
    ) -> None:
        super().__init__()
        if num_experts < 1:
            raise ValueError(f"num_experts: expected at least 1, found {num_experts}")
        if top_k is not None and not 1 <= top_k <= num_experts:
            raise ValueError(f"top_k: expected 1 to {num_experts} (the number of experts) or None, found {top_k}")
        self.hidden_size = hidden_size if recurrent else 0
        self.top_k = top_k
        self.relu = relu
        if recurrent:
            self.gru = nn.GRU(input_dim, hidden_size, batch_first=True)
        self.recurrent = recurrent
        self.fc = nn.Linear(hidden_size if recurrent else input_dim, num_experts)

    def forward(self, x: Tensor, hidden: Tensor | None = None, dropped: ExpertDropout | None = None) -> RouterOutput:
        """Route one step or a whole sequence.

        Args:
            x: (batch, input_dim) one step, or (batch, time, input_dim); a memoryless router takes any leading shape.
            hidden: (1, batch, hidden_size) state before the step; None starts from zeros.
            dropped: Expert dropout to apply to this call (training only), or None.
        """
        if self.recurrent:
            one_step = x.dim() == 2
            features, hidden = self.gru(x.unsqueeze(1) if one_step else x, hidden)  # (batch, time, hidden_size)
            features = features.squeeze(1) if one_step else features
        else:
            features, hidden = x, None
        logits = compute_router_logits(features.relu() if self.relu else features, self.fc.weight, self.fc.bias)
        probs = logits.softmax(dim=-1)
        weights = probs if dropped is None else dropped.apply(logits, probs)
        indices = None
        if self.top_k is not None and self.top_k < logits.shape[-1]:
            indices = weights.topk(self.top_k, dim=-1).indices
            weights = torch.zeros_like(weights).scatter(-1, indices, weights.gather(-1, indices))
        return RouterOutput(weights, probs, logits, indices, hidden)


def compute_router_logits(features: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Return a router's logits in float32 at least, also under autocast: a softmax over rounded logits flips choices.

    Args:
        features: (..., hidden) input of the router's last linear map.
        weight: (experts, hidden).
        bias: (experts,).
    """
    with torch.autocast(device_type=features.device.type, enabled=False):
        dtype = torch.promote_types(features.dtype, torch.float32)
        return F.linear(features.to(dtype), weight.to(dtype), bias.to(dtype))


def compute_router_terms(output: RouterOutput) -> RouterTerms:
    """Return load, importance, entropy, balance loss and z-loss of a batch of routing decisions.

    The balance loss is equation 4 of Switch Transformers (https://arxiv.org/abs/2101.03961) without its factor alpha,
    the z-loss equation 5 of ST-MoE (https://arxiv.org/abs/2202.08906).
    """
    num_experts = output.logits.shape[-1]
    logits = output.logits.reshape(-1, num_experts)  # (decisions, experts)
    log_probs = logits.log_softmax(dim=-1)
    probs = log_probs.exp()
    taken = logits.argmax(dim=-1) if output.indices is None else output.indices.reshape(-1)
    load = torch.bincount(taken, minlength=num_experts).to(probs.dtype) / taken.numel()
    importance = probs.mean(dim=0)
    return RouterTerms(
        load=load,
        importance=importance,
        entropy=-(probs * log_probs).sum(dim=-1).mean(),
        balance=num_experts * (load * importance).sum(),
        z=logits.logsumexp(dim=-1).square().mean(),
    )


class ExpertDropout(NamedTuple):
    """Dropout of experts that the router hardly uses (training only).

    An expert with weight w < gamma is dropped with probability beta - (beta / gamma) w: its logit becomes -inf and the
    softmax is taken again. The expert with the largest weight is never dropped. The paper uses beta 0.8, gamma 0.1.
    The noise is drawn by the caller, so that a rollout and its replay drop the same experts.
    """

    noise: Tensor  # (..., experts) uniform in [0, 1)
    beta: float = 0.8
    gamma: float = 0.1

    def apply(self, logits: Tensor, probs: Tensor) -> Tensor:
        """Return the routing weights after dropout, shaped like `probs` (..., experts)."""
        drop = (probs < self.gamma) & (self.noise < self.beta - self.beta / self.gamma * probs)
        drop = drop & (probs < probs.max(dim=-1, keepdim=True).values)
        return logits.masked_fill(drop, -torch.inf).softmax(dim=-1)


# ---------------------------------------------------------------------------------------------------------- experts


class Expert(nn.Module):
    """One pathway through a layer: GRU -> Linear back to the layer's width; of size 0, the identity.

    Args:
        input_dim: Width of input and output.
        hidden_size: Width of the GRU; 0 makes a skip expert, which has no weights and costs nothing.
        relu: Apply ReLU between GRU and Linear (the paper's expert; the plain policy has none).
        norm: Apply LayerNorm to the GRU's output. It stands where the paper's code has BatchNorm, which couples the
            environments of a batch and differs between training and stepping.
    """

    def __init__(self, input_dim: int, hidden_size: int, *, relu: bool = False, norm: bool = False) -> None:
        super().__init__()
        self.hidden_size = hidden_size
        self.relu = relu
        self.norm: nn.LayerNorm | None = None
        if hidden_size > 0:
            self.gru = nn.GRU(input_dim, hidden_size, batch_first=True)
            if norm:
                self.norm = nn.LayerNorm(hidden_size)
            self.projection = nn.Linear(hidden_size, input_dim)

    def forward(self, x: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """Return output (batch, input_dim) and new state (1, batch, hidden_size) for x (batch, input_dim)."""
        if self.hidden_size == 0:
            return x, hidden
        features, hidden = self.gru(x.unsqueeze(1), hidden)
        features = features.squeeze(1)  # (batch, hidden_size)
        if self.norm is not None:
            features = self.norm(features)
        return self.projection(features.relu() if self.relu else features), hidden


class MoELayer(nn.Module):
    """A router and its experts: output = sum over experts of weight x expert(x).

    Args:
        dim: Width of input and output.
        expert_sizes: Hidden size of each expert; 0 is a skip expert.
        router_hidden_size: Width of the router's GRU.
        relu: ReLU after every GRU (see `Router`, `Expert`).
        norm: LayerNorm in the experts (see `Expert`).
    """

    def __init__(
        self,
        dim: int,
        expert_sizes: Sequence[int],
        router_hidden_size: int,
        *,
        relu: bool = False,
        norm: bool = False,
    ) -> None:
        super().__init__()
        self.router = Router(dim, router_hidden_size, len(expert_sizes), relu=relu)
        self.experts = nn.ModuleList(Expert(dim, size, relu=relu, norm=norm) for size in expert_sizes)

    def init_hidden(self, batch_size: int, device: torch.device | str | None = None) -> LayerHidden:
        """Return zeros: the router's state and one state per expert, each (1, batch, size)."""
        weight = self.router.fc.weight
        device = weight.device if device is None else device

        def zeros(size: int) -> Tensor:
            return torch.zeros(1, batch_size, size, dtype=weight.dtype, device=device)

        return zeros(self.router.hidden_size), [zeros(expert.hidden_size) for expert in self.experts]

    def forward(
        self, x: Tensor, hidden: LayerHidden, dropped: ExpertDropout | None = None
    ) -> tuple[Tensor, LayerHidden, RouterOutput, Tensor]:
        """Return output (batch, dim), new state, the router's output, expert outputs (batch, experts, dim)."""
        h_router, h_experts = hidden
        routed = self.router(x, h_router, dropped)
        results = [expert(x, h) for expert, h in zip(self.experts, h_experts, strict=True)]
        outputs = torch.stack([output for output, _ in results], dim=1)  # (batch, experts, dim)
        mixed = torch.einsum("be,bed->bd", routed.weights.to(outputs.dtype), outputs)
        return mixed, (routed.hidden, [h for _, h in results]), routed, outputs


# ----------------------------------------------------------------------------------------------------------- policy


class MixtureOfExpertsPolicy(nn.Module):
    """Stateful policy: Linear -> layers of routed recurrent experts -> Linear to action logits.

    Args:
        input_dim: Width of the observation vector (152 for BabyAI: 7 x 7 x 3 view, 4 directions, 1 carrying).
        intermediate_dim: Width D between the layers.
        expert_hidden_sizes: Sizes of the experts, `[16, 32]` (one layer) or one list per layer; 0 is a skip.
        router_hidden_size: Width of each router's GRU.
        num_actions: Width of the output.
        lang_dim: Width of the mission vector.
        obs_encoding: What becomes of the observation's codes, see `ObservationEncoder`.
        mission_fusion: How the mission meets what is seen, `concat` or `film`, see `read_inputs`.
    """

    def __init__(
        self,
        input_dim: int,
        intermediate_dim: int,
        expert_hidden_sizes: Sequence[int] | Sequence[Sequence[int]],
        router_hidden_size: int,
        num_actions: int,
        lang_dim: int = 32,
        obs_encoding: str = "raw",
        mission_fusion: str = "concat",
    ) -> None:
        super().__init__()
        self.layer_expert_sizes = normalize_expert_sizes(expert_hidden_sizes)
        self.encoder = ObservationEncoder(obs_encoding)
        self.input_projection = nn.Linear(self.encoder.width(input_dim) + lang_dim, intermediate_dim)
        self.moe_layers = nn.ModuleList(
            MoELayer(intermediate_dim, sizes, router_hidden_size) for sizes in self.layer_expert_sizes
        )
        self.head = nn.Linear(intermediate_dim, num_actions)
        self.mission_scale = build_mission_scale(mission_fusion, lang_dim, intermediate_dim)

    def init_hidden(self, batch_size: int, device: torch.device | str | None = None) -> list[LayerHidden]:
        """Return a zero state: per layer `(h_router, [h_expert, ...])`, each (1, batch, size), size 0 for a skip."""
        return [layer.init_hidden(batch_size, device) for layer in self.moe_layers]

    def forward(
        self,
        x: Tensor,
        lang_embs: Tensor,
        h: list[LayerHidden],
        return_routing_info: bool = False,
        dropped: Sequence[ExpertDropout] | None = None,
    ) -> tuple[Tensor, list[LayerHidden], dict[str, dict[str, Tensor]] | None]:
        """Take one step.

        Args:
            x: (batch, input_dim) observation vectors.
            lang_embs: (batch, lang_dim) mission vectors.
            h: State before the step, from `init_hidden` or the last call.
            return_routing_info: Whether to return what the routers did.
            dropped: Expert dropout per layer (training only).

        Returns:
            Logits (batch, num_actions); the new state; and None or a dict of the layers, `layer_0` and so on, each a
            dict of `router_weights` (batch, experts), `expert_outputs` (batch, experts, intermediate_dim) and
            `layer_output` (batch, intermediate_dim). Router weights are those before expert dropout.
        """
        features = read_inputs(self.encoder(x), lang_embs, self.input_projection, self.mission_scale)  # (batch, D)
        new_hidden: list[LayerHidden] = []
        info: dict[str, dict[str, Tensor]] = {}
        for index, layer in enumerate(self.moe_layers):
            noise = None if dropped is None else dropped[index]
            features, hidden, routed, outputs = layer(features, h[index], noise)
            new_hidden.append(hidden)
            info[f"layer_{index}"] = {
                "router_weights": routed.probs,
                "expert_outputs": outputs,
                "layer_output": features,
            }
        return self.head(features), new_hidden, info if return_routing_info else None


def reset_hidden_on_done(h: list[LayerHidden], dones: Tensor) -> list[LayerHidden]:
    """Return the state with zeros where an episode has ended.

    `torch.where` rather than a product: 0 x NaN is NaN, so a product would let a broken row live on.

    Args:
        h: State of `MixtureOfExpertsPolicy`.
        dones: (batch,) bool, or numbers with 1 for an ended episode.
    """
    ended = dones.to(torch.bool).reshape(1, -1, 1)

    def reset(state: Tensor) -> Tensor:
        return torch.where(ended, torch.zeros_like(state), state)

    return [(reset(h_router), [reset(state) for state in h_experts]) for h_router, h_experts in h]


# ------------------------------------------------------------------------------------------------ price of complexity


def compute_layer_lpc(weights: Tensor, expert_sizes: Sequence[int], exponent: float = 2.0) -> Tensor:
    """Return sum over experts of weight x size^exponent, shape (...), for weights (..., experts) of one layer."""
    costs = [float(size) ** exponent if size > 0 else 0.0 for size in expert_sizes]
    return weights @ torch.tensor(costs, dtype=weights.dtype, device=weights.device)


def compute_lpc(
    routing_info: dict[str, dict[str, Tensor]], layer_expert_sizes: Sequence[Sequence[int]], exponent: float = 2.0
) -> Tensor:
    """Return the Learned Pathway Complexity, a scalar: summed over layers and experts, averaged over the batch.

    Equation 1 of the paper: sum of router weight x expert_hidden_size^2. For [[0, 16, 32]] x 3 it is 0 when every
    router takes the skip, 1280 for uniform weights, 3072 when every router takes the largest expert.

    Args:
        routing_info: As `MixtureOfExpertsPolicy.forward` returns it.
        layer_expert_sizes: Expert sizes, one list per layer.
        exponent: The paper's cost exponent.

    Raises:
        ValueError: If layers or experts do not match.
    """
    if len(routing_info) != len(layer_expert_sizes):
        raise ValueError(f"expected routing of {len(layer_expert_sizes)} layers, found {sorted(routing_info)}")
    per_layer = []
    for index, sizes in enumerate(layer_expert_sizes):
        weights = routing_info[f"layer_{index}"]["router_weights"]
        if weights.shape[-1] != len(sizes):
            raise ValueError(f"layer_{index}: expected {len(sizes)} router weights, found {weights.shape[-1]}")
        per_layer.append(compute_layer_lpc(weights, sizes, exponent).mean())
    return torch.stack(per_layer).sum()
