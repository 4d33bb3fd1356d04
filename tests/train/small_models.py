"""Small models and data for the tests of training, also for their child processes."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx


class Dense(nnx.Module):
    """Dense, batch normalization, dropout, dense: everything that a step must carry."""

    calls = 0  # how often Python has run a forward pass

    def __init__(self, features=4, classes=3, *, dropout=0.3, rngs):
        self.first = nnx.Linear(features, 8, rngs=rngs)
        self.norm = nnx.BatchNorm(8, rngs=rngs)
        self.dropout = nnx.Dropout(dropout, rngs=rngs)
        self.last = nnx.Linear(8, classes, rngs=rngs)

    def __call__(self, x):
        type(self).calls += 1
        return self.last(self.dropout(jax.nn.relu(self.norm(self.first(x)))))


class Linear(nnx.Module):
    """Softmax regression."""

    def __init__(self, features=4, classes=3, *, rngs):
        self.dense = nnx.Linear(features, classes, rngs=rngs)

    def __call__(self, x):
        return self.dense(x)


class Bag(nnx.Module):
    """The masked mean of embedded tokens, or of vectors."""

    def __init__(self, features=None, *, rngs):
        make = (
            nnx.Embed(20, 6, rngs=rngs) if features is None else nnx.Linear(features, 6, rngs=rngs)
        )
        self.read, self.answer = make, nnx.Linear(6, 2, rngs=rngs)
        self.read, self.answer, self.widths = make, nnx.Linear(6, 2, rngs=rngs), nnx.static(())

    def __call__(self, x, *, lengths):
        inside = jnp.arange(x.shape[1]) < lengths[:, None]
        total = jnp.where(inside[..., None], self.read(x), 0.0).sum(axis=1)
        return self.answer(total / jnp.maximum(lengths, 1).astype(jnp.float32)[:, None])


def points(count, *, seed=0, features=4, classes=3):
    """Points [count, features] and labels that a linear map separates."""
    random = np.random.default_rng(seed)
    x = random.normal(size=(count, features)).astype(np.float32)
    return x, (x @ random.normal(size=(features, classes))).argmax(axis=1).astype(np.int32)


def sentences(count, *, seed=0, longest=12):
    """Token sequences of length 1 to longest, labeled by whether their mean is above the middle."""
    random = np.random.default_rng(seed)
    tokens = [random.integers(0, 20, random.integers(1, longest + 1)) for _ in range(count)]
    return tokens, np.array([int(t.mean() > 9.5) for t in tokens], np.int32)


def leaves(model):
    """All arrays of a model on the host, random streams included."""

    def host(leaf):
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            leaf = jax.random.key_data(leaf)
        return np.array(leaf)

    return [host(leaf) for leaf in jax.tree.leaves(nnx.state(model))]
