"""A video and prompts in, one id map per frame out, with constant memory."""

import tempfile
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from entitysam.precision import autocast
from entitysam.sam2.model import SAM2
from entitysam.sam2.prompts import Prompt, check_prompts
from entitysam.sam2.session import PromptedSession, PromptError, TrackedFrame

BLOCK = 64  # frames decoded at once where a video is read backwards


class SeekableFrames:
    """Random access to frames that can only be read from the start; few frames are held.

    Args:
        frames: iterable several times, e.g. a `FrameSource` or a list.
        num_frames: T; counted by reading all of them once where it is not known.
    """

    def __init__(self, frames: Iterable[np.ndarray], num_frames: int | None = None):
        self._frames = frames
        self._count = sum(1 for _ in frames) if num_frames is None else num_frames
        self._iterator: Iterator[np.ndarray] = iter(())
        self._next = self._count  # index that the iterator gives next; past the end: start again
        self._held: dict[int, np.ndarray] = {}

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> np.ndarray:
        """Frame `index`: uint8 [H, W, 3] RGB.

        Raises:
            PromptError: the input ended before it.
        """
        if index in self._held:
            return self._held[index]
        backwards = bool(self._held) and index < min(self._held)
        first = max(0, index - BLOCK + 1) if backwards else index
        self._held = {}
        if first < self._next:
            self._iterator, self._next = iter(self._frames), 0
        for frame in self._iterator:
            self._next += 1
            if self._next > first:
                self._held[self._next - 1] = frame
            if self._next > index:
                return frame
        raise PromptError(f"the input ends after {self._next} frames, before frame {index}")


