"""A small result of `entitysam track` without masks."""

import numpy as np

from entitysam.io.writers.tracks import TrackWriter
from entitysam.structures import Detections

SIZE = 72, 128  # height, width
BOXES = {
    1: (4.0, 4.0, 60.0, 60.0),
    2: (40.5, 20.0, 60.0, 40.0),
    3: (-8.0, 50.0, 20.0, 90.0),
}  # x1, y1, x2, y2 on frame 0


def boxes_of(frame):
    """Boxes by id: 2 moves by 2 pixels a frame, 3 is gone from frame 6 on."""
    found = {number: np.array(box) for number, box in BOXES.items() if number != 3 or frame < 6}
    found[2][[0, 2]] += 2 * frame
    return found


def write_boxes(folder, frames):
    """As `track` writes it; scores 0.9, 0.8, 0.7."""
    source = {"source": str(folder.parent / "clip.mp4"), "stride": 1, "max_frames": None}
    with TrackWriter(folder, "boxes", SIZE[1], SIZE[0], 10.0, source) as writer:
        for index in range(frames):
            found = boxes_of(index)
            ids = np.array(list(found))
            objects = Detections.of(list(found.values()), 1 - ids / 10)
            writer.add(f"{index:05d}", np.zeros((*SIZE, 3), np.uint8), ids, objects, [], index / 10)
        writer.finish()
    return folder
