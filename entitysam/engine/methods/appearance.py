"""Appearance of entities by MASA, for the ids of long videos; and the segmenter of an `inference` config, which names it."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from entitysam.inference.segmenter import APPEARANCES, VideoSegmenter


class MasaAppearance:
    """MASA's embedding of the box around each mask; see `inference.identity.Appearance`.

    Args:
        model: a MASA in eval mode, on its device.
    """

    def __init__(self, model: Any) -> None:
        self.model = model
        self._frame: np.ndarray | None = None
        self._encoded: Any = None

    @torch.inference_mode()
    def __call__(self, frame: np.ndarray, features: Any, mask_logits: Tensor) -> Tensor:
        """Encodes the frame (uint8 [H, W, 3]) with MASA's own backbone: the network's features are not used."""
        from torchvision.ops import masks_to_boxes

        if frame is not self._frame:  # several passes over one frame share its features
            image = torch.from_numpy(frame).permute(2, 0, 1).to(self.model.device).float()
            self._frame, self._encoded = frame, self.model.encode(image)
        masks = mask_logits > 0
        height, width = masks.shape[-2:]
        boxes = torch.tensor([[0.0, 0.0, width, height]]).repeat(len(masks), 1)
        shown = masks.flatten(1).any(1).cpu()
        if shown.any():
            boxes[shown] = masks_to_boxes(masks[shown.to(masks.device)]).cpu() + torch.tensor([0.0, 0.0, 1.0, 1.0])
        boxes *= torch.tensor([frame.shape[1] / width, frame.shape[0] / height]).repeat(2)
        embeddings = self.model.embed(self._encoded, boxes.to(self.model.device)).float().cpu()
        return F.normalize(embeddings, dim=1) * shown[:, None]


def build_segmenter(model: Any, inference: Mapping[str, Any]) -> VideoSegmenter:
    """The segmenter of a network in eval mode and an `inference` config.

    Raises:
        ConfigError, CheckpointError, FileNotFoundError: `appearance` names weights that cannot be used.
    """
    settings = dict(inference)
    name = settings.pop("appearance", "tokens")
    if name not in APPEARANCES:
        from entitysam.engine.methods.masa import DEFAULT, open_masa  # a run without it need not import MASA

        name = MasaAppearance(open_masa(None if name == DEFAULT else name).to(model.device))
    return VideoSegmenter(model, appearance=name, **settings)
