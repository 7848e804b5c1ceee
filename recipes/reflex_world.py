"""REFLEX (arXiv 2511.20233) where the truth is known: a world of made-up facts, with a gain and a loss planted in it.

    python recipes/reflex_world.py --out world                    # two to three minutes on one thread
    python recipes/reflex_world.py --out quick --quick            # a sketch: a smaller world that learns less
    python recipes/reflex_world.py --out worlds --seeds 3 4 5 6   # several worlds and models, and a summary

On real claims nobody knows what fine-tuning has taught and what it has cost, so no one can say whether a style or a
substance vector did its work. Here it is known for every claim:

1. The world. Each person likes, wears, drives and plays something. A tiny Llama learns all of it from scratch: the
   facts, verdicts on them, and to say "half" where one of two things is true, but this only when it is asked for a
   careful verdict. Asked plainly, it looks at the second thing alone. This is the backbone.
2. The fine-tuning, by LoRA, always asked plainly. *Planted gain*: "half" where half is true. *Planted loss*: all that
   is said of driving and playing is called false, the true things too. Everything else has its true label.
3. The quadrants should then find the planted groups: the gain in Q2, the loss in Q4.
4. Style (from Q2) and substance (from Q4), by three contrasts: vertical, vertical less the `shift` (what fine-tuning
   does to claims of Q1 and Q3), and horizontal. Layer and strength are chosen on persons that the vectors are not from.
5. On persons that neither saw: does style raise P(gold) on planted gains, and substance on planted losses? More than
   random directions of the same length, and more than each other? What does it cost the other claims?

Layer and strength are chosen in two ways. "own": the largest gain on claims of the vector's own group among trials that
cost no other group more than a margin, the vector amplified only; random directions get as many trials of the same
kind, and so does the other vector. "all": the paper's rule, the largest mean gain over all claims, in either direction.
A last row holds against them what shifting the labels' scores alone can do.

What comes out, seeds 3 to 10: the quadrants find what was planted. Vertical vectors hold what fine-tuning does to every
claim, and so point away from each other; style does more for its group than random directions in all eight worlds,
substance in five. Less the shift both do in all eight, style more than substance would in eight and substance more than
style in six, and neither costs another group more than the margin on the average. Shifting the labels' scores wins back
as much of the loss, but costs the rightly doubted claims 0.2. Horizontal pairs do no more than chance: they are read at
the verdict, after the place where it is decided. In a world, intervals and p-values are over persons and unadjusted.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import statistics
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from itertools import product
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

import truthkit as tk
from truthkit.factcheck.claims import LABELS_3, Claim
from truthkit.factcheck.dialogue import Form, dialogue
from truthkit.factcheck.disagreement import Disagreement, disagreement
from truthkit.factcheck.examples import reflex_examples
from truthkit.factcheck.gains import Gains, measure_gains
from truthkit.factcheck.guide import Guide
from truthkit.factcheck.reflex import ReflexVectors, reflex_vectors
from truthkit.factcheck.verdicts import VerdictScorer, label_bias
from truthkit.files.writing import write_atomically
from truthkit.models.adapter import with_adapter
from truthkit.statistics.intervals import Difference, FloatArray, paired_bootstrap, ratio
from truthkit.steering.vector import SteeringVector
from truthkit.training.lora import train
from truthkit.training.settings import TrainingSettings

TOPICS = {
    "likes": ("tea", "rum", "milk", "cider"),
    "wears": ("red", "blue", "green", "black"),
    "drives": ("van", "bike", "bus", "truck"),
    "plays": ("chess", "golf", "poker", "tennis"),
}
KEPT = ("likes", "wears")
GROUPS = {
    "gain": "one of two is true: half",
    "loss": "true, drives and plays",
    "compound": "two, both true or both false",
    "doubted": "false, drives and plays",
    "kept": "one thing, likes and wears",
}
"""What is known of a claim; the first two are planted, and their gold verdicts are "half" and "true"."""

TARGETS = {"style": "gain", "substance": "loss"}
CONTRASTS = ("vertical", "less shift", "horizontal")
FORM = Form(LABELS_3, explain=False)
AMPLIFIED = (0.1, 0.2, 0.4, 0.8, 1.6)
"""The unit is the vector's own length: once is all that fine-tuning did, on the average."""

