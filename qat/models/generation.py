"""Text from a network for one token at a time, such as `GPTStep` or its integer program, with the cache it hands on."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
from torch import Tensor

from qat.errors import ConfigurationError

#: Runs one step: inputs by name -> outputs by name.
Step = Callable[[dict[str, Tensor]], Mapping[str, Tensor]]

#: What is kept of a full window, when the next one begins with it: the more, the longer the network remembers at the
#: least, and the more often it reads again.
KEPT_SHARE = 0.5


class TokenReader:
    """Feeds tokens to a network, one after the other.

    step: takes "ids", "positions", "mask" and "past.*", and gives "logits" and "present.*", as `GPTStep` does.
    empty: its inputs by name for a batch of one, whose shapes and types are taken over.
    """

    def __init__(self, step: Step, empty: Mapping[str, Tensor]):
        self.step = step
        self.block_size = empty["mask"].shape[1]
        self.empty = {name: torch.zeros_like(tensor) for name, tensor in empty.items() if name.startswith("past.")}
        self.seen: list[int] = []
        self.past = self.empty

    def feed(self, token: int) -> Tensor:
        """Read one token. Returns the logits of the next, (vocabulary,).

        A network has positions for `block_size` tokens. Behind the last one it begins a new window, and reads again the
        tokens that this window keeps of the one before.
        """
        if len(self.seen) == self.block_size:
            kept = self.seen[-max(int(KEPT_SHARE * self.block_size), 1) :]
            self.seen, self.past = [], self.empty
            for earlier in kept:
                self._read(earlier)
        return self._read(token)

    def _read(self, token: int) -> Tensor:
        position = len(self.seen)
        mask = torch.zeros(1, self.block_size, dtype=torch.int64)
        mask[:, self.block_size - 1 - position :] = 1
        ids, positions = torch.tensor([[token]]), torch.tensor([[position]])
        outputs = self.step({"ids": ids, "positions": positions, "mask": mask, **self.past})
        self.past = {name: outputs[f"present.{name.removeprefix('past.')}"] for name in self.empty}
        self.seen.append(token)
        return outputs["logits"][0, 0]


def generate(
    reader: TokenReader, prompt: Sequence[int], choices: Sequence[int], temperature: float = 1.0, seed: int = 0
) -> Iterator[int]:
    """Tokens that continue `prompt`, without end.

    choices: the tokens to choose among. temperature: logits are divided by it; 0 takes the likeliest token. Equal seeds
    give equal texts.
    """
    if not prompt:
        raise ConfigurationError("the prompt is empty; give at least one character.")
    if not (math.isfinite(temperature) and temperature >= 0):
        raise ConfigurationError(f"the temperature is {temperature}; it is a number from 0 on.")
    generator = torch.Generator().manual_seed(seed)
    for token in prompt:
        logits = reader.feed(token)
    choices = torch.tensor(choices)
    while True:
        token = int(choices[_drawn(logits[choices], temperature, generator)])
        yield token
        logits = reader.feed(token)


def _drawn(logits: Tensor, temperature: float, generator: torch.Generator) -> int:
    if temperature == 0:
        return int(logits.argmax())
    return int(torch.multinomial(torch.softmax(logits.double() / temperature, 0), 1, generator=generator))
