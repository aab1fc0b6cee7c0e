import pytest
import torch

from qat.models.schedulers import warmup_cosine, warmup_cosine_factor


@pytest.mark.parametrize("step, factor", [(0, 1 / 3), (1, 2 / 3), (2, 1.0), (6, 0.5 * 1.1), (10, 0.1), (11, 0.1)])
def test_factor_rises_linearly_and_falls_as_a_cosine(step, factor):
    assert warmup_cosine_factor(step, total_steps=10, warmup=0.2, last=0.1) == pytest.approx(factor)


def test_without_warmup_it_starts_at_the_full_rate():
    assert warmup_cosine_factor(0, total_steps=10, warmup=0.0, last=0.0) == 1.0


def test_the_scheduler_steps_the_optimizer():
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=2.0)
    scheduler = warmup_cosine(optimizer, total_steps=4, warmup=0.5, last=0.0)
    rates = []
    for _ in range(4):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    assert rates == pytest.approx([2 / 3, 4 / 3, 2.0, 1.0])
