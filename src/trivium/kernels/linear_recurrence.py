"""Linear recurrence: without a nonlinearity between steps, a sequence can be read in parallel."""

from functools import partial

import jax
import jax.numpy as jnp

from trivium.kernels import checks, dispatch


def linear_recurrence(a, x, *, initial=None, reverse=False, implementation=None) -> jax.Array:
    """Runs h_t = a_t * h_(t-1) + x_t along a sequence, feature by feature.

    a and x [B, T, D], of one floating type -> h [B, T, D]; B sequences, T steps, D features.

    initial: h_0 [B, D], what the first step read starts from; None is zeros.
    reverse: from the last step to the first: h_t = a_t * h_(t+1) + x_t.
    implementation: "reference" a loop over the steps, T of them; "associative" a parallel prefix
        over pairs (a, x), about 2 log2(T) passes; None the fastest here.

    States are kept in float32 (float64 for float64 input), h is of x's type. "associative" brings
    its own gradient, the same recurrence run the other way; it has no forward mode (`jax.jvp`):
    ask for "reference".
    Raises `ValueError` naming the argument where shapes, types or options do not fit.
    Source: Blelloch, "Prefix sums and their applications", 1990; Martin and Cundy, "Parallelizing
    linear recurrent neural nets over sequence length", 2018.
    """
    sizes: dict[str, int] = {}
    a = checks.array("a", a, "B T D", sizes)
    x = checks.array("x", x, "B T D", sizes, a.dtype)
    if initial is not None:
        initial = checks.array("initial", initial, "B D", sizes, a.dtype)
    name = dispatch.choose("linear_recurrence", implementation)
    reverse = checks.flag("reverse", reverse)
    return _linear_recurrence(a, x, initial, reverse=reverse, implementation=name)


@partial(jax.jit, static_argnames=("reverse", "implementation"))
def _linear_recurrence(a, x, initial, *, reverse, implementation):
    kind = checks.accumulation(x.dtype)
    if initial is None:
        initial = jnp.zeros((x.shape[0], x.shape[2]), kind)
    form = _associative if implementation == "associative" else _reference
    return form(a.astype(kind), x.astype(kind), initial.astype(kind), reverse).astype(x.dtype)


def _reference(a, x, initial, reverse):
    """The definition, a step at a time."""

    def step(h, inputs):
        a_t, x_t = inputs
        h = a_t * h + x_t
        return h, h

    by_time = (jnp.swapaxes(a, 0, 1), jnp.swapaxes(x, 0, 1))
    _, h = jax.lax.scan(step, initial, by_time, reverse=reverse)
    return jnp.swapaxes(h, 0, 1)


@partial(jax.custom_vjp, nondiff_argnums=(3,))
def _associative(a, x, initial, reverse):
    """Two steps h -> a h + x in a row are one of the same kind, so they combine in any grouping."""

    def then(first, second):
        return first[0] * second[0], second[0] * first[1] + second[1]

    decay, h = jax.lax.associative_scan(then, (a, x), axis=1, reverse=reverse)
    return h + decay * initial[:, None]


def _associative_forward(a, x, initial, reverse):
    h = _associative(a, x, initial, reverse)
    return h, (a, h, initial)


def _associative_backward(reverse, residuals, g):
    """The gradient of h_t reaches h_(t-1) through a_t: the same recurrence, the other way."""
    a, h, initial = residuals
    zero = jnp.zeros_like(initial)
    dx = _associative(_shift(a, zero, not reverse), g, zero, not reverse)
    before = _shift(h, initial, reverse)
    first = -1 if reverse else 0
    dinitial = dx[:, first] * a[:, first] if a.shape[1] else zero
    return dx * before, dx, dinitial


def _shift(array, edge, reverse):
    """The previous step's values at each step, `edge` at the first one read."""
    edge = edge[:, None]
    if reverse:
        return jnp.concatenate([array[:, 1:], edge], axis=1)[:, : array.shape[1]]
    return jnp.concatenate([edge, array[:, :-1]], axis=1)[:, : array.shape[1]]


_associative.defvjp(_associative_forward, _associative_backward)
