"""The marks around one step of a recurrence in an exported graph."""

import pytest
import torch
from torch import nn
from torch.export import Dim

from qat.inject.loops import loop_begin, loop_end


class Marked(nn.Module):
    def forward(self, sequence, state):
        entry, before = loop_begin(sequence, [state])
        after = entry.sum(-1, keepdim=True) + before
        return tuple(loop_end(sequence, [after], True, [after * 2], 1))


def test_a_step_is_traced_once_and_gives_as_many_entries_as_the_sequence_has():
    inputs = torch.zeros(3, 7, 4), torch.zeros(3, 5)
    shapes = {"sequence": {0: Dim.AUTO, 1: Dim.AUTO}, "state": {0: Dim.AUTO}}
    graph = torch.export.export(Marked(), inputs, dynamic_shapes=shapes, strict=False).graph
    names = [node.target.__name__ for node in graph.nodes if node.op == "call_function"]
    assert [name for name in names if name != "getitem"] == [
        "loop_begin.default", "sum.dim_IntList", "add.Tensor", "mul.Tensor", "loop_end.default",
    ]  # fmt: skip
    sequence, _ = (node.meta["val"] for node in graph.nodes if node.op == "placeholder")
    output, state = (node.meta["val"] for node in graph.output_node().args[0])
    assert tuple(output.shape) == (*sequence.shape[:2], 5) and tuple(state.shape) == (sequence.shape[0], 5)
    assert not isinstance(output.shape[1], int)


def test_marks_do_not_run():
    with pytest.raises(NotImplementedError, match="does not run"):
        Marked()(torch.zeros(3, 7, 4), torch.zeros(3, 5))
