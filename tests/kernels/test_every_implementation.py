"""What is asked of every implementation of every kernel alike, those added later included."""

import inspect
import re
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from agreement import KERNELS, agree, lowered, normal, outcome, uneven

from trivium import kernels
from trivium.kernels import implementations

# Those that have an argument to name the implementation with.
CHOICE = [
    name
    for name in KERNELS
    if "implementation" in inspect.signature(getattr(kernels, name)).parameters
]
EVERY = [(kernel, name) for kernel in KERNELS for name in implementations(kernel)]


class Case(NamedTuple):
    """One use of a kernel that exercises its options.

    call: (*arrays, implementation=...) -> outputs.
    arrays: batch -> the arrays, those first that have an axis of images or sequences.
    batched: how many of the arrays have that axis.
    """

    call: Callable[..., Any]
    arrays: Callable[[int], tuple]
    batched: int


def lengths(x):
    """0, 1, 2 and so on, up to the number of steps."""
    return np.arange(x.shape[0]) % (x.shape[1] + 1)


def recur(kernel, gates):
    """With lengths, an initial state and read in reverse."""

    def call(x, *rest, implementation):
        *states, w_ih, w_hh, b = rest
        return getattr(kernels, kernel)(
            x,
            w_ih,
            w_hh,
            b,
            initial=tuple(states) if kernel == "lstm" else states[0],
            lengths=lengths(x),
            reverse=True,
            implementation=implementation,
        )

    states = 2 if kernel == "lstm" else 1

    def arrays(batch):
        start = (normal(4 + n, batch, 4) for n in range(states))
        x, weights = normal(0, batch, 5, 3), (normal(1, 3, 4 * gates), normal(2, 4, 4 * gates))
        return x, *start, *weights, normal(3, 4 * gates)

    return Case(call, arrays, 1 + states)


def attend(q, k, v, bias, *, implementation):
    return kernels.attention(
        q,
        k,
        v,
        bias=bias,
        causal=True,
        window=3,
        lengths=lengths(k),
        implementation=implementation,
    )


def convolve(x, w, b, *, implementation):
    return kernels.conv2d(x, w, b, stride=(1, 2), groups=2, implementation=implementation)


CASES = {
    "conv2d": Case(
        convolve, lambda batch: (normal(0, batch, 5, 6, 4), normal(1, 2, 3, 2, 6), normal(2, 6)), 1
    ),
    "max_pool": Case(
        partial(kernels.max_pool, window=2, stride=(1, 2)),
        lambda batch: (normal(0, batch, 5, 6, 2),),
        1,
    ),
    "avg_pool": Case(
        partial(kernels.avg_pool, window=2, padding="SAME"),
        lambda batch: (normal(0, batch, 5, 6, 2),),
        1,
    ),
    "rnn": recur("rnn", 1),
    "gru": recur("gru", 3),
    "lstm": recur("lstm", 4),
    "linear_recurrence": Case(
        lambda a, x, h, **options: kernels.linear_recurrence(a, x, initial=h, **options),
        lambda batch: (normal(0, batch, 5, 3), normal(1, batch, 5, 3), normal(2, batch, 3)),
        3,
    ),
    # Features above zero, as normalizing asks for.
    "linear_attention": Case(
        lambda q, k, v, **options: kernels.linear_attention(q**2 + 1, k**2 + 1, v, **options),
        lambda batch: (
            normal(0, batch, 5, 2, 3),
            normal(1, batch, 5, 2, 3),
            normal(2, batch, 5, 2, 4),
        ),
        3,
    ),
    "selective_scan": Case(
        lambda x, step, b, c, a, **options: kernels.selective_scan(
            x, step**2, -(a**2), b, c, **options
        ),
        lambda batch: (
            *(normal(n, batch, 5, 3) for n in range(2)),
            *(normal(n, batch, 5, 2) for n in (2, 3)),
            normal(4, 3, 2),
        ),
        4,
    ),
    "attention": Case(
        attend,
        lambda batch: (
            normal(0, batch, 6, 4, 3),
            normal(1, batch, 5, 2, 3),
            normal(2, batch, 5, 2, 3),
            normal(3, batch, 4, 6, 5),
        ),
        4,
    ),
    "layer_norm": Case(
        partial(kernels.layer_norm, epsilon=1e-5),
        lambda batch: (normal(0, batch, 3, 5), normal(1, 5), normal(2, 5)),
        1,
    ),
    "rms_norm": Case(
        partial(kernels.rms_norm, epsilon=1e-5),
        lambda batch: (normal(0, batch, 3, 5), normal(1, 5)),
        1,
    ),
    # One form, and no argument to name it.
    "rotary": Case(
        lambda x, implementation: kernels.rotary(x, np.arange(4), base=1e4),
        lambda batch: (normal(0, batch, 4, 2, 6),),
        1,
    ),
}

