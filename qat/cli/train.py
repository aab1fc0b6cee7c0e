"""qat-train: from a recipe to a trained network, its verified integer file and the report on both.

qat-train                                                # recipes/digits_cnn.yaml
qat-train -cn cifar10_resnet20_w8a8 data.dir=DIR
qat-train -m quant.weight.bits=2,3,4,8                   # a sweep; qat-report gathers it
"""

import contextlib
import os
import re
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from qat.cli.failure import FailureRecord, as_sentence, is_foreseen
from qat.cli.mistakes import sentence_of
from qat.cli.parts import CHECKPOINTS
from qat.cli.run import run_recipe
from qat.cli.search_path import search_package_parts
from qat.errors import ConfigurationError
from qat.report.files import FAILED_JSON, INTEGER, REPORT_JSON

#: Hydra's own switch: with it set to 1 in the environment, a mistake comes with the traceback of where it was found.
FULL_ERROR = "HYDRA_FULL_ERROR"


def main() -> int:
    """Entry point; returns the exit code: 0, or 1 if the run, or any point of a sweep, failed."""
    failures = []

    def run_point(config: DictConfig) -> None:
        hydra_config = HydraConfig.get()
        run_dir = Path(hydra_config.runtime.output_dir)
        point = hydra_config.job.override_dirname if hydra_config.mode == RunMode.MULTIRUN else ""
        try:
            if point:
                _refuse_used_folder(run_dir)
            with FailureRecord(run_dir):
                run_recipe(config, run_dir, hydra_config.job.config_name)
        except Exception as error:  # the other points of a sweep go on
            if not is_foreseen(error) or traces_mistakes:
                traceback.print_exc()
            sentence = as_sentence(error).removesuffix(".") + _kept(run_dir)
            failures.append(f"{point}: {sentence}" if point else sentence)
        except (
            KeyboardInterrupt,
            SystemExit,
        ) as error:  # Lightning's way to end at SIGTERM has no exit code of its own
            print(interrupted(run_dir), file=sys.stderr)
            raise SystemExit(1) from error

    search_package_parts()
    traces_mistakes = os.environ.get(FULL_ERROR) == "1"
    with contextlib.ExitStack() as stack:
        if not traces_mistakes:
            stack.enter_context(_mistakes_in(failures))
        hydra.main(version_base="1.3", config_path="pkg://qat.recipes", config_name="digits_cnn")(run_point)()
    for failure in failures:
        print(failure, file=sys.stderr)
    return 1 if failures else 0


@contextlib.contextmanager
def _mistakes_in(failures: list[str]) -> Iterator[None]:
    """Collect what Hydra raises inside as one sentence, where it would print several lines and exit."""
    before = os.environ.get(FULL_ERROR)
    os.environ[FULL_ERROR] = "1"
    try:
        yield
    except Exception as error:  # what a recipe instantiates may raise anything; HYDRA_FULL_ERROR=1 shows the trace
        failures.append(sentence_of(error))
    finally:
        os.environ.pop(FULL_ERROR)
        if before is not None:
            os.environ[FULL_ERROR] = before


def _kept(run_dir: Path) -> str:
    """How the sentence on a failed run ends: with what it has saved, if it failed after training."""
    trained = run_dir / INTEGER / "trained.ckpt"
    return f"; what was trained is kept in {trained}." if trained.exists() else "."


def interrupted(run_dir: Path) -> str:
    """What to type to go on with a run that was interrupted."""
    last = run_dir / CHECKPOINTS / "last.ckpt"
    if not last.exists():
        return "interrupted before the first checkpoint was written; start again."
    plain = re.fullmatch(r"[\w./-]+", str(last))  # for the shell and for Hydra
    override = f"resume={last}" if plain else f"\"resume='{last}'\""
    return f"interrupted; the same command goes on from the last whole epoch with {override} added."


def _refuse_used_folder(run_dir: Path) -> None:
    """Refuse a sweep in which two points would write into one folder, as paths are not part of its name."""
    if (run_dir / INTEGER / REPORT_JSON).exists() or (run_dir / FAILED_JSON).exists():
        raise ConfigurationError(
            f"two points of the sweep share the folder {run_dir.name!r}; add hydra.sweep.subdir='${{hydra:job.num}}'."
        )


if __name__ == "__main__":
    sys.exit(main())
