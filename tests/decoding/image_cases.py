"""What the decoders must compute for prompts with images, written a second time; as `oracle.py` for text.

Each view of each row is one plain forward of that row alone, from what the family's own processor makes of its text and
images: no cache, no hooks, no padding, batch 1, in a second copy of the model.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from PIL import Image

import truthkit as tk
from tests.decoding import oracle
from tests.decoding.attention_oracle import Change, attending, avisc, pai, sid
from tests.decoding.oracle import Oracle, Seen, apc, log_p, save_adapter, with_adapter
from tests.decoding.oracle import farthest as farthest_exit
from tests.tiny_vlm import SPECIAL, TinyVLM, picture, tiny_vlm
from truthkit.decoding.engine.decoder import Decoder
from truthkit.decoding.engine.processor import DecoderLogitsProcessor
from truthkit.hf.sites import text_decoder
from truthkit.hf.wrapping import language_half
from truthkit.images.noise import diffusion_noise
from truthkit.images.transforms import content_seed, processor_size, transformed

LIE = "lie now"
NAMES = ["horizontal_flip", "vertical_flip", "rotation", "color_jitter", "gaussian_blur", "crop"]
Inputs = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Row:
    """A prompt with its images."""

    text: str
    images: tuple[Image.Image, ...]
    passage: str
    """Words of the text that CAD leaves out."""


ROWS = (
    Row("first {} and {} then", (picture(28, 56, 2), picture(50, 50, 3)), "then"),
    Row("{}what is this", (picture(40, 30, 1),), "what "),
    Row("so, {}where is the cat?", (picture(64, 48, 4),), "the cat"),
)
"""One prompt with two images; all images are of different sizes."""

LONE_ROWS = (
    Row("what, then", ROWS[0].images[:1], "then"),
    Row("what is this", ROWS[1].images, "what "),
    Row("so, where is the cat?", ROWS[2].images, "the cat"),
)
"""The same for a processor that puts one image in front of each prompt."""


@dataclass
class Bench:
    """A model with its processor, prompts with images, and copies of the model for the oracle."""

    tiny: TinyVLM
    twin: Any
    """The same weights in a second model."""
    adapter: str
    adapted: Any
    """A copy with the adapter active through peft."""
    rows: tuple[Row, ...]
    _of_prompt: dict[tuple[int, ...], Row] = field(default_factory=dict)
    _oracles: dict[str, ImageOracle] = field(default_factory=dict)
    _replies: dict[str, str] = field(default_factory=dict)

    @property
    def model(self) -> Any:
        return self.tiny.model

    def inputs(self, batch: int) -> Inputs:
        """What the processor makes of the first `batch` rows."""
        return self.made(self.rows[:batch])

    def made(self, rows: Sequence[Row]) -> Inputs:
        """What the processor makes of `rows`."""
        return self.tiny.inputs([row.text for row in rows], [row.images for row in rows])

    def images(self, batch: int) -> list[list[Image.Image]]:
        """The images of the first `batch` rows."""
        return [list(row.images) for row in self.rows[:batch]]

    def row(self, prompt: list[int]) -> Row:
        """The row whose prompt has these unpadded ids."""
        if not self._of_prompt:
            for row in self.rows:
                self._of_prompt[tuple(self.made([row])["input_ids"][0].tolist())] = row
        return self._of_prompt[tuple(prompt)]

    def reply(self, row: Row) -> str:
        """What the model says when it is asked for a transform of the row's image."""
        if row.text not in self._replies:
            self._replies[row.text] = reply(self, row)
        return self._replies[row.text]

    def oracle(self, case: Case) -> ImageOracle:
        """One for all tests of a case: it remembers the forwards that it has done."""
        if case.name not in self._oracles:
            self._oracles[case.name] = case.expected(self)
        return self._oracles[case.name]


