"""IDF1 (Ristani et al., ECCVW 2016) and the CLEAR MOT metrics (Bernardin and Stiefelhagen, 2008) at IoU 0.5."""

import numpy as np
from scipy.optimize import linear_sum_assignment

from entitysam.evaluation.counts import Counts
from entitysam.evaluation.tracks import EPSILON, Alignment

THRESHOLD = 0.5


def identity_zero() -> Counts:
    """Counts of no video."""
    return {name: np.zeros(()) for name in ("IDTP", "IDFN", "IDFP")}


def identity_agreement(alignment: Alignment) -> float:
    """Number of matching boxes (IoU >= 0.5) under the one-to-one assignment of tracks that maximises it."""
    agree = np.zeros((len(alignment.truth_ids), len(alignment.predicted_ids)))
    for pairs in alignment.frames:
        np.add.at(agree, np.ix_(pairs.truth, pairs.predicted), pairs.similarity >= THRESHOLD)
    return float(agree[linear_sum_assignment(-agree)].sum())


def identity_counts(alignment: Alignment) -> Counts:
    """Identity true positives, misses and false positives of a video."""
    right = identity_agreement(alignment)
    return {
        "IDTP": np.array(right),
        "IDFN": alignment.truth_boxes.sum() - right,
        "IDFP": alignment.predicted_boxes.sum() - right,
    }


def identity_numbers(counts: Counts) -> dict[str, np.ndarray]:
    """IDF1, identity recall and precision, fractions."""
    tp, fn, fp = counts["IDTP"], counts["IDFN"], counts["IDFP"]
    return {
        "IDF1": tp / np.maximum(tp + fn / 2 + fp / 2, 1),
        "IDR": tp / np.maximum(tp + fn, 1),
        "IDP": tp / np.maximum(tp + fp, 1),
    }


def clear_zero() -> Counts:
    """Counts of no video."""
    names = ("CLR_TP", "CLR_FN", "CLR_FP", "IDSW", "MT", "PT", "ML", "Frag", "overlap")
    return {name: np.zeros(()) for name in names}


def clear_counts(alignment: Alignment) -> Counts:
    """Counts of the frame-by-frame matching, which keeps pairs of the previous frame that still overlap."""
    counts = clear_zero()
    tracks = len(alignment.truth_ids)
    last, previous = (
        np.full(tracks, -1),
        np.full(tracks, -1),
    )  # [G] predicted track of the last match, and of the previous frame
    matched_frames, starts = np.zeros(tracks), np.zeros(tracks)
    for pairs in alignment.frames:
        if not len(pairs.truth) or not len(pairs.predicted):
            # `previous` is kept over such frames, as in TrackEval.
            counts["CLR_FN"] += len(pairs.truth)
            counts["CLR_FP"] += len(pairs.predicted)
            continue
        # The bonus of 1000 makes the assignment keep the pairs of the previous frame.
        score = pairs.similarity + 1000 * (previous[pairs.truth][:, None] == pairs.predicted)  # [n, m]
        score[pairs.similarity < THRESHOLD - EPSILON] = 0
        rows, columns = linear_sum_assignment(-score)
        kept = score[rows, columns] > EPSILON
        rows, columns = rows[kept], columns[kept]
        truth, predicted = pairs.truth[rows], pairs.predicted[columns]
        counts["IDSW"] += ((last[truth] >= 0) & (last[truth] != predicted)).sum()
        matched_frames[truth] += 1
        starts[truth] += previous[truth] < 0
        last[truth] = predicted
        previous[:] = -1
        previous[truth] = predicted
        counts["CLR_TP"] += len(rows)
        counts["CLR_FN"] += len(pairs.truth) - len(rows)
        counts["CLR_FP"] += len(pairs.predicted) - len(rows)
        counts["overlap"] += pairs.similarity[rows, columns].sum()
    share = matched_frames / alignment.truth_boxes
    counts["MT"] += (share > 0.8).sum()
    counts["PT"] += (share >= 0.2).sum() - (share > 0.8).sum()
    counts["ML"] += (share < 0.2).sum()
    counts["Frag"] += np.maximum(starts - 1, 0).sum()
    return counts


def clear_numbers(counts: Counts) -> dict[str, np.ndarray]:
    """MOTA, MOTP, MODA, recall and precision, fractions; MOTA and MODA may be negative."""
    tp, fn, fp = counts["CLR_TP"], counts["CLR_FN"], counts["CLR_FP"]
    annotated = np.maximum(tp + fn, 1)
    return {
        "MOTA": (tp - fp - counts["IDSW"]) / annotated,
        "MOTP": counts["overlap"] / np.maximum(tp, 1),
        "MODA": (tp - fp) / annotated,
        "CLR_Re": tp / annotated,
        "CLR_Pr": tp / np.maximum(tp + fp, 1),
    }
