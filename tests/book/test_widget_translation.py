"""<trivium-translation>: the translator in the page is the package's, and everyone can drive it."""

import json

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from test_widgets import address, data_of, element, heard, visit  # noqa: F401 (two are fixtures)
from tokenizers import Tokenizer

from trivium.data import ui_strings
from trivium.generate import beam_search
from trivium.models import Seq2Seq, Translation
from trivium.pretrained import recipe

pytestmark = pytest.mark.browser

TAG = "trivium-translation"
TABLES = ("embedding", "source_places", "target_places")


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.from_str(recipe("machine_translation").read("tokenizer.json").decode())


def model_of(data):
    """The package's model with the weights that the page holds."""
    sizes = recipe("machine_translation").record["budget"]["sizes"]["transformer"]
    sizes = sizes | {"dropout": 0.0}
    vocabulary, positions = len(data["tokens"]), data["positions"]
    model = nnx.eval_shape(
        lambda: Seq2Seq(vocabulary, positions=positions, rngs=nnx.Rngs(0), **sizes)
    )
    arrays = dict(data["norms"])
    for name, matrix in data["matrices"].items():
        values = (matrix["codes"].astype(np.float32) - 128) * matrix["scales"]
        arrays[name] = values.T if name in TABLES else values
    flat = nnx.to_flat_state(nnx.state(model, nnx.Param))
    assert {".".join(map(str, place)) for place, _ in flat} == set(arrays)
    nnx.update(
        model,
        nnx.from_flat_state(
            [
                (place, leaf.replace(jnp.asarray(arrays[".".join(map(str, place))])))
                for place, leaf in flat
            ]
        ),
    )
    nnx.reseed(model, default=0)
    return model


def test_text_is_cut_as_the_tokenizer_cuts_it(visit, tokenizer):  # noqa: F811
    page = visit(TAG)
    odd = ["", " ", "two  spaces", " before and after ", "naïve 日本 🙂 x²", "a$b+c=d", "¿qué? №5"]
    texts = [*ui_strings().test.sources, *ui_strings().test.targets[:200], *odd]
    expected = [each.ids for each in tokenizer.encode_batch(texts)]
    found = element(page, TAG).evaluate(
        "(element, texts) => JSON.stringify(JSON.parse(texts).map(text => element.cut(text)))",
        json.dumps(texts),
    )
    for text, ids, other in zip(texts, expected, json.loads(found), strict=True):
        assert other == ids, text
    joined = element(page, TAG).evaluate(
        "(element, all) => JSON.stringify(JSON.parse(all).map(ids => element.join(ids)))",
        json.dumps(expected[1000:1200]),
    )
    assert json.loads(joined) == tokenizer.decode_batch(expected[1000:1200])


def test_the_translator_in_the_page_is_the_package_s(visit, tokenizer):  # noqa: F811
    page = visit(TAG)
    data = data_of(page, TAG)
    model = model_of(data)
    run = nnx.jit(
        lambda model, sources, targets, lengths: (
            model(sources, targets, source_lengths=lengths),
            model.alignments(sources, targets, source_lengths=lengths),
        )
    )
    begin = data["special"]["begin"]
    pairs = [(each["source"], each["target"]) for each in data["examples"]]
    pairs.append(("Unheard-of: 🙂", "你好"))
    sources = [tokenizer.encode(source).ids for source, _ in pairs]
    targets = [[begin, *tokenizer.encode(target).ids] for _, target in pairs]
    padded = [np.zeros((len(pairs), max(map(len, rows))), np.int32) for rows in (sources, targets)]
    for array, rows in zip(padded, (sources, targets), strict=True):
        for row, ids in zip(array, rows, strict=True):
            row[: len(ids)] = ids
    lengths = np.array([len(ids) for ids in sources], np.int32)
    logits, weights = (np.asarray(each) for each in run(model, *padded, lengths))
    for row, (source, target) in enumerate(zip(sources, targets, strict=True)):
        found = json.loads(
            element(page, TAG).evaluate(
                """(element, [source, target]) => JSON.stringify(element.read(source, target).map(
                  ({ logits, weights }) => [Array.from(logits),
                    weights.map(layer => layer.map(head => Array.from(head)))]))""",
                [source, target],
            )
        )
        np.testing.assert_allclose(
            [each for each, _ in found], logits[row, : len(target)], atol=2e-3
        )
        shown = np.array([each for _, each in found]).transpose(1, 2, 0, 3)
        np.testing.assert_allclose(
            shown, weights[:, row, :, : len(target), : len(source)], atol=1e-4
        )


