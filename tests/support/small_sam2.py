"""A small SAM 2.1 with seeded random weights, for tests of what surrounds the network."""

import torch

import entitysam

TRUNK = {
    "name": "hiera",
    "trunk": "sam2_hiera_tiny",
    "trunk_args": {
        "embed_dim": 16, "num_heads": 1, "stages": [1, 2, 3, 1], "global_att_blocks": [4, 5], "window_spec": [8, 4, 8, 8],
    },
}  # fmt: skip
SMALL = {
    "image_size": 64, "channels": 32, "memory_channels": 16, "hidden": 64, "depth": 2, "mask_widths": [2, 4, 8, 16],
    "image_encoder": TRUNK,
}  # fmt: skip


def small_sam2(seed=3):
    """A `SAM2` for 64 x 64 input whose objects are visible."""
    torch.manual_seed(seed)
    small = entitysam.build_model("sam2_tiny", **SMALL)
    with torch.no_grad():
        small.mask_decoder.object_head.layers[-1].bias.fill_(1.0)
    return small
