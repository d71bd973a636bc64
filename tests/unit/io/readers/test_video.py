"""Videos: containers and codecs, rotation, variable rate, alpha, truncation."""

import gc
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from entitysam.io.readers.source import InputError, open_frames
from entitysam.io.readers.video import apply_display_matrix

# Python 3.10 has no later one than 17.1.
needs_new_pyav = pytest.mark.skipif(
    tuple(int(part) for part in av.__version__.split(".")[:2]) < (18, 1),
    reason="PyAV before 18.1: FFmpeg crashes on damaged VP9 streams, frames wait for the garbage collector",
)

NUM_FRAMES = 20
HEIGHT, WIDTH = 48, 64


def image_at(index: int) -> np.ndarray:
    """Grey that rises with the index; the top left corner is red, the top right one blue."""
    frame = np.full((HEIGHT, WIDTH, 3), 40 + 8 * index, np.uint8)
    frame[:16, :16] = (255, 0, 0)
    frame[:16, -16:] = (0, 0, 255)
    return frame


def write_video(path: Path, codec: str, pixel_format: str = "yuv420p", times=None, **options: str) -> Path:
    """An upright video of `NUM_FRAMES` frames at 10 frames/s, or at the given times in 1/100 s."""
    if codec not in av.codec.codecs_available:
        pytest.skip(f"this build of FFmpeg has no codec {codec}")
    with av.open(path, "w", options=options) as container:
        stream = container.add_stream(codec, rate=10)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, pixel_format
        if times is not None:
            stream.codec_context.time_base = Fraction(1, 100)
        for index in range(NUM_FRAMES):
            frame = av.VideoFrame.from_ndarray(image_at(index), format="rgb24")
            if times is not None:
                frame.pts, frame.time_base = times[index], Fraction(1, 100)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def turn(path: Path, matrix: tuple[int, int, int, int]) -> Path:
    """Writes (a, b, c, d) of the display matrix into an mp4's track header, as phones do."""
    data = bytearray(path.read_bytes())
    start = data.index(b"tkhd") + 4 + 40  # version 0: the matrix stands 40 bytes into the box's content
    a, b, c, d = (value << 16 for value in matrix)
    data[start : start + 36] = b"".join(v.to_bytes(4, "big", signed=True) for v in (a, b, 0, c, d, 0, 0, 0, 1 << 30))
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(
    ("name", "codec", "pixel_format"),
    [
        ("clip.mp4", "libx264", "yuv420p"),
        ("clip.mkv", "libx264", "yuv444p"),
        ("clip.avi", "mpeg4", "yuv420p"),
        ("clip.mov", "mjpeg", "yuvj420p"),
        ("clip.webm", "libvpx-vp9", "yuv420p"),
        ("clip.gif", "gif", "rgb8"),
        ("deep.mp4", "libx265", "yuv420p10le"),
    ],
)
def test_containers_and_codecs(tmp_path, name, codec, pixel_format):
    source = open_frames(write_video(tmp_path / name, codec, pixel_format))
    assert (source.width, source.height) == (WIDTH, HEIGHT)
    assert source.fps == pytest.approx(10, rel=0.01)
    assert source.num_frames == NUM_FRAMES
    frames = list(source)
    assert len(frames) == NUM_FRAMES
    assert source.warnings == []
    for index, frame in enumerate(frames):
        assert frame.dtype == np.uint8
        assert frame.shape == (HEIGHT, WIDTH, 3)
        assert abs(frame[24:, 20:44].mean() - (40 + 8 * index)) < 12  # a GIF of 256 colours dithers
    red, blue = frames[3][4:12, 4:12].mean((0, 1)), frames[3][4:12, -12:-4].mean((0, 1))
    assert red[0] > 200 > 100 > red[1:].max()
    assert blue[2] > 200 > 100 > blue[:2].max()


