"""Hand-written kernels: interpreted against the references, and lowered for GPU and TPU."""

import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from agreement import agree, cotangents, normal, outcome, wide
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from trivium.kernels import attention, implementations, layer_norm, rms_norm
from trivium.kernels.pallas import Target, aimed_at
from trivium.kernels.pallas import attention as by_hand
from trivium.kernels.pallas.attention import _Tiles

PLATFORMS = ("gpu", "tpu")
# (queries, keys) of which every platform makes several tiles, the last of them not full.
SEVERAL = {"gpu": (40, 52), "tpu": (150, 200)}


@pytest.fixture(params=PLATFORMS)
def platform(request, monkeypatch):
    """Everything in the test is interpreted as on this platform, with its smallest tiles."""
    # They are not part of what jit remembers by: whatever is interpreted here has them.
    monkeypatch.setattr(by_hand, "_GPU_TILE", 16)
    monkeypatch.setattr(by_hand, "_TPU_TILE", 128)
    with aimed_at(request.param, interpret=True):
        yield request.param


def arguments(batch, queries, keys, heads=(4, 2), size=8):
    """q, k, v; heads of queries and of keys."""
    heads, key_heads = heads
    return (
        normal(0, batch, queries, heads, size),
        normal(1, batch, keys, key_heads, size),
        normal(2, batch, keys, key_heads, size),
    )


def both(function, *arrays):
    """Outputs and gradients: of what is written by hand, and of the reference."""
    return [outcome(lambda *a, n=n: function(*a, n), *arrays) for n in ("pallas", "reference")]


def by_hand_precision(function, *arrays):
    """Fails unless bfloat16 comes within its precision of the reference in float64.

    As `agreement.narrow_agrees`, which runs one function in both types; here there is no float64.
    """
    rounded = [jnp.asarray(array, jnp.bfloat16) for array in arrays]
    actual = outcome(lambda *a: function(*a, "pallas"), *rounded)
    assert all(leaf.dtype == jnp.bfloat16 for leaf in jax.tree.leaves(actual))
    with jax.enable_x64(True):
        exact = outcome(lambda *a: function(*a, "reference"), *wide(*rounded))
        assert all(leaf.dtype == jnp.float64 for leaf in jax.tree.leaves(exact))
    for one, other, precision in zip(actual, exact, (2.0**-8, 2.0**-7), strict=True):
        pairs = zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
        for pair in pairs:
            a, b = (np.asarray(array, np.float64) for array in pair)
            assert np.max(np.abs(a - b)) <= precision * np.max(np.abs(b))


# Attention.

# (options, heads, head size, swap queries and keys)
GRID = [
    ({"causal": True}, (4, 2), 8, False),
    ({"causal": True}, (2, 2), 8, True),  # the first queries see nothing
    ({"window": 9}, (2, 1), 24, False),
    ({"causal": True, "window": 20, "scale": 0.3}, (6, 2), 8, False),
    ({"lengths": [0, 33]}, (4, 1), 8, False),
    ({"causal": True, "window": 30, "lengths": [17, 40]}, (2, 2), 8, True),
]


@pytest.mark.parametrize(("options", "heads", "size", "swap"), GRID)
def test_attention_agrees_with_the_reference(platform, options, heads, size, swap):
    queries, keys = SEVERAL[platform][::-1] if swap else SEVERAL[platform]
    agree(
        *both(
            lambda q, k, v, name: attention(q, k, v, implementation=name, **options),
            *arguments(2, queries, keys, heads, size),
        )
    )


@settings(
    max_examples=4,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],  # which stay as they are
)
@given(
    st.tuples(st.integers(1, 2), st.integers(1, 40), st.integers(1, 40)),
    st.tuples(st.integers(1, 2), st.integers(1, 3), st.integers(1, 20)),
    st.booleans(),
    st.none() | st.integers(1, 30),
    st.none() | st.integers(0, 40),
)
def test_attention_of_random_shapes(platform, sizes, heads, causal, window, length):
    batch, _, keys = sizes
    key_heads, group, size = heads
    lengths = None if length is None else np.full(batch, min(length, keys))
    options = {"causal": causal, "window": window, "lengths": lengths}
    agree(
        *both(
            lambda q, k, v, name: attention(q, k, v, implementation=name, **options),
            *arguments(*sizes, (key_heads * group, key_heads), size),
        )
    )


