"""What a call of a program takes and gives: tensors by the names of its inputs and outputs."""

from collections.abc import Mapping, Sequence

from torch import Tensor

from qat.errors import ProgramError


def by_input_name(names: Sequence[str], inputs) -> dict[str, Tensor]:
    """Inputs by name, in the order of `names`; nothing is known of their shapes and types yet.

    inputs: a tensor, tensors by position, or tensors by input name. Raises `ProgramError` where one is missing, too
    many, or no tensor.
    """
    if isinstance(inputs, Tensor):
        inputs = (inputs,)
    if not isinstance(inputs, Mapping):
        if not isinstance(inputs, Sequence):
            raise ProgramError(
                f"inputs are a {type(inputs).__name__}; give a tensor, tensors by position, or tensors by input name."
            )
        if len(inputs) != len(names):
            raise ProgramError(f"{len(inputs)} inputs given; the program takes {len(names)}: {', '.join(names)}.")
        inputs = dict(zip(names, inputs, strict=True))
    if set(inputs) != set(names):
        raise ProgramError(f"inputs {', '.join(map(str, inputs))} given; the program takes {', '.join(names)}.")
    for name in names:
        if not isinstance(inputs[name], Tensor):
            raise ProgramError(f"input {name!r} is a {type(inputs[name]).__name__}; give a tensor.")
    return {name: inputs[name] for name in names}


def structured(program, outputs: Mapping[str, Tensor]) -> Tensor | tuple[Tensor, ...] | dict[str, Tensor]:
    """Outputs by name as `program.output_structure` says, in the order of `program.outputs`."""
    ordered = {edge.name: outputs[edge.name] for edge in program.outputs}
    match program.output_structure:
        case "dict":
            return ordered
        case "tuple":
            return tuple(ordered.values())
    return next(iter(ordered.values()))
