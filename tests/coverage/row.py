"""One row of the coverage table: a network through the whole flow, by the same public call for all of them."""

import contextlib
import dataclasses
import io
import json
import logging
import math
import re
import tempfile
import unittest.mock
import warnings
from dataclasses import dataclass
from pathlib import Path

import networks_third_party
import networks_written
import pytorch_lightning
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree
from torch.utils.data import DataLoader

import qat
from qat.errors import ConversionError, QATError

#: Every network of the table, by name.
NETWORKS = {**networks_written.NETWORKS, **networks_third_party.NETWORKS}

#: Two training steps: the first observes every range, the second trains behind everything that a schedule freezes.
SCHEDULE = qat.Schedule(start=0, freeze_observers="1 steps", freeze_batch_norm="1 steps")


@dataclass(frozen=True)
class Row:
    """What was measured of one network, or where and with which sentence it failed.

    stage: prepare, train, convert or export, None for a row that passes. reason: the error's sentence. trains: of a row
    that cannot be prepared for the target, whether it trains without one. operations: integer operations of the
    program. float_ops: what the runtime computes in float. differing, fake_quant_differing: codes of ONNX Runtime and
    of the eval forward that differ from the interpreter's, of `codes`. fake_quant_db, float_db: signal to quantization
    noise at the output with the fewest, of the integers against the eval forward and against the float network;
    infinity where all values are equal. integer_ms, float_ms: one sample, one thread. lengths: of the inputs that the
    file takes, "1-16" where they were recorded with 16.
    """

    name: str
    stage: str | None = None
    reason: str | None = None
    trains: bool | None = None
    operations: int = 0
    float_ops: tuple[str, ...] = ()
    differing: int = 0
    fake_quant_differing: int = 0
    codes: int = 0
    fake_quant_db: float = math.nan
    float_db: float = math.nan
    integer_ms: float = math.nan
    float_ms: float = math.nan
    lengths: tuple[str, ...] = ()

    @property
    def passes(self) -> bool:
        """Whether integers alone compute the network, equal to the interpreter on every code."""
        return self.stage is None and not self.float_ops and not self.differing

    def to_json(self) -> str:
        """The row as one line."""
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, line: str) -> "Row":
        """The row that `to_json` wrote."""
        fields = json.loads(line)
        return cls(**{**fields, "float_ops": tuple(fields["float_ops"]), "lengths": tuple(fields["lengths"])})


class Training(pytorch_lightning.LightningModule):
    """Trains any network on the mean square of its outputs."""

    def __init__(self, network: nn.Module, make_inputs):
        super().__init__()
        self.network = network
        self.make_inputs = make_inputs

    def training_step(self, batch, batch_idx):
        """One step."""
        outputs = [leaf for leaf in pytree.tree_leaves(self.network(**batch)) if _is_real(leaf)]
        return sum(output.square().mean() for output in outputs)

    def validation_step(self, batch, batch_idx):
        """The validation batches are there to verify on."""

    def configure_optimizers(self):
        """Plain gradient descent, in steps too small to leave the ranges."""
        return torch.optim.SGD(self.network.parameters(), lr=1e-3)

    def train_dataloader(self):
        """Two batches, of eight samples: batch norms of two would see nothing but -1 and 1 where one pixel is left."""
        return DataLoader([self.make_inputs(8) for _ in range(2)], batch_size=None)

    def val_dataloader(self):
        """Two batches of three samples, which the file is verified on."""
        return DataLoader([self.make_inputs(3) for _ in range(2)], batch_size=None)


def measure(name: str, target: str | None = "onnxruntime") -> Row:
    """Prepare, train, convert, export and verify the network called `name`."""
    torch.manual_seed(0)
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    with warnings.catch_warnings(), tempfile.TemporaryDirectory() as folder:
        warnings.simplefilter("ignore")
        network, make_inputs = NETWORKS[name]()
        _fill_zeros(network)
        _settle_batch_norms(network, make_inputs)
        callback = qat.QATCallback("w8a8", SCHEDULE, target=target, export_dir=Path(folder))
        training = Training(network, make_inputs)
        try:
            with contextlib.redirect_stdout(io.StringIO()), _without_pictures():
                _trainer(folder, callback).fit(training)
        except Exception as error:
            stage = _stage(callback, error)
            trains = measure(name, target=None).stage is None if target and stage == "prepare" else None
            return Row(name, stage, _sentence(error), trains)
        if target is None:
            return _evaluated(name, network, make_inputs)
        return _measured(name, callback, training)


