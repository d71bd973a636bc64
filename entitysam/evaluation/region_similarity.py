"""J, the region similarity of DAVIS (Perazzi et al., CVPR 2016), of the single id that fits an object best.

A method that segments everything does not know which objects a set annotates. So every annotated object is scored by the one
predicted id that covers it best over the whole video: a change of the id on the way costs all frames after it (or before it).
"""

from collections import Counter
from collections.abc import Sequence

import numpy as np

from entitysam.evaluation.evaluator import Evaluator
from entitysam.evaluation.videos import PanopticVideo
from entitysam.registry import EVALUATORS

RECALLED = 0.5  # J above which DAVIS counts an object as found


@EVALUATORS.register("best_id_j")
class BestIdJ(Evaluator[PanopticVideo, list[float]]):
    """J of an object: mean over the frames of the IoU of its mask and the predicted one, 1 where both are empty. Fractions.

    `compute` returns `J`, the mean over all objects of all videos, and `J-recall`, the share of the objects with J > 0.5. Predicted pixels
    outside of the object are errors, labelled or not.
    """

    def measure(self, video: PanopticVideo, warnings: Counter[str]) -> list[float]:
        overlaps, frames = video.overlaps, len(video.truth)
        objects, truth = np.unique(overlaps.truth_id, return_inverse=True)
        found, predicted = np.unique(overlaps.predicted_id, return_inverse=True)
        shared = np.zeros((frames, len(objects), len(found)), np.int64)
        shared[overlaps.frame, truth, predicted] = overlaps.pixels
        union = shared.sum(2, keepdims=True) + shared.sum(1, keepdims=True) - shared
        iou = np.where(union > 0, shared / np.maximum(union, 1), 1.0).mean(0)  # [objects, found]
        iou = iou[objects > 0][:, found > 0]
        absent = (shared.sum(2) == 0).mean(0)[objects > 0]  # what an id without any pixel would get
        return np.maximum(iou.max(1, initial=0), absent).tolist()

    def summarise(self, records: Sequence[list[float]]) -> dict[str, float]:
        values = np.array([value for record in records for value in record])
        if not len(values):
            return {"J": float("nan"), "J-recall": float("nan")}
        return {"J": float(values.mean()), "J-recall": float((values > RECALLED).mean())}
