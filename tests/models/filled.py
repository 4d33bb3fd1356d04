"""Models without drawing their weights by JAX, which would compile a program for every shape."""

import jax.numpy as jnp
import numpy as np
from flax import nnx


def filled(build, seed=0):
    """The model that build() makes, kernels He-normal by NumPy, everything else as it starts."""
    model = nnx.eval_shape(build)
    random = np.random.default_rng(seed)
    start = {"bias": 0, "mean": 0, "scale": 1, "var": 1}
    state = [
        (
            path,
            leaf.replace(
                jnp.full(leaf.shape, start[path[-1]], jnp.float32)
                if path[-1] in start
                else jnp.asarray(
                    random.normal(0, (2 / np.prod(leaf.shape[:-1])) ** 0.5, leaf.shape), jnp.float32
                )
            ),
        )
        for path, leaf in nnx.to_flat_state(nnx.state(model))
    ]
    nnx.update(model, nnx.from_flat_state(state))
    return model
