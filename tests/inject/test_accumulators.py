"""Sums of products, biases and batch norms in units of the accumulator: numbers written out by hand."""

from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

from qat.inject.accumulators import Accumulators
from qat.inject.actions import Action, RegionAction
from qat.inject.operations import Kind, operation_of
from qat.inject.weighted import WeightedForm
from qat.integer.semantics import USUAL
from qat.quantizers import make_fake_quantize
from qat.spec import QuantSpec

FIRST, SECOND, THIRD = (("args", place) for place in range(3))
LINEAR, ADD, EXP = (operation_of(function) for function in (F.linear, torch.add, torch.exp))


def quantizer(name, scale, bits=8, role="activation", axis=None, **spec):
    """A quantizer with codes -127 to 127 (at 8 bits) and this scale: a number, or one for each of (C,) channels."""
    scale = torch.tensor(scale)
    spec = QuantSpec(bits=bits, observer="minmax", method="observed", **spec)
    made = make_fake_quantize(spec, name=name, role=role, shape=(len(scale), 2) if scale.dim() else None, axis=axis)
    made(torch.stack([-scale, scale], -1) * spec.quant_max)
    return made.eval()


def accumulators(actions, *quantizers, ends=None):
    """Of a network with these actions, each computation of which ends where it begins unless `ends` says otherwise."""
    plan = SimpleNamespace(actions=dict(enumerate(actions)))
    ends = {address: address for address in plan.actions} | (ends or {})
    known = {each.name: each for each in quantizers}
    return Accumulators(SimpleNamespace(plan=plan, quantizers=known, ends=ends, semantics=USUAL))


def layer(**fields):
    """The action of x (N, 2) times a weight (2, 2), by one scale for each row, plus a bias."""
    fields = {"outputs": ("y",), "head": 0, "bias": THIRD, "weights": ((SECOND, "weight"),)} | fields
    return Action(
        "layer", Kind.COMPUTE, input_quantizer="x", weight_quantizer="weight", operands=((FIRST, "x"),),
        form=WeightedForm(axis=0, channels=-1), **fields,
    )  # fmt: skip


def x_and_weight(bits=8):
    per_channel = {"role": "weight", "axis": 0, "granularity": "per_channel"}
    return quantizer("x", 0.5), quantizer("weight", [0.25, 0.5], bits, **per_channel), quantizer("y", 0.25)


X = torch.tensor([[1.0, -0.5], [1.5, 2.0]])  # 2, -1 and 3, 4 steps of 0.5
WEIGHT = torch.tensor([[0.5, -0.25], [1.0, 0.5]])  # 2, -1 steps of 0.25 and 2, 1 of 0.5
BIAS = torch.tensor([0.3, -0.7])


@pytest.mark.parametrize(
    ("bits", "expected"),
    [
        (8, [0.25, -0.75]),  # units of 0.125 and 0.25: 2.4 -> 2 and -2.8 -> -3
        (4, [38 / 128, -45 / 64]),  # of 1/16 of those: 38.4 -> 38 and -44.8 -> -45
    ],
)
def test_a_bias_is_rounded_to_units_of_the_accumulator(bits, expected):
    folding = accumulators([layer()], *x_and_weight(bits))
    args, kwargs = folding.fold_bias(layer(), (X, WEIGHT, BIAS), {})
    assert args[2].tolist() == expected
    assert (args[0], args[1], kwargs) == (X, WEIGHT, {})


def test_a_bias_stays_as_it_is_while_nothing_tells_its_units():
    _, weight, output = x_and_weight()
    unseen = make_fake_quantize(QuantSpec(), name="x", role="activation")
    args, _ = accumulators([layer()], unseen, weight, output).fold_bias(layer(), (X, WEIGHT, BIAS), {})
    assert args[2] is BIAS


def test_a_layer_gives_its_bias_to_the_batch_norm_behind_it():
    action = layer(batch_norm=1)
    handed = accumulators([action], *x_and_weight())
    args, _ = handed.fold_bias(action, (X, WEIGHT, BIAS), {})
    assert args[2] is None
    assert handed.biases == {1: BIAS}
    assert [scale.tolist() for scale in handed.scales[1]] == [0.5, [0.25, 0.5]]


def test_a_layer_that_cannot_go_without_a_bias_gets_a_zero():
    form = WeightedForm(axis=1, channels=-1, inputs=(SECOND,), weight=(THIRD,), bias=(FIRST,))
    action = Action(
        "layer", Kind.COMPUTE, bias=FIRST, batch_norm=1, form=form, input_quantizer="x", weight_quantizer="weight"
    )
    args, _ = accumulators([action], *x_and_weight()).fold_bias(action, (BIAS, X, WEIGHT), {})
    assert (args[0].shape, float(args[0])) == ((), 0.0)


