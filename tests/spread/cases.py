"""What is done with a model that one process has whole, and with one that is spread; the results must be the same."""

from __future__ import annotations

import io
import json
import random
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from transformers import StoppingCriteria

import truthkit as tk
from tests.decoding.cases import ToyTokenizer
from tests.decoding.oracle import save_adapter
from tests.models.folders import byte_tokenizer, llava_folder, text_folder
from tests.steering.test_extract import toy_pairs
from tests.tiny import padded_batch, tiny
from truthkit import cli
from truthkit.likelihood.log_probabilities import log_probabilities
from truthkit.models.adapter import with_adapter
from truthkit.models.identities import identity
from truthkit.text.encode import encode_prompts
from truthkit.training.chat import Example
from truthkit.training.lora import train

TOKENIZER = ToyTokenizer()
VECTORS = dict(enumerate(3 * torch.randn(4, 48, generator=torch.Generator().manual_seed(0))))
Result = torch.Tensor | str


def make_folder(folder: Path) -> None:
    """A model of text and one of images, an adapter, pairs and prompts."""
    text_folder(folder / "text")
    byte_tokenizer(eos_token="</s>", pad_token="<pad>").save_pretrained(folder / "text")
    tiny("llama", seed=1).save_pretrained(folder / "other")
    byte_tokenizer(eos_token="</s>", pad_token="<pad>").save_pretrained(folder / "other")
    llava_folder(folder / "llava")
    save_adapter(tiny("llama"), folder / "adapter", target_modules="all-linear")
    (folder / "pairs.jsonl").write_text("\n".join(json.dumps(vars(pair)) for pair in toy_pairs(16)))
    lines = "".join(json.dumps({"prompt": f"It was day {i}"}) + "\n" for i in range(9))
    (folder / "prompts.jsonl").write_text(lines)


class EndsAt(StoppingCriteria):
    """Ends all rows after so many tokens."""

    def __init__(self, length: int):
        self._length = length

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor, **_options: Any) -> Any:
        return torch.full((len(input_ids),), input_ids.shape[1] >= self._length)


@dataclass
class Bench:
    """A model, and how it is asked.

    Attributes:
        folder: of `make_folder`.
        out: what commands write.
        model: of text.
        load: loads a model of `folder` as `model` was loaded.
        amateur: another model of text.
        options: of every `generate`.
        place: puts inputs where the model takes them.
        row: the one of the prompts that is asked, the first one only for one new token; None for all of them.
        more: what is added to commands.
        writes: whether this process writes what commands make.
        meet: waits for the others.
    """

    folder: Path
    out: Path
    model: Any
    load: Callable[[str], tuple[Any, Any]]
    amateur: Any
    options: dict[str, Any] = field(default_factory=dict)
    place: Callable[[torch.Tensor], torch.Tensor] = lambda tensor: tensor
    row: int | None = None
    more: tuple[str, ...] = ()
    writes: bool = True
    meet: Callable[[], Any] = lambda: None

    @property
    def adapter(self) -> str:
        return str(self.folder / "adapter")

    def inputs(self, *lengths: int) -> dict[str, torch.Tensor]:
        """Prompts of these lengths, padded on the left."""
        rows = slice(None) if self.row is None else slice(self.row, self.row + 1)
        batch = padded_batch(*(lengths or ((5, 11) if self.row is None else (9, 9))))
        return {name: self.place(value[rows]) for name, value in batch.items()}

    def generate(self, *lengths: int, model: Any = None, **options: Any) -> torch.Tensor:
        inputs = self.inputs(*lengths)
        options = {"max_new_tokens": 6, "do_sample": False} | self.options | options
        if self.row == 0:
            options["stopping_criteria"] = [EndsAt(inputs["input_ids"].shape[1] + 1)]
        tokens: torch.Tensor = (model or self.model).generate(**inputs, **options)
        return tokens

    def under(self, block: Any, *lengths: int, **options: Any) -> torch.Tensor:
        with block:
            return self.generate(*lengths, **options)


def loaded(name: str, folder: Path, **options: Any) -> tuple[Any, Any]:
    """A model that writes to the asked length."""
    model, processor = tk.load(folder / name, **options)
    model.generation_config.eos_token_id = None
    return model, processor


Case = Callable[[Bench], Result]


def cad(bench: Bench) -> torch.Tensor:
    """Its view is short enough to be read by itself, but for the first row alone."""
    lengths = (12, 12) if bench.row == 0 else (100, 100)
    passages = [row[2 : len(row) - 5].tolist() for row in bench.inputs(*lengths)["input_ids"]]
    return bench.under(tk.CAD(bench.model, TOKENIZER, context=["".join(map(chr, one)) for one in passages]), *lengths)


