"""The compiled programs: many training steps, many evaluation batches, one prediction.

The model is split once into a static graph and a flat list of arrays; the programs are pure
functions of that list. A training program runs several steps per call in a `while_loop`, so that
Python is met a few times a second instead of once a step, and stops at the first step that is not
finite with the state from before it.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx

LOG = 256  # steps that one call may run: the length of the log it returns


def accuracy(logits, labels):
    """Whether the largest logit is the label's: logits [B, classes], labels [B] -> bool [B]."""
    return jnp.argmax(logits, axis=-1) == labels


class TrainState(NamedTuple):
    """All that a step reads and writes. Its leaves, in this order, are what `fit` carries."""

    trainable: Any
    rest: Any  # batch statistics, random streams, and whatever is not trained
    optimizer: Any
    step: Any  # int32, steps taken since the beginning of training
    finite: Any  # bool, False once a step was refused


class Program(NamedTuple):
    """What a compiled program is made for; equal programs share one compilation."""

    graphdef: Any
    treedef: Any  # of TrainState for training, of (trainable, rest) otherwise
    trainable: Any  # nnx filter
    loss: Any
    metric: Any
    optimizer: Any = None
    sharding: Any = None  # of a batch's leading axis; None on one device


def gather(examples, rows, width, sharding=None):
    """Read a batch: (arguments, keywords) of the model's call, labels, weights [B]."""
    if sharding is not None:
        rows = jax.lax.with_sharding_constraint(rows, sharding)
    real = rows >= 0
    rows = jnp.where(real, rows, ~rows)
    labels = None if examples.labels is None else examples.labels[rows]
    if width is None:
        return (examples.values[rows],), {}, labels, real
    lengths = examples.lengths[rows]
    place = jnp.arange(width, dtype=jnp.int32)
    inside = place < lengths[:, None]
    values = examples.values[jnp.where(inside, examples.offsets[rows][:, None] + place, 0)]
    inside = inside.reshape(inside.shape + (1,) * (values.ndim - 2))
    return (jnp.where(inside, values, 0),), {"lengths": lengths}, labels, real


def split(model, trainable):
    """Split a model into graph, trained state and the rest."""
    return nnx.split(model, trainable, ...)


def rejoin(model, program):
    """The two states of a model after its call, which must have the form they had before."""
    nnx.pop(model, nnx.Intermediate)
    return split(model, program.trainable)[1:]


def per_example(values, batch, name):
    """Check that a loss or metric gives one number an example, and make it float32 [B]."""
    values = jnp.asarray(values)
    if values.shape != (batch,):
        raise ValueError(
            f"{name} must return one number for each example, shape ({batch},), "
            f"got shape {values.shape}"
        )
    if jnp.issubdtype(values.dtype, jnp.complexfloating):
        raise ValueError(f"{name} must return real numbers, got {values.dtype}")
    return values.astype(jnp.float32)


def scores(program, outputs, labels, real):
    """Sums over the real examples of a batch: loss, metric."""
    batch = len(real)
    losses = per_example(program.loss(outputs, labels), batch, "loss")
    total = jnp.where(real, losses, 0).sum()
    if program.metric is None:
        return total, jnp.float32(0)
    measured = per_example(program.metric(outputs, labels), batch, "metric")
    return total, jnp.where(real, measured, 0).sum()


def all_finite(tree):
    """Whether every floating-point number in a tree is finite."""
    flags = [
        jnp.isfinite(leaf).all()
        for leaf in jax.tree.leaves(tree)
        if jnp.issubdtype(leaf.dtype, jnp.inexact)
    ]
    return functools.reduce(jnp.logical_and, flags, jnp.bool_(True))


def loss_and_gradient(program, state, arguments, keywords, labels, real):
    """((loss, (loss sum, metric sum, rest)), gradient) of the mean loss over real examples."""

    def mean_loss(trainable):
        # New variables: those made outside the trace of the gradient may not change within it.
        rest = jax.tree.map(lambda leaf: leaf, state.rest)
        model = nnx.merge(program.graphdef, trainable, rest)
        model.train()
        outputs = model(*arguments, **keywords)
        total, measured = scores(program, outputs, labels, real)
        _, rest = rejoin(model, program)
        return total / real.sum().astype(jnp.float32), (total, measured, rest)

    return jax.value_and_grad(mean_loss, has_aux=True)(state.trainable)


