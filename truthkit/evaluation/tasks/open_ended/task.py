"""Open-ended continuation, by the measures that contrastive search was published with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from truthkit.errors import ArgumentError
from truthkit.evaluation.benchmark import Benchmark, Config, Lines, Metric
from truthkit.evaluation.running.item import Item
from truthkit.evaluation.running.task import Task
from truthkit.likelihood.scoring_model import ScoringModel

if TYPE_CHECKING:
    from truthkit.evaluation.running.asking import Ask, Asking
    from truthkit.statistics.score import Score


def task(data: Path, *, scorer: str = "bundled", chat: bool = False, drop_last: bool = True) -> Task:
    """Repetition, diversity and coherence of continuations; MAUVE where mauve-text is installed and there
    are 20 references.

    Args:
        data: JSON, JSON lines or a table with "prompt" and, for all or none, "reference", a human continuation; or a
            .txt of one prompt per line
        scorer: model whose log-probability per token is the coherence, and whose hidden states are MAUVE's: hub id or
            folder (default: bundled; none leaves both out)
        chat: put the prompts as chat messages instead of going on from them
        drop_last: count n-grams as the authors' script, which stops one short of the last
    """
    from truthkit.evaluation.tasks.open_ended import scorer as open_ended
    from truthkit.files.reading import read_records, read_texts

    if data.suffix == ".txt":
        prompts = read_texts(data)
        references = None
    else:
        records = read_records(data)
        prompts = [record.text("prompt") for record in records]
        given = [record.text("reference", "completion", default="") for record in records]
        references = given if any(given) else None
        if references and not all(given):
            place = records[given.index("")].place
            raise ArgumentError(f"{place}: no 'reference', but other lines have one; give all of them one, or none.")
    items = [Item(str(number), prompt, raw=not chat) for number, prompt in enumerate(prompts, 1)]
    model = None if scorer == "none" else ScoringModel(None if scorer == "bundled" else scorer)

    def score(which: Sequence[int], outputs: Sequence[dict[str, Any]]) -> Score:
        return open_ended.score(
            [output["text"] for output in outputs],
            drop_last=drop_last,
            log_probs=[output["log_prob"] for output in outputs] if model else None,
            references=[references[i] for i in which] if references else None,
        )

    def with_mauve(score: Score, which: Sequence[int]) -> Score:
        texts = [item["text"] for item in score.items]
        if not (references and model and len(texts) >= open_ended.MAUVE_NEEDS and find_spec("mauve")):
            return score
        said, wanted = (
            model.features([f"{prompts[i]} {text}" for i, text in zip(which, side, strict=True)])
            for side in (texts, [references[i] for i in which])
        )
        return replace(score, config=score.config | {"mauve": open_ended.mauve(said, wanted)})

    config = {"scorer": scorer, "chat": chat, "drop_last": drop_last}
    return Task(
        "open-ended",
        items,
        score,
        "diversity",
        128,
        config,
        (data,),
        ask=_with_coherence(model),
        finish=with_mauve,
    )


def _with_coherence(model: ScoringModel | None) -> Ask:
    def ask(asking: Asking, batch: Sequence[Item], fixed: Any = None) -> list[dict[str, Any]]:
        """The continuations, each with its mean log-probability per token after its prompt; None for an empty one."""
        texts = asking.write(batch, fixed)
        if model is None:
            return [{"text": text} for text in texts]
        found = model.log_probs([item.prompt for item in batch], [f" {text}" if text else "" for text in texts])
        means = [total / tokens if tokens else None for total, tokens in found]
        return [{"text": text, "log_prob": mean} for text, mean in zip(texts, means, strict=True)]

    return ask


def _rescore(items: Lines, config: Config) -> Score:
    """The continuations again; references are not in the items."""
    from truthkit.evaluation.tasks.open_ended import scorer as open_ended

    found = open_ended.score(
        [item["text"] for item in items],
        drop_last=config["drop_last"],
        log_probs=[item.get("coherence") for item in items] if config["scorer"] != "none" else None,
    )
    return replace(found, clusters=[item["cluster"] for item in items], items=list(map(dict, items)))


def _remarks(config: Config) -> list[str]:
    return [f"MAUVE {config['mauve']:.4f}, features of {config['scorer']}"] if "mauve" in config else []


OPEN_ENDED = Benchmark(
    "open-ended",
    "open-ended text",
    task,
    metrics=(
        *(Metric(f"rep_{n}", f"rep-{n}", better=-1) for n in (2, 3, 4)),
        Metric("diversity"),
        *(Metric(f"reference_rep_{n}", f"rep-{n} of references", better=0) for n in (2, 3, 4)),
        Metric("reference_*", "* of references", better=0),
        Metric("coherence", share=False, unit="nats per token", digits=2),
    ),
    examples=(
        "truthkit eval open-ended --data prompts.jsonl --decoder contrastive_search:penalty_alpha=0.6,top_k=4 "
        "--max-new-tokens 128 --out runs/open",
    ),
    rescore=_rescore,
    outcomes=("texts", "mauve"),
    remarks=_remarks,
)
