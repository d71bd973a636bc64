"""Selects the frames of a masklet for the classifier: those of highest entity confidence (paper, section 3.3.4)."""

import numpy as np


def choose_frames(areas: np.ndarray, frame_scores: np.ndarray | None = None, top: int = 1) -> list[list[int]]:
    """The best frames of each entity, best first. Ties go to the larger area, then to the earlier frame.

    Args:
        areas: int [n, T] visible pixels.
        frame_scores: float [n, T] entity confidence per frame (predicted IoU); None = use the area instead.
        top: maximum number of frames per entity.

    Returns:
        per entity up to `top` frames on which it is visible; an empty list for an entity without pixels.
    """
    confidence = areas if frame_scores is None else frame_scores
    if confidence.shape != areas.shape:
        raise ValueError(f"scores of shape {confidence.shape} for areas of shape {areas.shape}")
    frames = np.arange(areas.shape[1])
    chosen = []
    for area, score in zip(areas, confidence):
        order = np.lexsort((frames, -area, -score))  # the last key is the primary one
        chosen.append([int(frame) for frame in order if area[frame] > 0][:top])
    return chosen
