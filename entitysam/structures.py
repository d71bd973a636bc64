"""The types that cross borders between the parts of the project.

Shape legend, used everywhere: B batch, T frames, Q entities (queries), N targets, K tokens per entity, C channels,
H W image rows and columns, S side of the square model input, h w feature grid (S/16), P points, M memories.
Coordinates are (x, y) pixels unless a name says `_yx` or `_norm`; masks are logits unless a name says `_prob` or `_mask`.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor


@dataclass
class FrameOutput:
    """What the network says of one frame.

    Attributes:
        mask_logits: [Q, S/4, S/4], before hole filling.
        iou: [Q] predicted mask IoU in 0..1.
        entity_logits: [Q, 2]; index 1 is trained as "entity".
        points: [Q, 2] point prompt of each query, (x, y) in pixels of the S x S input (see quirk 2 of `docs/QUIRKS.md`).
        score: [Q] expected IoU in 0..1 (paper section 3.3.3).
    """

    mask_logits: Tensor
    iou: Tensor
    entity_logits: Tensor
    points: Tensor
    score: Tensor


@dataclass
class ClipOutput:
    """What the network says of a whole training clip.

    Attributes:
        entity_logits: [Q, 2], averaged over the frames.
        iou: [Q, T] predicted mask IoU.
        mask_logits: [Q, T, S/4, S/4].
    """

    entity_logits: Tensor
    iou: Tensor
    mask_logits: Tensor


@dataclass
class Targets:
    """The entities of a clip.

    Attributes:
        masks: bool [N, T, S, S]; disjoint on every frame, each entity visible on at least one frame.
        categories: int64 [N] category ids of the data set (-1 where there are none); training ignores them.
    """

    masks: Tensor
    categories: Tensor

    def to(self, device: torch.device | str) -> "Targets":
        return Targets(self.masks.to(device, non_blocking=True), self.categories.to(device, non_blocking=True))

    def __len__(self) -> int:
        return len(self.masks)


@dataclass
class Clip:
    """One training example.

    Attributes:
        frames: uint8 [T, 3, S, S] RGB; padding is 0.
        targets: the entities.
        source: the image file(s) it came from, for messages.
        index: position in the data order, for exact resume.
    """

    frames: Tensor
    targets: Targets
    source: str
    index: int = -1

    def to(self, device: torch.device | str) -> "Clip":
        return Clip(self.frames.to(device, non_blocking=True), self.targets.to(device), self.source, self.index)

    def pin_memory(self) -> "Clip":
        targets = Targets(self.targets.masks.pin_memory(), self.targets.categories.pin_memory())
        return Clip(self.frames.pin_memory(), targets, self.source, self.index)


@dataclass
class Video:
    """One video of an evaluation data set; pixels are read when they are asked for.

    Attributes:
        video_id: its name in the benchmark's files.
        frame_files: image file of each frame, in order.
        height, width: size of the annotated frames in pixels.
        annotation: what the reader knows of the ground truth; its form belongs to the data set's reader.
    """

    video_id: str
    frame_files: list[Path]
    height: int
    width: int
    annotation: dict[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.frame_files)


@dataclass
class VideoSegments:
    """The result of a video: one non-overlapping entity map per frame.

    Attributes:
        ids: int32 [T, H, W]; 0 = no entity, 1..n otherwise.
        scores: float32 [n] score of segment id 1..n.
        query_of_segment: int64 [n] the query behind segment id 1..n.
        frame_scores: float32 [n, T] score of each segment on each frame.
    """

    ids: np.ndarray
    scores: np.ndarray
    query_of_segment: np.ndarray
    frame_scores: np.ndarray
