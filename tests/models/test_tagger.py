"""Taggers: tokens as numbers by a stated rule, padding, what was never seen, and refusals."""

import jax
import numpy as np
import optax
import pytest
from flax import nnx

from trivium.models import Tagger, TokenEncoder, negative_log_likelihood
from trivium.models.tagger import plain
from trivium.train import fit

TOKENS = [["12", "Oak", "St.,", "Reno"], ["7", "Elm", "St."], ["PO", "Box", "77"]]
ENCODER = TokenEncoder.of(TOKENS, least=1)
SIZES = {"width": 6, "letters": 8, "hidden": 16}


@pytest.fixture(scope="module", params=["lstm", "transformer"])
def model(request):
    return Tagger(ENCODER.size, 4, body=request.param, **SIZES, rngs=nnx.Rngs(0))


@pytest.fixture(scope="module")
def call(model):
    """Emissions and labels for tokens [4, 5, 17] with lengths [4], compiled once."""
    graph, state = nnx.split(model)

    @jax.jit
    def run(tokens, lengths):
        model = nnx.merge(graph, state)
        return model(tokens, lengths=lengths).emissions, model.tag(tokens, lengths=lengths)

    return lambda *arrays: [np.asarray(each) for each in run(*arrays)]


def batch(filler=0):
    """The three sequences and an empty one, in one array."""
    found = np.full((4, 5, 17), filler, np.int32)
    for row, tokens in enumerate(TOKENS):
        found[row, : len(tokens)] = ENCODER(tokens)
    return found, np.array([*map(len, TOKENS), 0], np.int32)


def test_words_in_their_plain_form():
    forms = {"St.,": "st", "(525)": "000", "60602-1": "00000-0", "#": "#", "O'Hare": "o'hare"}
    assert {token: plain(token) for token in forms} == forms
    assert ENCODER.words == ("0", "00", "box", "elm", "oak", "po", "reno", "st")


def test_tokens_as_numbers():
    found = ENCODER(["st", "ST.", "é", "abcdefghijklmnopqrstuvwxyz"])
    assert found.dtype == np.int32
    assert found.shape == (4, 17)
    assert found[:, 0].tolist() == [9, 9, 1, 1]
    letters = "abcdefghijklmnopqrstuvwxyz"
    first = letters.index
    assert found[0, 1:4].tolist() == [first("s") + 2, first("t") + 2, 0]
    # A character out of the table is 1; of a long token the two ends count.
    assert found[2, 1:3].tolist() == [1, 0]
    ends = [*range(8), *range(18, 26)]
    assert found[3, 1:].tolist() == [number + 2 for number in ends]
    assert ENCODER([]).shape == (0, 17)


def test_rare_words_are_unknown():
    encoder = TokenEncoder.of(TOKENS, least=2)
    assert encoder.words == ("00", "st")
    assert encoder.size == 4
    assert encoder(["Oak"])[0, 0] == 1


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        ("12 Oak", "tokens: expected a list of strings, received '12 Oak'"),
        ("", "tokens: expected a list of strings"),
        (["12", ""], "tokens: expected no empty string, received one at 1"),
    ],
)
def test_tokens_that_cannot_be(tokens, message):
    with pytest.raises(ValueError, match=message):
        ENCODER(tokens)


def test_padding_changes_nothing_and_an_empty_sequence_has_no_labels(call):
    tokens, lengths = batch()
    emissions, labels = call(tokens, lengths)
    others, same = call(batch(filler=3)[0], lengths)
    real = np.arange(5) < lengths[:, None]
    np.testing.assert_allclose(others[real], emissions[real], atol=1e-5)
    np.testing.assert_array_equal(labels, same)
    assert (labels[~real] == -1).all()
    assert ((labels[real] >= 0) & (labels[real] < 4)).all()


def test_words_never_seen_differ_by_their_letters(call):
    tokens, lengths = batch()
    tokens[0, :2] = ENCODER(["Zyx", "Quux"])
    tokens[1, :2] = ENCODER(["Zyx", "Zyx"])
    assert (tokens[:2, :2, 0] == 1).all()
    emissions, _ = call(tokens, lengths)
    assert np.isfinite(emissions).all()
    assert np.abs(emissions[0, 1] - emissions[1, 1]).max() > 1e-4


def test_it_learns_what_it_is_shown():
    learner = Tagger(ENCODER.size, 4, **SIZES, rngs=nnx.Rngs(0))
    labels = np.array([[0, 1, 2, 3], [0, 1, 2, 0], [3, 3, 0, 0]], np.int32)
    history = fit(
        learner,
        ([ENCODER(tokens) for tokens in TOKENS], labels),
        epochs=60,
        optimizer=optax.adam(0.03),
        loss=negative_log_likelihood,
        metric=None,
        batch_size=3,
        buckets=1,
        progress=False,
    )
    assert history.loss[-1] < 0.2 < history.loss[0]
    tokens, lengths = batch()
    learner.eval()
    found = np.asarray(nnx.jit(Tagger.tag)(learner, tokens[:3, :4], lengths=lengths[:3]))
    np.testing.assert_array_equal(found, np.where(np.arange(4) < lengths[:3, None], labels, -1))


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        (np.zeros((1, 3, 16), np.int32), r"expected integers \[B, T, 17\].*received int32 \[1, 3,"),
        (np.zeros((1, 0, 17), np.int32), "with T at least 1"),
        (np.zeros((1, 3, 17), np.float32), "received float32"),
        (np.full((1, 3, 17), 10, np.int32), r"expected numbers in \[0, 10\), received 10 to 10"),
        (np.full((1, 3, 17), -1, np.int32), r"expected numbers in \[0, 10\), received -1 to -1"),
        (np.stack([np.full((1, 3), each) for each in (1, *[200] * 16)], -1), r"received 200 to"),
    ],
)
def test_input_that_cannot_be(model, tokens, message):
    with pytest.raises(ValueError, match=message):
        model(tokens)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"body": "rnn"}, 'body must be "lstm" or "transformer", not \'rnn\''),
        ({"hidden": 12}, "hidden must be a multiple of 8, not 12"),
        ({"width": 0}, "width must be at least 1, not 0"),
    ],
)
def test_sizes_that_cannot_be(options, message):
    with pytest.raises(ValueError, match=message):
        Tagger(9, 4, **(SIZES | options), rngs=nnx.Rngs(0))
