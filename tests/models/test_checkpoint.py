import pytest
import torch
from torch import nn

from qat.errors import CheckpointError
from qat.models.checkpoint import check_resumable, load_weights


def network(out_features=2):
    return nn.Sequential(nn.Linear(3, out_features), nn.BatchNorm1d(out_features))


def saved(path, content):
    torch.save(content, path)
    return path


def test_a_state_dict_is_loaded(tmp_path):
    source, target = network(), network()
    load_weights(target, saved(tmp_path / "weights.pt", source.state_dict()))
    assert torch.equal(target[0].weight, source[0].weight)


def test_a_lightning_checkpoint_is_loaded_without_its_prefix(tmp_path):
    source, target = network(), network()
    state = {f"network.{key}": value for key, value in source.state_dict().items()}
    load_weights(target, saved(tmp_path / "last.ckpt", {"epoch": 3, "state_dict": state}))
    assert torch.equal(target[0].weight, source[0].weight)


def test_counts_of_batches_may_be_left_out(tmp_path):
    state = {key: value for key, value in network().state_dict().items() if "num_batches" not in key}
    load_weights(network(), saved(tmp_path / "weights.pt", state))


def test_missing_and_other_keys_are_listed_and_nothing_is_changed(tmp_path):
    state = network().state_dict()
    state["classifier.bias"] = state.pop("0.bias")
    target = network()
    before = target[0].weight.clone()
    with pytest.raises(CheckpointError, match="not of a Sequential: it misses 0.bias and has besides classifier.bias;"):
        load_weights(target, saved(tmp_path / "weights.pt", state))
    assert torch.equal(target[0].weight, before)


def test_other_shapes_are_listed(tmp_path):
    path = saved(tmp_path / "weights.pt", network(out_features=4).state_dict())
    with pytest.raises(CheckpointError, match=r"another shape for 0.weight \(4, 3\) instead of \(2, 3\)"):
        load_weights(network(), path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(CheckpointError, match="absent.pt' does not exist; set model.checkpoint="):
        load_weights(network(), tmp_path / "absent.pt")


def test_damaged_files_are_refused(tmp_path):
    path = saved(tmp_path / "weights.pt", network().state_dict())
    content = path.read_bytes()
    for damaged in (b"", b"not a checkpoint", content[: len(content) // 2]):
        path.write_bytes(damaged)
        with pytest.raises(CheckpointError, match="cannot be read as weights alone"):
            load_weights(network(), path)


def test_code_in_a_checkpoint_is_not_run(tmp_path):
    path = saved(tmp_path / "network.pt", network())  # a whole module, which unpickling would build
    with pytest.raises(CheckpointError, match="cannot be read as weights alone"):
        load_weights(network(), path)


def test_a_file_without_tensors_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match="holds no state dict of tensors"):
        load_weights(network(), saved(tmp_path / "list.pt", {"a": 1}))


def test_a_checkpoint_to_resume_is_checked_and_not_loaded(tmp_path):
    module, other = network(), network()
    path = saved(tmp_path / "last.ckpt", {"epoch": 3, "state_dict": other.state_dict()})
    before = module[0].weight.clone()
    check_resumable(module, path)
    assert torch.equal(module[0].weight, before)


@pytest.mark.parametrize(
    "content, sentence",
    [
        (None, "does not exist; set resume= to a file"),
        (b"PK\x03\x04 half a checkpoint", "cannot be read as weights alone .* go on from another checkpoint"),
        (b"", "cannot be read as weights alone"),
    ],
)
def test_a_checkpoint_that_cannot_be_resumed_is_one_sentence(content, sentence, tmp_path):
    path = tmp_path / "last.ckpt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(CheckpointError, match=sentence) as caught:
        check_resumable(network(), path)
    assert "\n" not in str(caught.value)


def test_the_checkpoint_of_another_network_is_not_resumed(tmp_path):
    path = saved(tmp_path / "last.ckpt", {"state_dict": network(3).state_dict()})
    with pytest.raises(CheckpointError, match=r"0.weight \(3, 3\) instead of \(2, 3\).*; set resume= to a file"):
        check_resumable(network(), path)
