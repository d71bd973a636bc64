"""Entities of a finished video apart from its queries: hand-over, reuse, short appearances, and the merge of many absent ones."""

import numpy as np
import pytest
import torch
from support.perfect_network import PerfectNetwork, frame_of, pairs

from entitysam.errors import ConfigError
from entitysam.inference.panoptic import PanopticMerge
from entitysam.inference.segmenter import VideoSegmenter
from entitysam.inference.tracks import ABSENT, EntityTracks

SIZE = (16, 24)


def boxes(lefts):
    """Logits [Q, T, 16, 24] of masks of 5 x 5; `lefts[q][t]` is the left column of query q on frame t, None = absent."""
    logits = torch.full((len(lefts), len(lefts[0]), *SIZE), -9.0)
    for query, row in enumerate(lefts):
        for time, left in enumerate(row):
            if left is not None:
                logits[query, time, 2 + 5 * (left >= 100) :, left % 100 : left % 100 + 5][:5] = 9.0
    return logits


def tracks_of(logits, scores, size=4):
    parts = logits.split(size, dim=1)
    return EntityTracks(lambda: parts, scores)


def test_two_queries_in_turn_are_one_entity_and_one_query_that_jumps_is_two():
    turns = [3, 4, None, None, 5, 5, None, 6], [None, None, 4, 5, None, None, 6, None]
    jumps = [[118, 118, 118, 118, 108, 108, 108, 108]]  # another row, and no overlap
    logits = boxes([*turns, *jumps])
    scores = torch.where((logits > 0).flatten(2).any(2), 0.8, 0.001).T.contiguous()
    found = tracks_of(logits, scores)
    assert found.queries.tolist() == [
        [0, 0, 1, 1, 0, 0, 1, 0],
        [2, 2, 2, 2, -1, -1, -1, -1],
        [-1, -1, -1, -1, 2, 2, 2, 2],
    ]
    assert found.main_queries().tolist() == [0, 2, 2]
    torch.testing.assert_close(found.scores, torch.full((3,), 0.8))  # of the frames with a query, not of all
    for time, chunk in enumerate(found.chunks()):
        for entity, query in enumerate(found.queries[:, time].tolist()):
            expected = logits[query, time] if query >= 0 else torch.full(SIZE, ABSENT)
            torch.testing.assert_close(chunk[entity, 0], expected)


@pytest.mark.parametrize(("frames", "kept"), [(2, False), (3, True)])
def test_an_entity_of_fewer_than_three_frames_is_dropped(frames, kept):
    row = [5 if 2 <= time < 2 + frames else None for time in range(8)]
    logits = boxes([row, [115] * 8])
    scores = torch.where((logits > 0).flatten(2).any(2), 0.6, 0.001).T.contiguous()
    found = tracks_of(logits, scores)
    assert found.queries.tolist() == [[0 if value else -1 for value in row]] * kept + [[1] * 8]


@pytest.mark.parametrize("size", [1, 3, 8])
def test_chunks_do_not_matter(size):
    generator = torch.Generator().manual_seed(1)
    logits = torch.nn.functional.interpolate(
        3 * torch.randn(6, 8, 3, 3, generator=generator) - 1, SIZE, mode="bilinear"
    )
    scores = torch.rand(8, 6, generator=generator)
    a, b = tracks_of(logits, scores), tracks_of(logits, scores, size)
    assert torch.equal(a.queries, b.queries)
    assert torch.equal(torch.cat(list(a.chunks()), 1), torch.cat(list(b.chunks()), 1))


@pytest.mark.parametrize("seed", range(4))
def test_leaving_absent_entities_out_changes_no_map(seed):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.nn.functional.interpolate(
        3 * torch.randn(9, 7, 3, 3, generator=generator) - 1, SIZE, mode="bilinear"
    )
    logits[torch.rand(9, 7, generator=generator) < 0.5] = ABSENT
    logits[:, 3] = ABSENT  # a frame without any
    scores = torch.rand(9, generator=generator)
    maps = []
    for skip in (False, True):
        merge = PanopticMerge(scores, (31, 45), overlap_threshold=0.1, skip_absent=skip)
        decision = merge.decide(lambda: logits.split(3, 1))
        maps.append(np.stack(list(merge.maps(lambda: logits.split(3, 1), decision))))
    np.testing.assert_array_equal(*maps)
    assert maps[0].max() > 2


