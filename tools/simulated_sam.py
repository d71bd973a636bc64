"""A simulated SAM: derives the masks of point prompts from ground truth, with the kinds of errors that E-SAM repairs.

It replaces SAM if no weights are available. It tests the algorithm and says nothing about SAM's accuracy. It simulates
the following, with the probabilities of `ErrorModel`, as a function of a seed and the position of the point:

- three masks per point: an entity, one of its parts, one of the part's subparts, in random order;
- parts often have the higher score (over-segmentation of the automatic masks);
- some object masks include a neighbour (under-segmentation), with a lower score; the part is then the entity;
- some entities are mostly returned as parts at the object level, and rarely as a whole;
- some entities need a point deep inside them or one of their parts: elsewhere the object mask, and for every second such
  entity all three masks, are poor;
- borders are wavy; predicted scores are the IoU with the intended region plus noise;
- features are similar within an entity, less similar within a kind of entity, with noise.
"""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from scipy.ndimage import distance_transform_edt, gaussian_filter
from torch import Tensor

from entitysam.esam.bitmasks import areas, pack_above

FEATURE_SIDE = 64
NUM_WAVES = 64
FAR = 16.0  # distances are clamped here; waves are smaller


@dataclass(frozen=True)
class ErrorModel:
    """Error probabilities and magnitudes of the simulated SAM; lengths in cells of the mask grid."""

    swallows: float = 0.15  # the object mask of a point includes a neighbour
    in_pieces: float = 0.3  # share of entities that are mostly returned as parts
    whole_now_and_then: float = 0.15  # ... and how often they are returned as a whole
    hidden: float = 0.3  # share of entities that need a point deep inside
    deep: float = 0.8  # depth of such a point, relative to the deepest one
    deep_bonus: float = 0.03  # score increase of the object mask there
    wave: float = 0.6  # standard deviation of the border of a good mask of at least `large` across
    poor_wave: float = 4.0  # ... and of a poor one; both shrink in proportion for smaller masks
    large: float = 40.0
    slope: float = 30.0  # logits per cell of distance from the border
    score_noise: float = 0.02
    modesty: float = 0.04  # difference of the IoU and the predicted score
    part_bonus: float = 0.005  # mean score difference of a part and an object
    swallow_malus: float = 0.05


@dataclass
class _EntityRegions:
    """The regions of one entity by index into the pool: itself, itself with a neighbour, parts, subparts of each part."""

    whole: int
    swallowed: int
    parts: list[int]
    subparts: list[list[int]]
    in_pieces: bool
    hidden: bool
    dark: bool


class SimulatedSAM:
    """A promptable segmenter that answers from ground truth.

    Args:
        ids: [H, W] entity ids of the one image it can encode, 0 = void.
        seed: seed of all randomness; equal points give equal answers.
        device: device of the masks.
        grid_side: cells along the longer side of the mask grid; SAM has 256.
    """

    def __init__(
        self,
        ids: np.ndarray,
        seed: int = 0,
        errors: ErrorModel | None = None,
        device: str = "cpu",
        grid_side: int = 256,
    ):
        self.ids = ids
        self.seed = seed
        self.errors = errors or ErrorModel()
        self.device = torch.device(device)
        self.grid_side = grid_side

    def encode(self, image: Tensor) -> "SimulatedImage":
        if tuple(image.shape[1:]) != self.ids.shape:
            raise ValueError(f"the image is {list(image.shape[1:])}, its ground truth {list(self.ids.shape)}")
        appearance = _appearance(image, _grid(self.ids.shape, self.grid_side))
        return SimulatedImage(self.ids, appearance, self.seed, self.errors, self.device)


