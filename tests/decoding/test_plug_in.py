"""A decoder of another package: found by its entry point, used everywhere, and named where it is broken."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT
from tests.docs.test_pages import blocks
from truthkit import cli
from truthkit.decoding.catalog import catalog
from truthkit.decoding.discovery import _plugged_in
from truthkit.decoding.engine.registry import DECODERS

Run = tuple[int, str, str]

PAGE = ROOT / "docs" / "develop" / "add-a-decoder.md"


def python(site: Path, *arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Python, with the packages of `site` installed."""
    path = os.pathsep.join([str(site), str(ROOT)])
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=cwd or site,
        env={**os.environ, "PYTHONPATH": path, "COLUMNS": "120"},
        capture_output=True,
        text=True,
    )


def truthkit(site: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return python(site, "-m", "truthkit.cli", *arguments)


def install(package: Path, site: Path) -> None:
    """As `pip install --no-index`, by hand where the package's build backend is not here."""
    project = tomllib.loads((package / "pyproject.toml").read_text())
    if find_spec(project["build-system"]["build-backend"].partition(".")[0]) is not None:
        options = ["--no-index", "--no-deps", "--no-build-isolation", "--quiet", "--target", str(site)]
        subprocess.run([sys.executable, "-m", "pip", "install", *options, str(package)], check=True)
        return
    described = project["project"]
    for name in project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]:
        (package / name).rename(site / name)
    information = site / f"{described['name'].replace('-', '_')}-{described['version']}.dist-info"
    information.mkdir()
    (information / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {described['name']}\nVersion: {described['version']}\n"
    )
    groups = [
        f"[{group}]\n" + "".join(f"{name} = {value}\n" for name, value in entries.items())
        for group, entries in described["entry-points"].items()
    ]
    (information / "entry_points.txt").write_text("\n".join(groups))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package of the page, installed into a folder."""
    package, site = tmp_path_factory.mktemp("package"), tmp_path_factory.mktemp("site")
    (code, *_), (project,) = blocks(PAGE, "python"), blocks(PAGE, "toml")
    (package / "pyproject.toml").write_text(project)
    (package / "truthkit_instructed").mkdir()
    (package / "truthkit_instructed" / "__init__.py").write_text(code)
    install(package, site)
    return site


def test_it_is_listed_and_its_options_are_checked_without_running_it(site: Path) -> None:
    shown = truthkit(site, "generate", "--help")
    assert (shown.returncode, shown.stderr) == (0, "")
    assert "\n  instructed " in shown.stdout
    assert "instruction=, alpha=2.0, beta=0.1" in shown.stdout
    code = """
