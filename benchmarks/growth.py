"""How does each kernel's time grow with its work, and how far is it from what the machine can do?

Each kernel is timed forward and backward, beside PyTorch's, while one of its sizes grows. Work is
counted as the products' multiplications and additions, each product once, however often an
implementation computes it; traffic as the bytes of arguments and results, each moved once. The
ceilings are measured too: the fastest matrix product and the fastest copy, by whichever framework.
float32.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import _harness
import attention
import convolution
import numpy as np
from _harness import OURS, Work

PRODUCT, COPY = 2048, 2**26  # side of the matrices, numbers copied: far more than any cache holds


def lstm_arrays(batch, steps, features, hidden):
    """Inputs [B, T, D], w_ih [D, 4H], w_hh [H, 4H], b [4H], and g [B, T, H] for the outputs."""
    random = np.random.default_rng(0)
    shapes = (
        (batch, steps, features),
        (features, 4 * hidden),
        (hidden, 4 * hidden),
        (4 * hidden,),
        (batch, steps, hidden),
    )
    x, w_ih, w_hh, b, g = (random.standard_normal(shape, np.float32) for shape in shapes)
    return x, w_ih / np.float32(8), w_hh / np.float32(8), b, g


def lstm_trivium(*shape):
    """The package's kernel: outputs, and gradients by x, w_ih, w_hh and b."""
    import jax

    from trivium import kernels

    arrays = tuple(map(jax.numpy.asarray, lstm_arrays(*shape)))

    @jax.jit
    def both(*arrays):
        *arguments, g = arrays
        y, backward = jax.vjp(lambda *a: kernels.lstm(*a)[0], *arguments)
        return y, *backward(g)

    return {
        "lstm": Work(
            [np.asarray(each) for each in both(*arrays)],
            lambda: jax.block_until_ready(both(*arrays)),
        )
    }


def lstm_pytorch(*shape):
    """nn.LSTM, its second bias zero and without a gradient."""
    import torch

    torch.set_num_threads(_harness.cores())
    x, w_ih, w_hh, b, g = map(torch.from_numpy, lstm_arrays(*shape))
    module = torch.nn.LSTM(x.shape[2], w_hh.shape[0], batch_first=True)
    module.bias_hh_l0.requires_grad_(False)
    values = w_ih.T, w_hh.T, b, torch.zeros_like(b)
    with torch.no_grad():
        for parameter, value in zip(module.parameters(), values, strict=True):
            parameter.copy_(value)
    x.requires_grad_()

    def both():
        y, _ = module(x)
        by = x, module.weight_ih_l0, module.weight_hh_l0, module.bias_ih_l0
        return y, *torch.autograd.grad(y, by, g)

    y, dx, dw_ih, dw_hh, db = (each.detach() for each in both())
    return {"nn.LSTM": Work([each.numpy() for each in (y, dx, dw_ih.T, dw_hh.T, db)], both)}


def in_jax(what):
    """A ceiling with XLA."""
    import jax
    import jax.numpy as jnp

    if what == "product":
        a, call = jnp.ones((PRODUCT, PRODUCT)), jax.jit(jnp.matmul)
        return {"XLA": Work([], lambda: call(a, a).block_until_ready())}
    a, call = jnp.ones(COPY), jax.jit(lambda a: a + 1)
    return {"XLA": Work([], lambda: call(a).block_until_ready())}


def in_torch(what):
    """A ceiling with PyTorch."""
    import torch

    torch.set_num_threads(_harness.cores())
    if what == "product":
        a = torch.ones(PRODUCT, PRODUCT)
        out = torch.empty_like(a)
        return {"PyTorch": Work([], lambda: torch.matmul(a, a, out=out))}
    a, out = torch.ones(COPY), torch.empty(COPY)
    return {"PyTorch": Work([], lambda: out.copy_(a))}


class Sweep(NamedTuple):
    """One kernel while one of its sizes grows.

    build: the competitors. axis: which size, in words. values: its values. shape: the arguments of
    `build` for a value. cost: arguments -> (operations, numbers moved).
    """

    kernel: str
    build: dict[str, Callable]
    axis: str
    fixed: str
    values: tuple[int, ...]
    shape: Callable[[int], tuple[Any, ...]]
    cost: Callable[..., tuple[int, int]]


