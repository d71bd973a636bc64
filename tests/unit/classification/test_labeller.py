"""From masks to labels to the segments of a task."""

import io

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from entitysam.classification.classifier import UNKNOWN, Answer
from entitysam.classification.labeller import Labeller, vote
from entitysam.classification.labels import Label
from entitysam.classification.masklets import MapMasklets
from entitysam.classification.protocols import (
    task_labels,
    video_instances,
    video_panoptic,
    video_semantic,
)
from entitysam.classification.visual_prompts import VisualPrompt
from entitysam.engine.labelling.build import build_labeller
from entitysam.engine.labelling.evaluation import StoredMaps, sum_statistics
from entitysam.engine.labelling.video import LabelledVideo, write_sheet
from entitysam.inference.panoptic import PanopticMerge
from entitysam.inference.segmenter import VideoSegmenter
from entitysam.registry import ConfigError

LABELS = (Label(30, "cat"), Label(10, "sky", is_thing=False), Label(20, "grass", is_thing=False))
CAT, SKY, GRASS = (Answer(label.name, index) for index, label in enumerate(LABELS))


class ByColour:
    """A classifier that reads the colour in the middle of the image."""

    def __init__(self):
        self.seen = []

    def classify(self, images, on_done=lambda count: None):
        self.seen += images
        return [self._answer(np.asarray(Image.open(io.BytesIO(image)))) for image in images]

    def _answer(self, pixels):
        middle = pixels[pixels.shape[0] // 2, pixels.shape[1] // 2].astype(int)
        return [CAT, SKY, GRASS][int(middle.argmax())] if middle.max() > 60 else UNKNOWN

    def statistics(self):
        return {}


def clip():
    """Three frames: entity 1 turns from blue to green, entity 2 is green and only on the first frame, entity 3 has no pixel."""
    maps, frames = np.zeros((3, 20, 30), np.int32), np.full((3, 20, 30, 3), 20, np.uint8)
    maps[:, 2:14, 2:14] = 1
    maps[0, 4:16, 16:28] = 2
    frames[maps == 1] = (0, 0, 200)
    frames[2][maps[2] == 1] = (0, 200, 0)
    frames[maps == 2] = (0, 180, 0)
    return maps, frames


SCORES = np.array([[0.1, 0.9, 0.8], [0.5, 0.6, 0.7], [1, 1, 1]])


def test_the_frame_of_highest_confidence_is_drawn():
    maps, frames = clip()
    labeller = Labeller(ByColour(), VisualPrompt(min_side=32))
    crops = labeller.draw(MapMasklets(lambda: maps, 3), iter(frames), SCORES)
    assert [(crop.entity, crop.frame) for crop in crops] == [(2, 0), (1, 1)]
    assert labeller.classify(crops, 3) == [GRASS, SKY, UNKNOWN]


def test_several_frames_vote():
    maps, frames = clip()
    labeller = Labeller(ByColour(), VisualPrompt(min_side=32), top_frames=3)
    crops = labeller.draw(MapMasklets(lambda: maps, 3), iter(frames), SCORES)
    assert [(crop.entity, crop.frame) for crop in crops] == [(1, 0), (2, 0), (1, 1), (1, 2)]
    assert labeller.classify(crops, 3) == [Answer("grass", 2, pytest.approx(2 / 3)), SKY, UNKNOWN]


def test_frames_of_another_size_are_resized_to_the_maps():
    maps, frames = clip()
    large = frames.repeat(2, axis=1).repeat(2, axis=2)
    prompt = VisualPrompt(min_side=32)
    crops, expected = (
        Labeller(ByColour(), prompt).draw(MapMasklets(lambda: maps, 3), iter(f), SCORES) for f in (large, frames)
    )
    assert crops == expected


def test_votes():
    weak = Answer("cat", 0, 0.3)
    assert vote([weak, Answer("sky", 1, 0.5), weak]) == Answer("cat", 0, pytest.approx(0.2))
    assert vote([CAT, SKY]) == Answer("cat", 0, 0.5)
    assert vote([UNKNOWN, SKY]) == Answer("sky", 1, 0.5)
    assert vote([UNKNOWN, UNKNOWN]) == vote([]) == UNKNOWN
    with pytest.raises(ConfigError, match="top_frames"):
        Labeller(ByColour(), VisualPrompt(), 0)


class Entities:
    def __init__(self, maps, scores):
        self.maps, self.scores = maps, np.array(scores)

    def iter_ids(self):
        return iter(self.maps)


MAPS = np.array([[[1, 2, 3, 4, 5, 0]], [[1, 3, 3, 4, 5, 5]]])
VIDEO = Entities(MAPS, [0.5, 0.2, 0.9, 0.4, 0.6])
ANSWERS = [CAT, SKY, SKY, UNKNOWN, Answer("cat", 0, 0.5)]


def test_panoptic_keeps_things_and_merges_stuff():
    named = video_panoptic(VIDEO, ANSWERS, LABELS)
    np.testing.assert_array_equal(np.stack(list(named.iter_ids())), [[[1, 2, 2, 0, 3, 0]], [[1, 2, 2, 0, 3, 3]]])
    assert named.categories.tolist() == [30, 10, 30]
    assert named.scores.tolist() == [0.5, 0.9, 0.6]


def test_semantic_leaves_out_unknown_entities():
    named = video_semantic(VIDEO, ANSWERS, LABELS)
    np.testing.assert_array_equal(np.stack(list(named.iter_ids())), [[[1, 2, 3, 0, 4, 0]], [[1, 3, 3, 0, 4, 4]]])
    assert named.categories.tolist() == [30, 10, 10, 30]


def test_semantic_uses_dense_maps_where_a_method_has_them():
    class Dense(Entities):
        def iter_dense_ids(self, segments):
            assert segments == [1, 2, 3, 5]
            return iter(np.full((2, 1, 6), 5))

    named = video_semantic(Dense(MAPS, VIDEO.scores), ANSWERS, LABELS)
    assert {int(i) for ids in named.iter_ids() for i in ids.ravel()} == {4}
    assert named.categories[3] == 30


def test_instances_drop_the_background_and_weigh_scores():
    labels = task_labels("vis", [{"id": 30, "name": "cat"}, {"id": 31, "name": "dog"}])
    assert labels[-1].is_background
    background = Answer(labels[2].name, 2)
    named = video_instances(VIDEO, [CAT, background, Answer("dog", 1, 0.5), UNKNOWN, background], labels)
    np.testing.assert_array_equal(np.stack(list(named.iter_ids())), [[[1, 0, 2, 0, 0, 0]], [[1, 2, 2, 0, 0, 0]]])
    assert named.categories.tolist() == [30, 31]
    assert named.scores.tolist() == [0.5, 0.45]
    assert len(task_labels("vps", [{"id": 30, "name": "cat"}])) == 1


@pytest.mark.parametrize("protocol", [video_panoptic, video_semantic, video_instances])
def test_a_video_without_entities(protocol):
    named = protocol(Entities(np.zeros((2, 3, 4), int), []), [], LABELS)
    assert not np.stack(list(named.iter_ids())).any()
    assert len(named.scores) == len(named.categories) == 0


def test_dense_maps_are_the_argmax_over_the_named_segments():
    generator = torch.Generator().manual_seed(3)
    logits = 8 * F.interpolate(torch.randn(5, 6, 4, 5, generator=generator), scale_factor=4, mode="bicubic") - 2
    scores = torch.tensor([0.9, 0.8, 0.01, 0.7, 0.6])
    merge = PanopticMerge(scores, (21, 33), overlap_threshold=0.1)
    decision = merge.decide(lambda: logits.split(2, dim=1))
    assert len(decision.queries) == 4  # all but the one below the score threshold
    quality = (logits[:, ::5] > 1).sum((1, 2, 3)) / (logits[:, ::5] > -1).sum((1, 2, 3))
    for segments in ([1, 2, 3, 4], [2, 4], [3]):
        found = np.stack(list(merge.dense_maps(lambda: logits.split(2, dim=1), decision, segments)))
        queries = decision.queries[np.array(segments) - 1]
        large = F.interpolate(logits.transpose(0, 1), size=(21, 33), mode="bilinear", align_corners=False)
        claims = (scores + 0.5 * quality)[queries, None, None] * large[:, queries].sigmoid()
        np.testing.assert_array_equal(found, np.array(segments)[claims.argmax(1)])
        assert found.dtype == np.int32
    assert not np.stack(list(merge.dense_maps(lambda: [logits], decision, []))).any()


def test_segmented_videos_give_dense_maps_and_are_stored(small_model, small_video):
    segmented = VideoSegmenter(small_model, warmup_frames=1, score_threshold=0.0, overlap_threshold=0.1).segment(
        small_video
    )
    count = len(segmented.scores)
    assert count > 1
    stored = StoredMaps(segmented)
    for _ in range(2):
        np.testing.assert_array_equal(np.stack(list(stored.iter_ids())), segmented.ids)
    np.testing.assert_array_equal(stored.frame_scores, segmented.frame_scores)
    dense = np.stack(list(stored.iter_dense_ids(range(1, count + 1))))
    assert dense.min() >= 1
    assert dense.max() <= count
    owned = segmented.ids > 0  # where the panoptic map has an owner, it is the strongest claim
    np.testing.assert_array_equal(dense[owned], segmented.ids[owned])


def test_statistics_of_processes_are_added():
    parts = [{"model": "m", "requests": 2, "faults": {"429": 1}, "cost": 0.5}, {"model": "m", "requests": 3}]
    parts.append({"faults": {"429": 2, "500": 1}})
    assert sum_statistics(parts) == {"model": "m", "requests": 5, "faults": {"429": 3, "500": 1}, "cost": 0.5}


def test_the_classifier_none_leaves_all_unknown(tmp_path):
    maps, frames = clip()
    labeller = build_labeller({"name": "none", "visual_prompt": {"min_side": 32}}, "classifier", LABELS)
    crops = labeller.draw(MapMasklets(lambda: maps, 3), iter(frames))
    answers = labeller.classify(crops, 3)
    assert answers == [UNKNOWN] * 3
    write_sheet(tmp_path / "sheet.png", "clip", LabelledVideo(answers, crops))
    assert Image.open(tmp_path / "sheet.png").format == "PNG"
