"""EMR: Eq. (5) to (8), computed by hand."""

import itertools

import pytest
import torch
from support.mask_sets import make_set, rectangle

from entitysam.esam.bitmasks import MaskSet
from entitysam.esam.gallery import Gallery, build_gallery, choose_guidance
from entitysam.esam.layers import stack_masks
from entitysam.esam.mask_generation import MaskGenerationConfig
from entitysam.esam.prompting import OBJECT, PART, PromptedMasks
from entitysam.esam.refinement import RefinementConfig, drop_remnants, merge, refine, split
from entitysam.esam.similarity import adjacent_pairs, mask_similarity, most_similar
from entitysam.esam.superpixels import describe

CONFIG = RefinementConfig()
SIZE = (40, 60)  # of the grid, and of the image


def gallery_of(masks: list[torch.Tensor], points: list[tuple[float, float]], guidance: list[int]) -> Gallery:
    scores = [0.9] * len(masks)
    return Gallery(make_set(masks, scores), torch.tensor(points).view(-1, 2), torch.tensor(guidance, dtype=torch.int64))


def labels_after(objects: MaskSet, gallery: Gallery, config: RefinementConfig = CONFIG) -> torch.Tensor:
    return stack_masks(objects, split(objects, gallery, SIZE, config)).grid_labels()


def nothing() -> Gallery:
    return gallery_of([], [], [])


@pytest.mark.parametrize("first_is_larger", [True, False])
def test_a_small_overlap_is_removed_from_the_larger_mask(first_is_larger):
    large, small = rectangle(0, 0, 40, 40), rectangle(39, 0, 50, 20)  # 20 of 1600 cells
    masks = [large, small] if first_is_larger else [small, large]
    labels = labels_after(make_set(masks, [0.95, 0.9]), nothing())
    owner = labels[rectangle(39, 0, 40, 20)].unique()
    assert owner.tolist() == [2 if first_is_larger else 1]


def test_a_large_overlap_goes_to_the_mask_that_its_points_vote_for():
    p, q = rectangle(0, 0, 30, 30), rectangle(20, 0, 50, 30)
    overlap = p & q
    # Two points vote for a mask like q, one for a mask like p.
    gallery = gallery_of([p, q], [(22, 5), (24, 5), (26, 5), (5, 5)], [1, 0, 1, 0])
    labels = labels_after(make_set([p, q], [0.95, 0.9]), gallery)
    assert labels[overlap].unique().tolist() == [2]
    assert torch.equal(labels == 1, p & ~q)


def test_a_tied_vote_goes_to_the_higher_score():
    p, q = rectangle(0, 0, 30, 30), rectangle(20, 0, 50, 30)
    gallery = gallery_of([p, q], [(22, 5), (24, 5)], [1, 0])
    labels = labels_after(make_set([p, q], [0.95, 0.9]), gallery)
    assert labels[p & q].unique().tolist() == [1]


def test_without_points_the_smaller_mask_keeps_the_overlap():
    p, q = rectangle(0, 0, 30, 40), rectangle(20, 0, 45, 40)
    gallery = gallery_of([p], [(5.0, 5.0)], [0])
    labels = labels_after(make_set([p, q], [0.95, 0.9]), gallery)
    assert labels[p & q].unique().tolist() == [2]


def test_tau_decides_between_object_and_best():
    def chosen(object_score: float, best_score: float, tau: float = 0.1) -> int:
        one = torch.tensor
        return int(choose_guidance(one([5]), one([8]), one([object_score]), one([best_score]), tau))

    assert chosen(0.90, 0.95) == 5
    assert chosen(0.80, 0.95) == 8
    assert chosen(0.50, 0.75, tau=0.25) == 8  # S_B - S_O >= tau
    assert choose_guidance(*torch.tensor([[-1, 4, -1], [3, -1, -1]]), *torch.zeros(2, 3), 0.1).tolist() == [3, 4, -1]


