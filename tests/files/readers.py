"""Every reader with small valid files: what `test_fuzz` changes, and what has to end well or in one line."""

from __future__ import annotations

import io
import json
import tempfile
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from safetensors.torch import save_file

from tests.evaluation.report.cases import mme_task, pope_task, truthfulqa_task, write_run, wrong_at
from tests.files.mutations import WILD, Op, change, mutate
from truthkit.cli.prompt_lines import read_prompts
from truthkit.evaluation.report import gather
from truthkit.evaluation.report.compare import compare, read_run
from truthkit.evaluation.report.markdown import markdown
from truthkit.evaluation.report.page import page
from truthkit.evaluation.running.records import Records
from truthkit.evaluation.running.runs import _so_far
from truthkit.evaluation.tasks import builtin
from truthkit.evaluation.tasks.amber.task import score_files as amber
from truthkit.evaluation.tasks.aro import scorer as aro
from truthkit.evaluation.tasks.chair import scorer as chair
from truthkit.evaluation.tasks.context_qa import scorer as context_qa
from truthkit.evaluation.tasks.factor import scorer as factor
from truthkit.evaluation.tasks.hallusionbench.task import score_files as hallusionbench
from truthkit.evaluation.tasks.halueval import task as halueval
from truthkit.evaluation.tasks.memotrap import scorer as memotrap
from truthkit.evaluation.tasks.mme import scorer as mme
from truthkit.evaluation.tasks.mmvp.task import score_files as mmvp
from truthkit.evaluation.tasks.open_ended.task import task as open_ended
from truthkit.evaluation.tasks.pope import sampler
from truthkit.evaluation.tasks.pope import scorer as pope
from truthkit.evaluation.tasks.truthfulqa import choices
from truthkit.factcheck.claims import read_claims
from truthkit.factcheck.overlap import held_out_texts
from truthkit.files.reading import read_texts
from truthkit.files.tensors import State, tensors_sha256
from truthkit.steering import SteeringVector
from truthkit.steering.extraction.pairs import read_pairs
from truthkit.steering.formats import read_vector, to_gguf, to_numpy
from truthkit.steering.spec import parse_layers, parse_positions, parse_steer
from truthkit.training import card
from truthkit.training.amateur_data import read_pairs as read_amateur_data

Files = dict[str, bytes]
Reader = Callable[[Path], object]


def lines(*records: Any) -> bytes:
    return "\n".join(map(json.dumps, records)).encode()


def array(*records: Any) -> bytes:
    return json.dumps(list(records), indent=1).encode()


