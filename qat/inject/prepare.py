"""`prepare`: inject fake quantizers into a network."""

import torch
from torch import nn

from qat.errors import PreparationError
from qat.inject.control_flow import refuse_branches
from qat.inject.fixed_batch import refuse_fixed_batch
from qat.inject.handle import Handle, handle_of
from qat.inject.inputs import bind_examples
from qat.inject.plan import make_plan
from qat.inject.real_plan import make_real_plan
from qat.inject.record import record
from qat.spec import QuantConfig
from qat.targets import TargetName, config_for, target_named

#: What torch's own quantization puts into a network.
_OTHERS = torch.ao.quantization.FakeQuantizeBase, torch.ao.quantization.ObserverBase


def prepare(
    module: nn.Module, example_inputs, quant: str | QuantConfig = "w8a8", target: TargetName = "onnxruntime"
) -> Handle:
    """Inject fake quantizers into `module`, in place, with observers and fake quantization on.

    example_inputs: a tensor, a tuple of positional or a dict of keyword arguments; dimension 0 is the batch.
    quant: a preset such as "w4a8", or a `QuantConfig`. target: the runtime to export to, or several; None to simulate
    only.

    The module keeps its type, its parameters and its state_dict keys; only its `forward` is wrapped. Raises
    `PreparationError` where a call cannot be followed or has no integer form on the target, with its source line.
    """
    config, runs_on = config_for(quant, target), target_named(target)
    _refuse_unfit(module)
    args, kwargs = bind_examples(module, example_inputs)
    recording = record(module, args, kwargs)
    refuse_branches(module, recording, args, kwargs, runs_on)
    plan = (make_plan if config.is_integer else make_real_plan)(recording, config, runs_on)
    refuse_fixed_batch(module, args, kwargs, runs_on)
    handle = Handle(module, config, target, plan, recording, (args, kwargs))
    # a graph compiled before would go on running without quantizers
    torch.compiler.reset()
    return handle


def _refuse_unfit(module: nn.Module) -> None:
    """Raise `PreparationError` for what cannot be prepared on its face."""
    if not isinstance(module, nn.Module):
        raise PreparationError(f"the module is {module!r}; pass an instance of torch.nn.Module.")
    if isinstance(module, torch._dynamo.OptimizedModule):
        raise PreparationError("the module is a torch.compile wrapper; prepare the original module, then compile it.")
    for name, parameter in module.named_parameters():
        if torch.nn.parameter.is_lazy(parameter):
            raise PreparationError(f"the parameter {name} has no shape yet; run the network on one batch first.")
    for name, part in module.named_modules():
        reason = _reason_against(part)
        if reason is not None:
            raise PreparationError(f"the {f'sub-module {name!r}' if name else 'module'} {reason}.")


def _reason_against(part: nn.Module) -> str | None:
    """Why a module, or one inside of it, cannot be prepared, and what to do instead; None where it can."""
    if isinstance(part, torch.jit.ScriptModule):
        return "is a TorchScript module, whose calls cannot be intercepted; pass the original nn.Module"
    if handle_of(part) is not None:
        return "is prepared already; call remove() on its handle first"
    if isinstance(part, _OTHERS) or type(part).__module__.startswith("torch.ao.nn.quantized"):
        return f"is a {type(part).__name__}, quantized by other means; pass the float network"
    if isinstance(part, torch.fx.GraphModule) and "train" in vars(part):
        return "is a graph of torch.export, which has no train and eval mode; pass the original nn.Module"
    return None
