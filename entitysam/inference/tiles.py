"""Tiles: more entities at once than the network has queries.

The frame is cut into overlapping tiles. Each tile is a run of its own, so that R x C tiles show up to R x C x Q entities.
Where two tiles overlap (a seam), entities of both that cover the same pixels get one id.

A second pass over the whole frame finds more: the network sees the frame without the pixels that an entity claims, and what it
finds on the other pixels are further entities.
"""

from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from entitysam.inference.segmenter import FrameResult, SegmentedVideo, VideoSegmenter
from entitysam.structures import Event

OVERLAP = 0.25  # share of a tile that it has in common with its neighbour
MIN_SIDE = 16  # pixels
UNCLAIMED = 0.5  # least share of a mask of the second pass that no entity of a tile claims
Part = tuple[int, int]  # tile, id of an entity in it
SEAM_IOU = 0.5  # lowest IoU, within the seam and over all frames so far, of two parts of an entity


@dataclass(frozen=True)
class Tile:
    """Rows top..bottom and columns left..right of a frame, the ends excluded."""

    top: int
    bottom: int
    left: int
    right: int

    def crop(self, image: np.ndarray) -> np.ndarray:
        """The tile of an image [H, W, ..]."""
        return np.ascontiguousarray(self.view(image))

    def view(self, image: np.ndarray) -> np.ndarray:
        """The tile of an image [H, W, ..], not copied."""
        return image[self.top : self.bottom, self.left : self.right]

    def seam(self, other: "Tile") -> "Tile | None":
        """The pixels of both tiles."""
        top, bottom = max(self.top, other.top), min(self.bottom, other.bottom)
        left, right = max(self.left, other.left), min(self.right, other.right)
        return Tile(top, bottom, left, right) if top < bottom and left < right else None

    def within(self, other: "Tile", image: np.ndarray) -> np.ndarray:
        """The pixels of this tile in an image that shows `other`."""
        return image[self.top - other.top : self.bottom - other.top, self.left - other.left : self.right - other.left]


