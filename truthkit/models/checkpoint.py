"""Where the files of a model or an adapter are: a folder here, or a repository's, which is fetched first."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

from truthkit.errors import ArgumentError, NotAvailableError, did_you_mean
from truthkit.models.bundled import BUNDLED
from truthkit.models.hub import Repository, resolve

_MODEL = ("model.safetensors", "pytorch_model.bin")
_ADAPTER = ("adapter_model.safetensors", "adapter_model.bin")

_BESIDE = (".json", ".jinja", ".txt", ".model", ".tiktoken", ".bpe", ".spm", ".vocab")
"""Endings of configurations, tokenizers and templates."""

_IN_FOLDERS = "additional_chat_templates/"


@dataclass(frozen=True)
class Source:
    """Files to load, and what they are called.

    Attributes:
        path: a folder, or a GGUF file.
        name: hub id, path or bundled name, as the user gave it.
        commit: of the hub's repository; None for what is no repository.
    """

    path: Path
    name: str
    commit: str | None = None


def model_source(name: str | PathLike[str], revision: str | None, *, code: bool = False) -> Source:
    """A model's folder here or from the hub, or a GGUF file; with `code`, the repository's Python files too.

    Raises:
        NotAvailableError, ArgumentError: nothing there, or something else; see also `truthkit.models.hub.resolve`.
    """
    if (here := local_model(name, revision)) is not None:
        return here
    try:
        repository = resolve(str(name), revision)
    except NotAvailableError as error:
        raise NotAvailableError(
            f"name={str(name)!r} is neither a bundled model ({', '.join(BUNDLED)}){did_you_mean(str(name), BUNDLED)} "
            f"nor a folder here: {str(error).rstrip('.')}. tk.load() and .gguf files need no network; HF_HUB_OFFLINE=1 "
            "fails at once."
        ) from error
    _check_model(str(name), _listing(repository))
    return Source(_download(repository, _MODEL, code=code), repository.name, repository.commit)


def local_model(name: str | PathLike[str], revision: str | None = None) -> Source | None:
    """A model's folder or GGUF file on this machine; None for what must be a hub id.

    Raises:
        NotAvailableError, ArgumentError: it is a path with nothing there, or something else.
    """
    path = Path(name).expanduser()
    if path.is_dir():
        _no_revision(revision, f"name={str(name)!r}")
        _check_model(str(name), {file.name for file in path.iterdir()})
        return Source(path, str(name))
    if path.suffix == ".gguf" and path.is_file():
        _no_revision(revision, f"name={str(name)!r}")
        return Source(path, str(name))
    if path.suffix == ".gguf" or _is_path(name):
        raise NotAvailableError(f"name={str(name)!r} is a path, and there is nothing at {path.absolute()}.")
    return None


def adapter_source(adapter: str | PathLike[str], argument: str = "adapter") -> Source:
    """An adapter's folder, here or from the hub, where `name@revision` names a revision.

    Raises:
        NotAvailableError, ArgumentError: nothing there, or something else; see also `truthkit.models.hub.resolve`.
    """
    folder = Path(adapter).expanduser()
    label = f"{argument}={str(adapter)!r}"
    if folder.is_dir():
        _check_adapter(label, {file.name for file in folder.iterdir()})
        return Source(folder, str(adapter))
    if _is_path(adapter) or folder.exists():
        raise NotAvailableError(
            f"{label} is neither a folder here nor a hub id. Name the folder that holds adapter_config.json."
        )
    try:
        repository = resolve(str(adapter))
    except NotAvailableError as error:
        raise NotAvailableError(f"{label} is neither a folder here nor to be had from the hub: {error}") from error
    _check_adapter(label, _listing(repository))
    return Source(_download(repository, _ADAPTER), repository.name, repository.commit)


def _is_path(name: str | PathLike[str]) -> bool:
    return isinstance(name, PathLike) or name.startswith((".", "/", "~"))


def _no_revision(revision: str | None, label: str) -> None:
    if revision is not None:
        raise ArgumentError(
            f"revision={revision!r} is of a repository on the hub, and {label} lies here; leave it out."
        )


def _listing(repository: Repository) -> set[str]:
    if repository.files is not None:
        return set(repository.files)
    return {str(file.relative_to(repository.folder)) for file in repository.folder.rglob("*")}


def _check_model(name: str, files: Collection[str]) -> None:
    if "config.json" in files:
        return
    if "adapter_config.json" in files:
        raise ArgumentError(
            f"name={name!r} holds a PEFT adapter, not a model: pass it as adapter=, and as name the model that it was "
            "trained on (base_model_name_or_path in its adapter_config.json)."
        )
    if quantised := sorted(file for file in files if file.endswith(".gguf")):
        one = quantised[0]
        how = f"its path, {Path(name, one)}" if Path(name).is_dir() else f"`hf download {name} {one}`, then that file"
        more = f" and {len(quantised) - 1} more" if quantised[1:] else ""
        raise NotAvailableError(f"name={name!r} is without config.json but holds {one}{more}: load it by {how}.")
    raise NotAvailableError(
        f"name={name!r} is without config.json, so it holds no model. Name what `save_pretrained` wrote, or a .gguf "
        "file by its whole path."
    )


def _check_adapter(label: str, files: Collection[str]) -> None:
    if "adapter_config.json" in files:
        return
    if "config.json" in files:
        raise ArgumentError(
            f"{label} holds a model, not an adapter: load it as the model itself, by its name alone; an adapter has an "
            "adapter_config.json."
        )
    raise NotAvailableError(
        f"{label} is without adapter_config.json, so it holds no PEFT adapter. Name what `PeftModel.save_pretrained` "
        "wrote."
    )


def _download(repository: Repository, weights: tuple[str, ...], *, code: bool = False) -> Path:
    """Everything that loading reads, the weights last: where they are, the rest is."""
    endings = (*_BESIDE, ".py") if code else _BESIDE
    repository.fetch(
        file
        for file in repository.files or ()
        if file.endswith(endings) and ("/" not in file or file.startswith(_IN_FOLDERS) or file.endswith(".py"))
    )
    repository.fetch(_weights(repository.folder, weights, repository.has))
    repository.remember()
    return repository.folder


def _weights(folder: Path, names: tuple[str, ...], has: Callable[[str], bool]) -> list[str]:
    """The weights' files, in the order in which transformers prefers them."""
    for name in names:
        if has(name):
            return [name]
        if has(index := f"{name}.index.json"):
            with suppress(OSError, ValueError, AttributeError, KeyError):  # a damaged one is told of when it is read
                shards: dict[str, Any] = json.loads((folder / index).read_text(encoding="utf-8"))["weight_map"]
                return sorted({str(shard) for shard in shards.values()})
    return []
