"""Kernels written by hand for GPU (Triton) and TPU (Mosaic), in JAX's kernel language Pallas.

`attention`: forward and backward by tiles with an online softmax. `normalization`: layer and
root-mean-square normalization, forward and backward in one pass over each row. They are reached
as `implementation="pallas"` of the functions in `trivium.kernels`, and imported when first asked
for.

What is known of them: interpreted on a CPU, both forms agree with the references, and both are
lowered to the code that the compilers for GPU and TPU take in. Neither has been compiled or timed
on such a device, so that the tables of `dispatch` list them and never choose them.
"""

from trivium.kernels.dispatch import Target, aimed_at

__all__ = ["Target", "aimed_at"]
