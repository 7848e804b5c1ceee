"""GGUF files as ordinary torch models: every weight expanded once, when the file is read."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from truthkit.errors import MissingExtraError
from truthkit.models.quiet import no_progress_bars

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from truthkit.models.types import DeviceMap


def read_gguf(
    file: Path, *, dtype: torch.dtype | None = None, device_map: DeviceMap | None = None
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Model and tokenizer from one `.gguf` file; the weights become `dtype`, float32 when None.

    Raises:
        MissingExtraError: the package `gguf` is not installed.
    """
    if find_spec("gguf") is None:
        raise MissingExtraError(
            f"{file.name} is a GGUF file, and reading it needs the package gguf, which is not installed: "
            "`pip install 'truthkit[gguf]'`."
        )
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    where = {"pretrained_model_name_or_path": str(file.parent), "gguf_file": file.name}
    with no_progress_bars():
        tokenizer = AutoTokenizer.from_pretrained(**where)
        model = AutoModelForCausalLM.from_pretrained(
            **where,
            dtype=dtype or torch.float32,
            device_map=device_map,
            quantization_config=GgufConfig(dequantize=True),
        )
    return model, tokenizer


def convert_smollm2(file: Path, folder: Path) -> None:
    r"""Write SmolLM2's GGUF file as a Hugging Face folder in float32 (538 MB).

    The file says `tokenizer.ggml.pre = smollm`: every digit stands alone before the GPT-2 pattern is applied. What
    transformers builds lacks that step, and so splits the line breaks before a number otherwise ("\n\n1." of every
    numbered list) than the model saw in training. It is put back here.
    """
    from tokenizers.pre_tokenizers import Digits, Sequence

    model, tokenizer = read_gguf(file)
    backend = tokenizer.backend_tokenizer
    backend.pre_tokenizer = Sequence([Digits(individual_digits=True), backend.pre_tokenizer])
    tokenizer.model_max_length = model.config.max_position_embeddings
    with no_progress_bars():
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
