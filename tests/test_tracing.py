"""What code is told of being traced: this library's own always, a network that is exported for lowering never."""

import pytest
import torch
from torch import nn

from qat import tracing

QUESTIONS = [
    torch.compiler.is_compiling,
    torch.compiler.is_exporting,
    torch.compiler.is_dynamo_compiling,
    torch._dynamo.is_compiling,
    torch.jit.is_tracing,
]


@pytest.mark.parametrize("compiling", [False, True])
@pytest.mark.parametrize("exporting", [False, True])
def test_a_compiler_that_says_it_exports_is_still_compiling(monkeypatch, compiling, exporting):
    monkeypatch.setattr(torch.compiler, "is_dynamo_compiling", lambda: compiling)
    monkeypatch.setattr(torch.compiler, "is_exporting", lambda: exporting)
    assert tracing.is_exporting() is (exporting and not compiling)


class Asking(nn.Module):
    """Tells `asked` what torch answers."""

    def __init__(self, ask):
        super().__init__()
        self.ask = ask

    def forward(self, x):
        """The identity."""
        self.ask()
        return x + 0


def test_an_export_that_hides_is_seen_by_this_library_alone():
    answers = []

    def ask():
        with tracing.unseen_by_the_network():
            answers.extend(question() for question in QUESTIONS)
            assert tracing.is_exporting() and tracing.is_traced()
        assert torch.compiler.is_compiling() and torch.compiler.is_exporting()

    torch.export.export(Asking(ask), (torch.ones(2),), strict=False)
    assert answers == [False] * len(QUESTIONS)
    assert not tracing.is_exporting() and not tracing.is_traced()


def test_another_export_is_seen_by_everyone():
    answers = []
    network = Asking(lambda: answers.extend(question() for question in QUESTIONS[:2]))
    torch.export.export(network, (torch.ones(2),), strict=False)
    assert answers == [True, True]


def test_an_error_inside_leaves_everything_as_it_was():
    with pytest.raises(RuntimeError, match="inside"), tracing.unseen_by_the_network():
        assert tracing.is_exporting()
        raise RuntimeError("inside")
    assert not tracing.is_exporting() and not torch.compiler.is_compiling()
