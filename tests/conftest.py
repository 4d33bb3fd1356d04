"""Strictness that every test runs under."""

import jax
import pytest


@pytest.fixture(autouse=True)
def strict_promotion():
    """Mixed types must be converted on purpose."""
    with jax.numpy_dtype_promotion("strict"):
        yield
