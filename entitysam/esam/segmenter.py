"""E-SAM: every entity of an image from a frozen promptable segmenter, in the order of the paper's Figure 3."""

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from entitysam.esam.bitmasks import MaskSet
from entitysam.esam.gallery import build_gallery
from entitysam.esam.layers import EntityLayers, stack_masks
from entitysam.esam.mask_generation import MaskGenerationConfig, MultiLevelMasks, automatic_masks, generate_masks
from entitysam.esam.prompting import PromptedMasks, PromptingConfig, point_grid, prompt
from entitysam.esam.protocol import PromptableImage, PromptableSegmenter
from entitysam.esam.recovery import RecoveryConfig, prompt_points, recover, uncovered_regions
from entitysam.esam.refinement import RefinementConfig, refine
from entitysam.esam.superpixels import SuperpixelConfig, Superpixels, compute_superpixels


@dataclass
class EntityMap:
    """The entities of one image.

    Attributes:
        ids: int32 [H, W]; 0 = no entity, 1..n = entities.
        scores: float32 [n] score of ids 1..n in 0..1, descending.
    """

    ids: np.ndarray
    scores: np.ndarray


@dataclass
class Trace:
    """Intermediate results; pass an empty one to `ESAM.segment` to have it filled.

    Attributes:
        steps: entities after "AMG" (SAM's automatic masks), "MMG", "EMR" and "USR", for the modules that are enabled.
        superpixels: superpixels of the image.
        prompts: float [n, 2] additional prompts of USR, (x, y) image pixels.
    """

    steps: dict[str, EntityLayers] = field(default_factory=dict)
    superpixels: Superpixels | None = None
    prompts: Tensor | None = None


class ESAM:
    """Image -> disjoint entity masks with scores, without training.

    Each of the three modules can be disabled (`enabled`, Table 3). With all of them disabled the result is that of SAM's
    automatic mask generator, made disjoint by score.

    Args:
        segmenter: the frozen promptable segmenter.
        prompting, superpixels, mask_generation, refinement, recovery: settings of the steps; None = the defaults.
        max_pixels: maximum image size in pixels (ours: 178 million, Pillow's own limit; drawing the entity map of such an
            image takes 1.5 GB).
    """

    def __init__(
        self,
        segmenter: PromptableSegmenter,
        prompting: PromptingConfig | None = None,
        superpixels: SuperpixelConfig | None = None,
        mask_generation: MaskGenerationConfig | None = None,
        refinement: RefinementConfig | None = None,
        recovery: RecoveryConfig | None = None,
        max_pixels: int = 178_000_000,
    ):
        self.segmenter = segmenter
        self.prompting = prompting or PromptingConfig()
        self.superpixels = superpixels or SuperpixelConfig()
        self.mask_generation = mask_generation or MaskGenerationConfig()
        self.refinement = refinement or RefinementConfig()
        self.recovery = recovery or RecoveryConfig()
        self.max_pixels = max_pixels

    @torch.no_grad()
    def segment(self, image: np.ndarray, trace: Trace | None = None) -> EntityMap:
        """Segments one image.

        Args:
            image: uint8 [H, W, 3] RGB, [H, W] grey or [H, W, 4] RGBA (alpha is ignored).
            trace: filled with the intermediate results, if given.

        Raises:
            ValueError: another dtype or shape, an empty image, or more than `max_pixels` pixels.
        """
        pixels = torch.from_numpy(as_rgb(image, self.max_pixels)).permute(2, 0, 1)  # [3, H, W]
        height, width = pixels.shape[1:]
        encoded = self.segmenter.encode(pixels)
        coarse = self.prompt_grid(encoded, (height, width), dense=False)
        superpixels = compute_superpixels(pixels, encoded.mask_size, self.superpixels, encoded.features.device)
        levels = generate_masks(coarse, superpixels, self.mask_generation, self.refinement.enabled)
        layers = stack_masks(levels.objects)
        if trace is not None:
            trace.superpixels = superpixels
            trace.steps["AMG"] = stack_masks(automatic_masks(coarse.masks, self.mask_generation))
            if self.mask_generation.enabled:
                trace.steps["MMG"] = layers
        if self.refinement.enabled:
            layers = self._refine(encoded, levels, superpixels, (height, width))
            if trace is not None:
                trace.steps["EMR"] = layers
        if self.recovery.enabled:
            layers, prompts = self._recover(encoded, layers, levels, superpixels, (height, width))
            if trace is not None:
                trace.steps["USR"], trace.prompts = layers, prompts
        return entity_map(layers, height, width)

    def _refine(
        self, encoded: PromptableImage, levels: MultiLevelMasks, superpixels: Superpixels, size: tuple[int, int]
    ) -> EntityLayers:
        """EMR: object masks -> disjoint entities, guided by the gallery of the dense grid."""
        dense = self.prompt_grid(encoded, size, dense=True)
        num_points = self.prompting.gallery_points_per_side**2
        gallery = build_gallery(dense, num_points, self.mask_generation.object_nms, self.refinement.tolerance)
        return refine(levels.objects, gallery, superpixels, encoded.features, size, self.refinement)

    def _recover(
        self,
        encoded: PromptableImage,
        layers: EntityLayers,
        levels: MultiLevelMasks,
        superpixels: Superpixels,
        size: tuple[int, int],
    ) -> tuple[EntityLayers, Tensor]:
        """USR: prompts uncovered regions again; the entities, and the prompts [n, 2] as (x, y) image pixels."""
        labels = layers.grid_labels()  # [h, w]
        regions = uncovered_regions(labels, superpixels, self.recovery.min_uncovered)
        details = MaskSet.cat([levels.parts, levels.subparts])
        cells = prompt_points(regions, details, self.recovery.min_inside)  # [n, 2]
        points = cells * cells.new_tensor([size[1] / labels.shape[1], size[0] / labels.shape[0]])
        if len(points):
            prompted = prompt(encoded, points, self.prompting)
            layers = recover(layers, labels, prompted, len(points), self.refinement.tolerance, self.recovery)
        return layers, points

    def prompt_grid(self, encoded: PromptableImage, size: tuple[int, int], dense: bool) -> PromptedMasks:
        """Filtered masks of a point grid over an image of `size` (H, W).

        Args:
            dense: False: all masks of the coarse grid, with logits; True: object and best masks of the dense grid.
        """
        settings = self.prompting
        points = point_grid(settings.gallery_points_per_side if dense else settings.points_per_side, *size)
        return prompt(encoded, points, settings, every_level=not dense, keep_logits=not dense)


