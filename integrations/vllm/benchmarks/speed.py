"""Tokens per second of CPU time: `speed.py vllm FOLDER [DECODER]`; `speed.py truthkit FOLDER` with truthkit's Python.

DECODER: one of early exits. FOLDER: what tests/reference.py made. One thread, float32, greedy, 32 new tokens whatever
they are; batches of 1 and 8; the better of three runs, behind one that is not counted.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

TOKENS, BATCHES, RUNS = 32, (1, 8), 3


def measured(name: str, run: Callable[[int], Any]) -> None:
    """Print the rate of `run`, which writes `TOKENS` tokens for as many prompts as it is told."""
    rates = []
    for count in BATCHES:
        run(count)
        spent = []
        for _ in range(RUNS):
            began = time.process_time()
            run(count)
            spent.append(time.process_time() - began)
        rates.append(f"{count * TOKENS / min(spent):.1f}")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(name, *rates, f"{peak:.2f} GB at most so far", flush=True)


def on_vllm(folder: Path, given: dict[str, Any], decoder: str | None) -> None:
    os.environ |= {
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        "VLLM_LOGGING_LEVEL": "ERROR",
    }
    from vllm import LLM, SamplingParams

    from truthkit_vllm.requests import steered, views
    from truthkit_vllm.settings import engine

    usual = SamplingParams(temperature=0, max_tokens=TOKENS, ignore_eos=True)
    prompts, without = ([{"prompt_token_ids": row} for row in given[key]] for key in ("prompts", "without"))
    vector = f"{folder / 'love.safetensors'}:layers={given['layer']}"
    own = engine(architecture="LlamaForCausalLM", decoder=decoder) if decoder else engine(steer=vector, views=True)
    llm = LLM(given["model"], dtype="float32", max_model_len=512, block_size=32, disable_log_stats=True, **own)

    def run(prompts: list[Any], params: Any) -> None:
        llm.reset_prefix_cache()
        llm.generate(prompts, params, use_tqdm=False)

    measured(decoder or "greedy", lambda count: run(prompts[:count], usual))
    if not decoder:
        measured("steered", lambda count: run(prompts[:count], steered(usual, {"love": 2.0})))
        measured("cad", lambda count: run(*views("cad", list(zip(prompts, without, strict=True))[:count], usual)))


def on_transformers(folder: Path, given: dict[str, Any]) -> None:
    import torch
    import truthkit as tk

    torch.set_num_threads(1)
    model, tokenizer = tk.load()
    texts = tokenizer.batch_decode(given["prompts"])
    vector = tk.SteeringVector.load(folder / "love.safetensors")

    def run(count: int, attached: Any) -> None:
        batch = tokenizer(texts[:count], return_tensors="pt", padding=True)
        with attached:
            model.generate(**batch, max_new_tokens=TOKENS, min_new_tokens=TOKENS, do_sample=False)

    measured("greedy", lambda count: run(count, nullcontext()))
    measured("steered", lambda count: run(count, vector.steer(model, layers=given["layer"], strength=2.0)))
    contexts = [text.partition("\n\n")[0] for text in texts]
    measured("cad", lambda count: run(count, tk.CAD(model, tokenizer, context=contexts[:count])))
    for name, decoder in (("dola", tk.DoLa), ("sled", tk.SLED), ("deco", tk.DeCo)):
        measured(name, lambda count, decoder=decoder: run(count, decoder(model)))


def main(engine_name: str, folder: Path, decoder: str | None) -> None:
    given = json.loads((folder / "reference.json").read_text())
    if engine_name == "vllm":
        on_vllm(folder, given, decoder)
    else:
        on_transformers(folder, given)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), sys.argv[3] if len(sys.argv) > 3 else None)
