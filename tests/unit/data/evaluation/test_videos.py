"""Readers of evaluation sets, and the submission formats: what is written comes back, and scores as it should."""

import json
import zipfile

import numpy as np
import pytest
from PIL import Image
from support.coco_layout import write_coco
from support.video_layouts import id_maps, write_entityseg, write_vipseg, write_vspw, write_ytvis

from entitysam.data.categories import read_categories
from entitysam.data.evaluation.coco_panoptic import CocoPanopticImages
from entitysam.data.evaluation.vipseg import VIPSegVideos
from entitysam.data.evaluation.vspw import VSPWVideos, read_labels
from entitysam.data.evaluation.ytvis import EntitySegImages, YouTubeVIS
from entitysam.data.images import DataError
from entitysam.engine.evaluate.loop import measure_saved, predict_and_measure, read_frames
from entitysam.engine.evaluate.progress import share
from entitysam.engine.formats.instances import InstanceFormat
from entitysam.engine.formats.panoptic import PanopticFormat
from entitysam.engine.formats.semantic import SemanticFormat, fill_from_nearest
from entitysam.evaluation import build_evaluators
from entitysam.io.record_store import RecordStore
from entitysam.registry import ConfigError

ENTITY = [{"id": 1, "name": "entity", "isthing": 1}]


class Oracle:
    """A method that knows the truth of `video_layouts` (or of any maps), as entities 1..n."""

    def __init__(self, maps):
        self.old = np.unique(maps[maps > 0])
        self.maps = np.concatenate([[0], np.arange(1, len(self.old) + 1)]).astype(np.int32)[
            np.searchsorted(np.concatenate([[0], self.old]), maps)
        ]
        self.scores = np.linspace(0.9, 0.5, len(self.old))

    def segment(self, frames, out_size):
        count = sum(1 for frame in frames if frame.shape[:2] == tuple(out_size))
        self.iter_ids = lambda: iter(self.maps[:count])
        return self


class Names:
    """A labeller by a table: entity number -> category."""

    def __init__(self, categories):
        self.categories = np.array(categories)

    def label(self, video, segmented):
        segmented.categories = self.categories
        return segmented

    def statistics(self):
        return {}


def run_oracle(dataset, prediction_format, nodes, maps, tmp_path, labeller=None, categories=ENTITY):
    """Predicts, then measures what was saved again: both results."""
    records = RecordStore.start(tmp_path / "out" / "records", {}, resume=False)

    def evaluators():
        return build_evaluators(nodes, categories=categories)

    class_agnostic = labeller is None
    writer = prediction_format(tmp_path / "out", dataset, class_agnostic)
    first = predict_and_measure(dataset, Oracle(maps), writer, evaluators(), records, quiet=True, labeller=labeller)
    again = measure_saved(
        dataset, prediction_format(tmp_path / "out", dataset, class_agnostic), evaluators(), quiet=True
    )
    assert first.failures == again.failures == []
    np.testing.assert_equal(first.metrics, again.metrics)
    return first


def test_vipseg(tmp_path):
    dataset = VIPSegVideos(write_vipseg(tmp_path / "data"))
    assert [video.video_id for video in dataset.videos] == ["a", "b"]
    video = dataset.videos[1]
    assert (len(video), video.height, video.width) == (4, 24, 40)
    assert video.frame_files[2] == tmp_path / "data/images/b/002.jpg"
    assert next(read_frames(video)).shape == (24, 40, 3)
    nodes = [{"name": "veq", "windows": [1, 4]}, {"name": "ytvis_ap_agnostic"}]
    result = run_oracle(dataset, PanopticFormat, nodes, id_maps(), tmp_path)
    assert result.metrics["VEQ"] == pytest.approx(100)
    assert result.metrics["AP^ca"] == pytest.approx(100)


