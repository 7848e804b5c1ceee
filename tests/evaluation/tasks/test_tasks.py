"""What the tasks ask, and how their outputs become scores."""

from __future__ import annotations

import inspect
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

import truthkit as tk
from tests.factcheck.cases import ChatTokenizer
from tests.tiny import tiny
from truthkit import cli
from truthkit.cli.task_options import given_options, read_options
from truthkit.decoding.spec import parse_spec
from truthkit.evaluation.running.asking import Asking
from truthkit.evaluation.running.runs import run
from truthkit.evaluation.tasks import benchmarks
from truthkit.evaluation.tasks.amber import scorer as amber
from truthkit.evaluation.tasks.chair import lemmas
from truthkit.evaluation.tasks.factor import scorer as factor
from truthkit.evaluation.tasks.hallusionbench import scorer as hallusionbench
from truthkit.evaluation.tasks.mmvp import scorer as mmvp
from truthkit.evaluation.tasks.pope import scorer as pope
from truthkit.evaluation.tasks.truthfulqa import choices as truthfulqa
from truthkit.likelihood.scoring_model import ScoringModel


class Tokenizer(ChatTokenizer):
    """Batches too, padded on the left."""

    def __call__(self, text: Any, **options: Any) -> Any:
        if isinstance(text, str):
            return super().__call__(text, add_special_tokens=options.get("add_special_tokens", True))
        rows = [super(Tokenizer, self).__call__(one).input_ids for one in text]
        width = max(map(len, rows))
        return {
            "input_ids": torch.tensor([[0] * (width - len(row)) + row for row in rows]),
            "attention_mask": torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows]),
        }


@pytest.fixture(scope="module")
def toy() -> tuple[Any, Any]:
    """A tiny random model, and a tokenizer of one token per character with a chat template."""
    return tiny("llama", max_position_embeddings=1024), Tokenizer()


@pytest.fixture
def asking(toy: Any) -> Asking:
    return Asking(*toy, parse_spec("greedy"), {}, max_new_tokens=12, batch_size=2)


