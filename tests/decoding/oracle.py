"""What every decoder must compute, written a second time and as plainly as possible.

Each view of each row is one forward of that row alone: no cache, no hooks, no padding, batch 1. An adapter is really
active through peft in a second copy of the model; early exits come from `output_hidden_states`. The formulas are those
of the papers. `Oracle` is a language model whose logits are the combined scores, so Hugging Face's own `generate`
decodes with it in any mode.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import TYPE_CHECKING, Any

import torch
from transformers import GenerationConfig, GenerationMixin, PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutput

if TYPE_CHECKING:  # importing peft takes seconds
    from peft import PeftModel

_FINAL_NORM = {  # where it is not `model.norm`, as in Llama and its followers
    "phi": "model.final_layernorm",
    "gpt2": "transformer.ln_f",
    "gpt_neox": "gpt_neox.final_layer_norm",
    "opt": "model.decoder.final_layer_norm",
    "falcon": "transformer.ln_f",
    "mpt": "transformer.norm_f",
    "bloom": "transformer.ln_f",
}


# -- formulas ----------------------------------------------------------------------------------------------------------


@dataclass
class Seen:
    """One view's next-token logits, shape (vocabulary,), and its early exits, one such tensor per layer."""

    logits: torch.Tensor
    exits: list[torch.Tensor]
    prompt: torch.Tensor | None = None
    """An early exit at all of the prompt's positions, shape (positions, vocabulary)."""


Formula = Callable[[Seen, list[Seen]], torch.Tensor]


def log_p(logits: torch.Tensor) -> torch.Tensor:
    return torch.log_softmax(logits, dim=-1)


def apc(scores: torch.Tensor, main: torch.Tensor, beta: float) -> torch.Tensor:
    """Keep a token where p_main >= beta * max p_main."""
    p = torch.softmax(main, dim=-1)
    return torch.where(p >= beta * p.max(), scores, torch.tensor(-math.inf, dtype=scores.dtype))


def js_divergence(a: torch.Tensor, b: torch.Tensor) -> float:
    p, q = torch.softmax(a.double(), dim=-1), torch.softmax(b.double(), dim=-1)
    m = (p + q) / 2

    def kl(x: torch.Tensor) -> torch.Tensor:
        return torch.where(x > 0, x * (x / m).log(), torch.zeros_like(x)).sum()

    return float(kl(p) + kl(q)) / 2


def farthest(final: torch.Tensor, exits: Sequence[torch.Tensor]) -> int:
    return max(range(len(exits)), key=lambda j: js_divergence(final, exits[j]))


def cut_off(beta: float = 0.1) -> Formula:
    return lambda main, _others: apc(main.logits, main.logits, beta)


def icd(lam: float = 1.0, beta: float = 0.1) -> Formula:
    return lambda main, others: apc(log_p(main.logits) - lam * log_p(others[0].logits), main.logits, beta)


def cad(alpha: float = 0.5, beta: float = 0.0) -> Formula:
    return lambda main, others: apc((1 + alpha) * main.logits - alpha * others[0].logits, main.logits, beta)


def dola(beta: float = 0.1) -> Formula:
    def formula(main: Seen, _others: list[Seen]) -> torch.Tensor:
        premature = main.exits[farthest(main.logits, main.exits)]
        return apc(log_p(main.logits) - log_p(premature), main.logits, beta)

    return formula


def lol(omega: float = 0.5, lam: float = 1.0, gamma: float = 0.5, beta: float = 0.1, dynamic: bool = False) -> Formula:
    def formula(main: Seen, others: list[Seen]) -> torch.Tensor:
        amateur = others[0]
        layers = [farthest(main.logits, main.exits)] if dynamic else range(len(main.exits))
        contrasts = [log_p(main.exits[j]) - lam * log_p(amateur.exits[j]) for j in layers]
        scores = log_p(main.logits) - lam * log_p(amateur.logits)
        if contrasts:
            scores = scores + omega * sum(contrasts) / len(contrasts)
        if len(others) > 1:
            scores = scores + gamma * (log_p(others[1].logits) - log_p(main.logits))
        return apc(scores, main.logits, beta)

    return formula


