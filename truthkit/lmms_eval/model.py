"""`--model truthkit`: lmms-eval's requests put to a model as `truthkit eval` asks, under a decoder and steering."""

from __future__ import annotations

import io
import math
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from lmms_eval.api.instance import GenerationResult, Instance
from lmms_eval.api.model import lmms
from PIL import Image
from tqdm import tqdm

from truthkit.activations.hooks import Hooked
from truthkit.cli.harness_arguments import read_arguments
from truthkit.errors import ArgumentError
from truthkit.evaluation.running.asking import Asking
from truthkit.evaluation.running.item import Item
from truthkit.evaluation.running.records import Records
from truthkit.files.writing import content_key
from truthkit.images.reading import read_image
from truthkit.likelihood.continuation import continued
from truthkit.text.encode import written_prompts
from truthkit.text.tokens import text_tokenizer

_NEW_TOKENS = 1024
"""Of an answer, where the task does not say."""

_MARK = "<image>"
"""What tasks write for an image, where they write anything."""


class TruthkitLMM(lmms):
    r"""A model from `tk.load` for tasks of lmms-eval, answering and scoring under a decoder and steering vectors.

        python -m lmms_eval --model truthkit --tasks pope --batch_size 16 \
            --model_args "pretrained=org/name,decoder=vcd:alpha=1;beta=0.1,steer=v.safetensors:1.5;layers=14"

    The harness splits its arguments at commas, so options of decoders and vectors are joined by semicolons. Prompts are
    written, images compared and choices scored as by `truthkit eval`, several prompts with their images at a time.

    Args:
        pretrained: hub id, folder, or name of a bundled model, as in `tk.load`; None is SmolLM2-135M.
        decoder: as `--decoder` of `truthkit eval`. Multiple choice wants beta=0.
        steer: as `--steer`; several are joined by "|".
        adapter, amateur: as there.
        allow_other_model: steer by vectors that were made from another model, too.
        revision, dtype: as in `tk.load`.
        device: where the model goes, as "cuda:0"; None, and "cuda" where there is none, leave it to `tk.load`.
        batch_size: answers at a time; halved where memory does not suffice.
        max_batch_size: of no use here.
        seed: of sampling, where a task asks for it.

    Raises:
        ArgumentError: a decoder that compares prompts with and without a passage, which tasks have none of; or an
            option makes no sense.
        ModelError, NotAvailableError: as `tk.load`, decoders and vectors.
    """

    def __init__(
        self,
        pretrained: str | None = None,
        *,
        decoder: str = "greedy",
        steer: str | None = None,
        adapter: str | None = None,
        amateur: str | None = None,
        allow_other_model: bool = False,
        revision: str | None = None,
        dtype: str | None = None,
        device: str | None = None,
        batch_size: int | str = 16,
        max_batch_size: int | None = None,
        seed: int = 0,
    ):
        super().__init__()
        if not str(batch_size).isdigit() or int(batch_size) < 1:
            raise ArgumentError(f"batch_size is {batch_size!r}; expected a number above 0.")
        spec, steers, model, processor, opponent = read_arguments(
            pretrained,
            decoder,
            steer,
            images=True,
            adapter=adapter,
            amateur=amateur,
            allow_other_model=allow_other_model,
            revision=revision,
            dtype=dtype,
            device=device,
        )
        supplied = {"amateur": opponent} if amateur else {}
        self._stack = ExitStack()
        with ExitStack() as stack:
            self._folder = Path(stack.enter_context(TemporaryDirectory(prefix="truthkit-")))
            entered = [stack.enter_context(one.build(model, processor)) for one in steers]
            self._stack = stack.pop_all()
        self._asking = Asking(
            model,
            processor,
            spec,
            supplied,
            seed=seed,
            batch_size=int(batch_size),
            steerings=[one for one in entered if isinstance(one, Hooked)],
        )

    @property
    def device(self) -> torch.device:
        """Where the harness exchanges what its processes have found."""
        device: torch.device = self._asking.model.device
        return device

    def close(self) -> None:
        """Take the vectors off the model, and the images off the disk."""
        self._stack.close()

    def clean(self) -> None:
        self.close()
        super().clean()

    def generate_until(self, requests: Sequence[Instance]) -> list[str]:
        """The answers, each up to the first of its task's stops."""
        found: list[str] = [""] * len(requests)
        items, kinds, stops = [], list[Asking](), list[tuple[str, ...]]()
        times: Counter[Any] = Counter()
        for request in requests:
            prompt, settings, visuals, doc_id, task, split = request.args
            times[task, split, doc_id] += 1
            name = f"{task}/{split}/{doc_id}/{times[task, split, doc_id]}"  # a repeat is drawn by other numbers
            items.append(self._item(name, prompt, visuals(self.task_dict[task][split][doc_id])))
            asking, ends = _as_set(self._asking, dict(settings))
            kinds.append(asking)
            stops.append(ends)
        settled = [(one.max_new_tokens, one.sample, one.temperature, one.top_p) for one in kinds]
        for kind in dict.fromkeys(settled):
            places = [place for place, one in enumerate(settled) if one == kind]
            answers = self._asked(kinds[places[0]], [items[place] for place in places], "answers")
            for place, answer in zip(places, answers, strict=True):
                found[place] = _until(answer, stops[place])
        return found

    def loglikelihood(self, requests: Sequence[Instance]) -> list[GenerationResult]:
        """Of every choice the loss, which the harness wants here: the mean of its tokens' negative log-probabilities.

        Beside it whether the answer written to the prompt begins with the choice. The pair comes as the "text" of a
        result, the one form in which lmms-eval 0.7.3 passes it on: of a bare pair its evaluator makes a string.

        Raises:
            ArgumentError: a task of another kind than multiple choice.
        """
        items = []
        for request in requests:
            if len(request.args) != 6 or not isinstance(request.args[1], str):
                raise ArgumentError(
                    "a task asks for the score of a text that is no choice, or of a choice without its prompt "
                    "(output_type loglikelihood, metric acc_mutual_info); only multiple choice is scored here."
                )
            prompt, choice, visuals, doc_id, task, split = request.args
            item = self._item(f"{task}/{split}/{doc_id}", prompt, visuals(self.task_dict[task][split][doc_id]))
            items.append(replace(item, choices=(choice,)))
        scores = self._asked(self._asking, items, "choices")
        lengths = list(map(self._length, items))
        questions = list(dict.fromkeys(replace(item, choices=()) for item in items))
        writing = replace(self._asking, max_new_tokens=max(lengths, default=1))
        said = dict(zip(questions, self._asked(writing, questions, "answers"), strict=True))
        found = []
        for item, (score,), length in zip(items, scores, lengths, strict=True):
            loss = math.inf if score is None else -score / length  # records have None for what a decoder rules out
            found.append((loss, said[replace(item, choices=())].startswith(item.choices[0].strip())))
        return list(map(GenerationResult, found))

    def generate_until_multi_round(self, requests: Sequence[Instance]) -> list[str]:
        raise ArgumentError("a task asks in several rounds, which truthkit's model does not; leave it out.")

    def _asked(self, asking: Asking, items: Sequence[Item], what: str) -> list[Any]:
        records = Records(self._folder / "none", {}, writes=False)
        with tqdm(total=len(items), disable=self.rank != 0, desc=what, unit=what[:-1]) as bar:
            asking.run(items, records, bar.update)
        return [records.done[item.key]["output"] for item in items]

    def _item(self, name: str, prompt: str, visuals: Sequence[Any] | None) -> Item:
        images = tuple(map(self._file, visuals or ()))
        text = prompt
        for _ in images:
            text = text.lstrip().removeprefix(_MARK)
        if images and _MARK in text:
            raise ArgumentError(
                f"a prompt has images in its midst, and only those in front are taken: {prompt[:60]!r}."
            )
        return Item(name, text.lstrip() if text != prompt else prompt, images)

    def _file(self, visual: Any) -> str:
        """An image of a task in a file, one for all questions about it."""
        if not isinstance(visual, Image.Image):
            kind = "a sound" if isinstance(visual, dict) else "a video" if isinstance(visual, str) else "no image"
            raise ArgumentError(f"a task shows {kind}; truthkit's model takes images.")
        content = io.BytesIO()
        read_image(visual).save(content, "PNG")
        path = self._folder / f"{content_key(content.getvalue().hex())}.png"
        if not path.exists():
            path.write_bytes(content.getvalue())
        return str(path)

    def _length(self, item: Item) -> int:
        """How many tokens its choice has."""
        processor, (choice,) = self._asking.processor, item.choices
        tokenizer = text_tokenizer(processor, "a choice")
        prompt = item.prompt
        if item.images:
            (prompt,) = written_prompts(processor, [prompt], [len(item.images)])
            choice = choice.removeprefix(" ") if prompt[-1:].isspace() else choice
        row, start = continued(tokenizer, prompt, choice)
        return len(row) - start


