"""Attention by tiles, written by hand: the work on one tile once, and a walk for GPU and for TPU.

Three kernels have one form. A tile stays in fast memory, tiles of the other side come by one
after the other, and a state is added up that becomes the result:

    kernel           stays              comes by                     state
    forward          queries            keys, values                 maximum, sum, out
    query gradient   queries, d out     keys, values                 dq
    key gradient     keys, values       queries, d out, of a group   dk, dv

The state never leaves fast memory, and the T x S weights are never written: the backward kernels
calculate them again from the normalizer, log(sum(exp(logits))), that the forward one saves.
Tiles that nothing attends to, by position or by length, are skipped.

On a GPU the walk is a loop inside the kernel. On a TPU it is the last axis of the grid, whose
cells run one after the other and find the state in scratch memory where the last one left it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from trivium.kernels.dispatch import Target
from trivium.kernels.pallas.launch import call, up_to_multiple, up_to_power


def attention(q, k, v, mask, bias, lengths, options):
    """One more form of `trivium.kernels.attention`: q [B, K, G, T, H], k and v [B, K, S, H].

    Raises `NotImplementedError` for a mask, a bias, and types that the platform has no products of.
    """
    target = options.target
    for name, extra in (("mask", mask), ("bias", bias)):
        if extra is not None:
            raise NotImplementedError(
                f'{name}: implementation="pallas" has none (causal, window and lengths it has); '
                'use "blockwise" or "reference"'
            )
    narrow = jnp.float16 if target.platform == "gpu" else jnp.bfloat16
    if q.dtype not in (jnp.float32, jnp.bfloat16, narrow):
        raise NotImplementedError(
            f'q: implementation="pallas" has no {q.dtype} on a {target.platform}; convert with '
            '.astype, or use "blockwise"'
        )
    batch, key_heads, group, queries, size = q.shape
    keys = k.shape[2]
    if q.size == 0 or k.size == 0:
        return jnp.zeros_like(q)

    tiles = _Tiles.of(queries, keys, group, size, q.dtype, options)
    if lengths is None:
        lengths = jnp.full((batch,), keys, jnp.int32)
    lengths = jnp.repeat(jnp.clip(lengths, 0, keys), key_heads)
    # The queries of a group of heads lie behind one another: [B * K, G * rows * height, size].
    q = _fill(q, (tiles.rows * tiles.height, tiles.size))
    k, v = (_fill(y, (tiles.columns * tiles.width, tiles.size)) for y in (k, v))
    filled = q.shape
    q, k, v = (y.reshape(batch * key_heads, -1, tiles.size) for y in (q, k, v))
    out = _attend(q, k, v, lengths, tiles)
    return out.reshape(filled)[..., :queries, :size]


def _fill(array, shape):
    """Zeros added at the end of the last two axes."""
    added = [(0, new - old) for new, old in zip(shape, array.shape[-2:], strict=True)]
    return jnp.pad(array, [(0, 0)] * (array.ndim - 2) + added)


# The most queries or keys of a tile. A TPU multiplies 128 x 128; for it a tile's weights in
# float32 take 256 KiB of 16 MiB. On a GPU the tiles of k and v, two of each in flight, must fit
# a multiprocessor's 64 to 227 KiB, whence the bytes of a key's row.
_TPU_TILE = 256
_GPU_TILE, _GPU_TILE_BYTES = 64, 16 * 1024


@dataclass(frozen=True)
class _Tiles:
    """How queries and keys are cut, and who sees whom. Hashable: it selects code."""

    queries: int
    keys: int
    group: int
    height: int  # queries of a tile
    width: int  # keys of a tile
    size: int  # of a head, filled up
    causal: bool
    window: int | None
    scale: float
    target: Target

    @classmethod
    def of(cls, queries, keys, group, size, dtype, options):
        """The cut that the platform allows: multiples of 128 on a TPU, powers of two on a GPU."""
        if options.target.platform == "tpu":
            size = up_to_multiple(size, 128)
            height, width = (min(_TPU_TILE, up_to_multiple(n, 128)) for n in (queries, keys))
        else:
            size = max(up_to_power(size), 16)
            most = _GPU_TILE_BYTES // (size * jnp.dtype(dtype).itemsize)
            most = max(16, min(_GPU_TILE, most))
            height, width = (max(16, min(most, up_to_power(n))) for n in (queries, keys))
        return cls(
            queries, keys, group, height, width, size,
            options.causal, options.window, options.scale, options.target,
        )  # fmt: skip

    @property
    def rows(self) -> int:
        return -(-self.queries // self.height)

    @property
    def columns(self) -> int:
        return -(-self.keys // self.width)

    @property
    def shift(self) -> int:
        """Query t has the place t + shift among the keys: the last query that of the last key."""
        return self.keys - self.queries

    def columns_seen(self, row, length):
        """The first column of tiles that a row of tiles sees, and the one past the last."""
        row = jax.lax.rem(row, jnp.int32(self.rows))  # the group's heads lie behind one another
        first = row * self.height + self.shift
        last = first + self.height - 1
        low, high = jnp.int32(0), length - 1
        if self.causal:
            high = jnp.minimum(high, last)
        if self.window is not None:
            low = first - self.window + 1
            high = jnp.minimum(high, last + self.window - 1)
        return _touched(low, high, self.width, self.columns)

    def rows_seeing(self, column, length):
        """The first row of tiles that sees a column of tiles, and the one past the last."""
        first = column * self.width
        last = jnp.minimum(first + self.width, length) - 1
        low, high = jnp.int32(0), jnp.int32(self.queries - 1)
        if self.window is not None:
            low = first - self.window + 1 - self.shift
            high = jnp.minimum(high, last + self.window - 1 - self.shift)
        if self.causal:
            low = first - self.shift
        high = jnp.where(first < length, high, -1)
        return _touched(low, high, self.height, self.rows)

    def seen(self, row, column, length, queries_axis):
        """Which query of a row of tiles may see which key of a column; keys on the other axis."""
        shape = (self.height, self.width) if queries_axis == 0 else (self.width, self.height)
        places = jax.lax.broadcasted_iota(jnp.int32, shape, queries_axis)
        keys = jax.lax.broadcasted_iota(jnp.int32, shape, 1 - queries_axis) + column * self.width
        ahead = keys - (places + jax.lax.rem(row, jnp.int32(self.rows)) * self.height + self.shift)
        seen = keys < length
        if self.causal:
            seen &= ahead <= 0
        if self.window is not None:
            seen &= jnp.abs(ahead) < self.window
        return seen


def _touched(low, high, size, count):
    """The tiles of one size that the places `low` to `high` touch: the first, the one past."""
    past = jnp.minimum(jnp.maximum(high + 1, 0) + size - 1, count * size)
    first, past = (jax.lax.div(n, jnp.int32(size)) for n in (jnp.maximum(low, 0), past))
    past = jnp.where(low <= high, past, 0)
    return jnp.minimum(first, past), past


class _Kernel(NamedTuple):
    """The work on tiles, whatever the order in which they come.

    state: tiles -> the shapes of the state's arrays, all of float32.
    start: the numbers that they start from.
    step: (state, tiles at hand, seen, scale) -> state.
    finish: (state, scale) -> results.
    queries_axis: the axis of queries in a tile of weights: 0 where a tile of queries stays.
    """

    state: Callable[[_Tiles], tuple[tuple[int, int], ...]]
    start: tuple[float, ...]
    step: Callable[..., tuple[Any, ...]]
    finish: Callable[..., tuple[Any, ...]]
    queries_axis: int


def _times(a, b):
    return _product(a, b, 0)


def _times_transposed(a, b):
    return _product(a, b, 1)


def _product(a, b, axis):
    """Rows of a with an axis of b, multiplied in b's type and added up in float32."""
    return jax.lax.dot_general(
        a.astype(b.dtype), b, (((1,), (axis,)), ((), ())), preferred_element_type=jnp.float32
    )


