"""How long does a 3x3 convolution take, forward and backward, in three shapes?

The work: y = x * w, padded to keep the image's size, without bias; and from an array g in y's shape
the gradients of sum(y g) by x and by w. float32.
"""

import _harness
import numpy as np
from _harness import Case, Target, Work


def arrays(batch, size, channels, filters):
    """Images [B, H, W, C], filters [3, 3, C, F], and g [B, H, W, F]."""
    random = np.random.default_rng(0)
    shapes = (batch, size, size, channels), (3, 3, channels, filters), (batch, size, size, filters)
    x, w, g = (random.standard_normal(shape, np.float32) for shape in shapes)
    return x, w / np.float32(3 * channels**0.5), g


def in_jax(conv2d, *case):
    """The work with a function conv2d(x, w) of JAX arrays."""
    import jax

    x, w, g = (jax.numpy.asarray(array) for array in arrays(*case))

    @jax.jit
    def both(x, w, g):
        y, backward = jax.vjp(conv2d, x, w)
        return y, *backward(g)

    return Work(
        [np.asarray(each) for each in both(x, w, g)],
        lambda: jax.block_until_ready(both(x, w, g)),
    )


def trivium(*case):
    """The package's kernel, as its table of implementations chooses."""
    from trivium import kernels

    return {"conv2d": in_jax(kernels.conv2d, *case)}


def stock(*case):
    """XLA's convolution."""
    import jax

    def conv2d(x, w):
        return jax.lax.conv_general_dilated(
            x, w, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )

    return {"NHWC": in_jax(conv2d, *case)}


def pytorch(*case):
    """PyTorch's, with both layouts of memory."""
    import torch

    torch.set_num_threads(_harness.cores())

    def work(layout):
        x, w, g = map(torch.from_numpy, arrays(*case))
        x, w, g = x.permute(0, 3, 1, 2), w.permute(3, 2, 0, 1), g.permute(0, 3, 1, 2)
        x, w, g = (each.contiguous(memory_format=layout) for each in (x, w, g))
        x.requires_grad_()
        w.requires_grad_()

        def both():
            y = torch.nn.functional.conv2d(x, w, padding=1)
            return y, *torch.autograd.grad(y, (x, w), g)

        y, dx, dw = (each.detach() for each in both())
        answers = y.permute(0, 2, 3, 1), dx.permute(0, 2, 3, 1), dw.permute(2, 3, 1, 0)
        return Work([each.contiguous().numpy() for each in answers], both)

    return {
        "channels last": work(torch.channels_last),
        "contiguous": work(torch.contiguous_format),
    }


TARGETS = (Target(("PyTorch",), 0.5, 1.0), Target(("lax.conv",), 2, 4))

if __name__ == "__main__":
    _harness.main(
        "convolution",
        "a 3x3 convolution, forward and backward",
        "one forward and backward pass",
        competitors={_harness.OURS: trivium, "PyTorch": pytorch, "lax.conv": stock},
        cases=[
            Case("64 x 28 x 28, 1 to 32 channels", (64, 28, 1, 32), TARGETS),
            Case("64 x 28 x 28, 32 to 64 channels", (64, 28, 32, 64), TARGETS),
            Case("64 x 14 x 14, 64 to 128 channels", (64, 14, 64, 128), TARGETS),
        ],
        packages=("jax", "jaxlib", "torch"),
        description=__doc__,
    )
