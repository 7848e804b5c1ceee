"""Decoding methods: each compares the model with other *views* of the same text.

One file per method; `decoder.py` is the engine they share, `views.py` says what a view may change.
"""

from truthkit.decoding.apc import APC, APCLogitsProcessor
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
from truthkit.decoding.m3id import M3ID, M3IDLogitsProcessor
from truthkit.decoding.ritual import RITUAL, RITUALLogitsProcessor
from truthkit.decoding.ritual_plus import RITUALPlus, RITUALPlusLogitsProcessor
from truthkit.decoding.together import Together, TogetherLogitsProcessor
from truthkit.decoding.vcd import VCD, VCDLogitsProcessor
from truthkit.decoding.views import View, ViewLogits

DECODERS = {
    "icd": ICD,
    "lol": LOL,
    "dola": DoLa,
    "cad": CAD,
    "ritual": RITUAL,
    "ritual_plus": RITUALPlus,
    "vcd": VCD,
    "m3id": M3ID,
    "apc": APC,
    "contrastive_search": ContrastiveSearch,
}
"""Decoder names of the command line; a new decoder is one file and one entry here."""

__all__ = [
    "APC",
    "CAD",
    "DECODERS",
    "ICD",
    "LOL",
    "M3ID",
    "RITUAL",
    "VCD",
    "APCLogitsProcessor",
    "CADLogitsProcessor",
    "ContrastiveSearch",
    "ContrastiveSearchLogitsProcessor",
    "Decoder",
    "DoLa",
    "DoLaLogitsProcessor",
    "GrowingCache",
    "ICDLogitsProcessor",
    "LOLLogitsProcessor",
    "M3IDLogitsProcessor",
    "RITUALLogitsProcessor",
    "RITUALPlus",
    "RITUALPlusLogitsProcessor",
    "Together",
    "TogetherLogitsProcessor",
    "VCDLogitsProcessor",
    "View",
    "ViewLogits",
    "contrastive_search",
    "fast_decoding",
]
