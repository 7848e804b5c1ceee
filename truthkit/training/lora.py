"""Fine-tuning a causal language model by LoRA, to the same result however often it is killed.

A loop of our own, not the Trainer of transformers or TRL: theirs keep optimizer, scheduler and random numbers in
pickles, and cannot promise the same result from any step. Here a step is a function of its
number and of the state before it.
"""

from __future__ import annotations

import inspect
import math
import os
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from truthkit.errors import ArgumentError, ModelError
from truthkit.files.lock import only_writer
from truthkit.files.versions import versions
from truthkit.files.writing import writing
from truthkit.hf.room import context_length
from truthkit.hf.spread import is_spread
from truthkit.hf.wrapping import plain_model
from truthkit.models.adapter import with_adapter
from truthkit.models.quiet import no_peft_rename
from truthkit.parallel import Shards
from truthkit.progress import progress_bar
from truthkit.text.tokens import batches, text_tokenizer
from truthkit.training import card, simctg
from truthkit.training.batches import collate, plan
from truthkit.training.chat import Encoded, Example, encode_all, stops_of
from truthkit.training.checkpoint import Checkpoint, Loss, digest
from truthkit.training.interrupt import stop_requests
from truthkit.training.settings import TrainingSettings

if TYPE_CHECKING:
    from peft import PeftModel

_TOKENS_ON_A_CPU = 256
"""Read at a time where there is no GPU; a matrix multiplication there is as fast with these as with more."""


def train(
    model: Any,
    processor: Any,
    examples: Sequence[Example],
    out: str | os.PathLike[str],
    *,
    settings: TrainingSettings | None = None,
    start: str | os.PathLike[str] | None = None,
    about: Mapping[str, Any] | None = None,
    save_every: float = 20.0,
    progress: bool = False,
) -> dict[str, Any]:
    """Train a LoRA adapter on the answers of `examples` and write it to the folder `out`.

    The loss is the cross-entropy of the answer's tokens, averaged over a step; with `contrastive_margin`, plus SimCTG's
    contrastive loss, averaged over the pairs of tokens that it compares. `out` appears when it is complete: a
    PEFT folder with a model card and `training.json`. Until then `out.partial` holds the state, from which the same
    call goes on, to the same tensors as without a stop (on the same machine and number of threads and processes).
    Several processes under torchrun or `accelerate launch` share the rows of each step.

    Args:
        model: a causal language model as `tk.load` returns it, quantised or not. It is given back as it was.
        processor: its tokenizer or processor.
        examples: what to learn.
        out: folder for the adapter. One that holds the result of this same training is left as it is.
        settings: see `TrainingSettings`.
        start: a PEFT folder whose adapter is trained on, instead of a new one; rank and targets are then its own.
        about: what else to write to `training.json`, and what else identifies the training (files and their hashes).
        save_every: seconds between records; after each one nothing before it can be lost.
        progress: show how far it is.

    Returns:
        What `training.json` holds.

    Raises:
        ArgumentError: see `TrainingSettings` and `encode`; or `out` holds something else.
        NotAvailableError: another process trains into `out`; or it cannot be written.
        ModelError: the loss is not a number.
        KeyboardInterrupt: it was interrupted; the state is on disk.
    """
    if is_spread(model):
        raise ModelError(
            f"{type(plain_model(model)).__name__} is held by several processes together, and training takes a copy in "
            "each; load it without tp_plan and fully_shard."
        )
    settings, out, about = settings or TrainingSettings(), Path(out), dict(about or {})
    tokenizer = text_tokenizer(processor, "training")
    limit = _max_length(model, settings.max_length)
    encoded, skipped = encode_all(tokenizer, examples, limit, stops=stops_of(model), skip_long=settings.skip_long)
    steps = plan(
        [len(row.ids) for row in encoded],
        settings.token_budget,
        settings.seed,
        steps=settings.steps,
        epochs=settings.epochs,
    )
    made_of = {
        "settings": asdict(settings) | {"max_length": limit},
        "model": card.model_identity(model),
        "data": {
            "examples": len(encoded),
            "skipped": skipped,
            "cut": sum(row.cut for row in encoded),
            "tokens": sum(len(row.ids) for row in encoded),
            "answer_tokens": sum(len(row.ids) - row.start for row in encoded),
            "sha256": card.tokens_sha256(encoded),
        },
        "start": card.adapter_identity(start) if start else None,
        **about,
    }
    key, work = digest(made_of), out.with_name(f"{out.name}.partial")
    place = Shards()
    report = found = card.finished(out, key)
    if report is None:
        with only_writer(work, place.index, place.count):
            report = found = card.finished(out, key)  # by a process that has only just let go of the folder
            if report is None:
                checkpoint = Checkpoint(work, key, every=save_every)
                with _trainable(model, settings, start) as peft:
                    trainer = _Trainer(peft, tokenizer, encoded, steps, settings, place)
                    losses = trainer.run(checkpoint, progress=progress)
                    report = {
                        **made_of,
                        "steps": len(steps),
                        "epochs": sum(map(len, steps)) / len(encoded),
                        **card.losses(losses, contrastive=settings.contrastive_margin is not None),
                        "versions": versions("torch", "transformers", "peft"),
                        "digest": key,
                    }
                    if place.index == 0:
                        _publish(peft, work, out, report)
    if found is not None and place.index == 0:
        shutil.rmtree(work, ignore_errors=True)
    place.wait()
    return report


