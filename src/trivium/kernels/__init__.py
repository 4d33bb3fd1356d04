"""Pure functions on arrays: convolution, recurrence, attention and what stands between them.

Each kernel is written twice or more: first the form that reads like its formula
(`implementation="reference"`), then the fast ones. `implementations(name)` lists them.
"""

from trivium.kernels.attention import attention
from trivium.kernels.convolution import conv2d
from trivium.kernels.dispatch import implementations
from trivium.kernels.linear_attention import linear_attention
from trivium.kernels.linear_recurrence import linear_recurrence
from trivium.kernels.normalization import layer_norm, rms_norm
from trivium.kernels.pooling import avg_pool, max_pool
from trivium.kernels.quantization import Quantized, dequantize, quantize
from trivium.kernels.recurrence import gru, lstm, rnn
from trivium.kernels.rotary import rotary
from trivium.kernels.selective_scan import selective_scan

__all__ = [
    "Quantized",
    "attention",
    "avg_pool",
    "conv2d",
    "dequantize",
    "gru",
    "implementations",
    "layer_norm",
    "linear_attention",
    "linear_recurrence",
    "lstm",
    "max_pool",
    "quantize",
    "rms_norm",
    "rnn",
    "rotary",
    "selective_scan",
]
