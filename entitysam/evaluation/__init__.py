"""Evaluators of every benchmark, registered by name in `entitysam.registry.EVALUATORS`."""

from entitysam.evaluation.evaluator import EvaluationError, Evaluator, build_evaluators
from entitysam.evaluation.panoptic_png import read_panoptic_png
from entitysam.evaluation.semantic import SemanticSegmentation
from entitysam.evaluation.stq import STQ, EntitySTQ
from entitysam.evaluation.tube_pq import VEQ, VPQ
from entitysam.evaluation.videos import PanopticSequence, PanopticVideo, SemanticVideo

__all__ = [
    "STQ",
    "VEQ",
    "VPQ",
    "EntitySTQ",
    "EvaluationError",
    "Evaluator",
    "PanopticSequence",
    "PanopticVideo",
    "SemanticSegmentation",
    "SemanticVideo",
    "build_evaluators",
    "read_panoptic_png",
]
