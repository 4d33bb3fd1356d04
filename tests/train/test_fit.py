"""fit, evaluate and predict against the same thing written out by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from small_models import Bag, Dense, Linear, leaves, points, sentences

from trivium.train import accuracy, evaluate, fit, predict
from trivium.train.batches import bucket_widths, shuffled

QUIET = {"progress": False}
# One object each: an equal program is compiled once for the whole file.
ADAM, STILL = optax.adam(0.02), optax.sgd(0.0)


def test_equals_a_loop_written_by_hand():
    """Shuffled batches, a partial last batch, Adam: a plain loop gives the same weights."""
    x, y = points(70)
    model = Linear(rngs=nnx.Rngs(0))
    weights = {"w": model.dense.kernel[...], "b": model.dense.bias[...]}
    optimizer = optax.adam(0.1)
    history = fit(model, (x, y), epochs=2, optimizer=optimizer, batch_size=16, seed=3, **QUIET)

    @jax.jit
    def step(weights, state, x, y):
        def loss(weights):
            logits = x @ weights["w"] + weights["b"]
            return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()

        value, gradient = jax.value_and_grad(loss)(weights)
        with jax.numpy_dtype_promotion("standard"):
            updates, state = optimizer.update(gradient, state)
        return optax.apply_updates(weights, updates), state, value

    state, epochs = optimizer.init(weights), []
    for epoch in range(2):
        total = 0.0
        for batch in shuffled(70, 16, seed=3, epoch=epoch).rows:
            rows = batch[batch >= 0]
            weights, state, value = step(weights, state, x[rows], y[rows])
            total += float(value) * len(rows)
        epochs.append(total / 70)
    np.testing.assert_allclose(model.dense.kernel[...], weights["w"], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(model.dense.bias[...], weights["b"], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(history.loss, epochs, rtol=1e-5)


def test_sequences_equal_a_loop_written_by_hand():
    tokens, y = sentences(45)
    lengths = np.array([len(t) for t in tokens])
    model = Bag(rngs=nnx.Rngs(0))
    graph, weights = nnx.split(nnx.clone(model))
    fit(
        model,
        (tokens, y),
        epochs=1,
        optimizer=optax.sgd(0.5),
        batch_size=8,
        buckets=2,
        seed=1,
        **QUIET,
    )

    padded = np.zeros((45, 12), np.int32)
    for row, sentence in enumerate(tokens):
        padded[row, : len(sentence)] = sentence

    @jax.jit
    @jax.grad
    def gradient_of(weights, padded, lengths, y):
        logits = nnx.merge(graph, weights)(padded, lengths=lengths)
        return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()

    order = shuffled(45, 8, lengths=lengths, widths=bucket_widths(lengths, 2), seed=1)
    for batch in order.rows:
        rows = batch[batch >= 0]
        gradient = gradient_of(weights, padded[rows], lengths[rows].astype(np.int32), y[rows])
        weights = jax.tree.map(lambda w, g: w - 0.5 * g, weights, gradient)
    for trained, expected in zip(leaves(model), jax.tree.leaves(weights), strict=True):
        np.testing.assert_allclose(trained, expected, rtol=1e-5, atol=1e-6)


def test_learns():
    x, y = points(400)
    model = Dense(rngs=nnx.Rngs(0))
    history = fit(model, (x, y), epochs=6, optimizer=ADAM, validation=points(50), **QUIET)
    assert evaluate(model, (x, y))["metric"] > 0.9
    assert history.loss[-1] < 0.6 * history.loss[0]
    assert history.epochs == 6
    assert len(history.validation_metric) == len(history.seconds) == 6


def test_epoch_means_are_exact():
    """With a learning rate of zero the epoch's record is the mean that evaluate gives."""
    data = points(101)
    model = Linear(rngs=nnx.Rngs(0))
    history = fit(model, data, epochs=1, optimizer=STILL, batch_size=32, **QUIET)
    result = evaluate(model, data, batch_size=7)
    logits = predict(model, data[0], batch_size=50)
    by_hand = optax.softmax_cross_entropy_with_integer_labels(logits, data[1]).mean()
    assert history.loss[0] == pytest.approx(float(by_hand), rel=1e-6)
    assert result["loss"] == pytest.approx(float(by_hand), rel=1e-6)
    assert history.metric[0] == result["metric"] == np.mean(logits.argmax(1) == data[1])


