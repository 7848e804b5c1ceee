"""`--model truthkit/...` in the real Inspect. Oracles: `generate` for one chat at a time, and plain forwards."""

from __future__ import annotations

import base64
import gc
import io
import json
import random
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest
import torch

import truthkit as tk
from tests.conftest import ROOT
from tests.each import each

pytest.importorskip("inspect_ai", reason="Inspect is not installed")

from inspect_ai import Task
from inspect_ai import eval as evaluate
from inspect_ai.dataset import Sample
from inspect_ai.log import EvalLog
from inspect_ai.model import ChatMessageUser, ContentImage, ContentText, Model, get_model
from inspect_ai.scorer import includes
from inspect_ai.solver import generate, system_message

import truthkit.inspect_ai.registry  # registers it
from truthkit.decoding.spec import parse_spec
from truthkit.inspect_ai import provider
from truthkit.scenes.questions import question_text
from truthkit.scenes.render import render
from truthkit.scenes.scene import sample_scene
from truthkit.steering.vector import SteeringVector
from truthkit.text.encode import passage_in_front

pytestmark = [  # both are Inspect's own
    pytest.mark.filterwarnings("ignore:The 'initial' parameter is deprecated"),
    pytest.mark.filterwarnings("ignore:Unclosed <MemoryObject:ResourceWarning"),
]
QUESTIONS = ("What is the capital of France?", "Is the sky green?", "Name a colour of the rainbow, please.")
TOKENS = 8


@pytest.fixture(autouse=True)
def _streams() -> Iterator[None]:
    """Inspect's unclosed streams are collected here, not in another test, which would fail for them."""
    yield
    gc.collect()


@pytest.fixture
def make(smollm2: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Model]]:
    """Makes models of Inspect from one SmolLM2."""
    monkeypatch.setattr(provider, "load", lambda *_args, **_options: smollm2)
    made: list[Model] = []

    def build(**options: Any) -> Model:
        made.append(get_model("truthkit/smollm2", memoize=False, **options))
        return made[-1]

    yield build
    for one in made:
        one.api.close()


def run(model: Any, folder: Path, **settings: Any) -> EvalLog:
    samples = [Sample(input=question, target="Paris") for question in QUESTIONS]
    task = Task(dataset=samples, solver=[system_message("Be brief."), generate()], scorer=includes(), name="questions")
    options: dict[str, Any] = {"max_tokens": TOKENS, "display": "none", "log_dir": str(folder)} | settings
    (log,) = evaluate(task, model=model, **options)
    return log


def answers(log: EvalLog) -> list[str]:
    assert log.status == "success", log.error
    return [sample.output.completion for sample in log.samples or []]


def by_hand(model: Any, tokenizer: Any, question: str) -> list[int]:
    chat = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": question}]
    inputs = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    made = model.generate(**inputs, max_new_tokens=TOKENS, do_sample=False)
    return list(made[0, inputs["input_ids"].shape[1] :].tolist())


@pytest.mark.parametrize("decoder", ["greedy", "dola:layers=low", ["icd:lam=0.5", "beta=0.2"]])
def test_a_task(make: Any, smollm2: Any, tmp_path: Path, decoder: str | list[str]) -> None:
    """Lists are what Inspect's command line makes of commas."""
    model, tokenizer = smollm2
    spec = decoder if isinstance(decoder, str) else ",".join(decoder)
    with parse_spec(spec).build(model, tokenizer):
        expected = [by_hand(model, tokenizer, question) for question in QUESTIONS]
    log = run(make(decoder=decoder), tmp_path)
    assert answers(log) == [tokenizer.decode(ids, skip_special_tokens=True) for ids in expected]
    assert log.eval.model_args["decoder"] == decoder
    for sample, ids in zip(log.samples or [], expected, strict=True):
        usage = sample.output.usage
        assert usage is not None
        assert usage.output_tokens == len(ids)
        assert usage.total_tokens == usage.input_tokens + len(ids)
        ended = ids[-1] == tokenizer.eos_token_id
        assert sample.output.stop_reason == ("stop" if ended else "max_tokens")
    assert not model._forward_pre_hooks
    assert not model._forward_hooks


