"""Labelling in an evaluation: a server with the right answers gives the metrics of the true labels; killed runs continue."""

import json
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage
from support.chat_server import KEY, digest, serving
from support.processes import finish, forked

from entitysam.classification.classifier import ClassifierError
from entitysam.classification.visual_prompts import VisualPrompt
from entitysam.config import load_config, to_dict
from entitysam.data.images import read_id_map, read_image
from entitysam.data.synthetic.writer import SyntheticSet, write_synthetic
from entitysam.engine.evaluate.run import RunOptions, run
from entitysam.ops import ids_to_rgb, rle_encode
from entitysam.registry import METHODS, ConfigError

ROOT = Path(__file__).parents[2]
FRAMES, SIZE = 4, (72, 120)
BACKGROUND = "background or another category"


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    """Two synthetic videos in VIPSeg's layout."""
    folder = tmp_path_factory.mktemp("videos")
    plan = SyntheticSet(0, 0, 0, val_videos=2, val_frames=FRAMES, video_size=SIZE)
    write_synthetic(folder, plan)
    return folder / "VIPSeg_720P"


class Truth:
    """The annotation of the synthetic videos, with masks shifted by three pixels, so that no metric is 100.

    Attributes:
        frames: video -> RGB frames.
        maps: video -> ids 1..n int32 [T, H, W]; no entity on a stripe at the left.
        category: video -> category of the ids.
        scores: video -> a score of each id.
    """

    def __init__(self, root):
        contents = json.loads((root / "panoptic_gt_VIPSeg_val.json").read_text())
        self.names = {category["id"]: category["name"] for category in contents["categories"]}
        self.things = {category["id"] for category in contents["categories"] if category["isthing"]}
        self.frames, self.maps, self.category, self.scores, self.files, self.exact = {}, {}, {}, {}, {}, {}
        for video in contents["annotations"]:
            name = video["video_id"]
            kinds = {s["id"]: s["category_id"] for frame in video["annotations"] for s in frame["segments_info"]}
            self.files[name] = [frame["file_name"] for frame in video["annotations"]]
            ids = np.stack([read_id_map(root / "panomasksRGB" / name / file) for file in self.files[name]])
            compact = np.searchsorted(sorted(kinds), ids).astype(np.int32) + 1
            compact[ids == 0] = 0
            self.exact[name] = compact
            shifted = np.zeros_like(compact)
            shifted[..., 3:] = compact[..., :-3]
            self.maps[name] = shifted
            self.category[name] = [kinds[number] for number in sorted(kinds)]
            self.scores[name] = np.random.default_rng(0).permutation(len(kinds)) / len(kinds)
            stems = [Path(file).stem for file in self.files[name]]
            self.frames[name] = [read_image(root / "images" / name / f"{stem}.jpg") for stem in stems]

    def images(self, word_of):
        """digest of every image that may be sent -> its name."""
        return {
            digest(VisualPrompt().encode(frame, ids == entity)): word_of(category)
            for name, maps in self.maps.items()
            for frame, ids in zip(self.frames[name], maps)
            for entity, category in enumerate(self.category[name], start=1)
            if (ids == entity).any()
        }


class Shifted:
    """A segmented video with the shifted masks, which can be read once."""

    def __init__(self, truth, name):
        self._maps = iter([truth.maps[name]])
        self.scores = truth.scores[name]

    def iter_ids(self):
        yield from next(self._maps)


class ShiftedMethod:
    def __init__(self, root):
        self.truth = Truth(Path(root))

    def segment(self, frames, out_size):
        frames = list(frames)
        name = next(n for n, known in self.truth.frames.items() if np.array_equal(known[0], frames[0]))
        return Shifted(self.truth, name)


@pytest.fixture
def shifted(monkeypatch):
    monkeypatch.setitem(METHODS._obj_map, "shifted", ShiftedMethod)


