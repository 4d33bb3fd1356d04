"""What every launch of a hand-written kernel needs to know of the platform."""

from typing import Any

from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jax.experimental.pallas import triton as pltriton

from trivium.kernels.dispatch import Target


def call(kernel, target: Target, *, order: str, warps: int = 4, stages: int = 2, **arguments):
    """`pl.pallas_call` with the parameters of the target's compiler.

    order: for each axis of the grid "p" (in parallel) or "s" (one after the other, which only a
        TPU offers).
    warps, stages: a GPU's threads in 32s for one cell of the grid, and how many loads ahead.
    """
    return pl.pallas_call(
        kernel,
        interpret=target.interpret,
        compiler_params=_parameters(target.platform, order, warps, stages),
        **arguments,
    )


def _parameters(platform: str, order: str, warps: int, stages: int) -> Any:
    if platform == "tpu":
        words = {"p": "parallel", "s": "arbitrary"}
        semantics = tuple(words[letter] for letter in order)
        return _parameters_of(pltpu, "TPUCompilerParams")(dimension_semantics=semantics)
    return _parameters_of(pltriton, "TritonCompilerParams")(num_warps=warps, num_stages=stages)


def _parameters_of(module: Any, former: str) -> Any:
    """The class, which early versions of JAX that the package allows name after the platform."""
    return getattr(module, "CompilerParams", None) or getattr(module, former)


def up_to_multiple(number: int, unit: int) -> int:
    """The least multiple of `unit` that is at least `number`."""
    return -(-number // unit) * unit


def up_to_power(number: int) -> int:
    """The least power of two that is at least `number`."""
    return 1 << max(number - 1, 0).bit_length()
