"""A task run under a decoder: asked, recorded, scored, summed up."""

from __future__ import annotations

import platform
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any, TypeAlias

import torch

from truthkit.errors import ArgumentError
from truthkit.evaluation.running.asking import Asking
from truthkit.evaluation.running.contents import contents
from truthkit.evaluation.running.hub import source_of
from truthkit.evaluation.running.item import Item
from truthkit.evaluation.running.progress import Progress
from truthkit.evaluation.running.records import ITEMS, SUMMARY, Records
from truthkit.evaluation.running.task import Task
from truthkit.files.lock import only_writer
from truthkit.files.versions import versions
from truthkit.files.writing import file_sha256, write_atomically
from truthkit.hf.spread import is_spread
from truthkit.hf.spread import shards as shards_of
from truthkit.parallel import place
from truthkit.statistics.score import Score

Units: TypeAlias = "Callable[[Iterable[str]], dict[str, str]]"
"""What metrics of these names are measured in."""

_PACKAGES = ("torch", "transformers", "peft", "accelerate", "numpy", "pillow")


def run(
    task: Task,
    asking: Asking,
    out: Path,
    *,
    model_name: str,
    limit: int | None = None,
    first: bool = False,
    units: Units | None = None,
) -> dict[str, Any]:
    """Ask what has no answer yet, and write `summary.json`; returns it.

    Under `accelerate launch` or `torchrun` every process asks its share of the items and writes a file of its own;
    process 0 waits for the others and sums up. Processes that hold the model together ask the same items, and the first
    of them writes.

    Args:
        task: what is asked.
        asking: how.
        out: the run's folder, made or gone on with.
        model_name: for the record.
        limit: only so many items, drawn by the seed.
        first: only the first so many instead.
        units: of the task's metrics, as its `Benchmark.units`, for the summary.

    Raises:
        NotAvailableError: another process writes to `out`; or it cannot be written.
        ArgumentError: `out` holds a run with other settings; or what the task and the decoder say.
    """
    shards = shards_of(asking.model) if is_spread(asking.model) else None
    rank, world = (shards.index, shards.count) if shards else place()
    writes = shards is None or shards.speaks
    with only_writer(out, rank, world) if writes else nullcontext():
        items, config = task.some(limit, seed=asking.seed, first=first), _config(task, asking, model_name)
        config |= {"limit": limit} | ({} if limit is None else {"first": first})
        records = Records(out, config, rank, writes=writes)
        if shards is not None:
            shards.meet()  # those that hold the model together go on from the same records
        return _run(task, asking, records, config, items, rank, world, units)


def _run(
    task: Task,
    asking: Asking,
    records: Records,
    config: dict[str, Any],
    items: list[Item],
    rank: int,
    world: int,
    units: Units | None,
) -> dict[str, Any]:
    start, out, leads = time.perf_counter(), records.folder, rank == 0 and records.writes
    shares = [share(items, number, world) for number in range(world)]

    def said() -> str:
        with suppress(ArgumentError, KeyError):  # some scorers want whole images, or have no such items yet
            value = _so_far(task, items, records).metrics[task.headline]
            share = units is not None and units([task.headline]).get(task.headline) == "share"
            return f"{task.headline} {100 * value:.1f} %" if share else f"{task.headline} {value:.3f}"
        return ""

    with Progress(task.name, shares, records, rank, said, shown=leads) as progress:
        asking.run(shares[rank], records, progress.done, task.ask)
        if leads:
            progress.wait()
    if not leads:
        return {"config": config}
    score = _so_far(task, items, records)
    score = task.finish(score, _numbers(task, items)) if task.finish else score
    summary = sum_up(task, items, score, config, records, time.perf_counter() - start)
    summary |= {"units": units(score.metrics)} if units else {}
    write_atomically(out / ITEMS, _item_lines(items, score, records), lines=True)
    write_atomically(out / SUMMARY, summary)
    return summary


def share(items: Sequence[Item], rank: int, world: int) -> list[Item]:
    """The items of process `rank` of `world`; what is asked about one image is asked by one process."""
    places: dict[Any, int] = {}
    return [item for item in items if places.setdefault(item.images or item.key, len(places)) % world == rank]


def sum_up(
    task: Task, items: Sequence[Item], score: Score, config: dict[str, Any], records: Records, seconds: float
) -> dict[str, Any]:
    """The contents of `summary.json`."""
    first = records.done[items[0].key]
    return {
        "headline": task.headline,
        "metrics": score.metrics,
        "n": score.sizes,
        "intervals": {name: list(interval) for name, interval in score.intervals().items()},
        "config": config | score.config | {"task": task.name},
        "outcomes": sorted(score.config.keys() - config.keys() - {"task"}),
        "provenance": {
            "items": len(score.clusters),
            "data_sha256": {path.name: file_sha256(path) for path in task.data},
            "data_from": {path.name: source for path in task.data if (source := source_of(path))},
            "first_prompt": first.get("prompt"),
            "first_output": first["output"],
            "versions": versions(*_PACKAGES),
            "hardware": _hardware(),
            "command": " ".join(sys.argv),
            "seconds": round(seconds, 1),
            "seconds_of_items": round(sum(record.get("seconds", 0) for record in records.done.values()), 1),
        },
    }


def _item_lines(items: Sequence[Item], score: Score, records: Records) -> list[dict[str, Any]]:
    """What the scorer found about every item, beside its key, prompt and images; for comparing and reporting."""
    if len(score.items) != len(items):
        return []
    return [
        {"key": item.key, "cluster": str(found.get("image", found.get("question", item.id))), "prompt": item.prompt}
        | {"images": item.images, "output": records.done[item.key]["output"], **found}
        for item, found in zip(items, score.items, strict=True)
    ]


def _so_far(task: Task, items: Sequence[Item], records: Records) -> Score:
    done = [item for item in items if item.key in records.done]
    try:
        return task.score(_numbers(task, done), [records.done[item.key]["output"] for item in done])
    except (TypeError, KeyError, IndexError, AttributeError) as error:
        if not records.found:
            raise
        raise ArgumentError(
            f"{records.folder} holds records whose outputs {task.name} can't score ({type(error).__name__}: "
            f"{error!s:.200}); use another folder, or delete this one."
        ) from error


def _numbers(task: Task, items: Sequence[Item]) -> list[int]:
    """Of these items of the task, among all."""
    places = {item.key: number for number, item in enumerate(task.items)}
    return [places[item.key] for item in items]


def _config(task: Task, asking: Asking, model_name: str) -> dict[str, Any]:
    generation: dict[str, Any] = {"max_new_tokens": asking.max_new_tokens, "sample": asking.sample}
    if asking.sample:
        generation |= {"temperature": asking.temperature, "top_p": asking.top_p}
    return {
        "task": task.name,
        "model": model_name,
        **contents(asking),
        "dtype": str(asking.model.dtype).removeprefix("torch."),
        "decoder": asking.decoder.text,
        "seed": asking.seed,
        **task.config,
        **(generation if task.max_new_tokens else {}),
    }


def _hardware() -> str:
    if torch.cuda.is_available():
        return f"{torch.cuda.device_count()} x {torch.cuda.get_device_name()}"
    return f"{platform.machine()} CPU, {torch.get_num_threads()} threads"
