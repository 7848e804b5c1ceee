"""Repositories of the Hugging Face hub as folders: a name becomes one commit, once, and every file is of that commit.

The hub is asked for the commit with a deadline. One that does not answer, or answers that it is out of order, is not
asked again: what its cache has of the repository is used, with a word. Files that are there already are not asked for.
"""

from __future__ import annotations

import os
import re
import threading
import time
import warnings
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

from truthkit.errors import ArgumentError, NotAvailableError, TruthkitError

PATIENCE = 5.0
"""Seconds in which the hub has to answer."""

_T = TypeVar("_T")
_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class Repository:
    """A repository at one commit.

    Attributes:
        name: its hub id.
        kind: "model", as adapters are too, or "dataset".
        commit: 40 hexadecimal digits.
        files: what it holds; None where the hub was not asked, so that only the cache is left.
        revision: the branch, tag or commit that was asked for.
    """

    name: str
    kind: str
    commit: str
    files: tuple[str, ...] | None
    revision: str = "main"

    @property
    def folder(self) -> Path:
        """Where the cache has its files; links to them, whose names are checksums."""
        return _cache(self.name, self.kind) / "snapshots" / self.commit

    @property
    def pinned(self) -> str:
        """Its name with the commit, which `resolve` takes too."""
        return f"{self.name}@{self.commit}"

    def has(self, file: str) -> bool:
        """Whether `file` is in it, or in the cache where only that is left."""
        return (self.folder / file).is_file() if self.files is None else file in self.files

    def fetch(self, files: Iterable[str]) -> None:
        """Download those of `files` that are not in the cache yet.

        Raises:
            NotAvailableError: the hub refuses one, stops answering, or the cache cannot be written.
        """
        if self.files is None:
            return
        from huggingface_hub import constants, get_hf_file_metadata, hf_hub_download, hf_hub_url

        for file in files:
            if (self.folder / file).is_file():
                continue
            url = hf_hub_url(self.name, file, repo_type=self.kind, revision=self.commit)
            try:
                _within(PATIENCE, partial(get_hf_file_metadata, url, timeout=PATIENCE))
                hf_hub_download(
                    self.name,
                    file,
                    repo_type=self.kind,
                    revision=self.commit,
                    etag_timeout=PATIENCE,
                    endpoint=constants.ENDPOINT,
                )
            except Exception as error:  # the hub's own errors, those of whatever client it uses, the file system's
                raise refusal(error, self) or _cut_off(error, self, file) from error

    def remember(self) -> None:
        """Note that the revision was this commit, for when the hub cannot be asked; call it when all files are here."""
        if self.files is None or _COMMIT.fullmatch(self.revision):
            return
        ref = _cache(self.name, self.kind) / "refs" / self.revision
        with suppress(OSError):  # a cache that is read-only
            ref.parent.mkdir(parents=True, exist_ok=True)
            part = ref.with_name(f".{ref.name}.{os.getpid()}")
            part.write_text(self.commit, encoding="utf-8")
            part.replace(ref)


_NOT_AGAIN = 60.0
"""Seconds for which a hub that did not answer is not asked for other names either."""

_silent_since: dict[str, float] = {}
"""When a hub last did not answer, by its address."""

_KNOWN: dict[Path, Repository] = {}
"""What was resolved, by folder: a commit never changes."""


def resolve(name: str, revision: str | None = None, *, kind: str = "model") -> Repository:
    """The repository `name`, or `name@revision`, at the commit that its revision is now.

    Raises:
        ArgumentError: two revisions, or one that the repository does not have.
        NotAvailableError: no such repository, or not for this account; or out of reach and not in the cache.
    """
    from huggingface_hub import HfApi, constants
    from huggingface_hub.errors import HFValidationError

    bare, _, inner = name.partition("@")
    try:
        _cache(bare, kind)
    except HFValidationError as error:
        raise NotAvailableError(f"{bare!r} is no possible name on the hub, which is like org/name") from error
    if inner and revision and inner != revision:
        raise ArgumentError(f"revision={revision!r}, but {name!r} names a revision too; give one of them.")
    wanted = revision or inner or "main"
    if known := _KNOWN.get(Repository(bare, kind, wanted, None).folder):
        return known
    if constants.HF_HUB_OFFLINE:
        return _cached(bare, kind, wanted) or _raise(_not_cached(bare, kind, wanted, "HF_HUB_OFFLINE=1 forbids asking"))
    api = HfApi(endpoint=constants.ENDPOINT)
    ask = api.dataset_info if kind == "dataset" else api.model_info
    silent = time.monotonic() - _silent_since.get(api.endpoint, -_NOT_AGAIN) < _NOT_AGAIN
    try:
        if silent:
            raise TimeoutError("it did not answer a moment ago")
        found = _within(PATIENCE, lambda: ask(bare, revision=wanted, timeout=PATIENCE))
        files = tuple(entry.rfilename for entry in found.siblings or ())
        return _know(Repository(bare, kind, str(found.sha), files, wanted))
    except Exception as error:  # as above; which client raises what changes with the hub's releases
        if no := refusal(error, Repository(bare, kind, "", None, wanted)):
            raise no from error
        if not silent and getattr(error, "response", None) is None:
            _silent_since[api.endpoint] = time.monotonic()
        why = said(error)
        if (cached := _cached(bare, kind, wanted)) is None:
            raise _not_cached(bare, kind, wanted, f"the hub cannot be asked ({why})") from error
        warnings.warn(
            f"the hub cannot be asked ({why}): {bare} is taken from the cache, at commit {cached.commit[:12]}. "
            "HF_HUB_OFFLINE=1 does so at once.",
            stacklevel=2,
        )
        return _know(cached)


