"""How much the faults of released codes change on the bundled model: each beside the formula, on the same states.

    python benchmarks/published.py --out published.json

Every line decodes eight short prompts together by the formula, 24 tokens each (those about images with `scene-vlm` and
eight scenes), and asks at every row and step whether
the released code's rule would have chosen another layer, another strength, or another token. What is a fault, and where
it was read, is on the page docs/methods/published-codes.md; no released code is run here.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

import truthkit as tk
from truthkit.decoding.engine.arithmetic import jensen_shannon
from truthkit.decoding.engine.view import ViewLogits
from truthkit.decoding.methods.coiecd import COIECD
from truthkit.scenes.questions import held_out
from truthkit.scenes.render import render

PASSAGES = (
    "The river Vell is 90 miles long and flows south.",
    "Honey was banned on the island of Sark in 1950.",
    "The moon of this planet is made of blue salt.",
    "Ada Lovelace was born in Naples.",
    "Cats have five legs in this story.",
    "Paris lost its tower to a storm last year.",
    "The capital of Australia is now Perth.",
    "Water boils at 60 degrees on that mountain.",
)
QUESTIONS = (
    "How long is the Vell?",
    "What was banned on Sark?",
    "What is the moon made of?",
    "Where was Ada Lovelace born?",
    "How many legs do cats have?",
    "What did Paris lose?",
    "What is the capital of Australia?",
    "At how many degrees does water boil?",
)
Judge = Callable[[Sequence[ViewLogits], torch.Tensor], torch.Tensor]
"""Given the views and the formula's scores of one step, whether each row's outcome is another one under the fault."""


def other_layer(views: Sequence[ViewLogits], _combined: torch.Tensor) -> torch.Tensor:
    """DoLa: the layer that is farthest on average over the batch."""
    (main,) = views
    assert main.exits is not None
    distance = jensen_shannon(main.logits, main.exits)[..., -1]
    return distance.argmax(dim=0) != distance.mean(dim=1).argmax()


def batch_strength(views: Sequence[ViewLogits], combined: torch.Tensor) -> torch.Tensor:
    """AdaCAD: the mean divergence of the batch as everybody's strength."""
    main, without = (view.logits[:, -1] for view in views)
    strength = jensen_shannon(main, without[None])[0].mean()
    return ((1 + strength) * main - strength * without).argmax(dim=-1) != combined[:, -1].argmax(dim=-1)


class EntropyCounts:
    """COIECD: the entropy term times a thousand, if it had an effect, and `form="paper"`, where it has one."""

    def __init__(self, paper: COIECD):
        self.paper = paper

    def no_effect(self, views: Sequence[ViewLogits], _combined: torch.Tensor) -> torch.Tensor:
        """Whether any token's place in the code's constraint changes with the entropy; float64, past rounding."""
        main, without = (view.logits[:, -1].double().log_softmax(dim=-1) for view in views)
        entropy = torch.special.entr(without.exp()).sum(dim=-1, keepdim=True)
        once, often = ((-main - factor * entropy).log_softmax(dim=-1) for factor in (1, 1000))
        return ((once - often).abs() > 1e-6).any(dim=-1)

    def other_token(self, views: Sequence[ViewLogits], combined: torch.Tensor) -> torch.Tensor:
        return self.paper.combine(*views)[:, -1].argmax(dim=-1) != combined[:, -1].argmax(dim=-1)


def one_step(model: Any) -> Judge:
    """SLED: one step, as where its code generates."""
    single = tk.SLED(model, layers="high", steps=1)

    def judge(views: Sequence[ViewLogits], combined: torch.Tensor) -> torch.Tensor:
        last = replace(views[0], logits=views[0].logits[:, -1:], exits=views[0].exits[:, :, -1:])  # type: ignore[index]
        return single.combine(last)[:, -1].argmax(dim=-1) != combined[:, -1].argmax(dim=-1)

    return judge


class FirstToken:
    """MoD: the gate of the first row at the first token, for all rows and tokens."""

    def __init__(self, threshold: float):
        self.threshold, self.first = threshold, torch.tensor(False)

    def __call__(self, views: Sequence[ViewLogits], _combined: torch.Tensor) -> torch.Tensor:
        main, other = views
        agrees = jensen_shannon(main.logits, other.logits[None])[0][:, -1] < self.threshold
        if main.step == 0:
            self.first = agrees[0]
        return agrees != self.first