def test_one_query_against_a_cache(platform):
    agree(
        *both(
            lambda q, k, v, name: attention(
                q, k, v, causal=True, lengths=[50, 7], implementation=name
            ),
            *arguments(2, 1, 60),
        )
    )


def test_attention_in_bfloat16(platform):
    by_hand_precision(
        lambda q, k, v, name: attention(q, k, v, causal=True, implementation=name),
        *arguments(1, *SEVERAL[platform]),
    )


@pytest.mark.parametrize("platform", ["gpu"], indirect=True)
def test_attention_in_float16(platform):
    arrays = [jnp.asarray(array, jnp.float16) for array in arguments(1, 20, 30)]
    narrow, reference = both(lambda q, k, v, name: attention(q, k, v, implementation=name), *arrays)
    assert all(leaf.dtype == jnp.float16 for leaf in jax.tree.leaves(narrow))
    agree(narrow, reference, 2.0**-9)


def test_rows_with_no_key_give_zeros_and_gradients_of_zero(platform):
    y, (dq, dk, dv) = outcome(
        lambda q, k, v: attention(q, k, v, causal=True, lengths=[0, 20], implementation="pallas"),
        *arguments(2, 30, 20),
    )
    for array in (y, dq):
        np.testing.assert_array_equal(array[0], np.zeros_like(array[0]))
        np.testing.assert_array_equal(array[1, :10], np.zeros_like(array[1, :10]))
    assert np.asarray(y[1, 10:]).all()
    for array in (dk, dv):
        np.testing.assert_array_equal(array[0], np.zeros_like(array[0]))
        assert np.isfinite(array).all()


def test_what_lies_beyond_a_length_changes_nothing(platform):
    q, k, v = arguments(2, 20, 40)
    lengths = np.array([40, 18])

    def run(k, v):
        return outcome(
            lambda q, k, v: attention(q, k, v, lengths=lengths, implementation="pallas"), q, k, v
        )

    clean = run(k, v)
    k, v = k.copy(), v.copy()
    k[1, 18:], v[1, 18:] = np.nan, np.inf
    for one, other in zip(jax.tree.leaves(run(k, v)), jax.tree.leaves(clean), strict=True):
        np.testing.assert_array_equal(one, other)
    assert not np.asarray(clean[1][1])[1, 18:].any()
    assert not np.asarray(clean[1][2])[1, 18:].any()


def test_large_logits_do_not_overflow(platform):
    q, k, v = arguments(1, 20, 40)
    y = attention(1e4 * q, 1e4 * k, v, implementation="pallas")
    agree(y, attention(1e4 * q, 1e4 * k, v, implementation="reference"), 1e-3)


@pytest.mark.parametrize("sizes", [(0, 3, 3), (2, 0, 3), (2, 3, 0)])
def test_attention_of_empty_arrays(platform, sizes):
    q, k, v = arguments(*sizes)
    y, gradients = outcome(lambda q, k, v: attention(q, k, v, implementation="pallas"), q, k, v)
    np.testing.assert_array_equal(y, np.zeros_like(q))
    for gradient, array in zip(gradients, (q, k, v), strict=True):
        np.testing.assert_array_equal(gradient, np.zeros_like(array))


def test_traced_lengths_are_clipped(platform):
    q, k, v = arguments(2, 6, 7)
    run = jax.jit(lambda lengths: attention(q, k, v, lengths=lengths, implementation="pallas"))
    agree(run(np.array([9, -1])), run(np.array([7, 0])), 0.0)


def test_attention_under_jit_vmap_and_grad(platform):
    q, k, v = (np.stack([array, 2 * array]) for array in arguments(2, 20, 30))
    lengths = np.array([[30, 2], [3, 25]])

    def loss(q, k, v, lengths):
        y = attention(q, k, v, lengths=lengths, causal=True, implementation="pallas")
        return jnp.sum(y**2)

    gradient = jax.grad(loss, (0, 1, 2))
    together = jax.jit(jax.vmap(gradient))(q, k, v, lengths)
    apart = [jax.jit(gradient)(*one) for one in zip(q, k, v, lengths, strict=True)]
    agree(together, jax.tree.map(lambda *leaves: jnp.stack(leaves), *apart))