every = pytest.mark.parametrize(("kernel", "implementation"), EVERY)


def function_and_arrays(kernel, implementation, batch=3):
    case = CASES[kernel]
    return partial(case.call, implementation=implementation), case.arrays(batch)


def documentation(kernel):
    """The docstring, with that of the kernel to which it refers."""
    text = inspect.getdoc(getattr(kernels, kernel))
    for other in re.findall(r"as in `(\w+)`", text):
        text += "\n" + inspect.getdoc(getattr(kernels, other))
    return text


def without_forward_mode(kernel):
    """The implementations of which the docstring says so.

    Such as '"taps" has no forward mode (`jax.jvp`) and no second derivative: ask for "reference".'
    """
    words = " ".join(documentation(kernel).split())
    phrases = [sentence.split("no forward mode (`jax.jvp`)") for sentence in words.split(". ")]
    return {name for before, *rest in phrases if rest for name in re.findall(r'"(\w+)"', before)}


def test_every_kernel_has_a_case():
    assert set(CASES) == set(KERNELS)


def test_every_implementation_has_a_mark():
    assert set(MARKS) == set(EVERY)


@every
def test_agrees_with_the_reference(kernel, implementation):
    function, arrays = function_and_arrays(kernel, implementation)
    reference, _ = function_and_arrays(kernel, "reference")
    agree(outcome(function, *arrays), outcome(reference, *arrays))


@every
def test_jit_vmap_and_the_gradient_of_every_array_compose(kernel, implementation):
    function, arrays = function_and_arrays(kernel, implementation)

    def loss(*arrays):
        return sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(function(*arrays)))

    gradient = jax.jit(jax.grad(loss, range(len(arrays))))
    stacked = [np.stack([array, array / 2]) for array in arrays]
    together = jax.jit(jax.vmap(gradient))(*stacked)
    apart = [gradient(*one) for one in zip(*stacked, strict=True)]
    agree(together, jax.tree.map(lambda *leaves: jnp.stack(leaves), *apart))


@every
def test_forward_mode_or_a_docstring_that_says_there_is_none(kernel, implementation):
    function, arrays = function_and_arrays(kernel, implementation)
    tangents = tuple(jnp.asarray(uneven(array.shape)) for array in arrays)
    if implementation in without_forward_mode(kernel):
        with pytest.raises(TypeError, match="forward-mode"):
            jax.jvp(function, arrays, tangents)
        return
    reference, _ = function_and_arrays(kernel, "reference")
    outputs, change = jax.jit(partial(jax.jvp, function))(arrays, tangents)
    _, expected = jax.jit(partial(jax.jvp, reference))(arrays, tangents)
    agree(change, expected)
    # The same derivative read the other way: <weights, J tangents> = <J^T weights, tangents>.
    _, gradients = outcome(reference, *arrays)
    forward, backward = (
        sum(float(jnp.vdot(one, uneven(one.shape))) for one in jax.tree.leaves(leaves))
        for leaves in (expected, gradients)
    )
    assert forward == pytest.approx(backward, rel=1e-4)
    assert jax.tree.structure(outputs) == jax.tree.structure(change)


@pytest.mark.parametrize("kernel", CHOICE)
def test_the_docstring_names_every_implementation(kernel):
    for name in implementations(kernel):
        assert f'"{name}"' in documentation(kernel)


@every
def test_nan_stays_in_its_own_image_or_sequence(kernel, implementation):
    function, arrays = function_and_arrays(kernel, implementation)
    spoiled = arrays[0].copy()
    spoiled[1] = np.nan
    count = CASES[kernel].batched

    def results(first):
        outputs, gradients = outcome(function, first, *arrays[1:])
        return [np.asarray(leaf) for leaf in jax.tree.leaves((outputs, gradients[:count]))]

    for clean, other in zip(results(arrays[0]), results(spoiled), strict=True):
        np.testing.assert_array_equal(other[[0, 2]], clean[[0, 2]])
    # It is not hidden either: the input that is NaN shows.
    assert np.isnan(results(spoiled)[0][1]).any()


