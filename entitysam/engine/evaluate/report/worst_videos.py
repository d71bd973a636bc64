"""The contact sheet of the worst videos: some frames of each, annotation beside prediction."""

import logging

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from entitysam.data.evaluation.base import EvaluationSet
from entitysam.data.images import read_image
from entitysam.engine.evaluate.report.result import EvaluationResult
from entitysam.engine.formats.base import Entry, PredictionFormat, resize_ids
from entitysam.evaluation.overlaps import frame_overlaps
from entitysam.structures import Video
from entitysam.visualization.overlay import draw_entities

logger = logging.getLogger(__name__)

FRAMES = 3  # per video
WIDTH = 300  # of a thumbnail in pixels
MARGIN, CAPTION = 6, 18
BACKGROUND, TEXT = (24, 24, 27), (228, 228, 231)


def worst_videos_sheet(
    result: EvaluationResult, dataset: EvaluationSet, prediction_format: PredictionFormat, count: int
) -> Image.Image | None:
    """One row per video: some frames, each with its annotation and beside it with its prediction.

    A predicted entity has the colour of the annotated entity that it overlaps most with, unless another one took it.
    Predictions of another size are scaled to the frame.

    Returns:
        the sheet; None if no video can be drawn.
    """
    videos = {str(video.video_id): video for video in dataset.videos}
    entries = prediction_format.read_index()
    rows = []
    for name in result.worst_first()[:count]:
        entry = next(iter(entries.get(name, [])), None)
        thumbnails = _row(videos[name], prediction_format, entry)
        if thumbnails:
            value = result.videos[name].metrics.get(result.main_metric, float("nan"))
            title = (
                f"{name}   {result.main_metric} {value:.1f}   (annotated | predicted, {len(thumbnails) // 2} frames)"
            )
            rows.append((title, thumbnails))
    return draw_rows(rows) if rows else None


def _row(video: Video, prediction_format: PredictionFormat, entry: Entry | None) -> list[Image.Image]:
    """Thumbnails annotation, prediction, annotation, ...; an empty list if the video cannot be drawn."""
    chosen = np.unique(np.linspace(0, len(video) - 1, FRAMES).round().astype(int)).tolist()
    size = (video.height, video.width)
    try:
        images = [read_image(video.frame_files[frame], size) for frame in chosen]
        maps = [prediction_format.maps(video, entry, frame) for frame in chosen]
        truth, predicted = in_same_colours(*(np.stack([resize_ids(ids, size) for ids in side]) for side in zip(*maps)))
        sides = zip(images, truth, predicted)
        return [thumbnail(draw_entities(image, ids, labels=False)) for image, *both in sides for ids in both]
    except Exception as error:  # the report is complete without this row
        logger.warning("video %s is not on the contact sheet: %s", video.video_id, error)
        return []


def in_same_colours(truth: np.ndarray, predicted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Renumbers two stacks of maps [T, H, W] so that the ids that overlap most are equal, one to one; int32, 0 = nothing."""
    left, right, pixels = frame_overlaps(truth, predicted)
    number_of_truth = {int(old): new for new, old in enumerate(np.unique(truth[truth > 0]), start=1)}
    number_of_predicted: dict[int, int] = {}
    taken: set[int] = set()
    for pair in np.argsort(-pixels, kind="stable"):
        g, p = int(left[pair]), int(right[pair])
        if g and p and p not in number_of_predicted and number_of_truth[g] not in taken:
            number_of_predicted[p] = number_of_truth[g]
            taken.add(number_of_truth[g])
    free = len(number_of_truth)
    for old in np.unique(predicted[predicted > 0]).tolist():
        if old not in number_of_predicted:
            free += 1
            number_of_predicted[old] = free
    return _renumber(truth, number_of_truth), _renumber(predicted, number_of_predicted)


def _renumber(ids: np.ndarray, numbers: dict[int, int]) -> np.ndarray:
    old = np.array([0, *sorted(numbers)])
    new = np.array([0, *(numbers[n] for n in sorted(numbers))], np.int32)
    return new[np.searchsorted(old, ids)]


def thumbnail(pixels: np.ndarray) -> Image.Image:
    """An image [H, W, 3] at the width of a contact sheet's column."""
    image = Image.fromarray(pixels)
    return image.resize((WIDTH, max(1, round(WIDTH * image.height / image.width))), Image.Resampling.BILINEAR)


def draw_rows(rows: list[tuple[str, list[Image.Image]]]) -> Image.Image:
    """Rows of thumbnails, each below its title."""
    columns = max(len(thumbnails) for _, thumbnails in rows)
    heights = [max(one.height for one in thumbnails) for _, thumbnails in rows]
    size = (MARGIN + columns * (WIDTH + MARGIN), MARGIN + sum(height + CAPTION + MARGIN for height in heights))
    sheet = Image.new("RGB", size, BACKGROUND)
    canvas, font, top = ImageDraw.Draw(sheet), ImageFont.load_default(12), MARGIN
    for (title, thumbnails), height in zip(rows, heights):
        canvas.text((MARGIN, top), title, TEXT, font)
        for column, thumbnail in enumerate(thumbnails):
            sheet.paste(thumbnail, (MARGIN + column * (WIDTH + MARGIN), top + CAPTION))
        top += height + CAPTION + MARGIN
    return sheet
