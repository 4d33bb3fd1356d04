"""What more than one of the kernels' test files needs to set up."""

import importlib
import os

import jax
import pytest


@pytest.fixture(autouse=True)
def compiled_quickly():
    """Nearly all of these tests' time is compiling small programs that run once.

    So LLVM does without its costly passes, except where the environment says otherwise, as in the
    weekly workflow: JAX_DISABLE_MOST_OPTIMIZATIONS=0.
    """
    if "JAX_DISABLE_MOST_OPTIMIZATIONS" in os.environ:
        yield
        return
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


def shrink(monkeypatch, module, **sizes):
    """Gives a module of the package other constants, in code that is compiled afterwards."""
    # By name: the package's `attention` is the function, this the module behind it.
    module = importlib.import_module(f"trivium.kernels.{module}")
    for name, size in sizes.items():
        monkeypatch.setattr(module, name, size)
    jax.clear_caches()


@pytest.fixture
def small_tiles(monkeypatch):
    """Tiles of 4 x 4, so that small arrays have several, the last of them not full.

    And room for the weights of two at a time, so that heads are worked on in several pieces.
    """
    shrink(monkeypatch, "attention", _TILE=4, _WEIGHTS=2 * 4 * 4)
    yield
    jax.clear_caches()


@pytest.fixture
def small_pieces(monkeypatch):
    """Windows of convolution are laid out for one image at a time."""
    shrink(monkeypatch, "convolution", _PIECE=1)
    yield
    jax.clear_caches()


@pytest.fixture
def small_chunks(monkeypatch):
    """Recurrences are linearized for six steps times sequences at a time."""
    shrink(monkeypatch, "recurrence", _CHUNK=6)
    yield
    jax.clear_caches()
