"""SA-V's json of one video (SAM 2's data set): masklets as a list of run-length codes per frame."""

import json
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import Field
from typing_extensions import NotRequired, TypedDict

from entitysam.exchange.video import (
    Entity,
    Instance,
    TrackedVideo,
    check_video,
    checked_mask,
    encode,
    new_file,
)
from entitysam.io.files import whole_file
from entitysam.io.json_files import Finite, Integer, check_type, load_json
from entitysam.io.readers.base import InputError


def write_sa_v(video: TrackedVideo, out: Path) -> None:
    """One json. As in SA-V, a masklet has an empty mask where it is not visible; ids stay in `masklet_id`."""
    empty = encode(np.zeros((video.height, video.width), np.uint8))
    rows = [
        [empty if (found := entity.instances.get(index)) is None else found.mask for entity in video.entities]
        for index in range(len(video.frames))
    ]
    if any(mask is None for row in rows for mask in row):
        raise InputError(f"{video.id}: has entities without masks, which SA-V cannot hold")
    shown = [sorted(entity.instances) for entity in video.entities]
    areas = [float(np.mean([i.area for i in e.instances.values()] or [0])) for e in video.entities]
    known = [time for time in video.times if time is not None]
    contents = {
        "video_id": video.id,
        "video_duration": known[-1] if known else None,
        "video_frame_count": len(video.frames),
        "video_width": video.width,
        "video_height": video.height,
        "video_resolution": video.width * video.height,
        "masklet_num": len(video.entities),
        "masklet_id": [entity.id for entity in video.entities],
        "masklet_type": ["auto"] * len(video.entities),
        "masklet_first_appeared_frame": [frames[0] if frames else 0 for frames in shown],
        "masklet_frame_count": [len(frames) for frames in shown],
        "masklet_edited_frame_count": [0] * len(video.entities),
        "masklet_size_abs": areas,
        "masklet_size_rel": [area / (video.width * video.height) for area in areas],
        "masklet_stability_score": [[entity.score] for entity in video.entities],
        "masklet": rows,
    }
    with whole_file(new_file(out)) as temporary:
        temporary.write_text(json.dumps(contents), encoding="utf-8")


Pixels = Annotated[float, Field(ge=1, le=2**16)]  # SA-V writes 1080.0


class _SAV(TypedDict):
    video_id: str
    video_width: NotRequired[Pixels]
    video_height: NotRequired[Pixels]
    masklet_id: list[Integer]
    masklet: list[list[dict[str, Any]]]
    masklet_stability_score: NotRequired[list[list[Finite]]]


def read_sa_v(path: Path) -> TrackedVideo:
    """A video of SA-V. Its ids may start at 0; then they are counted from 1.

    Raises:
        InputError: a value that cannot be used.
    """
    contents = check_type(load_json(path), _SAV, str(path), InputError)
    rows, numbers = contents["masklet"], contents["masklet_id"]
    size: tuple[int, int] | None = None
    offset = 1 if 0 in numbers else 0
    scores = contents.get("masklet_stability_score", [])
    entities = [
        Entity(number + offset, scores[place][0] if place < len(scores) and scores[place] else 1.0)
        for place, number in enumerate(numbers)
    ]
    for index, row in enumerate(rows):
        if len(row) != len(numbers):
            raise InputError(f"{path}: frame {index}: {len(row)} masks for {len(numbers)} masklets")
        for entity, code in zip(entities, row):
            if size is None:
                sides = code.get("size")
                if not isinstance(sides, list) or len(sides) != 2 or not all(type(s) is int for s in sides):
                    raise InputError(f"{path}: frame {index}: a mask without a size")
                size = sides[1], sides[0]
            instance = Instance.of_mask(checked_mask(code, size, f"{path}: frame {index}"), entity.score)
            if instance.area:
                entity.instances[index] = instance
    if size is None:
        size = int(contents.get("video_width", 0)), int(contents.get("video_height", 0))
    if min(size) < 1:
        raise InputError(f"{path}: neither masks nor a size")
    frames = [f"{index:05d}" for index in range(len(rows))]
    return check_video(TrackedVideo(contents["video_id"], *size, frames, entities), str(path))
