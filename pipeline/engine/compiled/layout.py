"""Where everything of a policy lies in the rows of numbers that its compiled form works on.

Three kinds of rows: packed weights (one per replica), what a step keeps (`tape`) and gradients (`grads`), one per step
and environment each. Behind its weights a packed row has some of the matrices a second time, transposed. The records
below say where a thing begins in them. They are data, so that one compiled function does for all architectures.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from mixture_of_experts import CODE_COUNTS, VIEW_CELLS
from pipeline.engine.packed_policy import CodeProjection, FilmProjection, Mixture, PackedLayer
from pipeline.engine.weights import Packing

ALIGN = 16  # floats in a cache line


def record(*fields: str, **nested: np.dtype) -> np.dtype:
    """Return a record type of int64 fields and of other records."""
    return np.dtype([*((name, np.int64) for name in fields), *nested.items()])


CELL = record(
    "units",  # h
    "weight",  # of packed weights: (h, 3h) recurrent
    "turned",  # and transposed
    "bias",  # (3h,)
    "column",  # first of the cell's columns among the layer's input gates
    "kept",  # of the tape: before, reset, update, hidden_new, new, state (h each)
    "features",  # of the tape: state after LayerNorm and ReLU; the state itself where there is neither
    "gradient",  # of grads: the state's gates (3h); those of the input are at the layer's `gradient` + `column`
)
"""One cell: a GRU, or the GRUs of all experts side by side. All fields are int64; most are offsets, in numbers."""

LAYER = record(
    "width",  # D of its input
    "experts",  # E; 0 for the baseline
    "relu",  # 1 if there is a ReLU after the cells
    "normed",  # 1 for a residual block with LayerNorm
    "expert_normed",  # 1 if experts have a LayerNorm
    "gates",  # of packed weights: (D, G) input weights
    "gates_turned",  # and transposed
    "gates_bias",  # (G,)
    "num_gates",  # G
    "router_weight",  # (E, h)
    "router_bias",  # (E,)
    "projection",  # (units, D)
    "projection_turned",  # and transposed
    "projection_bias",  # (E, D), zero for a skip
    "biases_turned",  # and transposed
    "expert_norm",  # (units,) scale
    "expert_norm_bias",  # (units,) shift
    "norm",  # (D,) scale
    "norm_bias",  # (D,) shift
    "first_expert",  # of `sizes`, and of the dropout's noise: the layer's first expert
    "x",  # of the tape: input (D)
    "output",  # output (D), the next layer's input
    "probs",  # (E,) routing before dropout
    "weights",  # (E,) and after it
    "gated",  # (units,) experts' features times weights
    "normal",  # (D,) what the LayerNorm scales and shifts, and the factor before that
    "expert_normal",  # (units,) the same of the experts, and E factors
    "gradient",  # of grads: input gates (G)
    "router_gradient",  # router's logits (E)
    "weights_gradient",  # routing after dropout (E)
    "mixed_gradient",  # mixture (D)
    router=CELL,
    expert=CELL,
)
"""One layer. The baseline's has no experts and one cell; a second cell of size 0 stands for none."""

POLICY = record(
    "inputs",  # width of observation and mission
    "projected",  # 1 if there is an input projection
    "projection",  # of packed weights: (D, inputs); with codes (columns + inputs - codes, D)
    "projection_turned",  # without codes: transposed
    "projection_bias",  # (D,)
    "head",  # (A, K)
    "head_turned",  # and transposed
    "head_bias",  # (A,)
    "actions",  # A
    "last",  # of the tape: input of the head (K)
    "last_width",  # K
    "first_gradient",  # of grads: gradient of the first layer's input (D)
    "codes",  # numbers at the head of the inputs that are codes, for one-hot vectors; 0: they are plain numbers
    "columns",  # width of these vectors together
    "missions",  # width of the mission vector, the last of the inputs, where it scales features; else 0
    "scale",  # of packed weights: (missions, D)
    "bare",  # of the tape: features before they are scaled (D)
    "factor",  # of the tape: by what they are (D)
    "bare_gradient",  # of grads: gradient of the features before they are scaled (D)
    "factor_gradient",  # of grads: of what scales them (D)
)
"""What lies before and behind the layers."""


