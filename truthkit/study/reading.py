"""The file of a study: TOML to what is asked, each part checked, with errors that name its place."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

from truthkit.errors import ArgumentError, NotAvailableError, did_you_mean
from truthkit.evaluation.running.hub import fetch, is_hub
from truthkit.evaluation.tasks import benchmarks
from truthkit.files.json_text import shown
from truthkit.files.reading import read_text
from truthkit.models.bundled import BUNDLED
from truthkit.models.checkpoint import local_model
from truthkit.study.entries import Entry, MethodEntry, ModelEntry, Study, TaskEntry
from truthkit.study.fields import SETTINGS, Fields
from truthkit.study.places import Places
from truthkit.study.way import Way

_OF_TASKS = ("margin", "development")
"""Keys at the top that are defaults of all tasks."""


def read_study(path: Path, places: Places | None = None, *, base: Study | None = None) -> Study:
    """A study from its TOML file; with `base`, the study that it adds to. `places` are by default the file's.

    Raises:
        NotAvailableError: there is no such file, or data that it names.
        ArgumentError: it is no TOML, or an entry makes no sense; the message names it.
    """
    if not path.is_file():
        raise NotAvailableError(f"there is no file {str(path)!r}; expected a study in TOML.")
    try:
        document = tomllib.loads(read_text(path))
    except tomllib.TOMLDecodeError as error:
        raise ArgumentError(f"{path} is no TOML: {error}.") from None
    top, places = Fields(f"{path}", document), places or Places(path.parent)
    top.known(("name", "note", *SETTINGS, *_OF_TASKS, "model", "task", "method"))
    adds = base is not None and "name" not in document
    settings = {} if adds else {key: top.setting(key) for key in SETTINGS}
    if adds and (set_again := [key for key in (*SETTINGS, *_OF_TASKS) if key in document]):
        raise ArgumentError(f"{path} adds to {base and base.name!r} and sets {set_again[0]}; that was decided already.")
    models = [_model(entry) for entry in top.entries("model")]
    tasks = [_task(entry, document, places) for entry in top.entries("task")]
    methods = [_method(entry, places) for entry in top.entries("method")]
    decided = {"settings": {"": settings}} if not adds else {}
    found: dict[str, Sequence[Entry]] = {"model": models, "task": tasks, "method": methods}
    for kind, some in found.items():
        decided[kind] = {}
        for one, entry in zip(some, top.entries(kind), strict=True):
            if one.id in decided[kind]:
                raise ArgumentError(f"{entry.place}: there is a {kind} {one.id!r} already; give it an id of its own.")
            inherited = {"margin": one.margin, "development": one.development} if isinstance(one, TaskEntry) else {}
            decided[kind][one.id] = dict(entry.fields) | inherited
    study = Study(
        path,
        document.get("name", base.name if base else ""),
        document.get("note", base.note if base else ""),
        settings or (base.settings if base else {}),
        tuple(models),
        tuple(tasks),
        tuple(methods),
        decided,
    )
    _check_whole(study, base)
    return study


def _check_whole(study: Study, base: Study | None) -> None:
    """Raise an `ArgumentError` where something is missing or named that there is not."""
    if not study.name:
        raise ArgumentError(f'{study.path} has no name; expected name = "what the study asks" at its top.')
    among = {
        kind: [one.id for source in (base, study) if source for one in getattr(source, f"{kind}s")]
        for kind in ("model", "task", "method")
    }
    for kind, ids in among.items():
        if not ids:
            raise ArgumentError(f"{study.path} has no [[{kind}]]; expected at least one.")
    limited: tuple[TaskEntry | MethodEntry, ...] = (*study.tasks, *study.methods)
    for one in limited:
        for kind in ("model", "task"):
            for name in getattr(one, f"{kind}s", ()):
                if name not in among[kind]:
                    raise ArgumentError(
                        f"{study.path}: {one.id!r} is for the {kind} {name!r}{did_you_mean(name, among[kind])}; the "
                        f"study's are {', '.join(among[kind])}."
                    )


def _model(entry: Fields) -> ModelEntry:
    texts = ("id", "model", "revision", "adapter", "dtype", "device_map", "amateur")
    entry.known((*texts, "batch_size"))
    name = str(entry.text("model", needed=True))
    if name not in BUNDLED:
        local_model(name, entry.text("revision"))
    own = {key: entry.text(key) for key in texts if key != "id"}
    own |= {"id": entry.text("id", name), "batch_size": entry.number("batch_size", None, 1, whole=True)}
    return ModelEntry(**own)  # type: ignore[arg-type]


def _task(entry: Fields, top: Mapping[str, Any], places: Places) -> TaskEntry:
    parts = "development", "development_data", "development_limit", "limit"
    entry.known(("id", "task", "data", *parts, "margin", "options", "max_new_tokens", "models"))
    name, data = str(entry.text("task", needed=True)), str(entry.text("data", needed=True))
    known = benchmarks()
    if name not in known:
        raise ArgumentError(
            f"{entry.place}: there is no task {name!r}{did_you_mean(name, known)}; the tasks are {', '.join(known)}."
        )
    inherited = Fields(entry.place, {key: top[key] for key in _OF_TASKS if key in top} | dict(entry.fields))
    if "margin" not in inherited.fields:
        raise ArgumentError(
            f"{entry.place}: {name} has no margin; say which difference of its headline metric is too small to matter, "
            "as margin = 0.02 for two points of a percentage, here or once at the top."
        )
    other = entry.text("development_data")
    options = checked_options(name, entry.table("options"), entry.place, places)
    return TaskEntry(
        str(entry.text("id", name)),
        name,
        _data(name, data, entry, places),
        inherited.number("margin", None, 0.0),
        inherited.number("development", 0.2, 0.0, 0.9),
        None if other is None else _data(name, other, entry, places),
        entry.number("limit", None, 1, whole=True),
        entry.number("development_limit", None, 1, whole=True),
        options,
        entry.number("max_new_tokens", None, 1, whole=True),
        entry.names("models"),
    )


def _data(task: str, written: str, entry: Fields, places: Places) -> Path:
    """The files of a benchmark, fetched where they are on the hub."""
    if is_hub(written):
        if (known := benchmarks()[task].hub) is None:
            raise ArgumentError(f"{entry.place}: the data of {task} is not on the hub; name its files.")
        return fetch(written, known)
    if not (there := places.place(written)).exists():
        raise NotAvailableError(f"{entry.place}: the data of {task}, {str(there)!r}, is not there.")
    return there


def checked_options(task: str, options: Mapping[str, Any], where: str, places: Places) -> dict[str, Any]:
    """Options of a benchmark, read.

    Raises:
        ArgumentError: it has no such option, or not with this value.
    """
    known, found = benchmarks()[task].options, {}
    for name, value in options.items():
        if name not in known:
            listed = ", ".join(known) or "none"
            raise ArgumentError(
                f"{where}: {task} has no option {name!r}{did_you_mean(name, known)}; its options are {listed}."
            )
        path = known[name].kind is Path
        found[name] = (
            places.place(str(value)) if path else known[name].read(value if isinstance(value, bool) else str(value))
        )
    return found


def _method(entry: Fields, places: Places) -> MethodEntry:
    entry.known(("id", "decoder", "grid", "steer", "sample", "temperature", "top_p", "options", "tasks", "models"))
    decoder = str(entry.text("decoder", "greedy"))
    steer, sample = entry.text("steer"), entry.fields.get("sample", False)
    if not isinstance(sample, bool):
        raise ArgumentError(f"{entry.place}: sample is {shown(sample)}; expected true or false.")
    options = entry.table("options")
    base = Way(
        decoder,
        steer,
        sample,
        entry.number("temperature", 1.0, 1e-3),
        entry.number("top_p", 1.0, 1e-6, 1.0),
        tuple(sorted(options.items())),
    )
    grid = entry.table("grid")
    for key, values in grid.items():
        if not isinstance(values, list) or not values:
            raise ArgumentError(f"{entry.place}: the grid's {key} is {shown(values)}; expected a list of values.")
    try:
        base = replace(base, steer=None if steer is None else places.steer(steer))
        if "steer" in grid:
            grid = grid | {"steer": [places.steer(str(one)) for one in grid["steer"]]}
        candidates = tuple(base.with_options(dict(zip(grid, point, strict=True))) for point in product(*grid.values()))
        for way in candidates:
            way.checked()
    except ArgumentError as error:
        raise ArgumentError(f"{entry.place}: {error}") from None
    if len(set(candidates)) < len(candidates):
        raise ArgumentError(f"{entry.place}: its grid has a value twice.")
    name = entry.text("id") or base.label
    if name == "greedy":
        raise ArgumentError(f"{entry.place}: greedy is in every set already; leave it out.")
    return MethodEntry(name, candidates, entry.names("tasks"), entry.names("models"))
