"""The protocol of the evaluators, and reading of panoptic PNGs."""

import pickle

import numpy as np
import pytest
from PIL import Image

from entitysam.evaluation import VEQ, EvaluationError, PanopticSequence, PanopticVideo, build_evaluators
from entitysam.evaluation import read_panoptic_png as read
from entitysam.ops import ids_to_rgb
from entitysam.registry import EVALUATORS, ConfigError


def video(video_id, shift=0):
    maps = np.array([[[1, 1, 1, 1, 2, 2]]], np.int32)
    predicted = np.roll(maps, shift, axis=2)
    listed = [[{"id": 1, "iscrowd": 0, "area": 4, "category_id": 1}, {"id": 2, "iscrowd": 0, "area": 2}]]
    return PanopticVideo(
        video_id, PanopticSequence(listed, maps.__getitem__), PanopticSequence(listed, predicted.__getitem__)
    )


def evaluated(*videos):
    evaluator = VEQ(windows=(1,))
    for one in videos:
        evaluator.update(one)
    return evaluator


def test_pooled_over_videos_in_any_order():
    result = evaluated(video("b", 1), video("a")).compute()
    # Video b: IoU of 1 is 3/5; 2 has 1/3, which is no match. 4 matches asked, 3 found: (1 + 1 + 0.6) / (3 + 1/2 + 1/2)
    assert result["VEQ"] == pytest.approx(65)
    assert repr(result) == repr(evaluated(video("a"), video("b", 1)).compute())


def test_a_video_twice_is_an_error_and_leaves_the_evaluator_as_it_was():
    evaluator = evaluated(video("a"))
    with pytest.raises(EvaluationError, match="video a: added twice"):
        evaluator.update(video("a"))
    with pytest.raises(EvaluationError, match="video a: evaluated by two processes"):
        evaluator.merge(evaluated(video("a")))
    with pytest.raises(EvaluationError, match="video c"):
        evaluator.update(PanopticVideo("c", video("c").truth, PanopticSequence([], lambda frame: None)))
    assert list(evaluator.records) == ["a"]


def test_state_survives_pickling():
    evaluator = evaluated(video("a"), video("b", 1))
    copy = pickle.loads(pickle.dumps(evaluator))
    copy.update(video("c", 2))
    assert copy.per_video()["b"] == evaluator.per_video()["b"]


def test_built_from_names_with_the_children_they_take():
    categories = [{"id": 1, "isthing": 1, "name": "car"}, {"id": 2, "isthing": 0, "name": "sky"}]
    names = ["veq", "vpq", "stq_en", "stq", "semantic", "ytvis_ap", "ytvis_ap_agnostic", "ovis_ap", "entity_ap", "pq"]
    names += ["tracking", "teta", "bdd_tracking"]
    evaluators = build_evaluators([{"name": name} for name in names], categories=categories)
    assert list(evaluators) == names
    for name, evaluator in evaluators.items():
        assert isinstance(evaluator, EVALUATORS.get(name))
        assert all(isinstance(value, float) for value in evaluator.compute().values())
    (windowed,) = build_evaluators([{"name": "veq", "windows": [1, 3]}]).values()
    assert windowed.windows == (1, 3)


def test_unknown_names_and_keys_are_named():
    with pytest.raises(ConfigError, match=r"evaluation\.evaluators\[1\]\.name: no evaluator called 'vqe'"):
        build_evaluators([{"name": "veq"}, {"name": "vqe"}])
    with pytest.raises(ConfigError, match=r"evaluation\.evaluators\[0\]\.window: unknown key"):
        build_evaluators([{"name": "veq", "window": 3}])
    with pytest.raises(ConfigError, match=r"evaluation\.evaluators\[0\]\.categories: missing"):
        build_evaluators([{"name": "vpq"}])


@pytest.mark.parametrize("channels", [3, 4])
@pytest.mark.parametrize("shape", [(1, 1), (5, 3), (97, 131)])
def test_png_round_trip(tmp_path, shape, channels):
    ids = np.random.default_rng(0).integers(0, 2**24, shape).astype(np.int32)
    ids[-1, -1] = 2**24 - 1
    alpha = np.full((*shape, 1), 17, np.uint8)
    Image.fromarray(np.concatenate([ids_to_rgb(ids), alpha][: channels - 2], -1)).save(tmp_path / "a.png")
    decoded = read(tmp_path / "a.png")
    assert decoded.dtype == np.int32
    assert np.array_equal(decoded, ids)


def test_bad_pngs_are_named(tmp_path):
    ids = np.random.default_rng(0).integers(0, 2**24, (40, 50))
    Image.fromarray(ids_to_rgb(ids)).save(tmp_path / "good.png")
    good, file = (tmp_path / "good.png").read_bytes(), tmp_path / "bad.png"
    flipped = bytearray(good)
    flipped[len(good) // 2] ^= 1
    Image.fromarray(ids.astype(np.uint8)).save(file)
    grey = file.read_bytes()
    for data, message in (
        (b"", "not a PNG"),
        (good[:-30], "truncated"),
        (good[:2000] + good[-12:], "damaged"),
        (bytes(flipped), "damaged"),
        (grey, "expected an 8-bit RGB PNG"),
    ):
        file.write_bytes(data)
        with pytest.raises(EvaluationError, match=rf"bad\.png: .*{message}"):
            read(file)
    with pytest.raises(FileNotFoundError, match=r"none\.png"):
        read(tmp_path / "none.png")
