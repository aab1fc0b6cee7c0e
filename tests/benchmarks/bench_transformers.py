"""Where the time of transformers goes in ONNX Runtime: nodes and milliseconds of each kind of operation.

    python tests/benchmarks/bench_transformers.py [network ...] [--batch 8] [--threads 2]

Networks with random weights, w8a8: as integers, with float islands for softmax and norms, and the float network behind
them. The first line has medians of whole runs in turn. Below are, for each kind of operation, the time of its nodes,
each the median of profiled runs, and in brackets how many they are; profiling adds a few microseconds to each node.
"""

import argparse
import collections
import json
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import onnxruntime
import torch
import transformers
from torch import Tensor, nn

import qat
from qat.emitters import latency
from qat.emitters import onnxruntime as emitter
from qat.integer.program import IntegerProgram
from qat.schedule import QuantState

Inputs = dict[str, Tensor]
TOKENS, VOCABULARY, REPEATS = 128, 1000, 40
SIZES = {"hidden_size": 256, "num_hidden_layers": 4, "num_attention_heads": 4}


def main() -> None:
    """Print one table per network."""
    parser = argparse.ArgumentParser()
    parser.add_argument("networks", nargs="*", metavar="network", help=f"of {', '.join(NETWORKS)}; default: all")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for name in arguments.networks or NETWORKS:
        torch.manual_seed(0)
        network, inputs_of = NETWORKS[name]()
        program = _converted(network, inputs_of(2))
        _print(name, program, inputs_of(arguments.batch), arguments.threads)


def bert() -> tuple[nn.Module, Callable[[int], Inputs]]:
    config = transformers.BertConfig(
        **SIZES, intermediate_size=1024, vocab_size=VOCABULARY, max_position_embeddings=TOKENS
    )
    return transformers.BertForSequenceClassification(config), _padded_tokens


def tiny_bert() -> tuple[nn.Module, Callable[[int], Inputs]]:
    config = transformers.BertConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64, vocab_size=VOCABULARY,
        max_position_embeddings=16,
    )  # fmt: skip
    return transformers.BertForSequenceClassification(config), lambda size: _padded_tokens(size, 16)


def gpt2() -> tuple[nn.Module, Callable[[int], Inputs]]:
    config = transformers.GPT2Config(
        n_embd=256, n_layer=4, n_head=4, n_positions=TOKENS, vocab_size=VOCABULARY, use_cache=False, bos_token_id=0,
        eos_token_id=0,
    )  # fmt: skip
    return transformers.GPT2LMHeadModel(config), lambda size: {"input_ids": _tokens(size)}


def llama() -> tuple[nn.Module, Callable[[int], Inputs]]:
    config = transformers.LlamaConfig(
        **SIZES, num_key_value_heads=2, intermediate_size=768, vocab_size=VOCABULARY, max_position_embeddings=TOKENS,
        use_cache=False, bos_token_id=0, eos_token_id=0, pad_token_id=0,
    )  # fmt: skip
    return transformers.LlamaForCausalLM(config), lambda size: {"input_ids": _tokens(size)}


def vit() -> tuple[nn.Module, Callable[[int], Inputs]]:
    config = transformers.ViTConfig(
        hidden_size=192, num_hidden_layers=4, num_attention_heads=3, intermediate_size=768, num_labels=100
    )
    return transformers.ViTForImageClassification(config), lambda size: {"pixel_values": torch.randn(size, 3, 224, 224)}


NETWORKS = {"tiny_bert": tiny_bert, "bert": bert, "gpt2": gpt2, "llama": llama, "vit": vit}


def _tokens(size: int, length: int = TOKENS) -> Tensor:
    return torch.randint(1, VOCABULARY, (size, length))


def _padded_tokens(size: int, length: int = TOKENS) -> Inputs:
    mask = torch.ones(size, length, dtype=torch.int64)
    mask[0, -length // 4 :] = 0
    return {"input_ids": _tokens(size, length), "attention_mask": mask}


def _converted(network: nn.Module, inputs: Inputs) -> IntegerProgram:
    """The program of `network` with the ranges of one batch."""
    handle = qat.prepare(network.eval(), inputs)
    handle.set_state(QuantState(observe=True, fake_quantize=False))
    with torch.no_grad():
        network.train()(**inputs)
    network.eval()
    handle.set_state(
        QuantState(observe=False, fake_quantize=True, freeze_batch_norm=True, freeze_scales=True, final=True)
    )
    return qat.convert(network)


def _print(name: str, program: IntegerProgram, inputs: Inputs, threads: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        paths = {form: Path(folder) / f"{form}.onnx" for form in ("integer", "float_island", "float")}
        for form in ("integer", "float_island"):
            paths[form].write_bytes(emitter.build(program, form))
        emitter.emit_float(program, paths["float"])
        sessions = {form: emitter.open_session(path, threads) for form, path in paths.items()}
        medians = latency.median_times(emitter, sessions, dict.fromkeys(sessions, inputs), REPEATS)
        profiles = {form: _profile(path, inputs, threads, program) for form, path in paths.items()}
    print(f"{name:16}" + "".join(f"{form} {median:8.3f} ms        " for form, median in medians.items()))
    for kind, _ in profiles["integer"].most_common():
        cells = "".join(
            f"{form} {profile[kind][0]:8.3f} ({profile[kind][1]:3})  " for form, profile in profiles.items()
        )
        print(f"  {kind:14}{cells}")


class _Kinds(collections.Counter):
    """(milliseconds, nodes) by kind of operation."""

    def __missing__(self, kind: str) -> tuple[float, int]:
        return 0.0, 0


def _profile(path: Path, inputs: Inputs, threads: int, program: IntegerProgram) -> _Kinds:
    """Time and number of the nodes of each kind of operation."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads, options.log_severity_level = threads, 1, 3
    for key, value in emitter.session_options().items():
        options.add_session_config_entry(key, value)
    options.enable_profiling, options.profile_file_prefix = True, str(path.with_suffix(""))
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    for _ in range(REPEATS):
        emitter.run_session(session, inputs)
    durations = collections.defaultdict(list)
    for event in json.loads(Path(session.end_profiling()).read_text()):
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            durations[event["name"].removesuffix("_kernel_time")].append(event["dur"] / 1000)
    owners = _owners(program)
    found = _Kinds()
    for node, times in durations.items():
        kind, median = _kind_of(node, owners), sorted(times)[len(times) // 2]
        found[kind] = found[kind][0] + median, found[kind][1] + 1
    return found


def _owners(program: IntegerProgram) -> Mapping[str, str]:
    """The kind of an operation by what the names of its nodes begin with."""
    return {
        prefix: type(operation).__name__
        for operation in program.operations
        for prefix in (f"codes/{operation.output}", f"real/{operation.output}", operation.name)
    }


def _kind_of(node: str, owners: Mapping[str, str]) -> str:
    """The kind of operation that a node belongs to."""
    parts = node.split("/")
    prefixes = ("/".join(parts[:count]) for count in range(len(parts), 0, -1))
    return next((owners[prefix] for prefix in prefixes if prefix in owners), "edges")


if __name__ == "__main__":
    main()
