"""Which kernels TensorRT makes of a QDQ file: an engine is built, and the datatype of each layer is read from it.

TensorRT-RTX builds engines for a GPU that is not there, so this needs none. It cannot load them without one, nor
inspect them then; but while it builds it logs what its engine inspector would print, which is what is read here.
"""

import functools
import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

from qat.emitters.tensorrt.readback import QDQFile
from qat.emitters.tensorrt.session import tensorrt_version
from qat.errors import ConfigurationError, ExportError, MissingExtraError

#: GPUs that engines are built for: Ampere and Ada.
COMPUTE_CAPABILITIES = ("SM80", "SM89")
#: Batch sizes of an engine: smallest, most likely, largest.
BATCHES = (1, 8, 8)
INT8, NONE = "Int8", "none"
#: Engines that are not built again when they are asked for again: those of one file, for each GPU, twice.
ENGINES = 4

#: Kernels that TensorRT generates for what is elementwise, moves or reduces; products have kernels of their own.
_GENERATED = "kgen"
_HEADER = "Layers:"
_LINE = re.compile(
    r"^Name: (?P<name>.*), LayerType: (?P<kind>\w+), Inputs: \[(?P<inputs>.*)\], Constants: \[(?P<constants>.*)\], "
    r"Outputs: \[(?P<outputs>.*)\], TacticName: .*?, StreamId: \d+, Metadata: (?P<metadata>.*)$"
)
_TENSOR = re.compile(r"\{ Name: (?P<name>.*?), Dimensions: .*?, Datatype: (?P<datatype>\w+), ")
#: Nodes stand in brackets, with a unit separator between them.
_NODE, _SEPARATOR = re.compile(r"^\[ONNX Layer: (.*)\]$"), "\x1f"


@dataclass(frozen=True)
class EngineTensor:
    """A tensor of an engine. datatype: as TensorRT calls it, "Int8", "Float"."""

    name: str
    datatype: str


@dataclass(frozen=True)
class EngineLayer:
    """A kernel of an engine. kind: as TensorRT calls it. nodes: of the file, that it computes, or parts of them."""

    name: str
    kind: str
    inputs: tuple[EngineTensor, ...]
    constants: tuple[EngineTensor, ...]
    outputs: tuple[EngineTensor, ...]
    nodes: tuple[str, ...]

    @property
    def is_product(self) -> bool:
        """Whether it is a convolution or a product of matrices."""
        return self.kind != _GENERATED


@dataclass(frozen=True)
class NodeType:
    """What a node of the file runs on.

    name, kind: of the node. datatype: "Int8", or the first that is not; "none" where no kernel computes it, since it is
    merged with an equal one.
    """

    name: str
    kind: str
    datatype: str


def layer_types(path: str | PathLike, compute_capability: str = "SM89") -> tuple[EngineLayer, ...]:
    """The layers of the engine that TensorRT-RTX makes of the file at `path`, in the order in which they run.

    compute_capability: of the GPU, one of `COMPUTE_CAPABILITIES`. Raises `MissingExtraError` where TensorRT-RTX is not
    installed, and `ExportError` with its reason where it makes no engine.
    """
    if compute_capability not in COMPUTE_CAPABILITIES:
        raise ConfigurationError(
            f"compute_capability is {compute_capability!r}; choose one of {', '.join(COMPUTE_CAPABILITIES)}."
        )
    path = Path(path)
    content = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
    return _layers(path, content, compute_capability)


@functools.lru_cache(maxsize=ENGINES)
def _layers(path: Path, content: str, compute_capability: str) -> tuple[EngineLayer, ...]:
    """`layer_types`, of a file whose `content` has been read by its digest."""
    layers = tuple(_parsed(_built(path, compute_capability)))
    if not any(layer.nodes for layer in layers):
        raise _refused(path, ["its log names no layers in the form of version 1.7"])
    return layers


def node_types(path: str | PathLike, compute_capability: str = "SM89") -> list[NodeType]:
    """The datatype of every convolution, product of matrices and addition of two values of the file."""
    layers, file = layer_types(path, compute_capability), QDQFile(path)
    return [
        *(NodeType(node.name, node.op_type, _of_product(node.name, layers)) for node in file.products()),
        *(NodeType(node.name, node.op_type, _of_addition(node.name, layers, file)) for node in file.additions()),
    ]


def float_ops(path: str | PathLike, compute_capability: str = "SM89") -> list[str]:
    """What the file computes in real numbers: its nodes that do, and where TensorRT-RTX is installed also what its
    engine does not run on int8 of what should."""
    found = {node.name: f"{node.op_type} {node.name}" for node in QDQFile(path).float_nodes()}
    for node in not_int8(path, compute_capability):
        found.setdefault(node.name, f"{node.kind} {node.name} ({node.datatype} on {compute_capability})")
    return list(found.values())


def not_int8(path: str | PathLike, compute_capability: str = "SM89") -> list[NodeType]:
    """Products and additions that the engine of the file does not run on int8; none where no engine can be built."""
    if tensorrt_version() is None:
        return []
    return [node for node in node_types(path, compute_capability) if node.datatype not in (INT8, NONE)]