_PAIRS = [
    {"positive": "I love it.", "negative": "I hate it."},
    ["yes", "no"],
    {"prompt": "Is it?", "positive": "Yes", "negative": "No", "group": "a"},
    {"positive": [{"role": "user", "content": [{"type": "text", "text": "a"}]}], "negative": "b"},
]
_QA = [
    {"question": "Who?", "hallucinated_answer": "Me.", "knowledge": "You."},
    {"instruction": "Say it.", "input": "Now.", "output": "It."},
    {"user_query": "Q?", "chatgpt_response": "A.", "hallucination": "Yes"},
]
_CLAIMS = [
    {"event_id": "1", "claim": "It is green.", "label": "false", "explain": "Blue.", "reports": [{"content": "So."}]},
    {"id": 2, "text": "It is.", "label": "half-true", "explanation": ["It", "is"], "evidence": "Yes."},
]
_POPE = [
    {"question_id": i, "image": f"{i // 2}.jpg", "text": f"Is there a {i}?", "label": "yes" if i % 2 else "no"}
    for i in range(4)
]
_COCO = {
    "images": [{"id": 1, "file_name": "1.jpg"}],
    "categories": [{"id": 5, "name": "dog"}],
    "annotations": [{"image_id": 1, "category_id": 5, "caption": "a dog"}],
}
_BOX = {"image_path": "1.jpg", "bbox_x": 0, "bbox_y": 1.5, "bbox_w": 9, "bbox_h": 9}
_CAPTIONS = {"true_caption": "a dog on a mat", "false_caption": "a mat on a dog"}
_FIGURE = {
    "category": "VD",
    "subcategory": "map",
    "visual_input": "1",
    "set_id": "0",
    "figure_id": "0",
    "question": "Is it?",
    "gt_answer": "1",
    "filename": "./VD/map/0_0.png",
}
_MC = {
    "question": "Is it?",
    "mc1_targets": {"Yes": 1, "No": 0},
    "mc2_targets": {"choices": ["Yes", "No"], "labels": [1, 0]},
}
_CSV = b'Question,Best Answer,Correct Answers,Incorrect Answers\nIs it?,Yes,"Yes; So",No\n"Why, then?",So,So,Never\n'
_FACTOR = b"turncated_prefixes,completion,contradiction_0,contradiction_1,contradiction_2\nIt ,is,was,has,had\n"
_MEMOTRAP = b"""prompt,classes,answer_index\n"Write ""no"": No","[' no.', ' yes.']",0\n"""
_PASSAGES = [
    {"context": "It is green.", "question": "Is it?", "answers": ["yes"]},
    {"sub_context": "It is.", "question": "Is it?", "sub_answer": "yes", "category": "a"},
]
_HALVES = [
    {"input_index": 1, "assigned_process": n, "context_string": text, "gold_answers": "yes"}
    for n, text in enumerate(("It is. Only so, answer: Is it?", "Answer: Is it?"))
]
_HALUEVAL = {"knowledge": "It is.", "question": "Is it?", "right_answer": "Yes", "hallucinated_answer": "Never"}
_JUDGED = [{"question": "Is it?", "answer": answer, "judgement": "No"} for answer in ("Yes", "Never")]


def _passages(folder: Path) -> None:
    for name in ("q.jsonl", "r.jsonl"):
        questions = context_qa.read_questions(folder / name)
        context_qa.score(questions, [question.text for question in questions])


def _halueval(folder: Path) -> None:
    halueval.score_files(folder / "a.jsonl", folder / "qa.json")


def _pope(folder: Path) -> None:
    questions = pope.read_questions(folder / "q.json")
    for name in ("a.jsonl", "b.csv", "c.json"):
        pope.score(questions, pope.match(questions, pope.read_answers(folder / name)))


def _chair(folder: Path) -> None:
    vocabulary = chair.Vocabulary(folder / "synonyms.txt")
    vocabulary.__dict__["_lemmas"] = str.split
    truth = chair.read_ground_truth(folder / "gt.json", vocabulary)
    chair.score(chair.read_captions(folder / "c.jsonl"), truth, vocabulary)
    chair.ground_truth_from_coco([folder / "coco.json"], [folder / "coco.json"], vocabulary)


def _mme(folder: Path) -> None:
    (folder / "m").mkdir()
    (folder / "m" / "color.txt").write_bytes((folder / "color.txt").read_bytes())
    found = mme.read_answers(folder / "m")
    mme.score([question for question, _ in found], [answer for _, answer in found])
    mme.check_complete(mme.read_questions(folder / "q.jsonl"), [question for question, _ in found])


def _aro(folder: Path) -> None:
    for name in ("r.json", "a.json", "o.json"):
        questions = aro.with_shuffles(aro.read_questions(folder / name), lambda words: ["NN"] * len(words))
        aro.score(questions, [range(len(one.captions)) for one in questions])
    found = aro.read_scores(folder / "s.jsonl", aro.read_questions(folder / "r.json"))
    aro.by_group(aro.score([question for question, _ in found], [scores for _, scores in found]))


def _truthfulqa(folder: Path) -> None:
    for name, protocol in (("mc_task.json", "lm-eval"), ("mc_task.json", "dola")):
        choices.read_questions(folder / name, protocol=protocol)
    questions = choices.read_questions(folder / "mc_task.json")
    choices.score(questions, choices.read_log_probs(folder / "log_probs.jsonl", questions))
    questions = choices.read_questions(folder / "t.csv", protocol="authors")
    choices.read_answers(folder / "a.json", questions)


