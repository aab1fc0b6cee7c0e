"""The codes of weights as a file holds them, beside those of the program."""

from os import PathLike

import numpy
import onnx
import torch
from onnx import numpy_helper
from torch import Tensor

from qat.emitters.onnxruntime.real.graph import CODES
from qat.emitters.onnxruntime.real.weights import CONTAINERS
from qat.errors import ExportError
from qat.integer.packing import unpack
from qat.real.program import RealProgram


def codes_in(path: str | PathLike, program: RealProgram) -> dict[str, Tensor]:
    """The codes of every weight, int8 (C, n), as the file at `path` holds them."""
    tensors = {tensor.name: tensor for tensor in onnx.load(path).graph.initializer}
    found = {}
    for name, weight in program.weights.items():
        stored = tensors.get(f"{name}/codes") or tensors.get(f"{name}/packed")
        if stored is None:
            raise ExportError(f"{path} has no codes of {name!r}; it is the file of another program, so export again.")
        shape = tuple(stored.dims)
        if stored.name.endswith("/packed"):
            width = CONTAINERS[weight.bits]
            raw = torch.from_numpy(numpy_helper.to_array(stored).copy()).flatten()
            counted = unpack(raw, width, (*shape[:2], shape[2] * 8 // width)).to(torch.int16) & (2**width - 1)
            codes = counted - 2 ** (width - 1)
        elif weight.bits in CODES:
            raw = torch.from_numpy(numpy.frombuffer(stored.raw_data, numpy.uint8).copy())
            codes = unpack(raw, CODES[weight.bits][1], shape)
        else:
            codes = torch.from_numpy(numpy_helper.to_array(stored).copy())
        found[name] = codes.flatten(1)[:, : weight.codes.shape[1]].to(torch.int8)
    return found


def container_bits(program: RealProgram) -> dict[str, int]:
    """Bits that a code takes in a file, by the bits it has: a text, as json has keys."""
    return {
        str(weight.bits): CONTAINERS[weight.bits] for weight in sorted(program.weights.values(), key=lambda w: w.bits)
    }


def check_codes(program: RealProgram, path: str | PathLike) -> None:
    """Refuse a file whose weights are not, bit for bit, those of the program."""
    for name, codes in codes_in(path, program).items():
        if not torch.equal(codes, program.weights[name].codes):
            raise ExportError(f"{path} holds other codes of {name!r} than the program; export it again.")
