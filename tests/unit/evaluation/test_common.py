"""The interface of the evaluators, and the reader of panoptic PNGs."""

import pickle
import zlib

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
    # Video b: IoU of id 1 is 3/5, of id 2 is 1/3 (no match). 3 of 4 annotations match: (1 + 1 + 0.6) / (3 + 1/2 + 1/2)
    assert result["VEQ"] == pytest.approx(65)
    assert repr(result) == repr(evaluated(video("a"), video("b", 1)).compute())


def test_adding_a_video_twice_raises_and_changes_nothing():
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


def test_evaluators_are_built_with_the_children_they_accept():
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


def test_unknown_names_and_keys_raise():
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


def test_bad_pngs_raise(tmp_path):
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


def test_a_png_that_claims_to_be_huge_is_refused_before_it_is_decoded(tmp_path):
    path = tmp_path / "huge.png"
    Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(path)
    data = bytearray(path.read_bytes())
    data[16:24] = (1 << 20).to_bytes(4, "big") * 2
    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
    path.write_bytes(bytes(data))
    with pytest.raises(EvaluationError, match=r"huge\.png: 1048576x1048576 pixels"):
        read(path)


def test_mutated_pngs_are_read_or_refused(tmp_path):
    """Seeded fuzz: every mutation gives a map, or an error with the name of the file."""
    rng, path = np.random.default_rng(0), tmp_path / "fuzz.png"
    Image.fromarray(rng.integers(0, 4, (16, 24, 3), np.uint8)).save(path)
    valid = path.read_bytes()
    refused = []
    for _ in range(300):
        data = bytearray(valid)
        for place in rng.integers(0, len(data), rng.integers(1, 6)):
            data[place] = rng.integers(256)
        path.write_bytes(bytes(data[: len(data) - int(rng.integers(0, 20)) * int(rng.integers(0, 2))]))
        try:
            assert read(path).dtype == np.int32
        except EvaluationError as error:
            refused.append(str(error))
    assert all(message.startswith(f"{path}: ") for message in refused)
    assert len(refused) > 200


def test_bootstrap_equals_the_evaluation_of_the_drawn_videos():
    videos = [video("a"), video("b", 1), video("c", 2)]
    evaluator = evaluated(*videos)
    found = evaluator.bootstrap(20, seed=3)["VEQ"]
    draws, shifts = np.random.default_rng(3), (0, 1, 2)
    for value in found:
        drawn = draws.integers(0, 3, 3)
        again = evaluated(*(video(f"{place}", shifts[index]) for place, index in enumerate(drawn)))
        assert value == pytest.approx(again.compute()["VEQ"])
    assert found.std() > 0
    assert evaluated().bootstrap(5) == {}
