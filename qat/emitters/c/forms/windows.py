"""Windows over values whose channels lie together: where they lie, and their means and largest codes."""

from qat.emitters.c.forms.rescale import RESCALE, RESCALE_AS_FLOAT, RESCALE_TYPE, rescale_fields, rescaling_of
from qat.emitters.c.kernels import MOVE, Kernel
from qat.emitters.c.types import S32
from qat.emitters.c.views import Shape, channels_last
from qat.emitters.c.writer import Writer
from qat.integer.operations import AveragePool, Conv, MaxPool

WINDOW = Kernel(
    "window",
    """
/* Windows over a value whose channels lie together; all sizes in depth, height and width. */
typedef struct {
    int32_t channels;
    int32_t size[3];
    int32_t windows[3];
    int32_t kernel[3];
    int32_t stride[3];
    int32_t before[3];
    int32_t dilation[3];
} window_t;
""",
)

PIXEL = Kernel(
    "pixel_of",
    """
/* Which pixel lies at a place of the window `at`; -1 for one beside the value. */
static int32_t pixel_of(const window_t *window, const int32_t *at, int32_t place)
{
    const int32_t inside[3] = {place / (window->kernel[1] * window->kernel[2]),
        place / window->kernel[2] % window->kernel[1], place % window->kernel[2]};
    int32_t pixel = 0, dim;
    for (dim = 0; dim < 3; dim++) {
        const int32_t where = at[dim] * window->stride[dim] - window->before[dim] + inside[dim] * window->dilation[dim];
        if (where < 0 || where >= window->size[dim])
            return -1;
        pixel = pixel * window->size[dim] + where;
    }
    return pixel;
}
""",
    needs=((WINDOW, ""),),
)

GATHER = Kernel(
    "gather",
    """
/* `count` channels from `first` on of the window `at`, one place behind another; zero_point beside the value. */
static void gather_@x(const window_t *window, const @X *x, const int32_t *at, int32_t first, int32_t count,
        @X zero_point, @X *columns)
{
    const int32_t channels = window->channels, *size = window->size, *kernel = window->kernel;
    const int32_t left = at[2] * window->stride[2] - window->before[2], apart = window->dilation[2];
    const int32_t whole = apart == 1 && count == channels && left >= 0 && left + kernel[2] <= size[2];
    int32_t i, j, k, n;
    for (i = 0; i < kernel[0]; i++) {
        const int32_t depth = at[0] * window->stride[0] - window->before[0] + i * window->dilation[0];
        for (j = 0; j < kernel[1]; j++) {
            const int32_t row = at[1] * window->stride[1] - window->before[1] + j * window->dilation[1];
            const int32_t inside = depth >= 0 && depth < size[0] && row >= 0 && row < size[1];
            const int32_t begin = (depth * size[1] + row) * size[2];
            if (inside && whole) {
                move_@x(x + (begin + left) * channels, kernel[2] * count, columns);
                columns += kernel[2] * count;
                continue;
            }
            for (k = 0; k < kernel[2]; k++, columns += count) {
                const int32_t column = left + k * apart;
                if (inside && column >= 0 && column < size[2])
                    move_@x(x + (begin + column) * channels + first, count, columns);
                else
                    for (n = 0; n < count; n++)
                        columns[n] = zero_point;
            }
        }
    }
}
""",
    "x",
    needs=((WINDOW, ""), (MOVE, "x")),
)

_AVERAGE = """
/* Means over windows; what lies beside the value counts as zero. */
static void average_@x_@y(const window_t *window, const rescale_t *rescale, int32_t zero_point, const @X *x, @Y *y,
        int32_t *sums)
{
    const int32_t places = window->kernel[0] * window->kernel[1] * window->kernel[2], channels = window->channels;
    int32_t at[3], place, i;
    for (at[0] = 0; at[0] < window->windows[0]; at[0]++)
        for (at[1] = 0; at[1] < window->windows[1]; at[1]++)
            for (at[2] = 0; at[2] < window->windows[2]; at[2]++, y += channels) {
                for (i = 0; i < channels; i++)
                    sums[i] = 0;
                for (place = 0; place < places; place++) {
                    const int32_t inside = pixel_of(window, at, place);
                    if (inside < 0)
                        continue;
                    for (i = 0; i < channels; i++)
                        sums[i] += (int32_t)x[inside * channels + i] - zero_point;
                }
                rescale_@y(rescale, sums, 0, channels, y);
            }
}
"""

