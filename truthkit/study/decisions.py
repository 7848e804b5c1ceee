"""What a study has decided, in its folder: `plan.json`, copies of its files, and `looks.jsonl`.

A decision is made once. A file that comes later may add models, tasks and methods; one that changes or leaves out what
was decided is refused. A stage is one such file, the first included: rows of a later stage know what earlier ones
saw.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from truthkit.errors import ArgumentError
from truthkit.files.json_text import parse, shown
from truthkit.files.reading import read_json, read_text
from truthkit.files.versions import versions
from truthkit.files.writing import file_sha256, write_atomically, writing
from truthkit.study.entries import Study
from truthkit.study.places import Places
from truthkit.study.reading import read_study

PLAN, LOOKS = "plan.json", "looks.jsonl"
_KINDS = ("model", "task", "method")


class Decisions:
    """The decisions of the study in a folder; hold `files.lock.turn` of the folder while they are made.

    Args:
        folder: of the study.

    Attributes:
        plan: the contents of `plan.json`.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        path = folder / PLAN
        self.plan: dict[str, Any] = read_json(path) if path.is_file() else {}

    def save(self) -> None:
        """Write `plan.json`."""
        write_atomically(self.folder / PLAN, self.plan)

    def take(self, file: Path, variables: Mapping[str, str], *, amend: bool) -> Study:
        """The study with what `file` adds to it, after all that is new in the file was put down as decided.

        Raises:
            ArgumentError: the file changes or leaves out what was decided, or adds to it without `amend`.
        """
        if not self.plan:
            if amend:
                raise ArgumentError(f"{self.folder} has no study to amend; run it first, without --amend.")
            study = read_study(file, Places(file.parent, variables))
            self.plan = {"versions": versions(), "stages": [], "decided": {}, "sets": {}, "chosen": {}}
            self._put_down(study, file, variables)
            return study
        for stage in self.plan["stages"]:
            stage["variables"] |= {name: variables[name] for name in stage["variables"] if name in variables}
        base = self._base()
        given = read_study(file, Places(file.parent, variables), base=base if amend else None)
        self._check(given, amend=amend)
        if any(self._new(given).values()):
            self._put_down(given, file, variables)
        elif not amend:  # the files may lie elsewhere now
            self.plan["stages"][0] |= {"home": str(file.parent.resolve()), "variables": dict(variables)}
        return self._base()

    def stage(self, *entries: tuple[str, str]) -> int:
        """The stage in which the last of these entries, each a kind and an id, was decided."""
        return max(self.plan["decided"][kind][name]["stage"] for kind, name in entries)

    def agree(self, name: str, about: dict[str, Any]) -> None:
        """Put down what a set's parts are, or a method's files.

        Raises:
            ArgumentError: they were decided, and are others now.
        """
        known = self.plan["sets"].setdefault(name, about)
        if known != about:
            other = next(key for key in about if known.get(key) != about[key])
            raise ArgumentError(
                f"{name}: its {other} was {shown(known.get(other))} and is {shown(about[other])}: the data has changed "
                f"since {self.folder} was decided. Put it back as it was, or begin a study in another folder."
            )

    def _base(self) -> Study:
        """The study as it was decided, from the copies of its files."""
        study: Study | None = None
        for stage in self.plan["stages"]:
            places = Places(Path(stage["home"]), stage["variables"])
            added = read_study(self.folder / stage["file"], places, base=study)
            if study is None:
                study = added
                continue
            merged: dict[str, Any] = {}
            for kind in _KINDS:
                entries = {one.id: one for one in getattr(added, f"{kind}s")}
                entries |= {one.id: one for one in getattr(study, f"{kind}s")}
                merged[f"{kind}s"] = tuple(entries[name] for name in self.plan["decided"][kind] if name in entries)
            study = replace(study, **merged)
        assert study is not None
        return study

    def _new(self, given: Study) -> dict[str, list[str]]:
        decided = self.plan["decided"]
        return {kind: [name for name in given.decided[kind] if name not in decided[kind]] for kind in _KINDS}

    def _check(self, given: Study, *, amend: bool) -> None:
        decided, whole = self.plan["decided"], "settings" in given.decided
        for kind in given.decided:
            for name, entry in given.decided[kind].items():
                if name not in decided[kind]:
                    continue
                was, now = decided[kind][name]["entry"], json.loads(json.dumps(entry))
                for key in [key for key in was.keys() | now.keys() if was.get(key) != now.get(key)]:
                    what = f"the {kind} {name!r}" if name else "the study"
                    way_out = "; give it another id to add it beside" if name else ""
                    raise ArgumentError(
                        f"{given.path} changes {what}, which was decided in {self.folder}: {key} was "
                        f"{shown(was.get(key))} and is {shown(now.get(key))}{way_out}, or begin in another folder."
                    )
        if whole:
            for kind in _KINDS:
                for name, entry in decided[kind].items():
                    if entry["stage"] == 1 and name not in given.decided[kind]:
                        raise ArgumentError(
                            f"{given.path} leaves out the {kind} {name!r}, which was decided in {self.folder}: what "
                            "was run is reported. Put it back, or begin in another folder."
                        )
        new = [f"the {kind} {name!r}" for kind, names in self._new(given).items() for name in names]
        if new and not amend:
            raise ArgumentError(f"{given.path} adds {new[0]} to the study in {self.folder}; say so with --amend.")

    def _put_down(self, study: Study, file: Path, variables: Mapping[str, str]) -> None:
        number = len(self.plan["stages"]) + 1
        name = "study.toml" if number == 1 else f"amend-{number}.toml"
        with writing(self.folder / name):
            (self.folder / name).write_text(read_text(file), encoding="utf-8")
        about = {"file": name, "sha256": file_sha256(file), "when": now(), "home": str(file.parent.resolve())}
        self.plan["stages"].append(about | {"variables": dict(variables)})
        for kind, entries in study.decided.items():
            into = self.plan["decided"].setdefault(kind, {})
            for key, entry in entries.items():
                into.setdefault(key, {"stage": number, "entry": json.loads(json.dumps(entry))})


