"""Conditions of steering. Oracle: whole forwards of one row, in which each token's condition is asked by hand."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.nn.functional import cosine_similarity

import truthkit as tk
from tests.activations.oracle import block_list
from tests.decoding.cases import ToyTokenizer
from tests.each import each
from tests.steering.oracle import FAMILIES, MODES, check, decode, logits_with, same
from tests.tiny import padded_batch, tiny
from tests.tiny_vlm import picture, tiny_vlm
from truthkit.likelihood.log_probabilities import log_probabilities
from truthkit.likelihood.parts import acts_by_part
from truthkit.steering.conditions import Cosine, Entropy
from truthkit.steering.vector import SteeringVector

VECTORS = {layer: 6 * torch.randn(48, generator=torch.Generator().manual_seed(layer)) for layer in (1, 2)}
TOWARDS = {layer: torch.randn(48, generator=torch.Generator().manual_seed(9 + layer)) for layer in (0, 1, 2)}


def cosines(states: torch.Tensor, layer: int) -> torch.Tensor:
    return cosine_similarity(states, TOWARDS[layer].to(states.dtype)[None], dim=-1)


def by_token(model: Any, above: float) -> Callable[..., torch.Tensor]:
    """Each steered layer adds its vector where the cosine of a token's own state is above the threshold."""

    def account(prompt: list[int], continuation: list[int]) -> torch.Tensor:
        def change(layer: int) -> Any:
            return lambda states: states + (cosines(states, layer) > above)[:, None] * VECTORS[layer]

        blocks = block_list(model)
        return logits_with(model, prompt + continuation, {blocks[layer]: change(layer) for layer in VECTORS})

    return account


def by_prompt(model: Any, above: float, of: str, start: str, projected: bool = False) -> Callable[..., torch.Tensor]:
    """Layer 0 is read; layers 1 and 2 are steered if the prompt's last or mean state there is near enough."""

    def account(prompt: list[int], continuation: list[int]) -> torch.Tensor:
        blocks, seen = block_list(model), list[torch.Tensor]()

        def look(states: torch.Tensor) -> torch.Tensor:
            seen.append(states[: len(prompt)])
            return states

        logits_with(model, prompt, {blocks[0]: look})
        state = seen[0][-1] if of == "last" else seen[0].mean(dim=0)
        towards = TOWARDS[0]
        if projected:
            towards = torch.tanh(torch.outer(towards, towards) / (towards @ towards) @ state)
        met = cosine_similarity(state, towards, dim=0) > above
        first = 0 if start == "all" else len(prompt)

        def change(layer: int) -> Any:
            def add(states: torch.Tensor) -> torch.Tensor:
                changed = states.clone()
                changed[first:] += VECTORS[layer]
                return changed if met else states

            return add

        return logits_with(model, prompt + continuation, {blocks[layer]: change(layer) for layer in VECTORS})

    return account


def threshold(values: list[float]) -> float:
    """One that some of the rows meet, as far as can be from all of them."""
    ordered = sorted(values)
    return max(itertools.pairwise(ordered), key=lambda pair: pair[1] - pair[0])[0] + 1e-3


def prompt_threshold(model: Any, batch: Any, of: str, projected: bool = False) -> float:
    found = []
    for ids, mask in zip(batch["input_ids"], batch["attention_mask"], strict=True):
        with tk.Capture(model, [0]) as read, torch.no_grad():
            model(input_ids=ids[mask.bool()][None])
        state = read[0][-1] if of == "last" else read[0].mean(dim=0)
        towards = TOWARDS[0]
        if projected:
            towards = torch.tanh((state @ towards) / (towards @ towards) * towards)
        found.append(float(cosine_similarity(state, towards, dim=0)))
    return threshold(found)


