"""Algorithm 1 of MASA's supplement: candidates of each frame become tracks by the similarity of their embeddings.

The tracker keeps nothing: time and identity live in a `TrackerState` that goes in and comes out, so that several videos
may share a tracker and an old state stays valid.
"""

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torchvision.ops import box_iou

from entitysam.masa import similarity
from entitysam.registry import ConfigError

NOT_TRACKED = 0  # id of a candidate that belongs to no track; tracks count from 1
REFERENCE_FPS = 30.0  # `max_jump` is given at this frame rate
SIMILARITIES = ("masa", "bidirectional_softmax", "iou")


@dataclass(frozen=True)
class TrackerSettings:
    """Thresholds of Algorithm 1, in its letters, and what the settings of the published table differ in.

    Attributes:
        gamma: a candidate above this confidence starts a track.
        beta_obj: a candidate above this confidence may continue a track.
        beta: least similarity for that.
        similarity: "masa" (Eq. 1), "bidirectional_softmax" (its first half), or "iou" (of boxes, without embeddings).
        momentum: weight of the new embedding in a track's; the old one has the rest.
        memory_frames: a track can be continued up to so many frames after it was last seen.
        candidate_frames: so long a candidate that neither continued nor started a track is kept. It draws similar
            candidates of the next frames to itself and away from the tracks.
        max_jump: largest step of a box's centre from frame to frame, in pixels at 30 frames per second; over gaps it
            adds up. None = no limit.
        duplicate_iou: a candidate that overlaps a more confident one by more is a duplicate.
        weak_score, weak_duplicate_iou: the same limit for candidates below `weak_score`.
        within_category: tracks keep to one category.
    """

    gamma: float
    beta_obj: float
    beta: float
    similarity: str = "masa"
    momentum: float = 0.8
    memory_frames: int = 10
    candidate_frames: int = 0
    max_jump: float | None = None
    duplicate_iou: float = 1.0
    weak_score: float = 0.5
    weak_duplicate_iou: float = 0.3
    within_category: bool = False

    def __post_init__(self) -> None:
        if self.similarity not in SIMILARITIES:
            raise ConfigError(f"similarity: one of {', '.join(SIMILARITIES)}, not '{self.similarity}'")
        for name in ("gamma", "beta_obj", "momentum", "duplicate_iou", "weak_score", "weak_duplicate_iou"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"{name}: must be in 0..1, not {getattr(self, name)}")
        for name in ("memory_frames", "candidate_frames"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name}: must not be negative, not {getattr(self, name)}")


# The three settings of the published configurations (thresholds of duplicates are the code's, the paper has none).
SETTINGS = {
    "tao": TrackerSettings(gamma=1e-4, beta_obj=1e-4, beta=0.5),
    "video": TrackerSettings(gamma=0.1, beta_obj=0.01, beta=0.5, max_jump=100.0),
    "bdd": TrackerSettings(
        gamma=0.5,
        beta_obj=0.3,
        beta=0.6,
        similarity="bidirectional_softmax",
        candidate_frames=1,
        duplicate_iou=0.7,
        weak_score=0.3,
    ),
}
IOU_BETA = 0.3  # least overlap of IoU association, as in SORT (Bewley et al., ICIP 2016)


def read_setting(name: str, association: str = "masa", **changes: object) -> TrackerSettings:
    """A published setting with changes.

    Args:
        name: "tao", "video" or "bdd".
        association: "masa", or "iou" for the baseline without embeddings: IoU of boxes, `beta` 0.3, no `max_jump`.
        changes: fields of `TrackerSettings`.

    Raises:
        ConfigError: unknown name or field, or a value out of its range.
    """
    if name not in SETTINGS:
        raise ConfigError(f"setting: one of {', '.join(SETTINGS)}, not '{name}'")
    if association not in ("masa", "iou"):
        raise ConfigError(f"association: masa or iou, not '{association}'")
    unknown = set(changes) - set(TrackerSettings.__dataclass_fields__)
    if unknown:
        raise ConfigError(
            f"tracker.{min(unknown)}: unknown key; known: {', '.join(TrackerSettings.__dataclass_fields__)}"
        )
    setting = SETTINGS[name]
    if association == "iou":
        setting = replace(setting, similarity="iou", beta=IOU_BETA, max_jump=None, candidate_frames=0)
    return replace(setting, **changes)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Candidates:
    """The object candidates of one frame.

    Attributes:
        boxes: float [N, 4] xyxy in pixels.
        scores: float [N] confidence in 0..1.
        embeddings: float [N, C], of any length; None where similarity is "iou".
        categories: int64 [N]; None = all of one category.
    """

    boxes: Tensor
    scores: Tensor
    embeddings: Tensor | None = None
    categories: Tensor | None = None

    def __len__(self) -> int:
        return len(self.boxes)

    def __getitem__(self, rows: Tensor) -> "Candidates":
        """Those of a mask bool [N] or of indices."""
        embeddings = None if self.embeddings is None else self.embeddings[rows]
        categories = None if self.categories is None else self.categories[rows]
        return Candidates(self.boxes[rows], self.scores[rows], embeddings, categories)


