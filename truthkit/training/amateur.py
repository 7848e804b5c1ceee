"""The amateur that ICD and LOL contrast with: a model that has learnt to answer as hallucinated answers do."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from os import PathLike
from typing import Any

from truthkit.files.writing import file_sha256
from truthkit.text.fingerprint import fingerprint
from truthkit.training.amateur_data import read_pairs
from truthkit.training.lora import train
from truthkit.training.settings import TrainingSettings


def train_amateur(
    model: Any,
    processor: Any,
    files: Sequence[str | PathLike[str]],
    out: str | PathLike[str],
    *,
    answer_field: str = "hallucinated_answer",
    without: Iterable[str] = (),
    settings: TrainingSettings | None = None,
    progress: bool = False,
) -> dict[str, Any]:
    """Train an adapter on a field of HaluEval's question files, in both forms of `amateur_data`.

    Args:
        model: as for `lora.train`.
        processor: its tokenizer or processor.
        files: see `read_pairs`.
        out: folder for the adapter.
        answer_field: `right_answer` gives the control: the same questions and training without the hallucination.
        without: questions that are not trained on, since they are tested; case and punctuation do not matter.
        settings: see `TrainingSettings`.
        progress: show a progress bar.

    Returns:
        What `training.json` holds.

    Raises:
        ArgumentError, NotAvailableError: see `read_pairs` and `lora.train`.
    """
    kept_away = {fingerprint(question) for question in without}
    pairs = [
        pair
        for file in files
        for pair in read_pairs(file, answer_field=answer_field, forms=("chat", "plain"))
        if fingerprint(pair.spare[-1]) not in kept_away
    ]
    about = {
        "task": f"amateur of {answer_field}",
        "files": [{"path": str(file), "sha256": file_sha256(file)} for file in files],
    }
    return train(model, processor, pairs, out, settings=settings, about=about, progress=progress)