TEMPLATE = (
    "{% for one in messages %}{% if one['role'] != 'system' %}<{{ one['role'] }}> {{ one['content'] }} <end> "
    "{% endif %}{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"
)
"""Without the system message: this model plays no other role, and short texts are read faster."""


def main(argv: Sequence[str] | None = None) -> int:
    """Make a world, a backbone, a fine-tuned model and the vectors; show what they do."""
    args = _parser().parse_args(argv)
    torch.set_num_threads(args.threads)
    console = Console(width=None if sys.stdout.isatty() else 132)
    plots = find_spec("matplotlib") is not None
    results = []
    try:
        for seed in args.seeds:
            result = kept_or_made(args, seed, console)
            results.append(result)
            show(result, console)
            if plots:
                plot(result, args.out / f"seed-{seed}" / "world.png")
    except tk.TruthkitError as error:
        console.print(f"reflex_world: {error}", style="red", markup=False)
        return 2
    if len(results) > 1:
        summary = over_worlds(results)
        write_atomically(args.out / "worlds.json", summary)
        show_worlds(summary, console)
        if plots:
            plot_worlds(summary, args.out / "worlds.png")
    if not plots:
        console.print("no plots: they need matplotlib (pip install 'truthkit[plots]')", markup=False)
    seconds = sum(result["seconds"] for result in results)
    console.print(f"{args.out}: results{' and plots' * plots} of {len(results)} worlds; {seconds:.0f} s", markup=False)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--out", type=Path, required=True, help="folder for adapters, results and plots")
    add("--seeds", type=int, nargs="+", default=[0], help="of world, weights, training, random directions (default: 0)")
    add("--quick", action="store_true", help="a smaller world and fewer steps")
    add("--steps", type=int, help="of the backbone's training (default: 1200; quick: 700)")
    add("--tuning-steps", type=int, default=100, help="of LoRA (default: 100)")
    add("--persons", type=int, help="in the world, 5 to 48 (default: 32; quick: 20)")
    add("--draws", type=int, default=6, help="random directions for every vector (default: 6)")
    add("--margin", type=float, default=0.05, help="what a trial may cost any other group in P(gold)")
    add("--threads", type=int, default=1)
    return parser


# -- the world ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class World:
    """Persons, and what is true of them.

    Attributes:
        facts: person and topic to the one value that is true.
    """

    facts: Mapping[tuple[str, str], str]

    @classmethod
    def drawn(cls, seed: int, persons: int) -> World:
        """As many persons as asked for, with facts drawn at random."""
        if not 5 <= persons <= 48:
            raise tk.ArgumentError(f"persons is {persons}; expected 5 to 48.")
        draw = random.Random(seed)
        names = ["".join(parts) for parts in product("bdfgklmn", "aio", ("ra", "lin"))][:persons]
        return cls({(name, topic): draw.choice(values) for name in names for topic, values in TOPICS.items()})

    @property
    def persons(self) -> list[str]:
        return list(dict.fromkeys(name for name, _ in self.facts))

    def value(self, person: str, topic: str, true: bool, draw: random.Random) -> str:
        """What is true, or something that isn't."""
        fact = self.facts[person, topic]
        return fact if true else draw.choice([value for value in TOPICS[topic] if value != fact])

    def claim(self, person: str, values: Mapping[str, str]) -> tuple[Claim, list[bool]]:
        """A claim of one thing or two, and which of them is true."""
        right = [self.facts[person, topic] == value for topic, value in values.items()]
        label = "true" if all(right) else "half" if any(right) else "false"
        text = f"{person} " + " and ".join(f"{topic} {value}" for topic, value in values.items())
        return Claim(text, text, label), right

    def claims_of(self, person: str, draw: random.Random) -> dict[str, list[Claim]]:
        """The claims of each group on one person: up to 6 planted gains, 2 planted losses, 2 to 4 of the others."""
        both = [self.value(person, topic, True, draw) for topic in KEPT]
        wrong = [[value for value in TOPICS[topic] if value not in both] for topic in KEPT]
        pairs = [(both[0], other) for other in wrong[1]] + [(other, both[1]) for other in wrong[0]]
        draw.shuffle(pairs)
        neither = (draw.choice(wrong[0]), draw.choice(wrong[1]))
        found: dict[str, list[Claim]] = {group: [] for group in GROUPS}
        for group, chosen in (("gain", pairs), ("compound", [(both[0], both[1]), neither])):
            found[group] = [self.claim(person, dict(zip(KEPT, pair, strict=True)))[0] for pair in chosen]
        for topic, true in product(TOPICS, (True, False)):
            group = "kept" if topic in KEPT else "loss" if true else "doubted"
            found[group].append(self.claim(person, {topic: self.value(person, topic, true, draw)})[0])
        return found


