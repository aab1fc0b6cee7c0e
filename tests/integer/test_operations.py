import pytest
import torch

from qat.errors import ProgramError
from qat.integer.operations import Concatenate, Max, MaxPool, Pad, Reshape, Slice, Transpose

EDGES = dict(name="op", source="net.op", inputs=("x",), output="y")


def pool(kernel, stride, padding, dilation=1, ceil_mode=False):
    return MaxPool(
        **EDGES,
        kernel_size=(kernel,),
        stride=(stride,),
        padding=(padding,),
        dilation=(dilation,),
        ceil_mode=ceil_mode,
    )


@pytest.mark.parametrize("ceil_mode", [False, True])
@pytest.mark.parametrize("kernel", [1, 2, 3])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("padding", [0, 1])
@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 6, 7])
def test_pooling_has_as_many_windows_as_torch(kernel, stride, padding, ceil_mode, size):
    if padding > kernel // 2:
        return
    operation = pool(kernel, stride, (padding, padding), ceil_mode=ceil_mode)
    try:
        expected = torch.nn.functional.max_pool1d(torch.zeros(1, 2, size), kernel, stride, padding, ceil_mode=ceil_mode)
    except RuntimeError:
        with pytest.raises(ProgramError, match="larger than its padded input"):
            operation.output_shape((2, size))
    else:
        assert operation.output_shape((2, size)) == tuple(expected.shape[1:])


def test_moving_operations_tell_their_shapes_without_the_batch():
    two = EDGES | {"inputs": ("a", "b")}
    assert Concatenate(**two, dim=2).output_shape((3, 4), (3, 5)) == (3, 9)
    assert Reshape(**EDGES, shape=(6, 2)).output_shape((3, 4)) == (6, 2)
    assert Transpose(**EDGES, permutation=(0, 3, 1, 2)).output_shape((5, 6, 7)) == (7, 5, 6)
    assert Slice(**EDGES, starts=(1, 0), ends=(6, 5), steps=(2, 3)).output_shape((6, 5)) == (3, 2)
    assert Pad(**EDGES, amounts=((1, 2), (0, 0))).output_shape((3, 4)) == (6, 4)
    assert Max(**EDGES, dims=(2,), keepdim=True).output_shape((3, 4)) == (3, 1)
    assert Max(**EDGES, dims=(1, 2), keepdim=False).output_shape((3, 4)) == ()


@pytest.mark.parametrize(
    "refused",
    [
        lambda: Reshape(**EDGES, shape=(5,)).output_shape((3, 4)),
        lambda: Transpose(**EDGES, permutation=(1, 0)),
        lambda: Transpose(**EDGES, permutation=(0, 2, 1)).output_shape((3,)),
        lambda: Slice(**EDGES, starts=(0,), ends=(4,), steps=(1,)).output_shape((3,)),
        lambda: Slice(**EDGES, starts=(0,), ends=(2,), steps=(-1,)).output_shape((3,)),
        lambda: Pad(**EDGES, amounts=((-1, 0),)).output_shape((3,)),
        lambda: Max(**EDGES, dims=(0,), keepdim=False).output_shape((3,)),
        lambda: Max(**EDGES, dims=(), keepdim=False).output_shape((3,)),
        lambda: pool(2, 1, (2, 2)),
        lambda: pool(0, 1, (0, 0)),
        lambda: pool(2, 2**20, (0, 0)),
        lambda: pool(5, 1, (0, 0)).output_shape((2, 3)),
        lambda: Concatenate(**EDGES, dim=0).output_shape((3,)),
        lambda: Concatenate(**EDGES | {"inputs": ()}, dim=1),
        lambda: Reshape(**EDGES | {"inputs": ("x", "y")}, shape=(1,)),
        lambda: Reshape(**EDGES | {"name": ""}, shape=(1,)),
    ],
)
def test_what_does_not_fit_is_refused(refused):
    with pytest.raises(ProgramError):
        refused()


def test_errors_name_the_operation_and_its_module():
    with pytest.raises(ProgramError, match=r"Reshape 'op' \(from net.op\) cannot turn \(3,\) into \(4,\)"):
        Reshape(**EDGES, shape=(4,)).output_shape((3,))
