"""Latency and bytes of the exported file beside those of ONNX Runtime's own `quantize_static`, of the same networks.

    OMP_NUM_THREADS=1 python tests/benchmarks/bench_quantize_static.py [NETWORK ...] [--batch 1] [--seconds 4]

Both start from the same float32 network with random weights and the same calibration batches; `quantize_static` takes
the float network as ONNX, preprocessed as its documentation says, in each of its forms: QDQ or QOperator, uint8 or
int8 activations, int8 weights per channel. All sessions have one thread and run in turn, so that a busy machine slows
all of them; printed is the median of the ratios of rounds, ours over theirs: below 1 ours is faster, or smaller.
"""

import argparse
import itertools
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import onnxruntime
import torch
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process
from torch import nn

import qat
from qat.emitters.onnxruntime import emit_float, files_of, open_session
from qat.models.digits_cnn import DigitsCNN
from qat.models.ds_cnn import DSCNN
from qat.models.mobilenet_v2 import MobileNetV2
from qat.models.resnet8 import ResNet8
from qat.models.resnet20 import ResNet20
from qat.models.vision_transformer import VisionTransformer

#: Name -> (network, shape of one sample).
NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "digits_cnn": (DigitsCNN, (1, 8, 8)),
    "resnet20": (ResNet20, (3, 32, 32)),
    "mobilenet_v2": (MobileNetV2, (3, 32, 32)),
    "resnet8": (ResNet8, (3, 32, 32)),
    "ds_cnn": (DSCNN, (1, 49, 10)),
    "vit": (VisionTransformer, (3, 32, 32)),
}
#: Name -> (form of the file, type of activations).
FORMS = {
    f"{form.name} {kind}": (form, activations)
    for form in (QuantFormat.QDQ, QuantFormat.QOperator)
    for kind, activations in (("U8S8", QuantType.QUInt8), ("S8S8", QuantType.QInt8))
}
CALIBRATION_BATCHES = 4
#: Runs of one session before the next has its turn.
RUNS = 5


class Batches(CalibrationDataReader):
    """Calibration batches, one after the other."""

    def __init__(self, name: str, batches: list[torch.Tensor]) -> None:
        self._batches = iter([{name: batch.numpy()} for batch in batches])

    def get_next(self):
        return next(self._batches, None)


def quantized(name: str, folder: Path) -> tuple[dict[str, Path], str]:
    """The files of a network, "ours" first, and the name of its input."""
    torch.manual_seed(0)
    make, shape = NETWORKS[name]
    network = make().eval()
    for norm in network.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.running_var.uniform_(0.5, 2.0)
            norm.running_mean.normal_(0.0, 0.1)
    batches = [torch.randn(8, *shape) for _ in range(CALIBRATION_BATCHES)]
    program = qat.quantize(network, batches, quant="w8a8")
    files = {"ours": folder / "ours.onnx", "float": folder / "float.onnx"}
    qat.export(program, files["ours"])
    emit_float(program, files["float"])
    prepared, edge = folder / "prepared.onnx", program.inputs[0].name
    quant_pre_process(str(files["float"]), str(prepared), skip_symbolic_shape=True)
    for form, (kind, activations) in FORMS.items():
        path = folder / f"{form.replace(' ', '_')}.onnx"
        try:
            quantize_static(
                str(prepared),
                str(path),
                Batches(edge, batches),
                quant_format=kind,
                activation_type=activations,
                weight_type=QuantType.QInt8,
                per_channel=True,
            )
            open_session(path)
        except Exception as error:
            print(f"{name}: no {form} ({str(error).splitlines()[0][:100]})", flush=True)
        else:
            files[form] = path
    return files, edge


def medians(files: dict[str, Path], edge: str, sample: torch.Tensor, seconds: float) -> dict[str, list[float]]:
    """Milliseconds of one run of each file, by round."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    sessions = {
        name: open_session(path)
        if name == "ours"
        else onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        for name, path in files.items()
    }
    inputs, times = {edge: sample.numpy()}, {name: [] for name in sessions}
    end = time.perf_counter() + seconds * len(sessions)
    for count in itertools.count():
        for name, session in sessions.items():
            found = []
            for _ in range(RUNS):
                start = time.perf_counter()
                session.run(None, inputs)
                found.append((time.perf_counter() - start) * 1000)
            if count > 0:  # the first round allocates
                times[name].append(min(found))
        if count > 3 and time.perf_counter() > end:
            return times


def report(name: str, batch: int, seconds: float) -> None:
    """One line for each file of a network."""
    with tempfile.TemporaryDirectory() as folder:
        files, edge = quantized(name, Path(folder))
        times = medians(files, edge, torch.randn(batch, *NETWORKS[name][1]), seconds)
        sizes = {key: sum(file.stat().st_size for file in files_of(path)) for key, path in files.items()}
    for key, found in times.items():
        ratios = statistics.median(ours / theirs for ours, theirs in zip(times["ours"], found, strict=True))
        print(
            f"{name:14}{key:16}{statistics.median(found):9.3f}{ratios:8.2f}{sizes[key]:12,}"
            f"{sizes['ours'] / sizes[key]:8.2f}",
            flush=True,
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("networks", nargs="*", default=list(NETWORKS), help=f"some of {', '.join(NETWORKS)}")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=4.0, help="for each file")
    arguments = parser.parse_args()
    print(f"{'network':14}{'file':16}{'ms':>9}{'ours/it':>8}{'bytes':>12}{'ours/it':>8}", flush=True)
    for chosen in arguments.networks:
        report(chosen, arguments.batch, arguments.seconds)
