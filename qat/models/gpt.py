"""A small GPT: a whole text at once, for training, or one token at a time with a cache of keys and values.

Pre-norm blocks with learned positions, as in GPT-2 (https://openai.com/index/better-language-models).
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from qat.errors import ConfigurationError
from qat.models.attention import Heads

#: Standard deviation of every weight at the beginning; that of what is added to the residual stream is smaller.
INITIAL_STD = 0.02


class Attention(Heads):
    """Causal self-attention."""

    def forward(
        self, x: Tensor, past: tuple[Tensor, Tensor] | None = None, allowed: Tensor | None = None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """x: (B, T, width), causal by itself; or (B, 1, width) behind `past` keys and values, each (B, heads, S, width
        / heads), of which it sees what is True in `allowed` (B, 1, 1, S + 1), itself with them.

        Returns (result, of the shape of x; all keys and values).
        """
        query, key, value = self.split(x)
        if past is not None:
            key, value = (torch.cat(pair, 2) for pair in zip(past, (key, value), strict=True))
        attended = F.scaled_dot_product_attention(query, key, value, allowed, is_causal=past is None)
        return self.joined(attended), (key, value)


class Block(nn.Module):
    """Attention, then two layers with a GELU between, each added to the residual stream."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attention = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width)
        self.expand = nn.Linear(width, 4 * width)
        self.contract = nn.Linear(4 * width, width)

    def forward(self, x: Tensor, past=None, allowed=None) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """As `Attention.forward`."""
        attended, keys_and_values = self.attention(self.norm1(x), past, allowed)
        x = x + attended
        return x + self.contract(F.gelu(self.expand(self.norm2(x)))), keys_and_values


class GPT(nn.Module):
    """Predicts each token of a text from those before it.

    vocabulary_size: how many tokens there are. block_size: the longest text, in tokens. width: of the residual stream.
    """

    def __init__(self, vocabulary_size: int, block_size: int, width: int = 128, heads: int = 4, depth: int = 4):
        super().__init__()
        for name, count in (("heads", heads), ("depth", depth), ("width", width)):
            if count < 1:
                raise ConfigurationError(f"model.network.{name} is {count}; it is at least 1.")
        if width % heads:
            raise ConfigurationError(
                f"model.network.width {width} is no multiple of model.network.heads {heads}; each head takes a share."
            )
        self.block_size = block_size
        self.token = nn.Embedding(vocabulary_size, width)
        self.position = nn.Embedding(block_size, width)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, vocabulary_size)
        self._initialize()

    def _initialize(self) -> None:
        for name, parameter in self.named_parameters():
            if parameter.dim() == 2:
                added = name.endswith(("projection.weight", "contract.weight"))  # twice in every block
                nn.init.normal_(parameter, std=INITIAL_STD / (2 * len(self.blocks)) ** (0.5 if added else 0))
            elif name.endswith("bias"):
                nn.init.zeros_(parameter)

    def forward(self, ids: Tensor, positions: Tensor) -> Tensor:
        """ids, positions: (B, T) int64, what stands where. Returns the logits of what comes next, (B, T, vocabulary).

        Positions are an input, so that one token alone is embedded by the same integers as a whole text.
        """
        x = self.token(ids) + self.position(positions)  # (B, T, width)
        for block in self.blocks:
            x, _ = block(x)
        return self.head(self.norm(x))

    def step(self) -> "GPTStep":
        """The same network, of the same parameters, for one token at a time."""
        return GPTStep(self)


class GPTStep(nn.Module):
    """The same network for one token at a time; its parts are those of `network`.

    Keys and values of the tokens before are inputs, and outputs for the next step. There are always `block_size - 1` of
    them, those of the latest tokens last; which of them exist the mask tells.
    """

    def __init__(self, network: GPT):
        super().__init__()
        self.block_size = network.block_size
        self.token, self.position, self.blocks = network.token, network.position, network.blocks
        self.norm, self.head = network.norm, network.head

    def forward(self, ids: Tensor, positions: Tensor, mask: Tensor, **past: Tensor) -> dict[str, Tensor]:
        """ids, positions: (B, 1) int64. mask: (B, block_size) of 0 and 1, int64: the tokens seen, this one last.

        past: "past.<block>.key" and "past.<block>.value", each (B, heads, block_size - 1, width / heads).

        Returns "logits" (B, 1, vocabulary), and as "present.<block>.key" and so on the past of the next step.
        """
        allowed = mask.bool()[:, None, None, :]
        x = self.token(ids) + self.position(positions)  # (B, 1, width)
        present = {}
        for index, block in enumerate(self.blocks):
            cached = past[f"past.{index}.key"], past[f"past.{index}.value"]
            x, (keys, values) = block(x, cached, allowed)
            present[f"present.{index}.key"], present[f"present.{index}.value"] = keys[:, :, 1:], values[:, :, 1:]
        return {"logits": self.head(self.norm(x)), **present}

    def example_inputs(self) -> dict[str, Tensor]:
        """Inputs of a first step, of a batch of 2."""
        width = self.head.in_features
        first = {name: torch.zeros(2, 1, dtype=torch.int64) for name in ("ids", "positions")}
        mask = torch.zeros(2, self.block_size, dtype=torch.int64)
        mask[:, -1] = 1
        past = {}
        for index, block in enumerate(self.blocks):
            shape = (2, block.attention.heads, self.block_size - 1, width // block.attention.heads)
            past |= {f"past.{index}.{kind}": torch.zeros(shape) for kind in ("key", "value")}
        return {**first, "mask": mask, **past}