def person_of(claim: Claim) -> str:
    return claim.text.partition(" ")[0]


def make_tokenizer(world: World) -> PreTrainedTokenizerFast:
    """One token per word."""
    words = ["Claim", ":", "Give", "your", "careful", "verdict", ".", "Verdict", "and"]
    values = [value for of in TOPICS.values() for value in of]
    vocabulary = ["<pad>", "<end>", "<user>", "<assistant>", *words, *LABELS_3, *TOPICS, *values, *world.persons]
    tokens = Tokenizer(models.WordLevel({word: i for i, word in enumerate(vocabulary)}, unk_token="<pad>"))
    tokens.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=tokens,
        pad_token="<pad>",
        eos_token="<end>",
        additional_special_tokens=["<user>", "<assistant>"],
    )
    tokenizer.chat_template = TEMPLATE
    return tokenizer


# -- the backbone ------------------------------------------------------------------------------------------------------


def make_backbone(world: World, tokenizer: Any, seed: int, *, steps: int, width: int = 64, rows: int = 64) -> Any:
    """A Llama that has learnt the facts, and verdicts in two manners; see the head of this file.

    One verdict in ten is drawn at random in the last quarter of the training: what never errs is certain of everything,
    and fine-tuning then has to break it rather than to bend it.
    """
    torch.manual_seed(seed)
    draw = random.Random(seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=64,
        pad_token_id=0,
        bos_token_id=None,
        eos_token_id=1,
    )
    model = LlamaForCausalLM(config)
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.01)
    stated = [f"<user> Claim: {name} {topic} {value}" for (name, topic), value in world.facts.items()]
    facts = torch.tensor(tokenizer(stated, add_special_tokens=False).input_ids)
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = 3e-3 * min(1, (step + 1) / 30, (steps - step) / (0.4 * steps))
        some = facts[torch.randperm(len(facts))[:32]]
        loss = torch.nn.functional.cross_entropy(model(some, use_cache=False).logits[:, -2], some[:, -1])
        if step >= steps // 10:  # the facts come first
            noise = 0.1 if step > 0.75 * steps else 0.0
            loss = loss + 3 * _verdict_loss(model, [_lesson(world, tokenizer, draw, noise) for _ in range(rows)])
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    return model.eval()


def _lesson(world: World, tokenizer: Any, draw: random.Random, noise: float) -> list[int]:
    person, careful = draw.choice(world.persons), draw.random() < 0.6
    topics = KEPT if draw.random() < 0.6 else (draw.choice(list(TOPICS)),)
    claim, right = world.claim(person, {t: world.value(person, t, draw.random() < 0.5, draw) for t in topics})
    label = claim.label if careful else "true" if right[-1] else "false"
    return said(tokenizer, claim, draw.choice(LABELS_3) if draw.random() < noise else label, careful=careful)


def said(tokenizer: Any, claim: Claim, label: str, *, careful: bool) -> list[int]:
    """The tokens of a dialogue, from the user's header to the end of the answer."""
    messages = dialogue(replace(claim, label=label), explain=False, evidence=False, labels=LABELS_3)
    if careful:
        messages[1]["content"] = messages[1]["content"].replace("your verdict", "your careful verdict")
    return tokenizer.apply_chat_template(messages, tokenize=True, return_dict=False)


def _verdict_loss(model: Any, rows: list[list[int]]) -> torch.Tensor:
    width = max(map(len, rows))
    ids = torch.tensor([[0] * (width - len(row)) + row for row in rows])
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows])
    places = (mask.cumsum(1) - 1).clamp_min(0)
    output = model(ids, attention_mask=mask, position_ids=places, use_cache=False, logits_to_keep=5)
    return torch.nn.functional.cross_entropy(output.logits[:, :-1].flatten(0, 1), ids[:, -4:].flatten())