class SimulatedImage:
    """An image of `SimulatedSAM`; see `entitysam.esam.protocol.PromptableImage`."""

    def __init__(self, ids: np.ndarray, appearance: np.ndarray, seed: int, errors: ErrorModel, device: torch.device):
        self.ids, self.seed, self.errors, self.mask_size = ids, seed, errors, appearance.shape[:2]
        random = np.random.default_rng(seed)
        pool: list[np.ndarray] = []
        names = [int(i) for i in np.unique(ids) if i]
        coverage = {i: _coverage(ids == i, self.mask_size) for i in names}
        self.families = {i: _entity_regions(i, coverage, appearance, pool, random, errors) for i in names}
        self.part_of = self._part_map(pool)
        self.centres = np.array([_centre(region) for region in pool]) if pool else np.zeros((0, 2))
        distances = np.stack([_signed_distance(region) for region in pool] or [np.full(self.mask_size, -FAR)])
        self.depths = distances / distances.max((1, 2), keepdims=True).clip(min=0.5)
        self.distances = torch.from_numpy(distances.clip(-FAR, FAR).astype(np.float32)).to(device)
        self.words = pack_above(self.distances, 0.0)
        waves = random.standard_normal((NUM_WAVES, *self.mask_size))
        waves = np.stack([gaussian_filter(wave, 3) for wave in waves])
        self.waves = torch.from_numpy((waves / waves.std()).astype(np.float32)).to(device)
        across = areas(self.words).double().sqrt()
        self.relative = (across / errors.large).clamp(0.05, 1).to(self.distances)
        self.features = torch.from_numpy(_features(ids, self.families, random)).to(device)

    def _part_map(self, pool: list[np.ndarray]) -> dict[int, np.ndarray]:
        """Entity -> which of its parts [h, w] each cell is nearest to."""
        return {
            name: np.stack([pool[part] for part in family.parts]).argmax(0) for name, family in self.families.items()
        }

    def predict(self, points: Tensor) -> tuple[Tensor, Tensor]:
        answers = [self._answer(x, y) for x, y in points.cpu().double().tolist()]
        device = self.distances.device
        regions = torch.tensor([a[0] for a in answers], device=device).view(-1, 3)
        amplitude = torch.tensor([a[1] for a in answers], device=device, dtype=torch.float32).view(-1, 3)
        bonus = torch.tensor([a[2] for a in answers], device=device, dtype=torch.float32).view(-1, 3)
        wave = torch.tensor([a[3] for a in answers], device=device).view(-1, 3)
        meant = self.distances[regions]
        poor = (amplitude > 2 * self.errors.wave)[..., None, None]
        moved = torch.addcmul(meant, self.waves[wave], (amplitude * self.relative[regions])[..., None, None])
        scores = self._iou(moved, regions) - self.errors.modesty + bonus
        slope = torch.where(poor, self.errors.slope / 4, self.errors.slope)
        return moved.mul_(slope), scores.clamp(0, 1)

    def _iou(self, moved: Tensor, regions: Tensor) -> Tensor:
        """IoU of answers [P, 3, h, w] with the intended regions [P, 3]: [P, 3]."""
        answers, meant = pack_above(moved.flatten(0, 1), 0.0), self.words[regions.flatten()]
        return (areas(answers & meant) / areas(answers | meant).clamp(min=1)).view(-1, 3)

    def _answer(self, x: float, y: float) -> tuple[list[int], list[float], list[float], list[int]]:
        """Regions, border amplitudes, score offsets and waves of the three masks of one point."""
        errors = self.errors
        random = np.random.default_rng([self.seed, int(x * 8), int(y * 8)])
        chance = random.random(3)
        order = random.permutation(3)
        wave = random.integers(NUM_WAVES, size=3)
        offset = random.normal(0, errors.score_noise, 3)
        amplitude = np.abs(random.normal(errors.wave, errors.wave / 3, 3))
        height, width = self.ids.shape
        name = int(self.ids[min(height - 1, max(0, int(y))), min(width - 1, max(0, int(x)))])
        if name == 0:
            return [0, 0, 0], [errors.poor_wave] * 3, [-0.5] * 3, wave.tolist()
        family = self.families[name]
        column, row = x * self.mask_size[1] / width, y * self.mask_size[0] / height
        regions, offset, poor = self._choose(family, name, column, row, chance, offset)
        amplitude[poor] = errors.poor_wave
        return (
            np.array(regions)[order].tolist(),
            amplitude[order].tolist(),
            offset[order].tolist(),
            wave.tolist(),
        )

    def _choose(
        self, family: _EntityRegions, name: int, column: float, row: float, chance: np.ndarray, offset: np.ndarray
    ) -> tuple[list[int], np.ndarray, np.ndarray]:
        """Intended regions of object, part and subpart; score offsets; whether each is poor."""
        errors = self.errors
        height, width = self.mask_size
        cell = min(height - 1, int(row)), min(width - 1, int(column))
        part = int(self.part_of[name][cell])
        subparts = family.subparts[part]
        near = np.hypot(*(self.centres[subparts] - (column, row)).T)
        regions = [family.whole, family.parts[part], subparts[int(near.argmin())]]
        offset = offset + np.array([0.0, errors.part_bonus, 0.0])
        poor = np.zeros(3, bool)
        depth = self.depths[[family.whole, family.parts[part]], cell[0], cell[1]]
        if family.in_pieces and chance[0] > errors.whole_now_and_then:
            regions = [regions[1], regions[2], regions[2]]
        elif chance[1] < errors.swallows:
            regions = [family.swallowed, family.whole, regions[1]]
            offset[0] -= errors.swallow_malus
        if family.hidden and depth.max() < errors.deep:
            poor[:] = [True, family.dark, family.dark]
        elif family.hidden:
            offset[0] += errors.deep_bonus
        return regions, offset, poor


def _grid(shape: tuple[int, ...], side: int) -> tuple[int, int]:
    ratio = side / max(shape)
    return max(1, round(shape[0] * ratio)), max(1, round(shape[1] * ratio))


