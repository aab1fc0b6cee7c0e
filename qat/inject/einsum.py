"""`torch.einsum` as permutations, reshapes and matrix products, which keep the batch in front."""

import string

import torch
from torch import Tensor

#: One factor: a letter for each of its dimensions.
Factor = tuple[str, Tensor]


def einsum(*args):
    """torch.einsum(equation, *operands). `NotImplemented` for diagonals, and for indices given as lists of numbers."""
    equation, *operands = args
    if not isinstance(equation, str):
        return NotImplemented
    if len(operands) == 1 and isinstance(operands[0], tuple | list):
        operands = operands[0]
    inputs, output = _letters(equation, operands)
    if any(len(set(letters)) < len(letters) for letters in (*inputs, output)):
        return NotImplemented
    first, *others = zip(inputs, operands, strict=True)
    for index, second in enumerate(others):
        wanted = {*output, *(letter for letters, _ in others[index + 1 :] for letter in letters)}
        first = _product(first, second, _order(first, second, output, wanted))
    return _arranged(_summed(first, set(output)), output)


def _letters(equation: str, operands) -> tuple[list[str], str]:
    """(letters of each operand, letters of the result), with letters for the dimensions of an ellipsis."""
    left, arrow, output = equation.replace(" ", "").partition("->")
    inputs = left.split(",")
    free = [letter for letter in string.ascii_letters if letter not in equation]
    own = [
        operand.dim() - len(letters) + 3 if "." in letters else 0
        for letters, operand in zip(inputs, operands, strict=True)
    ]
    most = max(own)
    many = "".join(free[:most])
    expanded = [letters.replace("...", many[most - count :]) for letters, count in zip(inputs, own, strict=True)]
    if not arrow:
        joined = "".join(expanded)
        single = sorted(letter for letter in set(joined) if joined.count(letter) == 1 and letter not in many)
        output = "..." + "".join(single)
    return expanded, output.replace("...", many)


def _order(first: Factor, second: Factor, output: str, wanted: set[str]) -> str:
    """The letters of the product of two factors, those of the result in its order."""
    present = [letter for letter in output if letter in first[0] + second[0]]
    rest = [letter for letter in first[0] + second[0] if letter in wanted and letter not in present]
    return "".join(dict.fromkeys([*present, *rest]))


def _product(first: Factor, second: Factor, output: str) -> Factor:
    if output and output[0] not in first[0]:  # what has the batch comes first, a constant matrix second
        first, second = second, first
    first = _summed(first, {*output, *second[0]})
    second = _summed(second, {*output, *first[0]})
    shared = [letter for letter in first[0] if letter in second[0] and letter not in output]
    if not shared:
        return output, _spread(first, output) * _spread(second, output)
    batch = [letter for letter in output if letter in first[0] and letter in second[0]]
    rows = [letter for letter in output if letter in first[0] and letter not in batch]
    columns = [letter for letter in output if letter in second[0] and letter not in batch]
    if not batch:
        left = _grouped(first, [[row] for row in rows] + [shared])
        made = torch.matmul(left, _grouped(second, [shared, columns]))
        return _ungrouped(made, rows, columns, first, second, output)
    leading = rows[:1] if output[0] in rows else []  # the batch, that the second factor does not have
    rows = rows[len(leading) :]
    left = _grouped(first, [[letter] for letter in (*leading, *batch)] + [rows, shared])
    right = _grouped(second, [[letter] for letter in batch] + [shared, columns])
    return _ungrouped(torch.matmul(left, right), [*leading, *batch, *rows], columns, first, second, output)


def _ungrouped(made: Tensor, rows: list[str], columns: list[str], first: Factor, second: Factor, output: str) -> Factor:
    """The product with a dimension for each letter, in the order of `output`."""
    sizes = {**_sizes(second), **_sizes(first)}
    letters = "".join((*rows, *columns))
    shape = [sizes[letter] for letter in letters]
    made = made if made.dim() == len(shape) and len(columns) == 1 else made.reshape(shape)
    return output, _arranged((letters, made), output)


def _grouped(factor: Factor, groups: list[list[str]]) -> Tensor:
    """The factor with one dimension for each group of letters."""
    sizes = _sizes(factor)
    letters = "".join(letter for group in groups for letter in group)
    arranged = _arranged(factor, letters)
    if all(len(group) == 1 for group in groups):
        return arranged
    inner = [_count(sizes, group) for group in groups]
    return arranged.reshape(inner)


def _count(sizes: dict, group: list[str]):
    count = 1
    for letter in group:
        count = count * sizes[letter]
    return count


def _sizes(factor: Factor) -> dict:
    return dict(zip(factor[0], factor[1].shape, strict=True))


def _summed(factor: Factor, wanted: set[str]) -> Factor:
    """The factor summed over the letters that nothing else has."""
    letters, x = factor
    dims = [dim for dim, letter in enumerate(letters) if letter not in wanted]
    return ("".join(letter for letter in letters if letter in wanted), x.sum(dims)) if dims else factor


def _arranged(factor: Factor, letters: str) -> Tensor:
    order = [factor[0].index(letter) for letter in letters]
    return factor[1] if order == list(range(len(order))) else factor[1].permute(order)


def _spread(factor: Factor, output: str) -> Tensor:
    """The factor with the dimensions of `output`, of size 1 where it has none."""
    present = "".join(letter for letter in output if letter in factor[0])
    x = _arranged(factor, present)
    for dim, letter in enumerate(output):
        if letter not in factor[0]:
            x = x.unsqueeze(dim)
    return x