def successive(num_frames=60):
    """int [T, 16, 24]: six entities one after the other, each for ten frames at a place of its own; 7 stays."""
    maps = np.zeros((num_frames, *SIZE), int)
    for time in range(num_frames):
        number = time // 10
        maps[time, 2:8, 4 * number : 4 * number + 3] = number + 1
        maps[time, 10:14, 2:20] = 7
    return maps


def test_a_query_that_is_used_again_gives_new_ids():
    """The published protocol gives the six entities one id; tracks give each its own, exact to the pixel."""
    truth = successive()
    frames = [frame_of(ids) for ids in truth]
    network = PerfectNetwork(2, appearance=False)
    published = VideoSegmenter(network, hole_area=0).segment(frames)
    assert published.ids.max() == 2
    found = VideoSegmenter(network, hole_area=0, ids="tracks").segment(frames)
    assert len(pairs(truth, found.iter_ids())) == len(np.unique(truth))
    np.testing.assert_array_equal(found.ids > 0, truth > 0)
    seen = [int((found.ids == number).any((1, 2)).sum()) for number in range(1, 8)]
    assert sorted(seen) == [10] * 6 + [60]
    np.testing.assert_allclose(found.scores, 0.9, atol=1e-3)
    assert [(scores > 0.5).sum() for scores in found.frame_scores] == seen


@pytest.mark.parametrize("threshold", [0.05, 0.0])
@pytest.mark.parametrize("dense", [False, True])
def test_a_video_without_entities(threshold, dense):
    frames = [frame_of(np.zeros(SIZE, int))] * 4
    segmenter = VideoSegmenter(PerfectNetwork(4), ids="tracks", dense=dense, score_threshold=threshold)
    found = segmenter.segment(frames)
    assert found.ids.shape == (4, *SIZE)
    assert not found.ids.any()
    assert (len(found.scores), found.frame_scores.shape, found.saturated) == (0, (0, 4), False)


def test_one_frame_and_unknown_ids():
    frames = [frame_of(successive()[0])]
    a, b = (VideoSegmenter(PerfectNetwork(4), ids=ids).segment(frames) for ids in ("queries", "tracks"))
    np.testing.assert_array_equal(a.ids, b.ids)
    with pytest.raises(ConfigError, match="ids: queries or tracks, not 'masks'"):
        VideoSegmenter(PerfectNetwork(4), ids="masks")


@pytest.mark.parametrize(("appearance", "count"), [(True, 3), (False, 4)])
def test_an_entity_that_returns_elsewhere_is_known_by_its_appearance(appearance, count):
    truth = np.zeros((90, *SIZE), int)
    truth[:, 10:14, 2:20] = 3
    truth[:, 2:4, 18:23] = 2
    truth[:30, 2:8, 0:5] = 1
    truth[70:, 2:8, 10:15] = 1  # no overlap with where it was, and long after
    frames = [frame_of(ids) for ids in truth]
    found = VideoSegmenter(PerfectNetwork(4, appearance), hole_area=0, ids="tracks").segment(frames)
    assert len(pairs(truth, found.iter_ids())) == count + 1
    assert int(found.ids.max()) == count


@pytest.mark.parametrize("ids", ["queries", "tracks"])
def test_dense_maps_have_no_background_and_keep_the_masks(ids):
    truth = successive()[:30]
    frames = [frame_of(ids) for ids in truth]
    sparse, dense = (
        VideoSegmenter(PerfectNetwork(8), hole_area=0, ids=ids, dense=d).segment(frames).ids for d in (0, 1)
    )
    assert (sparse == 0).any()
    assert (dense > 0).all()
    np.testing.assert_array_equal(dense[sparse > 0], sparse[sparse > 0])
