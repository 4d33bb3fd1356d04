"""GGUF: what a sound file gives, and what every unsound one is answered with."""

import contextlib
import dataclasses
import random
import resource
import struct
import tracemalloc

import jax.numpy as jnp
import numpy as np
import pytest
from gguf import GGMLQuantizationType, GGUFReader, quants
from hypothesis import given, settings
from hypothesis import strategies as st
from small_llama import CONFIG, MERGES, TEMPLATE, WORDS, model, write_gguf

from trivium import pretrained
from trivium.pretrained import gguf


@pytest.fixture(scope="module")
def decoder():
    return model()


@pytest.fixture(scope="module")
def sound(decoder, tmp_path_factory):
    """A whole file; tests that spoil it copy it."""
    return write_gguf(tmp_path_factory.mktemp("gguf") / "small.gguf", decoder)


def spoiled(tmp_path, content):
    path = tmp_path / "spoiled.gguf"
    path.write_bytes(content)
    return path


def string(text):
    encoded = text.encode()
    return struct.pack("<Q", len(encoded)) + encoded


def header(tensors=0, entries=0, *, version=3):
    return b"GGUF" + struct.pack("<IQQ", version, tensors, entries)


def tensor(name="a", shape=(32,), kind=0, offset=0):
    axes = struct.pack(f"<I{len(shape)}Q", len(shape), *shape)
    return string(name) + axes + struct.pack("<IQ", kind, offset)


# Sound files


def test_everything_is_where_the_reference_reader_finds_it(sound):
    ours, theirs = gguf.File(sound), GGUFReader(sound)
    assert {name for name in theirs.fields if not name.startswith("GGUF.")} == set(ours.metadata)
    for name, value in ours.metadata.items():
        expected = theirs.fields[name].contents()
        assert (value.tolist() if isinstance(value, np.ndarray) else value) == expected
    assert [each.name for each in theirs.tensors] == list(ours.tensors)
    for each in theirs.tensors:
        found = ours.tensors[each.name]
        assert (found.start, found.nbytes) == (each.data_offset, each.n_bytes)
        assert found.shape == tuple(int(n) for n in each.shape[::-1])
        np.testing.assert_array_equal(ours.read(each.name), each.data)


@pytest.mark.parametrize("kind", ["Q4_1", "Q4_0", "Q8_0", "Q5_1", "BF16", "F16"])
def test_quantized_weights_are_those_of_the_reference(decoder, tmp_path, kind):
    kind = GGMLQuantizationType[kind]
    path = write_gguf(tmp_path / "quantized.gguf", decoder, kind=kind)
    file = gguf.File(path)
    for each in GGUFReader(path).tensors:
        expected = quants.dequantize(each.data, each.tensor_type)
        np.testing.assert_array_equal(file.read(each.name), expected)
    assert file.tensors["blk.0.ffn_up.weight"].kind == kind.name


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_a_model_comes_back_as_it_was_written(sound, decoder, dtype):
    loaded = pretrained.from_gguf(sound, dtype=dtype)
    assert loaded.config == dataclasses.replace(CONFIG, initializer_range=0.02)
    expected = pretrained.to_huggingface(decoder)
    for name, value in pretrained.to_huggingface(loaded.model).items():
        stored = jnp.asarray(expected[name], jnp.float32 if value.ndim == 1 else dtype)
        np.testing.assert_array_equal(value, np.asarray(stored, np.float32), err_msg=name)
    ids = np.arange(10)[None]
    apart = {jnp.float32: 1e-4, jnp.bfloat16: 0.3}[dtype]
    np.testing.assert_allclose(loaded.model(ids), decoder(ids), atol=apart)
    assert loaded.model.embed.dtype == dtype
    assert loaded.model.norm.scale.dtype == jnp.float32


def test_a_head_of_its_own(tmp_path):
    decoder = model(tie_word_embeddings=False)
    loaded = pretrained.from_gguf(write_gguf(tmp_path / "untied.gguf", decoder))
    ids = np.arange(10)[None]
    np.testing.assert_allclose(loaded.model(ids), decoder(ids), atol=1e-4)


def test_tokens_and_conversations(sound):
    loaded = pretrained.from_gguf(sound)
    assert loaded.stop == (0,)
    pieces = [WORDS[i] for i in loaded.encode("hello world 12<|end|>")]
    assert pieces == ["hell", "o", "Ġw", "o", "r", "l", "d", "Ġ", "1", "2", "<|end|>"]
    assert loaded.decode(loaded.encode("hello world")) == "hello world"
    assert loaded.decode([0, *loaded.encode("hi")]) == "hi"
    assert loaded.decode([0], marks=True) == "<|end|>"
    assert loaded.chat_text("hi") == "<|user|>hi<|end|><|assistant|>"
    talk = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    assert loaded.chat_text(talk) == "<|user|>a<|end|><|assistant|>b<|end|><|assistant|>"
    assert loaded.chat("hi")[0] == WORDS.index("<|user|>")


