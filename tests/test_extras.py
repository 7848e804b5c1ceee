"""truthkit without its optional packages: everything imports, help works, and a feature says what to install."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable
from importlib import import_module
from itertools import chain
from pathlib import Path
from typing import Any

import pytest

import truthkit as tk
from tests.conftest import ROOT
from tests.tiny import tiny
from tests.training.toys import chat_folder, chat_tokenizer

OPTIONAL = {
    "bitsandbytes": "quantization",
    "datasets": "eval",
    "gguf": "gguf",
    "inspect_ai": "inspect",
    "lm_eval": "lm-eval",
    "lmms_eval": "lmms-eval",
    "matplotlib": "plots",
    "nltk": "eval",
    "rouge_score": "eval",
    "sacrebleu": "eval",
    "spacy": "amber",
    "starlette": "app",
    "uvicorn": "app",
}
"""Modules of optional packages, and the extra that brings each."""

WITHOUT_EXTRA = {"mauve", "pandas"}
"""Optional too, but too heavy for an extra; its message names the package itself."""

OF_AN_EXTRA = {
    "truthkit.inspect_ai.provider": "inspect_ai",
    "truthkit.inspect_ai.registry": "inspect_ai",
    "truthkit.lm_eval.model": "lm_eval",
    "truthkit.lmms_eval.manifest": "lmms_eval",
    "truthkit.lmms_eval.model": "lmms_eval",
}
"""Modules that are nothing without an optional package: its plug-ins, which only it imports."""

BROUGHT = {"h11", "pyarrow"}
"""By uvicorn, which speaks HTTP with the one, and by datasets, which reads files with the other."""

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

_ALONE = """
import contextlib, io, pkgutil, sys
for name in {names!r}:
    sys.modules[name] = None
import truthkit
from truthkit import cli
for command in ("", *cli.COMMANDS):
    with contextlib.redirect_stdout(io.StringIO()) as shown:
        assert cli.main([*command.split(), "--help"]) == 0, command
    assert "usage: truthkit" in shown.getvalue()
assert "torch" not in sys.modules
for module in pkgutil.walk_packages(truthkit.__path__, "truthkit."):
    if not module.name.endswith("__main__") and module.name not in {plugins!r}:
        __import__(module.name)
"""


def test_everything_imports_and_helps_without_them() -> None:
    code = _ALONE.format(names=sorted(OPTIONAL), plugins=sorted(OF_AN_EXTRA))
    result = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def test_only_declared_packages_are_imported() -> None:
    """What a module imports at its top is a requirement; what it imports later may be an extra."""
    required = {dependency.partition(">")[0] for dependency in PROJECT["dependencies"]} | {"PIL", "huggingface_hub"}
    known = required | {"truthkit", "tokenizers", *sys.stdlib_module_names}
    for path in sorted((ROOT / "truthkit").rglob("*.py")):
        tree = ast.parse(path.read_text())
        module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        own = known | ({OF_AN_EXTRA[module]} if module in OF_AN_EXTRA else set())
        guarded = {id(node) for block in _type_checking(tree) for node in ast.walk(block)}
        for node in ast.walk(tree):
            if id(node) in guarded:
                continue
            top = node in tree.body
            for name in _imported(node):
                allowed = own if top else own | OPTIONAL.keys() | WITHOUT_EXTRA | BROUGHT
                assert name in allowed, f"{path.relative_to(ROOT)}, line {getattr(node, 'lineno', 0)}: {name}"


def _type_checking(tree: ast.Module) -> list[ast.If]:
    return [node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"]


def _imported(node: ast.AST) -> set[str]:
    if isinstance(node, ast.Import):
        return {alias.name.partition(".")[0] for alias in node.names}
    if isinstance(node, ast.ImportFrom) and not node.level:
        return {str(node.module).partition(".")[0]}
    return set()


@pytest.mark.parametrize(("module", "extra"), OPTIONAL.items())
def test_the_extra_brings_the_package(module: str, extra: str) -> None:
    names = [requirement.partition(">")[0] for requirement in PROJECT["optional-dependencies"][extra]]
    assert module.replace("_", "-") in names


def test_everything_declared_is_pinned() -> None:
    """In constraints.txt: what is installed for the tests is what a release was tested with."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    extras, groups = project["project"]["optional-dependencies"], project["dependency-groups"]
    declared = [*project["project"]["dependencies"], *chain(*extras.values()), *chain(*groups.values())]
    names = {one.partition(">")[0].replace("_", "-") for one in declared if isinstance(one, str)}
    pins = re.findall(r"^([\w-]+)==", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    assert names - {pin.replace("_", "-") for pin in pins} == set()


def _plot_isotropy(folder: Path) -> Any:
    score = tk.isotropy(tiny("llama"), chat_tokenizer(), ["some text"], layers=[0])
    import_module("truthkit.activations.isotropy").plot_isotropy({"model": score}, folder / "x.png")


def _read_gguf(folder: Path) -> Any:
    (folder / "model.gguf").write_bytes(b"GGUF")
    tk.load(folder / "model.gguf")


def _vector_of_gguf(folder: Path) -> Any:
    (folder / "vector.gguf").write_bytes(b"GGUF")
    import_module("truthkit.steering.formats").read_vector(folder / "vector.gguf")


def _similarity(_folder: Path) -> Any:
    similarity = import_module("truthkit.evaluation.tasks.truthfulqa.written").similarity
    similarity.cache_clear()  # another test may have asked with everything installed
    return similarity()


def _page(_folder: Path) -> Any:
    return import_module("truthkit.app.server").Server(port=0)


USES: dict[str, tuple[str, Callable[[Path], Any]]] = {
    "figures": ("matplotlib", _plot_isotropy),
    "models in GGUF": ("gguf", _read_gguf),
    "vectors in GGUF": ("gguf", _vector_of_gguf),
    "4 bits": ("bitsandbytes", lambda folder: tk.load(chat_folder(folder / "model"), quantization="4bit")),
    "CHAIR's words": (
        "nltk",
        lambda _folder: import_module("truthkit.evaluation.tasks.chair.lemmas").lemmatizer("nltk", ["cat"]),
    ),
    "AMBER's near-synonyms": (
        "spacy",
        lambda _folder: import_module("truthkit.evaluation.tasks.amber.nouns").near_synonyms("en_core_web_lg"),
    ),
    "the page": ("starlette", _page),
    "its server": ("uvicorn", _page),
    "BLEU": ("sacrebleu", _similarity),
    "ROUGE": ("rouge_score", _similarity),
}


@pytest.mark.parametrize("use", USES)
def test_a_feature_names_its_extra(use: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package, call = USES[use]
    for name in [package, *(name for name in sys.modules if name.startswith(f"{package}."))]:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(tk.MissingExtraError, match=rf"pip install 'truthkit\[{OPTIONAL[package]}\]'"):
        call(tmp_path)


def test_the_endpoint_names_its_own_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    extras = PROJECT["optional-dependencies"]
    assert extras["serve"] == extras["app"]
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    with pytest.raises(tk.MissingExtraError, match=r"pip install 'truthkit\[serve\]'"):
        import_module("truthkit.endpoint.server").Server(port=0)
