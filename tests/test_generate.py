"""Writing: the same text whatever the road, chance exactly as stated, and clear refusals."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from trivium import generate as writing
from trivium.generate import beam_search, beam_searches, distribution, generate, stream
from trivium.models import Llama, LlamaConfig

SIZES = LlamaConfig(
    vocab_size=30,
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=64,
    initializer_range=0.3,
)


@pytest.fixture(scope="module")
def model():
    return Llama(SIZES, rngs=nnx.Rngs(0))


class Chain:
    """A model of another kind: the next token depends on the last one alone, by a table [V, V]."""

    context = 1000

    def __new__(cls, table):
        class Module(nnx.Module):
            context = cls.context

            def __init__(self):
                self.table = nnx.Param(jnp.asarray(table, jnp.float32))

            def start(self, batch, room):
                return {"read": jnp.zeros((batch, room), jnp.int32)}

            def extend(self, ids, cache, *, lengths=None):
                last = ids[:, -1] if lengths is None else ids[jnp.arange(len(ids)), lengths - 1]
                return self.table[...][last], cache

        return Module()


def without_cache(model, prompt, count):
    """Greedy, reading all anew; one shape, padded behind."""
    read = jax.jit(model.__call__)
    ids = list(prompt)
    for _ in range(count):
        padded = np.zeros((1, 64), np.int32)
        padded[0, : len(ids)] = ids
        ids.append(int(read(padded)[0, len(ids) - 1].argmax()))
    return ids[len(prompt) :]


# The same text whatever the road


def test_greedy_text_with_and_without_cache(model):
    prompts = [[3], [1, 2, 3, 4, 5, 6, 7], [9] * 20]
    expected = [without_cache(model, prompt, 12) for prompt in prompts]
    assert len({tuple(each) for each in expected}) == 3
    assert generate(model, prompts, max_new=12) == expected
    for prompt, text in zip(prompts, expected, strict=True):
        assert generate(model, [prompt], max_new=12) == [text]
        assert list(stream(model, prompt, max_new=12)) == text


def test_a_text_stops_at_a_stop_token_and_alone(model):
    prompts = [[1, 2, 3, 4, 5, 6, 7], [9] * 20]
    whole = generate(model, prompts, max_new=12)
    stop = whole[0][4]
    cut = [list(itertools.takewhile(lambda token: token != stop, each)) for each in whole]
    assert generate(model, prompts, max_new=12, stop=[stop]) == cut
    assert list(stream(model, prompts[0], max_new=12, stop=[stop])) == cut[0]
    assert len(cut[0]) <= 4


def test_the_context_can_be_filled_and_not_exceeded(model):
    (text,) = generate(model, [[1] * 30], max_new=34)
    assert len(text) == 34
    assert text == without_cache(model, [1] * 30, 34)
    for longer in ({"max_new": 35}, {"max_new": 10**9}):
        with pytest.raises(ValueError, match=r"at most 64 tokens .* prompt of 30 and max_new="):
            generate(model, [[1] * 30], **longer)
        with pytest.raises(ValueError, match="context"):  # before the first token is asked for
            stream(model, [1] * 30, **longer)


def test_few_programs_serve_all_lengths(model):
    writing._extend.clear_cache()
    for length in range(1, 15):
        generate(model, [[1] * length], max_new=20)
    assert writing._extend._cache_size() == 2


def test_any_model_will_do():
    table = np.full((5, 5), -9.0)
    table[np.arange(5), (np.arange(5) + 2) % 5] = 9
    assert generate(Chain(table), [[0, 1], [4]], max_new=4) == [[3, 0, 2, 4], [1, 3, 0, 2]]
    assert generate(Chain(table), []) == []


# Chance


def test_probabilities_are_exact():
    logits = np.log([[0.5, 0.25, 0.15, 0.1], [0.1, 0.15, 0.25, 0.5]])

    def found(**options):
        return np.asarray(distribution(logits, **options))

    np.testing.assert_allclose(found(), np.exp(logits), rtol=1e-5)
    squares = np.exp(logits) ** 2
    np.testing.assert_allclose(
        found(temperature=0.5), squares / squares.sum(-1, keepdims=True), rtol=1e-5
    )
    np.testing.assert_array_equal(found(temperature=0), [[1, 0, 0, 0], [0, 0, 0, 1]])
    two = [[2 / 3, 1 / 3, 0, 0], [0, 0, 1 / 3, 2 / 3]]
    np.testing.assert_allclose(found(top_k=2), two, rtol=1e-5)
    np.testing.assert_allclose(found(top_p=0.74), two, rtol=1e-5)
    np.testing.assert_allclose(found(top_p=0.76)[0], np.array([50, 25, 15, 0]) / 90, rtol=1e-5)
    # Of the first three, 5/9 are below 0.6 and 7.5/9 above.
    np.testing.assert_allclose(found(top_k=3, top_p=0.6), two, rtol=1e-5)
    np.testing.assert_allclose(found(top_k=1, temperature=9.0), found(temperature=0), rtol=1e-6)
    np.testing.assert_allclose(found(top_p=1e-9), found(temperature=0), rtol=1e-6)
    np.testing.assert_allclose(found(top_k=99, top_p=1.0), np.exp(logits), rtol=1e-5)


def test_equal_logits_are_cut_to_the_number_asked_for():
    found = np.asarray(distribution(np.zeros(8), top_k=3))
    np.testing.assert_allclose(found, [1 / 3] * 3 + [0] * 5, rtol=1e-6)
    assert int((np.asarray(distribution(np.zeros(8), top_p=0.5)) > 0).sum()) == 4


@pytest.mark.parametrize(
    "options",
    [
        {"temperature": 1.0},
        {"temperature": 0.6},
        {"temperature": 1.3, "top_k": 4},
        {"temperature": 1.0, "top_p": 0.8},
        {"temperature": 2.0, "top_k": 5, "top_p": 0.7},
    ],
)
def test_tokens_come_as_often_as_they_should(options):
    """A chi-square statistic of 4000 draws, against six deviations of its own distribution."""
    logits = np.random.default_rng(1).normal(size=8) * 1.5
    table = np.tile(logits, (8, 1))
    prompts = [[0]] * 400
    drawn = np.concatenate(generate(Chain(table), prompts, max_new=10, seed=7, **options))
    assert len(drawn) == 4000
    expected = 4000 * np.asarray(distribution(logits, **options), np.float64)
    seen = np.bincount(drawn, minlength=8)
    assert seen[expected == 0].sum() == 0
    kept = expected > 0
    chi_square = ((seen - expected)[kept] ** 2 / expected[kept]).sum()
    freedom = kept.sum() - 1
    assert chi_square < freedom + 6 * np.sqrt(2 * freedom)


def test_a_seed_makes_chance_repeatable(model):
    options = {"max_new": 10, "temperature": 1.0}
    texts = [generate(model, [[1, 2]], seed=seed, **options) for seed in (1, 1, 2)]
    assert texts[0] == texts[1] != texts[2]
    rows = generate(model, [[1, 2]] * 3, seed=1, **options)
    assert len({tuple(row) for row in rows}) == 3


def test_no_draw_is_made_of_zero_probability_even_with_infinite_logits():
    logits = np.array([0.0, -np.inf, 1.0, -np.inf])
    found = np.asarray(distribution(logits, top_p=0.99))
    assert np.isfinite(found).all()
    assert found[[1, 3]].sum() == 0


# Beams


def every_text(table, prompt, length):
    """The log probability of every text of a length."""
    scores = np.asarray(jax.nn.log_softmax(jnp.asarray(table)))
    for text in itertools.product(range(len(table)), repeat=length):
        places = [prompt[-1], *text]
        yield sum(scores[a, b] for a, b in itertools.pairwise(places)), list(text)


def test_enough_beams_find_the_best_text():
    table = np.random.default_rng(3).normal(size=(4, 4))
    score, text = max(every_text(table, [0], 4))
    found, value = beam_search(Chain(table), [0], beams=64, max_new=4)
    assert found == text
    assert value == pytest.approx(score / 4, abs=1e-5)
    greedy = generate(Chain(table), [[0]], max_new=4)[0]
    assert beam_search(Chain(table), [0], beams=1, max_new=4)[0] == greedy


def test_two_beams_escape_a_trap():
    low = np.log(1e-6)
    table = np.full((4, 4), low)
    table[0, [1, 2]] = np.log([0.55, 0.45])  # 1 looks better,
    table[1] = np.log(0.25)  # and leads nowhere;
    table[2, 3] = np.log(0.99)  # after 2 all is clear
    assert generate(Chain(table), [[0]], max_new=2)[0][0] == 1
    assert beam_search(Chain(table), [0], beams=2, max_new=2)[0] == [2, 3]


def test_beams_stop_and_lengths_count():
    table = np.log(np.array([[0.05, 0.5, 0.45], [0.05, 0.05, 0.9], [0.3, 0.4, 0.3]]))
    # Token 2 stops. At once: 0.45; after a 1: 0.5 x 0.9 = 0.45 over two tokens.
    short, score = beam_search(Chain(table), [0], beams=3, max_new=3, stop=[2], length_power=0.0)
    assert short in ([], [1])
    assert score == pytest.approx(np.log(0.45), abs=1e-5)
    longer, score = beam_search(Chain(table), [0], beams=3, max_new=3, stop=[2])
    assert longer == [1]
    assert score == pytest.approx(np.log(0.45) / 2, abs=1e-5)


def test_beams_carry_their_caches_along(model):
    """The score of the best text is the one that the model gives to it when it reads it whole."""
    prompt = [1, 2, 3]
    text, score = beam_search(model, prompt, beams=4, max_new=8)
    logits = jax.nn.log_softmax(model(np.array([prompt + text])))[0]
    total = sum(float(logits[len(prompt) - 1 + i, token]) for i, token in enumerate(text))
    assert score == pytest.approx(total / 8, abs=1e-4)


def test_prompts_in_one_batch_are_searched_as_if_alone(model):
    prompts = [[1, 2, 3], [4], [9] * 20]
    options = {"beams": 3, "max_new": 8, "stop": [7, 11]}
    alone = [beam_search(model, prompt, **options) for prompt in prompts]
    assert len({tuple(text) for text, _ in alone}) > 1
    for (text, score), (expected, value) in zip(
        beam_searches(model, prompts, **options), alone, strict=True
    ):
        assert text == expected
        assert score == pytest.approx(value, abs=1e-5)
    assert beam_searches(model, []) == []


@pytest.mark.parametrize("power", [0.0, 0.7, 1.0])
def test_a_search_ends_early_only_where_nothing_better_can_come(power):
    """Among all texts that stop within the limit, and those cut off at it, the best is found."""
    table = np.random.default_rng(5).normal(size=(4, 4)) * 2
    scores = np.asarray(jax.nn.log_softmax(jnp.asarray(table)))
    found = []
    for length in range(1, 6):
        for text in itertools.product(range(4), repeat=length):
            whole = text[-1] == 3 or length == 5
            if whole and 3 not in text[:-1]:
                total = sum(scores[a, b] for a, b in itertools.pairwise([0, *text]))
                found.append((total / length**power, [each for each in text if each != 3]))
    best = max(found)
    text, score = beam_search(Chain(table), [0], beams=200, max_new=5, stop=[3], length_power=power)
    assert text == best[1]
    assert score == pytest.approx(best[0], abs=1e-5)


# Refusals


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": -1.0}, "temperature: expected a number of at least 0"),
        ({"temperature": float("nan")}, "temperature"),
        ({"temperature": float("inf")}, "temperature"),
        ({"temperature": "hot"}, "temperature"),
        ({"top_k": 0}, "top_k: expected an integer of at least 1, received 0"),
        ({"top_k": 1.5}, "top_k"),
        ({"top_p": 0.0}, "top_p: expected a number above 0 and up to 1"),
        ({"top_p": 1.01}, "top_p"),
        ({"max_new": 0}, "max_new: expected an integer of at least 1"),
        ({"max_new": True}, "max_new"),
    ],
)
def test_options_that_cannot_be(model, options, message):
    with pytest.raises(ValueError, match=message):
        generate(model, [[1]], **options)
    with pytest.raises(ValueError, match=message):
        stream(model, [1], **options)


@pytest.mark.parametrize("prompt", [[], [[1]], [0.5], "text"])
def test_prompts_that_cannot_be(model, prompt):
    for write in (lambda: generate(model, [prompt]), lambda: beam_search(model, prompt)):
        with pytest.raises(ValueError, match="prompt: "):
            write()


def test_beams_that_cannot_be(model):
    with pytest.raises(ValueError, match="beams: expected an integer of at least 1"):
        beam_search(model, [1], beams=0)
    with pytest.raises(ValueError, match="context"):
        beam_search(model, [1] * 60)
