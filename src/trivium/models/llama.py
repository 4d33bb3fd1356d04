"""The attention family: Llama, a decoder that writes a text from left to right."""

import math
from dataclasses import dataclass, fields
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from trivium.kernels import attention, rms_norm, rotary
from trivium.models.layers import checked_ids


@dataclass(frozen=True)
class LlamaConfig:
    """The sizes of a Llama, under the names of Hugging Face's config.json.

    The defaults are SmolLM2-135M. head_dim: None is hidden_size / num_attention_heads.
    Raises ValueError where a size is not a positive integer or sizes do not fit each other.
    """

    vocab_size: int = 49152
    hidden_size: int = 576
    intermediate_size: int = 1536
    num_hidden_layers: int = 30
    num_attention_heads: int = 9
    num_key_value_heads: int = 3
    head_dim: int | None = None
    max_position_embeddings: int = 8192
    rope_theta: float = 100_000.0
    rms_norm_eps: float = 1e-5
    tie_word_embeddings: bool = True
    initializer_range: float = 0.02

    @property
    def head_size(self) -> int:
        """Features of a head."""
        return self.head_dim or self.hidden_size // self.num_attention_heads

    def __post_init__(self):
        """Refuse sizes that no model can have."""
        for field in fields(self):
            value = getattr(self, field.name)
            if field.type is int and (type(value) is not int or value < 1):
                raise ValueError(f"{field.name} must be a positive integer, not {value!r}")
            if field.type is float and not (
                isinstance(value, int | float) and math.isfinite(value) and value > 0
            ):
                raise ValueError(f"{field.name} must be a number above 0, not {value!r}")
        if type(self.tie_word_embeddings) is not bool:
            raise ValueError(
                f"tie_word_embeddings must be True or False, not {self.tie_word_embeddings!r}"
            )
        heads, width = self.num_attention_heads, self.hidden_size
        if heads % self.num_key_value_heads:
            raise ValueError(
                f"num_key_value_heads={self.num_key_value_heads} must divide "
                f"num_attention_heads={heads}"
            )
        if self.head_dim is None:
            if width % heads:
                raise ValueError(
                    f"num_attention_heads={heads} must divide hidden_size={width} where head_dim "
                    "is not given"
                )
            object.__setattr__(self, "head_dim", width // heads)
        if type(self.head_dim) is not int or self.head_dim < 1 or self.head_dim % 2:
            raise ValueError(f"head_dim must be a positive even integer, not {self.head_dim!r}")


class KeyValueCache(NamedTuple):
    """What a decoder keeps of the tokens read so far: an array pytree, batch axis first.

    keys, values: for each layer [B, S, K, H], S the room; the keys are already turned.
    lengths: int32 [B], the tokens of each sequence that are in it. What lies behind is not read.
    """

    keys: tuple[jax.Array, ...]
    values: tuple[jax.Array, ...]
    lengths: jax.Array

    @property
    def room(self) -> int:
        """The most tokens that fit."""
        return self.keys[0].shape[1]


class Llama(nnx.Module):
    """Embed tokens, let every token look at those before it, guess the next one, at each place.

    embed [V, D] turns ids into vectors and, unless there is a `head` of its own, states into
    logits. blocks: the layers. norm: before the logits.

    `model(ids)` reads whole sequences. `extend` reads a few tokens more, given a cache of those
    before; it is what `trivium.generate` calls.

    Parameters may be kept in bfloat16; states are float32 all the same.
    Source: Touvron et al. 2023; grouped queries: Ainslie et al. 2023.
    """

    def __init__(self, config: LlamaConfig, *, rngs: nnx.Rngs):
        self.config = config
        shape = (config.vocab_size, config.hidden_size)
        normal = nnx.initializers.normal(config.initializer_range)
        self.embed = nnx.Param(normal(rngs.params(), shape))
        self.blocks = nnx.List(
            [LlamaBlock(config, rngs=rngs) for _ in range(config.num_hidden_layers)]
        )
        self.norm = RMSNorm(config.hidden_size, epsilon=config.rms_norm_eps)
        self.head = None if config.tie_word_embeddings else nnx.Param(normal(rngs.params(), shape))

    @property
    def context(self) -> int:
        """The most tokens, read and written together, that the model was made for."""
        return self.config.max_position_embeddings

    def __call__(self, ids) -> jax.Array:
        """Map token ids [B, T] to the logits of each place's next token, float32 [B, T, V].

        Raises ValueError for ids that are not integers [B, T], are longer than the context or
        outside the vocabulary. Inside `jax.jit` values are unknown: an id outside gives NaN.
        """
        return self.logits(self.hidden_states(ids)[-1])

    def hidden_states(self, ids) -> jax.Array:
        """What enters the first layer, and what leaves every layer: [layers + 1, B, T, D]."""
        ids = checked_ids("ids", ids, self.config.vocab_size)
        if ids.shape[1] > self.context:
            raise ValueError(
                f"ids: expected at most {self.context} tokens, the model's context, "
                f"received {ids.shape[1]}"
            )
        positions = jnp.arange(ids.shape[1])
        states = [self._look_up(ids)]
        for block in self.blocks:
            states.append(block(states[-1], positions))
        return jnp.stack(states)

    def logits(self, states) -> jax.Array:
        """Turn states [..., D] after any layer into logits [..., V], by the last norm and head.

        For the last layer that is the model's answer; for others, what is called a logit lens.
        """
        head = self.embed if self.head is None else self.head
        return _product(self.norm(states), head[...])

    def start(self, batch: int, room: int) -> KeyValueCache:
        """An empty cache for so many sequences of up to `room` tokens."""
        config = self.config
        shape = (batch, room, config.num_key_value_heads, config.head_dim)
        layers = range(config.num_hidden_layers)
        keys, values = (tuple(jnp.zeros(shape) for _ in layers) for _ in range(2))
        return KeyValueCache(keys, values, jnp.zeros(batch, jnp.int32))

    def extend(self, ids, cache: KeyValueCache, *, lengths=None):
        """Read more tokens: logits of what follows the last one, and the cache with them in it.

        ids [B, T], cache -> (float32 [B, V], cache).
        lengths: int32 [B], how many of the T are real, at least 1; the rest is padding, and is
            overwritten by what is read next. None is all of them.
        The caller sees to it that the cache has room and the context is not exceeded; tokens
        without room are not written.
        """
        ids = checked_ids("ids", ids, self.config.vocab_size)
        batch, steps = ids.shape
        lengths = jnp.full(batch, steps, jnp.int32) if lengths is None else jnp.asarray(lengths)
        positions = cache.lengths[:, None] + jnp.arange(steps)
        x = self._look_up(ids)
        keys, values = [], []
        for block, *held in zip(self.blocks, cache.keys, cache.values, strict=True):
            x, k, v = block.extend(x, positions, *held)
            keys.append(k)
            values.append(v)
        last = jnp.take_along_axis(x, (lengths - 1)[:, None, None], axis=1)[:, 0]
        read = (cache.lengths + lengths).astype(jnp.int32)
        return self.logits(last), KeyValueCache(tuple(keys), tuple(values), read)

    def _look_up(self, ids):
        # An id outside must not pass for the last token's, as a clipped index would make it.
        vectors = self.embed[...].at[ids].get(mode="fill", fill_value=jnp.nan)
        return vectors.astype(jnp.float32)


class LlamaBlock(nnx.Module):
    """One layer: normalize, attend, add; normalize, transform, add."""

    def __init__(self, config: LlamaConfig, *, rngs: nnx.Rngs):
        self.norm_attend = RMSNorm(config.hidden_size, epsilon=config.rms_norm_eps)
        self.attend = CausalAttention(config, rngs=rngs)
        self.norm_transform = RMSNorm(config.hidden_size, epsilon=config.rms_norm_eps)
        self.transform = GatedFeedForward(config, rngs=rngs)

    def __call__(self, x, positions):
        """Map x [B, T, D] at positions [T] to the same shape."""
        x = x + self.attend(self.norm_attend(x), positions)
        return x + self.transform(self.norm_transform(x))

    def extend(self, x, positions, keys, values):
        """The same for tokens that follow on a cache; also returns the cache with them in it."""
        answers, keys, values = self.attend.extend(self.norm_attend(x), positions, keys, values)
        x = x + answers
        return x + self.transform(self.norm_transform(x)), keys, values


class CausalAttention(nnx.Module):
    """Attention to what came before, with rotary positions and grouped queries.

    project [(N + 2 K) H, D]: queries, keys and values in one product; mix [D, N H].
    """

    def __init__(self, config: LlamaConfig, *, rngs: nnx.Rngs):
        self.heads, self.key_heads = config.num_attention_heads, config.num_key_value_heads
        self.size, self.base = config.head_size, config.rope_theta
        rows = (self.heads + 2 * self.key_heads) * self.size
        self.project = Dense(config.hidden_size, rows, config, rngs=rngs)
        self.mix = Dense(self.heads * self.size, config.hidden_size, config, rngs=rngs)

    def __call__(self, x, positions):
        """Map x [B, T, D] at positions [T] to the same shape."""
        q, k, v = self.queries_keys_values(x, positions)
        return self.mix(attention(q, k, v, causal=True).reshape(*x.shape[:2], -1))

    def extend(self, x, positions, keys, values):
        """X [B, T, D] at positions [B, T] after what the caches [B, S, K, H] hold.

        Returns the answers [B, T, D] and both caches with the new keys and values in them.
        """
        q, k, v = self.queries_keys_values(x, positions)
        row = jnp.arange(x.shape[0])[:, None]
        keys, values = (
            held.at[row, positions].set(new, mode="drop", unique_indices=True)
            for held, new in ((keys, k), (values, v))
        )
        # A place's own key is in the cache by now; what lies behind it is not written yet.
        mask = jnp.arange(keys.shape[1]) <= positions[:, None, :, None]
        answers = attention(q, keys, values, mask=mask)
        return self.mix(answers.reshape(*x.shape[:2], -1)), keys, values

    def queries_keys_values(self, x, positions):
        """Of x [B, T, D]: queries [B, T, N, H], keys and values [B, T, K, H].

        Queries and keys are turned by their positions.
        """
        heads = self.project(x).reshape(*x.shape[:2], -1, self.size)
        q, k, v = jnp.split(heads, (self.heads, self.heads + self.key_heads), axis=2)
        return (
            rotary(q, positions, base=self.base),
            rotary(k, positions, base=self.base),
            v,
        )


class GatedFeedForward(nnx.Module):
    """SwiGLU: contract(silu(gate x) * (up x)), for each token alone.

    expand [2 F, D] holds gate and up in one product. Source: Shazeer 2020.
    """

    def __init__(self, config: LlamaConfig, *, rngs: nnx.Rngs):
        self.expand = Dense(config.hidden_size, 2 * config.intermediate_size, config, rngs=rngs)
        self.contract = Dense(config.intermediate_size, config.hidden_size, config, rngs=rngs)

    def __call__(self, x):
        """Map x [..., D] to the same shape."""
        gate, up = jnp.split(self.expand(x), 2, axis=-1)
        return self.contract(jax.nn.silu(gate) * up)


class Dense(nnx.Module):
    """A product without bias. kernel [out, in]: a row of weights for each feature that comes out.

    The other way round, a product with a single row takes a third longer on a CPU.
    """

    def __init__(self, width, features, config: LlamaConfig, *, rngs: nnx.Rngs):
        normal = nnx.initializers.normal(config.initializer_range)
        self.kernel = nnx.Param(normal(rngs.params(), (features, width)))

    def __call__(self, x):
        """Map x [..., in] to [..., out]."""
        return _product(x, self.kernel[...])


class RMSNorm(nnx.Module):
    """Bring each vector to a root mean square of 1, then scale it. scale [D] starts at one."""

    def __init__(self, width, *, epsilon):
        self.scale = nnx.Param(jnp.ones(width))
        self.epsilon = epsilon

    def __call__(self, x):
        """Normalize x [..., D] over its last axis."""
        return rms_norm(x, self.scale[...], epsilon=self.epsilon)


def _product(x, kernel):
    """X [..., in] times kernel [out, in], the kernel of x's type or narrower."""
    if kernel.dtype != x.dtype and x.size == x.shape[-1]:
        # For a single row the compiler would first write the whole kernel out in the wider type;
        # a product and a sum widen each number as it is read.
        products = kernel.astype(x.dtype) * x.reshape(-1)
        return products.sum(-1).reshape(*x.shape[:-1], -1)
    return jnp.einsum("...i,oi->...o", x, kernel.astype(x.dtype))
