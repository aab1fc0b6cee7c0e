import pytest

from qat.errors import ConfigurationError
from qat.spec import ACTIVATION, WEIGHT, QuantConfig, QuantSpec, Rule


@pytest.mark.parametrize(
    ("spec", "codes"),
    [
        (QuantSpec(bits=8), (-127, 127)),
        (QuantSpec(bits=8, symmetric=False), (-128, 127)),
        (QuantSpec(bits=8, signed=False, symmetric=False), (0, 255)),
        (QuantSpec(bits=4), (-7, 7)),
        (QuantSpec(bits=3), (-3, 3)),
        (QuantSpec(bits=2), (-2, 1)),
        (QuantSpec(bits=2, symmetric=False), (-2, 1)),
        (QuantSpec(bits=2, signed=False), (0, 3)),
        (QuantSpec(bits=16), (-32767, 32767)),
    ],
)
def test_the_codes_of_a_grid(spec, codes):
    assert (spec.quant_min, spec.quant_max) == codes


def test_only_symmetric_signed_grids_of_two_bits_have_no_zero():
    assert QuantSpec(bits=2).midrise
    assert not any(
        spec.midrise
        for spec in (QuantSpec(bits=3), QuantSpec(bits=2, signed=False), QuantSpec(bits=2, symmetric=False))
    )


def test_step_sizes_are_learned_below_eight_bits_unless_told_otherwise():
    assert [QuantSpec(bits=bits).learned for bits in (2, 4, 7, 8, 16)] == [True, True, True, False, False]
    assert QuantSpec(bits=8, method="learned").learned
    assert not QuantSpec(bits=4, method="observed").learned


def test_the_statistic_of_a_range_follows_the_width_unless_chosen():
    assert [QuantSpec(bits=bits).observer_for("weight") for bits in (4, 7, 8, 16)] == ["mse", "mse", "minmax", "minmax"]
    assert [QuantSpec(bits=bits).observer_for("activation") for bits in (7, 8)] == ["mse", "moving_average"]
    assert QuantSpec(bits=4, observer="minmax").observer_for("weight") == "minmax"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"bits": 1}, "bits is 1; a width is one of 2 to 8 or 16 bits"),
        ({"bits": 9}, "bits is 9"),
        ({"bits": 4.0}, "bits is 4.0"),
        ({"bits": True}, "bits is True"),
        ({"bits": "8"}, "bits is '8'"),
        ({"granularity": "per_chanel"}, r"granularity is 'per_chanel' \(did you mean 'per_channel'\?\)"),
        ({"observer": "max"}, "observer is 'max'"),
        ({"method": "lsq"}, "method is 'lsq'; choose one of observed, learned"),
        ({"granularity": "per_group"}, "per_group needs a group_size"),
        ({"group_size": 32}, "only per_group takes one"),
        ({"granularity": "per_group", "group_size": 0}, "group_size is 0"),
        ({"percentile": 99.9}, "percentile is 99.9 with the observer None; set observer='percentile'"),
        ({"observer": "mse", "percentile": 99.9}, "percentile is 99.9 with the observer 'mse'"),
        ({"observer": "percentile", "percentile": 50}, "percentile is 50; write a percentage above 50 and up to 100"),
        ({"observer": "percentile", "percentile": 100.1}, "percentile is 100.1"),
        ({"observer": "percentile", "percentile": "99"}, "percentile is '99'"),
    ],
)
def test_a_grid_that_cannot_be_is_refused_where_it_is_written(settings, message):
    with pytest.raises(ConfigurationError, match=message):
        QuantSpec(**settings)


def test_what_a_grid_leaves_open_is_settled_and_the_rest_stays():
    assert QuantSpec(signed=None, symmetric=None).settled(symmetric=True) == QuantSpec()
    assert QuantSpec(signed=None, symmetric=None).settled(symmetric=False) == QuantSpec(signed=False, symmetric=False)
    assert QuantSpec(signed=None).settled(symmetric=False) == QuantSpec()  # an unsigned one has nothing below 0
    assert QuantSpec(symmetric=None).settled(symmetric=False) == QuantSpec(symmetric=False)
    assert QuantConfig(weight=QuantSpec(signed=None, symmetric=None)).weight == QuantSpec()