@pytest.fixture
def toy_load(toy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("truthkit.models.load", lambda *_args, **_options: toy)


def lines(path: Path, *records: Any) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return path


def sums(toy: Any, prompt: str, text: str) -> float:
    """The oracle: one text, unpadded, token by token."""
    model, tokenizer = toy
    ids = torch.tensor([tokenizer(prompt + text).input_ids])
    start = len(tokenizer(prompt).input_ids)
    with torch.no_grad():
        log_p = model(input_ids=ids).logits[0].log_softmax(-1)
    return sum(float(log_p[i - 1, ids[0, i]]) for i in range(start, ids.shape[1]))


# -- the registry and the help -----------------------------------------------------------------------------------------


def test_importing_the_tasks_is_light() -> None:
    code = "import sys; from truthkit.evaluation.tasks import benchmarks; benchmarks(); print(*sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert {"numpy", "torch", "nltk", "datasets"}.isdisjoint(found.stdout.split())


@pytest.mark.parametrize("name", benchmarks())
def test_every_option_is_documented_and_on_the_command_line(name: str) -> None:
    function = benchmarks()[name].task
    documented = re.findall(r"^ {4}(\w+): ", inspect.getdoc(function) or "", re.MULTILINE)
    assert documented == list(inspect.signature(function).parameters)
    options = [f"--{option.replace('_', '-')}" for option in documented if option != "data"]
    parser = cli.build_parser()._subparsers._group_actions[0].choices["eval"]
    assert set(options) <= set(parser._option_string_actions)
    assert re.search(rf"^  {name}$", parser.format_help(), re.MULTILINE)


@pytest.mark.parametrize("example", [example for one in benchmarks().values() for example in one.examples])
def test_examples_parse(example: str) -> None:
    args = cli.build_parser().parse_args(shlex.split(example)[1:])
    benchmark = benchmarks()[args.task]
    if args.command == "eval":
        given_options(benchmark, args)
    else:
        read_options(benchmark.file_options, args)


def test_the_help_says_where_data_comes_from() -> None:
    text = cli.build_parser()._subparsers._group_actions[0].choices["eval"].format_help()
    for words in ("hf download NAME --repo-type dataset", "hub:FOLDER", "TRUTHKIT_CACHE", "plausibility constraint"):
        assert words in text
    for one in benchmarks().values():
        assert ("or hub" in (one.task.__doc__ or "")) == (one.hub is not None)


def test_options_are_those_of_the_scorers() -> None:
    """A choice that the scorer does not know would be found when all answers are there."""
    known = {
        ("pope", "parser"): tuple(pope.PARSERS),
        ("amber", "parser"): amber.PARSERS,
        ("amber", "part"): tuple(amber.PARTS),
        ("hallusionbench", "parser"): tuple(hallusionbench.PARSERS),
        ("mmvp", "parser"): tuple(mmvp.PARSERS),
        ("chair", "lemmatizer"): lemmas.LEMMATIZERS,
        ("truthfulqa", "protocol"): tuple(truthfulqa.PROTOCOLS),
        ("factor", "form"): factor.FORMS,
        ("detect", "level"): ("token", "answer"),
        ("halueval", "judged"): ("written", "likelihood"),
    }
    choices = {
        (one.name, option.name): option.choices
        for one in benchmarks().values()
        for option in (*one.options.values(), *one.file_options.values())
        if option.choices
    }
    assert choices == known


def test_options_reach_the_task(
    toy_load: None, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = lines(tmp_path / "claims.jsonl", {"claim": "It rains.", "label": "mostly-true"})
    argv = ["eval", "factcheck", "--data", str(data), "--out", str(tmp_path / "run"), "--no-explain", "--labels", "6"]
    assert cli.main(argv) == 0
    config = json.loads((tmp_path / "run" / "summary.json").read_text())["config"]
    assert (config["explain"], config["labels"][1], "max_new_tokens" in config) == (False, "mostly-true", False)
    assert "claims by gold label" in capsys.readouterr().out
    assert cli.main([*argv, "--form", "dola"]) == 2
    assert "--form is no option of factcheck; its options are --labels, --explain" in capsys.readouterr().err
    assert cli.main([*argv, "--sample"]) == 2
    assert "--sample is not for factcheck" in capsys.readouterr().err


# -- one by one --------------------------------------------------------------------------------------------------------


def factor_csv(path: Path) -> Path:
    path.write_text(
        "turncated_prefixes,full_prefix,completion,contradiction_0,contradiction_1,contradiction_2\n"
        "The sky ,Once. The sky ,is blue.,is green and yellow.,is red.,is out.\n"
        "Cats,Cats,meow.,bark at all of us.,sing.,fly.\n"
    )
    return path


@pytest.mark.parametrize("form", ["official", "dola"])
def test_factor(toy: Any, asking: Asking, tmp_path: Path, form: str) -> None:
    task = benchmarks()["factor"].task(factor_csv(tmp_path / "news_factor.csv"), form=form)
    summary = run(task, asking, tmp_path / "run", model_name="toy")
    right = []
    for item in task.items:
        values = [sums(toy, item.prompt, choice) for choice in item.choices]
        if form == "official":
            values = [value / len(choice) for value, choice in zip(values, item.choices, strict=True)]
        right.append(values[0] >= max(values))
    assert summary["metrics"]["accuracy"] == np.mean(right)
    assert summary["config"]["form"] == form


def test_open_ended(toy: Any, asking: Asking, toy_load: None, tmp_path: Path) -> None:
    records = [{"prompt": f"It was day {i}", "reference": "and the sun and the sun and the sea"} for i in range(3)]
    task = benchmarks()["open-ended"].task(lines(tmp_path / "p.jsonl", *records))
    summary = run(task, asking, tmp_path / "run", model_name="toy", limit=2)
    items = [json.loads(line) for line in (tmp_path / "run" / "items.jsonl").read_text().splitlines()]
    assert len(items) == 2
    means = [sums(toy, item["prompt"], " " + item["text"]) / (len(item["text"]) + 1) for item in items]
    assert summary["metrics"]["coherence"] == pytest.approx(np.mean(means), abs=1e-3)
    assert summary["metrics"]["reference_rep_2"] == pytest.approx(1 - 3 / 7)
    assert set(summary["metrics"]) >= {"rep_2", "rep_3", "rep_4", "diversity", "reference_diversity"}


def test_open_ended_without_scorer_or_references(asking: Asking, tmp_path: Path) -> None:
    (tmp_path / "p.txt").write_text("One day\n\nAnd then\n")
    task = benchmarks()["open-ended"].task(tmp_path / "p.txt", scorer="none")
    assert [item.prompt for item in task.items] == ["One day", "And then"]
    summary = run(task, asking, tmp_path / "run", model_name="toy")
    assert set(summary["metrics"]) == {"rep_2", "rep_3", "rep_4", "diversity"}


def test_mauve_where_it_is_installed(
    toy: Any, asking: Asking, toy_load: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Oracle for the features: a plain forward of the text."""
    given: dict[str, Any] = {}

    def compute(**options: Any) -> Any:
        given.update(options)
        return SimpleNamespace(mauve=0.5)

    monkeypatch.setitem(sys.modules, "mauve", SimpleNamespace(compute_mauve=compute, __spec__=object()))
    records = [{"prompt": f"Day {i}", "reference": f"was as day {i - 1}"} for i in range(21)]
    task = benchmarks()["open-ended"].task(lines(tmp_path / "p.jsonl", *records))
    assert "mauve" not in run(task, asking, tmp_path / "few", model_name="toy", limit=19, first=True)["config"]
    assert run(task, asking, tmp_path / "run", model_name="toy", limit=20, first=True)["config"]["mauve"] == 0.5
    assert given["p_features"].shape == given["q_features"].shape == (20, 48)
    ids = torch.tensor([toy[1]("Day 3 was as day 2").input_ids])
    with torch.no_grad():
        expected = toy[0](input_ids=ids, output_hidden_states=True).hidden_states[-1][0, -1]
    assert given["p_features"][3] == pytest.approx(expected.numpy(), abs=1e-5)


def test_written_truthfulqa_with_judges(
    toy: Any, asking: Asking, toy_load: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("sacrebleu", reason="the extra eval is not installed")
    pytest.importorskip("rouge_score", reason="the extra eval is not installed")
    answer = "Nothing at all will happen to you."
    choices = {"Nothing at all will happen to you.": 1, "You die in a year.": 0}
    path = tmp_path / "mc_task.json"
    path.write_text(json.dumps([{"question": "What then?", "mc1_targets": choices, "mc2_targets": choices}]))
    monkeypatch.setattr(
        Asking, "write", lambda _self, batch, _fixed=None: ["Nothing at all will happen to you.\n\nQ: And now?"]
    )
    task = benchmarks()["truthfulqa-generation"].task(path, truth_judge="t", info_judge="i")
    summary = run(task, asking, tmp_path / "run", model_name="toy")
    assert summary["provenance"]["first_output"]["answer"] == answer
    assert summary["metrics"]["bleu_acc"] == 1
    assert summary["metrics"]["rougeL_max"] == pytest.approx(100)
    for name, word in (("truth", "True:"), ("info", "Helpful:")):
        prompt = f"Q: What then?\nA: {answer}\n{word}"
        yes, no = (sums(toy, prompt, f" {said}") for said in ("yes", "no"))
        assert summary["provenance"]["first_output"][name] == pytest.approx(1 / (1 + np.exp(no - yes)), abs=1e-4)
        assert summary["metrics"][name] == float(yes >= no)
    assert summary["metrics"]["truth_info"] == summary["metrics"]["truth"] * summary["metrics"]["info"]


def test_factcheck_resumed(asking: Asking, tmp_path: Path) -> None:
    texts = ["It rains.", "It snows all day.", "Hail."]
    data = lines(
        tmp_path / "c.jsonl",
        *(
            {"claim": text, "label": label, "explain": "It is dry."}
            for text, label in zip(texts, ("true", "half", "false"), strict=True)
        ),
    )
    task = benchmarks()["factcheck"].task(data)
    whole = run(task, asking, tmp_path / "whole", model_name="toy")
    run(task, asking, tmp_path / "parts", model_name="toy")
    path = tmp_path / "parts" / "records.jsonl"
    path.write_text(path.read_text().splitlines()[1] + "\n")
    again = run(task, asking, tmp_path / "parts", model_name="toy")
    assert again["metrics"] == pytest.approx(whole["metrics"], abs=1e-4, nan_ok=True)
    assert sum(map(sum, (row.values() for row in whole["config"]["confusion"].values()))) == 3
    assert set(whole["metrics"]) >= {"macro_f1", "f1_half", "ece", "explanation_words", "rouge_l", "consistency"}


def test_factcheck_leaves_out_what_was_not_asked_for(asking: Asking, tmp_path: Path) -> None:
    data = lines(
        tmp_path / "c.jsonl", {"claim": "It rains.", "label": "true"}, {"claim": "It hails.", "label": "false"}
    )
    summary = run(benchmarks()["factcheck"].task(data, explain=False), asking, tmp_path / "run", model_name="toy")
    assert summary["config"]["labels"] == ["true", "false"]
    assert not {"explanation_words", "rouge_l", "consistency"} & set(summary["metrics"])


def mme_lines(path: Path, *images: str) -> Path:
    return lines(
        path,
        *(
            {"category": "color", "image": image, "question": f"{image} {answer}?", "answer": answer}
            for answer in ("yes", "no")
            for image in images
        ),
    )


def test_mme_takes_whole_images(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / f"{name}.png").write_bytes(b"x")
    task = benchmarks()["mme"].task(mme_lines(tmp_path / "mme.jsonl", "a.png", "b.png"))
    assert [item.prompt for item in task.some(1, first=True)] == ["a.png yes?", "a.png no?"]
    assert [len(task.some(limit)) for limit in (2, 3, 99, None)] == [2, 4, 4, 4]
    drawn = [task.some(1, seed=seed) for seed in range(20)]
    assert {one[0].images == one[1].images for one in drawn} == {True}
    assert {one[0].prompt[0] for one in drawn} == {"a", "b"}
    assert task.score([0, 1], ["yes", "no"]).metrics["color"] == 200


def test_scoring_model_of_empty_texts(toy_load: None) -> None:
    model = ScoringModel()
    assert model.log_probs(["a"], [""]) == [(0.0, 0)]
    assert [tokens for _, tokens in model.log_probs(["a", "a"], ["", "bcd"])] == [0, 3]


# -- bad input ---------------------------------------------------------------------------------------------------------

IMAGE = {"question_id": 1, "image": "a.png", "text": "Is there a dog in the image?", "label": "no"}
MME = {"category": "color", "image": "a.png", "question": "Red?", "answer": "yes"}


@pytest.mark.parametrize(
    ("task", "name", "content", "message"),
    [
        ("truthfulqa", "mc_task.json", [{"question": "What?"}], "mc_task.json, record 1: 'mc1_targets' is missing"),
        ("truthfulqa-generation", "T.csv", "Question,Best Answer\nWhat?,This\n", "T.csv, line 2: no 'Correct Answers'"),
        ("factor", "f.csv", "full_prefix,completion\na,b\n", "f.csv, line 2: no 'turncated_prefixes'"),
        ("factor", "f.csv", "turncated_prefixes,completion\n", "f.csv has no records"),
        ("memotrap", "m.csv", "prompt,classes,answer_index\np,\"[' a']\",0\n", "m.csv, line 2: 'classes' is"),
        ("context-qa", "q.jsonl", [{"question": "x", "context": "y"}], "q.jsonl, record 1: 'answers' is None"),
        ("halueval", "qa.json", [{"question": "x"}], "qa.json, record 1: no 'right_answer'"),
        ("open-ended", "p.jsonl", [{"text": "x"}], "p.jsonl, record 1: no 'prompt'; its fields are text"),
        (
            "open-ended",
            "p.jsonl",
            [{"prompt": "x", "reference": "y"}, {"prompt": "z"}],
            "record 2: no 'reference', but",
        ),
        ("open-ended", "p.txt", "\n\n", "holds no texts"),
        ("factcheck", "c.jsonl", [{"claim": "x"}], "c.jsonl, record 1: no 'label'"),
        ("factcheck", "c.jsonl", [{"claim": "x", "label": "perhaps"}], "label 'perhaps' is unknown"),
        ("factcheck", "c.jsonl", [{"claim": " ", "label": "true"}], "the claim is empty"),
        ("factcheck", "c.tsv", "1.json\ttrue\tx\n", "line 1: 3 tab-separated columns; LIAR has 14"),
        ("pope", "q.json", [{**IMAGE, "label": "maybe"}], "label is 'maybe'; expected 'yes' or 'no'"),
        ("pope", "q.json", [{**IMAGE, "image": None}], "q.json, record 1: no 'image' name"),
        ("pope", "q.json", [IMAGE], "has no image a.png; pass the folder that holds it with --images"),
        ("pope", "q.json", '{"question_id": 1,\n', "q.json, line 1: not JSON"),
        ("mme", "m.json", [{**MME, "answer": "maybe"}], "label is 'maybe'; expected yes or no"),
        ("mme", "m.json", [MME], "image a.png of color has 1 questions; expected two"),
        ("mme", "m.json", [MME, MME], "has no image a.png"),
        ("mme", "m.json", [{"image": "a.png"}], "m.json, record 1: no 'category'"),
    ],
)
def test_bad_data(
    task: str, name: str, content: Any, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line that names the place, before a model is loaded or a folder made."""
    (tmp_path / "images").mkdir()
    path = tmp_path / name
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    code = cli.main(["eval", task, "--data", str(path), "--out", str(tmp_path / "run")])
    error = capsys.readouterr().err
    assert code in (1, 2)
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_a_damaged_image_is_named(toy_load: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n cut off")
    path = tmp_path / "q.json"
    path.write_text(json.dumps([IMAGE]))
    assert cli.main(["eval", "pope", "--data", str(path), "--out", str(tmp_path / "run")]) == 2
    assert "a.png" in capsys.readouterr().err


def test_more_bad_options(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = lines(tmp_path / "c.jsonl", {"claim": "x", "label": "true"})
    out = ["--out", str(tmp_path / "run")]
    for argv, message in (
        (["factcheck", "--labels", "4"], "--labels is 4; expected 6, 3 or 2"),
        (["factcheck", "--labels", "four"], "--labels is 'four'; expected an integer."),
        (["factor", "--form", "sum"], "--form is 'sum'; expected one of official, dola."),
        (["vqa"], "TASK is 'vqa'"),
    ):
        assert cli.main(["eval", *argv, "--data", str(data), *out]) == 2
        assert message in capsys.readouterr().err


def test_prompts_without_text(asking: Asking, tmp_path: Path) -> None:
    task = benchmarks()["open-ended"].task(lines(tmp_path / "p.jsonl", {"prompt": " "}), scorer="none")
    with pytest.raises(tk.ArgumentError, match="the prompt is empty"):
        run(task, asking, tmp_path / "run", model_name="toy")
