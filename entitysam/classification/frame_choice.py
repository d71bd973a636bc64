"""Which frames of a masklet are shown to a classifier: those of its highest entity confidence (paper, section 3.3.4)."""

import numpy as np


def choose_frames(areas: np.ndarray, frame_scores: np.ndarray | None = None, top: int = 1) -> list[list[int]]:
    """The best frames of each entity, best first.

    Args:
        areas: int [n, T] visible pixels.
        frame_scores: float [n, T] entity confidence on each frame (expected IoU); None where a method gives none: the
            largest area is best then. Among equals the larger area, then the earlier frame.
        top: at most so many frames.

    Returns:
        per entity up to `top` frames on which it is visible; none for an entity without pixels.
    """
    confidence = areas if frame_scores is None else frame_scores
    if confidence.shape != areas.shape:
        raise ValueError(f"scores of shape {confidence.shape} for areas of shape {areas.shape}")
    frames = np.arange(areas.shape[1])
    chosen = []
    for area, score in zip(areas, confidence):
        order = np.lexsort((frames, -area, -score))
        chosen.append([int(frame) for frame in order if area[frame] > 0][:top])
    return chosen