class Layout:
    """The records of one policy.

    Attributes:
        policy: (1,) `POLICY`.
        layers: (L,) `LAYER`.
        sizes: Units of each expert of each layer, one after another, int64; a skip has none.
        codes: (codes, 2) int64, of each code of an observation: the row of the projection that is its value 0's, and
            how many values it has. Empty where codes are plain numbers.
        turned: Positions in a packed row of the numbers behind its weights, int64.
        tape: Numbers kept per environment and step.
        grads: Gradients kept per environment and step.
    """

    def __init__(self, packing: Packing, expert_sizes: Sequence[Sequence[int]], inputs: int) -> None:
        """Lay out a policy.

        Args:
            packing: Where its weights are.
            expert_sizes: Expert sizes per layer; empty for the baseline.
            inputs: Width of observation and mission.
        """
        self.tape = self.grads = 0
        self._offset, self._end = packing.offset, packing.size
        self._turned: list[np.ndarray] = []
        places = packing.places
        self.sizes = np.array([size for sizes in expert_sizes for size in sizes], np.int64)
        self.policy, self.layers = np.zeros(1, POLICY), np.zeros(len(places.layers), LAYER)
        policy = self.policy[0]
        width, first = inputs, 0
        policy["inputs"], policy["projected"] = inputs, places.projection is not None
        self.codes = np.zeros((0, 2), np.int64)
        projection = places.projection
        if isinstance(projection, FilmProjection):
            policy["missions"], width = projection.scale.shape[1:]
            policy["scale"] = self._offset(projection.scale)
            policy["bare"], policy["factor"] = self._keep(width), self._keep(width)
            policy["bare_gradient"], policy["factor_gradient"] = self._grad(width), self._grad(width)
            projection = projection.projection
        if isinstance(projection, CodeProjection):
            self.codes = _list_codes()
            policy["codes"], policy["columns"] = len(self.codes), VIEW_CELLS * sum(CODE_COUNTS)
        if projection is not None:
            width = projection.bias.shape[2]
            policy["projection"] = self._offset(projection.weight)
            policy["projection_bias"] = self._offset(projection.bias)
            policy["first_gradient"] = self._grad(width)
            if not policy["codes"]:
                policy["projection_turned"] = self._turn(projection.weight)
        x = self._keep(width)
        for index, layer in enumerate(places.layers):
            sizes = expert_sizes[index] if expert_sizes else []
            record = self.layers[index]
            record["width"], record["x"], record["first_expert"] = width, x, first
            self._lay_out(record, layer, sizes)
            x, first = record["output"], first + len(sizes)
        policy["last"], policy["actions"], policy["last_width"] = x, *places.head.weight.shape[1:]
        policy["head"], policy["head_bias"] = self._offset(places.head.weight), self._offset(places.head.bias)
        policy["head_turned"] = self._turn(places.head.weight)
        self.turned = np.concatenate(self._turned)
        self.tape, self.grads = (-(-size // ALIGN) * ALIGN for size in (self.tape, self.grads))

    def _keep(self, width: int) -> int:
        self.tape += width
        return self.tape - width

    def _grad(self, width: int) -> int:
        self.grads += width
        return self.grads - width

    def _turn(self, matrix: Tensor) -> int:
        """Return where the transpose of a packed matrix (1, rows, columns) begins, put behind what there is."""
        places = np.arange(matrix.numel()).reshape(matrix.shape[1:]) + self._offset(matrix)
        self._turned.append(places.T.reshape(-1))
        self._end += places.size
        return self._end - places.size

    def _lay_out(self, record: np.void, layer: PackedLayer, sizes: Sequence[int]) -> None:
        mixture = layer.mixture
        record["gates"], record["gates_bias"] = self._offset(layer.gates.weight), self._offset(layer.gates.bias)
        record["gates_turned"], record["num_gates"] = self._turn(layer.gates.weight), layer.gates.weight.shape[2]
        record["gradient"] = self._grad(layer.gates.weight.shape[2])
        column = 0
        for name, cell in zip(("router", "expert"), layer.cells, strict=False):
            kept = self._keep(6 * cell.size)
            changed = mixture is not None and (mixture.relu or (name == "expert" and mixture.expert_norm is not None))
            features = self._keep(cell.size) if changed else kept + 5 * cell.size
            weight, turned, bias = self._offset(cell.weight), self._turn(cell.weight), self._offset(cell.bias)
            record[name] = (cell.size, weight, turned, bias, column, kept, features, self._grad(3 * cell.size))
            column += 3 * cell.size
        if mixture is None:
            record["output"] = record["router"]["features"]
        else:
            self._lay_out_mixture(record, mixture, len(sizes), sum(sizes))

    def _lay_out_mixture(self, record: np.void, mixture: Mixture, experts: int, units: int) -> None:
        width = int(record["width"])
        record["experts"], record["relu"] = experts, mixture.relu
        arrays: dict[str, Tensor] = {
            "router_weight": mixture.router.weight,
            "router_bias": mixture.router.bias,
            "projection_bias": mixture.projection_bias,
        }
        if units:
            arrays["projection"] = mixture.projection
            record["projection_turned"] = self._turn(mixture.projection)
        if mixture.norm is not None:
            arrays |= {"norm": mixture.norm.weight, "norm_bias": mixture.norm.bias}
            record["normed"], record["normal"] = True, self._keep(width + 1)
        if mixture.expert_norm is not None:
            arrays |= {"expert_norm": mixture.expert_norm.weight, "expert_norm_bias": mixture.expert_norm.bias}
            record["expert_normed"], record["expert_normal"] = True, self._keep(units + experts)
        for name, array in arrays.items():
            record[name] = self._offset(array)
        kept = {"output": width, "probs": experts, "weights": experts, "gated": units}
        for name, size in kept.items():
            record[name] = self._keep(size)
        record["biases_turned"] = self._turn(mixture.projection_bias)
        record["router_gradient"], record["mixed_gradient"] = self._grad(experts), self._grad(width)
        record["weights_gradient"] = self._grad(experts)


def _list_codes() -> np.ndarray:
    """Return the `codes` of a layout: as `mixture_of_experts.encode_one_hot` arranges them."""
    before, per_cell = 0, sum(CODE_COUNTS)
    codes = []
    for count in CODE_COUNTS:
        codes += [(cell * per_cell + before, count) for cell in range(VIEW_CELLS)]
        before += count
    return np.array(codes, np.int64)
