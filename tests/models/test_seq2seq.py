"""Translators: decoding with a cache, beams, padding, alignments, and clear refusals."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from trivium.generate import beam_search, generate
from trivium.models import AttentionalLSTM, Seq2Seq, Translation

V, POSITIONS, BEGIN = 20, 32, 2
SOURCES = [[5, 6, 7], [8, 9, 10, 11, 12, 13, 14, 15, 16], [4]]


def build(kind):
    if kind == "transformer":
        return Seq2Seq(
            V, width=16, heads=2, hidden=24, depth=2, positions=POSITIONS, rngs=nnx.Rngs(0)
        )
    return AttentionalLSTM(V, width=12, hidden=16, positions=POSITIONS, rngs=nnx.Rngs(0))


@pytest.fixture(scope="module", params=["transformer", "lstm"])
def model(request):
    model = build(request.param)
    # Far from the start, where all answers would be much alike.
    state = nnx.state(model, nnx.Param)
    nnx.update(model, jax.tree.map(lambda leaf: 2.0 * leaf, state))
    return model


@pytest.fixture(scope="module")
def whole(model):
    """Logits and alignments, compiled once: sources [3, 16] and targets [3, 32] with lengths."""
    graph, state = nnx.split(model)

    @jax.jit
    def run(sources, targets, lengths):
        model = nnx.merge(graph, state)
        return (
            model(sources, targets, source_lengths=lengths),
            model.alignments(sources, targets, source_lengths=lengths),
        )

    return lambda *arrays: [np.asarray(each) for each in run(*arrays)]


@pytest.fixture(scope="module")
def read(whole):
    """The logits alone."""
    return lambda *arrays: whole(*arrays)[0]


def padded(sequences, width, filler=0):
    found = np.full((len(sequences), width), filler, np.int32)
    for row, each in enumerate(sequences):
        found[row, : len(each)] = each
    return found


LENGTHS = np.array([len(each) for each in SOURCES], np.int32)


def without_cache(read, count):
    """Greedy translations, each step reading all anew."""
    texts = [[BEGIN] for _ in SOURCES]
    for place in range(count):
        logits = read(padded(SOURCES, 16), padded(texts, POSITIONS), LENGTHS)
        for row, text in enumerate(texts):
            text.append(int(logits[row, place].argmax()))
    return [text[1:] for text in texts]


def test_decoding_with_a_cache_is_the_full_forward(model, read):
    expected = without_cache(read, 12)
    assert len({tuple(each) for each in expected}) == len(SOURCES)
    prompts = [[BEGIN]] * len(SOURCES)
    assert generate(Translation(model, SOURCES), prompts, max_new=12) == expected
    # A target may be begun by more than one symbol.
    begun = [[BEGIN, *text[:3]] for text in expected]
    assert generate(Translation(model, SOURCES), begun, max_new=9) == [
        text[3:] for text in expected
    ]


def test_one_beam_is_greedy_and_more_score_what_the_model_says(model, read):
    options = {"max_new": 12}
    greedy = generate(Translation(model, SOURCES), [[BEGIN]] * 3, **options)
    alone = Translation(model, SOURCES[:1])
    assert generate(alone, [[BEGIN]], **options) == greedy[:1]
    assert beam_search(alone, [BEGIN], beams=1, **options)[0] == greedy[0]
    text, score = beam_search(alone, [BEGIN], beams=3, **options)
    targets = padded([[BEGIN, *text]] * len(SOURCES), POSITIONS)
    scores = jax.nn.log_softmax(read(padded(SOURCES, 16), targets, LENGTHS)[0])
    total = sum(float(scores[i, token]) for i, token in enumerate(text))
    assert score == pytest.approx(total / 12, abs=1e-4)


def test_padding_changes_nothing(read):
    targets = padded([[BEGIN, 3, 4, 5]] * len(SOURCES), POSITIONS)
    plain = read(padded(SOURCES, 16), targets, LENGTHS)[:, :4]
    np.testing.assert_allclose(
        read(padded(SOURCES, 16, 9), targets, LENGTHS)[:, :4], plain, atol=1e-5
    )
    # Nor does what follows in the target.
    other = np.where(np.arange(POSITIONS) < 4, targets, 7).astype(np.int32)
    np.testing.assert_allclose(read(padded(SOURCES, 16), other, LENGTHS)[:, :4], plain, atol=1e-5)
    # The source does, in all its real places.
    changed = padded(SOURCES, 16)
    changed[1, 8] = 3
    found = read(changed, targets, LENGTHS)[:, :4]
    assert np.abs(found[1] - plain[1]).max() > 1e-3
    np.testing.assert_allclose(found[[0, 2]], plain[[0, 2]], atol=1e-6)


def test_alignments_are_weights_over_the_real_source(model, whole):
    _, found = whole(padded(SOURCES, 16), padded([[BEGIN, 3]] * 3, POSITIONS), LENGTHS)
    layers, heads = (2, 2) if isinstance(model, Seq2Seq) else (1, 1)
    assert found.shape == (layers, 3, heads, POSITIONS, 16)
    np.testing.assert_allclose(found.sum(axis=-1), 1, atol=1e-5)
    beyond = np.arange(16) >= LENGTHS[:, None]
    assert (found.transpose(1, 4, 0, 2, 3)[beyond] == 0).all()


def test_alignments_are_those_that_the_answer_comes_from():
    """Put together by hand from its alignments, the LSTM's logits are its own."""

    @nnx.jit
    def both(model, sources, targets):
        memory, state = model.encode(sources, lengths=LENGTHS)
        weights = model.alignments(sources, targets, source_lengths=LENGTHS)[0, :, 0]
        h, _ = model.write(model._embed("targets", targets), initial=state)
        joined = jnp.tanh(model.join(jnp.concatenate([h, weights @ memory], axis=-1)))
        answers = model(sources, targets, source_lengths=LENGTHS)
        return joined @ model.embedding[...].T, answers

    found, expected = both(build("lstm"), padded(SOURCES, 16), padded([[BEGIN, 3, 4]] * 3, 4))
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_the_context_can_be_filled_and_not_exceeded(model):
    translation = Translation(model, SOURCES[:1])
    (text,) = generate(translation, [[BEGIN]], max_new=POSITIONS - 1)
    assert len(text) == POSITIONS - 1
    with pytest.raises(ValueError, match="at most 32 tokens"):
        generate(translation, [[BEGIN]], max_new=POSITIONS)


