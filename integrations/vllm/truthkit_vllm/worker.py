"""The platform's worker, with a model that is steered per request."""

from __future__ import annotations

from typing import Any

from vllm.platforms import current_platform
from vllm.utils.import_utils import resolve_obj_by_qualname

from truthkit_vllm import spec, vector_file
from truthkit_vllm.settings import SCHEDULER, Settings, check_runner
from truthkit_vllm.steering import Steering

_BASES = {True: "vllm.v1.worker.cpu_worker.CPUWorker", False: "vllm.v1.worker.gpu_worker.Worker"}


class SteeringWorker(resolve_obj_by_qualname(_BASES[current_platform.is_cpu()])):  # type: ignore[misc]
    """Reads the engine's vectors once its model is loaded.

    Raises:
        ValueError: the engine compiles its model, or is spread over stages, or shares its cache among steered requests;
            a vector cannot be read, or is not for this model.
    """

    def load_model(self, **named: Any) -> None:
        config = self.vllm_config
        check_runner(config, "steering")
        if not config.model_config.enforce_eager or config.parallel_config.pipeline_parallel_size > 1:
            raise ValueError("steering needs enforce_eager=True, and all layers in one stage.")
        if config.scheduler_config.scheduler_cls != SCHEDULER:
            raise ValueError(f"steering needs scheduler_cls={SCHEDULER!r}, which keeps the prefix cache apart.")
        vectors = {}
        for name, text in Settings.of(config).vectors.items():
            path, options = spec.vector(text)
            vectors[name] = vector_file.read(path, options.get("layers"))
        super().load_model(**named)
        Steering(self.model_runner, vectors)
