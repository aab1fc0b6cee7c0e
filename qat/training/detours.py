"""Layers that are called without the network's forward around them: there nothing is quantized."""

from collections.abc import Callable

from torch.overrides import _get_current_function_mode_stack

from qat.inject.apply import QuantMode
from qat.inject.handle import Handle


class DetourWatch:
    """Collects in `found` the names of layers with quantized weights that run outside the forward of their network.

    For eager code, and for a few batches: it hooks into every such layer until `stop`.
    """

    def __init__(self, handle: Handle):
        self.handle = handle
        self.found: list[str] = []
        owners = {name.rpartition(".")[0] for name in handle.quantizers if handle.weight_of(name) is not None}
        owners.discard("")  # weights of the network itself, whose hooks run in front of its forward
        self._hooks = [
            handle.module.get_submodule(owner).register_forward_pre_hook(self._see(owner)) for owner in sorted(owners)
        ]

    def _see(self, owner: str) -> Callable[..., None]:
        def see(module, args) -> None:
            modes = _get_current_function_mode_stack()
            if not any(isinstance(mode, QuantMode) and mode.handle is self.handle for mode in modes):
                self.found.append(owner)

        return see

    def stop(self) -> list[str]:
        """Take the hooks off; returns the layers found, each once."""
        for hook in self._hooks:
            hook.remove()
        self._hooks = []
        return list(dict.fromkeys(self.found))