def test_steered(make: Any, smollm2: Any, tmp_path: Path) -> None:
    model, tokenizer = smollm2
    vector = SteeringVector({14: torch.randn(576, generator=torch.Generator().manual_seed(0))}, 30)
    file = tmp_path / "v.safetensors"
    vector.save(file)
    with vector.steer(model, strength=3.0):
        expected = [tokenizer.decode(by_hand(model, tokenizer, one), skip_special_tokens=True) for one in QUESTIONS]
    steered = make(steer=[f"{file}:3", "layers=14"])
    assert answers(run(steered, tmp_path)) == expected
    plain = [tokenizer.decode(by_hand(model, tokenizer, one), skip_special_tokens=True) for one in QUESTIONS]
    assert answers(run(steered, tmp_path, extra_body={"steer": 0})) == plain != expected


def test_settings(make: Any, smollm2: Any, tmp_path: Path) -> None:
    """Stops, choices, seeds and log-probabilities."""
    model, tokenizer = smollm2
    lm = make()
    stop = answers(run(lm, tmp_path, stop_seqs=[" capital"]))[0]
    whole = tokenizer.decode(by_hand(model, tokenizer, QUESTIONS[0]), skip_special_tokens=True)
    assert stop == whole.partition(" capital")[0] != whole

    drawing = {"temperature": 1.0, "top_p": 0.9, "seed": 7, "num_choices": 3}
    first, again = run(lm, tmp_path, **drawing), run(lm, tmp_path, **drawing)
    assert [[c.message.text for c in sample.output.choices] for sample in first.samples or []] == [
        [c.message.text for c in sample.output.choices] for sample in again.samples or []
    ]
    assert len({choice.message.text for choice in (first.samples or [])[0].output.choices}) > 1

    log = run(lm, tmp_path, logprobs=True, top_logprobs=2)
    chat = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": QUESTIONS[0]}]
    ids = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    with torch.no_grad():
        log_p = model(input_ids=ids["input_ids"]).logits[0, -1].log_softmax(-1)
    told = (log.samples or [])[0].output.choices[0].logprobs
    assert told is not None
    assert told.content[0].logprob == pytest.approx(float(log_p.max()), abs=2e-3)
    assert [one.logprob for one in told.content[0].top_logprobs or []] == pytest.approx(
        log_p.topk(2).values.tolist(), abs=2e-3
    )


def test_its_own_decoder_for_a_request(make: Any, smollm2: Any, tmp_path: Path) -> None:
    model, tokenizer = smollm2
    with parse_spec("dola:layers=low").build(model, tokenizer):
        expected = tokenizer.decode(by_hand(model, tokenizer, QUESTIONS[1]), skip_special_tokens=True)
    log = run(make(), tmp_path, extra_body={"decoder": "dola:layers=low"})
    assert answers(log)[1] == expected


def test_a_passage(make: Any, smollm2: Any, tmp_path: Path) -> None:
    """CAD compares with what is said without the passage, which stands in front of the question."""
    model, tokenizer = smollm2
    passage = "France has moved its capital to Lyon."
    front = passage_in_front(passage)
    with parse_spec("cad").build(model, tokenizer, context=[front]):
        expected = tokenizer.decode(by_hand(model, tokenizer, front + QUESTIONS[0]), skip_special_tokens=True)
    log = run(make(), tmp_path, extra_body={"decoder": "cad", "context": passage})
    assert answers(log)[0] == expected


