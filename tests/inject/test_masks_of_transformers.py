"""Networks of `transformers`, which leave attention masks out of eager code where they mask nothing."""

import onnxruntime
import pytest
import torch

import qat

transformers = pytest.importorskip("transformers")


def bert():
    config = transformers.BertConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32, vocab_size=20,
        max_position_embeddings=16, num_labels=3,
    )  # fmt: skip
    return transformers.BertForSequenceClassification(config)


def qwen2():
    """Causal attention, which eager code asks torch for by `is_causal` where nothing is padded."""
    config = transformers.Qwen2Config(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=1, intermediate_size=32,
        vocab_size=20, max_position_embeddings=16, use_cache=False, bos_token_id=0, eos_token_id=0, pad_token_id=0,
    )  # fmt: skip
    return transformers.Qwen2ForCausalLM(config)


def batch(padded: bool, length: int = 8):
    """Four texts, of which every second one has two places of padding."""
    ids = torch.randint(0, 20, (4, length), generator=torch.Generator().manual_seed(length))
    mask = torch.ones_like(ids)
    if padded:
        mask[1::2, -2:] = 0
    return {"input_ids": ids, "attention_mask": mask}


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("recorded_padded", [True, False])
@pytest.mark.parametrize("make", [bert, qwen2])
def test_batches_with_padding_and_without_take_one_network(make, recorded_padded, attention, tmp_path):
    torch.manual_seed(0)
    network = make()
    network.set_attn_implementation(attention)
    qat.prepare(network, batch(recorded_padded))
    for padded in (False, True, False):
        network(**batch(padded)).logits.square().mean().backward()
    network.eval()
    program = qat.convert(network)
    assert [entry.name for entry in program.inputs] == ["input_ids", "attention_mask"]
    qat.export(program, tmp_path / "network.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "network.onnx")
    # short batches, cut out of longer ones, have no padding left
    for inputs in (batch(True), batch(False), batch(True, length=4), batch(False, length=3)):
        with torch.no_grad():
            logits = network(**inputs).logits
        assert torch.equal(program(inputs)["logits"], logits)
        (output,) = session.run(["logits"], {name: tensor.numpy() for name, tensor in inputs.items()})
        assert torch.equal(torch.from_numpy(output), logits)
