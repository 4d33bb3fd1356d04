"""conv2d: the definition by hand, every implementation against it, PyTorch, and wrong input."""

import importlib
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

from trivium.kernels import conv2d, implementations

EVERY = ("reference", "im2col", "xla")
FAST = ("im2col", "xla")

# (image, filter [KH, KW, C/groups, F], options)
GRID = [
    ((2, 6, 7, 3), (2, 3, 3, 4), {}),
    ((2, 6, 7, 1), (3, 2, 1, 4), {"padding": "VALID"}),
    ((1, 7, 6, 2), (3, 2, 2, 2), {"stride": 2}),
    ((1, 8, 9, 2), (2, 3, 2, 3), {"stride": (3, 1), "padding": 1}),
    ((1, 9, 8, 2), (2, 2, 2, 3), {"dilation": (2, 3), "padding": ((0, 2), (1, 0))}),
    ((2, 5, 5, 4), (2, 3, 2, 6), {"groups": 2, "stride": 2, "padding": "VALID"}),
    ((1, 5, 6, 3), (2, 2, 1, 6), {"groups": 3, "dilation": 2}),
    ((2, 3, 3, 5), (1, 1, 5, 2), {}),
]


def test_every_implementation_is_tried_here():
    assert set(implementations("conv2d")) == set(EVERY)


@pytest.mark.parametrize("implementation", EVERY)
def test_values_by_hand(implementation):
    x = np.arange(1.0, 10.0, dtype=np.float32).reshape(1, 3, 3, 1)
    w = np.array([[1, 2], [3, 4]], np.float32).reshape(2, 2, 1, 1)

    def convolve(**options):
        return np.asarray(conv2d(x, w, implementation=implementation, **options))[0, :, :, 0]

    # 1*1 + 2*2 + 4*3 + 5*4 = 37: not flipped.
    np.testing.assert_array_equal(convolve(padding="VALID"), [[37, 47], [67, 77]])
    # "SAME" puts the odd row and column of zeros below and to the right.
    np.testing.assert_array_equal(
        convolve(padding="SAME"), [[37, 47, 21], [67, 77, 33], [23, 26, 9]]
    )
    np.testing.assert_array_equal(convolve(stride=2), [[37, 21], [23, 9]])
    # Taps two cells apart see the four corners.
    np.testing.assert_array_equal(
        convolve(dilation=2, padding="VALID"), [[1 + 2 * 3 + 3 * 7 + 4 * 9]]
    )
    # Padding ((top, bottom), (left, right)).
    np.testing.assert_array_equal(
        convolve(padding=((1, 0), (0, 0))), [[11, 18], [37, 47], [67, 77]]
    )


@pytest.mark.parametrize("implementation", EVERY)
def test_groups_by_hand(implementation):
    x = np.array([1, 10, 100, 1000], np.float32).reshape(1, 1, 1, 4)
    w = np.array([[1, 2, 3, 4], [5, 6, 7, 8]], np.float32).reshape(1, 1, 2, 4)
    y = conv2d(x, w, np.float32([0, 0, 0, 1]), groups=2, implementation=implementation)
    # Filters 0 and 1 see channels 0 and 1, filters 2 and 3 see channels 2 and 3.
    np.testing.assert_array_equal(np.ravel(y), [51, 62, 7300, 8401])


@pytest.mark.parametrize(("image", "filters", "options"), GRID)
def test_agrees_with_the_reference(image, filters, options):
    arrays = normal(0, *image), normal(1, *filters), normal(2, filters[-1])

    def run(name):
        return outcome(lambda x, w, b: conv2d(x, w, b, implementation=name, **options), *arrays)

    expected = run("reference")
    for name in FAST:
        agree(run(name), expected)


