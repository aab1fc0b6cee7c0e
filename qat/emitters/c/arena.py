"""Where in the arena each buffer lies: what lives at the same time lies apart, and everything else may share bytes."""

from collections.abc import Mapping, Sequence

from qat.emitters.c.views import Buffer

#: Every buffer begins at a multiple of this, which suits its widest type.
ALIGNMENT = 8

#: The first and the last call that reads or writes a buffer.
Lifetime = tuple[int, int]


def lifetimes(calls: Sequence[Sequence[Buffer]]) -> dict[Buffer, Lifetime]:
    """When the buffers of the arena live. calls: the buffers that each call reads or writes, in order."""
    found: dict[Buffer, Lifetime] = {}
    for time, buffers in enumerate(calls):
        for buffer in buffers:
            if buffer.expression is None:
                found[buffer] = found.get(buffer, (time, time))[0], time
    return found


def plan(alive: Mapping[Buffer, Lifetime]) -> int:
    """Give every buffer its `place`; returns how many bytes the arena has.

    The largest is placed first, each at the lowest place where it meets nothing that lives at the same time.
    """
    placed: list[Buffer] = []
    # sorted is stable: equal sizes keep the order of the program
    for buffer in sorted(alive, key=lambda entry: -entry.bytes):
        first, last = alive[buffer]
        met = sorted(
            (other for other in placed if alive[other][0] <= last and first <= alive[other][1]),
            key=lambda other: other.place,
        )
        place = 0
        for other in met:
            if place + buffer.bytes <= other.place:
                break
            place = max(place, _aligned(other.place + other.bytes))
        buffer.place = place
        placed.append(buffer)
    return max((_aligned(buffer.place + buffer.bytes) for buffer in placed), default=0)


def _aligned(place: int) -> int:
    return -(-place // ALIGNMENT) * ALIGNMENT