def test_statistics_and_random_streams_come_out_of_the_step():
    model = Dense(rngs=nnx.Rngs(0))
    data = points(64)
    fit(model, data, epochs=2, optimizer=STILL, batch_size=16, **QUIET)
    assert int(model.dropout.rngs.count[...]) == 8
    # At a learning rate of zero the running mean is that of the first layer's outputs, by batch.
    expected = np.zeros(8)
    first = np.asarray(model.first(data[0]))
    for epoch in range(2):
        for rows in shuffled(64, 16, epoch=epoch).rows:
            expected = 0.99 * expected + 0.01 * first[rows].mean(axis=0)
    np.testing.assert_allclose(model.norm.mean[...], expected, rtol=1e-4, atol=1e-6)


def test_modes_are_used_and_left_alone():
    x, y = points(64)
    model = Dense(rngs=nnx.Rngs(0))
    model.dropout.deterministic = True  # one layer in eval mode, one in train mode
    before = leaves(model)
    scores = [evaluate(model, (x, y)) for _ in range(2)]
    assert scores[0] == scores[1]
    np.testing.assert_allclose(
        predict(model, x), predict(model, x, batch_size=5), rtol=1e-5, atol=1e-6
    )
    for a, b in zip(leaves(model), before, strict=True):
        np.testing.assert_array_equal(a, b)
    fit(model, (x, y), epochs=1, optimizer=STILL, **QUIET)
    assert model.dropout.deterministic is True
    assert model.norm.use_running_average is False
    assert int(model.dropout.rngs.count[...]) == 2, "dropout was off while training"


def test_the_same_seed_gives_the_same_weights():
    def train(seed):
        model = Dense(rngs=nnx.Rngs(0))
        fit(model, points(64), epochs=2, optimizer=ADAM, seed=seed, **QUIET)
        return leaves(model)

    for a, b in zip(train(0), train(0), strict=True):
        np.testing.assert_array_equal(a, b)
    assert any((a != b).any() for a, b in zip(train(0), train(1), strict=True))


def test_python_runs_the_model_only_to_compile():
    """Ten times the steps, and a second fit, call the model no more often than one step does."""
    optimizer = optax.sgd(0.1)

    def calls(count, epochs):
        Dense.calls = 0
        model = Dense(dropout=0.11, rngs=nnx.Rngs(0))
        fit(model, points(count), epochs=epochs, optimizer=optimizer, batch_size=8, **QUIET)
        return Dense.calls

    first, again = calls(80, 1), calls(80, 10)
    assert 0 < first <= 4
    assert 0 <= again < first, "an equal program was compiled again"


def test_one_program_predicts_any_number_of_examples():
    model = Dense(dropout=0.12, rngs=nnx.Rngs(0))
    x, _ = points(40)
    Dense.calls = 0
    outputs = [predict(model, x[:count], batch_size=8) for count in (40, 33, 8)]
    assert Dense.calls == 1
    for found in outputs:
        np.testing.assert_allclose(found, outputs[0][: len(found)], rtol=1e-6, atol=1e-6)
    np.testing.assert_array_equal(predict(model, jnp.asarray(x), batch_size=8), outputs[0])


def test_padding_changes_no_answer():
    tokens, y = sentences(37)
    model = Bag(rngs=nnx.Rngs(0))
    read, weights, bias = (
        np.asarray(p[...]) for p in (model.read.embedding, model.answer.kernel, model.answer.bias)
    )
    one_by_one = [read[t].mean(axis=0) @ weights + bias for t in tokens]
    for options in ({}, {"batch_size": 5}, {"batch_size": 8, "buckets": 1}):
        np.testing.assert_allclose(
            predict(model, tokens, **options), one_by_one, rtol=1e-5, atol=1e-6
        )
        assert evaluate(model, (tokens, y), **options)["metric"] == np.mean(
            np.argmax(one_by_one, axis=1) == y
        )


