"""Texts as windows of characters."""

import pytest
import torch

from qat.data.text import UNKNOWN, TextData, TextDataModule, Vocabulary, read_text
from qat.errors import ConfigurationError


def test_the_vocabulary_is_the_most_frequent_characters():
    vocabulary = Vocabulary.of("abracadabra", 4)
    assert vocabulary.characters == "abr"
    ids = vocabulary.encode("brac")
    assert ids.tolist() == [2, 3, 1, 0] and ids.dtype == torch.int64
    assert vocabulary.decode(ids) == f"bra{UNKNOWN}" and vocabulary.decode([9]) == UNKNOWN


def test_a_text_of_few_characters_leaves_ids_over():
    assert Vocabulary.of("ba", 10).characters == "ab"


def test_a_vocabulary_is_read_as_it_was_written(tmp_path):
    path = tmp_path / "vocabulary.json"
    path.write_bytes(Vocabulary('"\n\\é…').to_json())
    assert Vocabulary.read(path) == Vocabulary('"\n\\é…')


@pytest.mark.parametrize("content", ["", "[]", '{"characters": "aa"}', '{"characters": 3}'])
def test_another_file_is_no_vocabulary(tmp_path, content):
    (tmp_path / "vocabulary.json").write_text(content)
    with pytest.raises(ConfigurationError, match="holds no vocabulary"):
        Vocabulary.read(tmp_path / "vocabulary.json")


def test_windows_follow_one_another_and_targets_are_one_further():
    data = TextData(torch.arange(10), block_size=3)
    ids, positions, targets = data.__getitems__([0, 2])
    assert len(data) == 3
    assert ids.tolist() == [[0, 1, 2], [6, 7, 8]] and targets.tolist() == [[1, 2, 3], [7, 8, 9]]
    assert positions.tolist() == [[0, 1, 2], [0, 1, 2]]
    assert [tensor.tolist() for tensor in data[1]] == [[3, 4, 5], [0, 1, 2], [4, 5, 6]]


def test_windows_of_another_epoch_begin_elsewhere_and_stay_inside():
    data = TextData(torch.arange(100), block_size=8, shift_seed=3)
    firsts = []
    for epoch in range(20):
        ids, _, targets = data.__getitems__([epoch * len(data) + index for index in range(len(data))])
        firsts.append(int(ids[0, 0]))
        assert torch.equal(ids.flatten(), torch.arange(firsts[-1], firsts[-1] + 8 * len(data)))
        assert torch.equal(targets, ids + 1)
    assert len(set(firsts)) > 4 and set(firsts) <= set(range(8))


def test_parts_are_cut_by_position_and_the_vocabulary_is_of_the_first(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text("a" * 60 + "b" * 20 + "z" * 20)
    data = TextDataModule(str(path), block_size=4, val_share=0.2, test_share=0.2, batch_size=2)
    data.setup("fit")
    assert data.vocabulary.characters == "a"
    assert [len(data.splits[name].tokens) for name in ("train", "val", "test")] == [60, 20, 20]
    ids, positions, targets = next(iter(data.test_dataloader()))
    assert ids.shape == positions.shape == targets.shape == (2, 4) and not ids.any()


def test_limit_keeps_so_many_windows_of_each_part(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text("abc" * 100)
    data = TextDataModule(str(path), block_size=4, limit=3)
    data.setup()
    assert {len(split) for split in data.splits.values()} == {3}


def test_files_hold_the_vocabulary(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text("abcd" * 100)
    data = TextDataModule(str(path), block_size=4, vocabulary_size=3)
    (content,) = data.files().values()
    (tmp_path / "vocabulary.json").write_bytes(content)
    assert list(data.files()) == ["vocabulary.json"]
    assert Vocabulary.read(tmp_path / "vocabulary.json").characters == "ab"


def test_the_help_topics_come_with_python():
    text = read_text(None)
    assert text.startswith('The "assert" statement') and len(text) > 300_000


def test_a_text_that_is_too_short_is_refused(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text("ab" * 30)
    with pytest.raises(ConfigurationError, match="the train part of the text has 48 characters, too few for windows"):
        TextDataModule(str(path), block_size=64).setup()


@pytest.mark.parametrize("content", [None, b"\xff\xfe\xff"])
def test_a_file_that_is_no_text_is_refused(tmp_path, content):
    path = tmp_path / "text.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigurationError, match="cannot be read as text .*; give a file of UTF-8 text"):
        TextDataModule(str(path)).setup()


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"vocabulary_size": 1}, "data.vocabulary_size is 1"),
        ({"block_size": 1}, "data.block_size is 1"),
        ({"val_share": 0.5, "test_share": 0.5}, "leave nothing to train on"),
        ({"test_share": 0.0}, "data.test_share is 0.0"),
    ],
)
def test_bad_settings_are_refused(settings, message):
    with pytest.raises(ConfigurationError, match=message):
        TextDataModule(**settings)
