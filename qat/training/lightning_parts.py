"""The places where Lightning has no hook: each function attaches to one instance and returns what detaches it."""

import functools
import os
from collections.abc import Callable

import torch

Undo = Callable[[], None]


def _attach(instance, name: str, function) -> Undo:
    """Shadow the method `name` of one instance with `function`, until the returned callable runs."""
    shadowed = instance.__dict__.get(name)
    instance.__dict__[name] = function

    def detach() -> None:
        if shadowed is None:
            instance.__dict__.pop(name, None)
        else:
            instance.__dict__[name] = shadowed

    return detach


def hook_before_restore(pl_module, see: Callable[[dict], None]) -> Undo:
    """Show every checkpoint to `see` before the module's weights are restored from it, for any kind of loop.

    It is shown as the module's own `on_load_checkpoint` leaves it, which may bring names of old up to date.
    """
    original = pl_module.on_load_checkpoint

    @functools.wraps(original)
    def on_load_checkpoint(checkpoint: dict) -> None:
        original(checkpoint)
        see(checkpoint)

    return _attach(pl_module, "on_load_checkpoint", on_load_checkpoint)


def final_checkpoints_only(trainer, is_final: Callable[[], bool]) -> Undo:
    """Let checkpoint callbacks with a monitor choose among final states alone: a float one would score best.

    Checkpoints without a monitor, and `save_last`, are written as always.
    """
    undos = []
    for callback in trainer.checkpoint_callbacks:
        if getattr(callback, "monitor", None) is None or not hasattr(callback, "_save_topk_checkpoint"):
            continue
        original = callback._save_topk_checkpoint

        def save(trainer, monitor_candidates, original=original) -> None:
            if is_final():
                original(trainer, monitor_candidates)

        undos.append(_attach(callback, "_save_topk_checkpoint", save))

    def undo() -> None:
        for detach in undos:
            detach()

    return undo


def forget_best(trainer) -> None:
    """Let callbacks with a monitor forget what they called best so far, in float; the files stay."""
    for callback in trainer.checkpoint_callbacks:
        if getattr(callback, "monitor", None) is None or not hasattr(callback, "best_k_models"):
            continue
        callback.best_k_models = {}
        callback.best_model_path = callback.kth_best_model_path = ""
        callback.best_model_score = callback.current_score = None
        callback.kth_value = torch.tensor(float("inf") if callback.mode == "min" else -float("inf"))


def writes_early_checkpoints(trainer) -> bool:
    """Whether a checkpoint callback writes something before the state is final, or none was asked for at all."""
    callbacks = trainer.checkpoint_callbacks
    return not callbacks or any(
        getattr(callback, "monitor", None) is None or getattr(callback, "save_last", None) for callback in callbacks
    )


def keep_unfinished(trainer) -> str | None:
    """Path of the newest checkpoint of a run that ended early, which is written where there is none yet.

    None where no checkpoints were asked for.
    """
    callbacks = [callback for callback in trainer.checkpoint_callbacks if getattr(callback, "dirpath", None)]
    for callback in callbacks:
        path = callback.last_model_path or callback.best_model_path
        if path:
            return path
    if not callbacks or trainer.fast_dev_run:
        return None
    path = os.path.join(callbacks[0].dirpath, "unfinished.ckpt")
    trainer.save_checkpoint(path)
    return path


def shown_in_progress_bar(trainer, label: str, word: Callable[[], str]) -> Undo:
    """Show `word()` as `label` among the metrics of the trainer's progress bar."""
    bar = trainer.progress_bar_callback
    if bar is None:
        return lambda: None
    original = bar.get_metrics

    def get_metrics(trainer, pl_module):
        return {**original(trainer, pl_module), label: word()}

    return _attach(bar, "get_metrics", get_metrics)
