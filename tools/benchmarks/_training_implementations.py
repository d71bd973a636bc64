"""Both implementations in training with one interface: an optimiser step on a clip, and stages to measure."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks._implementations import watch_ours, watch_published
from benchmarks._reference import Reference
from benchmarks._stages import Stages
from benchmarks._weights import random_weights
from entitysam import build_model, load_weights
from entitysam.checkpoint import to_published
from entitysam.config import load_config
from entitysam.data.synthetic.render import render_video
from entitysam.data.training.pseudo_video import PseudoVideo
from entitysam.data.training.samples import ImageSample
from entitysam.engine.train.optim import build_optimizer
from entitysam.engine.train.trainer import clip_generator, clip_gradients
from entitysam.losses import EntityCriterion
from entitysam.models.entity_sam import EntitySAM
from entitysam.precision import autocast
from entitysam.structures import Clip

Outputs = Sequence[Tensor]  # mask logits [Q, T, S/4, S/4], IoU [Q, T], entity logits [Q, 2]
IMAGE_INDEX = 2  # of the synthetic images; one with many entities


def training_clip(num_frames: int, image_size: int) -> Clip:
    """The pseudo-video of one synthetic image."""
    frames, ids, categories = render_video(IMAGE_INDEX, 1, (480, 640))
    sample = ImageSample(frames[0], ids[0], categories, "synthetic")
    return PseudoVideo(num_frames, image_size, scale=(0.9, 1.1))(sample, np.random.default_rng(0))


def training_model(name: str, image_size: int, device: torch.device, checkpointed: bool) -> EntitySAM:
    """A model in training mode, with random weights that give every part an effect on the output."""
    model = build_model(name, image_size=image_size, checkpoint_activations=checkpointed)
    load_weights(model, random_weights(model))
    return model.to(device).train()


class TrainingImplementation(ABC):
    """An implementation that trains on one clip.

    Attributes:
        stages: measures the following steps.
    """

    def __init__(self, model: nn.Module, optimizer: torch.optim.Optimizer, clip: Clip, dtype: str) -> None:
        self.model, self.optimizer, self.clip, self.dtype = model, optimizer, clip, dtype
        self.stages = Stages(clip.frames.device)

    @abstractmethod
    def losses(self) -> tuple[Tensor, Outputs]:
        """Forward pass and criterion: the total and the outputs it was computed from."""

    @abstractmethod
    def watch(self, stages: Stages) -> None:
        """Measures the following steps."""

    def step(self) -> Outputs:
        """One optimiser step; returns the outputs before the update."""
        total, outputs = self.losses()
        with self.stages.stage("backward"):
            total.backward()
        with self.stages.stage("optimiser"):
            clip_gradients(self.model, 0.01)
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
        return [output.detach().float() for output in outputs]


class OurTraining(TrainingImplementation):
    """This project, as `engine.train.trainer` does a step."""

    def __init__(self, model: EntitySAM, clip: Clip, dtype: str, criterion: EntityCriterion | None = None) -> None:
        config = load_config("entitysam_vits_stage2").optim
        super().__init__(model, build_optimizer(model, config), clip, dtype)
        self.criterion = criterion or EntityCriterion()

    def losses(self) -> tuple[Tensor, Outputs]:
        device = self.clip.frames.device
        with autocast(self.dtype, device):
            output = self.model(self.clip.frames)
        with self.stages.stage("criterion"):
            losses = self.criterion(output, self.clip.targets, clip_generator(0, 0, device))
        return losses["total"], (output.mask_logits, output.iou, output.entity_logits)

    def watch(self, stages: Stages) -> None:
        self.stages = stages
        watch_ours(self.model, stages)


class PublishedTraining(TrainingImplementation):
    """The published implementation, as its `train_net.py` does a step: frozen parts in training mode, criterion inside
    the autocast, one parameter group per tensor."""

    def __init__(self, reference: Reference, trained: set[str], clip: Clip, dtype: str) -> None:
        model = reference.predictor
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(name in trained)
        groups = [{"params": [parameter]} for parameter in model.parameters() if parameter.requires_grad]
        super().__init__(model, torch.optim.AdamW(groups, lr=5e-5, weight_decay=0.05), clip, dtype)
        self.seen: dict[str, Tensor] = {}
        criterion = model.criterion.forward

        def remembered(outputs: dict[str, Tensor], targets: list[dict]) -> dict[str, Tensor]:
            self.seen = outputs
            return criterion(outputs, targets)

        model.criterion.forward = remembered

    def frozen_parts_train(self, mode: bool) -> None:
        """Whether dropout and stochastic depth of the frozen parts are active, as in the published training."""
        for part in (self.model.image_encoder, self.model.memory_attention, self.model.dinov2_feature_extractor):
            part.train(mode)

    def losses(self) -> tuple[Tensor, Outputs]:
        with autocast(self.dtype, self.clip.frames.device):
            losses = self.model([{"image": list(self.clip.frames), "masks": self.clip.targets.masks}])
        outputs = self.seen["pred_masks"][0], self.seen["pred_iou"][0, :, :, 0], self.seen["pred_logits"][0]
        self.seen = {}
        return sum(losses.values()), outputs

    def watch(self, stages: Stages) -> None:
        self.stages = stages
        watch_published(self.model, stages)
        stages.watch("criterion", self.model.prepare_targets, "process")
        stages.watch("criterion", self.model.criterion)


def new_implementation(
    checkout: Path | None, name: str, num_frames: int, size: int, device: torch.device, dtype: str, checkpointed: bool
) -> TrainingImplementation:
    """Our training, or with a checkout the published one, on the same clip with the same weights."""
    clip = training_clip(num_frames, size).to(device)
    model = training_model(name, size, device, checkpointed)
    if checkout is None:
        return OurTraining(model, clip, dtype)
    trained = to_published({name: p for name, p in model.named_parameters() if p.requires_grad})
    reference = Reference(checkout, name, size, to_published(model.state_dict()), device, dtype, training=True)
    return PublishedTraining(reference, set(trained), clip, dtype)
