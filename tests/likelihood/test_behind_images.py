"""Texts behind prompts with images, against one plain forward of each image, prompt and text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import truthkit as tk
from tests.tiny_vlm import _FAMILIES, FAMILIES, TinyVLM, picture, tiny_vlm
from truthkit.decoding.spec import parse_spec
from truthkit.evaluation.running.asking import Asking
from truthkit.evaluation.running.item import Item
from truthkit.evaluation.running.records import Records
from truthkit.images.reading import read_image
from truthkit.scenes.questions import held_out
from truthkit.scenes.render import render
from truthkit.text.encode import encode_prompts, written_prompts

TEXTS = ("{}Is it?", "{}What is in the picture here?")
CAPTIONS = (" a dog", " a red cat on it", " x")
DECODERS = (
    "vcd:beta=0",
    "m3id:decay=0.02,beta=0",
    "ritual:beta=0",
    "dola:beta=0,layers=0+1",
    "vcd:beta=0+m3id:decay=0.02,beta=0",
    "pai:gamma=1.2,layers=1+2,beta=0",
)
OTHERS = ("ritual_plus:beta=0", "sid:beta=0", "avisc:beta=0", "agreement:beta=0", "icd:beta=0")
IN_FULL = ("llava", "qwen2_vl")


def quick(family: str, decoder: str) -> bool:
    """LLaVA meets most decoders, Qwen2-VL those of image views; the rest is slow."""
    by_image = decoder.partition(":")[0] in ("vcd", "m3id", "ritual")
    return (family == "llava" and decoder not in OTHERS) or (family == "qwen2_vl" and by_image)


def plain(tiny: TinyVLM, text: str, image: Any, caption: str) -> float:
    """The oracle without a decoder: one forward over image, prompt and text; no cache, no padding."""
    whole = tiny.inputs([text + caption], [[image]])
    start, ids = tiny.inputs([text], [[image]])["input_ids"].shape[1], whole["input_ids"][0]
    with torch.no_grad():
        log_p = tiny.model(**whole, use_cache=False).logits[0].float().log_softmax(-1)
    return sum(float(log_p[at - 1, ids[at]]) for at in range(start, len(ids)))


class Saying:
    """A logits processor that leaves `generate` no choice but to write `ids`."""

    def __init__(self, start: int, ids: list[int]):
        self.start, self.ids = start, ids

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        token = torch.tensor([self.ids[input_ids.shape[1] - self.start]])
        return torch.full_like(scores, -torch.inf).index_fill_(1, token, 0.0)


def said(model: Any, decoder: Any, inputs: dict[str, torch.Tensor], ids: list[int]) -> float:
    """The oracle under a decoder: what its logits say of each token while `generate` is made to write them."""
    options: dict[str, Any] = {"do_sample": False, "max_new_tokens": len(ids), "pad_token_id": 0, "eos_token_id": None}
    with decoder:
        made = model.generate(
            **{name: value for name, value in inputs.items() if name != "labels"},
            **options,
            logits_processor=[Saying(inputs["input_ids"].shape[1], ids)],
            output_logits=True,
            return_dict_in_generate=True,
        )
    assert made.sequences[0, -len(ids) :].tolist() == ids
    return sum(float(row[0].float().log_softmax(-1)[token]) for row, token in zip(made.logits, ids, strict=True))


def written(folder: Path, count: int) -> list[str]:
    """Paths of images of other sizes each."""
    paths = [str(folder / f"{number}.png") for number in range(count)]
    for number, path in enumerate(paths):
        picture(40 - 6 * number, 30 + 8 * number, seed=number).save(path)
    return paths


def asked(family: str, folder: Path) -> list[Item]:
    mark = _FAMILIES[family].image
    paths = written(folder, len(TEXTS))
    return [
        Item(str(number), text.format(mark), (path,), CAPTIONS, raw=True)
        for number, (text, path) in enumerate(zip(TEXTS, paths, strict=True))
    ]


def choose(tiny: Any, decoder: str, items: list[Item], **options: Any) -> list[list[float]]:
    spec = parse_spec(decoder)
    fixed = None if spec.takes("images") else spec.build(tiny.model, tiny.processor)
    return Asking(tiny.model, tiny.processor, spec, {}, **{"batch_size": 4, **options}).choose(items, fixed)


@pytest.mark.parametrize("family", [name for name in FAMILIES if name not in ("instructblip", "paligemma")])
def test_equals_one_forward_a_text(family: str, tmp_path: Path) -> None:
    tiny, items = tiny_vlm(family), asked(family, tmp_path)
    for share in (True, False) if family in IN_FULL else (True,):
        for item, text, scores in zip(items, TEXTS, choose(tiny, "greedy", items, share_prefix=share), strict=True):
            expected = [plain(tiny, text, read_image(item.images[0]), caption) for caption in CAPTIONS]
            assert scores == pytest.approx(expected, abs=1e-4)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # PaliGemma's processor, of NumPy 2
@pytest.mark.parametrize(
    ("family", "decoder"),
    [
        pytest.param(family, decoder, marks=() if quick(family, decoder) else pytest.mark.slow)
        for family in FAMILIES
        for decoder in ("greedy", *DECODERS, *(OTHERS if family == "llava" else ()))
        if family != "instructblip" and (family in IN_FULL or not decoder.startswith("pai"))
    ],
)
def test_equals_generate_made_to_say_it(family: str, decoder: str, tmp_path: Path) -> None:
    """A prompt that sees all of itself, as PaliGemma's, has no other oracle than this one either."""
    tiny, items = tiny_vlm(family), asked(family, tmp_path)
    for item, text, scores in zip(items, TEXTS, choose(tiny, decoder, items), strict=True):
        image = read_image(item.images[0])
        for caption, score in zip(CAPTIONS, scores, strict=True):
            built = parse_spec(decoder).build(tiny.model, tiny.processor, images=[[image]])
            expected = said(tiny.model, built, tiny.inputs([text], [[image]]), [*map(ord, caption)])
            assert score == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("positions", ["generated", "prompt", "last", "image"])
