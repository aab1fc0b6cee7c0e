"""A text as windows of characters, split by position: Python's own help topics, or any file."""

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy
import torch
from torch import Tensor

from qat.data.module import InMemoryDataModule, check_held_out
from qat.data.tensors import TensorData
from qat.errors import ConfigurationError

#: What is decoded for characters outside of the vocabulary; their id is 0.
UNKNOWN = "\N{REPLACEMENT CHARACTER}"
#: The file in which a run keeps its vocabulary.
VOCABULARY_JSON = "vocabulary.json"


@dataclass(frozen=True)
class Vocabulary:
    """Characters and their ids: 0 for every unknown one, then 1, 2, ... in the order of `characters`."""

    characters: str

    @classmethod
    def of(cls, text: str, size: int) -> "Vocabulary":
        """The `size - 1` most frequent characters of a text; of equally frequent ones the smaller comes first."""
        counted = sorted(Counter(text).items(), key=lambda item: (-item[1], item[0]))
        return cls("".join(character for character, _ in counted[: size - 1] if character != UNKNOWN))

    def encode(self, text: str) -> Tensor:
        """Ids of a text, (N,) int64."""
        ids = {character: index for index, character in enumerate(self.characters, start=1)}
        return torch.tensor([ids.get(character, 0) for character in text], dtype=torch.int64)

    def decode(self, ids) -> str:
        """The text of a sequence of ids; ids that no character has are unknown as well."""
        known = UNKNOWN + self.characters
        return "".join(known[index] if index < len(known) else UNKNOWN for index in map(int, ids))

    def to_json(self) -> bytes:
        """As a file holds it."""
        return (json.dumps({"characters": self.characters}, indent=1) + "\n").encode()

    @classmethod
    def read(cls, path: Path) -> "Vocabulary":
        """From a file. Raises `ConfigurationError` where there is none, or another one."""
        try:
            characters = json.loads(path.read_text())["characters"]
            if not isinstance(characters, str) or len(set(characters)) != len(characters):
                raise ValueError("its characters are no string of different ones")
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ConfigurationError(
                f"{str(path)!r} holds no vocabulary ({error}); give the folder of a run of a text recipe."
            ) from error
        return cls(characters)


class TextData(TensorData):
    """Windows of a text, read by draw numbers as `TensorData`: (ids, positions, targets), each (B, block_size) int64.

    tokens: (N,) int64. Targets are the ids one place further. shift_seed: windows of every epoch begin elsewhere, so
    that no place of the text always stands at the same position; None: always at the first token.
    """

    def __init__(self, tokens: Tensor, block_size: int, limit: int | None = None, shift_seed: int | None = None):
        self.tokens, self.block_size, self.shift_seed = tokens, block_size, shift_seed
        room = len(tokens) - 1 - (0 if shift_seed is None else block_size - 1)
        self.size = max(min(room // block_size, limit or room), 0)

    def __len__(self) -> int:
        return self.size

    def __getitems__(self, draws: list[int]) -> tuple[Tensor, Tensor, Tensor]:
        # A sampler passes through one epoch at a time, so all draws of a batch share it.
        first = self._shift(draws[0] // len(self))
        starts = first + torch.tensor(draws) % len(self) * self.block_size
        offsets = torch.arange(self.block_size)
        places = starts[:, None] + offsets
        return self.tokens[places], offsets.repeat(len(draws), 1), self.tokens[places + 1]

    def __getitem__(self, draw: int) -> tuple[Tensor, Tensor, Tensor]:
        return tuple(tensor[0] for tensor in self.__getitems__([draw]))

    def _shift(self, epoch: int) -> int:
        if self.shift_seed is None:
            return 0
        return int(numpy.random.default_rng((self.shift_seed, epoch)).integers(self.block_size))


class TextDataModule(InMemoryDataModule):
    """Batches of (ids, positions, targets), each (B, block_size) int64.

    path: a text file in UTF-8; None for the help topics of `pydoc_data.topics`, joined in sorted order.
    vocabulary_size: characters that are told apart, one of them for all that are rarer; those of the training part.
    block_size: characters of a window. val_share, test_share: of the text, cut from its end in this order.
    batch_size, seed, limit (of windows), num_workers: see `InMemoryDataModule`; `seed` moves the windows as well.
    """

    def __init__(
        self,
        path: str | None = None,
        vocabulary_size: int = 96,
        block_size: int = 128,
        batch_size: int = 32,
        seed: int = 0,
        val_share: float = 0.1,
        test_share: float = 0.1,
        limit: int | None = None,
        num_workers: int = 0,
    ):
        super().__init__(batch_size, seed, limit, num_workers)
        check_held_out(val_share, test_share)
        for name, value, least in (("vocabulary_size", vocabulary_size, 2), ("block_size", block_size, 2)):
            if value < least:
                raise ConfigurationError(f"data.{name} is {value}; set it to a whole number from {least} on.")
        self.path, self.vocabulary_size, self.block_size = path, vocabulary_size, block_size
        self.val_share, self.test_share = val_share, test_share
        self.vocabulary: Vocabulary | None = None

    def setup(self, stage: str | None = None) -> None:
        if self.splits:
            return
        parts = self._parts(read_text(self.path))
        self.vocabulary = Vocabulary.of(parts["train"], self.vocabulary_size)
        for split, part in parts.items():
            shift_seed = self.seed if split == "train" else None
            data = TextData(self.vocabulary.encode(part), self.block_size, self.limit, shift_seed)
            if not len(data):
                raise ConfigurationError(
                    f"the {split} part of the text has {len(part)} characters, too few for windows of "
                    f"data.block_size={self.block_size}; lower it, or give a longer text with data.path=."
                )
            self.splits[split] = data

    def files(self) -> dict[str, bytes]:
        """What has to lie beside an exported network to use it."""
        self.setup()
        return {VOCABULARY_JSON: self.vocabulary.to_json()}

    def _parts(self, text: str) -> dict[str, str]:
        first = round(len(text) * (1 - self.val_share - self.test_share))
        second = round(len(text) * (1 - self.test_share))
        return {"train": text[:first], "val": text[first:second], "test": text[second:]}


def read_text(path: str | None) -> str:
    """The text in a file, or Python's help topics."""
    if path is None:
        from pydoc_data.topics import topics

        return "\n".join(topics[name] for name in sorted(topics))
    try:
        return Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(
            f"data.path={path} cannot be read as text ({error}); give a file of UTF-8 text."
        ) from error
