"""Attention: every query takes a weighted mean of the values, weighted by how its key fits."""

import math
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from trivium.kernels import checks, dispatch


def attention(
    q,
    k,
    v,
    *,
    mask=None,
    bias=None,
    causal=False,
    window=None,
    lengths=None,
    scale=None,
    implementation=None,
) -> jax.Array:
    """Scaled dot-product attention: softmax(q k^T * scale + bias) v, for each head.

    q [B, T, N, H], k and v [B, S, K, H] -> [B, T, N, H], all of one floating type. B sequences,
    T queries, S keys, N query heads, K key heads, H head size; K divides N, and query head n reads
    key head n // (N / K) (grouped queries).

    A query attends to the keys that all of the following allow; one with no key left gives zeros,
    with gradients of zero.
    mask: boolean, broadcastable to [B, N, T, S]; True attends.
    bias: floating, broadcastable to [B, N, T, S], added to the scaled products; -inf forbids.
    causal: the last query sees the last key: query t sees keys s <= t + S - T, which for S = T is
        s <= t and for one query against a cache of S keys is all of them.
    window: how near a key must be, an integer of at least 1. With p = t + S - T the query's place
        among the keys: |p - s| < window. With `causal` that is the query's own place and the
        window - 1 before it; without, window - 1 to each side.
    lengths: real keys of each sequence, integers [B] from 0 to S. k and v beyond a length are not
        read, not even NaN, and get gradients of zero. Queries are not cut: those beyond a length
        attend like others. Traced lengths cannot be looked at and are clipped to 0 and S.
    scale: a Python number; None is 1 / sqrt(H).
    implementation: "reference" holds all T x S weights at once; "blockwise" walks over tiles of
        queries and keys with an online softmax, in memory linear in T and S; "pallas" is the same,
        written by hand for GPU and TPU, without mask and bias; None the fastest here.

    Products are added up, and the softmax taken, in float32 (float64 for float64 input).
    "blockwise" and "pallas" bring their own gradient, which recomputes the weights: they have no
    forward mode (`jax.jvp`) and no second derivative; ask for "reference".
    Raises `ValueError` naming the argument where shapes, types or options do not fit, and
    `NotImplementedError` for what "pallas" does not have.
    Source: Vaswani et al. 2017, eq. 1; grouped queries: Ainslie et al. 2023; online softmax:
    Milakov and Gimelshein 2018; tiles and recomputation: Dao et al., "FlashAttention", 2022.
    """
    sizes: dict[str, int] = {}
    q = checks.array("q", q, "B T N H", sizes)
    checks.at_least_one("q", q, "B T N H", "N H")
    k = checks.array("k", k, "B S K H", sizes, q.dtype)
    v = checks.array("v", v, "B S K H", sizes, q.dtype)
    queries, keys, heads, key_heads = (sizes[axis] for axis in "TSNK")
    checks.require(
        key_heads > 0 and heads % key_heads == 0,
        "k",
        f"a number of heads K that divides the {heads} of q",
        key_heads,
    )
    shape = (sizes["B"], heads, queries, keys)
    if mask is not None:
        mask = checks.broadcastable("mask", mask, shape, "[B, N, T, S]", jnp.bool_)
    if bias is not None:
        bias = checks.broadcastable("bias", bias, shape, "[B, N, T, S]", jnp.floating)
    if lengths is not None:
        lengths = checks.lengths(lengths, sizes["B"], keys, "S")
    options = Options(
        causal=checks.flag("causal", causal),
        window=None if window is None else checks.integer("window", window, 1),
        scale=1 / math.sqrt(sizes["H"]) if scale is None else checks.positive("scale", scale),
        target=dispatch.target(),
    )
    name = dispatch.choose("attention", implementation, queries=queries, keys=keys)
    return _attention(q, k, v, mask, bias, lengths, options=options, implementation=name)


class Options(NamedTuple):
    """The options that select code, hashable for `jax.jit`."""

    causal: bool
    window: int | None
    scale: float
    target: dispatch.Target


