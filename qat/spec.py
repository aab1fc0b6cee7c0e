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
#: How activations are treated: codes on grids that were observed before; codes of a range found at run time, for each
#: token; real numbers.
ACTIVATIONS = ("static", "dynamic", "float")
#: How files keep real numbers that have no codes.
STORAGES = ("float32", "float16")

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
        Either may be None: as the runtimes take it that `target` names (`qat.targets.config_for`); of weights True.
    granularity: one scale per tensor, per output channel, or per group of `group_size` weights of a channel.
    observer: which statistic sets an observed range; None: by width, `observer_for`.
        minmax: the smallest and the largest value ever seen. moving_average: the mean over batches of those of each.
        percentile: the range that holds all but a share of the values on either side. mse: the range of least squared
        error, both ends shrunk alike. histogram: the same, each end on its own.
    percentile: for that observer, the percentage of values that lie below the upper end, and above the lower one; None
        for 99.99.
    method: "observed" (range from the observer), "learned" (step size by gradient), None: by width, see
        `OBSERVED_FROM_BITS`.
    """

    bits: int = 8
    signed: bool | None = True
    symmetric: bool | None = True
    granularity: str = "per_tensor"
    group_size: int | None = None
    observer: str | None = None
    method: str | None = None
    percentile: float | None = None

    def __post_init__(self):
        check_bits(self.bits, "bits")
        for name in ("signed", "symmetric"):
            if getattr(self, name) is not None:
                _check_type(getattr(self, name), bool, name)
        _check_choice(self.granularity, GRANULARITIES, "granularity")
        if self.observer is not None:
            _check_choice(self.observer, OBSERVERS, "observer")
        self._check_percentile()
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

    def _check_percentile(self) -> None:
        if self.percentile is None:
            return
        if self.observer != "percentile":
            raise ConfigurationError(
                f"percentile is {self.percentile!r} with the observer {self.observer!r}; set observer='percentile'."
            )
        is_number = isinstance(self.percentile, int | float) and not isinstance(self.percentile, bool)
        if not (is_number and 50 < self.percentile <= 100):
            raise ConfigurationError(
                f"percentile is {self.percentile!r}; write a percentage above 50 and up to 100, for example 99.9."
            )

    def observer_for(self, role: str) -> str:
        """The statistic that sets an observed range. role: "weight" or "activation".

        Unless one is chosen: from `OBSERVED_FROM_BITS` on the extremes, of activations their moving average; below, the
        range of least squared error, since there clipping saves more than it costs.
        """
        if self.observer is not None:
            return self.observer
        if self.bits < OBSERVED_FROM_BITS:
            return "mse"
        return "minmax" if role == "weight" else "moving_average"

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

    @property
    def kind(self) -> str:
        """In words: "signed symmetric", "unsigned affine"."""
        return f"{'signed' if self.signed else 'unsigned'} {'symmetric' if self.symmetric else 'affine'}"

    def with_bits(self, bits: int) -> "QuantSpec":
        """The same grid at another width."""
        return dataclasses.replace(self, bits=bits)

    def settled(self, symmetric: bool) -> "QuantSpec":
        """The same grid with what it leaves open (None) decided: signed and symmetric, or unsigned and affine.

        Where only `signed` is open, a symmetric grid becomes a signed one.
        """
        symmetric = symmetric if self.symmetric is None else self.symmetric
        return dataclasses.replace(self, signed=symmetric if self.signed is None else self.signed, symmetric=symmetric)


WEIGHT = QuantSpec(granularity="per_channel")
ACTIVATION = QuantSpec(signed=None, symmetric=None)

#: Weights of a group where a preset has groups: a float16 scale then costs half a bit a weight.
GROUP_SIZE = 32
_PRESET = re.compile(r"w(\d+)(?:a(\d+)|-(?P<way>dynamic|weight-only))|fp16")


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

    weight, activation: the default grids. No weight grid (None) leaves the weights as they are.
    rules: exceptions; of several that match a layer the last one wins, setting by setting.
    edge_bits: the first and last layer (their weights, the network's inputs and outputs) keep at least this width
        unless a rule says otherwise; a network with several inputs or heads has one of each for every one.
    activations: "static", and the file is integer; "dynamic": layers with weights multiply 8-bit codes, whose range is
        that of each token when it comes, and everything else is real; "float": weights alone have codes.
    storage: how a file whose activations are not static keeps what has no codes; it computes in float32 in any case.
    """

    weight: QuantSpec | None = WEIGHT
    activation: QuantSpec = ACTIVATION
    rules: tuple[Rule, ...] = field(default=())
    edge_bits: int = EDGE_BITS
    activations: str = "static"
    storage: str = "float32"

    def __post_init__(self):
        _check_choice(self.activations, ACTIVATIONS, "activations")
        _check_choice(self.storage, STORAGES, "storage")
        if self.weight is not None:
            weight = as_kind(QuantSpec, self.weight, "weight")
            object.__setattr__(self, "weight", weight.settled(symmetric=True))
        object.__setattr__(self, "activation", as_kind(QuantSpec, self.activation, "activation"))
        if isinstance(self.rules, str | Mapping) or not isinstance(self.rules, Iterable):
            raise ConfigurationError(f"rules is {self.rules!r}; write a list of qat.Rule, empty for none.")
        object.__setattr__(self, "rules", tuple(as_kind(Rule, rule, "a rule") for rule in self.rules))
        check_bits(self.edge_bits, "edge_bits")
        self._check_activations()

    def _check_activations(self) -> None:
        """Refuse settings that say nothing, or contradict each other, for the way activations are treated."""
        if self.activations == "static":
            if self.weight is None:
                raise ConfigurationError("weight is None with static activations; give a grid, or activations='float'.")
            if self.storage != "float32":
                raise ConfigurationError(
                    f"storage is {self.storage!r}, but an integer file keeps no real numbers; leave it out, or choose "
                    "activations='dynamic' or 'float'."
                )
            return
        ruled = next((rule for rule in self.rules if rule.activation_bits is not None), None)
        if ruled is not None:
            raise ConfigurationError(
                f"the rule for {ruled.name!r} gives activation_bits, but activations are {self.activations!r}; leave "
                "them out, or choose activations='static'."
            )
        if self.weight is None:
            if self.activations == "dynamic" or self.rules:
                what = "dynamic activations" if self.activations == "dynamic" else "rules for layers"
                raise ConfigurationError(f"weight is None with {what}, which need weights on a grid; give one.")
            return
        if not (self.weight.signed and self.weight.symmetric) or self.weight.bits > 8:
            raise ConfigurationError(
                f"the weight grid has {self.weight.bits} bits, signed={self.weight.signed}, "
                f"symmetric={self.weight.symmetric}; with {self.activations} activations it is signed and symmetric, "
                "of at most 8 bits."
            )
        if self.activations == "dynamic" and self.weight.granularity == "per_group":
            raise ConfigurationError(
                "weight.granularity is 'per_group' with dynamic activations, whose sums of integers run over whole "
                "rows; use per_channel, or activations='float'."
            )

    @classmethod
    def parse(cls, quant: "str | QuantConfig") -> "QuantConfig":
        """A config from the name of a preset, or the config itself.

        "w4a8" is integers throughout; "w8-dynamic", "w4-weight-only" (groups of 32 weights) and "fp16" are not, see
        `activations`.
        """
        if isinstance(quant, QuantConfig):
            return quant
        match = _PRESET.fullmatch(quant) if isinstance(quant, str) else None
        widths = tuple(int(digits) for digits in match.groups()[:2] if digits) if match else ()
        way = match["way"] if match else None
        if not match or not all(width in WIDTHS for width in widths):
            raise ConfigurationError(
                f"unknown preset {quant!r}; write w<bits>a<bits> with 2 to 8 or 16 bits each, for example 'w4a8', or "
                "'w8-dynamic', 'w4-weight-only' or 'fp16', or pass a qat.QuantConfig."
            )
        if quant == "fp16":
            return cls(weight=None, activations="float", storage="float16")
        if way == "dynamic":
            return cls(weight=WEIGHT.with_bits(widths[0]), activations="dynamic", storage="float16")
        if way == "weight-only":
            weight = dataclasses.replace(WEIGHT, bits=widths[0], granularity="per_group", group_size=GROUP_SIZE)
            return cls(weight=weight, activations="float", storage="float16")
        return cls(weight=WEIGHT.with_bits(widths[0]), activation=ACTIVATION.with_bits(widths[1]))

    @property
    def is_integer(self) -> bool:
        """Whether a network of this config becomes an integer program."""
        return self.activations == "static"

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
        spec = getattr(self, what)
        if spec is None:
            raise ConfigurationError(f"{what} is None, so {name} has no {what} grid.")
        bits = spec.bits
        if edge:
            bits = max(bits, self.edge_bits)
        for rule in self.rules:
            ruled = getattr(rule, f"{what}_bits")
            if ruled is not None and rule.matches(name, type_names):
                bits = ruled
        return bits

    @property
    def name(self) -> str:
        """The short name, for example `w4a8`, `w8-dynamic`, `w4-weight-only` or `fp16`."""
        if self.weight is None:
            return {"float16": "fp16", "float32": "fp32"}[self.storage]
        if not self.is_integer:
            return f"w{self.weight.bits}-{'dynamic' if self.activations == 'dynamic' else 'weight-only'}"
        return f"w{self.weight.bits}a{self.activation.bits}"


def as_kind(kind: type, value, what: str):
    """`value` as a `kind`; a mapping, as a config file gives it, is turned into one."""
    if isinstance(value, kind):
        return value
    if isinstance(value, Mapping):
        known = [entry.name for entry in dataclasses.fields(kind)]
        for key in value:
            _check_choice(key, known, f"the setting of {what}")
        return kind(**value)
    raise ConfigurationError(f"{what} is {value!r}; expected a qat.{kind.__name__}.")
