import sys
import time

import numpy
import pytest

from qat.data import espeak
from qat.data.espeak import SAMPLE_RATE, Utterance, spoken

WORDS = [Utterance("yes", "en-us+f3"), Utterance("no", "en-029+m2", pitch=80, intonation=20, rate=120)]


def test_what_is_spoken_is_a_pure_function_of_the_request():
    words = [*WORDS, Utterance("stop", "en-us+whisper")]  # whose breath is random
    first = spoken(words)
    time.sleep(1.1)  # what the synthesizer seeds itself with has seconds
    second = spoken(words)
    for one, other in zip(first, second, strict=True):
        assert numpy.array_equal(one, other)
        assert one.dtype == numpy.int16 and abs(one).max() > 1000
        assert 0.2 < len(one) / SAMPLE_RATE < 1.2


def test_a_voice_sounds_of_its_timbre_and_a_rate_takes_its_time():
    slow, fast, other = (
        spoken([Utterance("seven", voice, rate=rate)])[0]
        for voice, rate in (("en-us+f3", 100), ("en-us+f3", 220), ("en-us+m1", 220))
    )
    assert len(slow) > 1.3 * len(fast)
    assert not numpy.array_equal(fast, other)


def test_nothing_to_say_is_no_sound():
    assert spoken([]) == []


def test_an_unknown_voice_is_named():
    with pytest.raises(ValueError, match="espeak-ng has no voice 'martian'"):
        spoken([Utterance("yes", "martian")])


def test_a_child_without_the_synthesizer_says_so(monkeypatch):
    monkeypatch.setitem(sys.modules, "espeakng_loader", None)  # importing it raises
    monkeypatch.setattr(espeak.json, "load", lambda stream: [])
    assert espeak._main() == espeak._NOT_INSTALLED
