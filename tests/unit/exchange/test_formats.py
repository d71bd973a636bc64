"""Every format: ours -> X -> ours is equal but for what FORMATS says is lost, and what is written is what X says it is."""

import base64
import io
import json
import sys
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from xml.etree import ElementTree

import numpy as np
import pytest
import yaml
from PIL import Image
from pycocotools import mask as coco_mask
from support.collections import write_images, write_video

from entitysam.data.detections.readers import read_detections
from entitysam.errors import ConfigError
from entitysam.exchange import (
    FORMATS,
    export_result,
    from_supervision,
    import_result,
    read_result,
    to_supervision,
    write_result,
)
from entitysam.exchange.formats.coco import write_youtube_vis
from entitysam.exchange.video import Entity, Instance, TrackedVideo, encode
from entitysam.io.files import OutputError
from entitysam.io.readers.base import InputError

HEIGHT, WIDTH, FRAMES = 24, 40, 4
BOXES_ONLY = ("label-studio",)


def mask(top, left, height, width):
    found = np.zeros((HEIGHT, WIDTH), bool)
    found[top : top + height, left : left + width] = True
    return found


@pytest.fixture(scope="module")
def video():
    """Three entities with disjoint masks: one has a hole, one is away on a frame, one comes late; no frame is empty."""
    entities = [Entity(2, 0.75, "dog"), Entity(5, 0.5), Entity(999, 0.25, "ünï <b>")]
    for index in range(FRAMES):
        holed = mask(2, 3 + index, 12, 14) & ~mask(5, 6 + index, 4, 3)
        entities[0].instances[index] = Instance.of_mask(holed, 0.5 + index / 8)
        if index != 1:
            entities[1].instances[index] = Instance.of_mask(mask(16, 30 - index, 6, 5) | mask(20, 2, 2, 2), 0.5)
        if index >= 2:
            entities[2].instances[index] = Instance.of_mask(mask(0, 36, 3, 4), 0.25)
    names = [f"{index:05d}" for index in range(FRAMES)]
    return TrackedVideo("clip", WIDTH, HEIGHT, names, entities, 10.0, [index / 10 for index in range(FRAMES)])


@pytest.fixture(scope="module")
def result(video, tmp_path_factory):
    folder = tmp_path_factory.mktemp("result") / "clip"
    write_result(video, folder)
    return folder


def named(video):
    """With ids up to 255, for DAVIS."""
    return replace(video, entities=[replace(e, id=min(e.id, 255)) for e in video.entities])


def masks_of(video, key=lambda entity: entity.id):
    return {
        (key(entity), index): instance.mask for entity in video.entities for index, instance in entity.instances.items()
    }


def test_a_result_folder_is_read_as_it_was_written(video, result):
    assert read_result(result) == video
    assert sorted(path.name for path in result.iterdir()) == ["masks", "segments.json", "segments.jsonl", "tracks.json"]


@pytest.mark.parametrize("name", [name for name, kind in FORMATS.items() if kind.imports])
def test_round_trip(name, video, result, tmp_path):
    if name == "davis":
        with pytest.raises(InputError, match=r"clip: id 999 does not fit into a DAVIS palette \(1\.\.255\)"):
            export_result(result, name, tmp_path / "davis")
        video, result = named(video), tmp_path / "small"
        write_result(video, result)
    out = tmp_path / ("clip" + FORMATS[name].suffix)
    assert export_result(result, name, out) == out
    import_result(out, name, tmp_path / "back")
    found = read_result(tmp_path / "back")

    assert (found.id, found.width, found.height, found.frames) == ("clip", WIDTH, HEIGHT, video.frames)
    if name == "yolo":  # has no ids
        assert len(found.entities) == sum(len(entity.instances) for entity in video.entities)
        expected = sorted((index, code["counts"]) for (_, index), code in masks_of(video).items())
        assert sorted((index, code["counts"]) for (_, index), code in masks_of(found).items()) == expected
        return
    assert [entity.id for entity in found.entities] == [entity.id for entity in video.entities]
    for entity, other in zip(video.entities, found.entities):
        assert list(entity.instances) == list(other.instances)
        for index, instance in entity.instances.items():
            assert other.instances[index].mask == (None if name in BOXES_ONLY else instance.mask)
            assert other.instances[index].box == pytest.approx(instance.box)
    lost = FORMATS[name].loses
    if "names" not in lost.replace("names of frames", ""):
        assert [entity.name for entity in found.entities] == [entity.name for entity in video.entities]
    if "times" not in lost and name != "label-studio":
        assert found.times == video.times
    if "scores" not in lost:
        assert [e.instances[3].score for e in found.entities] == [e.instances[3].score for e in video.entities]
    if lost == "nothing":
        assert found == video


