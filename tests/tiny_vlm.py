"""Tiny random image-text models of many families, with their own image processors and a tokenizer of characters.

The processors are transformers' own classes, so prompts get the placeholders, marks and masks of real ones. Weights are
seeded and scaled up, so that greedy output varies with the image as well as with the text. No end token is set.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import AutoConfig, AutoModelForImageTextToText, PreTrainedModel, PreTrainedTokenizerFast
from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.gemma3.image_processing_pil_gemma3 import Gemma3ImageProcessorPil
from transformers.models.gemma3.processing_gemma3 import Gemma3Processor
from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import GotOcr2ImageProcessorPil
from transformers.models.idefics3.image_processing_pil_idefics3 import Idefics3ImageProcessorPil
from transformers.models.idefics3.processing_idefics3 import Idefics3Processor
from transformers.models.instructblip.processing_instructblip import InstructBlipProcessor
from transformers.models.internvl.processing_internvl import InternVLProcessor
from transformers.models.llava.processing_llava import LlavaProcessor
from transformers.models.llava_next.image_processing_pil_llava_next import LlavaNextImageProcessorPil
from transformers.models.llava_next.processing_llava_next import LlavaNextProcessor
from transformers.models.paligemma.processing_paligemma import PaliGemmaProcessor
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
from transformers.models.qwen2_vl.processing_qwen2_vl import Qwen2VLProcessor
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil
from transformers.models.smolvlm.image_processing_pil_smolvlm import SmolVLMImageProcessorPil
from transformers.models.smolvlm.processing_smolvlm import SmolVLMProcessor
from transformers.processing_utils import ProcessorMixin

from tests.tiny import LLAMA_LIKE

_SIDE = 28
_SQUARE = {"height": _SIDE, "width": _SIDE}

_MARKS = ["<fake_token_around_image>", "<global-img>", *(f"<row_{r}_col_{c}>" for r in (1, 2, 3) for c in (1, 2, 3))]
SPECIAL = {
    name: 128 + i
    for i, name in enumerate(
        ["<image>", "<video>", "<|vision_start|>", "<|vision_end|>", "<boi>", "<eoi>", "<img>", "</img>", *_MARKS]
    )
}
"""Tokens beyond the 128 characters."""

VOCAB = 160


_NAMED = {
    "image_token": "<image>",
    "video_token": "<video>",
    "boi_token": "<boi>",
    "eoi_token": "<eoi>",
    "start_image_token": "<img>",
    "end_image_token": "</img>",
    "context_image_token": "<image>",
}


def toy_tokenizer(**named: str) -> PreTrainedTokenizerFast:
    """One token per ASCII character, whose code is its id; 0 pads, 1 begins and 2 would end a sequence.

    Args:
        named: special tokens that processors ask for by name, such as `image_token="<image>"`.
    """
    characters = {chr(i): i for i in range(3, 128)}
    ends = {"<pad>": 0, "<s>": 1, "</s>": 2}
    tokenizer = Tokenizer(models.WordLevel({**ends, **characters, **SPECIAL}, unk_token="?"))
    tokenizer.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in [*ends, *SPECIAL]])
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    tokenizer.decoder = decoders.Fuse()
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        padding_side="left",
        extra_special_tokens=named,
    )


# -- processors --------------------------------------------------------------------------------------------------------
# Those with a video processor cannot be built without torchvision, which isn't wanted beside a CPU build of torch.


class _Qwen2VLProcessor(Qwen2VLProcessor):
    def __init__(self, image_processor: Any = None, tokenizer: Any = None, **_kwargs: Any):
        self.image_token, self.image_token_id = "<image>", SPECIAL["<image>"]
        self.video_token, self.video_token_id = "<video>", SPECIAL["<video>"]
        ProcessorMixin.__init__(self, image_processor, tokenizer)


class _SmolVLMProcessor(SmolVLMProcessor):
    apply_chat_template = ProcessorMixin.apply_chat_template  # its own asks the video processor

    def __init__(self, image_processor: Any = None, tokenizer: Any = None, image_seq_len: int = 4, **_kwargs: Any):
        self.fake_image_token, self.global_image_token = "<fake_token_around_image>", "<global-img>"
        self.image_token, self.image_token_id, self.video_token = "<image>", SPECIAL["<image>"], "<video>"
        self.image_seq_len = image_seq_len
        ProcessorMixin.__init__(self, image_processor, tokenizer)


class _InternVLProcessor(InternVLProcessor):
    def __init__(self, image_processor: Any = None, tokenizer: Any = None, image_seq_length: int = 4, **_kwargs: Any):
        import re

        self.image_seq_length = image_seq_length
        self.start_image_token, self.end_image_token = "<img>", "</img>"
        self.start_image_token_id, self.end_image_token_id = SPECIAL["<img>"], SPECIAL["</img>"]
        self.image_token, self.video_token, self.image_token_id = "<image>", "<video>", SPECIAL["<image>"]
        self.multimodal_pattern = re.compile("(?P<image><image>)|(?P<video><video>)")
        ProcessorMixin.__init__(self, image_processor, tokenizer)


def _llava(tokenizer: Any) -> Any:
    pixels = CLIPImageProcessorPil(size={"shortest_edge": _SIDE}, crop_size=_SQUARE)
    return LlavaProcessor(
        pixels, tokenizer, patch_size=14, vision_feature_select_strategy="default", num_additional_image_tokens=1
    )


def _llava_next(tokenizer: Any) -> Any:
    grid = [[28, 56], [56, 28], [56, 56]]
    pixels = LlavaNextImageProcessorPil(
        size={"shortest_edge": _SIDE}, crop_size=_SQUARE, image_grid_pinpoints=grid, do_pad=True
    )
    return LlavaNextProcessor(
        pixels, tokenizer, patch_size=14, vision_feature_select_strategy="default", num_additional_image_tokens=1
    )


def _qwen(tokenizer: Any) -> Any:
    size = {"shortest_edge": 14 * 14, "longest_edge": 50 * 50}
    return _Qwen2VLProcessor(Qwen2VLImageProcessorPil(patch_size=7, merge_size=2, size=size), tokenizer)


def _idefics3(tokenizer: Any) -> Any:
    edges: dict[str, Any] = {"size": {"longest_edge": 2 * _SIDE}, "max_image_size": {"longest_edge": _SIDE}}
    return Idefics3Processor(Idefics3ImageProcessorPil(**edges), tokenizer, image_seq_len=4)


def _smolvlm(tokenizer: Any) -> Any:
    edges: dict[str, Any] = {"size": {"longest_edge": 2 * _SIDE}, "max_image_size": {"longest_edge": _SIDE}}
    return _SmolVLMProcessor(SmolVLMImageProcessorPil(**edges), tokenizer, image_seq_len=4)


def _instructblip(_tokenizer: Any) -> Any:
    """Its tokenizer gets the image token from the processor."""
    pixels = BlipImageProcessorPil(size=_SQUARE)
    return InstructBlipProcessor(pixels, toy_tokenizer(), toy_tokenizer(), num_query_tokens=4)


def _paligemma(tokenizer: Any) -> Any:
    pixels: Any = SiglipImageProcessorPil(size=_SQUARE)
    pixels.image_seq_length = 4
    return PaliGemmaProcessor(pixels, tokenizer)


def _gemma3(tokenizer: Any) -> Any:
    return Gemma3Processor(Gemma3ImageProcessorPil(size=_SQUARE), tokenizer, image_seq_length=4)


def _internvl(tokenizer: Any) -> Any:
    pixels = GotOcr2ImageProcessorPil(size=_SQUARE, min_patches=1, max_patches=2)
    return _InternVLProcessor(pixels, tokenizer, image_seq_length=4)


# -- models ------------------------------------------------------------------------------------------------------------

_TEXT: dict[str, Any] = {
    **LLAMA_LIKE,
    "vocab_size": VOCAB,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": None,
    "tie_word_embeddings": False,
}
_VISION: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": _SIDE,
    "patch_size": 14,
}
_AXES = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 2, 2]}
_QWEN = {
    "image_token_id": SPECIAL["<image>"],
    "video_token_id": SPECIAL["<video>"],
    "vision_start_token_id": SPECIAL["<|vision_start|>"],
    "vision_end_token_id": SPECIAL["<|vision_end|>"],
    "tie_word_embeddings": False,
}
_QWEN_VISION = {"depth": 2, "num_heads": 2, "patch_size": 7, "spatial_merge_size": 2}
_GEMMA = {"sliding_window": 16, "layer_types": ["sliding_attention", "full_attention"] * 2, "query_pre_attn_scalar": 12}


@dataclass(frozen=True)
class _Family:
    config: Callable[[], Any]
    processor: Callable[[Any], Any]
    image: str = "<image>"
    """How a prompt says where an image goes; empty where the processor puts its one image in front."""


def _config(model_type: str, text: dict[str, Any], vision: dict[str, Any], **values: Any) -> Callable[[], Any]:
    def make() -> Any:
        parts = {"text_config": {**_TEXT, **text}, "vision_config": {**_VISION, **vision}}
        return AutoConfig.for_model(model_type, **parts, **{"tie_word_embeddings": False, **values})

    return make


_IMAGE = SPECIAL["<image>"]
_FAMILIES: dict[str, _Family] = {
    "llava": _Family(
        _config("llava", {"model_type": "llama"}, {"model_type": "clip_vision_model"}, image_token_index=_IMAGE),
        _llava,
    ),
    "llava_next": _Family(
        _config(
            "llava_next",
            {"model_type": "mistral"},
            {"model_type": "clip_vision_model"},
            image_token_index=_IMAGE,
            image_grid_pinpoints=[[28, 56], [56, 28], [56, 56]],
        ),
        _llava_next,
    ),
    "qwen2_vl": _Family(
        _config("qwen2_vl", {"rope_parameters": _AXES}, {**_QWEN_VISION, "embed_dim": 32, "hidden_size": 48}, **_QWEN),
        _qwen,
        "<|vision_start|><image><|vision_end|>",
    ),
    "qwen2_5_vl": _Family(
        _config(
            "qwen2_5_vl",
            {"rope_parameters": _AXES},
            {**_QWEN_VISION, "out_hidden_size": 48, "window_size": 28, "fullatt_block_indexes": [1]},
            **_QWEN,
        ),
        _qwen,
        "<|vision_start|><image><|vision_end|>",
    ),
    "qwen3_vl": _Family(
        _config(
            "qwen3_vl",
            {"rope_parameters": {**_AXES, "mrope_interleaved": True}},
            {**_QWEN_VISION, "out_hidden_size": 48, "num_position_embeddings": 16, "deepstack_visual_indexes": [0, 1]},
            **_QWEN,
        ),
        _qwen,
        "<|vision_start|><image><|vision_end|>",
    ),
    "smolvlm": _Family(
        _config("smolvlm", {"model_type": "llama"}, {"patch_size": 7}, image_token_id=_IMAGE, scale_factor=2), _smolvlm
    ),
    "idefics3": _Family(
        _config("idefics3", {"model_type": "llama"}, {"patch_size": 7}, image_token_id=_IMAGE, scale_factor=2),
        _idefics3,
    ),
    "instructblip": _Family(
        _config(
            "instructblip",
            {"model_type": "llama"},
            {},
            qformer_config={
                "hidden_size": 32,
                "intermediate_size": 48,
                "num_hidden_layers": 2,
                "num_attention_heads": 2,
                "vocab_size": VOCAB,
                "encoder_hidden_size": 32,
                "cross_attention_frequency": 1,
            },
            num_query_tokens=4,
            image_token_index=_IMAGE,
        ),
        _instructblip,
        "",
    ),
    "paligemma": _Family(
        _config(
            "paligemma",
            {"model_type": "gemma"},
            {"model_type": "siglip_vision_model", "vision_use_head": False},
            image_token_index=_IMAGE,
            projection_dim=48,
            hidden_size=48,
            vocab_size=VOCAB,
        ),
        _paligemma,
    ),
    "gemma3": _Family(
        _config(
            "gemma3",
            {"model_type": "gemma3_text", **_GEMMA},
            {"model_type": "siglip_vision_model", "vision_use_head": False, "patch_size": 7},
            image_token_index=_IMAGE,
            boi_token_index=SPECIAL["<boi>"],
            eoi_token_index=SPECIAL["<eoi>"],
            mm_tokens_per_image=4,
        ),
        _gemma3,
        "<boi>",
    ),
    "internvl": _Family(
        _config("internvl", {"model_type": "qwen2"}, {"patch_size": 7}, image_token_id=_IMAGE, image_seq_length=4),
        _internvl,
    ),
}

FAMILIES: tuple[str, ...] = tuple(_FAMILIES)
"""Every family that `tiny_vlm` knows."""


@dataclass
class TinyVLM:
    """A model with its processor, as a user has them."""

    family: str
    model: PreTrainedModel
    processor: Any

    @property
    def several(self) -> bool:
        """Whether a prompt may hold several images."""
        return bool(_FAMILIES[self.family].image)

    def inputs(self, texts: Sequence[str], images: Sequence[Sequence[Image.Image]]) -> dict[str, torch.Tensor]:
        """What the processor makes of prompts, left-padded; `{}` in a text stands for each of its images."""
        mark = _FAMILIES[self.family].image
        filled = [text.format(*[mark] * len(row)) for text, row in zip(texts, images, strict=True)]
        given: Any = list(images) if self.several else [image for row in images for image in row]
        given = given if any(images) else None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # PaliGemma's processor, of NumPy 2
            made = self.processor(images=given, text=filled, padding=True, return_tensors="pt")
        if "qformer_input_ids" in made:  # padded on the left, each would have other positions than alone
            for ids, mask in zip(made["qformer_input_ids"], made["qformer_attention_mask"], strict=True):
                ids.copy_(ids.roll(int(mask.sum())))
                mask.copy_(mask.roll(int(mask.sum())))
        return {name: value for name, value in made.items() if name not in {"labels", "num_crops", "num_patches"}}


def tiny_vlm(family: str, seed: int = 2, dtype: torch.dtype = torch.float32) -> TinyVLM:
    """A seeded random image-text model of one family, in eval mode on the CPU, and its processor.

    Raises:
        KeyError: `family` is not in `FAMILIES`.
    """
    known = _FAMILIES[family]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = AutoModelForImageTextToText.from_config(known.config(), dtype=dtype)
    _fill(model, seed)
    return TinyVLM(family, model.eval(), known.processor(toy_tokenizer(**_NAMED)))


def _fill(model: PreTrainedModel, seed: int) -> None:
    """Random weights of one strength for every matrix; Gemma scales its embeddings up itself."""
    generator = torch.Generator().manual_seed(seed)
    scale = 0.15 if "gemma" in model.config.get_text_config().model_type else 1
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() < 2:
                continue
            fan_in = 1 if "embed" in name and parameter.dim() == 2 else parameter[0].numel()
            noise = torch.randn(parameter.shape, generator=generator) * (1.6 / fan_in**0.5)
            parameter.copy_(noise * (scale if "embed_tokens" in name else 1))
        model.get_output_embeddings().weight[128:] = 0  # a random model must not speak in images


def picture(width: int, height: int, seed: int = 0) -> Image.Image:
    """A random image with large coloured patches, so that every transform changes what a small model sees."""
    small = np.random.default_rng(seed).integers(0, 256, (5, 4, 3), dtype=np.uint8)
    return Image.fromarray(small, "RGB").resize((width, height), Image.Resampling.BICUBIC)
