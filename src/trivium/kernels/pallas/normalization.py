"""Normalization, written by hand: one pass over each row, forward and backward.

A cell of the grid holds some whole rows in fast memory and works out mean and scale there, so that
x is read once and y written once. The backward kernel reads x and dy, works out mean and scale
again (nothing but x was saved), and writes dx, and each cell's part of the sum over rows that is
the gradient of the parameters; the parts are added up outside. For these to be few, a cell of the
backward kernel takes several lots of rows, one after the other.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl

from trivium.kernels.dispatch import Target
from trivium.kernels.pallas.launch import call, up_to_multiple, up_to_power


def layer_norm(x, scale, offset, *, epsilon, target: Target):
    """One more form of `trivium.kernels.layer_norm`."""
    return _norm(x, (scale, offset), epsilon, target)


def rms_norm(x, scale, *, epsilon, target: Target):
    """One more form of `trivium.kernels.rms_norm`."""
    return _norm(x, (scale,), epsilon, target)


def _norm(x, parameters, epsilon, target):
    for array in (x, *parameters):
        if array.dtype == jnp.float64 or (array.dtype == jnp.float16 and target.platform == "tpu"):
            raise NotImplementedError(
                f'x: implementation="pallas" has no {array.dtype} on a {target.platform}; convert '
                'with .astype, or use "reference"'
            )
    if x.size == 0:
        return x
    features = x.shape[-1]
    rows, lots, size = _lot(features, target.platform)
    flat = x.reshape(-1, features)
    flat = jnp.pad(flat, ((0, -len(flat) % (rows * lots)), (0, size - features)))
    parameters = tuple(jnp.pad(y, (0, size - features))[None] for y in parameters)
    y = _whole_lots(flat, parameters, features, epsilon, target)
    return y[: x.size // features, :features].reshape(x.shape)


def _lot(features: int, platform: str) -> tuple[int, int, int]:
    """Rows of a lot, lots that a cell takes backward, and a row's length with its filling."""
    if platform == "tpu":  # float32 in fast memory: half a MiB an array, of 16
        size = up_to_multiple(features, 128)
        return max(16, min(256, 2**17 // size // 16 * 16)), 1, size
    size = up_to_power(features)  # a GPU's multiprocessor: 4096 numbers an array in registers
    return max(1, min(16, 4096 // size)), 8, size


def _normal(x, features, epsilon, centered):
    """Rows brought to mean zero (if `centered`) and mean square one, and what they came times."""
    x = x.astype(jnp.float32)
    if centered:
        mean = jnp.sum(x, axis=1, keepdims=True) / features
        real = jax.lax.broadcasted_iota(jnp.int32, x.shape, 1) < features
        x = jnp.where(real, x - mean, 0.0)
    factor = jax.lax.rsqrt(jnp.sum(x * x, axis=1, keepdims=True) / features + epsilon)
    return x * factor, factor


@partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def _whole_lots(x, parameters, features, epsilon, target):
    """Of x [rows, size]; parameters [1, size]: a scale, and an offset if rows are centered."""

    def run(x_ref, scale_ref, *refs):
        *offset_refs, y_ref = refs
        y, _ = _normal(x_ref[...], features, epsilon, centered=bool(offset_refs))
        y *= scale_ref[...].astype(y.dtype)
        for offset_ref in offset_refs:
            y += offset_ref[...].astype(y.dtype)
        y_ref[...] = y.astype(y_ref.dtype)

    rows, _, _ = _lot(features, target.platform)
    return _over_rows(run, target, rows, (x,), parameters, ())[0]


def _forward(x, parameters, features, epsilon, target):
    return _whole_lots(x, parameters, features, epsilon, target), (x, parameters)


def _backward(features, epsilon, target, residuals, dy):
    x, parameters = residuals
    rows, lots, size = _lot(features, target.platform)
    centered = len(parameters) == 2

    def run(x_ref, dy_ref, scale_ref, dx_ref, *sum_refs):
        scale = scale_ref[...].astype(jnp.float32)

        def lot(number, sums):
            place = pl.ds(number * rows, rows)
            normal, factor = _normal(x_ref[place, :], features, epsilon, centered)
            dy = dy_ref[place, :].astype(jnp.float32)
            dnormal = dy * scale
            # The mean square stays one and the mean zero: what would change them is taken out.
            dx = dnormal - normal * (jnp.sum(dnormal * normal, axis=1, keepdims=True) / features)
            if centered:
                dx -= jnp.sum(dnormal, axis=1, keepdims=True) / features
            dx_ref[place, :] = (dx * factor).astype(dx_ref.dtype)
            terms = (dy * normal, dy)[: len(sums)]
            pairs = zip(sums, terms, strict=True)
            return tuple(total + jnp.sum(term, axis=0, keepdims=True) for total, term in pairs)

        sums = tuple(jnp.zeros((1, size), jnp.float32) for _ in sum_refs)
        sums = jax.lax.fori_loop(jnp.int32(0), jnp.int32(lots), lot, sums)
        for ref, total in zip(sum_refs, sums, strict=True):
            ref[...] = total

    dx, *parts = _over_rows(run, target, rows * lots, (x, dy), parameters[:1], parameters)
    totals = [jnp.sum(part, axis=0) for part in parts]
    return dx, tuple(
        total.astype(parameter.dtype) for total, parameter in zip(totals, parameters, strict=True)
    )


_whole_lots.defvjp(_forward, _backward)


def _over_rows(kernel, target, rows, arrays, parameters, sums):
    """Runs a kernel over blocks of rows: results are one array like the first, and sums by parts.

    arrays, parameters: read by rows, and whole.
    sums: of which each block of rows writes its part, [blocks, 1, size] in float32.
    """
    x = arrays[0]
    blocks, size = len(x) // rows, x.shape[1]
    by_rows = pl.BlockSpec((rows, size), lambda block: (block, 0))
    whole = pl.BlockSpec((1, size), lambda block: (0, 0))
    part = pl.BlockSpec((None, 1, size), lambda block: (block, 0, 0))
    return call(
        kernel,
        target,
        order="p",
        warps=8 if size > 2048 else 4,
        grid=(blocks,),
        in_specs=[by_rows] * len(arrays) + [whole] * len(parameters),
        out_specs=[by_rows] + [part] * len(sums),
        out_shape=[
            jax.ShapeDtypeStruct(x.shape, x.dtype),
            *(jax.ShapeDtypeStruct((blocks, 1, size), jnp.float32) for _ in sums),
        ],
    )(*arrays, *parameters)
