"""What decoders and steering add to each token: no wait for the device in a `with` block, at most one in a processor.

The oracle is plain `generate` on the same prompts, with a count of what passes through torch on a CPU: operations after
which the host of a GPU has to wait for it are known by name.
"""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import pytest
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

import truthkit as tk
from tests.decoding.cases import ToyTokenizer
from tests.decoding.image_cases import image_bench
from tests.decoding.oracle import save_adapter
from tests.tiny import tiny
from truthkit.decoding.discovery import decoder_class, decoders
from truthkit.decoding.engine import nan_watch
from truthkit.decoding.engine.decoder import Decoder
from truthkit.decoding.spec import parameters

_WAITS = {
    "aten._local_scalar_dense.default",  # item, bool, int, float
    "aten.allclose.default",
    "aten.equal.default",
    "aten.is_nonzero.default",
    "aten.masked_select.default",
    "aten.nonzero.default",
    "aten.repeat_interleave.Tensor",
    "aten.unique_dim.default",
    "aten._unique2.default",
}
_READS = {"cpu", "numpy", "tolist"}
"""Methods of tensors that no operation comes of on a CPU."""
_NO_KERNEL = {"aten._unsafe_view.default", "aten.lift_fresh.default", "aten.new_empty.default"}
PASSAGE = "The tower is in Paris."


class _Operations(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.waits: Counter[str] = Counter()
        self.kernels = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = str(func)
        by_mask = name == "aten.index.Tensor" and any(i is not None and i.dtype == torch.bool for i in args[1])
        if name in _WAITS or by_mask:
            self.waits[name] += 1
        elif name not in _NO_KERNEL and not any(
            one.alias_info is not None and not one.alias_info.is_write for one in func._schema.returns
        ):
            self.kernels += 1
        return func(*args, **(kwargs or {}))


class _Reads(TorchFunctionMode):
    def __init__(self, operations: _Operations):
        super().__init__()
        self._operations = operations

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, name = kwargs or {}, getattr(func, "__name__", "")
        to_device = name == "new_tensor" or (name in {"tensor", "as_tensor"} and kwargs.get("device") is not None)
        if name in _READS or to_device or (name == "to" and "cpu" in args[1:]):
            self._operations.waits[name] += 1
        return func(*args, **kwargs)


def per_token(generate: Callable[[int], Any]) -> tuple[Counter[str], float]:
    """The waits of four more tokens, and the kernels of one of them."""
    counts = []
    for tokens in (5, 9):
        operations = _Operations()
        with operations, _Reads(operations):
            generate(tokens)
        counts.append(operations)
    short, long = counts
    return long.waits - short.waits, (long.kernels - short.kernels) / 4


@pytest.fixture(autouse=True)
def as_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nan_watch, "AT_ONCE", set())


@pytest.fixture
def model() -> Any:
    return tiny("llama", initializer_range=0.1)


@pytest.fixture
def adapter(tmp_path: Any) -> str:
    return save_adapter(tiny("llama", initializer_range=0.1), tmp_path, target_modules="all-linear")


def prompts(*texts: str) -> dict[str, torch.Tensor]:
    ids = [ToyTokenizer()(PASSAGE + text).input_ids for text in texts]
    width = max(map(len, ids))
    return {
        "input_ids": torch.tensor([[0] * (width - len(row)) + row for row in ids]),
        "attention_mask": torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in ids]),
    }


ALONE = prompts(" Where? ")
PADDED = prompts(" Where? ", " When was it built, then? ")


def run(
    model: Any,
    inputs: dict[str, Any],
    attach: Callable[[], AbstractContextManager[Any]] = nullcontext,
    processor: Callable[[], Any] | None = None,
    **options: Any,
) -> tuple[Counter[str], float]:
    def generate(tokens: int) -> None:
        given = {} if processor is None else {"logits_processor": [processor()]}
        with attach():
            model.generate(
                **inputs, **given, **options, min_new_tokens=tokens, max_new_tokens=tokens, do_sample=False,
                eos_token_id=127, pad_token_id=0,
            )  # fmt: skip

    return per_token(generate)


def options_of(name: str, adapter: str) -> dict[str, Any]:
    takes = parameters(name)
    return {
        **({"context": PASSAGE} if "context" in takes else {}),
        **({"amateur": adapter} if "amateur" in takes else {}),
        **({"refocus": True} if "refocus" in takes else {}),
        **({"view": "icd"} if "view" in takes else {}),
    }


