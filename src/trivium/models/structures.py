"""Language models that differ in one thing: what their blocks mix positions or features with.

All are `LanguageModel`s of `depth` blocks of one width, each block about 12 width^2 parameters.
"""

from functools import partial

from flax import nnx

from trivium.models.experts import MixtureOfExperts
from trivium.models.language import (
    Block,
    CausalAttention,
    FeedForward,
    LanguageModel,
    Recurrence,
)
from trivium.models.linear_attention import LinearAttention
from trivium.models.state_space import SelectiveStateSpace


def transformer(
    vocabulary, *, width=48, depth=4, heads=2, mix=CausalAttention, rngs: nnx.Rngs
) -> LanguageModel:
    """Causal attention with rotary embedding, and a feed-forward layer four times as wide.

    mix: another class with the same arguments in attention's place.
    """
    blocks = [
        Block(width, mix(width, heads, rngs=rngs), FeedForward(width, 4 * width, rngs=rngs))
        for _ in range(depth)
    ]
    return LanguageModel(vocabulary, width, blocks, rngs=rngs)


linear_transformer = partial(transformer, mix=LinearAttention)


def recurrent_model(vocabulary, *, width=48, depth=4, rngs: nnx.Rngs) -> LanguageModel:
    """An LSTM in attention's place; the feed-forward layer is half as wide to pay for its gates."""
    blocks = [
        Block(width, Recurrence(width, rngs=rngs), FeedForward(width, 2 * width, rngs=rngs))
        for _ in range(depth)
    ]
    return LanguageModel(vocabulary, width, blocks, rngs=rngs)


def selective_model(
    vocabulary, *, width=48, depth=4, inner=64, state=8, rngs: nnx.Rngs
) -> LanguageModel:
    """A selective state-space model in attention's place."""
    return hybrid(
        vocabulary, width=width, depth=depth, inner=inner, state=state, attend=(), rngs=rngs
    )


def hybrid(
    vocabulary, *, width=48, depth=4, heads=2, inner=64, state=8, attend=(2,), rngs: nnx.Rngs
) -> LanguageModel:
    """Attention in the blocks whose numbers `attend` names, a selective state space elsewhere."""
    blocks = [
        Block(
            width,
            CausalAttention(width, heads, rngs=rngs)
            if number in attend
            else SelectiveStateSpace(width, inner, state=state, rngs=rngs),
            FeedForward(width, 4 * width, rngs=rngs),
        )
        for number in range(depth)
    ]
    return LanguageModel(vocabulary, width, blocks, rngs=rngs)


def mixture_of_experts(
    vocabulary, *, width=48, depth=4, heads=2, experts=8, chosen=2, rngs: nnx.Rngs
) -> LanguageModel:
    """The Transformer with experts in every second block.

    Those that a position uses are together as wide as the feed-forward layer they replace, so that
    a position takes as many products.
    """
    blocks = [
        Block(
            width,
            CausalAttention(width, heads, rngs=rngs),
            MixtureOfExperts(width, 4 * width // chosen, experts, chosen=chosen, rngs=rngs)
            if number % 2
            else FeedForward(width, 4 * width, rngs=rngs),
        )
        for number in range(depth)
    ]
    return LanguageModel(vocabulary, width, blocks, rngs=rngs)
