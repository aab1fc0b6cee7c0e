"""What a checkpoint keeps of quantization, beside the module's own keys; plain values, so that it loads safely."""

import dataclasses
from collections.abc import Mapping

from qat.errors import CheckpointError
from qat.inject.handle import Handle
from qat.schedule import QuantState
from qat.training.history import History
from qat.training.scale_optimizer import ScaleOptimizer

#: Version of what `packed` returns.
STATE_VERSION = 1


def packed(handle: Handle, optimizer: ScaleOptimizer, history: History, advised: bool) -> dict:
    """The quantizers' state, what they were made for, the scales' optimizer, the history, and what was said already."""
    return {
        "version": STATE_VERSION,
        "quant": handle.config.name,
        "bits": _bits(handle),
        "state": dataclasses.asdict(handle.state),
        "quantizers": handle.state_dict(),
        "optimizer": optimizer.state_dict(),
        "history": history.entries,
        "advised": advised,
    }


def unpack(packed_state: Mapping, handle: Handle, optimizer: ScaleOptimizer) -> tuple[History, bool]:
    """Put what `packed` returned into force; returns the history and what was said already.

    Raises `CheckpointError` where it belongs to another version, another width or another network.
    """
    version = packed_state.get("version")
    if version != STATE_VERSION:
        raise CheckpointError(
            f"the checkpoint's quantizers have version {version}, this code reads {STATE_VERSION}; use the qat that "
            "wrote it."
        )
    was, now = packed_state["bits"], _bits(handle)
    different = [name for name in now if name in was and was[name] != now[name]]
    if different:
        name = different[0]
        raise CheckpointError(
            f"the checkpoint was trained as {packed_state['quant']}, with {name} at {was[name]} bits, and this run is "
            f"{handle.config.name}, with {now[name]}; use the same quant=, or start from its weights alone."
        )
    handle.load_state_dict(packed_state["quantizers"])
    handle.set_state(QuantState(**packed_state["state"]))
    optimizer.load_state_dict(packed_state["optimizer"])
    return History(list(packed_state["history"])), packed_state["advised"]


def state_in(checkpoint: Mapping, key: str, alone: bool) -> dict | None:
    """The packed state that a checkpoint keeps under `key`, None where it was trained in float.

    alone: there is one callback of this kind. It takes the only such state there is, whatever its key: the network may
    have been named by then, or be named no more.
    """
    states = checkpoint.get("callbacks", {})
    if states.get(key):
        return states[key]
    found = [state for state in states.values() if isinstance(state, Mapping) and "quantizers" in state]
    return found[0] if alone and len(found) == 1 else None


def _bits(handle: Handle) -> dict[str, int]:
    return {name: quantizer.spec.bits for name, quantizer in handle.quantizers.items()}
