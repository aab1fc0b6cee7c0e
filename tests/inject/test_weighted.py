import pytest
import torch
import torch.nn.functional as F
from torch import nn

from qat.inject.inputs import bind_examples
from qat.inject.record import record
from qat.inject.weighted import weighted_form


class One(nn.Module):
    """One call of `function` on the input and constants."""

    def __init__(self, function, *shapes):
        super().__init__()
        self.constants = nn.ParameterList(torch.randn(shape) for shape in shapes)
        self.function = function

    def forward(self, x):
        return self.function(x, *self.constants)


def form_of(function, *shapes, x=(2, 3, 4)):
    network = One(function, *shapes)
    recording = record(network, *bind_examples(network, torch.randn(x)))
    return weighted_form(list(recording.calls.values())[-1])


@pytest.mark.parametrize(
    ("function", "shapes", "x", "axis", "channels"),
    [
        (F.linear, [(5, 4), (5,)], (2, 3, 4), 0, -1),
        (F.conv1d, [(5, 3, 1)], (2, 3, 4), 0, -2),
        (F.conv2d, [(5, 3, 1, 1)], (2, 3, 4, 4), 0, -3),
        (F.conv3d, [(5, 3, 1, 1, 1)], (2, 3, 4, 4, 4), 0, -4),
        (F.conv_transpose2d, [(3, 5, 2, 2)], (2, 3, 4, 4), 1, -3),
        (torch.matmul, [(4, 5)], (2, 3, 4), 1, -1),
        (torch.mm, [(4, 5)], (2, 4), 1, -1),
        (lambda x, w, b: torch.addmm(b, x, w), [(4, 5), (5,)], (2, 4), 1, -1),
    ],
)
def test_where_weight_and_channels_are(function, shapes, x, axis, channels):
    form = form_of(function, *shapes, x=x)
    assert (form.axis, form.channels) == (axis, channels)


def test_a_product_is_a_layer_only_with_a_constant_matrix_behind_a_value():
    assert form_of(lambda x, w: torch.matmul(w, x), (5, 3)) is None
    assert form_of(lambda x: torch.matmul(x, x.transpose(1, 2))) is None
    assert form_of(torch.matmul, (2, 4, 5)) is None  # a matrix for each sample of a batch of matrices
    assert form_of(torch.add, (3, 4)) is None


def test_only_addmm_cannot_go_without_a_bias():
    assert form_of(lambda x, w, b: torch.addmm(b, x, w), (4, 5), (5,), x=(2, 4)).needs_bias
    assert not form_of(F.linear, (5, 4)).needs_bias
