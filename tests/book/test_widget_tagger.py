"""<trivium-tagger>: labels, scores and probabilities in the page are those of the package."""

import json

import numpy as np
import pytest
from flax import nnx
from test_widgets import address, data_of, element, heard, visit  # noqa: F401

from trivium import pretrained
from trivium.data import split_address
from trivium.models import Tagger, TokenEncoder, log_partition, marginals, viterbi

pytestmark = pytest.mark.browser

TAG = "trivium-tagger"
TEXTS = [
    "",
    " \n ",
    "Ste.#4B&7 (Rear) 北京市 é É ½ co-operative... !!!",
    "abcdefghijklmnopqrstuvwxyz 1600 PENNSYLVANIA AVE NW, WASHINGTON, DC 20500-0003",
    " ".join(["12 Oak St Reno NV"] * 12),
]


@pytest.fixture(scope="module")
def package():
    """A function: text, whether transitions count -> what the widget answers, by the package."""
    recipe = pretrained.recipe("sequence_labelling")
    encoder = TokenEncoder(tuple(json.loads(recipe.read("words.json"))))
    model = recipe.restore("lstm", Tagger(encoder.size, 29, rngs=nnx.Rngs(0)))
    model.eval()

    @nnx.jit
    def read(model, tokens, lengths, on):
        scores = model(tokens, lengths=lengths)
        joining = {name: on * getattr(scores, name) for name in ("transitions", "start", "end")}
        scores = scores._replace(**joining)
        return *viterbi(scores), log_partition(scores), marginals(scores)

    def analyze(text, transitions):
        tokens = split_address(text)
        padded = np.zeros((1, 64, 17), np.int32)
        padded[0, : len(tokens)] = encoder(tokens)
        lengths = np.array([len(tokens)], np.int32)
        labels, score, total, shares = read(model, padded, lengths, np.float32(transitions))
        count = len(tokens)
        return tokens, labels[0, :count].tolist(), score[0], total[0], shares[0, :count]

    return analyze


def answer(page, text, transitions):
    found = element(page, TAG).evaluate(
        """(element, [text, transitions]) => {
          const { marginals, ...rest } = element.analyze(text, transitions);
          return JSON.stringify({ ...rest, marginals: marginals.map(row => Array.from(row)) });
        }""",
        [text, transitions],
    )
    return json.loads(found)


@pytest.mark.parametrize("transitions", [True, False])
def test_the_tagger_in_the_page_answers_as_the_package_does(visit, package, transitions):  # noqa: F811
    page = visit(TAG)
    examples = [" ".join(each["tokens"]) for each in data_of(page, TAG)["examples"]]
    assert len(examples) >= 12
    for text in [*examples, *TEXTS]:
        found = answer(page, text, transitions)
        tokens, labels, score, total, shares = package(text, transitions)
        assert found["tokens"] == tokens
        assert found["labels"] == labels, text
        np.testing.assert_allclose(found["score"], score, rtol=1e-4, atol=1e-3)
        np.testing.assert_allclose(found["partition"], total, rtol=1e-4, atol=1e-3)
        np.testing.assert_allclose(
            np.reshape(found["marginals"], (len(tokens), 29)), shares, atol=1e-3
        )


def test_the_data_are_those_of_the_recipe_and_small(visit):  # noqa: F811
    page = visit(TAG)
    recipe = pretrained.recipe("sequence_labelling")
    for name, pairs in data_of(page, TAG)["weights"].items():
        stored = recipe.weights("lstm")[name]
        assert np.array_equal(np.ascontiguousarray(pairs).view("<f2")[..., 0], stored), name
    size = element(page, TAG).locator("> script").evaluate("script => script.textContent.length")
    assert size < 500_000


def test_it_answers_while_somebody_types(visit):  # noqa: F811
    page = visit(TAG)
    milliseconds = element(page, TAG).evaluate(
        """element => {
          const text = "12345 North Martin Luther King Blvd Suite 100, Saint Paul, MN 55104";
          const times = Array.from({ length: 9 }, () => {
            const start = performance.now();
            element.analyze(text);
            return performance.now() - start;
          });
          return times.sort((a, b) => a - b)[4];
        }"""
    )
    assert milliseconds < 100


def test_a_typed_address_is_labeled_and_an_empty_one_is_not(visit):  # noqa: F811
    page = visit(TAG)
    widget = element(page, TAG)
    typed = widget.locator(".pick input")
    typed.focus()
    page.keyboard.press("ControlOrMeta+a")
    page.keyboard.type("77 Elm Street # 9")
    labels = widget.locator("tbody b").all_inner_texts()
    assert labels[:3] == ["AddressNumber", "StreetName", "StreetNamePostType"]
    assert len(labels) == 5
    assert widget.locator("select").input_value() == "-1"
    assert heard(page, TAG).startswith("5 tokens.")
    assert "of the data" not in heard(page, TAG)
    typed.fill("")
    assert widget.locator("tbody tr").count() == 0
    assert heard(page, TAG) == "No token, no label. Type an address."


def test_transitions_by_keyboard(visit, package):  # noqa: F811
    page = visit(TAG)
    widget = element(page, TAG)
    data = data_of(page, TAG)
    text = " ".join(data["examples"][0]["tokens"])
    names = widget.locator("tbody b")
    for transitions in (True, False):
        if not transitions:
            widget.locator(".mode input").first.focus()
            page.keyboard.press("ArrowRight")
        expected = [data["labels"][k] for k in package(text, transitions)[1]]
        assert names.all_inner_texts() == expected
    right = sum(
        data["labels"][k] == name
        for k, name in zip(data["examples"][0]["truth"], expected, strict=True)
    )
    assert f"{right} of {len(expected)} labels are those of the data." in heard(page, TAG)


def test_an_address_is_picked_by_touch(visit):  # noqa: F811
    page = visit(TAG, width=390, has_touch=True, is_mobile=True)
    widget = element(page, TAG)
    widget.locator("select").select_option("3")
    tokens = data_of(page, TAG)["examples"][3]["tokens"]
    assert widget.locator("tbody th").all_inner_texts() == tokens
    assert widget.locator(".pick input").input_value() == " ".join(tokens)
    before = widget.locator("tbody").inner_text()
    widget.locator(".mode label").nth(1).tap()
    assert widget.locator("tbody").inner_text() != before
    assert widget.evaluate("element => element.scrollWidth <= element.clientWidth")
