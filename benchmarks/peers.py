"""Our directions beside those of the packages steering-vectors and repeng, on the same pairs.

Their version caps ask for an environment of their own, so the comparison has two steps. The file imports neither
truthkit nor the peers before it knows which step it is:

    pip install steering-vectors repeng                  # in a second environment
    python benchmarks/peers.py record MODEL peers.npz    # with its Python
    python benchmarks/peers.py compare MODEL peers.npz   # with truthkit's

MODEL is a folder that both can load. What is compared: the mean difference with steering-vectors' mean; our uncentred
PCA with its PCA; our centred PCA with repeng's "pca_diff". repeng reads `hidden_states[-1]` for the last block, which
is after the final norm, so the last layer is shown apart. A centred component may be nearly square to the mean
difference, and signs follow different rules (ours the mean difference, repeng's the majority of pairs): they are
counted apart.
"""

from __future__ import annotations

import argparse
import random
from typing import Any

import numpy as np

SUBJECTS = [
    "the weather",
    "my work",
    "this book",
    "the long journey to the coast",
    "dinner",
    "the news",
    "our old house",
]
HAPPY = ["delighted about", "happy with", "truly glad about", "in love with"]
SAD = ["disappointed by", "unhappy with", "truly sad about", "sick of"]
ENDS = ["", " today", " and I want everybody to know it", ", as I said before"]


def pairs(count: int) -> list[tuple[str, str]]:
    """Seeded pairs of sentences of mixed length."""
    draw = random.Random(0)
    made = []
    for _ in range(count):
        subject, end, kind = draw.choice(SUBJECTS), draw.choice(ENDS), draw.randrange(len(HAPPY))
        made.append((f"I am {HAPPY[kind]} {subject}{end}.", f"I am {SAD[kind]} {subject}{end}."))
    return made


def record(model_folder: str, out: str, count: int) -> None:
    """Directions of both peers, in an `.npz`."""
    import torch
    from repeng import ControlModel, DatasetEntry
    from repeng.extract import read_representations
    from steering_vectors import train_steering_vector
    from steering_vectors.aggregators import mean_aggregator, pca_aggregator
    from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

    torch.set_num_threads(1)
    # Folders written by transformers 5: release 4, which the peers are capped to, misreads these two.
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=f"{model_folder}/tokenizer.json", pad_token="<|im_end|>")
    config = AutoConfig.from_pretrained(model_folder)
    if rope := getattr(config, "rope_parameters", None):
        config.rope_theta = rope["rope_theta"]
    model = AutoModelForCausalLM.from_pretrained(model_folder, config=config, torch_dtype=torch.float32).eval()
    found: dict[str, np.ndarray] = {}
    for name, aggregator in (("mean", mean_aggregator()), ("pca", pca_aggregator())):
        vector = train_steering_vector(model, tokenizer, pairs(count), aggregator=aggregator, batch_size=8)
        for layer, direction in vector.layer_activations.items():
            found[f"steering-vectors {name} {layer}"] = direction.detach().float().numpy()
    blocks = model.config.num_hidden_layers
    entries = [DatasetEntry(positive=a, negative=b) for a, b in pairs(count)]
    wrapped: Any = ControlModel(model, [])
    directions = read_representations(wrapped, tokenizer, entries, hidden_layers=list(range(blocks)), batch_size=8)
    for layer, direction in directions.items():
        found[f"repeng pca_diff {layer}"] = direction
    np.savez(out, **found)  # type: ignore[arg-type]


def compare(model_folder: str, out: str, count: int) -> None:
    """Cosines between theirs and ours: the smallest over all layers, and that of the last layer."""
    import torch

    import truthkit as tk

    torch.set_num_threads(1)
    model, tokenizer = tk.load(model_folder)
    ours = {
        "steering-vectors mean": tk.extract(model, tokenizer, pairs(count), held_out=0),
        "steering-vectors pca": tk.extract(model, tokenizer, pairs(count), held_out=0, method="pca"),
        "repeng pca_diff": tk.extract(model, tokenizer, pairs(count), held_out=0, method="pca", centred=True),
    }
    theirs = np.load(out)
    for name, vector in ours.items():
        cosines = {}
        for layer in vector:
            a, b = vector[layer].double().numpy(), theirs[f"{name} {layer}"].astype(float)
            cosines[layer] = float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))
        *before, last = vector.layers
        least = min(abs(cosines[layer]) for layer in before)
        signs = sum(cosine > 0 for cosine in cosines.values())
        print(
            f"{name:22} |cosine| at least {least:.8f} in layers 0-{before[-1]}, {abs(cosines[last]):.6f} in the last; "
            f"same sign in {signs} of {len(cosines)} layers"
        )


def main() -> None:
    """Run one of the two steps."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("step", choices=["record", "compare"])
    parser.add_argument("model")
    parser.add_argument("file", help="the .npz between the two steps")
    parser.add_argument("--pairs", type=int, default=40)
    args = parser.parse_args()
    (record if args.step == "record" else compare)(args.model, args.file, args.pairs)


if __name__ == "__main__":
    main()
