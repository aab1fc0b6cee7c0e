"""What the target cannot run is refused before training, with its module, its line and the way out."""

import re

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from qat.errors import PreparationError
from qat.inject.prepare import prepare
from qat.lowering.convert import convert
from qat.spec import QuantConfig, Rule


class Two(nn.Module):
    def __init__(self, body):
        super().__init__()
        self.first, self.second = nn.Conv1d(2, 4, 3, padding=1), nn.Conv1d(4, 2, 1)
        self.token = nn.Parameter(torch.ones(1, 4, 1))
        self.bare = nn.BatchNorm1d(4, track_running_stats=False)
        self.body = body

    def forward(self, x):
        return self.second(self.body(self, self.first(x)))


@pytest.mark.parametrize(
    ("body", "match"),
    [
        (
            lambda n, x: x * x.prod(1, keepdim=True),
            r"prod in the network at .*test_coverage\.py:\d+ \(multiply slices of it\); replace",
        ),
        (lambda n, x: torch.atan2(x, x[:, :, :1]), "atan2 in the network"),
        (lambda n, x: x**n.token, r"pow in the network .* \(give it one number"),
        (lambda n, x: n.token**x, "pow in the network"),
        (lambda n, x: F.softplus(x) + torch.cumprod(x, 2), "cumprod in the network"),
        (lambda n, x: x + x.logcumsumexp(1), r"logcumsumexp in the network .* \(.*behind the integers"),
        (lambda n, x: x.kthvalue(2, 1, keepdim=True)[0] + x, r"kthvalue in the network .* \(use topk, amax or amin"),
        (lambda n, x: x + x.std(0, keepdim=True), r"std in the network .* \(take it over other dimensions"),
        (
            lambda n, x: F.fold(F.unfold(x[:, :, None], (1, 3)), (1, 8), (1, 3))[:, :, 0],
            r"fold in .* \(fold windows side by side",
        ),
        (lambda n, x: x.index_add(1, torch.tensor([0]), x[:, :1]), r"index_add in .* \(put values in their places"),
        (lambda n, x: x.cummax(2)[0], "cummax in the network"),
        (lambda n, x: torch.renorm(x, 2, 1, 1.0), "renorm in the network"),
        (lambda n, x: torch.cdist(x, x), "cdist in the network"),
        (lambda n, x: x.masked_fill(x > 0, -torch.inf), r"masked_fill in .* \(-inf has no code beside values"),
        (lambda n, x: F.pad(x, (1, 1), value=-torch.inf), r"pad in .* \(padding with -inf, which has no code beside"),
        (
            lambda n, x: x / x.norm(p=3, dim=1, keepdim=True),
            r"norm in the network .* \(take p=1, p=2 or p=inf, over named",
        ),
        (lambda n, x: F.normalize(x, p=3), r"normalize in the network .* \(take p=2, or divide by"),
        (lambda n, x: x.bfloat16().float(), r"bfloat16 in the network at .*:\d+ \(it rounds values to bfloat16, and"),
        (lambda n, x: x.to(torch.half).to(x), r"to in the network at .*:\d+ \(it rounds values to float16, and"),
        (lambda n, x: (x * 4).long().float(), r"float in the network .* \(an operand of torch\.int64"),
        (lambda n, x: F.max_unpool1d(*F.max_pool1d(x, 2, return_indices=True), 2), "max_unpool1d in the network"),
        (lambda n, x: x + torch.ones(len(x), 4, 8).cumsum(0), r"add in .* \(a constant as large as the batch"),
        (lambda n, x: n.bare(x), r"batch_norm in bare at .* \(no running statistics"),
        (
            lambda n, x: F.conv1d(x, x[:1, :, :1].repeat(4, 1, 1)),
            r"conv1d in the network .* \(a weight that depends on the inputs\)",
        ),
    ],
)
def test_what_has_no_integer_form_is_refused(body, match):
    with pytest.raises(PreparationError, match=match):
        prepare(Two(body), torch.randn(2, 2, 8))
    prepare(Two(body), torch.randn(2, 2, 8), target=None)


def test_everything_is_named_at_once():
    with pytest.raises(
        PreparationError, match=r"cumprod in .*; logcumsumexp in .*; replace these operations, quantize a sub-network"
    ):
        prepare(Two(lambda n, x: x.cumprod(1).logcumsumexp(2)), torch.randn(2, 2, 8))


def test_a_rule_that_leaves_a_layer_in_float_makes_it_an_island_of_a_target():
    config = QuantConfig(rules=(Rule("second", quantize=False),))
    handle = prepare(Two(lambda n, x: x), torch.randn(2, 2, 8), config)
    assert handle.plan.islands == {"second": "conv1d"} and handle.plan.float_layers == ()
    handle.remove()
    handle = prepare(Two(lambda n, x: x), torch.randn(2, 2, 8), config, target=None)
    assert handle.plan.float_layers == ("second",) and handle.plan.islands == {}


