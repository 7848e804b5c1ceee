"""Every decoder beside its oracle, and the ways to call `generate`; shared by the tests of this folder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

import truthkit as tk
from tests.decoding import oracle
from tests.decoding.oracle import Look, Oracle
from tests.tiny import VOCAB, padded_batch, tiny
from truthkit.decoding.engine.decoder import Decoder
from truthkit.decoding.engine.processor import DecoderLogitsProcessor

LIE, TRUTH = "lie now", "be exact"


class ToyTokenizer:
    """One token per ASCII character: id 1 begins a sequence, and the tiny models' ids 2 to 127 are text."""

    chat_template = None
    bos_token_id = 1

    def __call__(self, text: str, add_special_tokens: bool = True) -> Any:
        ids = [1] * add_special_tokens + [ord(char) for char in text]
        return type("Encoding", (), {"input_ids": ids})

    def decode(self, ids: Sequence[int], **_options: Any) -> str:
        return "".join(map(chr, ids))

    def get_vocab(self) -> dict[str, int]:
        return {chr(i): i for i in range(VOCAB)}


@dataclass
class Bench:
    """A model, what the decoders compare it with, prompts, and an independent account of what the views' prompts
    are."""

    model: Any
    tokenizer: Any
    adapter: str
    adapted: Any
    """A copy of the model with the adapter active through peft."""
    other: Any
    """A separate amateur of the same depth."""
    inputs: dict[str, torch.Tensor]
    """Prompts of different lengths, left-padded."""
    contexts: list[str]
    """For each prompt, a passage of it."""
    instructed: Callable[[str], Callable[[list[int]], list[int]]]
    without: Callable[[list[int]], list[int]]
    """A prompt without its passage."""
    layers: tuple[int, int]
    _oracles: dict[str, Oracle] = field(default_factory=dict)

    @property
    def tolerance(self) -> float:
        """For logits as `generate` returns them, in float32."""
        return 1e-5 if self.model.dtype == torch.float64 else 1e-4

    def oracle(self, case: Case) -> Oracle:
        """One for all tests of a case: it remembers the forwards that it has done."""
        return self._oracles.setdefault(case.name, case.expected(self))

    def rows(self, batch: int) -> dict[str, torch.Tensor]:
        """The first prompt alone and unpadded, or the first `batch` prompts."""
        ids, mask = (self.inputs[name][:batch] for name in ("input_ids", "attention_mask"))
        start = int(mask.any(dim=0).long().argmax())
        return {"input_ids": ids[:, start:], "attention_mask": mask[:, start:]}


@dataclass(frozen=True)
class Case:
    """A decoder with options, and the same as an oracle."""

    name: str
    decoder: str
    options: Callable[[Bench, int], dict[str, Any]]
    expected: Callable[[Bench], Oracle]

    def attached(self, bench: Bench, batch: int, model: Any = None) -> Decoder:
        decoder = getattr(tk, self.decoder)
        return decoder(bench.model if model is None else model, bench.tokenizer, **self.options(bench, batch))

    def processor(self, bench: Bench, batch: int, mask: torch.Tensor | None = None) -> DecoderLogitsProcessor:
        processor = getattr(tk, f"{self.decoder}LogitsProcessor")
        return processor(bench.model, bench.tokenizer, **self.options(bench, batch), attention_mask=mask)


def _case(
    name: str,
    decoder: str,
    formula: oracle.Formula,
    looks: Callable[[Bench], list[Look]] = lambda _bench: [],
    *,
    exits: Callable[[Bench], Sequence[int]] = lambda _bench: (),
    prompt_exit: Callable[[Bench], int] | None = None,
    normed: bool = True,
    **options: Any,
) -> Case:
    """`exits` and `prompt_exit` are the oracle's early exits, through the final norm unless `norm` among the options or
    `normed` says otherwise; options that are callables are called with (bench, batch)."""

    def make_options(bench: Bench, batch: int) -> dict[str, Any]:
        return {name: value(bench, batch) if callable(value) else value for name, value in options.items()}

    def make_oracle(bench: Bench) -> Oracle:
        of_prompt = None if prompt_exit is None else prompt_exit(bench)
        through = options.get("norm", normed)
        return Oracle(bench.model, looks(bench), formula, layers=exits(bench), norm=through, prompt_layer=of_prompt)

    return Case(name, decoder, make_options, make_oracle)


