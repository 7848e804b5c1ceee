"""A LoRA adapter in some rows of the batch.

The oracle is peft: the same adapter active in a copy of the model, without truthkit.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import truthkit as tk
from tests.decoding.oracle import save_adapter, with_adapter
from tests.tiny import FAMILIES, padded_batch, tiny

BATCH = padded_batch(9, 9, 9)


def amateur_logits(model: Any, amateur: str, **inputs: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Main and amateur logits of one forward."""
    seen: list[Any] = []
    with tk.ICD(model, amateur=amateur) as decoder, torch.no_grad():
        decoder.observers.append(lambda views, _combined: seen.extend(view.logits for view in views))
        model(**(inputs or BATCH))
    return seen[0], seen[1]


def check(folder: str, family: str = "llama", model: Any = None, **overrides: Any) -> None:
    model = tiny(family, **overrides) if model is None else model
    main, amateur = amateur_logits(model, folder)
    with torch.no_grad():
        torch.testing.assert_close(main, tiny(family, **overrides)(**BATCH).logits, atol=2e-4, rtol=1e-5)
        torch.testing.assert_close(
            amateur, with_adapter(tiny(family, **overrides), folder)(**BATCH).logits, atol=2e-4, rtol=1e-5
        )
    assert (main - amateur).abs().max() > 0.1


class TestFolder:
    @pytest.mark.parametrize("family", [family for family in FAMILIES if family != "mixtral"])
    def test_every_family(self, family: str, tmp_path: Path) -> None:
        check(save_adapter(tiny(family), tmp_path), family)

    @pytest.mark.parametrize(
        "options",
        [
            {"use_rslora": True},
            {"rank_pattern": {"q_proj": 2, "model.layers.1.self_attn.v_proj": 7}},
            {"alpha_pattern": {"layers.0.self_attn.q_proj": 32, "down_proj": 1}},
            {"rank_pattern": {"q_proj": 2}, "alpha_pattern": {"q_proj": 5}, "use_rslora": True},
            {"lora_alpha": 4},
            {"layers_to_transform": [1, 3], "target_modules": ["q_proj", "up_proj"]},
            {"target_modules": r".*\.[02]\..*_proj"},
            {"lora_dropout": 0.5},
        ],
        ids=str,
    )
    def test_options(self, options: dict[str, Any], tmp_path: Path) -> None:
        check(save_adapter(tiny("llama"), tmp_path, **options))

    def test_layers_that_see_all_tokens_in_one_line(self, tmp_path: Path) -> None:
        """OPT's feed-forward layers get (batch * length, hidden)."""
        check(save_adapter(tiny("opt"), tmp_path, target_modules=["fc1", "fc2"]), "opt")

    def test_layers_that_see_some_tokens_only_are_refused(self, tmp_path: Path) -> None:
        """As the experts of a mixture do: nobody knows which row a token came from."""

        class Routed(torch.nn.Linear):
            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return super().forward(x)

        model, folder = tiny("llama"), save_adapter(tiny("llama"), tmp_path, target_modules=["down_proj"])
        mlp = model.model.layers[2].mlp
        mlp.register_forward_pre_hook(lambda _module, args: (args[0].flatten(0, 1)[::2],))
        mlp.register_forward_hook(lambda _module, _args, out: out.repeat_interleave(2, 0).view(-1, 9, 48))
        with pytest.raises(tk.ModelError, match=r"which token is whose is unknown"):
            amateur_logits(model, folder)

    def test_beside_another_active_adapter(self, tmp_path: Path) -> None:
        """The adapter that is active in the model stays so in all rows; the amateur's comes on top."""
        own, folder = save_adapter(tiny("llama"), tmp_path / "own", seed=3), save_adapter(tiny("llama"), tmp_path / "a")
        model = with_adapter(tiny("llama"), own)
        main, amateur = amateur_logits(model, folder)
        model.load_adapter(folder, "amateur")
        with torch.no_grad():
            torch.testing.assert_close(main, model(**BATCH).logits, atol=2e-4, rtol=1e-5)
            model.base_model.set_adapter(["default", "amateur"])
            torch.testing.assert_close(amateur, model(**BATCH).logits, atol=2e-4, rtol=1e-5)


