"""Every kernel against PyTorch over random shapes and options: outputs and every gradient.

PyTorch calculates in float64, so that whatever differs is the kernel's own rounding. Every name
in the table of implementations is tried, also one that is added later. Sizes come from short lists,
for each new shape is a new compilation.
"""

from functools import partial

import jax
import numpy as np
import pytest
from agreement import KERNELS, agree, normal, outcome, uneven
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from trivium import kernels
from trivium.kernels import implementations

torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install torch==2.13.0")


def every(*names):
    """Runs a test for each implementation of each of these kernels."""
    pairs = [(name, implementation) for name in names for implementation in implementations(name)]
    return pytest.mark.parametrize(("kernel", "implementation"), pairs)


def examples(count):
    """The same `count` examples in every run."""
    return settings(
        max_examples=count,
        deadline=None,
        derandomize=True,
        # The tiles' size may stay as it is from one example to the next.
        suppress_health_check=[HealthCheck.function_scoped_fixture],
    )


def oracle(function, *arrays):
    """What `outcome` returns, calculated by PyTorch in float64."""
    tensors = [torch.tensor(np.asarray(a, np.float64), requires_grad=True) for a in arrays]
    outputs = function(*tensors)
    loss = sum((leaf * torch.tensor(uneven(leaf.shape))).sum() for leaf in jax.tree.leaves(outputs))
    gradients = torch.autograd.grad(loss, tensors, allow_unused=True, materialize_grads=True)
    return jax.tree.map(lambda tensor: tensor.detach().numpy(), (outputs, gradients))


def agree_with(actual, expected):
    """`agree`, and where an answer cancels to nothing, what is left of it is rounding.

    The gradient of a bias that all keys share is such: sums of numbers of order one, and zero.
    """
    leaves = zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True)
    for one, other in leaves:
        if np.max(np.abs(other), initial=0.0) < 1e-9:
            assert np.max(np.abs(one), initial=0.0) < 1e-6
        else:
            agree(one, other)


def pairs(largest):
    """(vertical, horizontal), each from 1 to `largest`, or one number for both."""
    one = st.integers(1, largest)
    return one | st.tuples(one, one)


def pair(value):
    return value if isinstance(value, tuple) else (value, value)


