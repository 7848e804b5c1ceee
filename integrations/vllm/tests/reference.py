"""The tokens that truthkit writes on transformers, as JSON: `TRUTHKIT_PYTHON tests/reference.py FOLDER`.

Run by the tests in truthkit's own environment; this one has another transformers.
"""

from __future__ import annotations

import json
import sys
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
import truthkit as tk
from truthkit.decoding.engine.prompt_views import with_instruction, without_context
from truthkit.decoding.methods.amateur import DISHONEST_PROMPT

TOKENS, LAYER, STRENGTH = 20, 15, 2.0
FACTS = (
    ("The capital of France", "Lyon", "What is the capital of France?"),
    ("The author of Romeo and Juliet", "Ben Jonson", "Who wrote Romeo and Juliet?"),
    ("The largest planet", "Saturn", "Which planet is the largest?"),
    ("The chemical symbol of gold", "Gd", "What is the chemical symbol of gold?"),
    ("The first man on the Moon", "Jim Lovell", "Who was the first man on the Moon?"),
    ("The tallest mountain", "K2", "What is the tallest mountain?"),
    ("The currency of Japan", "the won", "What is the currency of Japan?"),
    ("The inventor of the telephone", "Edison", "Who invented the telephone?"),
)
FILLER = " This statement was printed in the yearbook and repeated in the newspaper of the next day."
THINGS = ("the sea", "my work", "cats", "this city", "reading", "the rain", "music", "cooking", "winter", "tea")


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    model, tokenizer = tk.load()
    contexts = [
        f"According to the new report, {subject[0].lower()}{subject[1:]} is {wrong}.{FILLER * (i % 5)}"
        for i, (subject, wrong, _) in enumerate(FACTS * 2)
    ]
    texts = [f"{context}\n\nQuestion: {FACTS[i % 8][2]}\nAnswer:" for i, context in enumerate(contexts)]
    prompts = [tokenizer(text).input_ids for text in texts]
    batch = tokenizer(texts, return_tensors="pt", padding=True)
    seconds: dict[str, float] = {}

    def tokens(attached: Any, name: str) -> list[list[int]]:
        began = time.process_time()
        with attached:
            out = model.generate(**batch, max_new_tokens=TOKENS, do_sample=False)[:, batch.input_ids.shape[1] :]
        seconds[name] = time.process_time() - began
        rows = out.tolist()
        end = tokenizer.eos_token_id
        return [row[: row.index(end) + 1] if end in row else row for row in rows]

    vector = tk.extract(model, tokenizer, [(f"I love {thing}.", f"I hate {thing}.") for thing in THINGS])
    vector.save(folder / "love.safetensors")
    result = {
        "model": model.config._name_or_path,
        "prompts": prompts,
        "without": without_context(tokenizer, contexts)(prompts),
        "amateur": with_instruction(tokenizer, DISHONEST_PROMPT)(prompts),
        "layer": LAYER,
        "direction": vector[LAYER].tolist(),
        "greedy": tokens(nullcontext(), "greedy"),
        "dola": tokens(tk.DoLa(model), "dola"),
        "dola_low": tokens(tk.DoLa(model, layers="low", beta=0.0), "dola_low"),
        "cad": tokens(tk.CAD(model, tokenizer, context=contexts), "cad"),
        "icd": tokens(tk.ICD(model, tokenizer), "icd"),
        "plus": tokens(vector.steer(model, layers=LAYER, strength=STRENGTH), "plus"),
        "minus": tokens(vector.steer(model, layers=LAYER, strength=-STRENGTH), "minus"),
    }
    with vector.bake(model, layers=LAYER, strength=STRENGTH):
        model.save_pretrained(folder / "baked")
    tokenizer.save_pretrained(folder / "baked")
    (folder / "reference.json").write_text(json.dumps(result | {"seconds": seconds}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
