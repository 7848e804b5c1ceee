"""Claims with verdicts and explanations: LIAR, LIAR-RAW and RAW-FC, in six, three or two labels.

How six labels become three is not said in any public text on REFLEX, L-Defense or HiSS (the LIAR-RAW release itself,
CofCED, keeps six). The merge here is ours: neighbours are joined, so that the three classes are about as many as each
other (`LIAR-RAW` test: 443, 473, 335), and they carry RAW-FC's names:

    true, mostly-true       -> true
    half-true, barely-true  -> half       (PolitiFact renamed "barely true" to "mostly false" in 2011)
    false, pants-fire       -> false

In two labels `half` counts as false, which is what the binarised RAW-FC file does: it has 133 false and 67 true of 200
claims, whereas RAW-FC's own three classes are equally many.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path
from typing import Any

from truthkit.errors import ArgumentError
from truthkit.files.json_text import shown
from truthkit.files.reading import Record, read_records, read_text
from truthkit.files.writing import replacing, writing

LABELS_6: tuple[str, ...] = ("true", "mostly-true", "half-true", "barely-true", "false", "pants-fire")
"""The verdicts of PolitiFact, LIAR and LIAR-RAW."""

LABELS_3: tuple[str, ...] = ("true", "half", "false")
"""The verdicts of RAW-FC, and of LIAR-RAW merged."""

LABELS_2: tuple[str, ...] = ("true", "false")
"""The verdicts of the binarised RAW-FC file."""

_SPELLINGS = {
    "half true": "half-true",
    "mostly true": "mostly-true",
    "barely true": "barely-true",
    "mostly false": "barely-true",
    "pants on fire": "pants-fire",
    "pants on fire!": "pants-fire",
    "pants fire": "pants-fire",
    "mixture": "half",
}
_TO_3 = {
    "true": "true",
    "mostly-true": "true",
    "half-true": "half",
    "half": "half",
    "barely-true": "half",
    "false": "false",
    "pants-fire": "false",
}
_MERGED: dict[tuple[str, ...], dict[str, str]] = {
    LABELS_6: {label: label for label in LABELS_6},
    LABELS_3: _TO_3,
    LABELS_2: {label: "true" if merged == "true" else "false" for label, merged in _TO_3.items()},
}


@dataclass(frozen=True)
class Claim:
    """One claim.

    Attributes:
        id: as in the file, unique there.
        text: what is claimed.
        label: the gold verdict.
        explanation: why, in a fact-checker's words; None where the file has none.
        evidence: passages that were found for it; None where the file has none.
    """

    id: str
    text: str
    label: str
    explanation: str | None = None
    evidence: str | None = None


def merge_label(label: str, labels: Sequence[str] = LABELS_3) -> str:
    """`label` in a coarser set of labels; the mapping stands at the head of this module.

    Args:
        label: one of `LABELS_6`, `LABELS_3` or `LABELS_2`, in any usual spelling ("Pants on Fire", "mostly_true").
        labels: `LABELS_6`, `LABELS_3` or `LABELS_2`.

    Raises:
        ArgumentError: the label is unknown, or cannot be told in these labels ("half" among six).
    """
    if tuple(labels) not in _MERGED:
        raise ArgumentError(f"labels is {tuple(labels)}; expected LABELS_6, LABELS_3 or LABELS_2.")
    found = _canonical(label)
    merged = _MERGED[tuple(labels)].get(found)
    if merged is None:
        raise ArgumentError(f"label {label!r} cannot be told in the labels {', '.join(labels)}.")
    return merged


def _canonical(label: str) -> str:
    plain = re.sub(r"[\s_-]+", " ", label.strip().lower())
    found = _SPELLINGS.get(plain, plain.replace(" ", "-"))
    if found not in _TO_3:
        raise ArgumentError(f"label {label!r} is unknown; expected one of {', '.join(_TO_3)}.")
    return found


def read_claims(
    path: str | PathLike[str], *, labels: Sequence[str] | None = None, gold_as_evidence: bool = False
) -> list[Claim]:
    """The claims of one file, in its order, or of a folder with a claim in each `.json`, as RAW-FC is released.

    The format is told by the file: LIAR's 14 tab-separated columns (`.tsv`; quotes are ordinary characters there);
    LIAR-RAW and RAW-FC as JSON array, JSON lines, one object or a table (.csv, .tsv or .xlsx with a head) with `claim`,
    `label`, `explain` and, where they are there, `event_id` and `reports` or `evidence`; RAW-FC in its instruction form
    (`prompt`, `chosen`), whose "following information" is the gold explanation and whose label is binarised; or any
    of these with the fields of `Claim`.

    Args:
        path: the file or folder.
        labels: `LABELS_6`, `LABELS_3` or `LABELS_2` to merge to; None keeps the labels of the file.
        gold_as_evidence: take the gold explanation as evidence where the file has none, as RAW-FC's instruction form
            does. It tells the verdict: for checks of the machinery and upper bounds, not for results. Ours.

    Raises:
        NotAvailableError: no such file.
        ArgumentError: a record lacks a field or has two that compete, has an unknown label or an empty claim, or there
            are no records. The message names the line.
    """
    path = Path(path)
    files = [path]
    if path.is_dir() and not (files := sorted(path.glob("*.json"), key=lambda file: (len(file.name), file.name))):
        raise ArgumentError(f"{path} is a folder without claims; expected .json files in it.")
    claims = []
    for place, claim in (found for file in files for found in _read(file)):
        if not claim.text:
            raise ArgumentError(f"{place}: the claim is empty.")
        try:
            label = _canonical(claim.label) if labels is None else merge_label(claim.label, labels)
        except ArgumentError as error:
            raise ArgumentError(f"{place}: {error}") from None
        evidence = claim.evidence or (claim.explanation if gold_as_evidence else None)
        claims.append(replace(claim, label=label, evidence=evidence))
    if not claims:
        raise ArgumentError(f"{path} has no claims.")
    return claims


def write_claims(claims: Sequence[Claim], path: str | PathLike[str]) -> None:
    """Write claims as JSON lines that `read_claims` and `truthkit train reflex` read; the file appears whole or not.

    Raises:
        ArgumentError: there are no claims.
    """
    if not claims:
        raise ArgumentError("claims is empty, so there is nothing to write.")
    lines = []
    for claim in claims:
        fields = {"id": claim.id, "claim": claim.text, "label": claim.label}
        fields |= {} if claim.explanation is None else {"explain": claim.explanation}
        fields |= {} if claim.evidence is None else {"evidence": claim.evidence}
        lines.append(json.dumps(fields, ensure_ascii=False) + "\n")
    with writing(Path(path)), replacing(Path(path)) as part:
        part.write_text("".join(lines), encoding="utf-8")


_LIAR_COLUMNS = 14
_CLAIM = ("claim", "text", "statement")


def _read(path: Path) -> Iterator[tuple[str, Claim]]:
    text = read_text(path) if path.suffix.lower() == ".tsv" else ""
    head = {cell.strip() for cell in text.lstrip().partition("\n")[0].split("\t")}
    if text and not ("label" in head and head.intersection(_CLAIM)):
        yield from _liar(path, text)
    else:
        yield from map(_from_json, read_records(path))


def _liar(path: Path, text: str) -> Iterator[tuple[str, Claim]]:
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        place = f"{path.name}, line {number}"
        columns = line.rstrip("\r").split("\t")
        if len(columns) != _LIAR_COLUMNS:
            raise ArgumentError(f"{place}: {len(columns)} tab-separated columns; LIAR has {_LIAR_COLUMNS}.")
        yield place, Claim(id=columns[0], label=columns[1], text=columns[2].strip())


_INSTRUCTION = re.compile(
    r"following information: (?P<explanation>.*) Evaluate the following assertion: (?P<claim>.*?)"
    r"\s*If possible, please also give the reasons\.",
    re.DOTALL,
)
_VERDICT = re.compile(r"the claim is (?P<label>\w[\w -]*)\.")


def _from_json(record: Record) -> tuple[str, Claim]:
    if "prompt" in record.fields and "chosen" in record.fields:
        return record.place, _from_instruction(record)
    return record.place, Claim(
        id=_id(record),
        text=record.text(*_CLAIM).strip(),
        label=record.text("label"),
        explanation=_optional(record, "explain", "explanation", "justification"),
        evidence=_optional(record, "evidence") or _reports(record),
    )


def _from_instruction(record: Record) -> Claim:
    asked = _INSTRUCTION.search(record.text("prompt"))
    answered = _VERDICT.search(record.text("chosen"))
    if asked is None or answered is None:
        raise ArgumentError(f"{record.place}: 'prompt' and 'chosen' are not in the instruction form of RAW-FC.")
    return Claim(
        id=_id(record),
        text=asked["claim"].strip(),
        label=answered["label"],
        explanation=asked["explanation"].strip() or None,
    )


def _id(record: Record) -> str:
    """What the file calls it; else its place, which is unique in the file too."""
    return record.name("event_id", "id") or record.place


def _optional(record: Record, *names: str) -> str | None:
    """A text, or a list of texts as paragraphs; None where it is missing or empty."""
    value = record.fields.get(record.field(*names) or "")
    if isinstance(value, list) and all(isinstance(part, str) for part in value):
        value = "\n".join(value)
    if value is not None and not isinstance(value, str):
        raise ArgumentError(f"{record.place}: {names[0]!r} is {shown(value)}; expected text or a list of texts.")
    return value.strip() or None if value else None


def _reports(record: Record) -> str | None:
    """The raw reports of LIAR-RAW and RAW-FC, one after the other."""
    reports: Any = record.fields.get("reports") or []
    if not isinstance(reports, list):
        raise ArgumentError(f"{record.place}: 'reports' is {shown(reports)}; expected a list of objects.")
    contents = [report.get("content") for report in reports if isinstance(report, dict)]
    return "\n".join(content.strip() for content in contents if isinstance(content, str) and content.strip()) or None
