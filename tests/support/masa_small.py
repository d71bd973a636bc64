"""MASA's configs at the size of a test, and a pair of views to train on."""

import torch

from entitysam.config import load_config, to_dict
from entitysam.structures import BoxTargets

BACKBONES = {
    "masa_r50": {"trunk": "resnet26", "trunk_args": {"channels": [8, 16, 24, 32]}},
    "masa_sam_vitb": {
        "indices": [0, 1, 2, 3],
        "trunk_args": {"img_size": 128, "embed_dim": 32, "depth": 4, "num_heads": 2, "global_attn_indexes": [1, 3]},
    },
    "masa_gdino_swinb": {
        "trunk_args": {
            "img_size": 128,
            "window_size": 4,
            "embed_dim": 32,
            "depths": [1, 1, 1, 1],
            "num_heads": [1, 2, 4, 8],
        }
    },
    "masa_tiny": {},
}
BACKBONES["masa_sam_vith"] = BACKBONES["masa_sam_vitb"]


def small(name: str) -> dict:
    """The model node of a training config, its parts shrunk."""
    node = to_dict(load_config(name))["model"]
    node["backbone"] |= BACKBONES[name]
    few = {"hidden": 32, "num_anchors": 16, "num_samples": 16, "num_proposals": [20, 20]}
    return node | {
        "image_size": 128,
        "pad": 128,
        "channels": 64,
        "detection_head": node["detection_head"] | few,
        "track_head": node["track_head"] | {"hidden": 32},
        "num_regions": 20,
        "num_samples": 16,
    }


def pair(size: int = 128) -> tuple[torch.Tensor, BoxTargets]:
    """Two views of noise with three instances; the last is in the key view alone."""
    frames = torch.randint(0, 256, (2, 3, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    key = torch.tensor([[5.0, 5, 45, 60], [50, 40, 120, 110], [0, 90, 30, 125]])
    reference = torch.tensor([[60.0, 10, 110, 70], [10, 50, 70, 120], [0, 0, 0, 0]])
    visible = torch.tensor([[True, True], [True, True], [True, False]])
    return frames, BoxTargets(torch.stack([key, reference], dim=1), visible)
