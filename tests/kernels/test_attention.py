"""attention: by hand, tiles against the reference, PyTorch, rows with no key, wrong input."""

import math
from functools import partial
from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from agreement import agree, lowered, narrow_agrees, normal, outcome, uneven, wide
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jax.test_util import check_grads

from trivium.kernels import attention, implementations

EVERY = ("reference", "blockwise")


def arguments(batch=2, queries=6, keys=7, heads=(4, 2), size=4):
    """q, k, v; heads of queries and of keys."""
    heads, key_heads = heads
    return (
        normal(0, batch, queries, heads, size),
        normal(1, batch, keys, key_heads, size),
        normal(2, batch, keys, key_heads, size),
    )


MASK = np.random.default_rng(3).random((2, 1, 6, 7)) < 0.6
MASK[:, :, 2] = False  # a query that attends to nothing
BIAS = normal(4, 1, 4, 6, 7)

# (options, the bias's shape or None)
GRID = [
    ({}, None),
    ({"causal": True}, None),
    ({"window": 2}, (6, 7)),
    ({"causal": True, "window": 3, "lengths": np.array([7, 3])}, None),
    ({"mask": MASK, "scale": 0.3}, (1, 4, 6, 7)),
    ({"mask": MASK[:, :, :1], "lengths": np.array([0, 6])}, (2, 1, 1, 7)),
]


def test_every_implementation_is_tried_here():
    assert set(implementations("attention")) == set(EVERY)


@pytest.mark.parametrize("implementation", EVERY)
def test_values_by_hand(implementation):
    q = np.float32([1, 2]).reshape(1, 1, 1, 2)
    k = np.float32([[1, 0], [0, 1], [1, 1]]).reshape(1, 3, 1, 2)
    v = np.float32([[1, 0], [0, 10], [100, 100]]).reshape(1, 3, 1, 2)
    weights = np.array([math.exp(n / math.sqrt(2)) for n in (1, 2, 3)])  # q . k is 1, 2, 3
    expected = weights / weights.sum() @ v[0, :, 0]
    y = attention(q, k, v, implementation=implementation)
    np.testing.assert_allclose(y[0, 0, 0], expected, rtol=1e-6)
    y = attention(q, k, v, scale=1.0, lengths=[1], implementation=implementation)
    np.testing.assert_allclose(y[0, 0, 0], v[0, 0, 0], rtol=1e-6)


def seen(queries, keys, implementation, **options):
    """Which keys each query attends to: keys are alike, and each value is its own unit vector."""
    q = np.zeros((1, queries, 1, keys), np.float32)
    k = np.zeros((1, keys, 1, keys), np.float32)
    v = np.eye(keys, dtype=np.float32)[None, :, None]
    weights = attention(q, k, v, implementation=implementation, **options)[0, :, 0]
    return ["".join("x" if weight > 0 else "." for weight in row) for row in np.asarray(weights)]


@pytest.mark.parametrize("implementation", EVERY)
def test_causal_and_window_by_hand(implementation):
    assert seen(3, 3, implementation, causal=True) == ["x..", "xx.", "xxx"]
    # Fewer queries than keys: the last query sees the last key.
    assert seen(2, 4, implementation, causal=True) == ["xxx.", "xxxx"]
    # More queries than keys: the first ones see nothing.
    assert seen(4, 2, implementation, causal=True) == ["..", "..", "x.", "xx"]
    assert seen(4, 4, implementation, causal=True, window=2) == ["x...", "xx..", ".xx.", "..xx"]
    assert seen(4, 4, implementation, window=2) == ["xx..", "xxx.", ".xxx", "..xx"]
    assert seen(2, 4, implementation, window=1) == ["..x.", "...x"]
    assert seen(3, 3, implementation, causal=True, lengths=[2]) == ["x..", "xx.", "xx."]
    assert seen(2, 3, implementation, mask=[True, False, True]) == ["x.x", "x.x"]
    bias = np.float32([[0, -np.inf, 0], [-np.inf, -np.inf, -np.inf]])
    assert seen(2, 3, implementation, bias=bias) == ["x.x", "..."]


@pytest.mark.parametrize(("options", "bias"), GRID)
@pytest.mark.usefixtures("small_tiles")
def test_tiles_agree_with_the_reference(options, bias):
    arrays = arguments() if bias is None else (*arguments(), normal(4, *bias))

    def run(name):
        def attend(q, k, v, bias=None):
            return attention(q, k, v, bias=bias, implementation=name, **options)

        return outcome(attend, *arrays)

    agree(run("blockwise"), run("reference"))


