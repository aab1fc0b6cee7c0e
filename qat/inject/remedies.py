"""What to write instead of an operation that has no integer form, by its canonical name."""

_BEHIND = "apply it to the network's outputs, behind the integers; inside the network use relu6 or hardtanh"
_ACTIVATION = "use relu, relu6 or hardtanh"
_NORM = "use batch norm, which folds into the layer before it"
_MOVE = "cut slices, and join them with torch.cat"

REMEDIES = {
    "sub": "add the second operand times -1",
    "rsub": "add the second operand times -1",
    "neg": "multiply by -1.0",
    "div": "multiply by the reciprocal",
    "sum": "use mean, and multiply by the count",
    "max": "use amax, which leaves the indices out",
    "softmax": _BEHIND,
    "log_softmax": _BEHIND,
    "sigmoid": _BEHIND,
    **dict.fromkeys(
        ("leaky_relu", "prelu", "elu", "selu", "celu", "gelu", "silu", "mish", "hardswish", "hardsigmoid", "softplus",
         "tanh", "abs"),
        _ACTIVATION,
    ),
    **dict.fromkeys(("layer_norm", "group_norm", "instance_norm", "rms_norm"), _NORM),
    **dict.fromkeys(("flip", "roll", "index", "index_select", "gather", "expand", "repeat", "tile"), _MOVE),
}  # fmt: skip


def remedy_for(name: str) -> str:
    """What to write instead of the operation called `name`."""
    return REMEDIES.get(name, "replace it, or quantize a sub-network (module=)")