def image_bench(family: str, folder: Any, dtype: torch.dtype = torch.float32) -> Bench:
    """The adapter is on the language model alone, as those for image-text models mostly are."""
    tiny = tiny_vlm(family, dtype=dtype)
    targets = r".*(language_model|text_model)\..*(q_proj|v_proj|down_proj)"
    adapter = save_adapter(tiny_vlm(family, dtype=dtype).model, folder, target_modules=targets)
    return Bench(
        tiny=tiny,
        twin=tiny_vlm(family, dtype=dtype).model,
        adapter=adapter,
        adapted=with_adapter(tiny_vlm(family, dtype=dtype).model, adapter),
        rows=ROWS if tiny.several else LONE_ROWS,
    )


# -- views -------------------------------------------------------------------------------------------------------------


def forward(model: Any, inputs: Inputs, continuation: list[int], layers: Sequence[int]) -> tuple[Any, list[Any]]:
    """Logits of one row, shape (tokens, vocabulary), and its blocks' outputs at `layers`."""
    count = len(continuation)
    more = torch.tensor([continuation], dtype=torch.long)
    call: dict[str, Any] = dict(inputs)
    call["input_ids"] = torch.cat([inputs["input_ids"], more], dim=1)
    call["attention_mask"] = torch.ones_like(call["input_ids"])
    for name in ("mm_token_type_ids", "token_type_ids"):
        if name in inputs:  # a generated token is text; in PaliGemma 1 is what comes after the prompt
            of_text = 1 if "paligemma" in str(model.config.model_type) else 0
            call[name] = torch.cat([inputs[name], inputs[name].new_full((1, count), of_text)], dim=1)
    if "instructblip" in str(model.config.model_type) and "pixel_values" not in inputs:
        model = model.language_model  # the whole one takes no prompt without an image
    out = model(**call, use_cache=False, output_hidden_states=bool(layers))
    out = out.get("language_model_outputs") or out
    return out.logits[0], [out.hidden_states[layer + 1][0] for layer in layers]


@dataclass
class ImageLook:
    """One view: a model, and what its processor makes of a row for this view."""

    model: Any
    bench: Bench
    view: Callable[[Row], Inputs]
    layers: Sequence[int] = ()
    norm: bool = True
    prompt_layer: int | None = None
    """The block after which the prompt exits early, at all of its positions."""

    @torch.no_grad()
    def __call__(self, prompt: list[int], continuation: list[int], last: int = 1) -> list[Seen]:
        inputs = self.view(self.bench.row(prompt))
        layers = self.layers if self.prompt_layer is None else (*self.layers, self.prompt_layer)
        logits, states = forward(self.model, inputs, continuation, layers)
        of_prompt = None
        if self.prompt_layer is not None:
            state = states.pop()
            of_prompt = self._exit(state[: len(state) - len(continuation)])
        return [Seen(logits[at], [self._exit(state[at]) for state in states], of_prompt) for at in range(-last, 0)]

    def _exit(self, hidden: torch.Tensor) -> torch.Tensor:
        model = getattr(self.model, "language_model", None) or self.model
        inner = model.get_decoder() if hasattr(model, "get_decoder") else model
        return self.model.get_output_embeddings()(inner.norm(hidden) if self.norm else hidden)


def _plain(bench: Bench, row: Row) -> Inputs:
    return bench.made([row])


def _transformed(bench: Bench, row: Row, choice: Any, seed: int) -> Inputs:
    """RITUAL's rule: the draw depends on the image, the prompt's ids and the seed. A crop is resized to the processor's
    size where it has one for all images."""
    ids = bench.made([row])["input_ids"][0].tolist()
    text = " ".join(map(str, ids))
    fixed = bench.tiny.family in {"llava", "instructblip", "paligemma", "gemma3"}
    size = processor_size(bench.tiny.processor) if fixed else None
    images = [transformed(image, choice, seed=content_seed(image, text, seed), size=size)[0] for image in row.images]
    inputs = bench.made([Row(row.text, tuple(images), row.passage)])
    assert inputs["input_ids"][0].tolist() == ids
    return inputs