def convolution_cost(batch, size, channels, filters):
    """Three products, for y, dx and dw; x, w, g read and y, dx, dw written."""
    image, weights = batch * size * size, 9 * channels * filters
    return 6 * image * weights, 2 * (image * (channels + filters) + weights)


def lstm_cost(batch, steps, features, hidden):
    """Three times the products of inputs and state; five arguments read, five results written."""
    weights = 4 * hidden * (features + hidden)
    moved = batch * steps * (features + hidden) + weights + 4 * hidden
    return 6 * batch * steps * weights, 2 * moved


def attention_cost(_, batch, tokens, heads, size):
    """Two products forward and four backward; q, k, v, g read and four results written."""
    return 12 * batch * heads * tokens**2 * size, 8 * batch * heads * tokens * size


CONVOLUTION = {OURS: convolution.trivium, "PyTorch": convolution.pytorch}
LSTM = {OURS: lstm_trivium, "PyTorch": lstm_pytorch}
ATTENTION = {OURS: attention.trivium, "PyTorch": attention.pytorch}
SWEEPS = (
    Sweep(
        "convolution", CONVOLUTION, "channels in and out", "16 images of 28 x 28",
        (8, 16, 32, 64, 128), lambda c: (16, 28, c, c), convolution_cost,
    ),
    Sweep(
        "convolution", CONVOLUTION, "images", "28 x 28, 32 to 32 channels",
        (4, 8, 16, 32, 64), lambda b: (b, 28, 32, 32), convolution_cost,
    ),
    Sweep(
        "lstm", LSTM, "steps", "32 sequences, 16 features, state of 64",
        (25, 50, 100, 200, 400), lambda t: (32, t, 16, 64), lstm_cost,
    ),
    Sweep(
        "lstm", LSTM, "sequences", "100 steps, 16 features, state of 64",
        (8, 16, 32, 64, 128), lambda b: (b, 100, 16, 64), lstm_cost,
    ),
    Sweep(
        "attention", ATTENTION, "tokens", "one sequence, 8 heads of 64",
        (256, 512, 1024, 2048, 4096), lambda t: (True, 1, t, 8, 64), attention_cost,
    ),
)  # fmt: skip


def ceiling(what, amount, seconds):
    """The best rate of some amount a call: of whom, and the quartiles of its time."""
    times = _harness.race({"JAX": in_jax, "PyTorch": in_torch}, (what,), seconds=seconds)
    by = min(times, key=lambda name: times[name]["median"])
    print(f"{what}: {amount / times[by]['median'] / 1e9:.1f} billion a second, by {by}", flush=True)
    return {"per_second": amount / times[by]["median"], "by": by, **times[by]}


def main() -> None:
    """Measure the ceilings, then every sweep; write the record if all were run."""
    chosen = _harness.options(__doc__, seconds=1.5, only=False).parse_args()
    ceilings = {
        "product": ceiling("product", 2 * PRODUCT**3, chosen.seconds),
        "copy": ceiling("copy", 2 * 4 * COPY, chosen.seconds),
    }
    curves = []
    for sweep in SWEEPS:
        name = f"{sweep.kernel}, {sweep.axis}"
        if chosen.case not in name:
            continue
        print(name, flush=True)
        points = []
        for value in sweep.values:
            shape = sweep.shape(value)
            operations, numbers = sweep.cost(*shape)
            times = _harness.race(sweep.build, shape, seconds=chosen.seconds)
            points.append(
                {"value": value, "operations": operations, "bytes": 4 * numbers, "times": times}
            )
            line = (f"{each} {1e3 * t['median']:.3f} ms" for each, t in times.items())
            print(f"  {value:6}  {', '.join(line)}", flush=True)
        curves.append(
            {"kernel": sweep.kernel, "axis": sweep.axis, "fixed": sweep.fixed, "points": points}
        )
    if len(curves) < len(SWEEPS):
        print("not written: not every case was run")
        return
    result = {
        "question": "how the time of each kernel grows with its work",
        "unit": "one forward and backward pass",
        "ceilings": ceilings,
        "curves": curves,
    }
    print("written to", _harness.write("growth", result, packages=("jax", "jaxlib", "torch")))


if __name__ == "__main__":
    main()
