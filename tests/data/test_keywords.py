import numpy
import pytest
import torch

from qat.data import KeywordsDataModule, keywords
from qat.data.cepstrum import CLIP
from qat.data.keywords import (
    ACCENTS,
    CLASSES,
    KEYWORDS,
    OTHER_WORDS,
    SILENCE,
    TIMBRES,
    UNKNOWN,
    Recordings,
    at_16_khz,
    disturbances,
    disturbed,
    recordings_of,
    utterances_of,
)
from qat.errors import ConfigurationError, MissingExtraError

SPEAKERS = {"train": 3, "val": 2, "test": 2}


@pytest.fixture(scope="module")
def module():
    made = KeywordsDataModule(SPEAKERS, batch_size=16)
    made.setup()
    return made


@pytest.fixture
def synthesizer(monkeypatch):
    """Words in the place of spoken ones: a tone as long as the word."""
    monkeypatch.setattr(
        keywords, "spoken", lambda said: [numpy.full(1000 * len(entry.word), 500, numpy.int16) for entry in said]
    )


def test_the_classes_are_those_of_the_benchmark():
    assert len(CLASSES) == 12 and CLASSES[SILENCE] == "silence" and CLASSES[UNKNOWN] == "unknown"
    assert not set(KEYWORDS) & set(OTHER_WORDS)


def test_a_speaker_says_every_keyword_and_two_other_words_with_one_voice():
    said = utterances_of("train", 2, split_seed=0)
    assert len(said) == 24
    for spoken in (said[:12], said[12:]):
        assert sorted(label for _, label in spoken) == [*range(10), UNKNOWN, UNKNOWN]
        assert len({entry.voice for entry, _ in spoken}) == 1
        assert all(entry.word == CLASSES[label] or entry.word in OTHER_WORDS for entry, label in spoken)
    assert said[0][0].voice != said[12][0].voice


def test_more_speakers_begin_with_the_same():
    assert utterances_of("test", 3, split_seed=0)[:24] == utterances_of("test", 2, split_seed=0)
    assert utterances_of("test", 2, split_seed=0) != utterances_of("test", 2, split_seed=1)


def test_no_timbre_is_in_two_splits_and_every_voice_is_one_of_the_list():
    timbres = {}
    for split in ("train", "val", "test"):
        voices = [entry.voice.split("+") for entry, _ in utterances_of(split, 200, split_seed=0)]
        assert {accent for accent, _ in voices} == set(ACCENTS)
        timbres[split] = {timbre for _, timbre in voices}
    assert not timbres["train"] & timbres["val"] and not timbres["train"] & timbres["test"]
    assert not timbres["val"] & timbres["test"]
    assert set().union(*timbres.values()) <= set(TIMBRES)


def test_a_tenth_of_the_clips_has_no_word(synthesizer):
    recordings = recordings_of("test", 3, split_seed=0)
    silent = recordings.labels == SILENCE
    assert len(recordings.labels) == 40 and silent.sum() == 4
    assert not recordings.clips[silent].any() and not recordings.lengths[silent].any()
    assert recordings.clips[~silent].any(1).all()


def test_a_wave_keeps_its_frequencies_and_loses_those_that_the_new_rate_has_no_room_for():
    moments = numpy.arange(22_050) / 22_050
    low, high = (numpy.round(8000 * numpy.sin(2 * numpy.pi * f * moments)).astype(numpy.int16) for f in (1000, 9000))
    expected = numpy.round(8000 * numpy.sin(2 * numpy.pi * 1000 * numpy.arange(CLIP) / CLIP))
    assert abs(at_16_khz(low) - expected).max() <= 2
    assert abs(at_16_khz(high)).max() <= 2
    assert len(at_16_khz(low[:100])) == CLIP and len(at_16_khz(numpy.concatenate([low, low]))) == CLIP


