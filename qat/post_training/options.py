"""What post-training quantization does besides observing ranges: frozen values, checked where they are written."""

from collections.abc import Mapping
from dataclasses import dataclass

from qat.errors import ConfigurationError
from qat.spec import as_kind


@dataclass(frozen=True)
class AdaRound:
    """Rounding of weights learned layer by layer, so that a layer's output is kept best (arXiv:2004.10568).

    iterations: steps of Adam for each layer, on all calibration data at once. learning_rate: of those steps.
    regularization: weight of the term that drives each weight to one of its two neighbours, against the squared error
    of plain rounding, which counts 1 for every weight. warm_up: share of the steps without that term. beta: its
    exponent behind them and at the end; a large one leaves weights alone that are far from both neighbours.

    Plain rounding stays where a weight is computed from parameters, is looked up as well (tied embeddings), or has more
    than 8,192 inputs.
    """

    iterations: int = 500
    learning_rate: float = 0.1
    regularization: float = 0.1
    warm_up: float = 0.2
    beta: tuple[float, float] = (20.0, 2.0)

    def __post_init__(self):
        _check_count(self.iterations, "adaround.iterations")
        _check_number(self.learning_rate, "adaround.learning_rate", low=0.0, excluded=True)
        _check_number(self.regularization, "adaround.regularization", low=0.0)
        _check_number(self.warm_up, "adaround.warm_up", low=0.0, high=1.0)
        if isinstance(self.beta, str | Mapping) or not hasattr(self.beta, "__len__") or len(self.beta) != 2:
            raise ConfigurationError(f"adaround.beta is {self.beta!r}; write two numbers, for example [20, 2].")
        object.__setattr__(self, "beta", tuple(self.beta))
        for beta in self.beta:
            _check_number(beta, "adaround.beta", low=1.0)
        if self.beta[0] < self.beta[1]:
            raise ConfigurationError(
                f"adaround.beta goes up from {self.beta[0]:g} to {self.beta[1]:g}; write the larger number first."
            )


@dataclass(frozen=True)
class PostTraining:
    """How a trained network is quantized without further training.

    batches: how many batches of those given are taken; None for all.
    equalize: scale channels between layers so that those of one weight are alike, before ranges are observed
        (arXiv:1906.04721, sections 4.1); the float function stays what it was.
    bias_correction: take the error that quantization makes on average off each channel (ibid., section 4.2).
    adaround: learn whether each weight is rounded up or down; True for `AdaRound()`, None or False for plain rounding.

    The three change weights and biases of the module while it is quantized; `qat.quantize` and `handle.remove()` give
    it back what it had, bit for bit.
    """

    batches: int | None = None
    equalize: bool = False
    bias_correction: bool = False
    adaround: AdaRound | None = None

    def __post_init__(self):
        if self.batches is not None:
            _check_count(self.batches, "post_training.batches")
        for name in ("equalize", "bias_correction"):
            if not isinstance(getattr(self, name), bool):
                raise ConfigurationError(f"post_training.{name} is {getattr(self, name)!r}; write True or False.")
        if isinstance(self.adaround, bool):
            object.__setattr__(self, "adaround", AdaRound() if self.adaround else None)
        elif self.adaround is not None:
            object.__setattr__(self, "adaround", as_kind(AdaRound, self.adaround, "post_training.adaround"))

    @property
    def adjusts_layers(self) -> bool:
        """Whether layers are adjusted one by one after ranges were observed."""
        return self.bias_correction or self.adaround is not None


def _check_count(value, what: str) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ConfigurationError(f"{what} is {value!r}; write a whole number from 1 on.")


def _check_number(value, what: str, low: float, high: float | None = None, excluded: bool = False) -> None:
    """Refuse what is no number of low..high. excluded: `low` itself is refused as well."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    inside = is_number and (low < value if excluded else low <= value) and (high is None or value <= high)
    if not inside:
        bounds = f"above {low:g}" if excluded else f"from {low:g} on" if high is None else f"from {low:g} to {high:g}"
        raise ConfigurationError(f"{what} is {value!r}; write a number {bounds}.")
