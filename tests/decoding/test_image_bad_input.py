"""What cannot work with images is refused with a message that says what was found and the way out, and the model is as
it was before."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import truthkit as tk
from tests.decoding.image_cases import CASES, LIE, ROWS, Bench, Row, image_bench
from tests.decoding.oracle import save_adapter
from tests.decoding.test_image_decoders import decode
from tests.tiny import tiny
from tests.tiny_vlm import VOCAB, picture, tiny_vlm
from truthkit.images.transforms import TRANSFORMS

_BENCHES: dict[str, Bench] = {}


def on(*families: str) -> Any:
    """The test with a bench of each family."""
    return pytest.mark.parametrize("bench", families, indirect=True)


@pytest.fixture
def bench(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    family = getattr(request, "param", "llava")
    if family not in _BENCHES:
        _BENCHES[family] = image_bench(family, tmp_path_factory.mktemp("adapter"))
    return _BENCHES[family]


def snapshot(bench: Bench) -> dict[str, Any]:
    """Everything that attaching a decoder could leave behind: hooks, shadowed methods, and the output."""
    tokens = decode(bench.model, bench.inputs(3), max_new_tokens=3).sequences.tolist()
    state: dict[str, Any] = {"tokens": tokens}
    for name, module in bench.model.named_modules():
        hooks = [sorted(getattr(module, kind)) for kind in vars(module) if kind.endswith("_hooks")]
        mine = set(vars(module)) - {"_previous_max_cache_length"}  # generate's own note
        state[name] = (mine, hooks, module._compiled_call_impl)
    return state


@pytest.fixture
def clean(bench: Bench) -> Any:
    """The model is the same before and after the test."""
    before = snapshot(bench)
    yield
    assert snapshot(bench) == before


class TestArguments:
    """Refused when the decoder is made."""

    @pytest.mark.parametrize(
        ("make", "error", "message"),
        [
            (lambda b: tk.RITUAL(b.model, b.tiny.processor, images=None), tk.ArgumentError, "images is None"),
            (lambda b: tk.RITUAL(b.model, b.tiny.processor, images=[]), tk.ArgumentError, r"images is \[\]"),
            (lambda b: tk.RITUAL(b.model, b.tiny.processor, images=7), tk.ArgumentError, "images is 7; expected"),
            (lambda b: tk.RITUAL(b.model, b.tiny.processor, images=[7]), tk.ArgumentError, "an image is a int"),
            (
                lambda b: tk.RITUAL(b.model, b.tiny.processor, images="no.png"),
                tk.ArgumentError,
                r"no image file.*no\.png",
            ),
            (lambda b: tk.RITUAL(b.model, b.tiny.processor, images=b"GIF89a"), tk.ArgumentError, "damaged|no image"),
            (lambda b: tk.RITUAL(b.model, None, images=picture(9, 9)), tk.ArgumentError, "has no image processor"),
            (
                lambda b: tk.RITUAL(b.model, b.tiny.processor.tokenizer, images=picture(9, 9)),
                tk.ArgumentError,
                "has no image processor",
            ),
            (
                lambda b: tk.RITUAL(b.model, b.tiny.processor, images=picture(9, 9), transform="rotate"),
                tk.ArgumentError,
                r"no transform 'rotate' \(did you mean 'rotation'\?\)",
            ),
            (
                lambda b: tk.RITUAL(b.model, b.tiny.processor, images=picture(9, 9), transform=[]),
                tk.ArgumentError,
                r"transform is \[\]",
            ),
            (
                lambda b: tk.RITUAL(b.model, b.tiny.processor, images=picture(9, 9), transform=["crop", "no"]),
                tk.ArgumentError,
                "no transform 'no'",
            ),
            (
                lambda b: tk.RITUALPlus(b.model, b.tiny.processor, images=picture(9, 9), transform="spin"),
                tk.ArgumentError,
                "no transform 'spin'",
            ),
            (
                lambda b: tk.RITUALPlus(b.model, b.tiny.processor, images=picture(9, 9), choice_prompt="Which?"),
                tk.ArgumentError,
                r"no \{options\}",
            ),
            (
                lambda b: tk.RITUAL(b.model, b.tiny.processor, images=picture(9, 9), alpha=float("nan")),
                tk.ArgumentError,
                "alpha is nan",
            ),
            (
                lambda b: tk.RITUAL(b.model, b.tiny.processor, images=picture(9, 9), beta=2),
                tk.ArgumentError,
                "beta is 2",
            ),
            (lambda b: tk.VCD(b.model, noise_step=1000), tk.ArgumentError, "step is 1000"),
            (lambda b: tk.VCD(b.model, alpha="1"), tk.ArgumentError, "alpha is '1'"),
            (lambda b: tk.M3ID(b.model, decay=float("inf")), tk.ArgumentError, "decay is inf"),
            (
                lambda b: tk.VCD(b.model) + tk.VCD(tiny_vlm("llava").model),
                tk.ArgumentError,
                "built for the same model",
            ),
        ],
    )
    def test_constructor(
        self, bench: Bench, clean: None, make: Callable[[Bench], Any], error: type[Exception], message: str
    ) -> None:
        with pytest.raises(error, match=message):
            make(bench)

    @pytest.mark.parametrize(
        "make",
        [
            lambda model, processor: tk.RITUAL(model, processor, images=picture(9, 9)),
            lambda model, processor: tk.RITUALPlus(model, processor, images=picture(9, 9)),
            lambda model, _processor: tk.VCD(model),
            lambda model, processor: tk.M3ID(model, processor),
            lambda model, processor: tk.RITUALLogitsProcessor(model, processor, images=picture(9, 9)),
            lambda model, processor: tk.VCDLogitsProcessor(model, processor, images=picture(9, 9)),
        ],
    )
    def test_text_only_model(self, make: Any) -> None:
        with pytest.raises(tk.ModelError, match="LlamaForCausalLM is a text-only model"):
            make(tiny("llama"), tiny_vlm("llava").processor)

    def test_corrupt_file(self, bench: Bench, tmp_path: Path) -> None:
        path = tmp_path / "photo.png"
        picture(40, 30).save(path)
        whole = path.read_bytes()
        path.write_bytes(whole[: len(whole) // 2])
        with pytest.raises(tk.ArgumentError, match=r"photo\.png.*(damaged|cut short)"):
            tk.RITUAL(bench.model, bench.tiny.processor, images=str(path))
        path.write_bytes(b"no image at all")
        with pytest.raises(tk.ArgumentError, match=r"photo\.png"):
            tk.RITUAL(bench.model, bench.tiny.processor, images=[path])

    @on("llava", "idefics3", "instructblip")
    def test_adapter_that_changes_what_is_seen(self, bench: Bench, tmp_path: Path) -> None:
        """The views read one encoding of the images, so its part in the vision tower would be lost in silence."""
        model = tiny_vlm(bench.tiny.family).model
        folder = save_adapter(model, tmp_path, target_modules="all-linear")
        with pytest.raises(tk.ModelError, match=r"adapts the vision tower too \(.*Load it as a model of its own"):
            tk.ICD(bench.model, bench.tiny.processor, amateur=folder)


def ritual(bench: Bench, images: Any, **options: Any) -> tk.RITUAL:
    return tk.RITUAL(bench.model, bench.tiny.processor, images=images, **options)


class TestGenerate:
    """Refused when `generate` is called."""

    def refused(self, bench: Bench, decoder: Any, inputs: Any, error: type[Exception], message: str, **kw: Any) -> None:
        before = snapshot(bench)
        with decoder, pytest.raises(error, match=message):
            decode(bench.model, inputs, **kw)
        assert snapshot(bench) == before
        with CASES["vcd"].attached(bench, 3):  # and the next decoder works
            decode(bench.model, bench.inputs(3), max_new_tokens=1)

    @on("llava", "qwen2_vl", "instructblip")
    def test_fewer_images_than_prompts(self, bench: Bench) -> None:
        decoder = ritual(bench, bench.images(2))
        self.refused(bench, decoder, bench.inputs(3), tk.ArgumentError, "images of 2 prompts, but there are 3")

    @on("llava", "idefics3", "instructblip")
    def test_more_images_than_prompts(self, bench: Bench) -> None:
        decoder = ritual(bench, bench.images(3))
        self.refused(bench, decoder, bench.inputs(2), tk.ArgumentError, "images of 3 prompts, but there are 2")

    @on("llava", "llava_next", "qwen2_vl", "idefics3", "gemma3", "internvl")
    def test_a_prompt_with_fewer_images_than_it_had(self, bench: Bench) -> None:
        images = bench.images(3)
        images[0] = images[0][:1]
        self.refused(bench, ritual(bench, images), bench.inputs(3), tk.ArgumentError, "pass the very images")

    @on("llava", "llava_next", "qwen2_vl", "gemma3", "internvl")
    def test_a_prompt_with_more_images_than_it_had(self, bench: Bench) -> None:
        images = bench.images(3)
        images[1] = [*images[1], picture(30, 30)]
        self.refused(bench, ritual(bench, images), bench.inputs(3), tk.ArgumentError, "pass the very images")

    @on("llava_next", "qwen2_vl", "idefics3")
    def test_images_of_other_sizes(self, bench: Bench) -> None:
        images = bench.images(3)
        images[2] = [picture(28, 90)]
        self.refused(bench, ritual(bench, images), bench.inputs(3), tk.ArgumentError, "the very images|images make")

    @on("llava", "qwen2_vl", "idefics3")
    def test_pixels_missing(self, bench: Bench) -> None:
        inputs = {key: bench.inputs(3)[key] for key in ("input_ids", "attention_mask")}
        for name in ("ritual-plus", "vcd", "ritual+m3id"):
            decoder = CASES[name].attached(bench, 3)
            self.refused(bench, decoder, inputs, tk.ArgumentError, "compares images, but no pixel_values were given")
            with decoder, pytest.raises(tk.ArgumentError, match="given no pixel_values"):
                bench.model(**inputs)

    @on("llava", "qwen2_vl", "internvl", "idefics3")
    def test_more_pixels_than_placeholders(self, bench: Bench) -> None:
        inputs = bench.inputs(3)
        inputs["input_ids"], inputs["attention_mask"] = inputs["input_ids"][:2], inputs["attention_mask"][:2]
        if "mm_token_type_ids" in inputs:
            inputs["mm_token_type_ids"] = inputs["mm_token_type_ids"][:2]
        self.refused(bench, tk.VCD(bench.model), inputs, tk.ArgumentError, r"have room for .* image tokens, but the \d")

    @on("llava", "qwen2_vl", "gemma3")
    def test_fewer_pixels_than_placeholders(self, bench: Bench) -> None:
        inputs = bench.inputs(3)
        fewer = bench.inputs(2)
        inputs |= {key: fewer[key] for key in ("pixel_values", "image_grid_thw") if key in fewer}
        self.refused(bench, tk.VCD(bench.model), inputs, tk.ArgumentError, r"have room for .* image tokens, but the \d")

    @pytest.mark.parametrize(
        ("function", "message"),
        [
            (lambda image: image.convert("L"), r"returned an image of mode 'L'; expected an RGB .* image\.convert"),
            (lambda image: image.resize((5, 6)), r"returned an image of 5 x 6 pixels; expected .* image\.resize"),
            (lambda _image: None, "returned a NoneType; expected an RGB Pillow image"),
        ],
    )
    def test_transform_that_returns_something_else(self, bench: Bench, function: Any, message: str) -> None:
        decoder = ritual(bench, bench.images(3), transform=function)
        self.refused(bench, decoder, bench.inputs(3), tk.ArgumentError, message)

    def test_transform_that_goes_wrong_in_the_middle(self, bench: Bench) -> None:
        """Its own error comes through."""

        def fussy(image: Any) -> Any:
            if image.width == 64:
                raise ZeroDivisionError("64")
            return image

        before = snapshot(bench)
        with ritual(bench, bench.images(3), transform=fussy), pytest.raises(ZeroDivisionError):
            decode(bench.model, bench.inputs(3))
        assert snapshot(bench) == before

    def test_transform_that_returns_another_size_for_one_image(self, bench: Bench) -> None:
        def fussy(image: Any) -> Any:
            return image.resize((5, 5)) if image.width == 64 else image

        decoder = ritual(bench, bench.images(3), transform=fussy)
        self.refused(bench, decoder, bench.inputs(3), tk.ArgumentError, "'fussy' returned an image of 5 x 5 pixels")

    @on("llava", "qwen2_vl", "instructblip")
    def test_nothing_left_without_the_image(self, bench: Bench) -> None:
        ids = bench.inputs(1)["input_ids"]
        inputs = bench.made([bench.rows[1]])
        keep = inputs["input_ids"][0] >= 128
        for name in ("input_ids", "attention_mask", "mm_token_type_ids"):
            if name in inputs:
                inputs[name] = inputs[name][:, keep]
        assert inputs["input_ids"].shape[1] < ids.shape[1]
        decoder = tk.M3ID(bench.model, bench.tiny.processor)
        self.refused(bench, decoder, inputs, tk.ArgumentError, "a view's prompt is empty")

    @on("llava", "qwen2_vl")
    def test_chunked_prefill(self, bench: Bench) -> None:
        for name in ("ritual", "m3id", "dola"):
            decoder = CASES[name].attached(bench, 3)
            self.refused(
                bench, decoder, bench.inputs(3), tk.ArgumentError, "prefill_chunk_size=4 cannot", prefill_chunk_size=4
            )

    def test_videos(self) -> None:
        tiny_qwen = tiny_vlm("qwen2_vl")
        inputs = tiny_qwen.inputs([ROWS[1].text], [ROWS[1].images])
        inputs["pixel_values_videos"] = inputs["pixel_values"]
        with tk.VCD(tiny_qwen.model), pytest.raises(tk.ArgumentError, match="pixel_values_videos was given, but"):
            tiny_qwen.model.generate(**inputs, max_new_tokens=2)

    def test_features_that_somebody_else_encoded(self, bench: Bench) -> None:
        inputs = bench.inputs(1)
        features = bench.model.get_image_features(inputs.pop("pixel_values"), return_dict=True)
        with tk.VCD(bench.model), pytest.raises(tk.ArgumentError, match="mm_encoder_outputs was given, but"):
            bench.model.generate(**inputs, mm_encoder_outputs={"image": features}, max_new_tokens=2)

    @on("llava", "instructblip")
    def test_interrupted(self, bench: Bench) -> None:
        """An exception from inside the loop leaves nothing behind, neither in the model nor in the decoder."""
        before = snapshot(bench)

        def stop(_module: Any, _args: Any) -> None:
            raise KeyboardInterrupt

        for name in ("ritual", "ritual-plus", "m3id", "ritual+vcd"):
            decoder = CASES[name].attached(bench, 3)
            with decoder as session:
                block = bench.model.get_decoder().layers[1]
                handle = block.register_forward_pre_hook(stop)
                with pytest.raises(KeyboardInterrupt):
                    decode(bench.model, bench.inputs(3))
                handle.remove()
                assert not session._loop.main.images.ready
                assert not session._loop.main.laid_out
                decode(bench.model, bench.inputs(3), max_new_tokens=1)
            assert snapshot(bench) == before

    def test_two_at_once(self, bench: Bench, clean: None) -> None:
        """And the sum is named as the way to have both."""
        with CASES["ritual"].attached(bench, 3), pytest.raises(tk.AttachError, match="already runs under RITUAL"):
            CASES["vcd"].attached(bench, 3).__enter__()


class TestProcessors:
    """As an entry of `logits_processor=[...]`."""

    def refused(self, bench: Bench, processor: Any, inputs: Any, error: type[Exception], message: str) -> None:
        before = snapshot(bench)
        with pytest.raises(error, match=message):
            decode(bench.model, inputs, logits_processor=[processor])
        assert snapshot(bench) == before

    @pytest.mark.parametrize("make", [tk.VCDLogitsProcessor, tk.M3IDLogitsProcessor])
    @on("llava", "qwen2_vl")
    def test_images_missing(self, bench: Bench, make: Any) -> None:
        """M3ID needs none for its view without images."""
        processor = make(bench.model, bench.tiny.processor)
        if make is tk.M3IDLogitsProcessor:
            decode(bench.model, bench.inputs(3), logits_processor=[processor])
        else:
            self.refused(bench, processor, bench.inputs(3), tk.ArgumentError, r"images=\.\.\.")

    def test_blind_amateur(self, bench: Bench) -> None:
        """A text-only model of the same vocabulary would take placeholders for words."""
        blind = tiny("llama", vocab_size=VOCAB)
        message = "LlamaForCausalLM is a text-only model, but the prompts"
        with tk.ICD(bench.model, bench.tiny.processor, amateur=blind), pytest.raises(tk.ModelError, match=message):
            decode(bench.model, bench.inputs(3))
        options = {"amateur": blind, "images": bench.images(3)}
        processor = tk.ICDLogitsProcessor(bench.model, bench.tiny.processor, **options)
        self.refused(bench, processor, bench.inputs(3), tk.ModelError, message)
        processor = tk.ICDLogitsProcessor(bench.model, bench.tiny.processor, amateur=blind)
        self.refused(bench, processor, bench.inputs(3), tk.ArgumentError, r"holds images, .* as images=\.\.\.")

    @pytest.mark.parametrize("name", ["icd-prompt", "dola", "cad"])
    @on("llava", "qwen2_vl")
    def test_text_decoder_without_the_images_of_its_views(self, bench: Bench, name: str) -> None:
        options: dict[str, Any] = {
            "icd-prompt": {"amateur_prompt": LIE},
            "dola": {"layers": [1]},
            "cad": {"context": [row.passage for row in bench.rows]},
        }[name]
        form = {"icd-prompt": tk.ICDLogitsProcessor, "dola": tk.DoLaLogitsProcessor, "cad": tk.CADLogitsProcessor}
        processor = form[name](bench.model, bench.tiny.processor, **options)
        self.refused(bench, processor, bench.inputs(3), tk.ArgumentError, r"holds images, .* as images=\.\.\.")

    @on("llava", "qwen2_vl", "idefics3")
    def test_fewer_or_more_images(self, bench: Bench) -> None:
        for name in ("ritual", "vcd", "icd-prompt"):
            for given, asked in ((2, 3), (3, 2)):
                processor = CASES[name].processor(bench, given)
                message = f"images of {given} prompts, but there are {asked}|have room"
                self.refused(bench, processor, bench.inputs(asked), tk.ArgumentError, message)

    @on("instructblip")
    def test_instructblip(self, bench: Bench) -> None:
        """Its images are read in the light of the question, which a processor is not told. M3ID's view has none, and
        PAI is no processor."""
        for name in CASES.keys() - {"m3id", "pai", "pai+vcd"}:
            processor = CASES[name].processor(bench, 3)
            message = "in the light of the question.*context manager"
            self.refused(bench, processor, bench.inputs(3), tk.ModelError, message)

    def test_under_a_decoder(self, bench: Bench, clean: None) -> None:
        processor = CASES["vcd"].processor(bench, 3)
        with CASES["dola"].attached(bench, 3), pytest.raises(tk.AttachError, match="use one or the other"):
            decode(bench.model, bench.inputs(3), logits_processor=[processor])


def test_messages_name_all_transforms(bench: Bench) -> None:
    with pytest.raises(tk.ArgumentError) as info:
        ritual(bench, bench.images(3), transform="swirl")
    assert all(re.search(rf"\b{name}\b", str(info.value)) for name in TRANSFORMS)


def test_row_without_placeholders_is_no_error_for_the_text_decoders(bench: Bench) -> None:
    """A prompt without an image on an image-text model, in both forms."""
    inputs = {key: value for key, value in bench.made([Row("text alone", (), "")]).items() if "pixel" not in key}
    processor = tk.ICDLogitsProcessor(bench.model, bench.tiny.processor, amateur_prompt=LIE)
    outside = decode(bench.model, inputs, logits_processor=[processor]).sequences
    with tk.ICD(bench.model, bench.tiny.processor, amateur_prompt=LIE):
        assert decode(bench.model, inputs).sequences.tolist() == outside.tolist()
    assert isinstance(outside, torch.Tensor)
