"""Every reader takes what is valid, and ends in one of truthkit's errors for the rest: no traceback, no hang, no flood.

Oracle: the kind of error, the clock and the memory. `make fuzz` tries 3,000 files per reader.
"""

from __future__ import annotations

import os
import resource
import tempfile
import warnings
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings

from tests.files.mutations import OPS, Op, mutate
from tests.files.readers import MADE, READERS, Reader, files_of
from truthkit.errors import TruthkitError

_SHARED = {
    "deadline": timedelta(seconds=10),
    "database": None,
    "derandomize": True,
    "suppress_health_check": list(HealthCheck),
}
settings.register_profile("test", max_examples=100, **_SHARED)
settings.register_profile("fuzz", max_examples=1000, **_SHARED)
PROFILE = settings.get_profile(os.environ.get("TRUTHKIT_FUZZ", "test"))
_LIMIT = 300  # MB


def _memory() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _tried(read: Reader, files: dict[str, bytes]) -> bool:
    """Whether these files are read; if not, the error is one of ours, and one line can be made of it."""
    with tempfile.TemporaryDirectory(prefix="truthkit-") as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name, content in files.items():
            Path(folder, name).write_bytes(content)
        try:
            read(Path(folder))
        except TruthkitError as error:
            return not str(error).encode()
        return True


@pytest.mark.parametrize("name", READERS)
def test_changed_files(name: str) -> None:
    files, read, before = files_of(name), READERS[name][1], _memory()
    if name not in ("state",):
        assert _tried(read, files)

    @settings(PROFILE)
    @given(OPS)
    def run(ops: list[Op]) -> None:
        file = list(files)[ops[0][2] % len(files)]
        _tried(read, {**files, file: mutate(files[file], ops)})

    run()
    assert _memory() - before < _LIMIT


@pytest.mark.parametrize("name", MADE)
def test_whole_files_with_odd_content(name: str) -> None:
    file, make = MADE[name]
    read, before = READERS["npz"][1], _memory()

    @settings(PROFILE)
    @given(OPS)
    def run(ops: list[Op]) -> None:
        _tried(read, {file: make(ops)})

    run()
    assert _memory() - before < _LIMIT
