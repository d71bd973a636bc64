"""Prompted tracking: prompts on frames, one history per object, propagation forward and backward."""

from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import ArrayLike
from torch import Tensor

from entitysam.ops import fill_holes
from entitysam.sam2.model import MAX_POINTERS, SAM2, FrameFeatures, Masks, MemoryLayout
from entitysam.sam2.prompt_encoder import BOTTOM_RIGHT, NEGATIVE, POSITIVE, TOP_LEFT, Points

LOGIT_LIMIT = 32.0  # earlier logits are clamped to it before they become a prompt


class PromptError(ValueError):
    """A prompt that cannot be used; the message names object and frame."""


class Frames(Protocol):
    """Random access to the frames of a video: uint8 [H, W, 3] RGB, all of one size."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int) -> np.ndarray: ...


@dataclass(frozen=True)
class ObjectFrame:
    """One object on one frame.

    Attributes:
        mask_logits: float32 [S/4, S/4].
        iou: predicted IoU.
        pointer: [C] object pointer.
        object_score: logit; positive where the object is visible.
        memory: [hw, Cm] spatial memory; None until the prompts of the frame are final.
    """

    mask_logits: Tensor
    iou: float
    pointer: Tensor
    object_score: float
    memory: Tensor | None = None


@dataclass
class ObjectTrack:
    """History of one object.

    Attributes:
        pending: outputs of frames prompted since the last propagation, by frame; not yet part of the memory.
        prompted: outputs of frames with a prompt.
        tracked: outputs of the other frames.
        points: point prompts by frame, float32 [P, 2] and int64 [P].
        reverse: direction in which a frame was last tracked.
    """

    pending: dict[int, ObjectFrame] = field(default_factory=dict)
    prompted: dict[int, ObjectFrame] = field(default_factory=dict)
    tracked: dict[int, ObjectFrame] = field(default_factory=dict)
    points: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict)
    reverse: dict[int, bool] = field(default_factory=dict)

    def at(self, index: int) -> ObjectFrame | None:
        """The newest output on a frame."""
        return self.pending.get(index, self.prompted.get(index, self.tracked.get(index)))


@dataclass(frozen=True)
class TrackedFrame:
    """All objects on one frame.

    Attributes:
        index: frame number from 0.
        objects: ids of the N objects, in the order in which they were added.
        mask_logits: float32 [N, H, W] at the size of the video; > 0 inside.
        object_scores: float32 [N] logits; positive where the object is visible.
        iou: float32 [N] predicted IoU.
    """

    index: int
    objects: list[int]
    mask_logits: Tensor
    object_scores: np.ndarray
    iou: np.ndarray


class FrameEncoder:
    """Encoded frames, of which those used last are kept. Sessions over one video can share it.

    Args:
        model: the network.
        frames: the video.
        keep: number of frames.
    """

    def __init__(self, model: SAM2, frames: Frames, keep: int = 1):
        self.model, self.frames, self.keep = model, frames, keep
        self._kept: OrderedDict[int, FrameFeatures] = OrderedDict()

    def __call__(self, index: int) -> FrameFeatures:
        if index not in self._kept:
            while len(self._kept) >= self.keep:
                self._kept.popitem(last=False)
            self._kept[index] = self.model.encode(self.model.prepare(self.frames[index]))
        self._kept.move_to_end(index)
        return self._kept[index]


class PromptedSession:
    """Objects of one video that are prompted, corrected and propagated (SAM 2, section 4 and appendix D).

    A prompt on a frame that was not tracked yet starts from the image alone; on a tracked frame it corrects the mask
    that is there. Objects do not influence each other; those whose memories lie on the same frames are batched.

    Args:
        model: the network, in eval mode.
        frames: the video; its first frame gives the size of all.
        fill_hole_area: holes of up to so many pixels at a quarter of the input size are filled; 0 = none.
        keep_history: keep what corrections on earlier frames need; False keeps memory constant.
        max_prompted: prompted frames that an object remembers, the newest ones; 0 = all, as in the released models.
        encoder: of a session over the same frames, to share its encoded frames.
    """

    def __init__(
        self,
        model: SAM2,
        frames: Frames,
        fill_hole_area: int = 8,
        keep_history: bool = True,
        max_prompted: int = 0,
        encoder: FrameEncoder | None = None,
    ):
        self.model = model
        self.frames = frames
        self.max_prompted = max_prompted
        self._encoded = encoder or FrameEncoder(model, frames)
        self.fill_hole_area = fill_hole_area
        self.keep_history = keep_history
        self.objects: dict[int, ObjectTrack] = {}
        self.size: tuple[int, int] = frames[0].shape[:2]  # type: ignore[assignment]
        # Pointers are spread over at most 16 frames, fewer in a shorter video.
        self.max_pointers = min(len(frames), MAX_POINTERS)

    # Prompts ----------------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def add_points(
        self, index: int, object_id: int, points: ArrayLike = (), labels: ArrayLike = (),
        box: Sequence[float] | None = None, extend: bool = False,
    ) -> TrackedFrame:  # fmt: skip
        """Prompts an object with clicks, a box, or both.

        Args:
            index: frame number from 0.
            object_id: any integer; a new one starts an object.
            points: [P, 2] (x, y) in pixels of the video; labels: [P], 1 inside the object, 0 outside.
            box: (x1, y1, x2, y2) in pixels, or None.
            extend: keep the points that this object has on this frame.

        Returns:
            the frame with all objects, the prompted one renewed.

        Raises:
            PromptError: frame out of range, no prompt, points outside the frame, other labels, an empty box.
        """
        xy, kinds = self._checked_points(index, object_id, points, labels, box)
        track = self.objects.setdefault(object_id, ObjectTrack())
        if extend and index in track.points:
            former_xy, former_kinds = track.points[index]
            xy, kinds = torch.cat([former_xy, xy]), torch.cat([former_kinds, kinds])
        track.points[index] = (xy, kinds)
        former = track.at(index)
        features = self._encoded(index)
        if index in track.reverse:
            cells = self._conditioned([object_id], index, track.reverse[index], features)
        else:
            cells = self.model.unconditioned(features)
        mask_prompt = None if former is None else former.mask_logits.clamp(-LOGIT_LIMIT, LOGIT_LIMIT)[None]
        masks = self.model.decode(cells, features, Points(xy[None], kinds[None]), mask_prompt, 1)
        track.pending[index] = self._filled(masks, 0)
        return self._result(index)

    def add_mask(self, index: int, object_id: int, mask: ArrayLike) -> TrackedFrame:
        """Gives an object's mask: bool [H, W] of the size of the video, true inside; an empty mask means "not visible".

        Raises:
            PromptError: frame out of range, or a mask of another size.
        """
        return self.add_masks(index, {object_id: mask})

    @torch.no_grad()
    def add_masks(self, index: int, masks: Mapping[int, ArrayLike]) -> TrackedFrame:
        """Gives the masks of several objects on a frame, by id; see `add_mask`."""
        resized = [self._checked_mask(index, object_id, mask) for object_id, mask in masks.items()]
        given = self.model.given(self._encoded(index), torch.stack(resized)) if resized else None
        for row, object_id in enumerate(masks):
            assert given is not None
            track = self.objects.setdefault(object_id, ObjectTrack())
            track.points.pop(index, None)
            track.pending[index] = self._filled(given, row)
        return self._result(index)

    def _checked_mask(self, index: int, object_id: int, mask: ArrayLike) -> Tensor:
        """A mask of the size of the video as float [S, S], 0 or 1."""
        self._check_frame(index, object_id)
        array = torch.as_tensor(np.asarray(mask, dtype=bool))
        if tuple(array.shape) != self.size:
            raise PromptError(
                f"object {object_id}, frame {index}: the mask is {list(array.shape)}, the video {list(self.size)}"
            )
        side = (self.model.image_size, self.model.image_size)
        resized = array.to(self.model.device)[None, None].float()
        if self.size != side:
            resized = F.interpolate(resized, side, mode="bilinear", align_corners=False, antialias=True)
        return (resized[0, 0] >= 0.5).float()

    def check(
        self, index: int, object_id: int, points: ArrayLike = (), labels: ArrayLike = (),
        box: Sequence[float] | None = None, mask: ArrayLike | None = None,
    ) -> None:  # fmt: skip
        """Checks a prompt without running the network.

        Raises:
            PromptError: see `add_points` and `add_mask`.
        """
        if mask is not None:
            self._checked_mask(index, object_id, mask)
        else:
            self._checked_points(index, object_id, points, labels, box)

    def remove(self, object_id: int) -> None:
        """Forgets an object.

        Raises:
            PromptError: there is no such object.
        """
        if object_id not in self.objects:
            raise PromptError(f"there is no object {object_id}")
        del self.objects[object_id]

    # Propagation ------------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def propagate(self, start: int | None = None, reverse: bool = False) -> Iterator[TrackedFrame]:
        """Follows all objects from a frame to the end of the video, or with `reverse` to its start.

        Args:
            start: first frame; by default the earliest one with a prompt.

        Raises:
            PromptError: no object has a prompt.
        """
        if not self.objects:
            raise PromptError("no object has a prompt")
        self._encode_pending()
        if start is None:
            start = min(index for track in self.objects.values() for index in track.prompted)
        order = range(start, -1, -1) if reverse else range(start, len(self.frames))
        if reverse and start == 0:
            return
        for index in order:
            yield self.step(index, reverse)

    @torch.no_grad()
    def step(self, index: int, reverse: bool = False) -> TrackedFrame:
        """One frame of `propagate`: tracks the objects that have a memory and no prompt on this frame."""
        self._encode_pending()
        features = self._encoded(index)
        waiting = [o for o, track in self.objects.items() if track.prompted and index not in track.prompted]
        for object_ids in self._batches(waiting, index, reverse):
            cells = self._conditioned(object_ids, index, reverse, features)
            masks = self.model.decode(cells, features, None, None, len(object_ids))
            memory = self.model.write(features, masks, prompted=False)
            for row, object_id in enumerate(object_ids):
                self.objects[object_id].tracked[index] = replace(self._filled(masks, row), memory=memory[row])
        for track in self.objects.values():
            if index in track.prompted or index in track.tracked:
                track.reverse[index] = reverse
        if not self.keep_history:
            self._forget(index, reverse)
        return self._result(index)

    # Memories ---------------------------------------------------------------------------------------------------------

    def _batches(self, object_ids: list[int], index: int, reverse: bool) -> list[list[int]]:
        """Objects with one layout of memories together."""
        groups: dict[MemoryLayout, list[int]] = {}
        for object_id in object_ids:
            layout = self._memories(self.objects[object_id], index, reverse)[0]
            groups.setdefault(layout, []).append(object_id)
        return list(groups.values())

    def _conditioned(self, object_ids: list[int], index: int, reverse: bool, features: FrameFeatures) -> Tensor:
        """Cells [B, hw, C] conditioned on the memories of objects with one layout."""
        found = [self._memories(self.objects[object_id], index, reverse) for object_id in object_ids]
        spatial = torch.stack([torch.stack(memories) for _, memories, _ in found])
        empty = [features.cells.new_zeros(0, self.model.channels)]
        pointers = torch.stack([torch.cat([*empty, *(pointer[None] for pointer in some)]) for _, _, some in found])
        return self.model.read(features, found[0][0], spatial, pointers, self.max_pointers)

    def _memories(
        self, track: ObjectTrack, index: int, reverse: bool
    ) -> tuple[MemoryLayout, list[Tensor], list[Tensor]]:
        """What an object attends to on a frame: all prompted frames, then the nearest tracked ones, farthest first."""
        sign = -1 if reverse else 1
        spatial = [(0, output) for output in track.prompted.values()]
        for away in range(self.model.num_memories - 1, 0, -1):
            output = track.tracked.get(index - sign * away)
            if output is not None:
                spatial.append((self.model.num_memories - away, output))
        # Pointers of prompted frames count only from the past; their distance has a sign.
        pointers = [(sign * (index - at), output) for at, output in track.prompted.items() if sign * (index - at) >= 0]
        for away in range(1, self.max_pointers):
            output = track.tracked.get(index - sign * away)
            if output is not None:
                pointers.append((away, output))
        layout = MemoryLayout(tuple(step for step, _ in spatial), tuple(away for away, _ in pointers))
        memories = [output.memory for _, output in spatial if output.memory is not None]
        assert len(memories) == len(spatial)
        return layout, memories, [output.pointer for _, output in pointers]

    def _encode_pending(self) -> None:
        """Encodes the memories of prompted frames, once their prompts are final."""
        for index in sorted({index for track in self.objects.values() for index in track.pending}):
            waiting = [track for track in self.objects.values() if index in track.pending]
            outputs = [track.pending.pop(index) for track in waiting]
            logits = torch.stack([output.mask_logits for output in outputs])
            scores = torch.tensor([output.object_score for output in outputs], device=logits.device)
            masks = Masks(logits, scores, torch.stack([output.pointer for output in outputs]), scores)
            memories = self.model.write(self._encoded(index), masks, prompted=True)
            for track, output, memory in zip(waiting, outputs, memories):
                track.prompted[index] = replace(output, memory=memory)
                track.tracked.pop(index, None)
                if self.max_prompted:
                    for old in sorted(track.prompted)[: -self.max_prompted]:
                        del track.prompted[old]

    def _filled(self, masks: Masks, row: int) -> ObjectFrame:
        """One object's output, with small holes filled for display and for memories of prompts."""
        logits = masks.mask_logits[row]
        if self.fill_hole_area:
            logits = fill_holes(logits[None], self.fill_hole_area)[0]
        return ObjectFrame(logits, float(masks.iou[row]), masks.pointer[row], float(masks.object_score[row]))

    def _forget(self, index: int, reverse: bool) -> None:
        """Drops what no later frame of this direction attends to."""
        reach = max(self.model.num_memories, MAX_POINTERS)
        for track in self.objects.values():
            for old in [at for at in track.tracked if (at - index if reverse else index - at) >= reach]:
                del track.tracked[old]
                track.reverse.pop(old, None)

    # Frames -----------------------------------------------------------------------------------------------------------

    def _result(self, index: int) -> TrackedFrame:
        """All objects on a frame at the size of the video; objects without an output there have no pixel."""
        outputs = [track.at(index) for track in self.objects.values()]
        side = self.model.image_size // 4
        absent = torch.full((side, side), -1024.0, device=self.model.device)
        logits = torch.stack([absent if output is None else output.mask_logits for output in outputs])
        logits = F.interpolate(logits[:, None], self.size, mode="bilinear", align_corners=False)[:, 0]
        scores = np.array([-1024.0 if output is None else output.object_score for output in outputs], np.float32)
        iou = np.array([0.0 if output is None else output.iou for output in outputs], np.float32)
        return TrackedFrame(index, list(self.objects), logits, scores, iou)

    # Checks -----------------------------------------------------------------------------------------------------------

    def _check_frame(self, index: int, object_id: int) -> None:
        if not 0 <= index < len(self.frames):
            raise PromptError(f"object {object_id}: there is no frame {index}; the video has {len(self.frames)}")

    def _checked_points(
        self, index: int, object_id: int, points: ArrayLike, labels: ArrayLike, box: Sequence[float] | None
    ) -> tuple[Tensor, Tensor]:
        """Points in pixels of the S x S input and their labels, corners of the box first."""
        self._check_frame(index, object_id)
        where = f"object {object_id}, frame {index}"
        height, width = self.size
        xy = np.asarray(points, np.float32).reshape(-1, 2)
        kinds = np.asarray(labels, np.int64).reshape(-1)
        if len(xy) != len(kinds):
            raise PromptError(f"{where}: {len(xy)} points and {len(kinds)} labels")
        if not len(xy) and box is None:
            raise PromptError(f"{where}: neither points nor a box")
        if not np.isin(kinds, (NEGATIVE, POSITIVE)).all():
            raise PromptError(f"{where}: labels are 1 (inside the object) or 0 (outside)")
        if not (np.isfinite(xy).all() and (xy >= 0).all() and (xy <= (width, height)).all()):
            raise PromptError(f"{where}: a point lies outside the frame of {width} x {height}")
        both = {tuple(p) for p in xy[kinds == 1].tolist()} & {tuple(p) for p in xy[kinds == 0].tolist()}
        if both:
            raise PromptError(f"{where}: point {both.pop()} is both inside and outside the object")
        if box is not None:
            corners = np.asarray(box, np.float32).reshape(2, 2)
            if not np.isfinite(corners).all() or not (corners[1] > corners[0]).all():
                raise PromptError(f"{where}: box {list(box)} is empty; a box is x1, y1, x2, y2 with x1 < x2, y1 < y2")
            if not ((corners >= 0).all() and (corners <= (width, height)).all()):
                raise PromptError(f"{where}: box {list(box)} lies outside the frame of {width} x {height}")
            xy = np.concatenate([corners, xy])
            kinds = np.concatenate([[TOP_LEFT, BOTTOM_RIGHT], kinds])
        scaled = torch.from_numpy(xy) / torch.tensor([width, height]) * self.model.image_size
        return scaled.to(self.model.device), torch.from_numpy(kinds).to(self.model.device)
