"""A small result folder with exact ids: frames in clip.mp4, maps as `segment` writes them."""

import numpy as np

from entitysam.io.result_folder import CLIP
from entitysam.io.writers.segments import ResultWriter
from entitysam.io.writers.video import VideoWriter

FPS = 10.0


def moving_squares(num_frames=24, size=(72, 128)):
    """Frames uint8 [T, H, W, 3] and ids int32 [T, H, W]: 1 = ground, 2 and 3 = squares that move, 4 = one that goes at half time."""
    height, width = size
    side = height // 4
    frames, ids = [], []
    rows, columns = np.mgrid[:height, :width]
    for t in range(num_frames):
        id_map = np.ones(size, np.int32)
        shift = round((width - side - 8) * t / max(num_frames - 1, 1))
        id_map[6 : 6 + side, 4 + shift : 4 + shift + side] = 2
        id_map[height // 2 : height // 2 + side, width - 4 - side - shift : width - 4 - shift] = 3
        if t < num_frames // 2:
            id_map[height - side // 2 :, :side] = 4
        colours = np.array([[0, 0, 0], [60, 80, 70], [220, 60, 50], [50, 90, 230], [230, 200, 60]])
        shade = (rows + columns)[..., None] % 32
        frames.append((colours[id_map] + shade - 16).clip(0, 255).astype(np.uint8))
        ids.append(id_map)
    return np.stack(frames), np.stack(ids)


def write_result(folder, frames, ids, title="squares", fps=FPS):
    """Writes clip and result; scores fall with the id, 0.9, 0.8, ..., a little on every second frame."""
    clip = folder / CLIP
    folder.mkdir(parents=True, exist_ok=True)
    height, width = ids.shape[1:]
    with VideoWriter(clip, width, height, fps) as video:
        for index, frame in enumerate(frames):
            video.add(frame, index / fps)
    numbers = [int(i) for i in np.unique(ids) if i]
    score = {number: max(0.95 - 0.05 * number, 0.1) for number in numbers}
    source = {"source": str(clip.resolve()), "stride": 1, "max_frames": None}
    with ResultWriter(folder, title, width, height, fps, source, other_files=[CLIP]) as writer:
        for index, (frame, id_map) in enumerate(zip(frames, ids)):
            scores = {number: value - 0.02 * (index % 2) for number, value in score.items()}
            writer.add(f"{index:05d}", frame, id_map, scores, index / fps)
        writer.finish(score)
    return folder
