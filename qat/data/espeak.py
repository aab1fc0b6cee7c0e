"""Words spoken by the formant synthesizer espeak-ng (GPL-3.0), which the package `espeakng-loader` brings along.

The synthesizer carries state from word to word, so that the same word differs from call to call. All words of a request
are therefore spoken by a process of its own, in their order: this file, run as a script. What it says is then a pure
function of the request.
"""

import io
import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy

#: Samples in a second of what the synthesizer gives.
SAMPLE_RATE = 22_050

#: What it calls its parameters, and the mode in which a call returns when everything is spoken (speak_lib.h).
_RATE, _PITCH, _RANGE = 1, 3, 4
_SYNCHRONOUS, _UTF8 = 2, 1

#: What a child that has no synthesizer ends with.
_NOT_INSTALLED = 3


@dataclass(frozen=True)
class Utterance:
    """One word of one speaker.

    voice: a language and a timbre, `en-us+f3`. pitch: 0..100, intonation: how far it moves, 0..100. rate: words in a
    minute.
    """

    word: str
    voice: str
    pitch: int = 50
    intonation: int = 50
    rate: int = 175


def spoken(utterances: Sequence[Utterance]) -> list[numpy.ndarray]:
    """Each utterance as (samples,) int16 at `SAMPLE_RATE`. A pure function of all of them.

    Raises `ModuleNotFoundError` where the synthesizer is not installed, `ValueError` for a voice that it does not have.
    """
    if not utterances:
        return []
    request = json.dumps([asdict(utterance) for utterance in utterances])
    # -P: the modules beside this file are none of the child's
    child = subprocess.run([sys.executable, "-P", __file__], input=request.encode(), capture_output=True)
    if child.returncode == _NOT_INSTALLED:
        raise ModuleNotFoundError("the synthesizer is not installed", name="espeakng_loader")
    if child.returncode:
        raise ValueError(
            (child.stderr.decode(errors="replace").strip() or "the synthesizer ended early").split("\n")[-1]
        )
    stream = io.BytesIO(child.stdout)
    lengths, samples = numpy.load(stream), numpy.load(stream)
    return numpy.split(samples, numpy.cumsum(lengths)[:-1])


def _speak(request: list[dict]) -> list[numpy.ndarray]:
    """What the child does."""
    import ctypes

    import espeakng_loader

    library = ctypes.CDLL(espeakng_loader.get_library_path())
    rate = library.espeak_Initialize(_SYNCHRONOUS, 0, espeakng_loader.get_data_path().encode(), 0)
    if rate != SAMPLE_RATE:
        raise ValueError(f"espeak-ng speaks at {rate} samples a second, not at {SAMPLE_RATE}")
    library.espeak_ng_SetRandSeed(ctypes.c_long(1))  # the breath of some voices is random, and seeded with the time
    chunks: list[numpy.ndarray] = []

    @ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)
    def take(samples, count, events):
        if count > 0:
            chunks.append(numpy.ctypeslib.as_array(samples, (count,)).copy())
        return 0  # go on

    library.espeak_SetSynthCallback(take)
    waves = []
    for utterance in request:
        chunks.clear()
        if library.espeak_SetVoiceByName(utterance["voice"].encode()):
            raise ValueError(f"espeak-ng has no voice {utterance['voice']!r}")
        for parameter, name in ((_RATE, "rate"), (_PITCH, "pitch"), (_RANGE, "intonation")):
            library.espeak_SetParameter(parameter, utterance[name], 0)
        text = utterance["word"].encode() + b"\0"
        if library.espeak_Synth(text, len(text), 0, 0, 0, _UTF8, None, None):
            raise ValueError(f"espeak-ng cannot speak {utterance['word']!r}")
        waves.append(numpy.concatenate(chunks) if chunks else numpy.zeros(0, numpy.int16))
    return waves


def _main() -> int:
    try:
        waves = _speak(json.load(sys.stdin))
    except ModuleNotFoundError as error:
        if error.name != "espeakng_loader":
            raise
        return _NOT_INSTALLED
    stream = io.BytesIO()
    numpy.save(stream, numpy.array([len(wave) for wave in waves], numpy.int64))
    numpy.save(stream, numpy.concatenate(waves))
    sys.stdout.buffer.write(stream.getvalue())
    return 0


if __name__ == "__main__":
    sys.exit(_main())
