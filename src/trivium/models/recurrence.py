"""The recurrence family: an LSTM that reads a sequence, and a linear answer from its last state."""

import jax
import jax.numpy as jnp
from flax import nnx

from trivium.kernels import lstm


class LSTMClassifier(nnx.Module):
    """Classify sequences by the state of an LSTM after the last real step.

    features: numbers a step (D). hidden: size of the state (H). classes: number of classes.

    w_ih [D, 4H], w_hh [H, 4H] and b [4H] hold the gates in the order input, forget, cell, output.
    They start as Keras's do: Glorot uniform, orthogonal, and zeros with 1 for the forget gate,
    so that a fresh network remembers (Jozefowicz et al. 2015).

    Raises ValueError where a size is not positive.
    Source: Hochreiter and Schmidhuber 1997; forget gate from Gers et al. 2000.
    """

    def __init__(self, features, hidden, classes, *, rngs: nnx.Rngs):
        for name, value in (("features", features), ("hidden", hidden), ("classes", classes)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, not {value}")
        self.w_ih, self.w_hh, self.b = lstm_parameters(features, hidden, rngs=rngs)
        self.dense = nnx.Linear(
            hidden, classes, kernel_init=nnx.initializers.glorot_uniform(), rngs=rngs
        )

    def __call__(self, sequences: jax.Array, *, lengths: jax.Array | None = None) -> jax.Array:
        """Map sequences [B, T, D] to logits [B, classes].

        lengths [B]: integer number of real steps of each sequence; what follows is padding and
        changes nothing. A sequence of length 0 is answered from the initial state, zeros.
        Sequences in float16 or bfloat16 are read in that type; the logits always have the type
        of the dense layer's parameters. Raises ValueError for other shapes and for integers.
        """
        sequences = jnp.asarray(sequences)
        features = self.w_ih.shape[0]
        if sequences.ndim != 3 or sequences.shape[-1] != features:
            raise ValueError(f"sequences must have shape [B, T, {features}], not {sequences.shape}")
        if not jnp.issubdtype(sequences.dtype, jnp.floating):
            raise ValueError(f"sequences must be floating point, not {sequences.dtype}")
        w_ih, w_hh, b = (w.astype(sequences.dtype) for w in (self.w_ih, self.w_hh, self.b))
        _, (state, _) = lstm(sequences, w_ih, w_hh, b, lengths=lengths)
        return self.dense(state.astype(self.dense.kernel.dtype))


class LSTM(nnx.Module):
    """One LSTM, outputs at every step: w_ih [D, 4H], w_hh [H, 4H], b [4H].

    features: numbers a step (D). hidden: size of the state (H). Weights start as those of
    `LSTMClassifier` do.
    """

    def __init__(self, features, hidden, *, rngs: nnx.Rngs):
        self.w_ih, self.w_hh, self.b = lstm_parameters(features, hidden, rngs=rngs)

    def __call__(self, x, **options):
        """The kernel `lstm` on x [B, T, D], with its options: (outputs [B, T, H], (h, c))."""
        return lstm(x, self.w_ih[...], self.w_hh[...], self.b[...], **options)


def lstm_parameters(features: int, hidden: int, *, rngs: nnx.Rngs) -> tuple[nnx.Param, ...]:
    """w_ih [D, 4H], w_hh [H, 4H] and b [4H], as `LSTMClassifier` says that they start."""
    glorot, orthogonal = nnx.initializers.glorot_uniform(), nnx.initializers.orthogonal()
    return (
        nnx.Param(glorot(rngs.params(), (features, 4 * hidden))),
        nnx.Param(orthogonal(rngs.params(), (hidden, 4 * hidden))),
        nnx.Param(jnp.zeros(4 * hidden).at[hidden : 2 * hidden].set(1.0)),
    )
