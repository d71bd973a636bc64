"""Runs the published implementation from an unmodified checkout, on any device and at any image size.

It is written for CUDA, 1024 pixels, detectron2 and a download of DINOv2. Its files stay unchanged: modules that it
imports and does not need at inference are replaced by stubs, and the literals that fix size, device and memory dtype
are replaced when its files are read.
"""

import importlib.abc
import importlib.machinery
import importlib.util
import sys
import types
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from benchmarks._reference_training import stand_in_for_training
from entitysam.layers.semantic_encoder import TimmViT

CONFIGS = {"vits": ("configs/sam2.1_hiera_s.yaml", 4), "vitl": ("configs/sam2.1_hiera_l.yaml", 8)}
DINOV2 = {"dinov2_vits14": "vit_small_patch14_dinov2", "dinov2_vitl14": "vit_large_patch14_dinov2"}


@dataclass(frozen=True)
class ReferenceOutput:
    """One processed frame: mask logits [Q, S/4, S/4], score [Q]."""

    mask_logits: Tensor
    score: Tensor


class Reference:
    """The published predictor with given weights.

    Args:
        checkout: folder that holds its `sam2` package.
        model: "vits" or "vitl".
        image_size: S.
        weights: published name -> tensor; tensors that are never used may be missing.
        dtype: "fp32" (memories included), or "bf16" autocast as its evaluation runs it.
        fill_holes: False leaves its hole filling out, which is a CUDA extension; True stands in for the extension.
        training: as it is built for training, with its criterion.
    """

    def __init__(
        self,
        checkout: Path,
        model: str,
        image_size: int,
        weights: dict[str, Tensor],
        device: torch.device,
        dtype: str = "fp32",
        fill_holes: bool = False,
        training: bool = False,
    ):
        _import_from(checkout, image_size, device, fp32_memories=dtype == "fp32", training=training)
        torch.hub.load = lambda repository, name, **_: _released_dinov2(name, image_size // 16)
        build_sam = importlib.import_module("sam2.build_sam")
        config, depth = CONFIGS[model]
        overrides = [f"++model.image_size={image_size}"]
        self.predictor = build_sam.build_sam2_video_query_iou_predictor(
            config, None, device=device, hydra_overrides_extra=overrides, mask_decoder_depth=depth,
            mode="train" if training else "eval", apply_postprocessing=not training,
        )  # fmt: skip
        self.predictor.fill_hole_area = 8 if fill_holes else 0
        missing, unknown = self.predictor.load_state_dict(weights, strict=False)
        if unknown:
            raise ValueError(f"{checkout}: the published model has no tensor {unknown[0]}")
        self.missing: list[str] = missing
        self.autocast = torch.autocast(device.type, torch.bfloat16) if dtype == "bf16" else nullcontext()

    def propagate(self, images: Tensor) -> Iterator[ReferenceOutput]:
        """Normalised images [P, 3, S, S] in the order they are processed, repetitions included."""
        module = sys.modules["sam2.sam2_video_query_iou_predictor"]
        module.load_video_frames = lambda **_: (images, *images.shape[-2:])  # type: ignore[attr-defined]
        module.tqdm = lambda iterable, **_: iterable  # type: ignore[attr-defined]
        with self.autocast:
            state = self.predictor.init_state(video_path="")
            self.predictor.reset_state(state)
            for _, _, masks, score in self.predictor.propagate_in_video(state, start_frame_idx=0):
                yield ReferenceOutput(masks[:, 0], score)


class _ExchangedLiterals(importlib.machinery.SourceFileLoader):
    """Compiles a module with some of its literals replaced; writes no bytecode."""

    def __init__(self, name: str, path: str, exchange: Sequence[tuple[str, str]]):
        super().__init__(name, path)
        self.exchange = exchange

    def get_code(self, fullname: str) -> types.CodeType:
        source = Path(self.path).read_text()
        for old, new in self.exchange:
            if old not in source:
                raise ValueError(f"{self.path}: '{old}' expected; is this the published implementation?")
            source = source.replace(old, new)
        return compile(source, self.path, "exec", dont_inherit=True)


class _Finder(importlib.abc.MetaPathFinder):
    """Finds the modules of the checkout whose literals are replaced."""

    def __init__(self, checkout: Path, exchanges: dict[str, list[tuple[str, str]]]):
        self.checkout, self.exchanges = checkout, exchanges

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> importlib.machinery.ModuleSpec | None:
        if fullname not in self.exchanges:
            return None
        file = self.checkout / (fullname.replace(".", "/") + ".py")
        loader = _ExchangedLiterals(fullname, str(file), self.exchanges[fullname])
        return importlib.util.spec_from_file_location(fullname, file, loader=loader)


def _import_from(checkout: Path, image_size: int, device: torch.device, fp32_memories: bool, training: bool) -> None:
    """Makes `import sam2` find the checkout, prepared."""
    if "sam2" in sys.modules:
        raise RuntimeError("one published model per process: its size is compiled in")
    checkout = checkout.resolve()
    if not (checkout / "sam2" / "sam2_video_query_iou_predictor.py").is_file():
        raise FileNotFoundError(f"{checkout}: not a checkout of the published EntitySAM (no sam2 package in it)")
    cells, patches = image_size // 16, image_size // 16 * 14
    exchanges = {"sam2.modeling.sam2_query_iou_base": [("(896, 896)", f"({patches}, {patches})"),
                                                       ("64, 64)", f"{cells}, {cells})")]}  # fmt: skip
    predictor = [('torch.device("cuda")', f'torch.device("{device}")')]
    if fp32_memories:
        predictor.append(("torch.bfloat16", "torch.float32"))
    exchanges["sam2.sam2_video_query_iou_predictor"] = predictor
    sys.dont_write_bytecode = True
    sys.meta_path.insert(0, _Finder(checkout, exchanges))
    sys.path.insert(0, str(checkout))
    if training:
        stand_in_for_training()
    else:
        for name in ("detectron2", "detectron2.structures", "train", "train.prepare_targets"):
            sys.modules[name] = MagicMock()
    extension = types.ModuleType("sam2._C")
    extension.get_connected_componnets = _connected_components  # type: ignore[attr-defined]  # spelt so there
    sys.modules["sam2._C"] = extension


def _released_dinov2(name: str, size: int) -> nn.Module:
    """timm's DINOv2 with the two entries of the release that the published implementation uses."""
    encoder = TimmViT(DINOV2[name])
    trunk = encoder.trunk
    trunk.mask_token = nn.Parameter(torch.zeros(1, encoder.channels))
    trunk.patch_embed.proj.out_channels = encoder.channels
    trunk.get_intermediate_layers = lambda images, n: [encoder(images, size)]
    return trunk


def _connected_components(masks: Tensor) -> tuple[Tensor, Tensor]:
    """8-connected regions of uint8 masks [N, 1, H, W]: labels from 1, and at every cell the area of its region."""
    labels, areas = np.zeros((2, *masks.shape), np.int32)
    for index, mask in enumerate(masks[:, 0].cpu().numpy()):
        _, labels[index, 0], stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
        areas[index, 0] = stats[:, cv2.CC_STAT_AREA][labels[index, 0]]
    return torch.from_numpy(labels).to(masks.device), torch.from_numpy(areas).to(masks.device)
