"""Prompted SAM 2.1 on a small random network: batching, memory, checks. Its numbers: tests/parity/test_sam2.py."""

from functools import partial

import numpy as np
import pytest
import torch
from support.small_sam2 import small_sam2

from entitysam.sam2.prompts import Prompt
from entitysam.sam2.segmenter import PromptedSegmenter, SeekableFrames
from entitysam.sam2.session import PromptedSession, PromptError

PROMPTS = {
    4: lambda some: some.add_points(0, 4, [[20, 12]], [1]),
    9: lambda some: some.add_points(0, 9, box=[40, 10, 75, 40]),
    2: lambda some: some.add_points(2, 2, [[50, 30], [5, 5]], [1, 0]),
}


@pytest.fixture(scope="module")
def model():
    return small_sam2()


def session(model, frames, **options):
    return PromptedSession(model, frames, fill_hole_area=0, **options)


def test_objects_together_equal_each_alone(model, small_video):
    together = session(model, small_video)
    for prompt in PROMPTS.values():
        prompt(together)
    frames = list(together.propagate())
    for row, prompt in enumerate(PROMPTS.values()):
        alone = session(model, small_video)
        prompt(alone)
        for frame in alone.propagate(start=0):
            expected = frames[frame.index].mask_logits[row]
            torch.testing.assert_close(frame.mask_logits[0], expected, rtol=1e-4, atol=1e-4)


def test_objects_with_one_layout_share_a_pass(model, small_video, monkeypatch):
    some = session(model, small_video)
    for object_id in range(1, 7):
        some.add_points(0, object_id, [[10 * object_id, 20]], [1])
    sizes = []
    decode = model.decode
    monkeypatch.setattr(model, "decode", lambda *given: sizes.append(given[-1]) or decode(*given))
    list(some.propagate())
    assert sizes == [6] * 7


def test_memory_is_constant_without_history(model, small_video):
    long = [small_video[t % 8] for t in range(40)]
    some, kept = session(model, long, keep_history=False), session(model, long)
    for each in (some, kept):
        each.add_points(0, 1, [[20, 12]], [1])
    for short, full in zip(some.propagate(), kept.propagate()):
        torch.testing.assert_close(short.mask_logits, full.mask_logits, rtol=0, atol=0)
        assert len(some.objects[1].tracked) <= 16
    assert len(kept.objects[1].tracked) == 39


def test_a_correction_enters_the_memory_at_the_next_propagation(model, small_video):
    some = session(model, small_video)
    some.add_points(0, 1, [[20, 12]], [1])
    before = [frame.mask_logits.clone() for frame in some.propagate()]
    corrected = some.add_points(4, 1, [[70, 40]], [0])
    assert not torch.equal(corrected.mask_logits, before[4])
    after = [frame.mask_logits for frame in some.propagate()]
    assert torch.equal(after[4], corrected.mask_logits)
    assert not torch.equal(after[6], before[6])


def test_segmenter_covers_frames_before_and_after_the_first_prompt(model, small_video):
    steps = []
    prompts = [
        Prompt(3, frame=5, points=((20.0, 12.0),), labels=(1,)),
        Prompt(1, frame=2, box=(40, 10, 75, 40)),
        Prompt(1, frame=6, points=((60.0, 20.0),), labels=(1,)),
    ]
    result = PromptedSegmenter(model).segment(small_video, prompts, on_frame=lambda: steps.append(1))
    assert result.num_frames == len(steps) == len(small_video)
    assert result.ids.shape == (8, 48, 80)
    assert set(np.unique(result.ids)) <= {0, 1, 3}
    assert result.frame_scores.shape == (3, 8)
    assert (result.frame_scores[1] == 0).all()  # id 2 is not used
    # The frames before the first prompt are those of a reversed video.
    reverse = session(model, small_video[5::-1] + small_video[6:])
    reverse.add_points(0, 3, [[20.0, 12.0]], [1])
    alone = {5 - frame.index: frame.mask_logits[0] > 0.1 for frame in reverse.propagate() if frame.index <= 5}
    assert any(alone[t].any() for t in range(5))
    for t in range(5):  # object 1 may cover it, nothing else; stored logits are rounded to float16
        assert not (alone[t].numpy() & (result.ids[t] == 0)).any()


def test_frames_are_read_in_any_order(small_video):
    opened = []

    class Counted:
        def __iter__(self):
            opened.append(1)
            return iter(small_video)

    frames = SeekableFrames(Counted())
    for index in [0, 1, 1, 5, 7, 6, 5, 4, 0, 3]:
        assert frames[index] is small_video[index]
    assert len(frames) == 8
    assert len(opened) <= 5
    with pytest.raises(PromptError, match="ends after 8 frames, before frame 9"):
        SeekableFrames(small_video, 12)[9]


BAD = {
    "object 1: there is no frame 8": lambda some: some.add_points(8, 1, [[1, 1]], [1]),
    "object 1, frame 0: a point lies outside the frame of 80 x 48": lambda some: some.add_points(0, 1, [[90, 1]], [1]),
    "neither points nor a box": lambda some: some.add_points(0, 1),
    "box .* is empty": lambda some: some.add_points(0, 1, box=[5, 5, 5, 9]),
    "box .* lies outside": lambda some: some.add_points(0, 1, box=[5, 5, 500, 9]),
    "labels are 1": lambda some: some.add_points(0, 1, [[1, 1]], [2]),
    "2 points and 1 labels": lambda some: some.add_points(0, 1, [[1, 1], [2, 2]], [1]),
    "both inside and outside": lambda some: some.add_points(0, 1, [[1, 1], [1, 1]], [1, 0]),
    r"the mask is \[4, 4\], the video \[48, 80\]": lambda some: some.add_mask(0, 1, np.ones((4, 4), bool)),
    "no object has a prompt": lambda some: list(some.propagate()),
    "there is no object 7": lambda some: some.remove(7),
    "outside the frame of": lambda some: some.add_points(0, 1, [[float("nan"), 1]], [1]),
}


@pytest.mark.parametrize("message", BAD)
def test_bad_prompts_are_named(model, small_video, message):
    some = session(model, small_video)
    with pytest.raises(PromptError, match=message):
        BAD[message](some)
    assert some.objects == {}


def test_prompts_are_checked_before_the_network_runs(model, small_video):
    good = Prompt(1, frame=0, points=((20, 12),), labels=(1,))
    for bad, message in [
        (Prompt(2, frame=8, box=(0, 0, 5, 5)), r"object 2: there is no frame 8; the video has 8"),
        (Prompt(2, frame=5, box=(0, 0, 0, 5)), r"object 2, frame 5: box \[0, 0, 0, 5\] is empty"),
        (Prompt(1, frame=5, points=((999, 0),), labels=(1,)), "object 1, frame 5: a point lies outside"),
        (Prompt(1, frame=5, mask=np.zeros((2, 2), bool)), r"object 1, frame 5: the mask is \[2, 2\]"),
    ]:
        segmented = []
        with pytest.raises(PromptError, match=message):
            PromptedSegmenter(model).segment(small_video, [good, bad], on_frame=partial(segmented.append, 1))
        assert not segmented
