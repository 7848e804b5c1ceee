"""Work in stages that leave their results in a folder, so that a run that was stopped goes on where it was."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any


class Stages:
    """The stages of one folder.

    Args:
        folder: where the results are; made if it isn't there.
        decides: what a stage may depend on: a name, and values whose change makes the stage's result stale.
        say: called with a line for every stage that was run.
    """

    def __init__(self, folder: Path, decides: Mapping[str, Any], say: Callable[[str], None]):
        self.folder, self.decides, self.say = folder, decides, say
        folder.mkdir(parents=True, exist_ok=True)

    def run(self, name: str, make: Callable[[], Any], needs: str, *files: Path, **also: Any) -> Any:
        """The result of a stage: JSON from its file, or made now and written there.

        Args:
            name: of the stage and its file.
            make: makes the result.
            needs: the names in `decides` of what it depends on.
            *files: what it makes beside its result; without them it is run again.
            **also: what else it depends on.
        """
        path = self.folder / f"{name}.json"
        key = hashlib.sha256(json.dumps([self._needed(needs), also], default=str).encode()).hexdigest()
        if path.is_file():
            kept = json.loads(path.read_text(encoding="utf-8"))
            if kept["key"] == key and all(file.exists() for file in files):
                return kept["result"]
            path.unlink()
        self._drop_other(name, key, files)
        began = time.time()
        result = make()
        write_json(path, {"key": key, "seconds": round(time.time() - began, 1), "result": result})
        self.say(f"  {name}: {time.time() - began:.0f} s")
        return json.loads(json.dumps(result))

    def kept(self, name: str) -> Any:
        """The result of a stage that was run before."""
        return json.loads((self.folder / f"{name}.json").read_text(encoding="utf-8"))["result"]

    def _needed(self, needs: str) -> list[Any]:
        return [self.decides[part] for part in needs.split()]

    def _drop_other(self, name: str, key: str, files: tuple[Path, ...]) -> None:
        """Forget what other settings made, or had begun to make."""
        begun = self.folder / f"{name}.begun"
        if begun.is_file() and begun.read_text(encoding="utf-8") != key:
            for file in files:
                if file.is_file():
                    file.unlink()
                shutil.rmtree(file, ignore_errors=True)
                shutil.rmtree(file.with_name(f"{file.name}.partial"), ignore_errors=True)
        if files:
            begun.write_text(key, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write a file that appears whole or not."""
    part = path.with_name(f"{path.name}.part")
    part.write_text(json.dumps(value, indent=1), encoding="utf-8")
    os.replace(part, path)
