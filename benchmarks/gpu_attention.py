"""How fast is attention on a data-center GPU: hand-written, compiled by XLA, and the vendor's?

Forward, and forward with backward, in bfloat16, by head size, length and causality; batches of
16,384 tokens, 2,048 features. Rates count the products that the definition needs: 4 T S H a head
forward, and 2.5 times as many again backward; half of them where attention is causal. The
hand-written kernels are first checked against the reference. Without a GPU nothing is measured.
"""

import argparse
import itertools
from functools import partial
from importlib import metadata

import _harness
import jax
import jax.numpy as jnp
import numpy as np

from trivium import kernels
from trivium.timing import compare

TOKENS, FEATURES = 16 * 1024, 2048
LENGTHS, SIZES = (1024, 2048, 4096, 8192, 16384), (64, 128)
LONGEST_WITH_ALL_WEIGHTS = 4096  # the reference holds T x S weights a head


def agreement() -> dict[str, float]:
    """The largest error of "pallas", as a part of the largest value, against the reference.

    In float32 with exact products; outputs and gradients together.
    """
    keys = jax.random.split(jax.random.key(0), 4)
    errors = {}
    for name, options in {
        "plain": {},
        "causal": {"causal": True},
        "window": {"causal": True, "window": 100},
        "lengths": {"lengths": np.array([300, 77])},
    }.items():
        q = jax.random.normal(keys[0], (2, 250, 8, 64))
        k, v = (jax.random.normal(key, (2, 300, 2, 64)) for key in keys[1:3])

        def outcome(implementation, arrays=(q, k, v), options=options):
            with jax.default_matmul_precision("highest"):
                attend = partial(kernels.attention, implementation=implementation, **options)
                out, pull = jax.vjp(attend, *arrays)
                return out, *pull(jax.random.normal(keys[3], out.shape))

        pairs = zip(outcome("pallas"), outcome("reference"), strict=True)
        errors[name] = max(float(jnp.abs(a - b).max() / jnp.abs(b).max()) for a, b in pairs)
        if not errors[name] < 1e-4:
            raise SystemExit(f"pallas disagrees with the reference ({name}): {errors[name]:.2g}")
    return errors


def torch_with_cuda():
    """PyTorch where it is installed and sees the GPU, else None."""
    try:
        import torch
    except ImportError:
        return None
    return torch if torch.cuda.is_available() else None


def in_jax(attend, arrays):
    """Two calls of no argument: forward; forward and backward."""
    gradient = jax.jit(
        jax.grad(lambda *a: jnp.sum(attend(*a).astype(jnp.float32)), argnums=(0, 1, 2))
    )
    return partial(jax.jit(attend), *arrays), partial(gradient, *arrays)


def in_torch(torch, shape, causal):
    """The same two calls with PyTorch's scaled_dot_product_attention, waited for."""
    batch, length, heads, size = shape
    q, k, v = (
        torch.randn(
            batch, heads, length, size, device="cuda", dtype=torch.bfloat16, requires_grad=True
        )
        for _ in range(3)
    )
    attend = torch.nn.functional.scaled_dot_product_attention

    def forward():
        with torch.no_grad():
            attend(q, k, v, is_causal=causal)
        torch.cuda.synchronize()

    def both():
        torch.autograd.grad(attend(q, k, v, is_causal=causal).float().sum(), (q, k, v))
        torch.cuda.synchronize()

    return forward, both


def competitors(shape, causal, torch):
    """Name -> (forward, forward and backward)."""
    keys = jax.random.split(jax.random.key(1), 3)
    arrays = [jax.random.normal(key, shape, jnp.bfloat16) for key in keys]
    forms = {
        name: partial(kernels.attention, causal=causal, implementation=name)
        for name in kernels.implementations("attention")
        if name != "reference" or shape[1] <= LONGEST_WITH_ALL_WEIGHTS
    }
    forms["cudnn"] = partial(jax.nn.dot_product_attention, is_causal=causal, implementation="cudnn")
    calls = {name: in_jax(attend, arrays) for name, attend in forms.items()}
    if torch is not None:
        calls["pytorch"] = in_torch(torch, shape, causal)
    return calls


def measure(shape, causal, torch, repeats):
    """Name -> TFLOP/s of each pass, or the error of those that do not run."""
    batch, length, heads, size = shape
    forward = 4 * batch * heads * length**2 * size / (2 if causal else 1)
    ready, rates = {}, {}
    for name, calls in competitors(shape, causal, torch).items():
        try:
            for call in calls:
                jax.block_until_ready(call())
        except Exception as error:  # one that the card or the library refuses is recorded so
            rates[name] = {"error": f"{type(error).__name__}: {str(error)[:300]}"}
        else:
            ready[name] = calls
            rates[name] = {}
    for index, (label, work) in enumerate({"forward": 1.0, "forward_backward": 3.5}.items()):
        timings = compare({name: calls[index] for name, calls in ready.items()}, repeats=repeats)
        for name, timing in timings.items():
            rates[name][label] = work * forward / timing.median / 1e12
    return rates


def main() -> None:
    """Check, measure, print a line for each competitor and shape, write the record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=10)
    options = parser.parse_args()
    if jax.default_backend() != "gpu":
        print("no GPU here: nothing measured")
        return
    errors = agreement()
    torch = torch_with_cuda()
    rows = []
    for size, length, causal in itertools.product(SIZES, LENGTHS, (False, True)):
        shape = (TOKENS // length, length, FEATURES // size, size)
        rates = measure(shape, causal, torch, options.repeats)
        rows.append({"shape": shape, "causal": causal, "tflops": rates})
        for name, rate in rates.items():
            told = rate.get("error") or "  ".join(f"{k} {v:7.1f}" for k, v in rate.items())
            print(f"{shape!s:24} {'causal' if causal else 'full':6} {name:10} {told}", flush=True)
    plugins = [
        distribution.metadata["Name"]
        for distribution in metadata.distributions()
        if distribution.metadata["Name"].startswith(("jax-cuda", "nvidia-cudnn"))
    ]
    result = {
        "question": "attention in bfloat16 on a GPU, TFLOP/s of the definition's products",
        "unit": "TFLOP/s",
        "card": jax.devices()[0].device_kind,
        "largest_relative_error_of_pallas": errors,
        "rows": rows,
    }
    packages = ("jax", "jaxlib", *plugins, *(["torch"] if torch else []))
    print("written to", _harness.write("gpu_attention", result, packages=packages))


if __name__ == "__main__":
    main()
