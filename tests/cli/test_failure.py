import errno
import json

import pytest
from hydra.utils import instantiate
from omegaconf import OmegaConf

from qat.cli.failure import ConfigErrors, FailureRecord, as_sentence, is_foreseen
from qat.errors import ConfigurationError


def test_a_message_becomes_one_line():
    assert as_sentence(ValueError("a\n  b")) == "a b"
    assert as_sentence(KeyboardInterrupt()) == "KeyboardInterrupt"


def test_an_error_of_any_kind_is_recorded_and_goes_on(tmp_path):
    with pytest.raises(RuntimeError), FailureRecord(tmp_path):
        raise RuntimeError("out of\nmemory")
    assert json.loads((tmp_path / "failed.json").read_text()) == {"error": "out of memory"}


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(1)])
def test_an_interrupted_run_is_recorded_as_one(error, tmp_path):
    with pytest.raises(BaseException), FailureRecord(tmp_path):  # noqa: B017
        raise error
    assert json.loads((tmp_path / "failed.json").read_text()) == {"error": "interrupted"}


def test_where_no_record_can_be_written_the_error_itself_is_seen(tmp_path):
    with pytest.raises(RuntimeError, match="the error itself"), FailureRecord(tmp_path / "gone"):
        raise RuntimeError("the error itself")


def test_a_full_disk_needs_no_traceback_and_a_bug_does():
    assert is_foreseen(OSError(errno.ENOSPC, "No space left on device")) and is_foreseen(
        ConfigurationError("bits is 9")
    )
    assert not is_foreseen(OSError("odd")) and not is_foreseen(ZeroDivisionError())


def test_a_run_that_succeeds_leaves_no_record_not_even_an_older_one(tmp_path):
    (tmp_path / "failed.json").write_text("{}")
    with FailureRecord(tmp_path):
        pass
    assert not (tmp_path / "failed.json").exists()


def built(config):
    with ConfigErrors():
        return instantiate(OmegaConf.create(config))


def test_an_error_of_this_package_comes_out_of_hydra_as_it_is():
    with pytest.raises(ConfigurationError, match="^bits is 9"):
        built({"_target_": "qat.QuantSpec", "bits": 9})


def test_it_comes_out_of_nested_parts_too():
    with pytest.raises(ConfigurationError, match="^bits is 9"):
        built({"_target_": "qat.QuantConfig", "weight": {"_target_": "qat.QuantSpec", "bits": 9}})


@pytest.mark.parametrize(
    "config, named",
    [
        ({"_target_": "qat.QuantSpec", "bit": 8}, "unexpected keyword argument 'bit'"),
        ({"_target_": "qat.QuantSpek"}, "qat.QuantSpek"),
        ({"_target_": "qat.QuantSpec", "bits": "${missing}"}, "missing"),
        ({"_target_": "qat.QuantSpec", "bits": "???"}, "bits"),
    ],
)
def test_a_wrong_config_is_one_sentence(config, named):
    with pytest.raises(ConfigurationError) as caught:
        built(config)
    assert named in str(caught.value) and "\n" not in str(caught.value)


def test_what_a_constructor_refuses_is_told_with_the_part():
    with pytest.raises(
        ConfigurationError, match="^trainer cannot be built as it is configured: Precision 15 is invalid"
    ):
        with ConfigErrors():
            instantiate(
                OmegaConf.create({"trainer": {"_target_": "pytorch_lightning.Trainer", "precision": 15}}).trainer
            )


def test_other_errors_are_left_alone():
    with pytest.raises(ZeroDivisionError), ConfigErrors():
        raise ZeroDivisionError


def test_a_record_that_cannot_be_written_hides_no_error(tmp_path):
    record = FailureRecord(tmp_path)
    with pytest.raises(ConfigurationError, match="the first"), record:
        record.path.mkdir()  # in its way
        raise ConfigurationError("the first")