def _noisy(bench: Bench, row: Row, step: int, seed: int) -> Inputs:
    """VCD's rule: noise per image, from the seed and the image's pixels; here an image is what has an entry of its own
    in `pixel_values`, or the patches of one grid."""
    inputs = bench.made([row])
    if not row.images:
        return inputs
    pixels = inputs["pixel_values"]
    if "image_grid_thw" in inputs:
        images = list(pixels.split(inputs["image_grid_thw"].prod(dim=1).tolist()))
    else:
        images = list(pixels)
    noisy = []
    for image in images:
        real = image
        if image.dim() == 4:  # without the zeros that fill up to the largest number of tiles
            real = image[image.flatten(1).ne(0).any(dim=1)]
        digest = hashlib.sha256(f"{seed} ".encode() + real.numpy().astype("float32").tobytes()).digest()
        drawn = diffusion_noise(real[None], step=step, seeds=[int.from_bytes(digest[:8], "big") >> 1])[0]
        noisy.append(torch.cat([drawn, torch.zeros_like(image[len(drawn) :])]))
    together = torch.cat(noisy) if "image_grid_thw" in inputs else torch.stack(noisy)
    return {**inputs, "pixel_values": together}


def _blind(bench: Bench, row: Row) -> Inputs:
    """The prompt without the image's tokens and marks."""
    gone = {*SPECIAL.values(), bench.model.config.image_token_id}
    ids = [token for token in bench.made([row])["input_ids"][0].tolist() if token not in gone]
    inputs = {"input_ids": torch.tensor([ids])}
    for name in ("mm_token_type_ids", "token_type_ids"):
        if name in bench.made([row]):
            inputs[name] = torch.zeros_like(inputs["input_ids"])
    return inputs


def _instructed(bench: Bench, row: Row) -> Inputs:
    """An instruction and an empty line, behind the token that begins the prompt."""
    inputs = bench.made([row])
    ids = inputs["input_ids"]
    start = int(ids[0, 0] == 1)
    more = torch.tensor([[ord(char) for char in f"{LIE}\n\n"]])
    longer = {**inputs, "input_ids": torch.cat([ids[:, :start], more, ids[:, start:]], dim=1)}
    for name in ("mm_token_type_ids", "token_type_ids"):
        if name in inputs:
            longer[name] = torch.cat([torch.zeros_like(more), inputs[name]], dim=1)
    return longer


def _without(bench: Bench, row: Row) -> Inputs:
    inputs = bench.made([Row(row.text.replace(row.passage, "", 1), row.images, "")])
    if "qformer_input_ids" in inputs:  # the view changes the prompt, not what the Q-Former is asked
        inputs |= {name: value for name, value in bench.made([row]).items() if name.startswith("qformer")}
    return inputs


# -- RITUAL+ -----------------------------------------------------------------------------------------------------------

QUESTION = """

To answer this, you may look at the image once more after one of these transformations:
1. horizontal flip
2. vertical flip
3. rotation
4. color jitter
5. gaussian blur
6. crop
Which one helps you most to answer correctly? Reply with its number only."""


@torch.no_grad()
def reply(bench: Bench, row: Row) -> str:
    """What the model itself says when it is asked for a transform, by greedy search."""
    inputs = bench.made([row])
    more = torch.tensor([[ord(char) for char in QUESTION]])
    asked = {**inputs, "input_ids": torch.cat([inputs["input_ids"], more], dim=1)}
    for name in ("mm_token_type_ids", "token_type_ids"):
        if name in inputs:
            asked[name] = torch.cat([inputs[name], torch.zeros_like(more)], dim=1)
    said: list[int] = []
    for _ in range(8):
        said.append(int(forward(bench.twin, asked, said, ())[0][-1].argmax()))
    return "".join(map(chr, (token for token in said if token > 2))).strip()


def choice(said: str) -> str | None:
    """The first number from 1 to 6 in a reply."""
    numbers = [int(number) for number in re.findall(r"(?<![\d.])\d+", said)]
    return next((NAMES[number - 1] for number in numbers if 1 <= number <= 6), None)