def test_the_refusal_has_the_rule_that_leaves_an_operation_in_float():
    network = Two(lambda n, x: torch.hypot(x, x.flip(1)).cumprod(2))
    with pytest.raises(PreparationError) as refusal:
        prepare(network, torch.randn(2, 2, 8))
    assert re.fullmatch(
        r"onnxruntime would not run this network with integers alone: hypot in the network at \S*test_coverage.py:\d+ "
        r"\(give it one number for all elements beside one value; functions of two values have no table\); "
        r"cumprod in the network at \S*test_coverage.py:\d+ \(multiply slices of it\); replace these operations, "
        r"leave hypot in float, as "
        r'islands between integers, by rules=\[qat.Rule\("hypot", quantize=False\)\] \(in a recipe quant.rules: '
        r"\[\{name: 'hypot', quantize: false\}\]\), quantize a sub-network \(module=\), or train without export "
        r"\(target=None\).",
        str(refusal.value),
    )


def test_an_operation_that_no_island_holds_is_refused_with_the_functions_that_one_holds():
    config = QuantConfig(rules=(Rule("cumprod", quantize=False),))
    with pytest.raises(
        PreparationError,
        match=r"cumprod in .* \(left in float by a rule, but no float island holds it; multiply slices of it\)",
    ) as error:
        prepare(Two(lambda n, x: x.cumprod(2)), torch.randn(2, 2, 8), config)
    assert "leave in float what an island can hold (linear, conv1d, " in str(error.value)
    assert "; replace it, " in str(error.value)


@pytest.mark.parametrize(
    ("body", "rule", "match"),
    [
        (lambda n, x: x.cumsum(0), "cumsum", "it works on the batch; keep dimension 0"),
        (lambda n, x: x * F.conv1d(x, x[:1]), "conv1d", "its weight depends on the inputs"),
        (lambda n, x: torch.div(x, 2.0, rounding_mode="floor"), "div", "it has 'rounding_mode'"),
        (
            lambda n, x: F.grid_sample(x[:, :, None], x[:, :2].mT[:, None], mode="nearest", align_corners=True).squeeze(
                2
            ),
            "grid_sample",
            "its mode is 'nearest'",
        ),
    ],
)
def test_arguments_that_an_island_cannot_have_are_refused(body, rule, match):
    config = QuantConfig(rules=(Rule(rule, quantize=False),))
    with pytest.raises(PreparationError, match=f"left in float by a rule, but {match}"):
        prepare(Two(body), torch.randn(2, 2, 8), config)


def test_an_embedding_is_seen_although_its_input_is_no_real_value():
    network = nn.Sequential(nn.Embedding(5, 4), nn.Linear(4, 2))
    ids = torch.tensor([[1, 2], [3, 4]])
    handle = prepare(network, ids)
    assert list(handle.quantizers) == ["0.output", "1.output", "0.weight", "1.weight"]
    network(ids)
    assert all(quantizer.ready for quantizer in handle.quantizers.values())
    network.eval()
    assert torch.equal(network(ids), convert(network)(ids))


class Returning(nn.Module):
    """A layer, and what is returned of its input and output."""

    def __init__(self, body):
        super().__init__()
        self.layer, self.body = nn.Linear(3, 3), body

    def forward(self, x):
        return self.body(x, self.layer(x))


@pytest.mark.parametrize(
    ("body", "match"),
    [
        (lambda x, y: {"y": [y], "y.0": y}, r"returns two outputs named 'y\.0', one of them inside of a structure"),
        (lambda x, y: {"x": y}, "an output named 'x' like one of its inputs"),
        (lambda x, y: None, "returns no tensor, and a file has at least one output; return what it computes"),
        (lambda x, y: {"y": y, "count": 3}, "returns count of type int, and outputs of a file are tensors that follow"),
    ],
)
def test_outputs_that_a_file_cannot_name_are_refused(body, match):
    with pytest.raises(PreparationError, match=match):
        prepare(Returning(body), torch.randn(4, 3), "w8a8")
    prepare(Returning(body), torch.randn(4, 3), "w8a8", target=None)


def test_outputs_by_name_and_by_place_are_taken():
    for body in (lambda x, y: {"logits": y, "loss": None}, lambda x, y: (y, y), lambda x, y: [y, (y,)]):
        prepare(Returning(body), torch.randn(4, 3), "w8a8")


class WithLoss(nn.Module):
    """A network that computes its own loss where it is given targets, as those of transformers do."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 4)

    def forward(self, x, labels=None):
        logits = self.layer(x)
        loss = None if labels is None else F.cross_entropy(logits, labels)
        return {"loss": loss, "logits": logits}


def test_a_loss_computed_by_the_network_stays_in_float():
    torch.manual_seed(0)
    network, x, labels = WithLoss(), torch.randn(8, 3), torch.randint(0, 4, (8,))
    handle = prepare(network, {"x": x}, "w8a8")
    result = network(x, labels)
    result["loss"].backward()
    assert torch.equal(result["loss"], F.cross_entropy(result["logits"], labels))
    assert sorted(handle.quantizers) == ["input.x", "layer.output", "layer.weight"]
    network.eval()
    assert torch.equal(network(x)["logits"], convert(network)(x)["logits"])


def test_a_recorded_loss_is_no_output_of_a_file():
    inputs = {"x": torch.randn(8, 3), "labels": torch.randint(0, 4, (8,))}
    with pytest.raises(PreparationError, match="returns loss that is a loss .* without the targets"):
        prepare(WithLoss(), inputs, "w8a8")
    handle = prepare(WithLoss(), inputs, "w8a8", target=None)
    assert sorted(handle.quantizers) == ["input.x", "layer.output", "layer.weight"]