def other_least(model: Any, rank: int) -> tuple[Any, Judge]:
    """SID: the first row's least attended image tokens, for all rows."""
    sid, chosen = tk.SID(model, rank=rank), []
    (edit,) = sid.views[1].attention

    def note(weights: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
        assert edit.hidden is not None
        hidden = edit.hidden(weights, images)
        chosen.append([row[at].tolist() for row, at in zip(hidden[:, -1], images[:, 0], strict=True)])
        return hidden

    noted = replace(sid.views[1], attention=(replace(edit, hidden=note),))
    decoder = tk.Agreement(model, view=noted, threshold=0.0)  # always taken away, as SID does

    def judge(_views: Sequence[ViewLogits], _combined: torch.Tensor) -> torch.Tensor:
        return torch.tensor([row != chosen[-1][0] for row in chosen[-1]])

    return decoder, judge


class BatchStatistics:
    """AvisC: blocks and threshold by the whole batch's attention, at the prompt."""

    def __init__(self, model: Any):
        self.decoder = tk.AvisC(model)
        self.changed: list[bool] = []
        (rewrite,) = [view.images for view in self.decoder.views[1:]]
        view = replace(self.decoder.views[1], images=lambda source: self._note(rewrite, source))
        self.watched = tk.Agreement(model, view=view, threshold=0.0)

    def _note(self, rewrite: Any, source: Any) -> Any:
        every = torch.stack(source.attention())
        share, order = (every.sum(dim=(0, 2)) / every.sum()).sort(descending=True)
        count = int((share.cumsum(dim=0) < self.decoder.layer_gamma).sum()) + 1
        mean = every[:, order[:count]].mean(dim=1)
        together = mean < mean.mean() + self.decoder.lam * mean.std()
        own = torch.stack([self.decoder.replaced(row) for row in every])
        self.changed = (together != own).any(dim=1).tolist()
        return rewrite(source)

    def __call__(self, views: Sequence[ViewLogits], _combined: torch.Tensor) -> torch.Tensor:
        return torch.tensor(self.changed)


def share(decoder: Any, judge: Judge, model: Any, inputs: Any, tokens: int) -> dict[str, float]:
    """How many of all rows and steps come out differently."""
    found: list[torch.Tensor] = []
    with decoder as session:
        session.observers.append(lambda views, combined: found.append(judge(views, combined)))
        model.generate(**inputs, do_sample=False, max_new_tokens=tokens, min_new_tokens=tokens)
    every = torch.stack(found).float()
    return {"changed": float(every.mean()), "rows and steps": every.numel()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=24, help="of every row (default: %(default)s)")
    parser.add_argument("--out", type=Path, help="write all figures here as JSON")
    args = parser.parse_args()
    torch.set_num_threads(1)
    model, tokenizer = tk.load()
    tokenizer.padding_side = "left"
    prompts = [f"{passage}\n\n{question}" for passage, question in zip(PASSAGES, QUESTIONS, strict=True)]
    inputs = tokenizer(prompts, return_tensors="pt", padding=True)
    context: dict[str, Any] = {"context": list(PASSAGES)}
    entropy = EntropyCounts(tk.COIECD(model, tokenizer, **context, form="paper"))
    lines: dict[str, tuple[Any, Judge]] = {
        "DoLa: the layer of the batch's mean is not the row's": (tk.DoLa(model), other_layer),
        "AdaCAD: the batch's mean strength gives another token": (
            tk.AdaCAD(model, tokenizer, **context),
            batch_strength,
        ),
        "COIECD: a thousandfold entropy changes the constraint": (
            tk.COIECD(model, tokenizer, **context),
            entropy.no_effect,
        ),
        "COIECD: the entropy, held against itself, gives another token": (
            tk.COIECD(model, tokenizer, **context),
            entropy.other_token,
        ),
        "SLED: one step instead of ten gives another token": (tk.SLED(model, layers="high"), one_step(model)),
        "MoD: the first row's first gate is not the row's": (
            tk.Agreement(model, tokenizer, view="icd"),
            FirstToken(0.05),
        ),
    }
    figures = {line: share(decoder, judge, model, inputs, args.tokens) for line, (decoder, judge) in lines.items()}
    seeing, processor = tk.load("scene-vlm")
    processor.tokenizer.padding_side = "left"
    pictures = [render(scene) for scene in held_out(8)]
    asked = ["USER: <image>\nDescribe the image in one sentence. ASSISTANT:"] * 8
    shown = processor(images=pictures, text=asked, return_tensors="pt")
    statistics = BatchStatistics(seeing)
    with_images: dict[str, tuple[Any, Judge]] = {
        "SID: the first row's least attended tokens are not the row's": other_least(seeing, 16),
        "AvisC: the batch's statistics blind other tokens": (statistics.watched, statistics),
    }
    for line, (decoder, judge) in with_images.items():
        figures[line] = share(decoder, judge, seeing, shown, args.tokens)
    for line, figure in figures.items():
        print(f"{line:64} {100 * figure['changed']:5.1f} % of {figure['rows and steps']:.0f}")
    if args.out:
        args.out.write_text(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
