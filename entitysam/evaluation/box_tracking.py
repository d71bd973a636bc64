"""HOTA, IDF1 and CLEAR MOT of tracked boxes, with the conventions of TrackEval."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from entitysam.evaluation import clear_mot, hota
from entitysam.evaluation.counts import Counts, total
from entitysam.evaluation.evaluator import Evaluator
from entitysam.evaluation.tracks import TrackedVideo, align
from entitysam.registry import EVALUATORS, ConfigError

AGNOSTIC = -1
COUNTED = (*clear_mot.identity_zero(), *clear_mot.clear_zero())  # numbers of boxes and tracks, not fractions
ZERO = hota.zero_counts() | clear_mot.identity_zero() | clear_mot.clear_zero()


@EVALUATORS.register("tracking")
class BoxTracking(Evaluator[TrackedVideo, dict[int, Counts]]):
    """HOTA (mean over 19 thresholds) and its parts, IDF1, MOTA and their parts and counts. Fractions.

    Plain names are means over all listed categories, including those without boxes; "-agnostic" ignores categories;
    "-pooled" sums the counts of all categories. Annotations with `ignore` are skipped.

    Args:
        categories: mappings with `id`.
        metrics: names of the metrics to compute, in this order; None = all.

    Raises:
        ConfigError: unknown metric.
    """

    def __init__(self, categories: Sequence[Mapping[str, Any]], metrics: Sequence[str] | None = None) -> None:
        super().__init__()
        self.metrics = metrics
        known = [name + suffix for name in self.numbers([], []) for suffix in ("", "-agnostic", "-pooled")]
        for name in metrics or ():
            if name not in known:
                raise ConfigError(f"evaluator 'tracking': no metric '{name}'; known: {', '.join(known)}")
        self.category_ids = [int(category["id"]) for category in categories]

    def measure(self, video: TrackedVideo, warnings: Counter[str]) -> dict[int, Counts]:
        truth, prediction = video.truth[~video.truth.ignore], video.prediction
        unknown = ~np.isin(prediction.category, self.category_ids)
        warnings["predicted boxes of an unknown category, used by the class-agnostic metrics only"] += int(
            unknown.sum()
        )
        record = {}
        for category in (AGNOSTIC, *self.category_ids):
            pair = (truth, prediction)
            if category != AGNOSTIC:
                pair = (truth[truth.category == category], prediction[prediction.category == category])
            alignment = align(*pair, video.video_id)
            record[category] = (
                hota.count(alignment) | clear_mot.identity_counts(alignment) | clear_mot.clear_counts(alignment)
            )
        return record

    def summarise(self, records: Sequence[dict[int, Counts]]) -> dict[str, float]:
        of_class = [self.numbers(records, [category]) for category in self.category_ids]
        result = {name: float(np.mean([row[name] for row in of_class])) for name in of_class[0]}
        for suffix, keys in (("-agnostic", [AGNOSTIC]), ("-pooled", self.category_ids)):
            result |= {f"{name}{suffix}": value for name, value in self.numbers(records, keys).items()}
        return result if self.metrics is None else {name: result[name] for name in self.metrics}

    def percent(self, numbers: Mapping[str, float]) -> dict[str, float]:
        counted = {name for name in numbers if name.partition("-")[0] in COUNTED}
        return {name: value if name in counted else value * self.scale for name, value in numbers.items()}

    @staticmethod
    def numbers(records: Sequence[dict[int, Counts]], keys: Sequence[int]) -> dict[str, float]:
        """The metrics and counts of some categories (AGNOSTIC: of all boxes), pooled over videos and categories."""
        counts = total((record[key] for record in records for key in keys), ZERO)
        per_threshold = hota.numbers(counts)
        values = per_threshold | clear_mot.identity_numbers(counts) | clear_mot.clear_numbers(counts)
        values |= {name: counts[name] for name in COUNTED}
        values["HOTA@0.05"] = per_threshold["HOTA"][0]
        del values["overlap"]
        return {name: float(np.mean(value)) for name, value in values.items()}
