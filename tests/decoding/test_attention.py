"""Attention per view and row: what test_image_decoders.py leaves out of PAI, SID and AvisC, and the channel itself.

The oracle (`attention_oracle.py`) writes attention out, for whole rows without a cache.
"""

from __future__ import annotations

import math
import threading
from dataclasses import replace
from typing import Any

import pytest
import torch

import truthkit as tk
from tests.decoding.image_cases import CASES, MODES, Bench, Row, image_bench
from tests.decoding.test_image_decoders import assert_same, decode, want
from tests.each import each
from tests.tiny import tiny
from tests.tiny_vlm import tiny_vlm
from truthkit.hf.attention import Asked, Watch, asking
from truthkit.hf.ownership import Block
from truthkit.hf.sites import text_decoder

_BENCHES: dict[str, Bench] = {}
_METHODS = ("pai", "sid", "avisc")


@pytest.fixture
def bench(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    family = getattr(request, "param", "llava")
    if family not in _BENCHES:
        _BENCHES[family] = image_bench(family, tmp_path_factory.mktemp("adapter"))
    return _BENCHES[family]


def on(*families: str) -> Any:
    """The test with a bench of each family."""
    return pytest.mark.parametrize("bench", families, indirect=True)


class TestModes:
    @on("llava", "qwen2_vl")
    def test_prompt_lookup(self, bench: Bench) -> None:
        """Several drafted tokens are checked in one forward, each as if it were the last."""
        lone = replace(bench, rows=bench.rows[1:2], _of_prompt={}, _oracles={})
        for name in _METHODS:
            with CASES[name].attached(lone, 1):
                got = decode(bench.model, lone.inputs(1), max_new_tokens=10, prompt_lookup_num_tokens=4)
            expected = want(lone, name, 1, got.sequences, max_new_tokens=10)
            assert got.sequences.tolist() == expected.sequences.tolist()

    @on("llava", "gemma3")
    def test_forward_outside_of_generate(self, bench: Bench) -> None:
        """The scores behind the prompt are those of the first generated token."""
        for name in _METHODS:
            with CASES[name].attached(bench, 3), torch.no_grad():
                logits = bench.model(**bench.inputs(3)).logits[:, -1]
            expected = want(bench, name, 3, bench.inputs(3)["input_ids"]).logits[0]
            torch.testing.assert_close(logits, expected, atol=1e-4, rtol=1e-4)

    def test_positions_that_are_asked_for(self, bench: Bench) -> None:
        """A forward over prompt and answer, of which the answer's logits are wanted, scores as the loop does."""
        for name in ("pai", "sid"):
            with CASES[name].attached(bench, 3), torch.no_grad():
                got = decode(bench.model, bench.inputs(3))
                mask = torch.nn.functional.pad(bench.inputs(3)["attention_mask"], (0, 4), value=1)
                call = bench.inputs(3) | {"input_ids": got.sequences, "attention_mask": mask}
                for keep in (5, torch.arange(got.sequences.shape[1] - 5, got.sequences.shape[1])):
                    scores = bench.model(**call, logits_to_keep=keep).logits[:, :-1]
                    torch.testing.assert_close(scores, torch.stack(got.logits, dim=1), atol=1e-4, rtol=1e-4)

    def test_answers_of_different_lengths(self, bench: Bench) -> None:
        """In one forward, when somebody says where prompts end."""
        inputs, counts = bench.inputs(3), (4, 1, 2)
        lengths = inputs["attention_mask"].sum(dim=1).tolist()
        width = inputs["input_ids"].shape[1]
        for name in ("pai", "sid", "sid-early"):
            with CASES[name].attached(bench, 3) as session, torch.no_grad():
                got = decode(bench.model, inputs)
                ids = torch.stack([row.roll(4 - n) for row, n in zip(got.sequences, counts, strict=True)])
                mask = torch.nn.functional.pad(inputs["attention_mask"], (0, 4), value=1)
                mask = torch.stack([row.roll(4 - n) for row, n in zip(mask, counts, strict=True)])
                for row, n in enumerate(counts):
                    mask[row, : 4 - n] = 0
                positions = (mask.cumsum(dim=1) - 1).clamp_min(0)
                call = inputs | {"input_ids": ids, "attention_mask": mask, "position_ids": positions}
                with session.with_prompts(lengths):
                    scores = bench.model(**call, logits_to_keep=5).logits
            for row, n in enumerate(counts):
                expected = torch.stack([step[row] for step in got.logits[: n + 1]])[: min(n + 1, 4)]
                found = scores[row, 4 - n :][: len(expected)]
                torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
        assert width + 4 == ids.shape[1]

    @on("llava", "qwen2_vl")
    def test_prompt_without_an_image_among_others(self, bench: Bench) -> None:
        rows = (bench.rows[1], Row("no picture here", (), ""), bench.rows[2])
        mixed = replace(bench, rows=rows, _of_prompt={}, _oracles={})
        for name in ("pai", "sid"):
            with CASES[name].attached(mixed, 3):
                got = decode(bench.model, mixed.inputs(3))
            assert_same(got, want(mixed, name, 3, got.sequences))

    @on("llava", "qwen2_vl")
    def test_processors(self, bench: Bench) -> None:
        for name, mode in (("sid", "greedy"), ("sid", "beams"), ("avisc", "beams")):
            processor = CASES[name].processor(bench, 3, bench.inputs(3)["attention_mask"])
            got = decode(bench.model, bench.inputs(3), logits_processor=[processor], **MODES[mode])
            expected = want(bench, name, 3, got.sequences, **MODES[mode])
            assert got.sequences.tolist() == expected.sequences.tolist()

    def test_eager_attention(self, bench: Bench) -> None:
        """Its weights, which `generate` hands out, are the edited ones."""
        tiny_model = tiny_vlm("llava")
        tiny_model.model.set_attn_implementation("eager")
        eager = replace(bench, tiny=tiny_model)
        for name in _METHODS:
            with CASES[name].attached(eager, 3):
                got = decode(eager.model, eager.inputs(3), output_attentions=True)
            assert_same(got, want(bench, name, 3, got.sequences))
        with tk.PAI(eager.model, alpha=50.0, layers=[1]):
            raised = decode(eager.model, eager.inputs(1), output_attentions=True).attentions[-1]
        images = eager.inputs(1)["input_ids"][0] == eager.model.config.image_token_id
        shares = [float(layer[0, :, -1, : len(images)][:, images].sum(dim=-1).mean()) for layer in raised]
        assert shares[1] > 0.5 > shares[0]

    def test_with_other_blocks(self, bench: Bench) -> None:
        """Steering and another decoder's early exits act beside it, as they do alone."""
        hidden = bench.model.config.get_text_config().hidden_size
        steering = tk.Steering(bench.model, {1: torch.zeros(hidden)})
        with steering, CASES["pai"].attached(bench, 3):
            got = decode(bench.model, bench.inputs(3))
        assert_same(got, want(bench, "pai", 3, got.sequences))
        nothing = tk.PAI(bench.model, alpha=0, gamma=1, beta=0)
        with tk.SID(bench.model, rank=2) + tk.DoLa(bench.model, layers=[1, 2]) + nothing:
            got = decode(bench.model, bench.inputs(3))
        sid, dola = (want(bench, name, 3, got.sequences).logits[0] for name in ("sid", "dola"))
        plain = decode(bench.model, bench.inputs(3)).logits[0]
        kept = got.logits[0].isfinite() & sid.isfinite() & dola.isfinite()
        expected = sid + dola - plain
        torch.testing.assert_close(got.logits[0][kept], expected[kept], atol=1e-4, rtol=1e-4)

    def test_compiled_steps_fall_back(self, bench: Bench) -> None:
        from transformers import CompileConfig

        options = {"cache_implementation": "static", "compile_config": CompileConfig(fullgraph=False)}
        with (
            CASES["sid"].attached(bench, 3),
            pytest.warns(UserWarning, match="run uncompiled: SID edits attention"),
        ):
            got = decode(bench.model, bench.inputs(3), **options)
        assert_same(got, want(bench, "sid", 3, got.sequences))


class TestNothingAsked:
    def test_is_the_model_to_the_last_bit(self, bench: Bench) -> None:
        """A strength of 0 asks for nothing; a view that asks changes no bit of the others."""
        plain, with_sid, seen = tk.M3ID(bench.model, decay=0, beta=0), tk.SID(bench.model, rank=2), []
        for decoder in (plain, plain + with_sid):
            with decoder as session:
                session.observers.append(lambda views, _combined: seen.append(views[0].logits))
                decode(bench.model, bench.inputs(1), max_new_tokens=3)
        for one, other in zip(seen[:3], seen[3:], strict=True):
            torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)
        with tk.PAI(bench.model, alpha=0, gamma=1, beta=0):
            assert "asked" not in bench.model.config.get_text_config()._attn_implementation

    def test_leaves_no_trace(self, bench: Bench) -> None:
        config = bench.model.config.get_text_config()
        before = decode(bench.model, bench.inputs(3))
        for name in _METHODS:
            with CASES[name].attached(bench, 3):
                decode(bench.model, bench.inputs(3), max_new_tokens=2)
            assert config._attn_implementation == "sdpa"
        after = decode(bench.model, bench.inputs(3))
        assert all(torch.equal(one, other) for one, other in zip(before.logits, after.logits, strict=True))

    def test_other_threads_see_the_model(self, bench: Bench) -> None:
        before, found = decode(bench.model, bench.inputs(1)), []
        thread = threading.Thread(target=lambda: found.append(decode(bench.model, bench.inputs(1))))
        block = Block("test")

        class Loud:
            """Makes attention uniform."""

            def __init__(self) -> None:
                self.block = block

            def asked(self, _layer: int, _queries: int, _keys: int) -> list[Asked]:
                return [Asked(slice(None), slice(-1, None), scores=lambda scores, _rows: scores * 0)]

        with asking(text_decoder(bench.model), Loud()):
            thread.start()
            thread.join()
            changed = decode(bench.model, bench.inputs(1))
        torch.testing.assert_close(found[0].logits[-1], before.logits[-1], atol=1e-5, rtol=1e-5)
        assert not torch.allclose(changed.logits[-1], before.logits[-1], atol=1e-2)


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma2", "phi"])
def test_weights_are_those_of_eager_attention(family: str) -> None:
    """Also with grouped heads, soft-capping and padding."""
    model, eager = tiny(family), tiny(family, attn_implementation="eager")
    ids = torch.arange(3, 15).view(2, 6)
    mask = torch.tensor([[0, 0, 1, 1, 1, 1], [1] * 6])
    watch = Watch(Block("test"))
    with torch.no_grad(), asking(text_decoder(model), watch):
        logits = model(ids, attention_mask=mask).logits
    expected = eager(ids, attention_mask=mask, output_attentions=True)
    for layer, weights in enumerate(expected.attentions):
        torch.testing.assert_close(watch.last[layer][:, :, 0], weights[:, :, -1], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(logits[:, -1], expected.logits[:, -1], atol=1e-4, rtol=1e-4)


class TestBadInput:
    @each(
        ("make", "message"),
        [
            (lambda model: tk.PAI(model, alpha=-1), "alpha is -1"),
            (lambda model: tk.PAI(model, gamma=math.inf), "gamma is inf"),
            (lambda model: tk.PAI(model, layers=[]), "layers is empty"),
            (lambda model: tk.PAI(model, layers=[99]), "layers contains 99"),
            (lambda model: tk.SID(model, rank=0), "rank is 0"),
            (lambda model: tk.SID(model, layer=0), "layer is 0, the first block"),
            (lambda model: tk.SID(model, layer=99), "99, but this model has"),
            (lambda model: tk.AvisC(model, layer_gamma=0), "layer_gamma is 0; expected a share"),
            (lambda model: tk.AvisC(model, lam=math.nan), "lam is nan"),
            (lambda model: tk.AvisC(model, masking_scheme="twos"), "masking_scheme is 'twos'; expected one of 'zeros'"),
        ],
    )
    def test_arguments(self, bench: Bench, make: Any, message: str) -> None:
        with pytest.raises(tk.ArgumentError, match=message):
            make(bench.model)

    @pytest.mark.parametrize("method", [tk.PAI, tk.SID, tk.AvisC])
    def test_models(self, bench: Bench, monkeypatch: pytest.MonkeyPatch, method: Any) -> None:
        with pytest.raises(tk.ModelError, match=r"LlamaForCausalLM (is a text-only model|has no get_image_features)"):
            method(tiny("llama"))
        monkeypatch.setattr(bench.model.config.get_text_config(), "_attn_implementation", "flash_attention_2")
        with pytest.raises(
            tk.ModelError, match=r"'flash_attention_2', whose kernel shows no scores; load the model with"
        ):
            method(bench.model)

    def test_prompts_without_images(self, bench: Bench) -> None:
        text = {
            name: value for name, value in bench.made([Row("nothing to see", (), "")]).items() if "pixel" not in name
        }
        for method in (tk.PAI, tk.SID, tk.AvisC):
            with (
                method(bench.model),
                pytest.raises(tk.ArgumentError, match=r"no pixel_values|no prompt of .* holds one"),
            ):
                decode(bench.model, text)
        assert bench.model.config.get_text_config()._attn_implementation == "sdpa"

    def test_pai_is_no_processor(self, bench: Bench) -> None:
        with pytest.raises(tk.ModelError, match=r"PAI acts inside the forward .* use `with tk\.PAI"):
            tk.PAILogitsProcessor(bench.model)
        with pytest.raises(tk.ModelError, match="Together acts inside the forward"):
            tk.TogetherLogitsProcessor(tk.PAI(bench.model), tk.VCD(bench.model))
