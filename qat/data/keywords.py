"""Spoken keywords that a synthesizer speaks: the classes of Google's Speech Commands, without a download.

This is not Speech Commands (arXiv:1804.03209), and figures on it say nothing about that data set. Words are spoken by
the formant synthesizer espeak-ng in many voices, placed anywhere in a second of sound, and mixed with noise. Speakers
of validation and test have timbres that no speaker of training has.
"""

import functools
from collections.abc import Mapping
from dataclasses import dataclass

import numpy
import torch
from torch import Tensor
from torch.utils.data import Dataset

from qat.data.cepstrum import CLIP, coefficients
from qat.data.espeak import SAMPLE_RATE, Utterance, spoken
from qat.data.module import InMemoryDataModule
from qat.errors import ConfigurationError, MissingExtraError

#: Class numbers are places in this list, in the order of MLPerf Tiny.
CLASSES = ("down", "go", "left", "no", "off", "on", "right", "stop", "up", "yes", "silence", "unknown")
KEYWORDS, SILENCE, UNKNOWN = CLASSES[:10], 10, 11

#: Words of Speech Commands that are "unknown".
OTHER_WORDS = (
    "backward bed bird cat dog eight five follow forward four happy house learn marvin nine one seven sheila six three "
    "tree two visual wow zero"
).split()

#: What a speaker says of them, beside every keyword.
OTHERS_BY_SPEAKER = 2

#: Accents and timbres of espeak-ng; a voice is one of each. The three splits share no timbre.
ACCENTS = "en-us en-gb-x-rp en-gb-scotland en-029 en-gb-x-gbclan en-gb-x-gbcwmd en-us-nyc".split()
TIMBRES = (
    "Alex Alicia Andrea Andy Annie AnxiousAndy Demonic Denis Diogo Gene Gene2 Henrique Hugo Jacky Lee Marco Mario "
    "Michael Mike Nguyen Reed RicishayMax RicishayMax2 RicishayMax3 Storm Tweaky UniRobot adam anika anikaRobot "
    "announcer antonio aunty belinda benjamin boris caleb croak david ed edward edward2 f1 f2 f3 f4 f5 fast "
    "grandma grandpa gustave ian iven iven2 iven3 iven4 john kaukovalta klatt klatt2 klatt3 klatt4 klatt5 klatt6 "
    "linda m1 m2 m3 m4 m5 m6 m7 m8 marcelo max michel miguel mike2 norbert pablo paul pedro quincy rob robert "
    "robosoft robosoft2 robosoft3 robosoft4 robosoft5 robosoft6 robosoft7 robosoft8 sandro shelby steph steph2 "
    "steph3 travis victor whisper whisperf zac"
).split()
TIMBRES_OF = {"val": 16, "test": 24}  # and training has the others

#: How speakers differ otherwise: pitch and how far it moves (0..100), words in a minute.
PITCHES, INTONATIONS, RATES = (20, 80), (20, 80), (110, 220)

#: Signal over noise, dB, and the loudness of a clip, as exponents of 10: evenly between.
NOISE_RATIOS, LOUDNESS = (-3.0, 20.0), (-2.0, -0.7)

#: Seconds of noise that clips are mixed with, of each of `NOISES` kinds, and by which power of the frequency the
#: amplitudes of each kind fall.
NOISE_SECONDS = 30
NOISES = (0.0, 0.5, 1.0)

#: Of each coefficient of training clips, so that what the network sees has about a mean of 0 and a deviation of 1.
MEAN = (-7.71, 0.46, 0.83, 0.0, 0.13, 0.14, 0.17, 0.19, 0.18, 0.13)
STD = (10.77, 3.15, 1.48, 1.59, 1.23, 1.09, 0.92, 0.82, 0.76, 0.73)

#: What sets the splits apart, as one entry of the seed.
_SPLITS = {"train": 0, "val": 1, "test": 2}


@dataclass(frozen=True)
class Recordings:
    """Words at the start of clips. clips: (N, CLIP) int16. lengths: (N,) int64, samples. labels: (N,) int64."""

    clips: Tensor
    lengths: Tensor
    labels: Tensor


