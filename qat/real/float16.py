"""Which real numbers a file keeps as float16, and what they are then."""

from torch import Tensor

#: Smallest normal and largest number of float16.
FLOAT16_SMALLEST, FLOAT16_LARGEST = 2.0**-14, 65504.0
#: Fewer numbers stay float32: what widens them takes a file more bytes than they save.
LEAST_FLOAT16 = 64


def fits_float16(tensor: Tensor) -> bool:
    """Whether numbers are stored as float16: none is beyond its largest, and the largest of them is held to 11 bits.

    Numbers below 2^-14 are off by at most 2^-25; a tensor of nothing but such stays float32, and so do a few alone.
    """
    if tensor.numel() < LEAST_FLOAT16:
        return False
    largest = float(tensor.abs().max())
    return largest == 0.0 or FLOAT16_SMALLEST <= largest <= FLOAT16_LARGEST


def rounded_to(storage: str, tensor: Tensor) -> Tensor:
    """A tensor of real numbers as a file of that storage keeps it, as float32."""
    tensor = tensor.detach().float()
    return tensor.half().float() if storage == "float16" and fits_float16(tensor) else tensor
