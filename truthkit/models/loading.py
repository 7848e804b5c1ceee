"""`tk.load`: one call for hub ids, folders, GGUF files and bundled models, text or image-text."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from truthkit.errors import ArgumentError, MissingExtraError, ModelError, NotAvailableError, TruthkitError, did_you_mean
from truthkit.models.adapter import first_line, with_adapter
from truthkit.models.bundled import BUNDLED, DEFAULT
from truthkit.models.gguf import read_gguf
from truthkit.models.quantization import quantization_config
from truthkit.models.quiet import no_progress_bars
from truthkit.models.store import bundled_folder
from truthkit.models.types import DeviceMap, Dtype, Quantization, no_dtype

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase, ProcessorMixin


def load(
    name: str | PathLike[str] | None = None,
    *,
    dtype: Dtype | None = None,
    device_map: DeviceMap | None = None,
    quantization: Quantization | None = None,
    adapter: str | PathLike[str] | None = None,
    trust_remote_code: bool = False,
    revision: str | None = None,
) -> tuple[Any, Any]:
    """A model in eval mode and its processor, ready for `generate`.

    Args:
        name: Hub id, local folder, path of a `.gguf` file, or a bundled model: "smollm2", or "scene-vlm", a tiny
            image-text test model. None is the bundled default, SmolLM2-135M-Instruct in float32.
        dtype: Of the weights; a torch dtype or its name. None keeps what the checkpoint holds (float32 for GGUF).
        device_map: As in `from_pretrained`: "auto" spreads the model over what the machine has.
        quantization: "4bit" (NF4) or "8bit" (LLM.int8), by bitsandbytes.
        adapter: Folder or hub id of a PEFT adapter. The model is then a `PeftModel` with it active.
        trust_remote_code: Whether code from the repository may run. Read that code first.
        revision: Branch, tag or commit on the hub, of the model (not of the adapter).

    Returns:
        `(model, processor)`. The processor is the tokenizer of a text model and the whole processor of an image-text
        model. Its tokenizer pads left and always has a pad token, where the vocabulary has any special token for it.

    Raises:
        NotAvailableError: nothing by that name on this machine or within reach.
        ArgumentError: an argument has a value that cannot work.
        ModelError: what was found is not a generating text or image-text model, or the adapter does not fit it.
        MissingExtraError: a package is needed that is not installed.
    """
    weights_dtype = _torch_dtype(dtype)
    source = find(name)
    model: Any
    processor: Any
    with _hub_errors_explained(name):
        if isinstance(source, Path) and source.suffix == ".gguf":
            if quantization is not None:
                raise ArgumentError(
                    f"quantization={quantization!r} cannot be combined with the GGUF file {source}: its weights are "
                    "quantised already and get expanded. Leave quantization out, or load the original checkpoint."
                )
            model, processor = read_gguf(source, dtype=weights_dtype, device_map=device_map)
        else:
            model, processor = _from_pretrained(
                source, weights_dtype, device_map, quantization, trust_remote_code, revision
            )
    _prepare_padding(model, getattr(processor, "tokenizer", processor))
    if adapter is not None:
        model = with_adapter(model, adapter)
    return model.eval(), processor


def _torch_dtype(dtype: Dtype | None) -> torch.dtype | None:
    """The torch dtype of a dtype or its name; None (what the checkpoint holds) for None and "auto"."""
    import torch

    if dtype is None or dtype == "auto":
        return None
    found = getattr(torch, dtype, None) if isinstance(dtype, str) else dtype
    if not isinstance(found, torch.dtype) or not found.is_floating_point:
        raise no_dtype(dtype)
    return found


def find(name: str | PathLike[str] | None) -> Path | str:
    """A folder or `.gguf` file on this machine, or the hub id that `name` must then be.

    Raises:
        NotAvailableError: it is a path, and nothing is there.
        ArgumentError: it is a folder that holds an adapter.
    """
    if name is None or name in BUNDLED:
        return bundled_folder(BUNDLED[name or DEFAULT])
    path = Path(name).expanduser()
    if path.is_dir():
        _check_model_folder(path)
        return path
    if path.suffix == ".gguf" and path.is_file():
        return path
    if path.suffix == ".gguf" or isinstance(name, PathLike) or name.startswith((".", "/", "~")):
        raise NotAvailableError(f"name={str(name)!r} is a path, and there is nothing at {path.absolute()}.")
    return name


def _check_model_folder(folder: Path) -> None:
    if (folder / "config.json").is_file():
        return
    if (folder / "adapter_config.json").is_file():
        raise ArgumentError(
            f"name={str(folder)!r} holds a PEFT adapter, not a model: pass it as adapter=, and as name the model that "
            "it was trained on (base_model_name_or_path in its adapter_config.json)."
        )
    raise NotAvailableError(
        f"name={str(folder)!r} is a folder without config.json, so it holds no model. Name the folder that "
        "`save_pretrained` wrote, or a .gguf file in it by its whole path."
    )


def _from_pretrained(
    source: Path | str,
    dtype: torch.dtype | None,
    device_map: DeviceMap | None,
    quantization: Quantization | None,
    trust_remote_code: bool,
    revision: str | None,
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase | ProcessorMixin]:
    """Model and processor of a Hugging Face folder or hub id, of the kind that its config says."""
    import torch
    from transformers import AutoConfig

    where: dict[str, Any] = {"trust_remote_code": trust_remote_code, "revision": revision or "main"}
    config = AutoConfig.from_pretrained(source, **where)
    options: dict[str, Any] = {"dtype": dtype or "auto", "device_map": device_map}
    if quantization is not None:
        compute_dtype = dtype or getattr(config, "dtype", None) or torch.float32
        options["quantization_config"] = quantization_config(quantization, compute_dtype)
    model_class, processor_class = _auto_classes(config)
    with no_progress_bars() if isinstance(source, Path) else nullcontext():
        processor = processor_class.from_pretrained(source, **where)
        return model_class.from_pretrained(source, config=config, **where, **options), processor


def _auto_classes(config: PreTrainedConfig) -> tuple[Any, Any]:
    """The auto classes of model and processor. Text models don't pay for importing the image side."""
    if _is_image_text(config):
        from transformers import AutoModelForImageTextToText, AutoProcessor

        return AutoModelForImageTextToText, AutoProcessor
    from transformers import AutoModelForCausalLM, AutoTokenizer

    return AutoModelForCausalLM, AutoTokenizer


