"""Run folders as `truthkit eval` writes them, with given answers instead of a model's."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

from PIL import Image

from truthkit.evaluation.running import runs
from truthkit.evaluation.running.item import Item
from truthkit.evaluation.running.records import Records
from truthkit.evaluation.running.task import Task
from truthkit.evaluation.tasks import benchmarks


@dataclass
class Answers:
    """Stands in for `Asking`: item number `i` gets `answers[i]`, in batches of two; `contents` says of what model."""

    answers: Sequence[Any]
    text: str = "greedy"
    sample: bool = False
    seed: int = 0
    temperature: float = 1.0
    top_p: float = 1.0
    max_new_tokens: int = 16
    contents: dict[str, Any] = field(default_factory=dict)
    model: Any = field(default_factory=lambda: SimpleNamespace(dtype="torch.float32", parameters=lambda: []))

    @property
    def decoder(self) -> Any:
        return SimpleNamespace(text=self.text)

    def run(self, items: Sequence[Item], records: Records, *_others: Any) -> None:
        for i, (item, answer) in enumerate(zip(items, self.answers, strict=False)):
            seconds = 0.1 + 0.01 * (i // 2)
            about = {"key": item.key, "prompt": item.prompt, "images": item.images, "choices": item.choices}
            records.append([{**about, "output": answer, "seconds": seconds}])


def write_run(
    task: Task,
    folder: Path,
    answers: Sequence[Any],
    *,
    model: str = "tiny",
    limit: int | None = None,
    **options: Any,
) -> Path:
    asking: Any = Answers(answers, **options)
    with patch.object(runs, "contents", lambda one: one.contents):
        runs.run(task, asking, folder, model_name=model, limit=limit, first=True)
    return folder


def pope_task(
    folder: Path, *, text: str = "Is there a dog in the image?", images: int = 6, name: str = "q.json"
) -> Any:
    """Two questions about each image, yes and no; two categories."""
    (folder / "images").mkdir(parents=True, exist_ok=True)
    lines = []
    for i in range(images):
        Image.new("RGB", (200, 150), (40 * i % 256, 90, 120)).save(folder / "images" / f"{i}.jpg")
        lines += [
            {"question_id": 2 * i + j, "image": f"{i}.jpg", "text": f"{text} {j}", "label": label, "category": category}
            for j, (label, category) in enumerate((("yes", "popular"), ("no", "adversarial")))
        ]
    (folder / name).write_text("".join(json.dumps(line) + "\n" for line in lines))
    return benchmarks()["pope"].task(folder / name, images=folder / "images")


RIGHT = ["Yes.", "No."] * 6
"""The right answers to `pope_task`."""


def wrong_at(*numbers: int) -> list[str]:
    """`RIGHT`, but for these."""
    other = {"Yes.": "No.", "No.": "Yes."}
    return [other[answer] if i in numbers else answer for i, answer in enumerate(RIGHT)]


def mme_task(folder: Path) -> Any:
    """Two images each in two subtasks."""
    folder.mkdir(parents=True, exist_ok=True)
    for subtask in ("existence", "code_reasoning"):
        (folder / f"{subtask}.txt").write_text(
            "".join(f"{i}.jpg\tIs it {label}?\t{label}\n" for i in range(2) for label in ("Yes", "No"))
        )
    for i in range(2):
        Image.new("RGB", (8, 8)).save(folder / f"{i}.jpg")
    return benchmarks()["mme"].task(folder)


def truthfulqa_task(folder: Path, questions: int = 4) -> Any:
    """Each question with two choices, the first right."""
    folder.mkdir(parents=True, exist_ok=True)
    choices = {"Nothing.": 1, "All.": 0}
    data = [
        {"question": f"What happens {i}?", "mc1_targets": choices, "mc2_targets": choices} for i in range(questions)
    ]
    (folder / "mc_task.json").write_text(json.dumps(data))
    return benchmarks()["truthfulqa"].task(folder / "mc_task.json")