def test_gallery_counts_duplicates_as_one():
    whole, nearly, part = rectangle(0, 0, 30, 30), rectangle(0, 0, 30, 29), rectangle(0, 0, 10, 10)
    prompted = PromptedMasks(
        make_set([whole, part, nearly, part], [0.9, 0.95, 0.94, 0.99]),
        level=torch.tensor([OBJECT, PART, OBJECT, PART]),
        is_best=torch.tensor([False, True, True, False]),
        point=torch.tensor([0, 0, 2, 2]),
    )
    gallery = build_gallery(prompted, num_points=4, object_nms=MaskGenerationConfig().object_nms, tolerance=0.1)
    # Point 2's part mask is neither its object nor its best mask: it is no member. Points 1 and 3 have no masks.
    assert torch.equal(gallery.masks.masks, torch.stack([part, nearly]))
    assert gallery.guidance.tolist() == [1, 1]


def test_split_is_disjoint_keeps_the_union_and_follows_the_order():
    """Random rectangles against a slow split on boolean masks, written from the specification."""
    generator = torch.Generator().manual_seed(0)
    corners = torch.randint(0, 40, (12, 2), generator=generator)
    masks = [rectangle(int(x), int(y), int(x) + 25, int(y) + 18) for x, y in corners]
    scores = torch.linspace(0.99, 0.9, 12).tolist()
    points = [(float(x), float(y)) for x in range(2, 60, 4) for y in range(2, 40, 4)]
    guidance = torch.randint(0, 12, (len(points),), generator=generator).tolist()
    objects, gallery = make_set(masks, scores), gallery_of(masks, points, guidance)

    current = [mask.clone() for mask in masks]
    for p, q in itertools.combinations(range(12), 2):
        overlap = current[p] & current[q]
        if not overlap.any():
            continue
        voices = [g for (x, y), g in zip(points, guidance) if overlap[int(y), int(x)]]
        p_wins = current[p].sum() <= current[q].sum()
        if overlap.sum() / max(current[p].sum(), current[q].sum()) >= CONFIG.small_overlap and voices:
            guide = masks[max(set(voices), key=lambda g: (voices.count(g), -g))]

            def iou(mask: torch.Tensor, guide: torch.Tensor = guide) -> float:
                return float((mask & guide).sum() / (mask | guide).sum())

            p_wins = iou(current[p]) >= iou(current[q])
        current[q if p_wins else p] &= ~overlap
    labels = labels_after(objects, gallery)
    for number, mask in enumerate(current):
        assert torch.equal(labels == number + 1, mask)
    assert torch.equal(labels > 0, torch.stack(masks).any(0))
    assert len({int(mask.sum()) for mask in current}) > 3


def test_similarity_is_the_mean_number_of_neighbours_in_the_other_mask():
    """Four superpixels in a row; the first three have similar features, the fourth another one."""
    labels = torch.arange(4).repeat_interleave(10)[None].expand(8, 40).contiguous()
    superpixels = describe(labels)
    angle = torch.tensor([0.0, 0.1, 0.25, 2.0])
    features = torch.stack([angle.cos(), angle.sin()])[:, None].repeat_interleave(10, 2).expand(2, 8, 40)
    assert most_similar(torch.stack([angle.cos(), angle.sin()], 1), 1).flatten().tolist() == [1, 0, 1, 2]
    masks = (labels >= 1).long() + (labels >= 3)  # 0: none, 1: superpixels 1 and 2, 2: superpixel 3
    found = mask_similarity(masks, 2, superpixels, features, k=2)
    # 1 -> 0 (none), 2 (own); 2 -> 1 (own), 0 (none); 3 -> 2 and 1, both in the first mask.
    assert found.tolist() == [[1.0, 0.0], [2.0, 0.0]]


def test_one_superpixel_has_no_neighbours():
    superpixels = describe(torch.zeros(4, 4, dtype=torch.int64))
    labels = torch.ones(4, 4, dtype=torch.int64)
    assert mask_similarity(labels, 1, superpixels, torch.ones(2, 4, 4), k=5).tolist() == [[0.0]]


def test_adjacency_spans_one_free_cell():
    labels = torch.zeros(6, 9, dtype=torch.int64)
    labels[:, 0:2], labels[:, 3:5], labels[:, 7:9] = 1, 2, 3
    assert adjacent_pairs(labels, 3).nonzero().tolist() == [[0, 1]]


