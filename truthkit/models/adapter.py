"""LoRA and other PEFT adapters on a loaded model."""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

from truthkit.errors import ModelError, NotAvailableError
from truthkit.models.quiet import no_peft_rename

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel


def with_adapter(model: PreTrainedModel, adapter: str | PathLike[str]) -> PeftModel:
    """`model` wrapped with a PEFT adapter from a folder or the hub, frozen and active.

    Raises:
        NotAvailableError: no adapter there.
        ModelError: the adapter was trained for another architecture.
    """
    from peft import PeftModel

    folder = Path(adapter).expanduser()
    if folder.is_dir() and not (folder / "adapter_config.json").is_file():
        raise NotAvailableError(
            f"adapter={str(adapter)!r} is a folder without adapter_config.json, so it holds no PEFT adapter. "
            "Name the folder that `PeftModel.save_pretrained` wrote."
        )
    source = str(folder) if folder.is_dir() else str(adapter)
    try:
        with no_peft_rename():
            return PeftModel.from_pretrained(model, source)
    except Exception as error:
        if _not_found(error):
            raise NotAvailableError(
                f"adapter={str(adapter)!r} is neither a folder here nor a hub repository that can be reached "
                f"({first_line(error)}). Name a folder that holds adapter_config.json, or download the repository "
                "first where huggingface.co can be reached."
            ) from error
        if isinstance(error, (ValueError, RuntimeError)):
            raise ModelError(
                f"adapter={str(adapter)!r} does not fit {type(model).__name__}: {first_line(error)}. "
                "Load it on the model it was trained on (base_model_name_or_path in its adapter_config.json)."
            ) from error
        raise


def _not_found(error: Exception) -> bool:
    """Whether PEFT found no adapter: it says so by a ValueError that has a hub or file error as its cause."""
    return isinstance(error, OSError) or "Can't find 'adapter_config.json'" in str(error)


def first_line(error: Exception) -> str:
    """What went wrong, without the paragraphs that follow and the closing stop."""
    return str(error).strip().partition("\n")[0].rstrip(".:")
