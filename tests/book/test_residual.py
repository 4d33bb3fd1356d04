"""site/widgets/residual.js: the page's forward pass is the package's, whatever the weights."""

import functools
import http.server
import json
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from checkout import ROOT
from conftest import Quiet
from flax import nnx

from trivium.figures import _packed
from trivium.models import Detector, ResNet, UNet, page_layers, with_page_layers

pytestmark = pytest.mark.browser

NUMBERS = "ArrayBuffer.isView(value) ? Array.from(value) : value"


@pytest.fixture(scope="module")
def ask(browser):
    """A function that runs JavaScript with the module at hand, on JSON, and returns JSON."""
    handler = functools.partial(Quiet, directory=str(ROOT / "site" / "widgets"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        page = browser.new_page()
        page.goto(f"http://127.0.0.1:{server.server_port}/widgets.css")

        def run(expression, **data):
            return json.loads(
                page.evaluate(
                    f"""async text => {{
                      const module = await import("/residual.js");
                      const data = JSON.parse(text);
                      const layers = data.layers && module.readLayers(data.layers);
                      const picture = data.image && module.image(data.image, ...data.size);
                      const found = {expression};
                      return JSON.stringify(found, (_, value) => {NUMBERS});
                    }}""",
                    json.dumps(data),
                )
            )

        yield run
        page.close()
        server.shutdown()


def varied(model, seed=0):
    """The model with weights and statistics that are nothing special, rounded as in the page."""
    random = np.random.default_rng(seed)

    def vary(leaf):
        drawn = random.normal(size=leaf.shape).astype(np.float32)
        return jnp.asarray(np.abs(1 + 0.2 * drawn) if leaf.ndim < 2 else 0.15 * drawn)

    for kind in (nnx.Param, nnx.BatchStat):
        nnx.update(model, jax.tree.map(vary, nnx.state(model, kind)))
    model.eval()
    layers = page_layers(model)
    return with_page_layers(model, layers), _packed(layers)


def picture(height, width, seed=1):
    values = np.random.default_rng(seed).random((height, width)).astype(np.float32)
    values[: height // 3] = 0  # as on a scene's background
    return values


def backbone():
    return ResNet(3, widths=(4, 6, 8), depths=(0, 1, 2), rngs=nnx.Rngs(0))


def values(maps):
    return np.reshape(maps["values"], (maps["height"], maps["width"], maps["channels"]))


@pytest.mark.parametrize("size", [(28, 28), (9, 14), (1, 1)])
def test_the_classifier(ask, size):
    model, layers = varied(backbone())
    image = picture(*size)
    found = ask("module.classify(layers, picture)", layers=layers, image=image.ravel().tolist(),
                size=size)  # fmt: skip
    expected = model.features(image[None, :, :, None])
    for maps, other in zip(found["maps"], expected, strict=True):
        np.testing.assert_allclose(values(maps), other[0], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(
        found["logits"], model(image[None, :, :, None])[0], rtol=1e-4, atol=1e-4
    )


def test_the_classifier_with_blocks_in_its_first_stage(ask):
    model, layers = varied(ResNet(3, widths=(4, 6), depths=(2, 1), rngs=nnx.Rngs(0)))
    image = picture(12, 12)
    found = ask("module.classify(layers, picture).logits", layers=layers,
                image=image.ravel().tolist(), size=(12, 12))  # fmt: skip
    np.testing.assert_allclose(found, model(image[None, :, :, None])[0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("scales", [1, 2])
@pytest.mark.parametrize("cut", [[], [0], [0, 1]])
def test_the_unet_with_and_without_bridges(ask, cut, scales):
    model, layers = varied(UNet(backbone(), 5, scales=scales, rngs=nnx.Rngs(0)))
    image = picture(16, 24)
    found = ask(f"module.segment(layers, picture, {cut})", layers=layers,
                image=image.ravel().tolist(), size=(16, 24))  # fmt: skip
    *skips, x = model.features(image[None, :, :, None])
    for up, level in zip(model.ups, reversed(range(len(skips))), strict=True):
        x = up(x, skips[level] * float(level not in cut))
    np.testing.assert_allclose(values(found), model.answer(x)[0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("stride", [1, 2, 4])
def test_the_detector_and_its_boxes(ask, stride):
    model, layers = varied(
        Detector(backbone(), 3, stride=stride, hidden=5, rngs=nnx.Rngs(0)), seed=stride
    )
    # Logits from here on around 0, and boxes of a few cells.
    image = picture(32, 40)
    found = ask("module.mapsOfObjects(layers, picture)", layers=layers,
                image=image.ravel().tolist(), size=(32, 40))  # fmt: skip
    maps = model(image[None, :, :, None])
    assert found["stride"] == stride
    np.testing.assert_allclose(values(found["heat"]), jax.nn.sigmoid(maps.heat)[0], atol=1e-4)
    np.testing.assert_allclose(values(found["size"]), maps.size[0], rtol=1e-3)
    np.testing.assert_allclose(values(found["offset"]), maps.offset[0], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("threshold", [0.0, 0.3, 1.0])
def test_peaks_become_boxes_as_in_the_package(ask, threshold):
    random = np.random.default_rng(3)
    shape, stride = (8, 9), 4
    heat = random.random((*shape, 2)).astype(np.float32)
    size = (4 + 30 * random.random((*shape, 2))).astype(np.float32)
    offset = random.random((*shape, 2)).astype(np.float32)

    def sent(array):
        return {"height": shape[0], "width": shape[1], "channels": 2,
                "values": array.ravel().tolist()}  # fmt: skip

    found = ask(
        """module.objects(Object.fromEntries(Object.entries(data.maps).map(([name, maps]) => [name,
             maps.values ? { ...maps, values: Float32Array.from(maps.values) } : maps])),
             data.options)""",
        maps={"heat": sent(heat), "size": sent(size), "offset": sent(offset), "stride": stride},
        options={"count": 12, "threshold": threshold},
    )

    class Known(Detector):
        def __init__(self):
            self.stride = stride

        def __call__(self, images):
            logits = jnp.log(heat) - jnp.log1p(-heat)
            return type("Maps", (), {"heat": logits[None], "size": size[None],
                                     "offset": offset[None]})()  # fmt: skip

    boxes, scores, kinds = (
        np.asarray(part[0]) for part in Known().detect(None, count=12, threshold=threshold)
    )
    there = scores > 0
    assert len(found) == there.sum() > 2
    np.testing.assert_allclose([each["score"] for each in found], scores[there], atol=1e-5)
    np.testing.assert_allclose([each["box"] for each in found], boxes[there], atol=1e-3)
    assert [each["kind"] for each in found] == kinds[there].tolist()


@pytest.mark.parametrize("model", [UNet, Detector])
def test_sizes_that_do_not_halve(ask, model):
    _, layers = varied(model(backbone(), 3, rngs=nnx.Rngs(0)))
    call = {UNet: "segment", Detector: "mapsOfObjects"}[model]
    with pytest.raises(Exception, match="multiples of 4, not 10 and 8"):
        ask(f"module.{call}(layers, picture)", layers=layers, image=[0.0] * 80, size=(10, 8))


def test_layers_that_do_not_fit(ask):
    _, layers = varied(backbone())
    layers["stem"]["side"] = 2
    with pytest.raises(Exception, match="stem: 9 rows, filters of 2"):
        ask("1", layers=layers)