@every
def test_an_empty_batch_gives_empty_outputs_and_no_gradient(kernel, implementation):
    function, arrays = function_and_arrays(kernel, implementation, batch=0)
    outputs, gradients = outcome(function, *arrays)
    assert all(leaf.shape[0] == 0 for leaf in jax.tree.leaves(outputs))
    for gradient, array in zip(gradients, arrays, strict=True):
        np.testing.assert_array_equal(gradient, np.zeros_like(array))


def products(text):
    return [line for line in text.splitlines() if "stablehlo.dot_general" in line]


def hoisted(gates):
    """One product for the inputs of all 5 steps of 3 sequences, whichever comes first."""
    return lambda text: any(
        re.search(rf"-> tensor<(5x3|3x5)x{4 * gates}xf32>", line) for line in products(text)
    )


def stepwise(gates):
    """A product for the inputs of a single step: 3 sequences, 3 features."""
    return lambda text: any(
        f"tensor<3x3xf32>, tensor<3x{4 * gates}xf32>" in line for line in products(text)
    )


def looped(gates, loops):
    """The product of all steps' inputs at once, and so many loops."""
    mark = hoisted(gates)
    return lambda text: mark(text) and text.count("stablehlo.while") == loops


# What the text handed to the compiler holds where this implementation runs, and no other.
MARKS = {
    ("conv2d", "xla"): lambda text: "stablehlo.convolution" in text,
    ("conv2d", "im2col"): lambda text: len(products(text)) == 1,
    ("conv2d", "reference"): lambda text: len(products(text)) == 2 * 3,
    ("max_pool", "xla"): lambda text: "stablehlo.reduce_window" in text,
    ("max_pool", "taps"): lambda text: (
        "stablehlo.maximum" in text and "stablehlo.reduce_window" not in text
    ),
    ("max_pool", "reference"): lambda text: "stablehlo.compare GT" in text,
    ("avg_pool", "xla"): lambda text: "stablehlo.reduce_window" in text,
    ("avg_pool", "reference"): lambda text: re.search(r"stablehlo\.slice .*xf32>", text),
    ("linear_recurrence", "associative"): lambda text: "stablehlo.while" not in text,
    ("linear_recurrence", "reference"): lambda text: "stablehlo.while" in text,
    ("linear_attention", "chunked"): lambda text: "stablehlo.while" not in text,
    ("linear_attention", "reference"): lambda text: "stablehlo.while" in text,
    ("selective_scan", "associative"): lambda text: "stablehlo.while" not in text,
    ("selective_scan", "reference"): lambda text: "stablehlo.while" in text,
    ("attention", "blockwise"): lambda text: "stablehlo.while" in text,
    ("attention", "reference"): lambda text: "stablehlo.while" not in text,
    ("layer_norm", "reference"): lambda text: "stablehlo.rsqrt" in text,
    ("rms_norm", "reference"): lambda text: "stablehlo.rsqrt" in text,
    ("rotary", "reference"): lambda text: "stablehlo.cosine" in text,
    # One loop over the steps, and around it one over chunks of time.
    **{
        (kernel, name): looped(gates, loops)
        for name, loops in (("scan", 1), ("chunked", 2))
        for kernel, gates in (("rnn", 1), ("gru", 3), ("lstm", 4))
    },
    **{
        (kernel, "reference"): stepwise(gates)
        for kernel, gates in (("rnn", 1), ("gru", 3), ("lstm", 4))
    },
}


def ran(kernel, implementation):
    """The implementations whose mark the lowered text bears."""
    function, arrays = function_and_arrays(kernel, implementation)
    text = lowered(function, *arrays)
    return [name for name in implementations(kernel) if MARKS[kernel, name](text)]


@every
def test_the_lowered_text_bears_the_mark_of_this_implementation_alone(kernel, implementation):
    assert ran(kernel, implementation) == [implementation]


@pytest.mark.parametrize("kernel", CHOICE)
def test_none_runs_one_of_them(kernel):
    assert len(ran(kernel, None)) == 1


@pytest.mark.parametrize("kernel", CHOICE)
def test_an_unknown_implementation_is_refused_with_the_names_there_are(kernel):
    function, arrays = function_and_arrays(kernel, "fastest")
    known = ", ".join(map(repr, implementations(kernel)))
    with pytest.raises(ValueError, match=f"expected None or one of {known} .* received 'fastest'"):
        function(*arrays)
