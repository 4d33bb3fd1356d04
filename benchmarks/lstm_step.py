"""How long does a training step of an LSTM(64) take, on 100 steps of 16 features?

The network: an LSTM with 64 cells, and a dense layer from its last state to 10 classes. The step:
forward, backward, Adam. float32, 32 and 128 sequences at a time.
"""

import _harness
import _training
import numpy as np
from _harness import Case, Target

FEATURES, HIDDEN, STEPS, CLASSES = 16, 64, 100, 10


def weights():
    """w_ih [D, 4H], w_hh [H, 4H], b [4H], kernel [H, classes], bias [classes]; gates i, f, g, o."""
    random = np.random.default_rng(1)
    b = np.zeros(4 * HIDDEN, np.float32)
    b[HIDDEN : 2 * HIDDEN] = 1
    return (
        _training.glorot(random, FEATURES, 4 * HIDDEN),
        _training.glorot(random, HIDDEN, 4 * HIDDEN),
        b,
        _training.glorot(random, HIDDEN, CLASSES),
        np.zeros(CLASSES, np.float32),
    )


def data(batch):
    """Sequences [BATCHES, B, T, D] and labels."""
    return _training.batches((batch, STEPS, FEATURES), CLASSES)


def trivium(batch):
    """The package's model."""
    from flax import nnx

    from trivium.models import LSTMClassifier

    model = LSTMClassifier(FEATURES, HIDDEN, CLASSES, rngs=nnx.Rngs(0))
    parameters = model.w_ih, model.w_hh, model.b, model.dense.kernel, model.dense.bias
    for parameter, value in zip(parameters, weights(), strict=True):
        parameter[...] = value
    return {"LSTMClassifier": _training.in_nnx(model, data(batch))}


def stock(batch):
    """The equations in a lax.scan, the inputs' product taken out of it or left inside."""
    import jax
    import jax.numpy as jnp

    def logits(weights, sequences, *, outside):
        w_ih, w_hh, b, kernel, bias = weights
        inputs = jnp.swapaxes(sequences, 0, 1)

        def step(state, x):
            h, c = state
            i, f, g, o = jnp.split((x if outside else x @ w_ih + b) + h @ w_hh, 4, axis=-1)
            c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
            return (jax.nn.sigmoid(o) * jnp.tanh(c), c), None

        zeros = jnp.zeros((len(sequences), HIDDEN))
        (h, _), _ = jax.lax.scan(step, (zeros, zeros), inputs @ w_ih + b if outside else inputs)
        return h @ kernel + bias

    return {
        name: _training.in_jax(
            lambda *args, outside=outside: logits(*args, outside=outside), weights(), data(batch)
        )
        for name, outside in (("product outside", True), ("product inside", False))
    }


def pytorch(batch):
    """nn.LSTM and nn.Linear, batch or time first."""
    import torch

    class Classifier(torch.nn.Module):
        def __init__(self, batch_first):
            super().__init__()
            self.lstm = torch.nn.LSTM(FEATURES, HIDDEN, batch_first=batch_first)
            self.dense = torch.nn.Linear(HIDDEN, CLASSES)
            w_ih, w_hh, b, kernel, bias = map(torch.from_numpy, weights())
            with torch.no_grad():
                self.lstm.weight_ih_l0.copy_(w_ih.T)
                self.lstm.weight_hh_l0.copy_(w_hh.T)
                self.lstm.bias_ih_l0.copy_(b)
                self.lstm.bias_hh_l0.zero_()
                self.dense.weight.copy_(kernel.T)
                self.dense.bias.copy_(bias)
            # Two biases that are added would take every update twice.
            self.lstm.bias_hh_l0.requires_grad_(False)

        def forward(self, x):
            _, (h, _) = self.lstm(x)
            return self.dense(h[0])

    found = {}
    inputs, labels = data(batch)
    for batch_first in (True, False):
        for name, optimizer in _training.torch_optimizers().items():
            x = [torch.from_numpy(each) for each in inputs]
            if not batch_first:
                x = [each.transpose(0, 1).contiguous() for each in x]
            order = "batch first" if batch_first else "time first"
            found[f"{order}, {name}"] = _training.in_torch(
                Classifier(batch_first), (x, labels), optimizer
            )
    return found


def _keras(backend, batch):
    def build():
        import keras

        sequences = keras.layers.Input((STEPS, FEATURES))
        state = keras.layers.LSTM(HIDDEN)(sequences)
        return keras.Model(sequences, keras.layers.Dense(CLASSES)(state))

    return _training.in_keras(backend, build, weights(), data(batch))


def keras_tensorflow(batch):
    """Keras's layers on TensorFlow."""
    return _keras("tensorflow", batch)


def keras_jax(batch):
    """Keras's layers on JAX."""
    return _keras("jax", batch)


PEERS = {
    "PyTorch": pytorch,
    "Keras on TensorFlow": keras_tensorflow,
    "Keras on JAX": keras_jax,
    "JAX, lax.scan": stock,
}

if __name__ == "__main__":
    targets = (Target(tuple(PEERS), 1.0, 1.5),)
    _harness.main(
        "lstm_step",
        "a training step of an LSTM(64), 16 features, 100 steps",
        "one step: forward, backward, Adam",
        competitors={_harness.OURS: trivium, **PEERS},
        cases=[Case(f"batch {batch}", (batch,), targets) for batch in (32, 128)],
        packages=("jax", "jaxlib", "flax", "optax", "torch", "keras", "tensorflow"),
        description=__doc__,
    )