def update(optimizer, gradient, state, loss):
    """The weights and optimizer state after one update."""
    # Optax raises a float to an integer count; a caller's strict promotion is not meant for it.
    with jax.numpy_dtype_promotion("standard"):
        updates, after = optimizer.update(gradient, state.optimizer, state.trainable, value=loss)
        return optax.apply_updates(state.trainable, updates), after


def train_step(program, state, examples, rows, width):
    """One step: the state after it, and the sums of loss and metric over the batch.

    A step whose loss, gradient, weights or statistics are not finite changes nothing but `finite`.
    """
    arguments, keywords, labels, real = gather(examples, rows, width, program.sharding)
    (loss, (total, measured, rest)), gradient = loss_and_gradient(
        program, state, arguments, keywords, labels, real
    )
    trainable, optimizer = update(program.optimizer, gradient, state, loss)
    finite = all_finite((loss, gradient, trainable, rest))
    after = TrainState(trainable, rest, optimizer, state.step + 1, finite)
    before = state._replace(finite=finite)
    after = jax.tree.map(lambda new, old: jnp.where(finite, new, old), after, before)
    return after, jnp.stack([total, measured])


def _cached(build):
    """Build a program once for equal arguments, so that a second `fit` need not compile again."""
    cached = functools.lru_cache(maxsize=32)(build)

    def get(program):
        try:
            return cached(program)
        except TypeError:  # a module with an attribute that cannot be hashed
            return build(program)

    return get


@_cached
def training(program):
    """advance(leaves, examples, order, stop, *, width) -> leaves, log [LOG, 2], status [2].

    Takes steps until `stop` steps were taken since the beginning of training, or one is refused.
    log: sums of loss and metric of the steps taken. status: the count of steps, and finite.
    The leaves handed in are consumed.
    """

    def advance(leaves, examples, order, stop, *, width):
        state = jax.tree.unflatten(program.treedef, leaves)
        start = state.step

        def more(carry):
            state, _ = carry
            return state.finite & (state.step < stop)

        def once(carry):
            state, log = carry
            after, sums = train_step(
                program, state, examples, order[state.step % len(order)], width
            )
            return after, log.at[state.step - start].set(sums)

        state, log = jax.lax.while_loop(more, once, (state, jnp.zeros((LOG, 2))))
        status = jnp.stack([state.step, state.finite.astype(jnp.int32)])
        return tuple(jax.tree.leaves(state)), log, status

    options = {}
    if program.sharding is not None:
        mesh = program.sharding.mesh
        options["out_shardings"] = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    return jax.jit(advance, donate_argnums=0, static_argnames="width", **options)


def _apply(program, leaves, examples, rows, width):
    model = nnx.merge(program.graphdef, *jax.tree.unflatten(program.treedef, leaves))
    model.eval()
    arguments, keywords, labels, real = gather(examples, rows, width, program.sharding)
    return model(*arguments, **keywords), labels, real


@_cached
def scoring(program):
    """score(leaves, examples, order, start, stop, *, width) -> log [LOG, 2] of loss and metric."""

    def score(leaves, examples, order, start, stop, *, width):
        def once(i, log):
            outputs, labels, real = _apply(program, leaves, examples, order[i], width)
            return log.at[i - start].set(jnp.stack(scores(program, outputs, labels, real)))

        return jax.lax.fori_loop(start, stop, once, jnp.zeros((LOG, 2)))

    return jax.jit(score, static_argnames="width")


@_cached
def prediction(program):
    """apply(leaves, examples, rows, *, width) -> the model's outputs for one batch."""

    def apply(leaves, examples, rows, *, width):
        return _apply(program, leaves, examples, rows, width)[0]

    return jax.jit(apply, static_argnames="width")
