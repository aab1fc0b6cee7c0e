"""Functions of torch that are opened give the values and gradients of torch's own, in float64, with all options."""

import inspect
import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import qat
from qat.errors import QATError
from qat.inject.opened import OPENED, multi_head_attention_forward, scaled_dot_product_attention


def reals(*shape, seed=0):
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)).requires_grad_()


def assert_same(ours, theirs, inputs):
    """Both give the same, and the same gradients of some function of it."""
    weights = torch.linspace(-1, 2, theirs.numel(), dtype=torch.float64).view(theirs.shape)
    assert torch.allclose(ours, theirs, rtol=0, atol=1e-12)
    for own, expected in zip(
        torch.autograd.grad((ours.tanh() * weights).sum(), inputs, allow_unused=True, retain_graph=True),
        torch.autograd.grad((theirs.tanh() * weights).sum(), inputs, allow_unused=True, retain_graph=True),
        strict=True,
    ):
        assert (own is None) == (expected is None)
        assert own is None or torch.allclose(own, expected, rtol=0, atol=1e-12)


UPPER = torch.ones(5, 5, dtype=torch.bool).triu(1)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"scale": 0.3},
        {"is_causal": True},
        {"attn_mask": UPPER.logical_not()},
        {"attn_mask": torch.zeros(5, 5, dtype=torch.float64).masked_fill(UPPER, -math.inf)},
        {"attn_mask": torch.linspace(-1, 1, 25, dtype=torch.float64).view(1, 1, 5, 5)},
        {"attn_mask": UPPER.logical_not().expand(2, 4, 5, 5), "scale": 1.0},
    ],
)
def test_scaled_dot_product_attention_is_torchs_own(options):
    query, key, value = (reals(2, 4, 5, 6, seed=seed) for seed in range(3))
    ours = scaled_dot_product_attention(query, key, value, **options)
    assert_same(ours, F.scaled_dot_product_attention(query, key, value, **options), (query, key, value))


def test_grouped_heads_and_keys_of_another_length():
    query, key, value = reals(2, 6, 3, 4), reals(2, 2, 5, 4, seed=1), reals(2, 2, 5, 7, seed=2)
    ours = scaled_dot_product_attention(query, key, value, enable_gqa=True)
    assert_same(ours, F.scaled_dot_product_attention(query, key, value, enable_gqa=True), (query, key, value))


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(
    "widths", [{}, {"kdim": 5, "vdim": 7}, {"crossed": True}, {"different": True}], ids=lambda w: ",".join(w) or "self"
)
@pytest.mark.parametrize(
    "masks",
    [
        {},
        {"attn_mask": UPPER},
        {"attn_mask": torch.linspace(-1, 1, 25, dtype=torch.float64).view(5, 5)},
        {"attn_mask": UPPER.expand(6, 5, 5), "key_padding_mask": torch.arange(5) > torch.tensor([[3], [4], [4]])},
        {"key_padding_mask": torch.arange(5) > torch.tensor([[3], [4], [2]])},
        {
            "attn_mask": torch.zeros(5, 5, dtype=torch.float64).masked_fill(UPPER, -math.inf),
            "key_padding_mask": torch.zeros(3, 5, dtype=torch.float64).index_fill(1, torch.tensor([4]), -math.inf),
        },
        {"average_attn_weights": False},
    ],
    ids=lambda masks: ",".join(masks) or "unmasked",
)
def test_multi_head_attention_is_torchs_own(masks, widths, bias):
    sizes = {name: size for name, size in widths.items() if name in ("kdim", "vdim")}
    torch.manual_seed(0)
    layer = nn.MultiheadAttention(8, 2, bias=bias, batch_first=True, dtype=torch.float64, **sizes)
    query = reals(3, 5, 8)
    key = reals(3, 5, sizes.get("kdim", 8), seed=1) if widths else query
    value = reals(3, 5, sizes.get("vdim", 8), seed=2) if sizes or "different" in widths else key
    inputs = [*{id(x): x for x in (query, key, value)}.values(), *layer.parameters()]
    theirs = layer(query, key, value, **masks)
    original, F.multi_head_attention_forward = F.multi_head_attention_forward, multi_head_attention_forward
    try:
        ours = layer(query, key, value, **masks)
    finally:
        F.multi_head_attention_forward = original
    for own, expected in zip(ours, theirs, strict=True):
        assert_same(own, expected, inputs)


def test_dropout_drops_what_torch_drops():
    query, key, value = (reals(2, 4, 5, 6, seed=seed) for seed in range(3))
    torch.manual_seed(3)
    ours = scaled_dot_product_attention(query, key, value, dropout_p=0.5)
    torch.manual_seed(3)
    weights = F.dropout((query @ key.transpose(-2, -1) * (1 / math.sqrt(6))).softmax(-1), 0.5)
    assert torch.equal(ours, weights @ value)


@pytest.mark.parametrize("option", [{"add_bias_kv": True}, {"add_zero_attn": True}])
def test_options_that_lengthen_the_keys_are_refused_by_name(option):
    layer = nn.MultiheadAttention(8, 2, batch_first=True, **option)
    network = nn.Sequential(nn.Linear(8, 8), Attending(layer))
    with pytest.raises(
        QATError, match=r"test_opened\.py:\d+ has add_bias_kv, add_zero_attn or static keys; leave these options off"
    ):
        qat.prepare(network, torch.randn(2, 5, 8))


class Attending(nn.Module):
    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, x):
        return self.layer(x, x, x)[0]


def test_both_take_the_arguments_of_torchs_own():
    assert OPENED[F.scaled_dot_product_attention] is scaled_dot_product_attention
    assert OPENED[F.multi_head_attention_forward] is multi_head_attention_forward
    theirs = inspect.signature(F.multi_head_attention_forward).parameters.values()
    ours = inspect.signature(multi_head_attention_forward).parameters.values()
    assert [(p.name, p.default) for p in ours] == [(p.name, p.default) for p in theirs]
