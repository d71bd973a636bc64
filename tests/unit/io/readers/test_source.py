"""`open_frames`: dispatch, order, striding, laziness, second passes and what is refused."""

import itertools
import threading
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from PIL import Image

from entitysam.io.readers.base import Decoder
from entitysam.io.readers.source import FrameSource, InputError, open_frames

BEDROOM = Path(__file__).parents[4] / ".." / "shared" / "data" / "sam2_demo_clips" / "bedroom.mp4"


class CountingDecoder(Decoder):
    """40 frames whose every pixel is the frame's index; remembers how many it decoded and whether it was closed."""

    width, height, fps, num_frames = 6, 4, 8.0, 40

    def __init__(self, is_live: bool = False) -> None:
        self.is_live = is_live
        self.warnings = []
        self.produced = 0
        self.closed_passes = 0

    def frames(self, stride):
        try:
            for index in range(0, self.num_frames, stride):
                self.produced += 1
                yield np.full((4, 6, 3), index, np.uint8)
        finally:
            self.closed_passes += 1

    def name(self, index):
        return f"{index:05d}"


def save(path: Path, value: int, size=(6, 4)) -> Path:
    Image.fromarray(np.full((size[1], size[0], 3), value, np.uint8)).save(path)
    return path


def values(source) -> list[int]:
    return [int(frame[0, 0, 0]) for frame in source]


def test_stride_max_frames_names_and_rate():
    source = FrameSource(CountingDecoder(), stride=3, max_frames=5)
    assert values(source) == [0, 3, 6, 9, 12]
    assert source.decoded == 5
    assert source.num_frames == 5
    assert source.fps == pytest.approx(8 / 3)
    assert [source.name(i) for i in (0, 4)] == ["00000", "00012"]
    assert FrameSource(CountingDecoder(), stride=3).num_frames == len(range(0, 40, 3))


def test_every_pass_starts_at_the_first_frame_and_ends_the_one_before():
    decoder = CountingDecoder()
    source = FrameSource(decoder)
    first = iter(source)
    assert next(first)[0, 0, 0] == 0
    assert values(source) == list(range(40))
    assert values(source) == list(range(40))
    assert list(first) == []
    assert decoder.closed_passes == 3


def test_decodes_ahead_but_only_a_few_frames():
    decoder = CountingDecoder()
    iterator = iter(FrameSource(decoder))
    next(iterator)
    for _ in range(200):  # the thread needs a moment to run ahead, and must then stop by itself
        if decoder.produced >= 6:
            break
        threading.Event().wait(0.01)
    assert 2 <= decoder.produced <= 6  # 1 taken, 4 ready, 1 in the thread's hand
    next(iterator)
    assert decoder.produced <= 7


def test_closing_early_stops_the_thread_and_closes_the_input():
    decoder = CountingDecoder()
    before = threading.active_count()
    with FrameSource(decoder) as source:
        next(iter(source))
    assert decoder.closed_passes == 1
    assert threading.active_count() == before
    for _ in itertools.islice(FrameSource(decoder), 2):
        pass
    assert threading.active_count() == before


def test_an_error_while_decoding_reaches_the_consumer_after_the_good_frames():
    class Breaks(CountingDecoder):
        def frames(self, stride):
            yield from itertools.islice(super().frames(stride), 3)
            raise InputError("frame 3 is broken")

    iterator = iter(FrameSource(Breaks()))
    assert [int(next(iterator)[0, 0, 0]) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(InputError, match="frame 3 is broken"):
        next(iterator)


def test_drop_stale_gives_the_newest_frame_and_the_last():
    class Waits(CountingDecoder):
        finished = threading.Event()

        def frames(self, stride):
            yield from super().frames(stride)
            self.finished.set()

    decoder = Waits(is_live=True)
    iterator = iter(FrameSource(decoder, drop_stale=True))
    assert decoder.finished.wait(10)
    assert values(iterator) == [39]


def test_folder_is_in_natural_order_and_named_by_stems(tmp_path):
    for value in (10, 9, 1, 100, 2):
        save(tmp_path / f"frame{value}.png", value)
    (tmp_path / "notes.txt").write_text("not a frame")
    (tmp_path / "._frame3.png").write_text("what macOS leaves behind")
    with open_frames(tmp_path) as source:
        assert values(source) == [1, 2, 9, 10, 100]
        assert [source.name(i) for i in range(5)] == ["frame1", "frame2", "frame9", "frame10", "frame100"]
        assert (source.width, source.height, source.fps, source.num_frames) == (6, 4, None, 5)
    with open_frames(tmp_path, stride=2) as strided:
        assert values(strided) == [1, 9, 100]
        assert strided.name(1) == "frame9"


def test_glob_and_single_image(tmp_path):
    for value in (1, 2, 10):
        save(tmp_path / f"a{value}.png", value)
        save(tmp_path / f"b{value}.png", value + 100)
    assert values(open_frames(str(tmp_path / "b*.png"))) == [101, 102, 110]
    assert values(open_frames(tmp_path / "a10.png")) == [10]
    odd = save(tmp_path / "c[1].png", 7)  # a file whose name looks like a pattern is a file
    assert values(open_frames(odd)) == [7]


def test_folder_reads_files_only_when_they_are_due(tmp_path):
    for value in range(30):
        save(tmp_path / f"{value}.png", value)
    source = open_frames(tmp_path)
    iterator = iter(source)
    next(iterator)
    for value in range(15, 30):
        (tmp_path / f"{value}.png").unlink()
    with pytest.raises(InputError, match=r"15\.png"):
        list(iterator)
    assert source.decoded == 15


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("none.mp4", None, "no such file or folder"),
        ("empty.mp4", b"", "is empty"),
        ("empty.png", b"", "is empty"),
        ("noise.mp4", bytes(range(256)) * 20, "not a video"),
        ("notes.txt", b"some words, none of them moving\n" * 50, "not a video"),
        ("noise.png", bytes(range(256)) * 20, "not an image"),
    ],
)
def test_files_that_are_refused(tmp_path, name, content, message):
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=message) as caught:
        open_frames(path)
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


