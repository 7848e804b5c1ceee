"""What the pages say can be typed: commands are parsed, code is run, and quoted errors are those of the source."""

from __future__ import annotations

import ast
import json
import re
import shlex
import textwrap
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch

import truthkit as tk
from truthkit.cli import build_parser
from truthkit.decoding.engine.registry import DECODERS
from truthkit.decoding.spec import parse_spec
from truthkit.steering.spec import parse_steer

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted((ROOT / "docs").rglob("*.md"))
BLOCK = re.compile(r"^( *)```(\w*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)


def blocks(page: Path, language: str) -> list[str]:
    """The page's code blocks in one language; "" is none."""
    return [
        textwrap.dedent(code) for _, name, code in BLOCK.findall(page.read_text(encoding="utf-8")) if name == language
    ]


def commands() -> list[str]:
    lines = []
    for page in PAGES:
        for block in blocks(page, ""):
            for line in block.replace("\\\n", " ").splitlines():
                line, _, remark = line.partition("  #")
                if "needs the package" in remark:  # tests/decoding/test_plug_in.py runs it
                    continue
                launched = re.sub(r"^(accelerate launch|torchrun)\b.*? -m truthkit\.cli ", "truthkit ", line)
                if launched.startswith("truthkit ") and not re.search(r"\bTASK\b", launched):
                    lines.append(launched)
    return sorted(set(lines))


def understood(command: str) -> bool:
    try:
        args = build_parser().parse_args(shlex.split(command)[1:])
        decoders = getattr(args, "decoder", None) or []
        for text in [decoders] if isinstance(decoders, str) else decoders:
            parse_spec(text)
        for text in getattr(args, "steer", None) or []:
            parse_steer(text)
    except (SystemExit, tk.TruthkitError):
        return False
    return True


def test_commands_are_understood() -> None:
    found = commands()
    assert len(found) > 30
    assert [command for command in found if not understood(command)] == []


def test_python_is_python() -> None:
    for page in PAGES:
        for code in blocks(page, "python"):
            ast.parse(code, filename=str(page))


def test_quoted_errors_are_in_the_source() -> None:
    """Each heading of the troubleshooting page, piece by piece between its …s, within one message."""
    messages = []
    for path in (ROOT / "truthkit").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                parts = [part.value if isinstance(part, ast.Constant) else "…" for part in node.values]
                messages.append("".join(map(str, parts)))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                messages.append(node.value)
    page = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
    quoted = re.findall(r"^### `(.*)`$", page, re.MULTILINE)
    assert len(quoted) > 30
    for heading in quoted:
        pattern = ".*".join(re.escape(part.strip()) for part in heading.split("…"))
        assert any(re.search(pattern, message, re.DOTALL) for message in messages), heading


def test_the_decoder_of_add_a_decoder(
    smollm2: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The oracle: with alpha = 1 and no constraint the instructed prompt's own greedy answer."""
    model, tokenizer = smollm2
    monkeypatch.setattr("truthkit.decoding.engine.registry.DECODERS", known := dict(DECODERS))
    code, use, look, *_ = blocks(ROOT / "docs" / "develop" / "add-a-decoder.md", "python")
    names: dict[str, Any] = {}
    exec(compile(code, "add-a-decoder.md", "exec"), names)

    def prompt(*messages: dict[str, str]) -> Any:
        return tokenizer.apply_chat_template(
            list(messages), add_generation_prompt=True, return_tensors="pt", return_dict=True
        )

    user = {"role": "user", "content": "Say hello."}
    inputs = prompt(user)
    with names["Instructed"](model, tokenizer, instruction="Answer in French.", alpha=1.0, beta=0.0):
        output = model.generate(**inputs, max_new_tokens=5, do_sample=False)
    instructed = prompt({"role": "system", "content": "Answer in French."}, user)
    expected = model.generate(**instructed, max_new_tokens=5, do_sample=False)
    lengths = [len(given["input_ids"][0]) for given in (inputs, instructed)]
    assert torch.equal(output[0, lengths[0] :], expected[0, lengths[1] :])

    names |= {"model": model, "tokenizer": tokenizer, "inputs": inputs}
    exec(use.replace("20", "2"), names)
    exec(look, names)
    assert capsys.readouterr().out.count("torch.Size([1, 1, ") == 3
    assert known["instructed"] is names["Instructed"]
    built = names["Instructed"](model, tokenizer, instruction="Answer in French.")
    assert built.spec == "instructed:instruction=Answer in French."


def test_the_task_of_add_a_task(smollm2: Any, tmp_path: Path) -> None:
    """The oracle: whether the words are in the answers that the records keep."""
    model, tokenizer = smollm2
    code, use = blocks(ROOT / "docs" / "develop" / "add-a-task.md", "python")
    quiz = [
        {"question": "What is the capital of France?", "answer": "paris"},
        {"question": "What is the capital of Italy?", "answer": "no such place"},
    ]
    data = tmp_path / "quiz.jsonl"
    data.write_text("\n".join(map(json.dumps, quiz)), encoding="utf-8")
    names: dict[str, Any] = {"model": model, "tokenizer": tokenizer, "data": data, "folder": tmp_path / "run"}
    exec(compile(code, "add-a-task.md", "exec"), names)
    exec(compile(use, "add-a-task.md", "exec"), names)

    records = [json.loads(line) for line in (tmp_path / "run" / "records.jsonl").read_text().splitlines()]
    said = {record["key"]: record for record in records}
    assert len(said) == 2
    right = sum("paris" in json.dumps(record).casefold() for record in records)
    assert names["summary"]["metrics"]["accuracy"] == right / 2 == 0.5


def test_pages_name_no_machine() -> None:
    for page in PAGES:
        assert not re.search(r"/(work|tmp|home|root)/", page.read_text(encoding="utf-8")), page


def test_public_examples_use_public_names() -> None:
    """Every `tk.name` in the pages exists."""
    for page in PAGES:
        for name in re.findall(r"\btk\.(\w+)", page.read_text(encoding="utf-8")):
            assert hasattr(tk, name), f"{page.name} has tk.{name}"


@pytest.mark.slow
@pytest.mark.parametrize("page", ["index", "quickstart"])
def test_the_first_examples_run(page: str) -> None:
    for code in blocks(ROOT / "docs" / f"{page}.md", "python"):
        exec(compile(code, f"{page}.md", "exec"), {})


CAPITALS = {
    "Argentina": "Buenos Aires", "Australia": "Canberra", "Brazil": "Bras", "Canada": "Ottawa", "China": "Beijing",
    "France": "Paris", "Germany": "Berlin", "India": "New Delhi", "Indonesia": "Jakarta", "Italy": "Rome",
    "Japan": "Tokyo", "Mexico": "Mexico City", "Russia": "Moscow", "Saudi Arabia": "Riyadh", "South Africa": "Pretoria",
    "South Korea": "Seoul", "Turkey": "Ankara", "the United Kingdom": "London", "the United States": "Washington",
}  # fmt: skip


@pytest.mark.slow
def test_the_capitals_of_the_readme(smollm2: Any) -> None:
    """What the README counts, in the first eight tokens."""
    model, tokenizer = smollm2
    named: dict[str, set[str]] = {"greedy": set(), "dola": set()}
    for country, capital in CAPITALS.items():
        inputs = tokenizer(f"The capital of {country} is", return_tensors="pt")
        for name, block in (("greedy", nullcontext()), ("dola", tk.DoLa(model))):
            with block:
                output = model.generate(**inputs, max_new_tokens=8, do_sample=False)
            if capital in tokenizer.decode(output[0]):
                named[name].add(country)
    assert {name: len(countries) for name, countries in named.items()} == {"greedy": 13, "dola": 15}
    assert named["greedy"] - named["dola"] == {"Italy"}
    assert "this model names 13 so, and 15 under DoLa, which gains three and" in (ROOT / "README.md").read_text()


@pytest.mark.parametrize("page", ["README.md", "docs/index.md"])
def test_the_first_block_prints_what_it_says(page: str, smollm2: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """And the model alone gives the wrong answer that the page says it gives."""
    model, tokenizer = smollm2
    found = [(name, text) for _, name, text in BLOCK.findall((ROOT / page).read_text(encoding="utf-8"))]
    first = next(number for number, (name, _) in enumerate(found) if name == "python")
    code, shown = found[first][1], found[first + 1][1]
    names: dict[str, Any] = {}
    exec(compile(code, page, "exec"), names)
    assert capsys.readouterr().out == shown
    alone = model.generate(**names["inputs"], max_new_tokens=20, do_sample=False)
    assert "Sydney" in tokenizer.decode(alone[0])
    assert "it says Sydney" in (ROOT / page).read_text(encoding="utf-8")
