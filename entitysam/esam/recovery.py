"""USR, under-segmentation refinement (E-SAM, section 3.4): prompts regions again that no entity covers."""

import heapq
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from entitysam.esam.bitmasks import MaskSet, label_counts
from entitysam.esam.gallery import guidance_of_points
from entitysam.esam.layers import EntityLayers, add_layers
from entitysam.esam.prompting import PromptedMasks
from entitysam.esam.superpixels import Superpixels


@dataclass(frozen=True)
class RecoveryConfig:
    """Attributes:
    enabled: False: uncovered regions remain uncovered (Table 3).
    min_uncovered: uncovered share above which a superpixel is prompted (ours: 0.5).
    min_inside: share of a region inside a part or subpart mask from which on that mask gives the prompt (ours: 0.9).
    min_new_area: minimum newly covered area of an accepted mask, as a share of the image (ours: 0.001).
    join_iou: rho, IoU with an entity above which an accepted mask joins it, Eq. (10) (Table 4: 0.1).
    """

    enabled: bool = True
    min_uncovered: float = 0.5
    min_inside: float = 0.9
    min_new_area: float = 0.001
    join_iou: float = 0.1


def uncovered_regions(labels: Tensor, superpixels: Superpixels, min_uncovered: float) -> Tensor:
    """The remaining superpixel map S_R.

    Args:
        labels: int64 [h, w] entity map, 0 = none.
        min_uncovered: uncovered share above which a superpixel counts.

    Returns:
        int64 [h, w], 0 = none, r + 1 = the uncovered part of the r-th such superpixel.
    """
    free = labels == 0
    free_area = torch.bincount(superpixels.labels[free], minlength=len(superpixels))  # [K] uncovered cells
    remaining = free_area > min_uncovered * superpixels.areas
    number = remaining.long().cumsum(0) * remaining  # [K] 1..R for those that remain, else 0
    return number[superpixels.labels] * free


def prompt_points(regions: Tensor, details: MaskSet, min_inside: float) -> Tensor:
    """The additional prompts P_A, Eq. (9): centroids of the part or subpart masks that contain the regions, else of the regions.

    If several masks contain a region, the one with the highest score is used (ours). A centroid outside its mask moves to
    the nearest cell inside (ours). Each mask gives one prompt.

    Args:
        regions: int64 [h, w] as from `uncovered_regions`, R regions.
        details: the part and subpart masks.

    Returns:
        float [n, 2] as (x, y) in cells of the grid, at centres of cells; n <= R.
    """
    count = int(regions.max())
    if not count:
        return torch.zeros(0, 2, device=regions.device)
    area = torch.bincount(regions.flatten(), minlength=count + 1)[1:]  # [R]
    own = torch.arange(1, count + 1, device=regions.device)
    around = torch.full((count,), -1, dtype=torch.int64, device=regions.device)
    if len(details):
        inside = label_counts(details, regions, count + 1)[:, 1:] >= min_inside * area  # [N, R]
        # Of the masks around a region, the one of highest score.
        score, mask = torch.where(inside, details.scores[:, None], -torch.inf).max(0)
        around = torch.where(score > -torch.inf, mask, around)
    named = around.unique()
    named = named[named >= 0]
    # Groups of 64 masks bound the memory of the distance maps.
    points = [inner_centroids(part) for part in details[named].masks.split(64)] if len(named) else []
    points += [inner_centroids(regions == part[:, None, None]) for part in own[around < 0].split(64)]
    return torch.cat(points)


def inner_centroids(masks: Tensor) -> Tensor:
    """Centres of the cells inside non-empty masks, bool [N, h, w], nearest to their centroids: float [N, 2] as (x, y)."""
    height, width = masks.shape[1:]
    y = torch.arange(height, device=masks.device) + 0.5
    x = torch.arange(width, device=masks.device) + 0.5
    area = masks.sum((1, 2))  # [N]
    centre_x = (masks.sum(1) * x).sum(1) / area
    centre_y = (masks.sum(2) * y).sum(1) / area
    # Squared distance of each cell to the centroid, [N, h, w]
    distance = (x - centre_x[:, None])[:, None, :] ** 2 + (y - centre_y[:, None])[:, :, None] ** 2
    nearest = torch.where(masks, distance, torch.inf).flatten(1).argmin(1)
    return torch.stack([x[nearest % width], y[torch.div(nearest, width, rounding_mode="floor")]], 1)


def recover(
    layers: EntityLayers,
    labels: Tensor,
    prompted: PromptedMasks,
    num_points: int,
    tolerance: float,
    config: RecoveryConfig,
) -> EntityLayers:
    """Adds the masks of the additional prompts to the entities.

    Each prompt gives one mask, selected by Eq. (6) as in EMR (ours). Masks are accepted greedily by newly covered area, and
    only that area is added: the map stays disjoint and no entity loses pixels.

    Args:
        layers: the entities so far; `labels` is their map on the grid.
        prompted: masks, with logits, of the `num_points` additional prompts.
        tolerance: tau.
    """
    chosen = guidance_of_points(prompted, num_points, tolerance)
    offered = prompted.masks[chosen[chosen >= 0]]
    if not len(offered):
        return layers
    joins, taken, scores = _Cover(labels.clone(), len(layers), config).take(offered)
    logits = offered.logits
    if logits is None:
        raise ValueError("masks can only be drawn with their logits")
    return add_layers(layers, logits[taken], joins, layers.scores.new_tensor(scores))


class _Cover:
    """Greedy covering of the free cells."""

    def __init__(self, labels: Tensor, entities: int, config: RecoveryConfig):
        self.labels = labels.flatten()
        self.entities = entities
        self.config = config

    def take(self, offered: MaskSet) -> tuple[list[int], list[int], list[float]]:
        """Entities and indices of the accepted masks, and the scores of the new entities."""
        masks = replace(offered, logits=None).masks.flatten(1)
        least = max(1.0, self.config.min_new_area * masks.shape[1])
        # Lazy greedy: gains only decrease, so a stored gain is an upper bound and only the top of the heap is recomputed.
        gains = (masks & (self.labels == 0)).sum(1).tolist()
        heap = [(-gain, number) for number, gain in enumerate(gains)]
        heapq.heapify(heap)
        joins: list[int] = []
        taken: list[int] = []
        scores: list[float] = []
        while heap and -heap[0][0] >= least:
            stale, number = heapq.heappop(heap)
            gained = masks[number] & (self.labels == 0)  # [h w] free cells of the mask
            gain = int(gained.sum())
            if gain < -stale:
                # An earlier mask took some of its cells: it goes back with its true gain.
                heapq.heappush(heap, (-gain, number))
                continue
            entity = self._entity(masks[number])
            if entity == self.entities:
                self.entities += 1
                scores.append(float(offered.scores[number]))
            self.labels[gained] = entity + 1
            joins.append(entity)
            taken.append(number)
        return joins, taken, scores

    def _entity(self, mask: Tensor) -> int:
        """The entity with the highest IoU if that exceeds rho (Eq. 10), else the number of a new entity."""
        area = torch.bincount(self.labels, minlength=self.entities + 1)
        shared = torch.bincount(self.labels[mask], minlength=self.entities + 1)
        iou = (shared / (area + mask.sum() - shared).clamp(min=1))[1:]  # [entities]; label 0 is free
        if len(iou) and float(iou.max()) > self.config.join_iou:
            return int(iou.argmax())
        return self.entities
