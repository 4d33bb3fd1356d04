"""Selective scan: a state-space model whose step, input and readout depend on what it reads."""

from functools import partial

import jax
import jax.numpy as jnp

from trivium.kernels import checks, dispatch
from trivium.kernels.linear_recurrence import linear_recurrence


def selective_scan(x, step, a, b, c, *, implementation=None) -> jax.Array:
    """Runs h_t = exp(step_t a) h_(t-1) + step_t b_t x_t and answers y_t = c_t h_t.

    x and step [B, T, D], a [D, S], b and c [B, T, S], all of one floating type -> [B, T, D];
    B sequences, T steps, D features, S numbers of state for each feature. The state is zero at
    first.

    step: how much time passes between two inputs, at least 0; a feature that is given none keeps
        its state and reads nothing.
    a: rates, below 0 for a state that fades.
    implementation: "reference" a loop over the steps that never holds more than one step's states;
        "associative" all states [B, T, D, S] at once, by `linear_recurrence`'s parallel prefix;
        None the fastest here.

    States are kept in float32 (float64 for float64 input), y is of x's type. "associative" has no
    forward mode (`jax.jvp`): ask for "reference".
    Raises `ValueError` naming the argument where shapes, types or options do not fit.
    Source: Gu and Dao, "Mamba: linear-time sequence modeling with selective state spaces", 2024.
    """
    sizes: dict[str, int] = {}
    x = checks.array("x", x, "B T D", sizes)
    step = checks.array("step", step, "B T D", sizes, x.dtype)
    a = checks.array("a", a, "D S", sizes, x.dtype)
    b = checks.array("b", b, "B T S", sizes, x.dtype)
    c = checks.array("c", c, "B T S", sizes, x.dtype)
    name = dispatch.choose("selective_scan", implementation)
    return _selective_scan(x, step, a, b, c, implementation=name)


@partial(jax.jit, static_argnames="implementation")
def _selective_scan(x, step, a, b, c, *, implementation):
    kind = checks.accumulation(x.dtype)
    wide = (each.astype(kind) for each in (x, step, a, b, c))
    form = _associative if implementation == "associative" else _reference
    return form(*wide).astype(x.dtype)


def _reference(x, step, a, b, c):
    """The definition, a step at a time."""

    def advance(h, inputs):
        x_t, step_t, b_t, c_t = inputs
        h = jnp.exp(step_t[..., None] * a) * h + (step_t * x_t)[..., None] * b_t[:, None]
        return h, jnp.sum(h * c_t[:, None], axis=-1)

    start = jnp.zeros((x.shape[0], *a.shape), x.dtype)
    _, y = jax.lax.scan(advance, start, tuple(jnp.swapaxes(n, 0, 1) for n in (x, step, b, c)))
    return jnp.swapaxes(y, 0, 1)


def _associative(x, step, a, b, c):
    """All decays and inputs first, then every state by the parallel prefix."""
    batch, steps, features = x.shape
    flat = (batch, steps, features * a.shape[1])
    decay = jnp.exp(step[..., None] * a).reshape(flat)
    added = ((step * x)[..., None] * b[:, :, None]).reshape(flat)
    h = linear_recurrence(decay, added, implementation="associative")
    return jnp.sum(h.reshape(batch, steps, *a.shape) * c[:, :, None], axis=-1)
