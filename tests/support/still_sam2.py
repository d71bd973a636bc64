"""SAM 2.1's interface without weights: an object stays where its newest memory has it, and the newest prompt wins."""

import numpy as np
import torch

from entitysam.sam2.model import FrameFeatures, Masks

CHANNELS = 8


class StillSAM2:
    """`image_size` is the side of the frames; masks are kept at a quarter of it. `prompted` lists (frame value, objects)."""

    num_memories, channels, device = 7, CHANNELS, torch.device("cpu")

    def __init__(self, image_size=64):
        self.image_size = image_size
        self.prompted = []

    def prepare(self, frame):
        return torch.from_numpy(frame.astype(np.float32))

    def encode(self, image):
        side = self.image_size // 4
        value = image.flatten()[0]  # identifies the frame
        return FrameFeatures(
            torch.zeros(CHANNELS, side, side),
            value.expand(CHANNELS, side // 2, side // 2),
            torch.zeros(side**2, CHANNELS),
        )

    def given(self, features, masks):
        self.prompted.append((int(features.stride8.max()), len(masks)))
        low = torch.nn.functional.avg_pool2d(masks[:, None], 4)[:, 0] * 20 - 10
        count = len(masks)
        return Masks(low, torch.ones(count), torch.zeros(count, CHANNELS), torch.full((count,), 10.0))

    def write(self, features, masks, prompted):
        return masks.mask_logits.flatten(1)[..., None].repeat(1, 1, 4)  # [B, hw, Cm]

    def read(self, features, layout, spatial, pointers, max_pointers):
        newest = max(range(len(layout.spatial)), key=lambda row: (layout.spatial[row], row))
        return spatial[:, newest]

    def decode(self, cells, features, points, mask_logits, count):
        side = self.image_size // 4
        return Masks(
            cells[..., 0].reshape(count, side, side),
            torch.ones(count),
            torch.zeros(count, CHANNELS),
            torch.full((count,), 5.0),
        )
