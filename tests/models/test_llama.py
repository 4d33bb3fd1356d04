"""Llama: its parts, its cache, and what it refuses."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from trivium.models import Llama, LlamaConfig

CONFIG = LlamaConfig(
    vocab_size=40,
    hidden_size=24,
    intermediate_size=32,
    num_hidden_layers=2,
    num_attention_heads=6,
    num_key_value_heads=2,
    max_position_embeddings=48,
    initializer_range=0.3,
)
IDS = np.random.default_rng(0).integers(40, size=(2, 12))


@pytest.fixture(scope="module")
def model():
    return Llama(CONFIG, rngs=nnx.Rngs(0))


def test_smollm2_has_as_many_parameters_as_it_should():
    state = nnx.state(nnx.eval_shape(lambda: Llama(LlamaConfig(), rngs=nnx.Rngs(0))), nnx.Param)
    assert sum(each.size for each in jax.tree.leaves(state)) == 134_515_008


def test_no_place_sees_a_later_one(model):
    logits = model(IDS)
    assert logits.shape == (2, 12, 40)
    assert logits.dtype == jnp.float32
    changed = IDS.copy()
    changed[:, 7:] = (changed[:, 7:] + 1) % 40
    np.testing.assert_allclose(model(changed)[:, :7], logits[:, :7], atol=1e-5)
    assert np.abs(model(changed)[:, 7:] - logits[:, 7:]).min(axis=(0, 2)).max() > 0


def test_states_lead_to_the_logits(model):
    states = model.hidden_states(IDS)
    assert states.shape == (3, 2, 12, 24)
    np.testing.assert_array_equal(states[0], model.embed[...][IDS])
    np.testing.assert_allclose(model.logits(states[-1]), model(IDS), atol=1e-5)


@pytest.mark.parametrize("pieces", [[12], [5, 7], [10, 1, 1]])
def test_a_cache_changes_nothing(model, pieces):
    expected = model(IDS)
    cache, start = model.start(2, 16), 0
    for piece in pieces:
        logits, cache = model.extend(IDS[:, start : start + piece], cache)
        start += piece
        np.testing.assert_allclose(logits, expected[:, start - 1], atol=1e-4)
        assert cache.lengths.tolist() == [start, start]
    assert cache.room == 16


def test_rows_of_different_lengths(model):
    lengths = np.array([4, 9])
    logits, cache = model.extend(IDS, model.start(2, 20), lengths=lengths)
    for row, length in enumerate(lengths):
        alone = model(IDS[row : row + 1, :length])[0, -1]
        np.testing.assert_allclose(logits[row], alone, atol=1e-4)
    # The padding is overwritten by what is read next, and until then not looked at.
    more = np.array([[1, 2], [3, 4]])
    logits, cache = model.extend(more, cache)
    for row, length in enumerate(lengths):
        whole = np.concatenate([IDS[row, :length], more[row]])[None]
        np.testing.assert_allclose(logits[row], model(whole)[0, -1], atol=1e-4)
    assert cache.lengths.tolist() == [6, 11]


def test_what_does_not_fit_is_not_written(model):
    _, cache = model.extend(IDS, model.start(2, 8))
    expected = model.extend(IDS[:, :8], model.start(2, 8))[1]
    np.testing.assert_allclose(cache.keys[0], expected.keys[0], atol=1e-6)


def test_a_step_compiled_once_serves_all_places(model):
    graph, state = nnx.split(model)
    step = jax.jit(
        lambda state, ids, cache: nnx.merge(graph, state).extend(ids, cache), donate_argnums=2
    )
    cache, expected = model.start(2, 12), model(IDS)
    for place in range(12):
        logits, cache = step(state, IDS[:, place : place + 1], cache)
        np.testing.assert_allclose(logits, expected[:, place], atol=1e-4)
    assert step._cache_size() == 1


def test_weights_in_bfloat16(model):
    narrow = nnx.clone(model)
    state = jax.tree.map(
        lambda each: each.astype(jnp.bfloat16) if each.ndim > 1 else each, nnx.state(narrow)
    )
    nnx.update(narrow, state)
    logits = narrow(IDS)
    assert logits.dtype == jnp.float32
    np.testing.assert_allclose(logits, model(IDS), atol=0.3)
    # One row goes another way; so do two.
    for rows in (1, 2):
        cache = narrow.start(rows, 12)
        for place in range(4):
            found, cache = narrow.extend(IDS[:rows, place : place + 1], cache)
            np.testing.assert_allclose(found, logits[:rows, place], atol=1e-3)


def test_gradients_reach_every_parameter(model):
    graph, state = nnx.split(model)

    def loss(state):
        return jnp.square(nnx.merge(graph, state)(IDS)).mean()

    for gradient in jax.tree.leaves(jax.grad(loss)(state)):
        assert np.isfinite(gradient).all()
        assert np.abs(gradient).max() > 0


def test_a_head_of_its_own():
    model = Llama(dataclasses.replace(CONFIG, tie_word_embeddings=False), rngs=nnx.Rngs(0))
    assert model.head.shape == (40, 24)
    np.testing.assert_array_equal(model.logits(model.hidden_states(IDS)[-1]), model(IDS))


def test_an_unknown_id_is_not_taken_for_another(model):
    ids = IDS.copy()
    ids[0, 3] = 40
    with pytest.raises(ValueError, match=r"lie in \[0, 40\), not reach from 0 to 40"):
        model(ids)
    logits = jax.jit(model.__call__)(ids)
    assert np.isnan(logits[0, 3]).all()


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        ([1, 2], r"integers \[B, T\]"),
        (np.zeros((1, 0), int), r"T at least 1"),
        (np.zeros((1, 4)), "float64"),
        (np.zeros((1, 49), int), "at most 48 tokens, the model's context, received 49"),
        (np.full((1, 2), -1), "not reach from -1 to -1"),
    ],
)
def test_ids_that_cannot_be(model, ids, message):
    with pytest.raises(ValueError, match=message):
        model(ids)


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"vocab_size": 0}, "vocab_size must be a positive integer"),
        ({"num_hidden_layers": 2.0}, "num_hidden_layers"),
        ({"num_key_value_heads": 4}, "must divide num_attention_heads=6"),
        ({"hidden_size": 25}, "must divide hidden_size=25"),
        ({"head_dim": 5}, "head_dim must be a positive even integer"),
        ({"hidden_size": 18}, "head_dim must be a positive even integer, not 3"),
        ({"rope_theta": 0.0}, "rope_theta must be a number above 0"),
        ({"rms_norm_eps": float("nan")}, "rms_norm_eps"),
        ({"tie_word_embeddings": 1}, "tie_word_embeddings"),
    ],
)
def test_sizes_that_cannot_be(sizes, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(CONFIG, head_dim=None, **sizes) if "head_dim" not in sizes else (
            dataclasses.replace(CONFIG, **sizes)
        )
