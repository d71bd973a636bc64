"""To CVAT and back, in a browser: an export is changed as a person would, and given to the page again."""

from xml.etree import ElementTree

import numpy as np
import pytest
from support.pages import open_page, wait_revision
from support.small_result import moving_squares

from entitysam.serve.app import Settings
from entitysam.serve.opened import OpenedResult
from entitysam.serve.segmenting import Studio
from entitysam.serve.server import BackgroundServer
from entitysam.serve.workspace import Workspace

_, IDS = moving_squares()
WORKER = 400_000  # milliseconds: a process that starts, on a machine that does much else


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    studio = Studio(tmp_path_factory.mktemp("work") / "uploads", device="cpu")
    with BackgroundServer(Workspace(), Settings(), studio) as background:
        yield background


def test_what_was_corrected_in_cvat_comes_back_as_edits(browser, server, page, copy, tmp_path):
    folder, _ = copy
    page.locator("#tab-export").click()
    page.locator("#format").select_option("cvat")
    page.locator("#export-format").click()
    page.wait_for_selector("#exports li:first-child[data-state=done] a")
    with page.expect_download() as waiting:
        page.locator("#exports li:first-child a").click()
    path = tmp_path / "annotations.xml"
    waiting.value.save_as(path)

    tree = ElementTree.parse(path)
    root = tree.getroot()
    tracks = {track.get("id"): track for track in root.findall("track")}
    tracks["2"].set("label", "box")
    root.remove(tracks["4"])
    tracks["3"].find("polygon[@frame='7']").set("points", "100,4;120,4;120,20;100,20")
    for number, track in enumerate(root.findall("track")):
        track.set("id", str(number))  # as CVAT does
    tree.write(path)

    page.locator("#corrected").set_input_files(path)
    page.locator("#correct").click()
    page.wait_for_selector("#correctings li[data-state=done]", timeout=WORKER)
    assert page.locator("#correctings li").inner_text().split("\n")[-1] == "2 changed, 1 deleted"
    wait_revision(page, 5)
    assert page.locator("#lane-names button").all_inner_texts() == ["Entity 1", "box 2 · locked", "Entity 3 · locked"]
    expected = IDS.copy()
    expected[expected == 4] = 0
    expected[7][expected[7] == 3] = 0
    expected[7, 4:20, 100:120] = 3
    opened = OpenedResult(folder)
    for frame in range(len(IDS)):
        np.testing.assert_array_equal(opened.ids(frame), expected[frame])

    for content, sentence in [
        (b"<annotations", "cannot be read"),
        (b'<!DOCTYPE a [<!ENTITY b "c">]><annotations>&b;</annotations>', "cannot be read"),
        (path.read_bytes().replace(b"<width>128", b"<width>64"), "its frames are 64x72, those of the result 128x72"),
    ]:
        before = page.locator("#correctings li").count()
        path.with_name("bad.xml").write_bytes(content)
        page.locator("#corrected").set_input_files(path.with_name("bad.xml"))
        page.locator("#correct").click()
        page.wait_for_selector(f"#correctings:has(li:nth-child({before + 1}))")
        failed = page.locator("#correctings li:first-child[data-state=failed]")
        failed.wait_for(timeout=WORKER)
        assert sentence in failed.inner_text()
        assert str(tmp_path) not in failed.inner_text()
        assert "entitysam-" not in failed.inner_text()
    assert opened.revision == OpenedResult(folder).revision


def test_a_server_without_uploads_takes_no_corrections(browser, folder):
    workspace = Workspace()
    workspace.open_folder(folder)
    with BackgroundServer(workspace) as background, open_page(browser, background.url) as (page, problems):
        page.locator("#tab-export").click()
        page.wait_for_selector("#format option", state="attached")
        assert not page.locator("#corrections").is_visible()
        answer = page.evaluate(
            "fetch(`/api/results/${entitysam.key}/corrections`, {method: 'POST', body: 'x',"
            " headers: {'X-Tab': sessionStorage.getItem('tab')}}).then(async (a) => [a.status, (await a.json()).error])"
        )
        assert answer == [422, "this server takes no uploads"]
        assert problems == []
