import numpy
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from qat.data.tensors import TensorData, stratified_split


def test_samples_are_read_by_draw():
    data = TensorData(torch.tensor([[0.0], [1.0], [2.0]]), torch.tensor([5, 6, 7]))
    inputs, targets = data.__getitems__([4, 3, 2])  # indices 1, 0 of epoch 1 and 2 of epoch 0
    assert inputs.tolist() == [[1.0], [0.0], [2.0]]
    assert targets.tolist() == [6, 5, 7]
    assert data[4][1] == 6


@given(st.lists(st.integers(0, 3), min_size=1, max_size=60), st.floats(0.05, 0.9), st.integers(0, 9))
def test_a_split_divides_all_samples_and_every_class(labels, share, seed):
    labels = numpy.array(labels)
    kept, held_out = stratified_split(labels, share, seed)
    assert sorted([*kept, *held_out]) == list(range(len(labels)))
    for label in set(labels):
        members = (labels == label).sum()
        assert (labels[held_out] == label).sum() == max(1, round(share * members))


def test_a_split_depends_on_the_seed_alone():
    labels = numpy.arange(100) % 4
    assert stratified_split(labels, 0.2, 0)[1].tolist() == stratified_split(labels, 0.2, 0)[1].tolist()
    assert stratified_split(labels, 0.2, 0)[1].tolist() != stratified_split(labels, 0.2, 1)[1].tolist()


@pytest.mark.parametrize("share, held_out", [(0.25, 1), (0.5, 2)])
def test_the_share_is_rounded_by_class(share, held_out):
    assert len(stratified_split(numpy.array([0, 0, 0, 0, 1, 1, 1, 1]), share, 0)[1]) == 2 * held_out
