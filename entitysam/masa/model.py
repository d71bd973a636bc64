"""MASA (Li et al., Matching Anything by Segmenting Anything, CVPR 2024): instance embeddings learned from still images."""

from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from entitysam.layers.network import Network
from entitysam.masa.adapter import Adapter
from entitysam.masa.backbone import TimmFeatures
from entitysam.masa.detection_head import DetectionHead
from entitysam.masa.sampling import sample_boxes
from entitysam.masa.track_head import TrackHead
from entitysam.structures import BoxTargets, PairOutput

BOXES_PER_BATCH = 1024  # boxes that are pooled at once; 50 MB with 256 channels


@dataclass
class MasaFeatures:
    """Features of one image, from which embeddings and proposals are computed.

    Attributes:
        maps: fused pyramid, finest first: [1, C, h_i, w_i] each.
        scale: pixels of the network's input per pixel of the image.
        image_size: (H, W) of the image in pixels.
    """

    maps: list[Tensor]
    scale: float
    image_size: tuple[int, int]


class MASA(Network):
    """Backbone, adapter, detection head and track head. Stateless: the tracker keeps the state.

    Args:
        backbone, adapter, detection_head, track_head: submodules.
        image_size: S; images are resized so that the longer side is S.
        pad: images are padded at the right and the bottom to a multiple of this (S for backbones of a fixed input size).
        frozen: dotted names of submodules that are not trained; they stay in eval mode.
        num_regions, num_samples: in training, proposals and sampled boxes per view for the track head.

    Raises:
        ValueError: sizes that are not positive.
        AttributeError: a name in `frozen` is no submodule.
    """

    def __init__(
        self,
        backbone: TimmFeatures,
        adapter: Adapter,
        detection_head: DetectionHead,
        track_head: TrackHead,
        image_size: int = 1024,
        pad: int = 32,
        frozen: Sequence[str] = (),
        num_regions: int = 1000,
        num_samples: int = 512,
    ) -> None:
        super().__init__()
        if image_size < 1 or pad < 1:
            raise ValueError(f"model.image_size {image_size} and model.pad {pad} must be positive")
        self.backbone, self.adapter = backbone, adapter
        self.detection_head, self.track_head = detection_head, track_head
        self.image_size, self.pad = image_size, pad
        self.num_regions, self.num_samples = num_regions, num_samples
        self.freeze(frozen)

    # One image ------------------------------------------------------------------------------------------------------

    def encode(self, image: Tensor) -> MasaFeatures:
        """Features of one image.

        Args:
            image: float or uint8 [3, H, W] RGB in 0..255, of any size, on any device.

        Raises:
            ValueError: another shape, or no pixels.
        """
        if image.ndim != 3 or image.shape[0] != 3 or 0 in image.shape:
            raise ValueError(f"an image must be [3, H, W] RGB, not {list(image.shape)}")
        height, width = image.shape[-2:]
        scale = self.image_size / max(height, width)
        size = (max(round(height * scale), 1), max(round(width * scale), 1))
        pixels = image.to(self.device).float()[None]
        resized = F.interpolate(pixels, size=size, mode="bilinear", align_corners=False, antialias=scale < 1)
        maps = self.pyramid(self.normalise_and_pad(resized))
        return MasaFeatures(maps, scale, (height, width))

    def embed(self, features: MasaFeatures, boxes: Tensor) -> Tensor:
        """Embeddings of boxes.

        Args:
            features: output of `encode`.
            boxes: [N, 4] (x1, y1, x2, y2) in pixels of the image; may extend beyond the image.

        Returns:
            [N, E], not normalised.
        """
        scaled = boxes.to(self.device).float() * features.scale
        # Boxes are independent of each other; the pooled features of one batch bound the memory.
        return torch.cat([self.track_head(features.maps, [batch]) for batch in scaled.split(BOXES_PER_BATCH)])

    def propose(self, features: MasaFeatures, limit: int = 300) -> tuple[Tensor, Tensor]:
        """Class-agnostic proposals; the model must be in eval mode.

        Args:
            features: output of `encode`.
            limit: maximum number; NMS 0.5.

        Returns:
            boxes [N, 4] (x1, y1, x2, y2) in pixels of the image, and scores [N] in 0..1, in descending order.
        """
        height, width = features.image_size
        size = (round(height * features.scale), round(width * features.scale))
        boxes, scores = self.detection_head.propose(features.maps, size, limit)
        return boxes / features.scale, scores

    def normalise_and_pad(self, pixels: Tensor) -> Tensor:
        """Pixels [B, 3, h, w] in 0..255 -> normalised and padded with 0 to a multiple of `pad`."""
        height, width = pixels.shape[-2:]
        return F.pad(self.normalise(pixels), (0, -width % self.pad, 0, -height % self.pad))

    def pyramid(self, images: Tensor) -> list[Tensor]:
        """Normalised images [B, 3, H, W] -> fused maps [B, C, h_i, w_i], finest first; a frozen backbone records no graph."""
        trained = any(parameter.requires_grad for parameter in self.backbone.parameters())
        with torch.set_grad_enabled(torch.is_grad_enabled() and trained):
            maps = self.backbone(images)
        return self.adapter(maps)

    # A pair of views, in training -----------------------------------------------------------------------------------

    def forward(self, frames: Tensor, targets: BoxTargets, generator: torch.Generator) -> PairOutput:
        """Outputs for the criterion of a pair of views. The detection head is trained on the key view only.

        Args:
            frames: uint8 [2, 3, S, S] RGB: the key view and the reference view.
            targets: boxes of the instances on both.
            generator: source of all randomness, on the device of the frames.
        """
        maps = self.pyramid(self.normalise_and_pad(frames))  # [2, C, h_i, w_i]
        size = (frames.shape[-2], frames.shape[-1])
        rows = [targets.visible[:, view].nonzero()[:, 0] for view in range(2)]
        boxes = [targets.boxes[rows[view], view] for view in range(2)]
        detection = {}
        if self.detection_head.training:
            with _torch_seeded(generator):
                detection = self.detection_head.losses([one[:1] for one in maps], [size], boxes[:1])
        regions = self.detection_head.regions(maps, [size, size], self.num_regions)
        (key, key_rows), (reference, reference_rows) = (
            sample_boxes(regions[view], boxes[view], self.num_samples, generator) for view in range(2)
        )
        key, key_rows = key[key_rows >= 0], key_rows[key_rows >= 0]
        embeddings = self.track_head(maps, [key, reference])
        return PairOutput(
            key=embeddings[: len(key)],
            reference=embeddings[len(key) :],
            key_instances=rows[0][key_rows],
            reference_instances=_rows_or_background(rows[1], reference_rows),
            key_boxes=key,
            reference_boxes=reference,
            detection=detection,
        )


def _rows_or_background(rows: Tensor, chosen: Tensor) -> Tensor:
    """rows[chosen], and -1 where `chosen` is -1."""
    if not len(rows):
        return chosen
    return torch.where(chosen >= 0, rows[chosen.clamp(min=0)], chosen)


@contextmanager
def _torch_seeded(generator: torch.Generator):
    """Seeds torch's global generator, which torchvision's samplers use, from `generator` inside the block."""
    devices = [generator.device] if generator.device.type == "cuda" else []
    seed = int(torch.randint(2**62, (1,), generator=generator, device=generator.device))
    with torch.random.fork_rng(devices):
        torch.manual_seed(seed)
        yield
