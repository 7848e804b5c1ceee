# The names of `truthkit`, which are looked up here when first used: a new one is a line.

from truthkit.activations.capture import Capture as Capture
from truthkit.activations.isotropy import isotropy as isotropy
from truthkit.activations.modality_gap import ModalityGap as ModalityGap, modality_gap as modality_gap
from truthkit.decoding.contrastive_search.processor import (
    ContrastiveSearchLogitsProcessor as ContrastiveSearchLogitsProcessor,
)
from truthkit.decoding.contrastive_search.search import (
    ContrastiveSearch as ContrastiveSearch,
    contrastive_search as contrastive_search,
)
from truthkit.decoding.engine.decoder import Decoder as Decoder, Together as Together
from truthkit.decoding.engine.processor import TogetherLogitsProcessor as TogetherLogitsProcessor
from truthkit.decoding.engine.session import Session as Session
from truthkit.decoding.engine.view import View as View, ViewLogits as ViewLogits
from truthkit.decoding.methods.apc import APC as APC, APCLogitsProcessor as APCLogitsProcessor
from truthkit.decoding.methods.cad import CAD as CAD, CADLogitsProcessor as CADLogitsProcessor
from truthkit.decoding.methods.dola import DoLa as DoLa, DoLaLogitsProcessor as DoLaLogitsProcessor
from truthkit.decoding.methods.icd import ICD as ICD, ICDLogitsProcessor as ICDLogitsProcessor
from truthkit.decoding.methods.lol import LOL as LOL, LOLLogitsProcessor as LOLLogitsProcessor
from truthkit.decoding.methods.m3id import M3ID as M3ID, M3IDLogitsProcessor as M3IDLogitsProcessor
from truthkit.decoding.methods.ritual import RITUAL as RITUAL, RITUALLogitsProcessor as RITUALLogitsProcessor
from truthkit.decoding.methods.ritual_plus import (
    RITUALPlus as RITUALPlus,
    RITUALPlusLogitsProcessor as RITUALPlusLogitsProcessor,
)
from truthkit.decoding.methods.vcd import VCD as VCD, VCDLogitsProcessor as VCDLogitsProcessor
from truthkit.decoding.methods.activation_decoding import (
    ActivationDecoding as ActivationDecoding,
    ActivationDecodingLogitsProcessor as ActivationDecodingLogitsProcessor,
)
from truthkit.decoding.methods.adacad import AdaCAD as AdaCAD, AdaCADLogitsProcessor as AdaCADLogitsProcessor
from truthkit.decoding.methods.agreement import (
    Agreement as Agreement,
    AgreementLogitsProcessor as AgreementLogitsProcessor,
)
from truthkit.decoding.methods.avisc import AvisC as AvisC, AvisCLogitsProcessor as AvisCLogitsProcessor
from truthkit.decoding.methods.coiecd import COIECD as COIECD, COIECDLogitsProcessor as COIECDLogitsProcessor
from truthkit.decoding.methods.deco import DeCo as DeCo, DeCoLogitsProcessor as DeCoLogitsProcessor
from truthkit.decoding.methods.entropy_gate import (
    EntropyGate as EntropyGate,
    EntropyGateLogitsProcessor as EntropyGateLogitsProcessor,
)
from truthkit.decoding.methods.pai import PAI as PAI, PAILogitsProcessor as PAILogitsProcessor
from truthkit.decoding.methods.sid import SID as SID, SIDLogitsProcessor as SIDLogitsProcessor
from truthkit.decoding.methods.exits_mean import (
    ExitsMean as ExitsMean,
    ExitsMeanLogitsProcessor as ExitsMeanLogitsProcessor,
)
from truthkit.decoding.methods.sled import SLED as SLED, SLEDLogitsProcessor as SLEDLogitsProcessor
from truthkit.decoding.methods.top_n_sigma import (
    TopNSigma as TopNSigma,
    TopNSigmaLogitsProcessor as TopNSigmaLogitsProcessor,
)
from truthkit.decoding.methods.when import When as When, WhenLogitsProcessor as WhenLogitsProcessor
from truthkit.decoding.opera.search import OPERA as OPERA, opera as opera
from truthkit.detection.detect import Detection as Detection, detect as detect
from truthkit.errors import (
    ArgumentError as ArgumentError,
    AttachError as AttachError,
    MissingExtraError as MissingExtraError,
    ModelError as ModelError,
    NotAvailableError as NotAvailableError,
    TruthkitError as TruthkitError,
)
from truthkit.factcheck.checker import FactChecker as FactChecker
from truthkit.hf.fast import fast_decoding as fast_decoding
from truthkit.hf.growing_cache import GrowingCache as GrowingCache
from truthkit.models.loading import load as load
from truthkit.steering.conditions import Cosine as Cosine, Entropy as Entropy
from truthkit.steering.extraction.extract import extract as extract
from truthkit.steering.iti import ITI as ITI, iti_vector as iti_vector
from truthkit.steering.steer import Steering as Steering
from truthkit.steering.vector import SteeringVector as SteeringVector
from truthkit.steering.vision import (
    VisionSteering as VisionSteering,
    VisionVector as VisionVector,
    vision_vector as vision_vector,
)
from truthkit.steering.vista import (
    VISTA as VISTA,
    VISTALogitsProcessor as VISTALogitsProcessor,
    vista_vectors as vista_vectors,
)
from truthkit.steering.vti import VTI as VTI

__all__: list[str]
__version__: str
