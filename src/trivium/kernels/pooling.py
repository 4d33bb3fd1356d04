"""Pooling: one number stands for each window of a feature map."""

from collections.abc import Callable
from functools import partial, reduce

import jax
import jax.numpy as jnp
import numpy as np

from trivium.kernels import checks, dispatch
from trivium.kernels.windows import Windows, place, taps


def max_pool(x, window, *, stride=None, padding="VALID", implementation=None) -> jax.Array:
    """The largest value of each window.

    x [B, H, W, C] -> [B, OH, OW, C], of x's type; B images, H height, W width, C channels.

    window: cells a window covers, an int or (vertical, horizontal).
    stride: cells from one window to the next, an int or a pair; None takes `window`.
    padding: "VALID" (none; cells that fill no window are dropped), "SAME" (OH = ceil(H / stride)),
        an int for all four sides, or ((top, bottom), (left, right)), less than the window. A cell
        outside the image is never the largest.
    implementation: "reference" compares tap by tap; "taps" the same with a gradient of its own,
        which looks up a byte a window;
        "xla" the compiler's windowed reduction, whose gradient (select-and-scatter) is slow on
        CPU; None the fastest here.

    Where values tie, the first in row-major order gets the whole gradient, in every
    implementation. NaN in a window gives NaN. "taps" has no forward mode (`jax.jvp`) and no second
    derivative: ask for "reference".
    Raises `ValueError` naming the argument where shapes, types or options do not fit.
    Source: Jarrett et al., "What is the best multi-stage architecture for object recognition?",
    2009.
    """
    x, windows, name = _prepare("max_pool", x, window, stride, padding, implementation)
    return _max_pool(x, windows=windows, implementation=name)


def avg_pool(x, window, *, stride=None, padding="VALID", implementation=None) -> jax.Array:
    """The mean of each window's cells inside the image.

    x [B, H, W, C] -> [B, OH, OW, C], of x's type; B images, H height, W width, C channels.
    The mean is taken over the real cells alone: padding is not counted (as in TensorFlow; PyTorch's
    `count_include_pad=False`).

    window, stride, padding: as in `max_pool`.
    implementation: "reference" a sum over the window's taps; "xla" the compiler's windowed
        reduction; None the fastest here.

    Every implementation can be differentiated in forward and reverse mode. Sums are taken in
    float32 (float64 for float64 input).
    Raises `ValueError` naming the argument where shapes, types or options do not fit.
    Source: LeCun et al., "Gradient-based learning applied to document recognition", 1998.
    """
    x, windows, name = _prepare("avg_pool", x, window, stride, padding, implementation)
    return _avg_pool(x, windows=windows, implementation=name)


def _prepare(kernel, x, window, stride, padding, implementation):
    x = checks.array("x", x, "B H W C", {})
    checks.at_least_one("x", x, "B H W C", "H W C")
    window = checks.pair("window", window)
    windows = place(x.shape[1:3], window, window if stride is None else stride, padding)
    for size, pad in zip(window, windows.padding, strict=True):
        # Otherwise a window could lie wholly outside the image and have no value.
        checks.require(max(pad) < size, "padding", f"less than the window's {size}", padding)
    overlap = any(step < size for step, size in zip(windows.stride, window, strict=True))
    name = dispatch.choose(kernel, implementation, overlap=overlap)
    return x, windows, name


@partial(jax.jit, static_argnames=("windows", "implementation"))
def _max_pool(x, *, windows, implementation):
    forms: dict[str, Callable] = {"reference": _max_reference, "taps": _max_taps, "xla": _max_xla}
    return forms[implementation](x, windows)


def _max_reference(x: jax.Array, windows: Windows) -> jax.Array:
    """The definition: walk through the window in row-major order and keep what is larger."""
    (largest, found), *rest = zip(taps(x, windows, -jnp.inf), _real(x, windows), strict=True)
    for tap, real in rest:
        larger = (tap > largest) | (jnp.isnan(tap) & ~jnp.isnan(largest))
        # A real -inf beats the padding's -inf, so that it gets its gradient.
        larger = real & (larger | ~found)
        largest, found = jnp.where(larger, tap, largest), found | real
    return largest