def sled(rate: float = 2.0, scale: int = 10, steps: int = 10, bound: float = -100.0) -> Formula:
    def formula(main: Seen, _others: list[Seen]) -> torch.Tensor:
        final = main.logits
        tokens = torch.softmax(final, dim=-1).topk(min(scale, len(final))).indices.tolist()
        votes = dict.fromkeys(tokens, 0.0)
        for early in (one.double() for one in main.exits):  # unnormalised ones are all but certain: 1 − p is small
            p = torch.softmax(early, dim=-1)
            for token in tokens:
                direction = p.clone()
                direction[token] = 0
                direction[token] = -direction.sum()
                cosine = torch.cosine_similarity(direction, early - final.double(), dim=0, eps=0.0)
                votes[token] += max(0.0, float(cosine)) ** 2
        target = torch.zeros_like(final)
        for token, vote in votes.items():
            target[token] = vote / sum(votes.values()) if sum(votes.values()) else 0.0
        evolved = final.clone()
        for step in range(steps):
            evolved -= rate * (1 - step / steps) * (torch.softmax(evolved, dim=-1) - target)
        scores = torch.full_like(final, bound)
        scores[tokens] = evolved[tokens]
        return scores

    return formula


def deco(alpha: float = 0.6, top_p: float = 0.9, top_k: int = 20) -> Formula:
    def formula(main: Seen, _others: list[Seen]) -> torch.Tensor:
        p = torch.softmax(main.logits, dim=-1)
        candidates, held = [], 0.0
        for token in p.argsort(descending=True).tolist()[: top_k or None]:
            candidates.append(token)
            held += float(p[token])
            if held >= top_p and top_p < 1:
                break
        surest = [float(torch.softmax(early, dim=-1)[candidates].max()) for early in main.exits]
        best = max(range(len(surest)), key=surest.__getitem__)
        scores = torch.full_like(main.logits, -math.inf)
        scores[candidates] = (main.logits + alpha * surest[best] * main.exits[best])[candidates]
        return scores

    return formula


def exits_mean(share: float = 0.3, beta: float = 0.0) -> Formula:
    def formula(main: Seen, _others: list[Seen]) -> torch.Tensor:
        scores = main.logits * (1 - share)
        for one in main.exits:
            scores = scores + share / len(main.exits) * one
        return apc(scores, main.logits, beta) if beta else scores

    return formula


def adacad(theta: float = 0.0) -> Formula:
    def formula(main: Seen, others: list[Seen]) -> torch.Tensor:
        strength = max(theta, js_divergence(main.logits, others[0].logits))
        return (1 + strength) * main.logits - strength * others[0].logits

    return formula


def coiecd(alpha: float = 1.0, form: str = "code") -> Formula:
    def formula(main: Seen, others: list[Seen]) -> torch.Tensor:
        p, q = torch.softmax(main.logits, dim=-1), torch.softmax(others[0].logits, dim=-1)
        if form == "code":
            likely = p > p.max() / 4
            if likely.sum() == 1:
                likely[:] = False
            kept = likely | (p < 4 * p.min())
        else:
            information, entropy = -p.log(), -(q * q.log()).sum()
            kept = (information > entropy + math.log(4)) | (information < entropy - math.log(4))
        return torch.where(kept, p.log(), q.log()) + alpha * (p.log() - q.log())

    return formula


def agreement(divergence: str, threshold: float, agree: float, differ: float, beta: float = 0.1) -> Formula:
    def formula(main: Seen, others: list[Seen]) -> torch.Tensor:
        own, other = main.logits, others[0].logits
        total = float((torch.softmax(own, dim=-1) - torch.softmax(other, dim=-1)).abs().sum())
        close = (js_divergence(own, other) if divergence == "js" else total) < threshold
        return apc(own + agree * other if close else (1 + differ) * own - differ * other, own, beta)

    return formula


