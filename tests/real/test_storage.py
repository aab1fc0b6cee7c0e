import json

import pytest
import torch

import qat
from qat.errors import ExportError, ProgramError
from qat.real.program import RealProgram

PRESETS = ["fp16", "w8-dynamic", "w4-weight-only", "w2-weight-only", "w3-dynamic"]


@pytest.mark.parametrize("quant", PRESETS)
def test_what_is_read_is_what_was_saved(quant, quantized, tmp_path):
    program = quantized(quant)
    program.save(tmp_path / "a")
    loaded = RealProgram.load(tmp_path / "a")
    x = torch.randn(3, 2, 8, 8)
    assert torch.equal(loaded(x), program(x))
    assert (loaded.nodes, loaded.inputs, loaded.outputs) == (program.nodes, program.inputs, program.outputs)
    loaded.save(tmp_path / "b")
    for name in ("real_program.json", "real_program.safetensors"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_lengths_and_masks_are_kept(words, sentences, tmp_path):
    program = qat.quantize(words(), [sentences], quant="w4-weight-only")
    program.save(tmp_path)
    loaded = RealProgram.load(tmp_path)
    shorter = {name: tensor[:, :4] for name, tensor in sentences.items()}
    assert torch.equal(loaded(shorter), program(shorter))
    assert [edge.shape for edge in loaded.inputs] == [("batch", "length"), ("batch", "length")]


def changed(path, change):
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))


def test_damage_is_told(quantized, tmp_path):
    quantized("w4-weight-only").save(tmp_path)
    document, tensors = tmp_path / "real_program.json", tmp_path / "real_program.safetensors"
    whole = document.read_bytes(), tensors.read_bytes()

    def refused(message):
        with pytest.raises(ProgramError, match=message):
            RealProgram.load(tmp_path)
        document.write_bytes(whole[0])
        tensors.write_bytes(whole[1])

    tensors.write_bytes(whole[1][:-1] + b"x")
    refused("real_program.safetensors is damaged, or not of this real_program.json")
    changed(document, lambda content: content.update(activations="dynamic"))
    refused("its content does not have its digest")
    changed(document, lambda content: content.update(version=2))
    refused("is no real program of version 1")
    document.write_text("{")
    refused("is not readable json")
    document.unlink()
    refused("cannot be read")


def test_a_folder_that_cannot_be_written_is_named(quantized, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ExportError, match="file"):
        quantized("fp16").save(tmp_path / "file" / "folder")
