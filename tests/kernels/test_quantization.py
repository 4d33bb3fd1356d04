"""quantize and dequantize: half a step at most, exact packing, and what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from trivium.kernels import Quantized, dequantize, quantize


def matrix(rows=24, columns=5, seed=0):
    values = np.random.default_rng(seed).normal(size=(rows, columns)).astype(np.float32)
    values[3, 1] = 9.0  # an outlier
    values[:, 2] = 0.0  # a column of zeros
    return values


@pytest.mark.parametrize("bits", range(2, 9))
@pytest.mark.parametrize(
    ("options", "groups"),
    [
        ({"per_channel": False}, (1, 1)),
        ({}, (1, 5)),
        ({"group": 6}, (4, 5)),
        ({"group": 6, "per_channel": False}, (4, 1)),
        ({"group": 1}, (24, 5)),
    ],
)
def test_no_weight_is_off_by_more_than_half_a_step(bits, options, groups):
    w = matrix()
    quantized = quantize(w, bits=bits, **options)
    assert quantized.scales.shape == groups
    back = np.asarray(dequantize(quantized))
    steps = np.repeat(np.broadcast_to(quantized.scales, (groups[0], 5)), 24 // groups[0], axis=0)
    assert (np.abs(back - w) <= 0.5 * steps * (1 + 1e-5)).all()
    assert (back[:, 2] == 0).all()
    # The largest of a group is met, up to rounding: no level is wasted.
    assert np.isclose(np.abs(back).max(), 9.0)


def test_the_values_of_a_small_matrix():
    w = np.array([[0.7, -3.0], [-0.2, 1.4], [0.05, 0.3], [0.1, -0.1]], np.float32)
    quantized = quantize(w, bits=4)
    np.testing.assert_allclose(quantized.scales, [[0.1, 3 / 7]], rtol=1e-6)
    # By hand: columns 7, -2, 0 (0.5 rounds to even), 1 and -7, 3, 1, 0.
    expected = np.array([[7, -7], [-2, 3], [0, 1], [1, 0]])
    halves = expected & 15
    np.testing.assert_array_equal(quantized.codes, halves[0::2] | halves[1::2] << 4)
    np.testing.assert_allclose(dequantize(quantized), expected * np.array([0.1, 3 / 7]), rtol=1e-6)


@pytest.mark.parametrize("rows", [1, 2, 7, 8])
@pytest.mark.parametrize("bits", [2, 3, 4])
def test_packing_is_exact(rows, bits):
    """Every value that the bits allow comes back, in rows of odd and even number."""
    top = 2 ** (bits - 1) - 1
    codes = np.random.default_rng(1).integers(-top, top + 1, size=(rows, 40)).astype(np.float32)
    codes[0] = top
    quantized = quantize(codes, bits=bits)
    assert quantized.codes.dtype == jnp.uint8
    assert quantized.codes.shape == ((rows + 1) // 2, 40)
    np.testing.assert_array_equal(dequantize(quantized), codes)


def test_bytes_are_those_of_the_arrays():
    w = matrix(64, 32)
    assert quantize(w).nbytes == 64 * 32 + 4 * 32
    assert quantize(w, bits=4).nbytes == 32 * 32 + 4 * 32
    assert quantize(w, bits=4, group=16).nbytes == 32 * 32 + 4 * 4 * 32
    assert quantize(w, per_channel=False).nbytes == 64 * 32 + 4


@pytest.mark.parametrize("bits", [4, 8])
def test_under_jit_it_is_the_same(bits):
    w = matrix()
    quantized = jax.jit(lambda w: quantize(w, bits=bits, group=8))(w)
    assert isinstance(quantized, Quantized)
    np.testing.assert_array_equal(quantized.codes, quantize(w, bits=bits, group=8).codes)
    np.testing.assert_array_equal(jax.jit(dequantize)(quantized), dequantize(quantized))


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_half_precision_keeps_its_type(dtype):
    w = jnp.asarray(matrix(), dtype)
    back = dequantize(quantize(w, group=6))
    assert back.dtype == dtype
    np.testing.assert_allclose(back.astype(jnp.float32), w.astype(jnp.float32), atol=0.08)


@pytest.mark.parametrize("bits", [3, 4, 8])
def test_quantizing_twice_changes_nothing(bits):
    once = dequantize(quantize(matrix(), bits=bits, group=8))
    np.testing.assert_allclose(dequantize(quantize(once, bits=bits, group=8)), once, rtol=1e-6)


@pytest.mark.parametrize(
    ("w", "options", "message"),
    [
        (np.zeros((2, 3, 4), np.float32), {}, "w: expected shape"),
        (np.zeros((0, 3), np.float32), {}, "w: expected at least one row"),
        (np.zeros((4, 3), np.int32), {}, "w: expected a floating-point array"),
        (np.full((4, 3), np.nan, np.float32), {}, "w: expected finite numbers"),
        (np.zeros((4, 3), np.float32), {"bits": 1}, "bits: expected an integer from 2 to 8"),
        (np.zeros((4, 3), np.float32), {"bits": 9}, "bits: .* received 9"),
        (np.zeros((4, 3), np.float32), {"bits": 4.0}, "bits: .* received 4.0"),
        (np.zeros((4, 3), np.float32), {"group": 3}, "group: expected a divisor of the 4 rows"),
        (np.zeros((4, 3), np.float32), {"group": 0}, "group: .* received 0"),
    ],
)
def test_bad_input_is_refused(w, options, message):
    with pytest.raises(ValueError, match=message):
        quantize(w, **options)


def test_dequantize_takes_what_quantize_gives():
    with pytest.raises(ValueError, match="quantized: expected a Quantized, received ndarray"):
        dequantize(np.zeros((4, 3)))
    good = quantize(matrix(), bits=4)
    with pytest.raises(ValueError, match=r"codes: expected shape \(12, 5\)"):
        dequantize(Quantized(good.codes[:3], good.scales, 4, (24, 5)))
