"""What lmms-eval reads at its start (entry point `lmms_eval.models`): the name, and where the rest is."""

from __future__ import annotations

from lmms_eval.models.registry_v2 import ModelManifest

MANIFEST = ModelManifest(model_id="truthkit", simple_class_path="truthkit.lmms_eval.model.TruthkitLMM")