Attends = Callable[[list[int], int], Change]
"""How a view attends, given where its images are and which query is the first that counts."""


@dataclass
class AttendingLook(ImageLook):
    """A view that attends to its images otherwise."""

    attends: Attends | None = None

    @torch.no_grad()
    def __call__(self, prompt: list[int], continuation: list[int], last: int = 1) -> list[Seen]:
        ids = self.view(self.bench.row(prompt))["input_ids"][0].tolist()
        images = [i for i, token in enumerate(ids) if token == self.model.config.image_token_id]
        assert self.attends is not None
        with attending(self.model, self.attends(images, len(ids) - 1)):
            return super().__call__(prompt, continuation, last)


@dataclass
class BlindLook(ImageLook):
    """AvisC's view: the inputs of the language model are 0 where an image token is not blind."""

    layer_gamma: float = 0.5
    lam: float = 1.0

    @torch.no_grad()
    def __call__(self, prompt: list[int], continuation: list[int], last: int = 1) -> list[Seen]:
        inputs = self.view(self.bench.row(prompt))
        ids = inputs["input_ids"][0].tolist()
        images = [i for i, token in enumerate(ids) if token == self.model.config.image_token_id]
        drawn: list[torch.Tensor] = []

        def look(_layer: int, scores: torch.Tensor) -> torch.Tensor:
            drawn.append(torch.softmax(scores[:, -1], dim=-1).mean(dim=0)[images])
            return scores

        with attending(self.model, look):
            forward(self.model, inputs, [], ())
        gone = [images[i] for i in avisc(torch.stack(drawn), self.layer_gamma, self.lam)]

        def blank(_module: Any, _args: Any, kwargs: dict[str, Any]) -> Any:
            embeddings = kwargs["inputs_embeds"].clone()
            embeddings[0, gone] = 0.0
            changed = {**kwargs, "inputs_embeds": embeddings}
            if kwargs.get("deepstack_visual_embeds") is not None:  # more of the image, for later blocks
                at = [images.index(token) for token in gone]
                changed["deepstack_visual_embeds"] = [
                    deep.index_fill(0, torch.tensor(at), 0.0) for deep in kwargs["deepstack_visual_embeds"]
                ]
            return (), changed

        hook = text_decoder(language_half(self.model)).register_forward_pre_hook(blank, with_kwargs=True)
        try:
            return super().__call__(prompt, continuation, last)
        finally:
            hook.remove()


# -- formulas ----------------------------------------------------------------------------------------------------------

Formula = Callable[[Seen, list[Seen], int], torch.Tensor]
"""From the main view, the others and the number of tokens generated so far to the scores."""


def _ritual(alpha: float = 3.0, beta: float = 0.1) -> Formula:
    return lambda main, others, _t: apc(main.logits + alpha * others[0].logits, main.logits, beta)


def _vcd(alpha: float = 1.0, beta: float = 0.1) -> Formula:
    return lambda main, others, _t: apc((1 + alpha) * main.logits - alpha * others[0].logits, main.logits, beta)


def _m3id(decay: float = 0.02, beta: float = 0.1) -> Formula:
    def formula(main: Seen, others: list[Seen], t: int) -> torch.Tensor:
        gamma = math.exp(-decay * t)
        return apc(main.logits + (main.logits - others[0].logits) * (1 - gamma) / gamma, main.logits, beta)

    return formula


def _ritual_vcd(alpha: float, beta: float, strength: float) -> Formula:
    def formula(main: Seen, others: list[Seen], _t: int) -> torch.Tensor:
        turned, noisy = (other.logits for other in others)
        return apc(main.logits + alpha * turned + strength * (main.logits - noisy), main.logits, beta)

    return formula


