"""Runs of benchmarks as a report: a self-contained page, Markdown, or a picture.

`gather` reads the runs and compares them; `write_report` puts what it found into the form that a file's ending names.
Whatever comes from a run, its texts, names and paths, is data: the page escapes all of it and allows no script and no
network, Markdown is escaped too.
"""

from __future__ import annotations

from truthkit.evaluation.report.contents import Entry, Estimate, Report, Section, Test
from truthkit.evaluation.report.gathering import gather
from truthkit.evaluation.report.writing import write_report

__all__ = ["Entry", "Estimate", "Report", "Section", "Test", "gather", "write_report"]