def test_folders_that_are_refused(tmp_path):
    with pytest.raises(InputError, match="no images"):
        open_frames(tmp_path)
    with pytest.raises(InputError, match="no images"):
        open_frames(str(tmp_path / "*.jpg"))
    save(tmp_path / "1.png", 1)
    save(tmp_path / "2.png", 1, size=(5, 4))
    with pytest.raises(InputError, match=r"2\.png is 5x4, not 6x4 of the first, 1\.png"):
        open_frames(tmp_path)
    (tmp_path / "2.png").unlink()
    save(tmp_path / "1.jpg", 1)
    with pytest.raises(InputError, match="same frame's name"):
        open_frames(tmp_path)


def test_options_that_are_refused(tmp_path):
    image = save(tmp_path / "1.png", 1)
    for options, message in [
        ({"stride": 0}, "stride must be at least 1"),
        ({"max_frames": 0}, "max_frames must be at least 1"),
        ({"drop_stale": True}, "only for a camera"),
    ]:
        with pytest.raises(InputError, match=message):
            open_frames(image, **options)


def test_an_audio_file_is_refused(tmp_path):
    path = tmp_path / "song.wav"
    with av.open(path, "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000, layout="mono")
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), format="s16", layout="mono")
        sound.sample_rate = 8000
        container.mux(stream.encode(sound))
    with pytest.raises(InputError, match=r"song\.wav: not a video"):
        open_frames(path)


class FakeCamera:
    """Stands in for `cv2.VideoCapture`: camera 0 gives 5 frames of a colour, others do not exist."""

    released = 0

    def __init__(self, index):
        self.exists = index == 0
        self.left = 6

    def isOpened(self):
        return self.exists

    def get(self, _):
        return 30.0

    def grab(self):
        self.left -= 1
        return self.left >= 0

    def retrieve(self):
        return True, np.full((4, 6, 3), (10, 20, 30), np.uint8)

    def read(self):
        return self.grab(), self.retrieve()[1]

    def release(self):
        FakeCamera.released += 1


def test_camera(monkeypatch, tmp_path):
    monkeypatch.setattr(cv2, "VideoCapture", FakeCamera)
    monkeypatch.chdir(tmp_path)
    with open_frames("0") as source:
        assert (source.width, source.height, source.fps, source.num_frames) == (6, 4, 30.0, None)
        assert source.is_live
        frames = list(source)
    assert len(frames) == 5
    np.testing.assert_array_equal(frames[0][0, 0], [30, 20, 10])  # OpenCV's BGR became RGB
    assert FakeCamera.released == 1
    with pytest.raises(InputError, match="camera 1: cannot be opened"):
        open_frames(1)


@pytest.mark.skipif(not BEDROOM.is_file(), reason=f"real clip not there: {BEDROOM}")
def test_a_real_clip_agrees_with_opencv():
    source = open_frames(BEDROOM, stride=20)
    assert (source.width, source.height, source.fps, source.num_frames) == (960, 540, 1.5, 10)
    ours = list(source)
    assert len(ours) == 10
    assert source.warnings == []
    capture = cv2.VideoCapture(str(BEDROOM))
    theirs = [capture.read()[1][..., ::-1] for _ in range(41)][::20]
    for a, b in zip(ours, theirs, strict=False):
        assert np.abs(a.astype(int) - b.astype(int)).mean() < 2


def test_frames_in_memory(small_video):
    images = [Image.fromarray(frame) for frame in small_video]
    for frames in (small_video, tuple(images), np.stack(small_video)):
        source = open_frames(frames, stride=3)
        assert (source.width, source.height, source.num_frames) == (80, 48, 3)
        for _ in range(2):
            np.testing.assert_array_equal(list(source), small_video[::3])
    source = open_frames(iter(images))
    assert source.num_frames is None
    np.testing.assert_array_equal(list(source), small_video)
    with pytest.raises(InputError, match="only once"):
        list(source)


@pytest.mark.parametrize(
    ("frames", "message"),
    [
        ([], "no frames"),
        (iter([]), "no frames"),
        ([np.zeros((4, 4, 3))], r"frame 0: must be a PIL image or uint8 \[H, W, 3\] RGB, not float64 \(4, 4, 3\)"),
        ([np.zeros((4, 4), np.uint8)], "frame 0: must be"),
        ([np.zeros((4, 4, 3), np.uint8), np.zeros((4, 5, 3), np.uint8)], "frame 1: is 5x4, not 4x4"),
        ([np.zeros((4, 4, 3), np.uint8), None], "frame 1: must be"),
    ],
)
def test_frames_in_memory_that_are_refused(frames, message):
    with pytest.raises(InputError, match=message):
        list(open_frames(frames))


def test_a_folder_whose_name_looks_like_a_pattern_is_taken_as_written(tmp_path):
    (tmp_path / "[set 1]").mkdir()
    save(tmp_path / "[set 1]" / "a.png", 5)
    assert values(open_frames(str(tmp_path / "[set 1]" / "*.png"))) == [5]
    assert values(open_frames(str(tmp_path / "[[]set 1]" / "*.png"))) == [5]
