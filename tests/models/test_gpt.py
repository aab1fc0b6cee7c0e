"""The small GPT, whole and one token at a time, in float and in integers."""

import pytest
import torch

import qat
from qat.cli.generate import empty_inputs
from qat.emitters.onnxruntime import float_ops, open_session, run_session
from qat.errors import ConfigurationError
from qat.models import GPT
from qat.models.generation import TokenReader

VOCABULARY, BLOCK = 11, 6


def network() -> GPT:
    torch.manual_seed(0)
    gpt = GPT(VOCABULARY, BLOCK, width=8, heads=2, depth=2)
    with torch.no_grad():  # as far apart as after training
        for parameter in gpt.parameters():
            if parameter.dim() == 2:
                parameter.mul_(10)
    return gpt


def texts(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    ids = torch.randint(0, VOCABULARY, (count, BLOCK), generator=torch.Generator().manual_seed(1))
    return ids, torch.arange(BLOCK).repeat(count, 1)


@pytest.fixture(scope="module", params=["w8a8", "w4a4"])
def trained(request):
    gpt = network()
    qat.prepare(gpt, texts(2), request.param)
    for _ in range(4):
        gpt(*texts(16))
    return gpt.eval()


@pytest.fixture(scope="module")
def one_token(trained):
    """The network for one token at a time, with the quantizers of the trained one."""
    network = trained.step()
    qat.prepare_alike(network, network.example_inputs(), trained)
    return network.eval()


@pytest.fixture(scope="module")
def step(one_token):
    """Its integers, the cache in codes."""
    return qat.convert(one_token).with_integer_edges("past.*", "present.*")


def token_by_token(run, empty, ids: torch.Tensor) -> torch.Tensor:
    """Logits of every token, (T, vocabulary)."""
    reader = TokenReader(run, empty)
    return torch.stack([reader.feed(int(token)) for token in ids])


def test_logits_do_not_see_what_comes_later():
    gpt, (ids, positions) = network().eval(), texts(1)
    changed = ids.clone()
    changed[:, 3] = (changed[:, 3] + 1) % VOCABULARY
    before, after = gpt(ids, positions), gpt(changed, positions)
    assert torch.equal(before[:, :3], after[:, :3]) and not torch.equal(before[:, 3:], after[:, 3:])


def test_one_token_at_a_time_gives_the_same_logits_in_float():
    gpt, (ids, positions) = network().eval(), texts(1)
    one_token = gpt.step()
    empty = {name: tensor[:1] for name, tensor in one_token.example_inputs().items()}
    with torch.no_grad():
        logits = token_by_token(lambda inputs: one_token(**inputs), empty, ids[0])
        torch.testing.assert_close(logits, gpt(ids, positions)[0], rtol=1e-4, atol=1e-4)


def test_the_step_shares_the_parameters():
    gpt = network()
    assert {id(parameter) for parameter in gpt.step().parameters()} == {id(parameter) for parameter in gpt.parameters()}


def test_a_step_file_run_token_by_token_equals_the_whole_program_on_every_code(trained, step, tmp_path):
    ids, positions = texts(8)
    expected = qat.convert(trained)((ids, positions))
    assert torch.equal(trained(ids, positions), expected)
    qat.export(step, tmp_path / "step.onnx")
    assert float_ops(tmp_path / "step.onnx") == []
    session = open_session(tmp_path / "step.onnx")
    empty = empty_inputs(step)
    for run in (step, lambda inputs: run_session(session, inputs)):
        logits = torch.stack([token_by_token(run, empty, text) for text in ids])
        assert torch.equal(logits, expected)


def test_verification_runs_the_fake_quantized_step_on_the_codes_of_the_cache(one_token, step, tmp_path):
    qat.export(step, tmp_path / "step.onnx")
    batch = {name: tensor.repeat(3, *[1] * (tensor.dim() - 1)) for name, tensor in empty_inputs(step).items()}
    batch["mask"][:, 2:] = 1
    for name in one_token.example_inputs():
        if name.startswith("past."):
            batch[name] = torch.randint(0, 16, batch[name].shape, dtype=torch.uint8)
    report = qat.verify(step, tmp_path / "step.onnx", [batch], module=one_token, repeats=1)
    assert {name: entry.differing for name, entry in report.mismatches.items()} == {"onnxruntime": 0, "fake_quant": 0}


def test_what_stands_in_empty_places_of_the_cache_does_not_matter(trained, step):
    (ids, positions), noise = texts(3), torch.Generator().manual_seed(2)
    expected = qat.convert(trained)((ids, positions))
    past = {
        edge.name: torch.randint(0, 16, (3, *step.value(edge.value).shape), generator=noise, dtype=torch.uint8)
        for edge in step.inputs if edge.codes
    }  # fmt: skip
    for place in range(BLOCK):
        mask = torch.zeros(3, BLOCK, dtype=torch.int64)
        mask[:, BLOCK - 1 - place :] = 1
        here = slice(place, place + 1)
        outputs = step({"ids": ids[:, here], "positions": positions[:, here], "mask": mask, **past})
        assert torch.equal(outputs["logits"], expected[:, here])
        past = {name: outputs[name.replace("past", "present")] for name in past}


def test_the_cache_is_uint8_at_the_edges_of_the_file(step):
    kinds = {edge.name: edge.codes for edge in (*step.inputs, *step.outputs)}
    assert {name for name, codes in kinds.items() if not codes} == {"ids", "positions", "mask", "logits"}
    assert {tensor.dtype for name, tensor in empty_inputs(step).items() if kinds[name]} == {torch.uint8}


def test_the_grids_of_the_step_are_those_of_the_trained_network(trained, step):
    whole = qat.convert(trained)
    assert step.value("head").grid == whole.value("head").grid
    keys = whole.value("blocks.1.attention.key").grid
    assert step.value("input.past.1.key").grid == step.value(step.outputs[3].value).grid == keys
    assert step.outputs[3].name == "present.1.key"


@pytest.mark.parametrize(
    "settings, message",
    [({"width": 9}, "width 9 is no multiple of model.network.heads 2"), ({"depth": 0}, "depth is 0; it is at least 1")],
)
def test_impossible_sizes_are_refused(settings, message):
    with pytest.raises(ConfigurationError, match=message):
        GPT(VOCABULARY, BLOCK, **({"width": 8, "heads": 2, "depth": 2} | settings))
