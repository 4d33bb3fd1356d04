"""rotary: by hand, what it is for, precision, and wrong input."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from agreement import agree, narrow_agrees, normal, outcome, uneven, wide
from jax.test_util import check_grads

from trivium.kernels import rotary

X = normal(0, 2, 3, 2, 4)


def test_values_by_hand():
    x = np.float32([1, 2, 3, 4]).reshape(1, 1, 1, 4)
    y = rotary(x, np.array([2]), base=100.0)
    # Features 0 and 2 turn by 2 radians, features 1 and 3 by 2 * 100^(-1/2).
    fast, slow = 2.0, 0.2
    expected = [
        1 * math.cos(fast) - 3 * math.sin(fast),
        2 * math.cos(slow) - 4 * math.sin(slow),
        3 * math.cos(fast) + 1 * math.sin(fast),
        4 * math.cos(slow) + 2 * math.sin(slow),
    ]
    np.testing.assert_allclose(np.ravel(y), expected, rtol=1e-6)


def test_position_zero_changes_nothing():
    np.testing.assert_array_equal(rotary(X, np.zeros(3, int), base=1e4), X)


def test_products_depend_on_the_distance_alone():
    q, k = normal(0, 1, 1, 1, 8), normal(1, 1, 1, 1, 8)

    def product(m, n):
        return jnp.sum(rotary(q, np.array([m]), base=1e4) * rotary(k, np.array([n]), base=1e4))

    agree(product(3, 10), product(103, 110), 1e-4)
    assert abs(float(product(3, 10) - product(3, 11))) > 1e-2


def test_each_sequence_may_have_its_own_positions():
    positions = np.array([[0, 1, 2], [5, 6, 7]])
    together = rotary(X, positions, base=1e4)
    for one, x, p in zip(together, X, positions, strict=True):
        agree(one, rotary(x[None], p, base=1e4)[0], 1e-6)


def test_gradients_by_finite_differences():
    with jax.enable_x64(True):
        x, positions = wide(X, np.array([0, 1, 5]))
        check_grads(lambda x, p: rotary(x, p, base=1e2), (x, positions), order=2)


def test_bfloat16():
    narrow_agrees(lambda x: rotary(x, np.array([0, 7, 300]), base=1e4), X)


def test_pytorch():
    torch = pytest.importorskip(
        "torch", reason="PyTorch is not installed: pip install torch==2.13.0"
    )
    pytest.importorskip("transformers", reason="Hugging Face Transformers is not installed")
    from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

    positions = np.arange(3)
    angles = torch.tensor(positions)[:, None] * 1e4 ** (-torch.arange(0, 4, 2) / 4)
    angles = torch.cat([angles, angles], dim=-1)[None].float()
    x = torch.tensor(X, requires_grad=True)
    turned, _ = apply_rotary_pos_emb(x, x, angles.cos(), angles.sin(), unsqueeze_dim=2)
    weights = uneven(turned.shape)
    turned.backward(torch.tensor(weights))
    ours = outcome(lambda x: rotary(x, positions, base=1e4), X)
    agree(ours, (turned.detach().numpy(), (x.grad.numpy(),)))


def test_jit_vmap_and_grad_compose():
    def loss(x):
        return jnp.sum(rotary(x, np.arange(3), base=1e4) ** 3)

    x = np.stack([X, 2 * X])
    together = jax.jit(jax.vmap(jax.grad(loss)))(x)
    agree(together, jnp.stack([jax.grad(loss)(one) for one in x]))


@pytest.mark.parametrize("shape", [(0, 3, 2, 4), (2, 0, 2, 4)])
def test_empty_arrays(shape):
    assert rotary(np.zeros(shape, "f4"), np.arange(shape[1]), base=1e4).shape == shape


@pytest.mark.parametrize(
    ("x", "positions", "base", "message"),
    [
        (X[0], np.arange(3), 1e4, r"x: expected shape \[B, T, N, H\]"),
        (X[..., :3], np.arange(3), 1e4, "x: expected an even head size H, received 3"),
        (X.astype(int), np.arange(3), 1e4, "x: expected a floating-point array"),
        (X, np.arange(4), 1e4, r"positions: expected .* T = 3, received \(4,\)"),
        (X, np.zeros((3, 3), int), 1e4, "positions: expected"),
        (X, np.ones(3, bool), 1e4, "positions: expected an array of real numbers"),
        (X, "first", 1e4, "positions: expected an array, received str"),
        (X, np.arange(3), math.nan, "base: .* received nan"),
        (X, np.arange(3), -1.0, "base: expected a finite number above 0, received -1.0"),
    ],
)
def test_wrong_input(x, positions, base, message):
    with pytest.raises(ValueError, match=message):
        rotary(x, positions, base=base)
