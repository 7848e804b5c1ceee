"""The training loop. Oracles: the loss of each example by itself, plain PEFT and AdamW, an undisturbed run."""

from __future__ import annotations

import json
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import truthkit as tk
from tests.tiny import tiny
from tests.training.toys import chat_folder, chat_tokenizer, toy_examples
from truthkit.models import load
from truthkit.training import lora
from truthkit.training.chat import Example, encode
from truthkit.training.checkpoint import Checkpoint
from truthkit.training.lora import train
from truthkit.training.settings import TrainingSettings

FAST = TrainingSettings(lr=1e-2, rank=4, token_budget=160, steps=12)


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "adapter_model.safetensors")


def same(one: Path, other: Path) -> bool:
    a, b = tensors(one), tensors(other)
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def mean_loss(model: Any, examples: list[Example]) -> float:
    """Of an answer's token, each example by itself, with the whole output head."""
    total, count = 0.0, 0
    for example in examples:
        ids, start, _ = encode(chat_tokenizer(), example, 500)
        with torch.no_grad():
            log_p = model(torch.tensor([ids])).logits[0].double().log_softmax(-1)
        total -= sum(float(log_p[i - 1, ids[i]]) for i in range(start, len(ids)))
        count += len(ids) - start
    return total / count


NO_DROPOUT: dict[str, dict[str, float]] = {
    "gpt2": {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0},
    "opt": {"dropout": 0.0},
}
"""Of the models' own, which is on while they are trained."""


