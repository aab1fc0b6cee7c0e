import math
import operator

import pytest
import torch
import torch.nn.functional as F

from qat.inject.operations import (
    Kind,
    bounds_of,
    first_operand,
    kind_of,
    never_negative,
    operation_of,
    out_of_place,
    writes_in_place,
)

X = torch.tensor([-1.0, 2.0])
IDS = torch.tensor([1, 2])


@pytest.mark.parametrize(
    ("name", "functions"),
    [
        (
            "add",
            [torch.add, torch.Tensor.add, torch.Tensor.__add__, torch.Tensor.__radd__, operator.add, operator.iadd],
        ),
        ("mul", [torch.mul, torch.multiply, torch.Tensor.__imul__, torch.Tensor.mul_, operator.mul, operator.imul]),
        ("sub", [torch.sub, torch.subtract, torch.Tensor.__sub__, operator.sub, operator.isub]),
        ("div", [torch.div, torch.true_divide, torch.Tensor.__truediv__, operator.truediv]),
        ("matmul", [torch.matmul, torch.Tensor.__matmul__, operator.matmul]),
        ("relu", [torch.relu, torch.relu_, F.relu, torch.Tensor.relu, torch.Tensor.relu_]),
        ("clamp", [torch.clamp, torch.clip, torch.Tensor.clamp_, torch.Tensor.clip]),
        ("cat", [torch.cat, torch.concat, torch.concatenate]),
        ("conv2d", [torch.conv2d, F.conv2d]),
        ("linear", [F.linear, torch._C._nn.linear]),
        ("batch_norm", [F.batch_norm, torch.batch_norm]),
        ("getitem", [torch.Tensor.__getitem__, operator.getitem]),
        ("setitem", [torch.Tensor.__setitem__, operator.setitem]),
    ],
)
def test_eager_and_compiled_spellings_share_a_name(name, functions):
    assert {operation_of(function).name for function in functions} == {name}


def test_a_function_that_nobody_knows_computes():
    def brand_new(x):
        return x

    assert operation_of(brand_new).kind is Kind.COMPUTE
    assert operation_of(torch.special.bessel_j0).kind is Kind.COMPUTE


@pytest.mark.parametrize(
    ("function", "args", "kwargs", "kind"),
    [
        (F.pad, (X, (1, 1)), {}, Kind.PASS),
        (F.pad, (X, (1, 1), "constant", 0.0), {}, Kind.PASS),
        (F.pad, (X, (1, 1), "constant", 0.5), {}, Kind.COMPUTE),
        (F.pad, (X, (1, 1)), {"value": 0.5}, Kind.COMPUTE),
        (torch.max, (X,), {}, Kind.PASS),
        (torch.max, (X, X), {}, Kind.JOIN),
        (torch.clamp, (X, 0.0, 1.0), {}, Kind.FUSE),
        (torch.clamp, (X,), {"min": X}, Kind.COMPUTE),
        (torch.Tensor.float, (X,), {}, Kind.PASS),
        (torch.Tensor.float, (IDS,), {}, Kind.CAST),
        (torch.Tensor.to, (IDS, torch.float32), {}, Kind.CAST),
        (torch.Tensor.fill_, (X, 1.0), {}, Kind.COMPUTE),
        (torch.Tensor.argmax, (X,), {}, Kind.IGNORE),
    ],
)
def test_the_kind_depends_on_the_arguments(function, args, kwargs, kind):
    assert kind_of(operation_of(function), args, kwargs) is kind


@pytest.mark.parametrize(
    ("function", "args", "kwargs", "bounds"),
    [
        (F.relu, (X,), {}, (0.0, math.inf)),
        (F.relu6, (X,), {}, (0.0, 6.0)),
        (F.hardtanh, (X,), {}, (-1.0, 1.0)),
        (F.hardtanh, (X, -2.0), {}, (-2.0, 1.0)),
        (F.hardtanh, (X,), {"max_val": 3.0}, (-1.0, 3.0)),
        (torch.clamp, (X, -1), {}, (-1.0, math.inf)),
        (torch.clamp, (X,), {"max": 2}, (-math.inf, 2.0)),
        (torch.clamp, (X, None, 2), {}, (-math.inf, 2.0)),
        (torch.clamp_min, (X, 0.5), {}, (0.5, math.inf)),
        (torch.clamp_max, (X,), {"max": 0.5}, (-math.inf, 0.5)),
        (F.batch_norm, (X,), {}, None),
    ],
)
def test_bounds_of_activations(function, args, kwargs, bounds):
    assert bounds_of(operation_of(function), args, kwargs) == bounds


def test_what_cannot_be_negative():
    assert never_negative(operation_of(F.relu), (X,), {})
    assert never_negative(operation_of(torch.sigmoid), (X,), {})
    assert never_negative(operation_of(torch.clamp), (X, 0.1), {})
    assert not never_negative(operation_of(torch.clamp), (X, -0.1), {})
    assert not never_negative(operation_of(torch.add), (X, X), {})


@pytest.mark.parametrize(
    ("function", "args", "kwargs"),
    [
        (torch.Tensor.add_, (X, X), {}),
        (operator.iadd, (X, X), {}),
        (torch.Tensor.__iadd__, (X, X), {}),
        (F.relu, (X, True), {}),
        (F.relu, (X,), {"inplace": True}),
        (torch.relu_, (X,), {}),
        (F.hardtanh, (X, -1.0, 1.0, True), {}),
        (F.dropout, (X, 0.0, True, True), {}),
        (torch.Tensor.squeeze_, (X,), {}),
    ],
)
def test_writing_in_place_is_seen_and_rewritten_to_the_same_result(function, args, kwargs):
    operation = operation_of(function)
    assert writes_in_place(operation, function, args, kwargs)
    rewritten, new_args, new_kwargs = out_of_place(operation, function, args, kwargs)
    x = X.clone()
    result = rewritten(x, *new_args[1:], **new_kwargs)
    assert torch.equal(x, X)
    assert torch.equal(result, function(X.clone(), *args[1:], **kwargs))


def test_what_cannot_be_rewritten_says_so():
    assert out_of_place(operation_of(torch.Tensor.__setitem__), torch.Tensor.__setitem__, (X, [0], 1.0), {}) is None
    assert out_of_place(operation_of(torch.add), torch.add, (X, X), {"out": X}) == (torch.add, (X, X), {})
    assert not writes_in_place(operation_of(torch.add), torch.add, (X, X), {})
    assert not writes_in_place(operation_of(F.relu), F.relu, (X, False), {})


def test_the_first_operand_may_be_a_keyword():
    assert first_operand((X,), {}) is X
    assert first_operand((), {"input": X, "other": IDS}) is X
