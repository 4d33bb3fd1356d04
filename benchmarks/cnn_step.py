"""How long does a training step of the article's CNN take?

The network: 32 filters of 3x3 on 28x28 gray images, ReLU, 2x2 max-pooling, and a dense layer to 10
classes (54,410 parameters). The step: forward, backward, Adam. float32, 32 and 128 images at a
time.
"""

import _harness
import _training
import numpy as np
from _harness import Case, Target

SIZE, FILTERS, CLASSES = 28, 32, 10
POOLED = (SIZE - 2) // 2


def weights():
    """Filters [3, 3, 1, F] and their bias [F]; kernel [features, classes] and bias [classes]."""
    random = np.random.default_rng(1)
    return (
        _training.glorot(random, 3, 3, 1, FILTERS),
        np.zeros(FILTERS, np.float32),
        _training.glorot(random, POOLED * POOLED * FILTERS, CLASSES),
        np.zeros(CLASSES, np.float32),
    )


def data(batch):
    """Images [BATCHES, B, H, W, 1] and labels."""
    return _training.batches((batch, SIZE, SIZE, 1), CLASSES)


def trivium(batch):
    """The package's model."""
    from flax import nnx

    from trivium.models import ConvClassifier

    model = ConvClassifier(CLASSES, rngs=nnx.Rngs(0))
    parameters = model.conv.kernel, model.conv.bias, model.dense.kernel, model.dense.bias
    for parameter, value in zip(parameters, weights(), strict=True):
        parameter[...] = value
    return {"ConvClassifier": _training.in_nnx(model, data(batch))}


def stock(batch):
    """The compiler's own convolution and windowed maximum, as flax.nnx calls them."""
    import jax
    from jax import lax

    def logits(weights, images):
        filters, offset, kernel, bias = weights
        maps = lax.conv_general_dilated(
            images, filters, (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        maps = jax.nn.relu(maps + offset)
        window = (1, 2, 2, 1)
        pooled = lax.reduce_window(maps, -np.inf, lax.max, window, window, "VALID")
        return pooled.reshape(len(pooled), -1) @ kernel + bias

    return {"NHWC": _training.in_jax(logits, weights(), data(batch))}


def pytorch(batch):
    """The modules of torch.nn, with both layouts of memory."""
    import torch

    class Classifier(torch.nn.Module):
        def __init__(self, layout):
            super().__init__()
            self.layout = layout
            self.conv = torch.nn.Conv2d(1, FILTERS, 3)
            self.dense = torch.nn.Linear(POOLED * POOLED * FILTERS, CLASSES)
            filters, offset, kernel, bias = map(torch.from_numpy, weights())
            if layout == torch.contiguous_format:
                # This layout flattens channels first.
                kernel = kernel.reshape(POOLED, POOLED, FILTERS, CLASSES)
                kernel = kernel.permute(2, 0, 1, 3).reshape(-1, CLASSES)
            with torch.no_grad():
                self.conv.weight.copy_(filters.permute(3, 2, 0, 1))
                self.conv.bias.copy_(offset)
                self.dense.weight.copy_(kernel.T)
                self.dense.bias.copy_(bias)

        def forward(self, x):
            x = torch.nn.functional.max_pool2d(torch.relu(self.conv(x)), 2)
            if self.layout == torch.channels_last:
                x = x.permute(0, 2, 3, 1)
            return self.dense(x.flatten(1))

    images, labels = data(batch)
    layouts = {"channels last": torch.channels_last, "contiguous": torch.contiguous_format}
    found = {}
    for layout, memory in layouts.items():
        x = [
            torch.from_numpy(each).permute(0, 3, 1, 2).contiguous(memory_format=memory)
            for each in images
        ]
        for name, optimizer in _training.torch_optimizers().items():
            model = Classifier(memory).to(memory_format=memory)
            found[f"{layout}, {name}"] = _training.in_torch(model, (x, labels), optimizer)
    return found


def _keras(backend, batch):
    def build():
        from keras import Model, layers

        images = layers.Input((SIZE, SIZE, 1))
        x = layers.Conv2D(FILTERS, (3, 3), activation="relu")(images)
        x = layers.MaxPooling2D((2, 2))(x)
        return Model(images, layers.Dense(CLASSES)(layers.Flatten()(x)))

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
    "JAX, lax.conv": stock,
}

if __name__ == "__main__":
    targets = (Target(tuple(PEERS), 1.3, 2),)
    _harness.main(
        "cnn_step",
        "a training step of the article's CNN",
        "one step: forward, backward, Adam",
        competitors={_harness.OURS: trivium, **PEERS},
        cases=[Case(f"batch {batch}", (batch,), targets) for batch in (32, 128)],
        packages=("jax", "jaxlib", "flax", "optax", "torch", "keras", "tensorflow"),
        description=__doc__,
    )
