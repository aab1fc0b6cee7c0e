"""What a network returns, flat: every tensor in it by name, however deep it lies."""

from torch.utils import _pytree as pytree

from qat.inject.inputs import key_of


def named_outputs(returned) -> tuple[str, list[tuple[str, object]]]:
    """(structure, (name, leaf) of every leaf in order).

    structure: "tensor" for a single one, which is called "output"; "tuple", of which each is called output_0 and so on,
    or its field; "dict", by keys or fields. What lies in structures inside is named by its place, joined with dots
    ("output_1.0", "features.low"), and then it is a "dict", too.
    """
    paths = pytree.tree_flatten_with_path(returned)[0]
    if paths and not paths[0][0]:
        return "tensor", [("output", paths[0][1])]
    named = [(".".join(_names(path)), leaf) for path, leaf in paths]
    is_flat = all(len(path) == 1 for path, _ in paths)
    return "tuple" if is_flat and isinstance(returned, tuple | list) else "dict", named


def by_place(returned):
    """`returned` if it is flat; otherwise its leaves by name, as a program has them."""
    is_flat = all(len(path) <= 1 for path, _ in pytree.tree_flatten_with_path(returned)[0])
    return returned if is_flat else dict(named_outputs(returned)[1])


def _names(path) -> list[str]:
    first, *others = path
    outermost = f"output_{key_of(first)}" if isinstance(first, pytree.SequenceKey) else str(key_of(first))
    return [outermost, *(str(key_of(step)) for step in others)]