def activation_decoding(alpha: float = 0.1, beta: float = 0.1) -> Formula:
    def formula(main: Seen, _others: list[Seen]) -> torch.Tensor:
        assert main.prompt is not None
        entropies = torch.distributions.Categorical(logits=main.prompt.T).entropy()
        return apc(main.logits - alpha * entropies, main.logits, beta)

    return formula


def top_n_sigma(n: float) -> Formula:
    def formula(main: Seen, _others: list[Seen]) -> torch.Tensor:
        least = main.logits.max() - n * main.logits.std()
        return torch.where(main.logits >= least, main.logits, torch.tensor(-math.inf, dtype=main.logits.dtype))

    return formula


def entropy_gate(threshold: float) -> Formula:
    def formula(main: Seen, _others: list[Seen]) -> torch.Tensor:
        p = torch.softmax(main.logits, dim=-1)
        if float(-(p * p.log()).sum()) <= threshold:
            return main.logits
        scores = torch.full_like(main.logits, -math.inf)
        scores[main.logits.argmax()] = main.logits.max()
        return scores

    return formula


# -- views -------------------------------------------------------------------------------------------------------------


@dataclass
class Look:
    """One view: a model, a rewriting of the prompt's ids, and the blocks after which it exits early."""

    model: Any
    rewrite: Callable[[list[int]], list[int]] = lambda prompt: prompt
    layers: Sequence[int] = ()
    norm: bool = True
    prompt_layer: int | None = None
    """The block after which the prompt exits early, at all of its positions."""

    @torch.no_grad()
    def __call__(self, prompt: list[int], continuation: list[int], last: int = 1) -> list[Seen]:
        """What is seen at each of the `last` positions, from one forward."""
        ids = torch.tensor([self.rewrite(prompt) + continuation])
        early = bool(self.layers) or self.prompt_layer is not None
        out = self.model(input_ids=ids, use_cache=False, output_hidden_states=early)
        of_prompt = None
        if self.prompt_layer is not None:
            of_prompt = self._exit(out.hidden_states[self.prompt_layer + 1][0, : len(prompt)])
        states = [out.hidden_states[layer + 1][0] for layer in self.layers]
        return [
            Seen(out.logits[0, at], [self._exit(state[at]) for state in states], of_prompt) for at in range(-last, 0)
        ]

    def _exit(self, hidden: torch.Tensor) -> torch.Tensor:
        model = self.model.get_base_model() if hasattr(self.model, "get_base_model") else self.model
        if self.norm:
            norm = attrgetter(_FINAL_NORM.get(model.config.model_type, "model.norm"))(model)
            hidden = norm(hidden) if norm is not None else hidden
        if (project := getattr(model.get_decoder(), "project_out", None)) is not None:  # in some OPT models
            hidden = project(hidden)
        logits = model.get_output_embeddings()(hidden)
        logits = (
            logits * (getattr(model.config, "logit_scale", None) or 1.0) / getattr(model.config, "logits_scaling", 1.0)
        )
        if cap := getattr(model.config, "final_logit_softcapping", None):
            logits = torch.tanh(logits / cap) * cap
        return logits


