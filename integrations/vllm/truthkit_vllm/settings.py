"""What an engine was told: the arguments that switch things on, and reading them again in its processes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from truthkit_vllm import EXIT_ARCHITECTURES, PREFIX, spec

if TYPE_CHECKING:
    from vllm.config import VllmConfig

SCHEDULER = "truthkit_vllm.scheduler.GangScheduler"
WORKER = "truthkit_vllm.worker.SteeringWorker"
PROCESSOR = "truthkit_vllm.siblings:Siblings"


@dataclass(frozen=True)
class Settings:
    """The engine's `additional_config["truthkit"]`.

    Attributes:
        decoder: one of `spec.EXITS`, as text; None where the model has no exits.
        steer: vector files, as text; a request names them by file name without ending.
        patience: seconds that a view waits for the others of its prompt.
    """

    decoder: str | None = None
    steer: tuple[str, ...] = ()
    patience: float = 60.0

    @classmethod
    def of(cls, vllm_config: VllmConfig) -> Settings:
        """Those of an engine.

        Raises:
            ValueError: one that is not known.
        """
        config = vllm_config.additional_config
        told: dict[str, Any] = config.get("truthkit", {}) if isinstance(config, dict) else {}
        if unknown := told.keys() - {"decoder", "steer", "patience"}:
            raise ValueError(f"truthkit has no setting {min(unknown)!r} in vLLM; expected decoder, steer or patience.")
        steer = told.get("steer", ())
        return cls(
            told.get("decoder"), (steer,) if isinstance(steer, str) else tuple(steer), told.get("patience", 60.0)
        )

    @property
    def vectors(self) -> dict[str, str]:
        """The vectors' names, with what they were written as."""
        return {Path(spec.vector(text)[0]).stem: text for text in self.steer}


def check_runner(vllm_config: VllmConfig, what: str) -> None:
    """Raise unless the engine runs models in the way that was tried.

    Raises:
        ValueError: it has vLLM's second model runner.
    """
    if vllm_config.use_v2_model_runner:
        raise ValueError(f"{what} was written for vLLM's first model runner; set VLLM_USE_V2_MODEL_RUNNER=0.")


def engine(
    *,
    architecture: str | None = None,
    decoder: str | None = None,
    steer: str | Sequence[str] = (),
    views: bool = False,
    adapters: int = 0,
) -> dict[str, Any]:
    """Arguments for `vllm.LLM`, beside the model and whatever else it gets.

    Args:
        architecture: the model's, as its config.json has it; needed beside `decoder`.
        decoder: "dola", "sled" or "deco", with options if any, for all requests of the engine.
        steer: vector files that requests may name, as `v.safetensors:layers=14`.
        views: allow requests under CAD and ICD.
        adapters: how many LoRA adapters requests may name: amateurs, and others.

    Raises:
        ValueError: a value that cannot work.
    """
    told: dict[str, Any] = {}
    arguments: dict[str, Any] = {"enforce_eager": True}
    requests = {"logits_processors": [PROCESSOR], "scheduler_cls": SCHEDULER, "async_scheduling": False}
    if decoder is not None:
        if spec.decoder(decoder)[0] not in spec.EXITS:
            raise ValueError(f"decoder is {decoder!r}, which a request names, not an engine; pass views=True here.")
        if architecture not in EXIT_ARCHITECTURES:
            known = ", ".join(EXIT_ARCHITECTURES)
            raise ValueError(f"architecture is {architecture!r}; early exits are read in {known}.")
        told["decoder"] = decoder
        arguments["hf_overrides"] = {"architectures": [PREFIX + architecture]}
    if steer:
        told["steer"] = [steer] if isinstance(steer, str) else list(steer)
        arguments |= {**requests, "worker_cls": WORKER}
    if views:
        arguments |= requests
    if adapters:
        arguments |= {"enable_lora": True, "max_loras": adapters + 1}  # one slot stays empty: see `GangScheduler`
    return arguments | ({"additional_config": {"truthkit": told}} if told else {})