def test_an_answer_is_what_its_pieces_make(sound):
    loaded = pretrained.from_gguf(sound)
    options = {"max_new": 8, "temperature": 1.0, "seed": 3}
    assert loaded.answer("hi", **options) == "".join(loaded.stream("hi", **options))
    with pytest.raises(ValueError, match="context"):
        loaded.answer("hi " * 40)


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{{ messages.__class__.__mro__ }}", "access to attribute"),
        ("{{ raise_exception('not so') }}", "not so"),
        ("{% for", "template failed"),
        ("{{ 1 / 0 }}", "template failed"),
        ("{{ messages[99].role }}", "template failed"),
        ("{% for i in range(1000000) %}x{% endfor %}", "template failed"),
    ],
)
def test_a_template_is_a_stranger_too(decoder, tmp_path, template, message):
    loaded = pretrained.from_gguf(write_gguf(tmp_path / "t.gguf", decoder, template=template))
    with pytest.raises(ValueError, match=message):
        loaded.chat_text("hi")


# Unsound files: by hand


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "too short"),
        (b"GGUF", "too short"),
        (b"PK\x03\x04" + b"\0" * 40, "does not begin with GGUF"),
        (header(version=9), "version 2 or 3, found 9"),
        (header(tensors=2**60), f"claims {2**60} tensors"),
        (header(entries=2**60), f"claims {2**60} entries"),
        (header(entries=1) + struct.pack("<Q", 2**50) + b"a" * 40, "the name of entry 0"),
        (header(entries=1) + string("a") + struct.pack("<IQ", 8, 2**50), f"{2**50} bytes of 'a'"),
        (header(entries=1) + string("a") + struct.pack("<IIQ", 9, 8, 2**50), "strings of 'a'"),
        (header(entries=1) + string("a") + struct.pack("<IIQ", 9, 4, 2**62), "numbers of 'a'"),
        (header(entries=1) + string("a") + struct.pack("<IIQ", 9, 9, 1), "unknown type 9"),
        (header(entries=1) + string("a") + struct.pack("<II", 99, 1), "unknown type 99"),
        (header(entries=1) + struct.pack("<Q", 1) + b"\xff" + bytes(16), "not UTF-8"),
        (header(entries=2) + 2 * (string("a") + struct.pack("<II", 4, 1)), "'a' twice"),
        (
            header(entries=1) + string("general.alignment") + struct.pack("<II", 4, 33),
            "power of 2",
        ),
        (header(tensors=1) + tensor(shape=()) + bytes(99), "1 to 4 axes, not 0"),
        (header(tensors=1) + tensor(shape=(1,) * 9) + bytes(99), "1 to 4 axes, not 9"),
        (header(tensors=1) + tensor(shape=(0,)) + bytes(99), "cannot be stored"),
        (header(tensors=1) + tensor(shape=(33,), kind=3) + bytes(99), "blocks of 32"),
        (header(tensors=1) + tensor(kind=77) + bytes(99), "unknown type 77"),
        (header(tensors=1) + tensor(shape=(2**62, 2**62)) + bytes(99), "cut off or lies"),
        (header(tensors=1) + tensor(offset=2**63) + bytes(99), "cut off or lies"),
        (header(tensors=1) + tensor(offset=7) + bytes(999), "not a multiple of 32"),
        (header(tensors=2) + 2 * tensor() + bytes(999), "'a' twice"),
        (header(tensors=2) + tensor("a") + tensor("b") + bytes(999), "overlap"),
    ],
)  # fmt: skip
def test_lies_are_told_apart(tmp_path, content, message):
    with pytest.raises(ValueError, match=message):
        gguf.File(spoiled(tmp_path, content))


def test_no_file(tmp_path):
    for path in (tmp_path / "nowhere", tmp_path):
        with pytest.raises(ValueError, match="no file"):
            gguf.File(path)


@pytest.mark.parametrize(
    ("changes", "message", "error"),
    [
        ({"block_count": 2**31}, "layers are too many", ValueError),
        ({"block_count": 3}, "missing: model.layers.2", ValueError),
        ({"block_count": 1}, "unexpected: blk.1", ValueError),
        (
            {"embedding_length": 2**31, "rope.dimension_count": 2**29},
            r"misshaped: model\.embed_tokens",
            ValueError,
        ),
        ({"feed_forward_length": 95}, r"gate_proj.*\[96, 64\], expected \[95", ValueError),
        ({"attention.head_count": 0}, "num_attention_heads", ValueError),
        ({"attention.head_count": 3}, "must divide", ValueError),
        ({"attention.head_count_kv": 3}, "num_key_value_heads=3 must divide", ValueError),
        ({"rope.dimension_count": 8}, "turns 8 of 16", NotImplementedError),
        ({"model": "llama"}, "tokenizer of kind 'llama'", NotImplementedError),
        ({"pre": "unheard-of"}, "unheard-of", NotImplementedError),
        ({"tokens": WORDS[:-1]}, "tokens and merges do not fit", ValueError),
        ({"tokens": [*WORDS, "more"]}, r"misshaped: model\.embed_tokens", ValueError),
        ({"tokens": [*WORDS[:-1], "!"]}, "same token twice", ValueError),
        ({"token_type": [1, 2]}, "token_type", ValueError),
        ({"merges": ["ab"]}, "list of pairs", ValueError),
        ({"merges": ["h zz"]}, "tokens and merges do not fit", ValueError),
        ({"eos": 10**6}, "eos_token_id", ValueError),
        ({"without": ["context_length"]}, "does not say llama.context_length", ValueError),
    ],
)  # fmt: skip
def test_headers_that_do_not_fit_the_weights(decoder, tmp_path, changes, message, error):
    path = write_gguf(tmp_path / "wrong.gguf", decoder, **changes)
    with pytest.raises(error, match=message):
        pretrained.from_gguf(path)


