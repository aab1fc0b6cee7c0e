"""Names of a program as identifiers of C, each once."""

import re

#: Words of C99 and of C++, which may include the header; names of <stdint.h>; what headers and sources call their own.
RESERVED = frozenset(
    """
    auto break case char const continue default do double else enum extern float for goto if inline int long register
    restrict return short signed sizeof static struct switch typedef union unsigned void volatile while main
    and asm bitand bitor bool catch class compl delete explicit export false friend mutable namespace new not operator
    or private protected public template this throw true try typeid typename using virtual xor
    int8_t int16_t int32_t int64_t uint8_t uint16_t uint32_t uint64_t size_t uintptr_t errno stdin stdout stderr
    arena arena_bytes memory constant error has cumulate embed index_sum index_product rows_of walk_on
    """.split()
)
#: Names of kernels end with the types that they are for.
_KERNEL = re.compile(r"_(?:[us](?:8|16)|s32|s64)$")
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
        while made in self._taken or _KERNEL.search(made):
            made = f"{wanted}_{count}"
            count += 1
        self._taken.add(made)
        return made

    def claim_with(self, name: str, suffix: str) -> str:
        """An identifier that nothing has, neither alone nor with `suffix` behind it."""
        made = self.claim(name)
        while self.claim(made + suffix) != made + suffix:
            made = self.claim(name)
        return made