@pytest.mark.parametrize("weight", [2, 3, 4, 5, 6, 7, 8])
@pytest.mark.parametrize("activation", [2, 8, 16])
def test_presets(weight, activation):
    config = QuantConfig.parse(f"w{weight}a{activation}")
    assert config.weight == WEIGHT.with_bits(weight)
    assert config.activation == ACTIVATION.with_bits(activation)
    assert config.name == f"w{weight}a{activation}"


@pytest.mark.parametrize("preset", ["w9a8", "w1a8", "w8", "a8w8", "w8a8 ", "W8A8", "", None, 8, "w08a8x"])
def test_unknown_presets_are_refused(preset):
    with pytest.raises(ConfigurationError, match="unknown preset .*; write w<bits>a<bits>"):
        QuantConfig.parse(preset)


def test_a_config_parses_to_itself_and_takes_mappings():
    config = QuantConfig(
        weight={"bits": 4}, activation={"bits": 8, "signed": False}, rules=[{"name": "a", "weight_bits": 8}]
    )
    assert QuantConfig.parse(config) is config
    assert config.weight == QuantSpec(bits=4)
    assert config.rules == (Rule("a", weight_bits=8),)
    assert hash(config) == hash(QuantConfig(config.weight, config.activation, config.rules))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"weight": {"bit": 4}}, r"the setting of weight is 'bit' \(did you mean 'bits'\?\)"),
        ({"weight": 4}, r"weight is 4; expected a qat\.QuantSpec"),
        ({"rules": ["a"]}, r"a rule is 'a'; expected a qat\.Rule"),
        ({"edge_bits": 1}, "edge_bits is 1"),
        ({"rules": None}, r"rules is None; write a list of qat\.Rule"),
        ({"rules": Rule("a", weight_bits=4)}, r"rules is Rule\(.*write a list of qat\.Rule"),
        ({"rules": "abc"}, "rules is 'abc'"),
        ({"weight": {"signed": "yes"}}, "signed is 'yes'; write True or False"),
        ({"weight": {"symmetric": 1}}, "symmetric is 1; write True or False"),
        ({"weight": {"granularity": "per_group", "group_size": "4"}}, "group_size is '4'; write a whole number"),
        ({"weight": {"granularity": "per_group", "group_size": 2.5}}, r"group_size is 2\.5; write a whole number"),
        ({"weight": {"granularity": "per_group", "group_size": True}}, "group_size is True; write a whole number"),
    ],
)
def test_a_config_of_the_wrong_parts_is_refused(settings, message):
    with pytest.raises(ConfigurationError, match=message):
        QuantConfig(**settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": "a"}, "the rule for 'a' changes nothing"),
        ({"name": "a", "weight_bits": 1}, "weight_bits of the rule for 'a' is 1"),
        ({"name": "a", "activation_bits": 12}, "activation_bits of the rule for 'a' is 12"),
        ({"name": 3, "weight_bits": 4}, "the name of a rule is 3; write a text"),
        ({"type": int, "weight_bits": 4}, r"the type of the rule for '\*' is <class 'int'>; write a text"),
        ({"quantize": "no"}, r"quantize of the rule for '\*' is 'no'; write True or False"),
    ],
)
def test_a_rule_that_cannot_be_is_refused(settings, message):
    with pytest.raises(ConfigurationError, match=message):
        Rule(**settings)


def test_a_rule_matches_by_glob_and_type():
    rule = Rule("blocks.*.fc[12]", type="Linear", weight_bits=4)
    assert rule.matches("blocks.0.fc1", ("MyLinear", "Linear"))
    assert not rule.matches("blocks.0.fc3", ("Linear",))
    assert not rule.matches("blocks.0.fc1", ("Conv2d",))
    assert not rule.matches("Blocks.0.fc1", ("Linear",))


def test_a_rule_for_a_layer_means_every_call_of_it():
    assert Rule("fc", weight_bits=4).matches("fc#2", ("Linear",))
    assert Rule("fc#2", activation_bits=4).matches("fc#2", ("Linear",))
    assert not Rule("fc#2", activation_bits=4).matches("fc", ("Linear",))


def test_the_last_rule_that_matches_wins_setting_by_setting():
    config = QuantConfig(rules=[Rule("*", weight_bits=4), Rule("b", activation_bits=6), Rule("b", weight_bits=3)])
    assert config.weight_bits_of("a", (), edge=True) == 4
    assert config.weight_bits_of("b", (), edge=False) == 3
    assert config.activation_bits_of("b", (), edge=False) == 6
    assert config.activation_bits_of("a", (), edge=False) == 8


