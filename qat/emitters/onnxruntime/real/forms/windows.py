"""Pooling and resizing."""

from qat.emitters.onnxruntime.real.form import Form
from qat.emitters.onnxruntime.real.forms.write import Write
from qat.integer.geometry import per_dimension


def _pooled(form: Form, kind: str, count: int, **attributes) -> str:
    kernel = per_dimension(form.argument("kernel_size"), count)
    stride = per_dimension(form.argument("stride") or kernel, count)
    padding = per_dimension(form.argument("padding", 0), count)
    return form.add(
        kind, form.operand(), kernel_shape=kernel, strides=stride, pads=[*padding, *padding],
        ceil_mode=int(form.argument("ceil_mode", False)), **attributes,
    )  # fmt: skip


def _max_pool(form: Form) -> str:
    if form.node.part:
        raise form.refuse("tells where maxima are; take the values alone")
    return _pooled(form, "MaxPool", 2, dilations=per_dimension(form.argument("dilation", 1), 2))


def _avg_pool(count: int) -> Write:
    def write(form: Form) -> str:
        if form.argument("divisor_override") is not None:
            raise form.refuse("divides by another number than the size of its window; multiply behind it")
        return _pooled(form, "AveragePool", count, count_include_pad=int(form.argument("count_include_pad", True)))

    return write


def _adaptive_avg_pool(form: Form) -> str:
    wanted = form.argument("output_size")
    sizes = form.shape()[-len(wanted) :]
    if all(goal == 1 for goal in wanted):
        return form.add("ReduceMean", form.operand(), form.whole(*range(-len(wanted), 0)), keepdims=1)
    if not all(isinstance(size, int) and size % goal == 0 for size, goal in zip(sizes, wanted, strict=True)):
        raise form.refuse(f"pools {sizes} to {wanted} with windows of several sizes; use one that divides")
    kernel = [size // goal for size, goal in zip(sizes, wanted, strict=True)]
    return form.add("AveragePool", form.operand(), kernel_shape=kernel, strides=kernel)


def _resized(mode: str) -> Write:
    def write(form: Form) -> str:
        factors = form.argument("scale_factors")
        if factors is None:
            before, after = form.shape("input")[2:], form.argument("output_size")
            if not all(isinstance(size, int) for size in (*before, *after)):
                raise form.refuse("resizes to a size that follows the inputs; give a scale_factor")
            factors = [goal / size for goal, size in zip(after, before, strict=True)]
        scales = form.number([1.0, 1.0, *factors])
        if mode == "nearest":
            settings = {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
        else:
            corners = form.argument("align_corners")
            settings = {"coordinate_transformation_mode": "align_corners" if corners else "half_pixel"}
        return form.add("Resize", form.operand("input"), "", scales, mode=mode, **settings)

    return write


FORMS: dict[str, Write] = {
    "aten.max_pool2d_with_indices.default": _max_pool,
    **{f"aten.avg_pool{count}d.default": _avg_pool(count) for count in (1, 2, 3)},
    **{f"aten.adaptive_avg_pool{count}d.default": _adaptive_avg_pool for count in (1, 2, 3)},
    "aten.upsample_nearest2d.vec": _resized("nearest"),
    "aten.upsample_bilinear2d.vec": _resized("linear"),
}  # fmt: skip
