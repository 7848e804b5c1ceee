"""What `--amateur` names on the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from truthkit.errors import NotAvailableError


def check_amateur(name: str) -> None:
    """Look whether there is something at `name`, where that is a path.

    Raises:
        NotAvailableError: there is not.
    """
    if name.startswith((".", "/", "~")) and not (path := Path(name).expanduser()).exists():
        raise NotAvailableError(
            f"the amateur {name!r} is no adapter within reach, and no model: there is nothing at {path.absolute()}."
        )


def amateur(name: str, model: Any, dtype: str | None) -> Any:
    """What `name` stands for: an adapter loaded in `model`, an adapter's folder or hub id, or another model."""
    from truthkit.models import load
    from truthkit.models.bundled import BUNDLED

    if name in getattr(model, "peft_config", {}):
        return name
    if name not in BUNDLED and not name.endswith(".gguf") and _is_adapter(name):
        return name
    try:
        return load(name, dtype=dtype)
    except NotAvailableError as error:
        raise NotAvailableError(f"the amateur {name!r} is no adapter within reach, and no model: {error}") from error


def _is_adapter(name: str) -> bool:
    """Whether the folder or hub repository `name` holds a PEFT adapter."""
    from transformers.utils.peft_utils import find_adapter_config_file

    try:
        return find_adapter_config_file(name) is not None
    except OSError:  # neither a folder here nor a possible hub id
        return False
