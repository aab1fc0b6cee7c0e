import io

import numpy
import pyarrow
import pyarrow.parquet
import pytest
from PIL import Image

FILES = {"train-00000-of-00002.parquet": 12, "train-00001-of-00002.parquet": 8, "test-00000-of-00001.parquet": 5}


def image_of(number):
    """A 32 x 32 image in which every pixel is different from those of other numbers."""
    pixels = numpy.random.default_rng(number).integers(0, 256, size=(32, 32, 3), dtype=numpy.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, format="PNG")
    return pixels, stream.getvalue()


@pytest.fixture(scope="session")
def cifar_folder(tmp_path_factory):
    """A folder in CIFAR-10's schema: image i of each split is `image_of(i)`, its label i % 10."""
    folder = tmp_path_factory.mktemp("cifar")
    starts = {"train": 0, "test": 0}
    for name, count in FILES.items():
        split = name.split("-")[0]
        numbers = range(starts[split], starts[split] + count)
        starts[split] += count
        table = {
            "img": [{"bytes": image_of(number)[1], "path": None} for number in numbers],
            "label": [number % 10 for number in numbers],
        }
        pyarrow.parquet.write_table(pyarrow.table(table), folder / name)
    return folder


@pytest.fixture
def image():
    """number -> (pixels (32, 32, 3) uint8, the same as PNG)."""
    return image_of
