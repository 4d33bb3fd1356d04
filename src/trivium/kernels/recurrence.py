"""Recurrence: one set of weights reads a sequence step by step and carries a state along."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from trivium.kernels import checks, dispatch


def rnn(
    x,
    w_ih,
    w_hh,
    b,
    *,
    initial=None,
    lengths=None,
    reverse=False,
    activation: Callable[[jax.Array], jax.Array] = jnp.tanh,
    implementation=None,
) -> tuple[jax.Array, jax.Array]:
    """The simple recurrent network: h_t = activation(x_t w_ih + b + h_(t-1) w_hh).

    x [B, T, D], w_ih [D, H], w_hh [H, H], b [H] -> (outputs [B, T, H], h [B, H]), all of one
    floating type. B sequences, T steps, D features, H state size.

    initial: h_0 [B, H]; None is zeros.
    lengths: real steps of each sequence, integers [B] from 0 to T; None is T. What lies beyond a
        length is not read, not even NaN: outputs there are zeros, gradients there are zeros, and
        the state returned is the one after the last real step (`initial` for a length of 0).
        Traced lengths cannot be looked at and are clipped to 0 and T.
    reverse: read each sequence from its last real step to its first. Outputs stay where their
        inputs are, and the state returned is the one after the first step.
    activation: an elementwise function. Hand over the same function object each time: a new
        lambda a call is a new compilation a call.
    implementation: "reference" the equation in a loop; "scan" the same loop with everything that
        does not depend on the state taken out of it; None the fastest here.

    Products and states are kept in float32 (float64 for float64 input), outputs are of x's type.
    Both implementations can be differentiated in forward and reverse mode.
    Raises `ValueError` naming the argument where shapes, types or options do not fit.
    Source: Elman, "Finding structure in time", 1990.
    """
    checks.require(callable(activation), "activation", "a function", repr(activation))
    return _recur("rnn", 1, x, w_ih, w_hh, b, initial, lengths, reverse, implementation, activation)


def gru(
    x, w_ih, w_hh, b, *, initial=None, lengths=None, reverse=False, implementation=None
) -> tuple[jax.Array, jax.Array]:
    """The gated recurrent unit, its reset gate on the recurrent product as in cuDNN.

    r, z = sigmoid(x_t w_ih + b + h_(t-1) w_hh)            reset, update
    n    = tanh(x_t w_ih + b + r * (h_(t-1) w_hh))         new
    h_t  = (1 - z) * n + z * h_(t-1)

    x [B, T, D], w_ih [D, 3H], w_hh [H, 3H], b [3H] -> (outputs [B, T, H], h [B, H]); gates in the
    order reset, update, new along 3H. b goes to the input projection alone: a checkpoint whose new
    gate has a recurrent bias other than zero (PyTorch's `bias_hh`) is not this function.

    initial, lengths, reverse, implementation, types, differentiation and errors: as in `rnn`.
    Source: Cho et al., "Learning phrase representations using RNN encoder-decoder", 2014; the
    reset gate's place: Chetlur et al., cuDNN.
    """
    return _recur("gru", 3, x, w_ih, w_hh, b, initial, lengths, reverse, implementation)


def lstm(
    x, w_ih, w_hh, b, *, initial=None, lengths=None, reverse=False, implementation=None
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    """Long short-term memory.

    i, f, o = sigmoid(x_t w_ih + b + h_(t-1) w_hh)         input, forget, output gate
    g       = tanh(x_t w_ih + b + h_(t-1) w_hh)            cell candidate
    c_t     = f * c_(t-1) + i * g
    h_t     = o * tanh(c_t)

    x [B, T, D], w_ih [D, 4H], w_hh [H, 4H], b [4H] -> (outputs [B, T, H], (h [B, H], c [B, H]));
    gates in the order input, forget, cell, output along 4H (i, f, g, o).

    initial: (h_0 [B, H], c_0 [B, H]); None is zeros.
    lengths, reverse, implementation, types, differentiation and errors: as in `rnn`.
    Source: Hochreiter and Schmidhuber, "Long short-term memory", 1997; the forget gate: Gers,
    Schmidhuber and Cummins, 2000.
    """
    return _recur("lstm", 4, x, w_ih, w_hh, b, initial, lengths, reverse, implementation)


def _rnn_cell(activation, from_input, from_state, state):
    h = activation(from_input + from_state)
    return h, h


def _gru_cell(_, from_input, from_state, h):
    r_input, z_input, n_input = jnp.split(from_input, 3, axis=-1)
    r_state, z_state, n_state = jnp.split(from_state, 3, axis=-1)
    r = jax.nn.sigmoid(r_input + r_state)
    z = jax.nn.sigmoid(z_input + z_state)
    n = jnp.tanh(n_input + r * n_state)
    h = (1 - z) * n + z * h
    return h, h


def _lstm_cell(_, from_input, from_state, state):
    _, c = state
    i, f, g, o = jnp.split(from_input + from_state, 4, axis=-1)
    c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
    h = jax.nn.sigmoid(o) * jnp.tanh(c)
    return h, (h, c)


_CELLS = {"rnn": _rnn_cell, "gru": _gru_cell, "lstm": _lstm_cell}


def _recur(
    kernel, gates, x, w_ih, w_hh, b, initial, lengths, reverse, implementation, activation=None
) -> Any:
    """Checks the arguments that the three kernels share and runs the chosen form."""
    sizes: dict[str, int] = {}
    wide = f"{gates}H" if gates > 1 else "H"
    x = checks.array("x", x, "B T D", sizes)
    w_hh = checks.array("w_hh", w_hh, f"H {wide}", sizes, x.dtype)
    w_ih = checks.array("w_ih", w_ih, f"D {wide}", sizes, x.dtype)
    b = checks.array("b", b, wide, sizes, x.dtype)
    if initial is not None and kernel == "lstm":
        pair = isinstance(initial, tuple | list) and len(initial) == 2
        checks.require(pair, "initial", "a pair (h, c)", type(initial).__name__)
        h, c = initial
        initial = (
            checks.array("initial h", h, "B H", sizes, x.dtype),
            checks.array("initial c", c, "B H", sizes, x.dtype),
        )
    elif initial is not None:
        initial = checks.array("initial", initial, "B H", sizes, x.dtype)
    if lengths is not None:
        lengths = checks.lengths(lengths, sizes["B"], sizes["T"], "T")
    name = dispatch.choose(kernel, implementation, features=sizes["D"], state=sizes["H"])
    return _recurrence(
        x,
        w_ih,
        w_hh,
        b,
        initial,
        lengths,
        kernel=kernel,
        reverse=checks.flag("reverse", reverse),
        activation=activation,
        implementation=name,
    )


@partial(jax.jit, static_argnames=("kernel", "reverse", "activation", "implementation"))
def _recurrence(x, w_ih, w_hh, b, initial, lengths, *, kernel, reverse, activation, implementation):
    batch, steps, _ = x.shape
    total = checks.accumulation(x.dtype)
    cell = partial(_CELLS[kernel], activation)
    if initial is None:
        zeros = jnp.zeros((batch, w_hh.shape[0]), x.dtype)
        initial = (zeros, zeros) if kernel == "lstm" else zeros
    initial = jax.tree.map(lambda state: state.astype(total), initial)
    real = None
    if lengths is not None:
        real = jnp.arange(steps, dtype=jnp.int32)[:, None, None] < lengths[:, None]
        # Erased before anything reads it: a mask on the outputs alone would let a NaN beyond a
        # length into the weights' gradients, as 0 * NaN.
        x = jnp.where(real[..., 0].T[..., None], x, jnp.zeros((), x.dtype))
    form = {"reference": _reference, "scan": _scan}[implementation]
    outputs, state = form(cell, x, w_ih, w_hh, b, initial, real, reverse)
    return jax.tree.map(lambda array: array.astype(x.dtype), (outputs, state))


def _product(a: jax.Array, weights: jax.Array) -> jax.Array:
    """A @ weights, multiplied in the weights' type and added up in float32 or wider."""
    total = checks.accumulation(weights.dtype)
    return jnp.matmul(a.astype(weights.dtype), weights, preferred_element_type=total)


def _advance(cell, from_input, w_hh, state, real):
    """One step: the new (state, output), or beyond a length the old state and zeros."""
    h = state[0] if isinstance(state, tuple) else state
    output, new = cell(from_input, _product(h, w_hh), state)
    if real is not None:
        new = jax.tree.map(lambda new, old: jnp.where(real, new, old), new, state)
        output = jnp.where(real, output, jnp.zeros_like(output))
    return new, output


def _reference(cell, x, w_ih, w_hh, b, initial, real, reverse):
    """The equations, a step at a time."""

    def step(state, inputs):
        x_t, real_t = inputs
        from_input = _product(x_t, w_ih) + b.astype(checks.accumulation(b.dtype))
        return _advance(cell, from_input, w_hh, state, real_t)

    # Beyond a length the state stands still, so that a reversed sequence starts at its last real
    # step by itself.
    state, outputs = jax.lax.scan(step, initial, (jnp.swapaxes(x, 0, 1), real), reverse=reverse)
    return jnp.swapaxes(outputs, 0, 1), state


def _scan(cell, x, w_ih, w_hh, b, initial, real, reverse):
    """One matrix product for the inputs of all steps; the loop keeps what needs the state."""
    from_inputs = _product(jnp.swapaxes(x, 0, 1), w_ih) + b.astype(checks.accumulation(b.dtype))

    def step(state, inputs):
        from_input, real_t = inputs
        return _advance(cell, from_input, w_hh, state, real_t)

    state, outputs = jax.lax.scan(step, initial, (from_inputs, real), reverse=reverse)
    return jnp.swapaxes(outputs, 0, 1), state
