"""Algorithm 1 of MASA's supplement: associates the candidates of each frame with tracks.

`Tracker` is stateless. The tracks are in a `TrackerState` that is passed in and returned, so that several videos can
share a tracker and an old state stays valid.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torchvision.ops import box_iou

from entitysam.masa import similarity
from entitysam.masa.settings import SETTINGS, TrackerSettings, read_setting

__all__ = ["NOT_TRACKED", "SETTINGS", "Candidates", "Tracker", "TrackerSettings", "TrackerState", "read_setting"]

NOT_TRACKED = 0  # id of a candidate that belongs to no track; ids of tracks start at 1
REFERENCE_FPS = 30.0  # frame rate that `max_jump` refers to
BLOCK_ELEMENTS = 1 << 21  # largest matrix of pairs that is held at once; bounds the memory for frames of many boxes


@dataclass(frozen=True)
class Candidates:
    """The detections of one frame as the tracker takes them.

    Attributes:
        boxes: float [N, 4] (x1, y1, x2, y2) in pixels.
        scores: float [N] confidence in 0..1.
        embeddings: float [N, C], not normalised; None if similarity is "iou".
        categories: int64 [N]; None = one category for all.
    """

    boxes: Tensor
    scores: Tensor
    embeddings: Tensor | None = None
    categories: Tensor | None = None

    def __len__(self) -> int:
        return len(self.boxes)

    def __getitem__(self, rows: Tensor | slice) -> "Candidates":
        """The candidates at a bool mask [N] or at indices."""
        embeddings = None if self.embeddings is None else self.embeddings[rows]
        categories = None if self.categories is None else self.categories[rows]
        return Candidates(self.boxes[rows], self.scores[rows], embeddings, categories)


@dataclass(frozen=True)
class TrackerState:
    """M tracks and kept candidates after some frames; immutable.

    Attributes:
        frame: number of the last frame; -1 before the first.
        next_id: id of the next track.
        ids: int64 [M]; `NOT_TRACKED` for kept candidates.
        last_seen: int64 [M] frame of the last match.
        tracks: M entries: the last box, score and category, and the averaged embedding.
    """

    frame: int
    next_id: int
    ids: np.ndarray
    last_seen: np.ndarray
    tracks: Candidates

    @classmethod
    def initial(cls) -> "TrackerState":
        """Before the first frame."""
        nothing = Candidates(torch.zeros(0, 4), torch.zeros(0))
        return cls(-1, 1, np.zeros(0, np.int64), np.zeros(0, np.int64), nothing)

    def __len__(self) -> int:
        return len(self.ids)


class Tracker:
    """Algorithm 1.

    Each track is continued by at most one candidate per frame. Candidates choose among the remaining tracks by descending
    confidence, as in the published code (the paper does not specify it).

    Args:
        settings: thresholds.
        fps: frame rate of the frame numbers, for `max_jump`; None = 30.
    """

    def __init__(self, settings: TrackerSettings, fps: float | None = None) -> None:
        self.settings = settings
        self.fps = fps or REFERENCE_FPS

    def step(self, state: TrackerState, candidates: Candidates, frame: int) -> tuple[np.ndarray, TrackerState]:
        """Associates the candidates of a frame.

        Candidates whose box or score is not finite, or whose box has no area, are ignored. Frames without candidates may
        be passed or skipped.

        Args:
            state: state after the previous frame.
            candidates: of this frame, in any order.
            frame: frame number, greater than that of the state.

        Returns:
            ids int64 [N] of the candidates in the given order, `NOT_TRACKED` for duplicates, weak and ignored ones; and
            the state after this frame.

        Raises:
            ValueError: frames out of order; embeddings that are missing, not finite, or of another length than before.
        """
        if frame <= state.frame:
            raise ValueError(f"frame {frame} comes after frame {state.frame}: frames must be in order")
        self._check(candidates, state, frame)
        if candidates.categories is None:
            candidates = replace(candidates, categories=torch.zeros_like(candidates.scores, dtype=torch.int64))
        chosen = self._without_duplicates(candidates)  # [K] by descending confidence
        kept, known = candidates[chosen], _select(state, self._alive(state, frame))
        matched = self._match(kept, known, frame)  # [K] index into `known`, -1 = none
        kept_ids = np.append(known.ids, NOT_TRACKED)[matched]  # -1 indexes the appended element
        new = (matched < 0) & (_numpy(kept.scores) > self.settings.gamma)  # lines 10 and 11
        kept_ids[new] = np.arange(state.next_id, state.next_id + new.sum())
        ids = np.full(len(candidates), NOT_TRACKED, np.int64)
        ids[_numpy(chosen)] = kept_ids
        return ids, self._updated(known, kept, matched, kept_ids, frame, state.next_id + int(new.sum()))

    def _check(self, candidates: Candidates, state: TrackerState, frame: int) -> None:
        if self.settings.similarity == "iou" or not len(candidates):
            return
        if candidates.embeddings is None:
            raise ValueError(f"frame {frame}: no embeddings, which similarity '{self.settings.similarity}' needs")
        if not bool(candidates.embeddings.isfinite().all()):
            raise ValueError(f"frame {frame}: the embeddings are not finite")
        before = state.tracks.embeddings
        if before is not None and before.shape[1] != candidates.embeddings.shape[1]:
            raise ValueError(
                f"frame {frame}: embeddings of length {candidates.embeddings.shape[1]}, before {before.shape[1]}"
            )

    def _without_duplicates(self, candidates: Candidates) -> Tensor:
        """Indices of usable candidates by descending confidence, without duplicates (line 1 of Algorithm 1)."""
        boxes, scores = candidates.boxes, candidates.scores
        has_area = (boxes[:, 2:] > boxes[:, :2]).all(1)
        usable = (boxes.isfinite().all(1) & scores.isfinite() & has_area).nonzero().squeeze(1)
        order = usable[scores[usable].argsort(descending=True, stable=True)]
        settings = self.settings
        weak = scores[order] < settings.weak_score
        limit = torch.where(weak, min(settings.weak_duplicate_iou, settings.duplicate_iou), settings.duplicate_iou)
        boxes = boxes[order]
        duplicate = torch.zeros_like(weak)
        for rows in _row_blocks(len(order), len(order)):
            overlap = box_iou(boxes[rows], boxes[: rows.stop])  # [n, stop]
            # Column j of row i is a more confident candidate only for j < i.
            above = (overlap > limit[rows, None]).tril(rows.start - 1)
            duplicate[rows] = above.any(1)
        return order[~duplicate]

    def _alive(self, state: TrackerState, frame: int) -> np.ndarray:
        """bool [M]: tracks and kept candidates that can still be matched."""
        patience = np.where(state.ids == NOT_TRACKED, self.settings.candidate_frames, self.settings.memory_frames)
        return frame - state.last_seen <= patience

    def _match(self, candidates: Candidates, known: TrackerState, frame: int) -> np.ndarray:
        """int64 [N] index of the track that each candidate continues, -1 = none (lines 2 to 9)."""
        matched = np.full(len(candidates), -1)
        if not len(known) or not len(candidates):
            return matched
        beta, can_continue = self.settings.beta, _numpy(candidates.scores) > self.settings.beta_obj
        taken = np.zeros(len(known), bool)
        for rows, scores in self._similarity(candidates, known, frame):
            left = _numpy(scores).copy()  # [n, M]
            left[:, taken] = -np.inf
            for row in np.flatnonzero(can_continue[rows] & (left.max(1) > beta)):
                best = int(left[row].argmax())
                if left[row, best] > beta and known.ids[best] != NOT_TRACKED:
                    matched[rows.start + row] = best
                    left[:, best] = -np.inf
                    taken[best] = True
        return matched

    def _similarity(self, candidates: Candidates, known: TrackerState, frame: int) -> Iterator[tuple[slice, Tensor]]:
        """Blocks of rows and their similarity [n, M]; minus infinity for pairs that cannot be matched."""
        settings, tracks = self.settings, known.tracks
        blocks = _row_blocks(len(candidates), len(known))
        normaliser = None
        if settings.similarity != "iou" and len(blocks) > 1:
            # The softmax over all candidates needs the sum over all blocks.
            parts = [candidates.embeddings[rows] for rows in blocks]  # type: ignore[index]
            normaliser = similarity.log_sum_over_candidates(parts, tracks.embeddings)  # type: ignore[arg-type]
        for rows in blocks:
            part = candidates[rows]
            if settings.similarity == "iou":
                scores = similarity.overlap(part.boxes, tracks.boxes)
            else:
                assert part.embeddings is not None
                assert tracks.embeddings is not None
                with_cosine = settings.similarity == "masa"
                scores = similarity.appearance(part.embeddings, tracks.embeddings, with_cosine, normaliser)
            yield rows, self._exclude(scores, part, known, frame)

    def _exclude(self, scores: Tensor, candidates: Candidates, known: TrackerState, frame: int) -> Tensor:
        """Scores [n, M] with minus infinity for pairs too far apart or of different categories."""
        settings, tracks = self.settings, known.tracks
        if settings.max_jump is not None:
            frames = torch.from_numpy(frame - known.last_seen).to(scores)
            reach = frames * settings.max_jump * (REFERENCE_FPS / self.fps)  # [M] pixels
            too_far = similarity.centre_distance(candidates.boxes, tracks.boxes) > reach
            scores = scores.masked_fill(too_far, -torch.inf)
        if settings.within_category:
            assert candidates.categories is not None
            assert tracks.categories is not None
            scores = scores.masked_fill(candidates.categories[:, None] != tracks.categories, -torch.inf)
        return scores

    def _updated(
        self, known: TrackerState, kept: Candidates, matched: np.ndarray, ids: np.ndarray, frame: int, next_id: int
    ) -> TrackerState:
        """The next state: matched tracks updated (line 9), new tracks (line 11) and kept candidates appended."""
        rows, targets = np.flatnonzero(matched >= 0), matched[matched >= 0]
        others = (matched < 0) & ((ids != NOT_TRACKED) | (self.settings.candidate_frames > 0))
        tracks, last_seen = known.tracks, known.last_seen.copy()
        last_seen[targets] = frame
        updated, added = kept[_index(rows, kept)], kept[_index(np.flatnonzero(others), kept)]
        if len(rows):
            tracks = _update_tracks(tracks, updated, _index(targets, kept), self.settings.momentum)
        if len(added):
            tracks = _concatenate(tracks, added) if len(known) else added
        seen = np.concatenate([last_seen, np.full(len(added), frame)])
        return TrackerState(frame, next_id, np.concatenate([known.ids, ids[others]]), seen, tracks)


def _update_tracks(tracks: Candidates, latest: Candidates, rows: Tensor, momentum: float) -> Candidates:
    """Replaces boxes, scores and categories of the tracks at `rows`; embeddings are a moving average."""
    embeddings, categories = tracks.embeddings, tracks.categories
    if embeddings is not None and latest.embeddings is not None:
        mixed = momentum * latest.embeddings + (1 - momentum) * embeddings[rows]
        embeddings = embeddings.index_copy(0, rows, mixed)
    if categories is not None and latest.categories is not None:
        categories = categories.index_copy(0, rows, latest.categories)
    boxes, scores = tracks.boxes, tracks.scores
    return Candidates(
        boxes.index_copy(0, rows, latest.boxes), scores.index_copy(0, rows, latest.scores), embeddings, categories
    )


def _concatenate(a: Candidates, b: Candidates) -> Candidates:
    return Candidates(
        torch.cat([a.boxes, b.boxes]),
        torch.cat([a.scores, b.scores]),
        None if a.embeddings is None or b.embeddings is None else torch.cat([a.embeddings, b.embeddings]),
        None if a.categories is None or b.categories is None else torch.cat([a.categories, b.categories]),
    )


def _select(state: TrackerState, rows: np.ndarray) -> TrackerState:
    chosen = np.flatnonzero(rows)
    tracks = state.tracks[_index(chosen, state.tracks)]
    return replace(state, ids=state.ids[chosen], last_seen=state.last_seen[chosen], tracks=tracks)


def _row_blocks(rows: int, columns: int) -> list[slice]:
    """Rows in blocks of at most `BLOCK_ELEMENTS` matrix elements; one block for frames of the usual size."""
    size = max(1, BLOCK_ELEMENTS // max(1, columns))
    return [slice(start, min(start + size, rows)) for start in range(0, rows, size)]


def _index(rows: np.ndarray, candidates: Candidates) -> Tensor:
    return torch.from_numpy(rows).to(candidates.boxes.device)


def _numpy(values: Tensor) -> np.ndarray:
    return values.detach().cpu().numpy()