def _claims(folder: Path) -> None:
    for name in ("c.jsonl", "c.json", "one.json", "liar.tsv", "c.tsv"):
        read_claims(folder / name)


def _held_out(folder: Path) -> None:
    for name in ("t.csv", "c.jsonl", "q.json"):
        held_out_texts(folder / name)


def _texts(folder: Path) -> None:
    for name in ("t.json", "t.jsonl", "t.csv", "t.tsv", "t.txt"):
        read_texts(folder / name, "text")
        read_prompts([], str(folder / name))


def _pairs(folder: Path) -> None:
    for name in ("p.jsonl", "p.json", "p.csv"):
        for bad in read_pairs(folder / name).bad:
            assert str(bad)


def _vector(folder: Path) -> object:
    (file,) = folder.iterdir()
    vector = read_vector(file)
    assert repr(vector)
    return vector.scores and vector.best_layer()


def _written_words(folder: Path) -> None:
    text = (folder / "text").read_bytes().decode("utf-8", "replace")
    for read in (parse_layers, parse_positions, parse_steer):
        for line in text.split("\n"):
            try:
                read(line)  # type: ignore[operator]
            except ValueError as error:
                if type(error).__module__ != "truthkit.errors":
                    raise


@cache
def _run_folder() -> tuple[Any, Files]:
    """A small finished run of POPE, and its task."""
    home = Path(tempfile.mkdtemp(prefix="truthkit-"))
    task = pope_task(home / "data", images=2)
    write_run(task, home / "run", wrong_at(0))
    return task, _files_in(home / "run")


def _files_in(folder: Path) -> Files:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


@cache
def _runs_of_every_task() -> dict[str, Files]:
    """Small finished runs, by task."""
    home = Path(tempfile.mkdtemp(prefix="truthkit-"))
    (home / "c.jsonl").write_bytes(lines(*({"claim": f"It is {i}.", "label": "true"} for i in range(2))))
    (home / "p.txt").write_text("One day\nAnd then\n")
    claims = builtin()["factcheck"].task(home / "c.jsonl", labels=3)
    labels = claims.config["labels"]
    verdict = {"verdict": "true", "probabilities": {one: float(one == "true") for one in labels}, "explanation": "So."}
    every: list[tuple[Any, list[Any]]] = [
        (pope_task(home / "pope", images=2), list(wrong_at(0))),
        (mme_task(home / "mme"), ["Yes.", "No.", "No.", "What?"] * 2),
        (
            truthfulqa_task(home / "qa"),
            [{"log_probs": [-1.0, None], "raw": [0.5, None]}, {"log_probs": [-2.0, -1.0]}] * 2,
        ),
        (claims, [verdict] * 2),
        (builtin()["open-ended"].task(home / "p.txt"), [{"text": "a b a b", "log_prob": -2.5}] * 2),
    ]
    found = {}
    for task, answers in every:
        write_run(task, home / "runs" / task.name, answers)
        found[task.name] = {f"{task.name}.{name}": data for name, data in _files_in(home / "runs" / task.name).items()}
    return found


def _run(folder: Path) -> None:
    intact = folder / "intact"
    intact.mkdir()
    for name, content in _run_folder()[1].items():
        (intact / name).write_bytes(content)
    compare(read_run(intact), read_run(folder))


def _report(folder: Path) -> None:
    """The damaged run beside the same one as it was, as page and as Markdown."""
    for task, intact in _runs_of_every_task().items():
        if all((folder / name).read_bytes() == content for name, content in intact.items()):
            continue
        for run in ("as it was", "damaged"):
            (folder / task / run).mkdir(parents=True)
            for name, content in intact.items():
                content = (folder / name).read_bytes() if run == "damaged" else content
                (folder / task / run / name.partition(".")[2]).write_bytes(content)
        report = gather([folder / task])
        page(report)
        markdown(report)