def test_steering(positions: str, tmp_path: Path) -> None:
    """What acts at a place of the prompt, and nowhere else, is told from what acts on answers."""
    tiny, items = tiny_vlm("llava"), asked("llava", tmp_path)
    vector = tk.SteeringVector({1: torch.ones(48), 2: torch.linspace(-1, 1, 48)})
    steering = vector.steer(tiny.model, layers="all", strength=0.5, positions=positions)
    before = choose(tiny, "greedy", items)
    with steering:
        found = choose(tiny, "greedy", items, steerings=(steering,))
        for item, text, scores in zip(items, TEXTS, found, strict=True):
            inputs = tiny.inputs([text], [[read_image(item.images[0])]])
            expected = [said(tiny.model, tk.APC(tiny.model, beta=0), inputs, [*map(ord, c)]) for c in CAPTIONS]
            assert scores == pytest.approx(expected, abs=1e-4)
    assert before[0] != pytest.approx(found[0], abs=1e-2)
    assert choose(tiny, "greedy", items) == before


@pytest.mark.parametrize("decoder", ["greedy", "vcd:beta=0"])
def test_scenes(decoder: str, tmp_path: Path) -> None:
    """The shipped model, through its chat template, with two items about one image; in a run, shared or not."""
    model, processor = tk.load("scene-vlm")
    captions = (
        (" There is a dog in the image.", " There is a kite in the image."),
        (" A picture of a cat.", " A cup."),
    )
    items = []
    for number, scene in enumerate(held_out(2, seed=5)):
        path = tmp_path / f"{number}.png"
        render(scene).save(path)
        items += [Item(f"{number} {i}", "Describe the image.", (str(path),), own) for i, own in enumerate(captions)]
    found = {}
    for share in (True, False):
        records = Records(tmp_path / f"{share}", {})
        asking = Asking(model, processor, parse_spec(decoder), {}, share_prefix=share)
        asking.run(items, records, ask=lambda *given: Asking.choose_both(*given))
        found[share] = {key: record["output"] for key, record in records.done.items()}
    assert {"raw" in output for output in found[True].values()} == {decoder != "greedy"}
    for item in items:
        image = read_image(item.images[0])
        (text,) = written_prompts(processor, [item.prompt], [1])
        inputs = encode_prompts(processor, [item.prompt], [[image]])
        for number, caption in enumerate(item.choices):
            ids = processor.tokenizer(text + caption, add_special_tokens=False).input_ids
            ids = ids[len(processor.tokenizer(text, add_special_tokens=False).input_ids) :]
            built = parse_spec(decoder).build(model, processor)
            expected = said(model, tk.APC(model, beta=0) if decoder == "greedy" else built, inputs, ids)
            for share in (True, False):
                assert found[share][item.key]["log_probs"][number] == pytest.approx(expected, abs=1e-4)


