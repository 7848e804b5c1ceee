"""Made-up results of studies, true to the form of `study.json`."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

Document = dict[str, Any]


def against(label: str = "greedy", difference: float | None = 0.031, half: float = 0.02, **others: Any) -> Document:
    value = difference or 0.0
    return {
        "label": label,
        "difference": difference,
        "low": value - half,
        "high": value + half,
        "p": 0.0012345678901234567,
        "p_holm": 0.0123456789,
        "p_bh": 0.0061728,
        "effect": value * 2,
        "effect_name": "Cohen's h",
        "smallest_detectable": 1.43 * half,
        "equivalence_p": 0.8,
        "verdict": "better",
    } | others


def row(label: str = "greedy", role: str = "baseline", *, of: str = "memotrap@bundled", **others: Any) -> Document:
    return {
        "set": of,
        "label": label,
        "method": label.split(":")[0],
        "role": role,
        "control_of": [],
        "decoder": label,
        "steer": None,
        "sample": False,
        "temperature": 1.0,
        "seeds": [0],
        "chosen_from": [],
        "value": 0.6123456789012345,
        "low": 0.5912,
        "high": 0.6333,
        "n": 2027,
        "items_run": 2027,
        "seconds_per_item": 0.0512,
        "cost": 1.0,
        "against": {"greedy": None, "strongest control": None},
        "verdict": "",
        "said": "",
        "test_looks": 1,
        "metrics": {"mc2": 0.4},
        "folder": "runs/ab12",
    } | others


def eval_set(name: str = "memotrap@bundled", title: str = "MemoTrap", **others: Any) -> Document:
    return {
        "id": name,
        "task": name.split("@")[0],
        "title": title,
        "model": "SmolLM2-135M-Instruct",
        "metric": "accuracy",
        "unit": "percent",
        "higher_is_better": True,
        "chance": 0.5,
        "margin": 0.02,
        "development": 512,
        "test": 2027,
        "clusters": 2027,
        "data_sha256": {"proverb_ending.csv": "ab" * 32},
    } | others


def document(sets: list[Document] | None = None, rows: list[Document] | None = None, **others: Any) -> Document:
    sets = [eval_set()] if sets is None else sets
    return {
        "study": {
            "name": "A small study",
            "note": "All methods on what a laptop can do.",
            "alpha": 0.05,
            "level": 0.95,
            "correction": "holm",
            "seed": 0,
            "family": 12,
        },
        "sets": sets,
        "rows": [row()] if rows is None else rows,
        "looks": [{"when": "2026-11-30T10:00:00Z", "set": one["id"], "part": "test", "rows": []} for one in sets],
        "provenance": {
            "truthkit": "0.1.0",
            "versions": {"torch": "2.9.0", "transformers": "5.24.0"},
            "hardware": "2 CPU cores",
            "command": "truthkit study study.toml --out small",
            "study_sha256": "cd" * 32,
            "seconds": 5321.5,
        },
    } | others


def write(folder: Path, found: Document) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "study.json").write_text(json.dumps(found), encoding="utf-8")
    return folder


LONG = "cad:alpha=1.5,beta=0.1+dola:layers=low,beta=0.05+steer=vectors/reflex.safetensors:scale=4,where=cosine>0.1"

_SETS = (
    eval_set("memotrap@bundled", "MemoTrap", test=817, clusters=817),
    eval_set("truthfulqa@bundled", "TruthfulQA, multiple choice", test=817, clusters=817, chance=None, metric="mc1"),
    eval_set("pope@scene-vlm", "POPE", model="scene-vlm", clusters=338),
    eval_set("chair@scene-vlm", "CHAIR", model="scene-vlm", test=117, clusters=117, chance=None, metric="chair_s")
    | {"higher_is_better": False},
    eval_set("factor@bundled", "FACTOR", chance=0.25),
    eval_set("nq@bundled", "NQ-Synth", chance=None),
    eval_set("open-ended@bundled", "Open-ended", test=817, clusters=817, chance=None, metric="words", margin=0.5)
    | {"unit": "number"},
)
_NAMES = ("cad", "adacad", "dola", "icd", "sled", "apc", "vcd", LONG, "m3id", "deco", "opera", "lol")


class _Draws:
    """Rows of one set with planted effects, judged by their distance from zero in half intervals."""

    def __init__(self, one: Document, seed: int):
        self.one, self.draw = one, random.Random(f"{one['id']} {seed}")
        self.factor = 5.0 if one["unit"] == "number" else 1.0
        self.half = 0.6 / one["test"] ** 0.5 * self.factor
        self.base = self.draw.uniform(0.3, 0.6) * self.factor

    def row(self, label: str, role: str, change: float, **others: Any) -> Document:
        value, reach = self.base + change, 1.5 * self.half
        greedy = None if role == "baseline" else self.against("greedy", change)
        found = {"value": value, "low": value - reach, "high": value + reach, "n": self.one["test"]}
        found |= {"against": {"greedy": greedy, "strongest control": None}}
        found |= {"cost": self.draw.choice([1.02, 1.4, 2.1, 2.6, None]), "verdict": greedy["verdict"]} if greedy else {}
        return row(label, role, of=self.one["id"], **found, **others)

    def against(self, label: str, change: float) -> Document:
        away, up = abs(change) / self.half, self.one["higher_is_better"]
        verdict = "no evidence"
        if away > 1.4:
            verdict = "better" if (change > 0) == up else "worse"
        elif abs(change) + self.half < self.one["margin"]:
            verdict = "equivalent"
        p = min(1.0, 2.0 ** (-4 * away))
        return against(label, change, self.half, p=p, p_holm=p if away > 1.4 else 0.4, p_bh=p, verdict=verdict)

    def method(self, number: int) -> list[Document]:
        """A method with a grid, and for each second one a control."""
        name = _NAMES[number] if number < len(_NAMES) else f"method{number}"
        label = name if ":" in name else f"{name}:alpha={self.draw.choice([0.5, 1, 2])}"
        effect = self.draw.choice([0.0, 0.0, 0.004, 0.05, -0.04, 0.09])
        change = effect * self.factor + self.draw.gauss(0, self.half / 3)
        grid = [{"decoder": label, "value": self.base + change, "n": 512}]
        grid += [{"decoder": f"{name.split(':')[0]}:alpha=9", "value": self.base, "n": 512}]
        made = self.row(label, "method", change, chosen_from=grid)
        if number % 2:
            return [made]
        other = self.draw.choice([0.0, 0.9 * change]) + self.draw.gauss(0, self.half / 3)
        control = self.row(f"topn:n={number + 1}", "control", other, control_of=[label])
        beside = made["against"]["strongest control"] = self.against(control["label"], change - other)
        if made["verdict"] == "better" and beside["verdict"] != "better":
            made["verdict"] = "no evidence"
        return [made, control]


def many(sets: int = 4, methods: int = 8, seed: int = 0) -> Document:
    """A study in which every verdict occurs, and whose first set was read twice."""
    rows = []
    for one in _SETS[:sets]:
        draws = _Draws(one, seed)
        rows.append(draws.row("greedy", "baseline", 0.0))
        for number in range(methods):
            rows += draws.method(number)
    found = document(list(_SETS[:sets]), rows)
    late = {"when": "2026-12-01T09:30:00Z", "set": _SETS[0]["id"], "part": "test", "rows": ["dola:alpha=1"]}
    found["looks"].append(late)
    return found