def utterances_of(split: str, speakers: int, split_seed: int) -> list[tuple[Utterance, int]]:
    """What the speakers of a split say, with labels: every keyword and some other words, in an order of their own.

    A pure function of its arguments; the first speakers of more are the same.
    """
    timbres = _timbres_of(split, split_seed)
    said = []
    for speaker in range(speakers):
        generator = numpy.random.default_rng((split_seed, _SPLITS[split], speaker))
        voice = f"{generator.choice(ACCENTS)}+{generator.choice(timbres)}"
        pitch, intonation = (int(generator.integers(*limits)) for limits in (PITCHES, INTONATIONS))
        others = generator.choice(OTHER_WORDS, OTHERS_BY_SPEAKER, replace=False)
        for word in generator.permutation([*KEYWORDS, *others]):
            label = KEYWORDS.index(word) if word in KEYWORDS else UNKNOWN
            rate = int(generator.integers(*RATES))
            said.append((Utterance(str(word), voice, pitch, intonation, rate), label))
    return said


def _timbres_of(split: str, split_seed: int) -> list[str]:
    order = [TIMBRES[index] for index in numpy.random.default_rng(split_seed).permutation(len(TIMBRES))]
    val, test = TIMBRES_OF["val"], TIMBRES_OF["test"]
    return {"val": order[:val], "test": order[val : val + test], "train": order[val + test :]}[split]


