"""Oracle: greedy decoding of each prompt alone, without cache or padding, with the change written out by hand."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

import truthkit as tk
from tests.activations.oracle import WHERE, block_list, right_padded, states, steered_tokens, unpadded
from tests.decoding.cases import ToyTokenizer
from tests.each import each
from tests.tiny import FAMILIES, padded_batch, tiny
from truthkit.activations.capture import Capture
from truthkit.activations.positions import Role, Text
from truthkit.errors import ArgumentError
from truthkit.hf.sites import head_features
from truthkit.steering import SteeringVector, stacked
from truthkit.text.tokens import padded

COUNT = 10
CACHES: dict[str, dict[str, Any]] = {
    "dynamic": {},
    "static": {"cache_implementation": "static"},
    "none": {"use_cache": False},
    "chunked prefill": {"prefill_chunk_size": 4},
}


def vectors(*layers: int, scale: float = 2.0) -> dict[int, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {layer: scale * torch.randn(48, generator=generator) for layer in layers}


def greedy(model: Any, batch: dict[str, torch.Tensor], **options: Any) -> list[list[int]]:
    output = model.generate(**batch, max_new_tokens=COUNT, do_sample=False, **options)
    return output[:, batch["input_ids"].shape[1] :].tolist()


def by_hand(
    model: Any,
    batch: dict[str, torch.Tensor],
    steered: dict[int, torch.Tensor],
    where: Any,
    likely: list[list[int]],
    change: Any = None,
) -> list[list[int]]:
    """The oracle's tokens for each row; `likely` are those that it may well choose."""
    rows = zip(unpadded(batch), likely, strict=True)
    return [steered_tokens(model, ids, steered, where, COUNT, change, likely=row) for ids, row in rows]


@pytest.mark.parametrize("family", FAMILIES)
def test_same_tokens_as_by_hand(family: str) -> None:
    model, batch, steered = tiny(family), padded_batch(5, 9, 3), vectors(1, 2, scale=6.0)
    plain = greedy(model, batch)
    for positions, where in WHERE.items():
        with tk.Steering(model, steered, positions=positions):
            found = greedy(model, batch)
        assert found == by_hand(model, batch, steered, where, found), positions
        assert found != plain, positions


@pytest.mark.parametrize("positions", sorted(WHERE))
@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma3_text"])
def test_every_cache(family: str, positions: str) -> None:
    model, batch, steered = tiny(family), padded_batch(5, 9), vectors(1, 2)
    with tk.Steering(model, steered, positions=positions):
        found = {cache: greedy(model, batch, **options) for cache, options in CACHES.items()}
    assert found == dict.fromkeys(CACHES, by_hand(model, batch, steered, WHERE[positions], found["none"]))


@pytest.mark.parametrize("positions", ["generated", "last"])
def test_prompt_lookup(positions: str) -> None:
    model, batch, steered = tiny("llama"), padded_batch(9), vectors(1)
    with tk.Steering(model, steered, positions=positions):
        found = greedy(model, batch, prompt_lookup_num_tokens=3)
    assert found == by_hand(model, batch, steered, WHERE[positions], found)


@pytest.mark.parametrize("positions", ["generated", "prompt", "all"])
def test_beams_and_per_row_values(positions: str) -> None:
    """Row i of a batch with its own vector and strength equals a run of its own, with all its beams."""
    model, batch = tiny("qwen2"), padded_batch(5, 9, 3)
    given = [SteeringVector(vectors(1), 4), None, SteeringVector(vectors(0, 2, scale=3.0), 4)]
    strength = [1.5, 1.0, -0.7]
    options: dict[str, Any] = {"num_beams": 3, "num_return_sequences": 2, "max_new_tokens": 8, "do_sample": False}
    with tk.Steering(model, stacked(given), strength=strength, positions=positions):
        together = model.generate(**batch, **options)[:, 9:]
    for row, (vector, s) in enumerate(zip(given, strength, strict=True)):
        ids = torch.tensor([unpadded(batch)[row]])
        if vector is None:
            alone = model.generate(ids, **options)
        else:
            with vector.steer(model, layers="all", strength=s, positions=positions):
                alone = model.generate(ids, **options)
        assert together[2 * row : 2 * row + 2].tolist() == alone[:, ids.shape[1] :].tolist()