def test_the_beams_are_those_of_the_package(visit, tokenizer):  # noqa: F811
    page = visit(TAG)
    data = data_of(page, TAG)
    model = model_of(data)
    for example in data["examples"][:6]:
        source = tokenizer.encode(example["source"]).ids
        text, score = beam_search(
            Translation(model, [source]),
            [data["special"]["begin"]],
            beams=data["beams"],
            length_power=data["power"],
            max_new=2 * len(source) + 8,
            stop=[data["special"]["end"]],
        )
        found = element(page, TAG).evaluate(
            """(element, source) => {
              const { text, score, steps } = element.search(source);
              return { text, score, kept: steps.map(({ kept }) => kept.map(({ total }) => total)) };
            }""",
            source,
        )
        assert found["text"] == text
        assert found["score"] == pytest.approx(score, abs=1e-3)
        assert all(totals == sorted(totals, reverse=True) for totals in found["kept"])
        assert max(map(len, found["kept"])) == data["beams"]


def test_what_is_shown_is_what_was_computed(visit):  # noqa: F811
    page = visit(TAG)
    widget = element(page, TAG)
    result = widget.evaluate("element => element.result")
    assert widget.locator(".answer").inner_text() == result["text"]
    rows = widget.locator("tbody tr")
    assert rows.count() == len(result["ids"])
    assert widget.locator("thead th").count() == len(result["written"])
    widget.locator(".view select").select_option("0 1")
    shares = widget.evaluate("element => Array.from(element.weights(0))")
    assert sum(shares) == pytest.approx(1, abs=1e-4)
    for row, share in enumerate(shares):
        shown = rows.nth(row).locator("td").first.inner_text()
        assert abs(int(shown or 0) - 100 * share) <= 0.51
    assert widget.locator(".candidates li.chosen").count() == 1
    assert "%" in widget.locator(".candidates li").first.inner_text()


def test_it_translates_while_a_reader_waits(visit):  # noqa: F811
    page = visit(TAG)
    milliseconds = element(page, TAG).evaluate(
        """element => {
          const start = performance.now();
          element.translate(element.examples[0].source);
          return performance.now() - start;
        }"""
    )
    assert milliseconds < 3000


def test_by_keyboard(visit):  # noqa: F811
    page = visit(TAG)
    widget = element(page, TAG)
    slider = widget.locator(".step input")
    slider.focus()
    first = heard(page, TAG)
    page.keyboard.press("ArrowRight")
    assert widget.evaluate("element => element.at") == 1
    assert heard(page, TAG) != first
    page.keyboard.press("End")
    last = widget.evaluate("element => element.at")
    assert last == widget.locator("thead th").count() - 1
    box = widget.locator(".write input")
    box.focus()
    page.keyboard.press("Control+A")
    page.keyboard.type("Open the file")
    page.keyboard.press("Enter")
    assert widget.evaluate("element => element.at") == 0
    assert widget.evaluate("element => element.select.value") == "-1"
    assert (
        len(widget.evaluate("element => element.result.ids")) == widget.locator("tbody tr").count()
    )
    widget.locator(".pick select").first.select_option("1")
    source = data_of(page, TAG)["examples"][1]["source"]
    assert box.input_value() == source


@pytest.mark.parametrize(
    ("typed", "says"), [("", "nothing to translate"), ("   ", "nothing"), ("0" * 200, "more than")]
)
def test_what_cannot_be_translated_says_so(visit, typed, says):  # noqa: F811
    page = visit(TAG)
    widget = element(page, TAG)
    widget.locator(".write input").fill(typed)
    widget.locator(".go").click()
    assert says in heard(page, TAG)
    assert widget.locator("tbody tr").count() == 0
    assert widget.locator(".step input").is_disabled()
    widget.locator(".pick select").first.select_option("0")
    assert widget.locator("tbody tr").count() > 0


def test_by_touch(visit):  # noqa: F811
    page = visit(TAG, width=390, has_touch=True, is_mobile=True)
    widget = element(page, TAG)
    widget.locator(".step button").last.tap()
    assert widget.evaluate("element => element.at") == 1
    widget.locator("thead th").nth(0).tap()
    assert widget.evaluate("element => element.at") == 0
    assert widget.evaluate("element => element.scrollWidth <= element.clientWidth")
