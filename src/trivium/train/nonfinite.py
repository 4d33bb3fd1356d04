"""When a number stops being finite: which step, which learning rate, which layer."""

import inspect
from collections.abc import Callable
from contextlib import contextmanager

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from trivium.train.step import call, loss_and_gradient, per_example, rebuild, update


class NonFiniteLoss(FloatingPointError):
    """A training step met NaN or infinity; the model has the weights from before that step.

    step: the step that failed, counted from 1 since the beginning of training. epoch: its epoch,
    from 1. learning_rate: the rate of that step, or None where the optimizer does not show it.
    layer: path of the first module (or parameter) that is not finite, such as "blocks.0.norm".
    """

    def __init__(self, message, *, step, epoch, learning_rate, layer):
        super().__init__(message)
        self.step, self.epoch = step, epoch
        self.learning_rate, self.layer = learning_rate, layer


def explain(program, state, batch, *, epoch) -> NonFiniteLoss:
    """Run the refused step again, operation by operation, and say where it goes wrong.

    state: the TrainState from before the step, with the random streams that the step used.
    """
    layer, what = _locate(program, state, batch)
    step = int(state.step) + 1
    rate = learning_rate(program, state)
    told = "unknown" if rate is None else f"{rate:g}"
    return NonFiniteLoss(
        f"training met NaN or infinity at step {step} (epoch {epoch}, learning rate {told}); the "
        f"first that is not finite is {what}. The model has the weights from before this step. A "
        "smaller learning rate or clipped gradients (optax.clip_by_global_norm) may help.",
        step=step,
        epoch=epoch,
        learning_rate=rate,
        layer=layer,
    )


def _locate(program, state, batch):
    """(path, description) of the first thing that is not finite, in the order of computation."""
    path = _first(state.trainable) or _first(state.rest)
    if path:
        return path, f"the parameter {path}, before any step"
    model = rebuild(program, state.trainable, state.rest)
    model.train()
    with _watched(model) as calls:
        outputs = call(model, batch)
    for path, values in calls:
        if not _finite(values):
            return path, f"the output of {path}"
    losses = per_example(program.loss, "loss", outputs, batch)[batch.real]
    if not _finite(losses):
        return "loss", "the loss itself, of finite outputs"
    (_, (_, _, rest)), gradient = loss_and_gradient(program, state, batch)
    path = _first(gradient)
    if path:
        return path, f"the gradient of {path}, of a finite loss"
    path = _first(rest)
    if path:
        return path, f"the new value of {path}"
    path = _first(update(program, gradient, state, losses.mean())[0])
    if path:
        return path, f"the updated {path}, of a finite gradient"
    return "step", "within the compiled step: run operation by operation, all is finite"


def _finite(tree):
    leaves = [leaf for leaf in jax.tree.leaves(tree) if isinstance(leaf, jax.Array)]
    return all(
        bool(jnp.isfinite(leaf).all())
        for leaf in leaves
        # Inside a scan or another transformation a value is not there to be looked at.
        if not isinstance(leaf, jax.core.Tracer) and jnp.issubdtype(leaf.dtype, jnp.inexact)
    )


def _first(state):
    """Path of the first array of a state that is not finite, or None."""
    for path, leaf in nnx.to_flat_state(state):
        if not _finite(leaf):
            return dotted(path)
    return None


def dotted(path) -> str:
    """A path as an attribute would be written: ("blocks", 0, "norm") -> "blocks.0.norm"."""
    return ".".join(str(part) for part in path)


@contextmanager
def _watched(model):
    """Record (path, output) of each of the model's modules, in the order in which they return.

    A module's inner modules return before it does, so the first output that is not finite is
    that of the innermost module that made it.
    """
    modules = [(path, node) for path, node in nnx.iter_graph(model) if isinstance(node, nnx.Module)]
    paths = {id(module): dotted(path) or type(module).__name__ for path, module in modules}
    calls: list = []
    own: dict = {}

    def watch(original):
        def watched(self, *args, **kwargs):
            outputs = original(self, *args, **kwargs)
            if id(self) in paths:
                calls.append((paths[id(self)], outputs))
            return outputs

        return watched

    # Python looks `__call__` up on the class, never on the object. All are looked up before any
    # is replaced, so that a class that inherits its `__call__` is not watched twice.
    classes = {type(module) for _, module in modules}
    wrapped = {cls: cls.__call__ for cls in classes if _callable(cls)}
    try:
        for cls, original in wrapped.items():
            own[cls] = cls.__dict__.get("__call__")
            cls.__call__ = watch(original)  # type: ignore[method-assign]
        yield calls
    finally:
        for cls, original in own.items():
            if original is None:
                del cls.__call__
            else:
                cls.__call__ = original


def _callable(cls):
    return any("__call__" in base.__dict__ for base in cls.__mro__)


def learning_rate(program, state) -> float | None:
    """The learning rate of the step that `state` is about to take, or None if it cannot be seen.

    `optax.inject_hyperparams` keeps it in the optimizer's state. Otherwise optax keeps no record:
    it is the (negative) number or schedule that `optax.scale_by_learning_rate`, the last link of
    optax's optimizers, closed over.
    """
    zeros = jax.tree.map(jnp.zeros_like, state.trainable)
    _, after = update(program, zeros, state, jnp.float32(0))
    for _, rate in optax.tree_utils.tree_get_all_with_path(after, "learning_rate"):
        return float(rate)
    rates = []
    for name, value in _closed_over(program.optimizer.update):
        if name == "step_size_fn":
            with jax.numpy_dtype_promotion("standard"):
                rates.append(float(value(state.step)))
        elif np.ndim(value) == 0:
            rates.append(float(value))
    # A positive factor is some other scaling; two rates are those of two groups of parameters.
    rates = [-rate for rate in rates if np.signbit(rate)]
    return rates[0] if len(rates) == 1 else None


def _closed_over(function: Callable):
    """(name, value) of everything that a function of optax, and the functions in it, close over."""
    seen, waiting = set(), [function]
    while waiting:
        item = waiting.pop()
        if id(item) in seen:
            continue
        seen.add(id(item))
        if isinstance(item, (tuple, list)):
            waiting += item
        elif isinstance(item, dict):
            waiting += item.values()
        elif inspect.isfunction(item) and item.__module__.startswith("optax"):
            for name, value in inspect.getclosurevars(item).nonlocals.items():
                if name in ("step_size", "step_size_fn"):
                    yield name, value
                else:
                    waiting.append(value)
