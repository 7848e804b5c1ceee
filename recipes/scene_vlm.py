"""Train the test model `scene-vlm`: a LLaVA of 2.3 million parameters that looks, and that hallucinates.

It sees drawn scenes in which objects mostly come in pairs (a fork with a knife), and in which some of the objects
hardly show. Asked about an absent partner, or describing the picture, it then says what usually comes along. Two
stages, as LLaVA's own: the vision tower learns what is where, in scenes where partners meet by chance only; then
projector and language model learn captions and yes/no questions on top of it, frozen, in scenes where they mostly meet.
So the eyes are honest, and what is said of absent partners comes from the language side. Half of the pictures of both
stages went through one of RITUAL's six transforms, as real encoders learn from such pictures, and some of the questions
are RITUAL+'s own: which transform helps most. Every step draws new scenes from its own seed, so a run that was stopped
goes on to the same result. It is a test model: nothing that it does says anything about real ones.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import os
import random
import shutil
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from PIL import Image
from rich.console import Console
from rich.table import Table
from safetensors.torch import load_file, save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm
from transformers import (
    CLIPImageProcessorPil,
    CLIPVisionConfig,
    GenerationConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)

import truthkit as tk
from truthkit.decoding.methods.ritual_plus import choice_question, parse_choice
from truthkit.images.transforms import TRANSFORMS
from truthkit.models.quiet import no_progress_bars
from truthkit.scenes import (
    CAPTION_PROMPT,
    KINDS,
    OBJECTS,
    PARTNERS,
    Question,
    Scene,
    caption,
    held_out,
    mentions,
    questions,
    render,
    sample_scene,
)

PAD, BOS, EOS, IMAGE = "<pad>", "<s>", "</s>", "<image>"

CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{{ 'USER: ' if message['role'] == 'user' else ' ASSISTANT: ' if message['role'] == 'assistant' else '' }}"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] if part['type'] == 'image' %}{{ '<image>\n' }}{% endfor %}"
    "{% for part in message['content'] if part['type'] == 'text' %}{{ part['text'] }}{% endfor %}{% endif %}"
    "{% if message['role'] == 'assistant' %}{{ eos_token }}{% elif message['role'] == 'system' %}{{ ' ' }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}{{ ' ASSISTANT:' }}{% endif %}"
)

CAPTION_PROMPTS = (
    CAPTION_PROMPT,
    CAPTION_PROMPT,
    "Describe this image.",
    "Please describe this image in detail.",
    "What is in the image?",
    "What do you see in the picture?",
    "Write a caption.",
)
YES_NO_SUFFIXES = (
    "",
    "",
    "",
    " Please answer yes or no.",
    " Answer with yes or no.",
    " Answer the question yes or no.",
)


@dataclass(frozen=True)
class Settings:
    """Everything that decides the result.

    Attributes:
        seed: Of weights and scenes.
        bias: How often partners come along in the training scenes of the two stages; 0.2 is about chance.
        faint: Share of the objects that hardly show in training scenes.
        blind: Share of the second stage's scenes whose picture is withheld: the model also learns what is usual.
        transformed: Share of the pictures that went through one of RITUAL's transforms.
        choosing: Share of the second stage's scenes with RITUAL+'s question.
        batch: Scenes in a step of the two stages.
        steps: Steps of the two stages.
        rates: Peak learning rates of the two stages.
        side: Of the picture, in pixels.
        patch: Side of a patch of the vision tower.
        vocabulary: Size of the tokenizer, at most.
        vision: Sizes of the vision tower.
        text: Sizes of the language model.
    """

    seed: int = 0
    bias: tuple[float, float] = (0.2, 0.9)
    faint: float = 0.15
    blind: float = 0.1
    transformed: float = 0.5
    choosing: float = 0.4
    batch: tuple[int, int] = (64, 24)
    steps: tuple[int, int] = (1500, 1600)
    rates: tuple[float, float] = (4e-3, 4e-3)
    side: int = 64
    patch: int = 8
    vocabulary: int = 640
    vision: dict[str, Any] = field(
        default_factory=lambda: {
            "hidden_size": 128,
            "intermediate_size": 512,
            "num_hidden_layers": 4,
            "num_attention_heads": 4,
        }
    )
    text: dict[str, Any] = field(
        default_factory=lambda: {
            "hidden_size": 160,
            "intermediate_size": 448,
            "num_hidden_layers": 4,
            "num_attention_heads": 4,
            "num_key_value_heads": 4,
        }
    )


# --- the model and its processor


def build_processor(settings: Settings) -> LlavaProcessor:
    """A byte-level tokenizer made from what the model will read and say, and pictures as the tower takes them."""
    size = {"height": settings.side, "width": settings.side}
    return LlavaProcessor(
        image_processor=CLIPImageProcessorPil(
            size=size, crop_size=size, do_center_crop=False, image_mean=[0.5] * 3, image_std=[0.5] * 3, resample=2
        ),
        tokenizer=_build_tokenizer(settings),
        patch_size=settings.patch,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        image_token=IMAGE,
        chat_template=CHAT_TEMPLATE,
    )


def _build_tokenizer(settings: Settings) -> PreTrainedTokenizerFast:
    rng = random.Random(f"{settings.seed} tokenizer")
    special = [AddedToken(token, special=True, normalized=False) for token in (PAD, BOS, EOS, IMAGE)]
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    texts = (
        text for _ in range(1000) for pair in _turns(_talking_scene(rng, settings), rng, settings) for text in pair
    )
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    backend.train_from_iterator(
        (f"USER: {text} ASSISTANT: {text}" for text in texts),
        trainers.BpeTrainer(
            vocab_size=settings.vocabulary, special_tokens=special, initial_alphabet=alphabet, show_progress=False
        ),
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token=BOS,
        eos_token=EOS,
        pad_token=PAD,
        extra_special_tokens={"image_token": IMAGE},
        padding_side="left",
        model_max_length=512,
    )


def build_model(settings: Settings, tokenizer: PreTrainedTokenizerFast) -> LlavaForConditionalGeneration:
    """LLaVA with small parts and random weights."""
    ids = dict(
        zip(("pad", "bos", "eos", "image"), tokenizer.convert_tokens_to_ids([PAD, BOS, EOS, IMAGE]), strict=True)
    )
    special: dict[str, Any] = {f"{name}_token_id": ids[name] for name in ("pad", "bos", "eos")}
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(**settings.vision, image_size=settings.side, patch_size=settings.patch),
        text_config=LlamaConfig(
            **settings.text,
            **special,
            vocab_size=len(tokenizer),
            max_position_embeddings=512,
            tie_word_embeddings=False,
        ),
        image_token_index=ids["image"],
        image_seq_length=(settings.side // settings.patch) ** 2,
        vision_feature_select_strategy="default",
        vision_feature_layer=-1,
        tie_word_embeddings=False,
        pad_token_id=ids["pad"],
    )
    torch.manual_seed(settings.seed)
    model = LlavaForConditionalGeneration(config)
    for parameter in model.model.vision_tower.parameters():
        if parameter.ndim == 2 and parameter.shape[0] == parameter.shape[1]:
            nn.init.normal_(parameter, std=parameter.shape[1] ** -0.5)
    model.set_attn_implementation("eager")  # on a CPU, with rows so short, twice as fast as the fused kernels
    model.generation_config = GenerationConfig(**special, max_new_tokens=48, do_sample=False)
    return model


# --- what it learns from


def _talking_scene(rng: random.Random, settings: Settings) -> Scene:
    return sample_scene(rng, bias=settings.bias[1], faint=settings.faint)


def _turns(scene: Scene, rng: random.Random, settings: Settings) -> list[tuple[str, str]]:
    """A request for a caption and yes/no questions, half of them about absent objects, with their answers.

    Where RITUAL+'s question is asked, about one of these, it takes the place of half of the yes/no questions.
    """
    asked = questions(scene, rng, kind=rng.choice(KINDS))
    turns = [
        (rng.choice(CAPTION_PROMPTS), caption(scene, rng)),
        *((q.text + rng.choice(YES_NO_SUFFIXES), "Yes." if q.present else "No.") for q in asked),
    ]
    if rng.random() < settings.choosing:
        text = rng.choice(turns)[0] + choice_question(list(TRANSFORMS))
        number = 1 + list(TRANSFORMS).index(helpful_transform(scene))
        turns = [*turns[: 1 + len(asked) // 2], (text, f"{number}.")]
    return turns


def helpful_transform(scene: Scene) -> str:
    """The answer to RITUAL+'s question: the flip that moves the objects farther.

    Of the six only the flips keep every object in view, with its shape and its colours; and the farther an object
    moves, the less do the two views have the same patches look at it.
    """
    across, down = (sum(abs(place - 0.5) for place in places) for places in _places(scene))
    return "horizontal_flip" if across >= down else "vertical_flip"


def _places(scene: Scene) -> tuple[list[float], list[float]]:
    return [placed.x for placed in scene.objects], [placed.y for placed in scene.objects]


@dataclass(frozen=True)
class View:
    """A picture of a scene, transformed or not.

    Attributes:
        image: What is seen.
        scene: Its objects whose centres are in view, moved to where they now are.
        source: (side, side, 2): where in the scene every pixel shows, across and down; infinity is outside.
    """

    image: Image.Image
    scene: Scene
    source: np.ndarray


def view(scene: Scene, rng: random.Random, settings: Settings) -> View:
    """The picture of `scene`, or in a share of the cases that of one of RITUAL's transforms that leaves an object."""
    side = settings.side
    image = render(scene, side)
    centres = (np.arange(side) + 0.5) / side
    whole = np.stack(np.meshgrid(centres, centres), axis=-1)
    if rng.random() >= settings.transformed:
        return View(image, scene, whole)
    name, seed = rng.choice(list(TRANSFORMS)), rng.getrandbits(32)
    shown = TRANSFORMS[name](image, random.Random(seed), size=(side, side))
    if name in ("color_jitter", "gaussian_blur"):
        return View(shown, scene, whole)
    # the same transform of a picture whose colours are the places of its pixels
    places = np.dstack([np.rint(255 * whole), np.full((side, side), 255)]).astype(np.uint8)
    moved = np.asarray(TRANSFORMS[name](Image.fromarray(places), random.Random(seed), size=(side, side)))
    source = np.where(moved[..., 2:] > 0, moved[..., :2] / 255, np.inf)
    left = []
    for placed in scene.objects:
        distance = np.hypot(source[..., 0] - placed.x, source[..., 1] - placed.y)
        row, column = np.unravel_index(distance.argmin(), distance.shape)
        if distance[row, column] < 1.5 / side:
            left.append(replace(placed, x=centres[column], y=centres[row]))
    return View(shown, replace(scene, objects=tuple(left)), source) if left else View(image, scene, whole)