def _max_length(model: Any, asked: int | None) -> int:
    context = context_length(model) or 1024
    if asked is None:
        return min(context, 1024)
    if not 1 < asked <= context:
        raise ArgumentError(f"max_length is {asked}; expected 2 to {context}, the model's context.")
    return asked


@contextmanager
def _trainable(model: Any, settings: TrainingSettings, start: str | os.PathLike[str] | None) -> Iterator[PeftModel]:
    """`model` with a LoRA adapter that can be trained; afterwards as it was."""
    from peft import LoraConfig, get_peft_model
    from transformers.pytorch_utils import Conv1D

    if hasattr(model, "peft_config"):
        raise ArgumentError("the model already has an adapter; load it without, and pass the adapter as start=.")
    flags = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    was_training, use_cache = model.training, model.config.use_cache
    with torch.random.fork_rng(devices=[]), no_peft_rename():
        torch.manual_seed(settings.seed)
        if start is not None:
            peft = with_adapter(model, start, trainable=True)
        else:
            alpha = 2 * settings.rank if settings.alpha is None else settings.alpha
            peft = get_peft_model(
                model,
                LoraConfig(
                    r=settings.rank,
                    lora_alpha=alpha,  # type: ignore[arg-type]  # peft divides by it; a float is as good
                    lora_dropout=settings.dropout,
                    target_modules="all-linear",
                    fan_in_fan_out=any(isinstance(module, Conv1D) for module in model.modules()),
                    task_type="CAUSAL_LM",
                ),
            )
    try:
        if settings.gradient_checkpointing:
            model.activation_checkpointing_enable({"use_reentrant": False})
        peft.train()
        yield peft
    finally:
        if settings.gradient_checkpointing:
            model.activation_checkpointing_disable()
        peft.unload()
        vars(model).pop("peft_config", None)
        model.train(was_training)
        model.config.use_cache = use_cache
        for parameter, flag in flags:
            parameter.requires_grad_(flag)


