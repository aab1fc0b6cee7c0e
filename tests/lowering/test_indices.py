"""Integers among the inputs: ids, positions and masks of 0 and 1, alike in eval, in the program and in its file."""

import functools

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import qat
from qat.emitters.onnxruntime import open_session, run_session
from qat.errors import ConversionError
from qat.integer.program import (
    ArgMax,
    CumulativeSum,
    Embedding,
    Grid,
    IndexProduct,
    IndexRange,
    IndexSum,
    IndexTable,
    Mul,
    Table,
)

IDS = torch.randint(0, 10, (6, 5), generator=torch.Generator().manual_seed(0))
MASK = (torch.arange(5) < torch.tensor([[5], [3], [1], [4], [2], [5]])).long()  # padded behind
SMALLEST = torch.finfo(torch.float32).min


class Tokens(nn.Module):
    """Embedded ids, and a body that has the ids and a mask of them as well. `scores` are (N, 5, 5)."""

    def __init__(self, body):
        super().__init__()
        torch.manual_seed(0)
        self.words, self.places, self.kinds = nn.Embedding(10, 8), nn.Embedding(8, 8), nn.Embedding(2, 8)
        self.linear, self.last, self.body = nn.Linear(8, 8), nn.Linear(8, 3), body
        self.layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)
        self.rows = nn.Parameter(torch.randn(10, 8))
        self.register_buffer("offsets", torch.tensor([3, 1, 4, 1, 5, 2, 6, 0, 3, 7]))

    def forward(self, ids, mask):
        return self.last(self.body(self, self.linear(self.words(ids)), ids, mask))


def attended(x, allowed):
    scores = (x @ x.transpose(1, 2)).masked_fill(~allowed, SMALLEST)
    return scores.softmax(-1) @ x


def causal(x):
    return torch.ones(x.shape[1], x.shape[1]).tril().bool()


def attended_plus(x, bias):
    return (x @ x.transpose(1, 2) + bias).softmax(-1) @ x


def lowest_where(left_out):
    """A mask as torch's own layers make it: numbers to be added to scores."""
    return torch.zeros_like(left_out, dtype=torch.float32).masked_fill_(left_out, -torch.inf)


def masked_twice(x, first, second):
    scores = (x @ x.transpose(1, 2)).masked_fill(first, SMALLEST).masked_fill(second, SMALLEST)
    return scores.softmax(-1) @ x


def averaged(x, mask, count=None):
    """The mean over the places that take part, as sentence encoders write it."""
    return (x * mask).sum(1) / (mask.sum(1) if count is None else count).clamp(min=1e-9)


