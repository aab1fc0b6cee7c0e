"""How values are written for people, one spelling for page, terminal and pictures."""

ABSENT = "–"

#: Metrics whose values in 0..1 read best as a percentage.
SHARES = ("acc", "accuracy", "top1", "top5", "f1", "precision", "recall", "auroc", "iou", "dice", "map")


def is_share(metric: str | None) -> bool:
    """Whether values of `metric` are shares of one."""
    return metric is not None and any(part in SHARES for part in metric.lower().replace("-", "_").split("_"))


def metric_text(metric: str | None, value: float | None) -> str:
    """98.61 % for an accuracy of 0.9861, four significant digits for anything else."""
    if value is None:
        return ABSENT
    return f"{100 * value:.2f} %" if is_share(metric) and abs(value) <= 1 else f"{value:.4g}"


def difference_text(metric: str | None, value: float | None, reference: float | None) -> str:
    """Signed difference from `reference`, in percentage points for shares."""
    if value is None or reference is None:
        return ABSENT
    if is_share(metric) and abs(value) <= 1:
        return f"{100 * (value - reference):+.2f} points"
    return f"{value - reference:+.4g}"


def bytes_text(count: float | None) -> str:
    """Bytes in decimal units: 512 B, 26.9 kB, 1.08 MB."""
    if count is None:
        return ABSENT
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= 0.9995 * size:  # what rounds to 1000 of the next smaller unit is 1 of this one
            return f"{count / size:.3g} {unit}"
    return f"{count:.0f} B"


def milliseconds_text(value: float | None) -> str:
    """Milliseconds with three significant digits."""
    return ABSENT if value is None else f"{value:.3g} ms"


def ratio_text(ratio: float | None) -> str:
    """7.43×"""
    return ABSENT if ratio is None else f"{ratio:.2f}×"


def decibel_text(value: float | None) -> str:
    """Decibels with one digit; the unit stands in the heading."""
    return ABSENT if value is None else f"{value:.1f}"


def share_text(value: float | None) -> str:
    """A share of one as a percentage with two digits."""
    return ABSENT if value is None else f"{100 * value:.2f} %"


def count_text(value: int | None) -> str:
    """An integer with thousands separated."""
    return ABSENT if value is None else f"{value:,}"


def abbreviate(path: str, length: int) -> str:
    """A module path of at most `length` characters: leading words shrink to their initial and number, then are cut.

    `encoder.layer12.attention.query` at 24 characters becomes `e.l12.attention.query`: the numbers and the last word
    say which layer it is.
    """
    words = path.split(".")
    for position, word in enumerate(words[:-1]):
        if len(".".join(words)) <= length:
            break
        number = word[len(word.rstrip("0123456789")) :]
        words[position] = number if number == word else word[:1] + number
    shortened = ".".join(words)
    return shortened if len(shortened) <= length else "…" + shortened[len(shortened) - length + 1 :]


def shorten(text: str, length: int) -> str:
    """At most `length` characters, cut in the middle."""
    if len(text) <= length:
        return text
    head = (length - 1) // 3
    return f"{text[:head]}…{text[len(text) - (length - 1 - head) :]}"