def test_sequences_of_vectors_and_of_no_length():
    random = np.random.default_rng(0)
    vectors = [random.normal(size=(n, 3)) for n in (2, 0, 5, 1)]
    model = Bag(3, rngs=nnx.Rngs(0))
    history = fit(
        model, (vectors, [0, 1, 1, 0]), epochs=2, optimizer=optax.sgd(0.1), batch_size=2, **QUIET
    )
    assert np.isfinite(history.loss).all()
    np.testing.assert_allclose(predict(model, vectors)[1], model.answer.bias[...], rtol=1e-6)
    empty = [[], np.zeros((0, 3)), np.ones((2, 3))]
    assert predict(model, empty).shape == (3, 2)


def test_only_what_is_trainable_is_trained():
    class Head(nnx.Param):
        pass

    model = Linear(rngs=nnx.Rngs(0))
    kernel = np.array(model.dense.kernel[...])
    model.dense.bias = Head(model.dense.bias[...])
    fit(model, points(32), epochs=1, optimizer=optax.sgd(1.0), trainable=Head, **QUIET)
    np.testing.assert_array_equal(model.dense.kernel[...], kernel)
    assert np.abs(model.dense.bias[...]).max() > 0


def test_own_loss_float_labels_no_metric():
    x, _ = points(64)
    target = (x[:, :2] * [1.0, -2.0]).astype(np.float32)
    model = Linear(4, 2, rngs=nnx.Rngs(0))

    def squared(outputs, labels):
        return ((outputs - labels) ** 2).sum(axis=-1)

    history = fit(
        model,
        (x, target),
        epochs=40,
        optimizer=optax.adam(0.1),
        loss=squared,
        metric=None,
        **QUIET,
    )
    assert history.metric == []
    assert evaluate(model, (x, target), loss=squared, metric=None) == {
        "loss": pytest.approx(0, abs=1e-3)
    }


def test_an_optimizer_that_looks_at_the_loss():
    optimizer = optax.chain(
        optax.sgd(0.1), optax.contrib.reduce_on_plateau(patience=1, factor=0.5, atol=1e9)
    )
    history = fit(
        Linear(rngs=nnx.Rngs(0)), points(64), epochs=2, optimizer=optimizer, batch_size=8, **QUIET
    )
    assert history.epochs == 2


def test_a_weakly_typed_parameter_trains():
    class Scale(nnx.Module):
        def __init__(self):
            self.scale = nnx.Param(1.0)

        def __call__(self, x):
            return x * self.scale[...]

    model = Scale()
    fit(model, points(16, features=3), epochs=2, optimizer=optax.sgd(0.1), **QUIET)
    assert float(model.scale[...]) != 1.0


def test_no_epochs_change_nothing():
    model = Dense(rngs=nnx.Rngs(0))
    before = leaves(model)
    history = fit(model, points(16), epochs=0, optimizer=optax.sgd(1.0), **QUIET)
    assert history.epochs == 0
    for a, b in zip(leaves(model), before, strict=True):
        np.testing.assert_array_equal(a, b)


def test_predict_keeps_structure():
    class Two(Linear):
        def __call__(self, x):
            return {"logits": self.dense(x), "norm": (x**2).sum(axis=-1)}

    x, _ = points(11)
    outputs = predict(Two(rngs=nnx.Rngs(0)), x, batch_size=4)
    assert outputs["logits"].shape == (11, 3)
    np.testing.assert_allclose(outputs["norm"], (x**2).sum(axis=1), rtol=1e-6)


def test_accuracy_is_per_example():
    right = accuracy(jnp.array([[1.0, 2.0], [3.0, 0.0]]), jnp.array([1, 1]))
    assert right.tolist() == [True, False]
