"""Stubs for detectron2, which need not be installed: the few functions that the published training calls.

Its data pipeline is not used: the caller gives the targets of the clip that both implementations train on.
"""

import sys
import types
from collections.abc import Callable
from typing import Any
from unittest.mock import MagicMock

import torch
from torch import Tensor

from entitysam.ops import point_sample

UNUSED = (
    "detectron2",
    "detectron2.config",
    "detectron2.projects",
    "detectron2.projects.point_rend",
    "detectron2.structures",
    "detectron2.utils",
    "train.data",
)


def stand_in_for_training() -> None:
    """Makes the `train` package of a checkout importable without detectron2 and einops."""
    for name in UNUSED:
        sys.modules[name] = MagicMock()
    _module("einops", rearrange=None, repeat=None)  # imported, never called
    _module("detectron2.utils.comm", get_world_size=lambda: 1)
    _module(
        "detectron2.projects.point_rend.point_features",
        point_sample=lambda maps, points, align_corners: point_sample(maps, points),
        get_uncertain_point_coords_with_randomness=uncertain_points,
    )
    _module("train.prepare_targets", PrepareTargets=GivenTargets)


def _module(name: str, **contents: Any) -> None:
    module = types.ModuleType(name)
    module.__dict__.update(contents)
    sys.modules[name] = module


def uncertain_points(
    logits: Tensor,
    uncertainty: Callable[[Tensor], Tensor],
    num_points: int,
    oversample_ratio: float,
    importance_ratio: float,
) -> Tensor:
    """PointRend's sampling: [N, num_points, 2], a share of the most uncertain of many candidates, the rest uniform."""
    candidates = torch.rand(len(logits), int(num_points * oversample_ratio), 2, device=logits.device)
    count = int(importance_ratio * num_points)
    chosen = uncertainty(point_sample(logits, candidates))[:, 0].topk(count, dim=1).indices
    uniform = torch.rand(len(logits), num_points - count, 2, device=logits.device)
    return torch.cat([candidates.gather(1, chosen[..., None].expand(-1, -1, 2)), uniform], dim=1)


class GivenTargets:
    """Returns the masks of the clip in the format of its own preparation, float32 [N, T, S, S]."""

    def __init__(self, **_settings: Any) -> None:
        pass

    def process(self, videos: list[dict[str, Any]], _images: Any, device: torch.device) -> list[dict[str, Any]]:
        masks = videos[0]["masks"].to(device).float()
        labels = torch.ones(len(masks), dtype=torch.int64, device=device)
        return [{"labels": labels, "masks": masks, "dataset_name": "coco_panoptic", "task": "detection"}]
