"""Thresholds of MASA's tracker: the three settings of the published configurations, and changes to them."""

import math
from dataclasses import dataclass, replace

from entitysam.registry import ConfigError
from entitysam.settings import read_settings

SIMILARITIES = ("masa", "bidirectional_softmax", "iou")


@dataclass(frozen=True)
class TrackerSettings:
    """Thresholds of Algorithm 1 (same letters as in the paper) and the options in which the published settings differ.

    Attributes:
        gamma: confidence above which a candidate starts a track.
        beta_obj: confidence above which a candidate may continue a track.
        beta: similarity above which it does.
        similarity: "masa" (Eq. 1), "bidirectional_softmax" (its first term), or "iou" (of boxes, without embeddings).
        momentum: weight of the new embedding in the embedding of a track; the old one has 1 - momentum.
        memory_frames: frames after which an unmatched track ends.
        candidate_frames: frames for which a candidate that neither continues nor starts a track is kept. It attracts
            similar candidates of the next frames, which then do not continue a track.
        max_jump: maximum displacement of a box centre per frame, in pixels at 30 frames per second; gaps multiply it.
            None = no limit.
        duplicate_iou: a candidate is a duplicate if its IoU with a more confident one is above this value.
        weak_score, weak_duplicate_iou: the IoU limit for candidates with a confidence below `weak_score`.
        within_category: match candidates only to tracks of their category.
    """

    gamma: float
    beta_obj: float
    beta: float
    similarity: str = "masa"
    momentum: float = 0.8
    memory_frames: int = 10
    candidate_frames: int = 0
    max_jump: float | None = None
    duplicate_iou: float = 1.0
    weak_score: float = 0.5
    weak_duplicate_iou: float = 0.3
    within_category: bool = False

    def __post_init__(self) -> None:
        if self.similarity not in SIMILARITIES:
            raise ConfigError(f"similarity: one of {', '.join(SIMILARITIES)}, not '{self.similarity}'")
        for name in ("gamma", "beta_obj", "momentum", "duplicate_iou", "weak_score", "weak_duplicate_iou"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"{name}: must be in 0..1, not {getattr(self, name)}")
        if not -1 <= self.beta <= 1:
            raise ConfigError(f"beta: must be in -1..1, not {self.beta}")
        for name in ("memory_frames", "candidate_frames"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name}: must not be negative, not {getattr(self, name)}")
        if self.max_jump is not None and not (math.isfinite(self.max_jump) and self.max_jump > 0):
            raise ConfigError(f"max_jump: must be positive and finite, or null for no limit, not {self.max_jump}")


# The published configurations. The thresholds of duplicates come from the published code; the paper gives none.
SETTINGS = {
    "tao": TrackerSettings(gamma=1e-4, beta_obj=1e-4, beta=0.5),
    "video": TrackerSettings(gamma=0.1, beta_obj=0.01, beta=0.5, max_jump=100.0),
    "bdd": TrackerSettings(
        gamma=0.5,
        beta_obj=0.3,
        beta=0.6,
        similarity="bidirectional_softmax",
        candidate_frames=1,
        duplicate_iou=0.7,
        weak_score=0.3,
    ),
}
IOU_BETA = 0.3  # minimum IoU of IoU association, as in SORT (Bewley et al., ICIP 2016)


def read_setting(name: str, association: str = "masa", /, **changes: object) -> TrackerSettings:
    """A published setting with changes.

    Args:
        name: "tao", "video" or "bdd".
        association: "masa", or "iou" for the baseline without embeddings: IoU of boxes, `beta` 0.3, no `max_jump`.
        changes: fields of `TrackerSettings`.

    Raises:
        ConfigError: unknown name or field, or a value of a wrong type or out of range.
    """
    if name not in SETTINGS:
        raise ConfigError(f"setting: one of {', '.join(SETTINGS)}, not '{name}'")
    if association not in ("masa", "iou"):
        raise ConfigError(f"association: masa or iou, not '{association}'")
    setting = SETTINGS[name]
    if association == "iou":
        setting = replace(setting, similarity="iou", beta=IOU_BETA, max_jump=None, candidate_frames=0)
    return read_settings(TrackerSettings, changes, "tracker", setting)
