import numpy
import pyarrow
import pyarrow.parquet
import pytest

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
