"""Decoding methods: each compares the model with other *views* of the same text.

One file per method in `methods`; `engine` is what they share.
"""

from truthkit.decoding.contrastive_search.search import (
    ContrastiveSearch,
    ContrastiveSearchLogitsProcessor,
    contrastive_search,
)
from truthkit.decoding.engine.decoder import Decoder, Together
from truthkit.decoding.engine.processor import TogetherLogitsProcessor
from truthkit.decoding.engine.registry import DECODERS
from truthkit.decoding.engine.session import Session
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
    "Session",
    "Together",
    "TogetherLogitsProcessor",
    "VCDLogitsProcessor",
    "View",
    "ViewLogits",
    "contrastive_search",
    "fast_decoding",
]
