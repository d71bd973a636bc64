"""What takes longer: the review list, exports, uploads with progress and cancel, in a browser and with the real worker."""

import json
import re
import shutil
import zipfile

import av
import numpy as np
import pytest
from PIL import Image
from support.pages import click_pixel, go_to, only_tints, open_page, pixel, place, wait_frame, wait_revision, wait_until
from support.small_result import moving_squares, write_result
from support.small_studio import small_studio

from entitysam.engine.build import open_model
from entitysam.io.id_maps import read_ids
from entitysam.sam2.session import PromptedSession
from entitysam.serve.app import Settings
from entitysam.serve.opened import OpenedResult
from entitysam.serve.server import BackgroundServer
from entitysam.serve.workspace import Workspace

FRAMES, IDS = moving_squares()
WORKER = 400_000  # milliseconds: a process that imports torch, on a machine that does much else


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A server with a small network that segments uploads."""
    studio = small_studio(tmp_path_factory.mktemp("work"))
    with BackgroundServer(Workspace(), Settings(), studio) as background:
        background.studio = studio
        yield background


def download(page, start, tmp_path):
    """The file behind the newest "Download" after `start`."""
    before = page.locator("#exports li").count()
    start()
    page.wait_for_selector(f"#exports:has(li:nth-child({before + 1}))")
    page.wait_for_selector("#exports li:first-child[data-state=done] a")
    with page.expect_download() as waiting:
        page.locator("#exports li:first-child a").click()
    target = tmp_path / waiting.value.suggested_filename
    waiting.value.save_as(target)
    return target


def test_the_review_list_leads_to_wrong_ids(browser, server, tmp_path):
    wrong = IDS.copy()
    two, three = wrong[15:] == 2, wrong[15:] == 3
    wrong[15:][two], wrong[15:][three] = 3, 2
    entry = server.workspace.open_folder(write_result(tmp_path / "wrong", FRAMES, wrong))
    with open_page(browser, server.url) as (page, problems):
        page.locator("#tab-review").click()
        page.wait_for_selector("#findings li")
        first = page.locator("#findings li").first
        assert first.inner_text().split() in (["15", "Entity", "2", "becomes", "entity", "3"],
                                              ["15", "Entity", "3", "becomes", "entity", "2"])  # fmt: skip
        page.locator("#picture").focus()
        page.keyboard.press("f")
        wait_frame(page, 15)
        assert {page.evaluate("entitysam.selected"), page.evaluate("entitysam.other")} == {2, 3}
        page.keyboard.press("x")  # and the way from there to the correction is one key
        wait_revision(page, 1)
        np.testing.assert_array_equal(OpenedResult(tmp_path / "wrong").ids(20), IDS[20])
        page.locator("#renew").click()
        page.wait_for_selector("#findings[data-revision='1']", state="attached")
        assert not [text for text in page.locator("#findings li").all_inner_texts() if text.startswith("15")]
        assert problems == []
    server.workspace.remove(entry.key)


def test_exports_have_the_edits(page, copy, tmp_path):
    folder, _ = copy
    page.locator("#lane-names button", has_text="Entity 2").click()
    page.keyboard.press("r")
    page.keyboard.type("box")
    page.keyboard.press("Enter")
    wait_revision(page, 1)
    page.locator("#other").select_option("3")
    page.locator("#merge").click()
    wait_revision(page, 2)
    page.locator("#colour").fill("#00ff7f")
    wait_revision(page, 3)
    expected = np.where(IDS == 3, 2, IDS)
    page.locator("#tab-export").click()

    archive = download(page, lambda: page.locator("[data-export=result]").click(), tmp_path)
    with zipfile.ZipFile(archive) as opened:
        opened.extractall(tmp_path / "result")
    again = OpenedResult(tmp_path / "result")
    for frame in (0, 7, 23):
        np.testing.assert_array_equal(again.ids(frame), expected[frame])
    assert [entity["name"] for entity in again.state()["entities"]] == ["", "box", ""]
    tracks = json.loads((tmp_path / "result" / "tracks.json").read_text())["tracks"]
    assert [track["id"] for track in tracks] == [1, 2, 4]

    overlay = download(page, lambda: page.locator("[data-export=overlay]").click(), tmp_path)
    with av.open(str(overlay)) as video:
        frames = [frame.to_ndarray(format="rgb24") for frame in video.decode(video=0)]
    assert len(frames) == len(IDS)
    inside = frames[12][expected[12] == 2].astype(int).mean(0)
    assert inside[1] > FRAMES[12][expected[12] == 2].mean(0)[1] + 30  # tinted in the new green

    page.locator("#format").select_option("davis")
    davis = download(page, lambda: page.locator("#export-format").click(), tmp_path)
    with zipfile.ZipFile(davis) as opened, opened.open(sorted(opened.namelist())[7]) as png:
        np.testing.assert_array_equal(np.asarray(Image.open(png)), expected[7])

    with page.expect_download() as waiting:
        page.locator("#export-view").click()
    waiting.value.save_as(tmp_path / "view.png")
    with Image.open(tmp_path / "view.png") as image:
        assert image.width == page.evaluate("entitysam.picture.canvas.width")
    np.testing.assert_array_equal(read_ids(folder / "masks" / "00000.png"), IDS[0])  # the result is as it was


def test_an_upload_is_segmented_and_only_its_tab_sees_it(browser, server, page, copy):
    clip = copy[0] / "clip.mp4"
    page.locator("#tab-new").click()
    page.locator("#file").set_input_files(clip)
    page.locator("#max-frames").fill("6")
    page.locator("#upload").click()
    page.wait_for_selector("#uploads li[data-state=done]", timeout=WORKER)
    page.locator("#uploads li button", has_text="Open").click()
    page.wait_for_selector("body[data-result=clip]")
    assert page.evaluate("entitysam.meta.frames") == 6
    assert "clip" in page.locator("#result option").all_inner_texts()
    made = [place for place in server.studio.folder.iterdir() if (place / "result").is_dir()]
    assert [sorted(path.name for path in place.iterdir()) for place in made] == [["owner.json", "result"]]
    only_tints(page)
    page.locator("#opacity").fill("0")  # the frames are those of the upload
    assert abs(pixel(page, 100, 3)[0] - int(FRAMES[0, 3, 100, 0])) < 25

    with open_page(browser, server.url) as (other, problems):
        assert other.locator("#result option").all_inner_texts() == ["squares"]
        page.locator("#tab-export").click()
        page.locator("#share").click()
        page.wait_for_selector("#link:not([hidden])")
        other.goto(page.locator("#link").inner_text())
        other.reload()
        other.wait_for_selector("body[data-result=clip]")
        assert problems == []
    workspace = Workspace()  # a server that starts again has it, for its tab alone
    server.studio.reopen(workspace)
    tab = page.evaluate("sessionStorage.getItem('tab')")
    assert [entry.title for entry in workspace.visible(tab)] == ["clip"]
    assert workspace.visible("0" * 32) == []


def test_what_is_finished_stays_after_a_cancel(page, server, tmp_path):
    frames, _ = moving_squares(400)
    clip = write_clip(tmp_path / "long.mp4", frames)
    page.locator("#tab-new").click()
    page.locator("#file").set_input_files(clip)
    page.locator("#upload").click()
    page.locator("#uploads li .steps", has_text=re.compile(r"^[1-9]\d* of 400 frames")).wait_for(timeout=WORKER)
    page.locator("#uploads li", has_text="long").locator("button", has_text="Cancel").click()
    done = page.locator("#uploads li[data-state=done]", has_text="stopped after")
    done.wait_for(timeout=WORKER)
    count = int(done.inner_text().split("stopped after ")[1].split()[0])
    assert 0 < count < 400
    done.locator("button", has_text="Open").click()
    page.wait_for_selector("body[data-result=long]")
    assert page.evaluate("entitysam.meta.frames") == count


def write_clip(path, frames):
    from entitysam.io.writers.video import VideoWriter

    with VideoWriter(path, frames.shape[2], frames.shape[1], 10.0) as video:
        for index, frame in enumerate(frames):
            video.add(frame, index / 10)
    return path


def test_a_broken_video_gives_a_sentence(page, server, tmp_path):
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"\x00\x00\x00\x18ftypmp42" + bytes(range(256)) * 20)
    page.locator("#tab-new").click()
    page.locator("#file").set_input_files(broken)
    page.locator("#upload").click()
    failed = page.locator("#uploads li[data-state=failed]")
    failed.wait_for(timeout=WORKER)
    assert "not a video that can be read" in failed.inner_text()
    assert str(tmp_path) not in failed.inner_text()
    assert "upload.mp4" not in failed.inner_text()
    for name, size, sentence in [
        ("notes.txt", 10, "only videos and images"),
        ("big.mp4", 5 * 2**20, "larger than 4 MiB"),
    ]:
        (tmp_path / name).write_bytes(b"x" * size)
        page.locator("#file").set_input_files(tmp_path / name)
        page.locator("#upload").click()
        page.locator("#notice", has_text=sentence).wait_for()
    for folder in server.studio.folder.iterdir():  # nothing is left of what failed
        assert (folder / "result").is_dir(), list(folder.iterdir())
    shutil.rmtree(server.studio.folder)


def test_the_camera_gives_entities_as_they_come_and_then_a_result(page):
    """Chromium's fake camera: a moving pattern."""
    page.locator("#tab-new").click()
    page.locator("#camera").click()
    wait_until(page, "Number(document.body.dataset.live) >= 3", WORKER / 1000)
    assert "entit" in page.locator("#camera-state").inner_text()
    assert "born" in page.locator("#camera-events").inner_text()
    page.locator("#camera").click()
    page.wait_for_selector("body[data-result=camera]", timeout=WORKER)
    assert page.evaluate("entitysam.meta.frames") >= 4
    assert page.evaluate("entitysam.state.entities.length") >= 1
    page.keyboard.press("Home")