#: Spellings of masked means over the length.
MEANS = {
    "as_float": lambda net, x, ids, mask: averaged(x, mask.unsqueeze(-1).float()),
    "to_a_dtype": lambda net, x, ids, mask: averaged(x, mask.unsqueeze(-1).to(x.dtype)),
    "converted_first": lambda net, x, ids, mask: averaged(x, mask.to(torch.float32)[..., None]),
    "type_as": lambda net, x, ids, mask: averaged(x, mask.unsqueeze(-1).type_as(x)),
    "expanded": lambda net, x, ids, mask: averaged(x, mask.unsqueeze(-1).expand(x.size()).float()),
    "times_one": lambda net, x, ids, mask: averaged(x, 1.0 * mask[..., None]),
    "one_minus_padding": lambda net, x, ids, mask: averaged(x, 1.0 - (1.0 - mask[..., None])),
    "integers": lambda net, x, ids, mask: averaged(mask[..., None] * x, 1, mask.sum(1, keepdim=True)),
    "integers_in_place": lambda net, x, ids, mask: averaged(x.clone().mul_(mask[..., None]), 1, mask.sum(1)[:, None]),
    "counted_as_float": lambda net, x, ids, mask: averaged(x, mask[..., None], mask.sum(1, keepdim=True).float()),
    "as_bool": lambda net, x, ids, mask: averaged(x, (ids > 2)[..., None], (ids > 2).sum(1, keepdim=True)),
    "filled_with_zeros": lambda net, x, ids, mask: (
        averaged(x.masked_fill(mask[..., None] == 0, 0), 1, mask.sum(1)[:, None])
    ),
    "matrix_product": lambda net, x, ids, mask: (mask[:, None].float() @ x)[:, 0] / mask.sum(1, keepdim=True),
    "shares": lambda net, x, ids, mask: ((mask / mask.sum(1, keepdim=True)).unsqueeze(1) @ x)[:, 0],
}  # fmt: skip
BODIES = {  # name: (body, operations that the program has)
    "kinds": (lambda net, x, ids, mask: x + net.kinds(mask), [Embedding]),
    "kinds_of_ids": (lambda net, x, ids, mask: x + net.kinds((ids > 4).long()), [IndexTable]),
    "places_counted": (lambda net, x, ids, mask: x + net.places(mask.cumsum(1)), [CumulativeSum]),
    "places_where_there_are_any": (
        lambda net, x, ids, mask: x + net.places(torch.cumsum(mask, 1).type_as(mask) * mask + 2),
        [CumulativeSum, IndexProduct],
    ),
    "sum_of_indices": (lambda net, x, ids, mask: x + net.places((ids % 4) + mask), [IndexSum, IndexTable]),
    "a_factor": (lambda net, x, ids, mask: x * mask.bool().unsqueeze(-1).float(), [Table]),
    "a_mask_is_a_value": (lambda net, x, ids, mask: x + (1.0 - mask[:, :, None].bool().float()) * -2.5, [Table]),
    "masked": (lambda net, x, ids, mask: attended(x, mask.bool()[:, None, :]), []),
    "masked_causally": (
        lambda net, x, ids, mask: attended(x, mask.bool()[:, None, :] & causal(x)), [],
    ),
    "either_of_two_masks": (
        lambda net, x, ids, mask: attended(x, (ids != 0)[:, None, :] | torch.eye(5, dtype=torch.bool)), [],
    ),
    "both_of_two_masks": (
        lambda net, x, ids, mask: attended(x, mask.bool()[:, None, :] & (mask != 0)[:, :, None]), [],
    ),
    "masked_twice_by_inputs": (
        lambda net, x, ids, mask: masked_twice(x, mask[:, None] == 0, (ids == 7)[:, :, None]), [Mul],
    ),
    "masked_twice_causally_first": (
        lambda net, x, ids, mask: masked_twice(x, ~causal(x), mask[:, None] == 0), [Mul],
    ),
    "masked_twice_causally_last": (
        lambda net, x, ids, mask: masked_twice(x, mask[:, None] == 0, ~causal(x)), [Mul],
    ),
    "masked_by_nothing": (lambda net, x, ids, mask: masked_twice(x, mask[:, None] == 0, mask[:, None] > 1), []),
    "numbers_that_mask": (lambda net, x, ids, mask: attended_plus(x, lowest_where(mask == 0)[:, None]), []),
    "a_layer_of_torch": (lambda net, x, ids, mask: net.layer(x, src_key_padding_mask=mask == 0), []),
    "filled": (lambda net, x, ids, mask: x.masked_fill(mask[:, :, None] == 0, 0.25), []),
    "chosen": (lambda net, x, ids, mask: torch.where(mask[:, :, None] > 0, x, net.kinds.weight[0]), []),
    "picked": (lambda net, x, ids, mask: x[:, torch.tensor([4, 0, 0, 2, 1])], []),
    "picked_by_pairs": (
        lambda net, x, ids, mask: F.pad(x[:, torch.tensor([4, 0]), torch.tensor([1, 7])], (0, 6))[:, None], [],
    ),
    "root_of_a_mask": (lambda net, x, ids, mask: x * (mask[..., None] + 1).sqrt(), [Table]),
    "places_of_the_last": (lambda net, x, ids, mask: x + net.places(mask.sum(1, keepdim=True)), [CumulativeSum]),
    "entries_of_constant_integers": (lambda net, x, ids, mask: x + net.places(net.offsets[ids]), [IndexTable]),
    "place_of_the_largest": (
        lambda net, x, ids, mask: x + net.places((ids == 7).int().argmax(1, keepdim=True)), [IndexTable, ArgMax],
    ),
    "place_of_the_smallest_of_a_function": (
        lambda net, x, ids, mask: x + net.places((9 - ids).argmax(-1, keepdim=True)), [IndexTable, ArgMax],
    ),
    "place_of_the_last_one": (
        lambda net, x, ids, mask: x + net.places((torch.arange(ids.shape[1]) * mask).argmax(-1, keepdim=True)),
        [IndexProduct, ArgMax],
    ),
    "places_behind": (lambda net, x, ids, mask: x + net.places(torch.arange(5) % 3 + ids % 4), [IndexSum]),
    "rows_of_a_parameter": (lambda net, x, ids, mask: x + net.rows[ids], [Embedding]),
    "a_class_as_zeros_and_ones": (lambda net, x, ids, mask: x + F.one_hot(ids % 8, 8).float(), []),
    "times_constant_integers": (lambda net, x, ids, mask: x * net.offsets[:8], []),
    "where_it_is_large": (lambda net, x, ids, mask: x * (x > 0.25), []),
    **{f"mean_{name}": (body, []) for name, body in MEANS.items()},
}  # fmt: skip