def test_a_perfect_named_prediction_of_vipseg(tmp_path):
    dataset = VIPSegVideos(write_vipseg(tmp_path / "data"))
    nodes = [{"name": "vpq", "windows": [1, 2]}]
    # In ascending order of the ids 4, 9, 70000.
    result = run_oracle(dataset, PanopticFormat, nodes, id_maps(), tmp_path, Names([3, 5, 3]), dataset.categories)
    assert result.metrics["VPQ"] == pytest.approx(100)
    result = run_oracle(dataset, PanopticFormat, nodes, id_maps(), tmp_path, Names([3, 3, 3]), dataset.categories)
    assert result.metrics["VPQ-St"] == 0


def test_coco_panoptic(tmp_path):
    root = write_coco(tmp_path / "data", count=2)
    dataset = CocoPanopticImages(root, "train2017")
    ids = np.zeros((1, 40, 60), np.int32)
    ids[0, :20] = 12
    ids[0, 10:30, 10:20] = 5
    nodes = [{"name": "veq", "windows": [1]}, {"name": "entity_ap"}]
    result = run_oracle(dataset, PanopticFormat, nodes, ids, tmp_path)
    assert result.metrics["VEQ"] == pytest.approx(100)
    assert result.metrics["AP^e"] == pytest.approx(100)
    written = json.loads((tmp_path / "out/pred.json").read_text())["annotations"][0]
    assert written["image_id"] == 0
    assert written["file_name"] == "000.png"
    assert (tmp_path / "out/pan_pred/000.png").is_file()


def test_vspw(tmp_path):
    dataset = VSPWVideos(write_vspw(tmp_path / "data"))
    assert [video.video_id for video in dataset.videos] == ["a", "b"]
    assert len(dataset.categories) == 124
    nodes = [{"name": "semantic", "windows": [2]}]
    maps = id_maps(9)
    result = run_oracle(dataset, SemanticFormat, nodes, maps, tmp_path, Names([3, 5, 3]))
    labels = read_labels(tmp_path / "out/semantic_pred/a/000.png")
    inside = maps[0] > 0
    assert labels[inside].tolist() == np.where(maps[0] == 9, 5, 3)[inside].tolist()
    assert set(np.unique(labels)) == {3, 5}  # what belongs to no entity takes the nearest one's category
    assert result.metrics["mIoU"] == pytest.approx(100)
    with pytest.raises(ConfigError, match="need categories"):
        SemanticFormat(tmp_path, dataset, True).write(dataset.videos[0], Oracle(maps))


def test_fill_from_nearest():
    ids = np.array([[1, 0, 0, 0, 2], [0, 0, 0, 0, 0]])
    filled = fill_from_nearest(ids)
    assert filled[:, :2].tolist() == [[1, 1], [1, 1]]
    assert filled[:, 3:].tolist() == [[2, 2], [2, 2]]
    np.testing.assert_array_equal(fill_from_nearest(np.zeros((2, 2), int)), np.zeros((2, 2)))


@pytest.mark.parametrize("occlusion", [False, True])
def test_youtube_vis_and_ovis(tmp_path, occlusion):
    dataset = YouTubeVIS(write_ytvis(tmp_path / "data", occlusion=occlusion))
    assert [video.video_id for video in dataset.videos] == ["12", "7"]
    nodes = [{"name": "ovis_ap" if occlusion else "ytvis_ap"}]
    maps = np.where(id_maps() == 9, 0, id_maps())
    result = run_oracle(dataset, InstanceFormat, nodes, maps, tmp_path, Names([5, 3]), dataset.categories)
    assert result.metrics["AP"] == pytest.approx(100)
    assert set(result.videos) == {"12", "7"}
    assert result.videos["7"].metrics["AP"] == pytest.approx(100)
    with zipfile.ZipFile(tmp_path / "out/results.zip") as archive:
        submitted = json.loads(archive.read("results.json"))
    assert len(submitted) == 4
    assert submitted[0].keys() == {"video_id", "category_id", "score", "segmentations"}
    assert [entry["video_id"] for entry in submitted] == [12, 12, 7, 7]
    # Entities without names, and one more false one of the background in front: half precision at the top.
    worse = run_oracle(dataset, InstanceFormat, [{"name": "ytvis_ap_agnostic"}], id_maps(), tmp_path)
    assert worse.metrics["AR^ca100"] == pytest.approx(100)
    assert 50 < worse.metrics["AP^ca"] < 100


