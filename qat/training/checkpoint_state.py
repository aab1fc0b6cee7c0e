"""What a checkpoint keeps of quantization, beside the module's own keys; plain values, so that it loads safely."""

import dataclasses
from collections.abc import Mapping

from torch import nn

from qat.errors import CheckpointError
from qat.inject.handle import Handle
from qat.schedule import QuantState
from qat.training.history import History
from qat.training.scale_optimizer import ScaleOptimizer

#: Version of what `packed` returns.
STATE_VERSION = 1

#: A counter of batch norm that files from before torch 0.4.1 do not have and that evaluation never reads.
BATCH_COUNT = "num_batches_tracked"

#: How many keys an error names of each kind.
NAMED_KEYS = 5


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


def refuse_other_module(module: nn.Module, state: Mapping, what: str) -> None:
    """Raise `CheckpointError` where restoring `module` from the state dict `state` would fail; nothing is restored.

    what: the checkpoint in words. Parts that have their own way to read a state dict (metrics, lazy layers, old names
    told by a hook) are left to it.
    """
    if type(module).load_state_dict is not nn.Module.load_state_dict or "load_state_dict" in module.__dict__:
        return
    own_ways = tuple(f"{name}." if name else "" for name, part in module.named_modules() if _reads_its_own_way(part))
    differing = difference(
        {key: value for key, value in module.state_dict().items() if not key.startswith(own_ways)},
        {key: value for key, value in state.items() if not key.startswith(own_ways)},
    )
    if differing:
        raise CheckpointError(
            f"{what} is not of this {type(module).__name__}: it {differing}; "
            "pass a checkpoint of the same module, made with the same arguments."
        )


def difference(own: Mapping, found: Mapping) -> str:
    """What sets the state dict `found` apart from `own`, in names and shapes; empty where nothing does."""
    sentences = [
        _named("misses", [key for key in own if key not in found and not key.endswith(BATCH_COUNT)]),
        _named("has besides", [key for key in found if key not in own]),
        _named(
            "has another shape for",
            [
                f"{key} {_shape(found[key])} instead of {_shape(own[key])}"
                for key in own
                if key in found and _shape(found[key]) != _shape(own[key])
            ],
        ),
    ]
    return " and ".join(filter(None, sentences))


def _reads_its_own_way(part: nn.Module) -> bool:
    owner = type(part)._load_from_state_dict.__module__
    return bool(
        part._load_state_dict_pre_hooks or part._load_state_dict_post_hooks or owner.partition(".")[0] != "torch"
    )


def _shape(entry) -> tuple[int, ...]:
    """Of a tensor; any other state that a module keeps has none to compare."""
    return tuple(getattr(entry, "shape", ()))


def _named(verb: str, keys: list[str]) -> str:
    if not keys:
        return ""
    more = f" and {len(keys) - NAMED_KEYS} more" if len(keys) > NAMED_KEYS else ""
    return f"{verb} {', '.join(keys[:NAMED_KEYS])}{more}"


def _bits(handle: Handle) -> dict[str, int]:
    return {name: quantizer.spec.bits for name, quantizer in handle.quantizers.items()}
