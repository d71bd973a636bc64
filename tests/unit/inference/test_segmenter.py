"""The published protocol against a version with everything in memory; online; interrupted and resumed runs."""

import weakref
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

import entitysam
from entitysam.inference import panoptic
from entitysam.inference.resuming import OfflineRun
from entitysam.inference.segmenter import VideoSegmenter
from entitysam.io.files import OutputError
from entitysam.io.record_store import RecordStore
from entitysam.ops import fill_holes

OPEN = {"score_threshold": 0.0, "overlap_threshold": 0.1}  # random networks find little at the usual thresholds


class Interrupted(Exception):
    """In place of a broken file or Ctrl-C."""


def until(frames, stop):
    """Frames that raise when frame `stop` is requested."""
    for index, frame in enumerate(frames):
        if index == stop:
            raise Interrupted
        yield frame


def naive_protocol(model, frames, warmup=3, count_warmup=True, out_size=None, **settings):
    """The published protocol with everything in memory: ids, query of each segment, score of each query."""
    state, masks, scores = model.initial_state(), [], []
    with torch.inference_mode():
        for frame in [frames[0]] * warmup + list(frames):
            output, state = model.step(frame, state)
            scores.append(output.score)
            masks.append(fill_holes(output.mask_logits, 8).half().float())  # as they are stored
    mean = torch.stack(scores if count_warmup else scores[warmup:]).mean(0)
    stacked = torch.stack(masks[warmup:], dim=1)
    ids, queries = panoptic.merge(stacked, mean, out_size or frames[0].shape[:2], **settings)
    return ids, queries, mean, torch.stack(scores[warmup:], dim=1)


@pytest.mark.parametrize("warmup", [0, 3])
def test_offline_is_the_published_protocol(small_model, small_video, warmup):
    result = VideoSegmenter(small_model, warmup_frames=warmup, **OPEN).segment(iter(small_video))
    ids, queries, mean, frame_scores = naive_protocol(small_model, small_video, warmup, **OPEN)
    assert len(queries) > 1
    np.testing.assert_array_equal(result.query_of_segment, queries)
    np.testing.assert_array_equal(result.ids, ids)
    np.testing.assert_allclose(result.scores, mean[queries], rtol=1e-6)
    np.testing.assert_allclose(result.frame_scores, frame_scores[queries], rtol=1e-6)
    assert (result.num_frames, result.height, result.width) == (8, 48, 80)
    segments = result.to_segments()
    np.testing.assert_array_equal(segments.ids, np.stack(list(result.iter_ids())))
    assert segments.ids.dtype == np.int32


def test_warmup_passes_count_in_the_score_unless_told_otherwise(small_model, small_video):
    """Quirk 4."""
    scores = {}
    for count_warmup in (True, False):
        result = VideoSegmenter(small_model, count_warmup=count_warmup, **OPEN).segment(small_video)
        _, queries, mean, _ = naive_protocol(small_model, small_video, count_warmup=count_warmup, **OPEN)
        np.testing.assert_allclose(result.scores, mean[queries], rtol=1e-6)
        scores[count_warmup] = dict(zip(result.query_of_segment.tolist(), result.scores.tolist()))
    both = scores[True].keys() & scores[False].keys()
    assert any(abs(scores[True][q] - scores[False][q]) > 1e-4 for q in both)


def test_the_first_frame_is_encoded_once(small_model, small_video, monkeypatch):
    encoded = []
    encode = small_model.encode
    monkeypatch.setattr(small_model, "encode", lambda images: encoded.append(len(images)) or encode(images))
    VideoSegmenter(small_model, warmup_frames=3, **OPEN).segment(small_video[:3])
    assert encoded == [1, 1, 1]


def test_maps_of_another_size(small_model, small_video):
    result = VideoSegmenter(small_model, **OPEN).segment(small_video[:3], out_size=(30, 20))
    expected = naive_protocol(small_model, small_video[:3], out_size=(30, 20), **OPEN)[0]
    np.testing.assert_array_equal(result.ids, expected)


def test_no_frames(small_model):
    with pytest.raises(ValueError, match="no frames to segment"):
        VideoSegmenter(small_model).segment([])
    assert list(VideoSegmenter(small_model).stream([])) == []


def test_unknown_precision(small_model):
    with pytest.raises(ValueError, match="amp must be one of fp32, bf16, fp16, not 'int8'"):
        VideoSegmenter(small_model, amp="int8")