def test_products_are_summed_in_codes_and_become_codes_of_the_output():
    sums = accumulators([layer()], *x_and_weight())
    bias = torch.tensor([0.25, -0.75])  # 2 and -3 units
    real = sums.sum_products(0, LINEAR, F.linear, (X, WEIGHT, bias), {})
    # codes: (2 * 2 + 1 + 2) and (2 * 2 - 1 - 3), (3 * 2 - 4 + 2) and (3 * 2 + 4 - 3)
    assert sums.waiting[0].whole.tolist() == [[7.0, 0.0], [4.0, 7.0]]
    assert real.tolist() == [[0.875, 0.0], [0.5, 1.75]]
    # in steps of 0.25: 3.5 and 0, 2 and 7, ties to even
    assert sums.quantize(0, "y", real).tolist() == [[1.0, 0.0], [0.5, 1.75]]
    assert not sums.waits(0)


def test_a_layer_without_a_bias_has_sums_alone():
    sums = accumulators([layer()], *x_and_weight())
    sums.sum_products(0, LINEAR, F.linear, (X, WEIGHT, None), {})
    assert sums.waiting[0].whole.tolist() == [[5.0, 3.0], [2.0, 10.0]]


@pytest.mark.parametrize("fields", [{"head": None}, {"outputs": ("unseen",)}])
def test_sums_that_no_quantizer_takes_are_left_to_the_network(fields):
    unseen = make_fake_quantize(QuantSpec(), name="unseen", role="activation")
    sums = accumulators([layer(**fields)], *x_and_weight(), unseen, ends={None: 0})
    assert sums.sum_products(0, LINEAR, F.linear, (X, WEIGHT, BIAS), {}) is None
    assert not sums.waiting


def test_weights_in_groups_have_sums_without_a_unit():
    grouped = quantizer("weight", [0.25, 0.5], role="weight", axis=0, granularity="per_group", group_size=1)
    sums = accumulators([layer()], quantizer("x", 0.5), grouped, quantizer("y", 0.25))
    assert sums.sum_products(0, LINEAR, F.linear, (X, WEIGHT, BIAS), {}) is None


def test_a_folded_batch_norm_flips_sums_and_shifts_them_in_their_units():
    actions = [layer(batch_norm=1, bias=None, outputs=(None,)), Action("norm", Kind.FUSE, head=0, outputs=("y",))]
    folded = accumulators(actions, *x_and_weight(), ends={0: 1})
    folded.fold_bias(actions[0], (X, WEIGHT), {})
    real = folded.sum_products(0, LINEAR, F.linear, (X, WEIGHT), {})
    assert not folded.waits(0)  # not before the batch norm has run
    # multipliers -2 and 0.5, shifts 1 and -0.3; units 0.5 * 0.25 * 2 = 0.25 and 0.5 * 0.5 * 0.5 = 0.125
    statistics = {"running_mean": torch.tensor([0.5, 0.6]), "running_var": torch.tensor([1.0, 4.0]), "eps": 0.0}
    parameters = {"weight": torch.tensor([-2.0, 1.0]), "bias": torch.zeros(2)}
    result = folded.folded_batch_norm(1, F.batch_norm, (real,), {**statistics, **parameters}, is_exact=True)
    assert folded.waiting[0].whole.tolist() == [[-1.0, 1.0], [2.0, 8.0]]  # -(5, 2) + 4 and (3, 10) - 2
    assert result.tolist() == [[-0.25, 0.125], [0.5, 1.0]]  # and so is the shift of the reals: -2 units
    assert not folded.sums


def test_channels_that_a_batch_norm_turns_off_have_its_shift_alone():
    actions = [layer(batch_norm=1, bias=None, outputs=(None,)), Action("norm", Kind.FUSE, head=0, outputs=("y",))]
    folded = accumulators(actions, *x_and_weight(), ends={0: 1})
    folded.fold_bias(actions[0], (X, WEIGHT), {})
    real = folded.sum_products(0, LINEAR, F.linear, (X, WEIGHT), {})
    args = (real, torch.zeros(2), torch.ones(2), torch.tensor([0.0, 1.0]), torch.tensor([0.5, 0.0]))
    result = folded.folded_batch_norm(1, F.batch_norm, args, {"eps": 0.0}, is_exact=True)
    assert result.tolist() == [[0.5, 0.75], [0.5, 2.5]]
    assert folded.waiting[0].whole.tolist() == [[2.0**20, 3.0], [2.0**20, 10.0]]  # as fine as the shift needs
    assert folded.quantize(0, "y", result).tolist() == [[0.5, 0.75], [0.5, 2.5]]


