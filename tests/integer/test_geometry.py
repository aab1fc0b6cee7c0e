import pytest

from qat.errors import ProgramError
from qat.integer.geometry import broadcast_shape, check_spatial, check_window, count_windows, reduced_shape


def refuse(problem):
    return ProgramError(f"this {problem}.")


def windows(size, kernel, step=1, pads=(0, 0), spread=1, ceil_mode=False):
    return count_windows(refuse, [size], (kernel,), (step,), (pads,), (spread,), ceil_mode)


def test_windows_by_hand():
    assert windows(8, 3) == [6]
    assert windows(8, 3, step=2) == [3]  # at 0, 2, 4; one at 6 would overhang
    assert windows(8, 3, step=2, ceil_mode=True) == [4]
    assert windows(8, 3, step=2, pads=(1, 1)) == [4]
    assert windows(8, 3, spread=3) == [2]
    assert windows(2, 3, step=2, ceil_mode=True) == [1]
    # with ceil_mode a window that would begin behind the input is none
    assert windows(4, 2, step=3, ceil_mode=True) == [2]
    assert windows(3, 1, step=3, ceil_mode=True) == [1]


def test_a_window_larger_than_its_input_is_refused():
    with pytest.raises(ProgramError, match=r"windows of \(5,\) .* larger than its padded input of \(3,\)"):
        windows(3, 5)


@pytest.mark.parametrize(
    "geometry",
    [
        ((3,) * 4, (1,) * 4, ((0, 0),) * 4, (1,) * 4),
        ((), (), (), ()),
        ((3,), (1, 1), ((0, 0),), (1,)),
        ((0,), (1,), ((0, 0),), (1,)),
        ((3,), (0,), ((0, 0),), (1,)),
        ((3,), (1,), ((-1, 0),), (1,)),
        ((3,), (1,), ((0, 2**17),), (1,)),
        ((2**17,), (1,), ((0, 0),), (1,)),
    ],
)
def test_windows_out_of_range_are_refused(geometry):
    with pytest.raises(ProgramError, match="this (has kernel|needs a stride)"):
        check_window(refuse, *geometry)


def test_a_window_needs_as_many_spatial_dimensions():
    assert check_spatial(refuse, (3, 8, 8), (2, 2)) == (3, 8, 8)
    with pytest.raises(ProgramError, match=r"cannot take an input of \(C, \*spatial\) \(3, 8\)"):
        check_spatial(refuse, (3, 8), (2, 2))


def test_reductions_count_the_batch():
    assert reduced_shape(refuse, (3, 4, 5), (1, 3), keepdim=False) == (4,)
    assert reduced_shape(refuse, (3, 4, 5), (3,), keepdim=True) == (3, 4, 1)
    for dims in ((), (0,), (4,), (1, 1)):
        with pytest.raises(ProgramError, match=r"name each once, the batch \(0\) is not reduced"):
            reduced_shape(refuse, (3, 4, 5), dims, keepdim=False)


def test_shapes_of_equal_rank_broadcast():
    assert broadcast_shape(refuse, (3, 1, 5), (1, 4, 5)) == (3, 4, 5)
    for second in ((4, 5), (2, 4, 5)):
        with pytest.raises(ProgramError, match="the same number of dimensions"):
            broadcast_shape(refuse, (3, 4, 5), second)
