"""The arena: what lives at the same time lies apart."""

from hypothesis import given, settings
from hypothesis import strategies as st

from qat.emitters.c.arena import ALIGNMENT, lifetimes, plan
from qat.emitters.c.types import S32, U8
from qat.emitters.c.views import Buffer


def test_a_buffer_lives_from_its_first_to_its_last_call():
    first, second, given_by_caller = Buffer(U8, 5), Buffer(S32, 3), Buffer(U8, 9, "image")
    calls = [[given_by_caller, first], [first, second], [second], [second, given_by_caller]]
    assert lifetimes(calls) == {first: (0, 1), second: (1, 3)}


def test_what_is_no_longer_needed_makes_room():
    chain = [Buffer(U8, 100) for _ in range(5)]
    size = plan({buffer: (index, index + 1) for index, buffer in enumerate(chain)})
    assert size == 208  # two at a time, each from a multiple of 8 on
    assert {buffer.place for buffer in chain} == {0, 104}


@settings(max_examples=150, deadline=None, derandomize=True)
@given(st.lists(st.tuples(st.integers(1, 90), st.integers(0, 9), st.integers(0, 5), st.booleans()), max_size=12))
def test_buffers_that_live_together_never_share_a_byte(entries):
    alive = {Buffer(S32 if wide else U8, count): (start, start + more) for count, start, more, wide in entries}
    size = plan(alive)
    assert size % ALIGNMENT == 0
    assert size <= sum(-(-buffer.bytes // ALIGNMENT) * ALIGNMENT for buffer in alive)
    for buffer, (first, last) in alive.items():
        assert buffer.place % ALIGNMENT == 0 and buffer.place + buffer.bytes <= size
        for other, (begin, end) in alive.items():
            if other is not buffer and begin <= last and first <= end:
                assert other.place + other.bytes <= buffer.place or buffer.place + buffer.bytes <= other.place
