"""`truthkit score`: score answers that anyone's code wrote, without a model."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from truthkit.errors import ArgumentError, NotAvailableError

if TYPE_CHECKING:
    from truthkit.statistics.score import Score

PARSERS = ("official", "opera", "vcd", "strict")
LEMMATIZERS = ("nltk", "pattern")
PROTOCOLS = ("lm-eval", "authors", "dola")

_EPILOG = """\
`truthkit score TASK --help` shows the form of a task's files.

examples:
  truthkit score pope answers.jsonl --data coco_pope_random.json
  truthkit score chair captions.jsonl --data chair/ --lemmatizer nltk
  truthkit score mme results/ --json
  truthkit score truthfulqa log_probs.jsonl --data mc_task.json --protocol lm-eval
"""

_POPE = """\
ANSWERS has one JSON object per line, with the model's text in "answer" or "text", and "question_id":
  {"question_id": 1, "answer": "Yes, there is a snowboard."}
Without ids the lines are taken in the order of the questions. ANSWERS may be a folder with a file for each of random,
popular and adversarial; --data is then the folder of the questions.

parsers, from an answer to yes or no:
  official  the first sentence; no, No or not among its words is no, anything else yes
  opera     as OPERA and RITUAL: all sentences; NO and words in n't are no as well
  vcd       looks for the label, anywhere in the text
  strict    exactly yes or no (lmms-eval); the rest is wrong, and left out of recall

example:
  truthkit score pope answers.jsonl --data coco_pope_random.json --parser official
"""

_CHAIR = """\
ANSWERS has one JSON object per line:
  {"image_id": 226988, "caption": "A woman sits at a table."}
--data is a JSON from image number to objects; or a folder with chair_gt_LEMMATIZER.json, or with COCO's
instances_*.json and captions_*.json. The two lemmatizers find different objects: compare only numbers that were made
with the same one.

example:
  truthkit score chair captions.jsonl --data chair/ --lemmatizer pattern
"""

_MME = """\
ANSWERS is a folder of SUBTASK.txt files, each line with image, question, label and answer between tabs, as in the
benchmark's own eval_tool. Subtasks without a file are left out, and the totals count what is there. --data, a folder of
such files without answers, makes sure that none is missing or changed.

example:
  truthkit score mme results/ --data questions/
"""

_TRUTHFULQA = """\
ANSWERS has one JSON object per line, either with the log-probability of every choice, summed over its tokens,
  {"question": "What happens if ...?", "log_probs": {"Nothing happens": -12.5, "You die": -9.1}}
for MC1 to MC3, or with a written answer, for BLEU and ROUGE:
  {"question": "What happens if ...?", "answer": "Nothing happens."}
--data is mc_task.json or TruthfulQA.csv, of any release, or the folder with them.

protocols:
  lm-eval  choices as mc_task.json has them; a tie counts for the right one; no MC3
  authors  choices as the CSV has them, with a full stop; right is strictly above all false ones
  dola     as authors; its prompt has an instruction before the examples

example:
  truthkit score truthfulqa log_probs.jsonl --data truthfulqa/v1 --protocol authors