def test_benchmarks_without_public_annotations_get_a_submission(tmp_path):
    root = write_ytvis(tmp_path / "data")
    contents = json.loads((root / "valid.json").read_text())
    del contents["annotations"], contents["categories"]
    (root / "valid.json").write_text(json.dumps(contents))
    dataset = YouTubeVIS(root, categories="ytvis_2021")
    assert not dataset.has_truth
    assert len(dataset.categories) == 40
    result = run_oracle(dataset, InstanceFormat, [], id_maps(), tmp_path)
    assert result.metrics == {}
    assert len(json.loads((tmp_path / "out/results.json").read_text())) == 6


def test_entityseg(tmp_path):
    dataset = EntitySegImages(write_entityseg(tmp_path / "data"))
    assert dataset.videos[0].frame_files[0].parent.name == "entity_01_11580"
    maps = np.where(id_maps(1) == 4, 0, id_maps(1))
    result = run_oracle(dataset, InstanceFormat, [{"name": "entity_ap"}], maps, tmp_path)
    assert result.metrics["AP^e"] == pytest.approx(100)
    written = json.loads((tmp_path / "out/results.json").read_text())
    assert written[0].keys() == {"image_id", "category_id", "score", "segmentation"}
    assert not (tmp_path / "out/results.zip").exists()


def test_category_lists():
    counts = {"vipseg": (124, 58), "vspw": (124, 58), "ytvis_2019": (40, 40), "ytvis_2021": (40, 40)}
    for name, (total, things) in {**counts, "ovis": (25, 25), "coco_panoptic": (133, 80)}.items():
        listed = read_categories(name)
        assert len({category["id"] for category in listed}) == len(listed) == total
        assert sum(category["isthing"] for category in listed) == things
    assert read_categories("vipseg")[60]["name"] == "person"
    with pytest.raises(ConfigError, match="no categories 'vip'; known: coco_panoptic, ovis"):
        read_categories("vip")


def test_videos_are_shared_by_length():
    lengths = [3, 30, 5, 20, 10, 1]
    shares = share(lengths, 2)
    assert shares == [[1, 2], [3, 4, 0, 5]]
    assert share(lengths, 1) == [[1, 3, 4, 2, 0, 5]]
    assert share([4], 3) == [[0], [], []]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.pop("videos"), "no 'videos' in it"),
        (lambda c: c["videos"].pop(), "video b is not in 'videos'"),
        (lambda c: c["annotations"].append(c["annotations"][0]), "video a is annotated twice"),
        (
            lambda c: c["annotations"][0]["annotations"][1].pop("file_name"),
            r"annotations\[0\]\.annotations\[1\]: no 'file_name'",
        ),
    ],
)
def test_a_json_of_vipseg_that_contradicts_itself(tmp_path, change, message):
    root = write_vipseg(tmp_path)
    path = root / "panoptic_gt_VIPSeg_val.json"
    contents = json.loads(path.read_text())
    change(contents)
    path.write_text(json.dumps(contents))
    with pytest.raises(DataError, match=message):
        VIPSegVideos(root)


def test_missing_data_sets_are_named(tmp_path):
    for reader in (VIPSegVideos, VSPWVideos, YouTubeVIS, EntitySegImages, CocoPanopticImages):
        with pytest.raises(DataError, match=str(tmp_path)):
            reader(tmp_path)


def test_label_maps(tmp_path):
    palette = Image.fromarray(np.array([[0, 7], [255, 1]], np.uint8), "P")
    palette.putpalette(list(range(256)) * 3)
    palette.save(tmp_path / "palette.png")
    assert read_labels(tmp_path / "palette.png").tolist() == [[0, 7], [255, 1]]
    Image.new("RGB", (2, 2)).save(tmp_path / "colour.png")
    with pytest.raises(DataError, match=r"colour.png: mode RGB"):
        read_labels(tmp_path / "colour.png")
    with pytest.raises(DataError, match=r"none.png: no such file"):
        read_labels(tmp_path / "none.png")