def _resume(folder: Path) -> None:
    task, files = _run_folder()
    records = Records(folder, json.loads(files["config.json"]))
    _so_far(task, task.items, records)


def _training(folder: Path) -> None:
    (folder / "out").mkdir()
    (folder / "out" / "training.json").write_bytes((folder / "training.json").read_bytes())
    card.finished(folder / "out", "abc")


def _state(folder: Path) -> None:
    State(folder / "s.safetensors", "00" * 32, work="test", every=1.0).read()


def vector() -> SteeringVector:
    scores = {str(layer): {"auc": 0.9, "low": 0.8, "high": 1.0, "p": 0.01} for layer in (1, 2)}
    about = {"model": {"id": "m", "type": "llama"}, "scores": scores, "selection": {"layer": 1, "strength": 2.0}}
    return SteeringVector({1: torch.ones(8), 2: torch.zeros(8)}, 4, "block", about)


def _saved(name: str) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        one = vector()
        match path.suffix:
            case ".npz":
                to_numpy(one, path)
            case ".gguf":
                to_gguf(one, path)
            case _:
                one.save(path)
        return path.read_bytes()


def _state_file() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        State(Path(folder) / "s.safetensors", "00" * 32, work="test", every=1.0).write({"losses": torch.ones(3)})
        return (Path(folder) / "s.safetensors").read_bytes()


_ODD = (torch.ones(8), torch.zeros(0), torch.ones(2, 4), torch.tensor(1.0), torch.ones(8, dtype=torch.int8),
        torch.ones(8, dtype=torch.bfloat16), torch.ones(8, dtype=torch.complex64), torch.full((8,), torch.nan),
        torch.ones(1).expand(1 << 40),
        torch.ones(8).to_sparse(), torch.ones(9), torch.ones(8, device="meta"))  # fmt: skip
_NAMES = (
    "layer_1",
    "direction.1",
    "direction.x",
    "block.1",
    "about",
    "",
    "1",
    "layers.١",
    "direction.99999999999",
    "\0",
)


def _header(ops: Sequence[Op]) -> dict[str, Any]:
    value: Any = {"site": "block", "layer_count": 4, "provenance": vector().provenance}
    for kind, a, b in ops:
        value = change(value, kind, a, b)
    return value


def _tensors(ops: Sequence[Op], *, plain: bool) -> dict[str, torch.Tensor]:
    """Directions with odd names and values; `plain` ones can be written by any format."""
    found = {"direction.1": _ODD[0], "direction.2": _ODD[0]}
    for _, a, b in ops[1:]:
        odd = _ODD[b % len(_ODD)]
        if not plain or (odd.layout == torch.strided and not odd.is_meta and odd.numel() < 100):
            found[_NAMES[a % len(_NAMES)]] = odd
    return found


def safetensors_file(ops: Sequence[Op]) -> bytes:
    """A vector's file with a wrong header or tensors, and a checksum that is right all the same."""
    header = _header(ops[:1])
    tensors = {name: one.clone() for name, one in _tensors(ops, plain=True).items()}
    tensors = {name: one for name, one in tensors.items() if one.dtype not in (torch.bfloat16, torch.complex64)}
    if isinstance(header, dict):
        header = {"format": 1, **header}
        try:
            header["sha256"] = tensors_sha256(tensors, header)
        except (ValueError, RecursionError):
            return b""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "v.safetensors"
        save_file(tensors, path, {"truthkit": json.dumps(header)})
        return path.read_bytes()


def npz_file(ops: Sequence[Op]) -> bytes:
    content = io.BytesIO()
    about = np.frombuffer(mutate(json.dumps(_header(ops[:1])).encode(), ops[:1]) or b" ", dtype=np.uint8)
    tensors = {name: one for name, one in _tensors(ops, plain=True).items() if one.dtype != torch.bfloat16}
    arrays = {name.replace("\0", "0"): one.numpy() for name, one in tensors.items()}
    np.savez(content, **({"about": about} | arrays))  # type: ignore[arg-type]
    return content.getvalue()


