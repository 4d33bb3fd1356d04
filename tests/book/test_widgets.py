"""The widgets of the built site, in a real browser: the same answers as the package, for everyone.

A page is found by the element it holds, so that chapters may move.
"""

import base64
import json
import re

import jax.numpy as jnp
import numpy as np
import pytest
from checkout import ROOT
from flax import nnx

from trivium.models import ConvClassifier, LSTMClassifier

pytestmark = pytest.mark.browser

TAGS = sorted(module.stem for module in (ROOT / "site" / "widgets").glob("trivium-*.js"))

# What a reader can see or hear of a widget, letter for letter: text, labels and tool tips.
VISIBLE = """element => {
  const found = [];
  const walk = node => {
    if (node.nodeType === Node.TEXT_NODE) found.push(node.data);
    for (const name of ["aria-label", "title", "aria-valuetext", "data-first", "data-last"]) {
      if (node.getAttribute?.(name)) found.push(node.getAttribute(name));
    }
    if (node.localName !== "style") node.childNodes.forEach(walk);
  };
  walk(element.shadowRoot.querySelector(".frame"));
  return found.map(text => text.trim()).filter(Boolean);
}"""


@pytest.fixture(scope="session")
def address(site, site_url):
    """A function that finds the first page of the built site that holds an element."""
    pages = {}
    for path in sorted(site.rglob("*.html")):
        for tag in re.findall(r"<(trivium-[a-z]+)[ >]", path.read_text(encoding="utf-8")):
            pages.setdefault(tag, path)

    def find(tag):
        assert tag in pages, f"no page of the built site holds a <{tag}>"
        return f"{site_url.rstrip('/')}/{pages[tag].relative_to(site).as_posix()}"

    return find


def without_formulas(page):
    """The page does not typeset: that takes seconds, and no widget holds a formula."""
    page.route(
        "**/mathjax/**", lambda route: route.fulfill(content_type="text/javascript", body="")
    )


@pytest.fixture
def visit(browser, address):
    """A function that opens the page of a widget; what its console says must stay empty."""
    contexts, complaints = [], []

    def open_page(tag, *, width=1000, height=900, **options):
        context = browser.new_context(viewport={"width": width, "height": height}, **options)
        contexts.append(context)
        page = context.new_page()
        without_formulas(page)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on(
            "console",
            lambda message: (
                message.type == "error"
                and complaints.append(f"{message.text} ({message.location['url']})")
            ),
        )
        page.goto(address(tag))
        if options.get("java_script_enabled", True):
            page.wait_for_function(
                f"document.querySelector('{tag}').shadowRoot?.querySelector('.frame')"
            )
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert complaints == []


def element(page, tag):
    return page.locator(tag).first


def data_of(page, tag):
    """The data on the page, its arrays unpacked."""
    text = element(page, tag).locator("> script").evaluate("script => script.textContent")

    def unpacked(item):
        if set(item) != {"shape", "dtype", "base64"}:
            return item
        values = np.frombuffer(
            base64.b64decode(item["base64"]), dtype=f"<{np.dtype(item['dtype']).str[1:]}"
        )
        return values.reshape(item["shape"])

    return json.loads(text, object_hook=unpacked)