def test_a_word_is_placed_whole_somewhere_in_the_clip():
    clips = torch.zeros(1, CLIP, dtype=torch.int16)
    clips[0, :4] = torch.tensor([3000, 4000, -4000, -3000])
    recordings = Recordings(clips, torch.tensor([4]), torch.tensor([0]))
    for place, start in ((0.0, 0), (0.5, 7998), (1.0, CLIP - 4)):
        quiet = {"place": place, "ratio": 1.0, "loudness": 0.0, "kind": 0.0, "start": 0.0}
        result = disturbed(
            recordings, torch.tensor([0]), {name: torch.tensor([share]) for name, share in quiet.items()}
        )
        # of power 1 by its four samples, ten times as strong as the noise, loudness 0.01
        word = result[0, start : start + 4]
        torch.testing.assert_close(word, torch.tensor([3.0, 4, -4, -3]) / 12.5**0.5 / 100, atol=0.005, rtol=0)
        assert result[0].abs().topk(4).indices.sort().values.tolist() == [*range(start, start + 4)]


def test_a_clip_without_a_word_is_noise_as_loud_as_drawn():
    recordings = Recordings(torch.zeros(2, CLIP, dtype=torch.int16), torch.tensor([0, 0]), torch.tensor([10, 10]))
    drawn = {name: torch.tensor([0.5, 0.5]) for name in ("place", "kind", "start")}
    drawn |= {"ratio": torch.tensor([1.0, 1.0]), "loudness": torch.tensor([0.0, 1.0])}  # 20 dB; 10^-2 and 10^-0.7
    quiet, loud = disturbed(recordings, torch.tensor([0, 1]), drawn).std(1).tolist()
    assert quiet == pytest.approx(0.001, rel=0.2)
    assert loud / quiet == pytest.approx(10**1.3, rel=0.01)


def test_disturbances_are_a_function_of_seed_and_epoch():
    one, same, later = (disturbances((0, 1), epoch, 7) for epoch in (0, 0, 1))
    assert all(torch.equal(one[name], same[name]) and not torch.equal(one[name], later[name]) for name in one)
    assert all(values.shape == (7,) and 0 <= values.min() and values.max() < 1 for values in one.values())


def test_training_hears_new_noise_every_epoch_and_the_other_splits_their_own_always(module):
    for name, split in module.splits.items():
        now, later = (split.__getitems__([epoch * len(split), epoch * len(split) + 1])[0] for epoch in (0, 1))
        assert torch.equal(now, later) == (name != "train")


def test_batches_are_features_and_labels(module):
    features, labels = next(iter(module.test_dataloader()))
    assert features.shape == (16, 1, 49, 10) and features.dtype == torch.float32
    assert labels.shape == (16,) and labels.dtype == torch.int64
    assert [len(module.splits[name]) for name in ("train", "val", "test")] == [40, 27, 27]
    assert module.splits["test"][0][0].shape == (1, 49, 10)


def test_the_seed_changes_training_alone(synthesizer):
    first, second = KeywordsDataModule(SPEAKERS), KeywordsDataModule(SPEAKERS, seed=1)
    for made in (first, second):
        made.setup()
    for name in SPEAKERS:
        equal = torch.equal(*(made.splits[name].__getitems__([0, 1])[0] for made in (first, second)))
        assert equal == (name != "train")


def test_a_stage_sets_up_what_it_needs(synthesizer):
    module = KeywordsDataModule(SPEAKERS)
    module.setup("test")
    assert set(module.splits) == {"test"}
    module.setup("fit")
    assert set(module.splits) == {"train", "val", "test"}


def test_a_limit_keeps_clips_of_every_kind(synthesizer):
    module = KeywordsDataModule(SPEAKERS, limit=8)
    module.setup()
    assert [len(split) for split in module.splits.values()] == [8, 8, 8]
    assert SILENCE in module.splits["test"].recordings.labels


@pytest.mark.parametrize(
    "speakers, found", [({"train": 1, "val": 1}, "{'train': 1, 'val': 1}"), ({**SPEAKERS, "val": 0}, "'val': 0")]
)
def test_impossible_numbers_of_speakers_are_refused(speakers, found):
    with pytest.raises(ConfigurationError, match=f"data.speakers is .*{found}.*give train, val, test"):
        KeywordsDataModule(speakers)


def test_a_missing_synthesizer_names_its_extra(monkeypatch):
    def absent(utterances):
        raise ModuleNotFoundError("no", name="espeakng_loader")

    monkeypatch.setattr(keywords, "spoken", absent)
    with pytest.raises(MissingExtraError, match=r'pip install "lightning-qat\[speech\]"'):
        KeywordsDataModule(SPEAKERS).setup("test")