def _ritual_m3id(alpha: float, beta: float, decay: float) -> Formula:
    def formula(main: Seen, others: list[Seen], t: int) -> torch.Tensor:
        turned, blind = (other.logits for other in others)
        gamma = math.exp(-decay * t)
        scores = main.logits + alpha * turned + (main.logits - blind) * (1 - gamma) / gamma
        return apc(scores, main.logits, beta)

    return formula


def _pai(gamma: float = 1.1) -> Formula:
    def formula(main: Seen, others: list[Seen], _t: int) -> torch.Tensor:
        scores = gamma * (main.logits - others[0].logits) + others[0].logits
        return apc(scores, main.logits, 0.1)

    return formula


def _pai_vcd(main: Seen, others: list[Seen], t: int) -> torch.Tensor:
    blind, noisy = (other.logits for other in others)
    return apc(1.1 * main.logits - 0.1 * blind + (main.logits - noisy), main.logits, 0.1)


def _icd(main: Seen, others: list[Seen], _t: int) -> torch.Tensor:
    return apc(log_p(main.logits) - log_p(others[0].logits), main.logits, 0.1)


def _cad(main: Seen, others: list[Seen], _t: int) -> torch.Tensor:
    return 1.5 * main.logits - 0.5 * others[0].logits


def _dola(main: Seen, _others: list[Seen], _t: int) -> torch.Tensor:
    premature = main.exits[farthest_exit(main.logits, main.exits)]
    return apc(log_p(main.logits) - log_p(premature), main.logits, 0.1)


class ImageOracle(Oracle):
    """`Oracle` for prompts with images: it finds a row's images by its prompt."""

    def __init__(
        self,
        bench: Bench,
        others: Sequence[ImageLook],
        formula: Formula,
        attends: Attends | None = None,
        **exits: Any,
    ):
        super().__init__(bench.model)
        look = AttendingLook if attends else ImageLook
        options = {"attends": attends} if attends else {}
        main = look(bench.twin, bench, lambda row: _plain(bench, row), **exits, **options)
        self.looks = [main, *others]  # type: ignore[list-item]
        self.by_step = formula

    def scores(self, prompt: list[int], continuation: list[int], last: int) -> list[torch.Tensor]:
        seen = zip(*(look(prompt, continuation, last) for look in self.looks), strict=True)
        first = len(continuation) + 1 - last
        return [self.by_step(main, others, first + i) for i, (main, *others) in enumerate(seen)]


# -- cases -------------------------------------------------------------------------------------------------------------

Views = Callable[[Bench], list[ImageLook]]


@dataclass(frozen=True)
class Case:
    """A decoder with options, and the same as an oracle.

    `make` builds it from the bench, the batch size and the model, `make_processor` from the bench, the batch size and
    the prompts' mask.
    """

    name: str
    make: Callable[[Bench, int, Any], Decoder]
    make_processor: Callable[[Bench, int, Any], DecoderLogitsProcessor]
    looks: Views
    formula: Formula
    exits: dict[str, Any] = field(default_factory=dict)
    attends: Attends | None = None
    """How the main view attends to its images; None: as the model does."""

    def attached(self, bench: Bench, batch: int, model: Any = None) -> Any:
        """The decoder, for `with`."""
        return self.make(bench, batch, bench.model if model is None else model)

    def processor(self, bench: Bench, batch: int, mask: Any = None) -> DecoderLogitsProcessor:
        """The same as a logits processor."""
        return self.make_processor(bench, batch, mask)

    def expected(self, bench: Bench) -> ImageOracle:
        """The oracle."""
        return ImageOracle(bench, self.looks(bench), self.formula, self.attends, **self.exits)


