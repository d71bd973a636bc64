"""A Rerun recording (.rrd): frames, segmentation images, boxes with ids, and scores over time."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np

from entitysam.exchange.video import TrackedVideo, new_file
from entitysam.io.files import whole_file
from entitysam.io.readers.source import open_frames
from entitysam.io.result_folder import recorded_origin
from entitysam.visualization.overlay import id_colours

QUALITY = 85  # of the JPEGs in the recording


def write_rerun(video: TrackedVideo, out: Path) -> None:
    """`entities/mask`, `entities/boxes`, `scores/<id>` on the timelines "frame" and "time"; `video` where the frames are there."""
    import rerun as rr

    recording = rr.RecordingStream("entitysam", recording_id=video.id)
    with whole_file(new_file(out)) as temporary, _frames(video) as frames:
        recording.save(temporary)
        numbers = [entity.id for entity in video.entities]
        colours = id_colours(np.array(numbers, int)).reshape(-1, 3)
        context = [rr.AnnotationInfo(id=entity.id, label=f"{entity.label} {entity.id}", color=colour.tolist())
                   for entity, colour in zip(video.entities, colours)]  # fmt: skip
        recording.log("entities", rr.AnnotationContext(context), static=True)
        for index, (time, found) in enumerate(zip(video.times, video.by_frame(), strict=True)):
            recording.set_time("frame", sequence=index)
            if time is not None:
                recording.set_time("time", duration=time)
            picture = None if frames is None else next(frames, None)  # the file may have become shorter
            if picture is not None:
                recording.log("entities/video", rr.Image(picture).compress(jpeg_quality=QUALITY))
            if video.has_masks:
                recording.log("entities/mask", rr.SegmentationImage(video.id_map(found).astype(_kind(numbers))))
            boxes = rr.Boxes2D(
                array=[instance.box for _, instance in found],
                array_format=rr.Box2DFormat.XYWH,
                class_ids=[entity.id for entity, _ in found],
                labels=[f"{entity.label} {entity.id}" for entity, _ in found],
            )
            recording.log("entities/boxes", boxes)
            for entity, instance in found:
                recording.log(f"scores/{entity.id}", rr.Scalars(instance.score))
        recording.flush()
        recording.disconnect()


def _kind(numbers: list[int]) -> type:
    return np.uint8 if max(numbers, default=0) < 256 else np.uint16 if max(numbers) < 2**16 else np.uint32


@contextmanager
def _frames(video: TrackedVideo) -> Iterator[Any]:
    """The frames of the result's own input where it is a local file of the same size; None elsewhere."""
    try:
        origin = recorded_origin(Path(video.id), {"source": video.source})
        source = nullcontext(None) if origin is None else open_frames(**origin)
    except ValueError:  # moved, or an address: the recording has no frames
        source = nullcontext(None)
    with source as frames:
        fits = frames is not None and (frames.width, frames.height) == (video.width, video.height)
        yield iter(frames) if frames is not None and fits else None
