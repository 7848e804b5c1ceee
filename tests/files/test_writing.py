"""Files written whole or not at all, with checksums and versions. Oracle: hashlib, and what lies in the folder."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import truthkit as tk
from truthkit.files.tensors import State, plan_sha256, tensors_sha256, write_tensors
from truthkit.files.versions import versions
from truthkit.files.writing import file_sha256, replacing, write_atomically


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_is_the_old_or_the_new_one(tmp_path: Path) -> None:
    path = tmp_path / "new folder" / "a.txt"
    with replacing(path) as part:
        part.write_text("old")
        assert not path.exists()
    with pytest.raises(UnicodeEncodeError), replacing(path) as part:
        part.write_text("half of the new \ud800", encoding="utf-8")
    assert path.read_text() == "old"
    assert names(path.parent) == ["a.txt"]
    assert part.suffix == ".txt"


def test_what_cannot_be_written_names_the_way_out(tmp_path: Path) -> None:
    (tmp_path / "folder").write_text("a file")
    with pytest.raises(tk.NotAvailableError, match=r"cannot be written.*run the same command again"):
        write_atomically(tmp_path / "folder" / "a.json", {})


def test_checksums(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc" * 1000)
    assert file_sha256(str(tmp_path / "a")) == hashlib.sha256(b"abc" * 1000).hexdigest()
    assert file_sha256(tmp_path) == hashlib.sha256(b"a" + b"abc" * 1000).hexdigest()
    one = {"x": torch.ones(2), "y": torch.zeros(1)}
    assert tensors_sha256(one) == tensors_sha256(dict(reversed(one.items())))
    changed: list[dict[str, torch.Tensor]] = [{}]
    changed += [{**one, "x": x} for x in (torch.ones(2, 1), torch.ones(2).double(), torch.zeros(2))]
    assert len({tensors_sha256(one), tensors_sha256(one, {"a": 1}), *map(tensors_sha256, changed)}) == 6


def test_versions() -> None:
    found = versions("torch", "no-such-package")
    assert found["truthkit"] == tk.__version__
    assert found.keys() == {"truthkit", "python", "torch"}


def test_a_state_is_of_one_plan(tmp_path: Path) -> None:
    def state(plan: str, every: float = 1000.0) -> State:
        return State(tmp_path / "work" / "state.safetensors", plan_sha256(plan), work="sum", every=every)

    assert state("a").read() is None
    state("a").write({"total": torch.tensor(3.0)})
    assert state("a").read() == {"total": torch.tensor(3.0)}
    assert names(tmp_path / "work") == ["state.safetensors"]
    assert (state("a").due(), state("a", 0.0).due()) == (False, True)
    with pytest.raises(tk.ArgumentError, match=r"work' belongs to another sum.*name another folder"):
        state("b").read()
    (tmp_path / "work" / "state.safetensors").write_bytes(b"half")
    with pytest.raises(tk.ArgumentError, match=r"cannot be read.*remove it"):
        state("a").read()


def test_tensors_are_for_everyone(tmp_path: Path) -> None:
    """As any file that is written, within the umask; not for the owner alone."""
    (tmp_path / "plain").touch()
    write_tensors(tmp_path / "a.safetensors", {"x": torch.ones(3, 2).T}, {"note": "kept"})
    assert (tmp_path / "a.safetensors").stat().st_mode == (tmp_path / "plain").stat().st_mode
    assert torch.equal(load_file(tmp_path / "a.safetensors")["x"], torch.ones(2, 3))