@pytest.mark.parametrize(
    ("queries", "keys", "causal", "window", "length"),
    [
        (40, 40, True, None, 40),
        (40, 70, True, 9, 70),
        (70, 40, True, None, 31),
        (40, 40, False, 5, 40),
        (33, 64, False, 20, 17),
        (64, 33, True, 1, 0),
    ],
)
def test_tiles_are_met_exactly_where_something_is_seen(queries, keys, causal, window, length):
    tiles = _Tiles(queries, keys, 2, 16, 16, 16, causal, window, 1.0, Target("gpu", True))
    rows, columns = np.arange(tiles.rows), np.arange(tiles.columns)
    seen = [[tiles.seen(row, column, length, 0).any() for column in columns] for row in rows]
    length = jnp.int32(length)

    def met(ranges, count):
        return [[first <= n < past for n in range(count)] for first, past in ranges]

    by_row = met([tiles.columns_seen(jnp.int32(row), length) for row in rows], len(columns))
    by_column = met([tiles.rows_seeing(jnp.int32(n), length) for n in columns], len(rows))
    np.testing.assert_array_equal(by_row, seen)
    np.testing.assert_array_equal(by_column, np.transpose(seen))
    assert not np.all(seen)


# Normalization.

NORMS = {"layer_norm": (layer_norm, 2), "rms_norm": (rms_norm, 1)}


def norm(name):
    """A function of x, the parameters and an implementation's name, and how many parameters."""
    function, count = NORMS[name]
    return lambda *a: function(*a[:-1], epsilon=1e-5, implementation=a[-1]), count


@pytest.mark.parametrize("name", NORMS)
@pytest.mark.parametrize("shape", [(3, 70, 100), (128,), (300, 9)])
def test_norms_agree_with_the_reference(platform, name, shape):
    function, count = norm(name)
    parameters = [normal(n, shape[-1]) for n in range(1, 1 + count)]
    agree(*both(function, 3 + normal(0, *shape), *parameters))


@pytest.mark.parametrize("name", NORMS)
def test_norms_in_bfloat16(platform, name):
    function, count = norm(name)
    by_hand_precision(
        function, normal(0, 40, 60), *(1 + normal(n, 60) / 4 for n in range(1, 1 + count))
    )


@pytest.mark.parametrize("name", NORMS)
def test_float32_parameters_with_bfloat16_input(platform, name):
    function, count = norm(name)
    x = jnp.asarray(normal(0, 4, 20), jnp.bfloat16)
    y, (dx, *rest) = outcome(
        lambda *a: function(*a, "pallas"), x, *(normal(n, 20) for n in range(1, 1 + count))
    )
    assert y.dtype == dx.dtype == jnp.bfloat16
    assert all(gradient.dtype == jnp.float32 for gradient in rest)


def test_equal_values_give_the_offset_and_finite_gradients(platform):
    x, offset = np.full((2, 5), 7.0, np.float32), np.arange(5, dtype=np.float32)
    y, gradients = outcome(
        lambda *a: layer_norm(*a, epsilon=1e-5, implementation="pallas"),
        x,
        np.ones(5, np.float32),
        offset,
    )
    np.testing.assert_array_equal(y, np.broadcast_to(offset, (2, 5)))
    assert all(np.isfinite(gradient).all() for gradient in gradients)


@pytest.mark.parametrize("name", NORMS)
def test_norms_of_empty_arrays(platform, name):
    function, count = norm(name)
    arrays = [np.zeros((2, 0, 4), np.float32)] + [np.ones(4, np.float32)] * count
    y, gradients = outcome(lambda *a: function(*a, "pallas"), *arrays)
    assert y.shape == (2, 0, 4)
    for gradient, array in zip(gradients, arrays, strict=True):
        np.testing.assert_array_equal(gradient, np.zeros_like(array))


