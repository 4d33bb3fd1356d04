"""How every test runs: strictly, and compiled in less time."""

import os

import jax
import pytest

# Most of the tests' time is compiling small programs that run once. So LLVM does without its
# costly passes, and what a process has compiled it finds again after `jax.clear_caches()`. The
# chapters and the weekly workflow (JAX_DISABLE_MOST_OPTIMIZATIONS=0) run what readers run.
if "JAX_DISABLE_MOST_OPTIMIZATIONS" not in os.environ:
    jax.config.update("jax_disable_most_optimizations", True)


@pytest.fixture(autouse=True, scope="session")
def compilations(tmp_path_factory):
    """A cache of compiled programs for this process alone: JAX does not write one for several."""
    jax.config.update("jax_compilation_cache_dir", str(tmp_path_factory.mktemp("compilations")))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


@pytest.fixture(autouse=True)
def strict_promotion():
    """Mixed types must be converted on purpose."""
    with jax.numpy_dtype_promotion("strict"):
        yield
