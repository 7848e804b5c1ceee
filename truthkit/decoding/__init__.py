"""Decoding methods: each compares the model with other *views* of the same text.

One file per method; `decoder.py` is the engine they share, `views.py` says what a view may change.
"""

from truthkit.decoding.cache import GrowingCache
from truthkit.decoding.cad import CAD, CADLogitsProcessor
from truthkit.decoding.contrastive_search import (
    ContrastiveSearch,
    ContrastiveSearchLogitsProcessor,
    contrastive_search,
)
from truthkit.decoding.decoder import Decoder
from truthkit.decoding.dola import DoLa, DoLaLogitsProcessor
from truthkit.decoding.fast import fast_decoding
from truthkit.decoding.icd import ICD, ICDLogitsProcessor
from truthkit.decoding.lol import LOL, LOLLogitsProcessor
from truthkit.decoding.views import View, ViewLogits

DECODERS = {"icd": ICD, "lol": LOL, "dola": DoLa, "cad": CAD, "contrastive_search": ContrastiveSearch}
"""Decoder names of the command line; a new decoder is one file and one entry here."""

__all__ = [
    "CAD",
    "DECODERS",
    "ICD",
    "LOL",
    "CADLogitsProcessor",
    "ContrastiveSearch",
    "ContrastiveSearchLogitsProcessor",
    "Decoder",
    "DoLa",
    "DoLaLogitsProcessor",
    "GrowingCache",
    "ICDLogitsProcessor",
    "LOLLogitsProcessor",
    "View",
    "ViewLogits",
    "contrastive_search",
    "fast_decoding",
]