def _of_product(node: str, layers: tuple[EngineLayer, ...]) -> str:
    """The datatype of what a product multiplies."""
    mine = [layer for layer in layers if node in layer.nodes]
    mine = [layer for layer in mine if layer.is_product] or mine
    read = [
        tensor for layer in mine for tensor in (*layer.inputs, *(layer.constants[:1] if len(layer.inputs) == 1 else ()))
    ]
    return _common(mine, read)


def _of_addition(node: str, layers: tuple[EngineLayer, ...], file: QDQFile) -> str:
    """The datatype of what an addition reads and writes.

    A kernel that adds may begin with the rescaling of the sums of an int8 product, which it then reads as they are, or
    end with the dequantization of an output of the file, or with the first half of a norm or a mean.
    """
    others = {entry.name for entry in (*file.graph.input, *file.graph.output)}
    others |= {tensor.name for layer in layers if layer.is_product for tensor in layer.outputs}
    halved = [*file.float_nodes(), *(entry for entry in file.graph.node if entry.op_type == "ReduceSum")]
    others |= set(_inside_of_nodes(layers, {entry.name for entry in halved}))
    mine = [layer for layer in layers if node in layer.nodes]
    touched = [tensor for layer in mine for tensor in (*layer.inputs, *layer.outputs)]
    return _common(mine, [tensor for tensor in touched if tensor.name not in others])


def _inside_of_nodes(layers: tuple[EngineLayer, ...], nodes: set[str]) -> Iterator[str]:
    """Tensors between kernels that all compute parts of one of these nodes."""
    for layer in layers:
        for tensor in layer.outputs:
            reading = [set(other.nodes) for other in layers if any(entry.name == tensor.name for entry in other.inputs)]
            if reading and set(layer.nodes).intersection(nodes, *reading):
                yield tensor.name


def _common(layers: list[EngineLayer], tensors: list[EngineTensor]) -> str:
    """The datatype of `tensors` of `layers`, which compute a node."""
    return next((tensor.datatype for tensor in tensors if tensor.datatype != INT8), INT8 if layers else NONE)


def _parsed(text: str) -> Iterator[EngineLayer]:
    """The layers of what the engine inspector prints."""
    for line in text.split("\n"):
        found = _LINE.match(line)
        if found and found["kind"] != "shape_call":
            tensors = [
                tuple(EngineTensor(**tensor.groupdict()) for tensor in _TENSOR.finditer(found[key]))
                for key in ("inputs", "constants", "outputs")
            ]
            nodes = map(_NODE.match, found["metadata"].split(_SEPARATOR))
            yield EngineLayer(found["name"], found["kind"], *tensors, tuple(node[1] for node in nodes if node))


def _built(path: Path, compute_capability: str) -> str:
    """What TensorRT-RTX logs of the layers of the engine for a file."""
    try:
        import tensorrt_rtx
    except ImportError as error:
        raise MissingExtraError(
            "building a TensorRT engine needs the package 'tensorrt-rtx-cu13'; install it with "
            'pip install "lightning-qat[tensorrt]".'
        ) from error

    class Log(tensorrt_rtx.ILogger):
        """Keeps what is logged."""

        def __init__(self):
            super().__init__()
            self.lines: list[tuple[object, str]] = []

        def log(self, severity, message):
            self.lines.append((severity, message))

    log = Log()
    builder = tensorrt_rtx.Builder(log)
    network = builder.create_network(1 << int(tensorrt_rtx.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = tensorrt_rtx.OnnxParser(network, log)
    if not parser.parse_from_file(str(path)):
        raise _refused(path, [parser.get_error(place).desc() for place in range(parser.num_errors)])
    config = builder.create_builder_config()
    config.profiling_verbosity = tensorrt_rtx.ProfilingVerbosity.DETAILED
    config.num_compute_capabilities = 1
    config.set_compute_capability(getattr(tensorrt_rtx.ComputeCapability, compute_capability), 0)
    profile = builder.create_optimization_profile()
    for place in range(network.num_inputs):
        entry = network.get_input(place)
        profile.set_shape(entry.name, *((batch, *tuple(entry.shape)[1:]) for batch in BATCHES))
    config.add_optimization_profile(profile)
    engine = builder.build_serialized_network(network, config)
    described = [message for _, message in log.lines if message.startswith(_HEADER)]
    if engine is None or not described:
        errors = (tensorrt_rtx.ILogger.Severity.ERROR, tensorrt_rtx.ILogger.Severity.INTERNAL_ERROR)
        raise _refused(path, [message for severity, message in log.lines if severity in errors])
    return described[0]


def _refused(path: Path, reasons: list[str]) -> ExportError:
    reason = " ".join((reasons or ["it gives no reason"])[0].split())[:300]
    return ExportError(
        f"TensorRT-RTX {tensorrt_version()} makes no engine of {path} ({reason}); export the program again, or for "
        "another runtime."
    )
