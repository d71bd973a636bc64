"""mIoU and video consistency against the numbers of the reference scripts (golden/metrics/vspw)."""

import json
from pathlib import Path

import numpy as np
import pytest

from entitysam.evaluation import EvaluationError, SemanticSegmentation, SemanticVideo

CASES = sorted((Path(__file__).parents[1] / "golden" / "metrics" / "vspw").glob("*.json"))
assert len(CASES) == 23


def load(path):
    case, arrays = json.loads(path.read_text()), np.load(path.with_suffix(".npz"))
    videos = []
    for video in case["videos"]:
        truth, prediction = (arrays[f"{side}_{video['index']}"] for side in ("gt", "pred"))
        videos.append(SemanticVideo(video["name"], len(truth), truth.__getitem__, prediction.__getitem__))
    return case["expected"]["univs"], videos


def close(value):
    return pytest.approx(float(value), rel=1e-9, abs=1e-12, nan_ok=True)


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_semantic(path):
    expected, videos = load(path)
    evaluator = SemanticSegmentation()
    if "miou_raises" in expected:
        with pytest.raises(EvaluationError, match=r"video .*, frame 0: predicted class 255"):
            evaluator.update(videos[0])
        return
    for video in videos:
        evaluator.update(video)
    result = evaluator.compute()
    names = {"mIoU": "mIoU", "Acc": "Acc", "Acc-class": "Acc_class", "fwIoU": "fwIoU", "mVC8": "VC8", "mVC16": "VC16"}
    for ours, theirs in names.items():
        assert result[ours] == close(expected[theirs]), ours
    records = [evaluator.records[video.video_id] for video in videos]
    confusion = evaluator.confusion(records)
    assert [[*cell, confusion[tuple(cell)]] for cell in np.argwhere(confusion).tolist()] == expected["confusion"]
    for index, window in enumerate(evaluator.windows):
        clips = [values for values in expected[f"VC{window}_clips"] if values]
        ours = [record.consistency[index] for record in records if len(record.consistency[index])]
        assert len(ours) == len(clips)
        for one, reference in zip(ours, clips):
            assert one.tolist() == [close(value) for value in reference]


def test_results_do_not_depend_on_merging_and_order():
    _, videos = load(next(path for path in CASES if path.stem == "rand_three_videos"))
    whole, first, second = (SemanticSegmentation() for _ in range(3))
    for video in videos:
        whole.update(video)
    for evaluator, share in ((first, videos[:0:-1]), (second, videos[:1])):
        for video in share:
            evaluator.update(video)
    first.merge(second)
    assert repr(first.compute()) == repr(whole.compute())
    assert repr(first.per_video()) == repr(whole.per_video())
