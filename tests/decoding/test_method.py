"""A decoder is a description: it is built once, use leaves it as it was, and text brings it back."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from dataclasses import is_dataclass
from typing import Any

import pytest
import torch
from torch import nn

import truthkit as tk
from tests.decoding.cases import CASES, Bench, tiny_bench
from tests.decoding.image_cases import Bench as ImageBench
from tests.decoding.image_cases import image_bench
from tests.each import each
from tests.tiny import tiny
from tests.tiny_vlm import picture, tiny_vlm
from truthkit.decoding.discovery import decoder_class, decoders
from truthkit.decoding.engine.registry import DECODERS, register
from truthkit.decoding.spec import parse_spec

SPECS = {
    "activation_decoding": "activation_decoding:layer=1,alpha=0.5,beta=0.2,norm=true",
    "adacad": "adacad:theta=0.3,beta=0.1",
    "agreement": "agreement:view=m3id,divergence=l1,threshold=0.25,agree=3.0,differ=0.5,beta=0.2",
    "apc": "apc:beta=0.25",
    "avisc": "avisc:layer_gamma=0.75,lam=0.5,masking_scheme=noise,seed=3",
    "cad": "cad:alpha=0.75,beta=0.2",
    "coiecd": "coiecd:alpha=0.5,form=paper",
    "contrastive_search": "contrastive_search:penalty_alpha=0.4,top_k=5",
    "deco": "deco:layers=0+2,alpha=0.5,top_p=0.8,top_k=5,norm=false",
    "dola": "dola:layers=0+2,beta=1e-05,norm=false",
    "entropy_gate": "entropy_gate:threshold=2.0",
    "exits_mean": "exits_mean:layers=0+2,share=0.4,norm=false,beta=0.2",
    "icd": "icd:amateur_prompt=lie, please, and be short,lam=0.5",
    "lol": "lol:amateur_prompt=lie,layers=low,dynamic=true,refocus=true,omega=0.75,gamma=-0.5",
    "m3id": "m3id:decay=0.05",
    "pai": "pai:alpha=0.5,gamma=2.0,layers=1+2",
    "when": "when:decoder=cad:alpha=2.0,detector=max_prob,threshold=0.5",
    "vista": "vista:strength=0.1,share=0.5,layers=1+2",
    "opera": "opera:scale_factor=25.0,threshold=10,num_attn_candidates=3,penalty_weights=0.5,num_beams=4",
    "ritual": "ritual:transform=crop+rotation,alpha=1.5,seed=7",
    "ritual_plus": "ritual_plus:transform=crop,beta=0.0,choice_prompt=Which? {options}",
    "sid": "sid:rank=3,layer=1,alpha=0.5",
    "sled": "sled:layers=high,evolution_rate=2.5,evolution_scale=75,steps=1,evolution_lower_bound=-50.0,norm=true",
    "top_n_sigma": "top_n_sigma:n=2.0",
    "vcd": "vcd:alpha=2.0,noise_step=300",
}


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return tiny_bench("llama", tmp_path_factory.mktemp("adapter"))


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> ImageBench:
    return image_bench("llava", tmp_path_factory.mktemp("adapter"))


def contents(value: Any, seen: set[int] | None = None) -> Iterator[Any]:
    """All that can be reached from a decoder, models and functions by their identity."""
    seen = set() if seen is None else seen
    if value is None or isinstance(value, str | int | float | bytes):
        yield value
    elif id(value) not in seen:
        seen.add(id(value))
        if isinstance(value, torch.Tensor):
            yield value.detach().flatten().tolist()
        elif isinstance(value, nn.Module) or inspect.isroutine(value) or isinstance(value, type):
            yield id(value)
        elif isinstance(value, Mapping):
            for key, one in value.items():
                yield from (str(key), *contents(one, seen))
        elif isinstance(value, list | tuple | set | frozenset):
            for one in sorted(value, key=id) if isinstance(value, set) else value:
                yield from contents(one, seen)
        elif is_dataclass(value) or (type(value).__module__ or "").startswith("truthkit"):
            yield from (type(value).__name__, *contents(vars(value), seen))
        else:
            yield id(value)


class TestUse:
    @pytest.mark.parametrize("name", ["icd-adapter", "icd-model-prompt", "lol-refocus", "dola-high", "cad"])
    def test_leaves_it_as_it_was(self, bench: Bench, name: str) -> None:
        """And it does the same again."""
        decoder = CASES[name].attached(bench, 4)
        before, said = list(contents(decoder)), []
        assert len(before) > 10
        for _ in range(2):
            with decoder as session:
                seen: list[torch.Tensor] = []
                session.observers.append(lambda _views, combined, seen=seen: seen.append(combined))
                said.append(bench.model.generate(**bench.rows(4), max_new_tokens=4, do_sample=False).tolist())
            assert len(seen) == 4
            assert list(contents(decoder)) == before
        assert said[0] == said[1]

    @pytest.mark.parametrize("make", [tk.RITUAL, tk.RITUALPlus])
    def test_notes_are_the_sessions(self, images: ImageBench, make: Any) -> None:
        decoder = make(images.model, images.tiny.processor, images=images.images(2)) + tk.VCD(images.model)
        before = list(contents(decoder))
        with decoder as first:
            images.model.generate(**images.inputs(2), max_new_tokens=2)
        with decoder as second:
            with pytest.raises(AttributeError, match="this session of Together has no 'chosen', nor a note of it"):
                _ = second.chosen
            images.model.generate(**images.inputs(2), max_new_tokens=2)
        assert list(contents(decoder)) == before
        assert first.notes == second.notes
        assert len(first.chosen) == 2

    def test_two_at_once(self, bench: Bench) -> None:
        decoder = CASES["dola-high"].attached(bench, 1)
        with decoder as session:
            with pytest.raises(tk.AttachError, match="DoLa cannot be attached"):
                decoder.__enter__()
            session.observers.append(lambda _views, _combined: None)
            bench.model.generate(**bench.rows(1), max_new_tokens=2)
        assert not bench.model._forward_hooks
        with decoder as again:
            assert again is not session
            assert not again.observers

    def test_cannot_be_changed(self, bench: Bench) -> None:
        decoder = tk.ICD(bench.model, amateur=bench.adapter)
        with pytest.raises(AttributeError, match=r"beta of ICD cannot be set: .*Build another one"):
            decoder.beta = 0.0
        with decoder as session, session.unconstrained():
            assert bench.model(**bench.rows(1)).logits.isfinite().all()
        with decoder:
            assert bench.model(**bench.rows(1)).logits.isneginf().any()


class TestText:
    """What it is written as is read back as the same."""

    @pytest.mark.parametrize("name", decoders())
    def test_round_trip(self, name: str, bench: Bench, images: ImageBench) -> None:
        spec = parse_spec(SPECS[name])
        with_images = decoder_class(name).sees_images or name == "agreement"
        model, processor = (images.model, images.tiny.processor) if with_images else (bench.model, bench.tokenizer)
        decoder: Any = spec.build(model, processor, context="once", images=[picture(20, 20, 1)])
        assert decoder.options == spec.options
        assert parse_spec(decoder.spec).options == spec.options
        assert decoder.spec == spec.text
        inside = ", ".join(f"{key}={value!r}" for key, value in spec.options.items())
        assert repr(decoder) == f"{type(decoder).__name__}(model, {inside})"

    @pytest.mark.parametrize("name", decoders())
    def test_nothing_is_said_of_defaults(self, name: str, bench: Bench, images: ImageBench) -> None:
        model, processor = bench.model, bench.tokenizer
        if parse_spec(name).needs_image or name == "agreement":  # whose view is an image's by default
            model, processor = images.model, images.tiny.processor
        decoder: Any = parse_spec(name).build(model, processor, context="once", images=[picture(20, 20, 1)])
        assert decoder.spec == name
        assert decoder.options == {}
        assert repr(decoder) == f"{type(decoder).__name__}(model)"

    @pytest.mark.parametrize("prompt", ["say, lam=3", "1+dola", 'say "no"', "one\nline"])
    def test_text_that_looks_like_more(self, bench: Bench, prompt: str) -> None:
        decoder = tk.ICD(bench.model, bench.tokenizer, amateur_prompt=prompt)
        assert parse_spec(decoder.spec).options == decoder.options == {"amateur_prompt": prompt}

    def test_sum(self, bench: Bench) -> None:
        """Of two of the same method, too."""
        both = tk.DoLa(bench.model, layers=[1]) + tk.DoLa(bench.model, layers=(2,), beta=0.3)
        assert both.spec == "dola:layers=1+dola:layers=2,beta=0.3"
        again: Any = parse_spec(both.spec).build(bench.model, bench.tokenizer)
        assert [one.options for one in again.decoders] == [{"layers": [1]}, {"layers": [2], "beta": 0.3}]
        assert repr(again) == "Together(DoLa(model, layers=[1]), DoLa(model, layers=[2], beta=0.3))"
        with both:
            said = bench.model.generate(**bench.rows(4), max_new_tokens=4, do_sample=False)
        with again:
            assert torch.equal(bench.model.generate(**bench.rows(4), max_new_tokens=4, do_sample=False), said)

    @pytest.mark.parametrize(
        ("make", "shown"),
        [
            (lambda b: tk.ICD(b.model, amateur=b.other), "'amateur' of decoder 'icd' is <LlamaForCausalLM>"),
            (lambda b: tk.ICD(b.model, b.tokenizer, amateur_prompt="None"), "'amateur_prompt' .* is 'None'"),
            (lambda b: tk.LOL(b.model, b.tokenizer, refocus="true"), "'refocus' .* is 'true'"),
            (lambda b: tk.DoLa(b.model) + tk.ICD(b.model, amateur=b.other), "'amateur' of decoder 'icd'"),
            (lambda b: tk.Together(tk.DoLa(b.model), tk.APC(b.model), beta=0.5), "beta=0.5 was given to Together"),
        ],
    )
    def test_what_cannot_be_written(self, bench: Bench, make: Any, shown: str) -> None:
        """Is named in the error, and marked where it is for the eye only."""
        decoder = make(bench)
        with pytest.raises(tk.ArgumentError, match=shown):
            _ = decoder.spec
        assert "object at 0x" not in repr(decoder)

    def test_function(self, images: ImageBench) -> None:
        def upside_down(image: Any) -> Any:
            return image

        decoder = tk.RITUAL(images.model, images.tiny.processor, images=images.images(1), transform=upside_down)
        assert repr(decoder) == "RITUAL(model, transform=<upside_down>)"
        with pytest.raises(tk.ArgumentError, match="'transform' of decoder 'ritual' is <upside_down>"):
            _ = decoder.spec


class TestNames:
    def test_of_a_class_of_ones_own(self, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
        """A `name` in the body is enough; a second definition of the class takes its place."""
        monkeypatch.setattr("truthkit.decoding.engine.registry.DECODERS", known := dict(DECODERS))

        def define() -> Any:
            class Half(tk.Decoder):
                name = "half"

                def __init__(self, model: Any, processor: Any = None, *, by: float = 2.0):
                    self.by = by
                    super().__init__(model)

                def combine(self, main: Any, *views: Any) -> torch.Tensor:
                    return main.logits / self.by

            return Half

        first = define()
        assert known["half"] is first
        assert define() is known["half"] is not first
        assert first(bench.model, by=4).spec == "half:by=4"

        unnamed = type("Unnamed", (first,), {})
        assert known["half"] is not unnamed
        with pytest.raises(tk.ArgumentError, match=r"decoder name 'dola' of .*Other is taken by .*DoLa; give it"):

            class Other(tk.Decoder):
                name = "dola"

    def test_without_one(self, bench: Bench) -> None:
        class Nameless(tk.Decoder):
            def combine(self, main: Any, *views: Any) -> torch.Tensor:
                return main.logits

        with pytest.raises(tk.ArgumentError, match="Nameless has no name to be written by"):
            _ = Nameless(bench.model).spec
        assert repr(Nameless(bench.model, beta=0.5)) == "Nameless(model, beta=0.5)"
        with pytest.raises(KeyError):
            register(Nameless)

    def test_images(self) -> None:
        seeing = {name for name in decoders() if decoder_class(name).sees_images}
        assert seeing == {"avisc", "m3id", "pai", "ritual", "ritual_plus", "sid", "vcd", "vista"}


PROCESSORS = sorted(name for name in tk.__all__ if name.endswith("LogitsProcessor"))


@each("name", PROCESSORS)
def test_signature_of_every_processor(name: str, images: ImageBench) -> None:
    """What a signature asks for is enough, and everything that it names is taken."""
    tiny_model = tiny_vlm("llava")
    model, processor = tiny_model.model, tiny_model.processor
    values = {"model": model, "processor": processor, "context": "once", "images": [picture(20, 20, 1)]}
    cls = getattr(tk, name)
    signature = inspect.signature(cls)
    positional: list[Any] = []
    required: dict[str, Any] = {}
    for key, one in signature.parameters.items():
        if one.kind is one.VAR_POSITIONAL:
            positional += [tk.VCD(model), tk.DoLa(model)]
        elif one.kind is one.POSITIONAL_OR_KEYWORD:  # a prompt-only amateur needs the processor
            positional.append(values[key])
        elif one.default is one.empty:
            required[key] = values[key]
    signature.bind(*positional, **required)
    if name in ("PAILogitsProcessor", "VISTALogitsProcessor"):  # which say why they cannot be
        with pytest.raises(tk.ModelError, match="acts inside the forward"):
            cls(*positional, **required)
        return
    cls(*positional, **required)
    optional = {
        key: values.get(key, one.default)
        for key, one in signature.parameters.items()
        if one.default is not one.empty and one.kind is one.KEYWORD_ONLY
    }
    cls(*positional, **required, **optional)
    names = [key for key, one in signature.parameters.items() if one.kind is one.POSITIONAL_OR_KEYWORD]
    assert names == ([] if name == "TogetherLogitsProcessor" else ["model", "processor"])


@each("name", decoders())
def test_places_of_every_decoder(name: str) -> None:
    """Model and processor by place, everything else by name."""
    kinds = {key: one.kind for key, one in inspect.signature(decoder_class(name)).parameters.items()}
    assert [key for key, kind in kinds.items() if kind is inspect.Parameter.POSITIONAL_OR_KEYWORD] == [
        "model",
        "processor",
    ]


def test_the_images_of_a_sum_can_be_given(images: ImageBench) -> None:
    """Where none of its parts holds them."""
    parts = tk.VCD(images.model), tk.APC(images.model, beta=0.2)
    with parts[0] + parts[1]:
        expected = images.model.generate(**images.inputs(2), max_new_tokens=3, do_sample=False)
    processor = tk.TogetherLogitsProcessor(*parts, processor=images.tiny.processor, images=images.images(2))
    said = images.model.generate(**images.inputs(2), max_new_tokens=3, do_sample=False, logits_processor=[processor])
    assert torch.equal(said, expected)


def test_text_models_refuse_image_methods_when_built() -> None:
    with pytest.raises(tk.ModelError, match="is a text-only model"):
        tk.VCD(tiny("llama"))
