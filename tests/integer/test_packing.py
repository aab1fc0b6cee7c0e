import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from qat.errors import ProgramError
from qat.integer import packing
from qat.integer.packing import pack, unpack


def test_four_bit_codes_lie_two_in_a_byte_the_first_one_low():
    assert pack(torch.tensor([1, -1, 7], dtype=torch.int8), 4).tolist() == [0xF1, 0x07]


def test_three_bit_codes_cross_bytes():
    # 001 111 010 -> bits from low to high: 1 0 0 1 1 1 0 1 | 0
    assert pack(torch.tensor([1, -1, 2], dtype=torch.int8), 3).tolist() == [0b10111001, 0]


@given(st.integers(2, 8), st.data())
def test_unpack_undoes_pack(bits, data):
    half = 2 ** (bits - 1)
    codes = data.draw(st.lists(st.integers(-half, half - 1), min_size=1, max_size=40))
    tensor = torch.tensor(codes, dtype=torch.int8)
    packed = pack(tensor, bits)
    assert packed.numel() == -(-len(codes) * bits // 8)
    assert unpack(packed, bits, (len(codes),)).tolist() == codes


@pytest.mark.parametrize("bits", [2, 3, 7, 8])
@pytest.mark.parametrize("count", [1, 15, 16, 17, 41])
def test_pieces_join_without_a_seam(bits, count, monkeypatch):
    generator = torch.Generator().manual_seed(count)
    codes = torch.randint(-(2 ** (bits - 1)), 2 ** (bits - 1), (count,), generator=generator).to(torch.int8)
    whole = pack(codes, bits)
    monkeypatch.setattr(packing, "_WORDS", 2)
    assert torch.equal(pack(codes, bits), whole)
    assert torch.equal(unpack(whole, bits, (count,)), codes)


def test_another_size_and_spare_bits_are_refused():
    with pytest.raises(ProgramError, match="2 bytes cannot hold 5 codes of 4 bits"):
        unpack(torch.zeros(2, dtype=torch.uint8), 4, (5,))
    with pytest.raises(ProgramError, match="behind the last"):
        unpack(torch.tensor([0xFF], dtype=torch.uint8), 4, (1,))