def test_an_image_is_seen_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny, (path,) = tiny_vlm("llava"), written(tmp_path, 1)
    items = [Item(str(number), "<image>Say it.", (path,), CAPTIONS, raw=True) for number in range(3)]
    seen: list[int] = []
    tower = tiny.model.model.vision_tower
    tower.register_forward_pre_hook(
        lambda _module, args, kwargs: seen.append(len(kwargs.get("pixel_values", args[0] if args else ()))),
        with_kwargs=True,
    )
    for share, count in ((True, 1), (False, 9)):
        seen.clear()
        choose(tiny, "greedy", items, share_prefix=share)
        assert sum(seen) == count


def test_white_space_of_a_template(tmp_path: Path) -> None:
    """Behind a template that ends in a line break a caption begins without the space."""
    tiny, (path,) = tiny_vlm("llava"), written(tmp_path, 1)
    tiny.processor.chat_template = "{% for m in messages %}<image>{{ m['content'][1]['text'] }}{% endfor %}{{ '\\n' }}"
    (scores,) = choose(tiny, "greedy", [Item("0", "Say it.", (path,), (" a dog", "a dog"))])
    assert scores[0] == pytest.approx(scores[1], abs=1e-5)
    assert scores[0] == pytest.approx(plain(tiny, "{}Say it.\n", read_image(path), "a dog"), abs=1e-4)


def test_refused(tmp_path: Path) -> None:
    tiny, (path,) = tiny_vlm("llava"), written(tmp_path, 1)
    good = Item("0", "<image>Say it.", (path,), (" a",), raw=True)
    with pytest.raises(tk.ArgumentError, match=r"'' has no tokens of its own behind '<image>Say it\."):
        choose(tiny, "greedy", [Item("0", "<image>Say it.", (path,), ("",), raw=True)])
    with pytest.raises(tk.ArgumentError, match="item 1 has no image, and others of its batch have"):
        choose(tiny, "greedy", [good, Item("1", "Say it.", (), (" a",), raw=True)])
    for decoder in ("contrastive_search", "opera"):
        with pytest.raises(tk.ArgumentError, match=f"{decoder} searches for an answer and gives"):
            choose(tiny, decoder, [good])
    with pytest.raises(tk.ArgumentError, match="VISTA finds its directions in generate"):
        choose(tiny, "vista:layers=0+1", [good])
    other = tiny_vlm("instructblip")
    with pytest.raises(tk.ModelError, match="texts behind its images cannot be scored"):
        choose(other, "greedy", [Item("0", "Say it.", (path,), (" a",), raw=True)])
    with torch.no_grad():
        found = tiny.model(**tiny.inputs(["{}Say it."], [[read_image(path)]])).logits
    assert not found.isnan().any()