def image_decoder(make: Callable[[Any, Any, Any], Any]) -> Case:
    def case(bench: Bench) -> torch.Tensor:
        model, processor = bench.load("llava")
        draw = random.Random(0)
        image = Image.frombytes("RGB", (28, 28), draw.randbytes(28 * 28 * 3))
        inputs = encode_prompts(processor, ["What is it?"], [[image]], raw=True)
        with make(model, processor, [[image]]):
            moved = {key: bench.place(value) for key, value in inputs.items()}
            tokens: torch.Tensor = model.generate(**moved, max_new_tokens=4, do_sample=False, **bench.options)
        return tokens

    return case


def sampled(bench: Bench) -> torch.Tensor:
    torch.manual_seed(5)
    return bench.under(tk.DoLa(bench.model), do_sample=True)


def adapter_in_model(bench: Bench) -> torch.Tensor:
    model = with_adapter(bench.load("text")[0], bench.adapter)
    return bench.under(tk.ICD(model, TOKENIZER, amateur="default"), model=model)


def captured(site: str) -> Case:
    def case(bench: Bench) -> torch.Tensor:
        with tk.Capture(bench.model, site=site, reduce="mean") as states:
            bench.generate(max_new_tokens=1)
        return torch.cat([states[layer].cpu() for layer in states.layers])

    return case


def extracted(**options: Any) -> Case:
    def case(bench: Bench) -> torch.Tensor:
        vector = tk.extract(bench.model, TOKENIZER, toy_pairs(12), **options)
        return torch.stack([vector[layer].cpu() for layer in vector])

    return case


def steered(site: str, mode: str, **options: Any) -> Case:
    return lambda bench: bench.under(tk.Steering(bench.model, VECTORS, site=site, mode=mode, **options))


def one_head(bench: Bench) -> torch.Tensor:
    vectors = {layer: vector[:12] for layer, vector in VECTORS.items()}
    return bench.under(tk.Steering(bench.model, vectors, site="heads", features=slice(12, 24)))


def baked(site: str) -> Case:
    return lambda bench: bench.under(tk.SteeringVector(VECTORS, 4, site).bake(bench.model, layers="all"))


def scores(make: Callable[[Any], Any] | None = None) -> Case:
    """Of choices that share a prompt: read as a tree, at positions that are listed."""

    def case(bench: Bench) -> torch.Tensor:
        rows = [[*range(5, 35), i, i + 1, i + 2] for i in range(40, 52)]
        if make is None:
            return torch.tensor(log_probabilities(bench.model, rows, [30] * 12, token_budget=64))
        with make(bench.model) as session:
            return torch.tensor(log_probabilities(bench.model, rows, [30] * 12, session, token_budget=64))

    return case


def digest(bench: Bench) -> str:
    return str({name: value for name, value in identity(bench.model).items() if name.endswith("sha256")})


def printed(bench: Bench, *arguments: str) -> str:
    """What a command prints; `{folder}` and `{out}` stand for those of `bench`."""
    out = io.StringIO()
    with redirect_stdout(out):
        named = [one.format(folder=bench.folder, out=bench.out) for one in arguments]
        assert cli.main([*named, *bench.more]) == 0
    return out.getvalue()


def generate(bench: Bench) -> str:
    """Which tokens; the first process prints them."""
    said = printed(bench, "generate", "It was", "--model", "{folder}/text", "--decoder", "icd", "--sample", "--json")
    return str([one["token_ids"] for one in json.loads(said)["prompts"][0]["answers"]]) if said else ""


def evaluated(bench: Bench) -> str:
    """The answers and settings of a run that had been cut off in the middle."""
    records = bench.out / "run" / "records.jsonl"
    arguments = ("eval", "open-ended", "--data", "{folder}/prompts.jsonl", "--scorer", "none", "--max-new-tokens", "4")
    arguments += ("--model", "{folder}/text", "--decoder", "dola", "--batch-size", "2", "--out", "{out}/run")
    printed(bench, *arguments)
    if bench.writes:
        records.write_text(records.read_text()[:900])
    bench.meet()
    printed(bench, *arguments)
    if not bench.writes:
        return ""
    lines = [line for file in records.parent.glob("records*.jsonl") for line in file.read_text().splitlines()]
    answers = {record["key"]: record["output"] for record in map(json.loads, lines)}
    settings = json.loads((bench.out / "run" / "summary.json").read_text())["config"]
    return str([sorted(answers.items()), settings])


def chosen(bench: Bench) -> torch.Tensor | str:
    """A vector, with the layer that a command chose."""
    printed(
        *(bench, "extract", "{folder}/pairs.jsonl", "--model", "{folder}/text", "--select", "--strengths", "0.2"),
        *("--held-out", "0.5", "--out", "{out}/v.safetensors"),
    )
    if not bench.writes:
        return ""
    vector = tk.SteeringVector.load(bench.out / "v.safetensors")
    return torch.stack([torch.cat([vector[layer], torch.tensor([float(layer)])]) for layer in vector])


