"""max_pool and avg_pool: by hand, against the reference, PyTorch, ties, and wrong input."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from agreement import agree, lowered, narrow_agrees, normal, outcome, uneven, wide
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.test_util import check_grads

from trivium.kernels import avg_pool, implementations, max_pool

POOLS = {"max_pool": max_pool, "avg_pool": avg_pool}
MAX = ("reference", "taps", "xla")
AVG = ("reference", "xla")
EVERY = [*(("max_pool", name) for name in MAX), *(("avg_pool", name) for name in AVG)]

GRID = [
    ((2, 6, 8, 3), {"window": 2}),
    ((2, 7, 5, 2), {"window": (3, 2)}),
    ((1, 7, 7, 2), {"window": 3, "stride": 2, "padding": "SAME"}),
    ((1, 5, 6, 2), {"window": (2, 3), "stride": 1, "padding": 1}),
    ((1, 5, 7, 2), {"window": 3, "stride": 3, "padding": ((1, 2), (0, 1))}),
    ((1, 8, 8, 2), {"window": 2, "stride": 3}),
]


def test_every_implementation_is_tried_here():
    assert set(implementations("max_pool")) == set(MAX)
    assert set(implementations("avg_pool")) == set(AVG)


@pytest.mark.parametrize("implementation", MAX)
def test_max_by_hand(implementation):
    x = np.array([[1, 5, 2, 0], [3, 4, 8, 7], [9, 6, -1, -2]], np.float32).reshape(1, 3, 4, 1)
    y = max_pool(x, 2, implementation=implementation)
    np.testing.assert_array_equal(y[0, :, :, 0], [[5, 8]])  # the third row fills no window
    y = max_pool(x, 2, padding="SAME", implementation=implementation)
    np.testing.assert_array_equal(y[0, :, :, 0], [[5, 8], [9, -1]])  # padding is never the largest
    y = max_pool(x, (1, 2), stride=(2, 1), implementation=implementation)
    np.testing.assert_array_equal(y[0, :, :, 0], [[5, 5, 2], [9, 6, -1]])


@pytest.mark.parametrize("implementation", AVG)
def test_average_by_hand(implementation):
    x = np.array([[1, 5, 2], [3, 7, 8], [9, 6, -1]], np.float32).reshape(1, 3, 3, 1)
    y = avg_pool(x, 2, implementation=implementation)
    np.testing.assert_array_equal(y[0, :, :, 0], [[4]])
    # The mean is over the cells inside the image: two at an edge, one in the corner.
    y = avg_pool(x, 2, padding="SAME", implementation=implementation)
    np.testing.assert_array_equal(y[0, :, :, 0], [[4, 5], [7.5, -1]])


@pytest.mark.parametrize("implementation", MAX)
@pytest.mark.parametrize(
    ("window", "options", "places"),
    [
        # Every window holds nothing but equal values: its first cell gets the whole gradient.
        (2, {}, [[1, 0, 1, 0], [0, 0, 0, 0], [1, 0, 1, 0], [0, 0, 0, 0]]),
        (2, {"stride": 1}, [[1, 1, 1, 0], [1, 1, 1, 0], [1, 1, 1, 0], [0, 0, 0, 0]]),
        (3, {"stride": 2, "padding": 1}, [[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]]),
    ],
)
@pytest.mark.parametrize("value", [0.0, -3.5])
def test_one_unit_of_gradient_where_values_tie(implementation, window, options, places, value):
    x = np.full((1, 4, 4, 1), value, np.float32)
    gradient = jax.grad(
        lambda x: jnp.sum(max_pool(x, window, implementation=implementation, **options))
    )(x)
    np.testing.assert_array_equal(gradient[0, :, :, 0], places)


@pytest.mark.parametrize("implementation", ["reference", "taps"])
def test_minus_infinity_inside_beats_the_padding(implementation):
    x = np.full((1, 2, 2, 1), -np.inf, np.float32)
    gradient = jax.grad(
        lambda x: jnp.sum(max_pool(x, 2, stride=1, padding=1, implementation=implementation))
    )(x)
    assert float(jnp.sum(gradient)) == 9.0


@pytest.mark.parametrize("implementation", MAX)
def test_nan_in_a_window_gives_nan(implementation):
    x = normal(0, 1, 4, 4, 1)
    x[0, 1, 0, 0] = np.nan
    y = np.asarray(max_pool(x, 2, implementation=implementation))[0, :, :, 0]
    np.testing.assert_array_equal(np.isnan(y), [[True, False], [False, False]])


@pytest.mark.parametrize("implementation", AVG)
def test_nan_shows_in_the_means_that_see_it(implementation):
    x = normal(0, 1, 4, 4, 1)
    x[0, 1, 0, 0] = np.nan
    y = np.asarray(avg_pool(x, 2, implementation=implementation))[0, :, :, 0]
    np.testing.assert_array_equal(np.isnan(y), [[True, False], [False, False]])


@pytest.mark.parametrize(("image", "options"), GRID)
def test_max_agrees_with_the_reference(image, options):
    x = np.round(normal(0, *image))  # many ties

    def run(name):
        return outcome(lambda x: max_pool(x, implementation=name, **options), x)

    expected, expected_gradient = run("reference")
    for name in ("taps", "xla"):
        y, gradient = run(name)
        np.testing.assert_array_equal(y, expected)
        agree(gradient, expected_gradient)


@pytest.mark.parametrize(("image", "options"), GRID)
def test_average_agrees_with_the_reference(image, options):
    x = normal(0, *image)

    def run(name):
        return outcome(lambda x: avg_pool(x, implementation=name, **options), x)

    agree(run("xla"), run("reference"))


@pytest.mark.parametrize(("pool", "implementation"), EVERY)
def test_gradients_by_finite_differences(pool, implementation):
    modes = ["rev"] if implementation == "taps" else ["fwd", "rev"]
    with jax.enable_x64(True):
        # Values far apart, so that no step of the differences changes which is the largest.
        x = wide(np.random.default_rng(0).permutation(90).reshape(1, 9, 5, 2))
        check_grads(
            lambda x: POOLS[pool](x, 3, stride=2, padding=1, implementation=implementation),
            x,
            order=1,
            modes=modes,
        )


@pytest.mark.parametrize(("pool", "implementation"), EVERY)
def test_bfloat16(pool, implementation):
    narrow_agrees(lambda x: POOLS[pool](x, 2, implementation=implementation), normal(0, 2, 6, 6, 4))


@settings(max_examples=5, deadline=None, derandomize=True)
@given(
    st.tuples(st.integers(0, 3), st.integers(1, 9), st.integers(1, 9), st.integers(1, 3)),
    st.tuples(st.integers(1, 3), st.integers(1, 3)),
    st.integers(1, 3),
)
def test_random_shapes(image, window, stride):
    x = np.round(normal(0, *image))
    options = {"stride": stride, "padding": "SAME"}
    for pool, names in (("max_pool", MAX), ("avg_pool", AVG)):
        expected = POOLS[pool](x, window, implementation="reference", **options)
        assert expected.shape[1:3] == (-(-image[1] // stride), -(-image[2] // stride))
        for name in names[1:]:
            agree(POOLS[pool](x, window, implementation=name, **options), expected)


@pytest.mark.parametrize(("window", "stride", "padding"), [(2, 2, 0), (3, 2, 1), ((2, 3), 1, 1)])
def test_pytorch(window, stride, padding):
    torch = pytest.importorskip(
        "torch", reason="PyTorch is not installed: pip install torch==2.13.0"
    )
    x = np.round(normal(0, 2, 7, 8, 3), 1)
    pools = torch.nn.functional
    for pool, names, options in (
        ("max_pool", MAX, {}),
        ("avg_pool", AVG, {"count_include_pad": False}),
    ):
        theirs = torch.tensor(x, requires_grad=True)
        image = theirs.permute(0, 3, 1, 2).contiguous()
        y = getattr(pools, f"{pool}2d")(image, window, stride, padding, **options)
        y = y.permute(0, 2, 3, 1)
        weights = uneven(y.shape)
        y.backward(torch.tensor(weights))
        for name in names:
            ours = outcome(
                lambda x, pool=pool, name=name: POOLS[pool](
                    x, window, stride=stride, padding=padding, implementation=name
                ),
                x,
            )
            agree(ours, (y.detach().numpy(), theirs.grad.numpy()))


@pytest.mark.parametrize(("pool", "implementation"), EVERY)
def test_jit_vmap_and_grad_compose(pool, implementation):
    x = normal(0, 3, 2, 6, 6, 2)

    def loss(x):
        return jnp.sum(POOLS[pool](x, 2, implementation=implementation) ** 2)

    agree(jax.jit(jax.vmap(jax.grad(loss)))(x), jnp.stack([jax.grad(loss)(one) for one in x]))


def test_the_lowered_text_shows_which_implementation_ran():
    x = normal(0, 2, 6, 6, 3)

    def text(pool, name):
        return lowered(jax.grad(lambda x: jnp.sum(pool(x, 2, implementation=name))), x)

    assert "select_and_scatter" in text(max_pool, "xla")
    assert "stablehlo.reduce_window" in lowered(lambda x: avg_pool(x, 2, implementation="xla"), x)
    for name in ("taps", "reference", None):
        assert "select_and_scatter" not in text(max_pool, name)
    # "taps" keeps one byte a window for its gradient.
    assert "2x3x3x3xui8" in text(max_pool, "taps")
    assert "ui8" not in text(max_pool, "reference")


@pytest.mark.parametrize(("pool", "implementation"), EVERY)
def test_an_empty_batch(pool, implementation):
    y, (dx,) = outcome(
        lambda x: POOLS[pool](x, 2, implementation=implementation), np.zeros((0, 4, 4, 2), "f4")
    )
    assert y.shape == (0, 2, 2, 2)
    assert dx.shape == (0, 4, 4, 2)


X = normal(0, 2, 6, 6, 4)


@pytest.mark.parametrize("pool", [max_pool, avg_pool])
@pytest.mark.parametrize(
    ("x", "window", "options", "message"),
    [
        (X[0], 2, {}, r"x: expected shape \[B, H, W, C\], received \(6, 6, 4\)"),
        (X.astype(int), 2, {}, "x: expected a floating-point array, received .* int32"),
        (X[..., :0], 2, {}, "x: expected .* C at least 1"),
        (X, 0, {}, "window: expected an integer of at least 1, .* received 0"),
        (X, "2", {}, "window: "),
        (X, 2, {"stride": (1, 0)}, "stride: "),
        (X, 2, {"padding": 2}, "padding: expected less than the window's 2, received 2"),
        (X, 2, {"padding": "valid"}, "padding: "),
        (X, 7, {}, "x: expected a padded height of at least the window's 7"),
        (X, 2, {"implementation": "im2col"}, "implementation: .* received 'im2col'"),
    ],
)
def test_wrong_input(pool, x, window, options, message):
    with pytest.raises(ValueError, match=message):
        pool(x, window, **options)
