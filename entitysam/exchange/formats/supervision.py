"""`supervision.Detections` (Roboflow), one per frame: for its annotators, trackers, metrics and zones."""

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import numpy as np

from entitysam.exchange.video import ENTITY, Entity, Instance, TrackedVideo, check_video, decode

if TYPE_CHECKING:
    import supervision


def to_supervision(video: TrackedVideo) -> "Iterator[supervision.Detections]":
    """The entities on each frame: `tracker_id` is the id, `class_id` the place of the label, `data["class_name"]` the label."""
    import supervision as sv

    labels = video.labels
    for found in video.by_frame():
        if not found:
            yield sv.Detections.empty()
            continue
        boxes = np.array([instance.box for _, instance in found], float)
        masks = [None if instance.mask is None else decode(instance.mask) for _, instance in found]
        yield sv.Detections(
            xyxy=np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1),
            mask=None if any(mask is None for mask in masks) else np.stack(masks),  # type: ignore[arg-type]
            confidence=np.array([instance.score for _, instance in found]),
            class_id=np.array([labels.index(entity.label) for entity, _ in found]),
            tracker_id=np.array([entity.id for entity, _ in found]),
            data={"class_name": np.array([entity.label for entity, _ in found])},
        )


def from_supervision(
    detections: "Iterable[supervision.Detections]", width: int, height: int, video_id: str = "video"
) -> TrackedVideo:
    """A video of the detections on each frame; those without `tracker_id` are left out.

    Args:
        detections: one per frame.
        width, height: of the frames in pixels.
        video_id: name of the video.
    """
    entities: dict[int, Entity] = {}
    count = 0
    for index, found in enumerate(detections):
        count = index + 1
        names = found.data.get("class_name")
        for row in range(len(found)):
            if found.tracker_id is None or found.tracker_id[row] is None:
                continue
            number = int(found.tracker_id[row])
            label = None if names is None else str(names[row])
            entity = entities.setdefault(number, Entity(number, name=None if label == ENTITY else label))
            score = 1.0 if found.confidence is None else float(found.confidence[row])
            if found.mask is not None:
                entity.instances[index] = Instance.of_mask(np.asarray(found.mask[row], bool), score)
            else:
                left, top, right, bottom = (float(value) for value in found.xyxy[row])
                entity.instances[index] = Instance((left, top, right - left, bottom - top), score)
    for entity in entities.values():
        entity.score = float(np.mean([instance.score for instance in entity.instances.values()]))
    frames = [f"{index:05d}" for index in range(count)]
    return check_video(TrackedVideo(video_id, width, height, frames, list(entities.values())), video_id)
