"""Weights from a file into a network: a plain state dict, or a Lightning checkpoint. Never unpickles code."""

import pickle
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import nn

from qat.errors import CheckpointError
from qat.training.checkpoint_state import difference


def load_weights(network: nn.Module, path: str | Path, prefix: str = "network.") -> None:
    """Fill `network` with the weights in `path`.

    path: a state dict, or a Lightning `.ckpt`, whose keys begin with `prefix` (the attribute that held the network).
    Raises `CheckpointError`, naming what differs, unless keys and shapes are the network's (counts of batches seen by
    batch norm may be left out); the network is then as it was.
    """
    state = read_state_dict(path, "model.checkpoint=")
    if state and all(key.startswith(prefix) for key in state):
        state = {key.removeprefix(prefix): value for key, value in state.items()}
    _refuse_other(network, state, path, "model.checkpoint=")
    network.load_state_dict(network.state_dict() | state)


def check_resumable(module: nn.Module, path: str | Path) -> None:
    """Raise `CheckpointError` unless the Lightning checkpoint in `path` is whole and of `module`; nothing is loaded."""
    another = "go on from another checkpoint of that run (weights alone are for model.checkpoint=)"
    _refuse_other(module, read_state_dict(path, "resume=", another), path, "resume=")


def _refuse_other(network: nn.Module, state: Mapping[str, torch.Tensor], path: str | Path, setting: str) -> None:
    differing = difference(network.state_dict(), state)
    if differing:
        raise CheckpointError(
            f"the checkpoint {str(path)!r} is not of a {type(network).__name__}: it {differing}; "
            f"set {setting} to a file of this network."
        )


def read_state_dict(
    path: str | Path,
    setting: str = "model.checkpoint=",
    remedy: str = "save it anew with torch.save(network.state_dict(), path)",
) -> dict[str, torch.Tensor]:
    """The tensors by name in `path`. Raises `CheckpointError` if there is no such file or it holds anything else.

    setting: what gave the path, and remedy: what to do about a damaged file, for the errors.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"the checkpoint {str(path)!r} does not exist; set {setting} to a file.")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError, OSError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise CheckpointError(f"{str(path)!r} cannot be read as weights alone ({reason}); {remedy}.") from error
    state = content["state_dict"] if isinstance(content, Mapping) and "state_dict" in content else content
    if not isinstance(state, Mapping) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise CheckpointError(f"{str(path)!r} holds no state dict of tensors; {remedy}.")
    return dict(state)
