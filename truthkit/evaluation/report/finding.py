"""The runs in the folders that a report is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from truthkit.errors import ArgumentError, NotAvailableError
from truthkit.evaluation.report.compare import Run, read_run
from truthkit.evaluation.running.records import CONFIG, SUMMARY


def find_runs(folders: Sequence[Path]) -> tuple[list[Run], list[str]]:
    """Finished runs, each once, and what has to be said about the others.

    A folder is a run itself, or it holds runs at any depth. One that is named must be finished or hold a run that is;
    unfinished ones below it are only told of. A run that another one repeats, settings and answers alike, is left out:
    every `truthkit eval --controls` makes a greedy one.

    Raises:
        NotAvailableError: no such folder, no runs in it, or an unfinished one.
        ArgumentError: a `summary.json` or `items.jsonl` that `truthkit eval` did not write.
    """
    runs: list[Run] = []
    notes: list[str] = []
    seen: set[Path] = set()
    for folder in folders:
        if not folder.is_dir():
            raise NotAvailableError(f"there is no folder {str(folder)!r}; pass folders that `truthkit eval` wrote.")
        below = _below(folder)
        finished = [path for path in below if path == folder or (path / SUMMARY).is_file()]
        if not finished:
            raise NotAvailableError(f"{folder} holds no finished run; expected a {SUMMARY} in it or below it.")
        notes += [f"{path} is unfinished and not shown." for path in below if path not in finished]
        for path in finished:
            if path.resolve() in seen:
                continue
            seen.add(path.resolve())
            run = read_run(path)
            if original := next((other for other in runs if _same(run, other)), None):
                notes.append(f"{path} repeats {original.folder} and is shown once.")
            else:
                runs.append(run)
    if not runs:
        raise ArgumentError("no folders; pass at least one that `truthkit eval` wrote.")
    return runs, notes


def _below(folder: Path) -> list[Path]:
    """The folder, if it is a run, else all runs below it, finished or not."""
    if (folder / SUMMARY).is_file() or (folder / CONFIG).is_file():
        return [folder]
    return sorted({path.parent for name in (SUMMARY, CONFIG) for path in folder.rglob(name)})


def _same(one: Run, other: Run) -> bool:
    data = [run.summary["provenance"].get("data_sha256") for run in (one, other)]
    return bool(one.items) and (one.summary["config"], one.items, data[0]) == (
        other.summary["config"],
        other.items,
        data[1],
    )
