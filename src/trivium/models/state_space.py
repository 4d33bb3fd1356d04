"""A selective state-space model: a linear recurrence that decides what to keep by what it reads."""

import math

import jax
import jax.numpy as jnp
from flax import nnx

from trivium.kernels import selective_scan
from trivium.models.language import ShortConvolution, check_sizes, linear


class SelectiveStateSpace(nnx.Module):
    """Expand, look a few positions back, scan, gate, contract.

    inner: features of the scan (E). state: numbers of state for each feature (S). taps: positions
    that the short convolution before the scan sees, its own and those before. rank: through how
    many numbers the step sizes are made.

    rates [E, S] start at 1, 2, ..., S for every feature, step sizes between 0.001 and 0.1.
    Raises ValueError where a size is not positive.
    Source: Gu and Dao 2024.
    """

    def __init__(
        self,
        width: int,
        inner: int,
        *,
        state: int = 8,
        taps: int = 4,
        rank: int = 4,
        rngs: nnx.Rngs,
    ):
        check_sizes(width=width, inner=inner, state=state, taps=taps, rank=rank)
        self.state = state
        self.rank = rank
        self.expand = linear(width, 2 * inner, rngs=rngs)
        self.look_back = ShortConvolution(inner, taps, rngs=rngs)
        self.select = linear(inner, rank + 2 * state, rngs=rngs)
        self.step = linear(rank, inner, rngs=rngs)
        # Spread evenly in the logarithm, and brought behind the softplus that follows.
        low, high = math.log(1e-3), math.log(1e-1)
        sizes = jnp.exp(jax.random.uniform(rngs.params(), (inner,), minval=low, maxval=high))
        self.step_bias = nnx.Param(jnp.log(jnp.expm1(sizes)))
        rates = jnp.tile(jnp.arange(1.0, state + 1), (inner, 1))
        self.log_rates = nnx.Param(jnp.log(rates))
        self.skip = nnx.Param(jnp.ones(inner))
        self.contract = linear(inner, width, rngs=rngs)

    def __call__(self, x) -> jax.Array:
        """Map x [B, T, D] to the same shape."""
        seen, step, a, b, c, gate = self.selection(x)
        y = selective_scan(seen, step, a, b, c) + self.skip[...] * seen
        return self.contract(y * jax.nn.silu(gate))

    def selection(self, x) -> tuple[jax.Array, ...]:
        """What the scan is given for x [B, T, D], and the gate of its answer.

        (inputs [B, T, E], step sizes [B, T, E], rates [E, S], b and c [B, T, S], gate [B, T, E]).
        """
        seen, gate = jnp.split(self.expand(x), 2, axis=-1)
        seen = jax.nn.silu(self.look_back(seen))
        low_rank, b, c = jnp.split(self.select(seen), [self.rank, self.rank + self.state], axis=-1)
        step = jax.nn.softplus(self.step(low_rank) + self.step_bias[...])
        return seen, step, -jnp.exp(self.log_rates[...]), b, c, gate
