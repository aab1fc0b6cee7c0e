"""Recurrences of torch (LSTM, GRU, RNN and their cells) as the products, sums and functions of every step.

The inputs of all steps are multiplied with their weights at once; what is left for each step is the product with the
state. A layer's steps are a loop, so that they share addresses and grids, and a recording of two steps or more stands
for sequences of any length. While the network is exported a layer traces one step, which lowering makes a loop of
(`qat.inject.loops`); a sequence of a single step is no loop, and cells run in whatever loop the network writes itself.
"""

import functools
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.fx.experimental.symbolic_shapes import statically_known_true

from qat.errors import PreparationError
from qat.inject.loops import loop_begin, loop_end
from qat.tracing import is_exporting

#: One step: (product of the input with its weights, state, recurrent weight, recurrent bias) -> the next state.
#: The state is (N, H), or a tuple of such whose first is the output.
Step = Callable[[Tensor, tuple[Tensor, ...], Tensor, Tensor | None], tuple[Tensor, ...]]


def lstm(*arguments):
    """torch.lstm (arXiv:1402.1128): (output, last hidden states, last cell states)."""
    _refuse_packed(arguments)
    x, states, *rest = arguments
    output, hidden, cell = _layers(_lstm_step, x, tuple(states), *rest)
    hidden = _stacked(hidden)  # each in a line of its own: what shares a line shares a grid
    cell = _stacked(cell)
    return output, hidden, cell


def gru(*arguments):
    """torch.gru (arXiv:1406.1078): (output, last hidden states)."""
    _refuse_packed(arguments)
    x, hidden, *rest = arguments
    output, hidden = _layers(_gru_step, x, (hidden,), *rest)
    return output, _stacked(hidden)


def rnn_tanh(*arguments):
    """torch.rnn_tanh: (output, last hidden states)."""
    _refuse_packed(arguments)
    x, hidden, *rest = arguments
    output, hidden = _layers(_tanh_step, x, (hidden,), *rest)
    return output, _stacked(hidden)


def rnn_relu(*arguments):
    """torch.rnn_relu: (output, last hidden states)."""
    _refuse_packed(arguments)
    x, hidden, *rest = arguments
    output, hidden = _layers(_relu_step, x, (hidden,), *rest)
    return output, _stacked(hidden)


def lstm_cell(x: Tensor, state: tuple[Tensor, Tensor], w_ih, w_hh, b_ih=None, b_hh=None) -> tuple[Tensor, Tensor]:
    """torch.lstm_cell: the next (hidden, cell) state, each (N, H)."""
    return _cell(_lstm_step, x, tuple(state), w_ih, w_hh, b_ih, b_hh)


def gru_cell(x: Tensor, state: Tensor, w_ih, w_hh, b_ih=None, b_hh=None) -> Tensor:
    """torch.gru_cell: the next state (N, H)."""
    return _cell(_gru_step, x, (state,), w_ih, w_hh, b_ih, b_hh)[0]


def rnn_tanh_cell(x: Tensor, state: Tensor, w_ih, w_hh, b_ih=None, b_hh=None) -> Tensor:
    """torch.rnn_tanh_cell: the next state (N, H)."""
    return _cell(_tanh_step, x, (state,), w_ih, w_hh, b_ih, b_hh)[0]


def rnn_relu_cell(x: Tensor, state: Tensor, w_ih, w_hh, b_ih=None, b_hh=None) -> Tensor:
    """torch.rnn_relu_cell: the next state (N, H)."""
    return _cell(_relu_step, x, (state,), w_ih, w_hh, b_ih, b_hh)[0]


def _layers(
    step: Step,
    x: Tensor,
    states: tuple[Tensor, ...],
    weights: list[Tensor],
    has_biases: bool,
    num_layers: int,
    dropout: float,
    train: bool,
    bidirectional: bool,
    batch_first: bool,
) -> tuple:
    """The output, laid out as `x` is, and for each kind of state the last ones of every layer and direction, (N, H).

    x: (N, L, features) with `batch_first`, else (L, N, features). states: each (layers * directions, N, H).
    weights: input, recurrent, and with `has_biases` their biases, of every layer and direction.
    """
    directions = 2 if bidirectional else 1
    count = 4 if has_biases else 2
    if len(weights) != count * num_layers * directions:
        raise PreparationError(
            "an LSTM with projections (proj_size) has no integer form; leave proj_size at 0, and project the outputs "
            "with a linear layer behind it."
        )
    x = x if batch_first else x.transpose(0, 1)
    last: list[tuple[Tensor, ...]] = []
    for layer in range(num_layers):
        outputs = []
        for direction in range(directions):
            index = len(last)
            own = weights[index * count : (index + 1) * count]
            state = tuple(initial[index] for initial in states)
            output, state = _one_direction(step, x, state, *own, reverse=direction == 1)
            outputs.append(output)
            last.append(state)
        x = outputs[0] if directions == 1 else torch.cat(outputs, -1)
        if train and dropout > 0 and layer < num_layers - 1:
            x = F.dropout(x, dropout)
    output = x if batch_first else x.transpose(0, 1)
    return output, *zip(*last, strict=True)