def observed(body, quant="w8a8", target="onnxruntime"):
    network = Tokens(body)
    qat.prepare(network, (IDS, MASK), quant, target)
    network(IDS, MASK)
    return network.eval()


@functools.cache
def lowered(name, quant):
    """(the network of one of the bodies, observed, and its program); only to be read."""
    network = observed(BODIES[name][0], quant)
    return network, qat.convert(network)


def taken_by(program):
    """Of the inputs, those that reach an output."""
    given = {"ids": IDS, "mask": MASK}
    return {entry.name: given[entry.name] for entry in program.inputs}


#: Spellings of what others compute already, of which one width tells enough.
SPELLED_AGAIN = [f"mean_{name}" for name in MEANS if name not in ("as_float", "integers", "matrix_product", "shares")]


@pytest.mark.parametrize(
    ("name", "quant"),
    [
        *((name, "w8a8") for name in BODIES),
        *((name, "w4a4") for name in BODIES if name not in SPELLED_AGAIN),
    ],
)
def test_eval_program_and_file_agree_on_every_code(name, quant, tmp_path):
    network, program = lowered(name, quant)
    with torch.no_grad():
        assert torch.equal(network(IDS, MASK), program(taken_by(program)))
    qat.export(program, tmp_path / "model.onnx")
    report = qat.verify(program, tmp_path / "model.onnx", [(IDS, MASK)], module=network, repeats=0)
    assert report.float_ops == ()
    assert (report.mismatches["onnxruntime"].differing, report.mismatches["fake_quant"].differing) == (0, 0)
    made = {type(operation) for operation in program.operations}
    assert made.issuperset(BODIES[name][1]), made


@pytest.mark.parametrize("name", MEANS)
def test_masked_means_take_padded_batches_of_any_length(name, tmp_path):
    network, program = lowered(f"mean_{name}", "w8a8")
    qat.export(program, tmp_path / "model.onnx")
    session = open_session(tmp_path / "model.onnx")
    for length in (1, 2, 4, 5):
        ids = torch.randint(0, 10, (7, length))
        mask = (torch.arange(length) < torch.randint(1, length + 1, (7, 1))).long()
        given = {entry.name: {"ids": ids, "mask": mask}[entry.name] for entry in program.inputs}
        with torch.no_grad():
            expected = network(ids, mask)
        assert torch.equal(program(given), expected)
        assert torch.equal(run_session(session, given)["output"], expected)


@pytest.mark.parametrize("name", ["masked_causally", "masked_twice_causally_first", "masked_twice_causally_last"])
def test_masks_that_are_joined_follow_the_length(name):
    network, program = lowered(name, "w8a8")
    for length in (5, 3, 1):
        given = {"ids": IDS[:, :length], "mask": MASK[:, :length]}
        with torch.no_grad():
            assert torch.equal(network(**given), program(given))


