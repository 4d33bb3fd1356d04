"""What the kernels' tests share: outputs with every gradient, and how near is near."""

import jax
import jax.numpy as jnp
import numpy as np

from trivium import kernels

# Every kernel that the table of implementations must have. Quantization is rounding: it has one
# form, no gradient, and tests of its own.
KERNELS = sorted(set(kernels.__all__) - {"implementations", "Quantized", "quantize", "dequantize"})


def normal(seed, *shape, dtype=np.float32):
    """Fixed random numbers, the same on every machine."""
    return np.random.default_rng(seed).normal(size=shape).astype(dtype)


def outcome(function, *arrays):
    """The outputs, and the gradient of a fixed weighting of them with respect to each array."""

    @jax.jit
    def run(*arrays):
        outputs, pull = jax.vjp(function, *arrays)
        return outputs, pull(cotangents(outputs))

    return run(*(jnp.asarray(array) for array in arrays))


def cotangents(outputs):
    """Weights that differ from place to place, so that no gradient hides behind a symmetry.

    Multiples of 1/16: the same numbers in every type.
    """

    def weights(array):
        return jnp.asarray(uneven(array.shape), array.dtype)

    return jax.tree.map(weights, outputs)


def uneven(shape):
    """The weights of `cotangents` for one array."""
    ramp = np.cos(np.arange(np.prod(shape, dtype=int), dtype=np.float64))
    return (np.round(16 * ramp) / 16).reshape(shape).astype(np.float32)


def agree(actual, expected, precision=1e-5):
    """Fails unless both trees of arrays are equal up to `precision` of their size."""
    pairs = zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True)
    for number, pair in enumerate(pairs):
        one, other = (np.asarray(array, np.float64) for array in pair)
        size = np.max(np.abs(other), initial=0.0)
        np.testing.assert_allclose(
            one, other, rtol=precision, atol=precision * size, err_msg=f"array {number}"
        )


def narrow_agrees(function, *arrays):
    """Fails unless bfloat16 comes within its precision of the float64 answer.

    The arrays are first rounded to bfloat16, so that only the calculation can differ: outputs by
    2^-8 of the largest, gradients, which pass through a rounded output, by 2^-7.
    """
    rounded = [jnp.asarray(array, jnp.bfloat16) for array in arrays]
    outputs, gradients = outcome(function, *rounded)
    assert all(leaf.dtype == jnp.bfloat16 for leaf in jax.tree.leaves((outputs, gradients)))
    with jax.enable_x64(True):
        wide = [jnp.asarray(np.asarray(array, np.float64)) for array in rounded]
        exact, exact_gradients = outcome(function, *wide)
        assert all(leaf.dtype == jnp.float64 for leaf in jax.tree.leaves(exact))
    for actual, expected, precision in (
        (outputs, exact, 2.0**-8),
        (gradients, exact_gradients, 2.0**-7),
    ):
        pairs = zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True)
        for pair in pairs:
            one, other = (np.asarray(array, np.float64) for array in pair)
            assert np.max(np.abs(one - other)) <= precision * np.max(np.abs(other))


def wide(*arrays):
    """The arrays in float64; call it inside `jax.enable_x64(True)`."""
    return [jnp.asarray(np.asarray(array, np.float64)) for array in arrays]


def lowered(function, *arrays):
    """The text that the compiler is handed, in which it shows which implementation runs."""
    return jax.jit(function).lower(*arrays).as_text()
