r"""REFLEX (arXiv 2511.20233) from end to end: a fact-checker, what it gained and lost, and vectors for both.

    python recipes/reflex.py --out reflex                          # SmolLM2 on LIAR-RAW; an hour or two on two cores
    python recipes/reflex.py --out quick --quick                   # every stage once, in four minutes of one core
    python recipes/reflex.py --out reflex --seeds 0 1 2            # three seeds
    python recipes/reflex.py --out rawfc --labels 2 --train rawfc_val.json --test rawfc_test.json --learnt-words 120

For every seed: role-play fine-tuning (claim to verdict; claim to verdict and explanation), quadrants of backbone and
fine-tuned model on the training claims, style and substance vectors from them, and a single truth direction beside
them; layer, sign and strength by the gain on held-out training claims; guided verdicts on the test claims; explanations
before and after cleaning; self-refinement on Q2 and Q4, and on as many claims drawn at random. Then one table with
intervals, paired tests against the fine-tuned model, and controls that see no claim; and plots.

Every stage leaves its result in the output folder. The same command goes on where it was stopped; a command with other
settings starts the stages afresh that depend on them.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from reflex_results import plot, show, summarised
from rich.console import Console
from stages import Stages, write_json

import truthkit as tk
from truthkit.evaluation.tasks.factcheck.scorer import implied
from truthkit.factcheck.claims import LABELS_2, LABELS_3, LABELS_6, Claim, merge_label, read_claims, write_claims
from truthkit.factcheck.dialogue import Form
from truthkit.factcheck.disagreement import Disagreement, as_backbone, refinement_claims
from truthkit.factcheck.examples import reflex_examples
from truthkit.factcheck.gains import measure_gains
from truthkit.factcheck.guide import Guide
from truthkit.factcheck.overlap import overlapping
from truthkit.factcheck.reflex import ReflexVectors, along_vectors, horizontal_pairs, reflex_vectors
from truthkit.factcheck.verdicts import VerdictScorer, as_verdicts, label_bias
from truthkit.files.writing import strict
from truthkit.steering.vector import SteeringVector
from truthkit.training.lora import train
from truthkit.training.settings import TrainingSettings

SHARED = Path(os.environ.get("TRUTHKIT_SHARED") or Path(__file__).resolve().parents[2] / "shared") / "data"

ONE_DIRECTION = 0.95
"""A cosine of style and substance beyond which neither can do what the other does not."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run what the command line asks for, from where an earlier run of it stopped."""
    args = _parser().parse_args(argv)
    if args.quick:
        _make_quick(args, argv)
    torch.set_num_threads(args.threads)
    console, started = Console(width=None if sys.stdout.isatty() else 132), time.time()
    try:
        args.out.mkdir(parents=True, exist_ok=True)
        runs = [Run(args, seed, console).results() for seed in args.seeds]
        summary = summarised(runs) | {"config": json.loads(json.dumps(vars(args), default=str))}
    except tk.TruthkitError as error:
        console.print(f"reflex: {error}", style="red", markup=False)
        return 2
    write_json(args.out / "summary.json", strict(summary))
    show(console, summary)
    if find_spec("matplotlib") is None:
        console.print("no plots: they need matplotlib (pip install 'truthkit[plots]')", markup=False)
    else:
        plot(args.out, runs)
    console.print(f"{args.out}: summary.json and plots; {time.time() - started:.0f} s", markup=False)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--out", type=Path, required=True, help="folder for everything that is made")
    add("--quick", action="store_true", help="few claims, steps, layers and strengths, where not given")
    add("--model", help="hub id or folder (default: the bundled model)")
    add("--dtype", default="float32", help="of scoring; bfloat16 rounds probabilities (default: float32)")
    add("--train-dtype", help="of the frozen weights in training (default: as --dtype)")
    add("--train", type=Path, nargs="+", default=[SHARED / "factcheck/val_joined.jsonl"], help="claims to train on")
    add("--more", type=Path, nargs="*", default=[SHARED / "liar/train.tsv"], help="claims for verdicts only")
    add("--test", type=Path, nargs="+", default=[SHARED / "factcheck/test_joined.jsonl"])
    add("--transfer", type=Path, nargs="*", help="claims of another dataset, in two labels, to guide as well")
    add("--labels", type=int, choices=(6, 3, 2), default=3)
    sizes = parser.add_argument_group("sizes")
    sizes.add_argument("--train-claims", type=int, default=0, help="0 is all but the held-out ones")
    sizes.add_argument("--more-claims", type=int, default=1000)
    sizes.add_argument("--held-out", type=int, default=200, help="training claims to choose layer and strength on")
    sizes.add_argument("--test-claims", type=int, default=0, help="0 is all")
    sizes.add_argument("--explained", type=int, default=40, help="test claims whose explanations are generated")
    sizes.add_argument("--explanation-tokens", type=int, default=120)
    training = parser.add_argument_group("training")
    training.add_argument("--epochs", type=float, default=1.0)
    training.add_argument("--steps", type=int, help="so many steps instead")
    training.add_argument("--refine-epochs", type=float, default=1.0)
    training.add_argument("--lr", type=float, default=5e-4)
    training.add_argument("--refine-lr", type=float, default=1e-4)
    training.add_argument("--rank", type=int, default=16)
    training.add_argument("--step-tokens", type=int, default=1024)
    training.add_argument("--learnt-words", type=int, default=400, help="of a gold explanation; 0 is all")
    reflex = parser.add_argument_group("REFLEX")
    reflex.add_argument("--backbone-verdicts", choices=("raw", "even"), default="even", help="for the quadrants [ours]")
    reflex.add_argument("--contrast", choices=("vertical", "horizontal"), default="vertical")
    reflex.add_argument("--method", choices=("mean", "logistic"), default="mean")
    reflex.add_argument("--orthogonal", action="store_true", help="take style out of substance")
    reflex.add_argument("--without-shift", action="store_true", help="take what fine-tuning does to all claims out")
    reflex.add_argument("--layers", type=int, nargs="+", help="to choose from (default: all)")
    reflex.add_argument("--strengths", type=float, nargs="+", default=[-8.0, -4.0, -2.0, -1.0, 1.0, 2.0, 4.0, 8.0])
    reflex.add_argument("--positions", choices=("generated", "prompt", "all"), default="generated")
    reflex.add_argument("--penalty", type=float, default=0.0, help="standard errors off a gain; 0 is the paper's rule")
    reflex.add_argument("--balanced", action="store_true", help="gains count classes alike")
    add("--seeds", type=int, nargs="+", default=[0])
    add("--token-budget", type=int, default=2048)
    add("--threads", type=int, default=1)
    return parser


