"""ITI. Oracles: whole forwards of one row in which heads' outputs are moved; probes fitted by another optimiser."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import truthkit as tk
from tests.activations.oracle import block_list
from tests.decoding.cases import ToyTokenizer
from tests.each import each
from tests.steering.oracle import FAMILIES, MODES, check, decode, logits_with, same
from tests.tiny import padded_batch, tiny
from truthkit.steering.extraction.held_out import split_groups
from truthkit.steering.spec import parse_steer

SIGMA_THETA = {
    1: torch.cat([torch.zeros(12), torch.randn(12, generator=torch.Generator().manual_seed(1)), torch.zeros(24)]),
    3: torch.cat([torch.zeros(36), torch.randn(12, generator=torch.Generator().manual_seed(2))]),
}
VECTOR = tk.SteeringVector(SIGMA_THETA, 4, "heads")
ALPHA = 4.0


def projection(model: Any, layer: int) -> Any:
    block = block_list(model)[layer]
    return block.attn.c_proj if hasattr(block, "attn") else block.self_attn.o_proj


@each("mode", sorted(MODES))
@pytest.mark.parametrize("family", FAMILIES)
def test_heads_are_moved_from_the_last_token_of_the_prompt_on(family: str, mode: str) -> None:
    """What is added before a linear layer comes out of it as that layer of it."""
    model, batch = tiny(family), padded_batch(5, 9, 3, 7)

    def account(prompt: list[int], continuation: list[int]) -> torch.Tensor:
        def change(layer: int) -> Any:
            weight = projection(model, layer).weight
            through = SIGMA_THETA[layer] @ (weight if family == "gpt2" else weight.T)

            def add(states: torch.Tensor) -> torch.Tensor:
                moved = states.clone()
                moved[len(prompt) - 1 :] += ALPHA * through
                return moved

            return add

        acts = {projection(model, layer): change(layer) for layer in SIGMA_THETA}
        return logits_with(model, prompt + continuation, acts)

    iti = tk.ITI(model, VECTOR, alpha=ALPHA)
    found = check(model, iti, account, batch, mode)
    assert found.sequences.tolist() != decode(model, batch, mode).sequences.tolist()
    with iti:
        same(decode(model, batch, mode, cache_implementation="static"), found)


def toy_pairs(count: int) -> list[tuple[str, str]]:
    draw = torch.Generator().manual_seed(3)
    words = ["".join(chr(int(i)) for i in torch.randint(97, 120, (6,), generator=draw)) for _ in range(count)]
    return [(f"{word} it is so", f"{word[::-1]} it is not") for word in words]


def by_hand(model: Any, pairs: Any) -> torch.Tensor:
    """Heads' outputs at the last token, (layers, pairs, 2, heads, size), float64."""
    found = []
    for text in (text for pair in pairs for text in pair):
        seen: list[torch.Tensor] = []
        handles = [
            projection(model, layer).register_forward_pre_hook(lambda _m, args, seen=seen: seen.append(args[0][0, -1]))
            for layer in range(4)
        ]
        with torch.no_grad():
            model(input_ids=torch.tensor([ToyTokenizer()(text).input_ids]))
        for handle in handles:
            handle.remove()
        found.append(torch.stack(seen))
    return torch.stack(found, dim=1).double().view(4, len(pairs), 2, 4, 12)


