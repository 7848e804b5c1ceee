"""LoRA and other PEFT adapters on a loaded model."""

from __future__ import annotations

import json
import math
import warnings
from os import PathLike
from pathlib import Path
from pickle import UnpicklingError
from typing import TYPE_CHECKING, Any

from truthkit.errors import ModelError, NotAvailableError
from truthkit.models.checkpoint import Source, adapter_source
from truthkit.models.explaining import damaged_file
from truthkit.models.hub import said
from truthkit.models.quiet import no_peft_rename

if TYPE_CHECKING:
    import torch
    from peft import PeftModel
    from transformers import PreTrainedModel

_WEIGHTS = "adapter_model.safetensors"


def with_adapter(
    model: PreTrainedModel, adapter: str | PathLike[str] | Source, *, trainable: bool = False
) -> PeftModel:
    """`model` wrapped with a PEFT adapter from a folder or the hub, active, and frozen unless `trainable`.

    A vocabulary that grew in training grows here too, as far as the adapter holds the new rows.

    Raises:
        NotAvailableError: no adapter there, or it is damaged.
        ModelError: the adapter was trained for another architecture, or holds nothing that fits.
    """
    source = adapter if isinstance(adapter, Source) else adapter_source(adapter)
    settings = adapter_settings(source)
    shapes = _shapes(source)
    _check_rank(source, settings, shapes)
    _grow_vocabulary(model, source, shapes)
    from peft import PeftModel

    try:
        with no_peft_rename(), warnings.catch_warnings():
            warnings.filterwarnings("error", "(?s).*missing adapter keys")
            wrapped = PeftModel.from_pretrained(model, str(source.path), is_trainable=trainable)
        _check_all_used(shapes, wrapped)
    except Exception as error:  # a mutated folder makes PEFT, safetensors and torch raise whatever they like
        _take_off(model)
        raise _explanation(model, source, settings, error) from error
    wrapped.active_peft_config.truthkit_source = source
    return wrapped


def adapter_settings(source: Source) -> dict[str, Any]:
    """What `adapter_config.json` says.

    Raises:
        NotAvailableError: it is damaged.
        ModelError: it is no PEFT configuration.
    """
    file = source.path / "adapter_config.json"
    try:
        settings = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise _damaged(source, file, said(error)) from error
    if not isinstance(settings, dict) or not isinstance(settings.get("peft_type"), str):
        raise ModelError(f"{file} is no PEFT configuration: it names no peft_type. Save the adapter again.")
    if settings["peft_type"] == "LORA":
        _check_scales(file, settings)
    return settings


def _check_scales(file: Path, settings: dict[str, Any]) -> None:
    alpha = settings.setdefault("lora_alpha", 8)  # as PEFT does
    patterns = settings.get("alpha_pattern") or {}
    scales = [alpha, *patterns.values()] if isinstance(patterns, dict) else [None]
    if not all(isinstance(scale, int | float) and math.isfinite(scale) for scale in scales):
        raise ModelError(
            f"{file} has lora_alpha {alpha!r} and alpha_pattern {patterns!r}; expected numbers. Save the adapter again."
        )


def adapter_tensors(source: Source) -> dict[str, torch.Tensor]:
    """All tensors of `adapter_model.safetensors`, by name.

    Raises:
        NotAvailableError: it is damaged.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    file = source.path / _WEIGHTS
    try:
        return load_file(file)
    except (SafetensorError, OSError, ValueError) as error:
        raise _damaged(source, file, said(error)) from error


def adapters_processor(source: Source, processor: Any) -> Any:
    """`processor` with the tokenizer and the template that lie in an adapter's folder, where there are any.

    Raises:
        NotAvailableError: they cannot be read.
    """
    templates = source.path / "chat_template.jinja"
    if not (source.path / "tokenizer_config.json").is_file() and not templates.is_file():
        return processor
    try:
        if (source.path / "tokenizer.json").is_file() or (source.path / "tokenizer_config.json").is_file():
            from transformers import AutoTokenizer

            tokenizer = AutoTokenizer.from_pretrained(source.path)
            if not hasattr(processor, "tokenizer"):
                tokenizer.chat_template = tokenizer.chat_template or processor.chat_template
                return tokenizer
            processor.tokenizer = tokenizer
        if templates.is_file():
            processor.chat_template = templates.read_text(encoding="utf-8")
    except Exception as error:  # as in `with_adapter`
        raise NotAvailableError(
            f"the tokenizer in the folder of adapter {source.name!r} cannot be read ({said(error)}). Delete its "
            f"tokenizer files in {source.path} to go on with the model's, or save them again."
        ) from error
    return processor


def _take_off(model: Any) -> None:
    """Put back the layers that PEFT has wrapped so far."""
    for name, module in list(model.named_modules()):
        original = getattr(module, "base_layer", None) or getattr(module, "original_module", None)
        if original is not None and hasattr(module, "adapter_layer_names"):
            parent, _, child = name.rpartition(".")
            setattr(model.get_submodule(parent), child, original)


def _shapes(source: Source) -> dict[str, tuple[int, ...]]:
    """Of all tensors of the adapter; nothing for a pickled one, which PEFT alone reads."""
    from safetensors import SafetensorError, safe_open

    file = source.path / _WEIGHTS
    if not file.is_file():
        return {}
    try:
        with safe_open(file, "pt") as tensors:
            return {name: tuple(tensors.get_slice(name).get_shape()) for name in tensors.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        raise _damaged(source, file, said(error)) from error


def _check_rank(source: Source, settings: dict[str, Any], shapes: dict[str, tuple[int, ...]]) -> None:
    """LoRA's rank before PEFT makes matrices of that size."""
    ranks = {shape[0] for name, shape in shapes.items() if ".lora_A." in name and shape}
    rank = settings.get("r")
    if settings["peft_type"] != "LORA" or not ranks:
        return
    if not isinstance(rank, int) or (rank not in ranks and not settings.get("rank_pattern")):
        raise ModelError(
            f"adapter_config.json of {source.name!r} says rank {rank!r}, and its weights have "
            f"{', '.join(map(str, sorted(ranks)))}: they do not belong together. Save the adapter again."
        )


