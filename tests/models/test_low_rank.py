"""Low-rank adapters: silent at first, trained alone, merged without a trace."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from trivium import train
from trivium.models import (
    MLP,
    Bert,
    BertClassifier,
    BertConfig,
    LowRank,
    add_low_rank,
    low_rank_weights,
    merge_low_rank,
    set_low_rank_weights,
)

CONFIG = BertConfig(
    vocab_size=50,
    hidden_size=16,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=32,
    max_position_embeddings=20,
    hidden_dropout_prob=0.0,
    attention_probs_dropout_prob=0.0,
)
IDS = np.array([[1, 2, 3, 4], [9, 8, 7, 6]])


def random_weights(model, seed=0):
    rng = np.random.default_rng(seed)
    return {
        name: rng.normal(size=value.shape).astype(np.float32)
        for name, value in low_rank_weights(model).items()
    }


def names_and_shapes(model):
    flat = nnx.to_flat_state(nnx.state(model))
    return {path: variable[...].shape for path, variable in flat}


def test_every_dense_layer_of_bert_is_adapted_and_nothing_changes_at_first():
    bert = Bert(CONFIG, rngs=nnx.Rngs(0))
    before = bert(IDS)
    paths = add_low_rank(bert, 2, rngs=nnx.Rngs(1))
    assert sorted(paths) == sorted(
        f"blocks.{i}.{name}"
        for i in range(2)
        for name in ("attend.project", "attend.mix", "transform.expand", "transform.contract")
    )
    np.testing.assert_array_equal(bert(IDS), before)
    count = sum(value.size for value in low_rank_weights(bert).values())
    assert count == 2 * 2 * ((16 + 48) + (16 + 16) + (16 + 32) + (32 + 16))


def test_the_adapter_is_what_the_formula_says():
    layer = LowRank(nnx.Linear(6, 4, rngs=nnx.Rngs(0)), 3, scale=0.5, rngs=nnx.Rngs(1))
    layer.up[...] = jax.random.normal(jax.random.key(2), (3, 4))
    x = jax.random.normal(jax.random.key(3), (5, 6))
    weights = layer.base.kernel[...] + 0.5 * layer.down[...] @ layer.up[...]
    np.testing.assert_allclose(layer(x), x @ weights + layer.base.bias[...], atol=1e-5)


def test_merged_it_answers_alike_and_is_the_old_model():
    bert = Bert(CONFIG, rngs=nnx.Rngs(0))
    before, old = bert(IDS), names_and_shapes(bert)
    add_low_rank(bert, 2, scale=0.3, rngs=nnx.Rngs(1))
    set_low_rank_weights(bert, random_weights(bert))
    adapted = bert(IDS)
    assert np.abs(adapted - before).max() > 0.1
    merge_low_rank(bert)
    np.testing.assert_allclose(bert(IDS), adapted, atol=1e-4)
    assert names_and_shapes(bert) == old
    with pytest.raises(ValueError, match="expected low-rank adapters, got none"):
        merge_low_rank(bert)


def test_only_the_adapters_and_the_head_are_trained():
    model = BertClassifier(Bert(CONFIG, rngs=nnx.Rngs(0)), 2, dropout=0.0, rngs=nnx.Rngs(1))
    add_low_rank(model.bert, 2, where=lambda path: "attend" in path, rngs=nnx.Rngs(2))
    assert all("attend" in name for name in low_rank_weights(model.bert))
    start = jax.tree.map(jnp.copy, nnx.state(model))
    ids = np.random.default_rng(0).integers(0, 50, size=(16, 5)).astype(np.int32)
    trainable = nnx.Any(nnx.LoRAParam, nnx.PathContains("dense"))
    data = ([*ids], (ids[:, 0] % 2).astype(np.int32))
    train.fit(
        model, data, epochs=2, batch_size=8, optimizer=optax.adam(0.01), trainable=trainable,
        progress=False,
    )  # fmt: skip
    end = dict(nnx.to_flat_state(nnx.state(model)))
    for path, variable in nnx.to_flat_state(start):
        if not isinstance(variable, nnx.Param):
            continue
        moved = not np.array_equal(variable[...], end[path][...])
        assert moved == (path[-1] in ("down", "up") or path[0] == "dense"), path


def test_adapters_move_from_one_model_to_another():
    models = [Bert(CONFIG, rngs=nnx.Rngs(0)) for _ in range(2)]
    for seed, model in enumerate(models):
        add_low_rank(model, 2, rngs=nnx.Rngs(seed))
    set_low_rank_weights(models[0], random_weights(models[0]))
    half = {name: v.astype(np.float16) for name, v in low_rank_weights(models[0]).items()}
    set_low_rank_weights(models[1], half)
    np.testing.assert_allclose(models[0](IDS), models[1](IDS), atol=0.05)
    assert low_rank_weights(models[1])["blocks.0.attend.mix.up"].dtype == np.float32


def test_lists_of_layers_are_adapted_too():
    model = nnx.Sequential(nnx.Linear(10, 8, rngs=nnx.Rngs(0)), nnx.Linear(8, 3, rngs=nnx.Rngs(1)))
    x = jnp.ones((2, 10))
    before = model(x)
    assert sorted(add_low_rank(model, 2, rngs=nnx.Rngs(0))) == ["layers.0", "layers.1"]
    assert isinstance(model.layers[0], LowRank)
    np.testing.assert_array_equal(model(x), before)
    merge_low_rank(model)
    assert type(model.layers[1]) is nnx.Linear


@pytest.mark.parametrize(
    ("rank", "options", "message"),
    [
        (0, {}, "rank must be an integer of at least 1, not 0"),
        (1.0, {}, "rank must be an integer"),
        (4, {}, "rank must be at most 3 for dense"),
        (1, {"scale": 0.0}, "scale must be a finite number"),
        (1, {"where": lambda path: False}, "expected a dense layer"),
    ],
)
def test_bad_input_is_refused(rank, options, message):
    with pytest.raises(ValueError, match=message):
        add_low_rank(MLP(10, 8, 3, rngs=nnx.Rngs(0)), rank, rngs=nnx.Rngs(0), **options)


def test_adapters_are_not_put_around_adapters():
    model = MLP(10, 8, 3, rngs=nnx.Rngs(0))
    add_low_rank(model, 1, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match="has low-rank adapters already"):
        add_low_rank(model, 1, rngs=nnx.Rngs(0))


def test_a_layer_in_two_places_is_refused():
    model = MLP(8, (8, 8), 3, rngs=nnx.Rngs(0))
    model.hidden[1] = model.hidden[0]
    with pytest.raises(NotImplementedError, match="several places"):
        add_low_rank(model, 1, rngs=nnx.Rngs(0))


def test_weights_that_do_not_fit_change_nothing():
    model = MLP(10, 8, 3, rngs=nnx.Rngs(0))
    add_low_rank(model, 2, rngs=nnx.Rngs(0))
    good, own = random_weights(model), low_rank_weights(model)
    missing = {name: value for name, value in good.items() if name != "dense.up"}
    for wrong, message in (
        (missing, "missing dense.up"),
        (good | {"other.up": np.zeros((2, 2))}, "no adapter for other.up"),
        (good | {"dense.up": np.zeros((3, 3))}, r"expected dense.up of shape \(2, 3\)"),
    ):
        with pytest.raises(ValueError, match=message):
            set_low_rank_weights(model, wrong)
    for name, value in low_rank_weights(model).items():
        np.testing.assert_array_equal(value, own[name])