class TestLoss:
    @pytest.mark.parametrize("family", ["llama", "gpt2", "bloom", "gemma3_text", "opt"])
    def test_first_loss(self, family: str, tmp_path: Path) -> None:
        """A new adapter changes nothing yet: the padded batch's loss is the model's own."""
        model, examples = tiny(family, **NO_DROPOUT.get(family, {})), toy_examples(12)
        everything = replace(FAST, steps=1, token_budget=100_000)
        report = train(model, chat_tokenizer(), examples, tmp_path / "a", settings=everything)
        assert report["losses"][0] == pytest.approx(mean_loss(model, examples), rel=1e-5)

    def test_it_falls_and_the_adapter_holds_it(self, tmp_path: Path) -> None:
        chat_folder(tmp_path / "model")
        model, tokenizer = load(tmp_path / "model")
        out, examples = tmp_path / "a", toy_examples()
        report = train(model, tokenizer, examples, out, settings=replace(FAST, steps=60))
        adapted, _ = load(tmp_path / "model", adapter=out)
        before, after = mean_loss(model, examples), mean_loss(adapted, examples)
        assert after < 0.1 * before
        assert report["losses"][-1] < 0.1 * report["losses"][0]

    def test_one_step_by_hand(self, tmp_path: Path) -> None:
        """Gradients of the answers alone through plain PEFT, and one step of AdamW at the peak rate."""
        from peft import LoraConfig, get_peft_model

        settings = replace(FAST, steps=1, warmup=0.0, token_budget=100_000, clip=1e9, dropout=0.0)
        examples = toy_examples(5)
        train(tiny("llama"), chat_tokenizer(), examples, tmp_path / "a", settings=settings)
        torch.manual_seed(settings.seed)
        config = LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM")
        peft = get_peft_model(tiny("llama"), config)
        rows = [encode(chat_tokenizer(), example, 500) for example in examples]
        for row in rows:
            labels = torch.tensor([[-100] * row.start + row.ids[row.start :]])
            answer = len(row.ids) - row.start
            share = answer / sum(len(row.ids) - row.start for row in rows)
            (peft(torch.tensor([row.ids]), labels=labels).loss * share).backward()
        weights = [weight for weight in peft.parameters() if weight.requires_grad]
        torch.optim.AdamW(weights, lr=settings.lr, weight_decay=0.0).step()
        found = tensors(tmp_path / "a")
        for name, weight in peft.named_parameters():
            if weight.requires_grad:
                torch.testing.assert_close(found[name.replace(".default", "")], weight.data, atol=2e-4, rtol=1e-3)

    def test_pieces_do_not_change_it(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Neither those that are asked for nor those of a CPU, which are never larger than it says."""
        model, widths, runs = tiny("llama", dtype=torch.float64), list[int](), {}
        model.register_forward_pre_hook(
            lambda _m, _a, kwargs: widths.append(kwargs["input_ids"].numel()), with_kwargs=True
        )
        for pieces, tokens in ((1, 1 << 20), (3, 1 << 20), (1, 40)):
            monkeypatch.setattr(lora, "_TOKENS_ON_A_CPU", tokens)
            settings, out = replace(FAST, accumulate=pieces), tmp_path / f"{pieces}-{tokens}"
            runs[pieces, tokens] = train(model, chat_tokenizer(), toy_examples(), out, settings=settings)["losses"]
        first, *others = runs.values()
        assert all(other == pytest.approx(first, rel=1e-4) for other in others)
        longest = max(len(encode(chat_tokenizer(), example, 500).ids) for example in toy_examples())
        assert max(widths) > 80
        assert max(widths[-FAST.token_budget // 40 :]) <= max(40, longest)

    def test_checkpointed_activations_do_not_change_it(self, tmp_path: Path) -> None:
        model = tiny("llama")
        runs = [
            train(
                model,
                chat_tokenizer(),
                toy_examples(),
                tmp_path / str(on),
                settings=replace(FAST, gradient_checkpointing=on, steps=4),
            )["losses"]
            for on in (False, True)
        ]
        assert runs[0] == pytest.approx(runs[1], rel=1e-5)

    def test_not_a_number(self, tmp_path: Path) -> None:
        model = tiny("llama")
        model.lm_head.weight.data[5, 0] = float("nan")
        with pytest.raises(tk.ModelError, match="the loss of step 0 is nan"):
            train(model, chat_tokenizer(), toy_examples(), tmp_path / "a", settings=FAST)


class TestModelAfterwards:
    def test_it_is_as_it_was(self, tmp_path: Path) -> None:
        model = tiny("llama")
        before = {name: value.clone() for name, value in model.state_dict().items()}
        state = torch.get_rng_state()
        train(model, chat_tokenizer(), toy_examples(), tmp_path / "a", settings=replace(FAST, dropout=0.1))
        after = model.state_dict()
        assert before.keys() == after.keys()
        assert all(torch.equal(before[name], after[name]) for name in before)
        assert not model.training
        assert all(parameter.requires_grad and parameter.grad is None for parameter in model.parameters())
        assert torch.equal(torch.get_rng_state(), state)

    def test_it_can_be_trained_again_and_used_by_a_decoder(self, tmp_path: Path) -> None:
        model, tokenizer = tiny("llama"), chat_tokenizer()
        for name in ("a", "b"):
            train(model, tokenizer, toy_examples(), tmp_path / name, settings=FAST)
        assert same(tmp_path / "a", tmp_path / "b")
        ids = torch.tensor([[5, 6, 7]])
        with tk.ICD(model, tokenizer, amateur=str(tmp_path / "a")), torch.no_grad():
            changed = model(ids).logits
        assert not torch.allclose(changed.log_softmax(-1), model(ids).logits.log_softmax(-1))


class TestResume:
    @pytest.mark.parametrize("stopped_after", [1, 5, 12])
    def test_after_any_step(self, stopped_after: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """With dropout, so random numbers count too. After the last step only the folder is missing."""
        settings = replace(FAST, dropout=0.2)
        train(tiny("llama"), chat_tokenizer(), toy_examples(), tmp_path / "whole", settings=settings)

        class Killed(BaseException):
            pass

        original = Checkpoint.save

        def save(self: Any, weights: Any, optimizer: Any, losses: list[float]) -> None:
            original(self, weights, optimizer, losses)
            if len(losses) == stopped_after:
                raise Killed

        monkeypatch.setattr(Checkpoint, "save", save)
        with pytest.raises(Killed):
            train(tiny("llama"), chat_tokenizer(), toy_examples(), tmp_path / "a", settings=settings, save_every=0)
        assert not (tmp_path / "a").exists()
        monkeypatch.setattr(Checkpoint, "save", original)
        report = train(tiny("llama"), chat_tokenizer(), toy_examples(), tmp_path / "a", settings=settings)
        assert same(tmp_path / "a", tmp_path / "whole")
        assert report["losses"] == json.loads((tmp_path / "whole" / "training.json").read_text())["losses"]
        assert {path.name for path in tmp_path.iterdir()} == {"a", "whole"}

    def test_interrupted(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """The step in which the signal comes is finished and written down."""
        train(tiny("llama"), chat_tokenizer(), toy_examples(), tmp_path / "whole", settings=FAST)
        original, handler = lora._Trainer._losses, signal.getsignal(signal.SIGINT)

        def losses(self: Any, *args: Any) -> Any:
            if self._optimizer.state and int(next(iter(self._optimizer.state.values()))["step"]) == 4:
                signal.raise_signal(signal.SIGINT)
            return original(self, *args)

        monkeypatch.setattr(lora._Trainer, "_losses", losses)
        with pytest.raises(KeyboardInterrupt):
            train(tiny("llama"), chat_tokenizer(), toy_examples(), tmp_path / "a", settings=FAST)
        assert signal.getsignal(signal.SIGINT) is handler
        assert len(load_file(tmp_path / "a.partial" / "state.safetensors")["losses"]) == 5
        monkeypatch.setattr(lora._Trainer, "_losses", original)
        train(tiny("llama"), chat_tokenizer(), toy_examples(), tmp_path / "a", settings=FAST)
        assert same(tmp_path / "a", tmp_path / "whole")

    def test_finished_is_left_as_it_is(self, tmp_path: Path) -> None:
        first = train(tiny("llama"), chat_tokenizer(), toy_examples(), tmp_path / "a", settings=FAST)
        written = (tmp_path / "a" / "adapter_model.safetensors").stat().st_mtime_ns
        again = train(tiny("llama"), chat_tokenizer(), toy_examples(), tmp_path / "a", settings=FAST)
        assert again == first
        assert (tmp_path / "a" / "adapter_model.safetensors").stat().st_mtime_ns == written

    def test_another_training_is_refused(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        out = tmp_path / "a"
        train(tiny("llama"), chat_tokenizer(), toy_examples(), out, settings=FAST)
        with pytest.raises(tk.ArgumentError, match="already holds the result of another training; remove it"):
            train(tiny("llama", seed=1), chat_tokenizer(), toy_examples(), out, settings=FAST)
        (tmp_path / "b").mkdir()
        (tmp_path / "b" / "thesis.tex").write_text("x")
        with pytest.raises(tk.ArgumentError, match="already holds something else"):
            train(tiny("llama"), chat_tokenizer(), toy_examples(), tmp_path / "b", settings=FAST)
        assert (tmp_path / "b" / "thesis.tex").exists()
        monkeypatch.setattr(lora, "_publish", lambda *_args: None)
        train(tiny("llama"), chat_tokenizer(), toy_examples(), tmp_path / "c", settings=FAST)
        with pytest.raises(tk.ArgumentError, match="belongs to another training"):
            train(tiny("llama"), chat_tokenizer(), toy_examples(5), tmp_path / "c", settings=FAST)

    def test_damaged_checkpoint(self, tmp_path: Path) -> None:
        (tmp_path / "a.partial").mkdir()
        (tmp_path / "a.partial" / "state.safetensors").write_bytes(b"nothing")
        with pytest.raises(tk.ArgumentError, match=r"checkpoint .* cannot be read"):
            train(tiny("llama"), chat_tokenizer(), toy_examples(), tmp_path / "a", settings=FAST)

    def test_trained_on_from_an_adapter(self, tmp_path: Path) -> None:
        """The first loss is the first adapter's."""
        model, examples = tiny("llama"), toy_examples()
        train(model, chat_tokenizer(), examples, tmp_path / "a", settings=replace(FAST, steps=30))
        adapted = tk.models.adapter.with_adapter(tiny("llama"), tmp_path / "a")
        settings = replace(FAST, steps=1, token_budget=100_000)
        report = train(model, chat_tokenizer(), examples, tmp_path / "b", settings=settings, start=tmp_path / "a")
        assert report["losses"][0] == pytest.approx(mean_loss(adapted, examples), rel=1e-4)
        with pytest.raises(tk.ArgumentError, match="holds no adapter_model"):
            train(model, chat_tokenizer(), examples, tmp_path / "c", settings=settings, start=tmp_path)


class TestCard:
    def test_what_is_written(self, tmp_path: Path) -> None:
        report = train(
            tiny("llama"), chat_tokenizer(), toy_examples(), tmp_path / "a", settings=FAST, about={"task": "toy"}
        )
        written = json.loads((tmp_path / "a" / "training.json").read_text())
        assert written == report
        assert written["settings"]["seed"] == 0
        assert written["data"]["examples"] == 12
        assert len(written["losses"]) == written["steps"] == 12
        assert {"python", "torch", "transformers", "peft", "truthkit"} == set(written["versions"])
        text = (tmp_path / "a" / "README.md").read_text()
        assert "toy" in text
        assert written["data"]["sha256"] in text
        files = {path.suffix for path in (tmp_path / "a").iterdir()}
        assert files == {".json", ".md", ".safetensors"}


class TestBadInput:
    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"rank": 0}, "rank is 0; expected at least 1"),
            ({"lr": 0.0}, "lr is 0.0; expected a positive number"),
            ({"epochs": -1}, "epochs is -1"),
            ({"steps": 0}, "steps is 0"),
            ({"warmup": 1.0}, "warmup is 1.0"),
            ({"token_budget": 0}, "token_budget is 0"),
            ({"contrastive_margin": 1.5}, "contrastive_margin is 1.5; expected -1 to 1"),
        ],
    )
    def test_settings(self, options: dict[str, Any], message: str) -> None:
        with pytest.raises(tk.ArgumentError, match=message):
            TrainingSettings(**options)

    def test_max_length_beyond_the_context(self, tmp_path: Path) -> None:
        with pytest.raises(tk.ArgumentError, match="max_length is 513; expected 2 to 512, the model's context"):
            train(
                tiny("llama"), chat_tokenizer(), toy_examples(), tmp_path / "a", settings=replace(FAST, max_length=513)
            )

    def test_a_claim_longer_than_the_context_is_cut(self, tmp_path: Path) -> None:
        long = "x" * 2000
        examples = [Example([{"role": "user", "content": long}], "No.", (long,))]
        report = train(tiny("llama"), chat_tokenizer(), examples, tmp_path / "a", settings=replace(FAST, steps=1))
        assert (report["data"]["cut"], report["data"]["tokens"]) == (1, 512)

    def test_a_model_with_an_adapter(self, tmp_path: Path) -> None:
        train(tiny("llama"), chat_tokenizer(), toy_examples(), tmp_path / "a", settings=FAST)
        adapted = tk.models.adapter.with_adapter(tiny("llama"), tmp_path / "a")
        with pytest.raises(tk.ArgumentError, match=r"already has an adapter; .* start="):
            train(adapted, chat_tokenizer(), toy_examples(), tmp_path / "b", settings=FAST)


@pytest.mark.slow
@pytest.mark.parametrize("bits", ["4bit", "8bit"])
def test_quantised(bits: Any, tmp_path: Path) -> None:
    """QLoRA: the loss falls over frozen 4- and 8-bit weights."""
    pytest.importorskip("bitsandbytes")
    chat_folder(tmp_path / "model")
    model, tokenizer = load(tmp_path / "model", quantization=bits)
    report = train(model, tokenizer, toy_examples(), tmp_path / "a", settings=replace(FAST, steps=40))
    assert sum(report["losses"][-5:]) < 0.6 * sum(report["losses"][:5])
