"""Videos as folders of frames and id maps: every kind of PNG, and what cannot be used."""

import numpy as np
import pytest
from PIL import Image
from support.video_layouts import id_maps, write_image

from entitysam.data.evaluation.id_maps import IdMaps, read_ids
from entitysam.data.images import DataError
from entitysam.engine.formats.panoptic import PanopticFormat
from entitysam.evaluation import PanopticVideo
from entitysam.io.paths import UnsafePathError
from entitysam.ops import ids_to_rgb


@pytest.fixture
def root(tmp_path):
    """Two videos of three frames; the second has an image more, which is not annotated."""
    for name, frames in (("b2", 3), ("b10", 4)):
        for t in range(frames):
            write_image(tmp_path / "images" / name / f"{t:05d}.jpg")
        (tmp_path / "ids" / name).mkdir(parents=True)
        for t, ids in enumerate(id_maps(3)):
            Image.fromarray(ids_to_rgb(ids)).save(tmp_path / "ids" / name / f"{t:05d}.png")
    return tmp_path


def test_frames_with_a_map_are_read_and_their_segments_counted(root):
    dataset = IdMaps(root)
    assert [video.video_id for video in dataset.videos] == ["b2", "b10"]  # natural order
    video = dataset.videos[1]
    assert len(video) == 3
    assert (video.height, video.width) == id_maps(1)[0].shape
    maps = id_maps(3)
    for t, segments in enumerate(video.annotation["segments"]):
        assert {s["id"]: s["area"] for s in segments} == {
            int(n): int((maps[t] == n).sum()) for n in np.unique(maps[t][maps[t] > 0])
        }
    truth = PanopticFormat(root / "out", dataset, True).pair(video, None, PanopticVideo).truth
    np.testing.assert_array_equal(np.stack([truth.read(t) for t in range(3)]), maps)


def test_palette_grey_and_rgb_maps(tmp_path):
    ids = np.array([[0, 1, 2], [2, 250, 1]])
    palette = Image.fromarray(ids.astype(np.uint8), "P")
    palette.putpalette(np.random.default_rng(0).integers(0, 255, 768).astype(np.uint8).tobytes())
    kinds = {
        "palette": palette,
        "grey": Image.fromarray(ids.astype(np.uint8)),
        "deep": Image.fromarray((ids * 100).astype(np.uint16)),
        "rgb": Image.fromarray(ids_to_rgb((ids * 1000).astype(np.int32))),
    }
    for name, factor in {"palette": 1, "grey": 1, "deep": 100, "rgb": 1000}.items():
        kinds[name].save(tmp_path / f"{name}.png")
        np.testing.assert_array_equal(read_ids(tmp_path / f"{name}.png"), ids * factor)


def test_listed_videos_and_what_cannot_be_used(root):
    (root / "val.txt").write_text("b10\n")
    assert [video.video_id for video in IdMaps(root, videos="val.txt").videos] == ["b10"]
    (root / "val.txt").write_text("../b10\n")
    with pytest.raises(UnsafePathError, match=r"val\.txt"):
        IdMaps(root, videos="val.txt")
    (root / "val.txt").write_text("\n")
    with pytest.raises(DataError, match="no videos"):
        IdMaps(root, videos="val.txt")
    with pytest.raises(DataError, match="JPEGImages: no such folder"):
        IdMaps(root, images="JPEGImages")
    (root / "ids" / "empty").mkdir()
    with pytest.raises(DataError, match="empty: no PNG files"):
        IdMaps(root)