@pytest.mark.parametrize("family", ["llava", "qwen2_vl"])
def test_images(family: str) -> None:
    """Oracle: whole forwards of one prompt with its image; other views are judged for themselves."""
    vlm = tiny_vlm(family)
    images, texts = [[picture(40, 30)], [picture(28, 28, seed=1)]], ["a {} b", "{} what is it"]
    batch, blocks = vlm.inputs(texts, images), block_list(vlm.model)
    width, options = batch["input_ids"].shape[1], {"max_new_tokens": 8, "do_sample": False}
    vectors = {layer: vector / 3 for layer, vector in VECTORS.items()}

    def judged(layer: int) -> Any:
        return lambda states: states + (cosines(states, layer) > 0.0)[:, None] * vectors[layer]

    steering = tk.Steering(vlm.model, vectors, where=Cosine(TOWARDS, above=0.0))
    with steering:
        found = vlm.model.generate(**batch, **options)[:, width:]
    assert found.tolist() != vlm.model.generate(**batch, **options)[:, width:].tolist()
    for row in range(2):
        alone = vlm.inputs([texts[row]], [images[row]])
        rest = {name: value for name, value in alone.items() if "ids" not in name and name != "attention_mask"}
        with steering:
            one = vlm.model.generate(**alone, **options)[0, alone["input_ids"].shape[1] :]
        assert one.tolist() == found[row].tolist()
        if family == "qwen2_vl":  # its positions come from generate's own arguments
            continue
        ids, tokens = alone["input_ids"][0].tolist(), list[int]()
        for _ in range(8):
            changes = {blocks[layer]: judged(layer) for layer in vectors}
            tokens.append(int(logits_with(vlm.model, ids + tokens, changes, **rest)[-1].argmax()))
        assert tokens == found[row].tolist()
    for of in ("token", "last", "mean"):
        where = Cosine(TOWARDS, above=0.0, of=of, layer=0)
        with tk.Steering(vlm.model, vectors, where=where), tk.VCD(vlm.model, seed=1):
            both = vlm.model.generate(**batch, **options)[:, width:]
        for row in range(2):
            alone = vlm.inputs([texts[row]], [images[row]])
            with tk.Steering(vlm.model, vectors, where=where), tk.VCD(vlm.model, seed=1):
                one = vlm.model.generate(**alone, **options)[0, alone["input_ids"].shape[1] :]
            assert one.tolist() == both[row].tolist(), of


@each("mode", sorted(MODES))
@pytest.mark.parametrize("family", FAMILIES)
def test_cosine_of_each_token(family: str, mode: str) -> None:
    model, batch = tiny(family), padded_batch(5, 9, 3, 7)
    steering = tk.Steering(model, VECTORS, where=Cosine(TOWARDS, above=0.0))
    found = check(model, steering, by_token(model, 0.0), batch, mode)
    assert found.sequences.tolist() != decode(model, batch, mode).sequences.tolist()
    with tk.Steering(model, VECTORS):
        assert found.sequences.tolist() != decode(model, batch, mode).sequences.tolist()


@pytest.mark.parametrize("of", ["last", "mean"])
@pytest.mark.parametrize("family", FAMILIES)
def test_cosine_of_the_prompt(family: str, of: Any) -> None:
    """CAST's: read at one layer, once for the row; some rows are steered and some are not."""
    model, batch = tiny(family), padded_batch(5, 9, 3, 7)
    above, plain = prompt_threshold(model, batch, of), decode(model, batch, "greedy").sequences
    for mode, positions in zip(MODES, ("all", "generated", "all"), strict=True):
        where = Cosine(TOWARDS[0], above=above, of=of, layer=0)
        steering = tk.Steering(model, VECTORS, where=where, positions=positions)
        found = check(model, steering, by_prompt(model, above, of, positions), batch, mode)
        if mode == "greedy":
            rows = (found.sequences == plain).all(dim=1)
            assert bool(rows.any())
            assert not bool(rows.all())


def test_the_condition_as_cast_has_it() -> None:
    model, batch = tiny("llama"), padded_batch(5, 9, 3, 7)
    above = prompt_threshold(model, batch, "mean", projected=True)
    where = Cosine(TOWARDS[0], above=above, of="mean", layer=0, projected=True)
    steering = tk.Steering(model, VECTORS, where=where)
    check(model, steering, by_prompt(model, above, "mean", "all", projected=True), batch, "greedy")


@each("options", [{"cache_implementation": "static"}, {"use_cache": False}, {"prefill_chunk_size": 4}])
@each("of", ["token", "last", "mean"])
def test_every_cache(of: Any, options: dict[str, Any]) -> None:
    model, batch = tiny("llama"), padded_batch(5, 9, 3, 7)
    layer = None if of == "token" else 0
    above = 0.0 if of == "token" else prompt_threshold(model, batch, of)
    steering = tk.Steering(
        model, VECTORS, where=Cosine(TOWARDS, above=above, of=of, layer=layer), positions="generated"
    )
    with steering:
        expected = decode(model, batch, "greedy")
        same(decode(model, batch, "greedy", **options), expected)
        same(decode(model, batch, "beams", **options), decode(model, batch, "beams"))
    assert expected.sequences.tolist() != decode(model, batch, "greedy").sequences.tolist()


