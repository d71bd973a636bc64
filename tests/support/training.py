"""The real network in its smallest size, endless synthetic clips, and configs of runs that take seconds."""

from collections.abc import Iterator

import torch
from omegaconf import OmegaConf

from entitysam import build_model, distributed
from entitysam.config import Config
from entitysam.structures import Clip, Targets

SIDE, QUERIES = 32, 4
SMALL = {
    "image_size": SIDE,
    "num_entities": QUERIES,
    "channels": 16,
    "image_encoder": {"trunk_args": {"embed_dim": 8}},
    "semantic_encoder": {"trunk_args": {"img_size": SIDE, "embed_dim": 12, "depth": 1, "num_heads": 2}},
    "memory": {"memory_channels": 8, "num_memories": 2, "depth": 1, "hidden": 16, "mask_widths": [2, 4, 8, 16]},
    "prompt_generator": {"heads": 2},
    "entity_decoder": {"depth": 1, "heads": 2, "hidden": 16},
    "frozen": ["dual_encoder.semantic_encoder"],
}


def small_network(**changes):
    """`tiny` with the same classes and fewer channels; one part is frozen."""
    torch.manual_seed(0)
    return build_model("tiny_scratch", **{**SMALL, **changes})


def clip_of(index: int, frames: int = 2, targets: int = 2) -> Clip:
    """A clip that depends on its index alone: noise with a colour for each of several vertical stripes."""
    generator = torch.Generator().manual_seed(index)
    pixels = torch.randint(0, 256, (frames, 3, SIDE, SIDE), dtype=torch.uint8, generator=generator)
    masks = torch.zeros(targets, frames, SIDE, SIDE, dtype=torch.bool)
    for n in range(targets):
        masks[n, :, :, n * SIDE // targets : (n + 1) * SIDE // targets - 4] = True
    return Clip(pixels, Targets(masks, torch.full((targets,), -1)), f"image_{index}.jpg", index)


def clips_from(start: int) -> Iterator[Clip]:
    """This worker's share of an endless order: targets vary from clip to clip, every fifth has none."""
    index = start + distributed.rank()
    while True:
        yield clip_of(index, targets=(2, 1, 3, 2, 0)[index % 5])
        index += distributed.world_size()


def run_config(folder, **changes):
    """A typed config for a run of seconds; keys with dots by double underscore: optim__max_iters=4."""
    config = OmegaConf.structured(Config)
    config.output_dir = str(folder)
    quiet = {"optim__lr": 1e-3, "optim__max_iters": 6, "optim__warmup_iters": 2, "train__batch_size": 2}
    quiet |= {"train__amp": "fp32", "train__log_period": 1, "train__image_period": 0, "train__tensorboard": False}
    for key, value in {**quiet, **changes}.items():
        OmegaConf.update(config, key.replace("__", "."), value)
    return config
