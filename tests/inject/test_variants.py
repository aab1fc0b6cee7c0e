"""Masks of the other kind, with which a network is recorded as well, by hand."""

import torch
from torch import nn

from qat.inject.record import record
from qat.inject.variants import mask_variants


class Forward(nn.Module):
    def forward(self, ids, mask, types=None):
        return ids


IDS = torch.tensor([[3, 1, 4, 1], [5, 9, 2, 6]])
ONES = torch.ones(2, 4, dtype=torch.int64)
HALF = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]])


def variants(args, kwargs, looked_at=("ids", "mask", "types")):
    return [(args, kwargs) for args, kwargs in mask_variants(Forward(), args, kwargs, looked_at)]


def test_a_mask_that_masks_something_has_a_variant_that_masks_nothing():
    (((ids, mask), kwargs),) = variants((IDS, torch.tensor([[0, 1, 1, 1], [1, 1, 1, 0]])), {})
    assert ids is IDS and not kwargs
    assert mask.tolist() == ONES.tolist() and mask.dtype == torch.int64


def test_a_mask_that_masks_nothing_has_a_variant_that_masks_the_end_of_some_rows():
    (((ids,), kwargs),) = variants((IDS,), {"mask": ONES.bool()})
    assert ids is IDS
    assert kwargs["mask"].tolist() == HALF.bool().tolist() and kwargs["mask"].dtype == torch.bool


def test_nothing_but_zeros_has_both():
    masks = [kwargs["types"].tolist() for _, kwargs in variants((IDS, IDS), {"types": torch.zeros_like(ONES)})]
    assert masks == [ONES.tolist(), HALF.tolist()]


def test_each_mask_varies_alone():
    found = [(mask.tolist(), kwargs["types"].tolist()) for (_, mask), kwargs in variants((IDS, ONES), {"types": HALF})]
    assert found == [(HALF.tolist(), HALF.tolist()), (ONES.tolist(), ONES.tolist())]


def test_a_row_of_one_place_stays():
    assert not variants((IDS[:, :1], ONES[:, :1]), {})


def test_masks_of_every_head_and_query_are_masks():
    (((_, mask), _),) = variants((IDS, torch.ones(2, 1, 3, 4)[:, :, :2].bool()), {})
    assert mask.int().tolist() == [[[[1] * 4] * 2], [[[1, 1, 0, 0]] * 2]]


def test_what_holds_other_numbers_or_is_real_or_flat_or_nobody_looks_at_stays():
    assert not variants((IDS, ONES.float()), {})
    assert not variants((IDS, 2 * ONES), {})
    assert not variants((IDS, ONES[:, 0]), {})
    assert not variants((IDS, ONES), {}, looked_at={"ids"})


class Typed(nn.Module):
    """Embedded ids and types, masked where a mask is at hand and masks something."""

    def __init__(self):
        super().__init__()
        self.embed, self.types, self.linear = nn.Embedding(11, 4), nn.Embedding(1, 4), nn.Linear(4, 4)
        self.forwards = 0

    def forward(self, ids, mask, types):
        self.forwards += 1
        x = self.linear(self.embed(ids) + self.types(types))
        if mask.all():
            return x
        return torch.exp(x) * mask[..., None].float()


def names(recording, sequence):
    return [recording.calls[address].layer for address in sequence]


def test_both_ways_are_recorded_and_indices_stay_in_range():
    network = Typed()
    recording = record(network, (IDS, ONES, torch.zeros_like(ONES)), {})
    assert recording.looked_at == {"mask"}
    short, masked = ["embed", "types", "add", "linear"], ["embed", "types", "add", "linear", "exp", "float", "mul"]
    for training in (True, False):
        assert [names(recording, way) for way in recording.ways[training]] == [short, masked]
        assert names(recording, recording.sequences[training]) == masked
        assert names(recording, sorted(recording.made(training))) == masked
        assert names(recording, sorted(recording.always_made(training))) == short
    assert network.forwards == 6  # twice to see that it looks at the mask, and twice for each mask
    assert [address for _, address, _ in recording.outputs] == [3, 6]
    assert recording.returned == ((),) and not recording.unquantized


def test_a_mask_is_looked_at_as_well_where_its_ends_were_written_into_another_tensor():
    class Ending(Typed):
        def forward(self, ids, mask, types):
            kept = torch.zeros_like(mask)
            kept[torch.arange(len(mask)), mask.sum(-1) - 1] = 1
            return super().forward(ids, kept.flip(-1).cumsum(-1).flip(-1), types)

    recording = record(Ending(), (IDS, ONES, torch.zeros_like(ONES)), {})
    assert recording.looked_at == {"mask"}
    assert [len(way) for way in recording.ways[False]] == [4, 7]


def test_what_tells_of_the_example_inputs_is_theirs():
    for mask in (ONES, HALF):
        recording = record(Typed(), (IDS, mask, torch.zeros_like(ONES)), {})
        assert len(recording.looks_at_codes) == 1
    network = Typed()
    network.forward = lambda ids, mask, types: Typed.forward(network, ids, mask, types).argmax(-1)
    recording = record(network, (IDS, ONES, torch.zeros_like(ONES)), {})
    assert recording.compared == [("call", 3, 0), ("call", 6, 0)]


def test_numbers_that_the_network_cannot_take_are_left_out():
    class Looking(Typed):
        def forward(self, ids, mask, types):
            return super().forward(ids, mask, types) if types.sum() >= 0 else ids

    network = Looking()
    recording = record(network, (IDS, HALF, torch.zeros_like(ONES)), {})
    assert recording.looked_at == {"mask", "types"}
    # types of 1 are out of range, all of them and some of them
    assert [len(way) for way in recording.ways[False]] == [7, 4]
