"""Windows that slide over an image: the geometry that convolution and pooling share."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from trivium.kernels import checks


class Windows(NamedTuple):
    """Where windows lie on an image, each field (vertical, horizontal).

    Hashable, so that it can be a static argument of a compiled function.

    size: cells a window covers.
    stride: cells from one window to the next.
    dilation: cells from one tap of a window to the next.
    padding: cells added before and after the image.
    output: windows that fit.
    """

    size: tuple[int, int]
    stride: tuple[int, int]
    dilation: tuple[int, int]
    padding: tuple[tuple[int, int], tuple[int, int]]
    output: tuple[int, int]

    @property
    def padded(self) -> bool:
        """Whether any window covers a cell outside the image."""
        return self.padding != ((0, 0), (0, 0))


def place(image: tuple[int, int], size, stride, padding: Any, dilation=1) -> Windows:
    """The windows that fit on an `image` of (height, width).

    padding: "VALID" none; "SAME" as much as gives ceil(image / stride) windows, the odd cell
        after the image, as in TensorFlow; an int for all four sides; or ((top, bottom),
        (left, right)).

    Raises `ValueError` where an option does not fit, or no window does.
    """
    stride = checks.pair("stride", stride)
    dilation = checks.pair("dilation", dilation)
    reach = tuple((n - 1) * d + 1 for n, d in zip(size, dilation, strict=True))
    padding = _padding(image, reach, stride, padding)
    output = tuple(
        (n + sum(pad) - r) // s + 1
        for n, pad, r, s in zip(image, padding, reach, stride, strict=True)
    )
    for axis, n, pad, r, count in zip(
        ("height", "width"), image, padding, reach, output, strict=True
    ):
        checks.require(
            count > 0,
            "x",
            f"a padded {axis} of at least the window's {r}",
            f"{n} + {sum(pad)} of padding",
        )
    return Windows(tuple(size), stride, dilation, padding, output)  # type: ignore[arg-type]


def _padding(image, reach, stride, padding):
    if padding == "VALID":
        return ((0, 0), (0, 0))
    if padding == "SAME":
        total = (
            max((-(-n // s) - 1) * s + r - n, 0)
            for n, r, s in zip(image, reach, stride, strict=True)
        )
        return tuple((n // 2, n - n // 2) for n in total)
    expected = '"SAME", "VALID", an integer of at least 0, or ((top, bottom), (left, right))'
    try:
        if isinstance(padding, tuple | list):
            vertical, horizontal = padding
            if isinstance(vertical, tuple | list) and isinstance(horizontal, tuple | list):
                return checks.pair("", vertical, 0), checks.pair("", horizontal, 0)
        else:
            return (checks.pair("", padding, 0),) * 2
    except ValueError:
        pass
    raise ValueError(f"padding: expected {expected}, received {padding!r}")


def taps(x: jax.Array, windows: Windows, fill: float = 0.0) -> Iterator[jax.Array]:
    """What each cell of the window sees: one [B, OH, OW, C] for each tap, in row-major order.

    x [B, H, W, C]; cells outside the image hold `fill`.
    """
    batch, _, _, channels = x.shape
    if windows.padded:
        x = jnp.pad(x, ((0, 0), *windows.padding, (0, 0)), constant_values=fill)
    for i in range(windows.size[0]):
        for j in range(windows.size[1]):
            start = (i * windows.dilation[0], j * windows.dilation[1])
            stop = tuple(
                first + (count - 1) * step + 1
                for first, count, step in zip(start, windows.output, windows.stride, strict=True)
            )
            yield jax.lax.slice(
                x, (0, *start, 0), (batch, *stop, channels), (1, *windows.stride, 1)
            )