class Oracle(PreTrainedModel, GenerationMixin):
    """A language model whose next-token logits are a formula of several looks at each row.

    Args:
        main: the model itself.
        others: the auxiliary looks.
        formula: their combination.
        layers, norm, prompt_layer: early exits of the main look.
        prompt_width: columns of `input_ids` that are prompt; what follows is the same in all looks. None: the width of
            the first forward of each `generate`.
    """

    config_class = PreTrainedConfig
    main_input_name = "input_ids"

    def __init__(
        self,
        main: Any,
        others: Sequence[Look] = (),
        formula: Formula = lambda main, _others: main.logits,
        *,
        layers: Sequence[int] = (),
        norm: bool = True,
        prompt_layer: int | None = None,
    ):
        super().__init__(PreTrainedConfig(vocab_size=main.config.get_text_config().vocab_size))
        self.generation_config = GenerationConfig.from_dict(main.generation_config.to_dict())
        self.weight = torch.nn.Parameter(torch.zeros(1))  # generate asks the parameters for a device
        self.looks = [Look(main, layers=layers, norm=norm, prompt_layer=prompt_layer), *others]
        self.formula = formula
        self.prompt_width = 0
        self._known: dict[tuple[tuple[int, ...], tuple[int, ...]], torch.Tensor] = {}

    def row(self, prompt: list[int], continuation: list[int]) -> torch.Tensor:
        """Combined next-token scores of one unpadded row, shape (vocabulary,)."""
        key = tuple(prompt), tuple(continuation)
        if key not in self._known:
            (self._known[key],) = self.scores(prompt, continuation, 1)
        return self._known[key]

    def prepare(self, prompt: list[int], continuation: list[int]) -> None:
        """Do the forwards for all beginnings of a continuation in one (causal models see no later token); saves
        time."""
        keys = [(tuple(prompt), tuple(continuation[:length])) for length in range(len(continuation) + 1)]
        if any(key not in self._known for key in keys):
            self._known.update(zip(keys, self.scores(prompt, continuation, len(keys)), strict=True))

    def prepare_likely(self, sequences: torch.Tensor, mask: torch.Tensor) -> None:
        """The same for what `generate` made of left-padded prompts. A likely sequence costs one forward, any other one
        per token; which tokens are chosen stays the oracle's own affair."""
        width, copies = mask.shape[1], len(sequences) // len(mask)
        for sequence, kept in zip(sequences, mask.bool().repeat_interleave(copies, dim=0), strict=True):
            self.prepare(sequence[:width][kept].tolist(), sequence[width:-1].tolist())

    def scores(self, prompt: list[int], continuation: list[int], last: int) -> list[torch.Tensor]:
        """Combined scores at the `last` positions, each of shape (vocabulary,)."""
        seen = zip(*(look(prompt, continuation, last) for look in self.looks), strict=True)
        return [self.formula(main, others) for main, *others in seen]

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None, **_ignored: Any
    ) -> CausalLMOutput:
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        rows = []
        for ids, kept in zip(input_ids, mask.bool(), strict=True):
            width = self.prompt_width
            rows.append(self.row(ids[:width][kept[:width]].tolist(), ids[width:].tolist()))
        return CausalLMOutput(logits=torch.stack(rows)[:, None])

    def generate(self, input_ids: torch.Tensor, **kwargs: Any) -> Any:
        self.prompt_width = input_ids.shape[1]
        return super().generate(input_ids, **kwargs, use_cache=False)


# -- amateurs ----------------------------------------------------------------------------------------------------------


def save_adapter(model: Any, folder: Any, *, seed: int = 1, **options: Any) -> str:
    """Save a random LoRA adapter for a copy of `model` (the copy is spent) in `folder`; the folder as a string."""
    from peft import LoraConfig, get_peft_model

    options = {"r": 4, "lora_alpha": 8, "target_modules": "all-linear", **options}
    options["fan_in_fan_out"] = model.config.model_type == "gpt2"  # whose Conv1D holds its weight transposed
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        wrapped = get_peft_model(model, LoraConfig(init_lora_weights=False, task_type="CAUSAL_LM", **options))
    wrapped.save_pretrained(str(folder), save_embedding_layers=False)
    return str(folder)


def with_adapter(model: Any, folder: str) -> PeftModel:
    """A copy of `model` (spent) in which peft has the adapter active."""
    from peft import PeftModel

    return PeftModel.from_pretrained(model, folder).eval()
