"""Videos and a stream that the server was started with, in a browser and with the real worker."""

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from support.pages import open_page, wait_until
from support.small_result import moving_squares, write_result
from support.small_studio import small_studio

from entitysam.serve.app import Settings
from entitysam.serve.server import BackgroundServer
from entitysam.serve.sources import Source, Sources, live_source
from entitysam.serve.workspace import Workspace

STREAM = Path(__file__).parents[2] / "support" / "stream_server.py"
WORKER = 400_000  # milliseconds: a process that imports torch, on a machine that does much else


@pytest.fixture(scope="module")
def stream():
    """Address of a stream without an end, 20 frames/s."""
    import socket

    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, str(STREAM), "tcp", str(port), "64x48", "1000000"], stdout=subprocess.PIPE
    )
    assert process.stdout.readline() == b"ready\n"
    yield f"tcp://127.0.0.1:{port}"
    process.kill()
    process.wait()
    process.stdout.close()


@pytest.mark.slow
def test_videos_and_a_stream_of_this_machine(browser, stream, tmp_path):
    """All in one server, since each start of the worker takes seconds."""
    clip = write_result(tmp_path / "squares", *moving_squares(4, (48, 64))) / "clip.mp4"
    videos = tmp_path / "videos"
    videos.mkdir()
    shutil.copy(clip, videos / "other.mp4")
    studio = small_studio(tmp_path)
    sources = Sources([Source("first.mp4", str(clip)), live_source(stream)], videos)
    with (
        BackgroundServer(Workspace(), Settings(), studio, sources) as server,
        open_page(browser, server.url, ready="body[data-started]") as (page, problems),
    ):
        # The video of the command line is segmented at once, and opens where nothing else is open.
        page.wait_for_selector("body[data-result=first]", timeout=WORKER)
        assert page.evaluate("entitysam.meta.frames") == 4
        page.locator("#tab-new").click()
        assert page.locator("#source option").all_inner_texts() == ["first.mp4", stream, "other.mp4"]

        page.locator("#source").select_option(stream)
        assert page.locator("#use-source").inner_text() == "Start"
        page.locator("#use-source").click()
        wait_until(page, "Number(document.body.dataset.live) >= 3", WORKER / 1000)
        assert "entit" in page.locator("#camera-state").inner_text()
        assert "born" in page.locator("#camera-events").inner_text()
        assert page.evaluate("entitysam.picture.shown.bitmap.width") == 64
        page.locator("#use-source").click()
        wait_until(page, "entitysam.meta && !entitysam.live.running", WORKER / 1000)
        assert page.evaluate("entitysam.meta.frames") >= 4
        assert page.locator("#result option").all_inner_texts()[0] == "first"
        assert page.locator("#use-source").inner_text() == "Start"

        page.locator("#source").select_option("other.mp4")
        assert page.locator("#use-source").inner_text() == "Segment"
        page.locator("#use-source").click()
        page.locator("#uploads li", has_text="other").locator("button", has_text="Cancel").click()
        page.wait_for_selector("#uploads li[data-state=failed], #uploads li[data-state=cancelled]", timeout=WORKER)
        for name in ("../squares/clip.mp4", str(clip), "/etc/passwd"):
            answer = page.evaluate(
                "(name) => fetch('/api/sources', {method: 'POST', body: JSON.stringify({name}), headers:"
                " {'X-Tab': sessionStorage.getItem('tab'), 'Content-Type': 'application/json'}})"
                ".then(async (a) => [a.status, (await a.json()).error])",
                name,
            )
            assert answer == [404, "there is no such source"]
        problems[:] = [text for text in problems if "404" not in text]
        assert problems == []
    assert np.array_equal(clip.read_bytes(), (videos / "other.mp4").read_bytes())  # what was segmented stays
