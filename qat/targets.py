"""What each runtime can run, so that a scheme it cannot run is refused before training and not at the end."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

from qat.errors import ConfigurationError
from qat.spec import WIDTHS, QuantConfig, QuantSpec

#: What `target=` takes: a runtime, several that shall all run the network, or None to simulate only.
TargetName = str | Sequence[str] | None


@dataclass(frozen=True)
class Target:
    """One runtime, or what several have in common.

    runtimes: which; the network is trained with the rounding of the first. operations: canonical names of the
    operations that have an integer form there. max_weight_bits, max_activation_bits: widest grid with a kernel.
    max_sum_bits: widest grid that a rule may give a value between additions, norms and linear layers (`inject.wide`).
    granularities: of the weights. symmetric_activations: whether activations have zero point 0 and a sign.
    symmetric_above: widest activations that need not have them, where not all do.
    takes_real: whether it also runs files that are not integer, whose activations are dynamic or float.
    """

    runtimes: tuple[str, ...]
    operations: frozenset[str]
    max_weight_bits: int
    max_activation_bits: int
    max_sum_bits: int
    granularities: tuple[str, ...]
    symmetric_activations: bool = False
    symmetric_above: int = max(WIDTHS)
    takes_real: bool = False

    @property
    def name(self) -> str:
        """The runtimes in words, "onnxruntime and litert"."""
        return " and ".join(self.runtimes)

    def common(self, other: "Target") -> "Target":
        """What both can run."""
        return Target(
            runtimes=self.runtimes + other.runtimes,
            operations=self.operations & other.operations,
            max_weight_bits=min(self.max_weight_bits, other.max_weight_bits),
            max_activation_bits=min(self.max_activation_bits, other.max_activation_bits),
            max_sum_bits=min(self.max_sum_bits, other.max_sum_bits),
            granularities=tuple(kind for kind in self.granularities if kind in other.granularities),
            symmetric_activations=self.symmetric_activations or other.symmetric_activations,
            symmetric_above=min(self.symmetric_above, other.symmetric_above),
            takes_real=self.takes_real and other.takes_real,
        )

    def config(self, quant: str | QuantConfig) -> QuantConfig:
        """The config that `quant` is here: with activations as this target takes them, where it leaves that open."""
        config = QuantConfig.parse(quant)
        return _settled(config, symmetric=self._needs_symmetric(config.activation))

    def check(self, config: QuantConfig) -> None:
        """Refuse a config with a grid that this runtime has no kernel for."""
        if not config.is_integer:
            if not self.takes_real:
                raise ConfigurationError(
                    f"activations are {config.activations!r}, but {self._verb('run')} integer files only; use "
                    "activations='static', or target='onnxruntime'."
                )
            return
        self._check_spec(config.weight, "weight", self.max_weight_bits)
        self._check_spec(config.activation, "activation", self.max_activation_bits)
        for rule in config.rules:
            if rule.activation_bits is not None and config.activation.with_bits(rule.activation_bits).midrise:
                self._check_spec(config.activation.with_bits(rule.activation_bits), "activation", rule.activation_bits)
            for bits, what, most in (
                (rule.weight_bits, "weight", self.max_weight_bits),
                (rule.activation_bits, "activation", max(self.max_sum_bits, config.activation.bits)),
            ):
                if bits is not None and bits > most:
                    raise ConfigurationError(
                        f"the rule for {rule.name!r} asks for {bits} {what} bits, but {self._verb('have')} integer "
                        f"kernels up to {most} bits; use {most} or fewer, or target=None to train without export."
                    )

    def _verb(self, plural: str) -> str:
        """The runtimes and what they do: "litert needs", "onnxruntime and litert need"."""
        singular = "has" if plural == "have" else f"{plural}s"
        return f"{self.name} {singular if len(self.runtimes) == 1 else plural}"

    def _needs_symmetric(self, spec: QuantSpec) -> bool:
        return self.symmetric_activations or spec.bits > self.symmetric_above

    def _check_spec(self, spec: QuantSpec, what: str, most: int) -> None:
        if spec.bits > most:
            raise ConfigurationError(
                f"{what}.bits is {spec.bits}, but {self._verb('have')} integer kernels up to {most} bits; use {most} "
                "or fewer, or target=None to train without export."
            )
        if what == "weight" and (not spec.symmetric or not spec.signed):
            raise ConfigurationError(
                f"the weight grid is {spec.kind}, but {self._verb('need')} signed symmetric weights; set "
                "weight.signed=True, weight.symmetric=True."
            )
        if what == "activation" and self._needs_symmetric(spec) and not (spec.signed and spec.symmetric):
            raise ConfigurationError(
                f"the activation grid is {spec.kind}, but {self._verb('need')} signed symmetric activations"
                f"{'' if self.symmetric_activations else f' above {self.symmetric_above} bits'}; leave "
                "activation.signed and activation.symmetric open (None, null in a recipe), or set both to True."
            )
        if what == "activation" and spec.midrise:
            remedy = "" if self._needs_symmetric(spec) else ", or signed=False, symmetric=False"
            raise ConfigurationError(
                f"the activation grid is signed and symmetric with 2 bits, whose levels at odd half steps "
                f"{self._verb('have')} no kernel for; use 3 bits or more{remedy}."
            )
        allowed = self.granularities if what == "weight" else ("per_tensor",)
        if spec.granularity not in allowed:
            raise ConfigurationError(
                f"{what}.granularity is {spec.granularity!r}, but {self._verb('have')} integer kernels for "
                f"{' and '.join(allowed)} only; use one of these, or target=None to train without export."
            )


_COMPUTED = """
    conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d linear addmm mm matmul bmm add sub mul div
    embedding softmax log_softmax layer_norm rms_norm group_norm instance_norm batch_norm relu relu6 hardtanh clamp
    clamp_min clamp_max avg_pool1d avg_pool2d avg_pool3d adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d
    mean
