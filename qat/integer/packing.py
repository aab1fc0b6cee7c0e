"""Integers of 2 to 8 bits as a dense stream of bits: the first code in the lowest bits of the first byte."""

import torch
from torch import Tensor

from qat.errors import ProgramError


def pack(codes: Tensor, bits: int) -> Tensor:
    """Pack int8 codes of any shape as two's complement of `bits` bits. Returns uint8 (ceil(count * bits / 8),)."""
    planes = (codes.flatten().view(torch.uint8)[:, None] >> torch.arange(bits, dtype=torch.uint8)) & 1
    stream = torch.nn.functional.pad(planes.flatten(), (0, -planes.numel() % 8)).reshape(-1, 8)
    return (stream << torch.arange(8, dtype=torch.uint8)).sum(1).to(torch.uint8)


def unpack(packed: Tensor, bits: int, shape: tuple[int, ...]) -> Tensor:
    """The int8 codes of `shape` that `pack` packed. Raises `ProgramError` for another size or for set spare bits."""
    count = torch.Size(shape).numel()
    if packed.dim() != 1 or packed.numel() != (count * bits + 7) // 8:
        raise ProgramError(f"{packed.numel()} bytes cannot hold {count} codes of {bits} bits; the file is damaged.")
    stream = ((packed[:, None] >> torch.arange(8, dtype=torch.uint8)) & 1).flatten()
    if bool(stream[count * bits :].any()):
        raise ProgramError(f"bits are set behind the last of {count} codes of {bits} bits; the file is damaged.")
    planes = stream[: count * bits].reshape(count, bits)
    unsigned = (planes << torch.arange(bits, dtype=torch.uint8)).sum(1).to(torch.int16)
    sign = 2 ** (bits - 1)
    return ((unsigned ^ sign) - sign).to(torch.int8).reshape(shape)