def test_norms_under_jit_vmap_and_grad(platform):
    x, scale = normal(0, 3, 5, 12), normal(1, 12)

    def loss(x, scale):
        return jnp.sum(rms_norm(x, scale, epsilon=1e-6, implementation="pallas") ** 3)

    gradient = jax.grad(loss, (0, 1))
    together = jax.jit(jax.vmap(gradient, (0, None)))(x, scale)
    apart = [gradient(one, scale) for one in x]
    agree(together, jax.tree.map(lambda *leaves: jnp.stack(leaves), *apart))


# Lowered, without the hardware.

# A kernel's custom call, by platform. Triton's has no promise of compatibility, and its name has
# changed with JAX's versions; it is exported all the same, to be read.
CALLS = {
    "tpu": ("tpu", ("tpu_custom_call",)),
    "gpu": ("cuda", ("__gpu$xla.gpu.triton", "triton_kernel_call_ffi", "triton_kernel_call")),
}


def kernels_in(platform, function, *arrays):
    """How many kernels a function becomes on a platform."""
    name, calls = CALLS[platform]
    allowed = [jax.export.DisabledSafetyCheck.custom_call(call) for call in calls]

    @jax.jit
    def run(*arrays):  # a new function, of which jit remembers nothing from another platform
        return function(*arrays)

    with aimed_at(platform):
        exported = jax.export.export(run, platforms=[name], disabled_checks=allowed)(*arrays)
    called = re.findall(r"custom_call @([^\s(]+)\(", exported.mlir_module())
    assert set(called) <= set(calls)
    return len(called)


def with_gradients(function):
    """The outputs of a function, and its gradients."""

    def run(*arrays):
        outputs, pull = jax.vjp(function, *arrays)
        return outputs, pull(cotangents(outputs))

    return run


