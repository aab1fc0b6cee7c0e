"""Softmax, norms and the masks of attention: eval forward, interpreter and ONNX Runtime agree on every code."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import qat
from qat.errors import ConversionError, PreparationError
from qat.integer.program import Softmax


def tokens(x):
    """(N, 8, 8, 8) as 16 tokens of 8 features."""
    return x.flatten(2).transpose(1, 2)[:, ::4]


NORMS = {
    "softmax": (lambda net, x: torch.softmax(x, 1), 8 * 64, {}),
    "special_softmax": (lambda net, x: torch.special.softmax(x, 1), 8 * 64, {}),
    "special_log_softmax": (lambda net, x: torch.special.log_softmax(x.flatten(1), -1), 8 * 64, {}),
    "softmax_of_rows": (lambda net, x: F.softmax(net.parts["conv"](x), dim=-2), 8 * 64, {"conv": nn.Conv2d(8, 8, 1)}),
    "log_softmax": (lambda net, x: F.log_softmax(x.flatten(1), -1), 8 * 64, {}),
    "layer_norm": (lambda net, x: net.parts["norm"](tokens(x)), 8 * 16, {"norm": nn.LayerNorm(8)}),
    "layer_norm_of_all": (lambda net, x: net.parts["norm"](x), 8 * 64, {"norm": nn.LayerNorm([8, 8, 8])}),
    "layer_norm_bare": (lambda net, x: F.layer_norm(x, (8, 8)), 8 * 64, {}),
    "layer_norm_clamped": (lambda net, x: net.parts["norm"](x).clamp(-1, 0.5), 8 * 64, {"norm": nn.LayerNorm(8)}),
    "rms_norm": (lambda net, x: net.parts["norm"](tokens(x)), 8 * 16, {"norm": nn.RMSNorm(8)}),
    "rms_norm_bare": (lambda net, x: F.rms_norm(x, (8, 8)), 8 * 64, {}),
    "group_norm": (lambda net, x: F.relu(net.parts["norm"](x)), 8 * 64, {"norm": nn.GroupNorm(2, 8)}),
    "group_norm_1d": (lambda net, x: net.parts["norm"](x.flatten(2)), 8 * 64, {"norm": nn.GroupNorm(4, 8)}),
    "instance_norm": (lambda net, x: net.parts["norm"](x), 8 * 64, {"norm": nn.InstanceNorm2d(8, affine=True)}),
    "instance_norm_bare": (lambda net, x: F.silu(F.instance_norm(x)), 8 * 64, {}),
    "channels_last": (
        lambda net, x: net.parts["norm"](x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2), 8 * 64, {"norm": nn.LayerNorm(8)},
    ),
}  # fmt: skip


@pytest.mark.parametrize("quant", ["w8a8", "w2a4"])
@pytest.mark.parametrize("name", NORMS)
def test_norms_and_softmax_lower_to_the_same_codes(name, quant, assert_agreement):
    assert_agreement(*NORMS[name], quant)


def test_running_statistics_of_an_instance_norm_are_refused(trained_network):
    case = (lambda net, x: net.parts["norm"](x), 8 * 64, {"norm": nn.InstanceNorm2d(8, track_running_stats=True)})
    with pytest.raises(PreparationError, match=r"instance_norm in parts\.norm .*set track_running_stats=False"):
        trained_network(*case, target="onnxruntime")
    network, _ = trained_network(*case)
    with pytest.raises(ConversionError, match="instance_norm in .*set track_running_stats=False"):
        qat.convert(network)


def masked_by_turns(leave_out):
    def body(net, x):
        scores = x.flatten(2) @ x.flatten(2).transpose(1, 2)
        for mask in (torch.ones(8, 8).triu(1) == 1, torch.ones(8, 8).tril(-4) == 1):
            scores = leave_out(scores, mask)
        return scores.softmax(-1)

    return body


@pytest.mark.parametrize(
    "leave_out",
    [
        lambda scores, mask: scores.masked_fill(mask, -math.inf),
        lambda scores, mask: scores + torch.zeros(8, 8).masked_fill(mask, -math.inf),
    ],
)
def test_a_line_may_mask_what_it_masked(leave_out, assert_agreement):
    program = assert_agreement(masked_by_turns(leave_out), 64, {}, "w8a8")
    (softmax,) = (operation for operation in program.operations if isinstance(operation, Softmax))
    assert len(softmax.inputs) == 2  # the scores and one mask, instead of scores on a grid that reaches to the lowest


LENGTH = 16
CAUSAL = torch.ones(LENGTH, LENGTH, dtype=torch.bool).tril()
LOWEST = torch.finfo(torch.float32).min
THIRD = torch.zeros(LENGTH, LENGTH, dtype=torch.bool)
THIRD[3] = True


def heads(net, x, count=2):
    parts = net.parts["qkv"](tokens(x)).chunk(3, -1)
    return [part.unflatten(-1, (count, -1)).transpose(1, 2) for part in parts]


def attention(**options):
    def body(net, x):
        return F.scaled_dot_product_attention(*heads(net, x), **options).transpose(1, 2)

    return body


def by_hand(mask):
    def body(net, x):
        query, key, value = heads(net, x)
        return (mask(query @ key.transpose(-2, -1) / 2).softmax(-1) @ value).transpose(1, 2)

    return body


def additive(low, *shape):
    return torch.zeros(LENGTH, LENGTH).masked_fill(CAUSAL.logical_not(), low).view(*shape, LENGTH, LENGTH)


QKV = {"qkv": nn.Linear(8, 24)}
#: The same mask in every spelling.
CAUSAL_SPELLINGS = {
    "is_causal": attention(is_causal=True, scale=0.5),
    "bool": attention(attn_mask=CAUSAL, scale=0.5),
    "infinite": attention(attn_mask=additive(-math.inf), scale=0.5),
    "lowest, 4 dimensions": attention(attn_mask=additive(LOWEST, 1, 1), scale=0.5),
    "hundred, 3 dimensions": attention(attn_mask=additive(-100.0, 1), scale=0.5),
    "masked_fill": by_hand(lambda scores: scores.masked_fill(CAUSAL.logical_not(), -1e9)),
    "masked_fill_": by_hand(lambda scores: scores.masked_fill_(CAUSAL.logical_not(), -math.inf)),
    "where": by_hand(lambda scores: torch.where(CAUSAL, scores, -1e4)),
    "where of a tensor": by_hand(lambda scores: torch.where(CAUSAL, scores, torch.tensor(LOWEST))),
    "add_": by_hand(lambda scores: scores.add_(additive(-math.inf))),
    "a product": by_hand(lambda scores: scores + (1.0 - CAUSAL.float()) * -1e4),
    "twice": by_hand(lambda scores: (scores + additive(-1e9)).masked_fill(CAUSAL.logical_not(), -math.inf)),
}


def test_every_spelling_of_a_mask_gives_the_same_codes(assert_agreement, trained_network):
    outputs = []
    for body in CAUSAL_SPELLINGS.values():
        network, images = trained_network(body, 8 * LENGTH, QKV)
        with torch.no_grad():
            outputs.append(network(images))
        assert torch.equal(qat.convert(network)(images), outputs[-1])
    for name, output in zip(CAUSAL_SPELLINGS, outputs, strict=True):
        assert torch.equal(output, outputs[0]), name


ATTENTION = {
    "plain": attention(),
    "causal": attention(is_causal=True),
    "lowest": attention(attn_mask=additive(LOWEST, 1, 1)),
    "a row that is left out whole": by_hand(lambda scores: scores.masked_fill(THIRD, -1e9)),
    "a bias": attention(attn_mask=torch.linspace(-1, 1, LENGTH)[None]),
    "a bias that leaves out": attention(attn_mask=additive(-math.inf) + torch.linspace(-1, 1, LENGTH)),
    "dropout": lambda net, x: F.scaled_dot_product_attention(
        *heads(net, x), dropout_p=0.3 if net.training else 0.0
    ).transpose(1, 2),
    "bmm": lambda net, x: (lambda q, k, v: torch.bmm(torch.bmm(q, k.mT).softmax(-1), v))(
        *(part.flatten(0, 1) for part in heads(net, x))
    ).unflatten(0, (-1, 2)).transpose(1, 2),
}  # fmt: skip


@pytest.mark.parametrize("quant", ["w8a8", "w4a4"])
@pytest.mark.parametrize("name", ATTENTION)
def test_attention_lowers_to_the_same_codes(name, quant, assert_agreement):
    assert_agreement(ATTENTION[name], 8 * LENGTH, QKV, quant)


def grouped(net, x):
    query = net.parts["query"](tokens(x)).unflatten(-1, (4, 2)).transpose(1, 2)
    key, value = (y.unflatten(-1, (2, 2)).transpose(1, 2) for y in net.parts["pair"](tokens(x)).chunk(2, -1))
    return F.scaled_dot_product_attention(query, key, value, enable_gqa=True).transpose(1, 2)


def layer(options, **call):
    def body(net, x):
        return net.parts["layer"](tokens(x), **call)

    return body, 8 * LENGTH, {"layer": nn.TransformerEncoderLayer(8, 2, 16, 0.1, batch_first=True, **options)}


LAYERS = {
    "grouped heads": (grouped, 8 * LENGTH, {"query": nn.Linear(8, 8), "pair": nn.Linear(8, 8)}),
    "keys of another width": (
        lambda net, x: net.parts["layer"](tokens(x), tokens(x)[..., :6], tokens(x)[..., 4:])[0], 8 * LENGTH,
        {"layer": nn.MultiheadAttention(8, 2, batch_first=True, kdim=6, vdim=4)},
    ),
    "weights returned": (
        lambda net, x: net.parts["layer"](*[tokens(x)] * 3, attn_mask=CAUSAL.logical_not())[1], LENGTH * LENGTH,
        {"layer": nn.MultiheadAttention(8, 2, batch_first=True)},
    ),
    "length first": (
        lambda net, x: net.parts["layer"](*[tokens(x).transpose(0, 1)] * 3)[0].transpose(0, 1), 8 * LENGTH,
        {"layer": nn.MultiheadAttention(8, 2)},
    ),
    "encoder": layer({}),
    "encoder, norm first": layer({"norm_first": True, "activation": "gelu"}),
    "encoder, causal": layer({}, src_mask=additive(-math.inf), is_causal=True),
    "decoder": (
        lambda net, x: net.parts["layer"](tokens(x)[:, :6], tokens(x), tgt_mask=CAUSAL[:6, :6].logical_not()), 8 * 6,
        {"layer": nn.TransformerDecoderLayer(8, 2, 16, 0.1, batch_first=True)},
    ),
}  # fmt: skip


@pytest.mark.parametrize("quant", ["w8a8", "w4a8"])
@pytest.mark.parametrize("name", LAYERS)
def test_layers_of_transformers_lower_to_the_same_codes(name, quant, assert_agreement):
    assert_agreement(*LAYERS[name], quant)
