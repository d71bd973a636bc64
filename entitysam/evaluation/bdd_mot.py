"""CLEAR MOT and IDF1 with the conventions of py-motmetrics, as the BDD100K evaluation uses them.

Differs from `clear_mot` in the matching (a pair is kept as long as it overlaps, also across gaps), in MT/PT/ML and in
the undefined cases.
"""

import numpy as np
from scipy.optimize import linear_sum_assignment

from entitysam.evaluation.clear_mot import identity_agreement
from entitysam.evaluation.counts import Counts
from entitysam.evaluation.tracks import Alignment

MAX_DISTANCE = 0.5
FORBIDDEN = 1e6  # higher than the total cost of all allowed pairs of a frame
NAMES = ("objects", "predictions", "right", "distance", "FP", "FN", "IDSw", "MT", "PT", "ML", "FM", "IDTP")


def zero_counts() -> Counts:
    """Counts of no video."""
    return {name: np.zeros(()) for name in NAMES}


def count(alignment: Alignment) -> Counts:
    """Counts of one class of one video."""
    counts = zero_counts()
    tracks = len(alignment.truth_ids)
    partner = np.full(tracks, -1)  # predicted track of the last match
    history: list[list[bool]] = [[] for _ in range(tracks)]
    for pairs in alignment.frames:
        distance = np.where(1 - pairs.similarity <= MAX_DISTANCE, 1 - pairs.similarity, np.inf)
        before = partner.copy()
        kept = _keep_pairs(pairs.truth, pairs.predicted, distance, partner)
        rows, columns = _assign_rest(distance, kept)
        switched = (before[pairs.truth[rows]] >= 0) & (before[pairs.truth[rows]] != pairs.predicted[columns])
        partner[pairs.truth[rows]] = pairs.predicted[columns]
        rows, columns = np.append(rows, list(kept)).astype(int), np.append(columns, list(kept.values())).astype(int)
        for row, track in enumerate(pairs.truth):
            history[track].append(bool((rows == row).any()))
        counts["IDSw"] += switched.sum()
        counts["right"] += len(rows)
        counts["distance"] += distance[rows, columns].sum()
        counts["FN"] += len(pairs.truth) - len(rows)
        counts["FP"] += len(pairs.predicted) - len(rows)
    counts["objects"] += alignment.truth_boxes.sum()
    counts["predictions"] += alignment.predicted_boxes.sum()
    counts["IDTP"] += identity_agreement(alignment)
    return counts | _track_counts(history)


def _keep_pairs(truth: np.ndarray, predicted: np.ndarray, distance: np.ndarray, partner: np.ndarray) -> dict[int, int]:
    """Row -> column of pairs from earlier frames that still overlap."""
    kept: dict[int, int] = {}
    for row, track in enumerate(truth):
        same = [c for c in np.flatnonzero(predicted == partner[track]) if c not in kept.values()]
        if same and np.isfinite(distance[row, same[0]]):
            kept[row] = int(same[0])
    return kept


def _assign_rest(distance: np.ndarray, kept: dict[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Maximum number of pairs, then minimum distance, among the remaining boxes."""
    cost = np.where(np.isfinite(distance), distance, FORBIDDEN)
    cost[list(kept)] = FORBIDDEN
    cost[:, list(kept.values())] = FORBIDDEN
    rows, columns = linear_sum_assignment(cost)
    allowed = cost[rows, columns] < FORBIDDEN
    return rows[allowed], columns[allowed]


def _track_counts(history: list[list[bool]]) -> Counts:
    """Mostly tracked, partly tracked and mostly lost tracks, and fragmentations; `history` is True per matched box."""
    share = np.array([np.mean(found) for found in history])
    breaks = 0
    for found in history:
        hits = np.flatnonzero(found)
        breaks += int((np.diff(hits) > 1).sum())
    return {
        "MT": np.array((share >= 0.8).sum()),
        "PT": np.array(((share >= 0.2) & (share < 0.8)).sum()),
        "ML": np.array((share < 0.2).sum()),
        "FM": np.array(breaks),
    }


def numbers(counts: Counts) -> dict[str, np.ndarray]:
    """Metrics in percent, NaN (or minus infinity) for a zero denominator; counts unchanged."""
    with np.errstate(divide="ignore", invalid="ignore"):
        wrong = counts["FN"] + counts["IDSw"] + counts["FP"]
        result = {
            "MOTA": 100 * (1 - wrong / counts["objects"]),
            "MOTP": 100 * (1 - counts["distance"] / counts["right"]),
            "IDF1": 100 * 2 * counts["IDTP"] / (counts["objects"] + counts["predictions"]),
        }
    return result | {name: counts[name] for name in ("FP", "FN", "IDSw", "MT", "PT", "ML", "FM")}
