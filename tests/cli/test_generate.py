"""A run of the text recipe, and qat-generate on what it leaves."""

import itertools
import json

import pytest
import torch

import qat
from qat.cli import generate
from qat.cli.generate import empty_inputs, generated, reader_of
from qat.data.text import Vocabulary
from qat.errors import ConfigurationError

TEXT = "It is what it is: round and round it goes, and where it stops nobody knows.\n" * 60


@pytest.fixture(scope="module")
def text_run(tmp_path_factory, qat_train):
    """The folder of a finished run on a text of its own; not to be written to."""
    folder = tmp_path_factory.mktemp("text")
    (folder / "text.txt").write_text(TEXT)
    small = ("data.block_size=8", "model.network.heads=2", "model.network.depth=1", "data.vocabulary_size=24")
    early = ("schedule.start=0.1", "schedule.freeze_observers=0.5", "schedule.freeze_batch_norm=0.5")
    result = qat_train(folder, "-cn", "topics_gpt_w8a8", "hydra.run.dir=run", "data.path=text.txt", *small, *early)
    assert result.returncode == 0, result.stderr
    assert "operations on floats: 0" in result.stdout
    return folder / "run"


def test_integer_perplexity_is_that_of_the_fake_quantized_network(text_run):
    report = json.loads((text_run / "integer" / "report.json").read_text())
    assert report["metrics"]["integer"]["perplexity"] == report["metrics"]["fake_quant"]["perplexity"]
    assert 1 < report["metrics"]["integer"]["perplexity"] < 40
    assert {entry["differing"] for entry in report["mismatches"].values()} == {0}


def test_a_run_leaves_the_vocabulary_and_the_network_for_one_token(text_run):
    vocabulary = Vocabulary.read(text_run / "integer" / "vocabulary.json")
    assert set(vocabulary.characters) == set(TEXT) and vocabulary.characters[0] == " "
    step = qat.IntegerProgram.load(text_run / "integer" / "step")
    assert [edge.name for edge in step.inputs] == ["ids", "positions", "mask", "past.0.key", "past.0.value"]
    assert [edge.codes for edge in step.outputs] == [False, True, True]


def test_the_step_file_computes_what_the_network_of_the_run_computes(text_run):
    whole = qat.IntegerProgram.load(text_run / "integer")
    ids = Vocabulary.read(text_run / "integer" / "vocabulary.json").encode(TEXT[:8])
    reader = reader_of(text_run / "integer" / "step")
    logits = torch.stack([reader.feed(int(token)) for token in ids])
    assert torch.equal(logits, whole((ids[None], torch.arange(8)[None]))[0])


def test_text_is_generated_beyond_the_window_and_repeats_with_its_seed(text_run, capsys):
    arguments = [str(text_run), "--prompt", "It is", "--length", "30", "--seed"]
    texts = []
    for seed in ("1", "1", "2"):
        assert generate.main([*arguments, seed]) == 0
        captured = capsys.readouterr()
        texts.append(captured.out)
        assert captured.err.endswith("characters per second\n")
    assert texts[0] == texts[1] != texts[2]
    assert texts[0].startswith("It is") and len(texts[0]) == 5 + 30 + 1 and set(texts[0]) <= set(TEXT)


def test_characters_that_the_run_never_saw_can_be_prompted(text_run):
    assert len(list(itertools.islice(generated(text_run, "ÄÖ§", temperature=0), 5))) == 5


def test_a_run_without_a_network_for_one_token_is_refused(finished, capsys):
    assert generate.main([str(finished)]) == 1
    assert "has no integer/step/model.onnx; give the folder of a run of a language model" in capsys.readouterr().err
    with pytest.raises(ConfigurationError):
        next(generated(finished, "a"))


def test_a_length_of_nothing_is_refused(text_run, capsys):
    assert generate.main([str(text_run), "--length", "0"]) == 1
    assert "--length is 0" in capsys.readouterr().err


def test_empty_inputs_are_of_the_types_of_the_file(text_run):
    step = qat.IntegerProgram.load(text_run / "integer" / "step")
    empty = empty_inputs(step)
    assert {str(empty[name].dtype) for name in ("ids", "past.0.key")} == {"torch.int64", "torch.uint8"}
    assert tuple(empty["past.0.key"].shape) == (1, 2, 7, 2)