@pytest.mark.parametrize("amp", ["bf16", "fp16"])
def test_low_precision_keeps_most_pixels(small_model, small_video, amp):
    exact = VideoSegmenter(small_model, **OPEN).segment(small_video)
    fast = VideoSegmenter(small_model, amp=amp, **OPEN).segment(small_video)
    np.testing.assert_allclose(fast.frame_scores.mean(), exact.frame_scores.mean(), rtol=0.02)

    def queries(result):
        return np.concatenate([[-1], result.query_of_segment])[result.ids]

    assert (queries(fast) == queries(exact)).mean() > 0.8


# Online ---------------------------------------------------------------------------------------------------------------


def test_online_needs_no_look_ahead(small_model, small_video):
    given = []

    def camera():
        for index, frame in enumerate(small_video):
            given.append(index)
            yield frame

    for result in VideoSegmenter(small_model, **OPEN).stream(camera()):
        assert given[-1] == result.index
        assert result.frame is small_video[result.index]


def test_online_maps_are_merges_of_single_frames(small_model, small_video):
    """With the median scores of the last passes."""
    for result in VideoSegmenter(small_model, **OPEN).stream(small_video):
        state, masks, scores = small_model.initial_state(), None, []
        with torch.inference_mode():
            for frame in [small_video[0]] * 3 + small_video[: result.index + 1]:
                output, state = small_model.step(frame, state)
                scores.append(output.score)
                masks = fill_holes(output.mask_logits, 8)
        confidence = torch.from_numpy(np.median(torch.stack(scores[-7:]).numpy(), axis=0))
        (ids,), queries = panoptic.merge(masks[:, None], confidence, (48, 80), **OPEN)
        np.testing.assert_array_equal(result.ids, np.concatenate([[0], queries + 1])[ids])
        assert result.scores == pytest.approx(
            {q + 1: float(confidence[q]) for q in queries if (result.ids == q + 1).any()}
        )
        if result.index == 3:
            break


def test_online_warmup_passes_count_unless_told_otherwise(small_model, small_video):
    """Quirk 4, online: after the first frame the confidence is its own score, or the median with those of the warm-up."""
    outputs, state = [], small_model.initial_state()
    with torch.inference_mode():
        for _ in range(4):
            output, state = small_model.step(small_video[0], state)
            outputs.append(output.score)
    for count_warmup, expected in (
        (True, torch.from_numpy(np.median(torch.stack(outputs).numpy(), axis=0))),
        (False, outputs[-1]),
    ):
        segmenter = VideoSegmenter(small_model, count_warmup=count_warmup, **OPEN)
        scores = next(segmenter.stream(small_video)).scores
        assert scores == pytest.approx({i: expected[i - 1].item() for i in scores})
        assert scores


def test_online_streams_interleave_on_one_model(small_model, small_video):
    segmenter = VideoSegmenter(small_model, **OPEN)
    alone = [list(segmenter.stream(video)) for video in (small_video, small_video[::-1])]
    together = zip(segmenter.stream(small_video), segmenter.stream(small_video[::-1]))
    for pair, expected in zip(together, zip(*alone)):
        for result, other in zip(pair, expected):
            np.testing.assert_array_equal(result.ids, other.ids)
            assert result.scores == other.scores
            assert result.events == other.events


# Interruptions --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stop", [1, 2, 7])
def test_offline_resumes_after_an_interruption(small_model, small_video, tmp_path, stop):
    segmenter = VideoSegmenter(small_model, **OPEN)
    whole = segmenter.segment(small_video)
    with pytest.raises(Interrupted):
        segmenter.segment(until(small_video, stop), records=RecordStore(tmp_path))
    counted = []
    resumed = segmenter.segment(small_video, on_frame=lambda: counted.append(1), records=RecordStore(tmp_path))
    assert len(counted) == 8
    np.testing.assert_array_equal(resumed.ids, whole.ids)
    np.testing.assert_array_equal(resumed.scores, whole.scores)
    np.testing.assert_array_equal(resumed.frame_scores, whole.frame_scores)


def test_offline_survives_a_kill_between_saved_states(small_model, small_video, tmp_path, monkeypatch):
    """Frames after the last saved state are computed again."""
    monkeypatch.setattr("entitysam.inference.resuming.STATE_PERIOD", 3)
    segmenter = VideoSegmenter(small_model, **OPEN)
    whole = segmenter.segment(small_video)
    save = OfflineRun.save
    with monkeypatch.context() as killed:
        killed.setattr(OfflineRun, "save", lambda self: save(self) if self.num_frames == 3 else None)
        with pytest.raises(Interrupted):
            segmenter.segment(until(small_video, 5), records=RecordStore(tmp_path))
    processed = []
    encode = small_model.encode
    monkeypatch.setattr(small_model, "encode", lambda images: processed.append(1) or encode(images))
    resumed = segmenter.segment(small_video, records=RecordStore(tmp_path))
    assert len(processed) == 5
    np.testing.assert_array_equal(resumed.ids, whole.ids)
    np.testing.assert_array_equal(resumed.scores, whole.scores)