def check(
    name: str,
    plain: Counter[str],
    model: Any,
    processor: Any,
    inputs: dict[str, Any],
    options: dict[str, Any],
    images: Any = None,
) -> None:
    """Both forms of one decoder; the second may wait once more at a token than plain `generate`."""
    cls = decoder_class(name)
    attached, _ = run(model, inputs, lambda: cls(model, processor, **options))
    assert attached.total() <= plain.total(), f"{name} waits for {attached - plain} in four tokens"
    form = getattr(tk, f"{cls.__name__}LogitsProcessor", None) if inputs is not ALONE else None
    if form is not None and name not in ("pai", "vista"):  # whose processor form says why it cannot be
        given = {**options, **({"images": images} if issubclass(cls, Decoder) and images is not None else {})}
        beside, _ = run(model, inputs, processor=lambda: form(model, processor, **given))
        assert beside.total() <= plain.total() + 4, f"{name} as a processor waits for {beside - plain} in four tokens"


def test_no_decoder_of_text_waits(model: Any, adapter: str) -> None:
    for inputs in (ALONE, PADDED):
        plain, _ = run(model, inputs)
        for name in (name for name, decoder in decoders().items() if not decoder.sees_images):
            if name == "opera":  # the host keeps its beams
                continue
            check(name, plain, model, ToyTokenizer(), inputs, options_of(name, adapter))


@pytest.mark.parametrize("family", ["llava", "qwen2_vl"])
def test_no_decoder_of_images_waits(family: str, tmp_path: Any) -> None:
    bench = image_bench(family, tmp_path)
    plain, _ = run(bench.model, bench.inputs(1))
    for name, decoder in decoders().items():
        if decoder.sees_images:
            images = bench.images(1)
            options = {"images": images} if "images" in inspect.signature(decoder_class(name)).parameters else {}
            check(name, plain, bench.model, bench.tiny.processor, bench.inputs(1), options, images)


def test_without_a_cache(model: Any, adapter: str) -> None:
    """All tokens are read anew each time, whose mask transformers looks at where there is padding."""
    plain, _ = run(model, PADDED, use_cache=False)
    for name in ("icd", "cad", "dola"):
        options = options_of(name, adapter)
        found, _ = run(model, ALONE, lambda name=name, options=options: decoder_class(name)(model, ToyTokenizer(), **options), use_cache=False)  # type: ignore[misc]  # fmt: skip  # noqa: E501
        assert found.total() <= plain.total(), f"{name} waits for {found - plain} in four tokens"


def test_steering_does_not_wait(model: Any) -> None:
    vector = torch.randn(model.config.hidden_size)
    plain, _ = run(model, PADDED)
    cases: list[dict[str, Any]] = [
        {"vectors": {1: vector}},
        {"vectors": {1: vector}, "strength": [1.0, 2.0]},
        {"vectors": {1: vector}, "strength": [1.0, 2.0], "mode": "project_out"},
        {"vectors": {1: torch.stack([vector, -vector])}, "positions": "generated"},
        {"vectors": {0: vector, 2: vector}, "positions": slice(3, 400)},
        {"vectors": {1: vector}, "where": tk.Cosine(vector, above=0.0)},
        {"vectors": {1: vector, 2: vector}, "where": tk.Cosine(vector, above=0.0, of="mean", layer=0)},
        {"vectors": {1: vector}, "where": (tk.Cosine(vector, above=0.0, of="last"), tk.Entropy(above=1.0))},
        {"vectors": {1: vector}, "mode": "angle", "plane": vector.flip(0)},
    ]
    for options in cases:
        found, _ = run(model, PADDED, lambda options=options: tk.Steering(model, **options))  # type: ignore[misc]
        assert found.total() <= plain.total(), f"{options} waits for {found - plain} in four tokens"


def test_kernels_of_conditions(model: Any) -> None:
    """Beyond greedy's, at one layer."""
    vector = torch.randn(model.config.hidden_size)
    _, plain = run(model, ALONE)
    for where, most in ((None, 1), (tk.Cosine(vector, above=0.0), 8), (tk.Entropy(above=1.0), 10)):
        steering = tk.Steering(model, {1: vector}, where=where)
        _, found = run(model, ALONE, lambda steering=steering: steering)  # type: ignore[misc]
        assert found - plain <= most, f"{where} adds {found - plain} kernels"


def test_kernels(model: Any, adapter: str) -> None:
    """Beyond greedy's on an unpadded prompt; padding of a second view makes no mask per token or layer."""
    tokenizer, layers = ToyTokenizer(), model.config.num_hidden_layers
    _, plain = run(model, ALONE)
    most = {
        "dola": (30, {}),
        "cad": (14, {"context": PASSAGE}),
        "icd": (11 * layers + 16, {"amateur": adapter}),  # 7 layers in 4 groups that read one input
        "contrastive_search": (20 + 4 * layers, {}),
    }
    for name, (count, options) in most.items():
        cls = decoder_class(name)
        _, found = run(model, ALONE, lambda cls=cls, options=options: cls(model, tokenizer, **options))  # type: ignore[misc]
        assert found - plain <= count, f"{name} adds {found - plain} kernels"
