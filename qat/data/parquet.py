"""Labelled images from a folder of parquet files in the Hugging Face schema: `img` {bytes, path} and `label`."""

import io
import itertools
from pathlib import Path

import numpy
import torch

from qat.errors import ConfigurationError, MissingExtraError


def read_split(directory: str | Path, split: str, limit: int | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    """Decode the files `<split>*.parquet` anywhere under `directory`, in the order of their names.

    limit: stop after so many images. Returns images (N, C, H, W) uint8 and labels (N,) int64. Nothing is downloaded
    and no cache is written. Raises `ConfigurationError` for a folder without such files or with other columns.
    """
    files = parquet_files(directory, split)
    try:
        import datasets
        from PIL import Image
    except ImportError as error:
        raise MissingExtraError(
            "images are read from parquet with datasets and pillow, of which one is not installed; pip install "
            '"lightning-qat[cifar]".'
        ) from error
    table = datasets.load_dataset("parquet", data_files={split: files}, split=split, streaming=True)
    if not {"img", "label"} <= set(table.features or ()):
        raise ConfigurationError(
            f"{files[0]} has the columns {', '.join(table.features or ())}; expected img and label; set data.dir= to "
            "a folder with CIFAR-10 in the Hugging Face schema."
        )
    rows = table.cast_column("img", datasets.Image(decode=False))
    images, labels = [], []
    for row in itertools.islice(rows, limit):
        with Image.open(io.BytesIO(row["img"]["bytes"])) as image:
            images.append(numpy.asarray(image.convert("RGB")))
        labels.append(row["label"])
    if not images:
        raise ConfigurationError(f"{files[0]} holds no image; set data.dir= to a complete folder of CIFAR-10.")
    stacked = torch.from_numpy(numpy.stack(images)).permute(0, 3, 1, 2).contiguous()
    return stacked, torch.tensor(labels, dtype=torch.int64)


def parquet_files(directory: str | Path, split: str) -> list[str]:
    """The files of one split, sorted. Raises `ConfigurationError` where there are none."""
    directory = Path(directory)
    remedy = "set data.dir= to a folder with CIFAR-10's train and test splits as parquet files."
    if not directory.is_dir():
        raise ConfigurationError(f"the data folder {str(directory)!r} does not exist; {remedy}")
    found = sorted(str(path) for path in directory.rglob("*.parquet"))
    if not found:
        raise ConfigurationError(f"the data folder {str(directory)!r} holds no parquet file; {remedy}")
    files = [path for path in found if Path(path).name.startswith(split)]
    if not files:
        raise ConfigurationError(
            f"the data folder {str(directory)!r} holds {len(found)} parquet files, none called {split}*.parquet; "
            f"{remedy}"
        )
    return files
