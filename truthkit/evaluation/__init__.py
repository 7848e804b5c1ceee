"""Benchmarks: what they ask, how answers are scored, and how sure one can be of the result.

A `Benchmark` says all about one: what turns its data into a `Task` of `Item`s, which `Metric`s its scores have and how
they are read. Every scorer turns answers into a `Score`: counts per item, metrics that are functions of their totals,
intervals that resample images or questions.
"""

from __future__ import annotations

from truthkit.evaluation.benchmark import Benchmark, Grid, Metric
from truthkit.evaluation.running.item import Item
from truthkit.evaluation.running.task import Task

__all__ = ["Benchmark", "Grid", "Item", "Metric", "Task"]
