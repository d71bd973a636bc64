"""Names for the result folder of a segmented video, without segmenting it again."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from entitysam.classification.classifier import Answer
from entitysam.classification.labeller import EntityCrop, Labeller
from entitysam.classification.labels import Label
from entitysam.classification.masklets import MapMasklets
from entitysam.engine.labelling.evaluation import write_sheet
from entitysam.io.id_maps import read_ids
from entitysam.io.paths import UnsafePathError, join_inside
from entitysam.io.readers.source import FrameSource, InputError
from entitysam.io.result_folder import CROPS, MASKS, SEGMENTS, TRACKS, remove_results
from entitysam.io.writers.annotations import EntityNames
from entitysam.io.writers.segments import ResultWriter

Step = Callable[[int], None]


@dataclass(frozen=True)
class SavedResult:
    """A result folder of `io.writers.segments.ResultWriter`.

    Attributes:
        folder: its place.
        head: `video_id`, `width`, `height`, `fps` and, where it is known, `source`.
        frames: names of the frames.
        scores: id -> score over the video.
        frame_scores: float [n, T] score of id 1..n on each frame, 0 where it is not visible.
    """

    folder: Path
    head: dict[str, Any]
    frames: list[str]
    scores: dict[int, float]
    frame_scores: np.ndarray

    @classmethod
    def read(cls, folder: Path) -> "SavedResult":
        """Reads what a finished run left.

        Raises:
            InputError: there is no finished result, or it cannot be read.
        """
        if not (folder / SEGMENTS).is_file():
            raise InputError(f"{folder}: no finished result of 'entitysam segment' ({SEGMENTS} is missing)")
        try:
            contents = json.loads((folder / TRACKS).read_bytes())
            tracks, frames = contents.pop("tracks"), contents.pop("frames")
            for name in frames:
                join_inside(folder / MASKS, f"{name}.png", str(folder / TRACKS))
            scores = {int(track["id"]): float(track["score"]) for track in tracks}
            frame_scores = np.zeros((max(scores, default=0), len(frames)))
            for track in tracks:
                for record in track["frames"]:
                    frame_scores[track["id"] - 1, record["frame"]] = record["score"]
        except UnsafePathError:
            raise
        except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
            raise InputError(f"{folder / TRACKS}: cannot be read ({error})") from error
        return cls(folder, contents, frames, scores, frame_scores)

    def masklets(self) -> MapMasklets:
        """The masks, from the id maps on disk."""
        return MapMasklets(lambda: map(self.read_ids, self.frames), len(self.frame_scores))

    def read_ids(self, frame: str) -> np.ndarray:
        """int32 [H, W] ids of a frame, by its name.

        Raises:
            InputError: the mask is missing or broken.
        """
        path = self.folder / MASKS / f"{frame}.png"
        try:
            return read_ids(path)
        except (OSError, SyntaxError) as error:
            raise InputError(f"{path}: cannot be read ({error})") from error

    def check(self, source: FrameSource) -> None:
        """Whether frames are those of the result, as far as sizes tell.

        Raises:
            InputError: they are not.
        """
        size, expected = (source.width, source.height), (self.head["width"], self.head["height"])
        if size != expected:
            raise InputError(
                f"{self.folder}: was made of frames of {expected[0]}x{expected[1]}, not {size[0]}x{size[1]}"
            )


def draw_result(result: SavedResult, source: FrameSource, labeller: Labeller) -> list[EntityCrop]:
    """The pictures of a result's entities.

    Raises:
        InputError: other frames, or a broken result.
    """
    result.check(source)
    return labeller.draw(result.masklets(), source, result.frame_scores)


def write_named(
    result: SavedResult, source: FrameSource, out: Path, names: EntityNames, on_frame: Step = lambda count: None
) -> None:
    """Writes the result once more, with names, to `out`, which may be its own folder.

    Raises:
        InputError: other frames; OutputError: the folder cannot be written to.
    """
    head = result.head
    video = head["video_id"], head["width"], head["height"], head["fps"]
    others = head.get("files", [])
    if out.resolve() != result.folder.resolve():
        remove_results(out)
        others = []
    times = head.get("times", [None] * len(result.frames))
    with ResultWriter(out, *video, source=head.get("source"), names=names, other_files=[*others, CROPS]) as writer:
        count = 0
        for name, time, frame, row in zip(result.frames, times, source, result.frame_scores.T):
            writer.add(name, frame, result.read_ids(name), dict(enumerate(row.tolist(), start=1)), time)
            count += 1
            on_frame(1)
        if count != len(result.frames):
            raise InputError(f"{result.folder}: was made of {len(result.frames)} frames, and the input has {count}")
        writer.finish(result.scores)


def write_shown(out: Path, title: str, shown: list[EntityCrop], answers: list[Answer]) -> None:
    """`shown.jpg`: all that the classifier saw, with its answers."""
    if shown:
        write_sheet(out / CROPS, title, shown, answers)


def entity_names(answers: Sequence[Answer], labels: Sequence[Label] | None) -> EntityNames:
    """Answers as the categories of JSON files; names without a list are numbered as they come."""
    named = [(entity, answer) for entity, answer in enumerate(answers, start=1) if answer.name is not None]
    if labels is None:
        order = list(dict.fromkeys(str(answer.name) for _, answer in named))
        categories = [{"id": index + 1, "name": name, "isthing": 1} for index, name in enumerate(order)]
        category_of = {entity: order.index(str(answer.name)) + 1 for entity, answer in named}
    else:
        categories = [{"id": l.category_id, "name": l.name, "isthing": int(l.is_thing)} for l in labels]
        category_of = {e: labels[answer.index].category_id for e, answer in named if answer.index is not None}
    return EntityNames(categories, category_of, {entity: answer.confidence for entity, answer in named})
