"""What the attention of every transformer here has in common."""

from torch import Tensor, nn


class Heads(nn.Module):
    """The layers of self-attention. Query, key and value are layers of their own, so that each has its own grid."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.projection = nn.Linear(width, width)

    def split(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(B, T, width) -> query, key and value, each (B, heads, T, width / heads)."""
        query, key, value = (
            layer(x).unflatten(2, (self.heads, -1)).transpose(1, 2) for layer in (self.query, self.key, self.value)
        )
        return query, key, value

    def joined(self, attended: Tensor) -> Tensor:
        """(B, heads, T, width / heads) -> (B, T, width)."""
        return self.projection(attended.transpose(1, 2).flatten(2))