@pytest.mark.slow
def test_clicks_follow_an_object_and_spare_locked_ones(page, copy):
    """What SAM 2.1 finds from the same clicks in this process, with the locked entity on top; one edit, which is undone as one."""
    folder, _ = copy
    page.locator("#lane-names button", has_text="Entity 3").click()
    page.locator("#lock").click()
    wait_revision(page, 1)
    page.locator("#lane-names button", has_text="Entity 2").click()
    go_to(page, 20)
    page.locator("#picture").focus()
    page.keyboard.press("c")
    click_pixel(page, 60, 40)
    click_pixel(page, 8, 8, modifiers=["Shift"])
    prompt = page.evaluate("entitysam.picture.prompt")
    assert (prompt["labels"], prompt["box"]) == ([1, 0], None)
    np.testing.assert_allclose(prompt["points"], [[60.5, 40.5], [8.5, 8.5]], atol=0.6)
    page.locator("[data-follow=forward]").click()
    page.wait_for_selector("body[data-revision='2']", timeout=WORKER)
    opened = OpenedResult(folder)
    frames = [opened.frame(index) for index in range(24)]
    model = open_model("sam2_tiny", "random", device="cpu", overrides={"image_size": 64}, kind="sam2").model
    session = PromptedSession(model, frames, keep_history=False)
    found = [session.add_points(20, 1, prompt["points"], prompt["labels"])]
    found += [session.step(index) for index in range(21, 24)]
    for frame in range(24):
        expected = IDS[frame].copy()
        if frame >= 20:
            mask = (found[frame - 20].mask_logits[0] > 0).numpy()
            expected[expected == 2] = 0
            expected[mask & (expected != 3)] = 2
        np.testing.assert_array_equal(opened.ids(frame), expected)
    page.locator("#undo").click()
    wait_revision(page, 3)
    np.testing.assert_array_equal(OpenedResult(folder).ids(22), IDS[22])


