"""Integers of 2 to 8 bits as a dense stream of bits: the first code in the lowest bits of the first byte.

Eight codes of b bits are b bytes, whatever b is; so both ways go through one 64-bit word for eight codes, a piece of
the tensor at a time.
"""

import torch
from torch import Tensor

from qat.errors import ProgramError

#: Words worked on at a time: memory stays that of the codes themselves.
_WORDS = 2**16


def pack(codes: Tensor, bits: int) -> Tensor:
    """Pack int8 codes of any shape as two's complement of `bits` bits. Returns uint8 (ceil(count * bits / 8),)."""
    count = codes.numel()
    words = -(-count // 8)
    padded = torch.nn.functional.pad(codes.flatten(), (0, 8 * words - count)).reshape(words, 8)
    packed = torch.empty(words, bits, dtype=torch.uint8)
    mask = 2**bits - 1
    for piece, result in zip(padded.split(_WORDS), packed.split(_WORDS), strict=True):
        word = torch.zeros(len(piece), dtype=torch.int64)
        for place in range(8):
            word |= (piece[:, place].to(torch.int64) & mask) << (place * bits)
        for place in range(bits):
            result[:, place] = (word >> (8 * place)) & 255
    return packed.flatten()[: (count * bits + 7) // 8].clone()


def unpack(packed: Tensor, bits: int, shape: tuple[int, ...]) -> Tensor:
    """The int8 codes of `shape` that `pack` packed. Raises `ProgramError` for another size or for set spare bits."""
    count = torch.Size(shape).numel()
    if packed.dim() != 1 or packed.numel() != (count * bits + 7) // 8:
        raise ProgramError(f"{packed.numel()} bytes cannot hold {count} codes of {bits} bits; the file is damaged.")
    size = _WORDS * bits
    pieces = [codes_in(piece, bits) for piece in packed.split(size)]
    codes = torch.cat(pieces) if len(pieces) != 1 else pieces[0]
    if bool(codes[count:].any()):
        raise ProgramError(f"bits are set behind the last of {count} codes of {bits} bits; the file is damaged.")
    return codes[:count].reshape(shape)


def codes_in(packed: Tensor, bits: int) -> Tensor:
    """Every int8 code in whole bytes, and spare bits behind the last as codes too: tensor operations alone.

    packed: uint8 (bytes,), on any device.
    """
    if bits == 8:
        return packed.view(torch.int8)
    if bits in (2, 4):  # no code lies in two bytes
        fields = packed[:, None] >> torch.arange(0, 8, bits, dtype=torch.uint8, device=packed.device)
    else:
        padded = torch.nn.functional.pad(packed, (0, -packed.shape[0] % bits)).reshape(-1, bits)
        places = torch.arange(8, device=packed.device)
        fields = (padded.to(torch.int64) << 8 * places[:bits]).sum(1, keepdim=True) >> bits * places
    sign = 2 ** (bits - 1)
    return (((fields & 2**bits - 1) ^ sign).to(torch.int8) - sign).flatten()