def entropies(model: Any, above: float) -> Callable[..., torch.Tensor]:
    """Generated token t is steered if the steered model was unsure as it chose it."""

    def account(prompt: list[int], continuation: list[int]) -> torch.Tensor:
        blocks, steered = block_list(model), list[int]()
        logits = torch.empty(0)
        for count in range(len(continuation) + 1):

            def add(states: torch.Tensor, layer: int) -> torch.Tensor:
                changed = states.clone()
                changed[steered] += VECTORS[layer]
                return changed

            text = prompt + continuation[:count]
            changes = {blocks[at]: lambda states, at=at: add(states, at) for at in VECTORS}
            logits = logits_with(model, text, changes)
            p = logits[-1].double().softmax(-1)
            if float(-(p * p.clamp_min(1e-300).log()).sum()) > above:
                steered.append(len(text))
        return logits

    return account


@each("mode", sorted(MODES))
def test_entropy(mode: str) -> None:
    """Beams change places between tokens, and each keeps its own entropy."""
    model, batch = tiny("llama", initializer_range=0.2), padded_batch(5, 9, 3, 3)
    batch["input_ids"][3] = batch["input_ids"][2]  # an item with the text of another one
    plain = decode(model, batch, mode)
    above = float(torch.special.entr(torch.stack(plain.logits).softmax(-1)).sum(-1).median())
    steering = tk.Steering(model, VECTORS, where=Entropy(above=above))
    found = check(model, steering, entropies(model, above), batch, mode)
    with tk.Steering(model, VECTORS, positions="generated"):
        always = decode(model, batch, mode).sequences.tolist()
    assert found.sequences.tolist() not in (plain.sequences.tolist(), always)
    for options in ({"cache_implementation": "static"}, {"use_cache": False}):
        with steering:
            same(decode(model, batch, mode, **options), found)


def test_several_conditions_must_all_hold() -> None:
    model, batch = tiny("llama"), padded_batch(5, 9)
    one, other = Cosine(TOWARDS, above=-0.05), Cosine(TOWARDS, below=0.05)
    with tk.Steering(model, VECTORS, where=(one, other)):
        both = decode(model, batch, "greedy")
    with tk.Steering(model, VECTORS, where=Cosine(TOWARDS, above=-0.05, below=0.05)):
        same(decode(model, batch, "greedy"), both)
    with SteeringVector(VECTORS, 4).steer(model, layers="all", where=(one, Cosine(TOWARDS, above=1.0))):
        assert decode(model, batch, "greedy").sequences.tolist() == decode(model, batch, "greedy").sequences.tolist()


@each("of", ["token", "last"])
@each("first", ["decoder", "steering"])
def test_every_view_of_a_decoder_by_its_own_states(of: Any, first: str) -> None:
    """ICD's formula over two models that are steered apart; the amateur has a longer prompt."""
    model, batch, lie = tiny("llama"), padded_batch(5, 9), "lie now"
    prefix = [ord(char) for char in f"{lie}\n\n"]
    above = 0.0
    if of == "last":
        above = prompt_threshold(model, batch, "last")
        account = by_prompt(model, above, "last", "all")
    else:
        account = by_token(model, above)

    def combined(prompt: list[int], continuation: list[int]) -> torch.Tensor:
        main = account(prompt, continuation).log_softmax(-1)
        other = account(prefix + prompt, continuation).log_softmax(-1)[len(prefix) :]
        return main - other

    decoder = tk.ICD(model, ToyTokenizer(), amateur_prompt=lie, beta=0.0)
    where = Cosine(TOWARDS, above=above, of=of, layer=None if of == "token" else 0)
    steering = tk.Steering(model, VECTORS, where=where)
    order = (decoder, steering) if first == "decoder" else (steering, decoder)
    with order[0], order[1]:
        found = model.generate(**batch, max_new_tokens=12, do_sample=False)[:, 9:]
    for ids, mask, row in zip(batch["input_ids"], batch["attention_mask"], found.tolist(), strict=True):
        prompt = ids[mask.bool()].tolist()
        assert combined(prompt, row[:-1])[len(prompt) - 1 :].argmax(-1).tolist() == row


def test_entropy_under_a_decoder_is_that_of_its_scores() -> None:
    """Whichever is entered first."""
    model, batch = tiny("llama", initializer_range=0.2), padded_batch(5, 9)
    decoder = tk.DoLa(model, layers=[0, 1])
    with decoder:
        scores = torch.stack(decode(model, batch, "greedy").logits)
    above = float(torch.special.entr(scores.softmax(-1)).sum(-1).median())
    found = []
    for order in (0, 1):
        blocks = (decoder, tk.Steering(model, VECTORS, where=Entropy(above=above)))
        with blocks[order], blocks[1 - order]:
            found.append(decode(model, batch, "beams").sequences.tolist())
    assert found[0] == found[1]


