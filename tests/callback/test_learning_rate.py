"""Where quantization sets in, the update that was really made is judged, whichever optimizer made it."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import qat

SCHEDULE = qat.Schedule(start=1, freeze_observers=2, freeze_batch_norm=3)


def told(capsys) -> list[str]:
    return [line for line in capsys.readouterr().out.splitlines() if line.startswith("learning rate")]


def fit(trainer_of, module, images, schedule=SCHEDULE, **settings):
    callback = qat.QATCallback("w8a8", schedule, target=None)
    trainer_of(callback, max_epochs=4, **settings).fit(module, images, images)
    return callback


@pytest.mark.parametrize("loss_times", [1.0, 1e-3])
def test_adam_moves_weights_by_its_rate_however_small_the_gradients(
    loss_times, make_trainer, plain_module, images, capsys
):
    class Scaled(plain_module.kind):
        def training_step(self, batch, batch_idx):
            return loss_times * super().training_step(batch, batch_idx)

    module = plain_module(lambda parameters: torch.optim.Adam(parameters, lr=0.3, eps=0), kind=Scaled)
    fit(make_trainer, module, images, qat.Schedule(start=0, freeze_observers=2, freeze_batch_norm=3))
    (sentence,) = told(capsys)
    assert sentence.startswith("learning rate 0.3 moves the weights of ")
    # the first step of Adam moves every weight by its rate: rate over share is the size of the layer's weights
    layer, share = sentence.split("weights of ")[1].split("%")[0].split(" by ")
    torch.manual_seed(0)
    weight = plain_module.kind().network[int(layer)].weight.detach()
    assert int(share) == round(100 * 0.3 / float(weight.square().mean().sqrt()))


def test_a_rate_that_fits_is_told_once_and_no_weights_are_kept(make_trainer, plain_module, images, capsys):
    callback = fit(make_trainer, plain_module(lambda parameters: torch.optim.SGD(parameters, lr=1e-3)), images)
    (sentence,) = told(capsys)
    assert sentence.startswith("learning rate 0.001 fits: the fastest layer, ")
    assert callback._weights_before == {}


@pytest.mark.parametrize("start", [0, 1])
def test_the_rate_that_a_warm_up_rises_to_is_judged(start, make_trainer, plain_module, images, capsys):
    class Warmed(plain_module.kind):
        def configure_optimizers(self):
            optimizer = torch.optim.SGD(self.parameters(), lr=0.008)
            schedule = torch.optim.lr_scheduler.LinearLR(optimizer, start_factor=1 / 8, total_iters=7)
            return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    module = plain_module(kind=Warmed)
    fit(make_trainer, module, images, qat.Schedule(start=start, freeze_observers=2, freeze_batch_norm=3))
    (sentence,) = told(capsys)
    assert sentence.startswith("learning rate 0.008 fits: ")


def test_an_update_that_moves_nothing_is_waited_for(make_trainer, plain_module, images, capsys):
    class Skips(torch.optim.SGD):
        updates = 0

        def step(self, closure=None):
            before = [parameter.detach().clone() for group in self.param_groups for parameter in group["params"]]
            super().step(closure)
            self.updates += 1
            if self.updates <= 6:  # the fifth and sixth are quantized
                with torch.no_grad():
                    for parameter, value in zip(self.param_groups[0]["params"], before, strict=True):
                        parameter.copy_(value)

    fit(make_trainer, plain_module(lambda parameters: Skips(parameters, lr=1e-3)), images)
    (sentence,) = told(capsys)
    assert "moves by 0.00%" not in sentence and "fits" in sentence


def test_several_updates_of_a_batch_are_judged_one_by_one(make_trainer, plain_module, images, capsys):
    class Several(plain_module.kind):
        times = 1

        def __init__(self, optimizers=None):
            super().__init__(optimizers)
            self.automatic_optimization = False

        def training_step(self, batch, batch_idx):
            optimizer = self.optimizers()
            for _ in range(self.times):
                optimizer.zero_grad()
                self.manual_backward(F.cross_entropy(self.network(batch[0]), batch[1]))
                optimizer.step()

    class Thrice(Several):
        times = 3

    schedule = qat.Schedule(start=0, freeze_observers=2, freeze_batch_norm=3)
    sentences = []
    for kind in (Several, Thrice):
        module = plain_module(lambda parameters: torch.optim.Adam(parameters, lr=0.3), kind=kind)
        fit(make_trainer, module, images, schedule)
        sentences += told(capsys)
    assert len(sentences) == 2 and sentences[0] == sentences[1]


def test_a_network_that_is_not_trained_has_nothing_to_judge(make_trainer, plain_module, images, capsys):
    class Tuned(plain_module.kind):
        def __init__(self, optimizers=None):
            super().__init__(optimizers)
            for part in self.network:
                if not isinstance(part, nn.BatchNorm2d):
                    part.requires_grad_(False)

    fit(make_trainer, plain_module(lambda parameters: torch.optim.SGD(parameters, lr=0.1), kind=Tuned), images)
    (sentence,) = told(capsys)
    assert sentence == "learning rate: no quantized weight is trained, so there is no update to judge it by."


def test_a_batch_that_fails_leaves_no_copy_behind(make_trainer, plain_module, images):
    class Fails(torch.optim.SGD):
        updates = 0

        def step(self, closure=None):
            super().step(closure)
            self.updates += 1
            if self.updates == 5:
                raise KeyError("fifth")

    callback = qat.QATCallback("w8a8", SCHEDULE, target=None)
    module = plain_module(lambda parameters: Fails(parameters, lr=1e-3))
    with pytest.raises(KeyError):
        make_trainer(callback, max_epochs=4).fit(module, images, images)
    assert callback._weights_before == {} and callback._rate_to_judge is None