def _forward_step(state, arrays, seen, scale):
    peak, total, out = state
    q, k, v = arrays
    logits = jnp.where(seen, _times_transposed(q, k) * scale, -jnp.inf)
    higher = jnp.maximum(peak, jnp.max(logits, axis=1, keepdims=True))
    base = jnp.where(higher == -jnp.inf, 0.0, higher)  # -inf - -inf would be NaN
    weights = jnp.exp(logits - base)
    correction = jnp.exp(peak - base)  # what was summed so far was relative to the old peak
    total = total * correction + jnp.sum(weights, axis=1, keepdims=True)
    return higher, total, out * correction + _times(weights, v)


def _forward_finish(state, scale):
    peak, total, out = state
    empty = total == 0.0
    total = jnp.where(empty, 1.0, total)
    # exp(logit - normalizer) is the weight; +inf makes those of an empty row zero.
    return out / total, jnp.where(empty, jnp.inf, peak + jnp.log(total))


def _query_step(state, arrays, seen, scale):
    (dq,) = state
    q, g, normalizer, delta, k, v = arrays
    logits = jnp.where(seen, _times_transposed(q, k) * scale, -jnp.inf)
    weights = jnp.exp(logits - normalizer)
    dlogits = weights * (_times_transposed(g, v) - delta)
    return (dq + _times(dlogits, k),)