def test_what_other_programs_find_in_the_files(video, result, tmp_path):
    expected = {key: coco_mask.decode(code).astype(bool) for key, code in masks_of(video).items()}

    export_result(result, "youtube-vis", tmp_path / "vis.json")
    vis = json.loads((tmp_path / "vis.json").read_text())
    assert vis["videos"][0]["length"] == FRAMES
    assert vis["annotations"][1]["segmentations"][1] is None
    np.testing.assert_array_equal(coco_mask.decode(vis["annotations"][1]["segmentations"][2]), expected[5, 2])

    export_result(result, "coco-vid", tmp_path / "vid.json")
    records = read_detections(tmp_path / "vid.json")  # the reader of detections is another program
    assert sum(len(frame.objects) for frames in records.videos.values() for frame in frames) == len(expected)

    export_result(result, "mots-txt", tmp_path / "m.txt")
    for line in (tmp_path / "m.txt").read_text().splitlines():
        frame, number, category, height, width, counts = line.split()
        code = {"size": [int(height), int(width)], "counts": counts.encode()}
        np.testing.assert_array_equal(coco_mask.decode(code), expected[int(number) - 1000, int(frame)])
        assert category == "1"

    export_result(result, "mots-png", tmp_path / "mots")
    values = np.asarray(Image.open(tmp_path / "mots" / "00002.png"))
    np.testing.assert_array_equal(values == 1999, expected[999, 2])

    export_result(result, "labelme", tmp_path / "labelme")
    shape = json.loads((tmp_path / "labelme" / "00000.json").read_text())["shapes"][0]
    (left, top), (right, bottom) = shape["points"]
    inside = np.asarray(Image.open(io.BytesIO(base64.b64decode(shape["mask"])))) > 0
    np.testing.assert_array_equal(inside, expected[2, 0][top : bottom + 1, left : right + 1])
    assert (shape["group_id"], shape["label"], shape["shape_type"]) == (2, "dog", "mask")

    export_result(result, "label-studio", tmp_path / "ls.json")
    found = json.loads((tmp_path / "ls.json").read_text())[0]["predictions"][0]["result"][1]["value"]
    assert [(entry["frame"], entry["enabled"]) for entry in found["sequence"]] == [(1, False), (3, True), (4, False)]
    assert found["sequence"][0]["width"] == pytest.approx(33 / WIDTH * 100)

    export_result(result, "cvat", tmp_path / "cvat.xml", tolerance=0.0)
    root = ElementTree.parse(tmp_path / "cvat.xml").getroot()
    track = root.findall("track")[1]
    assert [(shape.get("frame"), shape.get("outside")) for shape in track] == [
        ("0", "0"), ("1", "1"), ("2", "0"), ("3", "0")]  # fmt: skip
    assert root.findtext(".//original_size/width") == str(WIDTH)

    export_result(result, "yolo", tmp_path / "yolo")
    data = yaml.safe_load((tmp_path / "yolo" / "data.yaml").read_text())
    assert "path" not in data  # Ultralytics takes the folder of the file, wherever it is started
    assert (data["train"], data["names"]) == ("images", {0: "dog", 1: "entity", 2: "ünï <b>"})

    export_result(result, "sa-v", tmp_path / "sav.json")
    sav = json.loads((tmp_path / "sav.json").read_text())
    assert (sav["masklet_id"], sav["masklet_frame_count"]) == ([2, 5, 999], [4, 3, 2])
    np.testing.assert_array_equal(coco_mask.decode(sav["masklet"][3][0]), expected[2, 3])


def test_supervision_has_the_entities_of_each_frame(video):
    frames = list(to_supervision(video))
    assert [len(found) for found in frames] == [2, 1, 3, 3]
    assert frames[2].tracker_id.tolist() == [2, 5, 999]
    assert frames[2].data["class_name"].tolist() == ["dog", "entity", "ünï <b>"]
    np.testing.assert_array_equal(frames[0].area, [i.area for e in video.entities[:2] for i in [e.instances[0]]])
    back = from_supervision(frames, WIDTH, HEIGHT, "clip")
    assert masks_of(back) == masks_of(video)


