"""onnxruntime-web, the runtime of the page: found where it was unpacked, or fetched by npm once."""

import os
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

from qat.errors import ExportError, MissingExtraError

#: The release that pages are tested with; another one may round otherwise.
VERSION = "1.30.0"
#: Where the package is: a folder that holds its `dist`, or the archive that `npm pack` writes.
VARIABLE = "QAT_ONNXRUNTIME_WEB"
SCRIPT, GLUE, WASM = "ort.wasm.min.js", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm"
#: What a page needs of the package.
FILES = (SCRIPT, GLUE, WASM)
#: Seconds for npm to fetch 30 MB.
PATIENCE = 300


def runtime_files() -> dict[str, bytes]:
    """The files of onnxruntime-web by name.

    Raises `MissingExtraError` where neither the package nor npm is there, `ExportError` where npm fails.
    """
    given = os.environ.get(VARIABLE)
    folder = _unpacked(Path(given)) if given else _cached()
    missing = [name for name in FILES if not (folder / "dist" / name).is_file()]
    if missing:
        raise ExportError(
            f"{folder} has no dist/{missing[0]}; set {VARIABLE} to the unpacked npm package onnxruntime-web@{VERSION}."
        )
    return {name: (folder / "dist" / name).read_bytes() for name in FILES}


def _unpacked(given: Path) -> Path:
    """The folder that holds `dist`, of what `VARIABLE` names."""
    if not given.exists():
        raise ExportError(f"{VARIABLE} is {str(given)!r}, which does not exist; unset it to fetch the package by npm.")
    if given.is_dir():
        return given / "package" if (given / "package" / "dist").is_dir() else given
    return _unpack(given)


def _cached() -> Path:
    """The package in the user's cache, fetched if it is not there."""
    folder = _cache() / f"onnxruntime-web-{VERSION}"
    return folder if folder.is_dir() else _unpack(_fetched(folder.parent))


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lightning-qat"


def _unpack(archive: Path) -> Path:
    """Unpack the files of a page into the cache; the folder appears whole or not at all."""
    target = _cache() / f"onnxruntime-web-{VERSION}"
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent) as temporary, tarfile.open(archive) as packed:
            dist = Path(temporary, "package", "dist")
            dist.mkdir(parents=True)
            for name in FILES:
                content = packed.extractfile(f"package/dist/{name}")
                (dist / name).write_bytes(content.read())
            shutil.rmtree(target, ignore_errors=True)
            os.replace(dist.parent, target)
    except (KeyError, tarfile.TarError) as error:
        raise ExportError(f"{archive} is not the npm package onnxruntime-web@{VERSION} ({error}).") from error
    except OSError as error:
        raise ExportError(
            f"{target} cannot be written ({error.strerror}); set XDG_CACHE_HOME to another folder."
        ) from error
    return target


def _fetched(folder: Path) -> Path:
    """The archive that npm fetches."""
    npm = shutil.which("npm")
    if npm is None:
        raise MissingExtraError(
            f"exporting for web needs onnxruntime-web {VERSION}, which npm fetches, and npm is not installed; install "
            f"it (apt-get install npm), or set {VARIABLE} to the folder of the unpacked package."
        )
    folder.mkdir(parents=True, exist_ok=True)
    command = [npm, "pack", f"onnxruntime-web@{VERSION}", "--silent", "--pack-destination", str(folder)]
    try:
        subprocess.run(command, capture_output=True, text=True, check=True, timeout=PATIENCE, cwd=folder)
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        said = (getattr(error, "stderr", "") or str(error)).strip().splitlines()
        raise ExportError(
            f"npm could not fetch onnxruntime-web@{VERSION} ({(said or ['it says nothing'])[-1][:200]}); look at the "
            f"network, or set {VARIABLE} to the folder of the unpacked package."
        ) from error
    return folder / f"onnxruntime-web-{VERSION}.tgz"
