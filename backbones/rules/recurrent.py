"""Recurrent layers: what they read may shrink, their own units stay."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from backbones.interpret import Interpreter, Param
from backbones.labels import varying
from backbones.program import Step


def recurrent(run: Interpreter, step: Step, x: Any, state: Any, weights: Any, *rest: Any, **options: Any) -> Any:
    """LSTM, GRU, RNN: counted by hand as every matrix once a time step.

    The arguments behind the weights are whether there are biases, the number of layers, dropout, training, both ways.
    """
    known = isinstance(weights, (list, tuple)) and all(isinstance(weight, Param) for weight in weights)
    matrices = [weight for weight in weights if len(weight.shape) == 2] if isinstance(weights, (list, tuple)) else []
    steps = math.prod(x.shape[:-1])
    if not known or not isinstance(rest[0], bool):  # packed sequences among them
        run.count(step, steps * sum(math.prod(weight.shape) for weight in matrices))
        return run.unknown(step, (x, state, weights, rest), "recurrent layers keep their size")
    ways = 2 if rest[4] else 1
    each = len(weights) // (rest[1] * ways)
    readers = [weights[way * each] for way in range(ways)]
    _read(run, step, x, readers)
    others = [weight for weight in weights if weight not in readers]
    run.count(step, steps * sum(math.prod(weight.shape) for weight in matrices if weight not in readers))
    return run.unknown(step, (state, others), "recurrent layers keep their size")


def cell(run: Interpreter, step: Step, x: Any, state: Any, reader: Any, *others: Any) -> Any:
    """LSTMCell, GRUCell, RNNCell: one time step."""
    if not isinstance(reader, Param):
        return run.unknown(step, (x, state, reader, others), "the weight is computed, not a parameter")
    _read(run, step, x, [reader])
    run.count(step, math.prod(x.shape[:-1]) * math.prod(others[0].shape))
    return run.unknown(step, (state, others), "recurrent layers keep their size")


def _read(run: Interpreter, step: Step, x: Any, weights: list[Param]) -> None:
    """Weights (units of all gates, inputs) that read the last dimension of an activation."""
    labels = run.labels(x, step)
    if any(dim != labels.ndim - 1 for dim in varying(labels)):
        run.constraints.freeze(labels, step, "time steps or samples that are channels")
    inputs = run.constraints.channels(labels, -1, step)
    for weight in weights:
        run.count(step, math.prod(x.shape[:-1]), (weight, 0), (weight, 1))
        run.bind(weight, 1, "input", inputs, step)


RULES: Mapping[str, Callable[..., Any]] = {
    **dict.fromkeys(("lstm", "gru", "rnn_tanh", "rnn_relu"), recurrent),
    **dict.fromkeys(("lstm_cell", "gru_cell", "rnn_tanh_cell", "rnn_relu_cell"), cell),
}