def test_edges_keep_their_width_unless_a_rule_says_otherwise():
    config = QuantConfig.parse("w2a4")
    assert [config.weight_bits_of("a", (), edge) for edge in (False, True)] == [2, 8]
    assert [config.activation_bits_of("a", (), edge) for edge in (False, True)] == [4, 8]
    narrow = QuantConfig(WEIGHT.with_bits(2), ACTIVATION, edge_bits=4)
    assert narrow.weight_bits_of("a", (), edge=True) == 4
    assert narrow.activation_bits_of("a", (), edge=True) == 8


def test_layers_are_taken_out_and_back_in():
    config = QuantConfig(
        rules=[Rule("*", quantize=False), Rule(type="Linear", quantize=True), Rule("head", quantize=False)]
    )
    assert config.quantizes("fc", ("Linear",))
    assert not config.quantizes("conv", ("Conv2d",))
    assert not config.quantizes("head", ("Linear",))
    assert QuantConfig().quantizes("anything", ())


def test_a_rule_without_a_layer_names_the_nearest():
    layers = {"layer1.conv": ("Conv2d",), "layer2.conv": ("Conv2d",), "fc": ("Linear",)}
    QuantConfig(rules=[Rule("layer*.conv", weight_bits=4)]).check_rules(layers)
    with pytest.raises(
        ConfigurationError, match=r"'layer3.conv' matches no layer; the nearest names are layer2.conv, layer1.conv"
    ):
        QuantConfig(rules=[Rule("layer3.conv", weight_bits=4)]).check_rules(layers)
    with pytest.raises(
        ConfigurationError, match=r"'\*' of type LSTM matches no layer; the types here are Conv2d, Linear"
    ):
        QuantConfig(rules=[Rule(type="LSTM", weight_bits=4)]).check_rules(layers)


@pytest.mark.parametrize(
    ("name", "bits", "granularity", "activations", "storage"),
    [
        ("w8-dynamic", 8, "per_channel", "dynamic", "float16"),
        ("w4-dynamic", 4, "per_channel", "dynamic", "float16"),
        ("w4-weight-only", 4, "per_group", "float", "float16"),
        ("w2-weight-only", 2, "per_group", "float", "float16"),
    ],
)
def test_presets_whose_activations_are_not_static(name, bits, granularity, activations, storage):
    config = QuantConfig.parse(name)
    assert (config.weight.bits, config.weight.granularity) == (bits, granularity)
    assert (config.activations, config.storage, config.is_integer) == (activations, storage, False)
    assert config.name == name


def test_the_plain_baseline_has_no_codes_at_all():
    config = QuantConfig.parse("fp16")
    assert (config.weight, config.activations, config.storage, config.name) == (None, "float", "float16", "fp16")


@pytest.mark.parametrize("name", ["w4-dyn", "w9-dynamic", "w4-weight", "fp8", "w4-weight-only-g32"])
def test_other_names_are_no_presets(name):
    with pytest.raises(ConfigurationError, match="unknown preset .* 'w8-dynamic', 'w4-weight-only' or 'fp16'"):
        QuantConfig.parse(name)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"activations": "dynamc"}, r"activations is 'dynamc' \(did you mean 'dynamic'\?\)"),
        ({"storage": "bfloat16"}, "storage is 'bfloat16'"),
        ({"storage": "float16"}, "an integer file keeps no real numbers"),
        ({"weight": None}, "weight is None with static activations"),
        ({"weight": None, "activations": "dynamic"}, "weight is None with dynamic activations"),
        ({"weight": None, "activations": "float", "rules": [Rule("a", weight_bits=8)]}, "None with rules for layers"),
        ({"activations": "float", "rules": [Rule("a", activation_bits=8)]}, "gives activation_bits, but activations"),
        ({"activations": "float", "weight": QuantSpec(bits=16)}, "the weight grid has 16 bits"),
        ({"activations": "float", "weight": QuantSpec(symmetric=False)}, "symmetric=False; with float activations"),
        (
            {"activations": "dynamic", "weight": QuantSpec(granularity="per_group", group_size=32)},
            "per_group' with dynamic activations",
        ),
    ],
)
def test_ways_that_contradict_themselves_are_refused(settings, message):
    with pytest.raises(ConfigurationError, match=message):
        QuantConfig(**settings)
