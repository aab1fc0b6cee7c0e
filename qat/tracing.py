"""Whether torch is tracing what runs, and tracing that the code of a network does not see.

Code of libraries asks torch whether it is being compiled or exported, and computes something else then: masks that it
would leave out of the eager forward, and what it makes of them. A graph traced with those answers is another
computation than the eval forward, on a grid made for that one.
"""

import contextlib

import torch

#: What torch's own questions (`torch.compiler.is_compiling`, `is_exporting` and all that are made of them) answer with.
_TORCH_FLAGS = ("_is_compiling_flag", "_is_exporting_flag")

_exporting = False


def is_exporting() -> bool:
    """Whether `torch.export` traces this code for lowering, which shows quantizers as markers.

    Dynamo is asked first: while it compiles, some versions of torch (2.11) say that they export, too.
    """
    return not torch.compiler.is_dynamo_compiling() and (_exporting or torch.compiler.is_exporting())


def is_traced() -> bool:
    """Whether this code is compiled or exported, so that it cannot look at the contents of tensors or at its frames."""
    return torch.compiler.is_compiling() or is_exporting()


@contextlib.contextmanager
def unseen_by_the_network():
    """Inside of an export: torch answers the network that nothing is traced, and `is_exporting` that it is."""
    global _exporting
    before = {flag: getattr(torch.compiler, flag) for flag in _TORCH_FLAGS}
    own, _exporting = _exporting, True
    try:
        for flag in _TORCH_FLAGS:
            setattr(torch.compiler, flag, False)
        yield
    finally:
        _exporting = own
        for flag, value in before.items():
            setattr(torch.compiler, flag, value)
