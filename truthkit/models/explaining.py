"""What goes wrong while files are loaded, as one line with the cause and the way out."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError

from truthkit.errors import ArgumentError, MissingExtraError, ModelError, NotAvailableError, TruthkitError
from truthkit.models.checkpoint import Source
from truthkit.models.hub import said


@contextmanager
def explained(source: Source, what: str) -> Iterator[None]:
    """Errors of the libraries that read `what` ("the weights") from `source`, as truthkit's.

    Raises:
        NotAvailableError: a file is damaged or missing.
        ModelError: they do not fit together, or hold what must not be run.
        ArgumentError: code of the repository would have to run.
        MissingExtraError: a package is not installed.
    """
    try:
        yield
    except (TruthkitError, MemoryError):
        raise
    except ImportError as error:
        raise _missing_package(source, error) from error
    except Exception as error:  # transformers, peft, safetensors, tokenizers and torch each raise what they like
        raise _explanation(source, what, error) from error


def damaged_file(path: Path) -> tuple[Path, str] | None:
    """The first file of a folder that cannot be what its name says, and why; None where all seem whole."""
    from safetensors import SafetensorError, safe_open

    for file in sorted(path.glob("*")):
        try:
            if file.suffix == ".json":
                json.loads(file.read_text(encoding="utf-8"))
            elif file.suffix == ".safetensors":
                with safe_open(file, "pt"):
                    pass
            elif file.suffix == ".bin" and not zipfile.is_zipfile(file) and file.read_bytes()[:1] != b"\x80":
                return file, "no PyTorch file, or its end is missing"
        except (SafetensorError, ValueError, RecursionError, OSError) as error:
            return file, said(error)
    return None


def _explanation(source: Source, what: str, error: Exception) -> TruthkitError:
    name = repr(source.name)
    if "trust_remote_code" in str(error):
        return ArgumentError(
            f"{name} brings its own code, which does not run unless you say so: read it, then pass "
            "trust_remote_code=True."
        )
    if isinstance(error, UnpicklingError) and "eights only" in str(error):
        return ModelError(
            f"{what} of {name} are a pickle that would run code or holds other things than tensors, which is never "
            "read. Use a copy in safetensors: `save_pretrained` writes one, where the file is trusted."
        )
    if source.path.is_dir() and (damaged := damaged_file(source.path)):
        file, why = damaged
        again = "and run the same again: it is fetched anew" if source.commit else "and copy or download it again"
        return NotAvailableError(f"{file.name} of {name} is damaged ({why}): delete {file.resolve()} {again}.")
    if what == "the tokenizer" and source.path.is_dir() and not _has_tokenizer(source.path):
        return NotAvailableError(
            f"{name} holds no tokenizer: copy the one of the model that it was made from into the folder, as "
            "`AutoTokenizer.from_pretrained(BASE).save_pretrained(FOLDER)` does; `hf download` a repository first."
        )
    if isinstance(error, OSError):
        return NotAvailableError(
            f"{what} of {name} could not be loaded: {said(error)}. It is not a complete model folder; download or save "
            "it again."
        )
    return ModelError(
        f"{name} could not be loaded as a text or image-text model that generates: {what}: {said(error)} "
        f"({type(error).__name__})."
    )


def _has_tokenizer(folder: Path) -> bool:
    """Whether any file has a vocabulary; a tokenizer's configuration alone has none."""
    names = ("tokenizer.json", "tekken.json", "vocab.json", "vocab.txt", "merges.txt")
    return any((folder / name).is_file() for name in names) or any(
        file.suffix in (".model", ".tiktoken", ".bpe", ".spm", ".vocab") for file in folder.iterdir()
    )


def _missing_package(source: Source, error: ImportError) -> MissingExtraError:
    if "torchvision" in str(error).lower():
        return MissingExtraError(
            f"The processor of {source.name!r} needs torchvision (for video), which is not installed. Install the "
            "torchvision build that belongs to this torch, or load AutoImageProcessor and AutoTokenizer apart."
        )
    return MissingExtraError(f"Loading {source.name!r} needs a package that is missing: {said(error)}.")
