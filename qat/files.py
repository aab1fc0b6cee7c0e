"""Files that are there whole or not at all, whatever interrupts their writing."""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from qat.errors import ExportError


@contextlib.contextmanager
def written_whole(path: Path, content: bytes) -> Iterator[Path]:
    """`content` under a temporary name beside `path`, which becomes `path` when the block ends without an error.

    Folders on the way are made. A reader sees the old file or the new one; a process that is killed leaves at most a
    hidden file `.NAME.*.tmp`. Raises `ExportError` where the folder cannot be written to.
    """
    temporary = None
    try:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            handle, temporary = tempfile.mkstemp(prefix=f".{path.name[:64]}.", suffix=".tmp", dir=path.parent)
            with os.fdopen(handle, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.chmod(temporary, 0o644)
        except OSError as error:
            raise _unwritable(path, error) from error
        yield Path(temporary)
        try:
            os.replace(temporary, path)
        except OSError as error:
            raise _unwritable(path, error) from error
    finally:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)


def write_whole(path: Path, content: bytes) -> None:
    """Write a file that needs no look before it gets its name; as `written_whole`."""
    with written_whole(path, content):
        pass


def _unwritable(path: Path, error: OSError) -> ExportError:
    return ExportError(f"{path} cannot be written ({error.strerror}); choose another path, or free some space.")
