"""Names of a program as identifiers of C, each once."""

import re

#: What C99 and <stdint.h> keep for themselves, and what the functions of a source call their own.
RESERVED = frozenset(
    """
    auto break case char const continue default do double else enum extern float for goto if inline int long register
    restrict return short signed sizeof static struct switch typedef union unsigned void volatile while main
    arena arena_bytes errno stdin stdout stderr
    """.split()
)
#: Longest identifier made of a name; longer ones end here.
_LONGEST = 48


def identifier(name: str) -> str:
    """`name` with letters, digits and _ alone, beginning with a letter."""
    made = re.sub(r"[^A-Za-z0-9]+", "_", name).strip("_")[:_LONGEST].rstrip("_")
    return made if made[:1].isalpha() else f"x{made}" if made else "x"


class Names:
    """Hands out identifiers that nothing else has."""

    def __init__(self, taken: frozenset[str] = RESERVED) -> None:
        self._taken = set(taken)

    def claim(self, name: str) -> str:
        """An identifier for `name`, with a number behind it where another name makes the same one."""
        wanted = made = identifier(name)
        count = 2
        while made in self._taken:
            made = f"{wanted}_{count}"
            count += 1
        self._taken.add(made)
        return made
