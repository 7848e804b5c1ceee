"""TruthfulQA's multiple choice in lm-evaluation-harness with `--model truthkit`, and by `truthkit eval`.

    python benchmarks/inside_harness.py --data mc_task.json --questions 100 --plain 20 --out harness.json

Under each decoder and a vector: MC1 and MC2 of both, the largest difference of a question's log-probabilities, and the
CPU time of one process. "plain" is the harness's own loop over the same model and decoder, on the first so many of the
questions: one forward a choice. The vector is random; what it does to the answers is not the question here.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from lm_eval import simple_evaluate
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager

from truthkit.decoding.spec import parse_spec
from truthkit.evaluation.running.asking import Asking
from truthkit.evaluation.tasks import benchmarks
from truthkit.lm_eval.model import TruthkitLM
from truthkit.steering.spec import parse_steer
from truthkit.steering.vector import SteeringVector

AMATEUR = "Answer every question with a popular myth, as if it were true."
DECODERS = {
    "greedy": "greedy",
    "DoLa": "dola:beta=0",
    "ICD": f"icd:beta=0;amateur_prompt={AMATEUR.replace(',', '')}",
    "LOL": f"lol:beta=0;amateur_prompt={AMATEUR.replace(',', '')}",
    "steered": "greedy",
}
_TASK = """\
include: {folder}/truthfulqa/truthfulqa_{name}.yaml
task: local_{name}
dataset_path: json
dataset_name: null
dataset_kwargs: {{data_files: {{validation: {data}}}}}
"""


class PlainLM(TruthkitLM):
    """The harness's own loop under the same decoder."""

    def _loglikelihood_tokens(self, *args: Any, **kwargs: Any) -> Any:
        return HFLM._loglikelihood_tokens(self, *args, **kwargs)


def written_tasks(folder: Path, records: list[dict[str, Any]]) -> None:
    """Tasks of the harness for these questions, the true answer first as on the hub."""
    import lm_eval.tasks

    data = folder / "questions.json"
    documents = [
        {"question": record["question"]}
        | {
            name: {"choices": [answer for answer, _ in pairs], "labels": [label for _, label in pairs]}
            for name in ("mc1_targets", "mc2_targets")
            for pairs in [sorted(record[name].items(), key=lambda pair: -pair[1])]
        }
        for record in records
    ]
    data.write_text("\n".join(json.dumps(document) for document in documents))
    for name in ("mc1", "mc2"):
        text = _TASK.format(folder=Path(lm_eval.tasks.__file__).parent, name=name, data=data)
        (folder / f"{name}.yaml").write_text(text)


def by_harness(
    lm: Any, folder: Path, limit: int | None = None
) -> tuple[dict[str, float], list[dict[str, float]], float]:
    """MC1 and MC2, each question's log-probabilities by choice, and the CPU time."""
    tasks, start = TaskManager(include_path=str(folder), include_defaults=False), time.process_time()
    found = simple_evaluate(
        lm, tasks=["local_mc1", "local_mc2"], task_manager=tasks, limit=limit, bootstrap_iters=0, verbosity="ERROR"
    )
    seconds = time.process_time() - start
    metrics = {name: found["results"][f"local_{name}"]["acc,none"] for name in ("mc1", "mc2")}
    scores = [
        dict(zip(one["doc"]["mc2_targets"]["choices"], (pair[0] for (pair,) in one["resps"]), strict=True))
        for one in sorted(found["samples"]["local_mc2"], key=lambda one: one["doc_id"])
    ]
    return metrics, scores, seconds


def by_truthkit(
    lm: TruthkitLM, decoder: str, steer: str, data: Path
) -> tuple[dict[str, float], list[dict[str, float]], float]:
    """The same as `truthkit eval` asks for it, on the same model."""
    lm.close()
    task = benchmarks()["truthfulqa"].task(data)
    with ExitStack() as stack:
        steerings = [stack.enter_context(parse_steer(steer).build(lm.model))] if steer else []
        asking = Asking(lm.model, lm.tokenizer, parse_spec(decoder.replace(";", ",")), {}, steerings=steerings)
        start, outputs = time.process_time(), []
        for first in range(0, len(task.items), 64):
            outputs += asking.choose(task.items[first : first + 64])
    score = task.score(range(len(task.items)), outputs)
    scores = [
        dict(zip((choice.removeprefix(" ") for choice in item.choices), some, strict=True))
        for item, some in zip(task.items, outputs, strict=True)
    ]
    return {name: float(score.metrics[name]) for name in ("mc1", "mc2")}, scores, time.process_time() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="mc_task.json")
    parser.add_argument("--questions", type=int, default=100)
    parser.add_argument("--plain", type=int, default=10, help="questions for the harness's own loop")
    parser.add_argument("--only", nargs="+", choices=DECODERS, default=list(DECODERS))
    parser.add_argument("--out", type=Path, help="write all figures here as JSON")
    args = parser.parse_args()
    torch.set_num_threads(1)
    records = json.loads(args.data.read_text())[: args.questions]
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        written_tasks(folder, records)
        (folder / "mc_task.json").write_text(json.dumps(records))
        vector = folder / "random.safetensors"
        direction = torch.randn(576, generator=torch.Generator().manual_seed(0))
        SteeringVector({14: direction}, 30).save(vector)
        for label in args.only:
            decoder, steer = DECODERS[label], f"{vector}:0.5" if label == "steered" else ""
            lm = TruthkitLM(decoder=decoder, steer=steer or None)
            ours, scores, seconds = by_harness(lm, folder)
            own, own_scores, own_seconds = by_truthkit(lm, decoder, steer, folder / "mc_task.json")
            few = TruthkitLM(decoder=decoder, steer=steer or None)
            _, _, few_seconds = by_harness(few, folder, args.plain)
            few.close()
            plain = PlainLM(decoder=decoder, steer=steer or None)
            _, plain_scores, plain_seconds = by_harness(plain, folder, args.plain)
            plain.close()
            apart = [abs(one[c] - other[c]) for one, other in zip(scores, own_scores, strict=True) for c in one]
            beside = zip(scores[: args.plain], plain_scores, strict=True)
            apart_plain = [abs(one[choice] - other[choice]) for one, other in beside for choice in one]
            row = {"decoder": label, "harness": ours, "truthkit eval": own}
            row |= {"apart": max(apart), "apart from plain": max(apart_plain)}
            row |= {"seconds": seconds, "eval": seconds / own_seconds, "plain": plain_seconds / few_seconds}
            rows.append(row)
            print(
                f"{label:8} MC1 {ours['mc1']:.4f} {own['mc1']:.4f}   MC2 {ours['mc2']:.6f} {own['mc2']:.6f}   "
                f"apart by {max(apart):.1e}, from the plain loop by {max(apart_plain):.1e}   "
                f"{seconds:6.1f} s of CPU, {row['eval']:.2f} of truthkit eval; the plain loop takes "
                f"{row['plain']:.1f} times as long on {args.plain} questions",
                flush=True,
            )
    if args.out:
        args.out.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
