import math

import numpy
from hypothesis import given, settings
from hypothesis import strategies as st

from qat.emitters.litert import orders


def test_channels_last_of_one_and_two_dimensions():
    assert orders.channels_last(3) == (0, 2, 3, 1)
    assert orders.channels_last(2) == (0, 2, 1)
    assert orders.permuted((4, 5, 6), (0, 2, 3, 1)) == (1, 5, 6, 4)


def test_dimensions_of_size_1_move_no_data():
    assert not orders.moves_data((4, 1, 1), (0, 1, 2, 3), (0, 2, 3, 1))
    assert orders.moves_data((4, 1, 2), (0, 1, 2, 3), (0, 2, 3, 1))


def test_a_transposed_value_is_the_same_tensor_in_another_order():
    # (N, C, H, W), held channels last, seen as (N, H, W, C): its own order
    assert orders.transposed((0, 2, 3, 1), (0, 2, 3, 1)) == (0, 1, 2, 3)


def test_places_of_a_picture_become_tokens_in_their_tensor():
    # (C, H, W) to (C, H W), of a tensor (N, H, W, C): (N, H W, C)
    assert orders.reshaped((4, 3, 5), (4, 15), (0, 2, 3, 1)) == (0, 2, 1)


def test_features_of_a_picture_are_not_in_the_order_of_its_tensor():
    assert orders.reshaped((4, 3, 5), (60,), (0, 2, 3, 1)) is None
    assert orders.reshaped((4, 3, 5), (60,), (0, 1, 2, 3)) == (0, 1)
    assert orders.reshaped((4, 1, 1), (4,), (0, 2, 3, 1)) == (0, 1)


def test_channels_that_are_split_stay_last():
    assert orders.reshaped((6, 3, 5), (2, 3, 3, 5), (0, 2, 3, 1)) == (0, 3, 4, 1, 2)


def test_what_is_left_of_an_order():
    assert orders.without((0, 2, 3, 1), (2, 3)) == (0, 1)
    assert orders.without((0, 2, 3, 1), (1,)) == (0, 1, 2)


shapes = st.lists(st.integers(1, 3), min_size=1, max_size=4)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(shapes, st.data())
def test_a_reshaped_tensor_holds_the_reshaped_value(shape, data):
    count = math.prod(shape)
    target = data.draw(st.permutations([*[size for size in shape if size > 1], 1]))
    target = data.draw(st.sampled_from([target, shape, [count], [1, count], [count, 1]]))
    order = (0, *data.draw(st.permutations(range(1, len(shape) + 1))))
    found = orders.reshaped(tuple(shape), tuple(target), order)
    if found is None:
        return
    value = numpy.arange(count).reshape(1, *shape)
    tensor = value.transpose(order).reshape(orders.permuted(tuple(target), found))
    back = tensor.transpose([found.index(dim) for dim in range(len(found))])
    assert (back.reshape(-1) == value.reshape(-1)).all()
