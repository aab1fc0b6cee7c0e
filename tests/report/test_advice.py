import shlex

from hydra.core.override_parser.overrides_parser import OverridesParser

from qat import Rule
from qat.report.advice import Advice, advise, is_climbing, overrides, python_rules
from qat.report.records import EpochRecord, Layer, RunRecord


def run_of(*layers: Layer, epochs: int | None = 10) -> RunRecord:
    return RunRecord(epochs=epochs, layers=layers)


def epochs_with(values: list[float], name: str = "a.weight", bits: int = 4) -> list[EpochRecord]:
    return [EpochRecord(i, "final", weight_bits=bits, sqnr_db={name: value}) for i, value in enumerate(values)]


def test_narrow_weights_are_kept_at_8_bits_and_the_cost_is_named():
    layer = Layer("a", weight_bits=4, activation_bits=8, weights=2000, sqnr_db=19.0, activation_sqnr_db=30.0)
    [advice] = advise(run_of(layer), [])
    assert advice == Advice("a", "weights", 4, 19.0, "keep at 8 bits", "+1 kB", rule=("weight_bits", 8))


def test_narrow_activations_that_lose_more_than_the_weights_get_the_rule():
    layer = Layer("a", weight_bits=4, activation_bits=4, weights=2000, sqnr_db=19.0, activation_sqnr_db=12.0)
    [advice] = advise(run_of(layer), [])
    assert (advice.operand, advice.rule, advice.cost) == ("activations", ("activation_bits", 8), "no bytes")


def test_per_channel_comes_before_more_bits():
    layer = Layer("a", weight_bits=4, weights=2000, sqnr_db=15.0)
    [advice] = advise(run_of(layer), [], per_tensor=["a"])
    assert (advice.remedy, advice.override) == ("one scale per channel", "quant.weight.granularity=per_channel")


def test_a_layer_that_still_improves_needs_time_not_bits():
    layer = Layer("a", weight_bits=4, weights=2000, sqnr_db=15.0)
    [advice] = advise(run_of(layer), epochs_with([10.0, 11.0, 12.0, 13.0]))
    assert (advice.remedy, advice.override) == ("train longer, it still improves", "trainer.max_epochs=20")


def test_outputs_that_still_improve_need_time_too():
    layer = Layer("a", weight_bits=8, activation_bits=4, weights=2000, sqnr_db=40.0, activation_sqnr_db=15.0)
    [advice] = advise(run_of(layer), epochs_with([10.0, 11.0, 12.0, 13.0], name="a.output"))
    assert (advice.operand, advice.remedy) == ("activations", "train longer, it still improves")


def test_improvement_while_the_width_was_another_does_not_count():
    layer = Layer("a", weight_bits=4, weights=2000, sqnr_db=15.0)
    history = epochs_with([30.0, 35.0, 40.0, 45.0], bits=8) + epochs_with([15.0, 15.0], bits=4)
    [advice] = advise(run_of(layer), history)
    assert advice.remedy == "keep at 8 bits"


def test_at_8_bits_only_longer_training_is_left():
    layer = Layer("a", weight_bits=8, activation_bits=8, sqnr_db=30.0)
    assert advise(run_of(layer), [])[0].override == "trainer.max_epochs=20"
    assert advise(run_of(layer, epochs=None), [])[0].override is None


def test_the_worst_five_below_35_db_are_listed_worst_first():
    decibels = (30.0, 10.0, 36.0, 20.0, 15.0, 25.0, 34.0, 50.0)
    layers = [Layer(f"l{index}", weight_bits=4, sqnr_db=value) for index, value in enumerate(decibels)]
    assert [advice.layer for advice in advise(run_of(*layers), [])] == ["l1", "l4", "l3", "l5", "l0"]
    assert advise(run_of(Layer("add")), []) == []


def test_climbing_compares_the_last_two_quarters():
    assert is_climbing([10.0, 10.0, 10.0, 10.5])
    assert not is_climbing([10.0, 10.0, 10.0, 10.4])
    assert not is_climbing([1.0, 2.0, 3.0])
    assert is_climbing([0.0, 0.0, 0.0, 0.0, 1.0, 2.0, 2.0, 2.0])


def test_overrides_can_be_pasted_into_a_shell_and_mean_what_they_say():
    advice = [
        Advice("layer1.0.conv1", "weights", 4, 10.0, "", "", rule=("weight_bits", 8)),
        Advice("it's[0]", "activations", 4, 11.0, "", "", rule=("activation_bits", 8)),
        Advice("c", "weights", 8, 12.0, "", "", override="trainer.max_epochs=20"),
        Advice("d", "weights", 8, 13.0, "", "", override="trainer.max_epochs=20"),
    ]
    words = shlex.split(" ".join(overrides(advice)))
    parsed = {entry.key_or_group: entry.value() for entry in OverridesParser.create().parse_overrides(words)}
    assert parsed == {
        "quant.rules": [
            {"name": "layer1.0.conv1", "weight_bits": 8},
            {"name": "it's[[]0]", "activation_bits": 8},
        ],
        "trainer.max_epochs": 20,
    }
    rules = [Rule(**rule) for rule in parsed["quant.rules"]]
    assert rules[0].matches("layer1.0.conv1", ())
    assert rules[1].matches("it's[0]", ())
    assert python_rules(advice) == [
        'qat.Rule("layer1.0.conv1", weight_bits=8)',
        'qat.Rule("it\'s[[]0]", activation_bits=8)',
    ]
