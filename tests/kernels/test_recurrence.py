"""rnn, gru and lstm: by hand, against the reference, PyTorch, lengths to the bit, wrong input."""

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from agreement import agree, lowered, narrow_agrees, normal, outcome, uneven, wide
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.test_util import check_grads

from trivium.kernels import gru, implementations, lstm, rnn

KERNELS = {"rnn": (rnn, 1), "gru": (gru, 3), "lstm": (lstm, 4)}
EVERY = ("reference", "scan", "chunked")
LENGTHS = np.array([5, 2, 0])


def arguments(kernel, batch=3, steps=5, features=2, state=3):
    """x, w_ih, w_hh, b and an initial state."""
    gates = KERNELS[kernel][1] * state
    h, c = normal(4, batch, state), normal(5, batch, state)
    return (
        normal(0, batch, steps, features),
        normal(1, features, gates),
        normal(2, state, gates),
        normal(3, gates),
        (h, c) if kernel == "lstm" else h,
    )


def run(kernel, arrays, **options):
    """Outputs and all gradients, the initial state's among them."""
    *arrays, initial = arrays
    function = KERNELS[kernel][0]
    if isinstance(initial, tuple):
        return outcome(
            lambda x, w_ih, w_hh, b, h, c: function(x, w_ih, w_hh, b, initial=(h, c), **options),
            *arrays,
            *initial,
        )
    return outcome(
        lambda x, w_ih, w_hh, b, h: function(x, w_ih, w_hh, b, initial=h, **options),
        *arrays,
        initial,
    )


@pytest.mark.parametrize("kernel", KERNELS)
def test_every_implementation_is_tried_here(kernel):
    assert set(implementations(kernel)) == set(EVERY)


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


@pytest.mark.parametrize("implementation", EVERY)
def test_rnn_by_hand(implementation):
    outputs, h = rnn(
        np.float32([[[1], [2]]]),
        np.float32([[0.5]]),
        np.float32([[-1]]),
        np.float32([0.25]),
        initial=np.float32([[0.1]]),
        implementation=implementation,
    )
    first = math.tanh(0.5 * 1 + 0.25 - 0.1)
    second = math.tanh(0.5 * 2 + 0.25 - first)
    np.testing.assert_allclose(np.ravel(outputs), [first, second], rtol=1e-6)
    np.testing.assert_allclose(np.ravel(h), [second], rtol=1e-6)


@pytest.mark.parametrize("implementation", EVERY)
def test_gru_by_hand(implementation):
    outputs, h = gru(
        np.float32([[[2]]]),
        np.float32([[0.1, 0.2, 0.3]]),
        np.float32([[0.4, 0.5, 0.6]]),
        np.float32([0.01, 0.02, 0.03]),
        initial=np.float32([[0.7]]),
        implementation=implementation,
    )
    reset = sigmoid(2 * 0.1 + 0.01 + 0.7 * 0.4)
    update = sigmoid(2 * 0.2 + 0.02 + 0.7 * 0.5)
    # The reset gate multiplies the recurrent product, not the state and not the bias.
    new = math.tanh(2 * 0.3 + 0.03 + reset * (0.7 * 0.6))
    expected = (1 - update) * new + update * 0.7
    np.testing.assert_allclose(np.ravel(outputs), [expected], rtol=1e-6)
    np.testing.assert_allclose(np.ravel(h), [expected], rtol=1e-6)


@pytest.mark.parametrize("implementation", EVERY)
def test_lstm_by_hand(implementation):
    outputs, (h, c) = lstm(
        np.float32([[[2]]]),
        np.float32([[0.1, 0.2, 0.3, 0.4]]),
        np.float32([[0.5, 0.6, 0.7, 0.8]]),
        np.float32([0.01, 0.02, 0.03, 0.04]),
        initial=(np.float32([[0.9]]), np.float32([[-0.5]])),
        implementation=implementation,
    )
    i, f, g, o = (
        2 * w_ih + b + 0.9 * w_hh
        for w_ih, w_hh, b in (
            (0.1, 0.5, 0.01),
            (0.2, 0.6, 0.02),
            (0.3, 0.7, 0.03),
            (0.4, 0.8, 0.04),
        )
    )
    cell = sigmoid(f) * -0.5 + sigmoid(i) * math.tanh(g)
    np.testing.assert_allclose(np.ravel(c), [cell], rtol=1e-6)
    np.testing.assert_allclose(np.ravel(h), [sigmoid(o) * math.tanh(cell)], rtol=1e-6)
    np.testing.assert_array_equal(outputs[:, 0], h)


