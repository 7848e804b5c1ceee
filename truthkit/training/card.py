"""What is written beside an adapter: `training.json` for programs, a model card for people."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from contextlib import suppress
from os import PathLike
from pathlib import Path
from typing import Any

from truthkit.errors import ArgumentError, TruthkitError
from truthkit.files.reading import read_json
from truthkit.files.writing import file_sha256, json_text
from truthkit.models.identities import identity
from truthkit.training.chat import Encoded
from truthkit.training.checkpoint import Loss

_RECORD = "training.json"


def tokens_sha256(encoded: Sequence[Encoded]) -> str:
    """SHA-256 of the tokens and where the answers begin: what the model sees, whatever the files were called."""
    return hashlib.sha256(json.dumps([[row.ids, row.start] for row in encoded]).encode()).hexdigest()


def model_identity(model: Any) -> dict[str, Any]:
    """Which model it is: `truthkit.models.identity`, type and size."""
    return {
        **identity(model),
        "type": model.config.model_type,
        "parameters": model.num_parameters(),
        "dtype": str(model.dtype).removeprefix("torch."),
    }


def adapter_identity(folder: str | PathLike[str]) -> dict[str, str]:
    """Which adapter a training starts from.

    Raises:
        ArgumentError: the folder holds no adapter.
    """
    file = Path(folder) / "adapter_model.safetensors"
    if not file.is_file():
        raise ArgumentError(f"start={str(folder)!r} holds no adapter_model.safetensors; name a PEFT folder.")
    return {"path": str(folder), "sha256": file_sha256(file)}


def finished(out: Path, digest: str) -> dict[str, Any] | None:
    """The record of `out` if it is the result of this training; None if there is nothing yet.

    Raises:
        ArgumentError: `out` holds something else.
    """
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return None
    record: Any = None
    with suppress(TruthkitError):
        record = read_json(out / _RECORD)
    record = record if isinstance(record, dict) else {}
    if record.get("digest") == digest:
        return record
    what = "the result of another training" if record else "something else"
    raise ArgumentError(f"out={str(out)!r} already holds {what}; remove it, or name another folder.")


def losses(steps: Sequence[Loss], *, contrastive: bool) -> dict[str, Any]:
    """The loss of every step, its unit, and the two terms where there are two."""
    found: dict[str, Any] = {"losses": [sum(step) for step in steps], "loss_unit": "nats per answer token"}
    if contrastive:
        found["loss_unit"] += ", plus SimCTG's loss per pair of tokens, a difference of cosines"
        found |= {name: [getattr(step, name) for step in steps] for name in Loss._fields}
    return found


def write(folder: Path, report: dict[str, Any]) -> None:
    """`training.json` and `README.md`."""
    (folder / _RECORD).write_text(json_text(report) + "\n")
    (folder / "README.md").write_text(_card(report))


def _card(report: dict[str, Any]) -> str:
    model, data, losses = report["model"], report["data"], report["losses"]
    few = max(1, min(20, len(losses) // 4))
    commit = f" at commit `{model['commit']}`" if model["commit"] else ""
    rows = {
        "base model": f"`{model['id']}`{commit} ({model['type']}, {model['parameters']:,} parameters, "
        f"{model['dtype']})",
        "base model's weights": f"sha256 of `truthkit.models.identity`: `{model['weights_sha256']}`",
        "task": report.get("task", "fine-tuning"),
        "examples": f"{data['examples']} ({data['answer_tokens']} answer tokens; {data['cut']} prompts cut, "
        f"{data['skipped']} examples left out)",
        "steps": f"{report['steps']}, {report['epochs']:.2f} epochs",
        "loss": f"{_mean(losses[:few]):.4f} (first {few} steps) to {_mean(losses[-few:]):.4f} (last {few}); "
        f"{report['loss_unit']}",
        "tokens sha256": f"`{data['sha256']}`",
        **{f"file `{Path(file['path']).name}`": f"sha256 `{file['sha256']}`" for file in report.get("files", [])},
        **{name: f"`{value}`" for name, value in report["settings"].items() if name not in ("steps", "epochs")},
        **{f"{name} version": value for name, value in report["versions"].items()},
    }
    table = "\n".join(f"| {name} | {value} |" for name, value in rows.items())
    front = f"---\nlibrary_name: peft\nbase_model: {json.dumps(model['id'])}\ntags: [lora, truthkit]\n---\n"
    note = report.get("note", "")
    return (
        f"{front}\n# LoRA adapter: {report.get('task', 'fine-tuning')}\n\n{note}\n\n"
        f"Made by truthkit; the loss was taken on the answers alone. Load it with `tk.load(model, adapter=FOLDER)`. "
        f"Losses of all steps: `{_RECORD}`.\n\n"
        f"| | |\n| --- | --- |\n{table}\n"
    )


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
