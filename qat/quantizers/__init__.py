"""Fake quantizers: modules that round a tensor to its integer grid while a network trains."""

import dataclasses

from qat.errors import ConfigurationError
from qat.quantizers.base import FakeQuantize, QuantizationParameters
from qat.quantizers.learned import LearnedFakeQuantize
from qat.quantizers.observed import ObservedFakeQuantize
from qat.spec import QuantSpec

__all__ = [
    "FakeQuantize",
    "LearnedFakeQuantize",
    "ObservedFakeQuantize",
    "QuantizationParameters",
    "make_fake_quantize",
]

ROLES = ("weight", "activation")
#: From this width on unsigned codes need a type of their own, which runtimes of signed symmetric grids do not have.
INT8_BITS = 8


def make_fake_quantize(
    spec: QuantSpec,
    *,
    name: str,
    role: str,
    shape: tuple[int, ...] | None = None,
    axis: int | None = None,
    nonnegative: bool = False,
) -> FakeQuantize:
    """A fake quantizer for `spec` at its final width.

    role: "weight" or "activation". shape, axis: of the tensor and its channels; needed for one scale per channel or
    group. nonnegative: the values are never below 0 (after relu), so an affine grid becomes an unsigned one with zero
    point 0; so does a symmetric one of fewer than 8 bits, whose codes fit the same int8 then. Raises
    `ConfigurationError` for a spec that this tensor cannot have.
    """
    if role not in ROLES:
        raise ConfigurationError(f"the role of {name} is {role!r}; choose one of {', '.join(ROLES)}.")
    spec = _decided(spec, name, role, nonnegative)
    kind = LearnedFakeQuantize if spec.learned else ObservedFakeQuantize
    if spec.granularity == "per_tensor":
        axis = None
    return kind(spec, name=name, role=role, scale_shape=_scale_shape(spec, name, shape, axis), axis=axis)


def _decided(spec: QuantSpec, name: str, role: str, nonnegative: bool) -> QuantSpec:
    """`spec` with its signedness settled for these values."""
    if role == "weight":
        if not spec.signed and spec.symmetric:
            raise ConfigurationError(
                f"the weight {name} has an unsigned symmetric grid, which holds no negative value; set signed=True."
            )
        return spec
    fits_int8 = spec.bits < INT8_BITS
    if nonnegative and (fits_int8 or not (spec.signed and spec.symmetric)):
        return dataclasses.replace(spec, signed=False, symmetric=True)
    if not spec.signed:
        return dataclasses.replace(spec, signed=False, symmetric=False)
    return spec


def _scale_shape(spec: QuantSpec, name: str, shape: tuple[int, ...] | None, axis: int | None) -> tuple[int, ...]:
    if spec.granularity == "per_tensor":
        return ()
    if shape is None or axis is None or not -len(shape) <= axis < len(shape):
        raise ConfigurationError(
            f"{name} is quantized {spec.granularity} but has shape {shape} and axis {axis}; give both, "
            "or use per_tensor."
        )
    channels = shape[axis]
    if spec.group_size is None:
        return (channels,)
    inputs = 1
    for size in shape:
        inputs *= size
    inputs //= channels
    return (channels, -(-inputs // spec.group_size))
