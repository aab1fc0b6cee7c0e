import pytest

from qat.errors import ConfigurationError
from qat.spec import QuantConfig, QuantSpec, Rule
from qat.targets import ONNXRUNTIME, TARGETS, config_for, target_named


def test_targets_are_found_by_name():
    assert target_named("onnxruntime") is ONNXRUNTIME
    assert target_named(None) is None
    with pytest.raises(ConfigurationError, match="unknown target 'onnx'; choose one of onnxruntime"):
        target_named("onnx")


@pytest.mark.parametrize("quant", ["w2a2", "w4a8", "w8a8", "w3a5"])
def test_presets_up_to_eight_bits_run(quant):
    ONNXRUNTIME.check(QuantConfig.parse(quant))


AFFINE = QuantSpec(signed=False, symmetric=False)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (QuantConfig.parse("w16a8"), r"weight\.bits is 16, but onnxruntime has integer kernels up to 8 bits"),
        (QuantConfig.parse("w8a16"), r"activation\.bits is 16"),
        (QuantConfig(rules=[Rule("a", weight_bits=16)]), "the rule for 'a' asks for 16 weight bits"),
        (
            QuantConfig(weight=AFFINE),
            "the weight grid is unsigned affine, but onnxruntime needs signed symmetric weights",
        ),
        (QuantConfig(weight=QuantSpec(symmetric=False)), "the weight grid is signed affine"),
        (QuantConfig(weight=QuantSpec(granularity="per_group", group_size=32)), "granularity is 'per_group'"),
        (QuantConfig(activation=QuantSpec(granularity="per_channel")), r"activation\.granularity is 'per_channel'"),
        (QuantConfig(activation=QuantSpec(bits=2)), "signed and symmetric with 2 bits, whose levels at odd half steps"),
        (
            QuantConfig(activation=QuantSpec(), rules=[Rule("a", activation_bits=2)]),
            "signed and symmetric with 2 bits",
        ),
    ],
)
def test_grids_without_a_kernel_are_refused_with_the_remedy(config, message):
    with pytest.raises(ConfigurationError, match=message):
        ONNXRUNTIME.check(config)


def test_a_rule_may_ask_for_sums_of_16_bits():
    ONNXRUNTIME.check(QuantConfig(rules=[Rule("a", activation_bits=16)]))  # where it is none, planning refuses it


def test_two_bit_activations_with_a_zero_run():
    ONNXRUNTIME.check(QuantConfig(activation=QuantSpec(bits=2, signed=False, symmetric=False)))


def test_several_targets_take_what_all_of_them_run():
    both = target_named(["onnxruntime", "litert"])
    assert (both.name, both.runtimes) == ("onnxruntime and litert", ("onnxruntime", "litert"))
    assert (both.max_sum_bits, both.symmetric_activations) == (8, False)
    assert target_named(["litert", "tensorrt"]).symmetric_activations
    assert target_named(("c",)) is TARGETS["c"]


@pytest.mark.parametrize("name", [[], ["c", "c"], {"c": 1}, 3])
def test_a_target_is_a_runtime_or_different_ones(name):
    with pytest.raises(ConfigurationError, match="give a runtime"):
        target_named(name)


@pytest.mark.parametrize("target", [None, "onnxruntime", ["onnxruntime", "litert"], "tensorrt", ["c", "tensorrt"]])
@pytest.mark.parametrize("quant", ["w4a4", QuantConfig(weight={"bits": 4}, rules=[Rule("a", weight_bits=8)])])
def test_what_a_config_leaves_open_is_as_the_target_takes_it(quant, target):
    config = config_for(quant, target)
    symmetric = target is not None and "tensorrt" in target
    assert (config.activation.signed, config.activation.symmetric) == (symmetric, symmetric)
    assert (config.weight, config.rules) == (QuantConfig.parse(quant).weight, QuantConfig.parse(quant).rules)
    assert config_for(config, target) == config
    if target is not None:
        target_named(target).check(config)


def test_wide_activations_are_on_both_sides_of_0_where_only_those_run():
    assert config_for("w8a16", "litert").activation.kind == "signed symmetric"
    assert config_for("w8a8", "litert").activation.kind == "unsigned affine"


@pytest.mark.parametrize("chosen", [{"signed": False}, {"symmetric": False}, {"signed": False, "symmetric": False}])
def test_what_a_config_decides_against_its_target_is_refused(chosen):
    config = QuantConfig(activation={"signed": None, "symmetric": None} | chosen)
    config_for(config, "onnxruntime")
    with pytest.raises(
        ConfigurationError, match=r"but tensorrt needs signed symmetric activations; leave activation\.s"
    ):
        TARGETS["tensorrt"].check(config_for(config, "tensorrt"))


def test_two_bits_around_0_have_no_kernel_whoever_chose_them():
    with pytest.raises(ConfigurationError, match="tensorrt has no kernel for; use 3 bits or more.$"):
        TARGETS["tensorrt"].check(config_for("w2a2", "tensorrt"))


@pytest.mark.parametrize("name", ["w8-dynamic", "w4-weight-only", "fp16"])
def test_files_that_are_not_integer_are_for_onnx_runtime(name):
    target_named("onnxruntime").check(QuantConfig.parse(name))
    for target in ("litert", "c", ["onnxruntime", "web"]):
        with pytest.raises(ConfigurationError, match="runs? integer files only; use activations='static'"):
            target_named(target).check(QuantConfig.parse(name))
