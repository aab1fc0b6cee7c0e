"""A recurrence: one function of C is a step, another runs it for every entry of the sequences."""

import math

from qat.emitters.c.kernels import MOVE
from qat.emitters.c.types import U8, type_of
from qat.emitters.c.views import Buffer, View, plain, strides_of
from qat.emitters.c.writer import Module, Writer
from qat.integer.operations import Loop


def loop(writer: Writer, operation: Loop) -> None:
    """The states lie where the last ones are left; a step writes the next ones beside, and they are moved there."""
    module, body = writer.module, operation.body
    sources = [_parameter(body.value(edge.value), f"x{index}") for index, edge in enumerate(body.inputs)]
    targets = [_parameter(body.value(edge.value), f"y{index}") for index, edge in enumerate(body.outputs)]
    taken = {edge.value: view for edge, view in zip(body.inputs, sources, strict=True)}
    given = [(edge.value, view) for edge, view in zip(body.outputs, targets, strict=True)]
    inner = Writer(module, body, taken, given, writer.forms)
    size, text = inner.write()
    step, steps = (module.names.claim(f"{operation.name}_{word}") for word in ("step", "steps"))
    parameters = [f"const {view.ctype.name} *{view.buffer.expression}" for view in sources]
    parameters += [f"{view.ctype.name} *{view.buffer.expression}" for view in targets]
    unused = [view.buffer.expression for view in sources if view.buffer not in inner.used]
    module.functions.append(
        f"static void {step}({', '.join(parameters)}, uint8_t *arena)\n{{\n"
        + "".join(f"    (void){name};\n" for name in unused)
        + ("" if size else "    (void)arena;\n")
        + f"{text}\n}}"
    )
    views = [writer.ordered(name, plain(len(writer.shape(name)))) for name in operation.inputs]
    states = [writer.new(name) for name in operation.last]
    output = writer.new(operation.output)
    count, room, next_states = views[0].shape[0], size, []
    for view in targets[:-1]:
        next_states.append(f"AT({view.ctype.name}, {room})")
        room += -(-math.prod(view.shape) * view.ctype.bytes // 8) * 8
    module.functions.append(
        _all_steps(module, operation, count, (step, steps), parameters, (sources, targets, next_states))
    )
    writer.call_named(steps, *views, *states, output, writer.scratch(U8, room))


def _all_steps(
    module: Module, operation: Loop, count: int, names: tuple[str, str], parameters: list[str], parts
) -> str:
    """The text of the function that runs a step for every entry."""
    (step, steps), (sources, targets, next_states) = names, parts
    sequences, states = len(operation.sequences), len(operation.last)
    lines = []
    for index in range(states):
        view = targets[index]
        move = module.kernels.need(MOVE, (view.ctype,))
        size = math.prod(view.shape)
        begins = f"{move}(x{sequences + index}, {size}, y{index});"
        lines.append((begins, f"{move}({next_states[index]}, {size}, y{index});"))
    entries = [f"x{index} + at * {math.prod(view.shape)}" for index, view in enumerate(sources[:sequences])]
    held = [f"y{index}" for index in range(states)]
    output = f"y{states} + at * {math.prod(targets[-1].shape)}"
    arguments = ", ".join([*entries, *held, *next_states, output, "arena"])
    at = f"{count} - 1 - i" if operation.reverse else "i"
    return "\n".join(
        [
            f"static void {steps}({', '.join(parameters)}, uint8_t *arena)",
            "{",
            "    int32_t i;",
            *(f"    {first}" for first, _ in lines),
            f"    for (i = 0; i < {count}; i++) {{",
            f"        const int32_t at = {at};",
            f"        {step}({arguments});",
            *(f"        {after}" for _, after in lines),
            "    }",
            "}",
        ]
    )


def _parameter(value, name: str) -> View:
    """What a function of C calls a value."""
    ctype, shape = type_of(value.grid), tuple(value.shape)
    return View(Buffer(ctype, math.prod(shape), name), shape, strides_of(shape, plain(len(shape))))
