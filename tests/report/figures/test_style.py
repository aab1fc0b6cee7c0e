import matplotlib

from qat.report.curves import Span
from qat.report.figures import style


def test_pictures_hold_no_time_and_no_version():
    with style.settings():
        made = style.figure(1)
        made.subplots().plot([0, 1])
        content = style.png(made)
    assert b"Software" not in content and b"tEXt" not in content


def test_the_settings_of_the_user_neither_matter_nor_change():
    def drawn() -> bytes:
        with style.settings():
            made = style.figure(1)
            made.subplots().plot([0, 1])
            return style.png(made)

    plain = drawn()
    with matplotlib.rc_context({"lines.linewidth": 9, "axes.facecolor": "black"}):
        assert drawn() == plain
        assert matplotlib.rcParams["lines.linewidth"] == 9


def test_the_legend_names_each_phase_once():
    spans = [Span("float", 0, 1), Span("final", 2, 3), Span("float", 4, 5), Span("", 6, 6)]
    assert [patch.get_label() for patch in style.phase_patches(spans)] == ["float", "final"]
