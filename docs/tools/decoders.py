"""What the pages say of truthkit's decoders, from their classes: a new method is in the reference without an edit."""

from __future__ import annotations

from pathlib import Path

import truthkit
from truthkit.decoding.described import Described
from truthkit.decoding.discovery import decoders
from truthkit.decoding.source import read_source

TEXT_HERE, IMAGES_HERE, PROCESSORS_HERE = "<!-- text decoders -->", "<!-- image decoders -->", "<!-- processors -->"


def own() -> list[Described]:
    """Truthkit's own decoders."""
    return [one for one in decoders().values() if one.module.startswith("truthkit.")]


def with_references(markdown: str) -> str:
    """A page with the decoders' references where it asks for them."""
    for mark, names in (
        (TEXT_HERE, [_public(one.module, one.class_name) for one in own() if not one.sees_images]),
        (IMAGES_HERE, [_public(one.module, one.class_name) for one in own() if one.sees_images]),
        (PROCESSORS_HERE, [name for one in own() for name in _processor(one)]),
    ):
        markdown = markdown.replace(
            mark, "\n\n".join(f"::: {name}\n    options: {{heading_level: 3}}" for name in names)
        )
    return markdown


def generated_pages(folder: Path) -> dict[str, str]:
    """A page, by file name, for each method that no page of `folder` speaks of."""
    written = "\n".join(page.read_text(encoding="utf-8") for page in sorted(folder.glob("*.md")))
    pages = {}
    for one in own():
        name = _public(one.module, one.class_name)
        if f"tk.{one.class_name}(" in written or f"#{name})" in written:
            continue
        options = "".join(f"| `{key}` | {words} |\n" for key, words in one.help.items())
        pages[f"{one.name.replace('_', '-')}.md"] = (
            f"# {one.class_name}\n\n{one.summary}\n\n"
            f'```\ntruthkit generate "Who wrote Romeo and Juliet?" --decoder {one.name}\n```\n\n'
            f"| option | |\n| --- | --- |\n{options}\n[Reference](../reference/decoding.md#{name})\n"
        )
    return pages


def _public(module: str, name: str) -> str:
    return f"truthkit.{name}" if name in truthkit.__all__ else f"{module}.{name}"


def _processor(one: Described) -> list[str]:
    """The processor form, where there is one, in the module or beside it."""
    name = f"{one.class_name}LogitsProcessor"
    source = read_source(one.module)
    if source is not None and (name in source.classes or name in source.imports):
        return [_public(one.module, name)]
    return []