"""
_MOVED = """
    reshape view view_as reshape_as flatten unflatten squeeze unsqueeze transpose swapaxes swapdims permute movedim
    moveaxis t contiguous clone detach to type_as type float half bfloat16 double cpu cuda alias narrow select
    getitem chunk split split_with_sizes tensor_split unbind max_pool1d max_pool2d max_pool3d amax pad dropout dropout1d
    dropout2d dropout3d feature_dropout alpha_dropout cat stack hstack dstack get setitem copy
    max_pool1d_with_indices max_pool2d_with_indices max_pool3d_with_indices adaptive_max_pool1d adaptive_max_pool2d
    adaptive_max_pool3d adaptive_max_pool1d_with_indices adaptive_max_pool2d_with_indices
    adaptive_max_pool3d_with_indices
"""
_CHOSEN = """
    where masked_fill maximum minimum fmax fmin max min amin topk sort roll flip fliplr repeat tile expand
    expand_as broadcast_to repeat_interleave index_select gather take_along_dim adjoint
"""
_RESAMPLED = "interpolate cumsum sum"
_INTEGER_OPERATIONS = frozenset((_COMPUTED + _MOVED + _CHOSEN + _RESAMPLED).split())

_NARROW = {
    "operations": _INTEGER_OPERATIONS,
    "max_weight_bits": 8,
    "max_activation_bits": 8,
    "granularities": ("per_tensor", "per_channel"),
}
ONNXRUNTIME = Target(("onnxruntime",), max_sum_bits=16, takes_real=True, **_NARROW)

#: By runtime. What a runtime lacks of `operations` is told by its emitter, from a program (`qat.rehearsal`).
TARGETS = {
    "onnxruntime": ONNXRUNTIME,
    "litert": Target(("litert",), max_sum_bits=8, symmetric_above=8, **(_NARROW | {"max_activation_bits": 16})),
    "tensorrt": Target(("tensorrt",), max_sum_bits=8, symmetric_activations=True, **_NARROW),
    "c": Target(("c",), max_sum_bits=16, **_NARROW),
    "pytorch": Target(("pytorch",), max_sum_bits=16, **_NARROW),
    "web": Target(("web",), max_sum_bits=16, **_NARROW),
}


def target_named(name: TargetName) -> Target | None:
    """The target called `name`, or what several have in common; None (train and simulate, export nothing) for None."""
    if name is None:
        return None
    names = (name,) if isinstance(name, str) else name
    if not isinstance(names, Sequence) or not names or len(set(map(str, names))) < len(names):
        raise ConfigurationError(
            f"target is {name!r}; give a runtime ({', '.join(TARGETS)}), a list of different ones, or None to export "
            "nothing."
        )
    target = None
    for each in names:
        if not isinstance(each, str) or each not in TARGETS:
            raise ConfigurationError(
                f"unknown target {each!r}; choose one of {', '.join(TARGETS)}, or None to export nothing."
            )
        target = TARGETS[each] if target is None else target.common(TARGETS[each])
    return target


def config_for(quant: str | QuantConfig, target: TargetName) -> QuantConfig:
    """The config that `quant` is for `target`: what it leaves open (None) as all runtimes take it."""
    named = target_named(target)
    return _settled(QuantConfig.parse(quant), symmetric=False) if named is None else named.config(quant)


def _settled(config: QuantConfig, symmetric: bool) -> QuantConfig:
    return dataclasses.replace(config, activation=config.activation.settled(symmetric))
