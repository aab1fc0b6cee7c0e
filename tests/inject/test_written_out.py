"""Functions that are written in parts: torch's own values and gradients in float64, whatever the arguments."""

import math
import operator

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from qat.inject.written_out import WRITTEN_OUT, WRITTEN_OUT_IN_PLACE


def reals(*shape, seed=0):
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)).requires_grad_()


X, Y, Z = (reals(2, 6, 4, 5, seed=seed) for seed in range(3))
ROWS = reals(3, 4, 5)
MASK = X > 0
CALLS = [
    (F.glu, (X, 1), {}),
    (F.softmin, (X,), {"dim": 1}),
    (F.softmax, (ROWS[0],), {}),
    (F.log_softmax, (ROWS[0],), {}),
    (F.pairwise_distance, (X, Y), {}),
    (F.pairwise_distance, (X, Y, 1.0), {"keepdim": True}),
    (F.local_response_norm, (X, 3), {"alpha": 0.2, "beta": 0.6, "k": 2.0}),
    (F.local_response_norm, (ROWS, 4), {}),
    (F.lp_pool1d, (ROWS, 1, 2), {}),
    (F.lp_pool1d, (ROWS, 2, 3), {"stride": 1}),
    (F.lp_pool1d, (ROWS.abs(), 3, 2), {}),
    (F.lp_pool1d, (ROWS, 4.0, 2), {"ceil_mode": True}),
    (F.lp_pool2d, (X, 2.0, (2, 3)), {}),
    (F.lp_pool2d, (X, 1, 2), {}),
    (torch.where, (MASK, 1.5, -0.5), {}),
    (torch.logsumexp, (X, 1), {}),
    (Tensor.logsumexp, (X,), {"dim": -1, "keepdim": True}),
    (torch.mul, (X, MASK), {}),
    (Tensor.mul, (X,), {"other": MASK}),
    (Tensor.__mul__, (X, MASK), {}),
    (Tensor.__rmul__, (X, MASK), {}),
    (operator.mul, (MASK, X), {}),
    (torch.rsub, (X, Y), {}),
    (torch.rsub, (X, Y), {"alpha": 0.5}),
    *((function, (X, Y), {"alpha": 2}) for function in (torch.add, torch.Tensor.add, torch.sub, torch.Tensor.sub)),
    *((function, (X, Y), {"alpha": 0.5}) for function in (torch.subtract, torch.Tensor.subtract)),
    (torch.clamp, (X, Y), {}),
    (torch.clamp, (X,), {"max": Y}),
    (Tensor.clamp, (X, Y, Z), {}),
    (torch.clip, (X, Y), {"max": Z}),
    (Tensor.clip, (X,), {"max": Y}),
    (torch.clamp_min, (X, Y), {}),
    (Tensor.clamp_min, (X, Y), {}),
    (torch.clamp_max, (X, Y), {}),
    (Tensor.clamp_max, (X,), {"max": Y}),
    (F.normalize, (X,), {}),
    (F.normalize, (X,), {"dim": -1, "eps": 1e-9}),
    (F.cosine_similarity, (X, Y), {}),
    (F.cosine_similarity, (X, Y, -1), {}),
    (torch.linalg.vector_norm, (X,), {"dim": 1}),
    (torch.linalg.vector_norm, (X, 1), {"dim": (1, 3), "keepdim": True}),
    (torch.linalg.vector_norm, (X,), {"ord": math.inf, "dim": -1}),
    (torch.linalg.norm, (X,), {"dim": 2}),
    (torch.linalg.norm, (X, "fro"), {"dim": (2, 3)}),
    (torch.norm, (X,), {"dim": 1}),
    (torch.norm, (X, 1, -1, True), {}),
    (Tensor.norm, (X,), {"p": 2, "dim": (1, 2), "keepdim": True}),
    (torch.matmul, (ROWS, reals(5)), {}),
    (Tensor.matmul, (reals(4), ROWS), {}),
    (Tensor.__matmul__, (ROWS, reals(5)), {}),
    (operator.matmul, (reals(4), ROWS), {}),
    (torch.mv, (ROWS[0], reals(5)), {}),
    (Tensor.mv, (ROWS[0], reals(5)), {}),
    (torch.addmm, (reals(4), ROWS[0], reals(5, 4)), {"beta": 0.5, "alpha": 2}),
    (Tensor.addmm, (reals(4), ROWS[0], reals(5, 4)), {"alpha": 2}),
    (torch.baddbmm, (reals(3, 4, 4), ROWS, ROWS.transpose(1, 2)), {"beta": 0.5, "alpha": 2.0}),
    (Tensor.baddbmm, (reals(1, 4, 4), ROWS, ROWS.transpose(1, 2)), {}),
    (torch.addcmul, (X, Y, Z), {"value": 0.3}),
    (Tensor.addcmul, (X, Y, Z), {}),
    (torch.addcdiv, (X, Y, Z.exp()), {"value": -2}),
    (Tensor.addcdiv, (X, Y, Z.exp()), {}),
    (torch.lerp, (X, Y, 0.25), {}),
    (Tensor.lerp, (X, Y, Z), {}),
    (torch.var, (X, 1), {}),
    (torch.var, (X, (2, 3), False, True), {}),
    (Tensor.var, (X,), {"dim": -1, "correction": 0}),
    (torch.std, (X, (1, 2)), {}),
    (Tensor.std, (X,), {"dim": 1, "correction": 2, "keepdim": True}),
    (torch.var_mean, (X, 1), {"keepdim": True}),
    (torch.std_mean, (X,), {"dim": (1, 3), "unbiased": False}),
    (torch.tril, (X,), {}),
    (Tensor.tril, (X, 1), {}),
    (torch.triu, (X,), {"diagonal": -1}),
    (Tensor.triu, (X,), {}),
]