def _query_finish(state, scale):
    return (state[0] * scale,)


def _key_step(state, arrays, seen, scale):
    # Keys by queries, so that no tile has to be transposed before a product.
    dk, dv = state
    k, v, q, g, normalizer, delta = arrays
    logits = jnp.where(seen, _times_transposed(k, q) * scale, -jnp.inf)
    weights = jnp.exp(logits - normalizer)
    dlogits = weights * (_times_transposed(v, g) - delta)
    return dk + _times(dlogits, q), dv + _times(weights, g)


def _key_finish(state, scale):
    dk, dv = state
    return dk * scale, dv


_FORWARD = _Kernel(
    lambda tiles: ((tiles.height, 1), (tiles.height, 1), (tiles.height, tiles.size)),
    (-jnp.inf, 0.0, 0.0),
    _forward_step,
    _forward_finish,
    queries_axis=0,
)
_QUERY_GRADIENT = _Kernel(
    lambda tiles: ((tiles.height, tiles.size),), (0.0,), _query_step, _query_finish, queries_axis=0
)
_KEY_GRADIENT = _Kernel(
    lambda tiles: ((tiles.width, tiles.size),) * 2,
    (0.0, 0.0),
    _key_step,
    _key_finish,
    queries_axis=1,
)


@partial(jax.custom_vjp, nondiff_argnums=(4,))
def _attend(q, k, v, lengths, tiles):
    """In whole tiles: q [heads, G * queries, size], k and v [heads, keys, size]."""
    return _attend_forward(q, k, v, lengths, tiles)[0]


def _attend_forward(q, k, v, lengths, tiles):
    normalizer = jax.ShapeDtypeStruct((*q.shape[:2], 1), jnp.float32)
    out, normalizer = _walk(_FORWARD, tiles, lengths, (q,), (k, v), (q, normalizer))
    return out, (q, k, v, lengths, out, normalizer)


def _attend_backward(tiles, residuals, g):
    q, k, v, lengths, out, normalizer = residuals
    # sum over keys of weight * d weight, which is the same as out . d out.
    delta = jnp.sum(out.astype(jnp.float32) * g.astype(jnp.float32), axis=2, keepdims=True)
    stays = (q, g, normalizer, delta)
    (dq,) = _walk(_QUERY_GRADIENT, tiles, lengths, stays, (k, v), (q,))
    # One number a query: a column where a tile's rows are queries, a row where they are keys.
    comes = (q, g, normalizer.swapaxes(1, 2), delta.swapaxes(1, 2))
    dk, dv = _walk(_KEY_GRADIENT, tiles, lengths, (k, v), comes, (k, v))
    return dq, dk, dv, None


_attend.defvjp(_attend_forward, _attend_backward)


def _walk(kernel, tiles, lengths, stays, comes, results):
    """Runs a kernel over all tiles.

    stays, comes: arrays by their part in the walk, [heads, places, size] or [heads, 1, places].
    results: arrays, or shapes with types, like those that the kernel returns, which stay.
    """
    by_query = kernel.queries_axis == 0
    if by_query:  # every row of tiles meets the columns once
        extent = _Extent(tiles.group * tiles.rows, 1, tiles.columns, tiles.height, tiles.width)
    else:  # every column meets the rows of each head of the group
        extent = _Extent(tiles.columns, tiles.group, tiles.rows, tiles.width, tiles.height)
    walk = _walk_on_tpu if tiles.target.platform == "tpu" else _walk_on_gpu
    results = [jax.ShapeDtypeStruct(result.shape, result.dtype) for result in results]
    return walk(kernel, tiles, extent, lengths, stays, comes, results)


class _Extent(NamedTuple):
    """here: tiles that stay. laps: how often the others come by. there: how many come by."""

    here: int
    laps: int
    there: int
    here_size: int
    there_size: int


def _met(kernel, tiles, here, length):
    """The tiles that the one `here` has to meet: the first, and the one past the last."""
    meets = tiles.columns_seen if kernel.queries_axis == 0 else tiles.rows_seeing
    return meets(here, length)


def _start(kernel, tiles):
    pairs = zip(kernel.state(tiles), kernel.start, strict=True)
    return tuple(jnp.full(shape, number, jnp.float32) for shape, number in pairs)


def _step(kernel, tiles, state, arrays, here, there, length):
    row, column = (here, there) if kernel.queries_axis == 0 else (there, here)
    seen = tiles.seen(row, column, length, kernel.queries_axis)
    return kernel.step(state, arrays, seen, tiles.scale)