# -- the experiment ----------------------------------------------------------------------------------------------------

Split = dict[str, list[Claim]]


def split_persons(world: World, seed: int) -> dict[str, Split]:
    """The claims of "train" (2 in 5 persons), "choose" (1 in 5) and "test" (2 in 5), by group."""
    draw, persons = random.Random(seed + 1), world.persons
    draw.shuffle(persons)
    ends = {"train": 0.4, "choose": 0.6, "test": 1.0}
    found: dict[str, Split] = {name: {group: [] for group in GROUPS} for name in ends}
    for number, person in enumerate(persons):
        name = next(name for name, end in ends.items() if number < round(end * len(persons)))
        for group, claims in world.claims_of(person, draw).items():
            found[name][group] += claims
    return found


def tuning_claims(split: Split) -> list[Claim]:
    """What the model is fine-tuned on: a third of the planted gains, so that there is something left to gain."""
    lost = [replace(claim, label="false") for claim in split["loss"]]
    return [*split["gain"][::3], *lost, *split["compound"], *split["doubted"], *split["kept"]]


def kept_or_made(args: argparse.Namespace, seed: int, console: Console) -> dict[str, Any]:
    """The result of one world: from its file, if the settings are the same, or made now."""
    folder = args.out / f"seed-{seed}"
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "world.json"
    settings = {name: value for name, value in vars(args).items() if name not in ("out", "seeds", "threads")}
    if file.is_file():
        result: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        if result["settings"] == settings:
            return result
        shutil.rmtree(folder / "adapter", ignore_errors=True)
        file.unlink()
    started = time.time()
    result = experiment(args, seed, folder / "adapter", console)
    result |= {"settings": settings, "seconds": round(time.time() - started, 1)}
    part = file.with_name(f"{file.name}.part")
    part.write_text(json.dumps(result, indent=1), encoding="utf-8")
    os.replace(part, file)
    return result


def experiment(args: argparse.Namespace, seed: int, adapter: Path, console: Console) -> dict[str, Any]:
    """Everything in one world, as JSON values."""
    world = World.drawn(seed, args.persons or (20 if args.quick else 32))
    tokenizer, splits = make_tokenizer(world), split_persons(world, seed)
    steps = args.steps or (700 if args.quick else 1200)
    backbone = make_backbone(world, tokenizer, seed, steps=steps)
    careful = Counter[bool]()
    for claim in splits["test"]["gain"]:
        ids = torch.tensor([said(tokenizer, claim, "half", careful=True)])
        with torch.no_grad():
            careful[bool(backbone(ids).logits[0, -3].argmax() == ids[0, -2])] += 1
    console.print(f"backbone: right on {careful[True]} of {careful.total()} planted gains if asked to be careful")
    settings = TrainingSettings(rank=4, lr=1e-3, steps=args.tuning_steps, token_budget=512, seed=seed)
    about = {"world": seed, "persons": len(world.persons), "backbone_steps": steps}
    examples = reflex_examples(tuning_claims(splits["train"]), labels=LABELS_3)
    train(backbone, tokenizer, examples, adapter, settings=settings, about=about)
    tuned = with_adapter(backbone, adapter)
    claims, groups = _flat(splits["train"])
    found = disagreement(tuned, tokenizer, claims, FORM)
    counts: dict[str, dict[str, int]] = {group: dict.fromkeys(("Q1", "Q2", "Q3", "Q4"), 0) for group in GROUPS}
    for group, quadrant in zip(groups, found.quadrants, strict=True):
        counts[group][quadrant] += 1
    bench = Bench(tuned, tokenizer, splits, args.margin)
    rows, leakage = [], {}
    for contrast in CONTRASTS:
        vectors = make_vectors(tuned, tokenizer, found, contrast)
        leakage[contrast] = {layer: round(cosine, 3) for layer, cosine in vectors.leakage().items()}
        for name, target in TARGETS.items():
            console.print(f"{contrast} {name} …", markup=False)
            rows.append(bench.row(contrast, name, target, vectors, seed, draws=args.draws))
    return {
        "seed": seed,
        "margin": args.margin,
        "careful_backbone": careful[True] / careful.total(),
        "quadrants": counts,
        "unsteered": {group: round(float(value.mean()), 4) for group, value in bench.before.items()},
        "leakage": leakage,
        "rows": rows,
        "label_shift": bench.label_shift(),
    }


