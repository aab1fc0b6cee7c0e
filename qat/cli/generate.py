"""qat-generate RUN: text from the integer network of a run of a language model, one character at a time.

qat-generate outputs/topics_gpt_w8a8/2025-01-31_12-00-00 --prompt "The for statement" --temperature 0.8 --seed 1
"""

import argparse
import itertools
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

import qat
from qat.data.text import VOCABULARY_JSON, Vocabulary
from qat.emitters import RUNTIMES, emitter_of
from qat.errors import ConfigurationError, QATError
from qat.integer.interpreter import edge_dtype
from qat.integer.program import IntegerProgram
from qat.models.generation import TokenReader, generate
from qat.report.files import INTEGER

#: The folder of the network for one token at a time, as `LanguageModel.companions` names it.
STEP = INTEGER / "step"
MODEL_ONNX = RUNTIMES["onnxruntime"].file


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code: 0, or 1 with one sentence on stderr."""
    parser = argparse.ArgumentParser(prog="qat-generate", description="Generate text with the integers of a run.")
    parser.add_argument("run", metavar="RUN", type=Path, help="folder of a run, such as outputs/topics_gpt_w8a8/<date>")
    parser.add_argument("--prompt", default="\n", help="text to continue (default: a new line)")
    parser.add_argument("--length", type=int, default=500, help="characters to generate (default: %(default)s)")
    parser.add_argument("--temperature", type=float, default=0.8, help="0 is the likeliest text (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="another seed is another text (default: %(default)s)")
    options = parser.parse_args(arguments)
    try:
        if options.length < 1:
            raise ConfigurationError(f"--length is {options.length}; generate at least 1 character.")
        characters = generated(options.run, options.prompt, options.temperature, options.seed)
        print(options.prompt + next(characters), end="", flush=True)  # the files and the prompt are read
        started = time.perf_counter()
        for character in itertools.islice(characters, options.length - 1):
            print(character, end="", flush=True)
        seconds = time.perf_counter() - started
    except QATError as error:
        print(error, file=sys.stderr)
        return 1
    print()
    if options.length > 1:
        print(f"{(options.length - 1) / seconds:.0f} characters per second", file=sys.stderr)
    return 0


def generated(run_dir: Path, prompt: str, temperature: float = 1.0, seed: int = 0) -> Iterator[str]:
    """Characters that continue `prompt`, without end, computed by ONNX Runtime from the files in `run_dir`."""
    if not (run_dir / STEP / MODEL_ONNX).is_file():
        raise ConfigurationError(
            f"{str(run_dir)!r} has no {STEP / MODEL_ONNX}; give the folder of a run of a language model, such as "
            "qat-train -cn topics_gpt_w8a8 makes."
        )
    vocabulary = Vocabulary.read(run_dir / INTEGER / VOCABULARY_JSON)
    reader = reader_of(run_dir / STEP)
    choices = range(1, len(vocabulary.characters) + 1)
    for token in generate(reader, vocabulary.encode(prompt).tolist(), choices, temperature, seed):
        yield vocabulary.decode([token])


def reader_of(folder: Path) -> TokenReader:
    """Reads tokens with the file in `folder`, in ONNX Runtime."""
    program = qat.IntegerProgram.load(folder)
    emitter = emitter_of("onnxruntime")
    session = emitter.open_session(folder / MODEL_ONNX)
    emitter.check_edges(session, program, folder / MODEL_ONNX)
    return TokenReader(lambda inputs: emitter.run_session(session, inputs), empty_inputs(program))


def empty_inputs(program: IntegerProgram) -> dict[str, torch.Tensor]:
    """Zeros for every input of a program, for a batch of one."""
    values = {edge.name: (program.value(edge.value), edge.codes) for edge in program.inputs}
    return {
        name: torch.zeros(1, *value.shape, dtype=edge_dtype(value.grid, codes))
        for name, (value, codes) in values.items()
    }


if __name__ == "__main__":
    sys.exit(main())
