"""EMR, entity-level mask refinement (E-SAM, section 3.3): splits overlapping masks and merges parts of one entity."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from entitysam.esam.bitmasks import MaskSet, boxes, label_counts, popcount
from entitysam.esam.gallery import Gallery
from entitysam.esam.layers import EntityLayers, keep_entities, over_free, regroup, stack_masks
from entitysam.esam.similarity import adjacent_pairs, mask_similarity
from entitysam.esam.superpixels import Superpixels


@dataclass(frozen=True)
class RefinementConfig:
    """Attributes:
    enabled: False: overlaps go to the mask with the higher score, and nothing is merged (Table 3).
    small_overlap: delta, ratio of overlap to the larger area below which the larger mask loses it (Table 4: 0.05).
    tolerance: tau, maximum score difference of best and object mask for the object mask to guide, Eq. (6) (Table 4: 0.1).
    neighbours: k of Eq. (7) (ours: 5).
    min_similarity: minimum symmetric S_M of a pair to be merged (ours: 1.0).
    min_cover: minimum share of both masks that a gallery mask must cover, Eq. (8) (ours: 0.9).
    min_left: minimum share of its masks' area that an entity must keep; smaller ones are removed (ours: 0.5; 0: none).
    """

    enabled: bool = True
    small_overlap: float = 0.05
    tolerance: float = 0.1
    neighbours: int = 5
    min_similarity: float = 1.0
    min_cover: float = 0.9
    min_left: float = 0.5


def refine(
    objects: MaskSet,
    gallery: Gallery,
    superpixels: Superpixels,
    features: Tensor,
    image_size: tuple[int, int],
    config: RefinementConfig,
) -> EntityLayers:
    """Object masks by descending score -> disjoint entities.

    Args:
        features: [C, fh, fw] of the image encoder.
        image_size: (H, W) in pixels, the coordinate system of the gallery's points.
    """
    layers = stack_masks(objects, split(objects, gallery, image_size, config))
    return drop_remnants(merge(layers, gallery, superpixels, features, config), config.min_left)


def drop_remnants(layers: EntityLayers, min_left: float) -> EntityLayers:
    """Removes entities that lost more than 1 - `min_left` of the area of their masks to others."""
    if not len(layers) or not min_left:
        return layers
    left = torch.bincount(layers.grid_labels().flatten(), minlength=len(layers) + 1)[1:]  # [E] visible cells
    masks = layers.logits > 0
    area = torch.stack([masks[layers.entity == entity].any(0).sum() for entity in range(len(layers))])
    return keep_entities(layers, left >= min_left * area)


def split(objects: MaskSet, gallery: Gallery, image_size: tuple[int, int], config: RefinementConfig) -> Tensor:
    """Assigns the overlap of each pair to one of its masks (Eq. 5 and 6).

    Pairs are processed by descending score; each decision applies to the overlap that remains after the earlier ones.

    Returns:
        bool [M + 1, M + 1], see `EntityLayers.beats`.
    """
    # Sequential decisions on a few KB of packed masks: faster on the host for any device.
    resolver = _OverlapResolver(objects, gallery, image_size, config)
    beats = over_free(len(objects), torch.device("cpu"))
    for p in range(len(objects)):
        for q in resolver.overlapping_after(p):
            beats[q + 1, p + 1] = not resolver.first_wins(p, q)
    return beats.to(objects.words.device)


class _OverlapResolver:
    """The current state of the masks while pairs are processed."""

    def __init__(self, objects: MaskSet, gallery: Gallery, image_size: tuple[int, int], config: RefinementConfig):
        self.config = config
        self.words = objects.words.cpu().clone()
        self.box = boxes(objects.words, objects.width).cpu()
        self.area = objects.areas.cpu().clone()
        self.guides = gallery.masks.words.cpu()
        self.guide_area = gallery.masks.areas.cpu()
        self.guidance = gallery.guidance.cpu()
        cell_x, cell_y = _cells(gallery.points.cpu(), objects.size, image_size)
        # Where the cell of each gallery point is among the packed words.
        self.row, self.word, self.bit = cell_y, cell_x // 64, cell_x % 64

    def overlapping_after(self, p: int) -> list[int]:
        """Masks after p that currently overlap it."""
        y0, y1 = int(self.box[p, 1]), int(self.box[p, 3])
        low = torch.maximum(self.box[p, :2], self.box[p + 1 :, :2])
        high = torch.minimum(self.box[p, 2:], self.box[p + 1 :, 2:])
        # Boxes first: most pairs are apart.
        near = (low < high).all(1).nonzero().squeeze(1) + p + 1
        shares = (self.words[near, y0:y1] & self.words[p, y0:y1]).flatten(1).any(1)
        return near[shares].tolist()

    def first_wins(self, p: int, q: int) -> bool:
        """Removes the overlap of p and q from one of them; True if p keeps it."""
        y0 = int(max(self.box[p, 1], self.box[q, 1]))
        y1 = int(min(self.box[p, 3], self.box[q, 3]))
        overlap = self.words[p, y0:y1] & self.words[q, y0:y1]
        shared = int(popcount(overlap).sum())
        area_p, area_q = int(self.area[p]), int(self.area[q])
        guide = -1
        if shared and shared / max(area_p, area_q) >= self.config.small_overlap:
            guide = self._vote(overlap, y0)
        if guide < 0:  # small overlap, or no guiding point inside it (ours): the larger mask loses it
            first = area_p <= area_q
        else:
            first = self._iou(guide, p) >= self._iou(guide, q)
        loser = q if first else p
        self.words[loser, y0:y1] &= ~overlap
        self.area[loser] -= shared
        return first

    def _vote(self, overlap: Tensor, y0: int) -> int:
        """The most frequent guidance mask of the points inside the overlap (ties: higher score); -1 without points."""
        row = self.row - y0
        inside = ((row >= 0) & (row < len(overlap))).nonzero().squeeze(1)
        bits = overlap[row[inside], self.word[inside]] >> self.bit[inside]  # bit 0 = the cell of the point
        votes = self.guidance[inside[(bits & 1).bool()]]
        return int(torch.bincount(votes).argmax()) if len(votes) else -1

    def _iou(self, guide: int, mask: int) -> float:
        y0, y1 = int(self.box[mask, 1]), int(self.box[mask, 3])
        shared = int(popcount(self.guides[guide, y0:y1] & self.words[mask, y0:y1]).sum())
        return shared / max(1, int(self.guide_area[guide]) + int(self.area[mask]) - shared)


def _cells(points: Tensor, size: tuple[int, int], image_size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Column and row of the grid cells that hold the points [P, 2] (x, y image pixels): int64 [P] each."""
    scale = torch.tensor([size[1] / image_size[1], size[0] / image_size[0]])
    cell = (points * scale).long()
    return cell[:, 0].clamp(0, size[1] - 1), cell[:, 1].clamp(0, size[0] - 1)