def _stacked(states: tuple[Tensor, ...]) -> Tensor:
    """(layers * directions, N, H) of the last states (N, H)."""
    return torch.stack(states, 1).transpose(0, 1)


def _one_direction(
    step: Step,
    x: Tensor,
    state: tuple[Tensor, ...],
    w_ih: Tensor,
    w_hh: Tensor,
    b_ih: Tensor | None = None,
    b_hh: Tensor | None = None,
    *,
    reverse: bool,
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """(output (N, L, H), last state) of one layer in one direction. x: (N, L, features)."""
    in_front, inside = _biases(step, b_ih, b_hh)
    products = F.linear(x, w_ih, in_front)
    # a comparison of sizes would bound the lengths that the exported graph takes
    looped = is_exporting() and not statically_known_true(products.shape[1] == 1)
    if looped:  # one step, which stands for all
        entry, *state = loop_begin(products, list(state))
        entries = (entry,)
    else:
        entries = products.unbind(1)
    outputs = []
    for entry in reversed(entries) if reverse else entries:
        state = step(entry, state, w_hh, inside)
        outputs.append(state[0])
    join = functools.partial(loop_end, products, list(state), reverse) if looped else torch.stack
    # one line calls either: an address is a place in the code
    joined = join(outputs[::-1] if reverse else outputs, 1)
    return (joined[0], tuple(joined[1:])) if looped else (joined, state)


def _cell(step: Step, x: Tensor, state: tuple[Tensor, ...], w_ih, w_hh, b_ih, b_hh) -> tuple[Tensor, ...]:
    in_front, inside = _biases(step, b_ih, b_hh)
    return step(F.linear(x, w_ih, in_front), state, w_hh, inside)


def _biases(step: Step, b_ih: Tensor | None, b_hh: Tensor | None) -> tuple[Tensor | None, Tensor | None]:
    """(bias of the inputs' product, bias of the state's): all in the first, where the reset gate of a GRU allows it."""
    return (b_ih, b_hh) if step is _gru_step or b_ih is None else (b_ih + b_hh, None)


def _lstm_step(product: Tensor, state: tuple[Tensor, ...], weight: Tensor, bias: Tensor | None) -> tuple[Tensor, ...]:
    hidden, cell = state
    into, forget, candidate, out = (product + F.linear(hidden, weight, bias)).chunk(4, -1)
    cell = torch.sigmoid(forget) * cell + torch.sigmoid(into) * torch.tanh(candidate)
    return torch.sigmoid(out) * torch.tanh(cell), cell


def _gru_step(product: Tensor, state: tuple[Tensor, ...], weight: Tensor, bias: Tensor | None) -> tuple[Tensor, ...]:
    (hidden,) = state
    size = hidden.shape[-1]
    gates, candidate = product.split((2 * size, size), -1)
    recurrent_gates, recurrent_candidate = F.linear(hidden, weight, bias).split((2 * size, size), -1)
    reset, update = (gates + recurrent_gates).chunk(2, -1)
    candidate = torch.tanh(candidate + torch.sigmoid(reset) * recurrent_candidate)
    # 1 - sigmoid(x) is sigmoid(-x): a table of its own, and not one of rounded codes
    return (torch.sigmoid(-update) * candidate + torch.sigmoid(update) * hidden,)


def _tanh_step(product: Tensor, state: tuple[Tensor, ...], weight: Tensor, bias: Tensor | None) -> tuple[Tensor, ...]:
    return (torch.tanh(product + F.linear(state[0], weight, bias)),)


def _relu_step(product: Tensor, state: tuple[Tensor, ...], weight: Tensor, bias: Tensor | None) -> tuple[Tensor, ...]:
    return (F.relu(product + F.linear(state[0], weight, bias)),)


def _refuse_packed(arguments: tuple) -> None:
    """Packed sequences come with the sizes of their batches, integers, behind the data."""
    if isinstance(arguments[1], Tensor) and not arguments[1].is_floating_point():
        raise PreparationError(
            "a recurrent layer reads a PackedSequence, whose steps are batches of different sizes, which no file of a "
            "fixed order of steps has; give it the padded tensor, and mask what lies behind the end of a sequence."
        )


RECURRENCES = {
    torch.lstm: lstm,
    torch.gru: gru,
    torch.rnn_tanh: rnn_tanh,
    torch.rnn_relu: rnn_relu,
    torch.lstm_cell: lstm_cell,
    torch.gru_cell: gru_cell,
    torch.rnn_tanh_cell: rnn_tanh_cell,
    torch.rnn_relu_cell: rnn_relu_cell,
}
