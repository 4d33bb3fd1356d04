"""The table of implementations: complete, ordered, justified, and never silent."""

import jax
import pytest
from agreement import KERNELS

from trivium.kernels import dispatch, implementations

BY_HAND = ("attention", "layer_norm", "rms_norm")


def test_every_kernel_is_in_the_table():
    assert set(dispatch.TABLE) == set(KERNELS)


@pytest.mark.parametrize("kernel", KERNELS)
def test_every_kernel_has_a_reference(kernel):
    assert "reference" in implementations(kernel)


@pytest.mark.parametrize("kernel", KERNELS)
def test_every_row_says_why(kernel):
    for rows in dispatch.TABLE[kernel].values():
        assert all(row.because for row in rows)


@pytest.mark.parametrize("kernel", KERNELS)
def test_the_names_are_the_same_set_on_every_platform_but_for_those_written_by_hand(kernel):
    names = {
        platform: {row.implementation for row in rows}
        for platform, rows in dispatch.TABLE[kernel].items()
    }
    assert all(one - {"pallas"} == names["other"] for one in names.values())
    by_hand = {platform for platform, one in names.items() if "pallas" in one}
    assert by_hand == ({"gpu", "tpu"} if kernel in BY_HAND else set())


def test_a_named_implementation_is_never_replaced():
    assert dispatch.choose("max_pool", "xla", overlap=False) == "xla"
    with pytest.raises(ValueError, match=r"expected None or one of 'taps', .* received 'pallas'"):
        dispatch.choose("max_pool", "pallas")
    with pytest.raises(ValueError, match="received 3"):
        dispatch.choose("max_pool", 3)


def test_sizes_decide():
    """On every platform, where the rows of these two kernels are the same."""
    assert dispatch.choose("max_pool", None, overlap=False) == "taps"
    assert dispatch.choose("max_pool", None, overlap=True) == "xla"
    assert dispatch.choose("attention", None, queries=64, keys=64) == "reference"
    assert dispatch.choose("attention", None, queries=4096, keys=4096) == "blockwise"


def test_a_name_of_another_platform_is_refused():
    with (
        dispatch.aimed_at("cpu"),
        pytest.raises(
            NotImplementedError,
            match="'pallas' of rms_norm needs a GPU or a TPU, and this is a CPU",
        ),
    ):
        dispatch.choose("rms_norm", "pallas")
    with dispatch.aimed_at("tpu"):
        assert dispatch.choose("rms_norm", "pallas") == "pallas"
        assert dispatch.choose("rms_norm", None) == "reference"
    assert dispatch.target() == dispatch.Target(jax.default_backend())


def test_unknown_kernel():
    with pytest.raises(ValueError, match=r"name: expected one of conv2d, .* received 'conv3d'"):
        implementations("conv3d")
