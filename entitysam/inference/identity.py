"""Identities of entities, apart from the queries that follow them (see `docs/IDENTITY.md`).

A network has Q queries, and a long video has more than Q entities: one after the other, a query follows several of them,
and an entity that returns may be found by another query. `EntityRegistry` decides on every frame which known entity each
mask belongs to.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from scipy.ndimage import find_objects
from torch import Tensor

from entitysam.structures import Event

MOMENTUM = 0.9  # of the mean embedding of an entity
RETURNED, MARGIN = 0.95, 0.02  # see `has_returned`
FALSE_CLAIMS = 0.05  # expected share of masks that are taken for another entity by appearance
BINS = 400  # of similarities -1..1
SAME_QUERY = 0.1  # added to the affinity of a mask and the entity that its query followed last


# (frame uint8 [H, W, 3], features of the network, mask logits [Q, S/4, S/4]) -> appearance of what each query shows, [Q, C] of
# unit length on the CPU with zeros where it is unknown; None where there is none at all
Appearance = Callable[[np.ndarray, Any, Tensor], Tensor | None]


@dataclass(frozen=True)
class Entity:
    """What is known of an entity; never changed in place.

    Attributes:
        id: from 1; never given to another entity.
        query: the query that followed it last.
        born, last_seen: first and last frame on which it has a pixel.
        corner: (row, column) of `mask` on the map.
        mask: bool [h, w] its last mask, cropped to its box; None where it is older than the registry's memory.
        embedding: [C] mean appearance of unit length; None where it is unknown.
        score: its confidence on the frame `last_seen`, 0..1.
    """

    id: int
    query: int
    born: int
    last_seen: int
    corner: tuple[int, int]
    mask: Tensor | None
    embedding: Tensor | None
    score: float


class EntityRegistry:
    """Assigns the masks of each frame one to one to known entities (Hungarian matching) or to new ones.

    A mask may belong to a known entity by overlap or by appearance (the cosine similarity of embeddings):

    - by overlap: their masks overlap, with an IoU of at least `handover_iou` where another query followed the entity, and
      similarity + IoU / 2 >= `agreement`; where the entity is lost, similarity >= `reappeared` instead. The last mask of an
      entity is kept for `memory` frames;
    - by appearance, where the same query followed the entity at most `memory` frames ago: similarity >= `same`;
    - by appearance, at any place, after any time and by any query: similarity >= `returned`, and all other entities are
      less similar by `margin`.

    Similarities count only as far as they tell the entities of this video apart (see `Impostors`). Overlap precedes appearance. A mask without a partner is a new entity. So a query whose mask jumps to another thing
    starts a new id, and an entity that another query picks up keeps its id. The first entity of query q has id q + 1, all
    others have ids above Q. Without embeddings overlap alone decides.

    Args:
        patience: an entity is lost after so many frames without a pixel.
        memory: frames for which the last mask of an entity is kept.
        capacity: number of entities that are remembered, those seen last; so memory does not grow.
        handover_iou, agreement, reappeared, same, returned, margin: see above.

    Attributes:
        num_frames: number of frames seen.
        entities: id -> entity, longest unseen first.
    """

    def __init__(
        self,
        patience: int = 3,
        memory: int = 30,
        capacity: int = 1000,
        handover_iou: float = 0.5,
        agreement: float = 0.3,
        reappeared: float = 0.7,
        same: float = 0.9,
        returned: float = RETURNED,
        margin: float = MARGIN,
    ) -> None:
        self.patience, self.memory, self.capacity = patience, memory, capacity
        self.handover_iou, self.agreement, self.reappeared = handover_iou, agreement, reappeared
        self.same, self.returned, self.margin = same, returned, margin
        self.num_frames = 0
        self.entities: dict[int, Entity] = {}
        self.impostors = Impostors()
        self._holder: dict[int, int] = {}  # query -> id that it followed last
        self._last_id = 0

    def update(
        self, queries: np.ndarray, scores: Tensor, embeddings: Tensor | None = None
    ) -> tuple[np.ndarray, list[Event]]:
        """Adds the next frame.

        Args:
            queries: int [H, W] the query + 1 that owns each pixel; 0 = none.
            scores: [Q] confidence of each query, 0..1.
            embeddings: [Q, C] appearance of the mask of each query, of unit length; zeros where it is unknown.

        Returns:
            ids int32 [H, W] with 0 = no entity, and the events of this frame.
        """
        id_of, events = self.assign(queries, scores, embeddings)
        return id_of[queries], events

    def assign(
        self, queries: np.ndarray, scores: Tensor, embeddings: Tensor | None = None
    ) -> tuple[np.ndarray, list[Event]]:
        """`update` that returns, instead of a map, the id that each value of `queries` stands for: int32 [Q + 1]."""
        self._last_id = max(self._last_id, len(scores))
        seen = list(self._observe(queries, scores, embeddings))
        id_of, former = np.zeros(len(scores) + 1, np.int32), dict(self._holder)
        events: list[Event] = []
        for observed, known in zip(seen, self._match(seen)):
            number = known.id if known else self._new_id(observed.query)
            id_of[observed.query + 1] = number
            events += self._record(observed, known, number)
        events += [Event("recycled", i) for q, i in former.items() if self._holder[q] != i and self._is_left(i, q)]
        events += self._forget()
        self.num_frames += 1
        return id_of, events

    def scores(self) -> dict[int, float]:
        """Confidence of each entity on the last frame, in the order of the ids."""
        on_frame = (entity for entity in self.entities.values() if entity.last_seen == self.num_frames - 1)
        return {entity.id: entity.score for entity in sorted(on_frame, key=lambda entity: entity.id)}

    def state(self) -> dict[str, Any]:
        """Plain data and tensors for `load_state`; not changed by later frames."""
        entities = [vars(entity) for entity in self.entities.values()]
        return {
            "num_frames": self.num_frames,
            "entities": entities,
            "holder": dict(self._holder),
            "impostors": torch.from_numpy(self.impostors.counts.copy()),
            "last_id": self._last_id,
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Continues from what `state` gave."""
        self.num_frames, self._last_id = state["num_frames"], state["last_id"]
        self._holder = dict(state["holder"])
        self.impostors.counts[:] = state["impostors"].cpu().numpy()
        self.entities = {}
        for values in state["entities"]:
            tensors = {key: None if values[key] is None else values[key].cpu() for key in ("mask", "embedding")}
            self.entities[values["id"]] = Entity(**{**values, **tensors, "corner": tuple(values["corner"])})

    def _observe(self, queries: np.ndarray, scores: Tensor, embeddings: Tensor | None) -> Iterator[Entity]:
        """The masks of this frame, as entities with id 0."""
        for query, place in enumerate(find_objects(queries)):
            if place is None:
                continue
            mask = torch.from_numpy(queries[place] == query + 1)
            corner = (place[0].start, place[1].start)
            embedding = None if embeddings is None or not embeddings[query].any() else embeddings[query].clone()
            now = self.num_frames
            yield Entity(0, query, now, now, corner, mask, embedding, float(scores[query]))

    def _match(self, seen: Sequence[Entity]) -> list[Entity | None]:
        """The known entity of each mask."""
        known = list(self.entities.values())
        partners: list[Entity | None] = [None] * len(seen)
        if not seen or not known:
            return partners
        from scipy.optimize import linear_sum_assignment  # slow to import; not every run needs it

        similarity = _similarity(seen, known)  # [n, m], NaN where unknown
        affinity = self._affinity(seen, known, similarity)
        rows, columns = linear_sum_assignment(-affinity)
        paired = affinity[rows, columns] > 0
        rows, columns = rows[paired], columns[paired]
        for row, column in zip(rows, columns):
            partners[row] = known[column]
        others = similarity[rows][:, columns]  # of masks and entities that are all on this frame
        self.impostors.add(others[~np.eye(len(rows), dtype=bool)])
        return partners

    def _affinity(self, seen: Sequence[Entity], known: Sequence[Entity], similarity: np.ndarray) -> np.ndarray:
        """float64 [n, m] of masks and entities; 0 = they may not be paired."""
        returned = has_returned(similarity, self.returned, self.margin, self.impostors)
        affinity = np.where(returned, similarity, 0.0)
        same_query = np.array([[a.query == b.query for b in known] for a in seen])
        recent = np.array([entity.mask is not None for entity in known])
        fast = same_query & recent & (similarity >= self.same) & self.impostors.allow(similarity, 1)
        affinity[fast] = similarity[fast]
        for row, column in np.argwhere(_boxes_overlap(seen, known) & recent).tolist():
            overlap, similar = mask_iou(seen[row], known[column]), similarity[row, column]
            is_lost = self.num_frames - known[column].last_seen > self.patience
            # Both also hold where the similarity is unknown (NaN).
            agree = not similar < self.reappeared if is_lost else not similar + overlap / 2 < self.agreement
            if agree and overlap > 0 and (same_query[row, column] or overlap >= self.handover_iou):
                preference = SAME_QUERY * same_query[row, column]
                affinity[row, column] = 2 + overlap + np.nan_to_num(similar) + preference
        return affinity

    def _new_id(self, query: int) -> int:
        if query not in self._holder:
            return query + 1
        self._last_id += 1
        return self._last_id

    def _record(self, observed: Entity, known: Entity | None, number: int) -> Iterator[Event]:
        """Stores what was seen of an entity; yields its events."""
        self._holder[observed.query] = number
        if known is None:
            self.entities[number] = replace(observed, id=number)
            yield Event("born", number)
            return
        if self.num_frames - known.last_seen > self.patience:
            yield Event("back", number)
        del self.entities[number]  # so that the dictionary stays in the order of `last_seen`
        embedding = _mean_embedding(known.embedding, observed.embedding)
        self.entities[number] = replace(observed, id=number, born=known.born, embedding=embedding)

    def _is_left(self, number: int, query: int) -> bool:
        """Whether an entity was followed by `query` and no other query has picked it up."""
        entity = self.entities.get(number)
        return entity is not None and entity.query == query

    def _forget(self) -> Iterator[Event]:
        """Drops old masks and, beyond the capacity, the entities that were seen longest ago; yields who is lost."""
        for number, entity in list(self.entities.items()):
            unseen = self.num_frames - entity.last_seen
            if unseen == self.patience:
                yield Event("lost", number)
            if unseen >= self.memory and entity.mask is not None:
                self.entities[number] = replace(entity, mask=None)
        for number in list(self.entities)[: max(len(self.entities) - self.capacity, 0)]:
            del self.entities[number]


