"""Recurrence: one set of weights reads a sequence step by step and carries a state along."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

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
        does not depend on the state taken out of it; "chunked" the same in chunks of time, with
        a gradient of its own that keeps the states and makes the rest again; None the fastest
        here.

    Products and states are kept in float32 (float64 for float64 input), outputs are of x's type.
    "chunked" has no forward mode (`jax.jvp`): ask for "reference".
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
    if implementation == "chunked":
        outputs, state = _chunked(kernel, activation, x, w_ih, w_hh, b, initial, real, reverse)
    else:
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


# Steps times sequences that are linearized at a time: few enough to stay in the caches, enough for
# large products.
_CHUNK = 2560


def _chunked(kernel, activation, x, w_ih, w_hh, b, initial, real, reverse):
    """The scan in chunks of time, with a gradient that keeps nothing but the states.

    Going back, each chunk's gates are made again by two large products and give, elementwise, all
    that a step needs; the loop over steps is left with one product and a few multiplications, and
    the gradients of the weights are products over the whole chunk.
    """
    static = _Static(kernel, activation, reverse)
    before, state = _states(static, jnp.swapaxes(x, 0, 1), w_ih, w_hh, b, initial, real)
    h = (state[0] if kernel == "lstm" else state)[None]
    # The output of a step is the state before the next one.
    after = (h, before[:-1]) if reverse else (before[1:], h)
    outputs = jnp.concatenate(after) if len(before) else before
    if real is not None:
        outputs = jnp.where(real, outputs, jnp.zeros_like(outputs))
    return jnp.swapaxes(outputs, 0, 1), state


class _Static(NamedTuple):
    """What selects code, hashable."""

    kernel: str
    activation: Callable | None
    reverse: bool


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _states(static, x, w_ih, w_hh, b, initial, real):
    """Reads x [T, B, D] -> (h before each step [T, B, H], the state after the last one read)."""
    outputs, _ = _states_forward(static, x, w_ih, w_hh, b, initial, real)
    return outputs


def _states_forward(static, x, w_ih, w_hh, b, initial, real):
    cell = _FAST_CELLS[static.kernel]

    def chunk(state, inputs):
        x, real = inputs

        def step(state, inputs):
            from_input, real_t = inputs
            new = cell(static.activation, from_input, _product(_hidden(state), w_hh), state)
            if real_t is not None:
                new = jax.tree.map(partial(jnp.where, real_t), new, state)
            return new, state

        from_inputs = _product(x, w_ih) + b.astype(checks.accumulation(b.dtype))
        return jax.lax.scan(step, state, (from_inputs, real), reverse=static.reverse)

    state, before = _over_chunks(chunk, initial, (x, real), x.shape[1], static.reverse)
    return (_hidden(before), state), (x, w_ih, w_hh, b, real, before)


def _states_backward(static, residuals, gradients):
    x, w_ih, w_hh, b, real, before = residuals
    slopes_of, pull = _SLOPES[static.kernel], _PULLS[static.kernel]
    total = checks.accumulation(x.dtype)
    w_ih_t, w_hh_t = w_ih.T.astype(total), w_hh.T.astype(total)

    def chunk(carry, inputs):
        dstate, *sums = carry
        x, real, before, dbefore = inputs
        from_inputs = _product(x, w_ih) + b.astype(total)
        from_states = _product(_hidden(before), w_hh)
        slopes = slopes_of(static.activation, from_inputs, from_states, before)

        def step(dstate, inputs):
            slopes, real_t, dbefore_t = inputs
            _, dproduct, direct = pull(slopes, dstate)
            if real_t is not None:
                # Beyond a length the state stood still, and so does its gradient.
                dproduct = jnp.where(real_t, dproduct, jnp.zeros_like(dproduct))
                direct = jax.tree.map(partial(jnp.where, real_t), direct, dstate)
            dh = dproduct @ w_hh_t + dbefore_t
            if static.kernel == "lstm":
                return (direct[0] + dh, direct[1]), dstate
            return direct + dh, dstate

        start, dstates = jax.lax.scan(
            step, dstate, (slopes, real, dbefore), reverse=not static.reverse
        )
        dinput, dproduct, _ = pull(slopes, dstates)
        if real is not None:
            dinput, dproduct = (jnp.where(real, d, jnp.zeros_like(d)) for d in (dinput, dproduct))
        new = (_outer(x, dinput), _outer(_hidden(before), dproduct), dinput.sum((0, 1)))
        return (start, *map(jnp.add, sums, new)), dinput @ w_ih_t

    dbefore, dstate = gradients
    zeros = (jnp.zeros(array.shape, total) for array in (w_ih, w_hh, b))
    (dinitial, dw_ih, dw_hh, db), dx = _over_chunks(
        chunk, (dstate, *zeros), (x, real, before, dbefore), x.shape[1], not static.reverse
    )
    dweights = (dw_ih.astype(w_ih.dtype), dw_hh.astype(w_hh.dtype), db.astype(b.dtype))
    return dx.astype(x.dtype), *dweights, dinitial, None


_states.defvjp(_states_forward, _states_backward)


def _hidden(state):
    return state[0] if isinstance(state, tuple) else state


def _outer(a, d):
    """Sum over steps and sequences of a^T d: a [T, B, M], d [T, B, N] -> [M, N]."""
    return jnp.einsum("tbm,tbn->mn", a.astype(d.dtype), d)


def _over_chunks(function, carry, arrays, batch, reverse):
    """`jax.lax.scan` that hands out many steps at a time, and those that fill no chunk at the end.

    function: (carry, arrays [steps, ...]) -> (carry, outputs [steps, ...]).
    """
    steps = jax.tree.leaves(arrays)[0].shape[0]
    size = min(max(_CHUNK // max(batch, 1), 1), max(steps, 1))
    # Up to half as many steps more where that leaves none over.
    size = next((n for n in range(size * 3 // 2, size // 2, -1) if steps % n == 0), size)
    whole = steps // size * size

    def chunks(carry):
        cut = jax.tree.map(lambda a: a[:whole].reshape(whole // size, size, *a.shape[1:]), arrays)
        carry, outputs = jax.lax.scan(function, carry, cut, reverse=reverse)
        return carry, jax.tree.map(lambda a: a.reshape(whole, *a.shape[2:]), outputs)

    if whole == steps:
        return chunks(carry)
    rest = jax.tree.map(lambda a: a[whole:], arrays)
    if reverse:
        carry, last = function(carry, rest)
        carry, first = chunks(carry)
    else:
        carry, first = chunks(carry)
        carry, last = function(carry, rest)
    return carry, jax.tree.map(lambda *parts: jnp.concatenate(parts), first, last)


def _sigmoid_and_tanh(z, kinds):
    """The activations of gates that lie side by side, each "sigmoid" or "tanh", by one tanh.

    sigmoid(z) = (1 + tanh(z / 2)) / 2: a loop of one function over all gates is what the compiler
    turns into vector instructions.
    """
    size = z.shape[-1] // len(kinds)
    sigmoids = np.repeat([kind == "sigmoid" for kind in kinds], size)
    half = jnp.asarray(np.where(sigmoids, 0.5, 1.0), z.dtype)
    offset = jnp.asarray(np.where(sigmoids, 0.5, 0.0), z.dtype)
    return jnp.split(jnp.tanh(z * half) * half + offset, len(kinds), axis=-1)


_LSTM_GATES = ("sigmoid", "sigmoid", "tanh", "sigmoid")


def _fast_rnn(activation, from_input, from_state, _):
    return activation(from_input + from_state)


def _rnn_slopes(activation, from_input, from_state, _):
    z = from_input + from_state
    return jax.jvp(activation, (z,), (jnp.ones_like(z),))[1]


def _rnn_pull(slopes, dh):
    d = dh * slopes
    return d, d, jnp.zeros_like(dh)


def _gru_gates(from_input, from_state):
    h = from_input.shape[-1] // 3
    gates = from_input[..., : 2 * h] + from_state[..., : 2 * h]
    r, z = _sigmoid_and_tanh(gates, ("sigmoid", "sigmoid"))
    return r, z, jnp.tanh(from_input[..., 2 * h :] + r * from_state[..., 2 * h :])


def _fast_gru(_, from_input, from_state, h):
    _, z, n = _gru_gates(from_input, from_state)
    return (1 - z) * n + z * h


def _gru_slopes(_, from_input, from_state, h):
    r, z, n = _gru_gates(from_input, from_state)
    new = (1 - z) * (1 - n * n)
    reset = new * from_state[..., 2 * h.shape[-1] :] * r * (1 - r)
    update = (h - n) * z * (1 - z)
    return jnp.concatenate([reset, update, new], axis=-1), r, z


def _gru_pull(slopes, dh):
    gates, r, z = slopes
    d = jnp.concatenate([dh, dh, dh], axis=-1) * gates
    reset_and_update, new = jnp.split(d, [2 * dh.shape[-1]], axis=-1)
    return d, jnp.concatenate([reset_and_update, new * r], axis=-1), dh * z


def _fast_lstm(_, from_input, from_state, state):
    i, f, g, o = _sigmoid_and_tanh(from_input + from_state, _LSTM_GATES)
    c = f * state[1] + i * g
    return o * jnp.tanh(c), c


def _lstm_slopes(_, from_input, from_state, state):
    _, c = state
    i, f, g, o = _sigmoid_and_tanh(from_input + from_state, _LSTM_GATES)
    t = jnp.tanh(f * c + i * g)
    gates = [g * i * (1 - i), c * f * (1 - f), i * (1 - g * g), t * o * (1 - o)]
    return jnp.concatenate(gates, axis=-1), o * (1 - t * t), f


def _lstm_pull(slopes, dstate):
    gates, cell_of_h, f = slopes
    dh, dc = dstate
    dc = dc + dh * cell_of_h
    d = jnp.concatenate([dc, dc, dc, dh], axis=-1) * gates
    return d, d, (jnp.zeros_like(dh), dc * f)


# The state after a step.
_FAST_CELLS = {"rnn": _fast_rnn, "gru": _fast_gru, "lstm": _fast_lstm}
# The derivatives of a step, elementwise, for all steps of a chunk at once ...
_SLOPES = {"rnn": _rnn_slopes, "gru": _gru_slopes, "lstm": _lstm_slopes}
# ... and the gradient of the state after a step -> those of its input projection, of its recurrent
# product, and of the state before it as far as it does not go through the product.
_PULLS = {"rnn": _rnn_pull, "gru": _gru_pull, "lstm": _lstm_pull}
