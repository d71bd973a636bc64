"""Masks carried on by SAM 2.1: the consensus against all subsets, and what becomes of objects when new masks come."""

from itertools import combinations

import numpy as np
import pytest
from support.still_sam2 import StillSAM2

from entitysam.engine.methods.propagation import MAX_PROMPTED, Propagation, PropagationSettings, agree
from entitysam.registry import ConfigError
from entitysam.sam2.session import PromptedSession

SIZE = (64, 64)
LEFT, MIDDLE, RIGHT = (slice(0, 20), slice(24, 40), slice(44, 64))


def shown(*columns):
    """A map with one entity per slice of columns, in this order."""
    ids = np.zeros(SIZE, np.int32)
    for number, where in enumerate(columns, start=1):
        ids[8:56, where] = number
    return ids


class Masks:
    """Masks by hand, a map per frame."""

    def __init__(self, *maps):
        self.maps, self.asked = maps, []

    def start(self, frames, out_size):
        def entities_of(index, frame):
            self.asked.append(index)
            count = int(self.maps[index].max())
            return self.maps[index], np.linspace(0.9, 0.5, count) if count else np.zeros(0)

        return entities_of


def propagate(*maps, **settings):
    """Maps int32 [T, H, W] of the method, its masks and its network."""
    method = object.__new__(Propagation)
    method.settings, method.model, method.masks = PropagationSettings(**settings), StillSAM2(), Masks(*maps)
    frames = [np.full((*SIZE, 3), index, np.uint8) for index in range(len(maps))]
    segmented = method.segment(frames, SIZE)
    return np.stack(list(segmented.iter_ids())), method, segmented.scores


