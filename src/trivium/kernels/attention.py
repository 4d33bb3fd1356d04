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
    if not q.size:
        return q
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
    places, keys = jnp.arange(q.shape[3]) + shift, jnp.arange(k.shape[2])
    products = _mix("bkgth,bksh->bkgts", q, k)
    logits = _hide(products, mask, bias, lengths, places, keys, options)
    weights = _softmax(logits)
    return _mix("bkgts,bksh->bkgth", weights, v).astype(q.dtype)


def _hide(products, mask, bias, lengths, places, keys, options):
    """Products q k^T, scaled and biased; -inf where a query at one of `places` may not see a key.

    products [B, K, G, places, keys]; mask and bias broadcast to it; lengths [B].
    """
    logits = products * options.scale
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


# Queries and keys of a tile, and the weights of all heads that are worked on together: few enough
# to stay in the caches, enough to give all cores work.
_TILE = 512
_WEIGHTS = 2 * _TILE**2


@partial(jax.custom_vjp, nondiff_argnums=(6,))
def _blockwise(q, k, v, mask, bias, lengths, options):
    """The reference a tile at a time, the softmax's maximum and sum corrected as it goes."""
    return _blockwise_forward(q, k, v, mask, bias, lengths, options)[0]


def _divisor(n, limit):
    """The largest divisor of n up to a limit, at least 1."""
    return next(d for d in range(max(min(n, limit), 1), 0, -1) if n % d == 0)


