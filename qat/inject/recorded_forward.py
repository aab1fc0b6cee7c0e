"""The forward that is recorded: how it runs, which module runs in it, and what to say where it fails."""

import contextlib

from torch import nn
from torch.backends import mha
from torch.overrides import TorchFunctionMode

from qat.errors import PreparationError, QATError
from qat.inject import addresses
from qat.inject.inputs import in_words, tensors_of


def recorded_forward(mode: TorchFunctionMode, module: nn.Module, args: tuple, kwargs: dict):
    """The module's own forward under `mode`; chains of code positions end at this frame.

    Raises `PreparationError` where the network itself fails on these inputs.
    """
    fast_path = mha._is_fastpath_enabled
    try:
        mha._is_fastpath_enabled = False  # as in `handle.quantized_forward`
        with mode:
            return module.forward(*args, **kwargs)
    except QATError:
        raise
    except Exception as error:
        reason = (str(error).strip().splitlines() or ["no reason given"])[0].rstrip(".")
        given = " and ".join(in_words(leaf) for leaf in tensors_of((args, kwargs)))
        raise PreparationError(
            f"{type(module).__name__}.forward fails on the example inputs, {given} ({type(error).__name__}: {reason}); "
            "pass inputs as the network gets them, in QATCallback(example_inputs=...) or qat.prepare(module, inputs)."
        ) from error
    finally:
        mha._is_fastpath_enabled = fast_path


addresses.mark_root(recorded_forward.__code__)


class RunningModules:
    """The paths of the modules that run, the innermost last; "" is the network itself."""

    def __init__(self, module: nn.Module):
        self.module = module
        self.names = {id(part): name for name, part in module.named_modules()}
        self.clear()

    def clear(self) -> None:
        """Begin a forward of the network, wherever the last one ended."""
        self.paths: list[str] = [""]

    @property
    def innermost(self) -> str:
        """The path of the module whose own code runs."""
        return self.paths[-1]

    @contextlib.contextmanager
    def watching(self):
        """Follow the modules' calls, while inside."""
        handles = []
        for part in self.module.modules():
            if part is not self.module:
                handles.append(part.register_forward_pre_hook(self._enter))
                handles.append(part.register_forward_hook(self._leave, always_call=True))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _enter(self, part, inputs):
        self.paths.append(self.names[id(part)])

    def _leave(self, part, inputs, outputs):
        self.paths.pop()
