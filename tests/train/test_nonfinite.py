"""A step that is not finite: where, at which rate, and nothing lost."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from small_models import Dense, Linear, leaves, points

from trivium.train import NonFiniteLoss, fit
from trivium.train.batches import shuffled


class Trap(nnx.Module):
    """A layer that divides by zero for inputs beyond a bound."""

    def __call__(self, x):
        return x / jnp.where(jnp.abs(x) > 50, 0.0, 1.0)


class Trapped(nnx.Module):
    def __init__(self, rngs):
        self.layers = nnx.List([nnx.Linear(4, 4, rngs=rngs), Trap(), nnx.Linear(4, 3, rngs=rngs)])

    def __call__(self, x):
        for layer in self.layers:
            x = layer(x)
        return x


def failure(model, data, **options):
    run = {"epochs": 3, "optimizer": optax.sgd(0.1), "batch_size": 8, "progress": False}
    with pytest.raises(NonFiniteLoss) as caught:
        fit(model, data, **(run | options))
    assert all(np.isfinite(leaf).all() for leaf in leaves(model) if leaf.dtype.kind == "f")
    return caught.value


def test_names_step_rate_and_layer_and_keeps_the_weights():
    x, y = points(40)
    poison = 17
    x[poison] = 1e4
    step = next(place for place, rows in enumerate(shuffled(40, 8, seed=0).rows) if poison in rows)
    assert step > 0
    model = Trapped(nnx.Rngs(0))
    call = Trap.__call__
    error = failure(model, (x, y), optimizer=optax.adam(0.01))
    assert (error.step, error.epoch, error.layer) == (step + 1, 1, "layers.1")
    assert error.learning_rate == pytest.approx(0.01)
    for part in (f"step {step + 1}", "epoch 1", "learning rate 0.01", "the output of layers.1"):
        assert part in str(error)
    assert Trap.__call__ is call

    # The weights are those of the steps before, and of no step after.
    expected = Trapped(nnx.Rngs(0))
    rows = shuffled(40, 8, seed=0).rows[:step]
    optimizer = nnx.Optimizer(expected, optax.adam(0.01), wrt=nnx.Param)

    @nnx.jit
    def step_by_hand(model, optimizer, x, y):
        def loss(model):
            return optax.softmax_cross_entropy_with_integer_labels(model(x), y).mean()

        with jax.numpy_dtype_promotion("standard"):
            optimizer.update(model, nnx.grad(loss)(model))

    for batch in rows:
        step_by_hand(expected, optimizer, x[batch], y[batch])
    for a, b in zip(leaves(model), leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


def test_dropout_meets_the_same_masks_again():
    """The failing step is found again although it depends on the random stream."""

    class Rare(nnx.Module):
        def __init__(self, rngs):
            self.dense, self.dropout = nnx.Linear(4, 3, rngs=rngs), nnx.Dropout(0.5, rngs=rngs)
            self.guard = Guard()

        def __call__(self, x):
            return self.dense(self.guard(self.dropout(x)))

    class Guard(nnx.Module):
        def __call__(self, x):
            kept = (x != 0).astype(jnp.float32).mean()
            return jnp.where(kept > 0.7, jnp.nan, x)

    error = failure(Rare(nnx.Rngs(0)), points(64), epochs=50)
    assert error.layer == "guard"
    assert error.step > 1


def test_too_large_a_learning_rate():
    error = failure(Dense(rngs=nnx.Rngs(0)), points(40), optimizer=optax.sgd(1e30), epochs=30)
    assert error.learning_rate == pytest.approx(1e30)


def test_the_loss_itself():
    error = failure(
        Linear(rngs=nnx.Rngs(0)), points(8), loss=lambda outputs, labels: outputs[:, 0] * jnp.inf
    )
    assert (error.step, error.layer) == (1, "loss")


def test_the_gradient_of_a_finite_loss():
    class Root(Linear):
        def __call__(self, x):
            return jnp.sqrt(jnp.abs(self.dense(x) * 0.0))

    error = failure(Root(rngs=nnx.Rngs(0)), points(8))
    assert error.layer.startswith("dense.")
    assert "gradient" in str(error)


def test_the_updated_weights():
    overflow = optax.chain(optax.scale(1e20), optax.sgd(1e25))
    error = failure(Linear(rngs=nnx.Rngs(0)), points(8), optimizer=overflow)
    assert "updated" in str(error)
    assert error.learning_rate == pytest.approx(1e25)
    assert error.layer.startswith("dense.")


def test_a_parameter_that_never_was_finite():
    model = Linear(rngs=nnx.Rngs(0))
    model.dense.bias[...] = jnp.array([0.0, jnp.nan, 0.0])
    with pytest.raises(NonFiniteLoss, match=r"the parameter dense\.bias, before any step"):
        fit(model, points(8), epochs=1, optimizer=optax.sgd(0.1), progress=False)


SCHEDULE = optax.linear_schedule(0.0, 1.0, 10)


@pytest.mark.parametrize(
    ("optimizer", "rate"),
    [
        (optax.adamw(2e-3, weight_decay=0.1), 2e-3),
        (optax.chain(optax.clip_by_global_norm(1.0), optax.adam(SCHEDULE)), 0.0),
        (optax.inject_hyperparams(optax.adam)(learning_rate=0.25), 0.25),
        (optax.inject_hyperparams(optax.sgd)(learning_rate=SCHEDULE), 0.0),
        (optax.GradientTransformation(lambda p: (), lambda g, s, p=None: (g, s)), None),
    ],
    ids=["number", "schedule", "injected", "injected schedule", "unknown"],
)
def test_the_true_learning_rate_or_none(optimizer, rate):
    error = failure(
        Linear(rngs=nnx.Rngs(0)),
        points(8),
        optimizer=optimizer,
        loss=lambda outputs, labels: outputs[:, 0] * jnp.inf,
    )
    assert error.learning_rate == (None if rate is None else pytest.approx(rate))
    assert f"learning rate {'unknown' if rate is None else format(rate, 'g')}" in str(error)


def test_a_schedule_is_read_at_the_failing_step():
    x, y = points(40)
    x[17] = 1e4
    error = failure(Trapped(nnx.Rngs(0)), (x, y), optimizer=optax.adam(SCHEDULE))
    assert error.learning_rate == pytest.approx((error.step - 1) / 10)
    assert error.learning_rate > 0
