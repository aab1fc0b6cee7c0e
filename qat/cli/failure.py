"""What a command does with an error: one sentence for a mistake the user can mend, a record of every other."""

import contextlib
import errno
import json
import re
from pathlib import Path

from hydra.errors import InstantiationException
from omegaconf.errors import OmegaConfBaseException

from qat.errors import ConfigurationError, ExportError, QATError
from qat.files import write_whole
from qat.report.files import FAILED_JSON

_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS)


def as_sentence(error: BaseException) -> str:
    """The message of `error`, on one line."""
    return " ".join(str(error).split()) or type(error).__name__


def is_foreseen(error: BaseException) -> bool:
    """Whether the message of `error` says all there is to know: the user's mistake, a disk that is full or closed."""
    return isinstance(error, QATError) or (isinstance(error, OSError) and error.errno in _DISK)


class FailureRecord:
    """A context that leaves `failed.json`, {"error": sentence}, in `run_dir` when an error passes through it.

    The error goes on; a record of an earlier try is removed on entering. On a full disk there is no record.
    """

    def __init__(self, run_dir: Path):
        self.path = run_dir / FAILED_JSON

    def __enter__(self) -> "FailureRecord":
        self.path.unlink(missing_ok=True)
        return self

    def __exit__(self, kind, error, traceback) -> None:
        if error is not None:
            sentence = as_sentence(error) if isinstance(error, Exception) else "interrupted"
            with contextlib.suppress(ExportError):
                write_whole(self.path, (json.dumps({"error": sentence}, indent=2) + "\n").encode())


class ConfigErrors:
    """A context that turns what Hydra and OmegaConf raise into `QATError`: the original one, if they only wrap it."""

    def __enter__(self) -> "ConfigErrors":
        return self

    def __exit__(self, kind, error, traceback) -> None:
        if isinstance(error, InstantiationException):
            cause = error.__cause__
            while isinstance(cause, InstantiationException):
                cause = cause.__cause__
            if isinstance(cause, QATError):
                raise cause from None
            raise ConfigurationError(_cannot_be_built(error, cause)) from error
        elif isinstance(error, OmegaConfBaseException):
            raise ConfigurationError(f"the config cannot be read: {as_sentence(error)}") from error


def _cannot_be_built(error: InstantiationException, cause: BaseException | None) -> str:
    """The sentence names the part, as Hydra does in its last line, and what its constructor said."""
    part = re.search(r"full_key: (\S+)\s*$", str(error))
    if part is None or cause is None:
        return f"the config cannot be built: {as_sentence(error)}"
    return f"{part[1]} cannot be built as it is configured: {as_sentence(cause)}"