@pytest.mark.slow
def test_a_box_is_followed_backward(page, copy):
    folder, _ = copy
    page.locator("#lane-names button", has_text="Entity 2").click()
    go_to(page, 4)
    page.locator("#picture").focus()
    page.keyboard.press("c")
    page.mouse.move(*place(page, 20, 4))
    page.mouse.down()
    page.mouse.move(*place(page, 44, 26))
    page.mouse.up()
    prompt = page.evaluate("entitysam.picture.prompt")
    assert prompt["points"] == []
    np.testing.assert_allclose(prompt["box"], [20.5, 4.5, 44.5, 26.5], atol=0.6)
    page.locator("[data-follow=backward]").click()
    page.wait_for_selector("body[data-revision='1']", timeout=WORKER)
    opened = OpenedResult(folder)
    frames = [opened.frame(index) for index in range(24)]
    model = open_model("sam2_tiny", "random", device="cpu", overrides={"image_size": 64}, kind="sam2").model
    session = PromptedSession(model, frames, keep_history=False)
    found = [session.add_points(4, 1, [], [], prompt["box"])]
    found += [session.step(index, reverse=True) for index in (3, 2, 1, 0)]
    for frame in range(24):
        expected = IDS[frame].copy()
        if frame <= 4:
            expected[expected == 2] = 0
            expected[(found[4 - frame].mask_logits[0] > 0).numpy()] = 2
        np.testing.assert_array_equal(opened.ids(frame), expected)