def test_a_rerun_recording_has_masks_boxes_and_scores(video, result, tmp_path):
    rerun = pytest.importorskip("rerun")
    export_result(result, "rerun", tmp_path / "clip.rrd")
    if hasattr(rerun, "dataframe"):  # up to 0.40
        recording = rerun.dataframe.load_recording(tmp_path / "clip.rrd")
        paths = {column.entity_path for column in recording.schema().component_columns()}
        assert {"/entities/mask", "/entities/boxes", "/scores/999"} <= paths
        return
    rows = {}
    for chunk in import_module("rerun.chunk").RrdReader(tmp_path / "clip.rrd").stream():
        rows.setdefault(str(chunk.entity_path), []).extend(chunk.to_record_batch().to_pylist())
    assert {len(rows[path]) for path in ("/entities/mask", "/entities/boxes")} == {FRAMES}
    assert [row["Scalars:scalars"] for row in rows["/scores/999"]] == [[0.25], [0.25]]
    maps = sorted((row["frame"], bytes(row["SegmentationImage:buffer"][0])) for row in rows["/entities/mask"])
    for (_, pixels), ids in zip(maps, video.id_maps(), strict=True):
        np.testing.assert_array_equal(np.frombuffer(pixels, np.uint16).reshape(ids.shape), ids)


class FakeFiftyOne:
    """What of FiftyOne's API the writer uses. FiftyOne itself needs a database server."""

    types = SimpleNamespace(FiftyOneDataset="FiftyOneDataset")
    Detections = Detection = Frame = staticmethod(lambda **values: SimpleNamespace(**values))

    def __init__(self):
        self.samples, self.options = [], {}
        self.Dataset = lambda: SimpleNamespace(
            add_samples=lambda samples, progress: self.samples.extend(samples), export=self.options.update, delete=dict
        )

    @staticmethod
    def Sample(filepath, **values):
        kind = "video" if filepath.endswith(".mp4") else "image"
        return SimpleNamespace(filepath=filepath, media_type=kind, frames={}, **values)


def test_fiftyone_has_frames_by_their_number_and_images_one_by_one(video, tmp_path, monkeypatch):
    fiftyone = FakeFiftyOne()
    monkeypatch.setitem(sys.modules, "fiftyone", fiftyone)
    file, images = write_video(tmp_path / "a.mp4", 1, count=8), write_images(tmp_path / "images", 1)
    results = tmp_path / "results"
    names = [f"{2 * index:05d}" for index in range(FRAMES)]  # every second frame
    write_result(replace(video, frames=names, source={"source": str(file), "stride": 2}), results / "file")
    entities = [replace(e, instances={i: found for i, found in e.instances.items() if i < 3}) for e in video.entities]
    pictures = replace(video, frames=["000", "001", "002"], times=[], entities=entities)
    write_result(replace(pictures, source={"source": str(images)}), results / "images")

    export_result(results / "file", "fiftyone", tmp_path / "fo")
    (sample,) = fiftyone.samples
    assert (sample.filepath, list(sample.frames)) == (str(file), [1, 3, 5, 7])
    (first,) = sample.frames[3].entities.detections
    instance = video.entities[0].instances[1]
    assert (first.index, first.label, first.confidence, first.mask.sum()) == (2, "dog", 0.625, instance.area)
    assert first.mask.shape == (12, 14)
    assert first.bounding_box == [4 / WIDTH, 2 / HEIGHT, 14 / WIDTH, 12 / HEIGHT]

    fiftyone.samples.clear()
    export_result(results / "images", "fiftyone", tmp_path / "fo2")
    assert [Path(sample.filepath).name for sample in fiftyone.samples] == ["000.png", "001.png", "002.png"]
    assert [len(sample.entities.detections) for sample in fiftyone.samples] == [2, 1, 3]
    file.unlink()
    with pytest.raises(InputError, match="clip: FiftyOne needs the frames"):
        export_result(results / "file", "fiftyone", tmp_path / "fo3")


