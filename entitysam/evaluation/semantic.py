"""Video semantic segmentation on VSPW: mIoU and video consistency (Miao et al., VSPW, CVPR 2021).

Follows the scripts behind EntitySAM's published numbers: consistency is pooled over clips, measures whether the
prediction is constant where the annotation is (not whether it is correct), and ignores the last clip of a video.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from entitysam.evaluation.evaluator import EvaluationError, Evaluator
from entitysam.evaluation.videos import SemanticVideo
from entitysam.registry import EVALUATORS

VOID = 255


@dataclass(frozen=True)
class SemanticCounts:
    """Record of one video.

    Attributes:
        cells: int64 [n] non-zero cells of the flattened confusion matrix (truth x C + prediction).
        pixels: int64 [n] number of pixels per cell.
        consistency: per clip length, float64 [clips] value of each clip; NaN where the annotation of no pixel is constant.
    """

    cells: np.ndarray
    pixels: np.ndarray
    consistency: tuple[np.ndarray, ...]


@EVALUATORS.register("semantic")
class SemanticSegmentation(Evaluator[SemanticVideo, SemanticCounts]):
    """mIoU, pixel accuracies and mVC8, mVC16. Fractions.

    `compute` gives mIoU, Acc, Acc-class, fwIoU and mVC<n>, NaN where undefined. A prediction outside 0..C-1 is added
    to a wrong cell of the confusion matrix, as in the reference, and is counted in `warnings`.

    Args:
        num_classes: C.
        windows: clip lengths of the consistency in frames.
    """

    def __init__(self, num_classes: int = 124, windows: Sequence[int] = (8, 16)) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.windows = tuple(windows)

    def measure(self, video: SemanticVideo, warnings: Counter[str]) -> SemanticCounts:
        confusion = np.zeros(self.num_classes**2, np.int64)
        stable_truth, stable_prediction = _Stability(), _Stability()
        clips: tuple[list[float], ...] = tuple([] for _ in self.windows)
        for frame in range(video.frames):
            raw, predicted = video.read(frame)
            truth = np.where((raw == 0) | (raw == VOID), VOID, raw - 1).astype(np.int64)
            confusion += self._confusion(truth, predicted, f"video {video.video_id}, frame {frame}", warnings)
            stable_truth.update(truth, video.video_id, frame)
            stable_prediction.update(predicted, video.video_id, frame)
            for window, values in zip(self.windows, clips):
                if window - 1 <= frame < video.frames - 1:
                    values.append(_consistency(stable_truth.frames >= window, stable_prediction.frames >= window))
        cells = np.flatnonzero(confusion)
        return SemanticCounts(cells, confusion[cells], tuple(np.array(values) for values in clips))

    def confusion(self, records: Sequence[SemanticCounts]) -> np.ndarray:
        """Pixels int64 [C, C]: rows ground truth, columns prediction."""
        total = np.zeros(self.num_classes**2, np.int64)
        for record in records:
            total[record.cells] += record.pixels
        return total.reshape(self.num_classes, self.num_classes)

    def summarise(self, records: Sequence[SemanticCounts]) -> dict[str, float]:
        confusion = self.confusion(records)
        right, truth, predicted = np.diag(confusion), confusion.sum(1), confusion.sum(0)
        annotated, pixels = truth > 0, truth.sum()
        iou = right[annotated] / (truth + predicted - right)[annotated]
        result = {
            "mIoU": _mean(iou),
            "Acc": right.sum() / pixels if pixels else np.nan,
            "Acc-class": _mean(right[annotated] / truth[annotated]),
            "fwIoU": (truth[annotated] * iou).sum() / max(pixels, 1),
        }
        for index, window in enumerate(self.windows):
            clips = np.concatenate([record.consistency[index] for record in records] or [np.zeros(0)])
            result[f"mVC{window}"] = _mean(clips[~np.isnan(clips)])
        return {name: float(value) for name, value in result.items()}

    def _confusion(self, truth: np.ndarray, predicted: np.ndarray, where: str, warnings: Counter[str]) -> np.ndarray:
        labelled = truth < self.num_classes
        wrong = labelled & (predicted >= self.num_classes)
        warnings["pixels with a predicted class that does not exist"] += int(wrong.sum())
        # Cell (truth, prediction) of the confusion matrix as one index: [C * C].
        cells = np.bincount(truth[labelled] * self.num_classes + predicted[labelled], minlength=self.num_classes**2)
        if len(cells) > self.num_classes**2:
            bad = int(predicted[wrong].max())
            raise EvaluationError(f"{where}: predicted class {bad}, expected 0..{self.num_classes - 1}")
        return cells


class _Stability:
    """Number of frames for which each pixel has kept its label: `frames`, int32 [H, W]."""

    def __init__(self) -> None:
        self.last: np.ndarray | None = None
        self.frames = np.zeros(0, np.int32)

    def update(self, labels: np.ndarray, video_id: Any, frame: int) -> None:
        if self.last is None:
            self.last, self.frames = labels, np.zeros(labels.shape, np.int32)
        if self.last.shape != labels.shape:
            raise EvaluationError(f"video {video_id}, frame {frame}: the frame size changes within the video")
        self.frames = np.where(labels == self.last, self.frames + 1, 1)
        self.last = labels


def _consistency(truth: np.ndarray, predicted: np.ndarray) -> float:
    """Fraction of the pixels with constant annotation whose prediction is constant too; NaN if there are none."""
    stable = int(truth.sum())
    return int((truth & predicted).sum()) / stable if stable else float("nan")


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else float("nan")