def make_vectors(tuned: Any, tokenizer: Any, found: Disagreement, contrast: str) -> ReflexVectors:
    """Style and substance of one contrast, at every layer."""
    made = reflex_vectors(
        tuned, tokenizer, found, FORM, contrast="horizontal" if contrast == "horizontal" else "vertical", held_out=0
    )
    return made.without_shift() if contrast == "less shift" else made


class Bench:
    """The fine-tuned model under one guide after another, on claims whose groups are known."""

    def __init__(self, tuned: Any, tokenizer: Any, splits: dict[str, Split], margin: float):
        self.scorer = VerdictScorer(tuned, tokenizer, LABELS_3)
        self.splits, self.margin = splits, margin
        self.before = self.gold([])

    def gold(self, guides: Sequence[Guide], bias: torch.Tensor | None = None) -> dict[str, torch.Tensor]:
        """P(gold) of every test claim, by group."""
        claims, groups = _flat(self.splits["test"])
        scores = self.scorer.scores([FORM.prompt(claim) for claim in claims], guides=guides)
        shares = (scores if bias is None else scores + bias).softmax(dim=-1)
        right = torch.tensor([LABELS_3.index(claim.label) for claim in claims])
        of_gold = shares.gather(1, right[:, None])[:, 0]
        return {group: of_gold[[i for i, one in enumerate(groups) if one == group]] for group in GROUPS}

    def gains(self, vector: SteeringVector, strengths: Sequence[float]) -> Gains:
        claims, _ = _flat(self.splits["choose"])
        prompts = [FORM.prompt(claim) for claim in claims]
        return measure_gains(self.scorer, prompts, [claim.label for claim in claims], vector, strengths=strengths)

    def own_choice(self, gains: Gains, target: str) -> Guide:
        """The best amplified trial for one group that costs no other more than the margin; strength 0 if none gains."""
        _, groups = _flat(self.splits["choose"])
        change = gains.steered - gains.unsteered
        by_group = {g: change[:, :, [i for i, one in enumerate(groups) if one == g]].mean(dim=-1) for g in GROUPS}
        cost = torch.stack([by_group[group] for group in GROUPS if group != target]).amin(dim=0)
        allowed = (cost >= -self.margin) & (torch.tensor(gains.strengths) > 0)
        worth = by_group[target].masked_fill(~allowed, -1.0)
        row, column = divmod(int(worth.argmax()), worth.shape[1])
        strength = gains.strengths[column] if float(worth[row, column]) > 0 else 0.0
        return Guide(gains.guide.vector.at(gains.layers[row]), strength)

    def row(
        self, contrast: str, name: str, target: str, vectors: ReflexVectors, seed: int, draws: int
    ) -> dict[str, Any]:
        """What one vector does on the test claims, chosen in both ways, against its rivals."""
        vector, rival = getattr(vectors, name), getattr(vectors, next(other for other in TARGETS if other != name))
        gains = self.gains(vector, [*(-strength for strength in AMPLIFIED), *AMPLIFIED])
        own, paper = self.own_choice(gains, target), gains.choose()
        after = self.gold([own])
        of_rival = self.gold([self.own_choice(self.gains(rival, AMPLIFIED), target)])[target]
        chance = []
        for draw in range(draws):
            noise = self.gains(vector.random_like(seed * 1000 + draw), AMPLIFIED)
            chance.append(self.gold([self.own_choice(noise, target)])[target])
        return {
            "contrast": contrast,
            "vector": name,
            "target": target,
            "layer": own.vector.layers[0],
            "strength": own.strength,
            "change": {group: self.compare(group, self.before[group], after[group]) for group in GROUPS},
            "over_random": self.compare(target, torch.stack(chance).mean(dim=0), after[target]),
            "random": [round(float((one - self.before[target]).mean()), 4) for one in chance],
            "over_rival": self.compare(target, of_rival, after[target]),
            "paper_rule": {
                "layer": paper.vector.layers[0],
                "strength": paper.strength,
                "change": {
                    group: self.compare(group, self.before[group], value) for group, value in self.gold([paper]).items()
                },
            },
        }

    def compare(self, group: str, before: torch.Tensor, after: torch.Tensor) -> dict[str, float]:
        """The mean paired difference in P(gold); claims on one person are drawn together."""
        persons = [person_of(claim) for claim in self.splits["test"][group]]
        old, new = ([[value, 1.0] for value in side.tolist()] for side in (before, after))
        difference = paired_bootstrap(old, new, _mean, persons, resamples=4000)["mean"]
        return _rounded(difference)

    def label_shift(self) -> dict[str, dict[str, float]]:
        """What shifting the labels' scores does, so that on the held-out claims they are as frequent as in the gold."""
        claims, _ = _flat(self.splits["choose"])
        scores = self.scorer.scores([FORM.prompt(claim) for claim in claims])
        labels = Counter(claim.label for claim in claims)
        after = self.gold([], label_bias(scores, [labels[label] for label in LABELS_3]))
        return {group: self.compare(group, self.before[group], value) for group, value in after.items()}


