"""`--model truthkit` in the real lmms-eval, on drawn scenes. Oracles: `generate` and plain forwards, one at a time."""

from __future__ import annotations

import json
import math
import random
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

import truthkit as tk
from tests.conftest import ROOT
from tests.each import each

pytest.importorskip("lmms_eval", reason="lmms-eval is not installed")

from lmms_eval.api.instance import Instance
from lmms_eval.evaluator import simple_evaluate
from lmms_eval.models.registry_v2 import ModelRegistryV2
from lmms_eval.tasks import TaskManager

from truthkit.decoding.spec import parse_spec
from truthkit.lmms_eval.manifest import MANIFEST
from truthkit.lmms_eval.model import TruthkitLMM
from truthkit.scenes.questions import question_text
from truthkit.scenes.render import render
from truthkit.scenes.scene import sample_scene

pytestmark = pytest.mark.filterwarnings("default")  # the harness has many of its own

_TASK = """\
task: {name}
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
test_split: test
output_type: {kind}
doc_to_visual: !function views.images
doc_to_text: "{{{{question}}}}"
doc_to_target: "{{{{answer}}}}"
{more}
"""
_WRITTEN = 'generation_kwargs: {until: ["."], max_new_tokens: 8, temperature: 0, do_sample: false, num_beams: 1}\n'
_WRITTEN += "metric_list: [{metric: exact_match}]"
_CHOSEN = 'doc_to_choice: "{{choices}}"\ntarget_delimiter: " "\nmetric_list: [{metric: acc}, {metric: exact_match}]'
_VIEWS = """\
from PIL import Image


def images(doc):
    return [Image.open(doc["image"])]
"""
CHOICES = ["Yes.", "No."]


@pytest.fixture(scope="module")
def eyes() -> Any:
    return tk.load("scene-vlm")


@pytest.fixture(scope="module")
def documents(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    folder, rng, found = tmp_path_factory.mktemp("scenes"), random.Random(3), []
    for number in range(3):
        scene = sample_scene(rng, bias=0.9)
        render(scene).save(path := folder / f"{number}.png")
        for name in (scene.names[0], scene.absent_partners[0] if scene.absent_partners else "cat"):
            found.append({"image": str(path), "question": question_text(name), "choices": CHOICES})
            found[-1]["answer"] = CHOICES[0] if name == scene.names[0] else CHOICES[1]
    return found


@pytest.fixture
def tasks(tmp_path: Path, documents: list[dict[str, Any]]) -> TaskManager:
    data = tmp_path / "data.json"
    data.write_text("\n".join(map(json.dumps, documents)))
    (tmp_path / "views.py").write_text(_VIEWS)
    for name, kind, more in (("written", "generate_until", _WRITTEN), ("chosen", "multiple_choice", _CHOSEN)):
        (tmp_path / f"{name}.yaml").write_text(_TASK.format(name=name, kind=kind, data=data, more=more))
    return TaskManager(include_path=str(tmp_path), include_defaults=False)


@pytest.fixture
def make(eyes: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., TruthkitLMM]]:
    monkeypatch.setattr("truthkit.models.loading.load", lambda *_args, **_options: eyes)
    made: list[TruthkitLMM] = []

    def build(**options: Any) -> TruthkitLMM:
        made.append(TruthkitLMM("scene-vlm", **options))
        return made[-1]

    yield build
    for one in made:
        one.close()


def run(lm: TruthkitLMM, tasks: TaskManager, name: str) -> list[dict[str, Any]]:
    result = simple_evaluate(lm, tasks=[name], task_manager=tasks, bootstrap_iters=0, process_docs_parallel=1)
    samples = sorted(result["samples"][name], key=lambda sample: sample["doc_id"])
    assert result["results"][name]
    return list(samples)


def written(processor: Any, document: dict[str, Any], answer: str = "") -> Any:
    chat = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": document["question"]}]}]
    text = processor.apply_chat_template(chat, add_generation_prompt=True)
    return processor(images=[Image.open(document["image"])], text=text + answer, return_tensors="pt"), text