def _case(
    name: str, decoder: str, looks: Views, formula: Formula, exits: Any = None, attends: Any = None, **options: Any
) -> Case:
    """`exits` are those of the oracle's main look; options that are callables are called with (bench, batch)."""

    def arguments(bench: Bench, batch: int) -> dict[str, Any]:
        return {name: value(bench, batch) if callable(value) else value for name, value in options.items()}

    def make(bench: Bench, batch: int, model: Any) -> Decoder:
        return getattr(tk, decoder)(model, bench.tiny.processor, **arguments(bench, batch))

    def processor(bench: Bench, batch: int, mask: Any) -> DecoderLogitsProcessor:
        given = {"images": bench.images(batch), **arguments(bench, batch)}
        form = getattr(tk, f"{decoder}LogitsProcessor")
        return form(bench.model, bench.tiny.processor, attention_mask=mask, **given)

    return Case(name, make, processor, looks, formula, exits or {}, attends)


def _sum(name: str, first: Case, second: Case, looks: Views, formula: Formula) -> Case:
    def make(bench: Bench, batch: int, model: Any) -> Decoder:
        return first.attached(bench, batch, model) + second.attached(bench, batch, model)

    def processor(bench: Bench, batch: int, mask: Any) -> DecoderLogitsProcessor:
        parts = first.attached(bench, batch), second.attached(bench, batch)
        return tk.TogetherLogitsProcessor(*parts, attention_mask=mask)

    return Case(name, make, processor, looks, formula, attends=first.attends or second.attends)


def _images(bench: Bench, batch: int) -> Any:
    return bench.images(batch)


def _turned(transform: Any = "random", seed: int = 0) -> Views:
    return lambda b: [ImageLook(b.twin, b, lambda row: _transformed(b, row, transform, seed))]


def _drowned(step: int = 500, seed: int = 0) -> Views:
    return lambda b: [ImageLook(b.twin, b, lambda row: _noisy(b, row, step, seed))]


def _chosen(bench: Bench) -> list[ImageLook]:
    def view(row: Row) -> Inputs:
        return _transformed(bench, row, choice(bench.reply(row)) or "random", 0)

    return [ImageLook(bench.twin, bench, view)]


def _unseen(bench: Bench) -> list[ImageLook]:
    return [ImageLook(bench.twin, bench, lambda row: _blind(bench, row))]


def _without_passage(bench: Bench) -> list[ImageLook]:
    return [ImageLook(bench.twin, bench, lambda row: _without(bench, row))]


def _passages(bench: Bench, batch: int) -> list[str]:
    return [row.passage for row in bench.rows[:batch]]


_RITUAL = _case("ritual", "RITUAL", _turned(), _ritual(), images=_images)
_TURNED = _case(
    "ritual-list",
    "RITUAL",
    _turned(["vertical_flip", "crop"], 7),
    _ritual(1.5, 0.0),
    images=_images,
    transform=["vertical_flip", "crop"],
    alpha=1.5,
    beta=0.0,
    seed=7,
)
_PLUS = _case("ritual-plus", "RITUALPlus", _chosen, _ritual(), images=_images)
_VCD = _case("vcd", "VCD", _drowned(), _vcd())
_STRONG = _case("vcd-strong", "VCD", _drowned(900, 3), _vcd(2.0, 0.0), alpha=2.0, beta=0.0, noise_step=900, seed=3)
_M3ID = _case("m3id", "M3ID", _unseen, _m3id(0.4), decay=0.4)

_EDITED = [1, 2]
_PAI = _case(
    "pai",
    "PAI",
    _unseen,
    _pai(),
    attends=lambda images, first: pai(images, first, _EDITED, 1.5),
    alpha=1.5,
    layers=_EDITED,
)


def _least(rank: int, layer: int) -> Views:
    def looks(bench: Bench) -> list[ImageLook]:
        def attends(images: list[int], first: int) -> Change:
            return sid(images, first, layer, rank)

        return [AttendingLook(bench.twin, bench, lambda row: _plain(bench, row), attends=attends)]

    return looks


def _blinded(layer_gamma: float = 0.5, lam: float = 1.0) -> Views:
    return lambda b: [BlindLook(b.twin, b, lambda row: _plain(b, row), layer_gamma=layer_gamma, lam=lam)]


_SID = _case("sid", "SID", _least(2, 2), _vcd(), rank=2)

