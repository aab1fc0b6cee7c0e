import sys

import pytest

from qat.errors import AddressError
from qat.inject import addresses
from qat.inject.addresses import START, Transitions, short_source, site_of, source_of


def root(function):
    return function()


addresses.mark_root(root.__code__)


def here():
    return site_of(sys._getframe(1))


def test_one_place_is_one_site_and_two_places_are_two():
    def twice():
        return [here() for _ in range(2)]

    (first, again), (other, _) = root(twice), root(lambda: [here(), 0])
    assert first == again != other


def test_two_calls_on_one_line_are_two_sites():
    one, two = root(lambda: (here(), here()))
    assert one != two


def test_a_site_ends_at_the_root():
    def place():
        return here()

    def deeper():
        return root(place)

    assert root(place) == deeper()


def test_a_site_knows_the_way_to_the_call():
    def helper():
        return here()

    one, two = root(lambda: (helper(), helper()))
    assert one != two


def test_the_source_is_the_innermost_line_outside_torch():
    frame = sys._getframe()
    assert source_of(frame) == f"{__file__}:{frame.f_lineno}"


def test_transitions_walk_in_circles_and_refuse_what_is_new():
    transitions = Transitions()
    for previous, site, address in ((START, 10, 0), (0, 20, 1), (1, 10, 0), (1, 30, 2)):
        transitions.add(previous, site, address, f"layer{address}")
    frame, walked, previous = sys._getframe(), [], START
    for site in (10, 20, 10, 20, 10, 20, 30):
        previous = transitions.follow(previous, site, "conv", frame)
        walked.append(previous)
    assert walked == [0, 1, 0, 1, 0, 1, 2]
    with pytest.raises(AddressError, match=r"conv at .*test_addresses\.py:\d+ runs after layer2, which it did not"):
        transitions.follow(2, 10, "conv", frame)
    with pytest.raises(AddressError, match="runs at the start of the forward"):
        transitions.follow(START, 20, "conv", frame)


def test_a_way_around_optional_calls_is_the_shortest_and_names_all_of_them():
    transitions = Transitions()
    for previous, site, address in [(START, 10, 0), (0, 11, 1), (1, 12, 2), (2, 13, 3), (0, 14, 4), (4, 12, 2)]:
        transitions.add(previous, site, address, f"call {address}")
    assert transitions.around(0, 13, {1, 2, 4}.__contains__) == [1, 2, 3]
    assert transitions.around(0, 12, {4}.__contains__) == [4, 2]
    assert transitions.around(0, 13, {1, 4}.__contains__) == []
    assert transitions.around(0, 99, lambda address: True) == []


def test_two_calls_that_cannot_be_told_apart_are_refused():
    transitions = Transitions()
    transitions.add(START, 10, 0, "first")
    with pytest.raises(AddressError, match="second and first are called from the same place"):
        transitions.add(START, 10, 1, "second")


def test_a_short_source_leaves_out_the_longest_folder_that_code_is_imported_from(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "path", ["/env", "/env/lib/site-packages", ""])
    monkeypatch.chdir(tmp_path)
    assert short_source("/env/lib/site-packages/torch/nn/modules/linear.py:134") == "torch/nn/modules/linear.py:134"
    assert short_source("/env/library/network.py:3") == "library/network.py:3"
    assert short_source(f"{tmp_path}/network.py:7") == "network.py:7"
    assert short_source("/elsewhere/network.py:7") == "/elsewhere/network.py:7"


def test_a_site_stays_where_python_adapts_a_call_that_ran_often():
    class Adding:
        def __radd__(self, other):
            return site_of(sys._getframe())

        def __abs__(self):
            return site_of(sys._getframe())

    value = Adding()
    for place in (lambda: sum([value]), lambda: abs(value)):
        assert len({root(place) for _ in range(64)}) == 1
