"""Labelled images from a folder of parquet files in the Hugging Face schema: `img` {bytes, path} and `label`."""

import io
import itertools
from pathlib import Path

import numpy
import torch

from qat.errors import ConfigurationError, MissingExtraError

_REMEDY = "set data.dir= to a folder with CIFAR-10's train and test splits as parquet files."


def read_split(directory: str | Path, split: str, limit: int | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    """Decode the files `<split>*.parquet` anywhere under `directory`, in the order of their names.

    limit: stop after so many images. Returns images (N, C, H, W) uint8 and labels (N,) int64. Nothing is downloaded
    and no cache is written. Raises `ConfigurationError` for a folder without such files, and for a file that is damaged
    or holds something else.
    """
    files = parquet_files(directory, split)
    try:
        import datasets
        import PIL  # noqa: F401
    except ImportError as error:
        raise MissingExtraError(
            "images are read from parquet with datasets and pillow, of which one is not installed; pip install "
            '"lightning-qat[cifar]".'
        ) from error
    try:
        table = datasets.load_dataset("parquet", data_files={split: files}, split=split, streaming=True)
        columns = set(table.features or ())
        rows = table.cast_column("img", datasets.Image(decode=False)) if {"img", "label"} <= columns else ()
        images, labels = [], []
        for row in itertools.islice(rows, limit):
            images.append(_decoded(row["img"], f"row {len(images)} of {files[0]}"))
            labels.append(row["label"])
    except ConfigurationError:
        raise
    except (OSError, ValueError) as error:  # what pyarrow raises for a damaged file is one of the two
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ConfigurationError(f"{', '.join(files)} cannot be read ({reason}); {_REMEDY}") from error
    if not {"img", "label"} <= columns:
        raise ConfigurationError(
            f"{files[0]} has the columns {', '.join(table.features or ())}; expected img and label; set data.dir= to "
            "a folder with CIFAR-10 in the Hugging Face schema."
        )
    if not images:
        raise ConfigurationError(f"{files[0]} holds no image; set data.dir= to a complete folder of CIFAR-10.")
    if len({image.shape for image in images}) > 1:
        raise ConfigurationError(f"the images in {files[0]} differ in size; {_REMEDY}")
    if not all(isinstance(label, int) for label in labels):
        raise ConfigurationError(f"a label in {files[0]} is no whole number; {_REMEDY}")
    stacked = torch.from_numpy(numpy.stack(images)).permute(0, 3, 1, 2).contiguous()
    return stacked, torch.tensor(labels, dtype=torch.int64)


def _decoded(entry: dict | None, where: str) -> numpy.ndarray:
    """One image, (H, W, 3) uint8, of a row's `img`."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO((entry or {}).get("bytes") or b"")) as image:
            return numpy.asarray(image.convert("RGB"))
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:  # Pillow calls a broken PNG a syntax error
        raise ConfigurationError(f"{where} holds no image that can be read; {_REMEDY}") from error


def parquet_files(directory: str | Path, split: str) -> list[str]:
    """The files of one split, sorted. Raises `ConfigurationError` where there are none."""
    directory = Path(directory)
    if not directory.is_dir():
        raise ConfigurationError(f"the data folder {str(directory)!r} does not exist; {_REMEDY}")
    found = sorted(str(path) for path in directory.rglob("*.parquet"))
    if not found:
        raise ConfigurationError(f"the data folder {str(directory)!r} holds no parquet file; {_REMEDY}")
    files = [path for path in found if Path(path).name.startswith(split)]
    if not files:
        raise ConfigurationError(
            f"the data folder {str(directory)!r} holds {len(found)} parquet files, none called {split}*.parquet; "
            f"{_REMEDY}"
        )
    return files