def gguf_file(ops: Sequence[Op]) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "v.gguf"
        writer = gguf.GGUFWriter(str(path), ("controlvector", "llama", "")[ops[0][1] % 3])
        writer.add_string("controlvector.model_hint", "llama")
        for name, one in _tensors(ops, plain=True).items():
            if one.dtype not in (torch.bfloat16, torch.complex64) and one.numel():
                writer.add_tensor(name, one.numpy())
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return path.read_bytes()


def lm_eval_file(ops: Sequence[Op]) -> bytes:
    entries: Any = {
        f"layers.{name}": {"action": "add", "steering_vector": one, "steering_coefficient": 2.0, "bias": None}
        for name, one in _tensors(ops, plain=False).items()
    }
    for kind, a, b in ops[:2]:
        if kind % 2:
            holders = [(entries, name) for name in entries]
            holders += [(entry, name) for entry in entries.values() for name in entry]
            holder, name = holders[a % len(holders)]
            holder[name] = WILD[b % len(WILD)]
            break
    content = io.BytesIO()
    torch.save(entries, content)
    return content.getvalue()


READERS: dict[str, tuple[Files, Reader]] = {
    "texts and prompts": (
        {"t.json": array("One.", "Two."), "t.jsonl": lines({"text": "One."}), "t.csv": b'id,text\n1,"a, b"\n',
         "t.tsv": b"text\tid\nOne\t1\n", "t.txt": b"One.\r\nTwo.\n"},
        _texts,
    ),
    "pairs": ({"p.jsonl": lines(*_PAIRS), "p.json": array(*_PAIRS), "p.csv": b"positive,negative\na,b\n"}, _pairs),
    "amateur": ({"a.jsonl": lines(*_QA)}, lambda f: read_amateur_data(f / "a.jsonl", forms=("chat", "plain"))),
    "claims": (
        {"c.jsonl": lines(*_CLAIMS), "c.json": array(*_CLAIMS), "one.json": lines(_CLAIMS[0]),
         "liar.tsv": b"\t".join([b"1.json", b"true", b"It is.", *[b"x"] * 11]), "c.tsv": b"claim\tlabel\na\ttrue\n"},
        _claims,
    ),
    "held-out texts": ({"t.csv": _CSV, "c.jsonl": lines(*_CLAIMS), "q.json": array(_QA[0])}, _held_out),
    "pope": (
        {"q.json": array(*_POPE), "a.jsonl": lines(*({"question_id": i, "answer": "Yes"} for i in range(4))),
         "b.csv": b"question_id,answer\n0,yes\n1,no\n2,yes\n3,no\n",
         "c.json": array(*({"answer": "No", "question": q["text"]} for q in _POPE))},
        _pope,
    ),
    "objects": (
        {"o.jsonl": lines({"image": "1.jpg", "objects": ["dog"]}, {"image": "2.jpg", "objects": []})},
        lambda f: sampler.read_objects(f / "o.jsonl"),
    ),
    "instances": ({"o.json": lines(_COCO)}, lambda f: sampler.read_objects(f / "o.json")),
    "chair": (
        {"synonyms.txt": b"dog, puppy\ncat\n", "gt.json": lines({"1": ["dog"]}), "coco.json": lines(_COCO),
         "c.jsonl": lines({"image_id": 1, "caption": "a dog and a cat"})},
        _chair,
    ),
    "mme": (
        {"color.txt": b"1.jpg\tIs it red?\tYes\tYes\n1.jpg\tIs it blue?\tNo\tNo, it\nis red.\n",
         "q.jsonl": lines(*({"category": "color", "image": "1.jpg", "question": q, "answer": a}
                            for q, a in (("Is it red?", "Yes"), ("Is it blue?", "No"))))},
        _mme,
    ),
    "amber": (
        {"annotations.json": array({"id": 1, "type": "discriminative-relation", "truth": "yes"},
                                   {"id": 2, "type": "generative", "truth": ["dog"], "hallu": []}),
         "a.json": array({"id": 1, "response": "Yes"}, {"id": 1, "response": ""})},
        lambda f: amber(f / "a.json", f),
    ),
    "aro": (
        {"r.json": array({**_BOX, **_CAPTIONS, "relation_name": "on"}),
         "a.json": array({**_BOX, **_CAPTIONS, "attributes": ["red", "old"]}),
         "o.json": array({"image": "1.jpg", "caption": ["A dog on a mat.", "Two dogs."]}),
         "s.jsonl": lines({"id": "vg_relation 1", "scores": [-1, None]})},
        _aro,
    ),
    "hallusionbench": (
        {"q.json": array(*({**_FIGURE, "question_id": i} for i in range(2))),
         "a.json": array(*({**_FIGURE, "question_id": str(i), "model_prediction": "No"} for i in range(2)))},
        lambda f: (hallusionbench(f / "a.json", f / "q.json"), hallusionbench(f / "a.json")),
    ),
    "mmvp": (
        {"q.csv": b"Index,Question,Options,Correct Answer\n1,Is it?,(a) Yes (b) No,(a)\n2,So?,(a) Yes (b) No,(b)\n",
         "a.jsonl": lines({"question_id": 2, "response": "(b)"}, {"question_id": 1, "answer": "Yes"})},
        lambda f: mmvp(f / "a.jsonl", f / "q.csv"),
    ),
    "truthfulqa": (
        {"mc_task.json": array(_MC), "t.csv": _CSV,
         "log_probs.jsonl": lines({"question": "Is it?", "log_probs": [-1, -2]}),
         "a.json": array({"question": "Is it?", "answer": "Yes"}, {"question": "Why, then?", "text": "So"})},
        _truthfulqa,
    ),
    "factor": ({"f.csv": _FACTOR}, lambda f: factor.read_questions(f / "f.csv")),
    "memotrap": ({"m.csv": _MEMOTRAP}, lambda f: memotrap.read_questions(f / "m.csv")),
    "context-qa": ({"q.jsonl": lines(*_PASSAGES), "r.jsonl": lines(*_HALVES)}, _passages),
    "halueval": ({"qa.json": array(_HALUEVAL), "a.jsonl": lines(*_JUDGED)}, _halueval),
    "open-ended": (
        {"p.jsonl": lines({"prompt": "It", "reference": "is."})}, lambda f: open_ended(f / "p.jsonl", scorer="none")
    ),
    "written words": (
        {"text": b"1-3+-1\nlast+-2:5+role:user\ntext:a+b\nv.npz:1.5,layers=1+2,positions=all\n3:4\n0-9\n:\n"},
        _written_words,
    ),
    "training.json": ({"training.json": lines({"digest": "abc", "losses": [1.0]})}, _training),
    "state": ({"s.safetensors": _state_file()}, _state),
    "safetensors": ({"v.safetensors": _saved("v.safetensors")}, _vector),
    "npz": ({"v.npz": _saved("v.npz")}, _vector),
    "gguf": ({"v.gguf": _saved("v.gguf")}, _vector),
    "resume": ({}, _resume),
    "compare": ({}, _run),
    "report": ({}, _report),
}  # fmt: skip
"""By name: files, one of which is changed at a time, and the reader of their folder."""

MADE: dict[str, tuple[str, Callable[[Sequence[Op]], bytes]]] = {
    "safetensors": ("v.safetensors", safetensors_file),
    "npz": ("v.npz", npz_file),
    "gguf": ("v.gguf", gguf_file),
    "lm-eval": ("v.pt", lm_eval_file),
}
"""Vector files that are whole as files, and odd in what they hold."""


def files_of(name: str) -> Files:
    """The valid files of a reader."""
    if name == "report":
        return {file: content for files in _runs_of_every_task().values() for file, content in files.items()}
    if name in ("resume", "compare"):
        wanted = {"resume": ("config.json", "records.jsonl"), "compare": ("summary.json", "items.jsonl")}[name]
        return {file: _run_folder()[1][file] for file in wanted}
    return READERS[name][0]