@pytest.mark.parametrize("options", [{}, {"lengths": LENGTHS, "reverse": True}])
@pytest.mark.parametrize("kernel", KERNELS)
def test_agrees_with_the_reference(kernel, options):
    arrays = arguments(kernel)
    expected = run(kernel, arrays, implementation="reference", **options)
    agree(run(kernel, arrays, implementation="scan", **options), expected)


@pytest.mark.parametrize("implementation", EVERY)
@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("reverse", [False, True])
def test_a_length_is_the_same_as_a_shorter_sequence(kernel, implementation, reverse):
    x, *weights, initial = arguments(kernel)
    function = partial(KERNELS[kernel][0], reverse=reverse, implementation=implementation)
    outputs, state = function(x, *weights, initial=initial, lengths=LENGTHS)
    short, short_state = function(
        x[1:2, :2], *weights, initial=jax.tree.map(lambda s: s[1:2], initial)
    )
    agree(outputs[1:2, :2], short, 1e-6)
    agree(jax.tree.map(lambda s: s[1:2], state), short_state, 1e-6)
    np.testing.assert_array_equal(outputs[1, 2:], np.zeros_like(outputs[1, 2:]))
    # A length of zero: nothing is read, and the state is the one to start with.
    np.testing.assert_array_equal(outputs[2], np.zeros_like(outputs[2]))
    for leaf, start in zip(jax.tree.leaves(state), jax.tree.leaves(initial), strict=True):
        np.testing.assert_array_equal(leaf[2], start[2])


@pytest.mark.parametrize("implementation", EVERY)
@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("reverse", [False, True])
def test_what_lies_beyond_a_length_changes_nothing(kernel, implementation, reverse):
    x, *rest = arguments(kernel)
    spoiled = x.copy()
    spoiled[np.arange(5) >= LENGTHS[:, None]] = np.nan
    options = {"lengths": LENGTHS, "reverse": reverse, "implementation": implementation}
    clean = run(kernel, (x, *rest), **options)
    for one, other in zip(
        jax.tree.leaves(run(kernel, (spoiled, *rest), **options)),
        jax.tree.leaves(clean),
        strict=True,
    ):
        np.testing.assert_array_equal(one, other)
    dx = np.asarray(clean[1][0])
    assert not dx[np.arange(5) >= LENGTHS[:, None]].any()


@pytest.mark.parametrize("kernel", KERNELS)
def test_reverse_reads_from_last_to_first(kernel):
    x, *weights, initial = arguments(kernel)
    function = partial(KERNELS[kernel][0], initial=initial)
    outputs, state = function(x, *weights, reverse=True)
    expected, expected_state = function(x[:, ::-1], *weights)
    agree((outputs, state), (expected[:, ::-1], expected_state), 1e-6)


def test_activation():
    arrays = arguments("rnn", steps=2)
    outputs, _ = rnn(*arrays[:4], activation=jax.nn.relu)
    first = np.maximum(arrays[0][:, 0] @ arrays[1] + arrays[3], 0)
    second = np.maximum(arrays[0][:, 1] @ arrays[1] + arrays[3] + first @ arrays[2], 0)
    agree(outputs, np.stack([first, second], axis=1))


@pytest.mark.parametrize("implementation", EVERY)
@pytest.mark.parametrize("kernel", KERNELS)
def test_gradients_by_finite_differences(kernel, implementation):
    with jax.enable_x64(True):
        *arrays, initial = arguments(kernel, batch=2, steps=3, features=2, state=2)
        states = initial if kernel == "lstm" else (initial,)

        def recur(x, w_ih, w_hh, b, *initial):
            initial = initial if kernel == "lstm" else initial[0]
            return KERNELS[kernel][0](
                x,
                w_ih,
                w_hh,
                b,
                initial=initial,
                lengths=np.array([3, 2]),
                implementation=implementation,
            )

        modes = ["rev"] if implementation == "chunked" else ["fwd", "rev"]
        check_grads(recur, wide(*arrays, *states), order=1, modes=modes)


def test_chunked_has_no_forward_mode():
    arrays = arguments("rnn")[:4]
    with pytest.raises(TypeError, match="jvp"):
        jax.jvp(partial(rnn, implementation="chunked"), arrays, arrays)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("lengths", [None, LENGTHS])
@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.usefixtures("small_chunks")
def test_chunks_agree_with_the_reference(kernel, lengths, reverse):
    arrays = arguments(kernel)
    options = {"lengths": lengths, "reverse": reverse}
    chunked = run(kernel, arrays, implementation="chunked", **options)
    agree(chunked, run(kernel, arrays, implementation="reference", **options))