def _boxes_overlap(a: Sequence[Entity], b: Sequence[Entity]) -> np.ndarray:
    """bool [n, m]; False where an entity has no mask."""
    first, second = (
        np.array([(*e.corner, *(e.corner if e.mask is None else np.add(e.corner, e.mask.shape))) for e in entities])
        for entities in (a, b)
    )  # [n, 4] and [m, 4]: top, left, bottom, right
    low = np.maximum(first[:, None, :2], second[:, :2])  # [n, m, 2]
    high = np.minimum(first[:, None, 2:], second[:, 2:])
    return (low < high).all(-1)


def mask_iou(a: Entity, b: Entity) -> float:
    """IoU of the masks of two entities, each cropped to its box."""
    if a.mask is None or b.mask is None:
        return 0.0
    top, left = max(a.corner[0], b.corner[0]), max(a.corner[1], b.corner[1])
    bottom = min(a.corner[0] + a.mask.shape[0], b.corner[0] + b.mask.shape[0])
    right = min(a.corner[1] + a.mask.shape[1], b.corner[1] + b.mask.shape[1])
    if bottom <= top or right <= left:
        return 0.0
    parts = (
        entity.mask.numpy()[
            top - entity.corner[0] : bottom - entity.corner[0], left - entity.corner[1] : right - entity.corner[1]
        ]
        for entity in (a, b)
        if entity.mask is not None
    )
    shared = int(np.logical_and(*parts).sum())
    return shared / (int(a.mask.sum()) + int(b.mask.sum()) - shared)


