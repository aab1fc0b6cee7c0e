import io

import numpy
import pyarrow
import pyarrow.parquet
import pytest
from PIL import Image

from qat.data.parquet import parquet_files, read_split
from qat.errors import ConfigurationError


def test_images_are_decoded_pixel_for_pixel_in_the_order_of_the_files(cifar_folder, image):
    images, labels = read_split(cifar_folder, "train")
    assert images.shape == (20, 3, 32, 32)
    for number in (0, 11, 12, 19):
        assert numpy.array_equal(images[number].permute(1, 2, 0).numpy(), image(number)[0])
    assert labels.tolist() == [number % 10 for number in range(20)]


def test_limit_stops_early(cifar_folder):
    images, labels = read_split(cifar_folder, "train", limit=3)
    assert len(images) == len(labels) == 3


def test_a_missing_folder_is_named_with_the_remedy(tmp_path):
    with pytest.raises(ConfigurationError, match=r"the data folder '.*absent' does not exist; set data.dir= to"):
        parquet_files(tmp_path / "absent", "train")


def test_a_folder_without_parquet_is_named_with_the_remedy(tmp_path):
    (tmp_path / "readme.txt").write_text("nothing")
    with pytest.raises(ConfigurationError, match="holds no parquet file; set data.dir= to"):
        parquet_files(tmp_path, "train")


def test_a_folder_without_the_split_is_refused(tmp_path):
    pyarrow.parquet.write_table(pyarrow.table({"label": [0]}), tmp_path / "train.parquet")
    with pytest.raises(ConfigurationError, match=r"holds 1 parquet files, none called test\*.parquet"):
        parquet_files(tmp_path, "test")


def test_other_columns_are_refused(tmp_path):
    pyarrow.parquet.write_table(pyarrow.table({"image": [b""], "label": [0]}), tmp_path / "train.parquet")
    with pytest.raises(ConfigurationError, match="has the columns image, label; expected img and label"):
        read_split(tmp_path, "train")


def write(folder, entries, labels):
    """A train split with these entries of `img` and labels."""
    struct = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])
    table = {"img": pyarrow.array(entries, struct), "label": pyarrow.array(labels)}
    pyarrow.parquet.write_table(pyarrow.table(table), folder / "train.parquet")


@pytest.mark.parametrize("content", [b"", b"PAR1 and no more"])
def test_a_damaged_file_is_named(tmp_path, content):
    (tmp_path / "train.parquet").write_bytes(content)
    with pytest.raises(ConfigurationError, match=r"train\.parquet cannot be read \(.*\); set data\.dir= to"):
        read_split(tmp_path, "train")


@pytest.mark.parametrize("entry", [None, {"bytes": None}, {"bytes": b"no image"}, {"bytes": b"\x89PNG\r\n\x1a\n half"}])
def test_an_image_that_cannot_be_read_is_named_by_its_row(tmp_path, image, entry):
    write(tmp_path, [{"bytes": image(0)[1]}, entry], [0, 1])
    with pytest.raises(
        ConfigurationError, match=r"^row 1 of .*train\.parquet holds no image that can be read; set data"
    ):
        read_split(tmp_path, "train")


@pytest.mark.parametrize("labels", [[0, None], ["cat", "dog"], [0.5, 1.0]])
def test_labels_are_whole_numbers(tmp_path, image, labels):
    write(tmp_path, [{"bytes": image(0)[1]}] * 2, labels)
    with pytest.raises(ConfigurationError, match=r"a label in .*train\.parquet is no whole number"):
        read_split(tmp_path, "train")


def test_images_of_several_sizes_are_refused(tmp_path, image):
    stream = io.BytesIO()
    Image.new("RGB", (31, 32)).save(stream, format="PNG")
    write(tmp_path, [{"bytes": image(0)[1]}, {"bytes": stream.getvalue()}], [0, 1])
    with pytest.raises(ConfigurationError, match="differ in size"):
        read_split(tmp_path, "train")