@pytest.mark.parametrize("batch", [4, 5])
@pytest.mark.usefixtures("small_pieces")
def test_pieces_agree_with_the_reference(monkeypatch, batch):
    """Windows laid out for two images at a time, the fifth image by itself."""
    image = 5 * 3 * (2 * 3) * 4 * 4  # bytes: windows, taps, channels, float32
    module = importlib.import_module("trivium.kernels.convolution")
    monkeypatch.setattr(module, "_PIECE", 2 * image)
    arrays = normal(0, batch, 5, 6, 4), normal(1, 2, 3, 2, 6), normal(2, 6)

    def convolve(x, w, b, name="im2col"):
        return conv2d(x, w, b, implementation=name, groups=2, stride=(1, 2))

    assert "stablehlo.while" in lowered(convolve, *arrays)
    agree(outcome(convolve, *arrays), outcome(partial(convolve, name="reference"), *arrays))


@pytest.mark.parametrize("implementation", EVERY)
def test_gradients_by_finite_differences(implementation):
    with jax.enable_x64(True):
        arrays = wide(normal(0, 1, 4, 5, 4), normal(1, 2, 3, 2, 2), normal(2, 2))

        def convolve(x, w, b):
            return conv2d(x, w, b, stride=(2, 1), groups=2, implementation=implementation)

        check_grads(convolve, arrays, order=2, modes=["fwd", "rev"])


@pytest.mark.parametrize("implementation", EVERY)
def test_bfloat16(implementation):
    narrow_agrees(
        lambda x, w, b: conv2d(x, w, b, implementation=implementation),
        normal(0, 2, 6, 6, 8),
        normal(1, 2, 2, 8, 4),
        normal(2, 4),
    )


@settings(max_examples=6, deadline=None, derandomize=True)
@given(
    st.tuples(*(st.integers(1, 4) for _ in range(4))),
    st.tuples(*(st.integers(1, 3) for _ in range(2))),
    st.integers(1, 3),
    st.integers(1, 2),
    st.integers(0, 4),
)
def test_random_shapes(sizes, window, stride, dilation, pad):
    batch, height, width, channels = sizes
    x = normal(0, batch, height + 4, width + 4, channels)
    w = normal(1, *window, channels, 3)
    options = {"stride": stride, "dilation": dilation, "padding": pad}
    expected = conv2d(x, w, implementation="reference", **options)
    for name in FAST:
        agree(conv2d(x, w, implementation=name, **options), expected)


