"""This project and the published implementation with one interface: a step per frame, and stages to measure."""

import itertools
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from benchmarks._reference import Reference
from benchmarks._stages import Stages
from benchmarks._weights import random_weights
from entitysam import build_model, load_weights
from entitysam.data.synthetic.render import demo_clip
from entitysam.engine.build import open_model
from entitysam.inference.compiled import CompiledModel
from entitysam.models.entity_sam import EntitySAM
from entitysam.precision import autocast
from entitysam.shipped import TINY


class Implementation(Protocol):
    """An implementation that processes a video frame by frame."""

    def step(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """The next frame, normalised [3, S, S] -> mask logits [Q, S/4, S/4] before hole filling, score [Q]."""
        ...

    def watch(self, stages: Stages) -> None:
        """Measures the stages of the following frames."""
        ...


class Ours:
    """This project; `model` may be compiled, and then has no stages to watch."""

    def __init__(self, model: EntitySAM | CompiledModel, dtype: str):
        self.model = model
        self.autocast = partial(autocast, dtype, model.device)
        self.state = model.initial_state()

    def step(self, image: Tensor) -> tuple[Tensor, Tensor]:
        with torch.inference_mode(), self.autocast():
            output, self.state = self.model.propagate(self.model.encode(image[None])[0], self.state)
        return output.mask_logits.float(), output.score.float()

    def watch(self, stages: Stages) -> None:
        if isinstance(self.model, EntitySAM):
            watch_ours(self.model, stages)


class Published:
    """The published implementation. It takes the whole video at once, in the order of processing."""

    def __init__(self, reference: Reference, images: Tensor):
        self.reference = reference
        self.outputs = reference.propagate(images)

    def step(self, image: Tensor) -> tuple[Tensor, Tensor]:
        output = next(self.outputs)
        return output.mask_logits.float(), output.score.float()

    def watch(self, stages: Stages) -> None:
        watch_published(self.reference.predictor, stages)


def watch_ours(model: EntitySAM, stages: Stages) -> None:
    """The parts of this project's network as stages."""
    encoder, prompts = model.dual_encoder, model.prompt_generator
    stages.watch("image encoder", encoder.image_encoder)
    if isinstance(getattr(encoder, "semantic_projector", None), torch.nn.Module):
        stages.watch("semantic encoder", encoder, "_semantic")
    stages.watch("memory read", model.memory, "read")
    if prompts is not None:
        stages.watch("prompts and fusion", prompts)
    stages.watch("prompts and fusion", encoder, "fuse")
    stages.watch("decoder", model.entity_decoder)
    stages.watch("memory write", model.memory, "write")


def watch_published(predictor: Any, stages: Stages) -> None:
    """The parts of the published network as the same stages."""
    stages.watch("image encoder", predictor.image_encoder)
    stages.watch("image encoder", predictor.sam_mask_decoder.conv_s0)
    stages.watch("image encoder", predictor.sam_mask_decoder.conv_s1)
    stages.watch("semantic encoder", predictor.dinov2_feature_extractor, "get_intermediate_layers")
    stages.watch("semantic encoder", predictor.dinov2_projector)
    stages.watch("memory read", predictor, "_prepare_memory_conditioned_features")
    for part in ("offset_attention", "offset_cls", "offset_fc", "backbone_feature_enhancement"):
        stages.watch("prompts and fusion", getattr(predictor, part))
    stages.watch("prompts and fusion", predictor.sam_prompt_encoder)
    stages.watch("decoder", predictor.sam_mask_decoder)
    stages.watch("memory write", predictor, "_encode_new_memory")


def new_model(name: str, image_size: int, device: torch.device) -> tuple[EntitySAM, dict[str, Tensor]]:
    """A model with random weights that give every part an effect on the output, and those weights; `tiny` has its own."""
    if name in TINY:
        return open_model(name, device=str(device), overrides={"image_size": image_size}).model, {}
    model = build_model(name, image_size=image_size)
    weights = random_weights(model)
    load_weights(model, weights)
    return model.to(device), weights


def new_reference(
    checkout: Path, name: str, image_size: int, weights: dict[str, Tensor], device: torch.device, dtype: str
) -> Reference:
    """The published implementation with the same weights."""
    return Reference(checkout, name, image_size, weights, device, dtype)


def clip(count: int) -> Iterator[np.ndarray]:
    """Frames of the demo clip, repeated: uint8 [270, 480, 3]."""
    return itertools.islice(itertools.cycle(demo_clip()[0]), count)
