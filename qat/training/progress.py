"""Where a Lightning run stands, in the schedule's own terms."""

from qat.schedule import Progress


def progress_of(trainer, batch_idx: int | None = None) -> Progress:
    """Progress at the start of batch `batch_idx`, None for the start of the epoch.

    A run has no known end where neither max_epochs nor max_steps is set, an epoch none where its loader has no length.
    """
    batches = trainer.num_training_batches
    batches = int(batches) if 0 < batches < float("inf") else None
    automatic = trainer.lightning_module is not None and trainer.lightning_module.automatic_optimization
    return Progress(
        epoch=trainer.current_epoch,
        step=trainer.global_step,
        total_epochs=known_total(trainer.max_epochs),
        total_steps=known_total(trainer.max_steps),
        share_of_epoch=batch_idx / batches if batch_idx is not None and batches else 0.0,
        batches_per_epoch=batches,
        batches_per_step=trainer.accumulate_grad_batches if automatic else None,
    )


def is_last_batch(trainer, batch_idx: int) -> bool:
    """Whether the epoch, or the run, ends with the batch that begins now; False where that cannot be told before."""
    if batch_idx + 1 == trainer.num_training_batches or trainer.fit_loop.epoch_loop.batch_progress.is_last_batch:
        return True
    return known_total(trainer.max_steps) is not None and trainer.global_step + 1 >= trainer.max_steps


def known_total(total: int | None) -> int | None:
    """A trainer's max_epochs or max_steps, None where it sets no end: Lightning writes -1 for that."""
    return None if total in (None, -1) else total