def recordings_of(split: str, speakers: int, split_seed: int) -> Recordings:
    """The words of a split, and a tenth of its clips beside them without any."""
    said = utterances_of(split, speakers, split_seed)
    try:
        waves = spoken([utterance for utterance, _ in said])
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            "the keywords are spoken by espeak-ng, which espeakng-loader brings along and which is not installed; "
            'pip install "lightning-qat[speech]".'
        ) from error
    clips = numpy.stack([at_16_khz(wave) for wave in waves])
    lengths = [min(CLIP, -(-len(wave) * CLIP // SAMPLE_RATE)) for wave in waves]
    silent = -(-len(said) // 9)
    labels = [label for _, label in said] + [SILENCE] * silent
    return Recordings(
        torch.from_numpy(numpy.concatenate([clips, numpy.zeros((silent, CLIP), numpy.int16)])),
        torch.tensor(lengths + [0] * silent),
        torch.tensor(labels),
    )


def at_16_khz(wave: numpy.ndarray) -> numpy.ndarray:
    """The first second of (samples,) int16 at `SAMPLE_RATE` as (`CLIP`,) int16, filled up with zeros.

    Frequencies are left out above the half of the new rate, by the Fourier transform of the whole second.
    """
    second = numpy.zeros(SAMPLE_RATE)
    second[: len(wave)] = wave[:SAMPLE_RATE]
    spectrum = numpy.fft.rfft(second)[: CLIP // 2 + 1]
    return (numpy.fft.irfft(spectrum, CLIP) * (CLIP / SAMPLE_RATE)).round().clip(-32768, 32767).astype(numpy.int16)


@functools.cache
def background() -> Tensor:
    """(kinds, samples) float32 of deviation 1: noise whose amplitude falls with the frequency, for each of `NOISES`.

    Callers must not write to it.
    """
    samples = NOISE_SECONDS * CLIP
    generator = numpy.random.default_rng(0)
    frequency = numpy.arange(1, samples // 2 + 2) / 20  # of 20 Hz; what is below is as loud
    noises = []
    for power in NOISES:
        spectrum = numpy.fft.rfft(generator.standard_normal(samples)) / frequency.clip(1) ** power
        noise = numpy.fft.irfft(spectrum, samples)
        noises.append(noise / noise.std())
    return torch.from_numpy(numpy.stack(noises).astype(numpy.float32))


@functools.lru_cache(maxsize=4)
def disturbances(seed: tuple[int, ...], epoch: int, size: int) -> Mapping[str, Tensor]:
    """How every clip of an epoch is disturbed; each entry is (size,), float32 in 0..1.

    place: of the word in the clip. ratio, loudness: in `NOISE_RATIOS` and `LOUDNESS`. kind, start: of the noise.
    """
    drawn = numpy.random.default_rng((*seed, epoch)).random((5, size), numpy.float32)
    return dict(zip(("place", "ratio", "loudness", "kind", "start"), torch.from_numpy(drawn), strict=True))


def disturbed(recordings: Recordings, indices: Tensor, drawn: Mapping[str, Tensor]) -> Tensor:
    """Clips `indices`, (B,), with the word somewhere and noise over it: (B, CLIP) float32 in -1..1.

    drawn: as of `disturbances`, (B,) each.
    """
    lengths = recordings.lengths[indices]
    starts = (drawn["place"] * (CLIP - lengths + 1)).long().minimum(CLIP - lengths)
    moments = torch.arange(CLIP)
    clips = recordings.clips[indices].float()
    clips = clips.gather(
        1, (moments - starts[:, None]) % CLIP
    )  # behind a word lie zeros, which come round to its front
    power = clips.square().sum(1) / lengths.clamp(min=1)
    words = clips / power.sqrt().clamp(min=1.0)[:, None]
    noise = background()
    kinds = (drawn["kind"] * len(noise)).long().clamp(max=len(noise) - 1)
    first = (drawn["start"] * (noise.shape[1] - CLIP)).long()
    noises = noise[kinds[:, None], first[:, None] + moments]
    noises = noises * 10 ** (-_between(NOISE_RATIOS, drawn["ratio"]) / 20)[:, None]
    loudness = 10 ** _between(LOUDNESS, drawn["loudness"])
    return ((words + noises) * loudness[:, None]).clamp(-1, 1)


def _between(limits: tuple[float, float], share: Tensor) -> Tensor:
    return limits[0] + (limits[1] - limits[0]) * share


class KeywordData(Dataset):
    """Clips read a batch at a time by `draw = epoch * size + index`; an index alone is a draw of epoch 0.

    seed: of what disturbs the clips. fresh: whether that is another one in every epoch, or always that of epoch 0.
    """

    def __init__(self, recordings: Recordings, seed: tuple[int, ...], fresh: bool):
        self.recordings, self.seed, self.fresh = recordings, seed, fresh

    def __len__(self) -> int:
        return len(self.recordings.labels)

    def __getitems__(self, draws: list[int]) -> tuple[Tensor, Tensor]:
        # A sampler passes through one epoch at a time, so all draws of a batch share it.
        epoch = draws[0] // len(self) if self.fresh else 0
        indices = torch.tensor(draws) % len(self)
        drawn = {name: values[indices] for name, values in disturbances(self.seed, epoch, len(self)).items()}
        features = coefficients(disturbed(self.recordings, indices, drawn))
        normalized = (features - torch.tensor(MEAN)) / torch.tensor(STD)
        return normalized[:, None], self.recordings.labels[indices]

    def __getitem__(self, draw: int) -> tuple[Tensor, Tensor]:
        features, labels = self.__getitems__([draw])
        return features[0], labels[0]


class KeywordsDataModule(InMemoryDataModule):
    """Batches of (features (B, 1, 49, 10) float32, labels (B,) int64, places in `CLASSES`).

    Every speaker says the ten keywords and two other words; a tenth of the clips has no word. Training hears other
    noise in every epoch, validation and test always the same. About 2 ms for every word to speak, at `setup`.

    batch_size, seed, limit, num_workers: see `InMemoryDataModule`.
    split_seed: of speakers and noise; apart from `seed`, so that runs of several seeds share a test split.
    speakers: how many "train", "val" and "test" have.
    """

    def __init__(
        self,
        speakers: Mapping[str, int],
        batch_size: int = 100,
        seed: int = 0,
        split_seed: int = 0,
        limit: int | None = None,
        num_workers: int = 0,
    ):
        super().__init__(batch_size, seed, limit, num_workers)
        if set(speakers) != set(_SPLITS) or any(type(count) is not int or count < 1 for count in speakers.values()):
            raise ConfigurationError(
                f"data.speakers is {dict(speakers)}; give {', '.join(_SPLITS)}, each a whole number from 1 on."
            )
        self.speakers, self.split_seed = dict(speakers), split_seed

    def setup(self, stage: str | None = None) -> None:
        """Have spoken what `stage` ("fit", "validate", "test", None for all) needs and is not in memory yet."""
        needed = {"fit": ("train", "val"), "validate": ("val",), "test": ("test",), "predict": ("test",)}
        for name in needed.get(stage, tuple(_SPLITS)):
            if name not in self.splits:
                self.splits[name] = self._split(name)

    def _split(self, name: str) -> KeywordData:
        recordings = recordings_of(name, self.speakers[name], self.split_seed)
        if self.limit is not None:
            # clips of the front are of one speaker, and those without a word at the end
            kept = torch.linspace(0, len(recordings.labels) - 1, min(self.limit, len(recordings.labels))).long()
            recordings = Recordings(recordings.clips[kept], recordings.lengths[kept], recordings.labels[kept])
        return KeywordData(
            recordings, (self.split_seed, _SPLITS[name], self.seed if name == "train" else 0), name == "train"
        )
