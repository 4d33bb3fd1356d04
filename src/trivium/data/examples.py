"""What every loader hands out: examples with their labels."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray


class Examples(NamedTuple):
    """Inputs with one label each; unpacks as the pair `(inputs, labels)`.

    inputs: an array [N, ...], or a list of N arrays or strings where they differ in length.
    labels: int32 [N], the class of each input, counted from 0.
    """

    inputs: NDArray[np.float32] | Sequence[Any]
    labels: NDArray[np.int32]
