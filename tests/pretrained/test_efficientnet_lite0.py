"""EfficientNet-Lite0: what it sees on known photographs, and what it refuses to look at."""

import jax
import numpy as np
import pytest
from flax import nnx
from safetensors.numpy import load

from trivium import pretrained
from trivium.data.fetch import read
from trivium.data.files import EFFICIENTNET_LITE0


@pytest.fixture(scope="module")
def network():
    return pretrained.load("efficientnet-lite0")


def test_it_knows_three_photographs(network):
    skimage = pytest.importorskip("skimage.data", reason="scikit-image is not installed")
    photographs = [skimage.chelsea(), skimage.coffee(), skimage.stereo_motorcycle()[0]]
    graph, state = nnx.split(network.model)
    apply = jax.jit(lambda state, x: nnx.merge(graph, state)(x))
    logits = apply(state, network.prepare(photographs))
    assert logits.shape == (3, 1000)
    found = logits.argmax(1).tolist()
    assert found == [285, 967, 665]
    assert [network.classes[i] for i in found] == ["Egyptian cat", "espresso", "moped"]
    assert len(network.classes) == 1000


def test_the_weights_are_those_of_the_file_in_half_precision(network):
    stored = load(read(EFFICIENTNET_LITE0.files[0]))
    held = nnx.to_flat_state(nnx.state(network.model, nnx.Param))
    assert {".".join(map(str, path)) for path, _ in held} == set(stored)
    for path, value in held:
        name = ".".join(map(str, path))
        assert stored[name].dtype == np.float16
        assert value.dtype == np.float32
        np.testing.assert_array_equal(np.asarray(value[...]).astype(np.float16), stored[name])


def test_prepared_images_are_the_middle_square(network):
    image = np.zeros((300, 500, 3), np.uint8)
    image[:, 100:400] = (255, 127, 0)
    x = network.prepare(image)
    assert x.shape == (224, 224, 3)
    assert x.dtype == np.float32
    np.testing.assert_allclose(x[112, 112], [1, 0, -127 / 128], atol=1e-5)
    np.testing.assert_allclose(x[:, 0], x[:, 112], atol=1e-4)
    np.testing.assert_allclose(network.pixels(x)[0, 0], [1, 127 / 255, 0], atol=1e-5)
    assert network.prepare([image, image[:90, :70]]).shape == (2, 224, 224, 3)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((8, 8, 3), np.float32), "uint8"),
        (np.zeros((8, 8), np.uint8), r"\[H, W, 3\]"),
        (np.zeros((8, 8, 4), np.uint8), r"\[H, W, 3\]"),
        (np.zeros((0, 8, 3), np.uint8), r"\[H, W, 3\]"),
        (np.zeros((2, 8, 8, 3), np.uint8), r"\[H, W, 3\]"),
        ([], "at least one"),
    ],
)
def test_other_images_are_refused(network, image, message):
    with pytest.raises(ValueError, match=message):
        network.prepare(image)


def test_an_unknown_checkpoint_is_named_with_the_known():
    with pytest.raises(ValueError, match="efficientnet-lite0"):
        pretrained.load("efficientnet")
