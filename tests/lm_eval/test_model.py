"""`--model truthkit` in the real harness. Oracles: plain forwards, one text at a time, and the harness's own model."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import truthkit as tk
from tests.each import each

pytest.importorskip("lm_eval", reason="lm-evaluation-harness is not installed")

from lm_eval import simple_evaluate
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager

from truthkit.decoding.spec import parse_spec
from truthkit.lm_eval.model import TruthkitLM
from truthkit.steering.vector import SteeringVector

PROMPT = "The capital of Australia is"
ANSWERS = (" Sydney.", " Canberra, which is in the south-east.", " Melbourne", " not known")
_TASKS = {
    "endings": """\
task: endings
dataset_path: json
dataset_kwargs: {{data_files: {{validation: {data}}}}}
validation_split: validation
output_type: multiple_choice
doc_to_text: "{{{{text}}}}"
doc_to_target: 1
doc_to_choice: "{{{{choices}}}}"
metric_list: [{{metric: acc}}, {{metric: acc_norm}}]
""",
    "last_word": """\
task: last_word
dataset_path: json
dataset_kwargs: {{data_files: {{validation: {data}}}}}
validation_split: validation
output_type: loglikelihood
doc_to_text: "{{{{text}}}}"
doc_to_target: " {{{{word}}}}"
metric_list: [{{metric: perplexity}}, {{metric: acc}}]
""",
    "written": """\
task: written
dataset_path: json
dataset_kwargs: {{data_files: {{validation: {data}}}}}
validation_split: validation
output_type: generate_until
doc_to_text: "{{{{text}}}}"
doc_to_target: "{{{{word}}}}"
generation_kwargs: {{until: ["\\n"], max_gen_toks: 8, do_sample: false}}
metric_list: [{{metric: exact_match}}]
""",
    "whole": """\
