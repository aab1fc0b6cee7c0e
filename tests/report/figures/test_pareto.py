from matplotlib.transforms import Bbox

from qat.report.figures import style
from qat.report.figures.pareto import _boxes_along, _label, accuracy_against_size
from qat.report.records import RunRecord
from qat.report.sweep import SweepRow


def test_nothing_is_drawn_without_a_finished_point():
    assert accuracy_against_size([]) is None
    assert accuracy_against_size([SweepRow("a", error="x"), SweepRow("b", RunRecord())]) is None


def test_one_point_and_points_on_one_spot_are_drawn():
    record = RunRecord(metrics={"integer": {"loss": 0.5}}, size_bytes={"integer": 1000})
    assert accuracy_against_size([SweepRow("a", record)]).startswith(b"\x89PNG")
    assert accuracy_against_size([SweepRow(name, record) for name in "abc"]).startswith(b"\x89PNG")


def test_a_label_moves_aside_for_what_is_taken_and_is_left_out_where_all_is():
    with style.settings():
        axes = style.figure(4).subplots()
        taken: list[Bbox] = []
        for _ in range(3):
            _label(axes, "name", 0.5, 0.5, taken, style.INK, always=False)
        assert len(axes.texts) == 3
        assert not any(one.overlaps(other) for one in taken for other in taken if one is not other)
        _label(axes, "name", 0.5, 0.5, [Bbox.from_extents(0, 0, 9999, 9999)], style.INK, always=False)
        assert len(axes.texts) == 3
        _label(axes, "name", 0.5, 0.5, [Bbox.from_extents(0, 0, 9999, 9999)], style.INK, always=True)
        assert len(axes.texts) == 4


def test_a_line_is_covered_by_boxes_that_touch():
    with style.settings():
        axes = style.figure(4).subplots()
        boxes = _boxes_along(axes, [(0, 0), (1, 0), (1, 1)])
        assert all(one.overlaps(other) for one, other in zip(boxes, boxes[1:], strict=False))