def halves(gap_feature: float = 0.0):
    """Two halves of one entity, 10 superpixels each, with similar features; a third mask with others."""
    left, right, other = rectangle(0, 0, 15, 40), rectangle(15, 0, 30, 40), rectangle(30, 0, 60, 40)
    y, x = torch.meshgrid(torch.arange(40), torch.arange(60), indexing="ij")
    superpixels = describe((y // 10) * 12 + x // 5)
    generator = torch.Generator().manual_seed(0)
    features = torch.zeros(3, 40, 60)
    features[0, :, :30], features[1, :, 30:] = 1.0, 1.0
    features += 0.05 * torch.randn(features.shape, generator=generator)
    return left, right, other, superpixels, features


def test_similar_neighbours_merge_when_a_gallery_mask_covers_both():
    left, right, other, superpixels, features = halves()
    layers = stack_masks(make_set([left, right, other], [0.95, 0.9, 0.92]))
    whole = gallery_of([left | right], [], [])
    merged = merge(layers, whole, superpixels, features, CONFIG)
    labels = merged.grid_labels()
    assert torch.equal(labels > 0, left | right | other)
    assert labels[left | right].unique().tolist() == [1]
    assert merged.scores.tolist() == [pytest.approx(0.95), pytest.approx(0.92)]


@pytest.mark.parametrize("reason", ["no gallery mask", "too little covered", "not similar", "not adjacent"])
def test_other_neighbours_do_not_merge(reason):
    left, right, other, superpixels, features = halves()
    gallery = gallery_of([left | right], [], [])
    if reason == "no gallery mask":
        gallery = gallery_of([left, right], [], [])
    if reason == "too little covered":
        gallery = gallery_of([rectangle(0, 0, 28, 40)], [], [])  # 13 of 15 columns of `right`
    if reason == "not similar":
        features = torch.stack([torch.arange(60.0).sub(14.5).sign().expand(40, 60), torch.ones(40, 60)])
    if reason == "not adjacent":
        right = rectangle(18, 0, 30, 40)
    layers = stack_masks(make_set([left, right, other], [0.95, 0.9, 0.92]))
    assert len(merge(layers, gallery, superpixels, features, CONFIG)) == 3


@pytest.mark.parametrize(("min_left", "names"), [(0.5, [0, 1, 3]), (0.2, [0, 1, 2, 3]), (0.0, [0, 1, 2, 3])])
def test_the_remnant_of_a_rejected_mask_is_no_entity(min_left, names):
    big, beside, far = rectangle(0, 0, 20, 20), rectangle(20, 0, 35, 20), rectangle(40, 0, 50, 10)
    mostly_big = rectangle(0, 0, 20, 25)  # keeps its lowest fifth
    layers = stack_masks(make_set([big, beside, mostly_big, far], [0.95, 0.94, 0.93, 0.92]))
    kept = drop_remnants(layers, min_left)
    assert kept.scores.tolist() == layers.scores[names].tolist()
    before, after = layers.grid_labels(), kept.grid_labels()
    for number, name in enumerate(names):
        assert torch.equal(after == number + 1, before == name + 1)


def test_pixels_of_a_remnant_go_to_the_mask_below():
    below, remnant, above = rectangle(0, 0, 20, 20), rectangle(18, 0, 40, 20), rectangle(22, 0, 45, 20)
    objects = make_set([below, remnant, above], [0.95, 0.94, 0.93])
    gallery = gallery_of([below, remnant, above], [(19, 5), (30, 5)], [1, 2])
    layers = stack_masks(objects, split(objects, gallery, SIZE, RefinementConfig(small_overlap=0.0)))
    assert (layers.grid_labels() == 2)[rectangle(18, 0, 22, 20)].all()
    assert torch.equal(drop_remnants(layers, 0.5).grid_labels() == 1, below)


def test_refine_without_masks():
    superpixels = describe(torch.zeros(*SIZE, dtype=torch.int64))
    layers = refine(make_set([], []), nothing(), superpixels, torch.zeros(2, 4, 6), SIZE, CONFIG)
    assert len(layers) == 0
    assert layers.grid_labels().sum() == 0