@pytest.mark.parametrize("decoder", ["greedy", "vcd:alpha=1,beta=0.1"])
def test_images(tmp_path: Path, decoder: str) -> None:
    """Of two samples at once each is seen with its own image."""
    model, processor = tk.load("scene-vlm")
    rng, samples, expected = random.Random(3), [], []
    for scene in (sample_scene(rng, bias=0.9) for _ in range(2)):
        picture, question, file = render(scene), question_text(scene.names[0]), io.BytesIO()
        picture.save(file, "PNG")
        url = f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
        samples.append(Sample([ChatMessageUser(content=[ContentImage(image=url), ContentText(text=question)])]))
        chat = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": question}]}]
        text = processor.apply_chat_template(chat, add_generation_prompt=True)
        inputs = processor(images=[picture], text=text, return_tensors="pt")
        with parse_spec(decoder).build(model, processor, images=[[picture]]):
            made = model.generate(**inputs, max_new_tokens=TOKENS, do_sample=False)
        expected.append(processor.tokenizer.decode(made[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True))

    lm = get_model("truthkit/scene-vlm", memoize=False, decoder=decoder)
    options: dict[str, Any] = {"max_tokens": TOKENS, "display": "none", "log_dir": str(tmp_path)}
    (log,) = evaluate(Task(dataset=samples, solver=generate()), model=lm, **options)
    assert answers(log) == expected
    lm.api.close()


@each(
    "options, message",
    [
        ({"decoder": "nope"}, "no decoder 'nope'"),
        ({"decoder": "vcd"}, "this model takes none"),
        ({"steer": "none.safetensors:x"}, "expected a finite number"),
        ({"batch": 0}, "batch is 0"),
        ({"nonsense": 1}, "nonsense"),
    ],
)
def test_bad_arguments(make: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises((tk.ArgumentError, TypeError), match=message):
        make(**options)


@each(
    "settings, message",
    [
        ({"top_k": 5}, "top_k is 5"),
        ({"extra_body": {"decoder": "cad"}}, "give the passage as context"),
        ({"extra_body": {"nonsense": 1}}, "nonsense"),
        ({"frequency_penalty": 0.5}, "frequency_penalty is 0.5"),
        ({"max_tokens": 10**6}, "new tokens"),
    ],
)
def test_bad_settings(make: Any, tmp_path: Path, settings: dict[str, Any], message: str) -> None:
    log = run(make(), tmp_path, **settings)
    assert log.status == "error"
    assert log.error is not None
    assert message in log.error.message


def test_the_entry_point() -> None:
    """It names a module whose import registers the model, and which is quick to import."""
    points = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]["inspect_ai"]
    assert import_module(points["truthkit"]) is truthkit.inspect_ai.registry
    code = "import sys, truthkit.inspect_ai.registry; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True, cwd=ROOT)


@pytest.mark.slow
def test_command(tmp_path: Path) -> None:
    if not [point for point in entry_points(group="inspect_ai") if point.name == "truthkit"]:
        pytest.skip("this truthkit was installed before it had the entry point inspect_ai")
    (tmp_path / "task.py").write_text(
        "from inspect_ai import Task, task\nfrom inspect_ai.dataset import Sample\n"
        "from inspect_ai.scorer import includes\nfrom inspect_ai.solver import generate\n\n\n"
        "@task\ndef capitals():\n"
        "    samples = [Sample(input='What is the capital of France?', target='Paris')]\n"
        "    return Task(dataset=samples, solver=generate(), scorer=includes())\n"
    )
    command = [sys.executable, "-m", "inspect_ai", "eval", "task.py", "--model", "truthkit/smollm2"]
    command += ["-M", "decoder=icd:lam=0.5,beta=0.2", "--max-tokens", "16", "--display", "plain"]
    command += ["--log-dir", str(tmp_path / "logs"), "--log-format", "json"]
    done = subprocess.run(command, check=False, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    (file,) = (tmp_path / "logs").glob("*.json")
    log = json.loads(file.read_text())
    assert log["status"] == "success"
    assert log["eval"]["model_args"]["decoder"] == ["icd:lam=0.5", "beta=0.2"]
    assert log["samples"][0]["output"]["usage"]["output_tokens"] == 16
