"""Truthful decoding, steering and benchmarks for Hugging Face models.

Importing this package is cheap: names are looked up when first used, and only then are torch and transformers imported.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from truthkit.errors import (
    ArgumentError,
    AttachError,
    MissingExtraError,
    ModelError,
    NotAvailableError,
    TruthkitError,
)

if TYPE_CHECKING:
    from truthkit.activations.capture import Capture
    from truthkit.activations.isotropy import isotropy
    from truthkit.decoding import (
        APC,
        CAD,
        ICD,
        LOL,
        M3ID,
        RITUAL,
        VCD,
        APCLogitsProcessor,
        CADLogitsProcessor,
        ContrastiveSearch,
        ContrastiveSearchLogitsProcessor,
        Decoder,
        DoLa,
        DoLaLogitsProcessor,
        GrowingCache,
        ICDLogitsProcessor,
        LOLLogitsProcessor,
        M3IDLogitsProcessor,
        RITUALLogitsProcessor,
        RITUALPlus,
        RITUALPlusLogitsProcessor,
        Together,
        TogetherLogitsProcessor,
        VCDLogitsProcessor,
        View,
        ViewLogits,
        fast_decoding,
    )
    from truthkit.decoding.contrastive_search import search as contrastive_search
    from truthkit.factcheck.checker import FactChecker
    from truthkit.models import load
    from truthkit.steering import Steering, SteeringVector, extract

__version__ = "0.1.0"

_HOME = {
    "load": "truthkit.models",
    "CAD": "truthkit.decoding",
    "ICD": "truthkit.decoding",
    "LOL": "truthkit.decoding",
    "CADLogitsProcessor": "truthkit.decoding",
    "ContrastiveSearch": "truthkit.decoding",
    "ContrastiveSearchLogitsProcessor": "truthkit.decoding",
    "Decoder": "truthkit.decoding",
    "DoLa": "truthkit.decoding",
    "DoLaLogitsProcessor": "truthkit.decoding",
    "GrowingCache": "truthkit.decoding",
    "ICDLogitsProcessor": "truthkit.decoding",
    "LOLLogitsProcessor": "truthkit.decoding",
    "M3ID": "truthkit.decoding",
    "RITUAL": "truthkit.decoding",
    "VCD": "truthkit.decoding",
    "M3IDLogitsProcessor": "truthkit.decoding",
    "RITUALLogitsProcessor": "truthkit.decoding",
    "RITUALPlus": "truthkit.decoding",
    "RITUALPlusLogitsProcessor": "truthkit.decoding",
    "Together": "truthkit.decoding",
    "TogetherLogitsProcessor": "truthkit.decoding",
    "VCDLogitsProcessor": "truthkit.decoding",
    "APC": "truthkit.decoding",
    "APCLogitsProcessor": "truthkit.decoding",
    "View": "truthkit.decoding",
    "ViewLogits": "truthkit.decoding",
    "contrastive_search": "truthkit.decoding",
    "fast_decoding": "truthkit.decoding",
    "Capture": "truthkit.activations.capture",
    "FactChecker": "truthkit.factcheck.checker",
    "isotropy": "truthkit.activations.isotropy",
    "Steering": "truthkit.steering",
    "SteeringVector": "truthkit.steering",
    "extract": "truthkit.steering",
}

__all__ = [
    "APC",
    "CAD",
    "ICD",
    "LOL",
    "M3ID",
    "RITUAL",
    "VCD",
    "APCLogitsProcessor",
    "ArgumentError",
    "AttachError",
    "CADLogitsProcessor",
    "Capture",
    "ContrastiveSearch",
    "ContrastiveSearchLogitsProcessor",
    "Decoder",
    "DoLa",
    "DoLaLogitsProcessor",
    "FactChecker",
    "GrowingCache",
    "ICDLogitsProcessor",
    "LOLLogitsProcessor",
    "M3IDLogitsProcessor",
    "MissingExtraError",
    "ModelError",
    "NotAvailableError",
    "RITUALLogitsProcessor",
    "RITUALPlus",
    "RITUALPlusLogitsProcessor",
    "Steering",
    "SteeringVector",
    "Together",
    "TogetherLogitsProcessor",
    "TruthkitError",
    "VCDLogitsProcessor",
    "View",
    "ViewLogits",
    "__version__",
    "contrastive_search",
    "extract",
    "fast_decoding",
    "isotropy",
    "load",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_HOME[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
