"""Activations that outgrew their range are named with what to do, those whose step size is learned are not."""

import torch
from torch import nn

import qat
from qat.training.saturation import saturated


def prepared(quant):
    network = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3))
    return qat.prepare(network, torch.ones(2, 6), quant, target=None)


def test_only_what_is_clipped_by_more_than_a_few_percent_is_named():
    layers = {"input.input": {"clip_share": 0.04}, "4.output": {"clip_share": 0.12}, "2.weight": {"clip_share": 0.3}}
    (sentence,) = saturated(prepared("w8a8"), layers)
    assert sentence == (
        "12% of the values of 4.output lie beyond its range and are clipped; freeze observers later "
        "(freeze_observers=0.8) or observe its extremes (QuantSpec(observer='minmax'))."
    )


def test_learned_step_sizes_clip_for_the_loss():
    handle = prepared("w4a4")
    layers = {name: {"clip_share": 0.5} for name in handle.quantizers}
    named = [sentence.split(" ")[5] for sentence in saturated(handle, layers)]
    assert named == [
        name for name, site in handle.plan.sites.items() if site.role == "activation" and not site.spec.learned
    ]
    assert 0 < len(named) < len(handle.plan.sites)


def test_what_was_not_measured_is_not_judged():
    assert saturated(prepared("w8a8"), {}) == []