def test_texts_longer_than_the_positions_are_refused(model):
    long = [[5] * (POSITIONS + 1)]
    with pytest.raises(ValueError, match=r"sources: expected at most 32 symbols, .* received 33"):
        Translation(model, long)
    with pytest.raises(ValueError, match=r"sources: expected at most 32 symbols, .* received 33"):
        model(long, [[BEGIN]])
    with pytest.raises(ValueError, match="targets: expected at most 32 symbols"):
        model([[5]], long)


@pytest.mark.parametrize(
    ("sources", "message"),
    [
        ([], "sources: expected lists of ids, at least one"),
        ([[5], []], "sources: expected lists of ids, at least one, none of them empty"),
        (["Open"], "sources: expected lists of ids"),
        ([[0.5]], "sources: expected integers, received float64"),
        ([[5, V]], r"sources must lie in \[0, 20\), not reach from 0 to 20"),
    ],
)
def test_sources_that_cannot_be(model, sources, message):
    with pytest.raises(ValueError, match=message):
        Translation(model, sources)


def test_as_many_prompts_as_sources(model):
    with pytest.raises(ValueError, match="one for each of 3 sources, received 2"):
        generate(Translation(model, SOURCES), [[BEGIN]] * 2, max_new=4)


def test_sizes_that_cannot_be():
    with pytest.raises(ValueError, match="heads=3 must divide width=16"):
        Seq2Seq(V, width=16, heads=3, hidden=8, depth=1, positions=8, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match="hidden must be even"):
        AttentionalLSTM(V, width=4, hidden=5, positions=8, rngs=nnx.Rngs(0))
    for name in ("vocabulary", "depth", "positions"):
        sizes = {"vocabulary": V, "width": 8, "heads": 2, "hidden": 8, "depth": 1, "positions": 8}
        with pytest.raises(ValueError, match=f"{name} must be at least 1, not 0"):
            Seq2Seq(**(sizes | {name: 0}), rngs=nnx.Rngs(0))