@pytest.mark.parametrize("implementation", EVERY)
@pytest.mark.parametrize("kernel", KERNELS)
def test_bfloat16(kernel, implementation):
    arrays = arguments(kernel, steps=3)[:4]
    function = partial(KERNELS[kernel][0], implementation=implementation)
    narrow_agrees(function, *arrays)


@settings(max_examples=3, deadline=None, derandomize=True)
@given(st.integers(0, 3), st.integers(0, 4), st.integers(1, 3), st.integers(1, 3), st.booleans())
def test_random_shapes(batch, steps, features, state, reverse):
    for kernel, (function, _) in KERNELS.items():
        *arrays, _ = arguments(kernel, batch, steps, features, state)
        lengths = np.arange(batch) % (steps + 1)
        expected, *fast = (
            function(*arrays, lengths=lengths, reverse=reverse, implementation=name)
            for name in EVERY
        )
        assert expected[0].shape == (batch, steps, state)
        for outputs in fast:
            agree(outputs, expected)


@pytest.mark.parametrize("kernel", KERNELS)
def test_pytorch(kernel):
    torch = pytest.importorskip(
        "torch", reason="PyTorch is not installed: pip install torch==2.13.0"
    )
    arrays = arguments(kernel)
    x, w_ih, w_hh, b, initial = arrays
    peer = getattr(torch.nn, kernel.upper())(2, 3, batch_first=True)
    with torch.no_grad():
        peer.weight_ih_l0.copy_(torch.tensor(w_ih.T))
        peer.weight_hh_l0.copy_(torch.tensor(w_hh.T))
        peer.bias_ih_l0.copy_(torch.tensor(b))
        peer.bias_hh_l0.zero_()
    inputs = torch.tensor(x, requires_grad=True)
    states = [torch.tensor(state[None], requires_grad=True) for state in jax.tree.leaves(initial)]
    outputs, state = peer(inputs, tuple(states) if kernel == "lstm" else states[0])
    leaves = [outputs, *(s[0] for s in (state if kernel == "lstm" else (state,)))]
    sum((leaf * torch.tensor(uneven(leaf.shape))).sum() for leaf in leaves).backward()
    expected = (
        [leaf.detach().numpy() for leaf in leaves],
        [
            inputs.grad.numpy(),
            peer.weight_ih_l0.grad.numpy().T,
            peer.weight_hh_l0.grad.numpy().T,
            peer.bias_ih_l0.grad.numpy(),
            *(s.grad.numpy()[0] for s in states),
        ],
    )
    for name in EVERY:
        agree(run(kernel, arrays, implementation=name), expected)


@pytest.mark.parametrize("implementation", EVERY)
@pytest.mark.parametrize("kernel", KERNELS)
def test_jit_vmap_and_grad_compose(kernel, implementation):
    x, *weights, _ = arguments(kernel, batch=2, steps=3)
    x = np.stack([x, 2 * x])
    lengths = np.array([[3, 1], [2, 3]])

    def loss(x, lengths):
        outputs, _ = KERNELS[kernel][0](x, *weights, lengths=lengths, implementation=implementation)
        return jnp.sum(outputs**2)

    together = jax.jit(jax.vmap(jax.grad(loss)))(x, lengths)
    apart = [jax.jit(jax.grad(loss))(*pair) for pair in zip(x, lengths, strict=True)]
    agree(together, jnp.stack(apart))


def test_the_lstm_keeps_no_more_than_its_gradient_needs():
    """The article's layer, by what `None` picks for it."""
    batch, steps, features, state = 32, 100, 16, 64
    shapes = [(batch, steps, features), (features, 4 * state), (state, 4 * state), (4 * state,)]
    arrays = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
    # What the function that pulls a gradient back holds on to.
    kept = jax.eval_shape(lambda *arrays: jax.vjp(lstm, *arrays)[1], *arrays)
    # The chain rule of a step reads the four gates after their nonlinearity (each derivative is a
    # polynomial in it), c before the step (c after it is the next step's, and tanh(c) is one
    # nonlinearity away) and h before it; the weights' gradients read x; w_ih and w_hh carry the
    # gradient on. Nothing else, one step's state at the edge apart.
    needed = 6 * steps * batch * state + 2 * batch * state + sum(map(math.prod, shapes))
    assert sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(kept)) <= 4 * needed


