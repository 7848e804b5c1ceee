"""`tk.load`: one call for hub ids, folders, GGUF files and bundled models, text or image-text."""

from __future__ import annotations

import warnings
from os import PathLike
from typing import TYPE_CHECKING, Any

from truthkit.errors import ArgumentError, ModelError
from truthkit.models.adapter import adapters_processor, with_adapter
from truthkit.models.bundled import BUNDLED, DEFAULT
from truthkit.models.checkpoint import Source, adapter_source, model_source
from truthkit.models.distribution import check_divides, check_processes, having_a_plan, tensor_parallel
from truthkit.models.explaining import explained
from truthkit.models.gguf import read_gguf
from truthkit.models.hub import said
from truthkit.models.quantization import quantization_config
from truthkit.models.quiet import no_progress_bars, only_errors
from truthkit.models.store import bundled_folder
from truthkit.models.types import DeviceMap, Dtype, Quantization, TensorParallel, no_dtype

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase, ProcessorMixin
    from transformers.distributed.configuration_utils import DistributedConfig


def load(
    name: str | PathLike[str] | None = None,
    *,
    dtype: Dtype | None = None,
    device_map: DeviceMap | None = None,
    tp_plan: TensorParallel | None = None,
    tp_size: int | None = None,
    quantization: Quantization | None = None,
    adapter: str | PathLike[str] | None = None,
    trust_remote_code: bool = False,
    revision: str | None = None,
) -> tuple[Any, Any]:
    """A model in eval mode and its processor, ready for `generate`.

    Args:
        name: Hub id (also as "org/name@revision"), local folder, path of a `.gguf` file, or a bundled model:
            "smollm2", or "scene-vlm", a tiny image-text test model. None is the bundled default,
            SmolLM2-135M-Instruct in float32.
        dtype: Of the weights; a torch dtype or its name. None keeps what the checkpoint holds (float32 for GGUF).
        device_map: As in `from_pretrained`: "auto" spreads the model over what the machine has.
        tp_plan: As in `from_pretrained`, under torchrun: "auto" has the processes hold the model together, each a part
            of every layer (tensor parallelism). All of them must then do the same, with the same seeds.
        tp_size: How many processes hold one copy; None is all. With more processes there are several copies, and
            `extract` and `truthkit eval` share their work among these.
        quantization: "4bit" (NF4) or "8bit" (LLM.int8), by bitsandbytes.
        adapter: Folder or hub id of a PEFT adapter (also as "org/name@revision"). The model is then a `PeftModel` with
            it active. Tokens that it added are added; a tokenizer or template in its folder replaces the model's.
        trust_remote_code: Whether code from the repository may run. Read that code first.
        revision: Branch, tag or commit on the hub, of the model (not of the adapter). It is resolved to one commit,
            of which all files are; `truthkit.models.identity` says which.

    Returns:
        `(model, processor)`. The processor is the tokenizer of a text model and the whole processor of an image-text
        model. Its tokenizer pads left and always has a pad token, where the vocabulary has any special token for it.

    Raises:
        NotAvailableError: nothing by that name on this machine or within reach.
        ArgumentError: an argument has a value that cannot work.
        ModelError: what was found is not a generating text or image-text model, or the adapter does not fit it.
        MissingExtraError: a package is needed that is not installed.
    """
    weights_dtype, distribution = _torch_dtype(dtype), tensor_parallel(tp_plan, tp_size)
    if distribution is not None:
        check_processes(tp_plan, tp_size, device_map=device_map, quantization=quantization)
    source = _find(name, revision, code=trust_remote_code)
    model: Any
    processor: Any
    if source.path.suffix == ".gguf":
        if quantization is not None:
            raise ArgumentError(
                f"quantization={quantization!r} cannot be combined with the GGUF file {source.path}: its weights are "
                "quantised already and get expanded. Leave quantization out, or load the original checkpoint."
            )
        if distribution is not None:
            raise ArgumentError(f"tp_plan was given, but {source.path} is a GGUF file; load the original checkpoint.")
        with explained(source, "the file"):
            model, processor = read_gguf(source.path, dtype=weights_dtype, device_map=device_map)
    else:
        model, processor = _from_pretrained(
            source, weights_dtype, device_map, quantization, trust_remote_code, distribution
        )
    _name(model, processor, source)
    plain = model
    if adapter is not None:
        files = adapter_source(adapter)
        model, processor = with_adapter(model, files), adapters_processor(files, processor)
    _prepare_padding(plain, getattr(processor, "tokenizer", processor))
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