import sys
from truthkit.cli import main
assert main(["generate", "Hi", "--decoder", "instructed:beta=2"]) == 2
assert main(["generate", "Hi", "--decoder", "instructed:alfa=2"]) == 2
assert main(["generate", "Hi", "--decoder", "instructd"]) == 2
print(*{"torch", "truthkit_instructed"} & set(sys.modules))
"""
    refused = python(site, "-c", code)
    assert (refused.returncode, refused.stdout.strip()) == (0, "")
    beta, alpha, name = refused.stderr.splitlines()
    assert "beta is 2.0; the plausibility constraint" in beta
    assert "no option 'alfa' (did you mean 'alpha'?); its options are instruction, alpha, beta" in alpha
    assert "did you mean 'instructed'?" in name


@pytest.fixture
def plugged(
    smollm2: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Callable[..., Run]]:
    """`run(site, *arguments)`: the command line with the packages of `site`, as if truthkit had just started; exit
    code, stdout, stderr."""
    monkeypatch.setattr("truthkit.models.load", lambda *_args, **_options: smollm2)
    known, loaded = dict(DECODERS), set(sys.modules)

    def run(site: Path, *arguments: str) -> Run:
        if str(site) not in sys.path:
            monkeypatch.syspath_prepend(str(site))
            _plugged_in.cache_clear()
        return cli.main(list(arguments)), *capsys.readouterr()

    yield run
    monkeypatch.undo()
    _plugged_in.cache_clear()
    for name in DECODERS.keys() - known.keys():
        del DECODERS[name]
    for name in [one for one in sys.modules.keys() - loaded if one in ("truthkit_instructed", "fails")]:
        del sys.modules[name]


def test_it_works_wherever_a_built_in_one_does(
    site: Path, plugged: Callable[..., Run], smollm2: Any, tmp_path: Path
) -> None:
    """The oracle of the processor form: the context manager's tokens."""
    decoder = "instructed:instruction=Answer in French."
    asked = ["generate", "Say hello.", "--decoder", decoder, "--decoder", decoder + "+dola"]
    code, out, err = plugged(site, *asked, "--explain", "--json", "--max-new-tokens", "3")
    assert code == 0, err
    answer, both = json.loads(out)["prompts"][0]["answers"]
    assert [view["name"] for view in answer["explain"][0]["views"]] == ["main", "instructed"]
    assert both["options"] == {"instructed": {"instruction": "Answer in French."}, "dola": {}}
    assert "instructed" in [one.name for one in catalog()]

    data, folder = tmp_path / "prompts.jsonl", tmp_path / "run"
    data.write_text(json.dumps({"prompt": "The capital of France is"}) + "\n")
    run = ["--data", str(data), "--out", str(folder), "--scorer", "none", "--max-new-tokens", "3"]
    code, _, err = plugged(site, "eval", "open-ended", "--decoder", decoder, *run)
    assert code == 0, err
    (record,) = map(json.loads, (folder / "records.jsonl").read_text().splitlines())
    assert record

    made, (model, tokenizer) = import_module("truthkit_instructed").InstructedLogitsProcessor, smollm2
    inputs = tokenizer.apply_chat_template(
        [{"role": "user", "content": "Say hello."}], add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    processor = made(model, tokenizer, instruction="Answer in French.")
    output = model.generate(**inputs, max_new_tokens=3, do_sample=False, logits_processor=[processor])
    assert output[0, inputs["input_ids"].shape[1] :].tolist() == answer["token_ids"]


@pytest.mark.slow
def test_the_test_of_the_page_passes(site: Path, tmp_path: Path) -> None:
    (tmp_path / "test_instructed.py").write_text(blocks(PAGE, "python")[2])
    result = python(site, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_instructed.py", cwd=tmp_path)
    assert result.returncode == 0, result.stdout


BROKEN = {
    "gone": ("gone_module:Gone", None, "there is no module 'gone_module'"),
    "damaged": ("damaged:Damaged", "class Damaged(:", "invalid syntax"),
    "empty": ("empty:Empty", "", "empty has no class Empty"),
    "nameless": (
        "nameless:Nameless", "from truthkit import Decoder\nclass Nameless(Decoder): ...", "states no name",
    ),
    "taken": (
        "taken:Taken", "from truthkit import Decoder\nclass Taken(Decoder):\n    name = 'dola'",
        "truthkit has a decoder 'dola' of its own",
    ),
    "odd": ("odd:Odd", "from truthkit import Decoder\nclass Odd(Decoder):\n    name = 'Odd One'", "'Odd One'"),
}  # fmt: skip


def write(site: Path, name: str, value: str, code: str | None) -> None:
    """A package with one decoder, as pip leaves it."""
    about = site / f"{name}_package-1.0.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text(f"Name: {name}-package\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(f"[truthkit.decoders]\n{name} = {value}\n")
    if code is not None:
        (site / f"{value.partition(':')[0]}.py").write_text(code)


FAILS = "import nowhere_at_all\nfrom truthkit import Decoder\nclass Fails(Decoder):\n    name = 'fails'\n"


def test_broken_ones_are_named_and_left_out(tmp_path: Path) -> None:
    for name, (value, code, _) in {**BROKEN, "fails": ("fails:Fails", FAILS, "")}.items():
        write(tmp_path, name, value, code)
    assert truthkit(tmp_path, "--help").returncode == 0
    shown = truthkit(tmp_path, "generate", "--help")
    assert shown.returncode == 0
    assert "\n  dola " in shown.stdout
    assert "\n  fails " in shown.stdout
    warned = shown.stderr.splitlines()
    assert len(warned) == len(BROKEN)
    for name, (_, _, reason) in BROKEN.items():
        (line,) = (line for line in warned if f"plug-in {name!r} (package {name}-package) left out: " in line)
        assert reason in line


def test_one_that_fails_when_it_is_used_is_one_line(tmp_path: Path, plugged: Callable[..., Run]) -> None:
    write(tmp_path, "fails", "fails:Fails", FAILS)
    code, _, err = plugged(tmp_path, "generate", "Hi", "--decoder", "fails", "--max-new-tokens", "1")
    assert code == 1
    assert "decoder 'fails' cannot be had, as fails fails: ModuleNotFoundError" in err
    assert "Traceback" not in err
