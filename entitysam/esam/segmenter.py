"""E-SAM: every entity of an image from a frozen promptable segmenter, in the order of the paper's Figure 3."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
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
        ids: int32 [H, W]; 0 = no entity, 1..n otherwise.
        scores: float32 [n] score of id 1..n in 0..1, descending.
    """

    ids: np.ndarray
    scores: np.ndarray


@dataclass
class Trace:
    """What happened on the way, for pictures and measurements; pass an empty one to `ESAM.segment`.

    Attributes:
        steps: entities after "AMG", "MMG", "EMR" and "USR" (those that ran).
        superpixels: of the image.
        prompts: float [n, 2] additional prompts of USR, (x, y) image pixels.
        seconds: time by stage.
        keep_steps: whether `steps` is filled; each holds its masks' logits.
        clock: what `seconds` are read from, e.g. `time.process_time`.
    """

    steps: dict[str, EntityLayers] = field(default_factory=dict)
    superpixels: Superpixels | None = None
    prompts: Tensor | None = None
    seconds: dict[str, float] = field(default_factory=dict)
    keep_steps: bool = True
    clock: Callable[[], float] = time.perf_counter

    def step(self, name: str, layers: EntityLayers) -> None:
        if self.keep_steps:
            self.steps[name] = layers


class ESAM:
    """Image -> disjoint entity masks with scores, without training.

    The three modules can be switched off one by one (`enabled`, Table 3). With all of them off this is SAM's automatic
    mask generator, its masks made disjoint by score.

    Args:
        segmenter: the frozen promptable segmenter.
        prompting, superpixels, mask_generation, refinement, recovery: settings, see there.
        max_pixels: largest image taken, in pixels (ours: 178 million, where Pillow warns as well; the entity map of one
            such image takes 1.5 GB while it is drawn).
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
            image: uint8 [H, W, 3] RGB, [H, W] grey or [H, W, 4] RGBA (the colours below alpha count).
            trace: filled with the steps, where given.

        Raises:
            ValueError: not such an array, an empty one, or more than `max_pixels` pixels.
        """
        pixels = torch.from_numpy(as_rgb(image, self.max_pixels)).permute(2, 0, 1)
        trace = Trace(keep_steps=False) if trace is None else trace
        with _timed(trace, "encode"):
            encoded = self.segmenter.encode(pixels)
        layers = self._find_entities(encoded, pixels, trace)
        with _timed(trace, "draw"):
            return entity_map(layers, *pixels.shape[1:])

    def _find_entities(self, encoded: PromptableImage, pixels: Tensor, trace: Trace) -> EntityLayers:
        """The modules in the order of Figure 3; the work is done on the mask grid."""
        device, size = encoded.features.device, (pixels.shape[1], pixels.shape[2])
        with _timed(trace, "prompt 32"):
            coarse = self.prompt_grid(encoded, size, dense=False)
        with _timed(trace, "superpixels"):
            superpixels = compute_superpixels(pixels, encoded.mask_size, self.superpixels, device)
        trace.superpixels = superpixels
        with _timed(trace, "MMG"):
            levels = generate_masks(coarse, superpixels, self.mask_generation, self.refinement.enabled)
            layers = stack_masks(levels.objects)
        if trace.keep_steps:
            trace.step("AMG", stack_masks(automatic_masks(coarse.masks, self.mask_generation)))
        if self.mask_generation.enabled:
            trace.step("MMG", layers)
        if self.refinement.enabled:
            layers = self._refine(encoded, levels, superpixels, size, trace)
        if self.recovery.enabled:
            layers = self._recover(encoded, layers, levels, superpixels, size, trace)
        return layers

    def _refine(
        self,
        encoded: PromptableImage,
        levels: MultiLevelMasks,
        superpixels: Superpixels,
        size: tuple[int, int],
        trace: Trace,
    ) -> EntityLayers:
        with _timed(trace, "prompt 64"):
            dense = self.prompt_grid(encoded, size, dense=True)
        with _timed(trace, "gallery"):
            num_points = self.prompting.gallery_points_per_side**2
            gallery = build_gallery(dense, num_points, self.mask_generation.object_nms, self.refinement.tolerance)
        with _timed(trace, "EMR"):
            layers = refine(levels.objects, gallery, superpixels, encoded.features, size, self.refinement)
        trace.step("EMR", layers)
        return layers

    def _recover(
        self,
        encoded: PromptableImage,
        layers: EntityLayers,
        levels: MultiLevelMasks,
        superpixels: Superpixels,
        size: tuple[int, int],
        trace: Trace,
    ) -> EntityLayers:
        with _timed(trace, "USR"):
            labels = layers.grid_labels()
            regions = uncovered_regions(labels, superpixels, self.recovery.min_uncovered)
            details = MaskSet.cat([levels.parts, levels.subparts])
            cells = prompt_points(regions, details, self.recovery.min_inside)
            points = cells * cells.new_tensor([size[1] / labels.shape[1], size[0] / labels.shape[0]])
        trace.prompts = points
        if len(points):
            with _timed(trace, "prompt again"):
                prompted = prompt(encoded, points, self.prompting)
            with _timed(trace, "USR"):
                layers = recover(layers, labels, prompted, len(points), self.refinement.tolerance, self.recovery)
        trace.step("USR", layers)
        return layers

    def prompt_grid(self, encoded: PromptableImage, size: tuple[int, int], dense: bool) -> PromptedMasks:
        """Filtered masks of the coarse grid with logits, or object and best masks of the dense one; `size`: (H, W)."""
        settings = self.prompting
        points = point_grid(settings.gallery_points_per_side if dense else settings.points_per_side, *size)
        return prompt(encoded, points, settings, every_level=not dense, keep_logits=not dense)


def entity_map(layers: EntityLayers, height: int, width: int) -> EntityMap:
    """Draws the entities and numbers those that have pixels by descending score (ties: first come)."""
    labels = layers.render(height, width)
    present = torch.bincount(labels.flatten(), minlength=len(layers) + 1)[1:] > 0
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
            "make it smaller, or raise max_pixels where there is memory for about 20 bytes per pixel"
        )
    return np.broadcast_to(image[:, :, :3], (height, width, 3)).copy()


@contextmanager
def _timed(trace: Trace, stage: str) -> Iterator[None]:
    """Adds the time spent inside to a stage of the trace."""
    start = trace.clock()
    yield
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    trace.seconds[stage] = trace.seconds.get(stage, 0.0) + trace.clock() - start