AVERAGE = {
    False: Kernel("average", _AVERAGE, "xy", ((PIXEL, ""), (RESCALE_TYPE, ""), (RESCALE, "y"))),
    True: Kernel(
        "average_as_float",
        _AVERAGE.replace("average_@x", "average_as_float_@x").replace("rescale_@y", "rescale_as_float_@y"),
        "xy",
        ((PIXEL, ""), (RESCALE_TYPE, ""), (RESCALE_AS_FLOAT, "y")),
    ),
}

LARGEST = Kernel(
    "largest_of_windows",
    """
/* The largest code of each window; what lies beside the value never wins. */
static void largest_of_windows_@x(const window_t *window, @X lowest, const @X *x, @X *y)
{
    const int32_t places = window->kernel[0] * window->kernel[1] * window->kernel[2], channels = window->channels;
    int32_t at[3], place, i;
    for (at[0] = 0; at[0] < window->windows[0]; at[0]++)
        for (at[1] = 0; at[1] < window->windows[1]; at[1]++)
            for (at[2] = 0; at[2] < window->windows[2]; at[2]++, y += channels) {
                for (i = 0; i < channels; i++)
                    y[i] = lowest;
                for (place = 0; place < places; place++) {
                    const int32_t inside = pixel_of(window, at, place);
                    if (inside < 0)
                        continue;
                    for (i = 0; i < channels; i++)
                        y[i] = y[i] > x[inside * channels + i] ? y[i] : x[inside * channels + i];
                }
            }
}
""",
    "x",
    needs=((PIXEL, ""),),
)


def average_pool(writer: Writer, operation: AveragePool) -> None:
    """Sums of windows, rescaled."""
    source, rank = operation.inputs[0], len(writer.shape(operation.inputs[0]))
    view = writer.ordered(source, channels_last(rank))
    target = writer.new(operation.output, channels_last(rank))
    rescaling = rescaling_of(writer, operation)
    writer.call(
        AVERAGE[rescaling.as_float],
        (view.ctype, target.ctype),
        writer.record("window", "window_t", window_fields(view.shape, target.shape, operation)),
        writer.record("rescale", "rescale_t", rescale_fields(writer, operation, rescaling)),
        writer.grid(source).zero_point,
        view,
        target,
        writer.scratch(S32, view.shape[0]),
    )


def max_pool(writer: Writer, operation: MaxPool) -> None:
    """The largest code of each window."""
    source, rank = operation.inputs[0], len(writer.shape(operation.inputs[0]))
    view = writer.ordered(source, channels_last(rank))
    target = writer.new(operation.output, channels_last(rank))
    window = writer.record("window", "window_t", window_fields(view.shape, target.shape, operation))
    writer.call(LARGEST, (view.ctype,), window, view.ctype.limits[0], view, target)


def window_fields(shape: Shape, windows: Shape, operation: Conv | AveragePool | MaxPool) -> dict[str, object]:
    """The fields of a window_t. shape, windows: of input and output, (C, *spatial)."""
    dims = len(operation.kernel_size)
    missing = 3 - dims
    dilation = getattr(operation, "dilation", (1,) * dims)
    before = tuple(pair[0] for pair in operation.padding)
    return {
        "channels": shape[0],
        "size": (1,) * missing + shape[1:],
        "windows": (1,) * missing + windows[1:],
        "kernel": (1,) * missing + tuple(operation.kernel_size),
        "stride": (1,) * missing + tuple(operation.stride),
        "before": (0,) * missing + before,
        "dilation": (1,) * missing + tuple(dilation),
    }
