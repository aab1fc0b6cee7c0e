"""What a runtime refuses of a program, in one sentence: layers with the same problem stand together."""

import re
from collections.abc import Iterable

#: Names in a refusal, "Conv 'features.3' (from features.3)": what differs between layers with the same problem.
_QUOTED = re.compile(r"'[^']*'")
_SOURCE = re.compile(r"\(from ([^)]*)\)")
_NAMES = re.compile(rf"{_QUOTED.pattern}| {_SOURCE.pattern}")


def in_one_sentence(runtime: str, refusals: Iterable[str]) -> str:
    """The refusals of `runtime`, each problem once, with every layer that has it."""
    groups: dict[str, list[str]] = {}
    for refusal in refusals:
        groups.setdefault(_NAMES.sub("", refusal), []).append(refusal.rstrip("."))
    return f"{runtime} cannot run this network: {'; '.join(map(_together, groups.values()))}."


def _together(same: list[str]) -> str:
    first, *others = same
    layers = list(dict.fromkeys(_layer(other) for other in others))
    return f"{first} (and so {', '.join(layers)})" if layers else first


def _layer(refusal: str) -> str:
    """The module that a refusal is about, or the operation where it names none."""
    source, quoted = _SOURCE.search(refusal), _QUOTED.search(refusal)
    return source.group(1) if source else quoted.group(0).strip("'") if quoted else refusal