class Impostors:
    """How alike different entities of a video look: the similarities of those that are visible at the same time.

    Attributes:
        counts: int64 [BINS] histogram of cosine similarities -1..1.
    """

    def __init__(self) -> None:
        self.counts = np.zeros(BINS, np.int64)

    def add(self, similarities: np.ndarray) -> None:
        """Adds similarities of different entities; NaN is left out."""
        known = similarities[~np.isnan(similarities)]
        self.counts += np.bincount(_bins(known), minlength=BINS)

    def allow(self, similarities: np.ndarray, candidates: int) -> np.ndarray:
        """Whether one of so many other entities is as similar, by chance, in at most `FALSE_CLAIMS` of the cases."""
        as_similar = self.counts[::-1].cumsum()[::-1]  # different entities that are at least so similar
        filled = np.nan_to_num(similarities, nan=-1.0)
        return as_similar[_bins(filled)] * candidates <= FALSE_CLAIMS * self.counts.sum()


def _bins(similarities: np.ndarray) -> np.ndarray:
    return ((similarities + 1) / 2 * BINS).astype(np.int64).clip(0, BINS - 1)


def has_returned(
    similarity: np.ndarray, returned: float = RETURNED, margin: float = MARGIN, impostors: Impostors | None = None
) -> np.ndarray:
    """Which masks show a known entity, by appearance alone.

    Args:
        similarity: [n, m] cosine similarity of masks and entities; NaN where unknown.
        returned: lowest similarity.
        margin: all other entities are less similar by at least so much.
        impostors: of the video; pairs that are not more alike than different entities are left out.

    Returns:
        bool [n, m].
    """
    filled = np.nan_to_num(similarity, nan=-1.0)
    second = np.sort(filled, axis=1)[:, -2:-1] if filled.shape[1] > 1 else -1.0
    allowed = True if impostors is None else impostors.allow(filled, filled.shape[1])
    return (filled >= returned) & (filled - second >= margin) & allowed


