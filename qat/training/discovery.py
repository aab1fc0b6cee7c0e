"""Which part of a LightningModule is the network, which part of a batch its inputs, which optimizer trains it."""

import inspect
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from qat.errors import ConfigurationError
from qat.inject.handle import Handle, forward_of


def find_network(pl_module: nn.Module, module: str | nn.Module | None) -> nn.Module:
    """The network to quantize.

    module: the network itself or its path in `pl_module`; None to find it: `pl_module` where it overrides forward, else
    its one child with parameters. Raises `ConfigurationError` naming the candidates where that is not clear.
    """
    network = _find_network(pl_module, module)
    if isinstance(network, torch._dynamo.OptimizedModule):
        raise ConfigurationError(
            f"the network of {type(pl_module).__name__} is a wrapper that torch.compile made; call network.compile() "
            "instead, which compiles it in place, quantizers included."
        )
    require_forward(network)
    return network


def require_forward(module: nn.Module) -> None:
    """Raise `ConfigurationError` for a module that cannot be called, such as a ModuleList."""
    if "forward" not in module.__dict__ and not overrides_forward(module):
        raise ConfigurationError(
            f"the network is a {type(module).__name__}, which has no forward to follow; pass the part of it that is "
            "called, or write the calls of its layers into the forward of an nn.Module and pass that."
        )


def _find_network(pl_module: nn.Module, module: str | nn.Module | None) -> nn.Module:
    if isinstance(module, nn.Module):
        if not any(part is module for part in pl_module.modules()):
            raise ConfigurationError(
                f"module= is a {type(module).__name__} that is no part of {type(pl_module).__name__}; "
                f"pass one of {_candidates(pl_module)}."
            )
        return module
    if module is not None:
        try:
            return pl_module.get_submodule(module)
        except AttributeError as error:
            raise ConfigurationError(
                f"module={module!r} is no part of {type(pl_module).__name__}; pass one of {_candidates(pl_module)}."
            ) from error
    if overrides_forward(pl_module):
        return pl_module
    children = [child for _, child in _children_with_parameters(pl_module)]
    if len(children) == 1:
        return children[0]
    raise ConfigurationError(
        f"{type(pl_module).__name__} has no forward of its own and {len(children)} children with parameters; "
        f"say which is the network: QATCallback(module=...) with one of {_candidates(pl_module)}."
    )


def overrides_forward(pl_module: nn.Module) -> bool:
    """Whether a LightningModule (of either package) defines its own forward."""
    owner = next(base for base in type(pl_module).__mro__ if "forward" in base.__dict__)
    return owner.__name__ != "LightningModule" and owner is not nn.Module


def _children_with_parameters(pl_module: nn.Module) -> list[tuple[str, nn.Module]]:
    return [(name, child) for name, child in pl_module.named_children() if any(True for _ in child.parameters())]


def _candidates(pl_module: nn.Module) -> str:
    names = [repr(name) for name, _ in _children_with_parameters(pl_module)]
    return ", ".join(names) or "its sub-modules (it has none with parameters yet)"


def inputs_of(batch, network: nn.Module):
    """The part of `batch` that `network.forward` takes: a tensor, a tuple of positional or a dict of keyword arguments.

    A tensor is the input; of a tuple or list, the leading entries, as many as forward requires (one for the usual pair
    of inputs and targets); of a dict, the entries named like forward's parameters.
    """
    parameters = inspect.signature(forward_of(network)).parameters.values()
    required = [
        p for p in parameters if p.default is p.empty and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)
    ]
    if isinstance(batch, Tensor):
        return batch
    if isinstance(batch, tuple | list) and batch:
        inputs = tuple(batch[: max(len(required), 1)])
        if len(inputs) == 1 and isinstance(inputs[0], Mapping | tuple | list):
            return inputs_of(inputs[0], network)
        return inputs
    if isinstance(batch, Mapping):
        named = {
            name: value for name, value in batch.items() if name in {p.name for p in parameters} and value is not None
        }
        if named and all(parameter.name in named for parameter in required):
            return named
    raise ConfigurationError(
        f"a batch is a {_describe(batch)}, from which the arguments of {type(network).__name__}.forward"
        f"({', '.join(p.name for p in parameters)}) cannot be told; pass QATCallback(example_inputs=...), or to "
        "qat.quantize batches of these alone."
    )


def _describe(batch) -> str:
    if isinstance(batch, Mapping):
        return f"{type(batch).__name__} with the keys {', '.join(map(str, batch))}"
    return type(batch).__name__


def copied(inputs):
    """`inputs` as ordinary tensors, detached: those of an inference-mode loop could not be used outside of it."""
    with torch.inference_mode(False):
        return torch.utils._pytree.tree_map(
            lambda leaf: leaf.detach().clone() if isinstance(leaf, Tensor) else leaf, inputs
        )


def held_out(trainer, handle: Handle) -> Iterator:
    """Inputs of the validation batches, else of the training batches, as the network gets them.

    Where batches do not hold its inputs (a generator's noise, or pictures normalized in training_step), those it was
    recorded with.
    """
    loaders = trainer.val_dataloaders
    if loaders is None or (isinstance(loaders, list | tuple | dict) and not loaders):
        loaders = trainer.train_dataloader
    leaves = [leaf for leaf in tree_leaves(loaders) if leaf is not None]
    some = False
    for batch in leaves[0]:
        batch = trainer.lightning_module._apply_batch_transfer_handler(batch)
        try:
            inputs = inputs_of(trainer.precision_plugin.convert_input(batch), handle.module)
        except ConfigurationError:
            break
        if _samples(inputs) != _samples(handle.examples):
            break
        some = True
        yield inputs
    if not some:
        args, kwargs = handle.examples
        yield kwargs or (args[0] if len(args) == 1 else args)


def _samples(inputs) -> list[tuple[tuple[int, ...], bool]]:
    """The shape of one sample of every tensor, and whether it is of real values."""
    leaves = [leaf for leaf in tree_leaves(inputs) if isinstance(leaf, Tensor)]
    return [(tuple(leaf.shape[1:]), leaf.is_floating_point()) for leaf in leaves]


def trains(optimizer, network: nn.Module) -> bool:
    """Whether `optimizer` holds a parameter of `network`."""
    held = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    return any(id(parameter) in held for parameter in network.parameters())


def optimizer_of(trainer, network: nn.Module):
    """The optimizer that trains `network`, None where there is none."""
    return next((optimizer for optimizer in trainer.optimizers if trains(optimizer, network)), None)


def learning_rate(optimizer) -> float | None:
    """The rate of the first group; None without an optimizer, or where it chooses its rate itself."""
    rate = None if optimizer is None else optimizer.param_groups[0].get("lr")
    return None if rate is None else float(rate)


def is_warming_up(optimizer, rate: float, rate_before: float | None) -> bool:
    """Whether a schedule is still raising the rate of the first group towards the one that was asked for.

    rate, rate_before: at this update and at the one before it. Schedules of torch keep what they start from or rise to
    in the group.
    """
    group = optimizer.param_groups[0]
    highest = float(max(group.get("initial_lr", rate), group.get("max_lr", rate)))
    return rate < highest and (rate_before is None or rate > rate_before)
