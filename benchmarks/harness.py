"""How fast `truthkit eval` asks, and whether it finds the same numbers as lm-evaluation-harness.

    python -m venv lm-eval && lm-eval/bin/pip install lm_eval==0.4.13
    python benchmarks/harness.py mc_task.json --lm-eval lm-eval/bin/python --questions 100 --out harness.json
    python benchmarks/harness.py --pope 20
    python benchmarks/harness.py --aro 6

TruthfulQA's multiple choice on the bundled model in float32: truthkit with what prompts begin with read once, truthkit
without, and lm_eval's own truthfulqa_mc1 and truthfulqa_mc2 on the same file, which it needs in an environment of its
own. --pope N asks the bundled image-text model six questions about each of N pictures, and LLaVA's architecture around
SmolLM2 with 576 image tokens about the first few: an image read once, in batches, and one prefill per question. --aro N
scores ARO's captions of N pictures, with one other each and five with four shuffles each: an image read once, and one
plain forward for each caption.

Every way runs in this process one after the other (lm_eval in its own); times are CPU seconds of asking, model and data
loaded.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from images import build  # the benchmark beside this one

import truthkit as tk
from truthkit.decoding.spec import parse_spec
from truthkit.evaluation.running.asking import Asking
from truthkit.evaluation.running.item import Item
from truthkit.evaluation.running.records import Records
from truthkit.evaluation.tasks.aro.shuffles import cleaned, shuffled
from truthkit.evaluation.tasks.truthfulqa import choices as truthfulqa
from truthkit.images.reading import read_image
from truthkit.scenes.questions import caption, held_out, questions
from truthkit.scenes.render import render
from truthkit.text.encode import written_prompts

LM_EVAL = """
import json, sys, time
from pathlib import Path
import lm_eval, lm_eval.tasks, torch
from lm_eval.models.huggingface import HFLM
from transformers import AutoModelForCausalLM, AutoTokenizer

folder, data, batch, threads = sys.argv[1:]
torch.set_num_threads(int(threads))
model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
wrapped = HFLM(pretrained=model, tokenizer=AutoTokenizer.from_pretrained(folder), batch_size=int(batch), device="cpu")
own = Path(lm_eval.tasks.__file__).parent / "truthfulqa"
for name in ("mc1", "mc2"):
    Path(folder, f"{name}.yaml").write_text(
        f"include: {own}/truthfulqa_{name}.yaml\\ntask: local_{name}\\ndataset_path: json\\ndataset_name: null\\n"
        f"dataset_kwargs:\\n  data_files:\\n    validation: {data}\\n"
    )
