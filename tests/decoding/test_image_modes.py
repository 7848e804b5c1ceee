"""What test_image_decoders.py leaves out: draws, costs, mixed batches, RITUAL+'s choice, other ways to call a model.

The oracle is the same.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

import truthkit as tk
from tests.decoding.image_cases import CASES, LIE, MODES, Bench, Row, choice, forward, image_bench
from tests.decoding.test_image_decoders import assert_same, decode, want
from tests.tiny_vlm import FAMILIES, picture, tiny_vlm
from truthkit.decoding.engine.processor import DecoderLogitsProcessor
from truthkit.decoding.engine.source import Source
from truthkit.images.transforms import content_seed, transformed

_BENCHES: dict[str, Bench] = {}


@pytest.fixture
def bench(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    family: str = request.param
    if family not in _BENCHES:
        _BENCHES[family] = image_bench(family, tmp_path_factory.mktemp("adapter"))
    return _BENCHES[family]


def on(*families: str) -> Any:
    """The test with a bench of each family."""
    return pytest.mark.parametrize("bench", families, indirect=True)


class TestNothingAdded:
    """Weights of 0 without a constraint: the model itself."""

    @on(*FAMILIES)
    def test_is_the_model_itself(self, bench: Bench) -> None:
        mode = list(MODES)[FAMILIES.index(bench.tiny.family) % len(MODES)]
        model, processor, images = bench.model, bench.tiny.processor, bench.images(3)
        plain = decode(model, bench.inputs(3), **MODES[mode])
        nothing = tk.RITUAL(model, processor, images=images, alpha=0, beta=0)
        faint = tk.VCD(model, alpha=0, beta=0)
        for decoder in (nothing, faint, tk.M3ID(model, processor, decay=0, beta=0), nothing + faint):
            with decoder:
                got = decode(model, bench.inputs(3), **MODES[mode])
            assert got.sequences.tolist() == plain.sequences.tolist()
            torch.testing.assert_close(torch.stack(got.logits), torch.stack(plain.logits), atol=2e-5, rtol=1e-5)

    @on("llava")
    def test_a_main_row_is_the_model_to_the_last_bit(self, bench: Bench) -> None:
        """One prompt: batches of one shape round alike."""
        seen: list[Any] = []
        decoder = tk.RITUAL(bench.model, bench.tiny.processor, images=bench.images(1), alpha=0, beta=0)
        with decoder as session:
            session.observers.append(lambda views, combined: seen.append((views[0].logits, combined)))
            decode(bench.model, bench.inputs(1))
        assert all(torch.equal(main, combined) for main, combined in seen)

    @on("llava", "qwen2_vl")
    def test_first_token_of_m3id_is_the_models_own(self, bench: Bench) -> None:
        plain = decode(bench.model, bench.inputs(3), max_new_tokens=1)
        with tk.M3ID(bench.model, bench.tiny.processor, beta=0):
            got = decode(bench.model, bench.inputs(3), max_new_tokens=1)
        torch.testing.assert_close(got.logits[0], plain.logits[0], atol=1e-5, rtol=1e-5)


class TestDraws:
    @on(*FAMILIES)
    def test_the_same_alone_and_in_a_batch(self, bench: Bench) -> None:
        """And as `transformed` draws from the image, the prompt's ids and the seed."""
        expected = []
        for row in bench.rows:
            ids = bench.made([row])["input_ids"][0].tolist()
            seeds = [content_seed(image, " ".join(map(str, ids)), 5) for image in row.images]
            expected.append([transformed(image, seed=s)[1] for image, s in zip(row.images, seeds, strict=True)])
        with tk.RITUAL(bench.model, bench.tiny.processor, images=bench.images(3), seed=5) as decoder:
            decode(bench.model, bench.inputs(3), max_new_tokens=1)
            assert decoder.chosen == expected
        for row, names in zip(bench.rows, expected, strict=True):
            with tk.RITUAL(bench.model, bench.tiny.processor, images=[list(row.images)], seed=5) as decoder:
                decode(bench.model, bench.made([row]), max_new_tokens=1)
                assert decoder.chosen == [names]

    @on("llava")
    def test_seed_and_prompt_count(self, bench: Bench) -> None:
        image = picture(40, 30, 1)
        drawn = set()
        for seed in range(12):
            with tk.RITUAL(bench.model, bench.tiny.processor, images=image, seed=seed) as decoder:
                decode(bench.model, bench.made([Row("{}what is this", (image,), "")]), max_new_tokens=1)
                drawn.add(decoder.chosen[0][0])
        assert len(drawn) >= 4
        rows = [Row(f"{{}}is it {number}", (image,), "") for number in range(12)]
        with tk.RITUAL(bench.model, bench.tiny.processor, images=[image] * 12) as decoder:
            decode(bench.model, bench.made(rows), max_new_tokens=1)
            assert len({name for (name,) in decoder.chosen}) >= 3

    @on("llava", "qwen2_vl")
    def test_one_prompt_takes_a_flat_list_of_its_images(self, bench: Bench) -> None:
        images = bench.images(1)[0]
        assert len(images) == 2
        with tk.RITUAL(bench.model, bench.tiny.processor, images=images) as decoder:
            got = decode(bench.model, bench.inputs(1))
            assert [len(names) for names in decoder.chosen] == [2]
        assert_same(got, want(bench, "ritual", 1, got.sequences))

    @on("llava")
    def test_function_of_ones_own(self, bench: Bench) -> None:
        def upside_down(image: Any) -> Any:
            return image.rotate(180)

        options = {"images": bench.images(3), "transform": upside_down}
        with tk.RITUAL(bench.model, bench.tiny.processor, **options) as decoder:
            got = decode(bench.model, bench.inputs(3), max_new_tokens=1)
            assert decoder.chosen == [["upside_down"] * len(row.images) for row in bench.rows]
        row = bench.rows[1]
        turned = bench.made([Row(row.text, (upside_down(row.images[0]),), "")])
        with torch.no_grad():
            main, other = (forward(bench.twin, view, [], ())[0][-1] for view in (bench.made([row]), turned))
        kept = got.logits[0][1].isfinite()
        torch.testing.assert_close(got.logits[0][1][kept], (main + 3 * other)[kept], atol=1e-4, rtol=1e-4)