def lol(bench: Bench) -> torch.Tensor:
    return bench.under(tk.LOL(bench.model, TOKENIZER, amateur=bench.adapter, layers=[1, 2], refocus=True))


def processor(name: str, **options: Any) -> Case:
    return lambda bench: bench.generate(logits_processor=[getattr(tk, name)(bench.model, TOKENIZER, **options)])


COMMON: dict[str, Case] = {
    "greedy": lambda b: b.generate(),
    "dola": lambda b: b.under(tk.DoLa(b.model)),
    "icd, prompt": lambda b: b.under(tk.ICD(b.model, TOKENIZER)),
    "icd, adapter": lambda b: b.under(tk.ICD(b.model, TOKENIZER, amateur=b.adapter)),
    "icd, model": lambda b: b.under(tk.ICD(b.model, TOKENIZER, amateur=b.amateur)),
    "lol": lol,
    "cad": cad,
    "contrastive search": lambda b: b.under(tk.ContrastiveSearch(b.model)),
    "steering blocks": steered("block", "add"),
    "steering heads": steered("heads", "clamp"),
    "steering mlps": steered("mlp", "project_out", keep_norm=True),
    "capture": captured("block"),
    "capture heads": captured("heads"),
    "extract": extracted(held_out=0.2),
    "extract heads": extracted(site="heads", method="pca", held_out=0),
    "choices": scores(),
    "choices, icd": scores(lambda model: tk.ICD(model, TOKENIZER, beta=0.0)),
    "isotropy": lambda b: torch.tensor(
        list(tk.isotropy(b.model, byte_tokenizer(), ["hello", "goodbye"]).metrics.values())
    ),
}
"""For every way in which a model can be spread."""

PROCESSORS: dict[str, Case] = {
    "dola, processor": processor("DoLaLogitsProcessor"),
    "contrastive search, processor": processor("ContrastiveSearchLogitsProcessor"),
}

TENSOR_PARALLEL: dict[str, Case] = {
    **COMMON,
    **PROCESSORS,
    "beams": lambda b: b.under(tk.DoLa(b.model), num_beams=2),
    "sampling": sampled,
    "static cache": lambda b: b.generate(cache_implementation="static"),
    "one head": one_head,
    "baked blocks": baked("block"),
    "baked heads": baked("heads"),
    "identity": digest,
    "ritual": image_decoder(lambda model, processor, images: tk.RITUAL(model, processor, images=images)),
    "vcd": image_decoder(lambda model, processor, _images: tk.VCD(model, processor)),
}

COMMANDS: dict[str, Case] = {"eval": evaluated}

TWO_COPIES: dict[str, Case] = {
    "dola": COMMON["dola"],
    "icd, adapter in the model": adapter_in_model,
    "extract": COMMON["extract"],
    "generate": generate,
    "eval": evaluated,
    "extract, chosen": chosen,
}
"""For four processes, two of which hold a copy."""


def trained(bench: Bench) -> str:
    examples = [Example("Hi", "Ho")]
    return str(train(bench.model, byte_tokenizer(eos_token="</s>", pad_token="<pad>"), examples, bench.out / "trained"))


FULLY_SHARDED: dict[str, Case] = {
    **COMMON,
    **PROCESSORS,
    "contrastive search, callable": lambda b: b.generate(custom_generate=tk.contrastive_search),
    "contrastive search, greedy": lambda b: b.under(tk.ContrastiveSearch(b.model, penalty_alpha=0.0)),
    "baked blocks": baked("block"),
    "ritual": TENSOR_PARALLEL["ritual"],
    "training": trained,
}

REFUSED = frozenset({*PROCESSORS, "baked blocks", "ritual", "training"})
"""By models that FSDP2 shards."""

SEVERAL_DEVICES: dict[str, Case] = {
    **PROCESSORS,
    "dola": COMMON["dola"],
    "icd, model": COMMON["icd, model"],
    "icd, model, processor": lambda b: processor("ICDLogitsProcessor", amateur=b.amateur)(b),
    "lol": lol,
    "cad": cad,
    "contrastive search": COMMON["contrastive search"],
    "steering heads": COMMON["steering heads"],
    "steering per prompt": lambda b: b.under(tk.Steering(b.model, VECTORS, strength=[1.0, 2.0])),
    "vectors elsewhere": lambda b: b.under(tk.Steering(b.model, {i: b.place(v) for i, v in VECTORS.items()})),
    "capture": COMMON["capture"],
    "extract": COMMON["extract"],
    "choices": COMMON["choices"],
}
