"""Builds MASA's network, tracker settings and re-identification from names, files and options."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask
from torch import nn

from entitysam.engine.build import open_model, pick_device
from entitysam.engine.build.opening import MASA
from entitysam.inference.segmenter import VideoSegmenter
from entitysam.io.writers.annotations import describe_entities
from entitysam.masa.reid import MergedVideo, Reidentifier
from entitysam.masa.tracker import TrackerSettings, read_setting
from entitysam.shipped import RANDOM, TINY, shipped_folder
from entitysam.structures import Detections

DEFAULT = "masa_tiny"
PROPOSAL_LIMIT = 300  # MASA's supplement, I.1


def open_masa(weights: str | Path | None = None, model: str | Mapping[str, Any] = "") -> nn.Module:
    """A MASA in eval mode on the CPU.

    Args:
        weights: a file; "random"; None or "" = the shipped tiny weights.
        model: name or config node of the network, if the file has no config; the default of random weights is "masa_tiny".

    Raises:
        CheckpointError, FileNotFoundError: weights that are missing, unreadable or do not fit.
        ConfigError: unknown model.
    """
    if not weights and not model:
        return open_model(DEFAULT, kind=MASA).model
    if weights == RANDOM:
        return open_model(model or DEFAULT, RANDOM, kind=MASA).model
    return open_model(model, weights or shipped_folder("checkpoints") / TINY[DEFAULT], kind=MASA).model


def tracker_settings(node: Mapping[str, Any]) -> TrackerSettings:
    """Tracker settings from options: `setting` ("video"), `association` ("masa"), and fields of `TrackerSettings`.

    Raises:
        ConfigError: unknown key, setting or association, or a value of a wrong type or out of range.
    """
    options = dict(node)
    name, association = str(options.pop("setting", "video")), str(options.pop("association", "masa"))
    return read_setting(name, association, **options)


def needs_model(settings: TrackerSettings, proposals: int) -> bool:
    """Whether tracking with these settings and this number of the network's own proposals per frame needs a network."""
    return proposals > 0 or settings.similarity != "iou"


def open_reidentifier(weights: str, device: str = "auto") -> Reidentifier:
    """A `Reidentifier`; arguments and errors as for `open_masa` and `pick_device`."""
    target = pick_device(device)
    model: Any = open_masa(weights).to(target)
    return Reidentifier(model, target)


class ReidentifyingSegmenter:
    """A `VideoMethod` with re-identification: entities that return get their first id.

    Args:
        segmenter: `inference.segmenter.VideoSegmenter`.
        reidentifier: merges entities that return.
    """

    def __init__(self, segmenter: VideoSegmenter, reidentifier: Reidentifier) -> None:
        self.segmenter, self.reidentifier = segmenter, reidentifier

    def segment(self, frames: Iterable[np.ndarray], out_size: tuple[int, int]) -> MergedVideo:
        """Frames uint8 [H, W, 3] RGB, which are iterated twice."""
        return self.reidentifier.merge(frames, self.segmenter.segment(frames, out_size))


def detections_of_map(ids: np.ndarray, scores: np.ndarray) -> Detections:
    """The entities of a map int [H, W] (0 = none) as detections; `scores` [n] of the ids 1..n."""
    entities = describe_entities(ids)
    boxes = [[x, y, x + width, y + height] for x, y, width, height in (entity["bbox"] for entity in entities)]
    found = np.asarray(scores, float)[[entity["id"] - 1 for entity in entities]] if entities else np.zeros(0)
    return Detections.of(boxes, found, masks=[entity["segmentation"] for entity in entities])


def box_of_mask(mask: Mapping[str, Any]) -> list[float]:
    """Box [x1, y1, x2, y2] in pixels around a run-length encoded mask."""
    x, y, width, height = coco_mask.toBbox(dict(mask)).tolist()
    return [x, y, x + width, y + height]
