"""A program as a `torch.nn.Module`: the same integers on a processor or a GPU, compiled, or exported to a file."""

import functools
import keyword
import re
from collections.abc import Mapping

from torch import Tensor

from qat.errors import ProgramError
from qat.integer.calls import structured
from qat.integer.checks import input_of
from qat.integer.interpreter import edge_dtype, lengths_of, quantize_inputs, to_edge
from qat.integer.kernels.matrices import int8_matmul_is_exact
from qat.integer.lengths import Length
from qat.integer.program import IntegerProgram
from qat.integer.steps import Steps, frame
from qat.integer.storage import digest
from qat.tracing import is_traced


class ProgramModule(Steps):
    """What `program(inputs)` computes, code for code, of tensors on the module's device.

    Inputs are positional or named as the program's; outputs come in its structure. It takes any batch size, and every
    length that the program takes.

    The state dict holds weights at their true width, biases and constants. It is one of this program: everything else
    follows from its grids, so that the state of another program is refused, where it says what it is of (safetensors
    files do not). Eager code keeps each weight unpacked, and each operation prepared, from its first use on; compiled
    and exported code unpacks it in every run. The kernels are the interpreter's: products of int8 matrices are
    `torch._int_mm` on processors whose product does not saturate, and on GPUs; of two values in a loop over samples, in
    traced code int32 sums, on GPUs float64 ones of whole numbers below 2^31. Unlike the interpreter the module does not
    look at what its inputs hold: NaN has no code, and an index that is out of range ends as in `torch.index_select`.
    """

    def __init__(self, program: IntegerProgram):
        """Raises `ProgramError` for float islands."""
        super().__init__(program)
        self.frame = frame(program)
        self._version = digest(program)  # goes with the state dict
        self.dtypes = {
            edge.name: edge_dtype(program.value(edge.value).grid, edge.codes)
            for edge in (*program.inputs, *program.outputs)
        }
        self.places = {entry.symbol: input_of(program, entry.symbol) for entry in program.lengths}
        int8_matmul_is_exact()  # known before code is traced

    @classmethod
    def of(cls, program: IntegerProgram) -> "ProgramModule":
        """The module of a program, whose forward takes the program's inputs."""
        return _taking(tuple(edge.name for edge in program.inputs))(program)

    def run(self, tensors: Mapping[str, Tensor]) -> Tensor | tuple[Tensor, ...] | dict[str, Tensor]:
        """Outputs in the program's structure. tensors: inputs by name."""
        if not is_traced():
            self._check(tensors)
        lengths = {symbol: tensors[name].shape[dim] for symbol, (name, dim) in self.places.items()}
        typed = {name: tensor.to(self.dtypes[name]) for name, tensor in tensors.items()}
        codes = self.codes(quantize_inputs(self.frame, typed), lengths)
        outputs = {}
        for edge in self.frame.outputs:
            outputs[edge.name] = to_edge(codes[edge.value], self.frame.value(edge.value).grid, edge.codes)
        return structured(self.frame, outputs)

    def _check(self, tensors: Mapping[str, Tensor]) -> None:
        """Refuse inputs of another shape or kind; what they hold is not looked at, which a GPU would wait for."""
        for edge in self.frame.inputs:
            tensor, shape = tensors[edge.name], self.frame.value(edge.value).shape
            fits = tensor.dim() == len(shape) + 1 and all(
                size == wanted or isinstance(wanted, Length)
                for size, wanted in zip(tensor.shape[1:], shape, strict=True)
            )
            if not fits or not tensor.shape[0]:
                sizes = (size.describe() if isinstance(size, Length) else str(size) for size in shape)
                raise ProgramError(
                    f"input {edge.name!r} has shape {tuple(tensor.shape)}; expected (batch, {', '.join(sizes)}) with a "
                    "batch of at least 1."
                )
            if tensor.is_floating_point() and not self.dtypes[edge.name].is_floating_point:
                raise ProgramError(f"input {edge.name!r} is {tensor.dtype}; it takes integers.")
        for entry in self.frame.lengths:
            length = lengths_of(self.frame, tensors)[entry.symbol]
            if not entry.shortest <= length <= entry.longest:
                raise ProgramError(
                    f"{entry.symbol} is {length}; the program takes {entry.shortest} to {entry.longest}. Prepare the "
                    "network with example_inputs of the longest length that it will meet."
                )

    def _load_from_state_dict(self, state_dict, prefix, local_metadata, *others):
        version = local_metadata.get("version", self._version)
        if version != self._version:
            others[-1].append(f"the state is that of another program (sha256 {version}, not {self._version}).")
        super()._load_from_state_dict(state_dict, prefix, local_metadata, *others)

    def __setstate__(self, state):
        super().__setstate__(state)
        int8_matmul_is_exact()

    def __reduce__(self):
        return _unfilled, (tuple(edge.name for edge in self.frame.inputs),), self.__getstate__()


@functools.cache
def _taking(names: tuple[str, ...]) -> type[ProgramModule]:
    """A `ProgramModule` whose forward has arguments of these names, so that signatures and graphs show them."""
    arguments = argument_names(names)
    pairs = ", ".join(f"{name!r}: {argument}" for name, argument in zip(names, arguments, strict=True))
    space: dict = {}
    exec(f"def forward(self, {', '.join(arguments)}):\n    return self.run({{{pairs}}})\n", space)
    return type("ProgramModule", (ProgramModule,), {"forward": space["forward"], "__module__": __name__})


def argument_names(names: tuple[str, ...]) -> list[str]:
    """A name that Python takes for each input: `past.0` is called past_0."""
    found: list[str] = []
    for name in names:
        argument = re.sub(r"\W", "_", name)
        if not argument.isidentifier() or keyword.iskeyword(argument) or argument == "self":
            argument = f"input_{argument}"
        while argument in found:
            argument += "_"
        found.append(argument)
    return found


def _unfilled(names: tuple[str, ...]) -> ProgramModule:
    kind = _taking(names)
    return kind.__new__(kind)
