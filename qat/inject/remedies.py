"""What to write instead of an operation that has no integer form, by its canonical name."""

from qat.inject.pointwise import NONLINEAR

_BEHIND = "apply it to the network's outputs, behind the integers"
_NUMBER = "give it one number for all elements, as a table of one value has"
_OTHER_DIMENSIONS = "take it over other dimensions than the batch, and name them"
_SAMPLED = "use interpolate, pixel_shuffle or a transposed convolution, whose places are the same for every input"
_PUT = "put values in their places with torch.cat of slices, or with torch.where and a constant mask"
_LARGEST = "use topk, amax or amin"
_SOLVED = "compute it outside of the network (module= leaves a part out)"

REMEDIES = {
    **dict.fromkeys(sorted(NONLINEAR - {"maximum", "minimum"}), _NUMBER),
    **dict.fromkeys(
        ("std", "var", "std_mean", "var_mean", "norm", "linalg_norm", "linalg_vector_norm"), _OTHER_DIMENSIONS
    ),
    **dict.fromkeys(("logsumexp", "logcumsumexp", "quantile", "nanquantile", "histc", "bincount"), _BEHIND),
    **dict.fromkeys(("grid_sample", "affine_grid", "max_unpool1d", "max_unpool2d", "max_unpool3d"), _SAMPLED),
    **dict.fromkeys(
        ("scatter", "scatter_add", "scatter_reduce", "index_add", "index_copy", "index_fill", "index_put",
         "masked_scatter", "diag_embed"),
        _PUT,
    ),
    **dict.fromkeys(("median", "nanmedian", "kthvalue", "mode", "cummax", "cummin"), _LARGEST),
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
    "outer": "keep dimension 0 for the batch, as in x[:, :, None] * y[:, None, :]",
    "embedding_bag": "use embedding, and mean or sum",
}  # fmt: skip


def remedy_for(name: str) -> str:
    """What to write instead of the operation called `name`."""
    return REMEDIES.get(name, "replace it, or quantize a sub-network (module=)")