def at(found, where):
    """The id in the middle of a slice of columns, on every frame."""
    return found[:, 30, (where.start + where.stop) // 2].tolist()


def test_masks_of_the_first_frame_are_followed():
    found, method, scores = propagate(shown(LEFT, RIGHT), shown(MIDDLE), shown(MIDDLE))
    assert at(found, LEFT) == [1, 1, 1]
    assert at(found, RIGHT) == [2, 2, 2]
    assert at(found, MIDDLE) == [0, 0, 0]
    assert method.masks.asked == [0]
    assert scores[0] > scores[1] > 0.8  # (0.9 + 2 x visible) / 3, (0.5 + ...) / 3


def test_the_first_frame_with_masks_starts():
    found, method, _ = propagate(shown(), shown(LEFT), shown(RIGHT))
    assert at(found, LEFT) == [0, 1, 1]
    assert method.masks.asked == [0, 1]


def test_new_masks_replace_the_old_ones_and_keep_ids_where_they_overlap():
    maps = [shown(LEFT, RIGHT), shown(), shown(MIDDLE, LEFT), shown()]
    found, method, _ = propagate(*maps, every=2)
    assert at(found, LEFT) == [1, 1, 1, 1]
    assert at(found, RIGHT) == [2, 2, 0, 0]  # not shown any more
    assert at(found, MIDDLE) == [0, 0, 3, 3]
    assert method.model.prompted == [(0, 2), (2, 2)]


def test_kept_objects_end_when_they_were_missed_too_often():
    maps = [shown(LEFT, RIGHT), *[shown(LEFT)] * 5]
    found, _, _ = propagate(*maps, every=1, keep=True, max_missed=2)
    assert at(found, LEFT) == [1] * 6
    assert at(found, RIGHT) == [2, 2, 2, 0, 0, 0]


def test_a_kept_object_keeps_the_pixels_that_no_new_mask_takes():
    found, _, _ = propagate(shown(slice(0, 40)), shown(slice(0, 24)), every=1, keep=True)
    assert found[1, 30, 10] == found[1, 30, 35] == 1  # one entity: IoU 0.6
    found, _, _ = propagate(shown(slice(0, 40)), shown(slice(0, 24)), every=1)
    assert found[1, 30, 10] == 1
    assert found[1, 30, 35] == 0


def test_no_more_objects_than_allowed():
    found, _, _ = propagate(shown(LEFT, MIDDLE, RIGHT), shown(LEFT, MIDDLE, RIGHT), max_objects=2)
    assert set(np.unique(found)) == {0, 1, 2}


def test_memory_of_prompts_is_bounded():
    maps = [shown(LEFT)] * (MAX_PROMPTED + 4)
    _, method, _ = propagate(*maps, every=1)
    session = PromptedSession(StillSAM2(), [np.zeros((*SIZE, 3), np.uint8)] * 9, keep_history=False, max_prompted=2)
    for index in range(9):
        session.add_mask(index, 1, np.ones(SIZE, bool))
        session.step(index)
    assert sorted(session.objects[1].prompted) == [7, 8]
    assert len(method.masks.asked) == len(maps)


def test_masks_of_a_clip_have_to_agree():
    """RIGHT is seen on one of three frames: nothing supports it."""
    maps = [shown(LEFT, RIGHT), shown(LEFT), shown(LEFT)]
    found, method, _ = propagate(*maps, every=3, clip=3)
    assert at(found, LEFT) == [1, 1, 1]
    assert at(found, RIGHT) == [0, 0, 0]
    assert method.masks.asked == [0, 1, 2]
    found, _, _ = propagate(shown(LEFT, RIGHT), shown(LEFT, RIGHT), shown(LEFT), every=3, clip=3)
    assert at(found, RIGHT) == [2, 2, 2]


def best_subset(maps, min_iou, alpha):
    """The largest objective over all subsets, by brute force."""
    masks = [(a, ids == n) for a, (ids, scores) in enumerate(maps) for n in range(1, len(scores) + 1)]
    iou = np.array([[0.0 if a == b else (m & n).sum() / max((m | n).sum(), 1) for b, n in masks] for a, m in masks])
    supported = np.where(iou >= min_iou, iou, 0)
    best = 0.0
    for count in range(len(masks) + 1):
        for chosen in combinations(range(len(masks)), count):
            if all(supported[i, j] == 0 for i, j in combinations(chosen, 2)):
                best = max(best, sum(supported[i].sum() - alpha for i in chosen))
    return best, masks, supported


def test_the_consensus_is_the_best_of_all_subsets():
    generator = np.random.default_rng(0)
    for _ in range(10):
        base = generator.integers(0, 4, (6, 6))
        maps = []
        for _ in range(3):
            ids = np.where(generator.random((6, 6)) < 0.8, base, generator.integers(0, 4, (6, 6))).astype(np.int32)
            maps.append((ids, generator.random(3)))
        best, masks, supported = best_subset(maps, 0.5, 0.5)
        ids, scores = agree(maps, 0.5, 0.5)
        assert scores.tolist() == sorted(scores, reverse=True)
        chosen = [row for row, (a, _) in enumerate(masks) if maps[a][1][row - 3 * a] in scores]
        assert sum(supported[row].sum() - 0.5 for row in chosen) == pytest.approx(best)
        for number, score in enumerate(scores, start=1):  # smaller masks are in front, so a mask is what is left of it
            row = next(row for row in chosen if maps[masks[row][0]][1][row - 3 * masks[row][0]] == score)
            assert not ((ids == number) & ~masks[row][1]).any()


def test_wrong_settings_are_named():
    for settings, message in (
        ({"every": -1}, "every: must be at least 0"),
        ({"every": 2, "clip": 3}, "clip: 3 frames, but new masks come every 2"),
        ({"min_iou": 0.0}, "min_iou: must lie in"),
    ):
        with pytest.raises(ConfigError, match=message):
            PropagationSettings(**settings)
    with pytest.raises(ConfigError, match="frame is 64x64, its annotation 32x64"):
        list(propagate_to_other_size())


def propagate_to_other_size():
    method = object.__new__(Propagation)
    method.settings, method.model, method.masks = PropagationSettings(), StillSAM2(), Masks(shown(LEFT))
    return method.segment([np.zeros((*SIZE, 3), np.uint8)], (64, 32)).iter_ids()
