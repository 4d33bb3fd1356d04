"""Encoders saved in Hugging Face's form: read back bit for bit, and loaded by transformers."""

import json
import logging

import numpy as np
import pytest
from flax import nnx
from safetensors.numpy import load_file
from tokenizers import Tokenizer
from tokenizers.implementations import BertWordPieceTokenizer

from trivium import pretrained
from trivium.models import Bert, BertClassifier, BertConfig

CONFIG = BertConfig(
    vocab_size=12,
    hidden_size=8,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=12,
    max_position_embeddings=10,
    layer_norm_eps=1e-6,
    hidden_act="gelu_new",
)
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "happy", "dog", "person", "##s"]
TEXTS = ["A happy person", "dogs", "happy happy dogs"]


@pytest.fixture
def tokenizer(tmp_path):
    (tmp_path / "vocab.txt").write_text("\n".join(WORDS))
    return Tokenizer.from_str(BertWordPieceTokenizer(str(tmp_path / "vocab.txt")).to_str())


@pytest.fixture(scope="module")
def encoder():
    return Bert(CONFIG, rngs=nnx.Rngs(0))


def test_read_back_bit_for_bit(tmp_path, encoder, tokenizer):
    folder = tmp_path / "new" / "encoder"
    pretrained.save_huggingface(encoder, folder, tokenizer=tokenizer)
    loaded = pretrained.from_huggingface(folder)
    assert loaded.config == CONFIG
    ours, theirs = map(pretrained.to_huggingface, (encoder, loaded.model))
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        np.testing.assert_array_equal(theirs[name], value, err_msg=name)
    assert [ids.tolist() for ids in loaded.encode(TEXTS)] == [
        tokenizer.encode(text).ids for text in TEXTS
    ]
    # And what was read can be saved again, over the old files.
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    pretrained.save_huggingface(loaded, folder)
    after = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert after["model.safetensors"] == before["model.safetensors"]
    assert after["config.json"] == before["config.json"]
    assert set(after) == {
        "config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json",
    }  # fmt: skip


def test_the_pooler_is_the_identity(tmp_path, encoder, tokenizer):
    pretrained.save_huggingface(encoder, tmp_path, tokenizer=tokenizer)
    weights = load_file(tmp_path / "model.safetensors")
    np.testing.assert_array_equal(weights["pooler.dense.weight"], np.eye(8))
    assert not weights["pooler.dense.bias"].any()
    assert all(value.dtype == np.float32 for value in weights.values())
    assert json.loads((tmp_path / "config.json").read_text())["model_type"] == "bert"


def test_the_first_layers_end_where_the_whole_passes_by(tmp_path, encoder, tokenizer):
    whole = pretrained.Pretrained(encoder, tokenizer, CONFIG)
    cut = pretrained.first_layers(whole, 1)
    assert cut.config.num_hidden_layers == 1
    ids = np.array([[2, 5, 6, 8, 3]])
    np.testing.assert_array_equal(cut.model(ids), encoder.hidden_states(ids)[1])
    pretrained.save_huggingface(cut, tmp_path)
    again = pretrained.from_huggingface(tmp_path)
    np.testing.assert_array_equal(again.model(ids), cut.model(ids))
    for wrong in (0, 3):
        with pytest.raises(ValueError, match=rf"layers must lie in \[1, 2\], not {wrong}"):
            pretrained.first_layers(whole, wrong)


def test_refusals(tmp_path, encoder, tokenizer):
    loaded = pretrained.Pretrained(encoder, tokenizer, CONFIG)
    with pytest.raises(ValueError, match="tokenizer is needed"):
        pretrained.save_huggingface(encoder, tmp_path)
    with pytest.raises(ValueError, match="comes with a Pretrained"):
        pretrained.save_huggingface(loaded, tmp_path, tokenizer=tokenizer)
    with pytest.raises(TypeError, match=r"not BertClassifier: .*\.bert"):
        pretrained.save_huggingface(
            BertClassifier(encoder, classes=2, rngs=nnx.Rngs(0)), tmp_path, tokenizer=tokenizer
        )
    tokenizer.add_tokens([f"word{i}" for i in range(5)])
    with pytest.raises(ValueError, match="has 15 words, but the model only 12"):
        pretrained.save_huggingface(encoder, tmp_path, tokenizer=tokenizer)
    bare = Tokenizer.from_str(tokenizer.to_str().replace("[MASK]", "[HIDE]"))
    with pytest.raises(ValueError, match=r"lacks \[MASK\]"):
        pretrained.save_huggingface(encoder, tmp_path, tokenizer=bare)
    assert not (tmp_path / "model.safetensors").exists()


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_transformers_loads_all_of_it(tmp_path, encoder, tokenizer, caplog):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install torch")
    transformers = pytest.importorskip("transformers", reason="pip install transformers")
    pretrained.save_huggingface(encoder, tmp_path, tokenizer=tokenizer)
    logger = logging.getLogger("transformers")
    logger.addHandler(caplog.handler)
    try:
        model, report = transformers.AutoModel.from_pretrained(tmp_path, output_loading_info=True)
        peer = transformers.AutoTokenizer.from_pretrained(tmp_path)
    finally:
        logger.removeHandler(caplog.handler)
    assert [record.getMessage() for record in caplog.records] == []
    assert not any(report.values())
    batch = peer(TEXTS, padding=True, return_tensors="pt")
    loaded = pretrained.from_huggingface(tmp_path)
    mask = batch["attention_mask"].numpy().astype(bool)
    for ids, real, text in zip(batch["input_ids"].numpy(), mask, loaded.encode(TEXTS), strict=True):
        assert ids[real].tolist() == text.tolist()
    with torch.no_grad():
        answer = model.eval()(**batch)
    states = np.asarray(loaded.model(batch["input_ids"].numpy(), mask=mask))
    np.testing.assert_allclose(answer.last_hidden_state.numpy()[mask], states[mask], atol=1e-5)
    np.testing.assert_allclose(answer.pooler_output.numpy(), np.tanh(states[:, 0]), atol=1e-5)