def pool_appearance(tokens: Tensor, mask_logits: Tensor) -> Tensor:
    """Appearance of what each query shows: the mean of the tokens under its mask, less the mean of the frame.

    Without the mean of the frame, all entities of a video are alike.

    Args:
        tokens: [hw, C] of a square grid of cells, row-major.
        mask_logits: [Q, S/4, S/4].

    Returns:
        float32 [Q, C] on the CPU, of unit length; zeros where the mask is empty.
    """
    side = round(len(tokens) ** 0.5)
    masks = (mask_logits > 0).float()
    weights = F.adaptive_avg_pool2d(masks[None], side)[0].flatten(1)  # [Q, hw] share of each cell
    centred = tokens.float() - tokens.float().mean(0)
    return F.normalize(weights @ centred, dim=1).cpu()


def appearance_of(features: Any, mask_logits: Tensor) -> Tensor | None:
    """`pool_appearance` of a network's features: of its cells and of its semantic tokens, [Q, 2 C]; None without either."""
    maps = [getattr(features, name, None) for name in ("cells", "semantic")]
    pooled = [pool_appearance(tokens, mask_logits) for tokens in maps if tokens is not None]
    return F.normalize(torch.cat(pooled, dim=1), dim=1) if pooled else None


def token_appearance(frame: np.ndarray, features: Any, mask_logits: Tensor) -> Tensor | None:
    """`appearance_of` as an `Appearance`."""
    return appearance_of(features, mask_logits)


def no_appearance(frame: np.ndarray, features: Any, mask_logits: Tensor) -> None:
    """Overlap alone decides about ids."""


def _similarity(seen: Sequence[Entity], known: Sequence[Entity]) -> np.ndarray:
    """Cosine similarity [n, m]; NaN where an embedding is unknown."""
    similarity = np.full((len(seen), len(known)), np.nan)
    rows = [row for row, entity in enumerate(seen) if entity.embedding is not None]
    columns = [column for column, entity in enumerate(known) if entity.embedding is not None]
    if rows and columns:
        left = torch.stack([seen[row].embedding for row in rows])  # type: ignore[misc]
        right = torch.stack([known[column].embedding for column in columns])  # type: ignore[misc]
        similarity[np.ix_(rows, columns)] = (left @ right.T).numpy()
    return similarity


def _mean_embedding(old: Tensor | None, new: Tensor | None) -> Tensor | None:
    if old is None or new is None:
        return new if old is None else old
    return F.normalize(MOMENTUM * old + (1 - MOMENTUM) * new, dim=0)