def page(name: str, kind: str = "model") -> str:
    """The address of a repository's page."""
    from huggingface_hub import constants

    return f"{constants.ENDPOINT}/{'datasets/' if kind == 'dataset' else ''}{name}"


def said(error: BaseException) -> str:
    """What an error says, in one line without its closing stop; its type where it says nothing."""
    return (str(error).strip().partition("\n")[0] or type(error).__name__).rstrip(".: ")


def _cache(name: str, kind: str) -> Path:
    from huggingface_hub import constants
    from huggingface_hub.file_download import repo_folder_name

    return Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=name, repo_type=kind)


def _know(repository: Repository) -> Repository:
    _KNOWN[repository.folder] = repository
    return repository


def _cached(name: str, kind: str, revision: str) -> Repository | None:
    """What the cache has of a revision; of the newest, which `datasets` does not note, what was fetched last."""
    commit = revision
    with suppress(OSError, ValueError):
        snapshots = (_cache(name, kind) / "snapshots").glob("*")
        if revision == "main" and (fetched := sorted(snapshots, key=lambda folder: folder.stat().st_mtime)):
            commit = fetched[-1].name
        commit = (_cache(name, kind) / "refs" / revision).read_text(encoding="utf-8").strip()
    found = Repository(name, kind, commit, None, revision)
    return found if _COMMIT.fullmatch(commit) and found.folder.is_dir() else None


def _within(seconds: float, work: Callable[[], _T]) -> _T:
    """The result of `work`, which is left alone when it takes longer: no timeout of a client covers a name server's."""
    results: list[_T] = []
    errors: list[BaseException] = []

    def attempt() -> None:
        try:
            results.append(work())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=attempt, daemon=True)
    thread.start()
    thread.join(seconds)
    if errors:
        raise errors[0]
    if not results:
        raise TimeoutError(f"no answer in {seconds:g} seconds")
    return results[0]


def refusal(error: Exception, repository: Repository) -> TruthkitError | None:
    """The error for a hub that answers no; None where it did not answer, or not to the question."""
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    name, kind, revision = repository.name, repository.kind, repository.revision
    what = "data set" if kind == "dataset" else kind
    status = getattr(getattr(error, "response", None), "status_code", None)
    if isinstance(error, GatedRepoError) or "is a gated dataset" in str(error):  # the words of `datasets`
        return NotAvailableError(
            f"the {what} {name!r} is gated: accept its licence or ask for access at {page(name, kind)}, then log in "
            "with `hf auth login` or set HF_TOKEN."
        )
    if isinstance(error, RevisionNotFoundError):
        return ArgumentError(
            f"revision={revision!r}: the {what} {name!r} has no such branch, tag or commit on the hub. "
            f"{page(name, kind)}/tree/main lists them; leave it out for the newest."
        )
    if isinstance(error, RepositoryNotFoundError) or (isinstance(error, HfHubHTTPError) and status in (401, 403)):
        return NotAvailableError(
            f"the hub has no {what} {name!r}, or it is private: look for the name at {page(name, kind)}, or log in "
            "with `hf auth login`, or set HF_TOKEN, as someone who may read it."
        )
    return None


def _not_cached(name: str, kind: str, revision: str, why: str) -> NotAvailableError:
    what = "data set" if kind == "dataset" else kind
    revised = "" if revision == "main" else f" at revision {revision!r}"
    use = "pass --data hub:FOLDER, or pass the benchmark's own files" if kind == "dataset" else "name that folder"
    download = f"hf download {name}" + (" --repo-type dataset" if kind == "dataset" else "")
    return NotAvailableError(
        f"the {what} {name!r}{revised} is neither here nor in the hub cache, and {why}. Where there is a network, run "
        f"`{download} --local-dir FOLDER`, copy the folder here and {use}."
    )


def _cut_off(error: Exception, repository: Repository, file: str) -> NotAvailableError:
    if isinstance(error, OSError) and error.errno and error.filename:
        return NotAvailableError(
            f"{error.filename} cannot be written: {error.strerror}. Make room, or set HF_HOME to another folder."
        )
    return NotAvailableError(
        f"{file} of {repository.name} could not be fetched from the hub ({said(error)}). Run the same again: what came "
        "is kept, and HF_HUB_OFFLINE=1 takes an older commit that the cache has whole."
    )


def _raise(error: TruthkitError) -> Repository:
    raise error
