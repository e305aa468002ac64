"""Recurrent layers: what they read may shrink, and so may their units, the same ones in all layers and directions."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor

from backbones.interpret import Interpreter, Param
from backbones.labels import along, varying
from backbones.program import Step


def recurrent(run: Interpreter, step: Step, x: Any, state: Any, weights: Any, *rest: Any, **options: Any) -> Any:
    """LSTM, GRU, RNN: counted by hand as every matrix once a time step.

    The arguments behind the weights are whether there are biases, the number of layers, dropout, training, both ways.
    Layers whose outputs are projected keep their units.
    """
    known = isinstance(weights, (list, tuple)) and all(isinstance(weight, Param) for weight in weights)
    matrices = [weight for weight in weights if len(weight.shape) == 2] if isinstance(weights, (list, tuple)) else []
    steps = math.prod(x.shape[:-1])
    if not known or not isinstance(rest[0], bool):
        run.count(step, steps * sum(math.prod(weight.shape) for weight in matrices))
        return run.unknown(step, (x, state, weights, rest), "recurrent layers keep their size")
    ways = 2 if rest[4] else 1
    each = len(weights) // (rest[1] * ways)
    if each % 2:  # a projection stands behind the others
        readers = [weights[way * each] for way in range(ways)]
        _read(run, step, x, readers)
        others = [weight for weight in weights if weight not in readers]
        run.count(step, steps * sum(math.prod(weight.shape) for weight in matrices if weight not in readers))
        return run.unknown(step, (state, others), "recurrent layers with projections keep their size")
    units = run.constraints.new_labels(weights[1].shape[1])
    for first in range(0, len(weights), each):
        if first < ways * each:
            _read(run, step, x, [weights[first]])
        else:
            run.count(step, steps, (weights[first], 0), (weights[first], 1))
            run.bind(weights[first], 1, "input", units.repeat(ways), step)
        run.count(step, steps, (weights[first + 1], 0), (weights[first + 1], 1))
        _make(run, step, units, weights[first : first + each])
    _begin(run, step, state, units)
    outputs, *states = step.shape
    return (along(-1, units.repeat(ways), outputs), *(along(-1, units, shape) for shape in states))


def cell(run: Interpreter, step: Step, x: Any, state: Any, reader: Any, *others: Any) -> Any:
    """LSTMCell, GRUCell, RNNCell: one time step."""
    if not isinstance(reader, Param) or not isinstance(others[0], Param):
        return run.unknown(step, (x, state, reader, others), "the weight is computed, not a parameter")
    _read(run, step, x, [reader])
    run.count(step, math.prod(x.shape[:-1]), (others[0], 0), (others[0], 1))
    units = _make(run, step, run.constraints.new_labels(others[0].shape[1]), [reader, *others])
    _begin(run, step, state, units)
    several = isinstance(step.shape[0], tuple)
    return tuple(along(-1, units, shape) for shape in step.shape) if several else along(-1, units, step.shape)


def _read(run: Interpreter, step: Step, x: Any, weights: Sequence[Param]) -> None:
    """Weights (units of all gates, inputs) that read the last dimension of an activation."""
    labels = run.labels(x, step)
    if any(dim != labels.ndim - 1 for dim in varying(labels)):
        run.constraints.freeze(labels, step, "time steps or samples that are channels")
    inputs = run.constraints.channels(labels, -1, step)
    for weight in weights:
        run.count(step, math.prod(x.shape[:-1]), (weight, 0), (weight, 1))
        run.bind(weight, 1, "input", inputs, step)


def _make(run: Interpreter, step: Step, units: Tensor, weights: Sequence[Any]) -> Tensor:
    """Binds the weights of one layer and direction; each of the gates has a row for every unit.

    The weights are those of what is read (units of all gates, inputs), of the state (units of all gates, units), and
    biases. Returns the labels to go on with, older ones where a cell runs again.
    """
    reader, recurring, *biases = weights
    gates = reader.shape[0] // len(units)
    bound = run.bind(recurring, 1, "input", units, step)
    for weight in (reader, recurring):
        run.bind(weight, 0, "filter", bound.repeat(gates), step)
    for bias in biases:
        run.bind(bias, 0, "vector", bound.repeat(gates), step)
    return bound


def _begin(run: Interpreter, step: Step, state: Any, units: Tensor) -> None:
    """The states that a layer begins with are those of its units."""
    for one in state if isinstance(state, (list, tuple)) else [state]:
        labels = run.labels(one, step)
        if any(dim != labels.ndim - 1 for dim in varying(labels)):
            run.constraints.freeze(labels, step, "layers or samples that are channels")
        run.constraints.tie(run.constraints.channels(labels, -1, step), units, step)


RULES: Mapping[str, Callable[..., Any]] = {
    **dict.fromkeys(("lstm", "gru", "rnn_tanh", "rnn_relu"), recurrent),
    **dict.fromkeys(("lstm_cell", "gru_cell", "rnn_tanh_cell", "rnn_relu_cell"), cell),
}
