"""The encoder: sizes, masks, dropout, attention maps, bad input.

Agreement with Hugging Face's implementation is tested in tests/test_pretrained.py.
"""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from trivium.models import Bert, BertClassifier, BertConfig, mean_pool
from trivium.models.bert import FeedForward, SelfAttention

TINY = BertConfig(
    vocab_size=50,
    hidden_size=16,
    num_hidden_layers=2,
    num_attention_heads=4,
    intermediate_size=32,
    max_position_embeddings=12,
    initializer_range=0.5,  # attention far from uniform, so that mistakes in it show
)
SHALLOW = dataclasses.replace(TINY, num_hidden_layers=1)
IDS = np.random.default_rng(0).integers(1, 50, (3, 7), dtype=np.int32)
LENGTHS = np.array([7, 3, 0])
MASK = np.arange(7) < LENGTHS[:, None]


@pytest.fixture(scope="module")
def bert():
    return Bert(TINY, rngs=nnx.Rngs(0))


def classifier(*, config=TINY, **options):
    return BertClassifier(Bert(config, rngs=nnx.Rngs(0)), 3, rngs=nnx.Rngs(1), **options)


def count(config):
    model = nnx.eval_shape(lambda: Bert(config, rngs=nnx.Rngs(0)))
    return sum(parameter.size for parameter in jax.tree.leaves(nnx.state(model, nnx.Param)))


def test_counts_the_parameters_of_the_published_encoders():
    # The published totals, less the pooler (a dense layer [D, D]) that this encoder leaves out.
    assert count(BertConfig()) == 109_482_240 - 768 * 769
    minilm = BertConfig(hidden_size=384, num_hidden_layers=6, intermediate_size=1536)
    assert count(minilm) == 22_713_216 - 384 * 385


def test_hidden_states_end_in_the_answer_of_the_model(bert):
    states = bert.hidden_states(IDS, mask=MASK)
    assert states.shape == (3, 3, 7, 16)
    np.testing.assert_allclose(states[-1], bert(IDS, mask=MASK), atol=1e-6)
    assert bert(IDS).shape == (3, 7, 16)


@pytest.mark.parametrize("mask", [None, MASK], ids=["whole", "masked"])
def test_attention_maps_are_the_weights_that_the_kernel_uses(bert, mask):
    maps = bert.attention_maps(IDS, mask=mask)
    assert maps.shape == (2, 3, 4, 7, 7)
    states = bert.hidden_states(IDS, mask=mask)
    for layer, block in enumerate(bert.blocks):
        _, _, v = block.attend.queries_keys_values(states[layer])
        answers = jnp.einsum("bnts,bsnh->btnh", maps[layer], v)
        expected = block.attend(states[layer], mask=None if mask is None else mask[:, None, None])
        np.testing.assert_allclose(block.attend.mix(answers.reshape(3, 7, 16)), expected, atol=1e-5)
    if mask is None:
        np.testing.assert_allclose(maps.sum(axis=-1), 1, atol=1e-5)
    else:
        np.testing.assert_allclose(maps[:, :2].sum(axis=-1), 1, atol=1e-5)
        assert not np.any(maps[:, 2])  # a row without tokens
        assert not np.any(maps[:, 1, :, :, 3:])  # padding
    assert np.asarray(maps).std() > 0.1


def test_padding_changes_nothing():
    # As pretrained encoders start: numbers small enough that 1e-6 is not below their rounding.
    model = classifier(config=dataclasses.replace(TINY, initializer_range=0.02))
    ids, lengths = IDS[:2], LENGTHS[:2]
    padded = np.pad(ids, ((0, 0), (0, 4)), constant_values=9)
    mask = np.arange(11) < lengths[:, None]
    expected = model.bert(ids, mask=mask[:, :7])
    np.testing.assert_allclose(model.bert(padded, mask=mask)[:, :7], expected, atol=1e-6)
    assert np.abs(model.bert(padded)[:, :7] - expected).max() > 1e-3  # without, it would
    expected = model(ids, lengths=lengths)
    np.testing.assert_allclose(model(padded, lengths=lengths), expected, atol=1e-6)