def test_ids_count_to_the_rows_they_choose_from_and_masks_to_two():
    _, program = lowered("kinds", "w8a8")
    ranges = {entry.name: program.value(entry.value).grid for entry in program.inputs}
    assert ranges == {"ids": IndexRange(10), "mask": IndexRange(2)}


def test_a_function_of_a_mask_has_an_entry_for_each_of_its_values():
    _, program = lowered("a_factor", "w8a8")
    (table,) = (operation for operation in program.operations if isinstance(operation, Table))
    grid = program.value(table.output).grid
    assert isinstance(grid, Grid)
    assert ((table.codes.int() - grid.zero_point) * grid.scale).tolist() == pytest.approx(
        [0.0, 1.0], abs=grid.scale / 2
    )


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        (
            lambda net, x, ids, mask: x + net.places((mask - 1).cumsum(1) + 6),
            "it counts with numbers that are negative",
        ),
        (
            lambda net, x, ids, mask: x / mask[:, None].expand(-1, 5, -1).sum((1, 2))[:, None, None],
            "it adds up integers along several dimensions or all",
        ),
        (
            lambda net, x, ids, mask: x + net.places(net.offsets.reshape(5, 2)[ids % 5][..., 0]),
            r"rows of a constant by integers among the inputs; choose them by torch\.nn\.functional\.embedding",
        ),
        (
            lambda net, x, ids, mask: x + net.kinds((ids + 1000) * (ids + 1000) * (ids + 9999) % 2),
            "an index range counts 10188954649; it has 1 to",
        ),
        (
            lambda net, x, ids, mask: x + net.kinds((ids + 200) * (ids * 9) * (ids + 100) % 2),
            "a table of 1845262 entries, and tables have 1048576 at most",
        ),
        (lambda net, x, ids, mask: x[torch.arange(x.shape[0]).flip(0)], "it picks samples of the batch; pick from"),
    ],
)
def test_what_has_no_integers_is_named_with_its_line(body, sentence):
    network = observed(body, target=None)
    with pytest.raises(ConversionError, match=rf"(?s)test_indices\.py:\d+: .*{sentence}"):
        qat.convert(network)


def test_a_comparison_of_values_counts_as_zero_and_one():
    network = observed(lambda net, x, ids, mask: x + (net.linear(x) > 0), target=None)
    program = qat.convert(network)
    assert torch.equal(network(IDS, MASK), program(taken_by(program)))


class Counted(nn.Module):
    """Integers that choose no row of an embedding."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(5, 3)

    def forward(self, ids):
        return self.linear(ids.float())


def test_integers_that_are_neither_ids_nor_a_mask_are_refused_by_the_name_of_the_input():
    network = Counted()
    qat.prepare(network, IDS, target=None)
    network(IDS)
    with pytest.raises(ConversionError, match=r"input 'ids': the input takes integers of torch\.int64 up to 9 that"):
        qat.convert(network.eval())


@pytest.mark.parametrize("causal_too", [False, True])
def test_a_mask_of_bools_among_the_inputs_masks_the_attention_of_torch(causal_too, tmp_path):
    class Attending(nn.Module):
        def __init__(self):
            super().__init__()
            self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

        def forward(self, x, padding):
            upper = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool).triu(1) if causal_too else None
            return self.attention(x, x, x, padding, attn_mask=upper, need_weights=False)[0]

    inputs = torch.randn(2, 5, 8), torch.arange(5) >= torch.tensor([[5], [3]])
    network = Attending()
    qat.prepare(network, inputs, "w8a8")
    network(*inputs)
    program = qat.convert(network.eval())
    qat.export(program, tmp_path / "model.onnx")
    assert [entry.name for entry in program.inputs] == ["x", "padding"]
    report = qat.verify(program, tmp_path / "model.onnx", [inputs], module=network, repeats=0)
    assert report.float_ops == ()
    assert (report.mismatches["onnxruntime"].differing, report.mismatches["fake_quant"].differing) == (0, 0)
