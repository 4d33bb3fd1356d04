"""Language models: each part against its formula, causality, experts, and bits by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from trivium.models import (
    CausalAttention,
    FeedForward,
    LanguageModel,
    LinearAttention,
    MixtureOfExperts,
    Recurrence,
    SelectiveStateSpace,
    bits_per_symbol,
    structures,
)
from trivium.models.experts import balance_loss
from trivium.models.language import ShortConvolution

BUILDERS = {
    "transformer": structures.transformer,
    "linear": structures.linear_transformer,
    "lstm": structures.recurrent_model,
    "hybrid": lambda *a, **k: structures.hybrid(*a, attend=(1,), inner=12, **k),
    "experts": structures.mixture_of_experts,
}


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def ids(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 11, shape)


def build(name):
    return BUILDERS[name](11, width=8, depth=2, rngs=nnx.Rngs(0))


@pytest.mark.parametrize("name", BUILDERS)
def test_a_model_answers_every_place_without_looking_ahead(name):
    model = build(name)
    text, other = ids(2, 12), ids(2, 12)
    other[:, 7:] = ids(2, 5, seed=1)
    run = nnx.jit(lambda model, ids: model(ids))
    before, after = run(model, text), run(model, other)
    assert before.shape == (2, 12, 11)
    np.testing.assert_allclose(before[:, :7], after[:, :7], atol=1e-5)
    assert np.abs(before[:, 7:] - after[:, 7:]).max() > 1e-3


def test_blocks_are_added_in_their_order():
    model = build("transformer")
    states = model.states(ids(1, 5))
    block = model.blocks[1]
    x = states[1] + block.mix(block.norm_mix(states[1]))
    expected = x + block.transform(block.norm_transform(x))[0]
    np.testing.assert_allclose(states[2], expected, atol=1e-5)
    np.testing.assert_allclose(model(ids(1, 5)), model.answer(model.norm(states[2])), atol=1e-5)


def test_attention_knows_how_far_and_not_where():
    mix = CausalAttention(8, 2, rngs=nnx.Rngs(0))
    q, k, _ = mix.queries_keys_values(np.tile(normal(1, 1, 8), (1, 6, 1)))
    scores = np.einsum("btnh,bsnh->nts", q, k)
    for distance in range(5):
        diagonal = np.diagonal(scores, -distance, 1, 2)
        np.testing.assert_allclose(diagonal, diagonal[:, :1].repeat(6 - distance, 1), atol=1e-4)


def test_linear_attention_has_weights_above_zero():
    mix = LinearAttention(8, 2, rngs=nnx.Rngs(0))
    q, k, _ = mix.queries_keys_values(normal(2, 9, 8))
    assert min(q.min(), k.min()) > 0


def test_short_convolution_is_its_sum():
    layer = ShortConvolution(3, 2, rngs=nnx.Rngs(0))
    layer.bias[...] = jnp.arange(3.0)
    x, taps = normal(1, 4, 3), np.asarray(layer.taps[...])
    before = np.pad(x, ((0, 0), (1, 0), (0, 0)))[:, :4]
    np.testing.assert_allclose(layer(x), before * taps[0] + x * taps[1] + np.arange(3), atol=1e-5)


def test_a_state_space_starts_with_slow_steps_and_falling_rates():
    mix = SelectiveStateSpace(8, 6, state=3, rngs=nnx.Rngs(0))
    _, step, a, b, c, _ = mix.selection(np.zeros((1, 4, 8), np.float32))
    assert b.shape == c.shape == (1, 4, 3)
    assert 0.9e-3 < step.min() <= step.max() < 0.11
    np.testing.assert_allclose(a, -np.tile([1.0, 2, 3], (6, 1)), rtol=1e-5)


def experts(**options):
    return MixtureOfExperts(6, 5, 4, rngs=nnx.Rngs(0), **options)


def test_experts_are_their_formula():
    layer, x = experts(), normal(3, 7, 6)
    answer, balance = layer(x)
    weights, chosen, probabilities = map(np.asarray, layer.route(x))
    np.testing.assert_allclose(weights.sum(-1), 1, rtol=1e-5)
    expected = np.zeros_like(x)
    for place in np.ndindex(3, 7):
        for weight, e in zip(weights[place], chosen[place], strict=True):
            hidden = jax.nn.gelu(x[place] @ layer.expand[e])
            expected[place] += weight * (hidden @ layer.contract[e])
    np.testing.assert_allclose(answer, expected, atol=1e-4)
    share = np.bincount(chosen.ravel(), minlength=4) / chosen.size
    assert balance == pytest.approx(4 * share @ probabilities.mean((0, 1)), rel=1e-4)


def test_enough_capacity_is_as_none():
    layer, x = experts(capacity=4.0), normal(20, 6)
    expected = layer(x)[0]
    layer.train()
    np.testing.assert_allclose(layer(x)[0], expected, atol=1e-5)
    slopes = [
        nnx.grad(lambda layer: jnp.square(layer(x)[0]).sum())(layer) for _ in (layer.train(),)
    ]
    layer.eval()
    slopes.append(nnx.grad(lambda layer: jnp.square(layer(x)[0]).sum())(layer))
    for one, two in zip(*map(jax.tree.leaves, slopes), strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-3, atol=1e-4)


def test_what_finds_no_room_is_passed_by():
    layer = experts(chosen=1, capacity=1.0)
    layer.router.kernel[...] = jnp.zeros((6, 4)).at[:, 2].set(1.0)
    x = np.abs(normal(8, 6))
    layer.train()
    answer = np.asarray(layer(x)[0])
    assert layer.slots(8) == 2
    assert np.abs(answer[:2]).min(axis=-1).max() > 0
    np.testing.assert_array_equal(answer[2:], 0)
    layer.eval()
    assert (np.abs(np.asarray(layer(x)[0])).max(-1) > 0).all()


def test_balance_is_one_where_even_and_the_number_of_experts_where_alone():
    even = balance_loss(np.arange(8).reshape(4, 2) % 4, np.full((4, 4), 0.25, np.float32))
    alone = balance_loss(np.zeros((4, 1), int), np.eye(4, dtype=np.float32)[np.zeros(4, int)])
    assert float(even) == pytest.approx(1)
    assert float(alone) == pytest.approx(4)


def test_the_models_balance_is_the_sum_over_blocks():
    model = structures.mixture_of_experts(11, width=8, depth=4, rngs=nnx.Rngs(0))
    balance = float(model.logits_and_balance(ids(2, 9))[1])
    assert 2 <= balance < 16
    assert float(build("lstm").logits_and_balance(ids(2, 9))[1]) == 0


@pytest.mark.parametrize(("length", "context"), [(30, 4), (30, 0), (8, 3), (2, 3), (61, 7)])
def test_bits_count_every_symbol_once_with_its_context(length, context):
    model, text, window = build("lstm"), ids(length), 10
    logits = {}

    def log2_p(start, place):
        """Of the symbol at place, read from start."""
        if start not in logits:
            piece = np.pad(text[start : start + window], (0, max(0, start + window - length)))
            logits[start] = jax.nn.log_softmax(model(piece[None]))[0] / np.log(2)
        return logits[start][place - start - 1, text[place]]

    stride, total = window - context, 0.0
    for place in range(1, length):
        start = max(0, -(-(place - window) // stride)) * stride
        total -= float(log2_p(start, place))
    found = bits_per_symbol(model, text, window=window, context=context, batch=3)
    assert found == pytest.approx(total / (length - 1), rel=1e-4)


def test_bits_of_a_model_that_knows_nothing():
    model = build("transformer")
    model.answer.kernel[...] = jnp.zeros_like(model.answer.kernel[...])
    assert bits_per_symbol(model, ids(100), window=16, context=4) == pytest.approx(np.log2(11))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: build("lstm")(ids(4)), "ids must be integers"),
        (lambda: build("lstm")(normal(2, 4)), "ids must be integers"),
        (lambda: build("lstm")(ids(2, 4) + 8), r"ids must lie in \[0, 11\)"),
        (lambda: LanguageModel(11, 8, [], rngs=nnx.Rngs(0)), "at least one block"),
        (lambda: CausalAttention(8, 3, rngs=nnx.Rngs(0)), "heads=3 must divide width=8"),
        (lambda: CausalAttention(6, 2, rngs=nnx.Rngs(0)), "into multiples of 2"),
        (lambda: LinearAttention(8, 3, rngs=nnx.Rngs(0)), "heads=3"),
        (lambda: FeedForward(8, 0, rngs=nnx.Rngs(0)), "hidden must be at least 1"),
        (lambda: Recurrence(0, rngs=nnx.Rngs(0)), "width must be at least 1"),
        (lambda: SelectiveStateSpace(8, 4, state=0, rngs=nnx.Rngs(0)), "state must be at least 1"),
        (lambda: experts(chosen=5), "chosen must be at most experts=4"),
        (lambda: experts(capacity=0.5), "capacity must be at least 1"),
        (lambda: bits_per_symbol(build("lstm"), ids(1)), "N at least 2"),
        (lambda: bits_per_symbol(build("lstm"), ids(9), window=4, context=4), "context must lie"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()