_QUICK: dict[str, Any] = {
    "train_claims": 48,
    "more_claims": 0,
    "held_out": 12,
    "test_claims": 24,
    "explained": 1,
    "explanation_tokens": 16,
    "steps": 10,
    "step_tokens": 256,
    "learnt_words": 25,
    "refine_epochs": 0.5,
    "strengths": [-4.0, 4.0],
    "layers": [4, 14, 24],
}
"""Enough for every stage to have something to work on, and far too little for a result."""


def _make_quick(args: argparse.Namespace, argv: Sequence[str] | None) -> None:
    given = {word.partition("=")[0] for word in (sys.argv[1:] if argv is None else argv)}
    for name, value in _QUICK.items():
        if f"--{name.replace('_', '-')}" not in given:
            setattr(args, name, value)


_DECIDES = {
    "training": "model dtype train_dtype train more test labels epochs steps lr rank step_tokens learnt_words",
    "quadrants": "backbone_verdicts",
    "refinement": "refine_epochs refine_lr",
    "states": "contrast method",
    "choice": "orthogonal without_shift layers strengths positions penalty balanced",
}
"""What a stage may depend on, and the arguments that decide it."""

GUIDING = "training quadrants states choice"


class Run:
    """One seed: its claims, its stages, its results."""

    def __init__(self, args: argparse.Namespace, seed: int, console: Console):
        self.args, self.seed, self.console = args, seed, console
        self.out = args.out / f"seed-{seed}"
        self.form = Form({6: LABELS_6, 3: LABELS_3, 2: LABELS_2}[args.labels], explain=True)
        self.labels = self.form.labels
        self._model: Any = None
        self._adapter: tuple[str | None, Any] = (None, None)
        self._split()
        decides = {part: [getattr(args, name) for name in names.split()] for part, names in _DECIDES.items()}
        decides["training"] += [seed, _ids(self.train), _ids(self.more)]
        decides["choice"].append(_ids(self.held))
        decides["test"] = _ids(self.test)
        self.stages = Stages(self.out, decides, self.say)

    # -- claims --------------------------------------------------------------------------------------------------------

    def _split(self) -> None:
        args, draw = self.args, random.Random(self.seed)
        test = [claim for file in args.test for claim in read_claims(file, labels=self.labels)]
        train = self._unseen([c for file in args.train for c in read_claims(file, labels=self.labels)], args.test)
        more = self._unseen([c for file in args.more for c in read_claims(file, labels=self.labels)], args.test)
        known = {claim.text for claim in train}
        more = [claim for claim in more if claim.text not in known]
        draw.shuffle(train)
        self.held, self.train = train[: args.held_out], train[args.held_out :]
        self.train = [_shortened(claim, args.learnt_words) for claim in self.train[: args.train_claims or None]]
        self.more = draw.sample(more, min(args.more_claims, len(more)))
        fixed = random.Random(0)  # every seed is tested on the same claims
        self.test = fixed.sample(test, min(args.test_claims, len(test))) if args.test_claims else test
        if len(self.train) < 2 or not self.held:
            raise tk.ArgumentError(f"{len(train)} training claims are too few to hold {args.held_out} of them out.")
        self.say(
            f"seed {self.seed}: {len(self.train)} training claims, {len(self.more)} for verdicts only, "
            f"{len(self.held)} held out, {len(self.test)} to test on"
        )

    def _unseen(self, claims: list[Claim], files: Sequence[Path]) -> list[Claim]:
        if not claims:
            return claims
        seen = {i for file in files for i in overlapping([claim.text for claim in claims], file)}
        if seen:
            self.say(f"{len(seen)} training claims stand in the test files too and are left out")
        return [claim for i, claim in enumerate(claims) if i not in seen]

    def say(self, text: str) -> None:
        self.console.print(text, markup=False, highlight=False)

    # -- the whole -----------------------------------------------------------------------------------------------------

    def results(self) -> dict[str, Any]:
        """Everything this seed comes to, stage by stage."""
        self.adapter("sft_verdict", self.train + self.more, ["verdict"])
        explained = ["explained", "verdict"] if self.more else ["explained"]
        self.adapter("sft", self.train + self.more, explained)
        stage = self.stages.run
        zero = stage("zero_shot", lambda: self.scored(None, self.test), "training test")
        only = stage("sft_verdict", lambda: self.scored("sft_verdict", self.test, explain=False), "training test")
        found = self.quadrants()
        vectors = self.vectors(found)
        guides = self.guides(vectors)
        guided = stage("guided", lambda: self.guided(guides), f"{GUIDING} test")
        self.refine(found)
        refined = {
            name: stage(name, partial(self.scored, name, self.test), "training quadrants refinement test")
            for name in ("refined", "refined_random")
        }
        sizes = [self.args.explained, self.args.explanation_tokens]
        explanations = stage("explanations", lambda: self.explain(guides), f"{GUIDING} test", sizes=sizes)
        onwards = stage("verdict_guided", lambda: self.onwards(vectors), f"{GUIDING} test")
        transfer = None
        if self.args.transfer:
            transfer = stage("transfer", lambda: self.transfer(guides), GUIDING, data=self.args.transfer)
        train_labels = [claim.label for claim in self.train]
        prior = [max(train_labels.count(label), 1) / len(train_labels) for label in self.labels]
        on_train = self.stages.kept("disagreement")
        evened = {
            "zero_shot_even": _shifted(zero, _bias(on_train["backbone_scores"], None)),
            "sft_even": _shifted(guided["sft"], _bias(on_train["tuned_scores"], prior)),
        }
        rows = {"zero_shot": zero, "sft_verdict": only, **evened, **guided, **refined, "verdict_guided": onwards}
        return {
            "seed": self.seed,
            "labels": list(self.labels),
            "test": [{"id": claim.id, "label": claim.label} for claim in self.test],
            "train_labels": train_labels,
            "scores": rows,
            "quadrants": found.counts(),
            "by_label": _by_label(found),
            "projections": stage("projections", lambda: self.projected(found, vectors), GUIDING),
            "vectors": self.stages.kept("vectors") | {"leakage_used": self.stages.kept("used")},
            "gains": {name: self.stages.kept(f"gains_{name}") for name in guides},
            "chosen": {name: _chosen(guide) for name, guide in guides.items()},
            "refined_claims": len(refinement_claims(found)),
            "explanations": explanations,
            "transfer": transfer,
        }

    # -- models --------------------------------------------------------------------------------------------------------

    def adapter(self, name: str, claims: Sequence[Claim], formats: list[str], start: str | None = None) -> Path:
        """Train an adapter, or go on with it, or leave it as it is."""
        out = self.out / f"adapter-{name}"
        settings = TrainingSettings(
            rank=self.args.rank,
            lr=self.args.refine_lr if start else self.args.lr,
            epochs=self.args.refine_epochs if start else self.args.epochs,
            steps=None if start else self.args.steps,
            token_budget=self.args.step_tokens,
            seed=self.seed,
        )

        def make() -> dict[str, Any]:
            model, tokenizer = tk.load(self.args.model, dtype=self.args.train_dtype or self.args.dtype)
            report = train(
                model,
                tokenizer,
                reflex_examples(claims, formats=formats, labels=self.labels),
                out,
                settings=settings,
                start=self.out / f"adapter-{start}" if start else None,
                progress=sys.stderr.isatty(),
            )
            losses = report["losses"]
            few = max(1, len(losses) // 5)
            return {
                "steps": report["steps"],
                "examples": report["data"]["examples"],
                "loss_unit": report["loss_unit"],
                "loss": [round(sum(part) / few, 4) for part in (losses[:few], losses[-few:])],
            }

        needs = "training quadrants refinement" if start else "training"
        made = self.stages.run(f"train_{name}", make, needs, out)
        first, last = made["loss"]
        self.say(
            f"  {name}: {made['examples']} examples, {made['steps']} steps, loss {first} -> {last} {made['loss_unit']}"
        )
        return out

    def model(self, adapter: str | None) -> tuple[Any, Any]:
        """The model with one of this seed's adapters; None is the plain one."""
        if self._model is None:
            self._model = tk.load(self.args.model, dtype=self.args.dtype)
        model, tokenizer = self._model
        if self._adapter[0] != adapter:
            if self._adapter[1] is not None:
                self._adapter[1].unload()
                vars(model).pop("peft_config", None)
            wrapped = None
            if adapter is not None:
                from truthkit.models.adapter import with_adapter

                wrapped = with_adapter(model, self.out / f"adapter-{adapter}")
            self._adapter = (adapter, wrapped)
        return self._adapter[1] or model, tokenizer

    def scorer(self, adapter: str | None) -> VerdictScorer:
        return VerdictScorer(*self.model(adapter), self.labels, token_budget=self.args.token_budget)

    def prompts(self, claims: Sequence[Claim], explain: bool = True) -> list[Any]:
        form = Form(self.labels, explain=explain)
        return [form.prompt(claim) for claim in claims]

    def scored(self, adapter: str | None, claims: Sequence[Claim], explain: bool = True) -> list[list[float]]:
        return _rounded(self.scorer(adapter).scores(self.prompts(claims, explain)))

    # -- REFLEX --------------------------------------------------------------------------------------------------------

    def quadrants(self) -> Disagreement:
        def make() -> dict[str, Any]:
            model, tokenizer = self.model("sft")
            tuned = self.scored("sft", self.train)
            with as_backbone(model) as backbone:
                scorer = VerdictScorer(backbone, tokenizer, self.labels, token_budget=self.args.token_budget)
                before = scorer.scores(self.prompts(self.train))
            return {"backbone_scores": _rounded(before), "tuned_scores": tuned}

        made = self.stages.run("disagreement", make, "training")
        shift = _bias(made["backbone_scores"], None) if self.args.backbone_verdicts == "even" else None
        verdicts = [
            tuple(as_verdicts(torch.tensor(made[name], dtype=torch.float64), self.labels, by))
            for name, by in (("backbone_scores", shift), ("tuned_scores", None))
        ]
        found = Disagreement(tuple(self.train), *verdicts)
        counts = found.counts()
        self.say("  quadrants: " + ", ".join(f"{name} {count}" for name, count in counts.items()))
        return found

    def vectors(self, found: Disagreement) -> dict[str, SteeringVector]:
        """Style and substance as they are used, a single truth direction, and a random one, of every layer."""
        files = {name: self.out / f"states-{name}.safetensors" for name in ("style", "substance", "truth", "shift")}
        shift = files.pop("shift")  # horizontal pairs have none, nor have claims that are all in Q2 and Q4

        def make() -> dict[str, Any]:
            model, tokenizer = self.model("sft")
            options: dict[str, Any] = {"method": self.args.method, "seed": self.seed}
            options["token_budget"] = self.args.token_budget
            made = reflex_vectors(model, tokenizer, found, self.form, contrast=self.args.contrast, **options)
            pairs = horizontal_pairs(found, range(len(found.claims)), self.form)
            truth = tk.extract(model, tokenizer, pairs, **options)
            shift.unlink(missing_ok=True)
            if made.shift is not None:
                made.shift.save(shift)
            for name, vector in (("style", made.style), ("substance", made.substance), ("truth", truth)):
                vector.save(files[name])
            return {"leakage": _leakage(made), "auc": _aucs(made, truth)}

        self.stages.run("vectors", make, "training quadrants states", *files.values())
        read = {name: SteeringVector.load(file) for name, file in files.items()}
        used = ReflexVectors(read["style"], read["substance"], SteeringVector.load(shift) if shift.is_file() else None)
        used = used.without_shift() if self.args.without_shift else used
        used = used.orthogonalised() if self.args.orthogonal else used
        layer, cosine = max(used.leakage().items(), key=lambda item: abs(item[1]))
        self.say(f"  style and substance: cosine up to {cosine:+.4f}, at layer {layer}")
        if self.args.without_shift:
            before, after = (sum(vector.norms().values()) for vector in (read["style"], used.style))
            self.say(f"  less the shift, style is {after / before:.1%} as long; strengths are in units of that length")
        elif abs(cosine) > ONE_DIRECTION:
            self.say("  they are one direction, what fine-tuning does to every claim; --without-shift takes it out")
        vectors = {"style": used.style, "substance": used.substance, "truth": read["truth"]}
        vectors["random"] = used.style.random_like(self.seed)

        results = {name: self.out / f"{name}.safetensors" for name in ("style", "substance")}

        def keep() -> dict[int, float]:
            for name, file in results.items():
                vectors[name].save(file)
            return _leakage(used)

        self.stages.run("used", keep, GUIDING, *results.values())
        return vectors

    def guides(self, vectors: dict[str, SteeringVector]) -> dict[str, Guide]:
        """Each vector with the layer, sign and strength of its largest gain on the held-out claims."""
        guides: dict[str, Guide] = {}
        for name in ("truth", "style", "substance", "substance_after_style", "random"):
            given = [guides["style"]] if name == "substance_after_style" else []
            guides[name] = self.chosen(name, vectors[name.partition("_")[0]], "sft", given)
        return guides

    def chosen(self, name: str, vector: SteeringVector, adapter: str, given: list[Guide]) -> Guide:
        file = self.out / f"guide-{name}.safetensors"

        def make() -> dict[str, Any]:
            layers = [layer for layer in self.args.layers or vector.layers if layer <= vector.layers[-1]]
            gains = measure_gains(
                self.scorer(adapter),
                self.prompts(self.held, explain=adapter != "sft_verdict"),
                [claim.label for claim in self.held],
                vector,
                layers=layers or vector.layers,
                strengths=self.args.strengths,
                positions=self.args.positions,
                guides=given,
                balanced=self.args.balanced,
                progress=sys.stderr.isatty(),
            )
            gains.choose(penalty=self.args.penalty).save(file)
            return gains.as_dict() | {"by_layer": gains.by_layer()}

        self.stages.run(f"gains_{name}", make, GUIDING, file)
        guide = Guide.load(file)
        about = guide.vector.provenance["selection"]
        self.say(
            f"  {name}: layer {about['layer']}, strength {guide.strength:g}, gain {about['gain']:+.4f} "
            f"± {about['standard_error']:.4f} (standard error) in {about['unit']}, {about['examples']} held-out claims"
        )
        return guide

    def guided(self, guides: dict[str, Guide]) -> dict[str, Any]:
        sets = {
            "sft": [],
            "truth": [guides["truth"]],
            "style": [guides["style"]],
            "substance": [guides["substance"]],
            "both": [guides["style"], guides["substance_after_style"]],
            "random": [guides["random"]],
        }
        scores = self.scorer("sft").scores_under(self.prompts(self.test), list(sets.values()))
        return {name: _rounded(one) for name, one in zip(sets, scores, strict=True)}

    def onwards(self, vectors: dict[str, SteeringVector]) -> list[list[float]]:
        """The verdict-only model under the explained one's style and substance, layer and strength chosen anew."""
        first = self.chosen("verdict_style", vectors["style"], "sft_verdict", [])
        second = self.chosen("verdict_substance", vectors["substance"], "sft_verdict", [first])
        prompts = self.prompts(self.test, explain=False)
        return _rounded(self.scorer("sft_verdict").scores(prompts, guides=[first, second]))

    def refine(self, found: Disagreement) -> None:
        """Train on with Q2 and Q4, and with as many claims drawn from all quadrants."""
        chosen = refinement_claims(found)
        write_claims(chosen, self.out / "refine.jsonl")
        drawn = random.Random(self.seed).sample(self.train, len(chosen))
        self.adapter("refined", chosen, ["explained"], start="sft")
        self.adapter("refined_random", drawn, ["explained"], start="sft")

    def projected(self, found: Disagreement, vectors: dict[str, SteeringVector]) -> dict[str, Any]:
        """The fine-tuned model's states along style and substance, at the layer chosen for the style."""
        axes = [vectors["style"], vectors["substance"]]
        layer = Guide.load(self.out / "guide-style.safetensors").vector.layers[0]
        numbers = [i for name in ("Q1", "Q2", "Q3", "Q4") for i in found.of(name)[:60]]
        model, tokenizer = self.model("sft")
        prompts = self.prompts([found.claims[i] for i in numbers])
        along = along_vectors(model, tokenizer, prompts, axes, layer=layer, token_budget=self.args.token_budget)
        names = found.quadrants
        return {"layer": layer, "quadrants": [names[i] for i in numbers], "along": _rounded(along)}

    # -- explanations and other data -----------------------------------------------------------------------------------

    def explain(self, guides: dict[str, Guide]) -> dict[str, Any]:
        """Explanations of the fine-tuned model, alone and guided, before and after cleaning by the style vector."""
        claims = [claim for claim in self.test if claim.explanation][: self.args.explained]
        if not claims:
            return {}
        model, tokenizer = self.model("sft")
        made: dict[str, Any] = {}
        for name, vectors in (
            ("sft", {}),
            ("both", {"style": guides["style"], "substance": guides["substance_after_style"]}),
        ):
            checker = tk.FactChecker(
                model,
                tokenizer,
                vectors=vectors,
                labels=self.labels,
                clean_by=_amplifying(guides["style"]),
                max_new_tokens=self.args.explanation_tokens,
                token_budget=self.args.token_budget,
            )
            checks = checker.check_all([Claim(claim.id, claim.text, claim.label) for claim in claims])
            made[name] = [check.as_dict() | {"tokens": []} for check in checks]
        backbone = self.scorer(None)
        for rows in made.values():
            for form in ("explanation", "cleaned"):
                for row, label in zip(rows, implied(backbone, [row[form] for row in rows]), strict=True):
                    row[f"{form}_implies"] = label
        for rows in made.values():
            for row, claim in zip(rows, claims, strict=True):
                row |= {"id": claim.id, "label": claim.label, "reference": claim.explanation}
        return made

    def transfer(self, guides: dict[str, Guide]) -> dict[str, Any]:
        """Another dataset in two labels: what is half true counts as false."""
        claims = [claim for file in self.args.transfer for claim in read_claims(file, labels=LABELS_2)]
        prompts = self.prompts(claims)
        sets = [[], [guides["style"]], [guides["style"], guides["substance_after_style"]]]
        scores = self.scorer("sft").scores_under(prompts, sets)
        return {
            "labels": [claim.label for claim in claims],
            "true": [i for i, label in enumerate(self.labels) if merge_label(label, LABELS_2) == "true"],
            "scores": {name: _rounded(s) for name, s in zip(("sft", "style", "both"), scores, strict=True)},
        }


# -- small parts -------------------------------------------------------------------------------------------------------


def _shortened(claim: Claim, words: int | None) -> Claim:
    """A claim with the first sentences of its explanation, or the first words where no sentence ends among them."""
    if not words or claim.explanation is None:
        return claim
    kept = " ".join(claim.explanation.split()[:words])
    whole = re.match(r".*[.!?][\"'”’)]*(?=\s|$)", kept, re.DOTALL)
    return replace(claim, explanation=whole[0] if whole else kept)


def _ids(claims: Sequence[Claim]) -> list[str]:
    return [claim.id for claim in claims]


def _rounded(scores: torch.Tensor) -> list[list[float]]:
    return [[round(value, 5) for value in row] for row in scores.tolist()]


def _bias(scores: list[list[float]], prior: list[float] | None) -> list[float]:
    return label_bias(torch.tensor(scores, dtype=torch.float64), prior).tolist()


def _shifted(scores: list[list[float]], bias: list[float]) -> list[list[float]]:
    return [[value + by for value, by in zip(row, bias, strict=True)] for row in scores]


def _leakage(vectors: ReflexVectors) -> dict[int, float]:
    return {layer: round(cosine, 4) for layer, cosine in vectors.leakage().items()}


def _aucs(vectors: ReflexVectors, truth: SteeringVector) -> dict[str, dict[int, float]]:
    named = {"style": vectors.style, "substance": vectors.substance, "truth": truth}
    return {name: {layer: one["auc"] for layer, one in vector.scores.items()} for name, vector in named.items()}


def _by_label(found: Disagreement) -> dict[str, dict[str, int]]:
    """How many claims of each gold label a quadrant has: a quadrant of one label says nothing but that label."""
    counts: dict[str, dict[str, int]] = {}
    for claim, name in zip(found.claims, found.quadrants, strict=True):
        of = counts.setdefault(name, {})
        of[claim.label] = of.get(claim.label, 0) + 1
    return counts


def _chosen(guide: Guide) -> dict[str, Any]:
    about = guide.vector.provenance["selection"]
    return {name: about[name] for name in ("layer", "strength", "gain", "standard_error", "examples")}


def _amplifying(guide: Guide) -> SteeringVector:
    """The style as it is amplified: turned round where a negative strength was chosen."""
    return -guide.vector if guide.strength < 0 else guide.vector


if __name__ == "__main__":
    sys.exit(main())