def fitted(x: torch.Tensor, sign: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    w = torch.zeros(x.shape[1] + 1, dtype=x.dtype, requires_grad=True)
    optimiser = torch.optim.LBFGS([w], max_iter=2000, tolerance_grad=1e-10, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimiser.zero_grad()
        loss = torch.nn.functional.softplus(-sign * (x @ w[:-1] + w[-1])).sum() + 0.5 * w[:-1].square().sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimiser.step(closure)
    return w.detach()[:-1], w.detach()[-1]


@pytest.mark.parametrize("direction", ["mean", "probe"])
def test_heads_are_chosen_by_held_out_probes(direction: Any) -> None:
    model, pairs = tiny("llama"), toy_pairs(20)
    vector = tk.iti_vector(model, ToyTokenizer(), pairs, heads=3, direction=direction, held_out=0.4, seed=1)
    states = by_hand(model, pairs)
    fit_on, held = split_groups(list(range(20)), 0.4, seed=1)
    sign = torch.tensor([1.0, -1.0], dtype=torch.float64)
    probes, accuracy = {}, {}
    for layer in range(4):
        for head in range(4):
            sides = states[layer, :, :, head]
            w, b = fitted(sides[fit_on].flatten(0, 1), sign.repeat(len(fit_on)))
            probes[layer, head] = w
            accuracy[layer, head] = float((((sides[held] @ w + b) * sign) > 0).double().mean())
    best = sorted(accuracy, key=lambda one: -accuracy[one])[:3]
    listed = vector.provenance["heads"]
    assert [(one["layer"], one["head"]) for one in listed] == best
    assert [one["accuracy"] for one in listed] == pytest.approx([accuracy[one] for one in best])
    expected = {layer: torch.zeros(48, dtype=torch.float64) for layer, _ in best}
    for layer, head in best:
        sides = states[layer, :, :, head]
        towards = probes[layer, head] if direction == "probe" else sides[:, 0].mean(0) - sides[:, 1].mean(0)
        towards = towards / towards.norm()
        along = (sides @ towards).flatten()
        sigma = float(((along - along.mean()) ** 2).mean().sqrt())
        expected[layer][12 * head : 12 * head + 12] = sigma * towards
    assert set(expected) == set(vector.layers)
    for layer, one in expected.items():
        torch.testing.assert_close(vector[layer].double(), one, rtol=1e-3, atol=1e-4)


def test_one_file_holds_it_all(tmp_path: Path) -> None:
    """Read again, in a class or in a spec, with all its layers and no word of warning."""
    model, batch = tiny("llama"), padded_batch(5, 9)
    vector = tk.iti_vector(model, ToyTokenizer(), toy_pairs(10), heads=[(1, 0), (-1, 3)])
    assert vector.layers == (1, 3)
    vector.save(tmp_path / "iti.safetensors")
    with tk.ITI(model, tk.SteeringVector.load(tmp_path / "iti.safetensors"), alpha=9.0):
        found = decode(model, batch, "greedy")
    spec = parse_steer(f"{tmp_path / 'iti.safetensors'}:9,positions=last+generated")
    with spec.build(model):
        same(decode(model, batch, "greedy"), found)
    assert found.sequences.tolist() != decode(model, batch, "greedy").sequences.tolist()


@each(
    ("options", "message"),
    [
        ({"heads": 0}, "4 layers of 4 heads, so expected 1 to 16"),
        ({"heads": 17}, "heads is 17"),
        ({"heads": []}, r"heads is \[\]"),
        ({"heads": [(0, 4)]}, "head 4 does not exist"),
        ({"heads": [(4, 0)]}, "4 decoder blocks"),
        ({"heads": [3]}, "list of"),
        ({"direction": "up"}, "direction is 'up'"),
        ({"held_out": 0.0}, "held_out 0.0"),
        ({"l2": 0.0}, "l2 0.0"),
    ],
)
def test_bad_options(options: Any, message: str) -> None:
    with pytest.raises(tk.ArgumentError, match=message):
        tk.iti_vector(tiny("llama"), ToyTokenizer(), toy_pairs(4), **{"heads": 2, **options})


def test_bad_vectors() -> None:
    model = tiny("llama")
    with pytest.raises(tk.ArgumentError, match="no pair can be held out"):
        tk.iti_vector(model, ToyTokenizer(), toy_pairs(1), heads=2)
    with pytest.raises(tk.ArgumentError, match="of site 'heads', not"):
        tk.ITI(model, tk.SteeringVector(SIGMA_THETA, 4))
    with pytest.raises(tk.ArgumentError, match="alpha is nan"):
        tk.ITI(model, VECTOR, alpha=float("nan"))
    with pytest.raises(tk.ModelError, match="4 decoder blocks"):
        tk.ITI(tiny("llama", num_hidden_layers=2), VECTOR)