@pytest.mark.parametrize(
    ("stride", "padding", "dilation", "groups"),
    [(1, 1, 1, 1), ((2, 1), 0, (1, 2), 1), (2, 2, 2, 2), (1, 1, 1, 4)],
)
def test_pytorch(stride, padding, dilation, groups):
    torch = pytest.importorskip(
        "torch", reason="PyTorch is not installed: pip install torch==2.13.0"
    )
    x, w, b = normal(0, 2, 7, 8, 4), normal(1, 3, 3, 4 // groups, 8), normal(2, 8)
    theirs = [torch.tensor(array, requires_grad=True) for array in (x, w, b)]
    y = torch.nn.functional.conv2d(
        theirs[0].permute(0, 3, 1, 2),
        theirs[1].permute(3, 2, 0, 1),
        theirs[2],
        stride,
        padding,
        dilation,
        groups,
    ).permute(0, 2, 3, 1)
    weights = uneven(y.shape)
    y.backward(torch.tensor(weights))
    expected = y.detach().numpy(), tuple(array.grad.numpy() for array in theirs)
    options = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    for name in EVERY:
        agree(
            outcome(
                lambda x, w, b, name=name: conv2d(x, w, b, implementation=name, **options), x, w, b
            ),
            expected,
        )


@pytest.mark.parametrize("implementation", EVERY)
def test_jit_vmap_and_grad_compose(implementation):
    x, w = normal(0, 3, 2, 5, 5, 2), normal(1, 3, 2, 2, 2, 2)

    def loss(x, w):
        return jnp.sum(conv2d(x, w, implementation=implementation) ** 2)

    together = jax.jit(jax.vmap(jax.grad(loss, 1)))(x, w)
    agree(together, jnp.stack([jax.grad(loss, 1)(*pair) for pair in zip(x, w, strict=True)]))


def test_the_lowered_text_shows_which_implementation_ran():
    x, w = normal(0, 2, 6, 6, 3), normal(1, 3, 3, 3, 4)

    def text(name):
        return lowered(lambda x, w: conv2d(x, w, implementation=name), x, w)

    assert "stablehlo.convolution" in text("xla")
    for name, products in (("im2col", 1), ("reference", 9)):
        assert "stablehlo.convolution" not in text(name)
        assert text(name).count("stablehlo.dot_general") == products


@pytest.mark.parametrize("implementation", EVERY)
def test_nan_shows_in_the_windows_that_see_it(implementation):
    x, w = normal(0, 1, 4, 4, 1), normal(1, 2, 2, 1, 1)
    x[0, 1, 2, 0] = np.nan
    y = np.asarray(conv2d(x, w, padding="VALID", implementation=implementation))[0, :, :, 0]
    np.testing.assert_array_equal(np.isnan(y), np.equal([[0, 1, 1], [0, 1, 1], [0, 0, 0]], 1))


@pytest.mark.parametrize("implementation", EVERY)
def test_an_empty_batch(implementation):
    w = normal(1, 3, 3, 2, 4)
    y, (dx, dw) = outcome(
        lambda x, w: conv2d(x, w, implementation=implementation), np.zeros((0, 5, 5, 2), "f4"), w
    )
    assert y.shape == (0, 5, 5, 4)
    assert dx.shape == (0, 5, 5, 2)
    np.testing.assert_array_equal(dw, np.zeros_like(w))


X, W, B = normal(0, 2, 6, 6, 4), normal(1, 3, 3, 4, 8), normal(2, 8)


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((X[0], W), {}, r"x: expected shape \[B, H, W, C\], received \(6, 6, 4\)"),
        ((X[:, :0], W), {}, "x: expected .* H at least 1"),
        ((X.astype(int), W), {}, "x: expected a floating-point array, received .* int32"),
        ((None, W), {}, "x: expected an array, received NoneType"),
        (("x", W), {}, "x: expected an array, received str"),
        ((X, W[:, :, :3]), {}, r"w: expected shape .* C/groups = 4, received \(3, 3, 3, 8\)"),
        ((X, W[0]), {}, "w: expected shape"),
        ((X, W[:0]), {}, "w: expected .* KH at least 1"),
        ((X, jnp.asarray(W, jnp.bfloat16)), {}, "w: expected type float32 .* received bfloat16"),
        ((X, W, B[:7]), {}, r"b: expected shape \[F\] with F = 8, received \(7,\)"),
        ((X, W), {"stride": 0}, "stride: expected an integer of at least 1, .* received 0"),
        ((X, W), {"stride": 1.5}, "stride: .* received 1.5"),
        ((X, W), {"stride": math.nan}, "stride: .* received nan"),
        ((X, W), {"stride": (1, 2, 3)}, "stride: "),
        ((X, W), {"dilation": -1}, "dilation: .* received -1"),
        ((X, W), {"padding": "same"}, 'padding: expected "SAME", "VALID", .* received \'same\''),
        ((X, W), {"padding": -1}, "padding: .* received -1"),
        ((X, W), {"padding": (1, 2)}, r"padding: .* received \(1, 2\)"),
        ((X, W), {"padding": ((1, 2), (3, -4))}, "padding: "),
        ((X, W), {"padding": None}, "padding: .* received None"),
        ((X, W), {"groups": 3}, "groups: expected a divisor of the 4 channels of x, received 3"),
        ((X, W[:, :, :2, :7]), {"groups": 2}, "groups: expected a divisor of the 7 filters"),
        ((X, W), {"groups": 0}, "groups: "),
        ((X[:, :2], W), {"padding": "VALID"}, "x: expected a padded height of at least .* 3"),
        (
            (X, W),
            {"implementation": "cudnn"},
            "implementation: expected None or one of .*'im2col'.*, received 'cudnn'",
        ),
    ],
)
def test_wrong_input(arguments, options, message):
    with pytest.raises(ValueError, match=message):
        conv2d(*arguments, **options)
