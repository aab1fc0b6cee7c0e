"""What post-training quantization may be told, and what it refuses."""

import pytest

import qat
from qat.errors import ConfigurationError


def test_nothing_is_done_besides_observing_unless_asked_for():
    assert qat.PostTraining() == qat.PostTraining(batches=None, equalize=False, bias_correction=False, adaround=None)
    assert not qat.PostTraining(equalize=True).adjusts_layers
    assert qat.PostTraining(bias_correction=True).adjusts_layers and qat.PostTraining(adaround=True).adjusts_layers


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        (True, qat.AdaRound()),
        (False, None),
        ({"iterations": 5, "beta": [8, 3]}, qat.AdaRound(iterations=5, beta=(8, 3))),
    ],
)
def test_learned_rounding_is_asked_for_in_short(given, meant):
    assert qat.PostTraining(adaround=given) == qat.PostTraining(adaround=meant)


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        (qat.PostTraining, {"batches": 0}, "post_training.batches is 0; write a whole number from 1 on."),
        (qat.PostTraining, {"batches": 1.5}, "post_training.batches is 1.5"),
        (qat.PostTraining, {"equalize": "no"}, "post_training.equalize is 'no'; write True or False."),
        (qat.PostTraining, {"bias_correction": 1}, "post_training.bias_correction is 1; write True or False."),
        (qat.PostTraining, {"adaround": 1000}, "post_training.adaround is 1000; expected a qat.AdaRound."),
        (qat.PostTraining, {"adaround": {"iteration": 5}}, "is 'iteration' .did you mean 'iterations'"),
        (qat.AdaRound, {"iterations": True}, "adaround.iterations is True; write a whole number from 1 on."),
        (qat.AdaRound, {"learning_rate": 0}, "adaround.learning_rate is 0; write a number above 0."),
        (qat.AdaRound, {"regularization": -0.1}, "adaround.regularization is -0.1; write a number from 0 on."),
        (qat.AdaRound, {"warm_up": 1.5}, "adaround.warm_up is 1.5; write a number from 0 to 1."),
        (qat.AdaRound, {"beta": 20}, r"adaround.beta is 20; write two numbers, for example \[20, 2\]."),
        (qat.AdaRound, {"beta": "20"}, "adaround.beta is '20'"),
        (qat.AdaRound, {"beta": (20, 0.5)}, "adaround.beta is 0.5; write a number from 1 on."),
        (qat.AdaRound, {"beta": (2, 20)}, "adaround.beta goes up from 2 to 20; write the larger number first."),
    ],
)
def test_what_cannot_be_is_refused_where_it_is_written(kind, settings, message):
    with pytest.raises(ConfigurationError, match=message):
        kind(**settings)
