"""What is attached to one instance is detached again."""

from types import SimpleNamespace

from qat.training.lightning_parts import final_checkpoints_only, hook_before_restore, shown_in_progress_bar


class Module:
    def __init__(self):
        self.calls = []

    def on_load_checkpoint(self, checkpoint):
        self.calls.append("module")


class Checkpoint:
    def __init__(self, monitor):
        self.monitor, self.saved = monitor, 0

    def _save_topk_checkpoint(self, trainer, candidates):
        self.saved += 1


class Bar:
    def get_metrics(self, trainer, pl_module):
        return {"loss": 1.0}


def test_the_checkpoint_is_seen_as_the_modules_own_hook_leaves_it():
    module = Module()
    detach = hook_before_restore(module, lambda checkpoint: module.calls.append(checkpoint))
    module.on_load_checkpoint("content")
    detach()
    module.on_load_checkpoint("content")
    assert module.calls == ["module", "content", "module"]
    assert "on_load_checkpoint" not in module.__dict__


def test_two_hooks_are_taken_off_in_either_order_of_nesting():
    module = Module()
    outer_undone = [hook_before_restore(module, lambda c: None), hook_before_restore(module, lambda c: None)]
    while outer_undone:
        outer_undone.pop()()
    assert "on_load_checkpoint" not in module.__dict__


def test_only_monitored_checkpoints_wait_for_the_final_state():
    best, always = Checkpoint("loss"), Checkpoint(None)
    final = False
    undo = final_checkpoints_only(SimpleNamespace(checkpoint_callbacks=[best, always]), lambda: final)
    for callback in (best, always):
        callback._save_topk_checkpoint(None, {})
    assert (best.saved, always.saved) == (0, 1)
    final = True
    best._save_topk_checkpoint(None, {})
    assert best.saved == 1
    undo()
    assert "_save_topk_checkpoint" not in best.__dict__


def test_the_word_stands_beside_the_metrics():
    bar = Bar()
    undo = shown_in_progress_bar(SimpleNamespace(progress_bar_callback=bar), "qat", lambda: "quantize w4a4")
    assert bar.get_metrics(None, None) == {"loss": 1.0, "qat": "quantize w4a4"}
    undo()
    assert bar.get_metrics(None, None) == {"loss": 1.0}


def test_no_progress_bar_is_fine():
    shown_in_progress_bar(SimpleNamespace(progress_bar_callback=None), "qat", lambda: "")()
