import torch

from qat.data.augmentation import crop_and_flip, crops_and_flips

IMAGE = torch.tensor([[1, 2], [3, 4]], dtype=torch.uint8).view(1, 1, 2, 2)


def augmented(top, left, flipped, padding=1):
    return crop_and_flip(IMAGE, torch.tensor([[top, left, flipped]]), padding)[0, 0].tolist()


def test_the_middle_crop_is_the_image():
    assert augmented(1, 1, 0) == [[1, 2], [3, 4]]


def test_other_crops_shift_it_and_show_black():
    assert augmented(0, 1, 0) == [[0, 0], [1, 2]]
    assert augmented(2, 2, 0) == [[4, 0], [0, 0]]


def test_a_flip_mirrors_the_crop():
    assert augmented(1, 1, 1) == [[2, 1], [4, 3]]
    assert augmented(1, 2, 1) == [[0, 2], [0, 4]]


def test_each_image_of_a_batch_has_its_own_crop():
    batch = torch.cat([IMAGE, 10 * IMAGE])
    result = crop_and_flip(batch, torch.tensor([[1, 1, 0], [1, 1, 1]]), padding=1)
    assert result[0, 0].tolist() == [[1, 2], [3, 4]]
    assert result[1, 0].tolist() == [[20, 10], [40, 30]]
    assert result.dtype == torch.uint8 and result.is_contiguous()


def test_a_plan_depends_on_seed_and_epoch_alone():
    plan = crops_and_flips(seed=0, epoch=1, size=1000, padding=4)
    crops_and_flips.cache_clear()
    assert torch.equal(plan, crops_and_flips(seed=0, epoch=1, size=1000, padding=4))
    assert not torch.equal(plan, crops_and_flips(seed=0, epoch=2, size=1000, padding=4))
    assert not torch.equal(plan, crops_and_flips(seed=1, epoch=1, size=1000, padding=4))
    assert plan[:, :2].unique().tolist() == list(range(9))
    assert plan[:, 2].unique().tolist() == [0, 1]