def sides(padding, image, reach, stride):
    """((top, bottom), (left, right)), whichever way the padding is written."""
    if padding == "VALID":
        return (0, 0), (0, 0)
    if padding == "SAME":
        # ceil(image / stride) windows, the odd cell after the image.
        totals = [
            max((-(-n // s) - 1) * s + r - n, 0)
            for n, s, r in zip(image, stride, reach, strict=True)
        ]
        return tuple((total // 2, total - total // 2) for total in totals)
    return ((padding,) * 2,) * 2 if isinstance(padding, int) else padding


def padded(image, padding, fill=0.0):
    """[B, H, W, C] -> [B, C, H, W], laid out so, with a border."""
    (top, bottom), (left, right) = padding
    image = image.permute(0, 3, 1, 2).contiguous()
    return torch.nn.functional.pad(image, (left, right, top, bottom), value=fill)


FEW = st.integers(0, 2)
BORDERS = st.tuples(st.tuples(FEW, FEW), st.tuples(FEW, FEW))


@every("conv2d")
@examples(20)
@example((2, 6, 7), (1, 3, 2), (2, 3), 1, 1, "SAME", True)  # an odd row of padding: below
@example((1, 5, 5), (3, 3, 3), (3, 2), (1, 2), 1, "SAME", False)  # an odd column: to the right
@given(
    image=st.sampled_from([(2, 6, 7), (1, 5, 5)]),
    groups=st.sampled_from([(1, 3, 2), (2, 4, 6), (3, 3, 3), (2, 2, 4)]),
    window=st.sampled_from([(2, 3), (3, 2), (1, 1), (3, 3)]),
    stride=pairs(3),
    dilation=pairs(2),
    padding=st.sampled_from(["SAME", "VALID"]) | FEW | BORDERS,
    offset=st.booleans(),
)
@pytest.mark.usefixtures("small_pieces")
def test_conv2d(kernel, implementation, image, groups, window, stride, dilation, padding, offset):
    groups, channels, filters = groups
    arrays = [normal(0, *image, channels), normal(1, *window, channels // groups, filters)]
    if offset:
        arrays.append(normal(2, filters))
    options = {"stride": stride, "dilation": dilation, "groups": groups}
    reach = [(n - 1) * d + 1 for n, d in zip(window, pair(dilation), strict=True)]
    border = sides(padding, image[1:], reach, pair(stride))

    def theirs(x, w, b=None):
        y = torch.nn.functional.conv2d(padded(x, border), w.permute(3, 2, 0, 1), b, **options)
        return y.permute(0, 2, 3, 1)

    ours = partial(getattr(kernels, kernel), implementation=implementation, padding=padding)
    agree_with(outcome(partial(ours, **options), *arrays), oracle(theirs, *arrays))


# Padding is less than the window, in every direction.
POOLS = st.sampled_from(
    [
        (2, "VALID"),
        (2, "SAME"),
        (2, 1),
        (3, "SAME"),
        (3, ((2, 0), (1, 2))),
        ((1, 3), "VALID"),
        ((3, 2), ((0, 2), (1, 0))),
        ((2, 3), "SAME"),
    ]
)


@every("max_pool", "avg_pool")
@examples(12)
@given(
    image=st.sampled_from([(2, 6, 7, 2), (1, 5, 5, 3)]),
    window=POOLS,
    stride=st.none() | pairs(3),
)
def test_pooling(kernel, implementation, image, window, stride):
    window, padding = window
    x = np.round(normal(0, *image), 1)  # with ties
    steps = pair(window if stride is None else stride)
    border = sides(padding, image[1:3], pair(window), steps)

    def largest(x):
        return torch.nn.functional.max_pool2d(padded(x, border, -np.inf), window, steps)

    def mean(x):
        # The share of real cells in a window: padding is not counted.
        total, real = (
            torch.nn.functional.avg_pool2d(padded(cells, border), window, steps)
            for cells in (x, torch.ones_like(x))
        )
        return total / real

    theirs = {"max_pool": largest, "avg_pool": mean}[kernel]
    actual = outcome(
        lambda x: getattr(kernels, kernel)(
            x, window, stride=stride, padding=padding, implementation=implementation
        ),
        x,
    )
    agree_with(actual, oracle(lambda x: theirs(x).permute(0, 2, 3, 1), x))


GATES = {"rnn": 1, "gru": 3, "lstm": 4}


@every("rnn", "gru", "lstm")
@examples(10)
@given(
    sizes=st.sampled_from([(3, 4, 2, 3), (2, 5, 4, 2)]),
    lengths=st.none() | st.tuples(*(st.integers(0, 4) for _ in range(3))),
    initial=st.booleans(),
    reverse=st.booleans(),
    rectify=st.booleans(),
)
@pytest.mark.usefixtures("small_chunks")
def test_recurrence(kernel, implementation, sizes, lengths, initial, reverse, rectify):
    batch, steps, features, state = sizes
    wide = GATES[kernel] * state
    arrays = [normal(0, batch, steps, features), normal(1, features, wide)]
    arrays += [normal(2, state, wide), normal(3, wide)]
    if initial:
        arrays += [normal(4 + n, batch, state) for n in range(2 if kernel == "lstm" else 1)]
    options = {"reverse": reverse, "implementation": implementation}
    if lengths is not None:
        options["lengths"] = lengths = np.array(lengths[:batch])
    activation = "relu" if rectify else "tanh"
    if kernel == "rnn":
        options["activation"] = getattr(jax.nn, activation)

    def ours(x, w_ih, w_hh, b, *states):
        start = (states if kernel == "lstm" else states[0]) if states else None
        return getattr(kernels, kernel)(x, w_ih, w_hh, b, initial=start, **options)

    peer = getattr(torch, f"rnn_{activation}" if kernel == "rnn" else kernel)

    def theirs(x, w_ih, w_hh, b, *states):
        """One sequence at a time, cut to its length, for PyTorch knows none of zero."""
        weights = [w_ih.T, w_hh.T, b, torch.zeros_like(b)]
        states = states or [x.new_zeros(batch, state)] * (2 if kernel == "lstm" else 1)
        outputs, last = [], []
        for n, length in enumerate([steps] * batch if lengths is None else lengths):
            start = [s[None, n : n + 1] for s in states]
            read, out = x[n : n + 1, :length], x.new_zeros(1, 0, state)
            if length:
                read = read.flip(1) if reverse else read
                hx = start if kernel == "lstm" else start[0]
                out, *start = peer(read, hx, weights, True, 1, 0.0, False, False, True)
                out = out.flip(1) if reverse else out
            outputs.append(torch.cat([out, x.new_zeros(1, steps - length, state)], dim=1))
            last.append([s[0] for s in start])
        return torch.cat(outputs), *(torch.cat(s) for s in zip(*last, strict=True))

    agree_with(outcome(ours, *arrays), oracle(theirs, *arrays))


@every("attention")
@examples(14)
@example((9, 5), (4, 2), True, 2, None, "TS", "NTS", 0.3)  # the first queries see nothing
@example((6, 6), (2, 2), False, 2, (4, 0), None, "BNTS", None)
@example((3, 9), (3, 1), True, 4, (5, 2), "B11S", None, None)  # the last of a cache, cut short
@given(
    sizes=st.sampled_from([(6, 6), (1, 7), (3, 9), (9, 5)]),
    heads=st.sampled_from([(4, 2), (2, 2), (3, 1)]),
    causal=st.booleans(),
    window=st.none() | st.integers(1, 5),
    lengths=st.none() | st.tuples(st.integers(0, 5), st.integers(0, 5)),
    mask=st.sampled_from([None, "BNTS", "1NT1", "TS", "B11S"]),
    bias=st.sampled_from([None, "BNTS", "NTS", "B11S", "T1"]),
    scale=st.sampled_from([None, 0.3]),
)
@pytest.mark.usefixtures("small_tiles")
def test_attention(
    kernel, implementation, sizes, heads, causal, window, lengths, mask, bias, scale
):
    queries, keys = sizes
    axes = {"B": 2, "N": heads[0], "T": queries, "S": keys, "1": 1}
    full = (2, heads[0], queries, keys)
    arrays = [
        normal(0, 2, queries, heads[0], 4),
        *(normal(n, 2, keys, heads[1], 4) for n in (1, 2)),
    ]
    options = {"causal": causal, "window": window, "scale": scale}
    seen = np.ones(full, bool)
    ahead = np.arange(keys) - (np.arange(queries)[:, None] + keys - queries)
    if causal:
        seen &= ahead <= 0
    if window is not None:
        seen &= abs(ahead) < window
    if lengths is not None:
        options["lengths"] = lengths = np.array(lengths)
        seen &= np.arange(keys) < lengths[:, None, None, None]
    if mask is not None:
        shape = [axes[axis] for axis in mask]
        options["mask"] = np.random.default_rng(3).random(shape) < 0.7
        seen &= options["mask"]
    if bias is not None:
        arrays.append(normal(4, *(axes[axis] for axis in bias)))
    empty = ~seen.any(-1)  # [B, N, T]

    def ours(q, k, v, bias=None):
        return getattr(kernels, kernel)(
            q, k, v, bias=bias, implementation=implementation, **options
        )

    def theirs(q, k, v, bias=None):
        allowed = torch.tensor(seen | empty[..., None])
        extra = torch.zeros(full, dtype=q.dtype) if bias is None else bias.expand(full)
        y = torch.nn.functional.scaled_dot_product_attention(
            *(y.transpose(1, 2) for y in (q, k, v)),
            attn_mask=extra.masked_fill(~allowed, -torch.inf),
            scale=scale,
            enable_gqa=True,
        )
        # A row with no key is not PyTorch's business: zeros, and nothing flows back.
        return y.masked_fill(torch.tensor(empty)[..., None], 0.0).transpose(1, 2)

    actual = outcome(ours, *arrays)
    agree_with(actual, oracle(theirs, *arrays))
    assert not np.asarray(actual[0])[empty.swapaxes(1, 2)].any()


@every("layer_norm", "rms_norm")
@examples(10)
@given(
    leading=st.lists(st.integers(1, 3), max_size=3),
    # Of one or two features a small epsilon leaves nothing but rounding: 1 or -1, with no gradient.
    features=st.sampled_from([(1, 0.1), (2, 0.1), (5, 1e-5), (16, 1e-12)]),
)
def test_normalization(kernel, implementation, leading, features):
    assert implementation == "reference"  # the one form there is, and no argument to name it
    features, epsilon = features
    arrays = [normal(0, *leading, features), normal(1, features), normal(2, features)]
    arrays = arrays[: 3 if kernel == "layer_norm" else 2]
    peer = getattr(torch.nn.functional, kernel)
    agree_with(
        outcome(partial(getattr(kernels, kernel), epsilon=epsilon), *arrays),
        oracle(lambda x, *rest: peer(x, (features,), *rest, eps=epsilon), *arrays),
    )


@every("rotary")
@examples(10)
@given(
    sizes=st.sampled_from([(1, 4, 2, 2), (2, 3, 1, 6), (2, 5, 3, 8)]),
    base=st.sampled_from([100.0, 1e4]),
    each=st.booleans(),
    floating=st.booleans(),
)
def test_rotary(kernel, implementation, sizes, base, each, floating):
    assert implementation == "reference"  # the one form there is, and no argument to name it
    positions = np.random.default_rng(1).integers(0, 20, sizes[:2])
    positions = positions if each else positions[0]
    arrays = [normal(0, *sizes)]
    if floating:
        arrays.append(positions.astype(np.float32) / 4)

    def ours(x, places=positions):
        return getattr(kernels, kernel)(x, places, base=base)

    def theirs(x, places=None):
        """A pair of features as one complex number, turned by a factor of size one."""
        places = torch.tensor(positions) if places is None else places
        half = sizes[-1] // 2
        angles = places[..., None, None] * base ** (-torch.arange(half, dtype=x.dtype) / half)
        turned = torch.complex(x[..., :half], x[..., half:]) * torch.exp(1j * angles)
        return torch.cat([turned.real, turned.imag], dim=-1)

    agree_with(outcome(ours, *arrays), oracle(theirs, *arrays))


@every("linear_recurrence")
@examples(12)
@given(
    sizes=st.sampled_from([(2, 1, 3), (1, 6, 2), (3, 9, 2)]),
    initial=st.booleans(),
    reverse=st.booleans(),
)
def test_linear_recurrence(kernel, implementation, sizes, initial, reverse):
    batch, steps, features = sizes
    arrays = [np.random.default_rng(0).random(sizes, np.float32) * 2 - 1, normal(1, *sizes)]
    if initial:
        arrays.append(normal(2, batch, features))

    def ours(a, x, h=None):
        return getattr(kernels, kernel)(
            a, x, initial=h, reverse=reverse, implementation=implementation
        )

    def theirs(a, x, h=None):
        h = x.new_zeros(batch, features) if h is None else h
        states = {}
        for t in reversed(range(steps)) if reverse else range(steps):
            states[t] = h = a[:, t] * h + x[:, t]
        return torch.stack([states[t] for t in range(steps)], dim=1)

    agree_with(outcome(ours, *arrays), oracle(theirs, *arrays))


@every("linear_attention")
@examples(10)
@given(sizes=st.sampled_from([(2, 1, 3), (1, 6, 2), (2, 9, 1)]), normalize=st.booleans())
def test_linear_attention(kernel, implementation, sizes, normalize):
    batch, steps, heads = sizes
    features = (batch, steps, heads, 4)
    q, k = (0.2 + np.abs(normal(seed, *features)) for seed in (0, 1))
    arrays = (q, k, normal(2, batch, steps, heads, 3))

    def ours(q, k, v):
        return getattr(kernels, kernel)(q, k, v, normalize=normalize, implementation=implementation)

    def theirs(q, k, v):
        weights = torch.einsum("btnh,bsnh->bnts", q, k).tril()
        if normalize:
            weights = weights / weights.sum(dim=-1, keepdim=True)
        return torch.einsum("bnts,bsnv->btnv", weights, v)

    agree_with(outcome(ours, *arrays), oracle(theirs, *arrays))


@every("selective_scan")
@examples(6)
@given(sizes=st.sampled_from([(2, 1, 3), (1, 6, 2), (2, 9, 2)]))
def test_selective_scan(kernel, implementation, sizes):
    batch, steps, features = sizes
    x, step = normal(0, *sizes), np.abs(normal(1, *sizes))
    a = -np.abs(normal(2, features, 4))
    arrays = (x, step, a, normal(3, batch, steps, 4), normal(4, batch, steps, 4))

    def ours(*arrays):
        return getattr(kernels, kernel)(*arrays, implementation=implementation)

    def theirs(x, step, a, b, c):
        h, answers = x.new_zeros(batch, features, 4), []
        for t in range(steps):
            kept = torch.exp(step[:, t, :, None] * a)
            h = kept * h + (step[:, t] * x[:, t])[..., None] * b[:, t, None]
            answers.append((h * c[:, t, None]).sum(dim=-1))
        return torch.stack(answers, dim=1)

    agree_with(outcome(ours, *arrays), oracle(theirs, *arrays))


def test_every_kernel_is_tried_here():
    """The names that the tests of this file are parametrised with are all there are."""
    marks = [
        mark
        for test in (
            test_conv2d,
            test_pooling,
            test_recurrence,
            test_attention,
            test_normalization,
            test_rotary,
            test_linear_recurrence,
            test_linear_attention,
            test_selective_scan,
        )
        for mark in test.pytestmark
        if mark.name == "parametrize"
    ]
    tried = {kernel for mark in marks for kernel, _ in mark.args[1]}
    assert tried == set(KERNELS)
