"""The walk over the batches that a program, its files and its networks are run on."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from qat.batches import AnyProgram, input_names, real_inputs, split_batch, taken_by, with_pictures
from qat.errors import ConfigurationError


@dataclass(frozen=True)
class Batch:
    """inputs: as networks take them. tensors: as the program does, by name. before: samples of the batches before."""

    inputs: Any
    targets: Any
    tensors: Mapping[str, Tensor]
    before: int

    def first(self, count: int) -> dict[str, Tensor]:
        """At most `count` of its samples, by input name."""
        return {name: tensor[:count].contiguous() for name, tensor in self.tensors.items()}


class Walk:
    """Batches of a data loader, once, one after the other.

    named_inputs: (program, inputs) -> the program's tensors by name, checked. module: the prepared network, whose
    inputs batches hold. samples: how many there were. sample: the first of them, by input name.
    Raises `ConfigurationError` at the end where there was no batch.
    """

    def __init__(
        self,
        program: AnyProgram,
        named_inputs: Callable[[AnyProgram, Any], dict[str, Tensor]],
        batches: Iterable,
        module: Callable | None,
    ):
        self.samples = 0
        self.sample: dict[str, Tensor] = {}
        self._program, self._named_inputs, self._batches = program, named_inputs, batches
        self._names = input_names(program, module)

    def __iter__(self) -> Iterator[Batch]:
        program = self._program
        for given in self._batches:
            inputs, targets = split_batch(program, given, self._names)
            taken = with_pictures(program, taken_by(program, self._names, inputs))
            tensors = self._named_inputs(program, taken)
            batch = Batch(real_inputs(program, inputs), targets, tensors, self.samples)
            self.sample = self.sample or batch.first(1)
            self.samples += len(next(iter(batch.tensors.values())))
            yield batch
        if not self.sample:
            raise ConfigurationError("there are no batches to verify on; pass at least one, e.g. the test data loader.")