asking = {"model": wrapped, "tasks": ["local_mc1", "local_mc2"], "bootstrap_iters": 0}
asking["task_manager"] = lm_eval.tasks.TaskManager(include_path=folder)
lm_eval.simple_evaluate(**asking, limit=1)
start = time.process_time()
found = lm_eval.simple_evaluate(**asking, log_samples=True)
seconds = time.process_time() - start
scores = {
    name: [
        {"value": sample["acc"], "log_probs": [float(r[0][0]) for r in sample["resps"]]}
        for sample in sorted(samples, key=lambda sample: sample["doc_id"])
    ]
    for name, samples in found["samples"].items()
}
print("FOUND" + json.dumps({"seconds": seconds, "scores": scores}))
"""


def asked(model: Any, processor: Any, items: list[Item], **options: Any) -> tuple[float, dict[str, Any]]:
    """CPU seconds, and the output of every item."""
    with tempfile.TemporaryDirectory() as folder:
        records = Records(Path(folder), {})
        asking = Asking(model, processor, parse_spec("greedy"), {}, **options)
        start = time.process_time()
        asking.run(items, records)
        return time.process_time() - start, {record["id"]: record["output"] for record in records.done.values()}


def in_lm_eval(python: Path, data: list[dict[str, Any]], batch: int, threads: int) -> dict[str, Any]:
    """CPU seconds, and what lm_eval finds of each question."""
    model, tokenizer = tk.load(dtype="float32")
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        lines = Path(folder) / "questions.jsonl"
        targets = ("mc1_targets", "mc2_targets")
        rows = [
            {"question": record["question"]}
            | {name: {"choices": list(record[name]), "labels": list(record[name].values())} for name in targets}
            for record in data
        ]
        lines.write_text("\n".join(json.dumps(row) for row in rows))
        command = [str(python), "-c", LM_EVAL, folder, str(lines), str(batch), str(threads)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stderr[-3000:])
    return json.loads(done.stdout.partition("FOUND")[2])


def choices(args: argparse.Namespace) -> dict[str, Any]:
    """TruthfulQA's multiple choice."""
    data = json.loads(args.data.read_text(encoding="utf-8"))
    data = random.Random(args.seed).sample(data, min(args.questions or len(data), len(data)))
    with tempfile.TemporaryDirectory() as folder:
        some = Path(folder) / "mc_task.json"
        some.write_text(json.dumps(data))
        asked_about = truthfulqa.read_questions(some)
    items = [
        Item(str(i), truthfulqa.prompt(one.text), choices=tuple(f" {choice}" for choice in one.choices), raw=True)
        for i, one in enumerate(asked_about)
    ]
    model, tokenizer = tk.load(dtype="float32")
    asked(model, tokenizer, items[:1])
    figures: dict[str, Any] = {"questions": len(items), "choices": sum(len(item.choices) for item in items)}
    figures["truthkit"], outputs = asked(model, tokenizer, items)
    found = truthfulqa.score(asked_about, [outputs[item.id] for item in items])
    figures["metrics"] = found.metrics
    print(
        f"{len(items)} questions, {figures['choices']} choices; truthkit {figures['truthkit']:.1f} s, {found.metrics}"
    )
    if args.unshared:
        figures["unshared"], apart = asked(model, tokenizer, items, share_prefix=False)
        worst = max(abs(a - b) for item in items for a, b in zip(outputs[item.id], apart[item.id], strict=True))
        print(f"without sharing {figures['unshared']:.1f} s, log-probabilities within {worst:.1e}")
        figures["sharing differs by"] = worst
    if args.lm_eval:
        theirs = in_lm_eval(args.lm_eval, data, args.batch, args.threads)
        ours = {name: [row[name] for row in found.items] for name in ("mc1", "mc2")}
        differences = {
            name: max(abs(a - b["value"]) for a, b in zip(values, theirs["scores"][f"local_{name}"], strict=True))
            for name, values in ours.items()
        }
        means = {name: sum(row["value"] for row in theirs["scores"][f"local_{name}"]) / len(items) for name in ours}
        ratio = theirs["seconds"] / figures["truthkit"]
        print(f"lm_eval, batch {args.batch}: {theirs['seconds']:.1f} s, {ratio:.1f} x; {means}")
        print(f"largest difference of a question: {differences}")
        figures |= {"lm_eval": theirs["seconds"], "lm_eval metrics": means, "differences": differences}
    return figures


def llava() -> tuple[Any, Any]:
    """Random vision before SmolLM2."""
    model, processor = build(torch.float32, "cpu", False)
    processor.chat_template = "USER: <image>\n{{ messages[0]['content'][-1]['text'] }} ASSISTANT:"
    return model, processor


def pictures(args: argparse.Namespace) -> dict[str, Any]:
    """Six questions about each picture."""
    figures: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        items: list[Item] = []
        for number, scene in enumerate(held_out(args.pope, seed=args.seed)):
            path = Path(folder) / f"{number}.png"
            render(scene).save(path)
            posed = questions(scene, random.Random(number), kind="popular")
            items += [Item(f"{number} {i}", one.text, (str(path),)) for i, one in enumerate(posed)]
        few = [item for item in items if int(item.id.split()[0]) < 3]
        for name, (model, processor), some in (
            ("scene-vlm", tk.load("scene-vlm"), items),
            ("LLaVA, SmolLM2, 576 image tokens", llava(), few),
        ):
            ways = {
                "an image once": {"batch_size": 24},
                "batches": {"batch_size": 24, "share_prefix": False},
                "a prefill per question": {"batch_size": 1, "share_prefix": False},
            }
            asked(model, processor, some[:6], max_new_tokens=2)
            found = {way: asked(model, processor, some, max_new_tokens=4, **options) for way, options in ways.items()}
            base = found["an image once"][0]
            print(f"{name}, {len(some)} questions")
            for way, (seconds, outputs) in found.items():
                same = sum(outputs[item.id] == found["an image once"][1][item.id] for item in some)
                print(f"  {way:24} {seconds:7.2f} s  {seconds / base:5.2f} x  {same} answers the same")
            figures[name] = {way: seconds for way, (seconds, _) in found.items()}
    return figures


