"""How long does attention over 4096 tokens take, forward and with its gradient?

The work: softmax(q k' / 8) v for 8 heads of 64, without a mask; for the gradient, from an array g
in the output's shape, also the gradients of sum(output g) by q, k and v. float32.
"""

import _harness
import numpy as np
from _harness import Case, Target, Work


def arrays(batch, tokens, heads, size):
    """Four arrays [B, T, N, H]: q, k, v and g."""
    return np.random.default_rng(0).standard_normal((4, batch, tokens, heads, size), np.float32)


def in_jax(attention, gradient, shape):
    """The work with a function attention(q, k, v) of JAX arrays."""
    import jax

    q, k, v, g = map(jax.numpy.asarray, arrays(*shape))

    @jax.jit
    def work(q, k, v, g):
        if not gradient:
            return (attention(q, k, v),)
        out, backward = jax.vjp(attention, q, k, v)
        return out, *backward(g)

    return Work(
        [np.asarray(each) for each in work(q, k, v, g)],
        lambda: jax.block_until_ready(work(q, k, v, g)),
    )


def trivium(gradient, *shape):
    """The package's kernel, as its table of implementations chooses."""
    from trivium import kernels

    return {"attention": in_jax(kernels.attention, gradient, shape)}


def stock(gradient, *shape):
    """JAX's own."""
    import jax

    return {"XLA": in_jax(jax.nn.dot_product_attention, gradient, shape)}


def pytorch(gradient, *shape):
    """PyTorch's fused attention, with both layouts of memory."""
    import torch

    torch.set_num_threads(_harness.cores())

    def work(layout):
        q, k, v, g = (torch.from_numpy(each).transpose(1, 2) for each in arrays(*shape))
        if layout == "[B, N, T, H]":
            q, k, v, g = (each.contiguous() for each in (q, k, v, g))
        for each in (q, k, v):
            each.requires_grad_(gradient)

        def call():
            out = torch.nn.functional.scaled_dot_product_attention(q, k, v)
            return (out, *torch.autograd.grad(out, (q, k, v), g)) if gradient else (out,)

        return Work([each.detach().transpose(1, 2).contiguous().numpy() for each in call()], call)

    return {layout: work(layout) for layout in ("[B, N, T, H]", "[B, T, N, H]")}


TARGETS = (
    Target(("PyTorch",), 0.5, 1.0),
    Target(("jax.nn.dot_product_attention",), 2, 4),
)

if __name__ == "__main__":
    _harness.main(
        "attention",
        "attention, 1 x 4096 tokens x 8 heads x 64",
        "one pass",
        competitors={
            _harness.OURS: trivium, "PyTorch": pytorch, "jax.nn.dot_product_attention": stock,
        },
        cases=[
            Case("forward", (False, 1, 4096, 8, 64), TARGETS),
            Case("forward and gradient", (True, 1, 4096, 8, 64), TARGETS),
        ],
        packages=("jax", "jaxlib", "torch"),
        description=__doc__,
        seconds=40,
    )  # fmt: skip
