"""Decoding methods: each compares the model with other *views* of the same text.

One file per method; `decoder.py` is the engine they share, `views.py` says what a view may change.
"""

from truthkit.decoding.contrastive_search.search import (
    ContrastiveSearch,
    ContrastiveSearchLogitsProcessor,
    contrastive_search,
)
from truthkit.decoding.engine.decoder import Decoder, Together
from truthkit.decoding.engine.processor import TogetherLogitsProcessor
from truthkit.decoding.engine.view import View, ViewLogits
from truthkit.decoding.methods.apc import APC, APCLogitsProcessor
from truthkit.decoding.methods.cad import CAD, CADLogitsProcessor
from truthkit.decoding.methods.dola import DoLa, DoLaLogitsProcessor
from truthkit.decoding.methods.icd import ICD, ICDLogitsProcessor
from truthkit.decoding.methods.lol import LOL, LOLLogitsProcessor
from truthkit.decoding.methods.m3id import M3ID, M3IDLogitsProcessor
from truthkit.decoding.methods.ritual import RITUAL, RITUALLogitsProcessor
from truthkit.decoding.methods.ritual_plus import RITUALPlus, RITUALPlusLogitsProcessor
from truthkit.decoding.methods.vcd import VCD, VCDLogitsProcessor
from truthkit.hf.fast import fast_decoding
from truthkit.hf.growing_cache import GrowingCache

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
