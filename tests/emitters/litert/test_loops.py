import torch
from torch import nn

import qat
import qat.emitters.litert as emitter
from qat.emitters.samples import outputs_by_name, random_inputs
from qat.integer.builder import ProgramBuilder
from qat.integer.semantics import for_runtime
from qat.integer.values import Grid, float32

BYTE = Grid(float32(0.02), 117, 0, 255)


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer, self.head = nn.LSTM(3, 4, batch_first=True, bidirectional=True), nn.Linear(8, 2)

    def forward(self, sequences):
        return self.head(self.layer(sequences)[0])


def test_recurrences_are_written_out_and_equal_on_every_code(tmp_path):
    program = for_runtime(qat.quantize(Recurrent(), [torch.randn(4, 3, 3)], "w8a8", "litert"), "litert").at()
    assert "Loop" in {type(operation).__name__ for operation in program.operations}
    path = tmp_path / "model.tflite"
    emitter.emit(program, path)
    assert not emitter.float_ops(path) and not {"WHILE", "UNIDIRECTIONAL_SEQUENCE_LSTM"} & {
        operation.kind for operation in emitter.operations(path)
    }
    session = emitter.open_session(path)
    for inputs in random_inputs(program, (1, 7), seed=2):
        results = emitter.run_session(session, inputs)
        for name, expected in outputs_by_name(program, inputs).items():
            assert torch.equal(results[name], expected)


def test_loops_of_too_many_steps_are_refused_with_their_numbers():
    step = ProgramBuilder()
    entry, before = step.input("entry", (2,), BYTE), step.input("before", (2,), BYTE)
    state = step.add("next", before, entry, BYTE)
    step.output("state", state)
    step.output("output", state)
    builder = ProgramBuilder()
    x, first = builder.input("x", (20001, 2), BYTE), builder.input("first", (2,), BYTE)
    body = step.build("tuple").with_integer_edges("*")
    builder.output("y", builder.loop("lstm", (x,), (first,), body, module="lstm")[0])
    (found,) = map(str, emitter.refusals(for_runtime(builder.build(), "litert")))
    assert "up to 20000 operations" in found and "here are 20001 steps of 1" in found and "lstm" in found
