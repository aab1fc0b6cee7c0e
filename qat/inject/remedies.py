"""What to write instead of an operation that has no integer form, by its canonical name."""

from qat.inject.pointwise import NONLINEAR

_BEHIND = "apply it to the network's outputs, behind the integers"
_NUMBER = "give it one number for all elements beside one value; functions of two values have no table"
_OTHER_DIMENSIONS = "take it over other dimensions than the batch, and name them"
_SAMPLED = "use interpolate, pixel_shuffle or a transposed convolution, whose places are the same for every input"
_PUT = "put values in their places with torch.cat of slices, or with torch.where and a constant mask"
_LARGEST = "use topk, amax or amin"
_LARGEST_SO_FAR = "join amax or amin of its slices with torch.cat"
_POWER = (
    "take p=1, p=2 or p=inf, over named dimensions other than the batch; another power is "
    "(x.abs() ** p).sum(dim) ** (1 / p)"
)
_SOLVED = "compute it outside of the network (module= leaves a part out)"

REMEDIES = {
    **dict.fromkeys(sorted(NONLINEAR - {"maximum", "minimum"}), _NUMBER),
    **dict.fromkeys(("std", "var", "std_mean", "var_mean"), _OTHER_DIMENSIONS),
    **dict.fromkeys(("norm", "linalg_norm", "linalg_vector_norm"), _POWER),
    "normalize": "take p=2, or divide by x.norm(p=1, dim=dim, keepdim=True)",
    **dict.fromkeys(("logsumexp", "logcumsumexp", "quantile", "nanquantile", "histc", "bincount"), _BEHIND),
    **dict.fromkeys(("grid_sample", "affine_grid", "max_unpool1d", "max_unpool2d", "max_unpool3d"), _SAMPLED),
    **dict.fromkeys(
        ("scatter", "scatter_add", "scatter_reduce", "index_add", "index_copy", "index_fill", "index_put",
         "masked_scatter", "diag_embed"),
        _PUT,
    ),
    **dict.fromkeys(("median", "nanmedian", "kthvalue", "mode"), _LARGEST),
    **dict.fromkeys(("cummax", "cummin"), _LARGEST_SO_FAR),
    **dict.fromkeys(
        ("linalg_inv", "inverse", "linalg_solve", "linalg_svd", "svd", "linalg_eigh", "linalg_qr", "linalg_det", "det"),
        _SOLVED,
    ),
    **dict.fromkeys(("prod", "cumprod"), "multiply slices of it"),
    "fold": "fold windows side by side (stride=kernel_size), or use a transposed convolution",
    "cdist": "write it as sums of squares less twice the matrix product",
    "masked_select": "keep all places with torch.where, whatever the mask is",
    "fractional_max_pool2d": "use adaptive_max_pool2d",
    "fractional_max_pool3d": "use adaptive_max_pool3d",
    "gumbel_softmax": "use softmax in eval mode",
    **dict.fromkeys(("tril", "triu"), "multiply it by a constant mask, as torch.ones(n, n).tril()"),
    **dict.fromkeys(("linalg_cross", "cross"), "multiply slices of it, and join them with torch.stack"),
    "outer": "keep dimension 0 for the batch, as in x[:, :, None] * y[:, None, :]",
    "embedding_bag": "use embedding, and mean or sum",
}  # fmt: skip


def remedy_for(name: str) -> str:
    """What to write instead of the operation called `name`."""
    return REMEDIES.get(name, "replace it, or quantize a sub-network (module=)")