@pytest.fixture(autouse=True)
def key(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


def numbers(config, overrides, out, **options):
    complete = run(to_dict(load_config(config, [f"output_dir={out}", *overrides])), RunOptions(device="cpu", **options))
    result = json.loads((out / "result.json").read_text())
    assert complete, result["failures"]
    return result


def classifier(server, cache, *more):
    words = [f"base_url: '{server.base_url}'", f"cache: '{cache}'", "backoff: 0.01", *more]
    return "evaluation.classifier={name: vlm, " + ", ".join(words) + "}"


def label_and_measure(config, overrides, videos, tmp_path, server):
    """The metrics of a run that labels shifted masks; a second run must not send a request."""
    words = [*overrides, classifier(server, tmp_path / "cache")]
    result = numbers(config, words, tmp_path / "named", method=f"shifted:root={videos}", quiet=True, worst=0)
    asked = server.requests
    assert asked > 0
    again = numbers(config, words, tmp_path / "again", method=f"shifted:root={videos}", quiet=True, worst=0)
    assert server.requests == asked
    assert again["metrics"] == result["metrics"]
    assert not server.problems
    assert set(server.delivered.values()) == {1}
    assert result["run"]["naming"]["unnamed"] == 0
    assert len(list((tmp_path / "named" / "shown").glob("*.jpg"))) == 2
    return result["metrics"]


def same_and_not_perfect(found, expected, *names):
    for name in names:
        assert found[name] == pytest.approx(expected[name], abs=1e-9), name
        assert 0 < found[name] < 100, name
    assert found.keys() == expected.keys()


def test_panoptic_numbers_are_those_of_the_true_labels(videos, shifted, tmp_path):
    truth, folder = Truth(videos), tmp_path / "true"
    entries = []
    for name, maps in truth.maps.items():
        stuff = {c: 1000 + c for c in truth.category[name] if c not in truth.things}  # one segment per class and video
        table = np.array([0, *(stuff.get(c, n) for n, c in enumerate(truth.category[name], start=1))])
        kind = {0: 0, **{int(table[n]): c for n, c in enumerate(truth.category[name], start=1)}}
        frames = []
        for file, ids in zip(truth.files[name], table[maps]):
            path = folder / "pan_pred" / name / file
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(ids_to_rgb(ids)).save(path)
            found = [
                {"id": int(n), "category_id": kind[int(n)], "area": int((ids == n).sum())} for n in np.unique(ids) if n
            ]
            frames.append({"file_name": file, "segments_info": found})
        entries.append({"video_id": name, "annotations": frames})
    (folder / "pred.json").write_text(json.dumps({"annotations": entries}))
    words = [
        f"evaluation.dataset.root={videos}",
        "evaluation.evaluators=[{name: vpq, windows: [1, 2, 4]}, {name: stq}]",
    ]
    expected = numbers("eval/vipseg_vps", words, tmp_path / "e", predictions=str(folder), quiet=True, worst=0)[
        "metrics"
    ]
    with serving(truth.images(truth.names.get)) as server:
        found = label_and_measure("eval/vipseg_vps", words, videos, tmp_path, server)
    same_and_not_perfect(found, expected, "VPQ", "VPQ-Th", "VPQ-St", "STQ", "STQ-AQ", "STQ-IoU")


def test_semantic_numbers_are_those_of_the_true_labels(videos, shifted, tmp_path):
    truth, root, folder = Truth(videos), tmp_path / "vspw", tmp_path / "true"
    for name, maps in truth.maps.items():
        lookup = np.array([0, *(c + 1 for c in truth.category[name])], np.uint8)
        shutil.copytree(videos / "images" / name, root / "data" / name / "origin")
        for file, exact, ids in zip(truth.files[name], truth.exact[name], maps):
            for path, labels in (
                (root / "data" / name / "mask" / file, lookup[exact]),
                (folder / name / file, lookup[filled(ids)] - 1),
            ):
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(labels).save(path)
    (root / "val.txt").write_text("\n".join(truth.maps))
    words = [f"evaluation.dataset.root={root}", "evaluation.evaluators=[{name: semantic, windows: [2, 3]}]"]
    expected = numbers("eval/vspw", words, tmp_path / "e", predictions=str(folder), quiet=True, worst=0)["metrics"]
    names = {c["id"]: c["name"].replace("_", " ") for c in shipped("vspw")}
    with serving(truth.images(names.get)) as server:
        found = label_and_measure("eval/vspw", words, videos, tmp_path, server)
    same_and_not_perfect(found, expected, "mIoU", "mVC2", "mVC3")


def filled(ids):
    rows, columns = ndimage.distance_transform_edt(ids == 0, return_distances=False, return_indices=True)
    return ids[rows, columns]


def shipped(name):
    from entitysam.data.categories import read_categories

    return read_categories(name)


def test_instance_numbers_are_those_of_the_true_labels(videos, shifted, tmp_path):
    truth, root, folder = Truth(videos), tmp_path / "ytvis", tmp_path / "true"
    folder.mkdir()
    contents = {"videos": [], "annotations": [], "categories": []}
    contents["categories"] = [{"id": c + 1, "name": truth.names[c]} for c in sorted(truth.things)]
    results = []
    for key, (name, maps) in enumerate(truth.maps.items(), start=7):
        shutil.copytree(videos / "images" / name, root / "valid" / "JPEGImages" / name)
        files = [f"{name}/{Path(file).stem}.jpg" for file in truth.files[name]]
        contents["videos"].append({"id": key, "file_names": files, "height": SIZE[0], "width": SIZE[1]})
        for entity, category in enumerate(truth.category[name], start=1):
            if category not in truth.things:
                continue
            exact, masks = (tube(source == entity) for source in (truth.exact[name], maps))
            areas = [
                None if mask is None else int((ids == entity).sum()) for mask, ids in zip(exact, truth.exact[name])
            ]
            shape = {"segmentations": exact, "areas": areas, "iscrowd": 0, "category_id": category + 1}
            contents["annotations"].append({"id": len(contents["annotations"]) + 1, "video_id": key, **shape})
            score = float(truth.scores[name][entity - 1])
            results.append({"video_id": key, "category_id": category + 1, "score": score, "segmentations": masks})
    (root / "valid.json").write_text(json.dumps(contents))
    (folder / "results.json").write_text(json.dumps(results))
    words = [f"evaluation.dataset.root={root}"]
    expected = numbers("eval/ytvis_2021", words, tmp_path / "e", predictions=str(folder), quiet=True, worst=0)[
        "metrics"
    ]
    with serving(truth.images(lambda c: truth.names[c] if c in truth.things else BACKGROUND)) as server:
        found = label_and_measure("eval/ytvis_2021", words, videos, tmp_path, server)
    same_and_not_perfect(found, expected, "AP", "AP50", "AR10")
    written = json.loads((tmp_path / "named" / "results.json").read_text())
    assert len(written) == len(results)
    assert {result["category_id"] for result in written} <= {c["id"] for c in contents["categories"]}


def tube(masks):
    return [rle_encode(mask) if mask.any() else None for mask in masks]


# Killed and resumed ----------------------------------------------------------------------------------------------------


class Anything(dict):
    """The class of an image is a function of its digest."""

    def __init__(self, names):
        super().__init__()
        self.names = names

    def __contains__(self, key):
        return True

    def get(self, key, default=None):
        return self.names[int(key[:8], 16) % len(self.names)]


def files_of(folder):
    ours = [*folder.glob("pan_pred/**/*.png"), folder / "pred.json", *folder.glob("shown/*.jpg")]
    return {str(path.relative_to(folder)): path.read_bytes() for path in ours}


def test_a_killed_run_continues_to_the_same_files_and_a_second_run_asks_nothing(videos, tmp_path, capsys):
    names = list(Truth(videos).names.values())
    options = {"method": "grid:cells=2", "quiet": True}

    def words(server, cache):
        asking = classifier(server, cache, "batch_size: 1", "concurrency: 1", "top_frames: 3")
        windows = "evaluation.evaluators=[{name: vpq, windows: [1, 2]}, {name: stq}]"
        return [f"evaluation.dataset.root={videos}", windows, asking]

    with serving(Anything(names), pause=0.1) as server:
        killed, cache = tmp_path / "killed", tmp_path / "cache"
        process = forked(lambda: numbers("eval/vipseg_vps", words(server, cache), killed, **options) and 0)
        deadline = time.monotonic() + 400
        while len(list(cache.rglob("*.json"))) < 5 and process.is_alive() and time.monotonic() < deadline:
            time.sleep(0.01)
        process.kill()
        assert finish(process) == -signal.SIGKILL
        assert not (killed / "pred.json").exists()

        numbers("eval/vipseg_vps", words(server, cache), killed, resume=True, **options)
        assert KEY not in "".join(capsys.readouterr())
        assert sorted(server.delivered.values())[-1] <= 2  # the one that was under way may be asked again
        assert sum(count > 1 for count in server.delivered.values()) <= 1
        asked, server.pause = server.requests, 0
        numbers("eval/vipseg_vps", words(server, cache), tmp_path / "second", **options)
        assert server.requests == asked  # nothing
        numbers("eval/vipseg_vps", words(server, tmp_path / "another cache"), tmp_path / "undisturbed", **options)
        assert server.requests > asked
        assert not server.problems
    found = files_of(killed)
    assert len(found) == 2 * FRAMES + 1 + 2
    assert found == files_of(tmp_path / "second") == files_of(tmp_path / "undisturbed")
    everything = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert KEY.encode() not in everything


# What goes wrong -------------------------------------------------------------------------------------------------------


def test_a_refused_key_ends_the_run_at_the_first_video(videos, shifted, tmp_path):
    with serving(Anything(["ball"]), lambda number: "401") as server:
        words = [f"evaluation.dataset.root={videos}", classifier(server, tmp_path / "cache")]
        with pytest.raises(ValueError, match="refuses the key"):
            numbers("eval/vipseg_vps", words, tmp_path / "out", method=f"shifted:root={videos}", quiet=True)


def test_unknown_entities_are_left_out_and_counted(videos, shifted, tmp_path):
    truth = Truth(videos)
    with serving(truth.images(lambda c: truth.names[c] if c in truth.things else "no such class")) as server:
        asking = classifier(server, tmp_path / "cache", "attempts: 1")
        words = [f"evaluation.dataset.root={videos}", "evaluation.evaluators=[{name: vpq, windows: [1]}]", asking]
        result = numbers("eval/vipseg_vps", words, tmp_path, method=f"shifted:root={videos}", quiet=True, worst=0)
    stuff = sum(c not in truth.things for kinds in truth.category.values() for c in kinds)
    assert result["warnings"]["entities without a name, left out"] == stuff
    assert result["metrics"]["VPQ-St"] == 0
    assert result["metrics"]["VPQ-Th"] > 0


def test_a_run_that_names_nothing_fails_with_its_report(videos, shifted, tmp_path):
    with serving(Truth(videos).images(lambda c: "no such class")) as server:
        asking = classifier(server, tmp_path / "cache", "attempts: 1")
        words = [f"evaluation.dataset.root={videos}", "evaluation.evaluators=[{name: vpq, windows: [1]}]", asking]
        with pytest.raises(ClassifierError, match=r"none of \d+ entities got a name; the report is in"):
            numbers("eval/vipseg_vps", words, tmp_path, method=f"shifted:root={videos}", quiet=True, worst=0)
    assert json.loads((tmp_path / "result.json").read_text())["metrics"]["VPQ"] == 0


@pytest.mark.parametrize(
    ("node", "message"),
    [
        ("{}", "evaluation.classifier: missing; task 'vps'"),
        ("{name: none}", "evaluation.classifier: missing; task 'vps'"),
        ("{name: vlm, batchsize: 3}", "evaluation.classifier.batchsize: unknown key"),
        ("{name: vlm, visual_prompt: {kinds: e}}", "evaluation.classifier.visual_prompt.kinds: unknown key"),
        ("{name: vlm, visual_prompt: {kind: e}}", "visual_prompt.kind: one of"),
        ("{name: vlm, top_frames: 0}", "top_frames must be 1 or more"),
    ],
)
def test_invalid_settings(videos, tmp_path, node, message):
    # The shipped config names a classifier whose keys would stay beside those given here.
    words = [f"evaluation.dataset.root={videos}", "evaluation.task=vps", f"evaluation.classifier={node}"]
    with pytest.raises(ConfigError, match=message):
        numbers("eval/vipseg", words, tmp_path, method="whole_frame", quiet=True)
