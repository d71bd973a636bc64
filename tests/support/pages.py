"""What browser tests do with the page of `entitysam serve`."""

import re
import time
from contextlib import contextmanager

# What Chromium remarks on: the tests read pixels back, which the page does not do; edits are refused, which the page says.
REMARKS = re.compile("getImageData|Failed to load resource.*status of (409|422)")


@contextmanager
def open_page(browser, url, width=1280, height=800, ready="body[data-frame]", **options):
    """A page in a context of its own, and what it has written to the console."""
    context = browser.new_context(viewport={"width": width, "height": height}, **options)
    page, problems = context.new_page(), []
    page.set_default_timeout(60_000)  # for machines that do much else
    page.on("console", lambda message: REMARKS.search(message.text) or problems.append(message.text))
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.goto(url)
    page.wait_for_selector(ready)
    try:
        yield page, problems
    finally:
        context.close()


def wait_until(page, expression, seconds=60.0):
    """Waits until an expression is true; the policy of the page forbids what `wait_for_function` does."""
    end = time.monotonic() + seconds
    while not page.evaluate(expression):
        assert time.monotonic() < end, f"{expression} does not become true"
        page.wait_for_timeout(100)


def wait_frame(page, frame):
    page.wait_for_selector(f"body[data-frame='{frame}']")


def go_to(page, frame):
    page.locator("#frame").fill(str(frame))
    page.locator("#frame").press("Enter")
    wait_frame(page, frame)


def wait_revision(page, revision):
    page.wait_for_selector(f"body[data-revision='{revision}']")


def place(page, x, y):
    """Position in the window of a pixel (x, y) of the frame."""
    box = page.locator("#picture").bounding_box()
    left, top, scale = page.evaluate("(({x, y, scale}) => [x, y, scale])(entitysam.picture.layout())")
    return box["x"] + left + (x + 0.5) * scale, box["y"] + top + (y + 0.5) * scale


def click_pixel(page, x, y, **options):
    page.locator("#picture").click(position=inside(page, x, y), **options)


def inside(page, x, y):
    box, (left, top) = page.locator("#picture").bounding_box(), place(page, x, y)
    return {"x": left - box["x"], "y": top - box["y"]}


def pixel(page, x, y):
    """Colour (R, G, B) on the canvas at a pixel (x, y) of the frame."""
    spot = inside(page, x, y)
    return tuple(
        page.evaluate(
            "({x, y}) => { const c = document.getElementById('picture'); const r = window.devicePixelRatio;"
            " return [...c.getContext('2d').getImageData(x * r, y * r, 1, 1).data].slice(0, 3); }",
            spot,
        )
    )


def only_tints(page):
    """Draws entities opaque, without outlines and labels, so that a pixel has the colour of its entity."""
    page.locator("#opacity").fill("100")
    page.locator("#outlines").uncheck()
    page.locator("#labels").uncheck()


def selected(page):
    return page.evaluate("entitysam.selected")