def strings(value):
    """Every text in the data, at any depth."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for each in value.values():
            yield from strings(each)
    elif isinstance(value, list):
        for each in value:
            yield from strings(each)


def heard(page, tag):
    """The result in words: what the live region says."""
    return element(page, tag).locator("[role=status]").inner_text()


def test_the_network_in_the_page_answers_as_the_package_does(visit):
    page = visit("trivium-cnn")
    data = data_of(page, "trivium-cnn")
    model = ConvClassifier(len(data["classes"]), filters=len(data["bias"]), rngs=nnx.Rngs(0))
    model.conv.kernel[...] = jnp.asarray(data["kernel"])
    model.conv.bias[...] = jnp.asarray(data["bias"])
    model.dense.kernel[...] = jnp.asarray(data["dense_kernel"])
    model.dense.bias[...] = jnp.asarray(data["dense_bias"])
    images = data["images"].astype(np.float32) / np.float32(255)
    expected = model(images[..., None])
    maps = model.features(images[..., None])
    # As JSON text: the driver takes minutes to hand over a million numbers one by one.
    answers = element(page, "trivium-cnn").evaluate(
        """(element, images) => JSON.stringify(JSON.parse(images).map(image => {
          const { conv, pool, logits, probabilities } = element.forward(Float32Array.from(image));
          return [conv, pool, logits, probabilities].map(values => Array.from(values));
        }))""",
        json.dumps(images.reshape(len(images), -1).tolist()),
    )
    for row, (conv, pool, logits, probabilities) in enumerate(json.loads(answers)):
        np.testing.assert_allclose(conv, maps["conv"][row].ravel(), atol=1e-4)
        np.testing.assert_allclose(pool, maps["pool"][row].ravel(), atol=1e-4)
        np.testing.assert_allclose(logits, expected[row], atol=1e-4)
        np.testing.assert_allclose(probabilities, nnx.softmax(expected[row]), atol=1e-4)


def test_the_network_in_the_page_answers_while_a_finger_moves(visit):
    page = visit("trivium-cnn")
    milliseconds = element(page, "trivium-cnn").evaluate(
        """element => {
          const times = Array.from({ length: 30 }, () => {
            const start = performance.now();
            element.forward(new Float32Array(784).fill(0.5));
            return performance.now() - start;
          });
          return times.sort((a, b) => a - b)[15];
        }"""
    )
    assert milliseconds < 10


def test_the_lstm_in_the_page_answers_as_the_package_does(visit):
    page = visit("trivium-lstm")
    data = data_of(page, "trivium-lstm")
    features, columns = data["w_ih"].shape
    model = LSTMClassifier(features, columns // 4, len(data["classes"]), rngs=nnx.Rngs(0))
    model.w_ih[...] = jnp.asarray(data["w_ih"])
    model.w_hh[...] = jnp.asarray(data["w_hh"])
    model.b[...] = jnp.asarray(data["b"])
    model.dense.kernel[...] = jnp.asarray(data["dense_kernel"])
    model.dense.bias[...] = jnp.asarray(data["dense_bias"])
    sequences = data["sequences"]
    # The answer after step t is the package's answer to the sequence cut there; one call for all.
    padded = np.zeros((sum(map(len, sequences)), max(map(len, sequences)), features), np.float32)
    ends = np.concatenate([np.arange(1, len(sequence) + 1) for sequence in sequences])
    starts = np.cumsum([0, *map(len, sequences)])
    for sequence, start in zip(sequences, starts, strict=False):
        padded[start : start + len(sequence), : len(sequence)] = sequence
    expected = model(jnp.asarray(padded), lengths=jnp.asarray(ends.astype(np.int32)))
    for sequence, start in zip(sequences, starts, strict=False):
        steps = len(sequence)
        result = element(page, "trivium-lstm").evaluate(
            """(element, sequence) => {
              const { gates, c, h, logits } = element.forward(Float32Array.from(sequence));
              return JSON.stringify({
                logits: logits.map(step => Array.from(step)), c: Array.from(c), h: Array.from(h),
                gates: Object.fromEntries(
                  Object.entries(gates).map(([gate, values]) => [gate, Array.from(values)])),
              });
            }""",
            sequence.ravel().tolist(),
        )
        result = json.loads(result)
        answers = expected[start : start + steps]
        np.testing.assert_allclose(result["logits"], answers, atol=1e-4)
        # The gates shown are those that make the states shown.
        gate = {k: np.reshape(v, (steps, -1)) for k, v in result["gates"].items()}
        c, h = (np.reshape(result[name], (steps, -1)) for name in "ch")
        before = np.concatenate([np.zeros_like(c[:1]), c[:-1]])
        np.testing.assert_allclose(
            c, gate["forget"] * before + gate["input"] * gate["cell"], atol=1e-5
        )
        np.testing.assert_allclose(h, gate["output"] * np.tanh(c), atol=1e-5)


def test_attention_maps_are_distributions(visit):
    page = visit("trivium-attention")
    for sentence in data_of(page, "trivium-attention")["sentences"]:
        queries, keys = sentence["maps"].shape[2:]
        assert queries == keys == len(sentence["tokens"])
        # Each of the weights was rounded to the nearest 1/255.
        sums = sentence["maps"].astype(np.float64).sum(axis=-1) / 255
        assert np.abs(sums - 1).max() <= keys * 0.5 / 255


def test_attention_on_show_is_what_the_data_holds(visit):
    page = visit("trivium-attention")
    maps = data_of(page, "trivium-attention")["sentences"][0]["maps"]
    weights = "(element, at) => element.weights(...at).map(row => Array.from(row))"
    widget = element(page, "trivium-attention")
    layer, head = maps.shape[0] - 1, maps.shape[1] - 1
    np.testing.assert_allclose(
        widget.evaluate(weights, [layer, head]), maps[layer, head] / 255, atol=1e-6
    )
    np.testing.assert_allclose(
        widget.evaluate(weights, [layer, -1]), maps[layer].mean(axis=0) / 255, atol=1e-6
    )


def test_the_summary_of_a_head_is_right(visit):
    page = visit("trivium-attention")
    summary = element(page, "trivium-attention").evaluate(
        """element => element.summary([[0.5, 0.5, 0], [1, 0, 0], [0, 1, 0]].map(
          row => Float32Array.from(row)))"""
    )
    shares = dict(summary["places"])
    assert shares["previous"] == pytest.approx(1)
    assert shares["first"] == pytest.approx(0.5)
    assert shares["self"] == pytest.approx(0.5 / 3)
    assert shares["next"] == pytest.approx(0.25)
    assert summary["bits"] == pytest.approx(1 / 3)
    assert summary["places"][0][0] == "previous"


def test_cnn_by_keyboard(visit):
    page = visit("trivium-cnn")
    widget = element(page, "trivium-cnn")
    data = data_of(page, "trivium-cnn")
    widget.locator(".pick input").first.focus()
    page.keyboard.press("ArrowRight")
    assert data["classes"][data["labels"][1]] in heard(page, "trivium-cnn")
    pixels = "element => Array.from(element.image)"
    np.testing.assert_allclose(widget.evaluate(pixels), data["images"][1].ravel() / 255, atol=1e-6)

    widget.locator("canvas[role=application]").first.focus()
    for key in ("ArrowUp",) * 30 + ("ArrowLeft",) * 30 + ("Space", "Shift+ArrowRight"):
        page.keyboard.press(key)
    painted = np.reshape(widget.evaluate(pixels), (28, 28))
    assert painted[0, 0] == painted[0, 1] == 1
    # The label belongs to the picture as it was.
    assert data["classes"][data["labels"][1]] not in heard(page, "trivium-cnn").split(".")[1]

    maps = widget.locator(".maps .grid input")
    tops = maps.evaluate_all("maps => maps.map(map => map.getBoundingClientRect().top)")
    maps.first.click()
    first = widget.locator(".detail h3").inner_text()
    page.keyboard.press("ArrowDown")
    below = maps.evaluate_all("maps => maps.findIndex(map => map.checked)")
    assert below == tops.count(tops[0]), "the map one row down"
    page.mouse.move(0, 0)
    assert widget.locator(".detail h3").inner_text() != first


def test_cnn_by_pointer(visit):
    page = visit("trivium-cnn")
    widget = element(page, "trivium-cnn")
    clear = widget.locator(".input .bar button").first
    clear.click()
    assert widget.evaluate("element => Math.max(...element.image)") == 0
    empty = heard(page, "trivium-cnn")
    box = widget.locator(".input canvas").bounding_box()
    at = [(box["x"] + box["width"] * p, box["y"] + box["height"] * p) for p in (0.2, 0.8)]
    page.mouse.move(*at[0])
    page.mouse.down()
    page.mouse.move(*at[1])
    page.mouse.up()
    image = np.reshape(widget.evaluate("element => Array.from(element.image)"), (28, 28))
    assert (np.diag(image)[6:22] == 1).all(), "a stroke has no gaps"
    assert image[5, 22] == image[22, 5] == 0
    assert heard(page, "trivium-cnn") != empty


def test_lstm_by_keyboard(visit):
    page = visit("trivium-lstm")
    widget = element(page, "trivium-lstm")
    steps = len(data_of(page, "trivium-lstm")["sequences"][0])
    slider = widget.locator(".step input")
    slider.focus()
    page.keyboard.press("Home")
    at_start = heard(page, "trivium-lstm")
    page.keyboard.press("ArrowRight")
    assert slider.input_value() == "2"
    assert heard(page, "trivium-lstm") != at_start
    page.keyboard.press("End")
    assert slider.input_value() == str(steps)

    widget.locator(".time [role=radiogroup] input:checked").focus()
    shown = widget.locator(".cells canvas").get_attribute("aria-label")
    page.keyboard.press("ArrowRight")
    assert widget.locator(".cells canvas").get_attribute("aria-label") != shown


def test_lstm_plays_to_the_end(visit):
    page = visit("trivium-lstm")
    widget = element(page, "trivium-lstm")
    slider = widget.locator(".step input")
    end = int(slider.get_attribute("max"))
    page.clock.install()
    widget.locator(".play").click()
    assert slider.input_value() == "1"
    page.clock.run_for(400)
    assert slider.input_value() == "2"
    page.clock.run_for(400 * end)
    assert slider.input_value() == str(end)


def test_motion_is_left_to_the_reader_who_wants_none(visit):
    page = visit("trivium-lstm", reduced_motion="reduce")
    assert not element(page, "trivium-lstm").locator(".play").is_visible()
    page = visit("trivium-cnn", reduced_motion="reduce")
    bar = element(page, "trivium-cnn").locator(".answer i").first
    assert bar.evaluate("bar => getComputedStyle(bar).transitionDuration") == "0s"


def test_attention_by_keyboard(visit):
    page = visit("trivium-attention")
    widget = element(page, "trivium-attention")
    data = data_of(page, "trivium-attention")["sentences"][0]
    columns = data["maps"].shape[1] + 1
    heads = widget.locator(".heads input")
    place = "inputs => inputs.findIndex(input => input.checked)"
    heads.nth(0).focus()
    page.keyboard.press("ArrowDown")
    assert heads.evaluate_all(place) == columns
    page.keyboard.press("ArrowRight")
    assert heads.evaluate_all(place) == columns + 1
    assert [widget.evaluate(f"element => element.{name}") for name in ("layer", "column")] == [1, 1]

    tokens = widget.locator(".pairs button")
    tokens.nth(0).focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    assert tokens.nth(1).get_attribute("aria-pressed") == "true"
    assert data["tokens"][1] in widget.locator(".read").inner_text()


def test_attention_by_touch(visit):
    page = visit("trivium-attention", width=390, has_touch=True, is_mobile=True)
    widget = element(page, "trivium-attention")
    data = data_of(page, "trivium-attention")["sentences"][0]
    widget.locator(".pairs button").nth(2).tap()
    assert widget.locator(".pairs button").nth(2).get_attribute("aria-pressed") == "true"
    # Only the lines of that token remain, one for each weight that is worth drawing.
    layer, head = (widget.evaluate(f"element => element.{name}") for name in ("layer", "column"))
    row = data["maps"][layer, head - 1, 2] / 255
    assert widget.locator(".pairs path").count() == (row >= 0.01).sum()


@pytest.mark.parametrize("tag", TAGS)
def test_the_figure_stands_in_without_javascript(visit, tag):
    page = visit(tag, java_script_enabled=False)
    figure = element(page, tag).locator("> [slot=fallback] svg").first
    assert figure.is_visible()
    assert figure.bounding_box()["height"] > 50


@pytest.mark.parametrize("tag", TAGS)
def test_the_figure_stands_in_on_paper(visit, tag):
    page = visit(tag)
    figure = element(page, tag).locator("> [slot=fallback] svg").first
    assert not figure.is_visible()
    page.emulate_media(media="print")
    assert figure.is_visible()
    assert not element(page, tag).locator(".frame").is_visible()


@pytest.mark.parametrize("tag", TAGS)
def test_broken_data_shows_the_figure(browser, address, tag):
    """Without the visit fixture: here the console must complain."""
    context = browser.new_context()
    page = context.new_page()
    without_formulas(page)
    errors = []
    page.on("console", lambda message: message.type == "error" and errors.append(message.text))
    page.goto(address(tag))
    page.wait_for_function(f"document.querySelector('{tag}').shadowRoot")
    page.evaluate(
        """tag => {
          const old = document.querySelector(tag), copy = old.cloneNode(true);
          copy.querySelector("script").textContent = '{"kernel": {"shape": [2]}}';
          old.replaceWith(copy);
        }""",
        tag,
    )
    assert element(page, tag).locator("> [slot=fallback] svg").first.is_visible()
    assert len(errors) == 1
    context.close()


@pytest.mark.parametrize("width", [390, 1600])
@pytest.mark.parametrize("tag", TAGS)
def test_the_widget_fits_and_can_be_touched(visit, tag, width):
    page = visit(tag, width=width)
    widget = element(page, tag)
    frame = widget.locator(".frame").bounding_box()
    assert frame["x"] >= 0
    assert frame["x"] + frame["width"] <= width
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    cut = widget.evaluate(
        """element => {
          const right = element.shadowRoot.querySelector(".frame").getBoundingClientRect().right;
          return Array.from(element.shadowRoot.querySelectorAll(".frame *"))
            .filter(part => !part.closest(".pick, .scroll, .unseen"))
            .filter(part => part.getBoundingClientRect().right > right)
            .map(part => part.outerHTML.slice(0, 80));
        }"""
    )
    assert cut == []
    small = widget.locator("button, select, input").evaluate_all(
        """parts => parts.map(part => [part.outerHTML.slice(0, 80), part.getBoundingClientRect()])
          .filter(([, box]) => Math.min(box.width, box.height) < 31.5).map(([html]) => html)"""
    )
    assert small == []


@pytest.mark.parametrize("width", [390, 800, 1600])
@pytest.mark.parametrize("tag", TAGS)
def test_nothing_moves_when_the_widget_arrives(browser, address, tag, width):
    context = browser.new_context(viewport={"width": width, "height": 900})
    page = context.new_page()
    without_formulas(page)
    # A slow machine may take longer than the three seconds after which the figure steps in.
    devtools = context.new_cdp_session(page)
    devtools.send("Animation.enable")
    devtools.send("Animation.setPlaybackRate", {"playbackRate": 0})
    waiting = []

    def hold(route):
        waiting.append(route)

    page.route(f"**/{tag}.js*", hold)
    page.goto(address(tag), wait_until="commit")
    page.wait_for_selector(f"{tag} > script", state="attached")
    page.wait_for_function("document.readyState !== 'loading'")
    widget = element(page, tag)
    before = widget.bounding_box()
    assert widget.evaluate("element => element.shadowRoot") is None
    assert before["height"] > 500
    for route in waiting:
        route.continue_()
    page.wait_for_function(f"document.querySelector('{tag}').shadowRoot?.querySelector('.frame')")
    assert widget.bounding_box()["height"] == pytest.approx(before["height"], abs=2)
    context.close()


@pytest.mark.parametrize("tag", TAGS)
def test_colors_follow_the_theme(visit, tag):
    page = visit(tag)
    widget = element(page, tag)
    paper = []
    for theme in ("light", "dark"):
        page.evaluate("theme => document.documentElement.dataset.theme = theme", theme)
        page.wait_for_function(
            """([tag, theme]) => {
              const room = document.querySelector(tag).shadowRoot.querySelector(".room");
              return room.style.colorScheme === theme;
            }""",
            arg=[tag, theme],
        )
        paper.append(
            widget.evaluate(
                """element => {
                  const shown = [element.shadowRoot.querySelector(".frame"),
                    ...element.shadowRoot.querySelectorAll(".frame > .layout canvas")];
                  const pixels = shown.slice(1).flatMap(canvas => Array.from(canvas
                    .getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data));
                  const mean = pixels.reduce((a, b) => a + b, 0) / pixels.length;
                  return [getComputedStyle(shown[0]).backgroundColor, mean];
                }"""
            )
        )
    assert paper[0][0] != paper[1][0]
    assert paper[0][1] != pytest.approx(paper[1][1], abs=5), "the canvases keep the old colors"


@pytest.mark.parametrize("tag", TAGS)
def test_every_word_can_be_translated(visit, tag):
    page = visit(tag)
    widget = element(page, tag)
    # Each text is replaced by a sign and its places for numbers and names.
    page.evaluate(
        """tag => {
          const old = document.querySelector(tag), copy = old.cloneNode(true);
          const script = copy.querySelector("script"), data = JSON.parse(script.textContent);
          const names = text => (text.match(/\\{\\w+\\}/g) ?? []).join("");
          const keys = Object.entries(old.constructor.text);
          data.text = Object.fromEntries(keys.map(([key, text]) => [key, "¤" + names(text)]));
          script.textContent = JSON.stringify(data);
          old.replaceWith(copy);
        }""",
        tag,
    )
    data = data_of(page, tag)
    data.pop("text", None)
    own = list(strings(data))
    # What may stand without translation: numbers, signs, the letters of the formulas, arrows.
    for text in widget.evaluate(VISIBLE):
        rest = text
        for name in sorted({*own, " ".join(own)}, key=len, reverse=True):
            rest = rest.replace(name, "")
        rest = re.sub(r"¤|[\d.,:%()−←→↑↓\s-]", "", rest)
        assert len(rest) <= 1 or text.startswith("[CLS]"), text


@pytest.mark.parametrize("tag", TAGS)
def test_the_widget_can_be_used_by_everyone(visit, tag):
    axe = pytest.importorskip(
        "axe_playwright_python.sync_playwright", reason="axe is not installed"
    )
    page = visit(tag)
    for theme in ("light", "dark"):
        page.evaluate("theme => document.documentElement.dataset.theme = theme", theme)
        # Axe would fetch what style sheets import, from addresses relative to the page.
        results = axe.Axe().run(
            page, context=tag, options={"preload": False, "resultTypes": ["violations"]}
        )
        serious = [
            (found["id"], found["nodes"][0]["html"][:200])
            for found in results.response["violations"]
            if found["impact"] in ("serious", "critical")
        ]
        assert serious == []
