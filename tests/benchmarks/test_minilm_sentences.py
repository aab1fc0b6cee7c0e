"""A pretrained sentence encoder as integers: what docs/sentence_encoder.md tells, as bounds."""

import pytest
import torch

pytestmark = [
    pytest.mark.pretrained,
    pytest.mark.timeout(1800),
    pytest.mark.filterwarnings("ignore"),  # those of the packages that bring the encoder
]


@pytest.fixture(scope="module")
def module():
    import minilm_sentences  # takes seconds, and the packages of the extra `test`

    return minilm_sentences


def test_sentences_to_judge_by_are_no_others(module):
    judged, others = module.sentences()
    assert len(set(judged)) == 200 and len(others) > 1500 and not set(judged) & set(others)


def test_recall_counts_the_neighbours_that_stay(module):
    embeddings = torch.nn.functional.normalize(torch.randn(40, 8, generator=torch.Generator().manual_seed(0)), dim=1)
    assert module.recall(embeddings, embeddings) == 1.0
    assert module.recall(embeddings, embeddings.flip(0)) < 0.6


@pytest.mark.parametrize("way", ["post_training", "trained"])
def test_embeddings_and_neighbours_are_kept(module, way, tmp_path):
    figures = getattr(module, way)(module.QUANTIZATIONS["w8a8, sums of 16 bits"], tmp_path)
    assert figures.differing == 0 and figures.float_ops == 0
    assert figures.mean >= 0.99 and figures.recall >= 0.9
