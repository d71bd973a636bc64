"""The panoptic merge against a slow one, pixel by pixel, and each of its rules on a hand-made case."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from entitysam.inference.panoptic import PanopticMerge, merge

SIZE = (10, 14)


def naive_merge(mask_logits, scores, out_size, threshold=0.05, best=100, overlap=0.7, mask_threshold=0.5):
    """The rules of the merge, one after the other, with loops over frames, pixels and entities."""
    kept = [q for q in range(len(scores)) if scores[q] >= threshold]
    kept = sorted(sorted(kept, key=lambda q: -scores[q])[:best])
    frames = mask_logits.shape[1]
    ids = np.zeros((frames, *out_size), np.int32)
    weight, probability = {}, {}
    for q in kept:
        sampled = mask_logits[q, ::5]
        quality = (sampled > 1).sum().item() / max((sampled > -1).sum().item(), 1)
        weight[q] = scores[q].item() + 0.5 * quality
        large = F.interpolate(mask_logits[q][:, None], size=out_size, mode="bilinear", align_corners=False)
        probability[q] = large[:, 0].sigmoid().numpy()
    owner = np.full(ids.shape, -1)
    for t, y, x in np.ndindex(ids.shape):
        values = {q: probability[q][t, y, x] for q in kept}
        if values and max(values.values()) >= mask_threshold:
            owner[t, y, x] = max(kept, key=lambda q: np.float32(weight[q]) * values[q])
    queries = []
    for q in kept:
        owned, mask = owner == q, probability[q] >= mask_threshold
        segment = owned & mask
        if segment.any() and owned.sum() / mask.sum() >= overlap:
            queries.append(q)
            ids[segment] = len(queries)
    return ids, queries


def blobs(entities, frames, seed):
    """Smooth random logits: [Q, T, 5, 7]."""
    generator = torch.Generator().manual_seed(seed)
    coarse = 3 * torch.randn(entities, frames, 3, 3, generator=generator) - 1
    scores = torch.rand(entities, generator=generator)
    return F.interpolate(coarse, size=(5, 7), mode="bilinear", align_corners=False), scores


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("settings", [{}, {"overlap": 0.1}, {"threshold": 0.6, "overlap": 0.3}, {"best": 3}])
def test_random_cases(seed, settings):
    mask_logits, scores = blobs(8, 7, seed)
    expected_ids, expected_queries = naive_merge(mask_logits, scores, SIZE, **settings)
    names = {"overlap": "overlap_threshold", "threshold": "score_threshold", "best": "max_entities"}
    ids, queries = merge(mask_logits, scores, SIZE, **{names[key]: value for key, value in settings.items()})
    assert queries.tolist() == expected_queries
    np.testing.assert_array_equal(ids, expected_ids)


@pytest.mark.parametrize("sizes", [[1] * 13, [4, 4, 4, 1], [2, 7, 1, 3], [13]])
def test_chunks_change_nothing(sizes):
    mask_logits, scores = blobs(8, 13, seed=3)
    ids, queries = merge(mask_logits, scores, SIZE, overlap_threshold=0.1)
    merger = PanopticMerge(scores, SIZE, overlap_threshold=0.1)
    decision = merger.decide(lambda: mask_logits.split(sizes, dim=1))
    assert decision.queries.tolist() == queries.tolist()
    assert len(queries) > 1
    maps = merger.maps(lambda: mask_logits.split(sizes, dim=1), decision)
    np.testing.assert_array_equal(np.stack(list(maps)), ids)


def flat(*values):
    """Constant maps, one value per entity: [Q, 1, 2, 2]."""
    return torch.tensor(values)[:, None, None, None].expand(-1, 1, 2, 2).contiguous()


def test_nothing_above_the_threshold_is_an_empty_map():
    ids, queries = merge(flat(9.0, 9.0), torch.tensor([0.04, 0.01]), (3, 4))
    assert ids.shape == (1, 3, 4)
    assert not ids.any()
    assert queries.shape == (0,)


def test_a_score_on_the_threshold_is_kept():
    _, queries = merge(flat(9.0), torch.tensor([0.05]), (2, 2))
    assert queries.tolist() == [0]


def test_quality_outweighs_a_little_score():
    """Entity 1 is confident where it is likely: it wins 0.5 more weight than entity 0."""
    ids, queries = merge(flat(0.9, 1.1), torch.tensor([0.6, 0.5]), (2, 2))
    assert queries.tolist() == [1]
    assert (ids == 1).all()


def test_quality_looks_at_every_fifth_frame_alone():
    mask_logits = flat(0.9, 0.9).repeat(1, 11, 1, 1)
    mask_logits[1, [1, 2, 3, 4, 6, 7, 8, 9]] = 0.95
    scores = torch.tensor([0.6, 0.5])
    assert merge(mask_logits, scores, (2, 2))[1].tolist() == [0]
    mask_logits[1, [0, 5, 10]] = 1.1
    assert merge(mask_logits, scores, (2, 2))[1].tolist() == [1]


def test_the_loser_of_its_own_mask_is_dropped_and_leaves_a_gap():
    mask_logits = flat(5.0, 5.0)
    mask_logits[1, 0, :, 1] = -5  # entity 1 is the left half, which entity 0 owns too
    ids, queries = merge(mask_logits, torch.tensor([0.6, 0.7]), (2, 2))
    assert queries.tolist() == [1]  # entity 0 keeps half of its mask: less than 0.7
    assert ids[0].tolist() == [[1, 0], [1, 0]]


def test_best_entities_keep_their_order():
    mask_logits = -5 * torch.ones(4, 1, 4, 4)
    for q in range(4):
        mask_logits[q, 0, q] = 5
    ids, queries = merge(mask_logits, torch.tensor([0.5, 0.9, 0.2, 0.8]), (4, 4), max_entities=2)
    assert queries.tolist() == [1, 3]
    assert ids[0, :, 0].tolist() == [0, 1, 0, 2]