class DiskStack:
    """Compressed arrays of a run in a temporary file, so that memory does not grow with the video."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115  (lives as long as the object)
        self._places: list[tuple[int, int]] = []
        self._end = 0

    def __len__(self) -> int:
        return len(self._places)

    def push(self, array: np.ndarray) -> int:
        """Appends an array and returns its index.

        Raises:
            OSError: the disk is full.
        """
        data = zlib.compress(np.ascontiguousarray(array).tobytes(), 1)
        self._file.seek(self._end)
        self._file.write(data)
        self._places.append((self._end, len(data)))
        self._end += len(data)
        return len(self._places) - 1

    def read(self, index: int, dtype: str, shape: tuple[int, ...]) -> np.ndarray:
        start, length = self._places[index]
        self._file.seek(start)
        return np.frombuffer(zlib.decompress(self._file.read(length)), dtype).reshape(shape)


class PromptedVideo:
    """The objects of a prompted video, as `SegmentedVideo` presents entities.

    Attributes:
        num_frames, height, width: of the maps.
        object_ids: ids of the prompts, ascending.
        scores: float32 [max id], entry i - 1 for object i: mean over the frames on which it is visible; 0 for unused ids.
        frame_scores: float32 [max id, T]: predicted IoU times the probability that the object is visible.
        names: object id -> name, where a prompt gives one.
    """

    def __init__(self, size: tuple[int, int], prompts: Sequence[Prompt]):
        self.height, self.width = size
        self.object_ids = sorted({prompt.object_id for prompt in prompts})
        self.names = {prompt.object_id: prompt.name for prompt in prompts if prompt.name}
        self._frame_scores: list[np.ndarray] = []
        self._maps = DiskStack()

    def add(self, ids: np.ndarray, scores: dict[int, float]) -> None:
        """Adds the next frame: map int32 [H, W], and the scores of the objects on it."""
        row = np.zeros(self.object_ids[-1], np.float32)
        for object_id, score in scores.items():
            row[object_id - 1] = score
        self._frame_scores.append(row)
        self._maps.push(ids.astype(np.uint16))

    @property
    def num_frames(self) -> int:
        return len(self._frame_scores)

    @property
    def frame_scores(self) -> np.ndarray:
        return np.stack(self._frame_scores, axis=1)

    @property
    def scores(self) -> np.ndarray:
        shown = self.frame_scores > 0
        return (self.frame_scores.sum(axis=1) / np.maximum(shown.sum(axis=1), 1)).astype(np.float32)

    def iter_ids(self) -> Iterator[np.ndarray]:
        """The maps, int32 [H, W] in order."""
        for index in range(self.num_frames):
            yield self._maps.read(index, "uint16", (self.height, self.width)).astype(np.int32)

    @property
    def ids(self) -> np.ndarray:
        """All maps at once, int32 [T, H, W]."""
        return np.stack(list(self.iter_ids()))


class PromptedSegmenter:
    """Segments prompted objects in every frame of a video: forward from the first prompt of each, and backward from it.

    Args:
        model: a `SAM2` in eval mode, on its device.
        fill_hole_area: see `PromptedSession`.
        amp: "fp32", "bf16" or "fp16" autocast.

    Example:
        segmenter = PromptedSegmenter(entitysam.load_model("sam2.1_hiera_small.pt"))
        result = segmenter.segment(frames, [Prompt(1, frame=0, points=((410, 220),), labels=(1,))])
        result.ids    # int32 [T, H, W]
    """

    def __init__(self, model: SAM2, *, fill_hole_area: int = 8, amp: str = "fp32"):
        self.model = model
        self.fill_hole_area = fill_hole_area
        self.amp = amp
        autocast(amp, model.device)  # refuses an unknown precision

    def segment(
        self,
        frames: Iterable[np.ndarray],
        prompts: Sequence[Prompt],
        num_frames: int | None = None,
        on_frame: Callable[[], Any] = lambda: None,
    ) -> PromptedVideo:
        """Follows all objects; where masks overlap, the pixel belongs to the object with the larger logit.

        Args:
            frames: uint8 [H, W, 3] RGB, iterable several times.
            prompts: the first one of an object starts it, those on later frames correct it.
            num_frames: T, where it is known.
            on_frame: called after every frame of the forward pass.

        Raises:
            PromptFileError, PromptError: prompts that cannot be used with this video.
        """
        check_prompts(prompts, "prompts")
        seekable = SeekableFrames(frames, num_frames)
        on: dict[int, list[Prompt]] = defaultdict(list)
        for prompt in prompts:
            on[prompt.frame].append(prompt)
        if max(on) >= len(seekable):
            late = on[max(on)][0]
            raise PromptError(
                f"object {late.object_id}: there is no frame {late.frame}; the video has {len(seekable)} (from 0)"
            )
        with autocast(self.amp, self.model.device):
            session = self._session(seekable)
            for p in prompts:  # all of them before the first frame is segmented
                session.check(p.frame, p.object_id, p.points, p.labels, p.box, p.mask)
            earlier = self._backward(seekable, prompts)
            video = PromptedVideo(session.size, prompts)
            for index in range(len(seekable)):
                tracked = session.step(index) if session.objects else None
                for prompt in on[index]:
                    tracked = _apply(session, prompt)
                video.add(*merge_objects([tracked, earlier.pop(index, None)], session.size))
                on_frame()
        return video

    def _session(self, frames: SeekableFrames) -> PromptedSession:
        return PromptedSession(self.model, frames, fill_hole_area=self.fill_hole_area, keep_history=False)

    def _backward(self, frames: SeekableFrames, prompts: Sequence[Prompt]) -> dict[int, "_Earlier"]:
        """Objects on the frames before their first prompt."""
        first: dict[int, Prompt] = {}
        for prompt in sorted(prompts, key=lambda prompt: prompt.frame):
            first.setdefault(prompt.object_id, prompt)
        last = max(prompt.frame for prompt in first.values())
        if last == 0:
            return {}
        session, earlier, stack = self._session(frames), {}, DiskStack()
        for index in range(last, -1, -1):
            if session.objects:
                session.step(index, reverse=True)
                earlier[index] = _Earlier(session, index, stack)
            for prompt in first.values():
                if prompt.frame == index:
                    _apply(session, prompt)
        return earlier


def merge_objects(
    found: Sequence["TrackedFrame | _Earlier | None"], size: tuple[int, int]
) -> tuple[np.ndarray, dict[int, float]]:
    """One map int32 [H, W] of all objects on a frame, and the scores of those that are visible.

    Where masks overlap, the pixel belongs to the object with the larger logit.
    """
    tracked = [part.result() if isinstance(part, _Earlier) else part for part in found if part is not None]
    if not tracked:
        return np.zeros(size, np.int32), {}
    object_ids = torch.tensor([object_id for part in tracked for object_id in part.objects])
    logits = torch.cat([part.mask_logits for part in tracked])
    best, row = logits.max(dim=0)
    ids = torch.where(best > 0, object_ids.to(row.device)[row], 0).cpu().numpy().astype(np.int32)
    scores: dict[int, float] = {}
    for part in tracked:
        visible = 1 / (1 + np.exp(-part.object_scores.clip(-60, 60)))
        scores.update(zip(part.objects, (part.iou * visible).tolist()))
    return ids, {object_id: score for object_id, score in scores.items() if (ids == object_id).any()}


def _apply(session: PromptedSession, prompt: Prompt) -> TrackedFrame:
    if prompt.mask is not None:
        return session.add_mask(prompt.frame, prompt.object_id, prompt.mask)
    return session.add_points(prompt.frame, prompt.object_id, prompt.points, prompt.labels, prompt.box)


class _Earlier:
    """A frame of the backward pass; its logits lie on disk as float16."""

    def __init__(self, session: PromptedSession, index: int, stack: DiskStack):
        outputs = {object_id: track.at(index) for object_id, track in session.objects.items()}
        known = {object_id: output for object_id, output in outputs.items() if output is not None}
        self.index, self.objects = index, list(known)
        self._scores = np.array([output.object_score for output in known.values()], np.float32)
        self._iou = np.array([output.iou for output in known.values()], np.float32)
        logits = torch.stack([output.mask_logits for output in known.values()])  # [N, S/4, S/4]
        self._device, self._size, self._shape = logits.device, session.size, tuple(logits.shape)
        self._stack, self._place = stack, stack.push(logits.cpu().numpy().astype(np.float16))

    def result(self) -> TrackedFrame:
        logits = self._stack.read(self._place, "float16", self._shape).astype(np.float32)
        low = torch.from_numpy(logits).to(self._device)[:, None]
        full = F.interpolate(low, self._size, mode="bilinear", align_corners=False)[:, 0]
        return TrackedFrame(self.index, self.objects, full, self._scores, self._iou)
