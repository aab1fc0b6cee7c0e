"""Weights packed at their true width, and how they are unpacked a few rows at a time."""

import torch
from torch import Tensor

from qat.emitters.c.constants import Pointer
from qat.emitters.c.kernels import Kernel
from qat.emitters.c.types import U8
from qat.emitters.c.writer import Writer
from qat.integer.packing import pack
from qat.integer.values import Weight

#: Bits of weights that are read where they lie.
WHOLE_BITS = 8

UNPACK = Kernel(
    "packed_type",
    """
/* Rows of `size` weights. A row begins with a byte of its own, the first weight in the lowest bits; what a kernel
   multiplies with is code * step + offset. unpack: 0 where codes are whole bytes, which are the weights. */
typedef struct {
    const uint8_t *weights;
    int32_t size;
    int32_t bits;
    int32_t step;
    int32_t offset;
    void (*unpack)(const uint8_t *packed, int32_t count, int32_t bits, int32_t step, int32_t offset, int8_t *weights);
} packed_t;

/* `count` rows of weights from `first` on, which lie in `unpacked` unless they are whole bytes anyway. */
static const int8_t *rows_of(const packed_t *rows, int32_t first, int32_t count, int8_t *unpacked)
{
    const int32_t size = rows->size, row_bytes = (size * rows->bits + 7) / 8;
    const uint8_t *packed = rows->weights + first * row_bytes;
    int32_t row;
    if (!rows->unpack)
        return (const int8_t *)packed;
    for (row = 0; row < count; row++)
        rows->unpack(packed + row * row_bytes, size, rows->bits, rows->step, rows->offset, unpacked + row * size);
    return unpacked;
}
""",
)

_TWO_BITS = Kernel(
    "unpack_2_bits",
    """
static void unpack_2_bits(const uint8_t *packed, int32_t count, int32_t bits, int32_t step, int32_t offset,
        int8_t *weights)
{
    int8_t values[4];
    int32_t i;
    for (i = 0; i < 4; i++)
        values[i] = (int8_t)((i < bits ? i : i - 4) * step + offset);
    for (i = 0; i + 4 <= count; i += 4) {
        const uint8_t four = *packed++;
        weights[i] = values[four & 3];
        weights[i + 1] = values[(four >> 2) & 3];
        weights[i + 2] = values[(four >> 4) & 3];
        weights[i + 3] = values[four >> 6];
    }
    for (; i < count; i++)
        weights[i] = values[(*packed >> (2 * (i & 3))) & 3];
}
""",
)

_FOUR_BITS = Kernel(
    "unpack_4_bits",
    """
static void unpack_4_bits(const uint8_t *packed, int32_t count, int32_t bits, int32_t step, int32_t offset,
        int8_t *weights)
{
    const int32_t mask = (1 << bits) - 1, sign = 8;
    int32_t i;
    for (i = 0; i < count / 2; i++) {
        weights[2 * i] = (int8_t)((((packed[i] & mask) ^ sign) - sign) * step + offset);
        weights[2 * i + 1] = (int8_t)((((packed[i] >> 4) ^ sign) - sign) * step + offset);
    }
    if (count & 1)
        weights[count - 1] = (int8_t)((((packed[i] & mask) ^ sign) - sign) * step + offset);
}
""",
)

_ANY_BITS = Kernel(
    "unpack_bits",
    """
static void unpack_bits(const uint8_t *packed, int32_t count, int32_t bits, int32_t step, int32_t offset,
        int8_t *weights)
{
    const int32_t mask = (1 << bits) - 1, sign = 1 << (bits - 1);
    int32_t stream = 0, held = 0, i;
    for (i = 0; i < count; i++) {
        if (held < bits) {
            stream |= (int32_t)*packed++ << held;
            held += 8;
        }
        weights[i] = (int8_t)((((stream & mask) ^ sign) - sign) * step + offset);
        stream >>= bits;
        held -= bits;
    }
}
""",
)


def packed_rows(writer: Writer, weight: Weight, rows: Tensor) -> dict[str, object]:
    """The fields of a packed_t. rows: the codes of the weight (rows, size), in the order in which they are used."""
    grid = weight.grid
    kernel = {2: _TWO_BITS, 4: _FOUR_BITS}.get(grid.bits, _ANY_BITS)
    size = rows.shape[1]
    # eight codes fill whole bytes: all rows at once, of which each keeps the bytes that it needs
    whole = pack(torch.nn.functional.pad(rows, (0, -size % 8)), grid.bits)
    packed = whole.reshape(len(rows), -1)[:, : -(-size * grid.bits // 8)]
    return {
        "weights": writer.array("weights", U8, packed),
        "size": size,
        "bits": grid.bits,
        "step": grid.step,
        "offset": grid.offset,
        "unpack": None if grid.bits == WHOLE_BITS else Pointer(writer.module.kernels.need(kernel)),
    }