class _Trainer:
    """The loop over steps."""

    def __init__(
        self,
        peft: PeftModel,
        tokenizer: Any,
        rows: list[Encoded],
        steps: list[list[int]],
        settings: TrainingSettings,
        place: Shards,
    ):
        self._peft, self._rows, self._steps, self._settings, self._place = peft, rows, steps, settings, place
        self._pad = tokenizer.pad_token_id or 0
        self._weights = {name: weight for name, weight in peft.named_parameters() if weight.requires_grad}
        self._optimizer = torch.optim.AdamW(self._weights.values(), lr=settings.lr, weight_decay=settings.weight_decay)
        self._takes = set(inspect.signature(plain_model(peft).forward).parameters)

    def run(self, checkpoint: Checkpoint, *, progress: bool) -> list[Loss]:
        """Train from where the checkpoint stands to the end; the loss of every step."""
        losses = checkpoint.resume(self._weights, self._optimizer)
        mine = self._place.index == 0

        def recent() -> str:
            return f"loss {sum(map(sum, losses[-20:])) / len(losses[-20:]):.3f}"

        with (
            stop_requests() as stop,
            torch.random.fork_rng(),
            progress_bar(
                len(self._steps), "training", "steps", initial=len(losses), said=recent, shown=progress and mine
            ) as bar,
        ):
            while len(losses) < len(self._steps):
                losses.append(self._step(len(losses)))
                bar.update()
                last = len(losses) == len(self._steps)
                request = stop()
                stopping = self._place.any(request is not None)
                if mine and (checkpoint.due() or stopping or last):
                    checkpoint.save(self._weights, self._optimizer, losses)
                if stopping and not last:
                    raise request or KeyboardInterrupt
        return losses

    def _step(self, number: int) -> Loss:
        """One optimizer step on this step's rows, shared by the processes; their loss."""
        rows = [self._rows[index] for index in self._steps[number]]
        answer_tokens, pairs = sum(len(row.ids) - row.start for row in rows), simctg.pair_count(rows)
        pieces = self._settings.accumulate * self._place.count
        device = next(iter(self._weights.values())).device
        total = torch.zeros(2, dtype=torch.float64, device=device)
        for piece in range(self._place.index, pieces, self._place.count):
            torch.manual_seed((self._settings.seed * 1_000_003 + number) * 1_009 + piece)  # dropout
            for part in _at_a_time(rows[piece::pieces], device):
                cross_entropy, contrast = self._losses(part, device)
                terms = torch.stack([cross_entropy / answer_tokens, contrast / max(pairs, 1)])
                terms.sum().backward()
                total += terms.detach().double()
        self._place.sum_into(total)
        for weight in self._weights.values():
            if weight.grad is None:
                weight.grad = torch.zeros_like(weight)
            self._place.sum_into(weight.grad)
        loss = Loss(*total.tolist())
        if not math.isfinite(sum(loss)):
            raise ModelError(
                f"the loss of step {number} is {sum(loss)}. Use a lower learning rate, or another dtype (float32, "
                "bfloat16)."
            )
        nn.utils.clip_grad_norm_(self._weights.values(), self._settings.clip)
        for group in self._optimizer.param_groups:
            group["lr"] = self._settings.lr * self._schedule(number)
        self._optimizer.step()
        self._optimizer.zero_grad()
        return loss

    def _losses(self, rows: Sequence[Encoded], device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
        """The sums of the answer tokens' cross-entropies and of the contrastive loss.

        The output head runs where answers may be, no further left.
        """
        ids, mask, labels, keep = collate(rows, self._pad)
        inputs = {"input_ids": ids, "attention_mask": mask, "position_ids": (mask.cumsum(1) - 1).clamp_min(0)}
        inputs = {name: value.to(device) for name, value in inputs.items() if name in self._takes}
        options = {"logits_to_keep": keep} if "logits_to_keep" in self._takes else {}
        margin, states = self._settings.contrastive_margin, list[torch.Tensor]()
        with simctg.last_hidden_states(self._peft, states) if margin is not None else nullcontext():
            logits = self._peft(**inputs, use_cache=False, **options).logits[:, -keep:-1].float()
        wanted = labels[:, labels.shape[1] - keep + 1 :].to(logits.device)
        cross_entropy = nn.functional.cross_entropy(logits.flatten(0, 1), wanted.flatten(), reduction="sum").to(device)
        if margin is None:
            return cross_entropy, cross_entropy.new_zeros(())
        real, learned = (where.to(states[0].device) for where in (mask.bool(), labels != -100))
        return cross_entropy, simctg.margin_loss(states[0], real, learned, margin).to(device)

    def _schedule(self, number: int) -> float:
        """Linear warm-up and linear decay, as a share of the peak."""
        steps = len(self._steps)
        warm = math.ceil(self._settings.warmup * steps)
        return (number + 1) / warm if number < warm else (steps - number) / max(1, steps - warm)


def _at_a_time(rows: Sequence[Encoded], device: torch.device) -> Iterator[list[Encoded]]:
    """The rows whose activations are held at once: on a CPU few, which costs no time there; their losses add up."""
    budget = _TOKENS_ON_A_CPU if device.type == "cpu" else sys.maxsize
    for some in batches([len(row.ids) for row in rows], budget, range(len(rows))):
        yield [rows[i] for i in some]


def _publish(peft: PeftModel, work: Path, out: Path, report: dict[str, Any]) -> None:
    """Write the folder beside `out` and rename it, so that `out` is whole or not there."""
    whole = work / "adapter"
    shutil.rmtree(whole, ignore_errors=True)
    with writing(out):
        peft.save_pretrained(str(whole), save_embedding_layers=False)
        card.write(whole, report)
        os.replace(whole, out)
    shutil.rmtree(work, ignore_errors=True)
