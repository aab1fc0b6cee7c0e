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

    Buffers are placed one after another, each at the lowest place where it meets nothing that lives at the same time.
    No order is the best for every program, so a few are tried: the largest first, the longest lived, as they come.
    """
    orders = (
        lambda buffer: -buffer.bytes,
        lambda buffer: (alive[buffer][0] - alive[buffer][1], -buffer.bytes),
        lambda buffer: (alive[buffer][0], -buffer.bytes),
    )
    # sorted is stable: equals keep the order of the program
    tried = [_placed(sorted(alive, key=order), alive) for order in orders]
    best = min(tried, key=lambda places: _extent(places))
    for buffer, place in best.items():
        buffer.place = place
    return _extent(best)


def _placed(buffers: Sequence[Buffer], alive: Mapping[Buffer, Lifetime]) -> dict[Buffer, int]:
    """A place for each buffer, in this order."""
    places: dict[Buffer, int] = {}
    for buffer in buffers:
        first, last = alive[buffer]
        met = [other for other in places if alive[other][0] <= last and first <= alive[other][1]]
        place = 0
        for other in sorted(met, key=places.__getitem__):
            if place + buffer.bytes <= places[other]:
                break
            place = max(place, _aligned(places[other] + other.bytes))
        places[buffer] = place
    return places


def _extent(places: Mapping[Buffer, int]) -> int:
    return max((_aligned(place + buffer.bytes) for buffer, place in places.items()), default=0)


def _aligned(place: int) -> int:
    return -(-place // ALIGNMENT) * ALIGNMENT
