"""EntitySAM: segments every entity of a video without prompts or categories (paper Figure 2a, from left to right)."""

import copy
from collections.abc import Sequence
from dataclasses import replace
from operator import itemgetter

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from entitysam.layers.network import Network
from entitysam.models.dual_encoder import DualEncoder, ImageFeatures
from entitysam.models.entity_decoder import DecoderOutput
from entitysam.models.grid_prompts import GridPrompts
from entitysam.models.memory import VideoState
from entitysam.models.prompt_generator import PromptGenerator
from entitysam.ops import mask_iou
from entitysam.speed import EXACT, Speed
from entitysam.structures import ClipOutput, FrameOutput

ABSENT = -10.0  # highest mask logit of an entity that is absent from a frame


class EntitySAM(Network):
    """The network. It is stateless: everything that depends on earlier frames is in the `VideoState` passed to `step`.

    Args:
        dual_encoder, memory, prompt_generator, entity_decoder: the boxes of the figure; prompt_generator may be None.
        image_size: S, a multiple of 32; frames are resized to S x S.
        frozen: dotted names of the parts that are not trained; they stay in eval mode and outside the graph.
        entity_score: "max" of both entity logits (quirk 3) or the "entity" logit.
        checkpoint_activations: in training, recompute the activations of each frame in the backward pass.
        min_presence: an entity with a lower score on a frame is absent from it: its mask is empty, it is not remembered, and
            its point prompt starts anew (cf. SAM 2's occlusion score). 0: every query is always present, as published.
        max_overlap: with `min_presence`, at inference: of entities whose masks have a larger IoU on a frame, only one is
            present there (as in SAM's automatic mask generation). 1: duplicates are left to the merge, as published.
        ids: what an entity is at inference offline: "queries", as published, or "tracks" (`inference.segmenter`).

    Attributes:
        speed: what is left out at inference; `at_speed` sets it.

    Raises:
        ValueError: an image size or score that is not allowed.
        AttributeError: a name in `frozen` that is no part.
    """

    def __init__(
        self,
        dual_encoder: DualEncoder,
        memory: nn.Module,
        prompt_generator: PromptGenerator | GridPrompts | None,
        entity_decoder: nn.Module,
        image_size: int = 1024,
        frozen: Sequence[str] = (),
        entity_score: str = "max",
        checkpoint_activations: bool = False,
        min_presence: float = 0.0,
        max_overlap: float = 1.0,
        ids: str = "queries",
    ):
        super().__init__()
        if image_size <= 0 or image_size % 32:
            raise ValueError(f"model.image_size: must be a positive multiple of 32, not {image_size}")
        if entity_score not in ("max", "entity"):
            raise ValueError(f"model.entity_score: 'max' or 'entity', not '{entity_score}'")
        self.dual_encoder = dual_encoder
        self.memory = memory
        self.prompt_generator = prompt_generator
        self.entity_decoder = entity_decoder
        self.image_size = image_size
        self.entity_score = entity_score
        self.checkpoint_activations = checkpoint_activations
        if not 0 <= min_presence < 1:
            raise ValueError(f"model.min_presence: at least 0 and less than 1, not {min_presence}")
        if not 0 < max_overlap <= 1:
            raise ValueError(f"model.max_overlap: greater than 0 and at most 1, not {max_overlap}")
        if ids not in ("queries", "tracks"):
            raise ValueError(f"model.ids: 'queries' or 'tracks', not '{ids}'")
        self.min_presence, self.max_overlap, self.ids = min_presence, max_overlap, ids
        self.speed = EXACT
        self.freeze(frozen)

    @property
    def num_entities(self) -> int:
        """Q, the number of entity queries."""
        return self.entity_decoder.mask_queries.num_embeddings  # type: ignore[union-attr,return-value]

    def at_speed(self, speed: Speed) -> "EntitySAM":
        """The same network, sharing its parameters, that leaves out at inference what `speed` says."""
        network = copy.copy(self)
        network.speed = speed
        return network

    # One frame of a video -------------------------------------------------------------------------------------------

    def initial_state(self) -> VideoState:
        """State before the first frame."""
        return VideoState()

    def step(
        self, frame: np.ndarray | Tensor, state: VideoState, gradients: bool = False
    ) -> tuple[FrameOutput, VideoState]:
        """Segments the next frame of a video.

        In eval mode no graph is recorded, because a graph through the memories would grow with every frame.

        Args:
            frame: uint8 [H, W, 3] RGB of any size, or float [3, S, S], already normalised.
            state: returned by `initial_state` or by the previous step.
            gradients: record a graph in eval mode as well, where gradients are enabled.

        Returns:
            the output and the state for the next frame; the given state stays valid.

        Raises:
            ValueError: a frame of another type or shape.
        """
        with torch.set_grad_enabled(torch.is_grad_enabled() and (self.training or gradients)):
            return self.propagate(self.encode(self.prepare(frame)[None])[0], state)

    def prepare(self, frame: np.ndarray | Tensor) -> Tensor:
        """Resizes and normalises a frame.

        Args:
            frame: as for `step`.

        Returns:
            [3, S, S] on the model's device and in its dtype; resized by PIL's bicubic filter without keeping the aspect ratio.

        Raises:
            ValueError: a frame of another type or shape.
        """
        if isinstance(frame, Tensor) and frame.is_floating_point():
            expected = (3, self.image_size, self.image_size)
            if tuple(frame.shape) != expected:
                raise ValueError(f"a normalised frame must be {list(expected)}, not {list(frame.shape)}")
            return frame.to(self.pixel_mean)
        pixels = frame.cpu().numpy() if isinstance(frame, Tensor) else np.asarray(frame)
        if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or 0 in pixels.shape:
            raise ValueError(f"a frame must be uint8 [H, W, 3] RGB, not {pixels.dtype} {list(pixels.shape)}")
        side = (self.image_size, self.image_size)
        resized = np.array(Image.fromarray(pixels).resize(side, Image.Resampling.BICUBIC))
        return self.normalise(torch.from_numpy(resized).to(self.device).permute(2, 0, 1))

    def encode(self, images: Tensor) -> list[ImageFeatures]:
        """Runs both encoders on normalised images [B, 3, S, S]; frames are independent of each other here."""
        return self.dual_encoder.encode(images)

    def propagate(
        self, features: ImageFeatures, state: VideoState, remember: bool = True
    ) -> tuple[FrameOutput, VideoState]:
        """The part of a step after the encoders: memory read, prompts, decoder, memory write.

        Args:
            features: of the frame, from `encode`.
            state: of the previous frame.
            remember: write the frame to the memory bank; False where no frame follows.
        """
        active = None
        if self.speed.prune and state.idle is not None and not self.training:
            active = torch.nonzero(state.idle < self.speed.prune).flatten()
        with self._grad_for(self.memory):
            conditioned = self._maybe_recomputed(
                self.memory.read, features.cells, state.memories, active, self.speed.pool, state.filled
            )
        output = self._maybe_recomputed(self._decode, conditioned, features, state.points)
        memories: tuple[Tensor, ...] = ()
        remembered, points = output.mask_logits, output.points.detach()
        if self.min_presence > 0:
            present = output.score.detach() >= self.min_presence
            if self.max_overlap < 1 and not self.training:
                known = self.memory.knows(state.memories)  # type: ignore[operator]
                present = self._without_duplicates(output.mask_logits, output.score, present, known)
            # Queries without an entity are stored with an empty mask, so that memories hold only what was present.
            remembered = torch.where(present[..., None, None], remembered, remembered.clamp(max=ABSENT))
            if isinstance(self.prompt_generator, GridPrompts):
                points = self.prompt_generator.next_points(remembered, present)
            if not self.training:
                output = replace(output, mask_logits=remembered)
        idle = woken = None
        if self.speed.prune and not self.training:
            idle = self._idle(output.score, state)
            seen_lately = idle < self.speed.prune
            active = torch.nonzero(seen_lately).flatten()
            woken = None if state.idle is None else seen_lately & (state.idle >= self.speed.prune)
        if remember:
            with self._grad_for(self.memory):
                memories = self._maybe_recomputed(
                    self.memory.write, features.cells, remembered, state.memories, active, woken
                )
        return output, VideoState(state.frames + 1, points, memories, idle)

    def _idle(self, score: Tensor, state: VideoState) -> Tensor:
        """int64 [Q] passes since the entities were last seen, this one included."""
        before = torch.zeros_like(score, dtype=torch.int64) if state.idle is None else state.idle
        return torch.where(score.detach() >= self.speed.min_score, 0, before + 1)

    def _without_duplicates(self, mask_logits: Tensor, score: Tensor, present: Tensor, known: Tensor | None) -> Tensor:
        """Of masks that overlap by more than `max_overlap`, one is present: one known before, then that of the best score.

        Args:
            mask_logits: [Q, S/4, S/4].
            score: [Q].
            present: bool [Q].
            known: bool [Q] entities that the last frame remembered; None where there is none.

        Returns:
            bool [Q].
        """
        iou = mask_iou(mask_logits > 0, mask_logits > 0)  # [Q, Q]
        order = (score if known is None else score + known.float()).argsort(descending=True)
        duplicates = (iou > self.max_overlap)[order][:, order]  # [Q, Q]
        remaining = present[order]
        for entity in range(1, len(order)):  # no branch depends on the data: one graph, nothing waits for a GPU
            remaining[entity] &= ~(duplicates[entity, :entity] & remaining[:entity]).any()
        return torch.zeros_like(present).scatter(0, order, remaining)

    def _decode(self, conditioned: Tensor, features: ImageFeatures, points: Tensor | None) -> FrameOutput:
        """Decodes a frame, or a batch of frames in the leading dimensions `..`.

        Args:
            conditioned: [.., Q or 1, hw, C] memory-conditioned cells.
            features: of the frame.
            points: [.., Q, 2] of the previous frame; None on the first.
        """
        embedding = self.dual_encoder.fuse(conditioned, features.semantic)  # [.., Q or 1, hw, C]
        prompts = None
        if self.prompt_generator is not None:
            prompts = self.prompt_generator(conditioned, features, points)
            position = self.prompt_generator.prompt_encoder.position.grid(features.size)
        else:
            position = features.cells.new_zeros(features.cells.shape[-2:])
        decoded: DecoderOutput = self.entity_decoder(embedding, position, prompts, features)
        entity_logits, points = decoded.entity_logits, torch.zeros(*decoded.iou.shape, 2, device=decoded.iou.device)
        if prompts is not None:
            entity_logits = entity_logits if prompts.entity_logits is None else prompts.entity_logits
            points = prompts.points
        assert entity_logits is not None
        confidence = entity_logits.max(dim=-1).values if self.entity_score == "max" else entity_logits[..., 1]
        score = decoded.iou.float() * confidence.float().sigmoid()  # paper equation 6
        return FrameOutput(
            decoded.mask_logits, decoded.iou, entity_logits, points, score, decoded.layer_masks, decoded.embeddings
        )

    def _maybe_recomputed(self, function, *arguments):
        """Calls a function, with activation checkpointing in training."""
        if self.checkpoint_activations and self.training and torch.is_grad_enabled():
            return checkpoint(function, *arguments, use_reentrant=False)
        return function(*arguments)

    @staticmethod
    def _grad_for(part: nn.Module):
        """Records no graph through a part whose parameters are all frozen."""
        return torch.set_grad_enabled(torch.is_grad_enabled() and any(p.requires_grad for p in part.parameters()))

    # A training clip ------------------------------------------------------------------------------------------------

    def forward(self, frames: Tensor) -> ClipOutput | list[ClipOutput]:
        """Applies the same step to the T frames of a clip and stacks the outputs.

        Args:
            frames: uint8 [T, 3, S, S] RGB, or float, already normalised; or [B, 1, 3, S, S], B clips of one frame each.

        Returns:
            the output of the clip, or a list with the outputs of B clips.
        """
        images = frames if frames.is_floating_point() else self.normalise(frames)
        if images.ndim == 5:
            return self._batch(images)
        state, outputs = self.initial_state(), []
        for index, features in enumerate(self.encode(images), start=1):
            output, state = self.propagate(features, state, remember=index < len(images))
            outputs.append(output)
        return _stacked(outputs)

    def _batch(self, images: Tensor) -> list[ClipOutput]:
        """Images [B, T, 3, S, S] of B clips, a frame of every clip at a time: small images use a device badly one by one."""
        clips, frames = images.shape[:2]
        batch = self.dual_encoder.encode_batch(images.flatten(0, 1))
        state, outputs = self.initial_state(), []
        for index in range(frames):
            features = batch.map(itemgetter(slice(index, None, frames)))  # [B * T, ..] -> [B, ..]
            output, state = self.propagate(features, state, remember=index + 1 < frames)
            outputs.append(output)
        return [_stacked([output.map(itemgetter(clip)) for output in outputs]) for clip in range(clips)]


def _stacked(outputs: Sequence[FrameOutput]) -> ClipOutput:
    """The frames' outputs of one clip as one."""
    layers = [output.layer_masks for output in outputs if output.layer_masks is not None]
    return ClipOutput(
        entity_logits=torch.stack([output.entity_logits for output in outputs]).mean(0),
        iou=torch.stack([output.iou for output in outputs], dim=1),
        mask_logits=torch.stack([output.mask_logits for output in outputs], dim=1),
        points=torch.stack([output.points for output in outputs], dim=1),
        layer_masks=torch.stack(layers, dim=2) if layers else None,
    )
