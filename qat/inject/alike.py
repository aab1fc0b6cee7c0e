"""Another network made of the parts of a trained one, with the quantizers of that one.

A language model is trained on whole texts and generates one token at a time; an encoder may be wanted without the head
it was trained with. Such a network calls the same layers and so computes values on the same grids: what has a quantizer
in the trained network takes that one, so that both programs compute the same codes.
"""

import copy
from collections.abc import Mapping

from torch import nn

from qat.errors import PreparationError
from qat.inject.handle import Handle, handle_of
from qat.inject.prepare import prepare
from qat.inject.sites import Site


def prepare_alike(module: nn.Module, example_inputs, trained: nn.Module) -> Handle:
    """Prepare `module` with copies of the quantizers that the prepared network `trained` has now.

    Layers, and computations inside of them, correspond by their module path and order: `module` holds the parts of
    `trained` under the same names. example_inputs: as for `prepare`, of `module`.

    Raises `PreparationError` where a value of `module` has no quantizer in `trained`, or shares a grid with values that
    have different ones there.
    """
    source = handle_of(trained)
    if source is None:
        raise PreparationError(
            f"the trained network is a {type(trained).__name__} that is not prepared; pass the one that qat.prepare or "
            "QATCallback has prepared."
        )
    handle = prepare(module, example_inputs, source.config, source.target)
    try:
        names = counterparts(handle.plan.sites, source.plan.sites)
    except PreparationError:
        handle.remove()
        raise
    for name, counterpart in names.items():
        quantizer = copy.deepcopy(source.quantizers[counterpart])
        quantizer.name = name  # by which exported graphs know it
        handle.quantizers[name] = quantizer.train()
    handle.set_state(source.state)
    return handle


def counterparts(sites: Mapping[str, Site], trained: Mapping[str, Site]) -> dict[str, str]:
    """Quantizer of a network -> the one of the trained network that belongs to the same weight, or the same value."""
    owners = {maker: name for name, site in trained.items() for maker in site.makers}
    found = {name: _counterpart(site, owners, trained) for name, site in sites.items()}
    lacking = [name for name, counterpart in found.items() if counterpart is None]
    if lacking:
        raise PreparationError(
            f"the trained network has no quantizer for {', '.join(lacking[:5])}; build the network of its layers under "
            "the same names, and compute nothing else with them."
        )
    return found


def _counterpart(site: Site, owners: Mapping[str, str], trained: Mapping[str, Site]) -> str | None:
    if site.role == "weight":
        known = trained.get(site.name)
        alike = known is not None and (known.role, known.shape, known.axis) == (site.role, site.shape, site.axis)
        return site.name if alike else None
    shared = sorted({owners[maker] for maker in site.makers if maker in owners})
    if len(shared) > 1:
        raise PreparationError(
            f"{site.name} is one grid for values that the trained network has on {' and '.join(shared)}; join only "
            "values (torch.cat, torch.where) that are joined there too."
        )
    return shared[0] if shared else None
