"""Linear attention: without the softmax, all that attention has seen fits a state of fixed size."""

from functools import partial

import jax
import jax.numpy as jnp

from trivium.kernels import checks, dispatch


def linear_attention(q, k, v, *, normalize=True, implementation=None) -> jax.Array:
    """Causal attention whose weights are the products themselves: y_t = q_t S_t / (q_t z_t).

    S_t = sum over s <= t of k_s v_s^T and z_t = sum of k_s: a query meets the sums of what came
    before and of its own place, not the places one by one.

    q and k [B, T, N, H], v [B, T, N, V], all of one floating type -> [B, T, N, V]; B sequences,
    T steps, N heads, H features of queries and keys, V features of values.

    normalize: divide by q_t z_t, so that the weights of a query add up to one. This asks for q and
        k above zero, such as after `elu(x) + 1`; where the divisor is 0, so is the answer. False
        leaves the sums y_t = q_t S_t.
    implementation: "reference" carries S and z from step to step, T of them; "chunked" works on
        chunks of steps, all pairs within a chunk at once and the state between chunks; None the
        fastest here.

    Sums are kept in float32 (float64 for float64 input), the answer is of q's type.
    Raises `ValueError` naming the argument where shapes, types or options do not fit.
    Source: Katharopoulos et al., "Transformers are RNNs", 2020; chunks: Hua et al., "Transformer
    quality in linear time", 2022.
    """
    sizes: dict[str, int] = {}
    q = checks.array("q", q, "B T N H", sizes)
    k = checks.array("k", k, "B T N H", sizes, q.dtype)
    v = checks.array("v", v, "B T N V", sizes, q.dtype)
    normalize = checks.flag("normalize", normalize)
    name = dispatch.choose("linear_attention", implementation, steps=sizes["T"])
    return _linear_attention(q, k, v, normalize=normalize, implementation=name)


@partial(jax.jit, static_argnames=("normalize", "implementation"))
def _linear_attention(q, k, v, *, normalize, implementation):
    if not v.size:
        return v
    kind = checks.accumulation(q.dtype)
    wide = v.astype(kind)
    if normalize:  # a value of one beside the others: its sum is the divisor
        wide = jnp.concatenate([wide, jnp.ones_like(wide[..., :1])], axis=-1)
    # [B, N, T, ...]: heads are apart, steps are the rows of matrices.
    arrays = (jnp.swapaxes(each.astype(kind), 1, 2) for each in (q, k, wide))
    form = _chunked if implementation == "chunked" else _reference
    sums = jnp.swapaxes(form(*arrays), 1, 2)
    if normalize:
        total = sums[..., -1:]
        sums = jnp.where(total == 0, 0, sums[..., :-1] / jnp.where(total == 0, 1, total))
    return sums.astype(v.dtype)


def _reference(q, k, v):
    """The definition, a step at a time."""

    def step(state, inputs):
        q_t, k_t, v_t = inputs
        state = state + k_t[..., :, None] * v_t[..., None, :]
        return state, jnp.sum(q_t[..., :, None] * state, axis=-2)

    start = jnp.zeros((*q.shape[:2], q.shape[-1], v.shape[-1]), v.dtype)
    _, sums = jax.lax.scan(step, start, tuple(jnp.moveaxis(each, 2, 0) for each in (q, k, v)))
    return jnp.moveaxis(sums, 0, 2)


# Pairs cost a chunk squared, states a product of the sizes of a head: of the same order at 64.
_CHUNK = 64


def _chunked(q, k, v):
    """Pairs within a chunk, and the state of all chunks before: products of matrices throughout."""
    batch, heads, steps, _ = q.shape
    size = min(_CHUNK, steps)
    count = -(-steps // size)
    # Keys of zero at the end add nothing to what comes before them.
    widths = ((0, 0), (0, 0), (0, count * size - steps), (0, 0))
    q, k, v = (jnp.pad(each, widths).reshape(batch, heads, count, size, -1) for each in (q, k, v))
    pairs = jnp.einsum("bnctd,bncsd->bncts", q, k)
    within = jnp.tril(pairs) @ v
    added = jnp.einsum("bncsd,bncsv->bncdv", k, v)
    # Shifted, not the sum minus its last term: no rounding of what is yet to come gets in.
    first = jnp.zeros_like(added[:, :, :1])
    before = jnp.cumsum(jnp.concatenate([first, added[:, :, :-1]], axis=2), axis=2)
    return (within + q @ before).reshape(batch, heads, count * size, -1)[:, :, :steps]
