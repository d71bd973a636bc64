"""A FiftyOne data set on disk, written by FiftyOne itself (`pip install fiftyone`; it brings a database of its own).

Load it with `fiftyone.Dataset.from_dir(out, fiftyone.types.FiftyOneDataset)`.
"""

from pathlib import Path

from entitysam.errors import ConfigError
from entitysam.exchange.video import TrackedVideo, decode, new_folder
from entitysam.io.result_folder import recorded_origin

FIELD = "entities"


def write_fiftyone(video: TrackedVideo, out: Path) -> None:
    """One sample, whose frames (from 1) have `entities`: boxes, masks, `index` = id, confidence.

    Raises:
        ConfigError: FiftyOne is not installed.
        InputError: the video of the result is no local file.
    """
    try:
        import fiftyone as fo
    except ImportError as error:
        raise ConfigError("--to fiftyone needs FiftyOne: pip install fiftyone") from error
    origin = recorded_origin(Path(video.id), {"source": video.source or {}}) or {}
    sample = fo.Sample(filepath=origin["source"])
    for number, found in enumerate(video.by_frame(), start=1):
        detections = []
        for entity, instance in found:
            x, y, width, height = instance.box
            box = [x / video.width, y / video.height, width / video.width, height / video.height]
            inside = None
            if instance.mask is not None:
                inside = decode(instance.mask)[int(y) : int(y + height), int(x) : int(x + width)]
            detections.append(fo.Detection(label=entity.label, bounding_box=box, mask=inside, index=entity.id,
                                           confidence=instance.score))  # fmt: skip
        sample.frames[number] = fo.Frame(**{FIELD: fo.Detections(detections=detections)})
    dataset = fo.Dataset()
    try:
        dataset.add_sample(sample)
        dataset.export(export_dir=str(new_folder(out)), dataset_type=fo.types.FiftyOneDataset, export_media=False)
    finally:
        dataset.delete()
