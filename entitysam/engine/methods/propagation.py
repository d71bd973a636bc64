"""Masks of some frames, carried to the others by SAM 2.1's memory.

One method for four rows of the EntitySAM paper's Table 2: SAM 2.1 with the masks of the first frame, its own automatic ones or
given ones; the same with new masks every n frames; and one that works as DEVA is described (Cheng et al., "Tracking Anything with
Decoupled Video Segmentation", ICCV 2023, sections 3.2 and 3.3): masks of a few frames agree on a consensus, which is then merged with what
was propagated. Numbers that the descriptions leave open are marked "ours".
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, linear_sum_assignment, milp

from entitysam.engine.methods.context import MethodContext
from entitysam.engine.methods.frame_masks import Entities, EntitiesOf, build_masks, check_size
from entitysam.engine.methods.streamed import StreamedVideo
from entitysam.esam.video import overlap_iou
from entitysam.registry import METHODS, ConfigError
from entitysam.sam2.segmenter import SeekableFrames, merge_objects
from entitysam.sam2.session import FrameEncoder, Frames, PromptedSession
from entitysam.settings import read_settings

MAX_PROMPTED = 4  # prompted frames that an object remembers (ours); SAM 2.1 would keep all of them


@dataclass(frozen=True)
class PropagationSettings:
    """When new masks come, and what becomes of them.

    Attributes:
        every: frames between two frames with new masks; 0 = only the first frame on which there are any.
        clip: frames, from the one with new masks on, whose masks have to agree on it; 1 = only its own (DEVA: 3).
        keep: what becomes of an object that the new masks do not show: False ends it; True keeps it until it was missed more than
            `max_missed` times in a row.
        max_missed: see `keep` (DEVA: 5).
        min_iou: least IoU of two masks of one entity (DEVA: 0.5).
        alpha: what a mask costs in the consensus (DEVA: 0.5), so that one without any support is dropped.
        max_objects: no more objects at a time than these, best scores first (ours).
    """

    every: int = 0
    clip: int = 1
    keep: bool = False
    max_missed: int = 5
    min_iou: float = 0.5
    alpha: float = 0.5
    max_objects: int = 100

    def __post_init__(self) -> None:
        for name, least in (("every", 0), ("clip", 1), ("max_missed", 0), ("max_objects", 1)):
            if getattr(self, name) < least:
                raise ConfigError(f"{name}: must be at least {least}, not {getattr(self, name)}")
        if not 0 < self.min_iou <= 1:
            raise ConfigError(f"min_iou: must lie in 0..1, not {self.min_iou}")
        if self.every and self.clip > self.every:
            raise ConfigError(f"clip: {self.clip} frames, but new masks come every {self.every}")


@METHODS.register("sam2_propagation")
class Propagation:
    """SAM 2.1 from masks.

    Args:
        context: of the run.
        sam2: see `MethodContext.sam2`.
        masks: of frames, see `frame_masks.build_masks`; {name: sam2} = automatic masks of the same SAM 2.1.
        settings: `PropagationSettings`.
    """

    def __init__(
        self,
        context: MethodContext,
        sam2: Mapping[str, Any] | None = None,
        masks: dict[str, Any] | None = None,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        self.settings = read_settings(PropagationSettings, settings, "method.settings")
        self.model = context.sam2(sam2)
        self.masks = build_masks(masks, context, self.model)

    def segment(self, frames: Iterable[np.ndarray], out_size: tuple[int, int]) -> StreamedVideo:
        return StreamedVideo(self._maps(frames, out_size))

    def _maps(
        self, frames: Iterable[np.ndarray], out_size: tuple[int, int]
    ) -> Iterator[tuple[np.ndarray, dict[int, float]]]:
        seekable: Any = frames if hasattr(frames, "__getitem__") else SeekableFrames(frames)
        check_size(seekable[0], out_size)
        video = _Video(self, seekable, self.masks.start(frames, out_size))
        for index in range(len(seekable)):
            yield video.step(index)


class _Video:
    """The objects of one video."""

    def __init__(self, method: Propagation, frames: Frames, entities_of: EntitiesOf) -> None:
        self.model, self.settings = method.model, method.settings
        self.frames, self.entities_of = frames, entities_of
        self.encoder = FrameEncoder(self.model, frames, keep=self.settings.clip + 1)
        self.session = self._session(MAX_PROMPTED)
        self.missed: dict[int, int] = {}  # object -> times in a row that new masks did not show it
        self.next_id = 1

    def _session(self, max_prompted: int = 0) -> PromptedSession:
        return PromptedSession(
            self.model, self.frames, keep_history=False, max_prompted=max_prompted, encoder=self.encoder
        )

    def step(self, index: int) -> tuple[np.ndarray, dict[int, float]]:
        """Map and scores of the next frame."""
        tracked = self.session.step(index) if self.session.objects else None
        ids, scores = merge_objects([tracked], self.session.size)
        every = self.settings.every
        if not self.session.objects or (every and index % every == 0):
            ids, scores = self._renew(index, ids, scores)
        return ids, scores

    def _renew(self, index: int, now: np.ndarray, scores: dict[int, float]) -> tuple[np.ndarray, dict[int, float]]:
        """Merges new masks with the propagated map; new masks are in front."""
        found, quality = self._consensus(index)
        known = np.array([number for number in self.session.objects if (now == number).any()], np.int64)
        linked = self._linked(found, len(quality), now, known)
        shown = linked[linked > 0]
        for number in list(self.session.objects):
            self.missed[number] = 0 if number in shown else self.missed.get(number, 0) + 1
            if self.missed[number] > (self.settings.max_missed if self.settings.keep else 0):
                self.session.remove(number)
                del self.missed[number]
        kept = np.where(np.isin(now, list(self.session.objects)), now, 0)
        if not self.settings.keep:  # the new masks replace the propagated ones
            kept = np.zeros_like(now)
        ids = np.where(linked[found] > 0, linked[found], kept).astype(np.int32)
        prompts = {int(number): ids == number for number in shown}
        if prompts:
            self.session.add_masks(index, prompts)
        scores.update(zip(shown.tolist(), quality[linked[1:] > 0].tolist()))
        present = set(np.unique(ids).tolist())
        return ids, {number: score for number, score in scores.items() if number in present}

    def _linked(self, found: np.ndarray, count: int, now: np.ndarray, known: np.ndarray) -> np.ndarray:
        """Object of each of the new masks 1..count, int32 [count + 1]; 0 where there is no room for a new object."""
        iou = overlap_iou(found, now, count, known)
        linked = np.zeros(count + 1, np.int32)
        rows, columns = linear_sum_assignment(np.where(iou >= self.settings.min_iou, iou, 0.0), maximize=True)
        for row, column in zip(rows, columns):
            if iou[row, column] >= self.settings.min_iou:
                linked[row + 1] = known[column]
        staying = len(self.session.objects) if self.settings.keep else int((linked > 0).sum())
        fresh = np.flatnonzero(linked[1:] == 0)[: max(self.settings.max_objects - staying, 0)] + 1
        linked[fresh] = np.arange(self.next_id, self.next_id + len(fresh))
        self.next_id += len(fresh)
        return linked

    def _consensus(self, index: int) -> Entities:
        """The masks of a frame on which those of the next frames agree."""
        last = min(index + self.settings.clip, len(self.frames))
        aligned = [self._aligned(at, index) for at in range(index, last)]
        if len(aligned) == 1:
            return aligned[0]
        return agree(aligned, self.settings.min_iou, self.settings.alpha)

    def _aligned(self, at: int, index: int) -> Entities:
        """The masks of frame `at`, carried back to frame `index`."""
        ids, scores = self.entities_of(at, self.frames[at])
        if at == index or not len(scores):
            return ids, scores
        session = self._session()
        session.add_masks(at, {number: ids == number for number in range(1, len(scores) + 1)})
        back, _ = merge_objects([session.step(index, reverse=True)], session.size)
        return back, scores


def agree(maps: list[Entities], min_iou: float = 0.5, alpha: float = 0.5) -> Entities:
    """The consensus of several segmentations of one frame: the integer programme of DEVA's section 3.2.

    A mask gains the IoU with every mask of another segmentation that supports it (IoU of at least `min_iou`) and costs `alpha`; of masks that
    overlap as much, one is chosen. Smaller masks are in front.

    Args:
        maps: ids int32 [H, W] and scores of each segmentation.

    Returns:
        ids 1..n by descending score, and the scores.
    """
    starts = np.cumsum([0, *(len(scores) for _, scores in maps)])
    iou = np.zeros((starts[-1], starts[-1]))
    for a, (left, _) in enumerate(maps):
        for b, (right, others) in enumerate(maps):
            if a != b:
                known = np.arange(1, len(others) + 1)
                block = overlap_iou(left, right, starts[a + 1] - starts[a], known)
                iou[starts[a] : starts[a + 1], starts[b] : starts[b + 1]] = block
    supported = np.where(iou >= min_iou, iou, 0.0)
    gain = supported.sum(1) - alpha
    candidates = np.flatnonzero(gain > 0)
    chosen = candidates[_solve(gain[candidates], supported[np.ix_(candidates, candidates)] > 0)]
    masks, scores = [], []
    for row in chosen:
        segmentation = int(np.searchsorted(starts, row, side="right")) - 1
        ids, quality = maps[segmentation]
        masks.append(ids == row - starts[segmentation] + 1)
        scores.append(float(quality[row - starts[segmentation]]))
    result = np.zeros(maps[0][0].shape, np.int32)
    order = np.argsort(-np.array(scores), kind="stable")
    number_of = {int(row): number for number, row in enumerate(order, start=1)}
    for row in sorted(range(len(masks)), key=lambda row: -int(masks[row].sum())):
        result[masks[row]] = number_of[row]
    return result, np.array(scores)[order]


def _solve(gain: np.ndarray, conflicts: np.ndarray) -> np.ndarray:
    """Rows with the largest sum of gains of which no two are in conflict: int64 [n], ascending."""
    pairs = np.argwhere(np.triu(conflicts, 1))
    if not len(pairs):
        return np.arange(len(gain))
    rows = np.zeros((len(pairs), len(gain)))
    rows[np.arange(len(pairs))[:, None], pairs] = 1
    limits = LinearConstraint(rows, -np.inf, 1)
    solution = milp(-gain, integrality=np.ones(len(gain)), bounds=Bounds(0, 1), constraints=limits)
    return np.flatnonzero(solution.x > 0.5)
