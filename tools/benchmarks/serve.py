"""The page of `entitysam serve` in a real Chromium: how long a long result takes to open and to move in, and how it plays at 720p.

The results are generated. Times are wall times of this machine, beside them the CPU time of the server's process and, for what
plays, of the browser's. The clip plays twice: the second time, the page has all of it. Then the page rests. Needs Playwright and
Chromium.

Example: python tools/benchmark.py serve --frames 10000
"""

import argparse
import os
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

PERIOD = 50  # frames after which the generated maps repeat
SMALL, LARGE = (180, 320), (720, 1280)  # height, width
NAMES = ("chromium", "chromium-browser", "google-chrome")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--frames", type=int, default=10_000, help="of the long result, 320 x 180 (default: 10000)")
    parser.add_argument("--entities", type=int, default=19)
    parser.add_argument("--seeks", type=int, default=20, help="jumps to frames anywhere in it (default: 20)")
    parser.add_argument("--seconds", type=float, default=6.0, help="of the clip of 720p at 30 frames/s (default: 6)")
    parser.add_argument("--profile", action="store_true", help="only show what dominates reading the long result")


def run(arguments: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory() as folder:
        long = generate(Path(folder) / "long", arguments.frames, SMALL, arguments.entities, 25.0)
        if arguments.profile:
            profile(long)
            return
        play = generate(Path(folder) / "play", round(arguments.seconds * 30), LARGE, arguments.entities, 30.0)
        measure(long, play, arguments.seeks)


def generate(folder: Path, count: int, size: tuple[int, int], entities: int, fps: float) -> Path:
    """A result whose maps repeat after `PERIOD` frames: ground and boxes that move."""
    from entitysam.io.id_maps import write_ids
    from entitysam.io.result_folder import CLIP, LINES, MASKS, SEGMENTS, TRACKS
    from entitysam.io.writers.annotations import SegmentsWriter, TracksWriter, describe_entities
    from entitysam.io.writers.video import VideoWriter

    height, width = size
    (folder / MASKS).mkdir(parents=True)
    source = {"source": str(folder / CLIP), "stride": 1, "max_frames": None}
    tracks = TracksWriter(folder.name, width, height, fps, source)
    segments = SegmentsWriter(folder / SEGMENTS, folder.name)
    colours = np.random.default_rng(0).integers(0, 256, (entities + 1, 3), np.uint8)
    maps = [draw(time, size, entities) for time in range(PERIOD)]
    described = [describe_entities(ids) for ids in maps]
    with VideoWriter(folder / CLIP, width, height, fps) as clip:
        for index in range(count):
            phase, name = index % PERIOD, f"{index:05d}"
            if index < PERIOD:
                write_ids(folder / MASKS / f"{name}.png", maps[phase])
            else:
                os.link(folder / MASKS / f"{phase:05d}.png", folder / MASKS / f"{name}.png")
            clip.add(colours[maps[phase]], index / fps)
            scores = {found["id"]: 0.5 + 0.4 * np.cos(index / 40 + found["id"]) for found in described[phase]}
            tracks.add(name, described[phase], scores, index / fps)
            segments.add(f"{name}.png", described[phase], index / fps, scores)
    segments.write()
    tracks.write(folder / TRACKS, dict.fromkeys(tracks.entities, 0.9), [TRACKS, SEGMENTS, LINES, CLIP])
    tracks.close()
    return folder


def draw(time: int, size: tuple[int, int], entities: int) -> np.ndarray:
    """Id map [H, W]."""
    height, width = size
    ids = np.ones(size, np.int32)
    for number in range(2, entities + 1):
        angle = 2 * np.pi * (time / PERIOD + number / entities)
        y = round(height * (0.5 + 0.4 * np.sin(angle * (1 + number % 3))))
        x = round(width * (0.5 + 0.4 * np.cos(angle)))
        ids[max(0, y - height // 10) : y + height // 10, max(0, x - width // 14) : x + width // 14] = number
    return ids


def profile(folder: Path) -> None:
    import cProfile
    import pstats

    from entitysam.serve.opened import OpenedResult

    profiler = cProfile.Profile()
    profiler.runcall(OpenedResult, folder)
    pstats.Stats(profiler).sort_stats("cumulative").print_stats(18)


def measure(long: Path, play: Path, seeks: int) -> None:
    from playwright.sync_api import sync_playwright

    from entitysam.serve.server import BackgroundServer
    from entitysam.serve.workspace import Workspace

    workspace = Workspace()
    path = next(filter(None, map(shutil.which, NAMES)))
    keys = {}
    for folder in (long, play):
        wall, cpu = time.perf_counter(), time.process_time()
        keys[folder] = workspace.open_folder(folder).key
        show(f"{folder.name}: the server reads it", time.perf_counter() - wall, time.process_time() - cpu)
    with BackgroundServer(workspace) as server, sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path, args=["--headless", "--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": 1280, "height": 800})
        page.goto(f"{server.url}#result={keys[play]}")  # starts the browser's processes
        page.wait_for_selector("body[data-frame]")
        page.evaluate("sessionStorage.clear()")
        page.goto("about:blank")
        wall, cpu = time.perf_counter(), time.process_time()
        page.goto(f"{server.url}#result={keys[long]}")
        page.wait_for_selector("body[data-frame]")
        show("long: the page is opened, first frame drawn", time.perf_counter() - wall, time.process_time() - cpu)
        frames = page.evaluate("entitysam.meta.frames")
        times = []
        cpu = time.process_time()
        for frame in np.random.default_rng(1).integers(0, frames, seeks).tolist():
            times.append(page.evaluate(SEEK, frame))
        show(f"long: median of {seeks} jumps", float(np.median(times)), (time.process_time() - cpu) / seeks)
        show("long: slowest of them", max(times))
        for _ in range(20):  # what was left behind is dropped
            page.evaluate(SEEK, int(np.random.default_rng().integers(0, frames)))
        print(
            f"{'long: frames and maps that the page keeps':50} {page.evaluate('entitysam.media.bytes') / 2**20:8.1f} MiB"
        )
        page.goto("about:blank")
        page.goto(f"{server.url}#result={keys[play]}")
        page.wait_for_selector("body[data-frame]")
        for name in ("play: 720p", "play: again"):
            measure_playing(name, browser, page)
        measure_idle("play: at rest", browser, page)
        page.goto("about:blank")
        measure_idle("no page", browser, page)
        browser.close()


def measure_playing(name: str, browser: Any, page: Any) -> None:
    page.evaluate("document.getElementById('first').click()")
    page.wait_for_selector("body[data-frame='0']")
    wall, before = time.perf_counter(), cpu_seconds(browser)
    page.evaluate("document.getElementById('play').click()")
    while page.evaluate("entitysam.playing"):
        page.wait_for_timeout(100)
    seconds, drawn = time.perf_counter() - wall, page.evaluate("entitysam.drawn")
    server, browsing = (1000 * (now - then) / drawn for now, then in zip(cpu_seconds(browser), before))
    count = page.evaluate("entitysam.meta.frames")
    print(
        f"{name + ', frames drawn':50} {drawn / seconds:8.1f} per s  ({drawn} of {count - 1}; CPU per frame: "
        f"server {server:.0f} ms, browser {browsing:.0f} ms)"
    )


def measure_idle(name: str, browser: Any, page: Any, seconds: float = 60.0) -> None:
    """Nobody does anything; the first seconds, in which the page fetches ahead, do not count."""
    page.wait_for_timeout(5000)
    before = cpu_seconds(browser)
    page.wait_for_timeout(1000 * seconds)
    server, browsing = (1000 * (now - then) / seconds for now, then in zip(cpu_seconds(browser), before))
    print(
        f"{name + ', CPU per second':50} {server:8.1f} ms of the server, {browsing:.1f} ms of the browser", flush=True
    )


def cpu_seconds(browser: Any) -> tuple[float, float]:
    """CPU time of server and browser so far."""
    session = browser.new_browser_cdp_session()
    info = session.send("SystemInfo.getProcessInfo")["processInfo"]
    session.detach()
    return time.process_time(), sum(process["cpuTime"] for process in info)


SEEK = """async (frame) => {
  const start = performance.now();
  const box = document.getElementById("frame");
  box.value = frame;
  box.dispatchEvent(new Event("change"));
  while (document.body.dataset.frame !== String(frame)) await new Promise((resolve) => setTimeout(resolve, 1));
  return (performance.now() - start) / 1000;
}"""


def show(name: str, wall: float, cpu: float | None = None) -> None:
    print(f"{name:50} {wall:8.3f} s" + ("" if cpu is None else f"  (CPU of the server {cpu:.3f} s)"), flush=True)