@pytest.mark.parametrize("kernel", KERNELS)
def test_known_lengths_are_checked_inside_a_compiled_function_too(kernel):
    x, *weights, _ = arguments(kernel)

    def outputs(lengths):
        known = jnp.asarray(lengths)
        return jax.jit(lambda x: KERNELS[kernel][0](x, *weights, lengths=known)[0])(x)

    agree(outputs(LENGTHS), KERNELS[kernel][0](x, *weights, lengths=LENGTHS)[0])
    with pytest.raises(ValueError, match="lengths: expected"):
        outputs([6, 2, 0])


@pytest.mark.parametrize("kernel", KERNELS)
def test_the_lowered_text_shows_which_implementation_ran(kernel):
    arrays = arguments(kernel)[:4]
    wide = arrays[3].size

    def text(name):
        return lowered(partial(KERNELS[kernel][0], implementation=name), *arrays)

    # The product with all steps' inputs at once, and the one with a single step's. The chunk's
    # loop stands around the one over steps.
    hoisted, single = f"-> tensor<5x3x{wide}xf32>", f"tensor<3x2xf32>, tensor<2x{wide}xf32>"
    products = {
        name: [line for line in text(name).splitlines() if "dot_general" in line] for name in EVERY
    }
    for name in ("scan", "chunked"):
        assert any(hoisted in line for line in products[name])
        assert not any(single in line for line in products[name])
    loops = {name: text(name).count("stablehlo.while") for name in EVERY}
    assert loops["chunked"] > loops["scan"]
    assert any(single in line for line in products["reference"])
    assert not any(hoisted in line for line in products["reference"])


def test_traced_lengths_are_clipped():
    arrays = arguments("rnn")[:4]
    run = jax.jit(lambda lengths: rnn(*arrays, lengths=lengths))
    agree(run(np.array([9, 2, -4])), run(np.array([5, 2, 0])), 0.0)


RNN = arguments("rnn")
X, W_IH, W_HH, B, H = RNN


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize(
    ("spoil", "options", "message"),
    [
        ({0: lambda x: x[0]}, {}, r"x: expected shape \[B, T, D\]"),
        ({0: lambda x: x.astype(int)}, {}, "x: expected a floating-point array"),
        ({1: lambda w: w[:, :-1]}, {}, r"w_ih: expected shape \[D, \d?H\] with D = 2, H = 3"),
        ({1: lambda w: w[:1]}, {}, "w_ih: "),
        ({2: lambda w: w[:2]}, {}, "w_hh: "),
        ({2: lambda w: w[0]}, {}, "w_hh: "),
        ({3: lambda b: b[:-1]}, {}, r"b: expected shape \[\d?H\] with H = 3"),
        ({3: lambda b: None}, {}, "b: expected an array, received NoneType"),
        ({3: lambda b: jnp.asarray(b, jnp.float16)}, {}, "b: expected type float32"),
        ({}, {"initial": "zeros"}, "initial: expected"),
        ({}, {"lengths": np.array([5, 2])}, r"lengths: expected shape \[B\] with B = 3"),
        ({}, {"lengths": np.array([5.0, 2.0, 1.0])}, "lengths: expected an integer array"),
        (
            {},
            {"lengths": np.array([5, 6, 1])},
            "lengths: expected values from 0 to T = 5, received values from 1 to 6",
        ),
        ({}, {"lengths": np.array([5, -1, 1])}, "lengths: .* received values from -1 to 5"),
        ({}, {"reverse": 1}, "reverse: expected True or False, received 1"),
        ({}, {"implementation": "cudnn"}, "implementation: .*'scan'.*received 'cudnn'"),
    ],
)
def test_wrong_input(kernel, spoil, options, message):
    arrays = list(arguments(kernel)[:4])
    for position, change in spoil.items():
        arrays[position] = change(arrays[position])
    with pytest.raises(ValueError, match=message):
        KERNELS[kernel][0](*arrays, **options)


def test_wrong_input_of_one_kernel():
    with pytest.raises(ValueError, match="activation: expected a function, received 'tanh'"):
        rnn(X, W_IH, W_HH, B, activation="tanh")
    with pytest.raises(ValueError, match=r"initial: expected shape \[B, H\]"):
        rnn(X, W_IH, W_HH, B, initial=H[:, :2])
    *arrays, (h, c) = arguments("lstm")
    with pytest.raises(ValueError, match=r"initial: expected a pair \(h, c\)"):
        lstm(*arrays, initial=h)
    with pytest.raises(ValueError, match="initial h: expected type float32"):
        lstm(*arrays, initial=(jnp.asarray(h, jnp.bfloat16), c))
    with pytest.raises(ValueError, match="initial c: expected shape"):
        lstm(*arrays, initial=(h, c[:2]))
