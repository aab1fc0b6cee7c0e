"""Tables and embeddings in C."""

import pytest
import torch

from qat.emitters import c
from qat.errors import ExportError
from qat.integer.builder import ProgramBuilder
from qat.integer.operations import MASK_GRID, table_codes
from qat.integer.values import Grid, IndexRange, Weight, WeightGrid, float32

GRIDS = [
    Grid(float32(0.02), 100, 0, 255),
    Grid(float32(0.021), -5, -128, 127),
    Grid(float32(0.3), 0, 0, 15),
    Grid(float32(0.25), 0, -7, 7),
    Grid(float32(0.5), 5, 3, 9),
    Grid(float32(0.001), 5, -2000, 2000),
]
WEIGHT_GRIDS = [(2, 64, 32), (3, 32, 0), (4, 16, 0), (5, 1, 0), (6, 4, 0), (7, 1, 0), (8, 1, 0)]


def reals_of(grid):
    """The real number of each code, float64 (n,)."""
    return (torch.arange(grid.quant_min, grid.quant_max + 1, dtype=torch.float64) - grid.zero_point) * grid.scale


@pytest.mark.parametrize("source", GRIDS)
def test_tables_of_all_values_and_of_channels(assert_equal_in_both, source):
    slopes = torch.tensor([[0.25], [-1.0], [3.0]], dtype=torch.float64)
    bent = torch.where(reals_of(source) > 0, reals_of(source), slopes * reals_of(source))

    def write(builder, x):
        for place, target in enumerate(GRIDS):
            gelu = table_codes(torch.nn.functional.gelu(reals_of(source)), target)
            yield builder.table(f"gelu{place}", x, gelu, target)
            yield builder.table(f"prelu{place}", x, table_codes(bent, target), target)

    assert_equal_in_both(lambda builder, x: list(write(builder, x)), [(3, 5, 7)], [source])


def test_tables_of_indices_are_masks(assert_equal_in_both):
    def write(builder, x):
        codes = torch.tensor([[0, 1, 1], [1, 0, 0]], dtype=torch.uint8)
        return builder.table("each", x, codes, MASK_GRID), builder.table("all", x, codes[0], MASK_GRID)

    assert_equal_in_both(write, [(2, 6)], [IndexRange(3)])


def test_embeddings_give_rows_at_every_width(assert_equal_in_both):
    def write(builder, x):
        for bits, step, offset in WEIGHT_GRIDS:
            half = 2 ** (bits - 1)
            codes = torch.randint(-half, half, (11, 7), generator=torch.Generator().manual_seed(0)).to(torch.int8)
            weight = Weight(codes, WeightGrid(bits, step, offset), torch.full((11,), 0.25))
            yield builder.embedding(f"e{bits}", x, weight)

    assert_equal_in_both(lambda builder, x: list(write(builder, x)), [(3, 4)], [IndexRange(11)])


def test_equal_weights_are_stored_once(assert_equal_in_both):
    codes = torch.randint(-128, 128, (40, 8), generator=torch.Generator().manual_seed(0)).to(torch.int8)
    weight = Weight(codes, WeightGrid(8), torch.full((40,), float32(0.01)))

    def write(builder, x):
        return builder.linear("head", builder.embedding("rows", x, weight), weight, GRIDS[0])

    _, path = assert_equal_in_both(write, [(5,)], [IndexRange(40)])
    assert path.read_text().count("[320]") == 1


@pytest.mark.parametrize("index", [-1, 3, 2**31 - 1])
def test_an_index_out_of_range_is_an_error_code_and_reads_nothing(tmp_path, index):
    builder = ProgramBuilder()
    weight = Weight(torch.ones(3, 2, dtype=torch.int8), WeightGrid(8), torch.ones(3))
    builder.output("y", builder.embedding("e", builder.input("ids", (1,), IndexRange(3)), weight))
    c.emit(builder.build(), tmp_path / "network.c")
    session = c.open_session(tmp_path / "network.c")
    with pytest.raises(ExportError, match="network_run returns 4: codes are outside of MIN..MAX"):
        c.run_session(session, {"ids": torch.tensor([[index]])})
