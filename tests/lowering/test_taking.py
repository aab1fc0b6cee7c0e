"""Operations that choose entries along dimensions, or move them, give the same codes in all three ways to run them."""

import pytest
import torch
import torch.nn.functional as F

PLACES = torch.tensor([1, 0, 3])


def set_a_column(net, x):
    x = x.clone()
    x[:, 0] = 0.3
    return x


def set_masked(net, x):
    x = x.clone()
    x[:, :, torch.eye(8).bool()] = 0.3
    return x


#: name -> (body behind a convolution with 8 channels of 8 x 8, its features)
BODIES = {
    "roll": (lambda net, x: x.roll((1, 2), (2, 3)), 512),
    "flip": (lambda net, x: x.flip(2, 3), 512),
    "fliplr": (lambda net, x: x.fliplr(), 512),
    "rot90": (lambda net, x: torch.cat([x.rot90(turns, (2, 3)) for turns in range(4)], 1), 4 * 512),
    "repeat": (lambda net, x: x.repeat(1, 2, 1, 1), 1024),
    "tile": (lambda net, x: x.tile(2), 1024),
    "expand": (lambda net, x: x[:, :1].expand(-1, 8, -1, -1), 512),
    "expand_as": (lambda net, x: x[:, :, :1].expand_as(x), 512),
    "broadcast_to": (lambda net, x: x[:, :1].broadcast_to(x.shape), 512),
    "repeat_interleave": (lambda net, x: x.repeat_interleave(2, 1), 1024),
    "index_select": (lambda net, x: x.index_select(1, PLACES), 192),
    "index": (lambda net, x: x[:, PLACES], 192),
    "index_list": (lambda net, x: x[:, [0, -1]], 128),
    "index_of_two_dimensions": (lambda net, x: x[:, PLACES, PLACES], 24),
    "take_along_dim": (lambda net, x: torch.take_along_dim(x, PLACES.view(1, 3, 1, 1), 1), 192),
    "gather": (lambda net, x: x.gather(2, PLACES.view(1, 1, 3, 1).expand(x.shape[0], 8, 3, 8)), 192),
    "narrow": (lambda net, x: x.narrow(1, 2, 3), 192),
    "tensor_split": (lambda net, x: torch.cat(x.tensor_split(3, 1)[::-1], 1), 512),
    "hsplit": (lambda net, x: torch.cat(x.hsplit(2)[::-1], 1), 512),
    "dsplit": (lambda net, x: torch.cat(torch.dsplit(x, (3, 5))[::-1], 2), 512),
    "joined_with_nothing": (lambda net, x: torch.cat([x[..., :4].flip(1), x[..., 8:], x[..., 4:]], -1), 512),
    "tensor_split_at": (lambda net, x: torch.cat(x.tensor_split((2, -3), 1)[::-1], 1), 512),
    "movedim": (lambda net, x: x.movedim((1, 2), (-1, 1)), 512),
    "swapaxes": (lambda net, x: x.swapaxes(1, 2), 512),
    "matrix_transpose": (lambda net, x: x.mT, 512),
    "hstack": (lambda net, x: torch.hstack([x, x]), 1024),
    "dstack": (lambda net, x: torch.dstack([x, x]), 1024),
    "pixel_shuffle": (lambda net, x: F.pixel_shuffle(x, 2), 512),
    "pixel_unshuffle": (lambda net, x: F.pixel_unshuffle(x, 2), 512),
    "channel_shuffle": (lambda net, x: F.channel_shuffle(x, 2), 512),
    "windows": (lambda net, x: x.unfold(2, 3, 2), 8 * 3 * 8 * 3),
    "unfold": (lambda net, x: F.unfold(x, (3, 2), padding=1, stride=(2, 3)), 8 * 6 * 4 * 3),
    "fold": (lambda net, x: F.fold(F.unfold(x, 2, stride=2), (8, 8), 2, stride=2), 512),
    "pad_with_a_number": (lambda net, x: F.pad(x - 0.5, (1, 1, 0, 2), value=0.25), 800),
    "pad_reflect": (lambda net, x: F.pad(x, (1, 1, 2, 1), "reflect"), 880),
    "pad_replicate": (lambda net, x: F.pad(x, (1, 1, 2, 1), "replicate"), 880),
    "pad_circular": (lambda net, x: F.pad(x, (1, 1, 2, 1), "circular"), 880),
    "pad_to_cut": (lambda net, x: F.pad(x, (-1, 1)), 512),
    "pad_to_cut_both": (lambda net, x: F.pad(x, (-1, -2)), 320),
    "diff": (lambda net, x: x.diff(dim=2), 448),
    "nearest": (lambda net, x: F.interpolate(x, scale_factor=1.7), 8 * 169),
    "nearest_exact": (lambda net, x: F.interpolate(x, size=(11, 5), mode="nearest-exact"), 440),
    "nearest_of_one_dimension": (lambda net, x: F.interpolate(x[:, :, 0], size=11), 88),
    "set_a_column": (set_a_column, 512),
    "set_masked": (set_masked, 512),
}  # fmt: skip


@pytest.mark.parametrize("name", BODIES)
def test_what_only_moves_lowers_to_the_same_codes(name, assert_agreement):
    body, features = BODIES[name]
    program = assert_agreement(body, features, {}, "w8a8")
    assert not {type(operation).__name__ for operation in program.operations[1:-2]} & {"Requantize", "MatMul", "Mul"}


@pytest.mark.parametrize("pieces", [
    lambda x: x.tensor_split(2, 1), lambda x: torch.tensor_split(x, (4,), 1), lambda x: x.hsplit(2),
    lambda x: torch.hsplit(x, [4]), lambda x: x.chunk(2, 1), lambda x: torch.cat([x, x[:, 8:]], 1).split(4, 1),
])  # fmt: skip
def test_one_piece_is_multiplied_by_a_function_of_another(pieces, assert_agreement):
    def body(net, x):
        first, second = pieces(x)
        return first * second.sigmoid()

    assert_agreement(body, 256, {}, "w8a8")
