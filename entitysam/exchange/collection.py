"""Outputs of `entitysam bulk` as videos with entities."""

from collections.abc import Iterator
from pathlib import Path

from entitysam.bulk.results import VideoResults, open_results
from entitysam.exchange.video import Entity, Instance, TrackedVideo, check_video, checked_mask


def read_collection(folder: Path) -> Iterator[TrackedVideo]:
    """The finished videos of an output, each read when it is asked for.

    Raises:
        InputError: see `open_results`; a value that cannot be used.
    """
    results = open_results(folder)
    return (read_video(results[name]) for name in results)


def read_video(video: VideoResults) -> TrackedVideo:
    """One video of an output."""
    entities = {number: Entity(number, score) for number, score in video.scores.items()}
    for rows in video.rows():
        for row in rows:
            code = checked_mask(row["rle"], (video.width, video.height), f"{video.path}: frame {row['frame']}")
            box = tuple(row[side] for side in ("x", "y", "width", "height"))
            entities[row["entity"]].instances[row["frame"]] = Instance(box, row["score"], code)
    source = {"source": video.source, **video.reading}
    found = TrackedVideo(video.id, video.width, video.height, video.frames, list(entities.values()), video.fps,
                         video.times, source)  # fmt: skip
    return check_video(found, str(video.path))