@pytest.mark.parametrize("decoder", ["greedy", "vcd:alpha=1;beta=0.1", "ritual", "m3id"])
def test_answers(make: Any, eyes: Any, tasks: TaskManager, documents: list[dict[str, Any]], decoder: str) -> None:
    model, processor = eyes
    expected = []
    for document in documents:
        inputs, _ = written(processor, document)
        images = [[Image.open(document["image"]).convert("RGB")]]
        with parse_spec(decoder.replace(";", ",")).build(model, processor, images=images):
            made = model.generate(**inputs, max_new_tokens=8, do_sample=False)
        text = processor.tokenizer.decode(made[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
        expected.append(text.strip().partition(".")[0])
    samples = run(make(decoder=decoder, batch_size=4), tasks, "written")
    assert [sample["filtered_resps"][0] for sample in samples] == expected


@pytest.mark.parametrize("decoder", ["greedy", "vcd:beta=0;alpha=0.5", "vcd:beta=0.5"])
def test_choices(make: Any, eyes: Any, tasks: TaskManager, documents: list[dict[str, Any]], decoder: str) -> None:
    """Losses: what a model of transformers returns for labels that are the choice's tokens; infinite if ruled out."""
    model, processor = eyes
    expected, greedy = [], []
    for document in documents:
        images = [[Image.open(document["image"]).convert("RGB")]]
        start = written(processor, document)[0]["input_ids"].shape[1]
        for choice in CHOICES:
            space = "" if written(processor, document)[1][-1:].isspace() else " "
            inputs, _ = written(processor, document, space + choice)
            with parse_spec(decoder.replace(";", ",")).build(model, processor, images=images), torch.no_grad():
                log_p = model(**inputs).logits[0].log_softmax(-1)
            targets = inputs["input_ids"][0, start:]
            expected.append(-float(log_p[start - 1 : -1].gather(1, targets[:, None]).mean()))
            greedy.append(bool((log_p[start - 1 : -1].argmax(-1) == targets).all()))
    samples = run(make(decoder=decoder), tasks, "chosen")
    found = [loss for sample in samples for loss, _ in sample["filtered_resps"]]
    assert found == pytest.approx(expected, abs=2e-3)
    assert [said for sample in samples for _, said in sample["filtered_resps"]] == greedy
    assert any(greedy)
    assert any(map(math.isinf, expected)) == (decoder == "vcd:beta=0.5")
    pairs = zip(expected[::2], expected[1::2], strict=True)
    right = [(CHOICES[yes > no] == one["answer"]) for one, (yes, no) in zip(documents, pairs, strict=True)]
    assert [sample["acc"] for sample in samples] == right


def asked(lm: TruthkitLMM, *prompts: str, visuals: Any = (), **settings: Any) -> list[str]:
    """What the harness asks of `generate_until`, for documents that are their own images."""
    lm.task_dict["t"] = {"test": [visuals] * len(prompts)}
    metadata = {"task": "t", "doc_id": 0, "repeats": 1}
    arguments = [(prompt, settings, lambda seen: seen, n, "t", "test") for n, prompt in enumerate(prompts)]
    return lm.generate_until([Instance("generate_until", one, 0, metadata) for one in arguments])


def test_settings(make: Any, eyes: Any) -> None:
    """Without images; with a mark for the image, in another mode; drawn by document and repeat."""
    model, processor = eyes
    inputs = processor.apply_chat_template(
        [{"role": "user", "content": [{"type": "text", "text": "Is there a cat?"}]}],
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
    )
    made = model.generate(**inputs, max_new_tokens=6, do_sample=False)[0, inputs["input_ids"].shape[1] :]
    lm = make()
    expected = processor.tokenizer.decode(made, skip_special_tokens=True).strip()
    assert asked(lm, "Is there a cat?", max_new_tokens=6, until=None) == [expected]

    image = Image.new("RGBA", (64, 64), "red")
    question = "What is in the image?"
    marked, bare = (asked(lm, text, visuals=[image], max_new_tokens=6) for text in (f"<image>\n{question}", question))
    assert marked == bare

    drawing = {"max_new_tokens": 12, "do_sample": True, "temperature": 2.0}
    lm.task_dict["t"] = {"test": [[image]]}
    same = Instance(
        "generate_until",
        (question, drawing, lambda seen: seen, 0, "t", "test"),
        0,
        {"task": "t", "doc_id": 0, "repeats": 4},
    )
    drawn = lm.generate_until([same] * 4)
    assert len(set(drawn)) > 1
    assert lm.generate_until([same] * 4) == drawn


@each(
    "prompt, visuals, settings, message",
    [
        ("What?", (), {"num_beams": 3}, "num_beams 3"),
        ("What?", (), {"repetition_penalty": 1.2}, "repetition_penalty 1.2"),
        ("What?", ["film.mp4"], {}, "a video"),
        ("What?", [{"array": []}], {}, "a sound"),
        ("This <image> or this <image>?", [Image.new("RGB", (8, 8))] * 2, {}, "in its midst"),
    ],
)
def test_bad_tasks(make: Any, prompt: str, visuals: Any, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(tk.ArgumentError, match=message):
        asked(make(), prompt, visuals=visuals, **settings)


def test_registry() -> None:
    """The entry point's value, as the harness's registry reads it."""
    points = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]["lmms_eval.models"]
    assert points == {"truthkit": "truthkit.lmms_eval.manifest:MANIFEST"}
    registry = ModelRegistryV2()
    registry.register_manifest(MANIFEST)
    assert registry.get_model_class("truthkit") is TruthkitLMM


@each(
    "options, message",
    [
        ({"decoder": "cad"}, "with and without a passage"),
        ({"decoder": "nope"}, "no decoder 'nope'"),
        ({"amateur": "x"}, "contrasts with none"),
        ({"batch_size": "auto"}, "batch_size is 'auto'"),
    ],
)
def test_bad_arguments(make: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(tk.ArgumentError, match=message):
        make(**options)
