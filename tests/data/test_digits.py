import pytest
import torch

from qat.data import DigitsDataModule
from qat.errors import ConfigurationError


@pytest.fixture(scope="module")
def digits():
    module = DigitsDataModule()
    module.setup()
    return module


def test_images_are_the_archive_scaled_to_one(digits):
    batch, labels = next(iter(digits.test_dataloader()))
    assert batch.shape == (64, 1, 8, 8) and batch.dtype == torch.float32
    assert labels.dtype == torch.int64
    assert batch.min() == 0 and batch.max() == 1
    assert torch.equal((batch * 16).round() / 16, batch)


def test_splits_hold_every_image_once(digits):
    sizes = {name: len(split) for name, split in digits.splits.items()}
    assert sum(sizes.values()) == 1797
    assert sizes == {"train": 1259, "val": 179, "test": 359}


def test_the_test_split_does_not_depend_on_the_seed_of_the_order(digits):
    other = DigitsDataModule(seed=1)
    other.setup()
    assert torch.equal(other.splits["test"].inputs, digits.splits["test"].inputs)
    first, first_of_other = next(iter(digits.train_dataloader())), next(iter(other.train_dataloader()))
    assert not torch.equal(first[0], first_of_other[0])


def test_limit_keeps_as_many_of_each_split():
    limited = DigitsDataModule(limit=5)
    limited.setup()
    assert [len(split) for split in limited.splits.values()] == [5, 5, 5]


@pytest.mark.parametrize(
    "settings, sentence",
    [
        ({"batch_size": 0}, "data.batch_size is 0"),
        ({"limit": 0}, "data.limit is 0"),
        ({"val_share": 1.0}, "data.val_share is 1.0"),
        ({"val_share": 0.5, "test_share": 0.5}, "leave nothing to train on"),
    ],
)
def test_impossible_settings_are_refused(settings, sentence):
    with pytest.raises(ConfigurationError, match=sentence):
        DigitsDataModule(**settings)
