"""Files that are there whole or not at all, whatever interrupts their writing."""

import contextlib
import os
import shutil
import stat
import tempfile
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path

from qat.errors import ExportError


@contextlib.contextmanager
def written_whole(path: Path, content: bytes) -> Iterator[Path]:
    """`content` under a temporary name beside `path`, which becomes `path` when the block ends without an error.

    Folders on the way are made. A reader sees the old file or the new one; a process that is killed leaves at most a
    hidden file `.NAME.*.tmp`. Raises `ExportError` where the folder cannot be written to, or `path` is something else
    than a file.
    """
    _refuse_others(path)
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


@contextlib.contextmanager
def written_together(files: Mapping[Path, Iterable[bytes | memoryview]]) -> Iterator[Path]:
    """Files of one folder that belong together, which get their names when the block ends without an error.

    files: the pieces of each; the first is the one that is opened, and finds the others. Yields a hidden folder
    `.NAME.*.tmp` beside them that has them under their names. A reader sees the old files or the new ones; after a
    process was killed just then, no first file. Raises `ExportError` where the folder cannot be written to.
    """
    for path in files:
        _refuse_others(path)
    first, *others = files
    folder = None
    try:
        try:
            first.parent.mkdir(parents=True, exist_ok=True)
            folder = Path(tempfile.mkdtemp(prefix=f".{first.name[:64]}.", suffix=".tmp", dir=first.parent))
            for path, pieces in files.items():
                _write(folder / path.name, pieces)
        except OSError as error:
            raise _unwritable(first, error) from error
        yield folder
        before = {path: folder / f"{path.name}.before" for path in files if path.is_file()}
        moved = []
        try:
            for path in files:
                if path in before:
                    os.replace(path, before[path])
            for path in (*others, first):
                os.replace(folder / path.name, path)
                moved.append(path)
        except OSError as error:
            for path in moved:
                path.unlink()
            for path, kept in before.items():
                if kept.exists():
                    os.replace(kept, path)
            raise _unwritable(first, error) from error
    finally:
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def written_folder(path: Path, names: Collection[str]) -> Iterator[Path]:
    """A hidden folder `.NAME.*.tmp` beside `path` that becomes `path` when the block ends without an error.

    names: what such a folder holds. One that was there before goes then; raises `ExportError` where it holds anything
    else, and where the folder cannot be written to.
    """
    _refuse_other_folders(path, names)
    folder = None
    try:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            folder = Path(tempfile.mkdtemp(prefix=f".{path.name[:64]}.", suffix=".tmp", dir=path.parent))
            made, before = folder / "made", folder / "before"
            made.mkdir()
            yield made
            if path.exists():
                os.replace(path, before)
            os.replace(made, path)
        except OSError as error:
            if folder is not None and before.exists() and not path.exists():
                os.replace(before, path)
            raise _unwritable(path, error) from error
    finally:
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)


def _write(path: Path, pieces: Iterable[bytes | memoryview]) -> None:
    with path.open("wb") as file:
        for piece in pieces:
            file.write(piece)
        file.flush()
        os.fsync(file.fileno())
    path.chmod(0o644)


def write_whole(path: Path, content: bytes) -> None:
    """Write a file that needs no look before it gets its name; as `written_whole`."""
    with written_whole(path, content):
        pass


def _refuse_others(path: Path) -> None:
    """Raise `ExportError` for what a file must not take the place of: a device, a pipe, a socket."""
    try:
        mode = path.stat().st_mode
    except OSError:  # what is wrong with the path shows when it is written to
        return
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        raise ExportError(f"{path} is no file and is not replaced by one; choose another path.")


def _refuse_other_folders(path: Path, names: Collection[str]) -> None:
    """Raise `ExportError` for what a folder of `names` must not take the place of: a file, a folder of other things."""
    if path.exists() and not path.is_dir():
        raise ExportError(f"{path} is no folder and is not replaced by one; choose another path.")
    try:
        others = sorted(entry.name for entry in path.iterdir() if entry.name not in names) if path.exists() else []
    except OSError as error:
        raise _unwritable(path, error) from error
    if others:
        raise ExportError(
            f"{path} holds {others[0]!r}, which no export wrote, so it is not replaced; choose a folder of its own."
        )


def _unwritable(path: Path, error: OSError) -> ExportError:
    return ExportError(f"{path} cannot be written ({error.strerror}); choose another path, or free some space.")
