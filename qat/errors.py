"""Every error this package raises for a mistake the user can mend: one sentence, with the values and the remedy."""


class QATError(Exception):
    """Base of all errors below; the command line prints it without a traceback and exits with 1."""


class ConfigurationError(QATError, ValueError):
    """A setting that is wrong on its face: a width out of range, a schedule out of order, an unknown preset."""


class PreparationError(QATError, ValueError):
    """The network cannot be recorded or planned: nothing to quantize, a call nobody can follow, a refused scheme."""


class AddressError(QATError, RuntimeError):
    """A forward took a path that was not recorded, so its values would pass unquantized."""


class ObservationError(QATError, ValueError):
    """A quantizer met values that have no range: NaN, infinity, or an empty batch."""


class ConversionError(QATError, ValueError):
    """A value that should be integer is not, or an operation has no integer form; lists every such operation."""


class ProgramError(QATError, ValueError):
    """A program file is damaged, hostile, or of another version."""


class ExportError(QATError, RuntimeError):
    """An emitted file is not integer, or not equal to the program it was made from."""


class CheckpointError(QATError, ValueError):
    """A checkpoint belongs to another network or another quantization."""


class MissingExtraError(QATError, ImportError):
    """An optional dependency is not installed; names the extra that brings it."""


class ReportError(QATError, ValueError):
    """A directory holds no run or sweep to report on, or the files that describe it are damaged."""
