"""A FiftyOne data set on disk, written by FiftyOne itself (`pip install fiftyone`; it brings a database of its own).

Load it with `fiftyone.Dataset.from_dir(out, fiftyone.types.FiftyOneDataset)`.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from entitysam.errors import ConfigError
from entitysam.exchange.video import Entity, Instance, TrackedVideo, decode, new_folder
from entitysam.io.readers.base import InputError
from entitysam.io.readers.source import open_frames
from entitysam.io.result_folder import recorded_origin

FIELD = "entities"


def write_fiftyone(videos: Sequence[TrackedVideo], out: Path) -> None:
    """One data set with `entities`: boxes, masks, `index` = id, confidence.

    A video file is one sample, whose frames (from 1) are those of the file. Of a folder of images each image is a sample
    with `video` and `frame`.

    Raises:
        ConfigError: FiftyOne is not installed.
        InputError: the frames of a result are no local files; video files and images, which no data set holds together.
    """
    try:
        import fiftyone as fo
    except ImportError as error:
        raise ConfigError("--to fiftyone needs FiftyOne: pip install fiftyone") from error
    samples: list[Any] = []
    for video in videos:
        samples += _samples(fo, video)
        if samples[-1].media_type != samples[0].media_type:
            raise InputError(f"{video.id}: FiftyOne keeps video files and images in data sets of their own, not in one")
    dataset = fo.Dataset()
    try:
        dataset.add_samples(samples, progress=False)
        dataset.export(
            export_dir=str(new_folder(out)),
            dataset_type=fo.types.FiftyOneDataset,
            export_media=False,
            progress=False,
        )
    finally:
        dataset.delete()


def _samples(fo: Any, video: TrackedVideo) -> list[Any]:
    try:
        origin = recorded_origin(Path(video.id), {"source": video.source})
    except InputError:
        origin = None
    if origin is None:
        raise InputError(
            f"{video.id}: FiftyOne needs the frames, and they are in no local file or folder that is there"
        )
    with open_frames(origin["source"]) as source:
        files = {file.stem: file for file in source.files}
    detections = [_detections(fo, video, found) for found in video.by_frame()]
    if video.frames[0] in files and source.fps is None:
        missing = next((name for name in video.frames if name not in files), None)
        if missing is not None:
            raise InputError(f"{video.id}: {origin['source']} has no image '{missing}' any more")
        return [fo.Sample(filepath=str(files[name]), video=video.id, frame=index, **{FIELD: found})
                for index, (name, found) in enumerate(zip(video.frames, detections, strict=True))]  # fmt: skip
    sample = fo.Sample(filepath=origin["source"], video=video.id)
    if sample.media_type != "video":
        raise InputError(f"{video.id}: FiftyOne takes {origin['source']} for an image, not for a video")
    for index, (name, found) in enumerate(zip(video.frames, detections, strict=True)):
        number = int(name) if name.isdecimal() else index  # our names are the numbers in the file
        sample.frames[number + 1] = fo.Frame(**{FIELD: found})
    return [sample]


def _detections(fo: Any, video: TrackedVideo, found: Sequence[tuple[Entity, Instance]]) -> Any:
    detections = []
    for entity, instance in found:
        x, y, width, height = instance.box
        box = [x / video.width, y / video.height, width / video.width, height / video.height]
        inside = None
        if instance.mask is not None:
            inside = decode(instance.mask)[int(y) : int(y + height), int(x) : int(x + width)]
        detections.append(fo.Detection(label=entity.label, bounding_box=box, mask=inside, index=entity.id,
                                       confidence=instance.score))  # fmt: skip
    return fo.Detections(detections=detections)