def _fill_zeros(network: nn.Module) -> None:
    """Give what begins at zero, such as biases, class tokens and gates of whole branches, values as training would."""
    with torch.no_grad():
        for parameter in network.parameters():
            if not parameter.any():
                parameter.normal_(0, 0.1).abs_()  # no activation behind it is shut by a bias


def _settle_batch_norms(network: nn.Module, make_inputs) -> None:
    """Let batch norms know their statistics, as those of a trained network do; the two steps move them by little."""
    norms = [part for part in network.modules() if isinstance(part, nn.modules.batchnorm._BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    if not norms:
        return
    for norm in norms:
        norm.momentum = None  # the mean over all batches
    with torch.no_grad():
        for _ in range(4):
            network.train()(**make_inputs(8))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum


def _without_pictures():
    """The page of a run and its pictures take as long as everything else, and are of no use here."""
    return unittest.mock.patch("qat.training.delivery.write_page")


def _trainer(folder: str, callback) -> pytorch_lightning.Trainer:
    return pytorch_lightning.Trainer(
        max_epochs=1, num_sanity_val_steps=0, callbacks=[callback], logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, accelerator="cpu", default_root_dir=folder,
    )  # fmt: skip


def _evaluated(name: str, network: nn.Module, make_inputs) -> Row:
    """A row without a target: the eval forward runs."""
    try:
        with torch.no_grad():
            network.eval()(**make_inputs(2))
    except Exception as error:
        return Row(name, "train", _sentence(error))
    return Row(name)


def _measured(name: str, callback, training: Training) -> Row:
    program, report = callback.program, callback.report
    inputs = training.make_inputs(3)
    network = training.network.eval()
    with torch.no_grad():
        integer, fake_quant = _outputs(program(inputs)), _outputs(network(**inputs))
        callback.handle.remove()
        real = _outputs(network(**inputs))
    return Row(
        name,
        operations=len(program.operations),
        float_ops=report.float_ops,
        differing=report.mismatches["onnxruntime"].differing,
        fake_quant_differing=report.mismatches["fake_quant"].differing,
        codes=report.mismatches["onnxruntime"].total,
        fake_quant_db=_decibels(fake_quant, integer),
        float_db=_decibels(real, integer),
        integer_ms=report.latency_ms["integer"],
        float_ms=report.latency_ms["float"],
        lengths=tuple(f"{entry.shortest}-{entry.longest}" for entry in program.lengths),
    )


def _outputs(result) -> list[Tensor]:
    return [leaf.float() for leaf in pytree.tree_leaves(result) if _is_real(leaf)]


def _is_real(leaf) -> bool:
    return isinstance(leaf, Tensor) and leaf.is_floating_point()


def _decibels(signals: list[Tensor], approximations: list[Tensor]) -> float:
    """Signal to noise ratio of the output that is approximated worst; infinity where all are equal."""
    ratios = []
    for signal, approximation in zip(signals, approximations, strict=True):
        noise = (signal - approximation).square().sum().item()
        ratios.append(10 * math.log10(max(signal.square().sum().item(), 1e-30) / noise) if noise else math.inf)
    return min(ratios)


def _stage(callback, error: Exception) -> str:
    if callback.handle is None:
        return "prepare"
    if isinstance(error, ConversionError):
        return "convert"
    return "export" if callback.handle.state.final and _was_delivering(error) else "train"


def _was_delivering(error: BaseException) -> bool:
    """Whether the error rose behind the training, where program and file are made."""
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_name == "deliver":
            return True
        trace = trace.tb_next
    return False


def _sentence(error: Exception) -> str:
    """The error as the user reads it, with paths inside of packages; of one that is not ours, its type in front."""
    lines = str(error).strip().splitlines() or ["no reason given"]
    text = str(error) if isinstance(error, QATError) else f"{type(error).__name__}: {lines[0]}"
    text = text.replace(f"{Path(__file__).resolve().parents[2]}/", "")
    text = re.sub(r"\S*/site-packages/", "", text)
    return re.sub(r"\S*/tmp\w*/", "", text)