def test_values_that_are_not_finite(tmp_path):
    decoder = model()
    decoder.blocks[1].transform.expand.kernel[0, 0] = jnp.nan
    with pytest.raises(ValueError, match=r"layers\.1\.mlp\.gate_proj.*not finite"):
        pretrained.from_gguf(write_gguf(tmp_path / "nan.gguf", decoder))


def test_options_that_cannot_be(sound):
    with pytest.raises(ValueError, match="dtype: expected float32 or bfloat16"):
        pretrained.from_gguf(sound, dtype=jnp.float16)
    with pytest.raises(ValueError, match="no tensor 'nothing'"):
        gguf.File(sound).read("nothing")


# Unsound files: by chance


def read_or_refuse(path):
    """Load a file as a stranger's: it works, or it says what is wrong."""
    try:
        pretrained.from_gguf(path)
    except (ValueError, NotImplementedError):
        return False
    return True


def test_a_file_cut_anywhere_is_refused(sound, tmp_path):
    content = sound.read_bytes()
    first = min(each.start for each in gguf.File(sound).tensors.values())
    cuts = [*range(0, first, 61), *range(first, len(content), 9973), len(content) - 33]
    for cut in cuts:
        with pytest.raises(ValueError, match=r"cut off or lies|too short"):
            gguf.File(spoiled(tmp_path, content[:cut]))


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A header like a model's, and as short as can be: most of its bytes mean something."""
    content = header(2, 4)
    content += string("general.architecture") + struct.pack("<I", 8) + string("llama")
    content += string("a") + struct.pack("<If", 6, 1.5)
    content += string("b") + struct.pack("<IIQ", 9, 8, 2) + string("x") + string("yy")
    content += string("c") + struct.pack("<IIQ", 9, 5, 3) + struct.pack("<3i", 1, 2, 3)
    content += tensor("t", (32, 2), 3, 0) + tensor("u", (4,), 0, 64)
    content += bytes(-len(content) % 32) + bytes(128)
    path = tmp_path_factory.mktemp("tiny") / "tiny.gguf"
    path.write_bytes(content)
    assert list(gguf.File(path).tensors) == ["t", "u"]
    return path


@settings(max_examples=400, deadline=None, derandomize=True)
@given(st.lists(st.tuples(st.integers(0, 370), st.integers(0, 255)), min_size=1, max_size=4))
def test_changed_bytes_of_a_tiny_file(tiny, changes):
    content = bytearray(tiny.read_bytes())
    for place, value in changes:
        content[place % len(content)] = value
    path = tiny.with_name("changed.gguf")
    path.write_bytes(content)
    try:
        file = gguf.File(path)
    except ValueError:
        return
    for each in file.tensors.values():
        assert each.start + each.nbytes <= len(content)
        with contextlib.suppress(NotImplementedError):
            assert file.read(each.name).shape == each.shape


def test_changed_bytes_of_a_models_header(sound, tmp_path):
    content = sound.read_bytes()
    first = min(each.start for each in gguf.File(sound).tensors.values())
    chance = random.Random(0)
    # Twice over a file's size in Python objects is what its strings may take.
    most = 40 * len(content)
    outcomes = []
    tracemalloc.start()
    for _ in range(80):
        changed = bytearray(content)
        for _ in range(chance.randint(1, 3)):
            changed[chance.randrange(first)] = chance.choice([0, 1, 127, 128, 255])
        outcomes.append(read_or_refuse(spoiled(tmp_path, changed)))
        assert tracemalloc.get_traced_memory()[1] < most
    tracemalloc.stop()
    assert 5 < sum(outcomes) < 75  # names of tokens may change; sizes may not


def test_huge_numbers_in_each_eight_bytes(tiny, tmp_path):
    content = tiny.read_bytes()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for place in range(8, 280):
        for huge in (2**63 - 1, 2**40, 2**32):
            changed = bytearray(content)
            changed[place : place + 8] = struct.pack("<Q", huge)
            try:
                file = gguf.File(spoiled(tmp_path, changed))
            except ValueError:
                continue
            assert all(each.nbytes <= len(content) for each in file.tensors.values())
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert after - before < 64 * 1024  # kilobytes


def test_template_and_merges_of_the_small_file_are_as_written(sound):
    metadata = gguf.File(sound).metadata
    assert metadata["tokenizer.chat_template"] == TEMPLATE
    assert metadata["tokenizer.ggml.merges"] == MERGES
