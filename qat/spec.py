"""What is quantized, and how: frozen values, checked where they are written.

A `QuantSpec` describes one grid, a `QuantConfig` the grids of a whole network, a `Rule` an exception for some layers.
"""

import dataclasses
import difflib
import fnmatch
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from qat.errors import ConfigurationError

WIDTHS = (2, 3, 4, 5, 6, 7, 8, 16)
GRANULARITIES = ("per_tensor", "per_channel", "per_group")
OBSERVERS = ("minmax", "moving_average", "percentile", "mse", "histogram")
METHODS = ("observed", "learned")

#: From this width on ranges are observed, below it the step size is learned: at 8 bits the two train to the same
#: accuracy and observing costs half as much; at 4 bits and fewer a learned step wins (LSQ, arXiv:1902.08153).
OBSERVED_FROM_BITS = 8

#: The first and the last layer of a network keep at least this width, as every published result below 8 bits does.
EDGE_BITS = 8


def check_bits(bits: int, what: str) -> int:
    """Return `bits` if a grid can have that width, else raise `ConfigurationError` naming `what`."""
    if isinstance(bits, bool) or not isinstance(bits, int) or bits not in WIDTHS:
        raise ConfigurationError(f"{what} is {bits!r}; a width is one of 2 to 8 or 16 bits.")
    return bits


def _check_choice(value, choices: Iterable[str], what: str) -> None:
    if value not in choices:
        near = difflib.get_close_matches(str(value), list(choices), n=1)
        hint = f" (did you mean {near[0]!r}?)" if near else ""
        raise ConfigurationError(f"{what} is {value!r}{hint}; choose one of {', '.join(choices)}.")


def _check_type(value, kind: type, what: str) -> None:
    """Refuse what a config file or a slip of the hand gives instead: "no" for False, a class for its name."""
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        wanted = {bool: "True or False", int: "a whole number", str: "a text"}[kind]
        raise ConfigurationError(f"{what} is {value!r}; write {wanted}.")


@dataclass(frozen=True)
class QuantSpec:
    """One integer grid: `real = scale * (code - zero_point)`, or `scale * (code + 1/2)` where `midrise`.

    bits: width of a code, 2 to 8 or 16.
    signed: codes run from negative to positive, else from 0.
    symmetric: zero_point is 0 (signed) or fixed by the sign; otherwise affine, the zero_point is chosen.
    granularity: one scale per tensor, per output channel, or per group of `group_size` weights of a channel.
    observer: which statistic sets the range; one of minmax, moving_average, percentile, mse, histogram.
    method: "observed" (range from the observer), "learned" (step size by gradient), None: by width, see
        `OBSERVED_FROM_BITS`.
    """

    bits: int = 8
    signed: bool = True
    symmetric: bool = True
    granularity: str = "per_tensor"
    group_size: int | None = None
    observer: str = "minmax"
    method: str | None = None

    def __post_init__(self):
        check_bits(self.bits, "bits")
        _check_type(self.signed, bool, "signed")
        _check_type(self.symmetric, bool, "symmetric")
        _check_choice(self.granularity, GRANULARITIES, "granularity")
        _check_choice(self.observer, OBSERVERS, "observer")
        if self.method is not None:
            _check_choice(self.method, METHODS, "method")
        if (self.granularity == "per_group") != (self.group_size is not None):
            raise ConfigurationError(
                f"granularity {self.granularity!r} with group_size {self.group_size!r}: per_group needs a group_size, "
                "and only per_group takes one."
            )
        if self.group_size is not None:
            _check_type(self.group_size, int, "group_size")
            if self.group_size < 1:
                raise ConfigurationError(f"group_size is {self.group_size}; a group holds at least one weight.")

    @property
    def midrise(self) -> bool:
        """Levels at odd half steps (-3/2, -1/2, 1/2, 3/2), none at zero: symmetric signed grids of 2 bits.

        A 2-bit grid with a zero has either three levels or unequal sides; measured on CIFAR-10 ResNet-20, the four
        symmetric levels gave 88.4 % where -2..1 collapsed to 68.3 %.
        """
        return self.signed and self.symmetric and self.bits == 2

    @property
    def quant_min(self) -> int:
        """Smallest code. Symmetric signed grids leave out the most negative code, so that a sign flip stays inside."""
        if not self.signed:
            return 0
        if self.symmetric and not self.midrise:
            return -(2 ** (self.bits - 1)) + 1
        return -(2 ** (self.bits - 1))

    @property
    def quant_max(self) -> int:
        """Largest code."""
        return 2 ** (self.bits - 1) - 1 if self.signed else 2**self.bits - 1

    @property
    def learned(self) -> bool:
        """Whether the step size is trained by gradient."""
        return self.method == "learned" or (self.method is None and self.bits < OBSERVED_FROM_BITS)

    def with_bits(self, bits: int) -> "QuantSpec":
        """The same grid at another width."""
        return dataclasses.replace(self, bits=bits)


WEIGHT = QuantSpec(granularity="per_channel", observer="minmax")
ACTIVATION = QuantSpec(signed=False, symmetric=False, observer="moving_average")


