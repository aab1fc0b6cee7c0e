"""What all emitters share: the choices of an export, and what a written file says of itself."""

from collections.abc import Iterable
from dataclasses import dataclass

from qat.errors import ConfigurationError
from qat.integer.images import ImageScaling

#: How operations are computed that integers take many steps for.
NONLINEAR = ("integer", "float_island")
#: Labels are written into files as lines of text.
MAX_LABELS, MAX_LABEL_LENGTH = 2**16, 256


@dataclass(frozen=True)
class ExportOptions:
    """The choices of one export.

    nonlinear: how softmax, its logarithm, normalization and division are computed: "integer", or as a "float_island"
        between integer kernels, where the runtime has them.
    labels: names of the classes, in the order of the output's last dimension; empty for none.
    channels_last: whether image inputs of runtimes with either layout are (N, H, W, C) instead of the network's own.
    image_scaling: how pictures become the numbers of a real input, for the page of a browser; None: pixel / 255.
    unpacked_weights: whether weights of 4 and 2 bits are stored in int8 where a runtime then takes less time: a larger
        file that is faster.
    """

    nonlinear: str = "integer"
    labels: tuple[str, ...] = ()
    channels_last: bool = False
    image_scaling: ImageScaling | None = None
    unpacked_weights: bool = False

    def __post_init__(self):
        if self.nonlinear not in NONLINEAR:
            raise ConfigurationError(f"nonlinear is {self.nonlinear!r}; choose one of {', '.join(NONLINEAR)}.")
        for name in ("channels_last", "unpacked_weights"):
            if not isinstance(getattr(self, name), bool):
                raise ConfigurationError(f"{name} is {getattr(self, name)!r}; write True or False.")
        if isinstance(self.labels, str) or not isinstance(self.labels, Iterable):
            raise ConfigurationError(f"labels is {self.labels!r}; give a list of names, empty for none.")
        if self.image_scaling is not None and not isinstance(self.image_scaling, ImageScaling):
            raise ConfigurationError(
                f"image_scaling is {self.image_scaling!r}; give a qat.integer.images.ImageScaling."
            )
        object.__setattr__(self, "labels", tuple(self.labels))
        if len(self.labels) > MAX_LABELS:
            raise ConfigurationError(f"there are {len(self.labels)} labels; a file takes {MAX_LABELS}.")
        for label in self.labels:
            if not isinstance(label, str) or not 0 < len(label) <= MAX_LABEL_LENGTH or not label.isprintable():
                raise ConfigurationError(
                    f"a label is {str(label)[:40]!r}; labels are texts of 1 to {MAX_LABEL_LENGTH} printable characters."
                )


#: An export without any choice.
DEFAULTS = ExportOptions()


@dataclass(frozen=True)
class FileOperation:
    """One operation as read back from a written file.

    name, kind: as the file calls them. dtype: of what it computes on, "uint8" for instance. bytes: of the weights and
    other constants that it is the first to read.
    """

    name: str
    kind: str
    dtype: str
    bytes: int
