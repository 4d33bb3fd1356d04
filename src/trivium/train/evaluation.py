"""evaluate and predict: a model's answers, without changing it."""

from collections import deque
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from flax import nnx

from trivium.train import batches, step
from trivium.train.checks import check_call, check_model, check_whole, cross_entropy
from trivium.train.devices import Devices
from trivium.train.examples import pair, prepare

# Results that may wait on the device before the host fetches the oldest.
_AHEAD = 4


def evaluate(
    model: nnx.Module,
    data,
    *,
    loss: Callable = cross_entropy,
    metric: Callable | None = step.accuracy,
    batch_size: int = 256,
    buckets: int = 8,
    mesh: jax.sharding.Mesh | None = None,
) -> dict[str, float]:
    """Mean loss and metric over all examples: {"loss": float, "metric": float}.

    data, loss, metric, buckets and mesh are as for `fit`; without a metric there is no "metric".
    The model is called in evaluation mode (no dropout, running averages) and left as it was. The
    means are over examples, whatever the batches.

    Raises ValueError or TypeError for arguments that do not fit.
    """
    check_model(model)
    check_whole(1, batch_size=batch_size, buckets=buckets)
    devices = Devices(mesh, batch_size)
    examples = pair(data, "data")
    program, leaves = _program(model, devices, loss=loss, metric=metric)
    scorer = Scorer(program, devices, examples, batch_size=batch_size, buckets=buckets)
    check_call(program, leaves, scorer.examples, scorer.batch_size, "data")
    mean, measured = scorer(leaves)
    return {"loss": mean} if metric is None else {"loss": mean, "metric": measured}


def predict(
    model: nnx.Module,
    inputs,
    *,
    batch_size: int = 256,
    buckets: int = 8,
    mesh: jax.sharding.Mesh | None = None,
) -> Any:
    """The model's outputs for all inputs, in their order: a NumPy array [N, ...].

    inputs, buckets and mesh are as for `fit`. Batches are read on the host and handed over one by
    one, so that one compiled program answers for any number of examples from batch_size on. The
    model is called in evaluation mode and left as it was. A model that returns several arrays
    [batch, ...] in a tuple or dict gives as many arrays [N, ...].

    Raises ValueError or TypeError for arguments that do not fit, and ValueError for outputs whose
    shape changes with the padded length.
    """
    check_model(model)
    check_whole(1, batch_size=batch_size, buckets=buckets)
    devices = Devices(mesh, batch_size)
    examples = prepare(inputs, "inputs")
    program, leaves = _program(model, devices)
    order = _in_order(examples, devices.batch(batch_size, examples.size), buckets)
    outputs = step.prediction(program)
    collected: Any = None
    waiting: deque = deque()

    def collect(rows, found):
        nonlocal collected
        found = jax.tree.map(np.asarray, found)
        if collected is None:
            collected = jax.tree.map(
                lambda part: np.empty((examples.size, *part.shape[1:]), part.dtype), found
            )
        for whole, part in zip(jax.tree.leaves(collected), jax.tree.leaves(found), strict=True):
            if part.shape != (len(rows), *whole.shape[1:]):
                raise ValueError(
                    f"the model must give outputs {[len(rows), *whole.shape[1:]]} for a batch of "
                    f"{len(rows)} examples, whatever their length, got {list(part.shape)}"
                )
            whole[rows[rows >= 0]] = part[rows >= 0]

    for rows, width in zip(order.rows, order.widths, strict=True):
        # Batch by batch, so that the program serves any number of examples.
        batch = devices.spread(step.gather(examples, rows, width))
        waiting.append((rows, outputs(leaves, batch)))
        if len(waiting) > _AHEAD:
            collect(*waiting.popleft())
    while waiting:
        collect(*waiting.popleft())
    return collected


class Scorer:
    """Mean loss and metric of one data set for any weights: scorer(leaves) -> (loss, metric)."""

    def __init__(self, program, devices, examples, *, batch_size, buckets):
        self.score = step.scoring(program)
        self.count = examples.size
        self.batch_size = devices.batch(batch_size, examples.size)
        order = _in_order(examples, self.batch_size, buckets)
        self.rows, self.widths = devices.put_rows(order.rows), order.widths
        self.examples = devices.put(examples)

    def __call__(self, leaves):
        """leaves: of (trainable, rest), the model's two states."""
        logs, begin = [], 0
        while begin < len(self.widths):
            end = batches.same_width(self.widths, begin, begin + step.LOG)
            span = np.array([begin, end], np.int32)
            width = self.widths[begin]
            logs.append(
                (end - begin, self.score(leaves, self.examples, self.rows, span, width=width))
            )
            begin = end
        return means(np.concatenate([np.asarray(log)[:count] for count, log in logs]), self.count)


def means(sums, count) -> tuple[float, float]:
    """Mean loss and metric over `count` examples from each batch's sums [batches, 2]."""
    # In float64: the sums of a long epoch outgrow what float32 can add exactly.
    total, measured = sums.astype(np.float64).sum(axis=0)
    return float(total / count), float(measured / count)


def _program(model, devices, **functions):
    graphdef, trainable, rest = step.split(model, nnx.Param)
    states = (trainable, rest)
    program = step.Program(
        graphdef, jax.tree.structure(states), nnx.Param, sharding=devices.sharding, **functions
    )
    return program, tuple(devices.put(jax.tree.leaves(states)))


def _in_order(examples, batch_size, buckets):
    lengths = examples.lengths
    widths = None if lengths is None else batches.bucket_widths(lengths, buckets)
    return batches.in_order(examples.size, batch_size, lengths=lengths, widths=widths)
