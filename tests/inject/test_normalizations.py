"""One reading of four norms, in torch's spelling and in that of exported graphs, against torch's own results."""

import pytest
import torch
import torch.nn.functional as F

from qat.inject.normalizations import normalization_of

X = torch.randn(3, 6, 4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
GAIN, SHIFT = torch.linspace(0.5, 2, 6).double(), torch.linspace(-1, 1, 6).double()


def by_hand(norm, x):
    """What a `Normalization` says, in float64."""
    viewed = x.reshape(len(x), *norm.view)
    if norm.centered:
        viewed = viewed - viewed.mean(norm.dims, keepdim=True)
    y = viewed / (viewed.square().mean(norm.dims, keepdim=True) + norm.epsilon).sqrt()
    y = y if norm.gain is None else y * norm.gain
    y = y if norm.shift is None else y + norm.shift
    return y.reshape(x.shape)


ROWS = torch.randn(4, 5, dtype=torch.float64)
CASES = {
    "layer_norm": [
        ("layer_norm", F.layer_norm, (X, (5,)), {}, False),
        ("layer_norm", F.layer_norm, (X, [4, 5], ROWS, -ROWS, 1e-3), {}, False),
        ("layer_norm", F.layer_norm, (X,), {"normalized_shape": (6, 4, 5), "eps": 0.1}, False),
        ("layer_norm", torch.layer_norm, (X, (4, 5), ROWS, None, 1e-3, False), {}, True),
    ],
    "rms_norm": [
        ("rms_norm", F.rms_norm, (X, (5,)), {}, False),
        ("rms_norm", F.rms_norm, (X, (4, 5), ROWS, 1e-2), {}, False),
        ("rms_norm", torch.rms_norm, (X, (4, 5), ROWS, None), {}, True),
    ],
    "group_norm": [
        ("group_norm", F.group_norm, (X, 3), {}, False),
        ("group_norm", F.group_norm, (X, 2, GAIN, SHIFT), {"eps": 1e-2}, False),
        ("group_norm", torch.group_norm, (X, 1, GAIN, SHIFT, 1e-2, True), {}, True),
    ],
    "instance_norm": [
        ("instance_norm", F.instance_norm, (X,), {}, False),
        ("instance_norm", F.instance_norm, (X, None, None, GAIN, SHIFT, True, 0.1, 1e-2), {}, False),
        ("instance_norm", torch.instance_norm, (X, GAIN, SHIFT, None, None, True, 0.1, 1e-2, True), {}, True),
    ],
}


@pytest.mark.parametrize("case", [case for cases in CASES.values() for case in cases])
def test_the_reading_computes_what_torch_does(case):
    name, function, args, kwargs, is_aten = case
    norm = normalization_of(name, args, kwargs, tuple(X.shape[1:]), is_aten)
    expected = function(*args, **kwargs)
    if name == "rms_norm" and norm.epsilon == torch.finfo(torch.float32).eps:  # torch takes the one of the type
        expected = function(*args[:3], *([None] * (3 - len(args))), eps=norm.epsilon)
    assert torch.allclose(by_hand(norm, X), expected, rtol=0, atol=1e-12)


def test_dimensions_and_counts_written_out():
    norm = normalization_of("group_norm", (X, 2, GAIN, SHIFT), {}, (6, 4, 5), is_aten=False)
    assert (norm.view, norm.dims, norm.count) == ((2, 3, 4, 5), (2, 3, 4), 60)
    assert norm.gain.shape == (2, 3, 1, 1) and norm.centered
    norm = normalization_of("instance_norm", (X,), {}, (6, 4, 5), is_aten=False)
    assert (norm.view, norm.dims, norm.count, norm.epsilon) == ((6, 1, 4, 5), (2, 3, 4), 20, 1e-5)
    norm = normalization_of("rms_norm", (X, (5,)), {}, (6, 4, 5), is_aten=False)
    assert (norm.view, norm.dims, norm.count, norm.centered) == ((6, 4, 5), (3,), 5, False)
