"""Reading and drawing tokens."""

import itertools

import pytest
import torch

from qat.errors import ConfigurationError
from qat.models.generation import TokenReader, generate

BLOCK, VOCABULARY = 4, 5


def counting(calls):
    """A step whose cache is the tokens before, and whose likeliest next token is the one after this one."""

    def step(inputs):
        calls.append((int(inputs["ids"]), int(inputs["positions"]), inputs["mask"][0].tolist(), inputs["past.t"][0]))
        logits = torch.zeros(1, 1, VOCABULARY)
        logits[0, 0, (int(inputs["ids"]) + 1) % VOCABULARY] = 2.0
        return {"logits": logits, "present.t": torch.cat([inputs["past.t"], inputs["ids"]], 1)[:, 1:]}

    return step


def reader(calls):
    empty = {"mask": torch.zeros(1, BLOCK), "past.t": torch.full((1, BLOCK - 1), 9)}
    return TokenReader(counting(calls), empty)


def test_tokens_are_masked_in_from_the_end_and_the_cache_is_handed_on():
    calls = []
    tokens = reader(calls)
    for token in (3, 1, 4):
        tokens.feed(token)
    assert [call[:3] for call in calls] == [(3, 0, [0, 0, 0, 1]), (1, 1, [0, 0, 1, 1]), (4, 2, [0, 1, 1, 1])]
    assert calls[0][3].tolist() == [0, 0, 0] and calls[2][3].tolist() == [0, 3, 1]


def test_a_full_window_begins_anew_with_its_second_half():
    calls = []
    tokens = reader(calls)
    for token in (0, 1, 2, 3, 4):
        tokens.feed(token)
    assert [call[:2] for call in calls[4:]] == [(2, 0), (3, 1), (4, 2)]
    assert calls[4][3].tolist() == [0, 0, 0] and tokens.seen == [2, 3, 4]


def test_temperature_zero_takes_the_likeliest_and_seeds_repeat():
    likeliest = itertools.islice(generate(reader([]), [1], range(VOCABULARY), temperature=0), 6)
    assert list(likeliest) == [2, 3, 4, 0, 1, 2]
    drawn = [list(itertools.islice(generate(reader([]), [1], range(VOCABULARY), seed=seed), 30)) for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]


def test_only_choices_are_drawn():
    assert set(itertools.islice(generate(reader([]), [1], [0, 3], temperature=2.0), 40)) == {0, 3}


@pytest.mark.parametrize(
    "prompt, temperature, message", [([], 1.0, "the prompt is empty"), ([1], -1.0, "the temperature is -1.0")]
)
def test_bad_requests_are_refused(prompt, temperature, message):
    with pytest.raises(ConfigurationError, match=message):
        next(generate(reader([]), prompt, range(VOCABULARY), temperature))
