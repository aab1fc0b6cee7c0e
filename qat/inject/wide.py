"""Sums of 16 bits: where a rule may give a value more bits than a runtime's kernels multiply.

The sums along a transformer hold a few channels far larger than the rest (arXiv:2109.12948), and 8 bits over the range
of those leave nothing for the others. A norm, which ends them, takes codes of any width, and so does an addition; only
products need 8 bits. A layer with weights reads a wide value through a copy of 8 bits.
"""

from collections.abc import Iterator, Mapping

from qat.errors import PreparationError
from qat.inject.calls import Call, ValueId
from qat.inject.flow import is_identity
from qat.inject.fusing import Fusion
from qat.inject.groups import Groups
from qat.inject.operations import COMPUTING, Kind
from qat.inject.sites import Site
from qat.inject.written_norms import NormStep
from qat.targets import Target

#: What makes and reads wide values. Norms that are written out read them as well.
TAKES_WIDE = frozenset({"linear", "addmm", "add", "layer_norm", "rms_norm"})


def refuse_wide(
    fusion: Fusion, groups: Groups, quantizer_of: Mapping[ValueId, str], sites: Mapping[str, Site], target: Target
) -> None:
    """Raise `PreparationError` for a value of more bits than `target` has kernels for, where it is no sum for a norm.

    quantizer_of: group of values -> name of its quantizer.
    """
    wide = {
        group: sites[name] for group, name in quantizer_of.items() if sites[name].spec.bits > target.max_activation_bits
    }
    if not wide:
        return
    for value, reason in _misfits(fusion):
        site = wide.get(groups.find(value))
        if site is not None:
            raise PreparationError(
                f"the output of {site.layer} has {site.spec.bits} bits by a rule, but {reason}, and {target.name} has "
                f"more than {target.max_activation_bits} bits only between additions, layer or RMS norms, and linear "
                "layers; leave its activation_bits out of the rule."
            )


def _misfits(fusion: Fusion) -> Iterator[tuple[ValueId, str]]:
    """Every value that has to be narrow, and why."""
    for call in fusion.calls.values():
        if call.kind not in (Kind.PASS, Kind.JOIN) and call.produces and not _makes_wide(fusion, call):
            yield from ((("call", call.address, index), f"{call.layer} makes it") for index in range(call.produces))
        if not _reads_wide(fusion, call):
            yield from ((value, f"{call.layer} reads it") for value in call.values())
        for operand in (operand for operands in call.operands.values() for operand in operands):
            if operand.value is not None and operand.value[0] == "input":
                yield operand.value, "it is an input of the network"
    yield from ((value, "it is an output of the network") for value in fusion.outputs)


def _makes_wide(fusion: Fusion, call: Call) -> bool:
    head = fusion.calls[fusion.head.get(call.address, call.address)]
    takes = head.operation.name in TAKES_WIDE and fusion.quantized[head.address]
    return takes and call.address not in fusion.regions


def _reads_wide(fusion: Fusion, call: Call) -> bool:
    if call.kind is Kind.PASS:
        return is_identity(call) or not call.produces
    region = fusion.regions.get(call.address)
    if region is not None:
        return isinstance(region, NormStep)
    fused = call.address in fusion.head
    takes = call.operation.name in TAKES_WIDE and fusion.quantized[call.address]
    return fused or (call.kind in COMPUTING and takes)