def test_position_segment_and_neighbors_matter(bert):
    x = bert(IDS)
    assert np.abs(bert(IDS[:, ::-1])[:, ::-1] - x).max() > 0.1
    assert np.abs(bert(IDS, segments=np.ones_like(IDS)) - x).max() > 0.1
    np.testing.assert_array_equal(bert(IDS, segments=np.zeros_like(IDS)), x)


@pytest.mark.parametrize("activation", ["gelu", "gelu_new", "gelu_pytorch_tanh", "relu"])
def test_activations(activation):
    config = dataclasses.replace(TINY, hidden_act=activation)
    block = FeedForward(config, rngs=nnx.Rngs(0))
    x = np.random.default_rng(0).normal(size=(1, 2, 16)).astype(np.float32)
    h = np.asarray(x @ block.expand.kernel[...] + block.expand.bias[...], np.float64)
    if activation == "relu":
        h = np.maximum(h, 0)
    elif activation == "gelu":
        h = h * 0.5 * (1 + np.vectorize(math.erf)(h / np.sqrt(2)))
    else:
        h = h * 0.5 * (1 + np.tanh(np.sqrt(2 / np.pi) * (h + 0.044715 * h**3)))
    expected = h @ np.asarray(block.contract.kernel[...], np.float64)
    np.testing.assert_allclose(block(x), expected, atol=2e-5)


def test_the_epsilon_is_the_configs():
    large = Bert(dataclasses.replace(TINY, layer_norm_eps=1.0), rngs=nnx.Rngs(0))
    embedded = large.hidden_states(IDS)[0]
    x = large.embed.words[...][IDS] + large.embed.positions[...][:7] + large.embed.segments[...][0]
    expected = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1.0)
    np.testing.assert_allclose(embedded, expected, atol=1e-5)


# Dropout


def test_dropout_is_off_until_training():
    model = Bert(SHALLOW, rngs=nnx.Rngs(0))
    still = model(IDS)
    np.testing.assert_array_equal(model(IDS), still)
    model.train()
    first, second = model(IDS), model(IDS)
    assert not np.allclose(first, still, atol=1e-3)
    assert not np.allclose(first, second, atol=1e-3)
    model.eval()
    np.testing.assert_array_equal(model(IDS), still)


def test_dropout_draws_from_the_given_streams():
    model = Bert(SHALLOW, rngs=nnx.Rngs(0))
    model.train()
    draw = [model(IDS, rngs=nnx.Rngs(dropout=seed)) for seed in (5, 5, 6)]
    np.testing.assert_array_equal(draw[0], draw[1])
    assert not np.allclose(draw[0], draw[2], atol=1e-3)


@pytest.mark.parametrize("field", ["hidden_dropout_prob", "attention_probs_dropout_prob"])
def test_each_dropout_acts_by_itself(field):
    rates = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    model = Bert(dataclasses.replace(SHALLOW, **rates), rngs=nnx.Rngs(0))
    still = model(IDS)
    model.train()
    np.testing.assert_array_equal(model(IDS), still)
    model = Bert(dataclasses.replace(SHALLOW, **rates | {field: 0.5}), rngs=nnx.Rngs(0))
    model.train()
    assert not np.allclose(model(IDS), still, atol=1e-3)


