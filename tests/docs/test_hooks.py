"""The site's own check finds what a page would load from elsewhere, and lets links be."""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from tests.conftest import ROOT
from truthkit.decoding.discovery import decoders
from truthkit.evaluation.tasks import builtin

pytest.importorskip("mkdocs")


@pytest.fixture(scope="module")
def hooks() -> ModuleType:
    path = ROOT / "docs" / "tools" / "hooks.py"
    sys.path.insert(0, str(path.parent))  # as mkdocs does
    spec = importlib.util.spec_from_file_location("docs_hooks", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    "page",
    [
        '<script src="https://cdn.example/x.js"></script>',
        '<link rel="stylesheet" href="//fonts.example/a.css">',
        '<img src=" http://example/x.png">',
        "<style>@import 'https://example/x.css';</style>",
        '<div style="background: url(https://example/x.png)"></div>',
    ],
)
def test_another_host_is_found(hooks: ModuleType, page: str) -> None:
    assert len(hooks.loaded(page)) == 1


@pytest.mark.parametrize(
    "page",
    ['<a href="https://arxiv.org">x</a>', '<script src="../a.js"></script>', '<img src="data:image/png;base64,x">'],
)
def test_links_and_own_files_are_fine(hooks: ModuleType, page: str) -> None:
    assert hooks.loaded(page) == []


def test_every_command_is_described(hooks: ModuleType) -> None:
    from truthkit.cli import COMMANDS

    described = hooks.commands()
    for command in COMMANDS:
        assert f"### truthkit {command}\n" in described
    assert "### truthkit vector plot\n" in described


def test_every_decoder_is_in_the_reference_and_has_a_page(hooks: ModuleType, tmp_path: Path) -> None:
    """Also one that nobody wrote a page for, and one that is not in `truthkit`."""
    page = hooks.on_page_markdown((ROOT / "docs" / "reference" / "decoding.md").read_text(encoding="utf-8"))
    assert len(hooks.decoders.own()) >= 10
    for one in hooks.decoders.own():
        assert f"\n::: truthkit.{one.class_name}\n" in page
    assert "<!--" not in page
    assert hooks.decoders.generated_pages(ROOT / "docs" / "methods") == {}

    new = replace(decoders()["dola"], name="new_one", module="truthkit.decoding.methods.new_one", class_name="NewOne")
    known = {"dola": decoders()["dola"], "new_one": new}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hooks.decoders, "decoders", lambda: known)
        patch.setattr(hooks.decoders, "read_source", lambda module: None)
        (tmp_path / "methods").mkdir()
        (tmp_path / "methods" / "dola.md").write_text("with tk.DoLa(model): ...")
        config = SimpleNamespace(docs_dir=str(tmp_path), nav=["index.md", {"Methods": ["methods/dola.md"]}])
        assert hooks.on_config(config).nav[1] == {"Methods": ["methods/dola.md", "methods/new-one.md"]}
        (text,) = hooks.decoders.generated_pages(tmp_path / "methods").values()
        assert (
            "::: truthkit.decoding.methods.new_one.NewOne\n" in hooks.on_page_markdown("<!-- text decoders -->") + "\n"
        )
    assert text.startswith(f"# NewOne\n\n{new.summary}")
    assert "| `beta` | plausibility cut-off in (0, 1]; 0 turns it off. |" in text
    assert "--decoder new_one\n" in text
    assert "(../reference/decoding.md#truthkit.decoding.methods.new_one.NewOne)" in text


def test_every_benchmark_is_in_the_reference(hooks: ModuleType) -> None:
    """With its metrics, what they are of and which direction is better, and its options."""
    page = hooks.on_page_markdown((ROOT / "docs" / "reference" / "evaluation.md").read_text(encoding="utf-8"))
    for one in builtin().values():
        _, _, own = page.partition(f"\n## {one.title}\n")
        own = own.partition("\n## ")[0]
        assert f"`truthkit eval {one.name}`" in own
        for name in (*(metric.name for metric in one.metrics), *(option.flag for option in one.options.values())):
            assert f"| `{name}` |" in own
    assert "| `chair_i` | CHAIR-i | share, 0 to 1 | less |" in page
    assert "| `f1_*` | F1 of … | share, 0 to 1 | more |" in page
    assert "\n::: truthkit.evaluation.tasks.pope.sampler\n" in page
    assert "<!--" not in page
