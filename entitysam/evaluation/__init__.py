"""Evaluators of every benchmark, registered by name in `entitysam.registry.EVALUATORS`."""

from entitysam.evaluation.bdd_tracking import BDDTracking
from entitysam.evaluation.box_tracking import BoxTracking
from entitysam.evaluation.entity_ap import EntityAP, make_exclusive
from entitysam.evaluation.evaluator import EvaluationError, Evaluator, build_evaluators
from entitysam.evaluation.panoptic_png import read_panoptic_png
from entitysam.evaluation.panoptic_quality import PanopticQuality
from entitysam.evaluation.region_similarity import BestIdJ
from entitysam.evaluation.semantic import SemanticSegmentation
from entitysam.evaluation.stq import STQ, EntitySTQ
from entitysam.evaluation.teta import TETA
from entitysam.evaluation.tracks import TrackedVideo, Tracks
from entitysam.evaluation.tube_ap import OVISAP, AgnosticYouTubeVISAP, YouTubeVISAP
from entitysam.evaluation.tube_pq import VEQ, VPQ
from entitysam.evaluation.videos import Instance, InstanceVideo, PanopticSequence, PanopticVideo, SemanticVideo

__all__ = [
    "OVISAP",
    "STQ",
    "TETA",
    "VEQ",
    "VPQ",
    "AgnosticYouTubeVISAP",
    "BDDTracking",
    "BestIdJ",
    "BoxTracking",
    "EntityAP",
    "EntitySTQ",
    "EvaluationError",
    "Evaluator",
    "Instance",
    "InstanceVideo",
    "PanopticQuality",
    "PanopticSequence",
    "PanopticVideo",
    "SemanticSegmentation",
    "SemanticVideo",
    "TrackedVideo",
    "Tracks",
    "YouTubeVISAP",
    "build_evaluators",
    "make_exclusive",
    "read_panoptic_png",
]