class _Tiles:
    """How the queries and keys of attention are cut into tiles, and heads into pieces.

    Queries and keys are filled up with zeros to whole tiles; keys added that way are not seen.
    A piece is some key heads of one sequence, or all of several sequences, with the query heads
    that read them: q and what is shaped like it [P, B', K', G, T, ...], k and v [P, B', K', S, H],
    where P counts the pieces and B' x K' are a piece's heads. Within a tile a key head's G x height
    queries are the rows of one matrix.
    """

    def __init__(self, q, k, mask, bias, lengths, options):
        self.batch, self.key_heads, self.group, self.queries, self.size = q.shape
        self.keys = k.shape[2]
        sizes = [max(n, 1) for n in (self.queries, self.keys)]  # nothing at all fills one tile
        self.height, self.width = (min(_TILE, n) for n in sizes)
        self.rows, self.columns = -(-sizes[0] // self.height), -(-sizes[1] // self.width)
        room = _WEIGHTS // (self.group * self.height * self.width)
        heads = _divisor(self.key_heads, room)
        sequences = _divisor(self.batch, room // heads) if heads == self.key_heads else 1
        self.together = (sequences, heads)
        self.pieces = self.batch * self.key_heads // (sequences * heads)
        self.mask, self.bias = (self._fill_both(extra) for extra in (mask, bias))
        self.options = options
        self.lengths = lengths
        if lengths is None and self.columns * self.width > self.keys:
            self.lengths = jnp.full((self.batch,), self.keys, jnp.int32)

    def _fill_both(self, extra):
        if extra is None:
            return None
        for axis, count, size in ((3, self.rows, self.height), (4, self.columns, self.width)):
            if extra.shape[axis] != 1:
                extra = _fill(extra, axis, count * size)
        return extra

    def cut_queries(self, array):
        """[B, K, G, T, ...] -> [P, B', K', G, rows * height, ...]."""
        array = _fill(array, 3, self.rows * self.height)
        return array.reshape(self.pieces, *self.together, *array.shape[2:])

    def cut_keys(self, array):
        """[B, K, S, H] -> [P, B', K', columns * width, H]."""
        array = _fill(array, 2, self.columns * self.width)
        return array.reshape(self.pieces, *self.together, *array.shape[2:])

    def join_queries(self, array):
        """The inverse of `cut_queries`."""
        array = array.reshape(self.batch, self.key_heads, *array.shape[3:])
        return array[:, :, :, : self.queries]

    def of_queries(self, array, row):
        """A piece [B', K', G, T, ...] -> one row of tiles of it, [B', K', G * height, ...]."""
        part = jax.lax.dynamic_slice_in_dim(array, row * self.height, self.height, 3)
        return part.reshape(*self.together, self.group * self.height, *array.shape[4:])

    def of_keys(self, array, column):
        """A piece [B', K', S, H] -> one column of tiles of it, [B', K', width, H]."""
        return jax.lax.dynamic_slice_in_dim(array, column * self.width, self.width, 2)

    def corner(self, extra, piece, row, column):
        """Where a tile begins in a mask, bias or gradient of one, and its shape there."""
        sequence, head = divmod(piece * math.prod(self.together), self.key_heads)
        start = (sequence, head, 0, row * self.height, column * self.width)
        shape = (*self.together, self.group, self.height, self.width)
        shared = [size == 1 for size in extra.shape]
        first = [0 if one else n for one, n in zip(shared, start, strict=True)]
        sizes = [1 if one else n for one, n in zip(shared, shape, strict=True)]
        return [jnp.asarray(n, jnp.int32) for n in first], sizes

    def logits(self, q_row, k_tile, piece, row, column):
        """The logits of one tile, [B', K', G * height, width]; -inf where a key is not seen."""
        mask, bias = (
            extra
            if extra is None
            else jax.lax.dynamic_slice(extra, *self.corner(extra, piece, row, column))
            for extra in (self.mask, self.bias)
        )
        lengths = self.lengths
        if lengths is not None:
            sequence = piece * math.prod(self.together) // self.key_heads
            lengths = jax.lax.dynamic_slice_in_dim(lengths, sequence, self.together[0])
        first = row * self.height + self.keys - self.queries
        products = _mix("bkrh,bksh->bkrs", q_row, k_tile)
        logits = _hide(
            products.reshape(*self.together, self.group, self.height, self.width),
            mask,
            bias,
            lengths,
            first + jnp.arange(self.height),
            column * self.width + jnp.arange(self.width),
            self.options,
        )
        return logits.reshape(products.shape)

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
    if array.shape[axis] == size:
        return array
    widths = [(0, 0)] * array.ndim
    widths[axis] = (0, size - array.shape[axis])
    return jnp.pad(array, widths)


def _blockwise_forward(q, k, v, mask, bias, lengths, options):
    tiles = _Tiles(q, k, mask, bias, lengths, options)
    kind = checks.accumulation(q.dtype)
    rows = (*tiles.together, tiles.group * tiles.height)

    def piece(arrays):
        index, q, k, v = arrays

        def row_of_tiles(row):
            first, past = tiles.seen(row)
            q_row = tiles.of_queries(q, row)

            def add_tile(column, carry):
                peak, total, out = carry
                logits = tiles.logits(q_row, tiles.of_keys(k, column), index, row, column)
                higher = jnp.maximum(peak, jnp.max(logits, axis=-1))
                base = jnp.where(higher == -jnp.inf, 0.0, higher)
                weights = jnp.exp(logits - base[..., None])
                # What was summed so far was relative to the old peak.
                correction = jnp.exp(peak - base)
                total = total * correction + jnp.sum(weights, axis=-1)
                mixed = _mix("bkrs,bksh->bkrh", weights, tiles.of_keys(v, column))
                return higher, total, out * correction[..., None] + mixed

            start = (
                jnp.full(rows, -jnp.inf, kind),
                jnp.zeros(rows, kind),
                jnp.zeros((*rows, tiles.size), kind),
            )
            peak, total, out = jax.lax.fori_loop(first, past, add_tile, start)
            empty = total == 0
            total = jnp.where(empty, 1.0, total)
            # exp(logit - normalizer) is the weight; +inf makes an empty row's weights zero.
            normalizer = jnp.where(empty, jnp.inf, peak + jnp.log(total))
            return (out / total[..., None]).astype(q.dtype), normalizer

        return jax.tree.map(
            partial(_join, tiles), jax.lax.map(row_of_tiles, jnp.arange(tiles.rows))
        )

    out, normalizer = jax.lax.map(
        piece,
        (jnp.arange(tiles.pieces), tiles.cut_queries(q), tiles.cut_keys(k), tiles.cut_keys(v)),
    )
    out = tiles.join_queries(out)
    return out, (q, k, v, mask, bias, lengths, out, normalizer)


def _join(tiles, rows):
    """Rows of tiles [rows, B', K', G * height, ...] -> a piece [B', K', G, rows * height, ...]."""
    rows = rows.reshape(tiles.rows, *tiles.together, tiles.group, tiles.height, *rows.shape[4:])
    rows = jnp.moveaxis(rows, 0, 3)
    return rows.reshape(*rows.shape[:3], tiles.rows * tiles.height, *rows.shape[5:])


def _blockwise_backward(options, residuals, g):
    """Recomputes each tile's weights from the normalizers, then the chain rule of softmax."""
    q, k, v, mask, bias, lengths, out, normalizer = residuals
    tiles = _Tiles(q, k, mask, bias, lengths, options)
    kind = checks.accumulation(q.dtype)
    # sum over s of weight * d weight, which is the same as out . d out.
    delta = jnp.sum(out.astype(kind) * g.astype(kind), axis=-1)

    def piece(dbias, arrays):
        index, q, k, v, g, delta, normalizer = arrays

        def row_of_tiles(sums, row):
            first, past = tiles.seen(row)
            q_row, g_row = tiles.of_queries(q, row), tiles.of_queries(g, row)
            delta_row = tiles.of_queries(delta, row)[..., None]
            normalizer_row = tiles.of_queries(normalizer, row)[..., None]

            def add_tile(column, carry):
                dq, dk, dv, dbias = carry
                k_tile, v_tile = tiles.of_keys(k, column), tiles.of_keys(v, column)
                logits = tiles.logits(q_row, k_tile, index, row, column)
                weights = jnp.exp(logits - normalizer_row)
                dlogits = weights * (_mix("bkrh,bksh->bkrs", g_row, v_tile) - delta_row)
                dq += _mix("bkrs,bksh->bkrh", dlogits, k_tile)
                # As [H, keys]: the large matrix is then read in the order in which it lies.
                dk = dk.at[column].add(_mix("bkrs,bkrh->bkhs", dlogits, q_row))
                dv = dv.at[column].add(_mix("bkrs,bkrh->bkhs", weights, g_row))
                return dq, dk, dv, _add_bias(tiles, dbias, dlogits, index, row, column)

            dq, *sums = jax.lax.fori_loop(
                first, past, add_tile, (jnp.zeros(q_row.shape, kind), *sums)
            )
            return tuple(sums), dq

        zeros = jnp.zeros((tiles.columns, *tiles.together, tiles.size, tiles.width), kind)
        (dk, dv, dbias), dq = jax.lax.scan(
            row_of_tiles, (zeros, zeros, dbias), jnp.arange(tiles.rows)
        )
        dq = (_join(tiles, dq) * options.scale).astype(q.dtype)
        dk, dv = (jnp.transpose(y, (1, 2, 0, 4, 3)) for y in (dk * options.scale, dv))
        return dbias, (dq, dk.astype(k.dtype), dv.astype(v.dtype))

    arrays = (*map(tiles.cut_queries, (q,)), *map(tiles.cut_keys, (k, v)))
    arrays = (*arrays, *map(tiles.cut_queries, (g, delta)), normalizer)
    start = None if bias is None else jnp.zeros(tiles.bias.shape, kind)
    dbias, (dq, dk, dv) = jax.lax.scan(piece, start, (jnp.arange(tiles.pieces), *arrays))
    shape = (tiles.batch, tiles.key_heads, tiles.columns * tiles.width, tiles.size)
    dk, dv = (y.reshape(shape)[:, :, : tiles.keys] for y in (dk, dv))
    if bias is not None and dbias is not None:
        dbias = dbias[:, :, :, : bias.shape[3], : bias.shape[4]].astype(bias.dtype)
    return tiles.join_queries(dq), dk, dv, None, dbias, None


def _add_bias(tiles, dbias, dlogits, piece, row, column):
    """Adds a tile's gradient to the bias, summed over the axes the bias is shared along."""
    if dbias is None:
        return None
    dlogits = dlogits.reshape(*tiles.together, tiles.group, tiles.height, tiles.width)
    shared = tuple(axis for axis in range(5) if dbias.shape[axis] == 1)
    start, shape = tiles.corner(dbias, piece, row, column)
    old = jax.lax.dynamic_slice(dbias, start, shape)
    part = jnp.sum(dlogits, axis=shared, keepdims=True)
    return jax.lax.dynamic_update_slice(dbias, old + part, start)


_blockwise.defvjp(_blockwise_forward, _blockwise_backward)
