"""HOTA (Luiten et al., IJCV 2021): detection and association accuracy of tracks over localisation thresholds."""

import numpy as np

from entitysam.evaluation.counts import Counts
from entitysam.evaluation.tracks import EPSILON, Alignment

ALPHAS = np.arange(0.05, 0.99, 0.05)


def zero_counts(thresholds: int = len(ALPHAS)) -> Counts:
    """Counts of no video."""
    names = ("tp", "fn", "fp", "localisation", "association", "association_recall", "association_precision")
    return {name: np.zeros(thresholds) for name in names}


def count(alignment: Alignment) -> Counts:
    """Counts of a video per threshold [19]; associations are sums over the true positives, not means."""
    counts = zero_counts()
    shape = (len(ALPHAS), len(alignment.truth_ids), len(alignment.predicted_ids))
    together = np.zeros(shape)  # [19, G, P] number of frames on which the tracks match
    for pairs in alignment.frames:
        rows, columns = alignment.assign(pairs)
        similarity = pairs.similarity[rows, columns]
        matched = similarity >= ALPHAS[:, None] - EPSILON
        counts["tp"] += matched.sum(1)
        counts["fn"] += len(pairs.truth) - matched.sum(1)
        counts["fp"] += len(pairs.predicted) - matched.sum(1)
        counts["localisation"] += (matched * similarity).sum(1)
        together[:, pairs.truth[rows], pairs.predicted[columns]] += matched
    return counts | association_sums(together, alignment.truth_boxes, alignment.predicted_boxes)


def association_sums(together: np.ndarray, truth_boxes: np.ndarray, predicted_boxes: np.ndarray) -> Counts:
    """Sums of the association scores over the true positives, per threshold.

    Args:
        together: [thresholds, G, P] number of matches of each pair of tracks.
        truth_boxes, predicted_boxes: [G], [P] number of boxes per track.
    """
    truth, predicted = truth_boxes[:, None], predicted_boxes[None]

    def over(whole: np.ndarray) -> np.ndarray:
        return (together * (together / np.maximum(whole, 1))).sum((1, 2))

    return {
        "association": over(truth + predicted - together),
        "association_recall": over(truth + 0 * predicted),
        "association_precision": over(predicted + 0 * truth),
    }


def numbers(counts: Counts) -> dict[str, np.ndarray]:
    """HOTA and its parts per threshold [19] in 0..1."""
    tp, fn, fp = counts["tp"], counts["fn"], counts["fp"]
    matched = np.maximum(tp, 1)
    result = {
        "DetA": tp / np.maximum(tp + fn + fp, 1),
        "DetRe": tp / np.maximum(tp + fn, 1),
        "DetPr": tp / np.maximum(tp + fp, 1),
        "AssA": counts["association"] / matched,
        "AssRe": counts["association_recall"] / matched,
        "AssPr": counts["association_precision"] / matched,
        "LocA": np.maximum(counts["localisation"], 1e-10) / np.maximum(tp, 1e-10),
    }
    result["HOTA"] = np.sqrt(result["DetA"] * result["AssA"])
    result["OWTA"] = np.sqrt(result["DetRe"] * result["AssA"])
    return result