def tower(model: Any) -> Any:
    """The vision tower."""
    names = ("vision_tower", "visual", "vision_model")
    parts = [getattr(owner, name, None) for owner in (model.base_model, model) for name in names]
    return next(part for part in parts if part is not None)


class Count:
    """How often the vision tower runs, and over how many pixels."""

    def __init__(self, model: Any):
        self.calls = self.pixels = 0
        self._handle = tower(model).register_forward_pre_hook(self._add, with_kwargs=True)

    def _add(self, _module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.calls += 1
        self.pixels += (args[0] if args else kwargs["pixel_values"]).numel()

    def __enter__(self) -> Count:
        return self

    def __exit__(self, *_exception: object) -> None:
        self._handle.remove()


class TestCost:
    """No image goes through the vision tower twice."""

    @on(*FAMILIES)
    def test_runs_of_the_vision_tower(self, bench: Bench) -> None:
        model, processor, images = bench.model, bench.tiny.processor, bench.images(3)
        with Count(model) as plain:
            decode(model, bench.inputs(3), **MODES["beams"], max_new_tokens=2)
        assert plain.calls == 1
        ritual, vcd = tk.RITUAL(model, processor, images=images), tk.VCD(model)
        m3id = tk.M3ID(model, processor)
        dola, icd = tk.DoLa(model, layers=[1, 2]), tk.ICD(model, processor, amateur_prompt=LIE)
        costs = [(ritual, 2), (vcd, 2), (m3id, 1), (dola, 1), (icd, 1), (ritual + vcd, 3), (ritual + m3id, 2)]
        for decoder, views in costs:
            with decoder, Count(model) as count:
                decode(model, bench.inputs(3), **MODES["beams"], max_new_tokens=2)
            assert count.calls == 1
            assert count.pixels == views * plain.pixels

    @on(*FAMILIES)
    def test_ritual_plus_does_not_see_an_image_twice(self, bench: Bench) -> None:
        """One run for the choice and the answer, one for the transformed images."""
        model, processor = bench.model, tiny_vlm(bench.tiny.family).processor
        with Count(model) as plain:
            decode(model, bench.inputs(3), max_new_tokens=1)
        for template in (None, "{% for m in messages %}Q {{ m['content'] }} A{% endfor %}"):
            processor.chat_template = template
            with tk.RITUALPlus(model, processor, images=bench.images(3)), Count(model) as count:
                decode(model, bench.inputs(3))
            assert count.calls == 2
            assert count.pixels == 2 * plain.pixels

    @on("llava")
    def test_logits_processor_sees_its_views_once(self, bench: Bench) -> None:
        processor = CASES["ritual"].processor(bench, 3)
        with Count(bench.model) as count:
            decode(bench.model, bench.inputs(3), logits_processor=[processor])
        assert count.calls == 2  # the model's own, and the transformed images


class TestRitualPlus:
    """The oracle asks the model by hand."""

    @on(*FAMILIES)
    def test_choice(self, bench: Bench) -> None:
        said = [bench.reply(row) for row in bench.rows]
        with tk.RITUALPlus(bench.model, bench.tiny.processor, images=bench.images(3)) as decoder:
            decode(bench.model, bench.inputs(3), max_new_tokens=1)
        assert decoder.replies == said
        assert decoder.fell_back == [choice(one) is None for one in said]
        for one, names in zip(said, decoder.chosen, strict=True):
            assert choice(one) is None or set(names) == {choice(one)}

    @on(*FAMILIES)
    def test_in_front_of_what_ends_the_turn(self, bench: Bench) -> None:
        """With a chat template, and then nothing that was read for the choice is read again where that is possible.
        Oracle: RITUAL with the transforms that were chosen."""
        processor = tiny_vlm(bench.tiny.family).processor
        processor.chat_template = "{% for m in messages %}Q {{ m['content'] }} A{% endfor %}"
        rows = [Row(f"{row.text} A", row.images, row.passage) for row in bench.rows]
        if bench.tiny.family == "paligemma":
            processor.chat_template += "\n"  # its processor ends each prompt with a new line
        inputs = bench.made(rows)
        with tk.RITUALPlus(bench.model, processor, images=bench.images(3)) as decoder:
            got = decode(bench.model, inputs)
        method: Any = decoder.decoder
        assert method._with_question([5, *method._ending])[-len(method._ending) :] == method._ending
        for i, (names, row) in enumerate(zip(decoder.chosen, rows, strict=True)):
            alone = {"images": [list(row.images)], "transform": "random" if decoder.fell_back[i] else names[0]}
            with tk.RITUAL(bench.twin, bench.tiny.processor, **alone):
                expected = decode(bench.twin, bench.made([row]))
            width = inputs["input_ids"].shape[1]
            new = expected.sequences[0, bench.made([row])["input_ids"].shape[1] :].tolist()
            assert got.sequences[i, width:].tolist() == new
            for mine, theirs in zip(got.logits, expected.logits, strict=True):
                torch.testing.assert_close(mine[i], theirs[0], atol=1e-4, rtol=1e-4)

    def test_parser(self) -> None:
        from truthkit.decoding.methods.ritual_plus import parse_choice
        from truthkit.images.transforms import TRANSFORMS

        named = {
            "4": "color_jitter",
            " 6. crop": "crop",
            "Number 2, the vertical flip": "vertical_flip",
            "10 or 3": "rotation",
            "0": None,
            "7": None,
            "": None,
            "I would choose the Gaussian blur.": "gaussian_blur",
            "vertical flip rather than horizontal flip": "vertical_flip",
            "horizontal_flip": "horizontal_flip",
            "Color-jitter": "color_jitter",
            "the image shows a cat": None,
            "2.5": "vertical_flip",
            "#1": "horizontal_flip",
        }
        assert {reply: parse_choice(reply, list(TRANSFORMS)) for reply in named} == named

    @on("llava")
    def test_falls_back_on_a_draw(self, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
        """For the prompts whose reply names none, as RITUAL draws."""
        said = ["5", "no idea", "crop, please"]
        monkeypatch.setattr(Source, "ask", lambda *_args: [[0], [1], [2]])
        monkeypatch.setattr(bench.tiny.processor.tokenizer, "decode", lambda ids, **_options: said[ids[0]])
        with tk.RITUALPlus(bench.model, bench.tiny.processor, images=bench.images(3)) as decoder:
            decode(bench.model, bench.inputs(3), max_new_tokens=1)
        with tk.RITUAL(bench.model, bench.tiny.processor, images=bench.images(3)) as drawn:
            decode(bench.model, bench.inputs(3), max_new_tokens=1)
        assert decoder.chosen == [["gaussian_blur"] * 2, drawn.chosen[1], ["crop"]]
        assert decoder.fell_back == [False, True, False]


class TestBatches:
    @pytest.mark.parametrize("name", ["ritual-plus", "vcd", "m3id"])
    @on("llava", "qwen2_vl", "idefics3", "internvl")
    def test_prompt_without_an_image_among_others(self, bench: Bench, name: str) -> None:
        """Its views are all alike, but that M3ID's is shorter by nothing."""
        rows = (bench.rows[1], Row("no picture here", (), ""), bench.rows[2], Row("nor here", (), ""))
        mixed = replace(bench, rows=rows, _of_prompt={}, _oracles={}, _replies={})
        with CASES[name].attached(mixed, 4):
            got = decode(bench.model, mixed.inputs(4))
        assert_same(got, want(mixed, name, 4, got.sequences))

    @pytest.mark.parametrize("name", ["icd-prompt", "icd-adapter", "dola"])
    @on("llava", "qwen2_vl", "gemma3")
    def test_prompts_of_text_alone(self, bench: Bench, name: str) -> None:
        """In both forms."""
        rows = (Row("what is it then", (), "then"), Row("where", (), "he"))
        text = replace(bench, rows=rows, _of_prompt={}, _oracles={})
        decoder = CASES[name].attached(text, 2)
        with decoder:
            got = decode(bench.model, text.inputs(2))
        assert_same(got, want(text, name, 2, got.sequences))
        processor = DecoderLogitsProcessor.__new__(DecoderLogitsProcessor)
        processor.follow(decoder, None, None)
        outside = decode(bench.model, text.inputs(2), logits_processor=[processor])
        assert outside.sequences.tolist() == got.sequences.tolist()

    @on("llava", "qwen2_5_vl", "idefics3")
    def test_one_generate_after_another(self, bench: Bench) -> None:
        """Other prompts, images, batch sizes and modes under one `with`."""
        with CASES["vcd"].attached(bench, 3):
            for batch, mode in [(3, "beams"), (1, "greedy"), (2, "sampling"), (3, "greedy")]:
                got = decode(bench.model, bench.inputs(batch), **MODES[mode])
                assert_same(got, want(bench, "vcd", batch, got.sequences, **MODES[mode]))

    @on("llava", "qwen2_vl")
    def test_one_processor_for_one_generate_after_another(self, bench: Bench) -> None:
        processor = CASES["ritual"].processor(bench, 3)
        for mode in ("greedy", "beams", "greedy"):
            got = decode(bench.model, bench.inputs(3), logits_processor=[processor], **MODES[mode])
            expected = want(bench, "ritual", 3, got.sequences, **MODES[mode])
            assert got.sequences.tolist() == expected.sequences.tolist()


class TestCalls:
    @pytest.mark.parametrize("name", ["m3id", "ritual+vcd", "icd-prompt"])
    @on("llava", "qwen2_vl", "gemma3")
    def test_forward_outside_of_generate(self, bench: Bench, name: str) -> None:
        """The scores behind the prompt are those of the first generated token."""
        with CASES[name].attached(bench, 3), torch.no_grad():
            logits = bench.model(**bench.inputs(3)).logits[:, -1]
        expected = want(bench, name, 3, bench.inputs(3)["input_ids"]).logits[0]
        torch.testing.assert_close(logits, expected, atol=1e-4, rtol=1e-4)

    @pytest.mark.parametrize("name", ["vcd", "ritual+m3id"])
    @on("llava", "qwen2_vl", "internvl")
    def test_prompt_lookup(self, bench: Bench, name: str) -> None:
        """Drafted tokens are checked several at a time; rejected ones leave no trace."""
        lone = replace(bench, rows=bench.rows[1:2], _oracles={})
        with CASES[name].attached(lone, 1):
            got = decode(bench.model, lone.inputs(1), max_new_tokens=10, prompt_lookup_num_tokens=4)
        expected = want(lone, name, 1, got.sequences, max_new_tokens=10)
        assert got.sequences.tolist() == expected.sequences.tolist()

    @pytest.mark.parametrize("name", ["ritual", "m3id"])
    @on("llava", "qwen2_vl", "instructblip")
    def test_wrapped_in_peft(self, bench: Bench, name: str) -> None:
        import peft

        tiny = tiny_vlm(bench.tiny.family)
        targets = r".*language_model\..*q_proj"
        wrapped = peft.get_peft_model(tiny.model, peft.LoraConfig(target_modules=targets))  # starts as no change
        with CASES[name].attached(bench, 3, wrapped):
            got = decode(wrapped, bench.inputs(3))
        assert_same(got, want(bench, name, 3, got.sequences))

    @on("llava", "qwen2_vl")
    def test_amateur_of_its_own_sees_the_images_too(self, bench: Bench) -> None:
        """Another image-text model, with its own vision tower."""
        other = tiny_vlm(bench.tiny.family, seed=3).model
        with tk.ICD(bench.model, bench.tiny.processor, amateur=other):
            got = decode(bench.model, bench.inputs(3))
        for i, row in enumerate(bench.rows):
            new = got.sequences[i, bench.inputs(3)["input_ids"].shape[1] :].tolist()
            with torch.no_grad():
                for t, logits in enumerate(got.logits):
                    main, amateur = (
                        forward(model, bench.made([row]), new[:t], ())[0][-1].log_softmax(-1)
                        for model in (bench.twin, other)
                    )
                    kept = logits[i].isfinite()
                    torch.testing.assert_close(logits[i][kept], (main - amateur)[kept], atol=1e-4, rtol=1e-4)

    @on("llava", "qwen2_vl", "gemma3")
    def test_returned_states(self, bench: Bench) -> None:
        """Hidden states are the main rows' own."""
        plain = decode(bench.model, bench.inputs(3), max_new_tokens=1, output_hidden_states=True)
        for name in ("ritual", "m3id"):
            with CASES[name].attached(bench, 3):
                got = decode(bench.model, bench.inputs(3), max_new_tokens=1, output_hidden_states=True)
            tokens = bench.inputs(3)["attention_mask"].bool()
            for mine, theirs in zip(got.hidden_states[0], plain.hidden_states[0], strict=True):
                torch.testing.assert_close(mine[tokens], theirs[tokens], atol=1e-4, rtol=1e-4)

    @pytest.mark.parametrize("name", ["ritual-plus", "vcd", "m3id"])
    @on("llava", "qwen2_5_vl")
    def test_bfloat16(self, bench: Bench, name: str) -> None:
        """Both forms run where the pixels come in another dtype than the processor's."""
        half = replace(bench, tiny=tiny_vlm(bench.tiny.family, dtype=torch.bfloat16))
        inputs = half.inputs(3)
        inputs["pixel_values"] = inputs["pixel_values"].bfloat16()
        with CASES[name].attached(half, 3):
            decode(half.model, inputs)
        decode(half.model, inputs, logits_processor=[CASES[name].processor(half, 3)])