@pytest.mark.parametrize("platform", PLATFORMS)
@pytest.mark.parametrize("kind", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize(
    ("sizes", "heads", "size", "options"),
    [
        ((2, 256, 256), (4, 4), 64, {"causal": True}),
        ((1, 300, 1000), (8, 2), 128, {"window": 70}),
        ((3, 1, 77), (4, 1), 80, {"causal": True}),
    ],
)
def test_attention_is_lowered(platform, kind, sizes, heads, size, options):
    q, k, v = (jax.ShapeDtypeStruct(a.shape, kind) for a in arguments(*sizes, heads, size))
    lengths = jax.ShapeDtypeStruct(sizes[:1], jnp.int32)

    def attend(q, k, v, lengths=None):
        return attention(q, k, v, lengths=lengths, implementation="pallas", **options)

    def gradients(q, k, v, lengths):
        return with_gradients(lambda *arrays: attend(*arrays, lengths))(q, k, v)

    assert kernels_in(platform, attend, q, k, v) == 1
    assert kernels_in(platform, gradients, q, k, v, lengths) == 3  # forward, dq, dk with dv


@pytest.mark.parametrize("platform", PLATFORMS)
@pytest.mark.parametrize("kind", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("shape", [(2, 128, 768), (5, 10, 100), (7, 4096)])
@pytest.mark.parametrize("name", NORMS)
def test_norms_are_lowered(platform, kind, shape, name):
    function, count = norm(name)
    arrays = [jax.ShapeDtypeStruct(shape, kind)] + [jax.ShapeDtypeStruct(shape[-1:], kind)] * count

    def run(*arrays):
        return function(*arrays, "pallas")

    assert kernels_in(platform, run, *arrays) == 1
    assert kernels_in(platform, with_gradients(run), *arrays) == 2


@pytest.mark.parametrize("platform", PLATFORMS)
def test_kernels_are_lowered_where_64_bits_are_enabled(platform):
    arrays = [jax.ShapeDtypeStruct(a.shape, a.dtype) for a in arguments(1, 100, 200)]
    with jax.enable_x64(True):
        attend = with_gradients(
            lambda q, k, v: attention(q, k, v, causal=True, window=9, implementation="pallas")
        )
        assert kernels_in(platform, attend, *arrays) == 3
        scale = jax.ShapeDtypeStruct((8,), jnp.float32)
        run = with_gradients(lambda *a: rms_norm(*a, epsilon=1e-5, implementation="pallas"))
        assert kernels_in(platform, run, arrays[0], scale) == 2


@pytest.mark.parametrize("platform", PLATFORMS)
def test_none_does_not_choose_what_has_not_been_timed(platform):
    q, k, v = (jax.ShapeDtypeStruct(a.shape, a.dtype) for a in arguments(1, 2048, 2048))
    assert kernels_in(platform, attention, q, k, v) == 0
    scale = jax.ShapeDtypeStruct((8,), jnp.float32)
    assert kernels_in(platform, lambda *a: rms_norm(*a, epsilon=1e-5), q, scale) == 0


# Dispatch and refusals.


@pytest.mark.parametrize("kernel", ["attention", "layer_norm", "rms_norm"])
def test_listed_where_it_can_run(kernel):
    assert "pallas" not in implementations(kernel)
    for platform in PLATFORMS:
        with aimed_at(platform):
            assert implementations(kernel)[-1] == "pallas"
    assert "pallas" not in implementations(kernel)


def test_refused_on_a_cpu():
    message = "implementation: 'pallas' of {} needs a GPU or a TPU, and this is a CPU"
    with pytest.raises(NotImplementedError, match=message.format("attention")):
        attention(*arguments(1, 2, 2), implementation="pallas")
    x, scale = normal(0, 2, 4), normal(1, 4)
    with pytest.raises(NotImplementedError, match=message.format("layer_norm")):
        layer_norm(x, scale, scale, epsilon=1e-5, implementation="pallas")
    with pytest.raises(NotImplementedError, match=message.format("rms_norm")):
        rms_norm(x, scale, epsilon=1e-5, implementation="pallas")
    with pytest.raises(ValueError, match="expected None or one of 'reference'"):
        rms_norm(x, scale, epsilon=1e-5, implementation="triton")


def test_compiled_code_is_not_mistaken_for_interpreted():
    """The same call outside is refused, though it has been traced inside."""
    arrays = arguments(1, 2, 2)
    with aimed_at("gpu", interpret=True):
        attention(*arrays, implementation="pallas")
    with pytest.raises(NotImplementedError, match="needs a GPU"):
        attention(*arrays, implementation="pallas")
    with aimed_at("gpu"), pytest.raises(ValueError, match="interpret"):
        attention(*arrays, implementation="pallas")


def test_options_it_does_not_have(platform):
    arrays = arguments(1, 4, 4)
    with pytest.raises(NotImplementedError, match=r'mask: .* use "blockwise"'):
        attention(*arrays, mask=np.ones((4, 4), bool), implementation="pallas")
    with pytest.raises(NotImplementedError, match=r'bias: .* use "blockwise"'):
        attention(*arrays, bias=np.zeros((4, 4), np.float32), implementation="pallas")


def test_types_it_does_not_have(platform):
    with jax.enable_x64(True):
        q, k, v = wide(*arguments(1, 4, 4))
        with pytest.raises(NotImplementedError, match=f"q: .* no float64 on a {platform}"):
            attention(q, k, v, implementation="pallas")
        with pytest.raises(NotImplementedError, match=f"x: .* no float64 on a {platform}"):
            rms_norm(q, q[0, 0, 0], epsilon=1e-5, implementation="pallas")
    if platform == "tpu":
        q, k, v = (jnp.asarray(a, jnp.float16) for a in arguments(1, 4, 4))
        with pytest.raises(NotImplementedError, match=r"q: .* no float16 on a tpu"):
            attention(q, k, v, implementation="pallas")
        with pytest.raises(NotImplementedError, match=r"x: .* no float16 on a tpu"):
            rms_norm(q, q[0, 0, 0], epsilon=1e-5, implementation="pallas")


def test_pallas_is_not_imported_before_it_is_asked_for():
    program = (
        "import sys, trivium.kernels as k, jax.numpy as jnp\n"
        "k.rms_norm(jnp.ones((2, 4)), jnp.ones(4), epsilon=1e-5)\n"
        "print(any(name.startswith('jax.experimental.pallas') for name in sys.modules))"
    )
    finished = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert finished.stdout.strip() == "False"