def merge(
    layers: EntityLayers, gallery: Gallery, superpixels: Superpixels, features: Tensor, config: RefinementConfig
) -> EntityLayers:
    """Merges adjacent similar entities that one gallery mask covers together (Eq. 7 and 8).

    Pairs are processed by descending similarity. A gallery mask covers a merged entity if it covers every member (ours);
    the score is the highest of the members (ours).
    """
    if not len(layers):
        return layers
    labels = layers.grid_labels()
    count = len(layers)
    one_way = mask_similarity(labels, count, superpixels, features, config.neighbours)  # [E, E]
    similarity = ((one_way + one_way.T) / 2).cpu().numpy()
    area = torch.bincount(labels.flatten(), minlength=count + 1)[1:].float()
    shared = label_counts(gallery.masks, labels, count + 1)[:, 1:]  # [R, E] cells of entity e in gallery mask r
    covers = (shared >= config.min_cover * area).cpu().numpy()  # [R, E]
    first, second = adjacent_pairs(labels, count).cpu().numpy().nonzero()
    value = similarity[first, second]
    order = np.argsort(-value, kind="stable")
    group = np.arange(count)
    for pair in order[value[order] > config.min_similarity]:
        a, b = sorted((group[first[pair]], group[second[pair]]))
        if a != b and (covers[:, a] & covers[:, b]).any():
            # Merged entities must still fit one gallery mask together.
            covers[:, a] &= covers[:, b]
            group[group == b] = a
    names, group = np.unique(group, return_inverse=True)
    groups = torch.from_numpy(group).to(layers.entity.device)
    scores = layers.scores.new_zeros(len(names)).scatter_reduce(0, groups, layers.scores, "amax")
    return regroup(layers, groups, scores)
