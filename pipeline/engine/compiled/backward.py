"""The backward pass through an unroll as one compiled call for all layers, on the CPU in float32.

`backpropagate` computes what autograd through `PackedPolicy.replay` computes (`tests/pipeline/engine/test_engines.py`).
It turns each row that a step has kept on the `tape` into a row of `grads`, and adds products of both to the gradients
of weights while they are in the cache. Where things lie: `pipeline/engine/compiled/layout.py`.
"""

from __future__ import annotations

import numpy as np

from pipeline.engine.compiled.jit import compiled
from pipeline.engine.compiled.kernels import (
    ONE,
    ZERO,
    add_scaled,
    add_to,
    as_matrix,
    copy,
    dot,
    fill,
    find_rows,
    multiply_add,
    total,
)


@compiled
def backpropagate(
    plans: np.ndarray,
    layers: np.ndarray,
    sizes: np.ndarray,
    codes: np.ndarray,
    inputs: np.ndarray,
    start: np.ndarray,
    weights: np.ndarray,
    tape: np.ndarray,
    grad_logits: np.ndarray,
    grad_probs: np.ndarray,
    grads: np.ndarray,
    gradient: np.ndarray,
    first_group: int,
    end_group: int,
) -> None:
    """Carry gradients back through an unroll, as `act_step` has kept it, of some groups or all.

    Args:
        plans: (1,) `POLICY`.
        layers: (L,) `LAYER`.
        sizes: Units of each expert of each layer.
        codes: (C, 2), see `Layout`.
        inputs: (G, T, N, inputs) observation and mission.
        start: (G, T, N) bool.
        weights: (R, Q or more) packed weights of the replicas, with what stands behind them (`Layout.turned`).
        tape: (G, T, N, width).
        grad_logits: (G, T, N, A).
        grad_probs: (G, T, N, experts of all layers), of the probabilities before dropout.
        grads: (G, T, N, width) filled, or (G, 1, N, width), which each step overwrites.
        gradient: (G, Q) filled.
        first_group: First of the groups.
        end_group: One past the last.
    """
    plan = plans[0]
    groups, steps, envs, _ = tape.shape
    widest, units = 0, 0
    for layer in layers:
        widest, units = max(widest, layer.width), units + layer.router.units + layer.expert.units
    upper = np.empty((envs, max(widest, plan.last_width)), np.float32)
    lower = np.empty((envs, widest), np.float32)
    for group in range(first_group, end_group):
        packed, gathered = weights[group * len(weights) // groups], gradient[group]
        fill(gathered, ZERO)
        carried = np.zeros((envs, units), np.float32)
        states = np.empty((envs, units), np.float32)
        for t in range(steps - 1, -1, -1):
            rows, starts = tape[group, t], start[group, t]
            out = grads[group, t % grads.shape[1]]
            head_gradient = as_matrix(gathered, plan.head, plan.actions, plan.last_width)
            for i in range(envs):
                fill(upper[i], ZERO)
                of_logits = grad_logits[group, t, i]
                add_to(gathered[plan.head_bias : plan.head_bias + plan.actions], of_logits)
                for a in range(plan.actions):
                    add_scaled(head_gradient[a], of_logits[a], rows[i][plan.last :])
            matrix = as_matrix(packed, plan.head, plan.actions, plan.last_width)
            multiply_add(grad_logits[group, t], 0, plan.actions, matrix, 0, plan.last_width, upper, 0)
            unit = units
            for number in range(len(layers) - 1, -1, -1):
                layer = layers[number]
                unit -= layer.router.units + layer.expert.units
                if layer.experts > 0:
                    _unmix(
                        layer,
                        sizes,
                        packed,
                        rows,
                        grad_probs[group, t],
                        upper,
                        lower,
                        states,
                        unit,
                        out,
                        gathered,
                    )
                else:
                    for i in range(envs):
                        copy(states[i][unit : unit + layer.router.units], upper[i])
                        fill(lower[i], ZERO)
                _unrun_cell(layer, layer.router, packed, rows, starts, states, carried, unit, out, gathered)
                if layer.expert.units > 0:
                    at = unit + layer.router.units
                    _unrun_cell(layer, layer.expert, packed, rows, starts, states, carried, at, out, gathered)
                if number > 0 or plan.projected:
                    matrix = as_matrix(packed, layer.gates_turned, layer.num_gates, layer.width)
                    multiply_add(out, layer.gradient, layer.num_gates, matrix, 0, layer.width, lower, 0)
                    for i in range(envs):
                        copy(upper[i][: layer.width], lower[i])
                for i in range(envs):
                    add_to(
                        gathered[layer.gates_bias : layer.gates_bias + layer.num_gates],
                        out[i][layer.gradient : layer.gradient + layer.num_gates],
                    )
                at, depth = layer.gates, layer.width
                _add_product(rows, layer.x, depth, out, layer.gradient, layer.num_gates, gathered, at)
            if plan.projected:
                _unproject(plan, codes, packed, rows, inputs[group, t], upper, layers[0].width, out, gathered)


@compiled
def _add_product(
    a: np.ndarray, a_at: int, height: int, b: np.ndarray, b_at: int, width: int, gathered: np.ndarray, at: int
) -> None:
    """Add a weight matrix's gradient: a[:, a_at :][:, :height].T @ b[:, b_at :][:, :width], rows being environments."""
    out = as_matrix(gathered, at, height, width)
    multiply_add(a[:, a_at : a_at + height].T, 0, len(a), b, b_at, width, out, 0)


@compiled
def _add_columns(
    a: np.ndarray,
    a_at: int,
    height: int,
    b: np.ndarray,
    b_at: int,
    width: int,
    gathered: np.ndarray,
    at: int,
    columns: int,
) -> None:
    """Add to columns of a weight matrix's gradient (height, columns), from `b_at` on, as `_add_product` does to all."""
    out = as_matrix(gathered, at, height, columns)
    multiply_add(a[:, a_at : a_at + height].T, 0, len(a), b, b_at, width, out, b_at)


@compiled
def _unproject(
    plan: np.record,
    codes: np.ndarray,
    packed: np.ndarray,
    rows: np.ndarray,
    seen: np.ndarray,
    upper: np.ndarray,
    width: int,
    out: np.ndarray,
    gathered: np.ndarray,
) -> None:
    """Add the gradients of the input projection, from that of the first layer's input (`upper`, overwritten)."""
    numbers, missions = plan.codes, plan.missions
    first, others = plan.first_gradient, plan.inputs - plan.codes - plan.missions
    at = plan.projection + plan.columns * width  # with codes: what follows their vectors
    for i in range(len(rows)):
        copy(out[i][first : first + width], upper[i])
    if missions > 0:
        if numbers > 0:
            _add_product(seen, numbers + others, missions, out, first, width, gathered, at + others * width)
        else:
            _add_columns(out, first, width, seen, others, missions, gathered, plan.projection, plan.inputs)
        for i in range(len(rows)):
            row, of_bare = rows[i], out[i][plan.bare_gradient : plan.bare_gradient + width]
            of_factor = out[i][plan.factor_gradient : plan.factor_gradient + width]
            for j in range(width):
                of_factor[j] = upper[i, j] * row[plan.bare + j]
                upper[i, j] *= row[plan.factor + j]
            copy(of_bare, upper[i])
        _add_product(seen, numbers + others, missions, out, plan.factor_gradient, width, gathered, plan.scale)
        first = plan.bare_gradient
    for i in range(len(rows)):
        add_to(gathered[plan.projection_bias : plan.projection_bias + width], upper[i][:width])
    if numbers > 0:
        shown = np.empty(len(codes), np.int64)
        _add_product(seen, numbers, others, out, first, width, gathered, at)
        projection_gradient = as_matrix(gathered, plan.projection, plan.columns, width)
        for i in range(len(rows)):
            for p in range(find_rows(seen[i], codes, shown)):
                add_to(projection_gradient[shown[p]], upper[i][:width])
    else:
        _add_columns(out, first, width, seen, 0, others, gathered, plan.projection, plan.inputs)


@compiled
def _unmix(
    layer: np.record,
    sizes: np.ndarray,
    packed: np.ndarray,
    rows: np.ndarray,
    grad_probs: np.ndarray,
    upper: np.ndarray,
    lower: np.ndarray,
    states: np.ndarray,
    unit: int,
    out: np.ndarray,
    gathered: np.ndarray,
) -> None:
    """Carry the gradient of a layer's output (`upper`) to its input (`lower`, put there) and to its states."""
    width, experts, units, h = layer.width, layer.experts, layer.expert.units, layer.router.units
    spread = np.zeros((len(rows), units), np.float32)
    for i in range(len(rows)):
        mixed = out[i][layer.mixed_gradient : layer.mixed_gradient + width]
        copy(mixed, upper[i])
        fill(lower[i], ZERO)
        if layer.normed:
            at = layer.normal
            normal, scale = rows[i][at : at + width], packed[layer.norm :][:width]
            _unnormalise(mixed, normal, rows[i][at + width], scale, layer.norm, layer.norm_bias, gathered)
            copy(lower[i][:width], mixed)
        fill(out[i][layer.weights_gradient : layer.weights_gradient + experts], ZERO)
    matrix = as_matrix(packed, layer.projection_turned, width, units)
    multiply_add(out, layer.mixed_gradient, width, matrix, 0, units, spread, 0)
    matrix = as_matrix(packed, layer.biases_turned, width, experts)
    multiply_add(out, layer.mixed_gradient, width, matrix, 0, experts, out, layer.weights_gradient)
    for i in range(len(rows)):
        row, grads = rows[i], out[i]
        probs, weights = row[layer.probs : layer.probs + experts], row[layer.weights : layer.weights + experts]
        grad_weights = grads[layer.weights_gradient : layer.weights_gradient + experts]
        features = row[layer.expert.features : layer.expert.features + units]
        state = states[i][unit + h : unit + h + units]
        column = 0
        for e in range(experts):
            size = sizes[layer.first_expert + e]
            if size == 0:
                mixed = grads[layer.mixed_gradient : layer.mixed_gradient + width]
                grad_weights[e] = dot(mixed, row[layer.x : layer.x + width])
                add_scaled(lower[i][:width], weights[e], mixed)
                continue
            part = spread[i][column : column + size]
            grad_weights[e] += dot(part, features[column : column + size])
            for j in range(size):
                state[column + j] = part[j] * weights[e]
            column += size
        grad_logits = grads[layer.router_gradient : layer.router_gradient + experts]
        given = grad_probs[i][layer.first_expert : layer.first_expert + experts]
        mean, mean_given = ZERO, ZERO
        for e in range(experts):
            mean += grad_weights[e] * weights[e]
            mean_given += given[e] * probs[e]
        for e in range(experts):
            grad_logits[e] = weights[e] * (grad_weights[e] - mean) + probs[e] * (given[e] - mean_given)
        add_to(gathered[layer.router_bias : layer.router_bias + experts], grad_logits)
        fill(states[i][unit : unit + h], ZERO)
    router = as_matrix(packed, layer.router_weight, experts, h)
    multiply_add(out, layer.router_gradient, experts, router, 0, h, states, unit)
    for i in range(len(rows)):
        row = rows[i]
        state = states[i][unit + h : unit + h + units]
        if layer.relu:
            _unrelu(states[i][unit : unit + h], row[layer.router.features : layer.router.features + h])
            _unrelu(state, row[layer.expert.features : layer.expert.features + units])
        if layer.expert_normed:
            column = 0
            for e in range(experts):
                size = sizes[layer.first_expert + e]
                if size > 0:
                    at = layer.expert_normal + column
                    weight, bias = layer.expert_norm + column, layer.expert_norm_bias + column
                    factor = row[layer.expert_normal + units + e]
                    part = state[column : column + size]
                    scale = packed[weight : weight + size]
                    _unnormalise(part, row[at : at + size], factor, scale, weight, bias, gathered)
                    column += size
    _add_product(out, layer.router_gradient, experts, rows, layer.router.features, h, gathered, layer.router_weight)
    _add_product(rows, layer.gated, units, out, layer.mixed_gradient, width, gathered, layer.projection)
    _add_product(rows, layer.weights, experts, out, layer.mixed_gradient, width, gathered, layer.projection_bias)


@compiled
def _unrelu(gradient: np.ndarray, result: np.ndarray) -> None:
    for j in range(len(gradient)):
        gradient[j] = gradient[j] if result[j] > ZERO else ZERO


@compiled
def _unnormalise(
    gradient: np.ndarray,
    normal: np.ndarray,
    factor: float,
    scale: np.ndarray,
    scale_at: int,
    shift_at: int,
    gathered: np.ndarray,
) -> None:
    """Carry a gradient back through a LayerNorm in place, and add those of its scale and shift to `gathered`."""
    scale_gradient = gathered[scale_at : scale_at + len(gradient)]
    add_to(gathered[shift_at : shift_at + len(gradient)], gradient)
    for j in range(len(gradient)):
        scale_gradient[j] += gradient[j] * normal[j]
        gradient[j] *= scale[j]
    count = np.float32(len(gradient))
    mean, along = total(gradient) / count, dot(gradient, normal) / count
    for j in range(len(gradient)):
        gradient[j] = factor * (gradient[j] - mean - normal[j] * along)


@compiled
def _unrun_cell(
    layer: np.record,
    cell: np.record,
    packed: np.ndarray,
    rows: np.ndarray,
    starts: np.ndarray,
    states: np.ndarray,
    carried: np.ndarray,
    unit: int,
    out: np.ndarray,
    gathered: np.ndarray,
) -> None:
    """Carry the gradient of a cell's state, and what the next step has `carried` back, to its gates."""
    h, kept = cell.units, cell.kept
    for i in range(len(rows)):
        row, grads = rows[i], out[i]
        old = row[kept : kept + h]
        reset, update = row[kept + h : kept + 2 * h], row[kept + 2 * h : kept + 3 * h]
        hidden_new, new = row[kept + 3 * h : kept + 4 * h], row[kept + 4 * h : kept + 5 * h]
        of_state = grads[cell.gradient : cell.gradient + 3 * h]
        of_input = grads[layer.gradient + cell.column : layer.gradient + cell.column + 3 * h]
        of_reset, of_update, of_new = of_state[:h], of_state[h : 2 * h], of_state[2 * h :]
        state, back = states[i][unit : unit + h], carried[i][unit : unit + h]
        for j in range(h):
            gradient = state[j] + back[j]
            through = gradient * (ONE - update[j]) * (ONE - new[j] * new[j])  # at the sum of the new gate
            of_reset[j] = through * hidden_new[j] * reset[j] * (ONE - reset[j])
            of_update[j] = gradient * (old[j] - new[j]) * update[j] * (ONE - update[j])
            of_new[j] = through
            back[j] = gradient * update[j]
        copy(of_input, of_state)
        for j in range(h):
            of_new[j] *= reset[j]  # the state's new gate is behind the reset gate, the input's is not
        add_to(gathered[cell.bias : cell.bias + 3 * h], of_state)
    multiply_add(out, cell.gradient, 3 * h, as_matrix(packed, cell.turned, 3 * h, h), 0, h, carried, unit)
    _add_product(rows, cell.kept, h, out, cell.gradient, 3 * h, gathered, cell.weight)
    for i in range(len(rows)):
        if starts[i]:  # none crosses an episode's start, not even NaN
            fill(carried[i][unit : unit + h], ZERO)