def test_attention_dropout_is_right_on_average():
    """The form with dropout, averaged over masks, is the form without."""
    config = dataclasses.replace(TINY, attention_probs_dropout_prob=0.3)
    attend = SelfAttention(config, rngs=nnx.Rngs(0))
    x = np.random.default_rng(0).normal(size=(1, 7, 16)).astype(np.float32)
    mask = np.array([True] * 5 + [False] * 2)
    expected = attend(x, mask=mask)
    attend.train()
    copies = attend(np.repeat(x, 4000, axis=0), mask=mask)
    # Five standard errors of the mean.
    margin = 5 * np.asarray(copies).std(axis=0) / np.sqrt(4000)
    assert np.all(np.abs(np.asarray(copies).mean(axis=0) - expected[0]) < margin + 1e-6)


def test_dropout_moves_on_in_a_compiled_step():
    """The streams are state: handed back by a pure step, they give a fresh mask every time."""
    model = classifier(config=SHALLOW)
    model.train()
    graph, parameters, streams = nnx.split(model, nnx.Param, ...)

    @jax.jit
    def step(parameters, streams):
        def loss(parameters):
            # A copy: the counters must belong to the trace that moves them.
            merged = nnx.merge(graph, parameters, streams, copy=True)
            logits = merged(IDS, lengths=LENGTHS)
            return logits.sum(), (logits, nnx.split(merged, nnx.Param, ...)[2])

        slopes, (logits, moved) = jax.grad(loss, has_aux=True)(parameters)
        return slopes, logits, moved

    slopes, first, moved = step(parameters, streams)
    assert np.isfinite(first).all()  # one of the rows has no tokens
    assert all(np.isfinite(slope).all() for slope in jax.tree.leaves(slopes))
    _, again, _ = step(parameters, streams)
    _, second, _ = step(parameters, moved)
    np.testing.assert_array_equal(first, again)
    assert not np.allclose(first[:2], second[:2], atol=1e-3)
    model.eval()
    assert nnx.split(model, nnx.Param, ...)[0] != graph  # so the two modes compile apart


# Types


def test_computes_in_the_type_of_its_parameters(bert):
    narrow = nnx.clone(bert)
    nnx.update(narrow, jax.tree.map(lambda p: p.astype(jnp.bfloat16), nnx.state(narrow, nnx.Param)))
    x = narrow(IDS, mask=MASK)
    assert x.dtype == jnp.bfloat16
    error = np.abs(np.asarray(x, np.float32) - bert(IDS, mask=MASK))
    assert error.mean() < 0.03
    logits = BertClassifier(narrow, 3, rngs=nnx.Rngs(1))(IDS, lengths=LENGTHS)
    assert logits.dtype == jnp.float32


# The classifier


@pytest.mark.parametrize("pool", ["mean", "first"])
def test_pools_the_real_tokens(pool):
    model = classifier(pool=pool)
    states = np.asarray(model.bert(IDS, mask=MASK))
    logits = model(IDS, lengths=LENGTHS)
    assert logits.shape == (3, 3)
    for row, length in enumerate(LENGTHS[:2]):
        pooled = states[row, :length].mean(axis=0) if pool == "mean" else states[row, 0]
        np.testing.assert_allclose(logits[row], model.dense(pooled), atol=1e-5)
    np.testing.assert_array_equal(model(IDS, mask=MASK), logits)
    np.testing.assert_array_equal(model(IDS, mask=np.ones_like(MASK), lengths=LENGTHS), logits)
    np.testing.assert_allclose(model(IDS), model(IDS, lengths=np.array([7, 7, 7])), atol=1e-6)


def test_rows_without_tokens_are_finite_and_so_are_their_gradients():
    model = classifier(config=SHALLOW, pool="first")
    graph, parameters, streams = nnx.split(model, nnx.Param, ...)

    def loss(parameters):
        merged = nnx.merge(graph, parameters, streams, copy=True)
        return merged(IDS, lengths=np.zeros(3, int)).sum()

    value, slopes = jax.jit(jax.value_and_grad(loss))(parameters)
    assert np.isfinite(value)
    assert all(np.isfinite(slope).all() for slope in jax.tree.leaves(slopes))