def test_both_functions_of_a_batch_norm_are_read_by_their_own_parameters():
    actions = [layer(batch_norm=1, bias=None), Action("norm", Kind.FUSE, head=0, outputs=("y",))]
    weight, bias, mean, variance = torch.tensor([2.0, 4.0]), torch.tensor([1.0, 3.0]), torch.zeros(2), torch.ones(2)
    results = []
    for function, args in (
        (F.batch_norm, (X, mean, variance, weight, bias, False, 0.1, 0.0)),
        (torch.batch_norm, (X, weight, bias, mean, variance, False, 0.1, 0.0, False)),
    ):
        folded = accumulators(actions, *x_and_weight())
        folded.fold_bias(actions[0], (X, WEIGHT), {})
        results.append(folded.folded_batch_norm(1, function, args, {}, is_exact=False).tolist())
    assert results == [[[3.0, 1.0], [4.0, 11.0]]] * 2


def test_the_units_of_other_operations_come_from_their_operands():
    action = Action("sum", Kind.COMPUTE, operands=((FIRST, "x"), (SECOND, "y")), outputs=("z",), head=0, shape=(2,))
    added = accumulators([action], quantizer("x", 0.5), quantizer("y", 0.25), quantizer("z", 1.0))
    result = added.note(0, ADD, torch.add, (torch.tensor([1.0, 1.5]), torch.tensor([0.25, -2.0])), {}, torch.zeros(2))
    assert result.tolist() == [1.25, -0.5]
    assert added.quantize(0, "z", result).tolist() == [1.0, -1.0]  # ties to even as counted from code -127


def test_a_result_without_units_waits_for_nothing():
    action = Action("exp", Kind.COMPUTE, operands=((FIRST, "x"),), outputs=("y",), head=0)
    other = accumulators([action], quantizer("x", 0.5), quantizer("y", 0.25))
    result = torch.ones(2)
    assert other.note(0, EXP, torch.exp, (torch.zeros(2),), {}, result) is result
    assert not other.waits(0)


def test_rows_of_an_embedding_are_codes_of_its_weight():
    action = Action("rows", Kind.CAST, weights=((SECOND, "weight"),), outputs=("y",), head=0)
    rows = accumulators([action], quantizer("weight", 0.5, role="weight"), quantizer("y", 1.0))
    result = torch.tensor([1.5, -0.5])
    rows.note(0, operation_of(F.embedding), F.embedding, (), {}, result)
    assert rows.quantize(0, "y", result).tolist() == [1.0, -1.0]  # ties to even as counted from code -127


def test_bounds_and_factors_are_fused_into_what_waits():
    sums = accumulators([layer()], *x_and_weight())
    real = sums.sum_products(0, LINEAR, F.linear, (X, WEIGHT, None), {})
    sums.bound(0, 0.3, 1.0)  # codes 1 and 4
    assert sums.quantize(0, "y", real).tolist() == [[0.5, 0.75], [0.25, 1.0]]


def test_a_function_of_one_value_waits_at_the_end_of_its_region():
    inner = Action("exp", Kind.COMPUTE, region=RegionAction("x", (FIRST,), ()), outputs=(None,))
    last = Action("neg", Kind.COMPUTE, region=RegionAction("x", (), ((FIRST, 0),)), outputs=("y",), head=1)
    table = accumulators([inner, last], quantizer("x", 0.5), quantizer("y", 0.25))
    x = torch.tensor([0.0, 1.0])
    table.follow(0, inner, "exp", torch.exp, (x,), {}, x.exp())
    assert not table.waits(0)
    table.follow(1, last, "neg", torch.neg, (x.exp(),), {}, -x.exp())
    assert table.quantize(1, "y", -x.exp()).tolist() == [-1.0, -2.75]  # -e is -10.9 steps


def test_a_narrow_copy_has_the_codes_that_integers_move_the_wide_ones_to():
    wide, narrow = quantizer("wide", 2**-8, bits=16), quantizer("narrow", 0.5)
    narrow.trail = []
    # 64 of the 128 wide steps of a narrow one are half of it, which rounds up
    real = torch.tensor([64, 63, -64, 20000]) * 2**-8
    copy = accumulators([], wide, narrow).narrowed(real, narrow, wide)
    assert copy.tolist() == [0.5, 0.0, 0.0, 63.5]
    assert narrow.trail[0].tolist() == copy.tolist()


def test_what_is_quantized_is_trailed_and_measured_within_its_bounds():
    sums = accumulators([layer()], *x_and_weight())
    output = sums.quantizers["y"]
    output.trail, output.measure = [], True
    real = sums.sum_products(0, LINEAR, F.linear, (X * 20, WEIGHT, None), {})
    sums.bound(0, 0.0, 10.0)
    result = sums.quantize(0, "y", real)
    assert output.trail[0].tolist() == result.tolist()
    assert output.measured[1] == 0.0  # what the bounds cut off is not clipped by the grid
