"""The coverage table: a few small networks always, all of them with `-m coverage`."""

import pytest
import table
from row import NETWORKS, Row, measure

#: Networks that take a second or two each, one for each kind of input and output.
SMALL = ("DS-CNN", "ResNet-8", "ResNet")


@pytest.mark.parametrize("name", SMALL)
def test_small_networks_come_out_as_integers(name):
    row = measure(name)
    assert (row.stage, row.reason, row.float_ops) == (None, None, ())
    assert row.differing == row.fake_quant_differing == 0 and row.codes > 0
    assert row.passes


@pytest.mark.coverage
@pytest.mark.timeout(0)
def test_write_the_table_of_every_network():
    rows = table.measured_apart(NETWORKS, limit=300)
    table.DOCUMENT.write_text(table.document(rows))
    assert [f"{row.name}: {row.stage}: {row.reason}" for row in rows if not row.passes] == []


def test_a_row_goes_through_its_line_of_text_unchanged():
    row = Row("a", operations=3, float_ops=("Add",), differing=1, codes=8, fake_quant_db=float("inf"))
    assert repr(Row.from_json(row.to_json())) == repr(row)
    assert not row.passes


def test_the_table_tells_what_passes_and_what_fails_with_its_sentence():
    good = Row("good", operations=3, codes=8, fake_quant_db=float("inf"), float_db=20.04, integer_ms=0.5, float_ms=1.0,
               lengths=("1-16",))  # fmt: skip
    bad = Row("bad", "prepare", "it has no integer form | at all.", trains=True)
    assert table.table([good, bad]).splitlines() == [
        "| network | ops | float | runtime | eval | codes | length | eval dB | float dB | integer ms | float ms |",
        "|---|---:|---|---:|---:|---:|---:|---:|---:|---:|---:|",
        "| good | 3 | 0 | 0 | 0 | 8 | 1-16 | equal | 20.0 | 0.50 | 1.00 |",
        "",
        "## Rows that fail",
        "",
        "| network | stage | trains without a target | reason |",
        "|---|---|---|---|",
        "| bad | prepare | yes | it has no integer form / at all. |",
    ]


def test_a_row_that_takes_too_long_does_not_stop_the_table():
    (row,) = table.measured_apart(["ResNet-8"], limit=0.01)
    assert (row.stage, row.reason) == ("export", "it took longer than 0.01 seconds")