@partial(jax.jit, static_argnames=("options", "implementation"))
def _attention(q, k, v, mask, bias, lengths, *, options, implementation):
    batch, queries, heads, size = q.shape
    if lengths is not None:
        # Erased before anything reads them: a weight of zero times NaN would still be NaN.
        real = jnp.arange(k.shape[1], dtype=jnp.int32) < lengths[:, None]
        k, v = (jnp.where(real[..., None, None], y, jnp.zeros((), y.dtype)) for y in (k, v))
    # Head n = (key head, member of its group): [B, K, G, T, H] against [B, K, S, H].
    key_heads = k.shape[2]
    q = jnp.moveaxis(q.reshape(batch, queries, key_heads, heads // key_heads, size), 1, 3)
    k, v = jnp.swapaxes(k, 1, 2), jnp.swapaxes(v, 1, 2)
    mask, bias = _by_group(mask, key_heads), _by_group(bias, key_heads)
    if implementation == "pallas":
        from trivium.kernels.pallas.attention import attention as form
    else:
        form = _blockwise if implementation == "blockwise" else _reference
    out = form(q, k, v, mask, bias, lengths, options)
    return jnp.moveaxis(out, 3, 1).reshape(batch, queries, heads, size)


def _by_group(extra, key_heads):
    """[B, N, T, S] -> [B, K, G, T, S]; axes of size one stay."""
    if extra is None:
        return None
    batch, heads, queries, keys = extra.shape
    split = (1, 1) if heads == 1 else (key_heads, heads // key_heads)
    return extra.reshape(batch, *split, queries, keys)


def _reference(q, k, v, mask, bias, lengths, options):
    """The definition, all weights at once. q [B, K, G, T, H], k and v [B, K, S, H]."""
    shift = k.shape[2] - q.shape[3]
    logits = _logits(
        q, k, mask, bias, lengths, jnp.arange(q.shape[3]) + shift, jnp.arange(k.shape[2]), options
    )
    weights = _softmax(logits)
    return _mix("bkgts,bksh->bkgth", weights, v).astype(q.dtype)


def _logits(q, k, mask, bias, lengths, places, keys, options):
    """Scaled products plus bias; -inf where a query at one of `places` may not see a key."""
    logits = _mix("bkgth,bksh->bkgts", q, k) * options.scale
    if bias is not None:
        logits += bias.astype(logits.dtype)
    ahead = keys - places[:, None]
    seen = jnp.ones_like(ahead, bool)
    if options.causal:
        seen &= ahead <= 0
    if options.window is not None:
        seen &= jnp.abs(ahead) < options.window
    if lengths is not None:
        seen = seen & (keys.astype(jnp.int32) < lengths[:, None, None, None, None])
    if mask is not None:
        seen = seen & mask
    return jnp.where(seen, logits, -jnp.inf)


def _softmax(logits: jax.Array) -> jax.Array:
    """Softmax over the last axis that gives zeros, not NaN, where all logits are -inf."""
    peak = jax.lax.stop_gradient(jnp.max(logits, axis=-1, keepdims=True, initial=-jnp.inf))
    weights = jnp.exp(logits - jnp.where(peak == -jnp.inf, 0.0, peak))
    total = jnp.sum(weights, axis=-1, keepdims=True)
    return weights / jnp.where(total == 0, 1.0, total)


def _mix(equation: str, a: jax.Array, b: jax.Array) -> jax.Array:
    """An einsum that multiplies in b's type and adds up in float32 or wider."""
    total = checks.accumulation(b.dtype)
    return jnp.einsum(equation, a.astype(b.dtype), b, preferred_element_type=total)


# Keys and queries a tile holds: the weights of one head's tile stay in a core's cache.
_TILE = 512


@partial(jax.custom_vjp, nondiff_argnums=(6,))
def _blockwise(q, k, v, mask, bias, lengths, options):
    """The reference a tile at a time, the softmax's maximum and sum corrected as it goes."""
    return _blockwise_forward(q, k, v, mask, bias, lengths, options)[0]


class _Tiles:
    """Cuts the arguments of attention into tiles of queries by keys.

    Queries and keys are filled up with zeros to whole tiles; keys added that way are not seen.
    """

    def __init__(self, q, k, v, mask, bias, lengths, options):
        batch, _, _, self.queries, _ = q.shape
        self.keys = k.shape[2]
        sizes = [max(n, 1) for n in (self.queries, self.keys)]  # nothing at all fills one tile
        self.height, self.width = (min(_TILE, n) for n in sizes)
        self.rows, self.columns = -(-sizes[0] // self.height), -(-sizes[1] // self.width)
        self.q = _fill(q, 3, self.rows * self.height)
        self.k, self.v = (_fill(y, 2, self.columns * self.width) for y in (k, v))
        self.mask, self.bias = (self._fill_both(extra) for extra in (mask, bias))
        self.options = options
        self.lengths = lengths
        if lengths is None and self.columns * self.width > self.keys:
            self.lengths = jnp.full((batch,), self.keys, jnp.int32)

    def _fill_both(self, extra):
        if extra is None:
            return None
        for axis, count, size in ((3, self.rows, self.height), (4, self.columns, self.width)):
            if extra.shape[axis] != 1:
                extra = _fill(extra, axis, count * size)
        return extra

    def of_queries(self, array, row, axis=3):
        """The part of `array` that belongs to one row of tiles."""
        return jax.lax.dynamic_slice_in_dim(array, row * self.height, self.height, axis)

    def of_keys(self, array, column, axis=2):
        """The part of `array` that belongs to one column of tiles."""
        return jax.lax.dynamic_slice_in_dim(array, column * self.width, self.width, axis)

    def of_both(self, extra, row, column):
        """The tile of a mask or bias, whose axes of size one are shared by all tiles."""
        if extra is None:
            return None
        extra = self.of_queries(extra, row) if extra.shape[3] > 1 else extra
        return self.of_keys(extra, column, 4) if extra.shape[4] > 1 else extra

    def logits(self, row, column):
        """The logits of one tile."""
        first = row * self.height + self.keys - self.queries
        return _logits(
            self.of_queries(self.q, row),
            self.of_keys(self.k, column),
            self.of_both(self.mask, row, column),
            self.of_both(self.bias, row, column),
            self.lengths,
            first + jnp.arange(self.height),
            column * self.width + jnp.arange(self.width),
            self.options,
        )

    def seen(self, row):
        """The first column of tiles that a row of tiles sees by position, and the one past it."""
        first = row * self.height + self.keys - self.queries
        last = first + self.height - 1
        nearest = last if self.options.causal else self.keys
        farthest = 0
        if self.options.window is not None:
            nearest = jnp.minimum(nearest, last + self.options.window - 1)
            farthest = first - self.options.window + 1
        stop = jnp.clip(nearest // self.width + 1, 0, self.columns)
        return jnp.clip(farthest // self.width, 0, stop), stop


def _fill(array, axis, size):
    widths = [(0, 0)] * array.ndim
    widths[axis] = (0, size - array.shape[axis])
    return jnp.pad(array, widths)


def _blockwise_forward(q, k, v, mask, bias, lengths, options):
    tiles = _Tiles(q, k, v, mask, bias, lengths, options)
    shape = (*q.shape[:3], tiles.height)
    kind = checks.accumulation(q.dtype)

    def row_of_tiles(row):
        first, past = tiles.seen(row)

        def add_tile(column, carry):
            peak, total, out = carry
            logits = tiles.logits(row, column)
            higher = jnp.maximum(peak, jnp.max(logits, axis=-1))
            base = jnp.where(higher == -jnp.inf, 0.0, higher)
            weights = jnp.exp(logits - base[..., None])
            # What was summed so far was relative to the old peak.
            correction = jnp.exp(peak - base)
            total = total * correction + jnp.sum(weights, axis=-1)
            out = out * correction[..., None] + _mix(
                "bkgts,bksh->bkgth", weights, tiles.of_keys(tiles.v, column)
            )
            return higher, total, out

        start = (
            jnp.full(shape, -jnp.inf, kind),
            jnp.zeros(shape, kind),
            jnp.zeros((*shape, q.shape[-1]), kind),
        )
        peak, total, out = jax.lax.fori_loop(first, past, add_tile, start)
        empty = total == 0
        out = out / jnp.where(empty, 1.0, total)[..., None]
        # exp(logit - normalizer) is the weight; +inf makes an empty row's weights zero.
        normalizer = jnp.where(empty, jnp.inf, peak + jnp.log(jnp.where(empty, 1.0, total)))
        return out.astype(q.dtype), normalizer

    out, normalizer = jax.lax.map(row_of_tiles, jnp.arange(tiles.rows))
    out, normalizer = _join(out), _join(normalizer)
    out = out[:, :, :, : q.shape[3]]
    return out, (q, k, v, mask, bias, lengths, out, normalizer)


def _join(rows):
    """[rows, B, K, G, height, ...] -> [B, K, G, rows * height, ...]."""
    rows = jnp.moveaxis(rows, 0, 3)
    return rows.reshape(*rows.shape[:3], rows.shape[3] * rows.shape[4], *rows.shape[5:])


def _blockwise_backward(options, residuals, g):
    """Recomputes each tile's weights from the normalizers, then the chain rule of softmax."""
    q, k, v, mask, bias, lengths, out, normalizer = residuals
    tiles = _Tiles(q, k, v, mask, bias, lengths, options)
    kind = checks.accumulation(q.dtype)
    # sum over s of weight * d weight, which is the same as out . d out.
    delta = jnp.sum(out.astype(kind) * g.astype(kind), axis=-1)
    g, delta = (_fill(y, 3, tiles.rows * tiles.height) for y in (g, delta))

    def row_of_tiles(sums, row):
        first, past = tiles.seen(row)
        q_row, g_row, delta_row, normalizer_row = (
            tiles.of_queries(y, row) for y in (tiles.q, g, delta, normalizer)
        )

        def add_tile(column, carry):
            dq, dk, dv, dbias = carry
            k_tile, v_tile = (tiles.of_keys(y, column) for y in (tiles.k, tiles.v))
            weights = jnp.exp(tiles.logits(row, column) - normalizer_row[..., None])
            dweights = _mix("bkgth,bksh->bkgts", g_row, v_tile)
            dlogits = weights * (dweights - delta_row[..., None])
            dq += _mix("bkgts,bksh->bkgth", dlogits, k_tile) * options.scale
            dk_tile = _mix("bkgts,bkgth->bksh", dlogits, q_row) * options.scale
            dv_tile = _mix("bkgts,bkgth->bksh", weights, g_row)
            dk = _add_at(dk, dk_tile, column * tiles.width)
            dv = _add_at(dv, dv_tile, column * tiles.width)
            return dq, dk, dv, _add_bias(tiles, dbias, dlogits, row, column)

        start = (jnp.zeros(q_row.shape, kind), *sums)
        dq, *sums = jax.lax.fori_loop(first, past, add_tile, start)
        return tuple(sums), dq

    start = jax.tree.map(lambda y: jnp.zeros(y.shape, kind), (tiles.k, tiles.v, tiles.bias))
    (dk, dv, dbias), dq = jax.lax.scan(row_of_tiles, start, jnp.arange(tiles.rows))
    dq = _join(dq)[:, :, :, : q.shape[3]].astype(q.dtype)
    dk, dv = (y[:, :, : k.shape[2]].astype(k.dtype) for y in (dk, dv))
    if bias is not None:
        dbias = dbias[:, :, :, : bias.shape[3], : bias.shape[4]].astype(bias.dtype)
    return dq, dk, dv, None, dbias, None


def _add_at(array, part, start):
    old = jax.lax.dynamic_slice_in_dim(array, start, part.shape[2], 2)
    return jax.lax.dynamic_update_slice_in_dim(array, old + part, start, 2)


def _add_bias(tiles, dbias, dlogits, row, column):
    """Adds a tile's gradient to the bias, summed over the axes the bias is shared along."""
    if dbias is None:
        return None
    shared = tuple(axis for axis in range(5) if dbias.shape[axis] == 1)
    part = jnp.sum(dlogits, axis=shared, keepdims=True)
    down = 0 if dbias.shape[3] == 1 else row * tiles.height
    along = 0 if dbias.shape[4] == 1 else column * tiles.width
    start = tuple(jnp.asarray(n, jnp.int32) for n in (0, 0, 0, down, along))
    old = jax.lax.dynamic_slice(dbias, start, part.shape)
    return jax.lax.dynamic_update_slice(dbias, old + part, start)


_blockwise.defvjp(_blockwise_forward, _blockwise_backward)