class TestLoaded:
    @pytest.mark.parametrize("family", ["llama", "gpt2", "falcon"])
    def test_same_as_from_the_folder(self, family: str, tmp_path: Path) -> None:
        """By name, active or not, in the wrapper or in the model that peft wrapped."""
        from peft import PeftModel

        folder = save_adapter(tiny(family), tmp_path)
        want = amateur_logits(tiny(family), folder)
        wrapped = PeftModel.from_pretrained(tiny(family), folder, adapter_name="liar").eval()
        wrapped.load_adapter(folder, "idle")
        for model in (wrapped, wrapped.get_base_model()):
            for name in ("liar", "idle"):
                if name == "liar":
                    got = amateur_logits(model, name)
                else:
                    with wrapped.disable_adapter():
                        got = amateur_logits(model, name)
                torch.testing.assert_close(got, want, atol=2e-4, rtol=1e-5)
        assert wrapped.active_adapters == ["liar"]

    def test_merged(self, tmp_path: Path) -> None:
        model = with_adapter(tiny("llama"), save_adapter(tiny("llama"), tmp_path))
        model.merge_adapter()
        with pytest.raises(tk.ModelError, match=r"'default' is merged into the weights; call unmerge_adapter"):
            tk.ICD(model, amateur="default")

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"use_dora": True}, "use_dora=True"),
            ({"bias": "all"}, "bias=all"),
            ({"lora_bias": True}, "lora_bias=True"),
            ({"modules_to_save": ["norm"]}, "modules_to_save"),
            ({"target_modules": ["embed_tokens", "q_proj"]}, "not linear"),
            ({"init_lora_weights": "pissa"}, "init_lora_weights=pissa, which changes the base weights"),
        ],
        ids=str,
    )
    @pytest.mark.parametrize("loaded", [True, False])
    @pytest.mark.filterwarnings("ignore:Setting .save_embedding_layers", "ignore::peft.utils.warning.PeftWarning")
    def test_more_than_plain_lora(self, options: dict[str, Any], message: str, loaded: bool, tmp_path: Path) -> None:
        """Loaded or from its folder: refused, with the way that works."""
        from peft import LoraConfig, get_peft_model

        config = LoraConfig(**{"r": 2, "target_modules": ["q_proj"], "task_type": "CAUSAL_LM", **options})
        model = get_peft_model(tiny("llama"), config)
        model.save_pretrained(tmp_path)
        given, name = (model, "default") if loaded else (tiny("llama"), str(tmp_path))
        if "embed_tokens" in str(options) and not loaded:
            message = "not a LoRA weight"
        with pytest.raises(tk.ModelError, match=f"(?s){message}.*amateur=tk.load"):
            tk.ICD(given, amateur=name)

    @pytest.mark.filterwarnings("ignore:The following (rank|alpha)_pattern keys")
    def test_experts(self, tmp_path: Path) -> None:
        """transformers keeps a mixture's experts in one parameter, which peft adapts as a whole."""
        for given, name in (
            (tiny("mixtral"), save_adapter(tiny("mixtral"), tmp_path)),
            (with_adapter(tiny("mixtral"), str(tmp_path)), "default"),
        ):
            with pytest.raises(tk.ModelError, match=r"experts.*not a linear layer|layer that is not linear"):
                tk.ICD(given, amateur=name)


class TestFolderThatDoesNotFit:
    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        save_adapter(tiny("llama"), tmp_path)
        return tmp_path

    def rewrite(self, folder: Path, change: Any) -> None:
        weights = load_file(folder / "adapter_model.safetensors")
        save_file(change(weights), folder / "adapter_model.safetensors")

    def test_other_size(self, folder: Path) -> None:
        with pytest.raises(
            tk.ModelError, match=r"trained for another model: .*maps 64 to 48 features there, 64 to 24 here"
        ):
            tk.ICD(tiny("llama", hidden_size=24), amateur=str(folder))

    def test_other_architecture(self, folder: Path) -> None:
        with pytest.raises(tk.ModelError, match=r"adapts 'model\.layers\.0\..*which GPT2LMHeadModel does not have"):
            tk.ICD(tiny("gpt2"), amateur=str(folder))

    def test_half_a_layer(self, folder: Path) -> None:
        self.rewrite(folder, lambda weights: dict(list(weights.items())[1:]))
        with pytest.raises(tk.ModelError, match="does not have"):
            tk.ICD(tiny("llama"), amateur=str(folder))

    def test_other_weights(self, folder: Path) -> None:
        self.rewrite(folder, lambda weights: weights | {"base_model.model.lm_head.weight": torch.zeros(1)})
        with pytest.raises(
            tk.ModelError, match=r"trains 'base_model\.model\.lm_head\.weight', which is not a LoRA weight"
        ):
            tk.ICD(tiny("llama"), amateur=str(folder))

    def test_other_kind(self, folder: Path) -> None:
        config = json.loads((folder / "adapter_config.json").read_text())
        (folder / "adapter_config.json").write_text(json.dumps(config | {"peft_type": "IA3"}))
        with pytest.raises(tk.ModelError, match="peft_type=IA3; only plain LoRA"):
            tk.ICD(tiny("llama"), amateur=str(folder))

    def test_no_safetensors(self, folder: Path) -> None:
        (folder / "adapter_model.safetensors").unlink()
        with pytest.raises(tk.NotAvailableError, match=r"has no adapter_model\.safetensors; save it again"):
            tk.ICD(tiny("llama"), amateur=str(folder))


def test_weights_that_change_between_prompts(tmp_path: Path) -> None:
    """In one block: untrained at first, then trained, then trained further in one layer."""
    folder = save_adapter(tiny("llama"), tmp_path)
    model, oracle = with_adapter(tiny("llama"), folder), with_adapter(tiny("llama"), folder)
    seen: list[Any] = []

    def change(act: Any) -> None:
        for one in (model, oracle):
            with torch.no_grad():
                for name, weight in one.named_parameters():
                    act(name, weight)

    trained = {name: weight.detach().clone() for name, weight in model.named_parameters() if "lora_B" in name}
    change(lambda name, weight: weight.zero_() if name in trained else None)
    with tk.ICD(model, amateur="default") as session, torch.no_grad():
        session.observers.append(lambda views, _combined: seen.append([view.logits for view in views]))
        model(**BATCH)
        change(lambda name, weight: weight.copy_(trained[name]) if name in trained else None)
        model(**BATCH)
        change(lambda name, weight: weight.mul_(2) if "layers.1.self_attn.k_proj.lora_A" in name else None)
        model(**BATCH)
    assert torch.equal(*seen[0])
    torch.testing.assert_close(seen[2][1], oracle(**BATCH).logits, atol=2e-4, rtol=1e-5)
    assert (seen[1][1] - seen[2][1]).abs().max() > 1e-3