def _find(name: str | PathLike[str] | None, revision: str | None, *, code: bool) -> Source:
    if name is not None and name not in BUNDLED:
        return model_source(name, revision, code=code)
    if revision is not None:
        raise ArgumentError(f"revision={revision!r} is of a model on the hub, not of a bundled one; leave it out.")
    bundled = BUNDLED[str(name or DEFAULT)]
    return Source(bundled_folder(bundled), bundled.name)


def _from_pretrained(
    source: Source,
    dtype: torch.dtype | None,
    device_map: DeviceMap | None,
    quantization: Quantization | None,
    trust_remote_code: bool,
    distribution: DistributedConfig | None,
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase | ProcessorMixin]:
    """Model and processor of a Hugging Face folder, of the kind that its config says."""
    import torch
    from transformers import AutoConfig

    where: dict[str, Any] = {"trust_remote_code": trust_remote_code}
    with explained(source, "the configuration"):
        config = AutoConfig.from_pretrained(source.path, **where)
    _check_generates(source, config)
    options: dict[str, Any] = {"dtype": dtype or "auto", "device_map": device_map}
    if distribution is not None:
        check_divides(source.name, config, distribution)
        options["distributed_config"] = distribution
    if quantization is not None:
        compute_dtype = dtype or getattr(config, "dtype", None) or torch.float32
        options["quantization_config"] = quantization_config(quantization, compute_dtype)
    with no_progress_bars():
        with explained(source, "the tokenizer"):
            model_class, processor_class = _auto_classes(config)
            processor = processor_class.from_pretrained(source.path, **where)
        with explained(source, "the weights"), having_a_plan(source.name):
            generation = _generation_config(source, config)
            model, found = model_class.from_pretrained(
                source.path, config=config, **generation, **where, **options, output_loading_info=True
            )
    if (missing := sorted(found.get("missing_keys", ()))) and not trust_remote_code:
        more = f" and {len(missing) - 1} more" if missing[1:] else ""
        raise ModelError(
            f"{source.name!r} has no weights for {missing[0]}{more}, which {type(model).__name__} needs: they would be "
            "random. Use a checkpoint of a model that generates text."
        )
    return model, processor


def _check_generates(source: Source, config: PreTrainedConfig) -> None:
    """Refuse encoders and models with another head, to which transformers would give a new, random one."""
    named = list(config.architectures or ())
    writes = ("forcausallm", "lmheadmodel", "forconditionalgeneration", "doubleheadsmodel")
    if _is_image_text(config) or getattr(config, "auto_map", None) or not named:
        return
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    known = set(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values())
    if not any(name in known or name.lower().endswith(writes) for name in named):
        raise ModelError(
            f"{source.name!r} is a {named[0]}, which is no text or image-text model that generates: it has no head "
            "over the vocabulary, or reads in both directions. Name a causal language model."
        )


def _generation_config(source: Source, config: PreTrainedConfig) -> dict[str, Any]:
    """An argument for `from_pretrained` where the folder's own generation config cannot be read, with a warning."""
    if not (source.path / "generation_config.json").is_file():
        return {}
    from transformers import GenerationConfig

    try:
        with only_errors():
            GenerationConfig.from_pretrained(source.path)
    except Exception as error:  # what it holds may be of any type
        warnings.warn(
            f"generation_config.json of {source.name!r} cannot be read ({said(error)}): the model generates with the "
            f"defaults instead. Mend or delete {(source.path / 'generation_config.json').resolve()}.",
            stacklevel=4,
        )
        return {"generation_config": GenerationConfig.from_model_config(config)}
    return {}


def _name(model: Any, processor: Any, source: Source) -> None:
    """Let the model and its tokenizer be called what the user called them, and the commit be known."""
    if source.commit is not None:
        model.config._name_or_path = model.name_or_path = source.name
        model.config._commit_hash = source.commit
        getattr(processor, "tokenizer", processor).name_or_path = source.name


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
