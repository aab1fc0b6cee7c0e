"""Windows over values whose channels lie together: where they lie, and their means and largest codes."""

from qat.emitters.c.forms.rescale import RESCALE, RESCALE_AS_FLOAT, RESCALE_TYPE, rescale_fields, vector_rescaling_of
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

INSIDE = Kernel(
    "inside",
    """
/* Where a window lies: its first place in the value, and which of its places, begin..end - 1, are inside. */
typedef struct {
    int32_t origin[3];
    int32_t begin[3];
    int32_t end[3];
} inside_t;

static void find_inside(const window_t *window, const int32_t *at, inside_t *inside)
{
    int32_t dim;
    for (dim = 0; dim < 3; dim++) {
        const int32_t apart = window->dilation[dim], origin = at[dim] * window->stride[dim] - window->before[dim];
        const int32_t end = (window->size[dim] - origin + apart - 1) / apart;
        inside->origin[dim] = origin;
        inside->begin[dim] = origin < 0 ? (apart - 1 - origin) / apart : 0;
        inside->end[dim] = origin >= window->size[dim] ? 0 : end < window->kernel[dim] ? end : window->kernel[dim];
    }
}

/* The first channel of the pixel at place (i, j, k) of a window. */
static int32_t pixel_of(const window_t *window, const inside_t *inside, int32_t i, int32_t j, int32_t k)
{
    const int32_t depth = inside->origin[0] + i * window->dilation[0];
    const int32_t row = inside->origin[1] + j * window->dilation[1];
    const int32_t column = inside->origin[2] + k * window->dilation[2];
    return ((depth * window->size[1] + row) * window->size[2] + column) * window->channels;
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
static void average_@x_@y(const window_t *window, const rescale_t *rescale, int32_t zero_point, const @X *restrict x,
        @Y *restrict y, int32_t *restrict sums)
{
    const int32_t channels = window->channels;
    int32_t at[3], i, j, k, n;
    inside_t inside;
    for (at[0] = 0; at[0] < window->windows[0]; at[0]++)
        for (at[1] = 0; at[1] < window->windows[1]; at[1]++)
            for (at[2] = 0; at[2] < window->windows[2]; at[2]++, y += channels) {
                find_inside(window, at, &inside);
                for (n = 0; n < channels; n++)
                    sums[n] = 0;
                for (i = inside.begin[0]; i < inside.end[0]; i++)
                    for (j = inside.begin[1]; j < inside.end[1]; j++)
                        for (k = inside.begin[2]; k < inside.end[2]; k++) {
                            const @X *from = x + pixel_of(window, &inside, i, j, k);
                            for (n = 0; n < channels; n++)
                                sums[n] += (int32_t)from[n] - zero_point;
                        }
                rescale_@y(rescale, sums, 0, channels, y);
            }
}
"""

AVERAGE = {
    False: Kernel("average", _AVERAGE, "xy", ((INSIDE, ""), (RESCALE_TYPE, ""), (RESCALE, "y"))),
    True: Kernel(
        "average_as_float",
        _AVERAGE.replace("average_@x", "average_as_float_@x").replace("rescale_@y", "rescale_as_float_@y"),
        "xy",
        ((INSIDE, ""), (RESCALE_TYPE, ""), (RESCALE_AS_FLOAT, "y")),
    ),
}

LARGEST = Kernel(
    "largest_of_windows",
    """
/* The largest code of each window; what lies beside the value never wins. */
static void largest_of_windows_@x(const window_t *window, @X lowest, const @X *restrict x, @X *restrict y)
{
    const int32_t channels = window->channels;
    int32_t at[3], i, j, k, n;
    inside_t inside;
    for (at[0] = 0; at[0] < window->windows[0]; at[0]++)
        for (at[1] = 0; at[1] < window->windows[1]; at[1]++)
            for (at[2] = 0; at[2] < window->windows[2]; at[2]++, y += channels) {
                find_inside(window, at, &inside);
                for (n = 0; n < channels; n++)
                    y[n] = lowest;
                for (i = inside.begin[0]; i < inside.end[0]; i++)
                    for (j = inside.begin[1]; j < inside.end[1]; j++)
                        for (k = inside.begin[2]; k < inside.end[2]; k++) {
                            const @X *from = x + pixel_of(window, &inside, i, j, k);
                            for (n = 0; n < channels; n++)
                                y[n] = y[n] > from[n] ? y[n] : from[n];
                        }
            }
}
""",
    "x",
    needs=((INSIDE, ""),),
)


def average_pool(writer: Writer, operation: AveragePool) -> None:
    """Sums of windows, rescaled."""
    source, rank = operation.inputs[0], len(writer.shape(operation.inputs[0]))
    view = writer.ordered(source, channels_last(rank))
    target = writer.new(operation.output, channels_last(rank))
    rescaling = vector_rescaling_of(writer, operation)
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