def _coverage(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Share of each grid cell that a mask covers: float [h, w]."""
    pixels = torch.from_numpy(mask.astype(np.float32))[None, None]
    return F.interpolate(pixels, size, mode="area")[0, 0].numpy()


def _entity_regions(
    name: int,
    coverage: dict[int, np.ndarray],
    appearance: np.ndarray,
    pool: list[np.ndarray],
    random: np.random.Generator,
    errors: ErrorModel,
) -> _EntityRegions:
    """Adds the regions of one entity to the pool: itself, with a neighbour, 1-4 parts and 1-3 subparts in each."""
    own = coverage[name]
    whole = len(pool)
    pool.append(own)
    swallowed = len(pool)
    pool.append(np.minimum(1, own + coverage.get(_neighbour(name, coverage, random), 0)))
    parts, subparts = [], []
    for region in _cut(own, int(random.integers(1, 5)), appearance, random):
        parts.append(len(pool))
        pool.append(region)
        pieces = _cut(region, int(random.integers(1, 4)), appearance, random)
        subparts.append(list(range(len(pool), len(pool) + len(pieces))))
        pool.extend(pieces)
    in_pieces, hidden, dark = random.random(3) < (errors.in_pieces, errors.hidden, 0.5)
    return _EntityRegions(whole, swallowed, parts, subparts, bool(in_pieces), bool(hidden), bool(hidden and dark))


def _neighbour(name: int, coverage: dict[int, np.ndarray], random: np.random.Generator) -> int:
    """An entity that touches this one, 0 if there is none."""
    ring = gaussian_filter(coverage[name], 2) > 0.02
    touching = [other for other, cells in coverage.items() if other != name and (cells[ring] > 0.5).any()]
    return int(random.choice(touching)) if touching else 0


def _appearance(image: Tensor, size: tuple[int, int]) -> np.ndarray:
    """Position and colour of each cell: float [h, w, 5], in comparable units."""
    colours = F.interpolate(image[None].float(), size, mode="area")[0].numpy()
    colours = np.stack([gaussian_filter(channel, 2) for channel in colours], -1) / 128
    y, x = np.mgrid[: size[0], : size[1]] / max(size)
    return np.concatenate([y[..., None], x[..., None], colours], -1)


def _cut(region: np.ndarray, count: int, appearance: np.ndarray, random: np.random.Generator) -> list[np.ndarray]:
    """Splits a region [h, w] into `count` clusters of position and colour; a tiny region is not split."""
    rows, columns = np.nonzero(region > 0.5)
    if len(rows) < 4 * count:
        return [region]
    seeds = random.choice(len(rows), count, replace=False)
    centres = appearance[rows[seeds], columns[seeds]]
    for _ in range(3):
        distance = ((appearance[:, :, None] - centres) ** 2).sum(-1)
        nearest = distance.argmin(-1)
        inside = [(nearest == i) & (region > 0.5) for i in range(count)]
        centres = np.stack([appearance[cells].mean(0) if cells.any() else centres[i] for i, cells in enumerate(inside)])
    return [region * (nearest == i) for i, cells in enumerate(inside) if cells.any()]


def _centre(region: np.ndarray) -> tuple[float, float]:
    """Centroid (x, y) of a region in cells."""
    rows, columns = np.nonzero(region > 0)
    if not len(rows):
        return -1e3, -1e3
    weight = region[rows, columns]
    return float(np.average(columns + 0.5, weights=weight)), float(np.average(rows + 0.5, weights=weight))


def _signed_distance(region: np.ndarray) -> np.ndarray:
    """Distance from the border in cells, positive inside; partly covered cells have their coverage - 0.5."""
    inside = region > 0.5
    if not inside.any():
        return np.where(region > 0, region - 0.5, -FAR)
    outward = distance_transform_edt(~inside) - 0.5
    inward = distance_transform_edt(inside) - 0.5 if not inside.all() else np.full(region.shape, FAR)
    mixed = (region > 0.02) & (region < 0.98)
    return np.where(mixed, region - 0.5, np.where(inside, inward, -outward))


def _features(ids: np.ndarray, families: dict[int, _EntityRegions], random: np.random.Generator) -> np.ndarray:
    """float32 [32, fh, fw]: an entity's own direction, that of its kind, and noise."""
    height, width = _grid(ids.shape, FEATURE_SIDE)
    rows = ((np.arange(height) + 0.5) * ids.shape[0] / height).astype(int)
    columns = ((np.arange(width) + 0.5) * ids.shape[1] / width).astype(int)
    kinds = random.standard_normal((4, 32)) / 32**0.5
    vectors = {0: np.zeros(32)}
    for name in families:
        vectors[name] = 0.7 * kinds[random.integers(4)] + random.standard_normal(32) / 32**0.5
    field = np.stack([[vectors[int(i)] for i in row] for row in ids[np.ix_(rows, columns)]])
    noise = 0.5 * random.standard_normal(field.shape) / 32**0.5
    return np.ascontiguousarray((field + noise).transpose(2, 0, 1)).astype(np.float32)
