"""Runs a network on keyframes only; on the frames between, its masks follow the optical flow."""

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from entitysam.inference.compiled import CompiledModel
from entitysam.inference.wrapped import WrappedModel
from entitysam.speed import EXACT, Speed
from entitysam.structures import FrameOutput

GREY_SCALE, GREY_MEAN = 50.0, 128.0  # normalised images have a standard deviation near 1
FLOW_STRIDE = 2  # the flow is estimated on images of half the network's size


@dataclass(frozen=True)
class KeyframeState:
    """The state between two frames of a video.

    Attributes:
        network: fields of the network's state after the last keyframe.
        since: frames since the last keyframe; -1 before the first frame.
        grey: uint8 [S/2, S/2] the last frame.
        output: tensors of the last `FrameOutput`, its masks those of the last frame.
    """

    network: dict[str, Any]
    since: int = -1
    grey: Tensor | None = None
    output: dict[str, Tensor] | None = None


class FrameFeatures:
    """A frame whose features are computed when a keyframe needs them.

    Attributes:
        image: [3, S, S] normalised.
        features: of the network; None on a frame between keyframes.
    """

    def __init__(self, image: Tensor) -> None:
        self.image = image
        self.features: Any = None

    @property
    def cells(self) -> Tensor | None:
        """Cells of the features for `identity.appearance_of`."""
        return getattr(self.features, "cells", None)

    @property
    def semantic(self) -> Tensor | None:
        """Semantic tokens of the features for `identity.appearance_of`."""
        return getattr(self.features, "semantic", None)


class KeyframeModel(WrappedModel):
    """A network behind the interface `inference.segmenter.FrameModel` that runs on every `speed.keyframe`-th frame.

    A frame that the flow explains badly is a keyframe, too (`speed.max_change`): cuts and new entities are not waited for.

    Args:
        model: the network.
        speed: see `Speed`.
    """

    def __init__(self, model: Any, speed: Speed) -> None:
        super().__init__(model)
        self.speed = speed
        self._flow = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_FAST)  # type: ignore[attr-defined]

    def initial_state(self) -> KeyframeState:
        """State before the first frame."""
        return KeyframeState(vars(self.model.initial_state()))

    def encode(self, images: Tensor) -> list[FrameFeatures]:
        """Frames [B, 3, S, S]; nothing is computed yet."""
        return [FrameFeatures(image) for image in images]

    def propagate(self, features: FrameFeatures, state: KeyframeState) -> tuple[FrameOutput, KeyframeState]:
        """Segments the frame by the network or by the masks of the last frame; further passes over frame 0 by the network."""
        grey = _grey(features.image)
        if state.output is not None and features.features is None and state.since + 1 < self.speed.keyframe:
            followed = self._follow(grey, state)
            if followed is not None:
                kept = {**state.output, "mask_logits": followed}
                return FrameOutput(**kept), KeyframeState(state.network, state.since + 1, torch.from_numpy(grey), kept)
        if features.features is None:
            features.features = self.model.encode(features.image[None])[0]
        output, network = self.model.propagate(features.features, type(self.model.initial_state())(**state.network))
        kept = {name: value for name, value in vars(output).items() if value is not None}
        return output, KeyframeState(vars(network), 0, torch.from_numpy(grey), kept)

    def _follow(self, grey: np.ndarray, state: KeyframeState) -> Tensor | None:
        """Mask logits [Q, S/4, S/4] of the last frame, moved to this one; None where the flow does not explain the frame."""
        assert state.grey is not None
        assert state.output is not None
        before = state.grey.cpu().numpy()
        flow = self._flow.calc(grey, before, None)  # [h, w, 2] as (x, y): where a pixel of this frame was
        side = len(grey)
        x, y = np.meshgrid(np.arange(side, dtype=np.float32), np.arange(side, dtype=np.float32))
        source = np.stack([x, y], axis=-1) + flow
        moved = cv2.remap(before, source[..., 0], source[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        if np.abs(moved.astype(np.float32) - grey).mean() > self.speed.max_change:
            return None
        masks = state.output["mask_logits"]
        grid = torch.from_numpy((2 * source + 1) / side - 1).to(masks.device)  # pixel centres to -1..1
        grid = F.interpolate(grid.permute(2, 0, 1)[None], size=masks.shape[-2:], mode="area").permute(0, 2, 3, 1)
        return F.grid_sample(masks[None].float(), grid, padding_mode="border", align_corners=False)[0].to(masks.dtype)


def at_speed(model: Any, speed: Speed, compile: bool = False) -> Any:
    """The network at a level of speed, compiled if asked for; itself where nothing is left out."""
    network = model if speed == EXACT else model.at_speed(speed)
    if compile:
        network = CompiledModel(network)
    return KeyframeModel(network, speed) if speed.keyframe > 1 else network


def _grey(image: Tensor) -> np.ndarray:
    """A normalised image [3, S, S] -> uint8 [S/2, S/2]."""
    small = F.avg_pool2d(image.float().mean(0)[None, None], FLOW_STRIDE)[0, 0]
    return (small * GREY_SCALE + GREY_MEAN).clamp(0, 255).to(torch.uint8).cpu().numpy()
