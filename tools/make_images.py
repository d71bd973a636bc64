"""Makes the images of README and docs from the result of `entitysam demo`.

Examples:
  entitysam demo -o out/demo && python tools/make_images.py out/demo docs/images/demo.webp
  python tools/make_images.py out/demo docs/images/serve.webp --page        # the page of `entitysam serve`; needs Chromium
"""

import argparse
import io
import shutil
import tempfile
from pathlib import Path

from PIL import Image

from entitysam.io.readers.source import open_frames

WIDTH, QUALITY = 480, 60
PAGE_SIZE = {"width": 1280, "height": 760}


def parser() -> argparse.ArgumentParser:
    result = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    result.add_argument("result", type=Path, help="result folder with overlay.mp4")
    result.add_argument("image", type=Path, help="WebP file to write")
    result.add_argument("--page", action="store_true", help="the page with this result instead of its overlay")
    return result


def main() -> None:
    arguments = parser().parse_args()
    arguments.image.parent.mkdir(parents=True, exist_ok=True)
    if arguments.page:
        _show_page(arguments.result, arguments.image)
    else:
        _animate(arguments.result, arguments.image)


def _animate(result: Path, image: Path) -> None:
    with open_frames(result / "overlay.mp4") as source:
        height = round(WIDTH * source.height / source.width)
        frames = [Image.fromarray(frame).resize((WIDTH, height), Image.Resampling.LANCZOS) for frame in source]
        duration = round(1000 / (source.fps or 8))  # milliseconds a frame
    frames[0].save(image, save_all=True, append_images=frames[1:], duration=duration, loop=0, quality=QUALITY)


def _show_page(result: Path, image: Path) -> None:
    """The page in the middle of the clip, with its smallest entity selected."""
    from playwright.sync_api import sync_playwright

    from entitysam.serve.opened import OpenedResult
    from entitysam.serve.server import BackgroundServer
    from entitysam.serve.workspace import Workspace

    workspace = Workspace()
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as driver:
        opened = OpenedResult(result, journal=Path(folder) / "edits.jsonl")
        workspace.add(opened.saved.video_id, opened)
        with BackgroundServer(workspace) as server:
            arguments = ["--headless", "--no-sandbox", "--disable-gpu"]
            browser = driver.chromium.launch(executable_path=shutil.which("chromium"), args=arguments)
            page = browser.new_page(viewport=PAGE_SIZE)
            page.goto(server.url)
            page.wait_for_selector("body[data-frame]")
            middle = opened.num_frames // 2
            page.locator("#frame").fill(str(middle))
            page.locator("#frame").press("Enter")
            page.wait_for_selector(f"body[data-frame='{middle}']")
            smallest = min(opened.state()["entities"], key=lambda entity: entity["area"])
            page.locator(f"#lane-names button[data-id='{smallest['id']}']").click()
            shot = page.screenshot()
            browser.close()
    Image.open(io.BytesIO(shot)).convert("RGB").save(image, quality=82, method=6)


if __name__ == "__main__":
    main()