class Looks:
    """The looks at a study's parts, a line each time that a run reads one, before it does.

    Args:
        folder: of the study.
    """

    def __init__(self, folder: Path):
        self._path = folder / LOOKS

    def add(self, set_: str, part: str, stage: int, rows: Sequence[str], run: str) -> None:
        """One more, on the disk when this returns."""
        line = {"when": now(), "set": set_, "part": part, "stage": stage, "rows": list(rows), "run": run}
        with writing(self._path), self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line, ensure_ascii=False) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def all(self) -> list[dict[str, Any]]:
        """Every look, in order."""
        if not self._path.is_file():
            return []
        return [parse(line) for line in read_text(self._path).split("\n") if line.strip()]

    def number(self, sets: Collection[str], stage: int) -> int:
        """How often a test part of these sets had been looked at when a row of this stage was, that look included."""
        stages = {one["stage"] for one in self.all() if one["set"] in sets and one["part"] == "test"}
        return len({one for one in stages if one < stage}) + 1

    def told(self) -> list[dict[str, Any]]:
        """For `study.json`: one look per set, part and stage, with the rows that were read in it."""
        found: dict[tuple[str, str, int], dict[str, Any]] = {}
        for one in self.all():
            key = one["set"], one["part"], one["stage"]
            into = found.setdefault(key, {name: one[name] for name in ("when", "set", "part", "stage")} | {"rows": []})
            into["rows"] += [row for row in one["rows"] if row not in into["rows"]]
        return list(found.values())


def now() -> str:
    """The time, as files have it."""
    return time.strftime("%Y-%m-%dT%H:%M:%S%z")
