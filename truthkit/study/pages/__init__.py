"""A study's results for readers: a page, tables in Markdown, CSV and LaTeX, and pictures, all made from `study.json`.

Whatever comes from a study, its labels, notes and paths, is data and escaped in every form; the page has no script and
no network.
"""

from __future__ import annotations

from truthkit.study.pages.writing import write_pages

__all__ = ["write_pages"]