def _block(array, size, place):
    """The block of one head and one tile. place: the grid's indices -> (head, tile)."""
    if array.shape[1] == 1:  # a row: [heads, 1, places]
        return pl.BlockSpec((None, 1, size), lambda *at: (place(*at)[0], 0, place(*at)[1]))
    return pl.BlockSpec((None, size, array.shape[2]), lambda *at: (*place(*at), 0))


def _walk_on_gpu(kernel, tiles, extent, lengths, stays, comes, results):
    """A loop in the kernel: a cell of the grid loads the tiles that come by from global memory."""

    def run(lengths_ref, *refs):
        stay_refs, come_refs, result_refs = _split(refs, len(stays), len(comes))
        here, length = pl.program_id(0), lengths_ref[pl.program_id(1)]
        first, past = _met(kernel, tiles, here, length)
        stay = [ref[...] for ref in stay_refs]

        def lap(number, state):
            def meet(there, state):
                place = pl.ds(
                    (number * extent.there + there) * extent.there_size, extent.there_size
                )
                come = [ref[:, place] if ref.shape[0] == 1 else ref[place, :] for ref in come_refs]
                return _step(kernel, tiles, state, (*stay, *come), here, there, length)

            return jax.lax.fori_loop(first, past, meet, state)

        state = jax.lax.fori_loop(jnp.int32(0), jnp.int32(extent.laps), lap, _start(kernel, tiles))
        for ref, result in zip(result_refs, kernel.finish(state, tiles.scale), strict=True):
            ref[...] = result.astype(ref.dtype)

    heads = len(lengths)

    def tile(here, head):
        return head, here

    whole = [
        pl.BlockSpec((None, *array.shape[1:]), lambda _, head: (head, 0, 0)) for array in comes
    ]
    return call(
        run,
        tiles.target,
        order="pp",
        warps=8 if tiles.size > 64 else 4,
        grid=(extent.here, heads),
        in_specs=[
            pl.BlockSpec((heads,), lambda _, head: (0,)),
            *(_block(array, extent.here_size, tile) for array in stays),
            *whole,
        ],
        out_specs=[_block(result, extent.here_size, tile) for result in results],
        out_shape=results,
    )(lengths, *stays, *comes)


def _walk_on_tpu(kernel, tiles, extent, lengths, stays, comes, results):
    """The grid's last axes, run in order: each cell is handed the next tile that comes by."""

    def run(lengths_ref, *refs):
        stay_refs, come_refs, result_refs, state_refs = _split(
            refs, len(stays), len(comes), len(results)
        )
        head, here, lap, there = (pl.program_id(axis) for axis in range(4))
        length = lengths_ref[head]
        first, past = _met(kernel, tiles, here, length)

        def write(refs, values):
            for ref, value in zip(refs, values, strict=True):
                ref[...] = value.astype(ref.dtype)

        @pl.when((lap == 0) & (there == 0))
        def _():
            write(state_refs, _start(kernel, tiles))

        @pl.when((there >= first) & (there < past))
        def _():
            state = [ref[...] for ref in state_refs]
            arrays = [ref[...] for ref in (*stay_refs, *come_refs)]
            write(state_refs, _step(kernel, tiles, state, arrays, here, there, length))

        @pl.when((lap == extent.laps - 1) & (there == extent.there - 1))
        def _():
            write(result_refs, kernel.finish([ref[...] for ref in state_refs], tiles.scale))

    def stay(head, here, lap, there, lengths):
        return head, here

    def come(head, here, lap, there, lengths):
        # A tile that is skipped is not fetched: the index stays at one that is met.
        first, past = _met(kernel, tiles, here, lengths[head])
        there = jnp.clip(there, first, jnp.maximum(past - 1, first))
        return head, lap * extent.there + jnp.minimum(there, extent.there - 1)

    return call(
        run,
        tiles.target,
        order="ppss",
        grid_spec=pltpu.PrefetchScalarGridSpec(
            num_scalar_prefetch=1,
            grid=(len(lengths), extent.here, extent.laps, extent.there),
            in_specs=[
                *(_block(array, extent.here_size, stay) for array in stays),
                *(_block(array, extent.there_size, come) for array in comes),
            ],
            out_specs=[_block(result, extent.here_size, stay) for result in results],
            scratch_shapes=[pltpu.VMEM(shape, jnp.float32) for shape in kernel.state(tiles)],
        ),
        out_shape=results,
    )(lengths, *stays, *comes)


def _split(refs, *counts):
    """The references in groups of the counts given, and the rest."""
    groups = []
    for count in counts:
        groups.append(refs[:count])
        refs = refs[count:]
    return *groups, refs
