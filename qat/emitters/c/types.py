"""The integer types of C in which codes and constants lie."""

from dataclasses import dataclass

import torch

from qat.integer.values import AnyGrid, IndexRange


@dataclass(frozen=True)
class CType:
    """short: as the names of functions have it, "u8". name: as C has it, "uint8_t"."""

    short: str
    name: str
    bytes: int
    torch: torch.dtype

    @property
    def limits(self) -> tuple[int, int]:
        """The smallest and the largest number."""
        bits = 8 * self.bytes
        return (0, 2**bits - 1) if self.short[0] == "u" else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)

    @property
    def raised(self) -> int:
        """What is added to codes before they are multiplied with weights, so that bytes have no sign."""
        return 128 if self.short == "s8" else 0


U8 = CType("u8", "uint8_t", 1, torch.uint8)
S8 = CType("s8", "int8_t", 1, torch.int8)
U16 = CType("u16", "uint16_t", 2, torch.uint16)
S16 = CType("s16", "int16_t", 2, torch.int16)
S32 = CType("s32", "int32_t", 4, torch.int32)
S64 = CType("s64", "int64_t", 8, torch.int64)

CTYPES = {kind.name: kind for kind in (U8, S8, U16, S16, S32, S64)}


def type_of(grid: AnyGrid) -> CType:
    """The type that holds the codes of `grid`; indices are int32."""
    if isinstance(grid, IndexRange):
        return S32
    if grid.bits <= 8:
        return S8 if grid.quant_min < 0 else U8
    return S16 if grid.quant_min < 0 else U16


def narrowest(lowest: int, highest: int, kinds: tuple[CType, ...] = (S32, S64)) -> CType:
    """The first of `kinds` that holds lowest..highest."""
    return next(kind for kind in kinds if kind.limits[0] <= lowest and highest <= kind.limits[1])
