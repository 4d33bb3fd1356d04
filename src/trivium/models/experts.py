"""A mixture of experts: many feed-forward layers, of which each position uses a few."""

import math

import jax
import jax.numpy as jnp
from flax import nnx

from trivium.models.language import check_sizes, linear


class MixtureOfExperts(nnx.Module):
    """A router sends each position to the experts that it scores highest and mixes their answers.

    hidden: width of each expert's hidden layer. experts: how many there are (E). chosen: how many
    a position uses (K). capacity: in training (`model.train()`) an expert takes at most capacity
    times its fair share of a batch, in the order of the batch; what comes later is passed by, and
    its position keeps what the residual path carries. At first, and after `model.eval()`, nothing
    is passed by: every expert calculates every position, with a weight of zero where it was not
    chosen.

    The weights are the softmax over the chosen scores. The balance loss is E times the sum over
    experts of (share of choices that fell on it) * (mean probability that the router gave it):
    1 where all are used alike, up to E where one is.

    Raises ValueError where a size is not positive, `chosen` exceeds `experts`, or the capacity is
    below 1.
    Source: Shazeer et al. 2017; balance and capacity: Fedus et al. 2022.
    """

    def __init__(
        self,
        width: int,
        hidden: int,
        experts: int,
        *,
        chosen: int = 2,
        capacity: float = 1.5,
        rngs: nnx.Rngs,
    ):
        check_sizes(width=width, hidden=hidden, experts=experts, chosen=chosen)
        if chosen > experts:
            raise ValueError(f"chosen must be at most experts={experts}, not {chosen}")
        if capacity < 1:
            raise ValueError(f"capacity must be at least 1, not {capacity}")
        self.chosen = chosen
        self.capacity = capacity
        self.deterministic = True  # what model.train() and model.eval() set
        self.router = linear(width, experts, rngs=rngs)
        start = nnx.initializers.variance_scaling(1.0, "fan_in", "normal", batch_axis=0)
        self.expand = nnx.Param(start(rngs.params(), (experts, width, hidden)))
        self.contract = nnx.Param(start(rngs.params(), (experts, hidden, width)))

    def __call__(self, x) -> tuple[jax.Array, jax.Array]:
        """Map x [..., D] to the same shape and the balance loss."""
        rows = x.reshape(-1, x.shape[-1])
        weights, experts, probabilities = self.route(rows)
        form = self._every_expert if self.deterministic else self._by_capacity
        balance = balance_loss(experts, probabilities)
        return form(rows, weights, experts).reshape(x.shape), balance

    def route(self, x) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Weights and numbers of the experts chosen for x [..., D], both [..., K], best first.

        Third, the probability of every expert, [..., E].
        """
        scores = self.router(x)
        best, experts = jax.lax.top_k(scores, self.chosen)
        return jax.nn.softmax(best), experts, jax.nn.softmax(scores)

    def slots(self, rows: int) -> int:
        """How many of so many rows an expert takes in training."""
        return math.ceil(self.capacity * self.chosen * rows / self.expand.shape[0])

    def places(self, experts) -> jax.Array:
        """In which slot of its expert each choice [M, K] comes to stand, first choices first."""
        order = experts.T.reshape(-1)  # all first choices of the batch, then all second ones
        taken = jax.nn.one_hot(order, self.expand.shape[0], dtype=jnp.int32)
        before = jnp.sum((jnp.cumsum(taken, axis=0) - taken) * taken, axis=-1)
        return before.reshape(experts.T.shape).T

    def _every_expert(self, rows, weights, experts):
        hidden = jax.nn.gelu(jnp.einsum("md,edh->meh", rows, self.expand[...]))
        spread = jax.nn.one_hot(experts, self.expand.shape[0], dtype=weights.dtype)
        share = jnp.einsum("mk,mke->me", weights, spread)
        return jnp.einsum("meh,ehd->md", hidden * share[..., None], self.contract[...])

    def _by_capacity(self, rows, weights, experts):
        """Each expert calculates only the rows in its slots, [E, slots, D]."""
        count, slots = self.expand.shape[0], self.slots(len(rows))
        places = self.places(experts)
        kept = places < slots
        # A choice without a slot is sent to one past the end, which is dropped.
        seats = jnp.where(kept, experts * slots + places, count * slots)
        sources = jnp.broadcast_to(jnp.arange(len(rows))[:, None], seats.shape)
        table = jnp.full(count * slots + 1, len(rows)).at[seats].set(sources)[:-1]
        padded = jnp.concatenate([rows, jnp.zeros_like(rows[:1])])
        inputs = padded[table].reshape(count, slots, -1)
        answers = jax.nn.gelu(inputs @ self.expand[...]) @ self.contract[...]
        answers = answers.reshape(count * slots, -1)
        found = jnp.take(answers, seats, axis=0, mode="fill", fill_value=0)
        return jnp.sum(jnp.where(kept, weights, 0.0)[..., None] * found, axis=1)


def balance_loss(experts, probabilities) -> jax.Array:
    """E times the sum over experts of share of choices times mean probability; 1 at balance.

    experts [M, K]: the choices. probabilities [M, E]: what the router gave every expert.
    Source: Fedus et al. 2022, eq. 4.
    """
    experts, probabilities = jnp.asarray(experts), jnp.asarray(probabilities)
    count = probabilities.shape[-1]
    chosen = jax.nn.one_hot(experts, count, dtype=probabilities.dtype)
    share = chosen.mean(axis=tuple(range(experts.ndim)))
    return count * jnp.sum(share * probabilities.mean(axis=tuple(range(probabilities.ndim - 1))))