def test_names_of_a_collection_become_different_short_files(video, tmp_path):
    names = ["a/b", "a_b", "A_b", "x" * 250, "ü" * 100]
    vis = tmp_path / "vis.json"
    write_youtube_vis([replace(video, id=name) for name in names], vis)
    import_result(vis, "youtube-vis", tmp_path / "back")
    folders = sorted((tmp_path / "back").iterdir())
    assert len({folder.name.lower() for folder in folders}) == len(names)
    assert max(len(folder.name.encode()) for folder in folders) <= 150
    assert sorted(read_result(folder).id for folder in folders) == sorted(names)


def test_bad_input_is_one_line(result, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").touch()
    for call, error, message in [
        (
            lambda: export_result(result, "xyz", tmp_path / "x"),
            ConfigError,
            "unknown format 'xyz'; known: youtube-vis, ",
        ),
        (lambda: export_result(result, "davis", tmp_path / "x", tolerance=1), ConfigError, "no option 'tolerance'"),
        (lambda: export_result(result, "vipseg", tmp_path / "full"), OutputError, "full: is not empty"),
        (lambda: export_result(result, "sa-v", tmp_path / "full" / "mine.txt"), OutputError, "mine.txt: exists"),
        (lambda: export_result(tmp_path, "sa-v", tmp_path / "x"), InputError, "tracks.json is missing"),
        (lambda: import_result(tmp_path / "none", "cvat", tmp_path / "x"), InputError, "none: no such file or folder"),
        (lambda: import_result(result, "rerun", tmp_path / "x"), ConfigError, "can only be written"),
    ]:
        with pytest.raises(error) as caught:
            call()
        assert message in str(caught.value)
        assert "\n" not in str(caught.value)
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["mine.txt"]
    assert not (tmp_path / "x").exists()


BOMB = '<!DOCTYPE a [<!ENTITY b "c">]><annotations><version>&b;</version></annotations>'
META = "<meta><task><size>2</size><original_size><width>9</width><height>8</height></original_size></task></meta>"
CODE = encode(np.ones((8, 9), bool))


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("cvat", "<annotations", "cannot be read"),
        ("cvat", BOMB, "cannot be read"),
        ("cvat", "<annotations/>", "is no file of CVAT for video"),
        ("cvat", f'<annotations>{META}<track id="1"><polygon frame="0" points="1,2;3"/></track></annotations>', "x,y of three"),
        ("cvat", f'<annotations>{META}<track id="1"><box frame="0" xtl="a"/></track></annotations>', "'a' is not a number"),
        ("cvat", f'<annotations>{META}<track id="1"><mask frame="0" left="0" top="0" width="3" height="3" rle="4,4"/></track>'
                 "</annotations>", "do not add up to 3 x 3"),
        ("mots-txt", "0 1001 1 8 9\n", "line 1: not 'frame id class height width code'"),
        ("mots-txt", f"0 1001 1 8 9 {CODE['counts']}\n0 1001 1 8 9 {CODE['counts']}\n", "object 1001 is on frame 0 twice"),
        ("mots-txt", "0 1001 1 8 9 ;;;;\n", "line 1: counts"),
        ("mots-txt", "", "no objects"),
        ("sa-v", '{"video_id": "a", "masklet_id": [1], "masklet": [[]]}', "frame 0: 0 masks for 1 masklets"),
        ("sa-v", '{"video_id": "a"}', "no 'masklet_id'"),
        ("youtube-vis", '{"videos": [], "categories": [], "annotations": [{"id": 1, "video_id": 3, "category_id": 1}]}',
         "annotation 1: video_id: 3 is not listed"),
        ("youtube-vis", '{"videos": [], "categories": [], "annotations": []}', "no videos"),
        ("coco-vid", '{"videos": [{"id": 1}], "images": [{"id": 1}], "categories": [], "annotations": []}', "images[0]: no"),
        ("label-studio", '[{"data": {}, "predictions": [{"result": [{"id": "a", "type": "videorectangle"}]}]}]',
         "task 0: no 'original_width'"),
        ("labelme", '{"shapes": [{"label": "a", "points": [[0, 0], [2, 2]], "shape_type": "mask", "mask": "x"}], '
                    '"imageHeight": 8, "imageWidth": 9}', "shape 0: its mask cannot be read"),
    ],
)  # fmt: skip
def test_files_of_unknown_origin(name, text, message, tmp_path):
    file = tmp_path / "file"
    file.write_text(text)
    with pytest.raises(ValueError) as caught:
        import_result(file, name, tmp_path / "out")
    assert message in str(caught.value)
    assert str(file) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()
