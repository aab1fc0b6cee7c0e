"""Python numbers that a network's code reads of tensors that depend on no input: the same in every eval forward.

Code branches on them (is this mask, which the forward made itself, a causal one?), and `torch.export` traces it on
tensors without contents. They are noted in eval forwards just before, and are the answers while it traces.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping

#: Operations that give a Python number or list for a tensor.
READING = frozenset("item bool int index tolist is_nonzero equal allclose contains".split())


class NotedReads:
    """What the code reads at `sites` in one forward. noted: site -> what it read there, in order."""

    def __init__(self, sites: frozenset[int]):
        self.sites = sites
        self.noted: dict[int, list] = defaultdict(list)

    def begin(self) -> None:
        """A forward begins."""
        self.noted.clear()

    def read(self, site: int, call: Callable[[], object]):
        """What the call at `site` gives."""
        result = call()
        if site in self.sites:
            self.noted[site].append(result)
        return result


class KnownReads:
    """Gives the code what is `known` by site, in order, without a look at the tensors."""

    def __init__(self, known: Mapping[int, list]):
        self.known = known
        self.begin()

    def begin(self) -> None:
        """A forward begins."""
        self.remaining = {site: iter(results) for site, results in self.known.items()}

    def read(self, site: int, call: Callable[[], object]):
        """What is known at `site`; where nothing is, what the call gives."""
        for result in self.remaining.get(site, ()):
            return result
        return call()


def agreed(first: Mapping[int, list], second: Mapping[int, list]) -> dict[int, list]:
    """The reads of two forwards that are the same in both."""
    return {site: results for site, results in first.items() if second.get(site) == results}
