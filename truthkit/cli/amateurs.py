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


def amateur(name: str, model: Any, dtype: str | None, where: dict[str, Any]) -> Any:
    """What `name` stands for: an adapter loaded in `model`, an adapter's folder or hub id, or another model.

    `where` are the arguments of `tk.load` that say where another model goes.

    A hub id is resolved here, once: what is returned of it, or loaded, is of that commit. "prompt" stands for itself.
    """
    from truthkit.decoding.engine.registry import PROMPT_ONLY
    from truthkit.models import load
    from truthkit.models.bundled import BUNDLED
    from truthkit.models.hub import resolve

    if name == PROMPT_ONLY or name in getattr(model, "peft_config", {}):
        return name
    path = Path(name).expanduser()
    try:
        if name in BUNDLED or path.exists() or name.startswith((".", "/", "~")) or path.suffix == ".gguf":
            return name if (path / "adapter_config.json").is_file() else load(name, dtype=dtype, **where)
        repository = resolve(name)
        return (
            repository.pinned
            if repository.has("adapter_config.json")
            else load(repository.pinned, dtype=dtype, **where)
        )
    except NotAvailableError as error:
        raise NotAvailableError(f"the amateur {name!r} is no adapter within reach, and no model: {error}") from error
