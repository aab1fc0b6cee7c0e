import itertools

import pytest

from qat.data.sampler import EpochLoader, EpochSampler, epoch_order
from qat.errors import CheckpointError


class Draws:
    """A dataset of `size` samples whose batches are the draw numbers themselves."""

    def __init__(self, size):
        self.size = size

    def __len__(self):
        return self.size

    def __getitems__(self, draws):
        return list(draws)


def epoch_loader(size=10, batch_size=4, seed=0, num_workers=0):
    data = Draws(size)
    return EpochLoader(data, EpochSampler(data, seed), batch_size, num_workers)


def drawn(loader, epoch):
    loader.sampler.set_epoch(epoch)
    return list(loader)


def test_an_order_is_a_permutation_and_depends_on_seed_and_epoch_alone():
    assert sorted(epoch_order(7, seed=1, epoch=2)) == list(range(7))
    assert epoch_order(100, seed=1, epoch=2).tolist() == epoch_order(100, seed=1, epoch=2).tolist()
    orders = {tuple(epoch_order(100, seed, epoch)) for seed in range(3) for epoch in range(3)}
    assert len(orders) == 9  # seed 0 in epoch 1 is not seed 1 in epoch 0


def test_a_draw_tells_epoch_and_index():
    sampler = EpochSampler(Draws(5), seed=0)
    sampler.set_epoch(3)
    draws = list(sampler)
    assert [draw // 5 for draw in draws] == [3] * 5
    assert [draw % 5 for draw in draws] == epoch_order(5, 0, 3).tolist()


def test_every_epoch_has_all_samples_and_a_short_last_batch():
    batches = drawn(epoch_loader(), epoch=1)
    assert [len(batch) for batch in batches] == [4, 4, 2]
    assert sorted(draw % 10 for draw in itertools.chain(*batches)) == list(range(10))


def test_processes_share_an_epoch_evenly():
    ranks = [list(EpochSampler(Draws(5), seed=0, num_replicas=2, rank=rank)) for rank in (0, 1)]
    order = epoch_order(5, 0, 0).tolist()
    assert ranks == [[order[0], order[2], order[4]], [order[1], order[3], order[0]]]


def test_a_restored_loader_goes_on_in_the_middle_of_the_epoch():
    expected = drawn(epoch_loader(), epoch=2)
    interrupted = epoch_loader()
    interrupted.sampler.set_epoch(2)
    iterator = iter(interrupted)
    assert next(iterator) == expected[0]
    resumed = epoch_loader()
    resumed.load_state_dict(interrupted.state_dict())
    assert drawn(resumed, epoch=2) == expected[1:]
    assert resumed.state_dict() == {"epoch": 2, "batches": 3, "batch_size": 4}


def test_after_the_restored_epoch_the_next_ones_are_whole():
    resumed = epoch_loader()
    resumed.load_state_dict({"epoch": 2, "batches": 1, "batch_size": 4})
    assert len(drawn(resumed, epoch=2)) == 2
    assert drawn(resumed, epoch=3) == drawn(epoch_loader(), epoch=3)


def test_a_state_from_the_end_of_an_epoch_starts_the_next_one_whole():
    resumed = epoch_loader()
    resumed.load_state_dict({"epoch": 2, "batches": 3, "batch_size": 4})
    assert drawn(resumed, epoch=3) == drawn(epoch_loader(), epoch=3)


def test_an_iterator_made_before_the_epoch_is_set_follows_it():
    loader = epoch_loader()
    iterator = iter(loader)
    loader.sampler.set_epoch(4)
    assert list(iterator) == drawn(epoch_loader(), epoch=4)


def test_the_length_stays_that_of_a_whole_epoch():
    loader = epoch_loader()
    loader.load_state_dict({"epoch": 0, "batches": 2, "batch_size": 4})
    assert len(loader) == 3


def test_another_batch_size_is_refused():
    with pytest.raises(CheckpointError, match="batches of 8 samples and this run has batches of 4"):
        epoch_loader().load_state_dict({"epoch": 0, "batches": 2, "batch_size": 8})