# What the corners (red top left, blue top right when stored) look like after each of the eight orientations:
# display matrix (a, b, c, d) -> corner of the red patch, corner of the blue patch, as (row, column) of the corner.
ORIENTATIONS = {
    (1, 0, 0, 1): ((0, 0), (0, -1)),
    (-1, 0, 0, 1): ((0, -1), (0, 0)),
    (1, 0, 0, -1): ((-1, 0), (-1, -1)),
    (-1, 0, 0, -1): ((-1, -1), (-1, 0)),
    (0, 1, -1, 0): ((0, -1), (-1, -1)),  # a quarter turn clockwise: phone held upright
    (0, -1, 1, 0): ((-1, 0), (0, 0)),  # a quarter turn counter-clockwise
    (0, 1, 1, 0): ((0, 0), (-1, 0)),
    (0, -1, -1, 0): ((-1, -1), (0, -1)),
}


@pytest.mark.parametrize(("matrix", "corners"), ORIENTATIONS.items())
def test_rotation_metadata(tmp_path, matrix, corners):
    path = turn(write_video(tmp_path / "phone.mp4", "libx264"), matrix)
    source = open_frames(path, max_frames=2)
    turned = matrix[0] == 0
    assert (source.width, source.height) == ((HEIGHT, WIDTH) if turned else (WIDTH, HEIGHT))
    frame = list(source)[1].astype(int)
    assert frame.shape == (source.height, source.width, 3)
    (red_row, red_column), (blue_row, blue_column) = corners
    assert frame[red_row, red_column, 0] > 180 > frame[red_row, red_column, 2] + 80
    assert frame[blue_row, blue_column, 2] > 180 > frame[blue_row, blue_column, 0] + 80


@needs_new_pyav
def test_decoded_frames_do_not_wait_for_the_garbage_collector(tmp_path):
    source = open_frames(turn(write_video(tmp_path / "phone.mp4", "libx264"), (0, 1, -1, 0)))
    gc.collect()
    gc.disable()
    try:
        assert len(list(source)) == NUM_FRAMES
        assert sum(isinstance(found, av.VideoFrame) for found in gc.get_objects()) < NUM_FRAMES / 2
    finally:
        gc.enable()


def test_display_matrix_against_its_definition():
    """Brute force: pixel (x, y) must land where x' = a x + c y, y' = b x + d y says, up to a shift."""
    pixels = np.arange(6).reshape(2, 3)
    for a, b, c, d in ORIENTATIONS:
        target = {(a * x + c * y, b * x + d * y): pixels[y, x] for y in range(2) for x in range(3)}
        left, top = min(x for x, _ in target), min(y for _, y in target)
        turned = apply_display_matrix(pixels, np.array([[a, b, 0], [c, d, 0], [0, 0, 1]]) * 65536)
        for (x, y), value in target.items():
            assert turned[y - top, x - left] == value


def test_variable_frame_rate_gives_every_frame_once(tmp_path):
    times = np.cumsum([0, *([5, 30, 7, 100] * 5)])[:NUM_FRAMES].tolist()
    source = open_frames(write_video(tmp_path / "vfr.mp4", "libx264", times=times))
    greys = [float(frame[24:, 20:44].mean()) for frame in source]
    np.testing.assert_allclose(greys, [40 + 8 * i for i in range(NUM_FRAMES)], atol=4)
    assert [source.time(i) for i in range(NUM_FRAMES)] == pytest.approx([time / 100 for time in times])
    strided = open_frames(tmp_path / "vfr.mp4", stride=3)
    assert [strided.time(i) for i, _ in enumerate(strided)] == pytest.approx([time / 100 for time in times[::3]])


@pytest.mark.parametrize(("name", "codec"), [("cut.mp4", "libx264"), ("cut.mkv", "libx264"), ("cut.avi", "mpeg4")])
def test_truncated_video_gives_what_decodes_and_a_warning(tmp_path, name, codec):
    options = {"movflags": "faststart"} if name.endswith("mp4") else {}
    path = write_video(tmp_path / name, codec, **options)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * 0.8)])
    source = open_frames(path)
    decoded = len(list(source))
    assert 0 < decoded < NUM_FRAMES
    assert source.warnings == [f"{name}: {NUM_FRAMES - decoded} of {NUM_FRAMES} frames could not be decoded"]
    assert len(list(source)) == decoded  # and once, not twice, in the second pass
    assert len(source.warnings) == 1


