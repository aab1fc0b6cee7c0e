"""Every function of real programs, as ONNX Runtime computes it; exporting checks nodes on the file's own numbers."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import qat
from qat.emitters.onnxruntime import open_session, run_session
from qat.emitters.onnxruntime.real.forms import FORMS
from qat.errors import ConversionError, ExportError
from qat.real.functions import FUNCTIONS


class Behind(nn.Module):
    """A linear layer, and a function of its result."""

    def __init__(self, function, width=6):
        super().__init__()
        self.linear = nn.Linear(4, width)
        self.function = function

    def forward(self, x):
        return self.function(self.linear(x))


def exported(module, x, path, quant="fp16"):
    """The program of a module, exported, and the largest difference of the file's output from the module's own."""
    module.eval()
    program = qat.quantize(module, [x], quant=quant)
    qat.export(program, path)
    session = open_session(path)
    differences = []
    for batch in (x, x[:1]):
        found = next(iter(run_session(session, program.named_inputs(batch)).values()))
        expected = module(batch).detach()
        differences.append(float((found.reshape(expected.shape).double() - expected.double()).abs().max()))
    return program, max(differences)


def test_every_function_has_a_form():
    assert set(FORMS) == set(FUNCTIONS)


POSITIVE = torch.sigmoid
UNARY = {
    "relu": torch.relu, "gelu": F.gelu, "gelu of tanh": lambda y: F.gelu(y, approximate="tanh"),
    "sigmoid": torch.sigmoid, "tanh": torch.tanh, "exp": torch.exp, "log": lambda y: torch.log(POSITIVE(y)),
    "sqrt": lambda y: torch.sqrt(POSITIVE(y)), "rsqrt": lambda y: torch.rsqrt(POSITIVE(y)), "abs": torch.abs,
    "neg": torch.neg, "sin": torch.sin, "cos": torch.cos, "tan": lambda y: torch.tan(torch.tanh(y)),
    "asin": lambda y: torch.asin(torch.tanh(y)), "acos": lambda y: torch.acos(torch.tanh(y)), "atan": torch.atan,
    "sinh": torch.sinh, "cosh": torch.cosh, "erf": torch.erf, "silu": F.silu, "hardswish": F.hardswish,
    "hardsigmoid": F.hardsigmoid, "elu": F.elu, "leaky_relu": F.leaky_relu, "softplus": F.softplus, "mish": F.mish,
    "hardtanh": F.hardtanh, "relu6": F.relu6, "reciprocal": lambda y: torch.reciprocal(POSITIVE(y)),
    "floor": torch.floor, "ceil": torch.ceil, "round": torch.round, "sign": torch.sign,
    "clamp": lambda y: y.clamp(-0.2, 0.3), "clamp from below": lambda y: y.clamp(min=0.1),
}  # fmt: skip
OTHERS = {
    "sum with alpha": lambda y: torch.add(y, y.flip(1), alpha=2),
    "difference": lambda y: torch.sub(y, 1.5, alpha=2) - (2 - y),
    "product": lambda y: y * 0.5 * y,
    "quotient": lambda y: y / 3 / (y.abs() + 1),
    "powers": lambda y: y**2 + (y.abs() + 0.1) ** y + 2**y,
    "larger and smaller": lambda y: torch.maximum(y, y.flip(1)) - torch.minimum(y, -y),
    "remainders": lambda y: y % 0.7 + torch.floor_divide(y, 0.3),
    "comparisons": lambda y: (
        (y > 0).float() + (y >= 0.1) * 2 + (y < y.flip(1)) * 4 + (y <= 0) * 8.0 + (y == y) * 16 + (y != 0) * 32
    ),
    "logic": lambda y: torch.where(
        (y > 0).logical_and(y < 0.5).logical_or((y > -0.3) & ~(y > 0) | (y > 0.7) ^ (y > 0.9)).logical_not(), y, -y
    ),
    "xor": lambda y: torch.where((y > 0).logical_xor(y > 0.2), y, 0.0),
    "where of numbers": lambda y: torch.where(y > 0, y, -1.0),
    "masked": lambda y: y.masked_fill(y > 0, 3.0),
    "no number": lambda y: torch.where(torch.isnan(y), 0.0, y),
    "matmul": lambda y: y[:, :, None] @ y[:, None, :],
    "bmm": lambda y: torch.bmm(y[:, :, None], y[:, None, :]),
    "layer norm": lambda y: F.layer_norm(y, (6,)),
    "layer norm with a gain": lambda y: F.layer_norm(y, (6,), torch.arange(6.0), torch.ones(6)),
    "rms norm": lambda y: F.rms_norm(y, (6,), torch.arange(6.0)),
    "group norm": lambda y: F.group_norm(y[..., None], 2, torch.arange(6.0), torch.ones(6)),
    "softmax": lambda y: torch.softmax(y, -1) + torch.log_softmax(y, 1),
    "means": lambda y: y.mean(1, keepdim=True) + y.view(-1, 2, 3).mean((1, 2))[:, None],
    "sums": lambda y: y.sum(1, keepdim=True) + y.view(-1, 2, 3).sum((1, 2))[:, None],
    "product over a dimension": lambda y: y.prod(1),
    "extremes": lambda y: y.amax(1) - y.amin(1) + y.max(1).values - y.min(1).values,
    "places": lambda y: y.argmax(1) + 10 * y.argmin(1) + y.max(1).indices + y.min(1).indices,
    "cumulative sum": lambda y: y.cumsum(1),
    "any and all": lambda y: (y > 0).any(1) * 1.0 + (y > -9).all(1) * 2.0,
    "variance": lambda y: y.var(1) + y.var(1, correction=0),
    "norms": lambda y: torch.linalg.vector_norm(y, dim=1) + torch.linalg.vector_norm(y, 1, dim=1),
    "reshapes": lambda y: y.view(-1, 2, 3).transpose(1, 2).reshape(y.shape[0], -1).unsqueeze(1).squeeze(1),
    "slices": lambda y: torch.cat([y[:, 1:5:2], y[:, -2:], y[:, 3][:, None]], 1),
    "pieces": lambda y: torch.cat(y.split([1, 2, 3], 1)[::-1], 1) + torch.stack(y.chunk(2, 1), 1).flatten(1),
    "padding": lambda y: F.pad(y, (1, 2), value=0.5),
    "chosen": lambda y: y.index_select(1, torch.tensor([5, 0, 0])) + y[:, torch.tensor([1, 2, 3])],
    "gathered": lambda y: y.gather(1, torch.zeros_like(y).long() + 2),
    "largest three": lambda y: y.topk(3, 1).values * y.topk(3, 1).indices,
    "triangles": lambda y: (y[:, :, None] * torch.ones(6)).tril(1) - (y[:, :, None] * torch.ones(6)).triu(),
    "expanded": lambda y: y[:, :, None].expand(-1, -1, 3) * torch.arange(3.0),
    "full": lambda y: y + torch.full((y.shape[0], 6), 2.0) + y.new_zeros(y.shape[0], 1),
    "sizes": lambda y: y.reshape(y.shape[0] * 2, 3).reshape(y.shape[0], -1) / y.shape[1],
}  # fmt: skip


@pytest.mark.parametrize("name", UNARY)
def test_a_function_of_each_element(name, tmp_path):
    torch.manual_seed(1)
    _, difference = exported(Behind(UNARY[name]), torch.randn(5, 4), tmp_path / "model.onnx")
    assert difference < 1e-4


@pytest.mark.parametrize("name", OTHERS)
def test_a_function_of_several_elements(name, tmp_path):
    torch.manual_seed(1)
    _, difference = exported(Behind(OTHERS[name]), torch.randn(5, 4), tmp_path / "model.onnx")
    assert difference < 1e-4


@pytest.mark.parametrize(
    "function",
    [
        lambda y: F.max_pool2d(y, 2), lambda y: F.max_pool2d(y, 3, 2, 1), lambda y: F.avg_pool2d(y, 2),
        lambda y: F.avg_pool2d(y, 3, 2, 1), lambda y: F.avg_pool2d(y, 3, 2, 1, count_include_pad=False),
        lambda y: F.adaptive_avg_pool2d(y, 1), lambda y: F.adaptive_avg_pool2d(y, (2, 4)),
        lambda y: F.adaptive_avg_pool1d(y.flatten(2), 1), lambda y: F.adaptive_avg_pool3d(y[:, None], 2),
        lambda y: F.avg_pool1d(y.flatten(2), 4), lambda y: F.interpolate(y, scale_factor=2),
        lambda y: F.interpolate(y, scale_factor=2, mode="bilinear"),
        lambda y: F.interpolate(y, size=(11, 11), mode="bilinear", align_corners=True),
        lambda y: F.pixel_shuffle(y, 2), lambda y: y.mean((2, 3)),
    ],
)  # fmt: skip
def test_windows(function, tmp_path):
    class Windows(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(1, 4, 3, padding=1)

        def forward(self, x):
            return function(self.conv(x))

    torch.manual_seed(1)
    _, difference = exported(Windows(), torch.randn(3, 1, 8, 8), tmp_path / "model.onnx")
    assert difference < 1e-4


def test_integers_among_the_inputs_choose_entries(tmp_path):
    class Chooses(nn.Module):
        def __init__(self):
            super().__init__()
            self.table = nn.Embedding(9, 4)
            self.linear = nn.Linear(4, 3)

        def forward(self, ids):
            positions = torch.arange(ids.shape[1], device=ids.device)
            x = self.linear(self.table(ids) + self.table(positions))
            return x[torch.arange(ids.shape[0]), ids[:, 0]]

    torch.manual_seed(1)
    ids = torch.tensor([[2, 3, 8], [1, 7, 0], [0, 0, 4]])
    _, difference = exported(Chooses(), ids, tmp_path / "model.onnx")
    assert difference < 1e-4


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (torch.special.i0, r"i0 in the network at .*test_forms.py:\d+: i0 is not among the functions of such files"),
        (lambda y: torch.cdist(y[:, None], y[:, None]), r"cdist\w* in the network at .*test_forms.py:\d+"),
    ],
)
def test_functions_that_are_not_listed_are_named_with_their_line(function, message, tmp_path):
    with pytest.raises(ConversionError, match=message):
        exported(Behind(function), torch.randn(5, 4), tmp_path / "model.onnx")


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda y: F.softplus(y, 2.0), "has another beta or threshold"),
        (lambda y: torch.linalg.vector_norm(y, 3, dim=1), "is a norm of order 3.0; use 1 or 2"),
        (lambda y: y * y.argmax(), "finds a place among all dimensions"),
        (lambda y: y * y.var(), "is a variance over a size that follows the inputs"),
    ],
)
def test_what_a_form_lacks_is_refused_and_no_file_is_left(function, message, tmp_path):
    program = qat.quantize(Behind(function).eval(), [torch.randn(5, 4)], quant="fp16")
    with pytest.raises(ExportError, match=message):
        qat.export(program, tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())