def _is_image_text(config: PreTrainedConfig) -> bool:
    """Whether the checkpoint takes images: transformers lists its type so, or its own code says so."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES

    own_classes = getattr(config, "auto_map", None) or {}
    return (
        config.model_type in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES or "AutoModelForImageTextToText" in own_classes
    )


def _prepare_padding(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Pad left, with a token that exists: batches of prompts then continue at the same column."""
    tokenizer.padding_side = "left"
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token or tokenizer.bos_token
    if model.generation_config.pad_token_id is None:
        model.generation_config.pad_token_id = tokenizer.pad_token_id


@contextmanager
def _hub_errors_explained(name: str | PathLike[str] | None) -> Iterator[None]:
    """Errors of transformers and the hub as truthkit's, with the way out."""
    from safetensors import SafetensorError

    try:
        yield
    except TruthkitError:
        raise
    except OSError as error:
        raise NotAvailableError(
            f"name={str(name)!r} could not be loaded: {first_line(error)}. It is neither a bundled model "
            f"({', '.join(BUNDLED)}){did_you_mean(str(name), BUNDLED)}, nor a complete model folder here, nor a hub "
            "repository that can be reached or lies in the hub cache. Without internet use tk.load() (bundled), a "
            "folder or a .gguf file, and set HF_HUB_OFFLINE=1 to fail at once; for a gated repository log in with "
            "`hf auth login`."
        ) from error
    except ImportError as error:
        if "torchvision" in str(error).lower():
            raise MissingExtraError(
                f"The processor of {str(name)!r} needs torchvision (for video), which is not installed. Install the "
                "torchvision build that belongs to this torch, or load AutoImageProcessor and AutoTokenizer apart."
            ) from error
        raise MissingExtraError(
            f"Loading {str(name)!r} needs a package that is missing: {first_line(error)}."
        ) from error
    except SafetensorError as error:
        raise NotAvailableError(
            f"The weights of {str(name)!r} are damaged: {first_line(error)}. Delete the file and download it again."
        ) from error
    except ValueError as error:
        if "trust_remote_code" in str(error):
            raise ArgumentError(
                f"{str(name)!r} brings its own code, which does not run unless you say so: read it, then pass "
                "trust_remote_code=True."
            ) from error
        raise ModelError(
            f"{str(name)!r} could not be loaded as a text or image-text model that generates: {first_line(error)}."
        ) from error
