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
from transformers import Qwen2Config, Qwen2ForCausalLM, Qwen3Config, Qwen3ForCausalLM
from truthkit.decoding.engine.prompt_views import with_instruction, without_context
from truthkit.decoding.methods.amateur import DISHONEST_PROMPT
from truthkit.models.shipped_amateur import FOLDER

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


def tiny(model_class: Any, config_class: Any, folder: Path) -> dict[str, Any]:
    """A random model under decoders of early exits, and under DoLa and steering at once."""
    torch.manual_seed(0)
    config = config_class(
        vocab_size=512,
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=6,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=64,
        initializer_range=0.2,
        eos_token_id=None,
        pad_token_id=0,
    )
    model = model_class(config).eval()
    model.save_pretrained(folder)
    vector = tk.SteeringVector({2: torch.randn(128), 3: torch.randn(128)}, 6)
    vector.save(folder.with_suffix(".safetensors"))  # vLLM takes all of its folder for weights
    prompts = torch.randint(1, 512, (4, 24))

    def tokens() -> list[list[int]]:
        mask = torch.ones_like(prompts)
        out = model.generate(prompts, attention_mask=mask, max_new_tokens=TOKENS, do_sample=False)
        return out[:, prompts.shape[1] :].tolist()

    found: dict[str, Any] = {"prompts": prompts.tolist()}
    for name, decoder in (("dola", tk.DoLa), ("sled", tk.SLED), ("deco", tk.DeCo)):
        with decoder(model):
            found[name] = tokens()
    with vector.steer(model, layers="all", strength=1.5), tk.DoLa(model):  # exits of a steered block are steered
        return found | {"both": tokens()}


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
        "sled": tokens(tk.SLED(model), "sled"),
        "sled_high": tokens(tk.SLED(model, layers="high", evolution_scale=50, steps=1, norm=True), "sled_high"),
        "deco": tokens(tk.DeCo(model), "deco"),
        "deco_all": tokens(tk.DeCo(model, layers="all", alpha=1.5, top_k=5, norm=False), "deco_all"),
        "cad": tokens(tk.CAD(model, tokenizer, context=contexts), "cad"),
        "icd": tokens(tk.ICD(model, tokenizer, amateur="prompt"), "icd"),
        "icd_adapter": tokens(tk.ICD(model, tokenizer), "icd_adapter"),
        "adapter": str(FOLDER),
        "plus": tokens(vector.steer(model, layers=LAYER, strength=STRENGTH), "plus"),
        "minus": tokens(vector.steer(model, layers=LAYER, strength=-STRENGTH), "minus"),
    }
    with vector.bake(model, layers=LAYER, strength=STRENGTH):
        model.save_pretrained(folder / "baked")
    tokenizer.save_pretrained(folder / "baked")
    result["tiny"] = {
        "qwen2": tiny(Qwen2ForCausalLM, Qwen2Config, folder / "qwen2"),
        "qwen3": tiny(Qwen3ForCausalLM, Qwen3Config, folder / "qwen3"),
    }
    (folder / "reference.json").write_text(json.dumps(result | {"seconds": seconds}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