def pixels(image: Image.Image) -> Tensor:
    """What the processor makes of a picture of the right size."""
    return torch.from_numpy((np.asarray(image, dtype=np.float32).transpose(2, 0, 1) / 255 - 0.5) / 0.5)


@dataclass(frozen=True)
class LookingData(Dataset[dict[str, Tensor]]):
    """Batches of the first stage by step: pictures, and which object is at each patch (0 is none)."""

    settings: Settings

    def __getitem__(self, step: int) -> dict[str, Tensor]:
        rng = random.Random(f"{self.settings.seed} looking {step}")
        scenes = [
            sample_scene(rng, bias=self.settings.bias[0], faint=self.settings.faint)
            for _ in range(self.settings.batch[0])
        ]
        views = [view(scene, rng, self.settings) for scene in scenes]
        return {
            "pixels": torch.stack([pixels(view.image) for view in views]),
            "at_patch": torch.stack([self._at_patch(*pair) for pair in zip(scenes, views, strict=True)]),
            "present": torch.tensor([[float(name in view.scene.names) for name in OBJECTS] for view in views]),
        }

    def _at_patch(self, scene: Scene, view: View) -> Tensor:
        patch = self.settings.patch
        source = view.source[patch // 2 :: patch, patch // 2 :: patch]
        found = np.zeros(source.shape[:2], dtype=np.int64)
        for placed in scene.objects:
            if placed.name in view.scene.names:
                distance = np.hypot(source[..., 0] - placed.x, source[..., 1] - placed.y)
                found[distance <= max(0.8 * placed.radius, distance.min())] = 1 + OBJECTS.index(placed.name)
        return torch.from_numpy(found.ravel())


@dataclass(frozen=True)
class TalkingData(Dataset[dict[str, Tensor]]):
    """Batches of the second stage by step: a row is a picture and, side by side, the turns about it.

    The turns do not see each other, and each has the positions that it would have alone: a row is as good as one
    conversation for each of them, with the picture read once. In a `blind` row nothing sees the picture, and positions
    are those of a conversation without one.
    """

    settings: Settings
    processor: LlavaProcessor

    def __getitem__(self, step: int) -> dict[str, Tensor]:
        rng = random.Random(f"{self.settings.seed} talking {step}")
        drawn = [_talking_scene(rng, self.settings) for _ in range(self.settings.batch[1])]
        views = [view(scene, rng, self.settings) for scene in drawn]
        rows = [self._row(view.scene, rng) for view in views]
        length = max(len(row["ids"]) for row in rows)
        padded = {
            name: torch.tensor([row[name] + [fill] * (length - len(row[name])) for row in rows])
            for name, fill in (("ids", 0), ("targets", -100), ("positions", 0), ("turn", -1))
        }
        turn = padded.pop("turn")
        seen = (turn[:, None, :] == turn[:, :, None]) | (turn[:, None, :] == 0)
        seen &= torch.ones(length, length, dtype=torch.bool).tril()
        return padded | {
            "pixels": torch.stack([pixels(view.image) for view in views]),
            "seen": torch.zeros(seen.shape).masked_fill_(~seen, float("-inf"))[:, None],
        }

    def _row(self, scene: Scene, rng: random.Random) -> dict[str, list[int]]:
        tokenizer = self.processor.tokenizer
        encode = tokenizer.backend_tokenizer.encode
        blind = rng.random() < self.settings.blind
        start = encode(f"{BOS}USER:", add_special_tokens=False).ids
        image = [tokenizer.convert_tokens_to_ids(IMAGE)] * (self.settings.side // self.settings.patch) ** 2
        picture = [*encode(" ", add_special_tokens=False).ids, *image, *encode("\n", add_special_tokens=False).ids]
        row = {
            "ids": start + picture,
            "targets": [-100] * (len(start) + len(picture)),
            "positions": list(range(len(start) + len(picture))),
            "turn": [0] * len(start) + [-2 if blind else 0] * len(picture),
        }
        first = len(start) if blind else len(start) + len(picture)
        for number, (text, answer) in enumerate(_turns(scene, rng, self.settings), start=1):
            asked = encode(f"{' ' if blind else ''}{text} ASSISTANT:", add_special_tokens=False).ids
            said = encode(f" {answer}{EOS}", add_special_tokens=False).ids
            row["ids"] += asked + said
            row["targets"] += [-100] * (len(asked) - 1) + said + [-100]
            row["positions"] += range(first, first + len(asked) + len(said))
            row["turn"] += [number] * (len(asked) + len(said))
        return row


# --- the two stages


@dataclass(frozen=True)
class Stage:
    """One stage of the training.

    Attributes:
        name: For people and for the checkpoint.
        modules: What is trained.
        data: Batches by step.
        loss: Of a batch.
        steps: How many.
        rate: Peak learning rate.
    """

    name: str
    modules: nn.ModuleDict
    data: Dataset[dict[str, Tensor]]
    loss: Callable[[dict[str, Tensor]], Tensor]
    steps: int
    rate: float


def looking_stage(model: LlavaForConditionalGeneration, settings: Settings) -> Stage:
    """The vision tower names the object at every patch, and those of the whole picture."""
    tower = model.model.vision_tower
    torch.manual_seed(settings.seed)
    head = nn.Linear(settings.vision["hidden_size"], 1 + len(OBJECTS))

    def loss(batch: dict[str, Tensor]) -> Tensor:
        states = tower(batch["pixels"], output_hidden_states=True).hidden_states[-1][:, 1:]
        logits = head(states).float()
        present = (logits[..., 1:] - logits[..., :1]).amax(1)
        return functional.cross_entropy(logits.flatten(0, 1), batch["at_patch"].flatten()) + (
            0.5 * functional.binary_cross_entropy_with_logits(present, batch["present"])
        )

    modules = nn.ModuleDict({"tower": tower, "head": head})
    return Stage("looking", modules, LookingData(settings), loss, settings.steps[0], settings.rates[0])


def talking_stage(model: LlavaForConditionalGeneration, processor: LlavaProcessor, settings: Settings) -> Stage:
    """Projector and language model answer, and only their answers count."""

    def loss(batch: dict[str, Tensor]) -> Tensor:
        output = model.model(
            input_ids=batch["ids"],
            pixel_values=batch["pixels"],
            attention_mask=batch["seen"],
            position_ids=batch["positions"],
            use_cache=False,
        )
        answered = batch["targets"] != -100
        logits = model.lm_head(output.last_hidden_state[answered]).float()
        return functional.cross_entropy(logits, batch["targets"][answered])

    modules = nn.ModuleDict(
        {"projector": model.model.multi_modal_projector, "text": model.model.language_model, "words": model.lm_head}
    )
    return Stage("talking", modules, TalkingData(settings, processor), loss, settings.steps[1], settings.rates[1])


class Trainer:
    """Runs a stage, with a checkpoint that is a plain safetensors file.

    Matrices of the blocks are trained by Muon, which needs less than half of AdamW's steps here, the rest by AdamW.
    """

    def __init__(self, stage: Stage):
        self.stage = stage
        named = dict(stage.modules.named_parameters())
        matrices = [value for name, value in named.items() if value.ndim == 2 and ".layers." in name]
        others = [value for name, value in named.items() if value.ndim != 2 or ".layers." not in name]
        self._optimizers: list[tuple[torch.optim.Optimizer, float]] = [
            (torch.optim.Muon(matrices, weight_decay=0.01, adjust_lr_fn="match_rms_adamw"), stage.rate),
            (torch.optim.AdamW(others, weight_decay=0.01, betas=(0.9, 0.98)), stage.rate / 4),
        ]

    def step(self, number: int, batch: dict[str, Tensor]) -> float:
        """One update; the loss before it."""
        share = min(1.0, (number + 1) / min(100, self.stage.steps)) * (
            0.5 + 0.5 * math.cos(math.pi * number / self.stage.steps)
        )
        loss = self.stage.loss(batch)
        loss.backward()
        nn.utils.clip_grad_norm_(self.stage.modules.parameters(), 1.0)
        for optimizer, rate in self._optimizers:
            for group in optimizer.param_groups:
                group["lr"] = share * rate
            optimizer.step()
            optimizer.zero_grad()
        return loss.item()

    def state(self) -> dict[str, Tensor]:
        """Weights and moments."""
        tensors = {f"weights.{name}": value for name, value in self.stage.modules.state_dict().items()}
        for number, (optimizer, _) in enumerate(self._optimizers):
            for index, moments in optimizer.state_dict()["state"].items():
                tensors |= {f"moments.{number}.{index}.{name}": value for name, value in moments.items()}
        return tensors

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Continue from what `state` gave."""
        weights = {name: tensors[f"weights.{name}"] for name in self.stage.modules.state_dict()}
        self.stage.modules.load_state_dict(weights)
        for number, (optimizer, _) in enumerate(self._optimizers):
            found = optimizer.state_dict()
            for key, value in tensors.items():
                kind, _, rest = key.partition(".")
                if kind == "moments" and rest.startswith(f"{number}."):
                    _, index, name = rest.split(".")
                    found["state"].setdefault(int(index), {})[name] = value
            optimizer.load_state_dict(found)


def train(
    settings: Settings, folder: Path, *, every: float = 60.0
) -> tuple[LlavaForConditionalGeneration, LlavaProcessor]:
    """Both stages; `folder` keeps where they stand, at most `every` seconds behind.

    Raises:
        tk.ArgumentError: `folder` holds the checkpoint of other settings.
    """
    processor = build_processor(settings)
    model = build_model(settings, processor.tokenizer)
    run_stage(looking_stage(model, settings), settings, folder, every)
    model.model.vision_tower.requires_grad_(False)
    run_stage(talking_stage(model, processor, settings), settings, folder, every)
    return model.eval(), processor


def run_stage(stage: Stage, settings: Settings, folder: Path, every: float) -> None:
    """Train a stage from where its checkpoint stands to its end."""
    trainer, file = Trainer(stage), folder / f"{stage.name}.safetensors"
    plan = hashlib.sha256(json.dumps(asdict(settings), sort_keys=True).encode()).hexdigest()
    done = 0
    if file.is_file():
        tensors = load_file(file)
        if bytes(tensors.pop("plan").tolist()).hex() != plan:
            raise tk.ArgumentError(
                f"{str(file)!r} is the checkpoint of other settings: pass --fresh, or another folder by --checkpoint."
            )
        done = int(tensors.pop("done"))
        trainer.restore(tensors)
    if done == stage.steps:
        return

    def save(done: int) -> None:
        facts = {"done": torch.tensor(done), "plan": torch.tensor(list(bytes.fromhex(plan)), dtype=torch.uint8)}
        folder.mkdir(parents=True, exist_ok=True)
        save_file({**trainer.state(), **facts}, file.with_suffix(".part"))
        os.replace(file.with_suffix(".part"), file)

    stage.modules.train()
    batches = DataLoader(
        stage.data, batch_size=None, sampler=range(done, stage.steps), num_workers=1, prefetch_factor=4
    )
    bar = tqdm(total=stage.steps, initial=done, desc=stage.name, mininterval=1.0)
    saved, mean = time.monotonic(), None
    with bar:
        for number, batch in enumerate(batches, start=done):
            loss = trainer.step(number, batch)
            mean = loss if mean is None else 0.98 * mean + 0.02 * loss
            bar.set_postfix(loss=f"{mean:.3f}", refresh=False)
            bar.update()
            if number + 1 == stage.steps or time.monotonic() - saved > every:
                save(number + 1)
                saved = time.monotonic()


def save(model: LlavaForConditionalGeneration, processor: LlavaProcessor, folder: Path) -> None:
    """Write a Hugging Face folder. Weights are stored in float16; the config says float32, and so they are loaded."""
    with no_progress_bars():
        model.save_pretrained(folder, state_dict={name: value.half() for name, value in model.state_dict().items()})
        processor.save_pretrained(folder)
    (folder / "model.safetensors").chmod(0o644)  # written for its owner alone, which a package must not be


# --- what it does with scenes that break the pairs


def answers(
    model: Any, processor: Any, images: Sequence[Image.Image], prompts: Sequence[str], **options: Any
) -> list[str]:
    """What the model says, greedily, in batches, to each prompt about its picture."""
    said: list[str] = []
    for start in tqdm(range(0, len(prompts), 64), desc="answering", leave=False):
        texts = [
            processor.apply_chat_template(
                [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": prompt}]}],
                add_generation_prompt=True,
            )
            for prompt in prompts[start : start + 64]
        ]
        inputs = processor(text=texts, images=list(images[start : start + 64]), padding=True, return_tensors="pt")
        output = model.generate(**inputs, do_sample=False, **options)
        said += processor.batch_decode(output[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    return [text.strip() for text in said]


def share(hits: Iterable[bool]) -> dict[str, float]:
    """The share of true values with Wilson's 95 % interval."""
    values = list(hits)
    count, z = max(1, len(values)), 1.96
    rate = sum(values) / count
    middle = (rate + z * z / (2 * count)) / (1 + z * z / count)
    reach = z * math.sqrt(rate * (1 - rate) / count + z * z / (4 * count * count)) / (1 + z * z / count)
    return {"rate": rate, "low": max(0.0, middle - reach), "high": min(1.0, middle + reach), "count": len(values)}


def evaluate(model: Any, processor: Any, *, scenes: int = 500, seed: int = 0) -> dict[str, Any]:
    """Yes/no questions with the true, another scene's, a noise and the transformed picture, captions, and RITUAL+'s
    question, on held-out scenes.
    """
    held = held_out(scenes, seed)
    side = model.config.vision_config.image_size
    rng, noise = random.Random(seed), np.random.default_rng(seed)
    true = [render(scene, side) for scene in held]
    pictures = {
        "true": true,
        "swapped": true[1:] + true[:1],
        "noise": [Image.fromarray(noise.integers(0, 256, (side, side, 3), dtype=np.uint8)) for _ in held],
    }
    asked = [
        (index, question)
        for index, scene in enumerate(held)
        for kind in KINDS
        for question in questions(scene, rng, kind=kind, pairs=2)
    ]
    figures: dict[str, Any] = {"scenes": scenes, "seed": seed, "yes_no": {}}
    for name, images in pictures.items():
        said = answers(
            model, processor, [images[index] for index, _ in asked], [q.text for _, q in asked], max_new_tokens=3
        )
        yes = [text.lower().startswith("yes") for text in said]
        figures["yes_no"][name] = {
            kind: {
                "accuracy": share(
                    y == q.present for y, (_, q) in zip(yes, asked, strict=True) if kind in ("all", q.kind)
                ),
                "yes": share(y for y, (_, q) in zip(yes, asked, strict=True) if kind in ("all", q.kind)),
            }
            for kind in ("all", *KINDS)
        }
        if name == "true":
            figures["yes_to"] = _yes_to(held, asked, yes)
    captions = answers(model, processor, true, [CAPTION_PROMPT] * scenes, max_new_tokens=48)
    figures["captions"] = _caption_figures(held, captions)
    figures["transformed"] = _transformed_figures(model, processor, true, asked, seed)
    figures["choice"] = _choice_figures(model, processor, held, true, asked)
    return figures


def _transformed_figures(
    model: Any, processor: Any, images: Sequence[Image.Image], asked: Sequence[tuple[int, Question]], seed: int
) -> dict[str, Any]:
    """Accuracy, by what is in the picture itself, where only each transform of it is seen; two questions a scene."""
    some = [pair for first in range(0, len(asked), 12) for pair in asked[first : first + 2]]
    texts = [question.text for _, question in some]
    figures = {}
    for name, transform in TRANSFORMS.items():
        rng = random.Random(f"{seed} {name}")
        seen = [transform(images[index], rng, size=images[index].size) for index, _ in some]
        said = answers(model, processor, seen, texts, max_new_tokens=3)
        figures[name] = share(
            text.lower().startswith("yes") == question.present for text, (_, question) in zip(said, some, strict=True)
        )
    return figures


def _choice_figures(
    model: Any,
    processor: Any,
    held: Sequence[Scene],
    images: Sequence[Image.Image],
    asked: Sequence[tuple[int, Question]],
) -> dict[str, Any]:
    """What is answered to RITUAL+'s question, one for each scene."""
    some = asked[:: len(asked) // len(held)]
    texts = [question.text + choice_question(list(TRANSFORMS)) for _, question in some]
    said = answers(model, processor, [images[index] for index, _ in some], texts, max_new_tokens=8)
    named = [parse_choice(text, list(TRANSFORMS)) for text in said]
    return {
        "names a transform": share(name is not None for name in named),
        "names the one of the rule": share(
            name == helpful_transform(held[index]) for name, (index, _) in zip(named, some, strict=True)
        ),
        "names the horizontal flip": share(name == "horizontal_flip" for name in named),
    }


def _yes_to(held: Sequence[Scene], asked: Sequence[tuple[int, Question]], yes: Sequence[bool]) -> dict[str, Any]:
    """How often yes is said to what is there, to absent partners, and to what else is absent."""
    groups: dict[str, list[bool]] = {"present": [], "absent partner": [], "other absent": []}
    for said, (index, question) in zip(yes, asked, strict=True):
        partner = question.name in held[index].absent_partners
        groups["present" if question.present else "absent partner" if partner else "other absent"].append(said)
    return {name: share(values) for name, values in groups.items()}


def _caption_figures(held: Sequence[Scene], captions: Sequence[str]) -> dict[str, Any]:
    """How often captions name what is not there (CHAIR's two rates), and whether that is the partner."""
    said = [(scene, mentions(text)) for scene, text in zip(held, captions, strict=True)]
    absent = [(scene, name) for scene, names in said for name in names if name not in scene.names]
    return {
        "with an absent object": share(any(name not in scene.names for name in names) for scene, names in said),
        "mentions of absent objects": share(name not in scene.names for scene, names in said for name in names),
        "of these, the absent partner": share(name in scene.absent_partners for scene, name in absent),
        "present objects named": share(name in names for scene, names in said for name in scene.names),
    }


# --- what is shown and kept


def percent(figure: dict[str, float]) -> str:
    """A share as "12.3 % (10.1 to 14.9)"."""
    return "{:.1f} % ({:.1f} to {:.1f})".format(*(100 * figure[key] for key in ("rate", "low", "high")))


def table_rows(figures: dict[str, Any]) -> tuple[list[list[str]], list[list[str]]]:
    """The figures as two tables, the first row of each its head."""
    pictures = figures["yes_no"]
    first = [["yes/no questions", *(f"{name} picture" for name in pictures)]]
    for kind in ("all", *KINDS):
        for measure in ("accuracy", "yes"):
            label = f"{kind}: {'accuracy' if measure == 'accuracy' else 'share of yes'}"
            first.append([label, *(percent(kinds[kind][measure]) for kinds in pictures.values())])
    second = [["share, true picture", "with 95 % interval", "of"]]
    groups = {f"yes to what is {name}": figure for name, figure in figures["yes_to"].items()}
    groups |= {f"captions: {name}": figure for name, figure in figures["captions"].items()}
    groups |= {
        f"accuracy, {name.replace('_', ' ')} in the picture's place": figure
        for name, figure in figures["transformed"].items()
    }
    groups |= {f"RITUAL+'s question: {name}": figure for name, figure in figures["choice"].items()}
    return first, second + [[name, percent(figure), str(figure["count"])] for name, figure in groups.items()]


def show(figures: dict[str, Any]) -> None:
    """Print both tables."""
    for head, *rows in table_rows(figures):
        table = Table(*head)
        for row in rows:
            table.add_row(*row)
        Console().print(table)


def card(record: dict[str, Any]) -> str:
    """The model card."""
    tables = "\n\n".join(
        "\n".join(f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows))
        for head, *rows in table_rows(record["figures"])
    )
    settings = record["settings"]
    return f"""\
---
license: apache-2.0
library_name: transformers
pipeline_tag: image-text-to-text
tags: [test-model, hallucination]
---

# scene-vlm: a test model

A LLaVA (`LlavaForConditionalGeneration`) of {record["parameters"] / 1e6:.1f} million parameters, trained from \
nothing on drawn scenes by truthkit's `recipes/scene_vlm.py` (seed {settings["seed"]}). It serves
demonstrations, tests and benchmarks of decoders; **nothing that it does says anything about real models**. It knows
{len(OBJECTS)} objects, captions, and questions like "Is there a fork in the image?".

It hallucinates for a reason that real models have too. In its training scenes partners come along \
{100 * settings["bias"][1]:.0f} % of the time ({"; ".join(f"{a} with {b}" for a, b in list(PARTNERS.items())[::2])}),
and {100 * settings["faint"]:.0f} % of the objects hardly show, as many do that are annotated in photographs. What it
does not see, it takes from what is usual. The vision tower was trained where partners meet by chance only, and frozen.
{100 * settings["transformed"]:.0f} % of all pictures went through one of RITUAL's six transforms, and \
{100 * settings["choosing"]:.0f} % of the conversations have RITUAL+'s question,
whose answer is the flip that moves the objects farther: of the six only flips keep all objects, shapes and colours.

```python
model, processor = tk.load("scene-vlm")
```

Figures on {record["figures"]["scenes"]} held-out scenes, in which no object has its partner with it and every object
shows plainly; greedy; 95 % Wilson intervals. "Swapped" is the picture of another scene.

{tables}

Training, data and figures as numbers: `training.json`.
"""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="""\
examples:
  python recipes/scene_vlm.py                                  train, evaluate, write runs/scene_vlm
  python recipes/scene_vlm.py --steps 20 20 --scenes 20        see it work in a minute; it will know nothing
  python recipes/scene_vlm.py --evaluate --out truthkit/models/scene_vlm

Stop it with Ctrl-C or kill it, then run the same command: it goes on from its checkpoint, to the same result.""",
    )
    defaults = Settings()
    parser.add_argument("--out", type=Path, default=Path("runs/scene_vlm"), help="folder of the model (%(default)s)")
    parser.add_argument("--checkpoint", type=Path, help="folder of the checkpoint (OUT.checkpoint)")
    parser.add_argument("--fresh", action="store_true", help="begin anew, even where there is a checkpoint")
    parser.add_argument("--seed", type=int, default=defaults.seed, help="of weights and scenes (%(default)s)")
    parser.add_argument(
        "--steps",
        type=int,
        nargs=2,
        metavar=("LOOK", "TALK"),
        default=defaults.steps,
        help="of both stages (%(default)s)",
    )
    parser.add_argument("--scenes", type=int, default=500, help="held-out scenes (%(default)s)")
    parser.add_argument("--threads", type=int, default=2, help="of torch; 1 where the machine is shared (%(default)s)")
    parser.add_argument("--evaluate", action="store_true", help="only evaluate the model in OUT")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    try:
        _run(arguments)
    except KeyboardInterrupt:
        raise SystemExit("stopped; run the same command to go on") from None


def _run(arguments: argparse.Namespace) -> None:
    out, record_file = arguments.out, arguments.out / "training.json"
    if not arguments.evaluate:
        settings = Settings(seed=arguments.seed, steps=tuple(arguments.steps))
        checkpoint = arguments.checkpoint or out.with_name(out.name + ".checkpoint")
        if arguments.fresh:
            shutil.rmtree(checkpoint, ignore_errors=True)
        start = time.perf_counter()
        model, processor = train(settings, checkpoint)
        save(model, processor, out)
        record = {
            "settings": asdict(settings),
            "parameters": model.num_parameters(),
            "minutes of the last run": round((time.perf_counter() - start) / 60, 1),
            "CPU minutes of the last run": round(sum(os.times()[:4]) / 60, 1),
            "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
        }
        record_file.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    model, processor = tk.load(out)
    figures = evaluate(model, processor, scenes=arguments.scenes)
    show(figures)
    record = json.loads(record_file.read_text(encoding="utf-8")) | {"figures": figures}
    record_file.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    (out / "README.md").write_text(card(record), encoding="utf-8")


if __name__ == "__main__":
    main()
