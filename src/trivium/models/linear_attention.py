"""Attention without the softmax: a Transformer block that carries a state, as a recurrence does."""

import jax
from flax import nnx

from trivium.kernels import linear_attention
from trivium.models.language import ShortConvolution, check_heads, linear, split_heads


class LinearAttention(nnx.Module):
    """Causal attention with weights phi(q) phi(k), phi(x) = elu(x) + 1, in place of exp(q k).

    heads divide the width. The state is a plain sum, in which the order of the positions is lost;
    a short convolution of so many taps over queries, keys and values tells what is near.
    Raises ValueError where they do not.
    Source: Katharopoulos et al. 2020; the short convolution: Yang et al. 2024.
    """

    def __init__(self, width: int, heads: int, *, taps: int = 4, rngs: nnx.Rngs):
        check_heads(width, heads)
        self.heads = heads
        self.project = linear(width, 3 * width, rngs=rngs)
        self.look_back = ShortConvolution(3 * width, taps, rngs=rngs)
        self.mix = linear(width, width, rngs=rngs)

    def __call__(self, x) -> jax.Array:
        """Map x [B, T, D] to the same shape."""
        q, k, v = self.queries_keys_values(x)
        return self.mix(linear_attention(q, k, v).reshape(x.shape))

    def queries_keys_values(self, x) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Queries and keys, made positive by phi, and values: each [B, T, N, H]."""
        q, k, v = split_heads(self.look_back(self.project(x)), self.heads)
        return jax.nn.elu(q) + 1, jax.nn.elu(k) + 1, v
