"""The sets of a study: each task put to each model, its items in two parts, and what is measured of them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from truthkit.errors import ArgumentError, TruthkitError
from truthkit.evaluation.benchmark import Benchmark, Metric
from truthkit.evaluation.running.item import check_context
from truthkit.evaluation.running.task import Task
from truthkit.evaluation.tasks import benchmarks
from truthkit.files.writing import content_key, file_sha256
from truthkit.steering.spec import parse_steer
from truthkit.study.entries import MethodEntry, ModelEntry, Study, TaskEntry
from truthkit.study.split import Parts, check_apart, said, split
from truthkit.study.way import GREEDY, Way

_YES_OR_NO = ("pope", "hallusionbench")

PARTS = ("development", "test")


@dataclass(frozen=True)
class StudySet:
    """A task put to a model.

    Attributes:
        common: the study's settings, as its seeds.
        entry, model: of the file.
        benchmark: of the task.
        whole: for each part the task that its items are of: the same one, or that of another file.
        numbers: of each part's items.
    """

    common: dict[str, Any]
    entry: TaskEntry
    model: ModelEntry
    benchmark: Benchmark
    whole: dict[str, Task]
    numbers: Parts

    @property
    def id(self) -> str:
        """For files and tables: "memotrap@smollm2"."""
        return f"{self.entry.id}@{self.model.id}"

    @property
    def metric(self) -> Metric:
        """The headline."""
        return self.benchmark.metric(self.whole["test"].headline)

    @property
    def chance(self) -> float | None:
        """What guessing comes to, where that is plain: among an item's choices, between yes and no, of an AUROC."""
        match self.metric.name:
            case "auroc":
                return 0.5
            case "accuracy" if self.entry.task in _YES_OR_NO:
                return 0.5
            case "accuracy" if items := [item for item in self.task("test").items if item.choices]:
                return sum(1 / len(item.choices) for item in items) / len(items)
        return None

    @property
    def written(self) -> bool:
        """Whether answers are written, so that sampling says something."""
        return bool(self.whole["test"].max_new_tokens) and not self.whole["test"].greedy

    def chosen(self, part: str) -> list[int]:
        """Numbers of a part's items."""
        return self.numbers.development if part == "development" else self.numbers.test

    @cached_property
    def hashes(self) -> dict[str, str]:
        """Of what the items of each part say, in whatever order."""
        return {
            part: content_key(sorted(said(self.whole[part].items[number]) for number in self.chosen(part)))
            for part in PARTS
        }

    @cached_property
    def data_sha256(self) -> dict[str, str]:
        """Checksums of the files that the numbers depend on."""
        files = dict.fromkeys(path for part in PARTS for path in self.whole[part].data)
        return {path.name: file_sha256(path) for path in files}

    def task(self, part: str, way: Way = GREEDY) -> Task:
        """A part, to be asked in this way."""
        whole = self.whole[part]
        if way.options:
            data = self.entry.development_data if part == "development" else None
            asked = _task(self.entry, data or self.entry.data, way)
            if [item.key for item in asked.items] != [item.key for item in whole.items]:
                raise ArgumentError(f"{self.id}: {way.label} changes the items; give it a [[task]] of its own.")
            whole = asked
        return whole.part(self.chosen(part), part=part, items_sha256=self.hashes[part])

    def settings(self, part: str, way: Way, seed: int) -> dict[str, Any]:
        """All that decides a run's answers, as far as it is known before a model is loaded; no path of this machine."""
        own = {key: getattr(self.model, key) for key in ("model", "revision", "adapter", "dtype")}
        found: dict[str, Any] = own | {"task": self.entry.task, "items": self.hashes[part], "data": self.data_sha256}
        found |= {"part": part, "options": self._options_sha256(way), "decoder": way.decoder}
        found |= {"seed": seed, "max_new_tokens": self.entry.max_new_tokens or self.whole[part].max_new_tokens}
        found |= {"amateur": self.model.amateur} if way.spec.takes("amateur") else {}
        found |= {"temperature": way.temperature, "top_p": way.top_p} if way.draws else {}
        if way.steer is not None:
            steer = parse_steer(way.steer)
            found["steer"] = way.steer.replace(steer.path, file_sha256(steer.path), 1)
        return found

    def key(self, part: str, way: Way, seed: int) -> str:
        """A run's folder is named so: one run has one folder, whoever asks for it."""
        return content_key(self.settings(part, way, seed))

    def seeds(self, way: Way) -> list[int]:
        """Of the runs of one row: all where the answers depend on them, else the first."""
        every: list[int] = self.common["seeds"]
        return every if way.seeded else every[:1]

    def check(self, entry: MethodEntry) -> None:
        """See that a method can be asked here.

        Raises:
            ArgumentError: it compares what the items have not, draws where nothing is drawn, or needs a part that has
                no items; the message says which and how to leave it out.
        """
        out = f"say what {entry.id!r} is for, as tasks = [...]"
        for way in entry.candidates:
            items = [self.whole["test"].items[number] for number in self.numbers.test]
            try:
                check_context(items, way.spec)
            except ArgumentError as error:
                raise ArgumentError(f"{self.id}: {error} Or {out}.") from None
            if way.spec.needs_image and not any(item.images for item in items):
                raise ArgumentError(f"{self.id} has no pictures, which {way.decoder} compares; {out}.")
            if way.draws and not self.written:
                raise ArgumentError(f"{self.id} writes no answers, so that nothing can be drawn; {out}.")
            for name in dict(way.options):
                if name not in self.benchmark.options:
                    raise ArgumentError(f"{self.id} has no option {name!r}; {out}.")
        if len(entry.candidates) > 1 and not self.numbers.development:
            raise ArgumentError(
                f"{self.id} has no development items, on which {entry.id!r} could choose from its grid; give it some, "
                "as development = 0.2."
            )

    def _options_sha256(self, way: Way) -> dict[str, Any]:
        """The task's options, files by their content, folders left out: what items show is in their own hash."""
        found = {}
        for name, value in (self.entry.options | dict(way.options)).items():
            if self.benchmark.options[name].kind is not Path:
                found[name] = value
            elif Path(value).is_file():
                found[name] = file_sha256(value)
        return found