def _check_all_used(shapes: dict[str, tuple[int, ...]], wrapped: PeftModel) -> None:
    """PEFT passes over weights for layers that the configuration does not name."""
    from peft import get_peft_model_state_dict

    used = get_peft_model_state_dict(wrapped, save_embedding_layers=False)
    if unused := [name for name in shapes if ".lora_" in name and name not in used]:
        raise ModelError(f"its adapter_config.json does not name the layer of {unused[0]}")


def _grow_vocabulary(model: PreTrainedModel, source: Source, shapes: dict[str, tuple[int, ...]]) -> None:
    """Give the model the rows that the adapter's tokens need.

    Raises:
        ModelError: the adapter's tokenizer has more tokens than there are rows, and the new ones were not saved.
    """
    embeddings: Any = model.get_input_embeddings()
    rows = int(embeddings.weight.shape[0])
    heads = {id(embeddings), id(model.get_output_embeddings())}
    names = [name for name, module in model.named_modules() if id(module) in heads]
    saved = [
        shape[0]
        for key, shape in shapes.items()
        if len(shape) == 2 and any(key.endswith((f".{name}.weight", f".{name}.base_layer.weight")) for name in names)
    ]
    trained = any("trainable_tokens" in key for key in shapes)
    tokens = _token_count(source.path)
    wanted = max([*saved, tokens if trained else 0])
    if tokens > rows and not saved and not trained:
        raise ModelError(
            f"the tokenizer of adapter {source.name!r} has {tokens} tokens, the model rows for {rows}, and the adapter "
            "holds no rows for the new ones: save it again with save_embedding_layers=True, or delete its tokenizer "
            "files to go on with the model's."
        )
    if wanted > rows or (saved and wanted != rows):
        model.resize_token_embeddings(wanted, mean_resizing=False)


def _token_count(folder: Path) -> int:
    """One more than the largest token of `tokenizer.json`; 0 where there is none to be read."""
    try:
        content = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
        vocabulary = content["model"]["vocab"]
        largest = len(vocabulary) - 1 if isinstance(vocabulary, list) else max(vocabulary.values())
        return 1 + max([largest, *(token["id"] for token in content.get("added_tokens", ()))])
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return 0


def _explanation(model: Any, source: Source, settings: dict[str, Any], error: Exception) -> Exception:
    if damaged := damaged_file(source.path):
        return _damaged(source, *damaged)
    if isinstance(error, UnpicklingError):
        return ModelError(
            f"the weights of adapter {source.name!r} are a pickle that would run code or holds other things than "
            "tensors, which is never read. Use a copy in safetensors: `save_pretrained` writes one, where the file is "
            "trusted."
        )
    base = settings.get("base_model_name_or_path")
    trained_on = f", {str(base)!r}" if base else ""
    return ModelError(
        f"adapter={source.name!r} does not fit {type(model).__name__}: {said(error)} ({type(error).__name__}). Load it "
        f"on the model it was trained on{trained_on}, or save it again."
    )


def _damaged(source: Source, file: Path, why: str) -> NotAvailableError:
    again = "and run the same again: it is fetched anew" if source.commit else "and copy or download it again"
    return NotAvailableError(
        f"{file.name} of adapter {source.name!r} is damaged ({why}): delete {file.resolve()} {again}."
    )
