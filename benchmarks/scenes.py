"""What image-text decoders do to the test model's hallucinations, with the controls that such a table needs.

    python benchmarks/scenes.py --scenes 500 --out scenes.json

On held-out scenes in which no object has its usual partner, the bundled `scene-vlm` answers POPE's yes/no questions
(random, popular and adversarial, as many present as absent objects) and describes every picture. Methods are run as
their papers run them, sampling at temperature 1, and by greedy search. The controls: greedy, sampling, sampling at
RITUAL's temperature 1 / (1 + alpha) = 0.25, and the plausibility constraint alone. Intervals are 95 % bootstrap
intervals over scenes; p is McNemar's exact test of the yes/no answers against greedy's, paired bootstrap for captions.
The model is a test model, trained to hallucinate in this way: nothing here says anything about real models.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

import truthkit as tk
from truthkit.evaluation import pope
from truthkit.evaluation.intervals import bootstrap, mcnemar, paired_bootstrap, ratio
from truthkit.scenes.questions import CAPTION_PROMPT, KINDS, held_out, mentions, questions
from truthkit.scenes.render import render

Decoder = Callable[[list[Image.Image]], AbstractContextManager[Any]]

SAMPLING = {"do_sample": True, "temperature": 1.0, "top_k": 0, "top_p": 1.0}


def ways(model: Any, processor: Any, seed: int) -> dict[str, tuple[Decoder, dict[str, Any]]]:
    """Every method with its options of `generate`."""
    alone: Decoder = lambda _images: nullcontext()  # noqa: E731
    methods: dict[str, Decoder] = {
        "VCD": lambda _images: tk.VCD(model, seed=seed),
        "M3ID": lambda _images: tk.M3ID(model, processor),
        "RITUAL": lambda images: tk.RITUAL(model, processor, images=images, seed=seed),
        "RITUAL+": lambda images: tk.RITUALPlus(model, processor, images=images, seed=seed),
        "RITUAL + VCD": lambda images: tk.RITUAL(model, processor, images=images, seed=seed) + tk.VCD(model, seed=seed),
        "RITUAL + M3ID": lambda images: (
            tk.RITUAL(model, processor, images=images, seed=seed) + tk.M3ID(model, processor)
        ),
    }
    found: dict[str, tuple[Decoder, dict[str, Any]]] = {
        "greedy": (alone, {"do_sample": False}),
        "sampling": (alone, SAMPLING),
        "sampling, temperature 0.25": (alone, {**SAMPLING, "temperature": 0.25}),
        "sampling, constraint alone": (lambda _images: tk.APC(model), SAMPLING),
    }
    found |= {f"{name}, sampling": (method, SAMPLING) for name, method in methods.items()}
    found |= {f"{name}, greedy": (method, {"do_sample": False}) for name, method in methods.items()}
    return found


def answer(
    model: Any, processor: Any, pictures: Sequence[Image.Image], texts: Sequence[str], way: Any, new: int, title: str
) -> list[str]:
    """The answers to as many questions about as many pictures, in batches."""
    decoder, options = way
    replies: list[str] = []
    for start in tqdm(range(0, len(texts), 64), desc=title, leave=False):
        images, asked = list(pictures[start : start + 64]), texts[start : start + 64]
        prompts = [
            processor.apply_chat_template(
                [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": text}]}],
                add_generation_prompt=True,
                tokenize=False,
            )
            for text in asked
        ]
        inputs = processor(images=images, text=prompts, padding=True, return_tensors="pt")
        with decoder(images):
            output = model.generate(**inputs, max_new_tokens=new, **options)
        replies += processor.batch_decode(output[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    return replies


def caption_counts(texts: Sequence[str], scenes: Sequence[Any]) -> np.ndarray:
    """For each caption: absent objects, absent partners, mentions, whether any is absent, objects found, objects."""
    rows = []
    for text, scene in zip(texts, scenes, strict=True):
        named = mentions(text)
        absent = [name for name in named if name not in scene.names]
        partners = [name for name in absent if name in scene.absent_partners]
        found = len(named) - len(absent)
        rows.append([len(absent), len(partners), len(named), bool(absent), found, len(scene.names), 1])
    return np.array(rows, dtype=float)


def captions(totals: np.ndarray) -> dict[str, np.ndarray]:
    """CHAIR's measures of such totals."""
    absent, partners, named, hallucinated, found, present, count = np.moveaxis(totals, -1, 0)
    return {
        "chair_s": ratio(hallucinated, count),
        "chair_i": ratio(absent, named),
        "recall": ratio(found, present),
        "absent_partner_share": ratio(partners, absent),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes", type=int, default=500, help="held-out scenes (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of scenes, transforms, noise and sampling")
    parser.add_argument("--only", default="", help="greedy, and the methods whose name contains this")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, help="write all figures here as JSON")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)

    model, processor = tk.load("scene-vlm")
    scenes = held_out(args.scenes, args.seed)
    pictures = [render(scene) for scene in scenes]
    rng = random.Random(args.seed)
    asked = [
        pope.Question("", str(number), question.text, "yes" if question.present else "no", kind)
        for number, scene in enumerate(scenes)
        for kind in KINDS
        for question in questions(scene, rng, kind=kind)
    ]
    seen = [pictures[int(question.image)] for question in asked]
    print(f"{len(scenes)} scenes, {len(asked)} questions, seed {args.seed}")

    results: dict[str, Any] = {}
    before: dict[str, Any] = {}
    for name, way in ways(model, processor, args.seed).items():
        if name != "greedy" and args.only not in name:
            continue
        start = time.perf_counter()
        torch.manual_seed(args.seed)
        replies = answer(model, processor, seen, [question.text for question in asked], way, 4, f"{name}: questions")
        texts = answer(model, processor, pictures, [CAPTION_PROMPT] * len(scenes), way, 48, f"{name}: captions")
        score, described = pope.score(asked, replies), caption_counts(texts, scenes)
        right = [item["correct"] for item in score.items]
        before = before or {"right": right, "captions": described}
        change = paired_bootstrap(before["captions"], described, captions)
        record: dict[str, Any] = {
            "seconds": time.perf_counter() - start,
            "questions": score.metrics,
            "questions_intervals": score.intervals(),
            "by_kind": {kind: part.metrics for kind, part in pope.by_category(score).items()},
            "captions": {metric: float(value) for metric, value in captions(described.sum(axis=0)).items()},
            "captions_intervals": bootstrap(described, captions),
            "mcnemar": mcnemar(before["right"], right)._asdict(),
            "captions_change": {metric: difference._asdict() for metric, difference in change.items()},
        }
        results[name] = record
        print(_line(name, record), flush=True)
        if args.out:
            args.out.write_text(
                json.dumps({"config": vars(args) | {"out": str(args.out)}, "results": results}, indent=2)
            )


def _line(name: str, record: dict[str, Any]) -> str:
    def shown(part: str, metric: str) -> str:
        low, high = record[f"{part}_intervals"][metric]
        return f"{100 * record[part][metric]:5.1f} [{100 * low:.1f}, {100 * high:.1f}]"

    kinds = " ".join(f"{100 * record['by_kind'][kind]['accuracy']:.1f}" for kind in KINDS)
    return (
        f"{name:28} acc {shown('questions', 'accuracy')} ({kinds})  f1 {shown('questions', 'f1')}  "
        f"yes {shown('questions', 'yes_ratio')}  p {record['mcnemar']['p']:.2g}  |  "
        f"chair_s {shown('captions', 'chair_s')}  chair_i {shown('captions', 'chair_i')}  "
        f"recall {shown('captions', 'recall')}  p {record['captions_change']['chair_i']['p']:.2g}  "
        f"({record['seconds']:.0f} s)"
    )


if __name__ == "__main__":
    main()
