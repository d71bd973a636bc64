"""The types that the parts of the project exchange.

Shape legend, used everywhere: B batch, T frames, Q entities (queries), N targets, K tokens per entity, C channels,
H W image rows and columns, S side of the square model input, h w feature grid (S/16), P points, M memories.
Coordinates are (x, y) pixels unless a name says `_yx` or `_norm`; masks are logits unless a name says `_prob` or `_mask`.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor


@dataclass
class FrameOutput:
    """Output of the network for one frame; leading batch dimensions where several frames are decoded together.

    Attributes:
        mask_logits: [Q, S/4, S/4], before hole filling.
        iou: [Q] predicted mask IoU in 0..1.
        entity_logits: [Q, 2]; index 1 is trained as "entity".
        points: [Q, 2] point prompt of each query, (x, y) in pixels of the S x S input (see quirk 2 of `docs/QUIRKS.md`).
        score: [Q] expected IoU in 0..1 (paper section 3.3.3, equation 6).
        layer_masks: [L, Q, S/4, S/4] mask logits of earlier decoder layers, where those are supervised.
        embeddings: [Q, C] the query of each entity after the decoder, by which frames without memory can be linked.
    """

    mask_logits: Tensor
    iou: Tensor
    entity_logits: Tensor
    points: Tensor
    score: Tensor
    layer_masks: Tensor | None = None
    embeddings: Tensor | None = None

    def map(self, change: Callable[[Tensor], Tensor]) -> "FrameOutput":
        """Applies a function to every tensor."""
        values = (getattr(self, field.name) for field in fields(self))
        return FrameOutput(*(None if value is None else change(value) for value in values))  # type: ignore[arg-type]


@dataclass
class ClipOutput:
    """Output of the network for a training clip.

    Attributes:
        entity_logits: [Q, 2], averaged over the frames.
        iou: [Q, T] predicted mask IoU.
        mask_logits: [Q, T, S/4, S/4].
        points: [Q, T, 2] point prompts, (x, y) in pixels of the S x S input.
        layer_masks: [L, Q, T, S/4, S/4] mask logits of earlier decoder layers, where those are supervised.
    """

    entity_logits: Tensor
    iou: Tensor
    mask_logits: Tensor
    points: Tensor | None = None
    layer_masks: Tensor | None = None

    def detach(self) -> "ClipOutput":
        values = (getattr(self, field.name) for field in fields(self))
        return ClipOutput(*(None if value is None else value.detach() for value in values))  # type: ignore[arg-type]


@dataclass
class PairOutput:
    """Output of MASA for two views of an image in training; K boxes of the key view, R of the reference view.

    Attributes:
        key, reference: [K, E] and [R, E] embeddings, not normalised.
        key_instances, reference_instances: int64 [K] and [R] row of the instance in `BoxTargets`; -1 = background, only
            in the reference view.
        key_boxes, reference_boxes: [K, 4] and [R, 4] (x1, y1, x2, y2) in pixels of the views.
        detection: losses of the detection head on the key view, by name.
    """

    key: Tensor
    reference: Tensor
    key_instances: Tensor
    reference_instances: Tensor
    key_boxes: Tensor
    reference_boxes: Tensor
    detection: dict[str, Tensor]

    def detach(self) -> "PairOutput":
        detection = {name: loss.detach() for name, loss in self.detection.items()}
        return replace(self, key=self.key.detach(), reference=self.reference.detach(), detection=detection)


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

    def pin_memory(self) -> "Targets":
        return Targets(self.masks.pin_memory(), self.categories.pin_memory())

    def __len__(self) -> int:
        return len(self.masks)


@dataclass
class TargetMaps:
    """The entities of a clip as id maps, 1 to 4 bytes per pixel instead of 1 byte per pixel and entity.

    This is the form in which targets travel from the data workers to the device; `to` expands them there.

    Attributes:
        ids: uint8 or int32 [T, S, S]; 0 = no entity, entity n of `Targets` has id n + 1.
        categories: int64 [N], as in `Targets`.
    """

    ids: Tensor
    categories: Tensor

    @property
    def masks(self) -> Tensor:
        """bool [N, T, S, S] on the device of the maps."""
        numbers = torch.arange(1, len(self) + 1, device=self.ids.device).to(self.ids.dtype)
        return self.ids == numbers[:, None, None, None]  # [T, S, S] == [N, 1, 1, 1]

    def to(self, device: torch.device | str) -> Targets:
        """Moves the maps and expands them to masks on the device."""
        moved = TargetMaps(self.ids.to(device, non_blocking=True), self.categories.to(device, non_blocking=True))
        return Targets(moved.masks, moved.categories)

    def pin_memory(self) -> "TargetMaps":
        return TargetMaps(self.ids.pin_memory(), self.categories.pin_memory())

    def __len__(self) -> int:
        return len(self.categories)


@dataclass
class BoxTargets:
    """The instances of a clip as boxes, for MASA; a row is one instance on all frames.

    Attributes:
        boxes: float32 [N, T, 4] (x1, y1, x2, y2) in pixels; they may overlap; zeros where an instance is not visible.
        visible: bool [N, T].
    """

    boxes: Tensor
    visible: Tensor

    def to(self, device: torch.device | str) -> "BoxTargets":
        return BoxTargets(self.boxes.to(device, non_blocking=True), self.visible.to(device, non_blocking=True))

    def pin_memory(self) -> "BoxTargets":
        return BoxTargets(self.boxes.pin_memory(), self.visible.pin_memory())

    def __len__(self) -> int:
        return len(self.boxes)


@dataclass
class Clip:
    """One training example.

    Attributes:
        frames: uint8 [T, 3, S, S] RGB; padding is 0 (114 in views for MASA).
        targets: the entities; `TargetMaps` on the host, `Targets` on the device; `BoxTargets` for MASA.
        source: the image file(s) of the clip, for messages.
        index: position in the data order, for exact resume.
    """

    frames: Tensor
    targets: Any
    source: str
    index: int = -1

    def to(self, device: torch.device | str) -> "Clip":
        return Clip(self.frames.to(device, non_blocking=True), self.targets.to(device), self.source, self.index)

    def pin_memory(self) -> "Clip":
        return Clip(self.frames.pin_memory(), self.targets.pin_memory(), self.source, self.index)


@dataclass
class Video:
    """One video of an evaluation data set; pixels are read on demand.

    Attributes:
        video_id: its name in the benchmark's files.
        frame_files: image file of each frame, in order.
        height, width: size of the annotated frames in pixels.
        annotation: the ground truth in the form of the data set's reader.
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
    """The segmentation of a video: one map of non-overlapping entities per frame.

    Attributes:
        ids: int32 [T, H, W]; 0 = no entity, 1..n otherwise.
        scores: float32 [n] score of segment id 1..n.
        query_of_segment: int64 [n] the query that predicted segment id 1..n.
        frame_scores: float32 [n, T] score of each segment on each frame.
    """

    ids: np.ndarray
    scores: np.ndarray
    query_of_segment: np.ndarray
    frame_scores: np.ndarray

    @classmethod
    def of(cls, ids: ArrayLike, scores: ArrayLike) -> "VideoSegments":
        """From maps [T, H, W] and a score per id 1..n, the same on all frames; id i is taken as query i - 1."""
        maps, of_id = np.asarray(ids, np.int32), np.asarray(scores, np.float32)
        return cls(maps, of_id, np.arange(len(of_id)), np.tile(of_id[:, None], (1, len(maps))))

    @property
    def num_frames(self) -> int:
        return len(self.ids)

    def iter_ids(self) -> Iterator[np.ndarray]:
        """The maps, int32 [H, W] in order."""
        return iter(self.ids)