def test_likelihood_of_answers() -> None:
    """The prompt's last token decides, whatever answer follows it."""
    model, batch = tiny("llama"), padded_batch(7, 7, 7, 7)
    above = prompt_threshold(model, batch, "last")
    rows = [[*ids, *answer] for ids in batch["input_ids"].tolist() for answer in ([5, 6], [9, 8, 7])]
    where = Cosine(TOWARDS[0], above=above, of="last", layer=0)
    steering = tk.Steering(model, VECTORS, where=where)
    with steering:
        found = log_probabilities(model, rows, [7] * len(rows), steerings=[steering])
    account = by_prompt(model, above, "last", "all")
    for row, value in zip(rows, found, strict=True):
        log_p = account(row[:7], row[7:]).log_softmax(-1)
        assert float(sum(log_p[at - 1, row[at]] for at in range(7, len(row)))) == pytest.approx(value, abs=1e-3)


def test_what_depends_on_the_whole_prompt() -> None:
    """Such steering is never given a prompt in parts, when answers are scored or share a prompt."""
    model, token = tiny("llama"), Cosine(TOWARDS, above=0.0)
    whole = [Cosine(TOWARDS, above=0.0, of="last"), Cosine(TOWARDS, above=0.0, of="mean"), Entropy(above=1.0)]
    assert not tk.Steering(model, VECTORS, where=token).of_whole_prompt
    assert all(tk.Steering(model, VECTORS, where=(token, one)).of_whole_prompt for one in whole)
    assert not any(map(acts_by_part, [tk.Steering(model, VECTORS, where=one) for one in whole]))


@each("position", ["last", -1, slice(-2, None), "generated"])
def test_where_a_padded_prompt_ends_that_is_read_in_chunks(position: Any) -> None:
    """The first chunk is padding and nothing else in two of the rows."""
    model, batch = tiny("llama"), padded_batch(5, 9, 3)
    with tk.Steering(model, VECTORS, positions=position):
        whole = decode(model, batch, "greedy")
        same(decode(model, batch, "greedy", prefill_chunk_size=4), whole)


# -- bad input ---------------------------------------------------------------------------------------------------------


@each(
    ("make", "message"),
    [
        (lambda: Cosine(TOWARDS), "no threshold"),
        (lambda: Cosine(TOWARDS, above=1.5), r"above is 1.5 in Cosine; expected a number in \[-1, 1\]"),
        (lambda: Cosine(TOWARDS, above=0.5, below=0.1), "no value is between"),
        (lambda: Cosine(TOWARDS, above=0.1, of="first"), "of is 'first'"),  # type: ignore[arg-type]
        (lambda: Cosine(torch.zeros(48), above=0.1), "not all 0"),
        (lambda: Cosine("up", above=0.1), "direction is 'up'"),
        (lambda: Entropy(), "no threshold"),
        (lambda: Entropy(above=-1.0), "expected a number of 0 or more"),
        (lambda: Entropy(above=float("nan")), "above is nan"),
    ],
)
def test_conditions_that_make_no_sense(make: Any, message: str) -> None:
    with pytest.raises(tk.ArgumentError, match=message):
        make()


@each(
    ("where", "message"),
    [
        ("always", "where is 'always'"),
        ([Entropy(above=1.0)], "where is "),
        (Cosine(TOWARDS[0], above=0.1, layer=3), "behind layer 1"),
        (Cosine(TOWARDS[0], above=0.1, layer=4), "4 decoder blocks"),
        (Cosine({0: TOWARDS[0]}, above=0.1), "no direction for layer 1"),
        (Cosine(torch.ones(47), above=0.1), "has 47 features"),
    ],
)
def test_conditions_that_do_not_fit(where: Any, message: str) -> None:
    with pytest.raises(tk.ArgumentError, match=message):
        tk.Steering(tiny("llama"), VECTORS, where=where)


def test_what_cannot_be_told() -> None:
    model, batch = tiny("llama"), padded_batch(5, 9)
    plain = decode(model, batch, "greedy").sequences.tolist()
    one = {name: value[1:] for name, value in batch.items()}
    steering = tk.Steering(model, VECTORS, where=Cosine(TOWARDS, above=0.0, of="last"))
    with steering, pytest.raises(tk.ArgumentError, match="before a prompt's last token was read"):
        decode(model, batch, "greedy", prefill_chunk_size=4)
    with tk.Steering(model, VECTORS, where=Entropy(above=1.0)) as steering:
        with pytest.raises(tk.ArgumentError, match="one token at a time"):
            decode(model, one, "greedy", prompt_lookup_num_tokens=3)
        steering.prompt_lengths = [2, 2]
        with pytest.raises(tk.ArgumentError, match="inside generate only"):
            model(**batch)
    assert decode(model, batch, "greedy").sequences.tolist() == plain
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert "_update_model_kwargs_for_generation" not in vars(model)
