"""What runtimes have in common whose files stand alone."""

from os import PathLike
from pathlib import Path


def files_of(path: str | PathLike) -> tuple[Path, ...]:
    """The file itself."""
    return (Path(path),)


def stored_bytes(path: str | PathLike) -> int:
    """Its bytes."""
    return Path(path).stat().st_size
