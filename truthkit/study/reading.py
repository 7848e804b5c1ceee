"""The file of a study: TOML to what is asked, each part checked, with errors that name its place."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path
from typing import Any, TypeAlias

from truthkit.errors import ArgumentError, NotAvailableError, did_you_mean
from truthkit.evaluation.running.hub import fetch, is_hub
from truthkit.evaluation.tasks import benchmarks
from truthkit.files.json_text import shown
from truthkit.files.reading import read_text
from truthkit.models.bundled import BUNDLED
from truthkit.models.checkpoint import local_model
from truthkit.steering.spec import parse_steer
from truthkit.study.way import Way

Names: TypeAlias = tuple[str, ...]

_VARIABLE = re.compile(r"\$\{(\w+)\}")


@dataclass(frozen=True)
class ModelEntry:
    """A `[[model]]`: what `tk.load` takes, the size of batches, and the amateur of decoders that want one."""

    id: str
    model: str
    revision: str | None = None
    adapter: str | None = None
    dtype: str | None = None
    device_map: str | None = None
    batch_size: int | None = None
    amateur: str | None = None


@dataclass(frozen=True)
class TaskEntry:
    """A `[[task]]`: a benchmark on its data, how it is split, and the margin within which differences do not matter.

    Attributes:
        id: of the entry; the benchmark's name by default.
        task: the benchmark.
        data: file or folder.
        margin: in the units of the headline metric, a share as 0.02.
        development: share of the families that go to the development part.
        development_data: another file for that part; then all of `data` is the test part.
        limit, development_limit: at most so many items of the test and of the development part.
        options: of the benchmark, read.
        max_new_tokens: of written answers (default: the benchmark's).
        models: ids of the models that it is put to (default: all).
    """

    id: str
    task: str
    data: Path
    margin: float
    development: float = 0.2
    development_data: Path | None = None
    limit: int | None = None
    development_limit: int | None = None
    options: dict[str, Any] = field(default_factory=dict)
    max_new_tokens: int | None = None
    models: Names = ()


@dataclass(frozen=True)
class MethodEntry:
    """A `[[method]]`: one row of every set that it is for.

    Attributes:
        id: of the entry; its decoder by default.
        candidates: what is chosen from on development, in the order of the file; one where there is no grid.
        tasks, models: ids that it is for (default: all).
    """

    id: str
    candidates: tuple[Way, ...]
    tasks: Names = ()
    models: Names = ()

    def is_for(self, task: str, model: str) -> bool:
        """Whether it has a row in the set of this task and model."""
        return (not self.tasks or task in self.tasks) and (not self.models or model in self.models)


Entry: TypeAlias = ModelEntry | TaskEntry | MethodEntry


@dataclass(frozen=True)
class Study:
    """A study's file.

    Attributes:
        path: of the file.
        name, note: for people; a file without a name only adds to a study.
        settings: `seed`, `seeds`, `alpha`, `level`, `resamples`.
        models, tasks, methods: its entries.
        decided: every decision as it is written, by its kind and id: what amending must not touch.
    """

    path: Path
    name: str
    note: str
    settings: dict[str, Any]
    models: tuple[ModelEntry, ...]
    tasks: tuple[TaskEntry, ...]
    methods: tuple[MethodEntry, ...]
    decided: dict[str, dict[str, Any]]


@dataclass(frozen=True)
class Places:
    """What paths in a study's file mean.

    Attributes:
        home: the folder that they are relative to: the file's.
        variables: values of `${NAME}` in them; what is not there is looked up in the environment.
    """

    home: Path
    variables: Mapping[str, str] = field(default_factory=dict)

    def place(self, written: str) -> Path:
        """The path.

        Raises:
            ArgumentError: a variable has no value.
        """

        def value(found: re.Match[str]) -> str:
            name = found[1]
            if (given := self.variables.get(name, os.environ.get(name))) is None:
                raise ArgumentError(
                    f"the path {written!r} has the variable {name}, which has no value; give it with --set "
                    f"{name}=PATH, or in the environment."
                )
            return given

        return self.home / Path(_VARIABLE.sub(value, written)).expanduser()

    def steer(self, written: str) -> str:
        """The same of the file in a steering's text."""
        path = parse_steer(written).path
        if not (there := self.place(path)).is_file():
            raise NotAvailableError(f"steering by {written!r}: there is no file {str(there)!r}.")
        return written.replace(path, str(there), 1)


_SETTINGS: dict[str, tuple[Any, Callable[[Any], bool], str]] = {
    "seed": (0, lambda value: type(value) is int and value >= 0, "an integer of at least 0"),
    "seeds": (
        [0],
        lambda value: (
            isinstance(value, list)
            and bool(value)
            and all(type(one) is int for one in value)
            and len(set(value)) == len(value)
        ),
        "a list of different integers",
    ),
    "alpha": (0.05, lambda value: isinstance(value, float) and 0 < value < 0.5, "a number between 0 and 0.5"),
    "level": (0.95, lambda value: isinstance(value, float) and 0 < value < 1, "a number between 0 and 1, as 0.95"),
    "resamples": (10_000, lambda value: type(value) is int and value >= 100, "an integer of at least 100"),
}
"""Settings of a study: default, check, and what is expected."""

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
    top, places = _Entry(f"{path}", document), places or Places(path.parent)
    top.known(("name", "note", *_SETTINGS, *_OF_TASKS, "model", "task", "method"))
    adds = base is not None and "name" not in document
    settings = {} if adds else {key: top.setting(key) for key in _SETTINGS}
    if adds and (set_again := [key for key in (*_SETTINGS, *_OF_TASKS) if key in document]):
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


@dataclass(frozen=True)
class _Entry:
    """A table of the file, and where it stands, for messages."""

    place: str
    fields: Mapping[str, Any]

    def known(self, names: Sequence[str]) -> None:
        """See that it has no key but these."""
        for name in self.fields:
            if name not in names:
                raise ArgumentError(
                    f"{self.place} has no key {name!r}{did_you_mean(name, names)}; its keys are {', '.join(names)}."
                )

    def entries(self, kind: str) -> list[_Entry]:
        """The tables `[[kind]]`."""
        found = self.fields.get(kind, [])
        if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
            raise ArgumentError(f"{self.place}: {kind!r} is {shown(found)}; write [[{kind}]] above each.")
        return [_Entry(f"{self.place}, [[{kind}]] number {n}", one) for n, one in enumerate(found, 1)]

    def setting(self, key: str) -> Any:
        default, fits, expected = _SETTINGS[key]
        value = self.fields.get(key, default)
        if not fits(value):
            raise ArgumentError(f"{self.place}: {key} is {shown(value)}; expected {expected}.")
        return value

    def text(self, key: str, default: str | None = None, *, needed: bool = False) -> str | None:
        value = self.fields.get(key, default)
        if (value is None and needed) or not (value is None or (isinstance(value, str) and value.strip())):
            found = "missing" if value is None else shown(value)
            raise ArgumentError(f"{self.place}: {key} is {found}; expected a text.")
        return value

    def number(self, key: str, default: Any, low: float, high: float = float("inf"), *, whole: bool = False) -> Any:
        value = self.fields.get(key, default)
        kinds = (int,) if whole else (int, float)
        if value is not default and (type(value) not in kinds or not low <= value <= high):
            expected = f"{'an integer' if whole else 'a number'} of at least {low:g}"
            expected += f" and at most {high:g}" if high < float("inf") else ""
            raise ArgumentError(f"{self.place}: {key} is {shown(value)}; expected {expected}.")
        return value

    def names(self, key: str) -> Names:
        value = self.fields.get(key, [])
        if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
            raise ArgumentError(f"{self.place}: {key} is {shown(value)}; expected a list of names.")
        return tuple(value)

    def table(self, key: str) -> dict[str, Any]:
        value = self.fields.get(key, {})
        if not isinstance(value, dict):
            raise ArgumentError(f"{self.place}: {key} is {shown(value)}; expected a table, as {{ name = value }}.")
        return value


def _model(entry: _Entry) -> ModelEntry:
    texts = ("id", "model", "revision", "adapter", "dtype", "device_map", "amateur")
    entry.known((*texts, "batch_size"))
    name = str(entry.text("model", needed=True))
    if name not in BUNDLED:
        local_model(name, entry.text("revision"))
    own = {key: entry.text(key) for key in texts if key != "id"}
    own |= {"id": entry.text("id", name), "batch_size": entry.number("batch_size", None, 1, whole=True)}
    return ModelEntry(**own)  # type: ignore[arg-type]


def _task(entry: _Entry, top: Mapping[str, Any], places: Places) -> TaskEntry:
    parts = "development", "development_data", "development_limit", "limit"
    entry.known(("id", "task", "data", *parts, "margin", "options", "max_new_tokens", "models"))
    name, data = str(entry.text("task", needed=True)), str(entry.text("data", needed=True))
    known = benchmarks()
    if name not in known:
        raise ArgumentError(
            f"{entry.place}: there is no task {name!r}{did_you_mean(name, known)}; the tasks are {', '.join(known)}."
        )
    inherited = _Entry(entry.place, {key: top[key] for key in _OF_TASKS if key in top} | dict(entry.fields))
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


def _data(task: str, written: str, entry: _Entry, places: Places) -> Path:
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


def _method(entry: _Entry, places: Places) -> MethodEntry:
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
