"""The optimizer of the learned scales, which trains beside the one the user configured."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

#: Largest relative change of a scale per step. Adam moves a parameter by about its learning rate per step; a scale can
#: then double in some 700 steps, an order slower than weights move by whole quantization steps.
RELATIVE_RATE = 1e-3


class ScaleOptimizer:
    """Adam (arXiv:1412.6980) whose step is relative to the size of each scale.

    Scales span many orders of magnitude, so that no absolute learning rate fits all of them: Adam's step, of about
    `RELATIVE_RATE`, is multiplied by the scale itself, and by the number of levels for a zero point, whose unit is a
    code. The rate follows the user's schedule: it is multiplied by the user's learning rate over its largest so far.
    """

    def __init__(self, parameters: Iterable[tuple[str, nn.Parameter, float | None]]):
        """parameters: (name, parameter, levels), levels None for a scale."""
        entries = list(parameters)
        self.names = [name for name, _, _ in entries]
        self.parameters = [parameter for _, parameter, _ in entries]
        self.levels = [levels for _, _, levels in entries]
        self.largest_rate = 0.0
        self.adam = torch.optim.Adam(self.parameters, lr=RELATIVE_RATE, betas=(0.9, 0.99)) if self.parameters else None

    @torch.no_grad()
    def step(self, user_rate: float | None, gradient_scale: float = 1.0) -> None:
        """One step from the gradients there are, which are then dropped.

        user_rate: the learning rate of the user's optimizer now, None where that has none. gradient_scale: what a loss
        scaler multiplied the gradients with; scaled gradients that are not finite skip the step, as the scaler does.
        """
        stepped = [index for index, parameter in enumerate(self.parameters) if parameter.grad is not None]
        if not stepped:
            return
        share = 1.0
        if user_rate is not None:
            self.largest_rate = max(self.largest_rate, user_rate)
            share = user_rate / self.largest_rate if self.largest_rate else 0.0
        gradients = [self.parameters[index].grad for index in stepped]
        if gradient_scale != 1.0:
            torch._foreach_mul_(gradients, 1.0 / gradient_scale)
            if not all(bool(torch.isfinite(gradient).all()) for gradient in gradients):
                self.zero_grad()
                return
        before = [self.parameters[index].clone() for index in stepped]
        for group in self.adam.param_groups:
            group["lr"] = RELATIVE_RATE * share
        self.adam.step()
        for index, old in zip(stepped, before, strict=True):
            parameter, levels = self.parameters[index], self.levels[index]
            unit = old.abs() if levels is None else levels
            parameter.copy_(old + (parameter - old) * unit)
        self.zero_grad()

    def zero_grad(self) -> None:
        """Drop all gradients."""
        for parameter in self.parameters:
            parameter.grad = None

    def reduce(self, reduce_mean) -> None:
        """Average gradients across ranks. reduce_mean: averages one flat tensor across ranks, in place."""
        with_gradient = [parameter for parameter in self.parameters if parameter.requires_grad]
        if not with_gradient:
            return
        flat = torch.cat([_gradient(parameter).reshape(-1) for parameter in with_gradient])
        reduce_mean(flat)
        pieces = flat.split([parameter.numel() for parameter in with_gradient])
        for parameter, piece in zip(with_gradient, pieces, strict=True):
            parameter.grad = piece.view_as(parameter).clone()

    def state_dict(self) -> dict:
        """Adam's state by parameter name; loads with `weights_only=True`."""
        state = {} if self.adam is None else self.adam.state
        return {
            "largest_rate": self.largest_rate,
            "state": {
                name: {key: value.clone() for key, value in state[parameter].items()}
                for name, parameter in zip(self.names, self.parameters, strict=True)
                if parameter in state
            },
        }

    def load_state_dict(self, state: dict) -> None:
        """Take over what `state_dict` gave; unknown names are left out."""
        self.largest_rate = state["largest_rate"]
        for name, parameter in zip(self.names, self.parameters, strict=True):
            if name in state["state"]:
                entries = state["state"][name]
                self.adam.state[parameter] = {
                    key: value.clone() if key == "step" else value.to(parameter.device).clone()
                    for key, value in entries.items()
                }


def _gradient(parameter: Tensor) -> Tensor:
    return torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