def test_mean_pool_of_nothing_is_zeros():
    states = jnp.asarray(np.random.default_rng(0).normal(size=(3, 7, 16)), jnp.float32)
    pooled = mean_pool(states, mask=MASK)
    np.testing.assert_allclose(pooled[1], states[1, :3].mean(axis=0), atol=1e-6)
    assert not np.any(pooled[2])


# Bad input


@pytest.mark.parametrize(
    ("ids", "options", "message"),
    [
        (IDS[0], {}, r"ids must be integers \[B, T\]"),
        (IDS[:, :0], {}, "T at least 1"),
        (IDS.astype(np.float32), {}, "ids must be integers"),
        (["a sentence"], {}, "ids must be integers"),
        (np.full((1, 3), 50), {}, r"ids must lie in \[0, 50\), not reach from 50 to 50"),
        (np.full((1, 3), -1), {}, "ids must lie in"),
        (np.ones((1, 13), int), {}, "13 tokens.*12 positions"),
        (IDS, {"mask": MASK[:, :3]}, "mask must be boolean"),
        (IDS, {"mask": MASK.astype(np.int32)}, "mask must be boolean"),
        (IDS, {"segments": np.full_like(IDS, 2)}, "segments must lie in"),
        (IDS, {"segments": np.zeros((3, 6), int)}, "segments must have shape"),
    ],
)
def test_refuses_inputs_that_do_not_fit(bert, ids, options, message):
    for call in (bert, bert.hidden_states, bert.attention_maps):
        with pytest.raises(ValueError, match=message):
            call(ids, **options)


@pytest.mark.parametrize(
    "lengths", [[8, 1, 1], [-1, 1, 1], [1, 1], [1.0, 1.0, 1.0], [[1], [1], [1]]]
)
def test_refuses_impossible_lengths(lengths):
    with pytest.raises(ValueError, match="lengths must"):
        classifier()(IDS, lengths=np.array(lengths))


def test_known_words_and_lengths_are_checked_inside_a_compiled_function_too(bert):
    model, lengths = classifier(), jnp.asarray(LENGTHS)
    compiled = jax.jit(lambda scale: scale * model(jnp.asarray(IDS), lengths=lengths))
    np.testing.assert_allclose(
        compiled(jnp.float32(1)), model(IDS, lengths=LENGTHS), rtol=1e-4, atol=1e-5
    )
    known = jnp.asarray([[1, 50, 2]], jnp.int32)
    with pytest.raises(ValueError, match="ids must lie in"):
        jax.jit(lambda scale: scale * bert(known))(jnp.float32(1))


def test_unknown_words_are_not_silent_when_compiled(bert):
    graph, state = nnx.split(bert)
    x = jax.jit(nnx.merge(graph, state))(np.array([[1, 50, 2]]))
    assert np.isnan(x).any()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"classes": 0}, "classes"),
        ({"dropout": 1.0}, "dropout"),
        ({"dropout": -0.1}, "dropout"),
        ({"pool": "max"}, 'pool must be "mean" or "first"'),
    ],
)
def test_classifier_refuses_impossible_options(bert, options, message):
    options = {"classes": 3, **options}
    with pytest.raises(ValueError, match=message):
        BertClassifier(bert, options.pop("classes"), **options, rngs=nnx.Rngs(0))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("vocab_size", 0),
        ("hidden_size", 16.0),
        ("num_hidden_layers", -1),
        ("num_attention_heads", 3),
        ("intermediate_size", True),
        ("max_position_embeddings", "512"),
        ("hidden_act", "swish"),
        ("hidden_dropout_prob", 1.0),
        ("attention_probs_dropout_prob", -0.5),
        ("layer_norm_eps", 0.0),
        ("layer_norm_eps", float("nan")),
        ("initializer_range", None),
    ],
)
def test_config_refuses_impossible_values(field, value):
    with pytest.raises(ValueError, match=field):
        dataclasses.replace(TINY, **{field: value})