def cut_tiles(size: tuple[int, int], grid: tuple[int, int]) -> list[Tile]:
    """R x C tiles of equal size that cover a frame (H, W), row by row.

    Raises:
        ValueError: tiles with a side below `MIN_SIDE` pixels.
    """
    sides = [-(-length // (count - (count - 1) * OVERLAP)) for length, count in zip(size, grid)]
    height, width = (int(min(side, length)) for side, length in zip(sides, size))
    if min(height, width) < MIN_SIDE:
        raise ValueError(
            f"{grid[0]}x{grid[1]} tiles of a frame of {size[1]}x{size[0]} pixels are too small: {width}x{height} pixels, "
            f"at least {MIN_SIDE} a side are needed"
        )
    tops, lefts = (
        np.linspace(0, length - side, count).round().astype(int)
        for length, side, count in zip(size, (height, width), grid)
    )
    return [Tile(top, top + height, left, left + width) for top in tops.tolist() for left in lefts.tolist()]


def grid_for(num_entities: int, num_queries: int, size: tuple[int, int]) -> tuple[int, int]:
    """The smallest grid (R, C) whose tiles, with the second pass, show so many entities; tiles are as square as possible.

    Entities at a seam take a query in both tiles: a tile counts with half of its queries where there are several. The second
    pass has all of them.
    """
    if num_entities <= num_queries:
        return 1, 1
    tiles = max(-(-2 * (num_entities - num_queries) // num_queries), 2)
    grids = [(rows, -(-tiles // rows)) for rows in range(1, tiles + 1)]
    fewest = [grid for grid in grids if grid[0] * grid[1] <= tiles + 1]
    return min(fewest, key=lambda grid: abs(np.log((size[0] / grid[0]) / (size[1] / grid[1]))))


class SeamStitcher:
    """Ids of a frame for the entities of its tiles.

    Two entities of different tiles are the same if their IoU within the seam, over all frames so far, is at least
    `SEAM_IOU`; but not where a tile would then have two entities of one id on the same frame.

    Args:
        tiles: of `cut_tiles`.
        size: (H, W) of the frame.
    """

    def __init__(self, tiles: Sequence[Tile], size: tuple[int, int]) -> None:
        self.tiles, self.size = tiles, size
        pairs = combinations(range(len(tiles)), 2)
        self._seams = [(i, j, seam) for i, j in pairs if (seam := tiles[i].seam(tiles[j])) is not None]
        self._pixels: Counter[tuple[int, ...]] = Counter()  # (seam, id, id), 0 = any -> pixels over all frames
        self._parent: dict[Part, Part] = {}  # of a forest whose trees are the entities
        self._number: dict[Part, int] = {}  # root -> id
        self._present: list[Part] = []  # on this frame
        self._borders = list(_borders(tiles, size))
        self._owner = _nearest_tile(tiles, size)

    def learn(self, maps: Sequence[np.ndarray]) -> None:
        """Adds a frame: the int32 [h, w] map of each tile."""
        present = [(tile, int(number)) for tile, ids in enumerate(maps) for number in np.unique(ids) if number]
        for part in present:
            self._parent.setdefault(part, part)
        self._present = present
        for index, (i, j, seam) in enumerate(self._seams):
            for a, b in self._same(index, seam.within(self.tiles[i], maps[i]), seam.within(self.tiles[j], maps[j])):
                self._unite((i, a), (j, b))
        for part in present:
            self._number.setdefault(self._root(part), len(self._number) + 1)

    def _same(self, seam: int, first: np.ndarray, second: np.ndarray) -> list[tuple[int, int]]:
        """Adds what two sides show on the pixels of a seam; returns the pairs of entities there that are the same."""
        pairs, counts = np.unique(first.astype(np.int64) << 32 | second, return_counts=True)  # both ids in one number
        numbers = list(zip((pairs >> 32).tolist(), (pairs & 0xFFFFFFFF).tolist()))
        for (a, b), count in zip(numbers, counts.tolist()):
            self._pixels[seam, a, 0] += count if a else 0
            self._pixels[seam, 0, b] += count if b else 0
            self._pixels[seam, a, b] += count if a and b else 0
        return [(a, b) for a, b in numbers if a and b and self._iou(seam, a, b) >= SEAM_IOU]

    def fill(self, ids: np.ndarray, rest: np.ndarray) -> np.ndarray:
        """Adds the entities of the second pass.

        What it shows behind the border of a tile is the same as what is cut off there, if they agree along the border.

        Args:
            ids: int32 [H, W] of `compose`.
            rest: int32 [H, W] of `unclaimed`.

        Returns:
            int32 [H, W] ids of the frame.
        """
        whole = len(self.tiles)
        found = [(whole, int(number)) for number in np.unique(rest) if number]
        for part in found:
            self._parent.setdefault(part, part)
        self._present = [*self._present, *found]
        part_of = {number: part for part, number in self._number.items() if self._root(part) == part}
        for index, (inside, outside) in enumerate(self._borders, start=len(self._seams)):
            for a, b in self._same(index, inside.view(ids), outside.view(rest)):
                self._unite(part_of[a], (whole, b))
        for part in found:
            self._number.setdefault(self._root(part), len(self._number) + 1)
        return np.where(ids > 0, ids, self.table(whole, int(rest.max(initial=0)))[rest])

    def table(self, tile: int, count: int) -> np.ndarray:
        """int32 [count + 1] the id of each entity 0..count of a tile; 0 where it is not known."""
        parts = ((tile, number) for number in range(1, count + 1))
        return np.array([0, *(self.id_of(part) for part in parts)], np.int32)

    def id_of(self, part: Part) -> int:
        """The id of an entity of a tile; 0 where it is not known."""
        return self._number[self._root(part)] if part in self._parent else 0

    def compose(self, maps: Sequence[np.ndarray]) -> np.ndarray:
        """int32 [H, W] ids of a frame, from the maps of its tiles.

        The tile whose centre is nearest decides about a pixel; where it has no entity there, the others do.
        """
        frame = np.zeros(self.size, np.int32)
        numbered = [self.table(tile, int(ids.max(initial=0)))[ids] for tile, ids in enumerate(maps)]
        for index, (tile, ids) in enumerate(zip(self.tiles, numbered)):
            owned = tile.crop(self._owner) == index
            tile.view(frame)[owned] = ids[owned]
        for tile, ids in zip(self.tiles, numbered):
            view = tile.view(frame)
            np.copyto(view, ids, where=view == 0)
        return frame

    def _iou(self, seam: int, a: int, b: int) -> float:
        shared = self._pixels[seam, a, b]
        return shared / (self._pixels[seam, a, 0] + self._pixels[seam, 0, b] - shared)

    def _root(self, part: Part) -> Part:
        while self._parent[part] != part:
            part = self._parent[part]
        return part

    def _unite(self, a: Part, b: Part) -> None:
        first, second = self._root(a), self._root(b)
        tiles = [
            {tile for tile, number in self._present if self._root((tile, number)) == root} for root in (first, second)
        ]
        if first == second or tiles[0] & tiles[1]:
            return
        newest = len(self._number) + 1
        if self._number.get(second, newest) < self._number.get(first, newest):
            first, second = second, first
        self._parent[second] = first  # the older id stays


def _borders(tiles: Sequence[Tile], size: tuple[int, int]) -> Iterator[tuple[Tile, Tile]]:
    """The lines of pixels inside and outside of each border of a tile within the frame (H, W)."""
    for tile in tiles:
        top, bottom, left, right = tile.top, tile.bottom, tile.left, tile.right
        for row, beyond in ((top, top - 1), (bottom - 1, bottom)):
            if 0 <= beyond < size[0]:
                yield Tile(row, row + 1, left, right), Tile(beyond, beyond + 1, left, right)
        for column, beyond in ((left, left - 1), (right - 1, right)):
            if 0 <= beyond < size[1]:
                yield Tile(top, bottom, column, column + 1), Tile(top, bottom, beyond, beyond + 1)


def _nearest_tile(tiles: Sequence[Tile], size: tuple[int, int]) -> np.ndarray:
    """int64 [H, W] index of the tile whose centre is nearest, in units of its sides."""
    rows, columns = np.arange(size[0])[:, None] + 0.5, np.arange(size[1])[None] + 0.5
    distances = [
        np.maximum(
            abs(2 * rows - tile.top - tile.bottom) / (tile.bottom - tile.top),
            abs(2 * columns - tile.left - tile.right) / (tile.right - tile.left),
        )
        for tile in tiles
    ]
    return np.argmin(distances, axis=0)  # at least one tile covers a pixel: its distance is at most 1


def blank(frame: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """A frame [H, W, 3] without the pixels of entities; they are black, as padding is in training."""
    return np.where(ids[..., None] > 0, np.uint8(0), frame)


def unclaimed(rest: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """The entities of the second pass that are not those of a tile again: with the share `UNCLAIMED`, on unclaimed pixels.

    Args:
        rest: int32 [H, W] of the second pass.
        ids: int32 [H, W] of the tiles.
    """
    inside = np.bincount(rest[ids == 0], minlength=int(rest.max(initial=0)) + 1)
    kept = inside >= UNCLAIMED * np.maximum(np.bincount(rest.ravel(), minlength=len(inside)), 1)
    return np.where((ids == 0) & kept[rest], rest, 0)


class TiledVideo:
    """A video segmented by the published protocol in each tile.

    Args:
        segmenter: runs the network over each tile.
        frames: uint8 [H, W, 3] RGB; iterated once per tile.
        size: (H, W) of the frames.
        grid: (R, C).
        on_frame: called after every frame of every run.
        second_pass: another run over what no entity claims; iterates the frames once more.

    Attributes:
        num_frames, height, width: of the maps.
        scores: float32 [n] score of entity 1..n, the best of its parts.
        frame_scores: float32 [n, T] likewise, on each frame.
        saturated: all queries of some tile (with a second pass, of that pass) show an entity, so that others may be missing.

    Raises:
        ValueError: no frames; tiles that are too small.
    """

    def __init__(
        self,
        segmenter: VideoSegmenter,
        frames: Iterable[np.ndarray],
        size: tuple[int, int],
        grid: tuple[int, int],
        on_frame: Callable[[], None] | None = None,
        second_pass: bool = False,
    ) -> None:
        tiles = cut_tiles(size, grid)
        self._runs: list[SegmentedVideo] = [
            segmenter.segment((tile.crop(frame) for frame in frames), on_frame=on_frame) for tile in tiles
        ]
        self._rest: SegmentedVideo | None = None
        self._stitcher = SeamStitcher(tiles, size)
        for maps in self._maps():
            self._stitcher.learn(maps)
        self.num_frames, (self.height, self.width) = self._runs[0].num_frames, size
        self.saturated = any(run.saturated for run in self._runs)
        runs = list(self._runs)
        if second_pass:
            blanked = (blank(frame, ids) for frame, ids in zip(frames, self._composed()))
            self._rest = segmenter.segment(blanked, on_frame=on_frame)
            self.saturated = self._rest.saturated
            runs.append(self._rest)
            for _ in self._composed():  # numbers all entities
                pass
        tables = [self._stitcher.table(tile, len(run.scores))[1:] for tile, run in enumerate(runs)]
        numbers = np.unique(np.concatenate(tables))
        self._new = np.zeros(int(numbers.max(initial=0)) + 1, np.int32)  # ids without gaps
        numbers = numbers[numbers > 0]
        self._new[numbers] = np.arange(1, len(numbers) + 1)
        self.scores = np.zeros(len(numbers), np.float32)
        self.frame_scores = np.zeros((len(numbers), self.num_frames), np.float32)
        for table, run in zip(tables, runs):
            shown = table > 0
            rows = self._new[table[shown]] - 1
            np.maximum.at(self.scores, rows, run.scores[shown])
            np.maximum.at(self.frame_scores, rows, run.frame_scores[shown])

    def _maps(self) -> Iterator[tuple[np.ndarray, ...]]:
        return zip(*(run.iter_ids() for run in self._runs))

    def _composed(self) -> Iterator[np.ndarray]:
        """The maps with the ids of the stitcher; with those of the second pass as soon as it is done."""
        composed = (self._stitcher.compose(maps) for maps in self._maps())
        if self._rest is None:
            yield from composed
            return
        for ids, rest in zip(composed, self._rest.iter_ids()):
            yield self._stitcher.fill(ids, unclaimed(rest, ids))

    def iter_ids(self) -> Iterator[np.ndarray]:
        """The entity maps, int32 [H, W] in order."""
        return (self._new[ids] for ids in self._composed())


def stream_tiles(
    segmenter: VideoSegmenter,
    frames: Iterable[np.ndarray],
    grid: tuple[int, int],
    patience: int = 3,
    second_pass: bool = False,
) -> Generator[FrameResult, None, None]:
    """Online, as `VideoSegmenter.stream`, with one stream per tile.

    Args:
        segmenter: runs the network over each tile.
        frames: uint8 [H, W, 3] RGB.
        grid: (R, C).
        patience: an entity is lost after so many frames without a pixel.
        second_pass: one more stream, over what no entity claims.

    Raises:
        ValueError: tiles that are too small; frames that change size.
    """
    stitcher, streams, events = None, [], PresenceEvents(patience)
    crops: list[np.ndarray] = []  # of the tiles, and behind them the frame of the second pass
    for index, frame in enumerate(frames):
        size = (frame.shape[0], frame.shape[1])
        if stitcher is None:
            stitcher = SeamStitcher(cut_tiles(size, grid), size)
            streams = [segmenter.stream(_taken(crops, tile)) for tile in range(len(stitcher.tiles) + second_pass)]
        if size != stitcher.size:
            raise ValueError(
                f"frame {index} has {size[1]}x{size[0]} pixels, those before {stitcher.size[1]}x{stitcher.size[0]}"
            )
        crops[:] = [tile.crop(frame) for tile in stitcher.tiles]
        results = [next(stream) for stream in streams[: len(crops)]]
        maps = [result.ids for result in results]
        stitcher.learn(maps)
        ids = stitcher.compose(maps)
        saturated = any(result.saturated for result in results)
        if second_pass:
            crops.append(blank(frame, ids))
            results.append(next(streams[-1]))
            ids = stitcher.fill(ids, unclaimed(results[-1].ids, ids))
            saturated = results[-1].saturated
        scores: dict[int, float] = {}
        for tile, result in enumerate(results):
            for number, score in result.scores.items():
                part = stitcher.id_of((tile, number))
                scores[part] = max(score, scores.get(part, 0.0))
        present = [int(number) for number in np.unique(ids) if number]
        scores = {number: scores[number] for number in present}
        yield FrameResult(index, frame, ids, scores, events.update(present), saturated)


def _taken(crops: Sequence[np.ndarray], tile: int) -> Iterator[np.ndarray]:
    """Endless: the current crop of a tile."""
    while True:
        yield crops[tile]


class PresenceEvents:
    """Events of entities whose ids are known."""

    def __init__(self, patience: int) -> None:
        self._patience = patience
        self._unseen: dict[int, int] = {}  # id -> frames without a pixel

    def update(self, present: Sequence[int]) -> list[Event]:
        """Adds the ids of a frame."""
        events = []
        for number in present:
            if number not in self._unseen:
                events.append(Event("born", number))
            elif self._unseen[number] >= self._patience:
                events.append(Event("back", number))
            self._unseen[number] = 0
        for number in self._unseen.keys() - set(present):
            self._unseen[number] += 1
            if self._unseen[number] == self._patience:
                events.append(Event("lost", number))
        return events