def plainly(model: Any, processor: Any, items: list[Item]) -> tuple[float, dict[str, Any]]:
    """CPU seconds and log-probabilities by one forward for each caption, image and all."""
    start, found = time.process_time(), {}
    for item in items:
        (text,), images = written_prompts(processor, [item.prompt], [1]), [read_image(item.images[0])]
        asked_with = processor(images=images, text=text, add_special_tokens=False, return_tensors="pt")
        begin, found[item.id] = asked_with["input_ids"].shape[1], []
        for choice in item.choices:
            inputs = processor(images=images, text=text + choice, add_special_tokens=False, return_tensors="pt")
            ids = inputs["input_ids"][0]
            with torch.no_grad():
                logits = model(**inputs, use_cache=False, logits_to_keep=len(ids) - begin + 1).logits[0, :-1]
            found[item.id].append(float(logits.log_softmax(-1).gather(1, ids[begin:, None]).sum()))
    return time.process_time() - start, found


def captions(args: argparse.Namespace) -> dict[str, Any]:
    """Pairs of captions, and captions with their shuffles, of each picture."""
    figures: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        pairs: list[Item] = []
        orders: list[Item] = []
        for number, scene in enumerate(held_out(args.aro, seed=args.seed)):
            path = Path(folder) / f"{number}.png"
            render(scene).save(path)
            rng = random.Random(number)
            true = [caption(scene, rng) for _ in range(5)]
            other = caption(held_out(1, seed=number + 1000)[0], rng)
            prompt = "Describe the image."
            pairs.append(Item(f"pair {number}", prompt, (str(path),), (f" {true[0]}", f" {other}")))
            for place, text in enumerate(map(cleaned, true)):
                shuffles = shuffled(text, lambda words: ["NN" if len(word) > 3 else "IN" for word in words], seed=place)
                every = tuple(f" {one}" for one in (text, *shuffles.values()))
                orders.append(Item(f"order {number} {place}", prompt, (str(path),), every))
        for name, (model, processor) in (
            ("scene-vlm", tk.load("scene-vlm")),
            ("LLaVA, SmolLM2, 576 image tokens", llava()),
        ):
            for kind, items in (("pairs", pairs), ("orders", orders)):
                some = items if name == "scene-vlm" else [item for item in items if item.id.split()[1] in "012"]
                asked(model, processor, some[:1])
                once, outputs = asked(model, processor, some)
                plain, expected = plainly(model, processor, some)
                worst = max(
                    abs(a - b) for item in some for a, b in zip(outputs[item.id], expected[item.id], strict=True)
                )
                count = sum(len(item.choices) for item in some)
                print(
                    f"{name}, {kind}, {count} captions: an image once {once:.2f} s, a forward per caption "
                    f"{plain:.2f} s, {plain / once:.2f} x; log-probabilities within {worst:.1e}"
                )
                figures[f"{name}, {kind}"] = {"once": once, "forward per caption": plain, "differ by": worst}
    return figures


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, nargs="?", help="mc_task.json")
    parser.add_argument("--questions", type=int, default=100, help="drawn by the seed; 0: all (default: %(default)s)")
    parser.add_argument("--lm-eval", type=Path, metavar="PYTHON", help="of the environment with lm_eval")
    parser.add_argument("--batch", type=int, default=1, help="lm_eval's batch size (default: %(default)s, as its own)")
    parser.add_argument("--unshared", action="store_true", help="ask without sharing too")
    parser.add_argument("--pope", type=int, default=0, metavar="N", help="ask about N pictures")
    parser.add_argument("--aro", type=int, default=0, metavar="N", help="score captions of N pictures")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    figures: dict[str, Any] = choices(args) if args.data else {}
    if args.pope:
        figures["pope"] = pictures(args)
    if args.aro:
        figures["aro"] = captions(args)
    if args.out:
        args.out.write_text(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
