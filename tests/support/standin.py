"""A network of a few hundred weights and endless synthetic clips, at the borders the trainer sees."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from entitysam import distributed
from entitysam.config import Config
from entitysam.structures import Clip, ClipOutput, Targets

SIDE, QUERIES = 32, 4


class StandIn(nn.Module):
    """model(frames uint8 [T, 3, S, S]) -> ClipOutput; `idle` gets no gradient, like point offsets in one-frame clips."""

    def __init__(self) -> None:
        super().__init__()
        self.frozen = nn.Linear(3, 8)
        self.frozen.requires_grad_(False)
        self.look = nn.Conv2d(3, 8, 4, stride=4)
        self.norm = nn.LayerNorm(8)
        self.queries = nn.Embedding(QUERIES, 8)
        self.entity_head = nn.Linear(8, 2)
        self.iou_head = nn.Linear(8, 1)
        self.idle = nn.Linear(8, 2)

    def forward(self, frames: Tensor) -> ClipOutput:
        images = frames.float() / 255 - 0.5
        cells = self.norm(self.look(images).permute(0, 2, 3, 1)) + self.frozen(images.mean((2, 3)))[:, None, None]
        mask_logits = torch.einsum("thwc,qc->qthw", cells, self.queries.weight)
        seen = torch.einsum("qthw,thwc->qtc", mask_logits.sigmoid(), cells) / (SIDE / 4) ** 2
        iou = self.iou_head(seen + self.queries.weight[:, None]).sigmoid()[..., 0]
        return ClipOutput(self.entity_head(seen).mean(1), iou, mask_logits)


def clip_of(index: int, frames: int = 2, targets: int = 2) -> Clip:
    """A clip that depends on nothing but its index."""
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
    from omegaconf import OmegaConf

    config = OmegaConf.structured(Config)
    config.output_dir = str(folder)
    quiet = {"optim__lr": 1e-2, "optim__max_iters": 6, "optim__warmup_iters": 2, "train__batch_size": 2}
    quiet |= {"train__amp": "fp32", "train__log_period": 1, "train__image_period": 0, "train__tensorboard": False}
    for key, value in {**quiet, **changes}.items():
        OmegaConf.update(config, key.replace("__", "."), value)
    return config
