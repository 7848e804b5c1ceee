"""What has been done so far, in the text that Prometheus reads (exposition format 0.0.4)."""

from __future__ import annotations

import threading
from collections import defaultdict

HELP = {
    "truthkit_requests_total": "Responses by path and status.",
    "truthkit_answers_total": "Answers by how they ended: stop, length, error, or gone with their client.",
    "truthkit_prompt_tokens_total": "Tokens of prompts that were read.",
    "truthkit_generated_tokens_total": "New tokens.",
    "truthkit_batches_total": "Calls of the model's generate; answers per call say how well requests share them.",
    "truthkit_model_seconds_total": "Seconds for which the model worked.",
    "truthkit_waiting": "Answers that wait for the model.",
    "truthkit_running": "Answers that the model works on.",
}
"""The metrics; those in `_total` only grow."""


class Metrics:
    """Counters, for any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._values: defaultdict[str, defaultdict[str, float]] = defaultdict(lambda: defaultdict(float))

    def add(self, name: str, value: float = 1.0, **labels: str) -> None:
        """Count `value` more under these labels, whose values hold no quote, backslash or line break."""
        written = ",".join(f'{key}="{label}"' for key, label in sorted(labels.items()))
        with self._lock:
            self._values[name][f"{{{written}}}" if written else ""] += value

    def text(self, **now: float) -> str:
        """All of them, and `now`, those that go up and down, by their names without prefix."""
        with self._lock:
            values = {name: dict(by_label) for name, by_label in self._values.items()}
        values |= {f"truthkit_{name}": {"": value} for name, value in now.items()}
        lines = []
        for name, text in HELP.items():
            lines += [f"# HELP {name} {text}", f"# TYPE {name} {'counter' if name.endswith('_total') else 'gauge'}"]
            lines += [f"{name}{labels} {value:.12g}" for labels, value in sorted(values.get(name, {}).items())]
        return "\n".join(lines) + "\n"
