"""SAM 2.1 on single images: the `PromptableSegmenter` of E-SAM (see `esam.protocol`)."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from entitysam.precision import autocast
from entitysam.sam2.model import SAM2, FrameFeatures
from entitysam.sam2.prompt_encoder import POSITIVE, Points


class SAM2Segmenter:
    """A frozen SAM 2.1. The image is resized to S x S without keeping the aspect ratio, as in SAM 2's image predictor.

    Args:
        model: a `SAM2` in eval mode, on its device. On a device other than CPU and CUDA the network runs there and its masks are
            copied to the CPU.
        amp: "fp32", "bf16" or "fp16", precision of the image encoder.

    Raises:
        ConfigError: unknown `amp`.
    """

    def __init__(self, model: SAM2, amp: str = "fp32"):
        autocast(amp, model.device)  # refuses an unknown precision
        self.model = model
        self.amp = amp

    @torch.no_grad()
    def encode(self, image: Tensor) -> "SAM2Image":
        """Encodes one RGB image, uint8 [3, H, W]."""
        side = (self.model.image_size, self.model.image_size)
        pixels = image.to(self.model.device)[None].float()
        pixels = F.interpolate(pixels, side, mode="bilinear", align_corners=False, antialias=True)[0]
        with autocast(self.amp, self.model.device):
            features = self.model.encode(self.model.normalise(pixels))
        return SAM2Image(self.model, features, (image.shape[1], image.shape[2]))


class SAM2Image:
    """An image encoded by `SAM2Segmenter`; see `esam.protocol.PromptableImage`.

    Attributes:
        features: float [C, S/16, S/16]; mask_size: (S/4, S/4).
    """

    def __init__(self, model: SAM2, features: FrameFeatures, size: tuple[int, int]):
        self._model, self._features, self._size = model, features, size
        self._home = features.cells.device if features.cells.device.type in ("cpu", "cuda") else torch.device("cpu")
        grid = features.stride8.shape[-1] // 2
        self.features = features.cells.T.reshape(-1, grid, grid).float().to(self._home)
        self.mask_size: Any = tuple(features.stride4.shape[-2:])

    @torch.no_grad()
    def predict(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Three masks per point (x, y) in pixels of the image: logits [P, 3, S/4, S/4] and predicted IoU [P, 3]."""
        model, features = self._model, self._features
        scale = points.new_tensor([self._size[1], self._size[0]])
        xy = (points / scale * model.image_size).float().to(features.cells.device)[:, None]
        labels = torch.full(xy.shape[:2], POSITIVE, device=xy.device)
        decoded = model.decode_masks(
            model.unconditioned(features), features, Points(xy, labels), None, len(xy), multimask=True
        )
        return decoded.mask_logits.float().to(self._home), decoded.iou.float().to(self._home)
