"""Llama checkpoints in Hugging Face's form: against transformers, round trips, wrong files."""

import dataclasses
import json
import random

import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from small_llama import CONFIG, TEMPLATE, WORDS, model, write_gguf

from trivium import pretrained

IDS = np.arange(12)[None]


@pytest.fixture(scope="module")
def decoder():
    return model()


@pytest.fixture
def checkpoint(tmp_path, decoder):
    """A small whole checkpoint; its tokenizer comes from a GGUF file of the same model."""
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    content = dataclasses.asdict(CONFIG) | {"model_type": "llama", "eos_token_id": 0}
    (folder / "config.json").write_text(json.dumps(content))
    tokenizer = pretrained.from_gguf(write_gguf(tmp_path / "small.gguf", decoder)).tokenizer
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {"chat_template": TEMPLATE, "eos_token": {"content": "<|user|>"}}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    save_file(pretrained.to_huggingface(decoder), folder / "model.safetensors")
    return folder


def change_config(folder, **values):
    content = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(content | values))


def change_weights(folder, change):
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors")


def test_it_comes_back_as_it_was_written(checkpoint, decoder):
    loaded = pretrained.from_huggingface(checkpoint)
    assert isinstance(loaded, pretrained.PretrainedLlama)
    assert loaded.config == CONFIG
    expected = pretrained.to_huggingface(decoder)
    found = pretrained.to_huggingface(loaded.model)
    assert found.keys() == expected.keys()
    for name in expected:
        np.testing.assert_array_equal(found[name], expected[name], err_msg=name)
    assert loaded.stop == (WORDS.index("<|user|>"), 0)
    assert loaded.chat_text("hi") == "<|user|>hi<|end|><|assistant|>"
    assert loaded.decode(loaded.encode("hello world")) == "hello world"
    narrow = pretrained.from_huggingface(checkpoint, dtype=jnp.bfloat16)
    np.testing.assert_allclose(narrow.model(IDS), decoder(IDS), atol=0.3)


@pytest.mark.parametrize("sizes", [{}, {"head_dim": 8}, {"tie_word_embeddings": False}])
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_agrees_with_transformers(checkpoint, sizes):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    transformers = pytest.importorskip("transformers", reason="pip install transformers")
    ours = model(**sizes)
    change_config(checkpoint, **dataclasses.asdict(ours.config))
    save_file(pretrained.to_huggingface(ours), checkpoint / "model.safetensors")
    theirs = transformers.LlamaForCausalLM.from_pretrained(checkpoint).eval()
    theirs.save_pretrained(checkpoint)  # a config.json of Hugging Face's own making
    with torch.no_grad():
        expected = theirs(torch.tensor(IDS)).logits.numpy()
    loaded = pretrained.from_huggingface(checkpoint)
    assert loaded.config == ours.config
    np.testing.assert_allclose(loaded.model(IDS), expected, atol=1e-3)


def test_a_template_in_a_file_of_its_own(checkpoint):
    (checkpoint / "chat_template.jinja").write_text("A{{ eos_token }}{{ messages[0].content }}")
    assert pretrained.from_huggingface(checkpoint).chat_text("hi") == "A<|user|>hi"
    (checkpoint / "chat_template.jinja").unlink()
    (checkpoint / "tokenizer_config.json").unlink()
    loaded = pretrained.from_huggingface(checkpoint)
    assert loaded.stop == (0,)
    with pytest.raises(ValueError, match="no chat template"):
        loaded.chat("hi")


def refused(folder, message, error=ValueError):
    with pytest.raises(error, match=message):
        pretrained.from_huggingface(folder)


@pytest.mark.parametrize(
    ("values", "message", "error"),
    [
        ({"model_type": "mistral"}, 'type \'mistral\'; only "bert" or "llama"', ValueError),
        ({"hidden_act": "gelu"}, "hidden_act", NotImplementedError),
        ({"attention_bias": True}, "attention_bias", NotImplementedError),
        ({"rope_scaling": {"rope_type": "llama3"}}, "scaled rotary", NotImplementedError),
        ({"rope_scaling": "yes"}, "must be an object", ValueError),
        ({"num_hidden_layers": 10**9}, "too many", ValueError),
        ({"num_hidden_layers": 3}, r"missing: model\.layers\.2", ValueError),
        ({"vocab_size": 10**12}, r"misshaped: model\.embed_tokens", ValueError),
        ({"vocab_size": 5}, "tokens, the model 5", ValueError),
        ({"num_attention_heads": "4"}, "num_attention_heads", ValueError),
        ({"head_dim": 7}, "head_dim", ValueError),
    ],
)
def test_wrong_configs(checkpoint, values, message, error):
    change_config(checkpoint, **values)
    refused(checkpoint, message, error)


def test_wrong_weights(checkpoint):
    change_weights(checkpoint, lambda weights: weights.pop("model.norm.weight"))
    refused(checkpoint, r"missing: model\.norm\.weight \[64\]")
    change_weights(checkpoint, lambda w: w.update({"model.norm.weight": np.ones(64, np.int32)}))
    refused(checkpoint, "not float16, bfloat16 or float32: model.norm.weight I32")
    change_weights(
        checkpoint, lambda w: w.update({"model.norm.weight": np.full(64, np.inf, np.float32)})
    )
    refused(checkpoint, "model.norm.weight holds values not finite")
    (checkpoint / "tokenizer.json").write_text("{}")
    refused(checkpoint, "is not a tokenizer")
    (checkpoint / "tokenizer.json").unlink()
    refused(checkpoint, r"no tokenizer\.json")


def test_what_old_checkpoints_carry_along_is_left_out(checkpoint, decoder):
    def add(weights):
        weights["model.layers.0.self_attn.rotary_emb.inv_freq"] = np.ones(8, np.float32)
        weights["lm_head.weight"] = weights["model.embed_tokens.weight"].copy()

    change_weights(checkpoint, add)
    loaded = pretrained.from_huggingface(checkpoint)
    np.testing.assert_allclose(loaded.model(IDS), decoder(IDS), atol=1e-4)


def test_changed_bytes_of_a_safetensors_header(checkpoint):
    """A stranger's file by chance: it loads, or a ValueError says why not."""
    path = checkpoint / "model.safetensors"
    content = path.read_bytes()
    size = 8 + int.from_bytes(content[:8], "little")
    chance, outcomes = random.Random(0), []
    for attempt in range(120):
        changed = bytearray(content)
        for _ in range(chance.randint(1, 3)):
            # The length of the header, its names, numbers and brackets.
            place = chance.randrange(8 if attempt % 4 == 0 else size)
            changed[place] = chance.choice([*b'0129{}[],:"', 0, 255])
        path.write_bytes(changed)
        try:
            pretrained.from_huggingface(checkpoint)
            outcomes.append(True)
        except ValueError:
            outcomes.append(False)
    assert outcomes.count(False) > 90


@pytest.mark.parametrize("cut", [0, 7, 8, 100, -1])
def test_a_truncated_safetensors_file(checkpoint, cut):
    path = checkpoint / "model.safetensors"
    path.write_bytes(path.read_bytes()[:cut])
    refused(checkpoint, r"model\.safetensors is not a whole safetensors file")
