"""Which integers an input may hold: what chooses entries that are there, and what is compared with places."""

import pytest
import torch
from torch import nn

import qat
from qat.integer.program import IndexRange

X = torch.randn(4, 6, 8, generator=torch.Generator().manual_seed(3))
GIVEN = torch.tensor([2, 0, 1, 2])


class Given(nn.Module):
    def __init__(self, body):
        super().__init__()
        self.first, self.last, self.body = nn.Linear(8, 8), nn.Linear(8, 3), body

    def forward(self, x, given):
        return self.last(self.body(self.first(x), given))


def range_of(body) -> IndexRange:
    network = Given(body)
    qat.prepare(network, (X, GIVEN), "w8a8")
    network(X, GIVEN)
    program = qat.convert(network.eval())
    return program.value(next(edge.value for edge in program.inputs if edge.name == "given")).grid


def rows(x, chosen):
    return x[torch.arange(x.shape[0]), chosen]


@pytest.mark.parametrize(
    ("body", "count"),
    [
        (lambda x, given: rows(x, given), 6),
        (lambda x, given: rows(x, given - 1), 7),  # -1 to 5
        (lambda x, given: rows(x, given + 2), 4),
        (lambda x, given: rows(x, 2 * given), 3),  # 0, 2, 4
        (lambda x, given: rows(x, -given), 7),  # 0 to -6
        (lambda x, given: rows(x, given.clamp(max=3)), 2**16),  # any integer that is tried
        (lambda x, given: rows(x, given) + rows(x, given + 1), 5),  # the smaller of both
        (lambda x, given: x[:, :3].gather(1, given[:, None, None].expand(-1, 1, 8)), 3),
        (lambda x, given: x.gather(2, (given // 2)[:, None, None].expand(-1, 6, 8)), 16),
        # compared with six places: up to six of them come first
        (lambda x, given: x * (torch.arange(6) < given[:, None])[..., None], 7),
        (lambda x, given: x * (given.unsqueeze(1) > torch.arange(6))[..., None], 7),
    ],
)
def test_the_range_holds_what_has_a_meaning(body, count):
    assert range_of(body) == IndexRange(count)


def test_rows_that_are_chosen_end_where_embeddings_do():
    class Both(Given):
        def __init__(self):
            super().__init__(None)
            self.words = nn.Embedding(4, 8)

        def forward(self, x, given):
            return self.last(rows(self.first(x), given) + self.words(given))

    network = Both()
    qat.prepare(network, (X, GIVEN), "w8a8")
    network(X, GIVEN)
    program = qat.convert(network.eval())
    assert program.value(next(e.value for e in program.inputs if e.name == "given")).grid == IndexRange(4)