def entity_map(layers: EntityLayers, height: int, width: int) -> EntityMap:
    """Draws the entities and numbers those that have pixels by descending score; ties keep their order."""
    labels = layers.render(height, width)
    present = torch.bincount(labels.flatten(), minlength=len(layers) + 1)[1:] > 0  # [E]
    order = layers.scores.argsort(descending=True, stable=True)
    order = order[present[order]]
    new_id = torch.zeros(len(layers) + 1, dtype=torch.int32, device=labels.device)
    new_id[order + 1] = torch.arange(1, len(order) + 1, dtype=torch.int32, device=labels.device)
    return EntityMap(new_id[labels].cpu().numpy(), layers.scores[order].float().cpu().numpy())


def as_rgb(image: np.ndarray, max_pixels: int) -> np.ndarray:
    """Any uint8 image as [H, W, 3] RGB.

    Raises:
        ValueError: not uint8, not of 1, 3 or 4 channels, empty, or larger than `max_pixels`.
    """
    if image.dtype != np.uint8 or image.ndim not in (2, 3):
        raise ValueError(f"an image is uint8 [H, W], [H, W, 3] or [H, W, 4], not {image.dtype} {list(image.shape)}")
    if image.ndim == 2:
        image = image[:, :, None]
    if image.shape[2] not in (1, 3, 4):
        raise ValueError(f"an image has 1, 3 or 4 channels, not {image.shape[2]}")
    height, width = image.shape[:2]
    if not height * width:
        raise ValueError(f"the image is empty: {height} x {width} pixels")
    if height * width > max_pixels:
        raise ValueError(
            f"the image has {height} x {width} pixels, more than max_pixels = {max_pixels}; "
            "make it smaller, or raise max_pixels if there is memory for about 20 bytes per pixel"
        )
    return np.broadcast_to(image[:, :, :3], (height, width, 3)).copy()