@dataclass(frozen=True)
class TrackerState:
    """What is known after some frames: M tracks and kept candidates. Not to be changed.

    Attributes:
        frame: number of the last frame; -1 before the first.
        next_id: id of the next track.
        ids: int64 [M]; `NOT_TRACKED` for kept candidates.
        last_seen: int64 [M] frame.
        boxes, embeddings, categories: [M, ...] the last box and category, the averaged embedding; as in `Candidates`.
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

    A track is continued by one candidate per frame at most: candidates choose in the order of their confidence among the
    tracks that are left, as in the published code (the paper's listing leaves it open).

    Args:
        settings: see there.
        fps: frames per second of the frame numbers, for `max_jump`; None = 30.
    """

    def __init__(self, settings: TrackerSettings, fps: float | None = None) -> None:
        self.settings = settings
        self.fps = fps or REFERENCE_FPS

    def step(self, state: TrackerState, candidates: Candidates, frame: int) -> tuple[np.ndarray, TrackerState]:
        """Associates the candidates of a frame.

        Candidates whose box or score is not finite, or whose box has no area, are no candidates. Frames without any
        may be given or left out.

        Args:
            state: after earlier frames.
            candidates: of this frame, in any order.
            frame: its number; greater than that of the state.

        Returns:
            ids int64 [N] of the candidates as given, `NOT_TRACKED` for duplicates, weak and unusable ones; and the
            state behind this frame.

        Raises:
            ValueError: frames out of order, no embeddings or not finite ones, or of another length than before.
        """
        if frame <= state.frame:
            raise ValueError(f"frame {frame} comes after frame {state.frame}: frames must be in order")
        self._check(candidates, state, frame)
        if candidates.categories is None:
            candidates = replace(candidates, categories=torch.zeros_like(candidates.scores, dtype=torch.int64))
        ids = np.full(len(candidates), NOT_TRACKED, np.int64)
        chosen = self._without_duplicates(candidates)
        known = _select(state, self._alive(state, frame))
        kept = candidates[chosen]
        matched = self._match(kept, known, frame)
        kept_ids = np.append(known.ids, NOT_TRACKED)[matched]  # -1 is the last place
        new = (matched < 0) & (_numpy(kept.scores) > self.settings.gamma)
        kept_ids[new] = np.arange(state.next_id, state.next_id + new.sum())
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
        overlap = box_iou(boxes[order], boxes[order])
        return order[~(overlap > limit[:, None]).tril(-1).any(1)]

    def _alive(self, state: TrackerState, frame: int) -> np.ndarray:
        """bool [M]: tracks and kept candidates that may still be matched."""
        patience = np.where(state.ids == NOT_TRACKED, self.settings.candidate_frames, self.settings.memory_frames)
        return frame - state.last_seen <= patience

    def _match(self, candidates: Candidates, known: TrackerState, frame: int) -> np.ndarray:
        """int64 [N] index of the track that each candidate continues, -1 = none (lines 2 to 9)."""
        matched = np.full(len(candidates), -1)
        if not len(known) or not len(candidates):
            return matched
        left = _numpy(self._similarity(candidates, known, frame)).copy()
        beta, can_continue = self.settings.beta, _numpy(candidates.scores) > self.settings.beta_obj
        for row in np.flatnonzero(can_continue & (left.max(1) > beta)):
            best = int(left[row].argmax())
            if left[row, best] > beta and known.ids[best] != NOT_TRACKED:
                matched[row] = best
                left[:, best] = -np.inf
        return matched

    def _similarity(self, candidates: Candidates, known: TrackerState, frame: int) -> Tensor:
        """[N, M] similarity; minus infinity where a pair cannot be."""
        settings, tracks = self.settings, known.tracks
        if settings.similarity == "iou":
            scores = similarity.overlap(candidates.boxes, tracks.boxes)
        else:
            assert candidates.embeddings is not None
            assert tracks.embeddings is not None
            scores = similarity.appearance(candidates.embeddings, tracks.embeddings, settings.similarity == "masa")
        if settings.max_jump is not None:
            frames = torch.from_numpy(frame - known.last_seen).to(scores)
            reach = frames * settings.max_jump * (REFERENCE_FPS / self.fps)
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
        """The state with matched tracks renewed (line 9), new ones (line 11) and, where wanted, the other candidates."""
        rows, places = np.flatnonzero(matched >= 0), matched[matched >= 0]
        others = (matched < 0) & ((ids != NOT_TRACKED) | (self.settings.candidate_frames > 0))
        tracks, last_seen = known.tracks, known.last_seen.copy()
        last_seen[places] = frame
        renewed, added = kept[_index(rows, kept)], kept[_index(np.flatnonzero(others), kept)]
        if len(rows):
            tracks = _renew(tracks, renewed, _index(places, kept), self.settings.momentum)
        if len(added):
            tracks = _concatenate(tracks, added) if len(known) else added
        seen = np.concatenate([last_seen, np.full(len(added), frame)])
        return TrackerState(frame, next_id, np.concatenate([known.ids, ids[others]]), seen, tracks)


def _renew(tracks: Candidates, latest: Candidates, places: Tensor, momentum: float) -> Candidates:
    """Tracks whose boxes, scores and categories are the latest, and whose embeddings move there by `momentum`."""
    embeddings, categories = tracks.embeddings, tracks.categories
    if embeddings is not None and latest.embeddings is not None:
        mixed = momentum * latest.embeddings + (1 - momentum) * embeddings[places]
        embeddings = embeddings.index_copy(0, places, mixed)
    if categories is not None and latest.categories is not None:
        categories = categories.index_copy(0, places, latest.categories)
    boxes, scores = tracks.boxes, tracks.scores
    return Candidates(
        boxes.index_copy(0, places, latest.boxes), scores.index_copy(0, places, latest.scores), embeddings, categories
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


def _index(rows: np.ndarray, candidates: Candidates) -> Tensor:
    return torch.from_numpy(rows).to(candidates.boxes.device)


def _numpy(values: Tensor) -> np.ndarray:
    return values.detach().cpu().numpy()
