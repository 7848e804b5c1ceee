"""Questions about a passage that contradicts what a model remembers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from truthkit.evaluation.benchmark import Benchmark, Metric
from truthkit.evaluation.running.hub import HubData, HubFile
from truthkit.evaluation.running.item import Item
from truthkit.evaluation.running.task import Task
from truthkit.evaluation.tasks.answers import answer_of, in_order_of
from truthkit.evaluation.tasks.sets import by_category, files_of

if TYPE_CHECKING:
    from truthkit.evaluation.benchmark import Config, Lines
    from truthkit.evaluation.running.asking import Asking
    from truthkit.statistics.score import Score

_HUB = HubData(
    "pminervini/NQ-Swap",
    "dev",
    {
        "nq-swap.json": HubFile(
            None, lambda row: {name: row[name] for name in ("question", "sub_context", "sub_answer", "org_answer")}
        )
    },
)


def task(data: Path, *, chat: bool = False) -> Task:
    """Written answers to questions about a passage that contradicts what a model remembers.

    Args:
        data: nq_synth.jsonl, NQ-Swap, any file of records with "context", "question" and "answers", or a folder of
            such files; or hub, which is NQ-Swap
        chat: put the prompts as chat messages instead of going on from them
    """
    from truthkit.evaluation.tasks.context_qa import scorer

    questions = scorer.read_questions(data)
    items = [
        Item(f"{question.category} {number}", question.prompt, raw=not chat, context=question.context)
        for number, question in enumerate(questions, 1)
    ]

    def score(which: Sequence[int], outputs: Sequence[str]) -> Score:
        return scorer.score([questions[i] for i in which], outputs)

    files = tuple(files_of(data, *scorer.PATTERNS))
    return Task("context-qa", items, score, "exact_match", 32, {"chat": chat}, files, ask=_ask)


def _ask(asking: Asking, batch: Sequence[Item], fixed: Any = None) -> list[str]:
    """The answers, each up to the end of its first line; models of chats would end at once where a text goes on."""
    from truthkit.evaluation.running.ended import EndedAnswers
    from truthkit.text.tokens import text_tokenizer

    tokenizer = text_tokenizer(asking.processor, "an answer")
    line_ends = EndedAnswers(tokenizer, lambda text: "\n" in text.lstrip())
    return asking.write(batch, fixed, min_new_tokens=1, stopping_criteria=[line_ends])


def score_files(answers: Path, data: Path, *, answer_field: str = "") -> Score:
    """Written answers to questions about a passage.

    ANSWERS has one JSON object per line, with the model's text in "answer", "text", "output", "prediction" or
    "response"; a JSON array, .csv, .tsv and .xlsx are read too:
      {"question": "Who wrote we're going on a bear hunt?", "answer": "Brian Urlacher"}
    Without questions (of NQ-Synth, its prompts without passage) the lines are taken in the order of the data. What
    stands behind an answer's first line does not count.

    Args:
        answers: file of the answers
        data: file or folder of the questions
        answer_field: which field is the model's text, where several may be
    """
    from truthkit.evaluation.tasks.context_qa import scorer
    from truthkit.files.reading import read_records

    questions = scorer.read_questions(data)
    records = in_order_of([question.text for question in questions], read_records(answers), "question")
    return scorer.score(questions, [answer_of(record, answer_field) for record in records])


def _rescore(items: Lines, config: Config) -> Score:
    return _score_run(items, None)


def _score_run(lines: Lines, data: Path | None) -> Score:
    from truthkit.evaluation.tasks.context_qa import scorer

    return scorer.of_items(lines)


def _parts(score: Score) -> dict[str, Score]:
    from truthkit.evaluation.tasks.context_qa import scorer

    return by_category(score, scorer.of_items)


CONTEXT_QA = Benchmark(
    "context-qa",
    "questions with context",
    task,
    metrics=(Metric("exact_match", field="correct"), Metric("f1", "F1")),
    hub=_HUB,
    examples=(
        "truthkit eval context-qa --data nq_synth.jsonl --decoder cad:alpha=1 --controls --out runs/nq",
        "truthkit eval context-qa --data hub --model M --decoder adacad --out runs/nq-swap",
        "truthkit score context-qa answers.jsonl --data nq_synth.jsonl",
    ),
    rescore=_rescore,
    score_files=score_files,
    score_run=_score_run,
    parts=_parts,
    outcomes=("questions", "empty"),
)