@pytest.mark.filterwarnings("ignore:Implicit dimension choice:UserWarning")
@pytest.mark.parametrize(("function", "args", "kwargs"), CALLS, ids=lambda value: getattr(value, "__name__", ""))
def test_values_and_gradients_are_those_of_torch(function, args, kwargs):
    ours, theirs = WRITTEN_OUT[function](*args, **kwargs), function(*args, **kwargs)
    pairs = [(ours, theirs)] if isinstance(theirs, Tensor) else list(zip(ours, theirs, strict=True))
    inputs = [value for value in (*args, *kwargs.values()) if isinstance(value, Tensor) and value.is_leaf]
    inputs = [value for value in inputs if value.requires_grad]
    for own, expected in pairs:
        assert torch.allclose(
            own.to(expected.dtype), expected, rtol=1e-6 if function is torch.where else 1e-9, atol=1e-9
        )
        if inputs and expected.requires_grad:
            weights = torch.linspace(-1, 2, expected.numel(), dtype=torch.float64).view(expected.shape)
            for gradient, wanted in zip(
                *(
                    torch.autograd.grad((made * weights).sum(), inputs, allow_unused=True, retain_graph=True)
                    for made in (own, expected)
                ),
                strict=True,
            ):
                assert gradient is None or torch.allclose(gradient, wanted, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(
    ("function", "args", "kwargs"),
    [
        (Tensor.add_, (X, Y), {"alpha": 2}),
        (Tensor.sub_, (X, Y), {"alpha": 2}),
        (Tensor.addcmul_, (X, Y, Z), {"value": 0.3}),
        (Tensor.lerp_, (X, Y, 0.25), {}),
        (Tensor.clamp_, (X, Y), {}),
        (torch.clamp_, (X, Y), {}),
        (Tensor.mul_, (X, MASK), {}),
        (Tensor.triu_, (X, 1), {}),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_spellings_in_place_write_what_those_of_torch_write(function, args, kwargs):
    ours, theirs = X.detach().clone(), X.detach().clone()
    WRITTEN_OUT_IN_PLACE[function](ours, *args[1:], **kwargs)
    function(theirs, *args[1:], **kwargs)
    assert torch.allclose(ours, theirs, rtol=1e-12)
    assert not torch.equal(ours, X)


def test_a_spelling_in_place_is_left_to_torch_where_the_function_is():
    assert WRITTEN_OUT_IN_PLACE[Tensor.add_](X.detach().clone(), Y) is NotImplemented


def test_every_function_is_called_here():
    assert {function for function, _, _ in CALLS} == set(WRITTEN_OUT)


@pytest.mark.parametrize(
    ("function", "args", "kwargs"),
    [
        (F.softmax, (X, 1), {}),
        (torch.matmul, (ROWS, ROWS.transpose(1, 2)), {}),
        (torch.mul, (X, Y), {}),
        (torch.mul, (X, 2.0), {}),
        (torch.clamp, (X, -1.0, 1.0), {}),
        (torch.where, (MASK, X, Y), {}),
        (torch.where, (MASK, 0.0, -math.inf), {}),
        (torch.var, (X,), {}),
        (torch.var, (X, 0), {}),
        (torch.std, (X[:, :1], 1), {}),
        (torch.norm, (X,), {}),
        (torch.norm, (X, 3), {"dim": 1}),
        (torch.linalg.norm, (X, 2), {"dim": (2, 3)}),
        (F.normalize, (X, 1.0), {}),
        (F.normalize, (X,), {"dim": 0}),
        (torch.logsumexp, (X, (1, 2)), {}),
        (torch.rsub, (X, 2.0), {}),
        (torch.tril, (ROWS[0],), {}),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_what_is_not_written_in_parts_stays_what_it_is(function, args, kwargs):
    assert WRITTEN_OUT[function](*args, **kwargs) is NotImplemented
