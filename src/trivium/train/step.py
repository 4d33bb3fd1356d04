"""The compiled programs: many training steps, many evaluation batches, one prediction.

The model is split once into a static graph and a flat list of arrays; the programs are pure
functions of that list. A training program runs several steps a call in a `while_loop`, so that
Python is met a few times a second instead of once a step, and stops at the first step that is not
finite with the state from before it.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

LOG = 256  # the most steps or batches that one call may run: the length of the log it returns


def accuracy(logits, labels):
    """Whether the largest logit is the label's: logits [B, classes], labels [B] -> bool [B]."""
    return jnp.argmax(logits, axis=-1) == labels


class TrainState(NamedTuple):
    """All that a step reads and writes. `fit` carries its leaves, in this order."""

    trainable: Any
    rest: Any  # batch statistics, random streams, and whatever is not trained
    optimizer: Any
    step: Any  # int32, steps taken since the beginning of training
    finite: Any  # bool, False once a step was refused


class Program(NamedTuple):
    """What a compiled program is made of; equal programs share one compilation."""

    graphdef: Any
    treedef: Any  # of a TrainState for training, of (trainable, rest) otherwise
    trainable: Any  # nnx filter
    loss: Any = None
    metric: Any = None
    optimizer: Any = None
    sharding: Any = None  # of a batch's leading axis on a mesh; None on one device


class Batch(NamedTuple):
    """inputs [B, ...], lengths [B] or None, labels [B, ...] or None, real [B]: which count."""

    inputs: Any
    lengths: Any
    labels: Any
    real: Any


def split(model, trainable) -> tuple[Any, Any, Any]:
    """The model's graph, its trained state and the rest."""
    parts: Any = nnx.split(model, trainable, ...)
    return parts


def rebuild(program, trainable, rest):
    """A model of its own from the two states."""
    # Merging alone would share the variables: a layer that counts or keeps statistics would change
    # the state that it came from, and inside a gradient's trace it may not.
    states = jax.tree.map(lambda leaf: leaf, (trainable, rest))
    return nnx.merge(program.graphdef, *states)


def gather(examples, rows, width, sharding=None) -> Batch:
    """Read the examples in rows [B] (see `batches.Order`), sequences padded with zeros to width.

    NumPy arrays are read by NumPy.
    """
    xp: Any = np if all(isinstance(x, np.ndarray) for x in (examples.values, rows)) else jnp
    if sharding is not None:
        rows = jax.lax.with_sharding_constraint(rows, sharding)
    real = rows >= 0
    rows = xp.where(real, rows, ~rows)
    labels = None if examples.labels is None else examples.labels[rows]
    if width is None:
        return Batch(examples.values[rows], None, labels, real)
    lengths = examples.lengths[rows]
    place = xp.arange(width, dtype=np.int32)
    inside = place < lengths[:, None]
    values = examples.values[xp.where(inside, examples.offsets[rows][:, None] + place, 0)]
    inside = inside.reshape(inside.shape + (1,) * (values.ndim - 2))
    return Batch(xp.where(inside, values, xp.zeros_like(values)), lengths, labels, real)


def call(model, batch):
    """The model's outputs for a batch."""
    if batch.lengths is None:
        return model(batch.inputs)
    return model(batch.inputs, lengths=batch.lengths)


def scores(program, outputs, batch):
    """(loss, metric), each summed over the examples of a batch that count, float32 []."""
    total = jnp.where(batch.real, per_example(program.loss, "loss", outputs, batch), 0.0)
    if program.metric is None:
        return total.sum(), jnp.float32(0)
    measured = jnp.where(batch.real, per_example(program.metric, "metric", outputs, batch), 0.0)
    return total.sum(), measured.sum()


def per_example(function, name, outputs, batch):
    """A loss or metric in float32 [B], after a check that it is one number an example."""
    values = jnp.asarray(function(outputs, batch.labels))
    if values.shape != batch.real.shape:
        raise ValueError(
            f"{name} must return one number for each example, shape {batch.real.shape}, "
            f"got shape {values.shape}"
        )
    if jnp.issubdtype(values.dtype, jnp.complexfloating):
        raise ValueError(f"{name} must return real numbers, got {values.dtype}")
    return values.astype(jnp.float32)


def loss_and_gradient(program, state, batch):
    """((mean loss, (loss sum, metric sum, rest)), gradient), in training mode."""

    def mean_loss(trainable):
        model = rebuild(program, trainable, state.rest)
        model.train()
        outputs = call(model, batch)
        nnx.pop(model, nnx.Intermediate)  # what a model sows is not kept from step to step
        total, measured = scores(program, outputs, batch)
        _, _, rest = split(model, program.trainable)
        return total / batch.real.sum().astype(jnp.float32), (total, measured, rest)

    return jax.value_and_grad(mean_loss, has_aux=True)(state.trainable)


