"""The site's own check finds what a page would load from elsewhere, and lets links be."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

pytest.importorskip("mkdocs")


@pytest.fixture(scope="module")
def hooks() -> ModuleType:
    path = Path(__file__).resolve().parents[2] / "docs" / "tools" / "hooks.py"
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
