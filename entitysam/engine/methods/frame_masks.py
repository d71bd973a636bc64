"""Masks of single frames, from which several methods start: each part of FRAME_MASKS gives a frame's entities without a past."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np

import entitysam.engine.build.promptable  # noqa: F401  (SAM 2.1 behind E-SAM)
from entitysam.data.detections.matching import ClipDetections
from entitysam.data.detections.readers import read_detections
from entitysam.data.images import DataError, frame_name
from entitysam.engine.methods.context import MethodContext
from entitysam.esam.mask_generation import MaskGenerationConfig
from entitysam.esam.prompting import PromptingConfig
from entitysam.esam.recovery import RecoveryConfig
from entitysam.esam.refinement import RefinementConfig
from entitysam.esam.segmenter import ESAM
from entitysam.esam.settings import method_from_options
from entitysam.ops import rle_decode
from entitysam.registry import ConfigError, Registry, build
from entitysam.sam2.image import SAM2Segmenter
from entitysam.settings import read_settings
from entitysam.structures import Detections

FRAME_MASKS = Registry("source of masks")

SAM2_MIN_SCORE = 0.8  # least predicted IoU of SAM 2's automatic mask generator; SAM's is 0.88

Entities = tuple[np.ndarray, np.ndarray]  # ids 1..n int32 [H, W], 0 = none; scores [n]
EntitiesOf = Callable[[int, np.ndarray], Entities]  # number of the frame, uint8 [H, W, 3] RGB


class FrameMasks(Protocol):
    """A source of masks."""

    def start(self, frames: Iterable[np.ndarray], out_size: tuple[int, int]) -> EntitiesOf:
        """A function that gives the entities of any frame of a video, on maps of `out_size`."""


def build_masks(node: Mapping[str, Any] | None, context: MethodContext, sam2: Any = None) -> FrameMasks:
    """A source from its node, e.g. {name: entitysam} (the default), {name: esam, model: sam2_small}.

    Args:
        node: {name, ...}; {name: sam2, prompting: {...}} = automatic masks of `sam2`.
        context: of the run.
        sam2: a SAM 2.1 that the method has.

    Raises:
        ConfigError: unknown name or key. DataError, CheckpointError, FileNotFoundError: files that cannot be used.
    """
    given = dict(node or {"name": "entitysam"})
    if given.get("name") in ("esam", "sam"):  # their keys are those of E-SAM's config
        return ESAMMasks(method_from_options({"device": context.device, **given}))
    if given.get("name") == "sam2":
        if sam2 is None:
            raise ConfigError("method.masks: this method has no SAM 2.1; e.g. {name: sam, model: sam2_small}")
        return build(FRAME_MASKS, given, "method.masks", sam2=sam2)
    return build(FRAME_MASKS, given, "method.masks", context=context)


@FRAME_MASKS.register("entitysam")
class EntitySAMMasks:
    """EntitySAM on every frame as if it were the first.

    Args:
        context: of the run; weights, model: see `MethodContext.entity_sam`.
        warmup_frames: see `VideoSegmenter`; None = the run's.
    """

    def __init__(
        self, context: MethodContext, weights: str = "", model: str = "", warmup_frames: int | None = None
    ) -> None:
        passes = {} if warmup_frames is None else {"warmup_frames": warmup_frames}
        self.segmenter = context.segmenter(weights, model, appearance="none", **passes)

    def start(self, frames: Iterable[np.ndarray], out_size: tuple[int, int]) -> EntitiesOf:
        def entities_of(index: int, frame: np.ndarray) -> Entities:
            segmented = self.segmenter.segment([frame], out_size)
            return next(segmented.iter_ids()), segmented.scores

        return entities_of


@FRAME_MASKS.register("sam2")
def automatic_masks(sam2: Any, prompting: dict[str, Any] | None = None) -> "ESAMMasks":
    """The automatic masks of SAM 2.1, with the thresholds of its own generator.

    Args:
        sam2: the network, which the method also tracks with.
        prompting: keys of `esam.prompting.PromptingConfig` that differ.
    """
    given = {"min_score": SAM2_MIN_SCORE, **(prompting or {})}
    return ESAMMasks(
        ESAM(
            SAM2Segmenter(sam2),
            read_settings(PromptingConfig, given, "method.masks.prompting"),
            mask_generation=MaskGenerationConfig(enabled=False),
            refinement=RefinementConfig(enabled=False),
            recovery=RecoveryConfig(enabled=False),
        )
    )


class ESAMMasks:
    """E-SAM, or the automatic masks of SAM or SAM 2.1 ("everything").

    Args:
        method: an `ESAM`, or anything with its `segment`.
    """

    def __init__(self, method: ESAM) -> None:
        self.method = method

    def start(self, frames: Iterable[np.ndarray], out_size: tuple[int, int]) -> EntitiesOf:
        def entities_of(index: int, frame: np.ndarray) -> Entities:
            check_size(frame, out_size)
            found = self.method.segment(frame)
            return found.ids, found.scores

        return entities_of


@FRAME_MASKS.register("detections")
class GivenMasks:
    """The masks of a file of detections, e.g. of Mask2Former; where they overlap, the better score is in front.

    Args:
        context: of the run.
        file: see `data.detections.readers`.
        min_score: masks below it are left out.
    """

    def __init__(self, context: MethodContext, file: str, min_score: float = 0.0) -> None:
        self.path, self.min_score = Path(file), min_score
        self.contents = read_detections(self.path)

    def start(self, frames: Iterable[np.ndarray], out_size: tuple[int, int]) -> EntitiesOf:
        video = getattr(frames, "video", None)  # the frames of an evaluation know their names
        if video is None:
            frames = list(frames)
            given = ClipDetections(self.path, "", [], range(len(frames)), self.contents, has_images=False)
        else:
            names = [frame_name(file.name) for file in video.frame_files]
            given = ClipDetections(self.path, str(video.annotation["key"]), names, range(len(names)), self.contents)

        def entities_of(index: int, frame: np.ndarray) -> Entities:
            check_size(frame, out_size)
            found = given.at(index, (frame.shape[0], frame.shape[1]))
            if any(mask is None for mask in found.masks):
                raise DataError(f"{self.path}: boxes without masks; this method needs masks")
            return paint(found[found.scores >= self.min_score], out_size)

        return entities_of


def paint(objects: Detections, size: tuple[int, int]) -> Entities:
    """Detections with masks -> a map [H, W] with ids 1..n by descending score, and the scores."""
    order = np.argsort(-objects.scores, kind="stable")
    ids = np.zeros(size, np.int32)
    for number, row in reversed(list(enumerate(order, start=1))):
        ids[rle_decode(objects.masks[row]).astype(bool)] = number  # type: ignore[arg-type]
    return ids, objects.scores[order]


def check_size(frame: np.ndarray, size: tuple[int, int]) -> None:
    """Refuses a frame that differs from its annotation.

    Raises:
        ConfigError: names both sizes.
    """
    if frame.shape[:2] != tuple(size):
        raise ConfigError(f"frame is {frame.shape[1]}x{frame.shape[0]}, its annotation {size[1]}x{size[0]}")
