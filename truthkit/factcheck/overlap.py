"""A guard against training on what is tested."""

from __future__ import annotations

from collections.abc import Iterable
from os import PathLike
from pathlib import Path

from truthkit.errors import ArgumentError
from truthkit.factcheck.claims import read_claims
from truthkit.files.reading import read_records
from truthkit.text.fingerprint import fingerprint
from truthkit.training.amateur_data import QUESTIONS

_ASKS = (*QUESTIONS, "Question")  # the last is TruthfulQA.csv's


def held_out_texts(path: str | PathLike[str]) -> set[str]:
    """Fingerprints of a file's claims, or of its questions if it holds questions."""
    path = Path(path)
    if path.suffix.lower() != ".tsv" and not path.is_dir():
        records = read_records(path)
        if all(any(name in record.fields for name in _ASKS) and "chosen" not in record.fields for record in records):
            return {fingerprint(record.text(*_ASKS)) for record in records}
    return {fingerprint(claim.text) for claim in read_claims(path)}


def overlapping(texts: Iterable[str], held_out: str | PathLike[str]) -> list[int]:
    """The numbers of those `texts` that are in the file `held_out` too."""
    kept_away = held_out_texts(held_out)
    return [number for number, text in enumerate(texts) if fingerprint(text) in kept_away]


def refuse_overlap(texts: Iterable[str], held_out: str | PathLike[str], source: str) -> None:
    """Raise if the file `held_out` holds any of `texts`.

    Raises:
        ArgumentError: it does; the message shows one and says how many.
    """
    texts = list(texts)
    if found := overlapping(texts, held_out):
        raise ArgumentError(
            f"{len(found)} of the {len(texts)} texts of {source} are in the held-out file {Path(held_out).name} too, "
            f"such as {texts[found[0]][:80]!r}. Train on another file, or leave them out (--drop-overlap)."
        )