def _high(bench: Bench) -> list[int]:
    """transformers 4's "high": hidden states N/2, N/2 + 2, ... below N, of which number 0 is the embeddings."""
    count = bench.model.config.num_hidden_layers
    return [state - 1 for state in range(count // 2, count, 2)]


def _low(bench: Bench) -> list[int]:
    """Its "low", without the embeddings."""
    count = bench.model.config.num_hidden_layers
    return [state - 1 for state in range(2, count // 2, 2)] or [1]


def _of_deco(bench: Bench) -> list[int]:
    """Behind 20 to 28 of every 32 blocks."""
    count = bench.model.config.num_hidden_layers
    return sorted({share * count // 32 - 1 for share in range(20, 29)})


def _adapter(bench: Bench, _batch: int) -> str:
    return bench.adapter


def _other(bench: Bench, _batch: int) -> Any:
    return bench.other


def _some(bench: Bench, _batch: int) -> list[int]:
    """The second one counted from the end."""
    first, second = bench.layers
    return [first, second - bench.model.config.num_hidden_layers]


def _without(bench: Bench) -> list[Look]:
    return [Look(bench.model, bench.without)]


def _contexts(bench: Bench, batch: int) -> list[str]:
    return bench.contexts[:batch]


_ALL = [
    _case("icd-adapter", "ICD", oracle.icd(), lambda b: [Look(b.adapted)], amateur=_adapter),
    _case(
        "icd-prompt",
        "ICD",
        oracle.icd(lam=0.7, beta=0.05),
        lambda b: [Look(b.model, b.instructed(LIE))],
        amateur_prompt=LIE,
        lam=0.7,
        beta=0.05,
    ),
    _case(
        "icd-adapter-prompt",
        "ICD",
        oracle.icd(beta=0.0),
        lambda b: [Look(b.adapted, b.instructed(LIE))],
        amateur=_adapter,
        amateur_prompt=LIE,
        beta=0.0,
    ),
    _case("icd-model", "ICD", oracle.icd(), lambda b: [Look(b.other)], amateur=_other),
    _case(
        "icd-model-prompt",
        "ICD",
        oracle.icd(),
        lambda b: [Look(b.other, b.instructed(LIE))],
        amateur=_other,
        amateur_prompt=LIE,
    ),
    _case(
        "lol-static",
        "LOL",
        oracle.lol(omega=0.8, lam=0.6, beta=0.2),
        lambda b: [Look(b.adapted, layers=b.layers)],
        exits=lambda b: b.layers,
        amateur=_adapter,
        layers=_some,
        omega=0.8,
        lam=0.6,
        beta=0.2,
    ),
    _case(
        "lol-dynamic",
        "LOL",
        oracle.lol(dynamic=True),
        lambda b: [Look(b.adapted, layers=b.layers)],
        exits=lambda b: b.layers,
        amateur=_adapter,
        layers=_some,
        dynamic=True,
    ),
    _case(
        "lol-refocus",
        "LOL",
        oracle.lol(gamma=0.9),
        lambda b: [Look(b.model, b.instructed(LIE), layers=b.layers), Look(b.model, b.instructed(TRUTH))],
        exits=lambda b: b.layers,
        amateur_prompt=LIE,
        layers=_some,
        refocus=TRUTH,
        gamma=0.9,
    ),
    _case(
        "lol-adapter-refocus",
        "LOL",
        oracle.lol(beta=0.0),
        lambda b: [Look(b.adapted, layers=_high(b)), Look(b.model, b.instructed(TRUTH))],
        exits=_high,
        amateur=_adapter,
        refocus=TRUTH,
        beta=0.0,
    ),
    _case(
        "lol-model",
        "LOL",
        oracle.lol(),
        lambda b: [Look(b.other, layers=b.layers), Look(b.model, b.instructed(TRUTH))],
        exits=lambda b: b.layers,
        amateur=_other,
        layers=_some,
        refocus=TRUTH,
    ),
    _case("dola-high", "DoLa", oracle.dola(), exits=_high),
    _case("dola-low", "DoLa", oracle.dola(beta=0.0), exits=_low, layers="low", beta=0.0),
    _case("dola-list", "DoLa", oracle.dola(), exits=lambda b: b.layers, layers=_some),
    _case(
        "dola-no-norm",
        "DoLa",
        oracle.dola(),
        exits=lambda b: b.layers[:1],
        layers=lambda b, _n: b.layers[:1],
        norm=False,
    ),
    _case("cad", "CAD", oracle.cad(), _without, context=_contexts),
    _case(
        "cad-beta",
        "CAD",
        oracle.cad(alpha=1.0, beta=0.1),
        _without,
        context=_contexts,
        alpha=1.0,
        beta=0.1,
    ),
    _case("apc", "APC", oracle.cut_off(beta=0.2), beta=0.2),
    _case("sled", "SLED", oracle.sled(), exits=lambda b: range(b.model.config.num_hidden_layers - 1), norm=False),
    _case(
        "sled-options",
        "SLED",
        oracle.sled(rate=3.0, scale=4, steps=1, bound=-50.0),
        exits=lambda b: b.layers,
        layers=_some,
        evolution_rate=3.0,
        evolution_scale=4,
        steps=1,
        evolution_lower_bound=-50.0,
        norm=True,
    ),
    _case("deco", "DeCo", oracle.deco(), exits=_of_deco),
    _case("deco-options", "DeCo", oracle.deco(2.0, 0.6, 5), exits=_high, layers="high", alpha=2.0, top_p=0.6, top_k=5),
    _case("deco-of-all", "DeCo", oracle.deco(0.6, 1.0, 0), exits=_of_deco, top_p=1.0, top_k=0),
    _case("exits-mean", "ExitsMean", oracle.exits_mean(), exits=lambda b: (2,)),
    _case(
        "exits-mean-options", "ExitsMean", oracle.exits_mean(0.6, 0.1), exits=_high, layers="high", share=0.6, beta=0.1
    ),
    _case("adacad", "AdaCAD", oracle.adacad(), _without, context=_contexts),
    _case("adacad-theta", "AdaCAD", oracle.adacad(theta=0.4), _without, context=_contexts, theta=0.4),
    _case("coiecd", "COIECD", oracle.coiecd(), _without, context=_contexts),
    _case("coiecd-paper", "COIECD", oracle.coiecd(0.5, "paper"), _without, context=_contexts, alpha=0.5, form="paper"),
    _case(
        "agreement-js",
        "Agreement",
        oracle.agreement("js", 0.2, 4.0, 1.0),
        lambda b: [Look(b.adapted)],
        view=lambda b, _batch: tk.View("amateur", adapter=b.adapter),
        threshold=0.2,
    ),
    _case(
        "agreement-l1",
        "Agreement",
        oracle.agreement("l1", 0.9, 3.0, 0.5, 0.0),
        lambda b: [Look(b.adapted)],
        view=lambda b, _batch: tk.View("amateur", adapter=b.adapter),
        divergence="l1",
        threshold=0.9,
        agree=3.0,
        differ=0.5,
        beta=0.0,
    ),
    _case(
        "activation",
        "ActivationDecoding",
        oracle.activation_decoding(),
        prompt_exit=lambda b: round(0.75 * b.model.config.num_hidden_layers) - 1,
        normed=False,
    ),
    _case(
        "activation-options",
        "ActivationDecoding",
        oracle.activation_decoding(3.0, 0.01),
        prompt_exit=lambda b: b.layers[0],
        layer=lambda b, _batch: b.layers[0] - b.model.config.num_hidden_layers,
        alpha=3.0,
        beta=0.01,
        norm=True,
    ),
    _case("top-n-sigma", "TopNSigma", oracle.top_n_sigma(1.5), n=1.5),
    _case("entropy-gate", "EntropyGate", oracle.entropy_gate(2.0), threshold=2.0),
]

CASES: dict[str, Case] = {case.name: case for case in _ALL}

KINDS = {
    "prompt": "icd-prompt",
    "adapter": "icd-adapter",
    "model": "icd-model",
    "exit": "dola-high",
    "none": "apc",
    "all": "lol-adapter-refocus",
}
"""A case for each kind of view, and one that has views of several kinds. What the engine does depends on the kind, so
architectures, modes and caches are crossed with these; the other cases differ in their formulas."""

MODES: dict[str, dict[str, Any]] = {
    "greedy": {"do_sample": False},
    "sampling": {"do_sample": True, "temperature": 0.8, "top_k": 20, "top_p": 0.95},
    "several": {"do_sample": True, "top_k": 0, "num_return_sequences": 2},
    "beams": {"do_sample": False, "num_beams": 3, "num_return_sequences": 2},
    "beam-sampling": {"do_sample": True, "num_beams": 2, "top_k": 0, "temperature": 1.5},
}

CACHES: dict[str, dict[str, Any]] = {
    "dynamic": {},
    "static": {"cache_implementation": "static"},
    "none": {"use_cache": False},
}


def tiny_bench(family: str, folder: Any, lengths: Sequence[int] = (9, 21, 14, 5), **overrides: Any) -> Bench:
    """Prompts longer and shorter than the tiny models' sliding window of 16, with a passage cut out of the middle of
    each."""
    targets = (
        ["q_proj", "v_proj", "o_proj"] if family == "mixtral" else "all-linear"
    )  # its experts are no linear layers
    adapter = oracle.save_adapter(tiny(family, **overrides), folder, target_modules=targets)
    inputs = padded_batch(*lengths)
    prompts = [
        ids[mask.bool()].tolist() for ids, mask in zip(inputs["input_ids"], inputs["attention_mask"], strict=True)
    ]
    passages = {tuple(prompt): (len(prompt) // 4, len(prompt) // 2) for prompt in prompts}

    def without(prompt: list[int]) -> list[int]:
        start, stop = passages[tuple(prompt)]
        return prompt[:start] + prompt[stop:]

    def instructed(instruction: str) -> Callable[[list[int]], list[int]]:
        return lambda prompt: [ord(char) for char in f"{instruction}\n\n"] + prompt

    return Bench(
        model=tiny(family, **overrides),
        tokenizer=ToyTokenizer(),
        adapter=adapter,
        adapted=oracle.with_adapter(tiny(family, **overrides), adapter),
        other=tiny(family, seed=1, **overrides),
        inputs=inputs,
        contexts=["".join(map(chr, prompt[slice(*passages[tuple(prompt)])])) for prompt in prompts],
        instructed=instructed,
        without=without,
        layers=(1, 2),
    )