def update(program, gradient, state, loss):
    """The trained weights and the optimizer's state after one update."""
    optimizer = optax.with_extra_args_support(program.optimizer)
    # Optax raises a float to an integer count; a caller's strict promotion is not meant for it.
    with jax.numpy_dtype_promotion("standard"):
        updates, after = optimizer.update(gradient, state.optimizer, state.trainable, value=loss)
        return optax.apply_updates(state.trainable, updates), after


def all_finite(tree):
    """Whether every floating-point number in a tree is finite."""
    leaves = [x for x in jax.tree.leaves(tree) if jnp.issubdtype(x.dtype, jnp.inexact)]
    return jnp.stack([jnp.isfinite(x).all() for x in leaves]).all()


def train_step(program, state, batch):
    """One step: the state after it, and the sums [2] of loss and metric over the batch.

    A step whose loss, gradient, weights or statistics are not finite changes nothing but `finite`.
    """
    (loss, (total, measured, rest)), gradient = loss_and_gradient(program, state, batch)
    trainable, optimizer = update(program, gradient, state, loss)
    finite = all_finite((loss, gradient, trainable, rest))
    after = TrainState(trainable, rest, optimizer, state.step + 1, finite)
    before = state._replace(finite=finite)
    kept = jax.tree.map(lambda new, old: jnp.where(finite, new, old), after, before)
    return kept, jnp.stack([total, measured])


def _shared(build):
    """Build a program once for equal arguments, so that a second `fit` need not compile again."""
    remembered = functools.lru_cache(maxsize=32)(build)

    def get(program):
        try:
            hash(program)
        except TypeError:  # a module with an attribute that cannot be hashed
            return build(program)
        return remembered(program)

    return get


@_shared
def training(program):
    """advance(leaves, examples, order, stop, *, width) -> leaves, log [LOG, 2], status [2].

    Takes steps until `stop` steps were taken since the beginning of training, or one is refused.
    order: rows of the epoch's batches [steps, batch]. log: sums of loss and metric of each step
    taken. status: the count of steps, and finite. The leaves handed in are consumed.
    """

    def advance(leaves, examples, order, stop, *, width):
        start = jax.tree.unflatten(program.treedef, leaves)

        def more(carry):
            state, _ = carry
            return state.finite & (state.step < stop)

        def once(carry):
            state, log = carry
            rows = order[state.step % len(order)]
            after, sums = train_step(
                program, state, gather(examples, rows, width, program.sharding)
            )
            return after, log.at[state.step - start.step].set(sums)

        state, log = jax.lax.while_loop(more, once, (start, jnp.zeros((LOG, 2), jnp.float32)))
        status = jnp.stack([state.step, state.finite.astype(jnp.int32)])
        return tuple(jax.tree.leaves(state)), log, status

    replicated = None
    if program.sharding is not None:
        replicated = jax.NamedSharding(program.sharding.mesh, jax.sharding.PartitionSpec())
    return jax.jit(advance, donate_argnums=0, static_argnames="width", out_shardings=replicated)


def apply(program, leaves, examples, rows, *, width):
    """The model's outputs for one batch in evaluation mode, and that batch."""
    batch = gather(examples, rows, width, program.sharding)
    return answer(program, leaves, batch), batch


def answer(program, leaves, batch):
    """The model's outputs for a batch in evaluation mode."""
    model = rebuild(program, *jax.tree.unflatten(program.treedef, leaves))
    model.eval()
    return call(model, batch)


@_shared
def scoring(program):
    """score(leaves, examples, order, span, *, width) -> log [LOG, 2].

    log: sums of loss and metric for each of the batches order[span[0]:span[1]].
    """

    def score(leaves, examples, order, span, *, width):
        def once(i, log):
            outputs, batch = apply(program, leaves, examples, order[i], width=width)
            return log.at[i - span[0]].set(jnp.stack(scores(program, outputs, batch)))

        return jax.lax.fori_loop(span[0], span[1], once, jnp.zeros((LOG, 2), jnp.float32))

    return jax.jit(score, static_argnames="width")


@_shared
def prediction(program):
    """outputs(leaves, batch) -> the model's outputs for it."""

    def outputs(leaves, batch):
        return answer(program, leaves, batch)

    return jax.jit(outputs)