def test_a_full_disk_stops_at_a_frame_that_can_be_resumed(small_model, small_video, tmp_path, monkeypatch):
    segmenter = VideoSegmenter(small_model, **OPEN)
    whole = segmenter.segment(small_video)
    write = RecordStore.write

    def fill(self, key, payload):
        if key == "logits_00000003":
            raise OutputError(f"{self.folder / key}: cannot be written (No space left on device)")
        write(self, key, payload)

    with monkeypatch.context() as full:
        full.setattr(RecordStore, "write", fill)
        with pytest.raises(OutputError, match=r"logits_00000003: cannot be written"):
            segmenter.segment(small_video, records=RecordStore(tmp_path))
    np.testing.assert_array_equal(segmenter.segment(small_video, records=RecordStore(tmp_path)).ids, whole.ids)


def test_space_for_the_whole_video_is_checked_at_its_start(small_model, small_video, monkeypatch):
    processed = []
    encode = small_model.encode
    monkeypatch.setattr(small_model, "encode", lambda images: processed.append(1) or encode(images))
    monkeypatch.setattr("shutil.disk_usage", lambda folder: SimpleNamespace(free=5000))
    with pytest.raises(OutputError, match="the mask logits of 7 frames need"):
        VideoSegmenter(small_model, **OPEN).segment(small_video)
    assert len(processed) == 1


def test_a_finished_run_is_not_repeated(small_model, small_video, tmp_path, monkeypatch):
    segmenter = VideoSegmenter(small_model, **OPEN)
    whole = segmenter.segment(small_video, records=RecordStore(tmp_path))
    monkeypatch.setattr(small_model, "encode", lambda images: pytest.fail("nothing is left to do"))
    again = segmenter.segment(small_video, records=RecordStore(tmp_path))
    np.testing.assert_array_equal(again.ids, whole.ids)


@pytest.mark.parametrize("stop", [1, 5])
def test_online_resumes_after_an_interruption(small_model, small_video, tmp_path, stop):
    segmenter = VideoSegmenter(small_model, **OPEN)
    whole = list(segmenter.stream(small_video))
    with pytest.raises(Interrupted):
        list(segmenter.stream(until(small_video, stop), records=RecordStore(tmp_path)))
    rest = list(segmenter.stream(small_video, records=RecordStore(tmp_path)))
    assert [result.index for result in rest] == list(range(stop, 8))
    for result, expected in zip(rest, whole[stop:]):
        np.testing.assert_array_equal(result.ids, expected.ids)
        assert result.scores == expected.scores
        assert result.events == expected.events


def test_online_repeats_the_frame_that_was_not_finished(small_model, small_video, tmp_path):
    segmenter = VideoSegmenter(small_model, **OPEN)
    stream = segmenter.stream(small_video, records=RecordStore(tmp_path))
    for result in stream:
        if result.index == 3:
            break
    stream.close()
    assert next(segmenter.stream(small_video, records=RecordStore(tmp_path))).index == 3


def test_memory_does_not_grow_with_the_video(small_model, small_video):
    """Of a frame only its memory, its points and its record on disk are kept."""
    alive = []

    class Watched:
        """Remembers every frame's logits weakly."""

        device = small_model.device
        initial_state, prepare, encode = small_model.initial_state, small_model.prepare, small_model.encode

        def propagate(self, features, state):
            output, following = small_model.propagate(features, state)
            alive.append(weakref.ref(output.mask_logits))
            return replace(output), following

    VideoSegmenter(Watched(), warmup_frames=0, **OPEN).segment(small_video * 3)
    assert sum(reference() is not None for reference in alive) <= 1
    assert len(alive) == 24


# Files ----------------------------------------------------------------------------------------------------------------


def test_segment_video_reads_a_folder(small_model, small_video, tmp_path):
    for index, frame in enumerate(small_video):
        Image.fromarray(frame).save(tmp_path / f"{index}.png")
    result = entitysam.segment_video(small_model, tmp_path, stride=2, max_frames=3, **OPEN)
    expected = naive_protocol(small_model, small_video[::2][:3], **OPEN)
    np.testing.assert_array_equal(result.ids, expected[0])
    np.testing.assert_array_equal(result.query_of_segment, expected[1])
