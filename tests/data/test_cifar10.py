import pyarrow
import pyarrow.parquet
import pytest
import torch

from qat.data import CIFAR10DataModule
from qat.data.cifar10 import SCALING, ImageData
from qat.errors import ConfigurationError


def set_up(folder, **settings):
    module = CIFAR10DataModule(dir=str(folder), batch_size=4, **settings)
    module.setup()
    return module


def batches_of(module, epoch):
    loader = module.train_dataloader()
    loader.sampler.set_epoch(epoch)
    return list(loader)


def test_normalization_is_that_of_the_checkpoints():
    white = SCALING.normalize(torch.full((1, 3, 1, 1), 255, dtype=torch.uint8)).flatten()
    black = SCALING.normalize(torch.zeros(1, 3, 1, 1, dtype=torch.uint8)).flatten()
    expected_white = torch.tensor([(1 - 0.485) / 0.229, (1 - 0.456) / 0.224, (1 - 0.406) / 0.225])
    expected_black = torch.tensor([-0.485 / 0.229, -0.456 / 0.224, -0.406 / 0.225])
    assert torch.allclose(white, expected_white) and torch.allclose(black, expected_black)


def test_splits_share_no_image_and_the_test_split_is_in_order(cifar_folder, image):
    module = set_up(cifar_folder)
    sizes = {name: len(split) for name, split in module.splits.items()}
    assert sizes == {"train": 18, "val": 2, "test": 5}
    kept = {tuple(picture.flatten().tolist()) for picture in module.splits["train"].inputs}
    assert kept.isdisjoint(tuple(picture.flatten().tolist()) for picture in module.splits["val"].inputs)
    inputs, labels = next(iter(module.test_dataloader()))
    assert torch.equal(inputs[1], SCALING.normalize(torch.from_numpy(image(1)[0]).permute(2, 0, 1)[None])[0])
    assert labels.tolist() == [0, 1, 2, 3]


def test_augmentation_is_a_function_of_seed_epoch_and_index(cifar_folder):
    first, again = set_up(cifar_folder), set_up(cifar_folder)
    for one, other in zip(batches_of(first, 1), batches_of(again, 1), strict=True):
        assert torch.equal(one[0], other[0]) and torch.equal(one[1], other[1])
    # The same image in another epoch, and in the same one with another seed.
    assert not torch.equal(first.splits["train"][0][0], first.splits["train"][18][0])
    assert not torch.equal(first.splits["train"][0][0], set_up(cifar_folder, seed=1).splits["train"][0][0])


def test_augmentation_can_be_left_out(cifar_folder):
    train = set_up(cifar_folder, augment=False).splits["train"]
    assert torch.equal(train[0][0], train[18][0])
    assert torch.equal(train[0][0], SCALING.normalize(train.inputs[:1])[0])


def test_only_what_a_stage_needs_is_decoded(cifar_folder):
    module = CIFAR10DataModule(dir=str(cifar_folder))
    module.setup("test")
    assert set(module.splits) == {"test"}


def test_limit_holds_for_every_split(cifar_folder):
    assert {len(split) for split in set_up(cifar_folder, limit=1).splits.values()} == {1}


def test_a_split_that_leaves_nothing_is_refused(cifar_folder):
    with pytest.raises(ConfigurationError, match="of which data.val_share=0.99 holds out all"):
        set_up(cifar_folder, val_share=0.99)


def test_image_data_reads_single_samples():
    data = ImageData(torch.zeros(2, 3, 32, 32, dtype=torch.uint8), torch.tensor([3, 4]), augmentation_seed=0)
    inputs, label = data[3]
    assert inputs.shape == (3, 32, 32) and label == 4


def test_labels_of_other_data_are_refused(tmp_path, image):
    table = {"img": [{"bytes": image(0)[1], "path": None}] * 2, "label": [9, 10]}
    pyarrow.parquet.write_table(pyarrow.table(table), tmp_path / "test.parquet")
    with pytest.raises(ConfigurationError, match="has labels from 9 to 10, CIFAR-10 from 0 to 9; set data.dir="):
        CIFAR10DataModule(str(tmp_path)).setup("test")
