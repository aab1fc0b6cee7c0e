"""qat-train: from a recipe to a trained network, its verified integer file and the report on both.

qat-train                                                # recipes/digits_cnn.yaml
qat-train -cn cifar10_resnet20_w8a8 data.dir=DIR
qat-train -m quant.weight.bits=2,3,4,8                   # a sweep; qat-report gathers it
"""

import sys
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from qat.cli.failure import FailureRecord, as_sentence
from qat.cli.run import run_recipe
from qat.errors import ConfigurationError, QATError
from qat.report.files import FAILED_JSON, INTEGER, REPORT_JSON


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
        except QATError as error:
            # Other points of a sweep go on; anything but a QATError Hydra raises itself, after the last point.
            failures.append(f"{point}: {as_sentence(error)}" if point else as_sentence(error))

    hydra.main(version_base="1.3", config_path="pkg://qat.recipes", config_name="digits_cnn")(run_point)()
    for failure in failures:
        print(failure, file=sys.stderr)
    return 1 if failures else 0


def _refuse_used_folder(run_dir: Path) -> None:
    """Refuse a sweep in which two points would write into one folder, as paths are not part of its name."""
    if (run_dir / INTEGER / REPORT_JSON).exists() or (run_dir / FAILED_JSON).exists():
        raise ConfigurationError(
            f"two points of the sweep share the folder {run_dir.name!r}; add hydra.sweep.subdir='${{hydra:job.num}}'."
        )


if __name__ == "__main__":
    sys.exit(main())