def damage(data: bytes, seed: int) -> bytes:
    """Cuts the file, flips bits, overwrites or removes a stretch of it."""
    random = np.random.default_rng(seed)
    broken = bytearray(data)
    kind, start = seed % 4, int(random.integers(len(data) // 5, len(data) - 50))
    stretch = slice(start, start + int(random.integers(20, 50 + len(data) // 10)))
    if kind == 0:
        del broken[start:]
    elif kind == 1:
        for place in random.integers(len(data) // 5, len(data), 8):
            broken[place] ^= 1 << int(random.integers(8))
    elif kind == 2:
        broken[stretch] = bytes(len(broken[stretch]))
    else:
        del broken[stretch]
    return bytes(broken)


@pytest.mark.parametrize(
    ("name", "codec", "pixel_format"),
    [("a.gif", "gif", "rgb8"), pytest.param("a.webm", "libvpx-vp9", "yuv420p", marks=needs_new_pyav)],
)
def test_missing_frames_of_damaged_files_are_reported(tmp_path, name, codec, pixel_format):
    """Neither format states its number of frames. Damage after which all blocks still add up cannot be told."""
    data = write_video(tmp_path / name, codec, pixel_format).read_bytes()
    short, silent = 0, 0
    for seed in range(40):
        (tmp_path / name).write_bytes(damage(data, seed))
        try:
            source = open_frames(tmp_path / name)
            count = len(list(source))
        except InputError:
            continue
        short += count < NUM_FRAMES
        silent += count < NUM_FRAMES and not source.warnings
    print(f"{name}: 40 tried, {short} short, {silent} of them without a warning")
    assert short >= 15
    assert silent == 0


def test_a_webm_without_a_duration_has_a_number_of_frames(tmp_path):
    path = tmp_path / "live.webm"
    write_video(path, "libvpx-vp9", live="1")
    with av.open(path) as container:
        assert container.duration is None
    source = open_frames(path)
    assert source.num_frames == NUM_FRAMES
    assert len(list(source)) == NUM_FRAMES
    assert source.warnings == []


@pytest.mark.parametrize("name", ["12:30.mp4", "-lead.mp4", "50%03d.mp4"])
def test_file_names_that_look_like_something_else(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    write_video(tmp_path / "clip.mp4", "libx264").rename(tmp_path / name)
    assert len(list(open_frames(name))) == NUM_FRAMES


def test_stopping_early_is_no_loss(tmp_path):
    source = open_frames(write_video(tmp_path / "clip.mp4", "libx264"), max_frames=4)
    assert len(list(source)) == 4
    assert source.warnings == []


def test_a_damaged_frame_in_the_middle_is_passed_over(tmp_path):
    path = write_video(tmp_path / "clip.mov", "mjpeg", "yuvj420p")
    with av.open(path) as container:
        packet = [p for p in container.demux(video=0) if p.size][7]
        start, size = packet.pos, packet.size
    data = bytearray(path.read_bytes())
    data[start : start + size] = bytes(size)
    path.write_bytes(data)
    source = open_frames(path)
    assert len(list(source)) == NUM_FRAMES - 1
    assert source.warnings == [f"clip.mov: 1 of {NUM_FRAMES} frames could not be decoded"]


def test_transparent_pixels_become_black(tmp_path):
    path = tmp_path / "alpha.mov"
    rgba = np.zeros((HEIGHT, WIDTH, 4), np.uint8)
    rgba[..., :3] = 200
    rgba[:, 20:40, 3], rgba[:, 40:, 3] = 128, 255
    with av.open(path, "w") as container:
        stream = container.add_stream("png", rate=10)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "rgba"
        container.mux(stream.encode(av.VideoFrame.from_ndarray(rgba, format="rgba")))
        container.mux(stream.encode())
    (frame,) = open_frames(path)
    np.testing.assert_array_equal(frame[5, [5, 25, 50], 0], [0, 100, 200])
