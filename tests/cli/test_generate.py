"""`truthkit generate` as users meet it, on the real model with few tokens."""

from __future__ import annotations

import copy
import inspect
import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from rich.console import Console

from truthkit import cli
from truthkit.cli.rendering import PART_MARK, printable, quoted, show_answers, show_trace
from truthkit.cli.side_by_side import Shown
from truthkit.decoding.discovery import PLAIN, decoder_class, decoders
from truthkit.generation.answers import Answer
from truthkit.generation.explain import Candidate, Step, ViewTrace
from truthkit.output import Output

QUESTION = "Who wrote Romeo and Juliet?"


@pytest.fixture
def generate(
    smollm2: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """`truthkit generate ...` in this process, with the model that is loaded already: exit code, stdout, stderr."""
    monkeypatch.setattr("truthkit.models.load", lambda *_args, **_options: smollm2)

    def run(*argv: str) -> tuple[int, str, str]:
        code = cli.main(["generate", *argv])
        return code, *capsys.readouterr()

    return run


def test_an_image_for_a_text_model(generate: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    code, out, err = generate(QUESTION, "--image", str(tmp_path / "a.png"))
    assert (code, out) == (2, "")
    assert (
        err == "truthkit: error: --image needs an image-text model, and this is a text model; name one with --model.\n"
    )


def test_json_is_one_document(generate: Any, smollm2: Any) -> None:
    code, out, err = generate(
        QUESTION, "--decoder", "greedy", "--decoder", "icd:amateur=prompt,lam=0.5", "--max-new-tokens", "6", "--json"
    )
    assert (code, err) == (0, "")
    document = json.loads(out)
    assert (document["max_new_tokens"], document["dtype"], document["model"]) == (6, "float32", None)
    (entry,) = document["prompts"]
    assert entry["prompt"] == QUESTION
    greedy, icd = entry["answers"]
    assert (greedy["decoder"], greedy["options"], greedy["parts_at"]) == ("greedy", {}, None)
    assert (icd["decoder"], icd["options"]) == ("icd", {"amateur": "prompt", "lam": 0.5})
    for record in (greedy, icd):
        assert len(record["token_ids"]) == 6
        assert record["text"] == smollm2[1].decode(record["token_ids"])
        assert record["tokens_per_second"] > 0
        assert not record["finished"]
        assert "explain" not in record
    at = icd["parts_at"]
    assert greedy["token_ids"][:at] == icd["token_ids"][:at]
    assert greedy["token_ids"][at] != icd["token_ids"][at]


def test_explain_in_json(generate: Any) -> None:
    code, out, _ = generate(QUESTION, "--decoder", "dola", "--max-new-tokens", "3", "--json", "--explain")
    assert code == 0
    ((answer,),) = (entry["answers"] for entry in json.loads(out)["prompts"])
    assert [step["token_id"] for step in answer["explain"]] == answer["token_ids"]
    for step in answer["explain"]:
        assert step["combined"][0]["token_id"] == step["token_id"]
        assert [view["name"] for view in step["views"]] == ["main", "main exits"]
        assert len(step["views"][1]["layers"]) == 1


def test_plain_text_marks_where_answers_part(generate: Any) -> None:
    code, out, err = generate(QUESTION, "--amateur", "prompt", "--max-new-tokens", "6", "--explain")
    assert (code, err) == (0, "")
    assert "bundled model, float32, up to 6 new tokens" in out
    assert QUESTION in out
    assert "\ngreedy  [" in out
    assert "\nicd  [" in out
    assert ", parts at token 2]\nThe‖" in out
    assert "greedy, token by token: 0 of 6 tokens are not the main view's choice" in out
    assert "instead of ' story', pushed by amateur" in out
    assert out.count("nats           what a view adds to the token's lead") == 1
    assert "\x1b" not in out


def test_prompts_from_file_and_standard_input(generate: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "prompts.txt"
    file.write_text("\ufeffFirst?\r\n\n  Second?  \n", encoding="utf-8")
    fast = ("--decoder", "greedy", "--max-new-tokens", "1", "--json")
    monkeypatch.setattr(sys, "stdin", io.StringIO("Third?\n\nFourth?\n"))
    code, out, _ = generate("Zeroth?", "-", "--file", str(file), *fast)
    assert code == 0
    prompts = [entry["prompt"] for entry in json.loads(out)["prompts"]]
    assert prompts == ["Zeroth?", "Third?", "Fourth?", "First?", "Second?"]


def test_cad_reads_the_passage(generate: Any) -> None:
    code, out, _ = generate("Who wrote it?", "--context", " Ada wrote it. ", "--max-new-tokens", "6")
    assert code == 0
    assert "cad has the passage in front of its prompt; the others don't" in out
    assert "\ngreedy  [" in out
    assert "Ada" in out.partition("\ncad  [")[2]


def test_sampling_spares_greedy(generate: Any) -> None:
    argv = (QUESTION, "--decoder", "greedy", "--decoder", "sample", "--sample", "--temperature", "5", "--json")
    texts = []
    for seed in ("1", "2"):
        _, out, _ = generate(*argv, "--max-new-tokens", "4", "--seed", seed)
        ((greedy, sample),) = (entry["answers"] for entry in json.loads(out)["prompts"])
        texts.append((greedy["text"], sample["text"]))
    assert texts[0][0] == texts[1][0]
    assert texts[0][1] != texts[1][1]


def test_a_separate_model_as_amateur(generate: Any, smollm2: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    amateur = copy.deepcopy(smollm2[0]), smollm2[1]
    monkeypatch.setattr("truthkit.models.load", lambda name, **_options: amateur if name == "smollm2" else smollm2)
    code, out, _ = generate(QUESTION, "--decoder", "icd", "--amateur", "smollm2", "--max-new-tokens", "2", "--json")
    assert code == 0
    assert json.loads(out)["amateur"] == "smollm2"


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ([], "there is no prompt"),
        ([""], "the prompt is empty"),
        (["--file", "missing.txt"], "'missing.txt' cannot be read: No such file"),
        (
            ["Hi", "--decoder", "lolo"],
            "the decoders are greedy, sample, activation_decoding, adacad, agreement,",
        ),
        (["Hi", "--decoder", "dola:layer=3"], "(did you mean 'layers'?); its options are layers, beta, norm"),
        (["Hi", "--decoder", "dola:layers=99"], "99"),
        (["Hi", "--decoder", "dola:beta=7"], "beta is 7.0"),
        (["Hi", "--decoder", "cad"], "give the passage with --context TEXT"),
        (["Hi", "--decoder", "greedy", "--context", "x"], "--context is read by cad alone"),
        (["Hi", "--decoder", "cad", "--context", " "], "--context is empty"),
        (["Hi", "--decoder", "dola", "--amateur", "x"], "add --decoder icd"),
        (["Hi", "--temperature", "0.5"], "are for sampling"),
        (["Hi", "--sample", "--temperature", "-1"], "temperature is -1.0"),
        (["Hi", "--max-new-tokens", "0"], "max_new_tokens is 0"),
        (["Hi", "--raw", "--system", "x"], "a system message needs a chat template"),
        (["Hi", "--explain", "--num-beams", "2"], "beams change rows"),
        (["word " * 8200], "room for 8192"),
        (["Hi", "--max-new-tokens", "many"], "--max-new-tokens is 'many'; expected an integer"),
    ],
)
def test_bad_input_exits_with_2(generate: Any, argv: list[str], message: str) -> None:
    code, out, err = generate(*argv)
    assert code == 2
    assert out == ""
    assert "error: " in err
    assert message in err
    assert "Traceback" not in err


def test_blank_and_unreadable_prompt_files(generate: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "blank").write_text(" \n\n")
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    monkeypatch.setattr(sys, "stdin", io.StringIO(""))
    for argv, message in (
        (["--file", str(tmp_path / "blank")], "holds no texts"),
        (["--file", str(tmp_path / "binary")], "is not UTF-8 text"),
        (["--file", str(tmp_path)], "is a folder; expected a file"),
        (["-"], "standard input holds no prompt"),
    ):
        code, _, err = generate(*argv)
        assert code == 2
        assert message in err


def test_an_amateur_that_is_nowhere_exits_with_1(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    assert cli.main(["generate", "Hi", "--decoder", "icd", "--amateur", "./nowhere"]) == 1
    assert "the amateur './nowhere' is no adapter within reach, and no model" in capsys.readouterr().err


def test_help_names_every_decoder(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["generate", "--help"]) == 0
    out = capsys.readouterr().out
    for name in (*PLAIN, *decoders()):
        assert f"\n  {name} " in out
    for name in decoders():
        parameters = inspect.signature(decoder_class(name)).parameters.values()
        assert all(parameter.name in out for parameter in parameters if parameter.kind is parameter.KEYWORD_ONLY)


class Words:
    """A tokenizer of whole words."""

    words = ("[bold]one[/bold]", " two", " \x1b[31mthree\x07", " four", "")

    def decode(self, ids: list[int], **_options: Any) -> str:
        return "".join(self.words[i] for i in ids)


def shown(label: str, ids: list[int], apart: int | None, *, finished: bool = True) -> Shown:
    return Shown(label, Answer(Words().decode(ids), ids, finished, (0.1,) * (len(ids) - 1)), apart)


def rendered(width: int, answers: list[Shown], *, terminal: bool = True, color: bool = False) -> str:
    stream = io.StringIO()
    console = Console(
        file=stream,
        width=width,
        force_terminal=terminal,
        color_system="standard" if color else None,
        legacy_windows=False,
    )
    show_answers(console, Words(), "[red]Who?[/red]\x1b[2J", answers)
    return stream.getvalue()


ANSWERS = [shown("greedy", [0, 1, 3], None), shown("lol", [0, 1, 2, 4], 2, finished=False)]


@pytest.mark.parametrize(("width", "terminal"), [(40, True), (70, True), (120, True), (120, False)])
def test_output_is_neither_markup_nor_control(width: int, terminal: bool) -> None:
    text = rendered(width, ANSWERS, terminal=terminal)
    assert "\x1b" not in text
    assert "\x07" not in text
    assert "[bold]one[/bold]" in text
    assert "\\x1b[31mthree\\x07" in text
    assert "[red]Who?[/red]\\x1b[2J" in text


def test_a_closed_pipe_is_left_to_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    """rich itself would exit with 1, and put the null device in the place of standard output."""
    stream = io.StringIO()
    monkeypatch.setattr(stream, "write", lambda _text: (_ for _ in ()).throw(BrokenPipeError))
    with pytest.raises(BrokenPipeError):
        Output(file=stream).print("text")


def test_layouts() -> None:
    wide, rows, narrow = (rendered(width, ANSWERS).splitlines() for width in (120, 70, 40))
    assert any("greedy" in line and "lol" in line for line in wide)
    assert any("lol" in line and "token 3" in line and "│" in line for line in rows)
    assert "lol  [10.0 tokens/s, parts at token 3]" in narrow
    assert f"[bold]one[/bold] two{PART_MARK} \\x1b[31mthree\\x07 …" in narrow


def test_the_diverging_part_is_coloured() -> None:
    assert "\x1b[33m \\x1b[31mthree\\x07" in rendered(120, ANSWERS, color=True)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain\ttext\n", "plain\ttext\n"),
        ("a\r\nb", "a\nb"),
        ("a\rb", "a\\rb"),
        ("\x1b]0;title\x07", "\\x1b]0;title\\x07"),
        ("\x9b2J", "\\x9b2J"),
        ("\u202egnp.exe", "\\u202egnp.exe"),
        ("naïve 👩‍🔬 日本", "naïve 👩‍🔬 日本"),
        ("\ud800", "\\ud800"),
    ],
)
def test_printable(text: str, expected: str) -> None:
    assert printable(text) == expected


def test_quoted_tokens_stay_on_one_line() -> None:
    assert quoted(" a\n\tb") == "' a\\n\\tb'"


def test_a_trace_for_people() -> None:
    a, b = Candidate(0, "\x1b[2J", 0.75), Candidate(1, " b\n", 0.25)
    views = (ViewTrace("main", (), (a, b), -1.0), ViewTrace("amateur exits", (2, 4, 6, 8), (a,), 3.5))
    stream = io.StringIO()
    show_trace(
        Console(file=stream, width=60), "lol", [Step(1, " b\n", a, views, (b, a), "amateur exits", 0.25, lead=2.5)]
    )
    assert stream.getvalue().splitlines() == [
        "lol, token by token: 1 of 1 token is not the main view's choice",
        "       view, and its layers        nats  its likeliest tokens, with their probabilities",
        "   1 * ' b\\n'  instead of '\\x1b[2J', pushed by amateur exits",
        "       main                       -1.00  '\\x1b[2J' 75.0%  ' b\\n' 25.0%",
        "       amateur exits 2..8         +3.50  '\\x1b[2J' 75.0%",
        "       combined                   +2.50  ' b\\n' 25.0%  '\\x1b[2J' 75.0%",
        "",
    ]
