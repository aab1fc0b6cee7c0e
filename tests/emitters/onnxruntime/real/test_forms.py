"""Every function of real programs has a form, and what a form or a program lacks is named."""

import pytest
import torch
import torch.nn.functional as F

import qat
from qat.emitters.onnxruntime.real.forms import FORMS
from qat.errors import ExportError, PreparationError
from qat.real.functions import FUNCTIONS


def test_every_function_has_a_form():
    assert set(FORMS) == set(FUNCTIONS)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (
            lambda y: torch.special.i0(y),
            r"i0 in the network at .*test_forms.py:\d+: i0 is not among the functions of such files",
        ),
        (lambda y: torch.cdist(y[:, None], y[:, None]), r"cdist\w* in the network at .*test_forms.py:\d+"),
    ],
)
def test_functions_that_are_not_listed_are_named_with_their_line(function, message, behind, difference):
    with pytest.raises(PreparationError, match=message):
        difference(behind(function), torch.randn(5, 4))


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda y: F.softplus(y, 2.0), "has another beta or threshold"),
        (lambda y: torch.linalg.vector_norm(y, 3, dim=1), "is a norm of order 3.0; use 1 or 2"),
        (lambda y: y * y.argmax(), "finds a place among all dimensions"),
        (lambda y: y * y.var(), "is a variance over a size that follows the inputs"),
    ],
)
def test_what_a_form_lacks_is_refused_and_no_file_is_left(function, message, behind, tmp_path):
    program = qat.quantize(behind(function).eval(), [torch.randn(5, 4)], quant="fp16")
    with pytest.raises(ExportError, match=message):
        qat.export(program, tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())
