"""What `mkdocs build` does beside rendering: notebooks, commands and decoders become pages, and the result is checked.

The check: no page loads anything from another host, so the site works offline and tells nobody who reads it.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import benchmark_pages  # beside this file
import decoders
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File

from truthkit.cli import build_parser

COMMANDS_HERE = "<!-- commands -->"
NOTEBOOKS = Path(__file__).resolve().parents[2] / "notebooks"
LOADING = {"src", "srcset", "data", "poster"}
"""Attributes whose address is fetched when a page is opened; `href` is, too, but for links that are followed."""


def on_config(config: Any) -> Any:
    """Put the pages that are made of docstrings at the end of the methods."""
    for section in config.nav or []:
        if "Methods" in section:
            section["Methods"] += [f"methods/{name}" for name in _method_pages(config)]
    return config


def _method_pages(config: Any) -> dict[str, str]:
    return decoders.generated_pages(Path(config.docs_dir) / "methods")


def on_files(files: Any, config: Any) -> Any:
    """Add a page for each notebook, with its pictures, and for each method that has none."""
    for name, text in _method_pages(config).items():
        files.append(File.generated(config, f"methods/{name}", content=text))
    for path in sorted(NOTEBOOKS.glob("*.ipynb")):
        text, pictures = notebook_page(json.loads(path.read_text(encoding="utf-8")), path.stem)
        files.append(File.generated(config, f"notebooks/{path.stem}.md", content=text))
        for name, content in pictures.items():
            files.append(File.generated(config, f"notebooks/{name}", content=content))
    return files


def notebook_page(notebook: dict[str, Any], name: str) -> tuple[str, dict[str, bytes]]:
    """A notebook in Markdown, and the pictures that it refers to, by file name."""
    parts: list[str] = []
    pictures: dict[str, bytes] = {}
    for cell in notebook["cells"]:
        source = "".join(cell["source"])
        parts.append(source if cell["cell_type"] == "markdown" else _fenced(source, "python"))
        for output in cell.get("outputs", []):
            data = output.get("data", {"text/plain": output.get("text", "")})
            if "image/png" in data:
                picture = f"{name}-{len(pictures)}.png"
                pictures[picture] = base64.b64decode("".join(data["image/png"]))
                parts.append(f"![output]({picture})")
            else:
                parts.append(_fenced("".join(data["text/plain"]), "text"))
    parts.insert(1, f"This page is `notebooks/{name}.ipynb` with the outputs of its last run.")
    return "\n\n".join(parts), pictures


def _fenced(text: str, language: str) -> str:
    return f"````{language}\n{text.rstrip()}\n````"


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Put the help of every command, and the references of decoders and benchmarks, where a page says so."""
    markdown = benchmark_pages.with_benchmarks(decoders.with_references(markdown))
    return markdown.replace(COMMANDS_HERE, commands()) if COMMANDS_HERE in markdown else markdown


def on_post_build(config: Any, **_: Any) -> None:
    """Fail if a page or a style sheet loads something from elsewhere."""
    site = Path(config.site_dir)
    found = []
    for path in sorted([*site.rglob("*.html"), *site.rglob("*.css"), *site.rglob("*.svg")]):
        text = path.read_text(encoding="utf-8")
        found += [f"{path.relative_to(site)}: {address}" for address in loaded(text, styles=path.suffix == ".css")]
    if found:
        raise PluginError("the site would load from other hosts: " + ", ".join(found))


def loaded(text: str, *, styles: bool = False) -> list[str]:
    """The addresses on other hosts that a page, or a style sheet, loads by itself."""
    fetched = re.findall(r"""(?:url\(|@import)\s*["']?((?:https?:)?//[^"')\s]+)""", text)
    if not styles:
        reader = _Reader()
        reader.feed(text)
        fetched += [address for address in reader.fetched if re.match(r"(https?:)?//", address)]
    return fetched


def commands() -> str:
    """Every command's `--help`, under headings, in Markdown."""
    before = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = "100"  # argparse wraps by it
    try:
        return "\n\n".join(_described(build_parser(), 2))
    finally:
        os.environ.pop("COLUMNS")
        if before is not None:
            os.environ["COLUMNS"] = before


def _described(parser: argparse.ArgumentParser, depth: int) -> list[str]:
    parts = [f"{'#' * depth} {parser.prog}\n\n```text\n{parser.format_help().rstrip()}\n```"]
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for sub in action.choices.values():
                parts += _described(sub, min(depth + 1, 3))
    return parts


class _Reader(HTMLParser):
    """Collects what a page fetches."""

    def __init__(self) -> None:
        super().__init__()
        self.fetched: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if value and (name in LOADING or (name == "href" and tag in ("link", "use", "image"))):
                self.fetched.append(value.strip())
