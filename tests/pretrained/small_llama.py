"""A small Llama, and GGUF files of it and of anything else, for the tests to spoil."""

import numpy as np
from flax import nnx
from gguf import GGMLQuantizationType, GGUFWriter, TokenType, quants

from trivium import pretrained
from trivium.models import Llama, LlamaConfig
from trivium.pretrained import llama

TEMPLATE = (
    "{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}<|end|>"
    "{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
MARKS = ["<|end|>", "<|user|>", "<|assistant|>"]
LETTERS = [chr(code) for code in range(ord("!"), ord("~") + 1)]
WORDS = [*MARKS, *LETTERS, "Ġ", "Ċ", "he", "ll", "hell", "Ġw"]
MERGES = ["h e", "l l", "he ll", "Ġ w"]
CONFIG = LlamaConfig(
    vocab_size=len(WORDS),
    hidden_size=64,
    intermediate_size=96,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=32,
    initializer_range=0.3,
)


def model(**sizes) -> Llama:
    """Random weights: large enough for guesses to differ."""
    content = {name: getattr(CONFIG, name) for name in CONFIG.__dataclass_fields__} | sizes
    return Llama(LlamaConfig(**content), rngs=nnx.Rngs(0))


def turned(name, weights, config):
    """The row order of GGUF: the halves of a head become pairs of neighbors."""
    if "q_proj" in name or "k_proj" in name:
        halves = weights.reshape(-1, 2, config.head_dim // 2, weights.shape[-1])
        return halves.swapaxes(1, 2).reshape(weights.shape)
    return weights


def write_gguf(path, decoder: Llama, *, kind=GGMLQuantizationType.F32, without=(), **changes):
    """Write a GGUF file of the model; changes: entries, by their last name, instead of its own."""
    config = decoder.config
    writer = GGUFWriter(path, "llama")
    numbers = {
        "embedding_length": config.hidden_size,
        "feed_forward_length": config.intermediate_size,
        "block_count": config.num_hidden_layers,
        "attention.head_count": config.num_attention_heads,
        "attention.head_count_kv": config.num_key_value_heads,
        "context_length": config.max_position_embeddings,
        "rope.dimension_count": config.head_dim,
    }
    for name, value in numbers.items():
        if name not in without:
            writer.add_uint32(f"llama.{name}", changes.get(name, value))
    writer.add_float32("llama.rope.freq_base", config.rope_theta)
    writer.add_float32("llama.attention.layer_norm_rms_epsilon", config.rms_norm_eps)
    writer.add_tokenizer_model(changes.get("model", "gpt2"))
    writer.add_tokenizer_pre(changes.get("pre", "smollm"))
    words = changes.get("tokens", WORDS)
    writer.add_token_list(words)
    marks = [TokenType.CONTROL if word in MARKS else TokenType.NORMAL for word in words]
    writer.add_token_types(changes.get("token_type", marks))
    writer.add_token_merges(changes.get("merges", MERGES))
    writer.add_eos_token_id(changes.get("eos", 0))
    writer.add_chat_template(changes.get("template", TEMPLATE))
    for name, value in pretrained.to_huggingface(decoder).items():
        stored = turned(name, value, config)
        if value.ndim == 2 and kind is not GGMLQuantizationType.F32:
            stored = quants.quantize(stored, kind)
            writer.add_tensor(llama._gguf_name(name), stored, raw_dtype=kind)
        else:
            writer.add_tensor(llama._gguf_name(name), np.ascontiguousarray(stored))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