@pytest.mark.parametrize("implementation", EVERY)
def test_grouped_queries_are_the_same_as_repeated_keys(implementation):
    q, k, v = arguments()
    grouped = attention(q, k, v, implementation=implementation)
    repeated = attention(q, k.repeat(2, 2), v.repeat(2, 2), implementation=implementation)
    agree(grouped, repeated, 1e-6)


@pytest.mark.parametrize("implementation", EVERY)
def test_a_row_with_no_key_gives_zeros_and_finite_gradients(implementation):
    y, gradients = outcome(
        lambda q, k, v, bias: attention(
            q, k, v, bias=bias, mask=MASK, lengths=[0, 7], implementation=implementation
        ),
        *arguments(),
        BIAS,
    )
    np.testing.assert_array_equal(y[0], np.zeros_like(y[0]))
    np.testing.assert_array_equal(y[1, 2], np.zeros_like(y[1, 2]))
    assert all(np.isfinite(gradient).all() for gradient in gradients)
    np.testing.assert_array_equal(gradients[0][0], np.zeros_like(gradients[0][0]))


@pytest.mark.parametrize("implementation", EVERY)
def test_what_lies_beyond_a_length_changes_nothing(implementation):
    q, k, v = arguments()
    lengths = np.array([7, 4])

    def run(k, v):
        return outcome(
            lambda q, k, v: attention(q, k, v, lengths=lengths, implementation=implementation),
            q,
            k,
            v,
        )

    clean = run(k, v)
    k, v = k.copy(), v.copy()
    k[1, 4:], v[1, 4:] = np.nan, np.inf
    for one, other in zip(jax.tree.leaves(run(k, v)), jax.tree.leaves(clean), strict=True):
        np.testing.assert_array_equal(one, other)
    assert not np.asarray(clean[1][1])[1, 4:].any()
    assert not np.asarray(clean[1][2])[1, 4:].any()


