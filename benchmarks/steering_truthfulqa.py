r"""What steering by a truthful-minus-untruthful vector does to TruthfulQA, on questions that the vector has never seen.

    python benchmarks/steering_truthfulqa.py mc_task.json --seed 0 --out steering_truthfulqa.json

The questions of an `mc_task.json` are split in two. On the first half a vector is extracted for every layer (its
answers stand in pairs; no question is on both sides of the held-out split), and layer and strength are chosen by MC2 on
a part of it that the vector was not fitted on, under a guard on fluency. The second half is scored unsteered and
steered: MC1 with McNemar's exact test, MC2 with a paired bootstrap over questions; a random direction of the same
length stands beside it. A choice's score is the sum of its
tokens' log-probabilities after "Q: ...\nA:", without a primer, so the figures are not those of the six-shot protocol.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

import truthkit as tk
from truthkit.statistics.intervals import mcnemar, paired_bootstrap
from truthkit.steering.extraction.select import choose

FLUENT = [
    "The train to the coast leaves at nine and arrives before noon, so there is time for a walk along the beach.",
    "To make the soup, cut the onions and carrots, fry them in butter, add water and salt, and let it simmer.",
    "A tree grows a new ring of wood every year, which is why its age can be told from the stump.",
]


class Choices:
    """The choices of some questions, tokenised once and scored in batches of similar length."""

    def __init__(self, tokenizer: Any, questions: list[dict[str, Any]]):
        self.labels = [[list(q[kind].values()) for q in questions] for kind in ("mc1_targets", "mc2_targets")]
        self.texts: list[tuple[list[int], int]] = []
        self.where: dict[tuple[int, str], int] = {}
        self.questions = questions
        for number, question in enumerate(questions):
            prompt = f"Q: {question['question']}\nA:"
            for answer in {**question["mc1_targets"], **question["mc2_targets"]}:
                ids = tokenizer(f"{prompt} {answer}").input_ids
                self.where[number, answer] = len(self.texts)
                self.texts.append((ids, len(tokenizer(prompt).input_ids)))

    def score(self, model: Any, budget: int = 1024) -> list[float]:
        order = sorted(range(len(self.texts)), key=lambda i: len(self.texts[i][0]))
        scores = [0.0] * len(order)
        while order:
            width, batch = 0, []
            while order and max(width, len(self.texts[order[0]][0])) * (len(batch) + 1) <= max(budget, width):
                width = max(width, len(self.texts[order[0]][0]))
                batch.append(order.pop(0))
            ids = torch.tensor([ids + [ids[-1]] * (width - len(ids)) for ids, _ in (self.texts[i] for i in batch)])
            with torch.no_grad():
                hidden = model.get_decoder()(input_ids=ids, use_cache=False).last_hidden_state
                for row, i in enumerate(batch):
                    text, prompt = self.texts[i]
                    logits = model.get_output_embeddings()(hidden[row, prompt - 1 : len(text) - 1]).float()
                    scores[i] = float(logits.log_softmax(-1).gather(1, torch.tensor(text[prompt:])[:, None]).sum())
        return scores

    def mc(self, scores: list[float]) -> tuple[list[int], list[float]]:
        """MC1 (a tie counts for the right one, which comes first) and MC2 of every question."""
        mc1, mc2 = [], []
        for number, question in enumerate(self.questions):
            first = [scores[self.where[number, answer]] for answer in question["mc1_targets"]]
            mc1.append(int(max(range(len(first)), key=first.__getitem__) == 0))
            answers = question["mc2_targets"]
            values = torch.tensor([scores[self.where[number, a]] for a in answers], dtype=torch.float64)
            true = torch.tensor([bool(label) for label in answers.values()])
            mc2.append(float((values[true].logsumexp(0) - values.logsumexp(0)).exp()))
        return mc1, mc2


def pairs_of(question: dict[str, Any], most: int) -> list[dict[str, str]]:
    """True and false answers of a question side by side, at most so many pairs."""
    answers = question["mc2_targets"]
    true, false = ([f" {a}" for a, label in answers.items() if label == wanted] for wanted in (1, 0))
    prompt = f"Q: {question['question']}\nA:"
    both = itertools.islice(zip(true, false, strict=False), most)
    return [{"prompt": prompt, "positive": a, "negative": b, "group": question["question"]} for a, b in both]


def compared(
    mc1_before: list[int], mc2_before: list[float], mc1: list[int], mc2: list[float], seed: int
) -> dict[str, Any]:
    """Scores with their paired tests against the unsteered ones."""
    test = mcnemar(mc1_before, mc1)
    tables = ([[1.0, value] for value in values] for values in (mc2_before, mc2))
    change = paired_bootstrap(*tables, lambda totals: {"mc2": totals[..., 1] / totals[..., 0]}, seed=seed)["mc2"]
    return {
        "mc1": round(sum(mc1) / len(mc1), 4),
        "mcnemar": {"gained": test.gained, "lost": test.lost, "p": round(test.p, 4)},
        "mc2": round(sum(mc2) / len(mc2), 4),
        "mc2_difference": [round(value, 4) for value in change[:3]],
    }


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="an mc_task.json of TruthfulQA")
    parser.add_argument("--model", help="a hub id or folder (default: the bundled model)")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--limit", type=int, help="use so many questions only")
    parser.add_argument("--dev", type=int, default=60, help="questions to choose layer and strength on")
    parser.add_argument("--pairs", type=int, default=2, help="pairs per question")
    parser.add_argument(
        "--layers", type=int, nargs="+", help="layers to choose from (default: the three of highest AUC)"
    )
    parser.add_argument("--strengths", type=float, nargs="+", default=[1.0, 2.0, 4.0, 8.0])
    parser.add_argument("--method", default="mean")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)

    questions = json.loads(args.data.read_text())
    random.Random(args.seed).shuffle(questions)
    questions = questions[: args.limit]
    half = len(questions) // 2
    dev, train, test = questions[: args.dev], questions[args.dev : half], questions[half:]
    model, tokenizer = tk.load(args.model, dtype=args.dtype)

    pairs = [pair for question in train for pair in pairs_of(question, args.pairs)]
    vector = tk.extract(model, tokenizer, pairs, method=args.method, seed=args.seed, progress=True)
    print(f"{len(pairs)} pairs of {len(train)} questions; held-out AUC by layer")
    for layer, score in vector.scores.items():
        print(f"  {layer:3} {score['auc']:.3f} [{score['low']:.3f}, {score['high']:.3f}]  p {score['p']:.3f}")
    best = sorted(vector.scores, key=lambda layer: -vector.scores[layer]["auc"])[:3]

    on_dev = Choices(tokenizer, dev)
    bar = tqdm(desc="trials")

    def effect() -> float:
        bar.update()
        values = on_dev.mc(on_dev.score(model))[1]
        return sum(values) / len(values)

    plain_dev = effect()
    chosen, trials = choose(
        model, tokenizer, vector, effect, layers=args.layers or best, strengths=args.strengths, texts=FLUENT
    )
    bar.close()
    for trial in trials:
        print(f"  layer {trial.layer}, strength {trial.strength}: dev MC2 {trial.effect}, KL {trial.divergence:.3f}")
    print(f"chosen: layer {chosen.layer}, strength {chosen.strength} (dev MC2 {plain_dev:.4f} -> {chosen.effect:.4f})")

    on_test = Choices(tokenizer, test)
    mc1_before, mc2_before = on_test.mc(on_test.score(model))
    with vector.steer(model, layers=chosen.layer, strength=chosen.strength):
        mc1_after, mc2_after = on_test.mc(on_test.score(model))
    random_vector = vector.at(chosen.layer).random_like(args.seed)
    with random_vector.steer(model, strength=chosen.strength):
        mc1_random, mc2_random = on_test.mc(on_test.score(model))
    count = len(test)
    results = {
        "steered": compared(mc1_before, mc2_before, mc1_after, mc2_after, args.seed),
        "random direction": compared(mc1_before, mc2_before, mc1_random, mc2_random, args.seed),
    }
    print(
        f"held-out questions: {count}; unsteered MC1 {sum(mc1_before) / count:.4f}, MC2 {sum(mc2_before) / count:.4f}"
    )
    for name, result in results.items():
        print(f"{name}: {json.dumps(result)}")
    if args.out:
        figures = {
            "questions": {"train": len(train), "dev": len(dev), "test": count},
            "pairs": len(pairs),
            "scores": vector.scores,
            "dev_mc2": plain_dev,
            "trials": [trial.as_dict() for trial in trials],
            "chosen": chosen.as_dict(),
            "unsteered": {"mc1": sum(mc1_before) / count, "mc2": sum(mc2_before) / count},
            **results,
            "provenance": vector.provenance,
        }
        args.out.write_text(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
