"""A step of a policy as one compiled call for all layers, on the CPU in float32.

`act_step` computes what `PackedPolicy.act` computes (`tests/pipeline/engine/test_engines.py`). All that the backward
pass needs (`pipeline/engine/compiled/backward.py`) is kept in one row per environment and step of the array `tape`.
Where a thing lies in such a row, and in the row of packed weights, is written in records
(`pipeline/engine/compiled/layout.py`): data, so that one compiled function does for all architectures.
"""

from __future__ import annotations

import numpy as np

from pipeline.engine.compiled.jit import compiled
from pipeline.engine.compiled.kernels import (
    ONE,
    ZERO,
    add_rows,
    add_scaled,
    add_to,
    as_matrix,
    copy,
    dot,
    exp,
    fill,
    find_rows,
    multiply_add,
    sigmoid,
    tanh,
    total,
)

EPS = np.float32(1e-5)  # of torch's LayerNorm


@compiled
def act_step(
    plans: np.ndarray,
    layers: np.ndarray,
    sizes: np.ndarray,
    codes: np.ndarray,
    t: int,
    inputs: np.ndarray,
    start: np.ndarray,
    weights: np.ndarray,
    first_state: np.ndarray,
    noise: np.ndarray,
    beta: float,
    gamma: float,
    tape: np.ndarray,
    logits: np.ndarray,
    first_group: int,
    end_group: int,
) -> None:
    """Take step t of an unroll of G groups of N environments, some of them or all; a replica has one group or several.

    Args:
        plans: (1,) `POLICY`.
        layers: (L,) `LAYER`.
        sizes: Units of each expert of each layer.
        codes: (C, 2), see `Layout`.
        t: Step.
        inputs: (G, T, N, inputs) observation and mission.
        start: (G, T, N) bool; the state is zeroed before such a step.
        weights: (R, Q or more) packed weights of the replicas, with what stands behind them (`Layout.turned`).
        first_state: (G, N, width of the tape) the tape's last row of the unroll before.
        noise: (G, T, N, experts of all layers) of expert dropout; read if gamma > 0.
        beta: Largest drop probability.
        gamma: Routing weight above which no expert is dropped; 0 for no dropout.
        tape: (G, T, N, width) filled at t.
        logits: (G, T, N, A) filled at t.
        first_group: First of the groups that take the step.
        end_group: One past the last.
    """
    plan = plans[0]
    shown = np.empty(len(codes), np.int64)
    for group in range(first_group, end_group):
        packed, rows, seen = weights[group * len(weights) // len(tape)], tape[group, t], inputs[group, t]
        before = first_state[group] if t == 0 else tape[group, t - 1]
        starts = start[group, t]
        envs = len(rows)
        for i in range(envs):
            x = rows[i][layers[0].x : layers[0].x + layers[0].width]
            copy(x, packed[plan.projection_bias :] if plan.projected else seen[i])
        if plan.projected:
            width, numbers, at = layers[0].width, 0, plan.projection_turned
            if plan.codes > 0:
                numbers, at = plan.codes, plan.projection + plan.columns * width
                matrix = as_matrix(packed, plan.projection, plan.columns, width)
                for i in range(envs):
                    found = find_rows(seen[i], codes, shown)
                    add_rows(rows[i][layers[0].x : layers[0].x + width], matrix, shown[:found])
            others = plan.inputs - numbers - plan.missions
            multiply_add(seen, numbers, others, as_matrix(packed, at, others, width), 0, width, rows, layers[0].x)
            if plan.missions > 0:
                _scale(plan, packed, at + others * width, seen, rows, layers[0].x, width)
        for layer in layers:
            gates = np.empty((envs, layer.num_gates), np.float32)
            for i in range(envs):
                copy(gates[i], packed[layer.gates_bias :])
            matrix = as_matrix(packed, layer.gates, layer.width, layer.num_gates)
            multiply_add(rows, layer.x, layer.width, matrix, 0, layer.num_gates, gates, 0)
            _run_cell(layer.router, packed, gates, before, starts, rows)
            if layer.expert.units > 0:
                _run_cell(layer.expert, packed, gates, before, starts, rows)
            if layer.experts > 0:
                _mix(layer, sizes, packed, noise[group, t], beta, gamma, rows)
        out = logits[group, t]
        for i in range(envs):
            copy(out[i], packed[plan.head_bias :])
        head = as_matrix(packed, plan.head_turned, plan.last_width, plan.actions)
        multiply_add(rows, plan.last, plan.last_width, head, 0, plan.actions, out, 0)


@compiled
def _scale(
    plan: np.record, packed: np.ndarray, at: int, seen: np.ndarray, rows: np.ndarray, x: int, width: int
) -> None:
    """Let the mission scale the features at `x` of the rows, and add its own; the map of the latter is `at`."""
    first = plan.inputs - plan.missions
    for i in range(len(rows)):
        fill(rows[i][plan.factor : plan.factor + width], ONE)
    matrix = as_matrix(packed, plan.scale, plan.missions, width)
    multiply_add(seen, first, plan.missions, matrix, 0, width, rows, plan.factor)
    for i in range(len(rows)):
        features, factor = rows[i][x : x + width], rows[i][plan.factor : plan.factor + width]
        copy(rows[i][plan.bare : plan.bare + width], features)
        for j in range(width):
            features[j] *= factor[j]
    multiply_add(seen, first, plan.missions, as_matrix(packed, at, plan.missions, width), 0, width, rows, x)


@compiled
def _run_cell(
    cell: np.record, packed: np.ndarray, gates: np.ndarray, before: np.ndarray, starts: np.ndarray, rows: np.ndarray
) -> None:
    """Compute a cell's state from the layer's input gates (N, G) and the state before."""
    h, kept = cell.units, cell.kept
    sums = np.empty((len(rows), 3 * h), np.float32)  # of the state
    for i in range(len(rows)):
        copy(sums[i], packed[cell.bias :])
        if starts[i]:  # not a product with a mask: what was there may be NaN
            fill(rows[i][kept : kept + h], ZERO)
        else:
            copy(rows[i][kept : kept + h], before[i][kept + 5 * h :])
    multiply_add(rows, kept, h, as_matrix(packed, cell.weight, h, 3 * h), 0, 3 * h, sums, 0)
    for i in range(len(rows)):
        row, of_state, of_input = rows[i], sums[i], gates[i][cell.column : cell.column + 3 * h]
        old, opened = row[kept : kept + h], row[kept + h : kept + 3 * h]
        reset, update = opened[:h], opened[h:]
        hidden_new, new = row[kept + 3 * h : kept + 4 * h], row[kept + 4 * h : kept + 5 * h]
        state = row[kept + 5 * h : kept + 6 * h]
        copy(hidden_new, of_state[2 * h :])
        for j in range(2 * h):
            opened[j] = sigmoid(of_input[j] + of_state[j])
        input_new = of_input[2 * h :]
        for j in range(h):
            new[j] = tanh(input_new[j] + reset[j] * hidden_new[j])
        for j in range(h):
            state[j] = new[j] + update[j] * (old[j] - new[j])


@compiled
def _mix(
    layer: np.record,
    sizes: np.ndarray,
    packed: np.ndarray,
    noise: np.ndarray,
    beta: float,
    gamma: float,
    rows: np.ndarray,
) -> None:
    """Compute routing and the layer's output from the cells' states."""
    width, experts, units = layer.width, layer.experts, layer.expert.units
    h = layer.router.units
    router_state, expert_state = layer.router.kept + 5 * h, layer.expert.kept + 5 * units
    matrix = as_matrix(packed, layer.router_weight, experts, h)
    router_bias = packed[layer.router_bias :][:experts]
    biases = as_matrix(packed, layer.projection_bias, experts, width)
    for i in range(len(rows)):
        row = rows[i]
        features = row[layer.router.features : layer.router.features + h]
        if layer.relu:
            _relu(row[router_state : router_state + h], features)
        probs, weights = row[layer.probs : layer.probs + experts], row[layer.weights : layer.weights + experts]
        for e in range(experts):
            weights[e] = router_bias[e] + dot(features, matrix[e])
        _softmax(weights, probs)
        if gamma > ZERO:
            _drop(noise[i][layer.first_expert : layer.first_expert + experts], beta, gamma, probs, weights)
            _softmax(weights, weights)
        else:
            copy(weights, probs)
        expert = row[layer.expert.features : layer.expert.features + units]
        if layer.expert_normed:
            normal = row[layer.expert_normal : layer.expert_normal + units]
            column = 0
            for e in range(experts):
                size = sizes[layer.first_expert + e]
                if size > 0:
                    state = row[expert_state + column : expert_state + column + size]
                    row[layer.expert_normal + units + e] = _normalise(state, normal[column : column + size])
                    column += size
            scale, shift = packed[layer.expert_norm :][:units], packed[layer.expert_norm_bias :][:units]
            for j in range(units):
                expert[j] = normal[j] * scale[j] + shift[j]
            if layer.relu:
                _relu(expert, expert)
        elif layer.relu:
            _relu(row[expert_state : expert_state + units], expert)
        out = row[layer.output : layer.output + width]
        x = row[layer.x : layer.x + width]
        fill(out, ZERO)
        column = 0
        for e in range(experts):
            size = sizes[layer.first_expert + e]
            gated = row[layer.gated + column : layer.gated + column + size]
            for j in range(size):
                gated[j] = expert[column + j] * weights[e]
            column += size
            if size > 0:
                add_scaled(out, weights[e], biases[e])
            else:
                add_scaled(out, weights[e], x)
    multiply_add(
        rows, layer.gated, units, as_matrix(packed, layer.projection, units, width), 0, width, rows, layer.output
    )
    if layer.normed:
        scale, shift = packed[layer.norm :][:width], packed[layer.norm_bias :][:width]
        for i in range(len(rows)):
            row = rows[i]
            out = row[layer.output : layer.output + width]
            normal = row[layer.normal : layer.normal + width]
            add_to(out, row[layer.x : layer.x + width])
            row[layer.normal + width] = _normalise(out, normal)
            for j in range(width):
                out[j] = normal[j] * scale[j] + shift[j]


@compiled
def _relu(x: np.ndarray, out: np.ndarray) -> None:
    for j in range(len(x)):
        out[j] = x[j] if not x[j] < ZERO else ZERO  # NaN stays NaN


@compiled
def _softmax(logits: np.ndarray, probs: np.ndarray) -> None:
    """Write the softmax of logits, which may be -inf, to probs, which may be the same array."""
    largest = logits[0]
    for e in range(1, len(logits)):
        largest = max(largest, logits[e])
    summed = ZERO
    for e in range(len(logits)):
        probs[e] = exp(logits[e] - largest) if logits[e] > -np.inf else ZERO
        summed += probs[e]
    for e in range(len(logits)):
        probs[e] /= summed


@compiled
def _drop(noise: np.ndarray, beta: float, gamma: float, probs: np.ndarray, logits: np.ndarray) -> None:
    """Set the logits of dropped experts to -inf; see `mixture_of_experts.ExpertDropout`."""
    largest = probs[0]
    for e in range(1, len(probs)):
        largest = max(largest, probs[e])
    for e in range(len(probs)):
        if probs[e] < gamma and noise[e] < beta - beta / gamma * probs[e] and probs[e] < largest:
            logits[e] = -np.inf


@compiled
def _normalise(x: np.ndarray, out: np.ndarray) -> float:
    """Write x, without its mean and scaled to variance 1, to out; return the scale."""
    count = np.float32(len(x))
    mean = total(x) / count
    for j in range(len(x)):
        out[j] = x[j] - mean
    scale = ONE / np.sqrt(dot(out, out) / count + EPS)
    for j in range(len(x)):
        out[j] *= scale
    return scale
