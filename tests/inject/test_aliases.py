"""What stands for a tensor that was written in place, and which tensors may no longer be read."""

import pytest
import torch

from qat.errors import PreparationError
from qat.inject.aliases import Aliases
from qat.inject.operations import Kind, Operation

ADD, GET, SET = Operation("add", Kind.COMPUTE), Operation("getitem", Kind.PASS), Operation("setitem", Kind.JOIN)


def test_later_uses_see_what_was_written():
    aliases, x, result = Aliases(), torch.zeros(2), torch.ones(2)
    assert aliases.current((x,), {}) == ((x,), {})
    aliases.replace(x, result)
    (first, (second,)), named = aliases.current((x, (x,)), {"other": x})
    assert first is second is named["other"] is result


def test_what_shares_the_memory_written_to_is_refused_where_it_is_read():
    aliases, x = Aliases(), torch.zeros(4)
    view = x[:2]
    aliases.make_stale([view], x, "network.py:3")
    aliases.check(ADD, (x, 1.0), {})
    for args, kwargs in (((view, 1.0), {}), ((x,), {"other": view}), (([x, view],), {})):
        with pytest.raises(PreparationError, match=r"^network\.py:3 writes in place into memory that another tensor"):
            aliases.check(ADD, args, kwargs)
    with pytest.raises(PreparationError, match="write to a new tensor instead"):
        aliases.refuse_stale(view)


def test_what_was_written_itself_stays_readable():
    aliases, x = Aliases(), torch.zeros(4)
    view = x[:2]
    aliases.replace(x, torch.ones(4))
    aliases.make_stale([x], view, "network.py:3")
    aliases.refuse_stale(x)


def test_a_part_that_is_written_and_put_back_where_it_was_is_followed():
    # x[:2] += y reads a view, writes into it, and sets it again
    aliases, x = Aliases(), torch.zeros(4)
    index = slice(None, 2)
    view = x[index]
    aliases.note_view(GET, (x, index), view)
    aliases.make_stale([x], view, "network.py:3")
    aliases.check(SET, (x, index, torch.ones(2)), {})
    aliases.check(ADD, (x, 1.0), {})


def test_put_back_elsewhere_it_is_refused():
    aliases, x = Aliases(), torch.zeros(4)
    view = x[:2]
    aliases.note_view(GET, (x, slice(None, 2)), view)
    aliases.make_stale([x], view, "network.py:3")
    with pytest.raises(PreparationError, match="writes in place"):
        aliases.check(SET, (x, slice(2, None), torch.ones(2)), {})