def sets_of(study: Study) -> list[StudySet]:
    """Every task on every model that it is for, model by model, so that each is loaded once.

    Raises:
        ArgumentError: data that cannot be read, a part without items, or the same item in both parts.
    """
    found = []
    for entry in study.tasks:
        benchmark = benchmarks()[entry.task]
        test = _task(entry, entry.data)
        headline = benchmark.metric(test.headline)
        if headline.share and entry.margin >= 1:
            raise ArgumentError(
                f"{entry.id}: margin is {entry.margin}, and {headline.name} is a share from 0 to 1; expected less than "
                "1, as 0.02 for two points of a percentage."
            )
        if not headline.better:
            raise ArgumentError(f"{entry.id}: neither direction of {test.headline} is better; no method could win.")
        other = _task(entry, entry.development_data) if entry.development_data else None
        limits = {"limit": entry.limit, "development_limit": entry.development_limit}
        seed = study.settings["seed"]
        if other is None:
            parts, development = split(test, entry.development, seed=seed, **limits), test
        else:
            of_both = split(other, 1.0, seed=seed, **limits), split(test, 0.0, seed=seed, **limits)
            parts, development = Parts(of_both[0].development, of_both[1].test), other
        check_apart(
            [development.items[number] for number in parts.development],
            [test.items[number] for number in parts.test],
            entry.id,
        )
        if not parts.test:
            raise ArgumentError(f"{entry.id} has no items for its test part; a larger limit, or more data, gives some.")
        whole = {"development": development, "test": test}
        found += [
            StudySet(study.settings, entry, model, benchmark, whole, parts)
            for model in study.models
            if not entry.models or model.id in entry.models
        ]
    order = [model.id for model in study.models]
    return sorted(found, key=lambda one: order.index(one.model.id))


def _task(entry: TaskEntry, data: Path, way: Way = GREEDY) -> Task:
    benchmark = benchmarks()[entry.task]
    own = {name: value if isinstance(value, bool) else str(value) for name, value in way.options}
    try:
        options = entry.options | {name: benchmark.options[name].read(value) for name, value in own.items()}
        return benchmark.task(data, **options)
    except TruthkitError as error:
        raise type(error)(f"{entry.id}: {error}") from None
