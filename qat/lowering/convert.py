"""`convert`: a prepared network becomes an `IntegerProgram`.

The network is exported with `torch.export`, the graph is lowered (`qat.lowering.walk`), and the program is run beside
the eval forward before it is given out. Where a network cannot follow the length of its inputs, all that is done again
for the recorded length.
"""

import logging
import warnings

from torch import nn

from qat.errors import ConversionError, ObservationError
from qat.inject.handle import Handle, handle_of
from qat.inject.undisturbed import undisturbed
from qat.integer.program import IntegerProgram
from qat.integer.semantics import for_runtime
from qat.lowering.exported import Exported, export
from qat.lowering.faithful import check_faithful
from qat.lowering.placement import placed_for_conversion
from qat.lowering.real import convert_real
from qat.lowering.walk import Lowering
from qat.real.program import RealProgram

_LOG = logging.getLogger("qat")


def convert(module: nn.Module) -> IntegerProgram | RealProgram:
    """The integer program of a prepared network, with the weights, scales and running statistics it has now.

    Its outputs are those of the network, of which nested ones are named by their place (`qat.inject.outputs`), and
    come as a dict by these names. `None` among them (a loss that was not asked for) is left out.

    It takes inputs of any length that the network can follow, `program.lengths`; where that is the recorded one alone,
    though torch.export kept it open, a warning of the logger "qat" says why.

    Of a network whose activations are not static (`QuantConfig.activations`) it is the `RealProgram`, no integer one.

    The network is read in eval mode and left as it was. Raises `ConversionError` where a value that should be integer
    is not, naming every such operation with its module path, source line and the way out; and where the program, run
    on one batch, gives other codes than the eval forward (`qat.lowering.faithful`).
    """
    handle = handle_of(module)
    if handle is None:
        raise ConversionError(
            "the module is not prepared; call qat.prepare(module, example_inputs) and train it first."
        )
    if not handle.state.fake_quantize:
        raise ConversionError(
            f"quantization is off (phase {handle.state.phase!r}), so there is nothing to convert; "
            "train past schedule.start."
        )
    if handle.plan.float_layers:
        raise ConversionError(
            f"a rule leaves {', '.join(handle.plan.float_layers)} in float, and a simulation has no islands; prepare "
            "the network for a target (target='onnxruntime'), or drop the rule."
        )
    _refuse_unobserved(handle)
    if not handle.config.is_integer:
        return convert_real(module, handle)
    with undisturbed(module), placed_for_conversion(module, handle), warnings.catch_warnings():
        # torch.export looks at every attribute of every module, deprecated ones too
        warnings.simplefilter("ignore")
        exported = export(module, handle, any_length=True)
        try:
            return _lowered(module, handle, exported)
        except ConversionError as error:
            if not exported.lengths:
                raise
            reason = str(error).removesuffix(".")
        program = _lowered(module, handle, export(module, handle, any_length=False))
        _LOG.warning("the program takes inputs of the recorded length only (%s)", reason)
        return program


def _lowered(module: nn.Module, handle: Handle, exported: Exported) -> IntegerProgram:
    lowering = Lowering(handle, exported)
    program = for_runtime(lowering.program(), handle.rounding)
    check_faithful(module, handle, program, lowering.quantizations)
    return program


def _refuse_unobserved(handle: Handle) -> None:
    unseen = [name for name, quantizer in handle.quantizers.items() if not quantizer.ready]
    if unseen:
        raise ObservationError(
            f"{len(unseen)} quantizers met no data, the first of them {unseen[0]}; "
            "run training steps, or qat.quantize with batches."
        )
