"""Convolution: one small set of weights looks at every place of an image."""

from functools import partial

import jax
import jax.numpy as jnp

from trivium.kernels import checks, dispatch
from trivium.kernels.windows import Windows, place, taps


def conv2d(
    x, w, b=None, *, stride=1, padding="SAME", dilation=1, groups=1, implementation=None
) -> jax.Array:
    """Convolution: y[b, m, n, f] = sum over i, j, c of x[b, m+i, n+j, c] w[i, j, c, f].

    x [B, H, W, C], w [KH, KW, C/groups, F], b [F] -> [B, OH, OW, F], all of one floating type.
    B images, H height, W width, C channels, F filters of KH x KW. Strictly a cross-correlation,
    as in every library of the field: the filter is not flipped.

    stride: cells from one window to the next, an int or (vertical, horizontal).
    padding: "SAME" (OH = ceil(H / stride), the odd cell below and right), "VALID" (none), an int
        for all four sides, or ((top, bottom), (left, right)); the border is filled with zeros.
    dilation: cells from one tap of the filter to the next, an int or a pair.
    groups: channels and filters are cut into this many groups that do not see each other; C gives
        a depthwise convolution.
    implementation: "reference" a sum over the filter's taps; "im2col" all windows laid out as the
        rows of a matrix product, in pieces that fit the caches; "xla" the compiler's own
        convolution; None the fastest here.

    Products are added up in float32 (float64 for float64 input). Every implementation can be
    differentiated in forward and reverse mode, any number of times.
    Raises `ValueError` naming the argument where shapes, types or options do not fit.
    Source: LeCun et al., "Gradient-based learning applied to document recognition", 1998; groups:
    Krizhevsky et al. 2012; dilation: Yu and Koltun 2016.
    """
    sizes: dict[str, int] = {}
    x = checks.array("x", x, "B H W C", sizes)
    checks.at_least_one("x", x, "B H W C", "H W C")
    groups = checks.integer("groups", groups, 1)
    checks.require(
        sizes["C"] % groups == 0, "groups", f"a divisor of the {sizes['C']} channels of x", groups
    )
    sizes["C/groups"] = sizes["C"] // groups
    w = checks.array("w", w, "KH KW C/groups F", sizes, x.dtype)
    checks.at_least_one("w", w, "KH KW C/groups F", "KH KW F")
    checks.require(
        sizes["F"] % groups == 0, "groups", f"a divisor of the {sizes['F']} filters of w", groups
    )
    if b is not None:
        b = checks.array("b", b, "F", sizes, x.dtype)
    windows = place(x.shape[1:3], w.shape[:2], stride, padding, dilation)
    name = dispatch.choose("conv2d", implementation)
    return _conv2d(x, w, b, windows=windows, groups=groups, implementation=name)


@partial(jax.jit, static_argnames=("windows", "groups", "implementation"))
def _conv2d(x, w, b, *, windows, groups, implementation):
    form = {"reference": _reference, "im2col": _im2col, "xla": _xla}[implementation]
    y = form(x, w, windows, groups)
    if b is not None:
        y = y + b.astype(y.dtype)
    return y.astype(x.dtype)


def _reference(x: jax.Array, w: jax.Array, windows: Windows, groups: int) -> jax.Array:
    """The definition: for each tap of the filter, what it sees times its weights, added up."""
    kh, kw, c, f = w.shape
    w = w.reshape(kh * kw, c, groups, f // groups)
    y = jnp.zeros((), checks.accumulation(x.dtype))
    for tap, weights in zip(taps(x, windows), w, strict=True):
        seen = tap.reshape(*tap.shape[:3], groups, c)
        y += jnp.einsum("bmngc,cgf->bmngf", seen, weights, preferred_element_type=y.dtype)
    return y.reshape(x.shape[0], *windows.output, f)


def _xla(x: jax.Array, w: jax.Array, windows: Windows, groups: int) -> jax.Array:
    # No preferred_element_type: its transpose mixes types and fails below float32, and every
    # back end adds up narrower types in float32 by itself.
    y = jax.lax.conv_general_dilated(
        x,
        w,
        window_strides=windows.stride,
        padding=windows.padding,
        rhs_dilation=windows.dilation,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
    )
    return y.astype(checks.accumulation(y.dtype))


# Bytes of windows laid out at a time: what a core's caches hold. A new page of memory costs more
# than the products made from it.
_PIECE = 4 * 2**20


def _im2col(x: jax.Array, w: jax.Array, windows: Windows, groups: int) -> jax.Array:
    """Lays the windows out as rows of a matrix product, a few images at a time.

    The gradient lays them out again (`jax.checkpoint`): what stays in a cache is made faster than
    it is fetched from memory.
    """
    batch = x.shape[0]
    cells = windows.output[0] * windows.output[1]
    image = cells * w.shape[0] * w.shape[1] * x.shape[3] * x.dtype.itemsize
    size = max(_PIECE // image, 1)
    if size >= batch:
        return _im2col_piece(x, w, windows, groups)
    whole = batch // size * size
    piece = jax.checkpoint(lambda x: _im2col_piece(x, w, windows, groups))
    y = jax.lax.map(piece, x[:whole].reshape(whole // size, size, *x.shape[1:]))
    y = y.reshape(whole, *y.shape[2:])
    return y if whole == batch else jnp.concatenate([y, piece(x[whole:])])


def _im2col_piece(x: jax.Array, w: jax.Array, windows: Windows, groups: int) -> jax.Array:
    kh, kw, c, f = w.shape
    total = checks.accumulation(x.dtype)
    cells = x.shape[0] * windows.output[0] * windows.output[1]
    if groups == 1:
        if c == 1:
            # One channel: written tap by tap, each in long runs, and left to the product to
            # transpose, rather than gathered one number at a time.
            rows = jnp.stack(list(taps(x, windows))).reshape(kh * kw, cells).T
        else:
            rows = jnp.concatenate(list(taps(x, windows)), axis=-1).reshape(cells, kh * kw * c)
        y = jnp.matmul(rows, w.reshape(kh * kw * c, f), preferred_element_type=total)
    else:
        rows = jnp.stack(list(taps(x, windows)), axis=3)
        rows = rows.reshape(*rows.shape[:4], groups, c)
        w = w.reshape(kh * kw, c, groups, f // groups)
        y = jnp.einsum("bmnkgc,kcgf->bmngf", rows, w, preferred_element_type=total)
    return y.reshape(x.shape[0], *windows.output, f)
