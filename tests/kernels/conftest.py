"""What more than one of the kernels' test files needs to set up."""

import importlib

import jax
import pytest


@pytest.fixture
def small_tiles(monkeypatch):
    """Tiles of 4 x 4, so that small arrays have several, the last of them not full."""
    # The package's name `attention` is the function; this is the module behind it.
    module = importlib.import_module("trivium.kernels.attention")
    monkeypatch.setattr(module, "_TILE", 4)
    jax.clear_caches()
    yield
    jax.clear_caches()
