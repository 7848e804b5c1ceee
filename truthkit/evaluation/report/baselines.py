"""Which run each run is tested against."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from truthkit.errors import ArgumentError
from truthkit.evaluation.report.compare import Run


def references(sections: Sequence[Sequence[Run]], baseline: str | None) -> list[list[int | None]]:
    """For every run of every section the number, in its section, of the run that it is tested against, or None.

    A run's baseline is that of its own model, else the section's first one, so that baselines of several models are
    tested against the first.

    Args:
        sections: the runs of each.
        baseline: a run's name, as `ritual, sampled at 1`, or its folder, by path or by last name. In sections that have
            no such run, and without one: greedy runs of unmodified models, else greedy runs, else the first run.

    Raises:
        ArgumentError: no section has it, or it is several runs of one model.
    """
    named = [[i for i, run in enumerate(runs) if baseline is not None and _is(run, baseline)] for runs in sections]
    if baseline is not None and not any(named):
        known = dict.fromkeys(run.name for runs in sections for run in runs)
        raise ArgumentError(
            f"baseline is {baseline!r}, which is none of the runs; expected a folder of one, or {', '.join(known)}."
        )
    found = []
    for runs, chosen in zip(sections, named, strict=True):
        greedy = [i for i, run in enumerate(runs) if run.name == "greedy"]
        plain = [i for i in greedy if is_unmodified(runs[i])]
        found.append(_of_each(runs, chosen or plain or greedy or [0], strict=bool(chosen)))
    return found


def is_unmodified(run: Run) -> bool:
    """Whether it is of a model by itself, greedily: no adapter, no steering, no decoder."""
    config = run.summary["config"]
    return run.name == "greedy" and not config.get("adapter") and not config.get("steering")


def _of_each(runs: Sequence[Run], bases: Sequence[int], *, strict: bool) -> list[int | None]:
    by_model: dict[str, int] = {}
    for i in bases:
        first = by_model.setdefault(_model(runs[i]), i)
        if strict and first != i:
            raise ArgumentError(f"baseline is both {runs[first].folder} and {runs[i].folder}; pass one of the folders.")
    found: list[int | None] = []
    for i, run in enumerate(runs):
        own = by_model.get(_model(run), bases[0])
        other = bases[0] if own == i else own
        found.append(None if other == i else other)
    return found


def _is(run: Run, name: str) -> bool:
    return name in (run.name, run.folder.name) or run.folder.resolve() == Path(name).resolve()


def _model(run: Run) -> str:
    """By its weights, which an adapter or steering does not change; by name in runs that do not say them."""
    config = run.summary["config"]
    return str(config.get("weights") or config["model"])