@pytest.mark.parametrize("implementation", EVERY)
def test_what_a_bias_holds_beyond_a_length_changes_nothing(implementation):
    lengths = np.array([7, 4])

    def run(bias):
        return outcome(
            lambda q, k, v, bias: attention(
                q, k, v, bias=bias, lengths=lengths, implementation=implementation
            ),
            *arguments(),
            bias,
        )

    bias = normal(4, 2, 4, 6, 7)
    clean = run(bias)
    bias[1, ..., 4:] = np.nan
    for one, other in zip(jax.tree.leaves(run(bias)), jax.tree.leaves(clean), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("implementation", EVERY)
def test_a_length_of_zero_gives_zeros_and_no_gradient(implementation):
    y, gradients = outcome(
        lambda q, k, v: attention(q, k, v, lengths=[0, 5], implementation=implementation),
        *arguments(),
    )
    for array in (y, *gradients):
        np.testing.assert_array_equal(array[0], np.zeros_like(array[0]))
        assert np.isfinite(array).all()


@pytest.mark.parametrize("implementation", EVERY)
def test_large_logits_do_not_overflow(implementation):
    q, k, v = arguments()
    y = attention(1e4 * q, 1e4 * k, v, implementation=implementation)
    assert np.isfinite(y).all()


@pytest.mark.parametrize("implementation", EVERY)
@pytest.mark.usefixtures("small_tiles")
def test_gradients_by_finite_differences(implementation):
    with jax.enable_x64(True):
        arrays = wide(*arguments(1, 5, 6, (2, 1), 2), normal(4, 2, 5, 6))

        def attend(q, k, v, bias):
            return attention(q, k, v, bias=bias, causal=True, implementation=implementation)

        modes = ["rev"] if implementation == "blockwise" else ["fwd", "rev"]
        check_grads(attend, arrays, order=1, modes=modes)


@pytest.mark.parametrize("implementation", EVERY)
def test_bfloat16(implementation):
    narrow_agrees(
        lambda q, k, v: attention(q, k, v, causal=True, implementation=implementation),
        *arguments(),
    )


@settings(
    max_examples=5,
    deadline=None,
    derandomize=True,
    # The tiles' size may stay as it is from one example to the next.
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    st.tuples(st.integers(0, 3), st.integers(0, 9), st.integers(0, 9)),
    st.integers(1, 2),
    st.integers(1, 2),
    st.booleans(),
    st.none() | st.integers(1, 5),
)
@pytest.mark.usefixtures("small_tiles")
def test_random_shapes(sizes, key_heads, group, causal, window):
    q, k, v = arguments(*sizes, (key_heads * group, key_heads), 2)
    expected, tiled = (
        attention(q, k, v, causal=causal, window=window, implementation=name) for name in EVERY
    )
    assert expected.shape == q.shape
    agree(tiled, expected)


@pytest.mark.parametrize("case", ["plain", "causal", "bias", "mask"])
def test_pytorch(case):
    torch = pytest.importorskip(
        "torch", reason="PyTorch is not installed: pip install torch==2.13.0"
    )
    arrays = arguments(queries=7)
    if case == "bias":
        arrays = (*arrays, normal(4, 2, 4, 7, 7))
    mask = np.random.default_rng(3).random((2, 4, 7, 7)) < 0.6
    mask[..., 0] = True
    theirs = [torch.tensor(array, requires_grad=True) for array in arrays]
    q, k, v = (array.transpose(1, 2) for array in theirs[:3])
    extra = {"bias": theirs[-1], "mask": torch.tensor(mask)}.get(case)
    y = torch.nn.functional.scaled_dot_product_attention(
        q, k, v, attn_mask=extra, is_causal=case == "causal", enable_gqa=True
    ).transpose(1, 2)
    weights = uneven(y.shape)
    y.backward(torch.tensor(weights))
    expected = y.detach().numpy(), tuple(array.grad.numpy() for array in theirs)
    for name in EVERY:

        def attend(q, k, v, bias=None, name=name):
            return attention(
                q,
                k,
                v,
                bias=bias,
                mask=mask if case == "mask" else None,
                causal=case == "causal",
                implementation=name,
            )

        agree(outcome(attend, *arrays), expected)


@pytest.mark.parametrize("implementation", EVERY)
def test_jit_vmap_and_grad_compose(implementation):
    q, k, v = (np.stack([array, 2 * array]) for array in arguments())
    lengths = np.array([[7, 2], [3, 5]])

    def loss(q, k, v, lengths):
        y = attention(q, k, v, lengths=lengths, causal=True, implementation=implementation)
        return jnp.sum(y**2)

    gradient = jax.grad(loss, (0, 1, 2))
    together = jax.jit(jax.vmap(gradient))(q, k, v, lengths)
    apart = [jax.jit(gradient)(*one) for one in zip(q, k, v, lengths, strict=True)]
    agree(together, jax.tree.map(lambda *leaves: jnp.stack(leaves), *apart))


def test_the_lowered_text_shows_which_implementation_ran():
    arrays = [jax.ShapeDtypeStruct((1, 2048, 2, 8), jnp.float32)] * 3

    def text(name):
        return lowered(
            jax.grad(lambda *arrays: jnp.sum(attention(*arrays, implementation=name))), *arrays
        )

    assert "2048x2048xf32" in text("reference")
    assert "stablehlo.while" not in text("reference")
    # None takes the tiles where sequences are long.
    for name in ("blockwise", None):
        assert "2048x2048" not in text(name)
        assert "stablehlo.while" in text(name)


def test_memory_of_tiles_grows_with_the_length_not_its_square():
    def temporary(steps, name):
        arrays = [jax.ShapeDtypeStruct((1, steps, 2, 16), jnp.float32)] * 3
        gradient = jax.grad(
            lambda *arrays: jnp.sum(attention(*arrays, causal=True, implementation=name)),
            (0, 1, 2),
        )
        analysis = jax.jit(gradient).lower(*arrays).compile().memory_analysis()
        return analysis.temp_size_in_bytes

    assert temporary(32768, "blockwise") < 5 * temporary(8192, "blockwise")
    assert temporary(8192, "blockwise") < temporary(8192, "reference") / 20


@pytest.mark.parametrize("part", ["forward", "gradient"])
def test_memory_of_what_long_sequences_get_is_linear(part):
    """Twice the tokens take at most 2.2 times the memory, from 2k to 32k, with nothing named."""

    def temporary(steps):
        arrays = [jax.ShapeDtypeStruct((1, steps, 2, 16), jnp.float32)] * 3
        run = partial(attention, causal=True)
        if part == "gradient":
            run = jax.grad(lambda *arrays: jnp.sum(attention(*arrays, causal=True)), (0, 1, 2))
        return jax.jit(run).lower(*arrays).compile().memory_analysis().temp_size_in_bytes

    sizes = [temporary(1024 * thousands) for thousands in (2, 4, 8, 16, 32)]
    assert all(0 < more <= 2.2 * less for less, more in pairwise(sizes))


@pytest.mark.parametrize("implementation", EVERY)
@pytest.mark.parametrize("sizes", [(0, 3, 3), (2, 0, 3), (2, 3, 0)])
def test_empty_arrays(implementation, sizes):
    q, k, v = arguments(*sizes)
    bias = normal(4, sizes[0], 4, *sizes[1:])
    y, gradients = outcome(
        lambda q, k, v, bias: attention(q, k, v, bias=bias, implementation=implementation),
        q,
        k,
        v,
        bias,
    )
    np.testing.assert_array_equal(y, np.zeros_like(q))  # also where there is no key at all
    expected = [q.shape, k.shape, v.shape, bias.shape]
    assert [gradient.shape for gradient in gradients] == expected


def test_traced_lengths_are_clipped():
    q, k, v = arguments()
    run = jax.jit(lambda lengths: attention(q, k, v, lengths=lengths))
    agree(run(np.array([9, -1])), run(np.array([7, 0])), 0.0)


Q, K, V = arguments()


@pytest.mark.parametrize(
    ("arrays", "options", "message"),
    [
        ((Q[0], K, V), {}, r"q: expected shape \[B, T, N, H\], received \(6, 4, 4\)"),
        ((Q.astype(int), K, V), {}, "q: expected a floating-point array, received .* int32"),
        ((Q[..., :0], K[..., :0], V[..., :0]), {}, "q: expected .* H at least 1"),
        ((Q, K[:1], V), {}, r"k: expected shape \[B, S, K, H\] with B = 2, H = 4"),
        ((Q, K[..., :2], V), {}, "k: expected shape"),
        ((Q, K, V[:, :3]), {}, "v: expected shape .* S = 7"),
        ((Q, K, None), {}, "v: expected an array, received NoneType"),
        ((Q, jnp.asarray(K, jnp.bfloat16), V), {}, "k: expected type float32"),
        ((Q[:, :, :3], K, V), {}, "k: expected a number of heads K that divides the 3 of q"),
        ((Q, K[:, :, :0], V[:, :, :0]), {}, "k: expected a number of heads"),
        ((Q, K, V), {"mask": MASK.astype(np.float32)}, "mask: expected a boolean array"),
        ((Q, K, V), {"mask": MASK[..., :6]}, r"mask: expected .* broadcasts .* \(2, 4, 6, 7\)"),
        ((Q, K, V), {"mask": MASK[None]}, "mask: expected a shape that broadcasts"),
        ((Q, K, V), {"bias": MASK}, "bias: expected a floating-point array"),
        ((Q, K, V), {"bias": BIAS[:, :3]}, r"bias: expected .* received \(1, 3, 6, 7\)"),
        ((Q, K, V), {"causal": "yes"}, "causal: expected True or False"),
        ((Q, K, V), {"window": 0}, "window: expected an integer of at least 1, received 0"),
        ((Q, K, V), {"window": 2.5}, "window: .* received 2.5"),
        ((Q, K, V), {"lengths": [7, 8]}, "lengths: expected values from 0 to S = 7"),
        ((Q, K, V), {"lengths": [-1, 7]}, "lengths: .* received values from -1 to 7"),
        ((Q, K, V), {"lengths": [math.nan, 7]}, "lengths: expected an integer array"),
        ((Q, K, V), {"lengths": [7]}, r"lengths: expected shape \[B\]"),
        ((Q, K, V), {"lengths": [True, False]}, "lengths: expected an integer array"),
        ((Q, K, V), {"scale": 0.0}, "scale: expected a finite number above 0"),
        ((Q, K, V), {"scale": math.nan}, "scale: .* received nan"),
        ((Q, K, V), {"implementation": "flash"}, "implementation: .*'blockwise'.*'flash'"),
    ],
)
def test_wrong_input(arrays, options, message):
    with pytest.raises(ValueError, match=message):
        attention(*arrays, **options)