def _as_set(asking: Asking, settings: dict[str, Any]) -> tuple[Asking, tuple[str, ...]]:
    """How a task wants its answers, and what ends them.

    Raises:
        ArgumentError: it wants beams, or a penalty.
    """
    beams, penalty = settings.get("num_beams"), settings.get("repetition_penalty")
    if (beams or 1) != 1 or (penalty or 1) != 1:
        what, value = ("num_beams", beams) if (beams or 1) != 1 else ("repetition_penalty", penalty)
        raise ArgumentError(f"a task has {what} {value}, which truthkit's model has not; set --gen_kwargs {what}=1.")
    temperature = float(settings.get("temperature") or 0.0)
    sample = bool(settings.get("do_sample", temperature > 0)) and temperature > 0
    ends = settings.get("until") or ()
    return (
        replace(
            asking,
            max_new_tokens=int(settings.get("max_new_tokens") or _NEW_TOKENS),
            sample=sample,
            temperature=temperature if sample else 1.0,
            top_p=float(settings.get("top_p") or 1.0) if sample else 1.0,
        ),
        (ends,) if isinstance(ends, str) else tuple(ends),
    )


def _until(answer: str, stops: Sequence[str]) -> str:
    for stop in filter(None, stops):
        answer = answer.partition(stop)[0]
    return answer
