"""Labels the result folder of a segmented video, without segmenting it again."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from entitysam.classification.classifier import Answer, ClassifierError, NoClassifier, OnDone
from entitysam.classification.labeller import EntityCrop, Labeller
from entitysam.classification.labels import Label
from entitysam.engine.labelling.saved_result import SavedResult, mask_path
from entitysam.engine.labelling.video import LabelledVideo, label_video, write_sheet
from entitysam.io.readers.source import FrameSource, InputError
from entitysam.io.result_folder import CROPS, remove_results
from entitysam.io.writers.annotations import EntityNames
from entitysam.io.writers.segments import ResultWriter

OnFrame = Callable[[int], None]


def draw_result(result: SavedResult, source: FrameSource, labeller: Labeller) -> list[EntityCrop]:
    """The crops that labelling would send, for a dry run.

    Raises:
        InputError: the frames are not those of the result, or a mask cannot be read.
    """
    result.check_frames(source)
    return labeller.draw(result.masklets(), source, result.frame_scores)


def label_result(
    result: SavedResult, source: FrameSource, labeller: Labeller, on_done: OnDone = lambda count: None
) -> LabelledVideo:
    """Labels the entities of a result; nothing is written.

    Raises:
        InputError: the frames are not those of the result, or a mask cannot be read.
        ClassifierError: no entity gets a name.
    """
    result.check_frames(source)
    labelled = label_video(labeller, result.masklets(), source, result.frame_scores, on_done)
    check_named(labeller, labelled.num_visible, labelled.num_unknown, result.folder)
    return labelled


def check_output(result: SavedResult, out: Path) -> None:
    """Checks, before anything runs, that every mask of the result can be written below `out`.

    Raises:
        InputError: a name leaves the folder or leads through a symbolic link.
    """
    for index, name in enumerate(result.frames):
        mask_path(out, name, f"{out}: frames[{index}]")


def check_named(labeller: Labeller, num_entities: int, num_unknown: int, folder: Path) -> None:
    """Refuses a run in which the classifier has named nothing.

    Raises:
        ClassifierError: there are entities, and all are unknown.
    """
    if num_entities and num_unknown == num_entities and not isinstance(labeller.classifier, NoClassifier):
        raise ClassifierError(f"{folder}: none of {num_entities} entities got a name; nothing is written")


def write_labelled(
    result: SavedResult,
    source: FrameSource,
    out: Path,
    labelled: LabelledVideo,
    labels: Sequence[Label] | None,
    on_frame: OnFrame = lambda count: None,
) -> None:
    """Writes the result again, with names, to `out`, which may be its own folder.

    Raises:
        InputError: the frames are not those of the result; OutputError: the folder cannot be written to.
    """
    check_output(result, out)
    names = entity_names(labelled.answers, result.ids, labels)
    ids = result.ids.tolist()
    others = result.files  # a result that is labelled in place keeps its other files
    if out.resolve() != result.folder.resolve():
        remove_results(out)
        others = []
    video = result.video_id, result.width, result.height, result.fps
    with ResultWriter(out, *video, source=result.source, names=names, other_files=[*others, CROPS]) as writer:
        count = 0
        rows = zip(result.frames, result.times, source, result.iter_ids(), result.frame_scores.T)
        for name, time, frame, id_map, scores in rows:
            writer.add(name, frame, id_map, dict(zip(ids, scores.tolist())), time)
            count += 1
            on_frame(1)
        if count != len(result.frames):
            raise InputError(f"{result.folder}: has {len(result.frames)} frames, and the input has {count}")
        writer.finish(dict(zip(ids, result.scores.tolist())))
    write_sheet(out / CROPS, result.video_id, labelled, ids)


def entity_names(answers: Sequence[Answer], ids: np.ndarray, labels: Sequence[Label] | None) -> EntityNames:
    """Answers as the categories of JSON files; free names are numbered in order of appearance.

    Args:
        answers: of the n entities.
        ids: int [n] entity ids.
        labels: the class list; None = free naming.
    """
    named = [(entity, answer) for entity, answer in zip(ids.tolist(), answers, strict=True) if answer.name is not None]
    if labels is None:
        order = list(dict.fromkeys(str(answer.name) for _, answer in named))
        categories = [{"id": index + 1, "name": name, "isthing": 1} for index, name in enumerate(order)]
        category_of = {entity: order.index(str(answer.name)) + 1 for entity, answer in named}
    else:
        categories = [{"id": l.category_id, "name": l.name, "isthing": int(l.is_thing)} for l in labels]
        category_of = {e: labels[answer.index].category_id for e, answer in named if answer.index is not None}
    return EntityNames(categories, category_of, {entity: answer.confidence for entity, answer in named})