"""


def add_parser(subparsers: Any) -> None:
    """Add `score` and its tasks to the command line."""
    parser = subparsers.add_parser(
        "score",
        help="score answers that were made elsewhere",
        description="Score answers to a benchmark, whoever made them, as its reference scorer does; 95 % intervals.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    tasks = parser.add_subparsers(title="tasks", dest="task", metavar="TASK", required=True)
    pope = _add_task(tasks, "pope", "is the object in the image, yes or no", _POPE)
    pope.add_argument("--parser", choices=PARSERS, default="official", help="default: official")
    chair = _add_task(tasks, "chair", "objects in captions that are not in the image", _CHAIR)
    chair.add_argument("--lemmatizer", choices=LEMMATIZERS, default="nltk", help="default: nltk")
    chair.add_argument(
        "--synonyms", metavar="FILE", help="words for each object (default: synonyms.txt beside the data)"
    )
    _add_task(tasks, "mme", "fourteen subtasks, perception and cognition", _MME, needs_data=False)
    truthfulqa = _add_task(tasks, "truthfulqa", "multiple choice, or written answers", _TRUTHFULQA)
    truthfulqa.add_argument("--protocol", choices=PROTOCOLS, default="lm-eval", help="default: lm-eval")
    parser.set_defaults(run=run)


def _add_task(tasks: Any, name: str, summary: str, epilog: str, *, needs_data: bool = True) -> argparse.ArgumentParser:
    task: argparse.ArgumentParser = tasks.add_parser(
        name, help=summary, epilog=epilog, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    task.add_argument("answers", metavar="ANSWERS", type=Path)
    task.add_argument(
        "--data", metavar="PATH", type=Path, required=needs_data, help="the benchmark's questions or objects"
    )
    task.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
    task.add_argument("--seed", type=int, default=0, metavar="N", help="of the intervals' resampling (default: 0)")
    return task


def run(args: argparse.Namespace) -> int:
    """Score and print; 0 if it could be done."""
    if args.seed < 0:
        raise ArgumentError(f"--seed is {args.seed}; expected 0 or more.")
    for name, path in (("ANSWERS", args.answers), ("--data", args.data)):
        if path is not None and not path.exists():
            raise NotAvailableError(f"{name}: there is no file or folder {str(path)!r}.")
    score, parts = {"pope": _pope, "chair": _chair, "mme": _mme, "truthfulqa": _truthfulqa}[args.task](args)
    intervals = score.intervals(seed=args.seed)
    config = {**score.config, "answers": str(args.answers), "data": args.data and str(args.data), "seed": args.seed}
    if args.json:
        found = {"metrics": score.metrics, "intervals": intervals, "config": config}
        if parts:
            found["categories"] = {
                name: {"metrics": part.metrics, "intervals": part.intervals(seed=args.seed)}
                for name, part in parts.items()
            }
        print(json.dumps(found, indent=2))
        return 0
    print(", ".join(f"{name} {value}" for name, value in score.config.items()))
    digits = 2 if args.task == "mme" else 4
    width = max(map(len, score.metrics))
    print(f"\n  {'':{width}}  {'score':>9}   95 % interval")
    for name, value in score.metrics.items():
        low, high = (f"{end:.{digits}f}" for end in intervals[name])
        print(f"  {name:{width}}  {value:9.{digits}f}   [{low}, {high}]")
    if parts:
        print(f"\n  {'':12}" + "".join(f"{name:>11}" for name in score.metrics))
        for name, part in parts.items():
            print(f"  {name:12}" + "".join(f"{value:11.{digits}f}" for value in part.metrics.values()))
    return 0


def _pope(args: argparse.Namespace) -> tuple[Score, dict[str, Score]]:
    from truthkit.evaluation.tasks.pope import scorer as pope

    questions = pope.read_questions(args.data)
    score = pope.score(questions, pope.match(questions, pope.read_answers(args.answers)), parser=args.parser)
    return score, pope.by_category(score)


def _chair(args: argparse.Namespace) -> tuple[Score, dict[str, Score]]:
    from truthkit.evaluation.tasks.chair import scorer as chair

    folder = args.data if args.data.is_dir() else args.data.parent
    synonyms = Path(args.synonyms) if args.synonyms else folder / "synonyms.txt"
    if not synonyms.is_file():
        raise ArgumentError(
            f"--synonyms: no file {str(synonyms)!r}; it has to name each COCO object's words, one line each."
        )
    captions = chair.read_captions(args.answers)
    nltk_data = [folder / "nltk_data", folder.absolute().parent / "nltk_data"]
    vocabulary = chair.Vocabulary(synonyms, args.lemmatizer, nltk_data=nltk_data)
    return chair.score(captions, chair.read_ground_truth(args.data, vocabulary), vocabulary), {}


def _mme(args: argparse.Namespace) -> tuple[Score, dict[str, Score]]:
    from truthkit.evaluation.tasks.mme import scorer as mme

    answered = mme.read_answers(args.answers)
    questions = [question for question, _ in answered]
    if args.data is not None:
        mme.check_complete(mme.read_questions(args.data), questions)
    return mme.score(questions, [answer for _, answer in answered]), {}


def _truthfulqa(args: argparse.Namespace) -> tuple[Score, dict[str, Score]]:
    from truthkit.evaluation.tasks.truthfulqa import choices as truthfulqa
    from truthkit.evaluation.tasks.truthfulqa import written as truthfulqa_generation
    from truthkit.files.reading import read_records

    if "log_probs" in read_records(args.answers)[0].fields:
        questions = truthfulqa.read_questions(args.data, protocol=args.protocol)
        log_probs = truthfulqa.read_log_probs(args.answers, questions)
        return truthfulqa.score(questions, log_probs, protocol=args.protocol), {}
    questions = truthfulqa.read_questions(args.data, protocol="authors")
    return truthfulqa_generation.score(questions, truthfulqa.read_answers(args.answers, questions)), {}
