"""The plain network, of no family: dense layers with an activation between them."""

import math
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from flax import nnx


class MLP(nnx.Module):
    """Classify vectors by hidden dense layers, each followed by an activation, and a dense answer.

    features: numbers an example (D). hidden: width of the hidden layer, or of each of them in
    order; () leaves softmax regression. classes: number of classes. activation: applied after
    every hidden layer; it has no parameters and is not trained.

    Hidden weights start normal with variance 2 / (inputs of the layer), so that ReLU keeps the
    size of the signal; those of the answer are Glorot uniform, and biases are zero.

    Raises ValueError where a size is not positive.
    Source: Rumelhart et al. 1986; the start of the hidden layers from He et al. 2015.
    """

    def __init__(
        self,
        features: int,
        hidden: int | Sequence[int],
        classes: int,
        *,
        activation: Callable[[jax.Array], jax.Array] = jax.nn.relu,
        rngs: nnx.Rngs,
    ):
        widths = (hidden,) if isinstance(hidden, int) else tuple(hidden)
        sizes = [("features", features), *(("hidden", width) for width in widths)]
        for name, value in [*sizes, ("classes", classes)]:
            if value < 1:
                raise ValueError(f"{name} must be at least 1, not {value}")
        he, glorot = nnx.initializers.he_normal(), nnx.initializers.glorot_uniform()
        self.hidden = nnx.List(
            nnx.Linear(before, after, kernel_init=he, rngs=rngs)
            for before, after in zip((features, *widths), widths, strict=False)
        )
        self.dense = nnx.Linear((features, *widths)[-1], classes, kernel_init=glorot, rngs=rngs)
        self.activation = activation
        self.features = features

    def __call__(self, x: jax.Array) -> jax.Array:
        """Map x [B, D], or [B, ...] with D numbers an example, to logits [B, classes].

        Images and the like are flattened, last axis fastest. Everything is computed in the type of
        the parameters. Raises ValueError for other shapes and for integers.
        """
        return self.dense(self.layers(x)[-1] if len(self.hidden) else self._checked(x))

    def layers(self, x: jax.Array) -> list[jax.Array]:
        """What each hidden layer hands on, for figures: arrays [B, width], after the activation."""
        x = self._checked(x)
        outputs = []
        for layer in self.hidden:
            x = self.activation(layer(x))
            outputs.append(x)
        return outputs

    def _checked(self, x) -> jax.Array:
        x = jnp.asarray(x)
        if x.ndim < 2 or math.prod(x.shape[1:]) != self.features:
            raise ValueError(
                f"x must have shape [B, {self.features}], or more axes of as many numbers, "
                f"not {x.shape}"
            )
        if not jnp.issubdtype(x.dtype, jnp.floating):
            raise ValueError(f"x must be floating point, not {x.dtype}: scale pixels to [0, 1]")
        return x.reshape(len(x), -1).astype(self.dense.kernel.dtype)