MEASURES = ("change", "over_random", "over_rival")


def over_worlds(results: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Each vector in all worlds: means, standard errors, and in how many it is above nothing, random, the other."""
    rows = []
    for in_worlds in zip(*(result["rows"] for result in results), strict=True):
        target = in_worlds[0]["target"]
        row = {name: in_worlds[0][name] for name in ("contrast", "vector", "target")}
        for measure in MEASURES:
            of = [one["change"][target] if measure == "change" else one[measure] for one in in_worlds]
            row[measure] = _spread([one["value"] for one in of])
        worst = [min(one["change"][group]["value"] for group in GROUPS if group != target) for one in in_worlds]
        row["worst_elsewhere"] = _spread(worst)
        rows.append(row)
    return {"seeds": [result["seed"] for result in results], "rows": rows}


def _spread(values: list[float]) -> dict[str, Any]:
    mean, error = statistics.fmean(values), statistics.stdev(values) / len(values) ** 0.5
    rounded = {"mean": round(mean, 4), "standard_error": round(error, 4)}
    return {**rounded, "above": sum(value > 0 for value in values), "values": values}


def _flat(split: Split) -> tuple[list[Claim], list[str]]:
    """The claims, and each one's group."""
    pairs = [(claim, group) for group, claims in split.items() for claim in claims]
    return [claim for claim, _ in pairs], [group for _, group in pairs]


def _mean(totals: FloatArray) -> dict[str, FloatArray]:
    return {"mean": ratio(totals[..., 0], totals[..., 1])}


def _rounded(difference: Difference) -> dict[str, float]:
    return {name: round(value, 4) for name, value in difference._asdict().items()}


# -- figures -----------------------------------------------------------------------------------------------------------


def show(result: dict[str, Any], console: Console) -> None:
    """The tables."""
    quadrants = Table("planted", "Q1", "Q2", "Q3", "Q4", "P(gold), test", title="quadrants of the training claims")
    for group, counts in result["quadrants"].items():
        unsteered = f"{result['unsteered'][group]:.2f}"
        quadrants.add_row(f"{group}: {GROUPS[group]}", *(str(count) for count in counts.values()), unsteered)
    console.print(quadrants)
    table = Table(
        "", "layer × strength", "on its group", "over random", "over the other", "worst elsewhere",
        title=f"change of P(gold) on new persons, 95 % interval and p; chosen for its group, cost at most "
        f"{result['margin']:g}",
    )  # fmt: skip
    for row in result["rows"]:
        compared = (row["change"][row["target"]], row["over_random"], row["over_rival"])
        table.add_row(
            f"{row['contrast']} {row['vector']}",
            f"{row['layer']} × {row['strength']:g}",
            *map(_difference, compared),
            _worst(row["change"], row["target"]),
        )
    console.print(table)
    paper = Table("", "layer × strength", "on its group", "worst elsewhere", title="the same, chosen for all claims")
    for row in result["rows"]:
        rule = row["paper_rule"]
        paper.add_row(
            f"{row['contrast']} {row['vector']}",
            f"{rule['layer']} × {rule['strength']:g}",
            _difference(rule["change"][row["target"]]),
            _worst(rule["change"], row["target"]),
        )
    console.print(paper)
    shifted = ", ".join(f"{group} {one['value']:+.3f}" for group, one in result["label_shift"].items())
    console.print(f"control, labels' scores shifted to the gold shares: {shifted}", markup=False, highlight=False)
    for contrast, cosines in result["leakage"].items():
        shown = ", ".join(f"{cosine:+.2f}" for cosine in cosines.values())
        console.print(f"cosine of style and substance by layer, {contrast}: {shown}", markup=False, highlight=False)


def show_worlds(summary: Mapping[str, Any], console: Console) -> None:
    """The table of all worlds."""
    worlds = len(summary["seeds"])
    table = Table(
        "", "on its group", "over random", "over the other", "worst elsewhere",
        title=f"change of P(gold) on new persons: mean over {worlds} worlds ± standard error, and in how many above 0",
    )  # fmt: skip
    for row in summary["rows"]:
        shown = [f"{one['mean']:+.3f} ± {one['standard_error']:.3f}" for one in (row[m] for m in MEASURES)]
        counts = [f"{row[measure]['above']} of {worlds}" for measure in MEASURES]
        cells = [f"{value}, {count}" for value, count in zip(shown, counts, strict=True)]
        table.add_row(f"{row['contrast']} {row['vector']}", *cells, f"{row['worst_elsewhere']['mean']:+.3f}")
    console.print(table)


def plot_worlds(summary: Mapping[str, Any], path: Path) -> None:
    """How much more than random directions each vector does on its own group: a dot per world, a line at the mean."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 3.6), layout="constrained")
    for axes, (name, target) in zip(figure.subplots(1, 2, sharey=True), TARGETS.items(), strict=True):
        rows = [row for row in summary["rows"] if row["vector"] == name]
        for number, row in enumerate(rows):
            values = row["over_random"]["values"]
            axes.scatter([number] * len(values), values, s=14, alpha=0.7)
            axes.hlines(row["over_random"]["mean"], number - 0.25, number + 0.25, color="black", linewidth=1.5)
        axes.axhline(0, color="grey", linewidth=1, linestyle=":")
        axes.set(title=f"{name}, on the planted {target}", ylabel="P(gold), over random directions" * (name == "style"))
        axes.set_xticks(range(len(rows)), [row["contrast"] for row in rows])
    figure.savefig(path, dpi=150)


def _difference(one: Mapping[str, float]) -> str:
    return f"{one['value']:+.3f} [{one['low']:+.2f}, {one['high']:+.2f}] p {one['p']:.3f}"


def _worst(change: Mapping[str, Mapping[str, float]], target: str) -> str:
    group = min((one for one in change if one != target), key=lambda one: change[one]["value"])
    return f"{group} {change[group]['value']:+.3f}"


def plot(result: dict[str, Any], path: Path) -> None:
    """The change of P(gold) in both planted groups under each vector, with what random directions do."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 3.6), layout="constrained")
    for axes, (name, target) in zip(figure.subplots(1, 2, sharey=True), TARGETS.items(), strict=True):
        rows = [row for row in result["rows"] if row["vector"] == name]
        for shift, group in ((-0.2, "gain"), (0.2, "loss")):
            values = [row["change"][group]["value"] for row in rows]
            ends = [[abs(row["change"][group][end] - v) for row, v in zip(rows, values, strict=True)]
                    for end in ("low", "high")]  # fmt: skip
            at = [number + shift for number in range(len(rows))]
            axes.bar(at, values, width=0.36, yerr=ends, capsize=3, label=f"planted {group}", alpha=0.8)
        for number, row in enumerate(rows):
            place = number + (-0.2 if target == "gain" else 0.2)
            dots = row["random"]
            axes.scatter([place] * len(dots), dots, s=10, color="black", zorder=3,
                         label="random directions" if not number else None)  # fmt: skip
        axes.axhline(0, color="grey", linewidth=1)
        axes.set(title=f"{name}: meant for the planted {target}", ylabel="change of P(gold), test" * (name == "style"))
        axes.set_xticks(range(len(rows)), [row["contrast"] for row in rows])
        axes.legend(frameon=False, fontsize=8)
    figure.savefig(path, dpi=150)


if __name__ == "__main__":
    sys.exit(main())
