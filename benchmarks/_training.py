"""A training step in each framework: gradient of the mean cross-entropy and one Adam update.

Each `in_...` function turns a model into a `Work`: its answers are the losses of the first steps,
which agree only if forward pass, gradient and update do; its call takes one step and waits for it.
The steps go round the same few batches of random numbers with random labels, which no network
learns, so that the work stays what it was at the first step.
"""

import itertools
from functools import partial

import _harness
import numpy as np
from _harness import Work

BATCHES, CHECKED = 16, 5
# Adam as the article's `optimizer="adam"`; epsilon in words because Keras has another default.
RATE, EPSILON = 1e-3, 1e-8


def batches(shape, classes):
    """Inputs [BATCHES, B, ...] and labels [BATCHES, B]."""
    random = np.random.default_rng(0)
    inputs = random.standard_normal((BATCHES, *shape), np.float32)
    return inputs, random.integers(classes, size=(BATCHES, shape[0]), dtype=np.int32)


def glorot(random, *shape):
    """Uniform weights of Glorot's variance."""
    area = int(np.prod(shape[:-2]))
    limit = (6 / (area * (shape[-2] + shape[-1]))) ** 0.5
    return random.uniform(-limit, limit, shape).astype(np.float32)


def in_jax(logits, weights, data, optimizer=None):
    """A step of `logits(weights, inputs)`, compiled, its state donated."""
    import jax
    import optax

    optimizer = optimizer or optax.adam(RATE, eps=EPSILON)

    @partial(jax.jit, donate_argnums=0)
    def step(state, inputs, labels):
        def loss(weights):
            outputs = logits(weights, inputs)
            return optax.softmax_cross_entropy_with_integer_labels(outputs, labels).mean()

        weights, moments = state
        value, gradient = jax.value_and_grad(loss)(weights)
        updates, moments = optimizer.update(gradient, moments, weights)
        return (optax.apply_updates(weights, updates), moments), value

    weights = jax.tree.map(partial(jax.numpy.array, copy=True), weights)
    state = (weights, optimizer.init(weights))
    on_device = [tuple(map(jax.numpy.asarray, batch)) for batch in zip(*data, strict=True)]
    source = itertools.cycle(on_device)

    def call():
        nonlocal state
        state, value = step(state, *next(source))
        jax.block_until_ready((state, value))
        return value

    return Work([np.asarray(call()) for _ in range(CHECKED)], call)


def in_nnx(model, data, optimizer=None):
    """A step of a flax.nnx model, as a pure function of its parameters."""
    from flax import nnx

    graph, weights, rest = nnx.split(model, nnx.Param, ...)

    def logits(weights, inputs):
        return nnx.merge(graph, weights, rest, copy=True)(inputs)

    return in_jax(logits, weights, data, optimizer)


def in_torch(model, data, optimizer):
    """An eager step of a torch module; `optimizer(parameters)` makes its optimizer."""
    import torch

    torch.set_num_threads(_harness.cores())
    model.train()
    optimizer = optimizer([each for each in model.parameters() if each.requires_grad])
    source = itertools.cycle([(x, torch.from_numpy(y).long()) for x, y in zip(*data, strict=True)])

    def call():
        inputs, labels = next(source)
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(model(inputs), labels)
        loss.backward()
        optimizer.step()
        return loss

    return Work([call().detach().numpy() for _ in range(CHECKED)], call)


def torch_optimizers():
    """Adam as PyTorch offers it: its default, and fused into one loop."""
    import torch

    adam = partial(torch.optim.Adam, lr=RATE, eps=EPSILON)
    return {"foreach": partial(adam, foreach=True), "fused": partial(adam, fused=True)}


def in_keras(backend, build, weights, data):
    """The two ways to take one step of a Keras model `build()`: `train_on_batch`, and fit's own.

    weights: arrays in the order of `set_weights`.
    """
    import os

    os.environ["KERAS_BACKEND"] = backend
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    import keras

    def compiled():
        model = build()
        model.set_weights(weights)
        model.compile(
            keras.optimizers.Adam(RATE, epsilon=EPSILON),
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        )
        return model

    def on_batch():
        model = compiled()
        if backend == "tensorflow":
            import tensorflow

            tensor = tensorflow.constant
        else:
            import jax

            tensor = jax.numpy.asarray
        source = itertools.cycle([tuple(map(tensor, batch)) for batch in zip(*data, strict=True)])
        call = lambda: model.train_on_batch(*next(source))  # noqa: E731
        return Work([np.float32(call()) for _ in range(CHECKED)], call)

    inside = {"tensorflow": _inside_tensorflow, "jax": _inside_jax}[backend]
    on_batch = on_batch()
    return {
        "train_on_batch": on_batch,
        "train_function": Work(on_batch.answers, inside(compiled(), data)),
    }


def _inside_tensorflow(model, data):
    """What `fit` calls for a step, on a data set that is ready."""
    import tensorflow

    model.make_train_function()
    source = iter(tensorflow.data.Dataset.from_tensor_slices(data).cache().repeat().prefetch(2))
    return lambda: float(model.train_function(source)["loss"])


def _inside_jax(model, data):
    """What `fit` calls for a step; the state goes from one to the next without the model."""
    import jax

    model.train_on_batch(*(each[0] for each in data))
    model.make_train_function()
    on_device = [tuple(map(jax.numpy.asarray, batch)) for batch in zip(*data, strict=True)]
    source = ((*batch, None) for batch in itertools.cycle(on_device))
    state = model._get_jax_state(
        trainable_variables=True, non_trainable_variables=True, optimizer_variables=True,
        metrics_variables=True, purge_model_variables=True,
    )  # fmt: skip

    def call():
        nonlocal state
        logs, state = model.train_function(state, source)
        jax.block_until_ready((logs, state))

    return call
