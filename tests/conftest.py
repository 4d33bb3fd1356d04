"""How every test runs: strictly, and without compiling a program twice."""

import jax
import pytest


@pytest.fixture(autouse=True, scope="session")
def compilations(tmp_path_factory):
    """What this process has compiled it finds again after `jax.clear_caches()`.

    The folder is for one process: JAX does not write its cache for several at once.
    """
    jax.config.update("jax_compilation_cache_dir", str(tmp_path_factory.mktemp("compilations")))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


@pytest.fixture(autouse=True)
def strict_promotion():
    """Mixed types must be converted on purpose."""
    with jax.numpy_dtype_promotion("strict"):
        yield
