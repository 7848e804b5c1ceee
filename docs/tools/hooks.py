"""What `mkdocs build` does beside rendering: the command line's own help becomes a page, and so does each notebook."""

from __future__ import annotations

import argparse
import os
from typing import Any

from truthkit.cli import build_parser

COMMANDS_HERE = "<!-- commands -->"


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Put the help of every command where a page says so."""
    return markdown.replace(COMMANDS_HERE, commands()) if COMMANDS_HERE in markdown else markdown


def commands() -> str:
    """Every command's `--help`, under headings, in Markdown."""
    os.environ["COLUMNS"] = "100"  # argparse wraps by it
    return "\n\n".join(_described(build_parser(), 1))


def _described(parser: argparse.ArgumentParser, depth: int) -> list[str]:
    heading = f"{'#' * (depth + 1)} {parser.prog}"
    parts = [f"{heading}\n\n```text\n{parser.format_help().rstrip()}\n```"]
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for sub in action.choices.values():
                parts += _described(sub, min(depth + 1, 3))
    return parts
