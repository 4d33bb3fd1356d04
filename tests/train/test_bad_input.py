"""Wrong input is refused with the argument's name, and the model is left alone."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from small_models import Bag, Linear, leaves, points

from trivium.train import evaluate, fit, predict

X, Y = points(12)
NAN = X.copy()
NAN[7, 2] = np.nan


@pytest.mark.parametrize(
    ("data", "error", "match"),
    [
        (X, TypeError, r"data must be a pair \(inputs, labels\), got ndarray"),
        ((X, Y, Y), TypeError, "got 3 items"),
        ((X, None), TypeError, "got labels None"),
        ((X, Y[:-1]), ValueError, r"one label for each of 12 inputs, got labels of shape \(11,\)"),
        ((X, np.int32(1)), ValueError, r"got labels of shape \(\)"),
        ((X[:0], Y[:0]), ValueError, "data: inputs hold no example"),
        (([], []), ValueError, "data: inputs hold no example"),
        ((np.float32(1), Y), ValueError, "got a single number"),
        ((NAN, Y), ValueError, "data: inputs must be finite, got NaN or infinity in example 7"),
        ((jnp.array(NAN), Y), ValueError, "NaN or infinity in example 7"),
        ((X.astype(np.float64) * 1e200, Y), ValueError, "NaN or infinity in example 0"),
        ((X.astype(str), Y), TypeError, "data: inputs must be numbers, got type <U"),
        ((X, Y.astype(str)), TypeError, "data: labels must be numbers"),
        ((X, Y.astype(float)), TypeError, "labels must be integers"),
        ((X, np.eye(3, dtype=int)[Y]), ValueError, r"labels \[N\] and logits \[batch, classes\]"),
        ((X, Y + 1), ValueError, r"labels must lie in 0\.\.2, .* got 1\.\.3"),
        ((X, Y - 1), ValueError, r"labels must lie in 0\.\.2, .* got -1\.\.1"),
        ((X, Y + np.int64(2**40)), ValueError, "labels must fit int32"),
    ],
)
@pytest.mark.parametrize("function", [fit, evaluate])
def test_data(function, data, error, match):
    options = {} if function is evaluate else {"epochs": 1, "optimizer": optax.sgd(0.1)}
    with pytest.raises(error, match=match):
        function(Linear(rngs=nnx.Rngs(0)), data, **options)


@pytest.mark.parametrize(
    ("inputs", "error", "match"),
    [
        ([np.ones((2, 3)), np.ones((2, 4))], ValueError, r"\[1\] must have shape \[T, 3\], got"),
        ([np.ones((2, 3)), np.ones(2)], ValueError, r"\[1\] must have shape \[T, 3\], got \(2,\)"),
        ([np.ones((2, 3, 1))] * 2, ValueError, "a list must hold sequences"),
        ([1.0, 2.0], ValueError, "a list must hold sequences"),
        ([np.ones((2, 3)), np.ones((2, 3), int)], ValueError, "must share one type"),
        ([np.ones((2, 3)), [[1.0, 2.0, np.inf]]], ValueError, "infinity in example 1"),
        ([[[1.0], [1.0, 2.0]]], ValueError, r"\[0\] must be an array of one shape"),
        ([["a", "b"]], TypeError, "must be numbers"),
        ([], ValueError, "hold no example"),
    ],
)
def test_sequences(inputs, error, match):
    model = Bag(3, rngs=nnx.Rngs(0))
    with pytest.raises(error, match=match):
        predict(model, inputs)
    with pytest.raises(error, match=match):
        evaluate(model, (inputs, [0] * len(inputs)))


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"epochs": -1}, ValueError, "epochs must be at least 0, got -1"),
        ({"epochs": 1.5}, TypeError, "epochs must be an integer, got 1.5"),
        ({"epochs": True}, TypeError, "epochs must be an integer"),
        ({"batch_size": 0}, ValueError, "batch_size must be at least 1, got 0"),
        ({"buckets": 0}, ValueError, "buckets must be at least 1"),
        ({"seed": -1}, ValueError, "seed must be at least 0"),
        ({"optimizer": optax.adam}, TypeError, "optimizer must be an optax.GradientTrans"),
        ({"patience": 2}, ValueError, "patience needs validation"),
        ({"patience": 0, "validation": (X, Y)}, ValueError, "patience must be at least 1"),
        ({"monitor": "accuracy"}, ValueError, "monitor must be 'validation_loss' or"),
        (
            {"patience": 1, "validation": (X, Y), "metric": None, "monitor": "validation_metric"},
            ValueError,
            "needs a metric",
        ),
        ({"validation": (X, Y + 9)}, ValueError, "validation: labels must lie in"),
        ({"validation": X}, TypeError, "validation must be a pair"),
        ({"checkpoint_every": 5}, ValueError, "checkpoint_every needs checkpoint"),
        ({"checkpoint_every": 0, "checkpoint": "x"}, ValueError, "checkpoint_every must be"),
        ({"trainable": nnx.LoRAParam}, ValueError, "no variable that trainable="),
        ({"loss": lambda o, l: o.mean()}, ValueError, r"loss must return one number for each exa"),
        ({"metric": lambda o, l: o}, ValueError, r"metric must return one number .* \(12, 3\)"),
        (
            {"loss": lambda o, l: jax.lax.complex(o[:, 0], o[:, 0])},
            ValueError,
            "loss must return real numbers",
        ),
    ],
)
def test_options(options, error, match, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = Linear(rngs=nnx.Rngs(0))
    before = leaves(model)
    run = {"epochs": 1, "optimizer": optax.sgd(0.1), "progress": False}
    with pytest.raises(error, match=match):
        fit(model, (X, Y), **(run | options))
    for a, b in zip(leaves(model), before, strict=True):
        np.testing.assert_array_equal(a, b)
    assert not list(tmp_path.iterdir()), "a refused call wrote a checkpoint"


def test_a_model_is_a_module():
    for call in (
        lambda m: fit(m, (X, Y), epochs=1, optimizer=optax.sgd(0.1)),
        lambda m: evaluate(m, (X, Y)),
        lambda m: predict(m, X),
    ):
        with pytest.raises(TypeError, match=r"model must be a flax\.nnx\.Module, got function"):
            call(lambda x: x)


def test_outputs_that_grow_with_the_padding():
    class Tokens(Bag):
        def __call__(self, x, *, lengths):
            return self.read(x)

    with pytest.raises(ValueError, match="whatever their length"):
        predict(Tokens(rngs=nnx.Rngs(0)), [[1, 2], [1, 2, 3, 4]], batch_size=1)
    with pytest.raises(ValueError, match="batch_size must be at least 1"):
        predict(Bag(rngs=nnx.Rngs(0)), [[1, 2]], batch_size=0)