_ALL = [
    _RITUAL,
    _TURNED,
    _PLUS,
    _VCD,
    _STRONG,
    _M3ID,
    _PAI,
    _SID,
    _case("avisc", "AvisC", _blinded(0.5, 0.3), _vcd(), lam=0.3),
    _case("avisc-all", "AvisC", _blinded(1.0, -0.5), _vcd(0.5), layer_gamma=1.0, lam=-0.5, alpha=0.5),
    _sum("pai+vcd", _PAI, _VCD, lambda b: _unseen(b) + _drowned()(b), _pai_vcd),
    _case("sid-early", "SID", _least(1, 1), _vcd(0.5, 0.0), rank=1, layer=1, alpha=0.5, beta=0.0),
    _sum(
        "ritual+vcd",
        _TURNED,
        _VCD,
        lambda b: _turned(["vertical_flip", "crop"], 7)(b) + _drowned()(b),
        _ritual_vcd(1.5, 0.1, 1.0),
    ),
    _sum("ritual+m3id", _RITUAL, _M3ID, lambda b: _turned()(b) + _unseen(b), _ritual_m3id(3.0, 0.1, 0.4)),
    _case(
        "icd-prompt",
        "ICD",
        lambda b: [ImageLook(b.twin, b, lambda row: _instructed(b, row))],
        _icd,
        amateur_prompt=LIE,
    ),
    _case(
        "icd-adapter",
        "ICD",
        lambda b: [ImageLook(b.adapted, b, lambda row: _plain(b, row))],
        _icd,
        amateur=lambda b, _batch: b.adapter,
    ),
    _case("dola", "DoLa", lambda _b: [], _dola, {"layers": (1, 2)}, layers=(1, 2)),
    _case("cad", "CAD", _without_passage, _cad, context=_passages),
]

CASES: dict[str, Case] = {case.name: case for case in _ALL}


def _of_text(formula: Any) -> Formula:
    return lambda main, others, _t: formula(main, others)


_OF_TEXT = [
    _case("sled", "SLED", lambda _b: [], _of_text(oracle.sled()), {"layers": (0, 1), "norm": False}, layers=(0, 1)),
    _case("deco", "DeCo", lambda _b: [], _of_text(oracle.deco()), {"layers": (0, 2)}, layers=(0, 2)),
    _case("adacad", "AdaCAD", _without_passage, _of_text(oracle.adacad()), context=_passages),
    _case("coiecd", "COIECD", _without_passage, _of_text(oracle.coiecd()), context=_passages),
    _case("agreement", "Agreement", _drowned(), _of_text(oracle.agreement("js", 0.05, 4.0, 1.0)), view="vcd"),
    _case("top-n-sigma", "TopNSigma", lambda _b: [], _of_text(oracle.top_n_sigma(1.5)), n=1.5),
    _case("entropy-gate", "EntropyGate", lambda _b: [], _of_text(oracle.entropy_gate(2.0)), threshold=2.0),
    _case(
        "activation",
        "ActivationDecoding",
        lambda _b: [],
        _of_text(oracle.activation_decoding(1.0)),
        {"prompt_layer": 1, "norm": False},
        layer=1,
        alpha=1.0,
    ),
]

OF_TEXT: dict[str, Case] = {case.name: case for case in _OF_TEXT}
"""Methods that have no images of their own, and so meet fewer families."""

KINDS = (
    "ritual",
    "ritual-plus",
    "vcd",
    "m3id",
    "sid",
    "ritual+m3id",
    "icd-prompt",
    "icd-adapter",
    "dola",
)
"""A case for each kind of view: other images, the same ones with noise, none, and what text has. The engine and the
families meet in these; the others differ in their formulas and draws."""

MODES: dict[str, dict[str, Any]] = {
    "greedy": {"do_sample": False},
    "sampling": {"do_sample": True, "temperature": 0.8, "top_k": 20, "top_p": 0.95},
    "beams": {"do_sample": False, "num_beams": 3, "num_return_sequences": 2},
}
