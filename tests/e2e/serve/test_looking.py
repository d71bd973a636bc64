"""Opening, stepping, playing and choosing, in a browser."""

import numpy as np
import pytest
from support.pages import click_pixel, only_tints, open_page, pixel, selected, wait_frame, wait_until
from support.small_result import moving_squares

from entitysam.visualization.overlay import id_colours

FRAMES, IDS = moving_squares()
LAST = len(IDS) - 1


def middle(frame, entity):
    """(x, y) of a pixel well inside an entity."""
    rows, columns = np.nonzero(IDS[frame] == entity)
    inner = (
        (rows > rows.min() + 2)
        & (rows < rows.max() - 2)
        & (columns > columns.min() + 2)
        & (columns < columns.max() - 2)
    )
    rows, columns = rows[inner], columns[inner]
    return int(columns[len(columns) // 2]), int(rows[len(rows) // 2])


def check_picture(page, frame):
    """Every entity of a frame has its colour where the map has its id."""
    for entity in np.unique(IDS[frame]).tolist():
        assert pixel(page, *middle(frame, entity)) == tuple(id_colours(entity).tolist()), (frame, entity)


def test_it_opens_and_steps_to_exact_frames(page):
    assert page.title() == "squares · entitysam"
    only_tints(page)
    check_picture(page, 0)
    page.locator("#picture").focus()
    for frame in (1, 2, 3):
        page.keyboard.press("ArrowRight")
        wait_frame(page, frame)
        check_picture(page, frame)
    page.keyboard.press("Shift+ArrowRight")
    wait_frame(page, 13)
    check_picture(page, 13)
    page.keyboard.press("End")
    wait_frame(page, LAST)
    check_picture(page, LAST)
    page.locator("#back").click()
    wait_frame(page, LAST - 1)
    check_picture(page, LAST - 1)
    page.locator("#frame").fill("5")
    page.locator("#frame").press("Enter")
    wait_frame(page, 5)
    check_picture(page, 5)
    assert page.locator("#time").inner_text() == "0:00.50"
    page.keyboard.press("ArrowRight")  # the keys are those of the video again
    wait_frame(page, 6)
    for text, frame in [("99", LAST), ("", LAST), ("5", 5)]:  # the field says where the video is
        page.locator("#frame").fill(text)
        page.locator("#frame").press("Enter")
        wait_frame(page, frame)
        assert page.locator("#frame").input_value() == str(frame)
    page.reload()  # the place is remembered
    wait_frame(page, 5)


def test_under_the_overlay_is_the_frame_itself(page):
    page.locator("#opacity").fill("0")
    page.locator("#outlines").uncheck()
    page.locator("#labels").uncheck()
    page.locator("#frame").fill("7")
    page.locator("#frame").press("Enter")
    wait_frame(page, 7)
    for entity in (1, 2, 3, 4):
        x, y = middle(7, entity)
        around = FRAMES[7, y - 1 : y + 2, x - 1 : x + 2].reshape(-1, 3).mean(0)
        assert np.abs(np.array(pixel(page, x, y)) - around).max() < 45, entity


def test_it_plays_every_frame_in_time(page):
    """By a clock of the test: 10 frames in a second, whatever the machine does meanwhile."""
    only_tints(page)
    wait_until(page, f"[...Array({LAST + 1}).keys()].every((frame) => entitysam.media.isReady(frame))")
    page.evaluate(
        "() => { window.seen = []; new MutationObserver(() => seen.push(+document.body.dataset.frame))"
        ".observe(document.body, {attributeFilter: ['data-frame']}); }"
    )
    page.clock.install()
    page.clock.pause_at(page.evaluate("Date.now()") + 1000)
    page.locator("#play").click()
    passed = 0
    while page.evaluate("entitysam.playing"):
        page.clock.run_for(50)
        passed += 50
        wait_until(page, "document.body.dataset.frame === String(entitysam.frame)")
        assert 0 <= passed - 100 * page.evaluate("entitysam.frame") <= 200
    assert page.evaluate("seen") == list(range(1, LAST + 1))
    check_picture(page, LAST)


def test_an_entity_is_chosen_in_the_picture_and_in_the_lanes(page):
    click_pixel(page, *middle(0, 3))
    assert selected(page) == 3
    assert page.locator("#lane-names button[aria-pressed=true]").inner_text() == "Entity 3"
    assert page.locator("#facts").inner_text().split("\n")[:2] == ["Id", "3"]
    page.locator("#lane-names button", has_text="Entity 4").click()
    assert selected(page) == 4
    assert "0 to 11, 12 of them" in page.locator("#facts").inner_text()
    page.keyboard.press("ArrowUp")
    assert selected(page) == 3
    page.keyboard.press("Escape")
    assert selected(page) == 0
    box = page.locator("#tracks").bounding_box()
    page.mouse.click(box["x"] + box["width"] * 10.5 / len(IDS), box["y"] + 26 * 1.5)  # the second lane, frame 10
    wait_frame(page, 10)
    assert selected(page) == 2


def test_alone_and_side_by_side(page):
    only_tints(page)
    page.locator("#lane-names button", has_text="Entity 2").click()
    page.locator("#alone").check()
    assert pixel(page, *middle(0, 2)) == tuple(id_colours(2).tolist())
    assert pixel(page, *middle(0, 3)) != tuple(id_colours(3).tolist())
    page.locator("#alone").uncheck()
    page.locator("#side").check()
    check_picture(page, 0)  # on the right; on the left is the original
    layout = page.evaluate("entitysam.picture.layout()")
    assert layout["full"][0] == 2 * layout["width"] + 6
    click_pixel(page, *middle(0, 4))
    assert selected(page) == 4


def test_lanes_are_sorted_and_zoomed(page):
    names = page.locator("#lane-names button")
    assert names.all_inner_texts() == [f"Entity {i}" for i in (1, 2, 3, 4)]
    page.locator("#sort").select_option("area")
    areas = {i: int((i == IDS).sum()) for i in (1, 2, 3, 4)}
    assert names.all_inner_texts() == [f"Entity {i}" for i in sorted(areas, key=areas.get, reverse=True)]
    page.locator("#zoom-in").click()
    assert page.evaluate("entitysam.timeline.span") == len(IDS) / 2
    page.keyboard.press("End")
    wait_frame(page, LAST)
    first, span = page.evaluate("[entitysam.timeline.first, entitysam.timeline.span]")
    assert first <= LAST < first + span
    page.locator("#zoom-out").click()
    assert page.evaluate("entitysam.timeline.span") == len(IDS)


@pytest.mark.parametrize("width", [390, 1280])
def test_nothing_is_wider_than_the_window(browser, server, copy, width):
    with open_page(browser, server.url, width, 844) as (page, problems):
        page.locator("#lane-names button").first.click()
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        narrow = page.evaluate(
            "[...document.querySelectorAll('button, select, input')].filter((e) => e.offsetParent)"
            ".filter((e) => { const b = e.getBoundingClientRect(); return b.left < 0 || b.right > innerWidth + 0.5; }).map((e) => e.id)"
        )
        assert narrow == []
        assert problems == []


@pytest.mark.parametrize(("width", "height"), [(1000, 420), (700, 320)])
def test_a_low_window(browser, server, copy, width, height):
    """The page scrolls; nothing covers the controls, and the picture is not higher than the window."""
    with open_page(browser, server.url, width, height) as (page, problems):
        assert page.locator("#picture").bounding_box()["height"] < 0.7 * height
        for name in ("#play", "#opacity", "#side", "#sort", "#zoom-in"):
            page.locator(name).click(trial=True, timeout=10_000)
        page.locator("#forward").click()
        wait_frame(page, 1)
        assert problems == []


def test_a_full_cache_is_not_filled_again_and_again(page):
    """Frames larger than the cache: each range ahead is fetched once, and then there is rest."""
    asked = page.evaluate(
        """async () => {
            const { key, media } = entitysam;
            const maps = new media.constructor(key, 8).maps; // not the page's own: its timers fetch, too
            const asked = [], load = maps.load;
            Object.assign(maps, { range: 2, maxBytes: 1, load: (start, count) => (asked.push(start), load(start, count)) });
            media.fill(maps, 0, 8);
            for (let still = 0; still < 5 && asked.length < 20; still = maps.pending.size ? 0 : still + 1) await new Promise((done) => setTimeout(done, 100));
            return asked;
        }"""
    )
    assert asked == [0, 2, 4, 6]