def _real(x: jax.Array, windows: Windows):
    """For each tap, [1, OH, OW, 1]: whether it sees a cell of the image."""
    image = np.ones((1, *x.shape[1:3], 1), bool)
    return taps(jnp.asarray(image), windows, False)


@partial(jax.custom_vjp, nondiff_argnums=(1,))
def _max_taps(x: jax.Array, windows: Windows) -> jax.Array:
    return reduce(jnp.maximum, taps(x, windows, -jnp.inf))


def _max_taps_forward(x, windows):
    """Keeps which tap is the largest: a byte for each window, all that the gradient needs."""
    y = _max_taps(x, windows)
    count = windows.size[0] * windows.size[1]
    kind = jnp.uint8 if count <= 256 else jnp.int32
    index = jnp.full(y.shape, count - 1, kind)
    numbered = enumerate(zip(taps(x, windows, -jnp.inf), _real(x, windows), strict=True))
    for number, (tap, real) in reversed(list(numbered)):
        largest = real & ((tap == y) | jnp.isnan(tap))
        index = jnp.where(largest, jnp.asarray(number, kind), index)
    return y, (index, x.shape[1:3])


def _max_taps_backward(windows, residuals, g):
    index, image = residuals
    zero = jnp.zeros((), g.dtype)
    if windows.stride == windows.size:
        return (_lay_out(index, g, image, windows),)
    numbers = jnp.arange(windows.size[0] * windows.size[1], dtype=index.dtype)
    shares = [jnp.where(index == number, g, zero) for number in numbers]
    # The transpose of cutting the taps out adds each share to the cells that its tap saw.
    cells = jax.ShapeDtypeStruct((g.shape[0], *image, g.shape[3]), g.dtype)
    return jax.linear_transpose(lambda x: list(taps(x, windows)), cells)(shares)


_max_taps.defvjp(_max_taps_forward, _max_taps_backward)


def _lay_out(index, g, image, windows):
    """The gradient where each cell is in one window at most: windows side by side, no adding."""
    (kh, kw), (oh, ow) = windows.size, windows.output
    numbers = jnp.arange(kh * kw, dtype=index.dtype).reshape(kh, 1, kw, 1)
    hit = index[:, :, None, :, None] == numbers
    cells = jnp.where(hit, g[:, :, None, :, None], jnp.zeros((), g.dtype))
    cells = cells.reshape(g.shape[0], oh * kh, ow * kw, g.shape[3])
    # Cuts the padding off, and adds the cells that fill no window.
    edges = [
        (-before, before + size - covered)
        for (before, _), size, covered in zip(windows.padding, image, cells.shape[1:3], strict=True)
    ]
    return jax.lax.pad(
        cells, jnp.zeros((), g.dtype), [(0, 0, 0), *((*e, 0) for e in edges), (0, 0, 0)]
    )


def _max_xla(x: jax.Array, windows: Windows) -> jax.Array:
    return _reduce_window(x, -jnp.inf, jax.lax.max, windows)


def _reduce_window(x, start, reduction, windows):
    return jax.lax.reduce_window(
        x,
        np.array(start, x.dtype),
        reduction,
        (1, *windows.size, 1),
        (1, *windows.stride, 1),
        ((0, 0), *windows.padding, (0, 0)),
    )


@partial(jax.jit, static_argnames=("windows", "implementation"))
def _avg_pool(x, *, windows, implementation):
    forms: dict[str, Callable] = {"reference": _sum_reference, "xla": _sum_xla}
    total = forms[implementation](x.astype(checks.accumulation(x.dtype)), windows)
    count = sum(real.astype(total.dtype) for real in _real(x, windows))
    return (total / count).astype(x.dtype)


def _sum_reference(x: jax.Array, windows: Windows) -> jax.Array:
    return reduce(jnp.add, taps(x, windows))


def _sum_xla(x: jax.Array, windows: Windows) -> jax.Array:
    return _reduce_window(x, 0, jax.lax.add, windows)