def test_a_sweep_of_strengths_is_one_batch() -> None:
    model, prompt = tiny("llama"), padded_batch(6)
    steered, sweep = vectors(1), [0.0, 0.5, 1.0, 2.0]
    batch = {name: value.repeat(len(sweep), 1) for name, value in prompt.items()}
    with tk.Steering(model, steered, strength=sweep):
        rows = greedy(model, batch)
    for strength, row in zip(sweep, rows, strict=True):
        scaled = {layer: strength * v for layer, v in steered.items()}
        assert [row] == by_hand(model, prompt, scaled, WHERE["all"], [row])


def _rotated(h: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """By 0.4 radians, on an orthonormal basis of the plane."""
    u = v / v.norm()
    w = (h - (h @ u) * u) / (h - (h @ u) * u).norm()
    turned = math.acos(float(h @ u / h.norm())) - 0.4
    return h.norm() * (math.cos(turned) * u + math.sin(turned) * w) if turned > 0 else h.norm() * u


SECOND = torch.randn(48, generator=torch.Generator().manual_seed(2))


def _turned(h: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """2 radians from v, as far from the rest and from 0 as before, by the projection on the plane of v and `SECOND`."""
    basis = torch.stack([v, SECOND], dim=1)
    in_plane = basis @ torch.linalg.pinv(basis)
    u = v / v.norm()
    w = SECOND - (SECOND @ u) * u
    part = in_plane @ h
    return h - part + part.norm() * (math.cos(2.0) * u + math.sin(2.0) * w / w.norm())


STRENGTHS = {"relative": 0.3, "opposed": 0.3, "rotate": 0.4, "angle": 2.0, "scale": 2.5, "clamp": 2.5}
MODES = {
    "relative": lambda h, v: h + 0.3 * h.norm() * v / v.norm(),
    "opposed": lambda h, v: h + 0.3 * (1 + max(0.0, float(-h @ v / h.norm() / v.norm()))) * h.norm() * v / v.norm(),
    "rotate": _rotated,
    "angle": _turned,
    "project_out": lambda h, v: h - (h @ v) / (v @ v) * v,
    "scale": lambda h, v: h + (2.5 - 1) * (h @ v) / (v @ v) * v,
    "clamp": lambda h, v: h - (h @ v) / (v @ v) * v + 2.5 * v,
    "patch": lambda h, v: v,
}


@pytest.mark.parametrize("mode", sorted(MODES))
def test_modes(mode: str) -> None:
    model, batch, steered = tiny("mistral"), padded_batch(5, 9), vectors(1, 2)
    plane = SECOND if mode == "angle" else None
    with tk.Steering(model, steered, mode=mode, strength=STRENGTHS.get(mode, 1.0), plane=plane):
        found = greedy(model, batch)
    assert found == by_hand(model, batch, steered, WHERE["all"], found, MODES[mode])


def test_a_vector_finds_the_plane_of_angular_steering() -> None:
    """The second axis is the principal component of the layers' directions, and each prompt may have its own angle."""
    model, batch, vector = tiny("llama"), padded_batch(5, 9), SteeringVector(vectors(0, 1, 2), 4)
    units = torch.stack([vector[layer] / vector[layer].norm() for layer in vector]).double()
    spread = torch.cov(units.T, correction=0)
    axis, strongest = vector.principal_direction(), torch.linalg.eigh(spread).eigenvectors[:, -1]
    assert abs(float(axis.double() @ strongest)) == pytest.approx(1.0, abs=1e-6)
    with vector.steer(model, layers=[1], mode="angle", strength=[0.3, 4.0]):
        found = greedy(model, batch)
    for row, angle in enumerate((0.3, 4.0)):
        with tk.Steering(model, {1: vector[1]}, mode="angle", strength=angle, plane=axis):
            alone = greedy(model, {"input_ids": torch.tensor([unpadded(batch)[row]])})
        assert [found[row]] == alone


@each(
    "mode, layers, plane, message",
    [
        ("angle", None, None, "mode is 'angle' and plane not given"),
        ("add", None, SECOND, "mode is 'add' and plane given"),
        ("angle", None, -2 * vectors(1)[1], "plane is along the vector of layer 1"),
        ("angle", None, SECOND[:5], r"shape \(48,\)"),
        ("angle", None, {2: SECOND}, "plane has no direction for layer 1"),
        ("angle", [1], None, "no two layers whose directions differ"),
    ],
)
def test_planes_that_are_none(mode: str, layers: Any, plane: Any, message: str) -> None:
    model, vector = tiny("llama"), vectors(1)
    if layers is None:
        with pytest.raises(ArgumentError, match=message):
            tk.Steering(model, vector, mode=mode, plane=plane)
    else:
        with pytest.raises(ArgumentError, match=message):
            SteeringVector(vector, 4).steer(model, layers=layers, mode=mode)


def test_norms_are_kept_if_asked() -> None:
    model, batch, steered = tiny("llama"), padded_batch(5, 9), vectors(1)
    with tk.Steering(model, steered, keep_norm=True):
        found = greedy(model, batch)
    kept = by_hand(model, batch, steered, WHERE["all"], found, lambda h, v: (h + v) * h.norm() / (h + v).norm())
    assert found == kept


@pytest.mark.parametrize("family", FAMILIES)
def test_heads_and_mlp_move_the_block_output(family: str) -> None:
    """A vector added to the MLP's output reaches the block's; one added to the heads reaches it through the
    projection."""
    model, ids, vector = tiny(family), torch.arange(2, 12)[None], vectors(1)[1]
    post_norm = family in ("gemma2", "gemma3_text")
    for site in ("mlp", "heads"):
        with Capture(model, [1]) as plain, torch.no_grad():
            model(input_ids=ids)
        with tk.Steering(model, {1: vector}, site=site), Capture(model, [1]) as changed, torch.no_grad():
            model(input_ids=ids)
        assert not torch.allclose(plain[1], changed[1])
        if site == "mlp" and not post_norm:
            torch.testing.assert_close(changed[1], plain[1] + vector, rtol=1e-4, atol=1e-4)


def test_patching_one_head_from_another_run() -> None:
    """Run A with all heads of a layer from run B is A with B's attention output; one head alone changes that head
    only."""
    model = tiny("llama")
    run_a, run_b = torch.arange(2, 10)[None], torch.arange(30, 38)[None]
    with Capture(model, [1], site="heads") as recorded, torch.no_grad():
        model(input_ids=run_b)
    features = head_features(model, 2)
    patch = {1: recorded[1][None, :, features]}
    steering = tk.Steering(model, patch, mode="patch", site="heads", features=features)
    with steering, Capture(model, [1], site="heads") as after, torch.no_grad():
        patched = model(input_ids=run_a).logits
    with Capture(model, [1], site="heads") as before, torch.no_grad():
        plain = model(input_ids=run_a).logits
    expected = before[1].clone()
    expected[:, features] = recorded[1][:, features]
    torch.testing.assert_close(after[1], expected)
    assert not torch.allclose(patched, plain)


def test_right_padding_and_prompt_lengths_of_a_scoring_forward() -> None:
    model, batch, vector = tiny("llama"), right_padded(padded_batch(5, 9)), vectors(1)[1]
    with (
        tk.Steering(model, {1: vector}, positions="generated") as steering,
        Capture(model, [1]) as after,
        torch.no_grad(),
    ):
        steering.prompt_lengths = [3, 4]
        model(**batch)
    for row, (ids, prompt) in enumerate(zip(unpadded(batch), (3, 4), strict=True)):
        expected = states(model, ids, 1)
        expected[prompt:] += vector
        torch.testing.assert_close(after[1][after.rows == row], expected, rtol=1e-4, atol=1e-4)


def test_a_loop_of_ones_own() -> None:
    """Forwards with a cache, outside `generate`: tokens after the first forward's are generated."""
    model, batch, steered = tiny("llama"), padded_batch(7), vectors(1)
    expected = steered_tokens(model, unpadded(batch)[0], steered, WHERE["generated"], COUNT)
    tokens: list[int] = []
    ids, cache = batch["input_ids"], None
    with tk.Steering(model, steered, positions="generated"), torch.no_grad():
        for _ in range(COUNT):
            output = model(input_ids=ids, cache=cache, use_cache=True)
            cache, ids = output.cache, output.logits[:, -1:].argmax(-1)
            tokens.append(int(ids))
    assert tokens == expected


@pytest.mark.parametrize("options", [{"prefill_chunk_size": 4}, {"num_beams": 3}, {"cache_implementation": "static"}])
def test_passages_wherever_they_stand(options: dict[str, Any]) -> None:
    """The same as when the passage's columns are named by number; it begins after the first chunk of a prefill."""
    model, texts = tiny("llama"), ("so, where is it?", "and where is it?")
    rows = [ToyTokenizer()(text).input_ids for text in texts]
    batch = {"input_ids": torch.tensor(rows), "attention_mask": torch.ones(2, len(rows[0]), dtype=torch.long)}
    batch["attention_mask"][0, 0], batch["input_ids"][0, 0] = 0, 0
    start, more = texts[0].index("where") + 1, {"max_new_tokens": COUNT, "do_sample": False, **options}

    def columns(tokens: Any) -> torch.Tensor:
        at = tokens.number + torch.tensor([[1], [0]]).repeat_interleave(len(tokens.number) // 2, dim=0)
        return (at >= start) & (at < start + 5)

    with tk.Steering(model, vectors(1, scale=6.0), positions=columns):
        expected = model.generate(**batch, **more)
    with tk.Steering(model, vectors(1, scale=6.0), positions=Text("where"), processor=ToyTokenizer()):
        assert model.generate(**batch, **more).tolist() == expected.tolist()
    assert model.generate(**batch, **more).tolist() != expected.tolist()


def test_roles_under_generate(smollm2: Any) -> None:
    """Only the user's words are steered: the same states as when their columns are named by number."""
    model, tokenizer = smollm2
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Name a colour."}]
    inputs = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    ids = inputs["input_ids"][0].tolist()
    words = tokenizer("Name a colour.", add_special_tokens=False).input_ids
    start = next(i for i in range(len(ids)) if ids[i : i + len(words)] == words)
    vector = {10: torch.randn(576)}
    with tk.Steering(model, vector, positions=slice(start, start + len(words))):
        expected = model.generate(**inputs, max_new_tokens=4, do_sample=False)
    with tk.Steering(model, vector, positions=Role("user"), processor=tokenizer):
        assert model.generate(**inputs, max_new_tokens=4, do_sample=False).tolist() == expected.tolist()


# -- with decoders -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", ["decoder first", "steering first", "processor"])
@pytest.mark.parametrize("positions", ["all", "generated", "last"])
def test_every_view_of_a_decoder_is_steered(positions: str, order: str) -> None:
    """Oracle: ICD's formula over two steered models run apart, each with its own prompt; the amateur's prompt is
    longer."""
    model, batch, steered, lie = tiny("llama"), padded_batch(5, 9), vectors(1), "lie now"
    decoder = tk.ICD(model, ToyTokenizer(), amateur_prompt=lie, beta=0.1)
    steering = tk.Steering(model, steered, positions=positions)
    if order == "processor":
        processor = tk.ICDLogitsProcessor(model, ToyTokenizer(), amateur_prompt=lie, beta=0.1)
        with steering:
            together = greedy(model, batch, logits_processor=[processor])
    else:
        first, second = (decoder, steering) if order == "decoder first" else (steering, decoder)
        with first, second:
            together = greedy(model, batch)
    prefix = [ord(char) for char in f"{lie}\n\n"]
    for ids, row in zip(unpadded(batch), together, strict=True):
        main = _steered_log_p(model, ids, row, steered, positions)
        amateur = _steered_log_p(model, prefix + ids, row, steered, positions)
        scores = main - amateur
        scores[main < main.amax(-1, keepdim=True) + math.log(0.1)] = -torch.inf
        assert scores.argmax(-1).tolist() == row


def test_a_short_view_that_reads_its_prompt_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """CAD's second view lacks a long passage; its rows join the others behind the prompts. One strength per prompt."""
    draw = torch.Generator().manual_seed(3)
    passages = [torch.randint(33, 120, (80,), generator=draw).tolist() for _ in range(2)]
    questions = [torch.randint(33, 120, (length,), generator=draw).tolist() for length in (5, 9)]
    prompts = [passage + question for passage, question in zip(passages, questions, strict=True)]
    ids, mask = padded(prompts, side="left")
    model, steered, seen = tiny("llama"), vectors(1), list[Any]()
    decoder = tk.CAD(model, ToyTokenizer(), context=["".join(map(chr, one)) for one in passages])
    steering = tk.Steering(model, steered, strength=[1.0, 3.0], positions=slice(-3, None))
    with decoder, steering:
        monkeypatch.setattr(steering._tracker, "observer", lambda begin=steering._begin_forward: begin() or note())

        def note() -> None:
            seen.append((steering._tracker.tokens.given.flatten().tolist(), steering._tracker.item.tolist()))

        found = greedy(model, {"input_ids": ids, "attention_mask": mask})
    assert seen[:2] == [([5, 9], [0, 1]), ([85, 89], [0, 1])]
    assert seen[2:] == [([85, 89, 5, 9], [0, 1, 0, 1])] * (COUNT - 1)
    monkeypatch.setitem(WHERE, "tail", lambda prompt, _length: range(prompt - 3, prompt))
    for prompt, question, strength, row in zip(prompts, questions, (1.0, 3.0), found, strict=True):
        scaled = {1: strength * steered[1]}
        whole, without = (_steered_log_p(model, one, row, scaled, "tail") for one in (prompt, question))
        assert row == (1.5 * whole - 0.5 * without).argmax(-1).tolist()


def _steered_log_p(
    model: Any, prompt: list[int], text: list[int], steered: dict[int, torch.Tensor], positions: str
) -> torch.Tensor:
    """For each token of a text what came before it says, shape (tokens, vocabulary), from one forward."""

    def edit(_module: Any, _args: Any, output: torch.Tensor) -> torch.Tensor:
        changed = output.clone()
        for at in WHERE[positions](len(prompt), len(prompt) + len(text)):
            changed[0, at] += steered[1]
        return changed

    handle = block_list(model)[1].register_forward_hook(edit)
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([prompt + text]), use_cache=False).logits[0]
    handle.remove()
    return logits[len(prompt) - 1 : -1].double().log_softmax(-1)


def test_with_contrastive_search() -> None:
    """Adding a constant everywhere is what baking does: both give the same tokens."""
    model, batch, vector = tiny("llama"), padded_batch(7), vectors(1)
    options: dict[str, Any] = {"custom_generate": tk.contrastive_search, "penalty_alpha": 0.6, "top_k": 4}
    with tk.Steering(model, vector):
        steered = greedy(model, batch, **options)
    with SteeringVector(vector, 4).bake(model):
        assert greedy(model, batch, **options) == steered
    assert greedy(model, batch, **options) != steered


@pytest.mark.parametrize("positions", ["generated", "last", "prompt"])
def test_candidates_of_contrastive_search_are_steered_as_the_tokens_they_may_become(positions: str) -> None:
    """The tree of candidates in one row, against the processor form, which runs one row for each."""
    model, batch = tiny("llama"), padded_batch(5, 9)
    processor = tk.ContrastiveSearchLogitsProcessor(model, top_k=4, attention_mask=batch["attention_mask"])
    with tk.Steering(model, vectors(1), positions=positions):
        tree = greedy(model, batch, custom_generate=tk.contrastive_search, penalty_alpha=0.6, top_k=4)
        assert greedy(model, batch, logits_processor=[processor]) == tree


# -- compiled models ---------------------------------------------------------------------------------------------------


@pytest.fixture
def _fresh_dynamo() -> Any:
    torch.compiler.reset()
    yield
    torch.compiler.reset()


@pytest.mark.usefixtures("_fresh_dynamo")
def test_compiled_inside_the_block_steers_and_stops_steering_after_it() -> None:
    model, ids, vector = tiny("llama"), torch.arange(2, 10)[None], vectors(1)
    with torch.no_grad():
        plain = model(input_ids=ids).logits
        with tk.Steering(model, vector):
            eager = model(input_ids=ids).logits
            compiled = torch.compile(model, backend="eager")
            torch.testing.assert_close(compiled(input_ids=ids).logits, eager, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(compiled(input_ids=ids).logits, plain, rtol=1e-4, atol=1e-4)


@each("how", ["wrapped", "in place", "one block"])
@pytest.mark.usefixtures("_fresh_dynamo")
def test_a_compiled_model_is_steered_uncompiled(how: str) -> None:
    """Code that was compiled before would pass the hooks by."""
    model: Any = tiny("llama")
    ids, vector = torch.arange(2, 10)[None], vectors(1)
    with torch.no_grad():
        with tk.Steering(model, vector):
            want = model(input_ids=ids).logits
        if how == "wrapped":
            model = torch.compile(model, backend="eager")
        elif how == "in place":
            model.compile(backend="eager")
        else:
            model.model.layers[1].compile(backend="eager")
        model(input_ids=ids)
        with pytest.warns(UserWarning, match="this model is compiled"), tk.Steering(model, vector):
            torch.testing.assert_close(model(input_ids=ids).logits, want)
        with pytest.warns(UserWarning, match="this model is compiled"), Capture(model) as capture:
            model(input_ids=ids)
    assert len(capture[1]) == 8


# -- bad input, and a clean model afterwards ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "options", "message"),
    [
        ({4: torch.ones(48)}, {}, "4 decoder blocks"),
        ({}, {}, "layers is empty"),
        ({1: torch.ones(47)}, {}, "48 features"),
        ({1: torch.full((48,), torch.nan)}, {}, "not finite"),
        ({1: torch.ones(2, 3, 48)}, {}, "a vector per token"),
        ({1: torch.ones(48)}, {"strength": float("inf")}, "strength is inf"),
        ({1: torch.ones(48)}, {"strength": []}, r"strength is \[\]"),
        ({1: torch.ones(2, 48)}, {"strength": [1.0, 2.0, 3.0]}, "differ in number"),
        ({1: torch.ones(48)}, {"mode": "ad"}, "mode is 'ad'"),
        ({1: torch.ones(48), -3: torch.ones(48)}, {}, "two are the same block"),
        ({1: torch.ones(48)}, {"positions": "end"}, "positions contains 'end'"),
    ],
)
def test_bad_values(given: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(tk.ArgumentError, match=message):
        tk.Steering(tiny("llama"), given, **options)


def test_wrong_number_of_items_and_continuous_batching() -> None:
    model, batch = tiny("llama"), padded_batch(5, 9)
    with tk.Steering(model, vectors(1), strength=[1.0, 2.0, 3.0]):
        with pytest.raises(tk.ArgumentError, match="given for 3 items, but the batch has 2"):
            greedy(model, batch)
        with pytest.raises(tk.ModelError, match="continuous batching"):
            model.generate_batch([[1, 2]])
    with tk.Steering(model, vectors(1), positions="generated") as steering:
        steering.prompt_lengths = [2]
        with pytest.raises(tk.ArgumentError, match="prompt_lengths has 1 entries"):
            model(**batch)


def test_the_model_is_as_it_was() -> None:
    model, batch = tiny("llama"), padded_batch(5)
    hooks = sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())
    before, attributes = greedy(model, batch), set(vars(model))
    with tk.Steering(model, vectors(1)), tk.Steering(model, vectors(2)):
        assert greedy(model, batch) != before
    with pytest.raises(KeyboardInterrupt), tk.Steering(model, vectors(1)):
        raise KeyboardInterrupt
    assert greedy(model, batch) == before
    assert set(vars(model)) == attributes
    assert sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()) == hooks


@pytest.mark.parametrize("family", ["mamba", "mamba2", "falcon_mamba"])
def test_models_whose_cache_has_no_length(family: str) -> None:
    """Oracle: a plain forward over everything for each token, without cache; states likewise."""
    from transformers import AutoConfig, AutoModelForCausalLM

    sizes = {"head_dim": 16, "num_heads": 4, "n_groups": 1, "chunk_size": 8} if family == "mamba2" else {}
    options: dict[str, Any] = {"vocab_size": 128, "hidden_size": 32, "state_size": 8, "num_hidden_layers": 4, **sizes}
    torch.manual_seed(0)
    config = AutoConfig.for_model(family, pad_token_id=0, bos_token_id=1, eos_token_id=None, **options)
    model = AutoModelForCausalLM.from_config(config).eval()
    ids, mask = torch.randint(2, 128, (2, 7)), torch.ones(2, 7, dtype=torch.long)
    ids[1, :3] = mask[1, :3] = 0
    vector = {1: 5 * torch.randn(32)}
    for positions in ("all", "prompt", "generated", (1, "generated"), slice(0, 3)):
        with tk.Steering(model, vector, positions=positions), tk.Capture(model, [2], positions="generated") as read:
            found = model.generate(ids, attention_mask=mask, max_new_tokens=5, do_sample=False)
        text, real = ids, mask
        for step in range(5):
            steering = tk.Steering(model, vector, positions=positions)
            steering.prompt_lengths = [7, 4]
            with torch.no_grad(), steering, tk.Capture(model, [2], positions=-1) as last:
                logits = model(input_ids=text, attention_mask=real, use_cache=False).logits[:, -1]
            if step:
                torch.testing.assert_close(read[2][2 * step - 2 : 2 * step], last[2], rtol=1e-4, atol=1e-4)
            text = torch.cat([text, logits.argmax(-1, keepdim=True)], dim=1)
            real = torch.cat([real, torch.ones(2, 1, dtype=torch.long)], dim=1)
        assert torch.equal(found, text), positions
