"""Strided views of buffers, and the loops over several of them."""

from hypothesis import given, settings
from hypothesis import strategies as st

from qat.emitters.c.types import U8
from qat.emitters.c.views import Buffer, View, Walk, channels_last, plain, strides_of, walk_over


def view_of(*shape, order=None):
    size = 1
    for entry in shape:
        size *= entry
    return View(Buffer(U8, size), shape, strides_of(shape, plain(len(shape)) if order is None else order))


def places(view):
    """Where the elements of a view lie, in the order of its dimensions."""
    found = [view.offset]
    for size, stride in zip(view.shape, view.strides, strict=True):
        found = [place + index * stride for place in found for index in range(size)]
    return found


def test_channels_last_is_the_first_dimension_fastest():
    assert strides_of((3, 4, 5), channels_last(3)) == (1, 15, 3)
    assert view_of(3, 4, 5, order=channels_last(3)).order == (1, 2, 0)
    assert view_of(3, 4, 5, order=channels_last(3)).lies_in(channels_last(3))
    assert not view_of(3, 4, 5).lies_in(channels_last(3))
    assert view_of(3, 1, 1).lies_in(channels_last(3))


def test_transposing_cutting_and_expanding_move_nothing():
    view = view_of(2, 3, 4)
    assert view.permuted((2, 0, 1)).strides == (1, 12, 4)
    cut = view.cut((0, 2, 1), (2, 3, 2), (1, -1, 2))
    assert cut.offset == 9 and cut.strides == (12, -4, 2) and cut.order is None
    assert view_of(2, 1, 4).expanded((2, 5, 4)).strides == (4, 0, 1)


def test_only_what_strides_can_say_is_reshaped():
    assert view_of(2, 3, 4).reshaped((6, 4)).strides == (4, 1)
    assert view_of(2, 3, 4).permuted((1, 0, 2)).reshaped((6, 4)) is None
    assert view_of(2, 3, 4).permuted((2, 0, 1)).reshaped((4, 6)).strides == (1, 4)
    assert view_of(4).cut((3,), (4,), (-1,)).reshaped((2, 2)) is None


def test_loops_that_all_operands_take_alike_are_one():
    whole = view_of(2, 3, 4)
    assert walk_over(whole.shape, [whole.strides, whole.strides]) == Walk((24,), ((1,), (1,)))
    channel = view_of(2, 1, 1).expanded((2, 3, 4))
    assert walk_over(whole.shape, [whole.strides, channel.strides]) == Walk((2, 12), ((12, 1), (1, 0)))
    assert walk_over((), [(), ()]) == Walk((1,), ((0,), (0,)))
    assert walk_over((5,), [(1,)], single=True) == Walk((5, 1), ((1, 0),))


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.data())
def test_a_walk_meets_every_pair_of_elements_once(data):
    shape = tuple(data.draw(st.lists(st.integers(1, 4), max_size=4)))
    orders = [data.draw(st.permutations(range(len(shape)))) for _ in range(2)]
    first, second = (view_of(*shape, order=order) for order in orders)
    walk = walk_over(shape, [first.strides, second.strides], single=data.draw(st.booleans()))
    pairs = [(0, 0)]
    for size, *steps in zip(walk.sizes, *walk.strides, strict=True):
        pairs = [
            tuple(at + index * step for at, step in zip(pair, steps, strict=True))
            for pair in pairs
            for index in range(size)
        ]
    assert sorted(pairs) == sorted(zip(places(first), places(second), strict=True))