@dataclass(frozen=True)
class Event:
    """A change of an entity or a track.

    `kind` is "born", "lost" (not visible for some frames), "back" (after it was lost), or, for entities, "recycled": its
    query follows another entity from now on.
    """

    kind: str
    id: int


@dataclass(frozen=True)
class Detections:
    """Objects seen on one frame by a detector or an annotator; N of them, in any order.

    Attributes:
        boxes: float64 [N, 4] x1, y1, x2, y2 in pixels; may reach out of the frame.
        scores: float64 [N] confidence in 0..1.
        categories: int64 [N] category ids; 0 where there are none.
        masks: per object a COCO run-length code of the frame's size, or None where only its box is known. Masks may
            overlap.
    """

    boxes: np.ndarray
    scores: np.ndarray
    categories: np.ndarray
    masks: list[dict[str, Any] | None]

    @classmethod
    def of(
        cls,
        boxes: ArrayLike,
        scores: ArrayLike | None = None,
        categories: ArrayLike | None = None,
        masks: Sequence[dict[str, Any] | None] | None = None,
    ) -> "Detections":
        """From arrays or lists of numbers; what is not given is 1 (scores), 0 (categories) and None (masks)."""
        boxes = np.asarray(boxes, float).reshape(-1, 4)
        count = len(boxes)
        return cls(
            boxes,
            np.ones(count) if scores is None else np.asarray(scores, float).reshape(count),
            np.zeros(count, np.int64) if categories is None else np.asarray(categories, np.int64).reshape(count),
            [None] * count if masks is None else list(masks),
        )

    def __len__(self) -> int:
        return len(self.boxes)

    def __add__(self, other: "Detections") -> "Detections":
        """Both, those of `other` behind."""
        return Detections(
            np.concatenate([self.boxes, other.boxes]),
            np.concatenate([self.scores, other.scores]),
            np.concatenate([self.categories, other.categories]),
            self.masks + other.masks,
        )

    def __getitem__(self, rows: np.ndarray) -> "Detections":
        """Those of a mask bool [N] or of indices."""
        chosen = np.arange(len(self))[rows]
        masks = [self.masks[row] for row in chosen]
        return Detections(self.boxes[chosen], self.scores[chosen], self.categories[chosen], masks)