@dataclass(frozen=True)
class Rule:
    """An exception for the layers whose name matches the glob `name` and whose class is called `type`.

    A layer that a network calls again is numbered, `layer#2`; a rule for `layer` means every call of it.
    weight_bits, activation_bits: width of the layer's weights and of its output activation; None leaves the default.
    quantize: False leaves the layer in float: each of its operations is then a float island between the integers of the
        exported file, which is no integer file; values between two islands have codes as well. True takes it back in.
    """

    name: str = "*"
    type: str | None = None
    weight_bits: int | None = None
    activation_bits: int | None = None
    quantize: bool | None = None

    def __post_init__(self):
        _check_type(self.name, str, "the name of a rule")
        if self.type is not None:
            _check_type(self.type, str, f"the type of the rule for {self.name!r}")
        if self.quantize is not None:
            _check_type(self.quantize, bool, f"quantize of the rule for {self.name!r}")
        if self.weight_bits is not None:
            check_bits(self.weight_bits, f"weight_bits of the rule for {self.name!r}")
        if self.activation_bits is not None:
            check_bits(self.activation_bits, f"activation_bits of the rule for {self.name!r}")
        if self.quantize is None and self.weight_bits is None and self.activation_bits is None:
            raise ConfigurationError(
                f"the rule for {self.name!r} changes nothing; give weight_bits, activation_bits or quantize=False."
            )

    def matches(self, name: str, type_names: Iterable[str]) -> bool:
        """Whether the layer `name`, whose class and base classes are called `type_names`, falls under this rule."""
        named = any(fnmatch.fnmatchcase(each, self.name) for each in (name, name.partition("#")[0]))
        return named and (self.type is None or self.type in type_names)


@dataclass(frozen=True)
class QuantConfig:
    """The grids of a whole network.

    weight, activation: the default grids.
    rules: exceptions; of several that match a layer the last one wins, setting by setting.
    edge_bits: the first and last layer (their weights, the network's inputs and outputs) keep at least this width
        unless a rule says otherwise; a network with several inputs or heads has one of each for every one.
    """

    weight: QuantSpec = WEIGHT
    activation: QuantSpec = ACTIVATION
    rules: tuple[Rule, ...] = field(default=())
    edge_bits: int = EDGE_BITS

    def __post_init__(self):
        object.__setattr__(self, "weight", _as(QuantSpec, self.weight, "weight"))
        object.__setattr__(self, "activation", _as(QuantSpec, self.activation, "activation"))
        if isinstance(self.rules, str | Mapping) or not isinstance(self.rules, Iterable):
            raise ConfigurationError(f"rules is {self.rules!r}; write a list of qat.Rule, empty for none.")
        object.__setattr__(self, "rules", tuple(_as(Rule, rule, "a rule") for rule in self.rules))
        check_bits(self.edge_bits, "edge_bits")

    @classmethod
    def parse(cls, quant: "str | QuantConfig") -> "QuantConfig":
        """A config from a preset name like `w4a8`, or the config itself."""
        if isinstance(quant, QuantConfig):
            return quant
        match = re.fullmatch(r"w(\d+)a(\d+)", quant) if isinstance(quant, str) else None
        widths = tuple(int(digits) for digits in match.groups()) if match else ()
        if not match or not all(width in WIDTHS for width in widths):
            raise ConfigurationError(
                f"unknown preset {quant!r}; write w<bits>a<bits> with 2 to 8 or 16 bits each, for example 'w4a8', "
                "or pass a qat.QuantConfig."
            )
        return cls(weight=WEIGHT.with_bits(widths[0]), activation=ACTIVATION.with_bits(widths[1]))

    def weight_bits_of(self, name: str, type_names: Iterable[str], edge: bool) -> int:
        """Width of the weights of one layer. edge: it is the network's first or last one."""
        return self._bits_of("weight", name, tuple(type_names), edge)

    def activation_bits_of(self, name: str, type_names: Iterable[str], edge: bool) -> int:
        """Width of the output of one layer. edge: it is an input or output of the network."""
        return self._bits_of("activation", name, tuple(type_names), edge)

    def quantizes(self, name: str, type_names: Iterable[str]) -> bool:
        """Whether the layer is quantized at all."""
        type_names = tuple(type_names)
        decisions = [
            rule.quantize for rule in self.rules if rule.quantize is not None and rule.matches(name, type_names)
        ]
        return decisions[-1] if decisions else True

    def check_rules(self, layers: Mapping[str, tuple[str, ...]]) -> None:
        """Refuse a rule that matches no layer. layers: name -> names of its class and base classes."""
        for rule in self.rules:
            if any(rule.matches(name, types) for name, types in layers.items()):
                continue
            own = sorted({types[0] for types in layers.values() if types})
            if rule.type and not any(rule.type in types for types in layers.values()):
                raise ConfigurationError(
                    f"the rule for {rule.name!r} of type {rule.type} matches no layer; the types here are "
                    f"{', '.join(own)}."
                )
            near = difflib.get_close_matches(rule.name, list(layers), n=3, cutoff=0.4) or list(layers)[:3]
            of_type = f" of type {rule.type}" if rule.type else ""
            raise ConfigurationError(
                f"the rule for {rule.name!r}{of_type} matches no layer; the nearest names are {', '.join(near)}."
            )

    def _bits_of(self, what: str, name: str, type_names: tuple[str, ...], edge: bool) -> int:
        bits = getattr(self, what).bits
        if edge:
            bits = max(bits, self.edge_bits)
        for rule in self.rules:
            ruled = getattr(rule, f"{what}_bits")
            if ruled is not None and rule.matches(name, type_names):
                bits = ruled
        return bits

    @property
    def name(self) -> str:
        """The short name, for example `w4a8`."""
        return f"w{self.weight.bits}a{self.activation.bits}"


def _as(kind: type, value, what: str):
    """`value` as a `kind`; a mapping, as a config file gives it, is turned into one."""
    if isinstance(value, kind):
        return value
    if isinstance(value, Mapping):
        known = [entry.name for entry in dataclasses.fields(kind)]
        for key in value:
            _check_choice(key, known, f"the setting of {what}")
        return kind(**value)
    raise ConfigurationError(f"{what} is {value!r}; expected a qat.{kind.__name__}.")