task: whole
dataset_path: json
dataset_kwargs: {{data_files: {{validation: {data}}}}}
validation_split: validation
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: "{{{{text}}}} {{{{word}}}}"
metric_list: [{{metric: word_perplexity}}]
""",
}


@pytest.fixture
def make(smollm2: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., TruthkitLM]]:
    """Makes models of the harness from one SmolLM2, and takes them off it."""
    monkeypatch.setattr("truthkit.models.loading.load", lambda *_args, **_options: smollm2)
    made: list[TruthkitLM] = []

    def build(**options: Any) -> TruthkitLM:
        made.append(TruthkitLM(**options))
        return made[-1]

    yield build
    for one in made:
        one.close()


@pytest.fixture
def tasks(tmp_path: Path) -> TaskManager:
    data = tmp_path / "data.json"
    documents = [
        {"text": PROMPT, "choices": ANSWERS, "word": "Sydney"},
        {"text": "One, two, three, four,", "choices": (" ten.", " five."), "word": "five"},
        {"text": "The sun rises in the", "choices": (" west and sets in the east.", " east."), "word": "east"},
    ]
    data.write_text("\n".join(map(json.dumps, documents)))
    for name, text in _TASKS.items():
        (tmp_path / f"{name}.yaml").write_text(text.format(data=data))
    return TaskManager(include_path=str(tmp_path), include_defaults=False)


def asked(*pairs: tuple[str, str]) -> list[Instance]:
    return [Instance("loglikelihood", {}, pair, number) for number, pair in enumerate(pairs)]


def by_hand(model: Any, tokenizer: Any, spec: str, prompt: str, answer: str) -> tuple[float, bool]:
    ids = tokenizer(prompt + answer, return_tensors="pt").input_ids
    start = len(tokenizer(prompt).input_ids)
    with parse_spec(spec).build(model, tokenizer), torch.no_grad():
        log_p = model(input_ids=ids).logits[0].log_softmax(-1)
    targets = ids[0, start:]
    rows = log_p[start - 1 : -1]
    return float(rows.gather(1, targets[:, None]).sum()), bool((rows.argmax(-1) == targets).all())


@pytest.mark.parametrize("decoder", ["greedy", "dola:beta=0;layers=14+20", "icd:beta=0;amateur_prompt=Lie."])
def test_choices(make: Any, smollm2: Any, decoder: str) -> None:
    model, tokenizer = smollm2
    spec = decoder.replace(";", ",")
    ids = tokenizer(PROMPT, return_tensors="pt")
    with parse_spec(spec).build(model, tokenizer):
        said = model.generate(**ids, max_new_tokens=4, do_sample=False)[0, ids["input_ids"].shape[1] :]
    answers = [*ANSWERS, tokenizer.decode(said)]
    expected = [by_hand(model, tokenizer, spec, PROMPT, answer) for answer in answers]
    found = make(decoder=decoder).loglikelihood(asked(*((PROMPT, answer) for answer in answers)), disable_tqdm=True)
    assert [one[0] for one in found] == pytest.approx([one[0] for one in expected], abs=2e-3)
    assert [one[1] for one in found] == [one[1] for one in expected]
    assert decoder != "greedy" or expected[0][1]


def test_tasks_as_by_the_harness(make: Any, smollm2: Any, tasks: TaskManager) -> None:
    """Choices, a last word with its being greedy, written answers and whole texts: the metrics of its own model."""
    options: dict[str, Any] = {"tasks": list(_TASKS), "task_manager": tasks, "bootstrap_iters": 0}
    found = simple_evaluate(make(), **options)["results"]
    expected = simple_evaluate(HFLM(pretrained=smollm2[0], tokenizer=smollm2[1], batch_size=1), **options)["results"]
    for task in _TASKS:
        for name, value in expected[task].items():
            if not isinstance(value, str):
                assert found[task][name] == pytest.approx(value, rel=1e-4), (task, name)
    assert expected["last_word"]["acc,none"] > 0


def test_steered(make: Any, smollm2: Any, tmp_path: Path) -> None:
    model, tokenizer = smollm2
    vector = SteeringVector({14: torch.randn(576, generator=torch.Generator().manual_seed(0))}, 30)
    vector.save(tmp_path / "v.safetensors")
    ids = tokenizer(PROMPT, return_tensors="pt")
    with vector.steer(model, strength=2.0):
        expected = [by_hand(model, tokenizer, "greedy", PROMPT, answer)[0] for answer in ANSWERS]
        said = model.generate(**ids, max_new_tokens=6, do_sample=False)[0, ids["input_ids"].shape[1] :]
    lm = make(steer=f"{tmp_path / 'v.safetensors'}:2;layers=14")
    found = lm.loglikelihood(asked(*((PROMPT, answer) for answer in ANSWERS)), disable_tqdm=True)
    assert [score for score, _ in found] == pytest.approx(expected, abs=2e-3)
    assert lm.get_model_info()["steer"] == [f"{tmp_path / 'v.safetensors'}:2,layers=14"]
    written = Instance("generate_until", {}, (PROMPT, {"until": ["\n"], "max_gen_toks": 6}), 0)
    assert lm.generate_until([written], disable_tqdm=True) == [tokenizer.decode(said).partition("\n")[0]]


def test_texts_that_are_too_long(make: Any, smollm2: Any) -> None:
    """These are cut on the left, as the harness does it."""
    pairs = asked(("One two three four five six seven eight nine ten.", " eleven"), ("A", " B"))
    model, tokenizer = smollm2
    expected = HFLM(pretrained=model, tokenizer=tokenizer, max_length=8).loglikelihood(pairs, disable_tqdm=True)
    found = make(max_length=8).loglikelihood(pairs, disable_tqdm=True)
    assert [one[0] for one in found] == pytest.approx([one[0] for one in expected], abs=1e-3)


@each(
    "options, message",
    [
        ({"decoder": "cad"}, "with and without a passage"),
        ({"decoder": "vcd"}, "with and without images"),
        ({"decoder": "nope"}, "no decoder 'nope'"),
        ({"amateur": "x"}, "contrasts with none"),
        ({"steer": "none.safetensors:x"}, "expected a finite number"),
    ],
)
def test_bad_arguments(make: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(tk.ArgumentError, match=message):
        make(**options)


def test_a_search_scores_no_choices(make: Any) -> None:
    with pytest.raises(tk.ArgumentError, match="gives a choice no probability"):
        make(decoder="contrastive_search").loglikelihood(asked((PROMPT, " Sydney")), disable_tqdm=True)


@pytest.mark.slow
def test_command(tasks: TaskManager, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "truthkit.lm_eval", "run", "--model", "truthkit", "--tasks", "endings,written"]
    command += ["--model_args", "decoder=dola:beta=0;layers=high", "--include_path", str(tmp_path)]
    done = subprocess.run(
        [*command, "--output_path", str(tmp_path / "out")], check=True, capture_output=True, text=True
    )
    assert "|endings" in done.stdout
    (results,) = (tmp_path / "out").rglob("results_*.json")
    assert json.loads(results.read_text())["config"]["model_args"]["decoder"] == "dola:beta=0;layers=high"
