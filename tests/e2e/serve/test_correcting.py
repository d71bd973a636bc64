"""Every correction through the page; what it shows is compared with the maps that the edits should give."""

import json
import re
import shutil

import numpy as np
import pytest
from support.pages import (
    click_pixel,
    go_to,
    inside,
    only_tints,
    open_page,
    pixel,
    place,
    selected,
    wait_frame,
    wait_revision,
    wait_until,
)
from support.small_boxes import write_boxes
from support.small_result import moving_squares

from entitysam.io.id_maps import read_ids
from entitysam.serve.opened import OpenedResult
from entitysam.serve.server import BackgroundServer
from entitysam.serve.workspace import Workspace
from entitysam.visualization.overlay import id_colours

_, IDS = moving_squares()
LAST = len(IDS) - 1


def colour(entity):
    return tuple(id_colours(entity).tolist())


def middle(frame, entity, ids=IDS):
    """(x, y) of about the middle of an entity; the ground is taken at its right end."""
    rows, columns = np.nonzero(ids[frame] == entity)
    if entity == 1:
        return ids.shape[2] - 3, 3
    return int(columns.mean()), int(rows.mean())


def choose(page, entity, other=None):
    page.locator("#lane-names button", has_text=f" {entity}").first.click()
    if other is not None:
        page.locator("#other").select_option(str(other))


def shown(page):
    return page.locator("#lane-names button").all_inner_texts()


def test_name_colour_and_lock(page, copy):
    click_pixel(page, *middle(0, 2))
    page.keyboard.press("r")
    page.keyboard.type("red box")
    page.keyboard.press("Enter")
    wait_revision(page, 1)
    assert "red box 2" in shown(page)
    page.locator("#colour").fill("#00ff7f")
    wait_revision(page, 2)
    only_tints(page)
    assert pixel(page, *middle(0, 2)) == (0, 255, 127)
    page.locator("#picture").focus()
    page.keyboard.press("l")
    wait_revision(page, 3)
    assert page.locator("#lock").inner_text() == "Locked"
    assert page.locator("#delete").is_disabled()
    page.reload()
    page.wait_for_selector("body[data-revision='3']")
    assert "red box 2 · locked" in shown(page)


def test_a_name_belongs_to_the_entity_that_it_was_typed_for(page, copy):
    """Whatever is clicked next; and a name is text."""
    click_pixel(page, *middle(0, 2))
    page.keyboard.press("r")
    page.keyboard.type("<b>&amp;</b><img src=x onerror=alert(1)>")
    click_pixel(page, *middle(0, 3))
    wait_revision(page, 1)
    assert shown(page) == ["Entity 1", "<b>&amp;</b><img src=x onerror=alert(1)> 2", "Entity 3", "Entity 4"]
    assert (selected(page), page.locator("#name").input_value()) == (3, "")
    page.locator("#name").focus()  # nothing is typed
    click_pixel(page, *middle(0, 2))
    assert page.locator("#name").input_value().startswith("<b>")
    page.locator("#tab-edits").click()
    assert "<img src=x onerror=alert(1)>" in page.locator("#edits li").inner_text()
    assert page.locator("img, b").count() == 0
    page.locator("#picture").focus()
    page.keyboard.press("r")  # from another tab of the tools
    page.keyboard.type("box")
    page.keyboard.press("Enter")
    wait_revision(page, 2)
    assert "box 2" in shown(page)


def test_edits_that_are_faster_than_the_server(page, copy):
    """Each is made on the state that the one before has left."""
    choose(page, 3)
    page.evaluate("for (const frame of [8, 4]) { entitysam.frame = frame; document.getElementById('split').click(); }")
    wait_revision(page, 2)
    assert shown(page) == ["Entity 1", "Entity 2", "Entity 3", "Entity 4", "Entity 6", "Entity 5"]
    page.evaluate("for (const _ of [1, 2, 3]) document.getElementById('lock').click()")
    wait_revision(page, 5)
    assert "Entity 3 · locked" in shown(page)
    assert page.locator("#notice").is_hidden()


def test_the_brush_ends_with_its_entity(page, copy):
    choose(page, 2)
    page.keyboard.press("b")
    assert page.locator("#brush").get_attribute("aria-pressed") == "true"
    page.keyboard.press("Shift+Delete")
    wait_revision(page, 1)
    click_pixel(page, *middle(0, 3))  # selects
    assert selected(page) == 3
    assert page.locator("#brush").get_attribute("aria-pressed") == "false"
    assert page.evaluate("entitysam.state.revision") == 1


def test_merge_undo_redo_and_reload(page, copy):
    only_tints(page)
    choose(page, 2)
    click_pixel(page, *middle(0, 3), modifiers=["Shift"])
    assert page.locator("#other").input_value() == "3"
    page.keyboard.press("m")
    wait_revision(page, 1)
    assert shown(page) == ["Entity 1", "Entity 2", "Entity 4"]
    assert pixel(page, *middle(0, 3)) == colour(2)
    page.keyboard.press("Control+z")
    wait_revision(page, 2)
    assert pixel(page, *middle(0, 3)) == colour(3)
    page.locator("#redo").click()
    wait_revision(page, 3)
    page.reload()
    page.wait_for_selector("body[data-revision='3']")
    assert shown(page) == ["Entity 1", "Entity 2", "Entity 4"]
    only_tints(page)
    assert pixel(page, *middle(0, 3)) == colour(2)
    page.locator("#undo").click()
    wait_revision(page, 4)
    assert pixel(page, *middle(0, 3)) == colour(3)
    page.locator("#tab-edits").click()
    assert page.locator("#edits li.undone").inner_text() == "entity 3 merged into entity 2"


def test_split_swap_delete_and_join(page, copy):
    only_tints(page)
    choose(page, 3)
    go_to(page, 12)
    page.locator("#split").click()
    wait_revision(page, 1)
    assert pixel(page, *middle(12, 3)) == colour(5)
    page.locator("#back").click()
    wait_frame(page, 11)
    assert pixel(page, *middle(11, 3)) == colour(3)
    go_to(page, 14)
    choose(page, 2, other=5)
    page.locator("#swap").click()
    wait_revision(page, 2)
    assert (pixel(page, *middle(14, 2)), pixel(page, *middle(14, 3))) == (colour(5), colour(2))
    go_to(page, 13)
    assert (pixel(page, *middle(13, 2)), pixel(page, *middle(13, 3))) == (colour(2), colour(5))
    choose(page, 4, other=5)
    page.locator("#join").click()  # 4 ends on frame 11, 5 begins on 12
    wait_revision(page, 3)
    assert pixel(page, *middle(13, 3)) == colour(4)
    choose(page, 2)
    page.keyboard.press("Delete")
    wait_revision(page, 4)
    assert pixel(page, *middle(13, 2)) not in [colour(i) for i in range(1, 6)]
    page.locator("#range-first").fill("15")
    page.locator("#range-last").fill("17")
    page.locator("#delete-range").click()
    wait_revision(page, 5)
    page.keyboard.press("Escape")
    # The same by hand, on the whole video; and nothing of it is in the result itself.
    expected = IDS.copy()
    expected[12:][expected[12:] == 3] = 5
    two, five = expected[14:] == 2, expected[14:] == 5
    expected[14:][two], expected[14:][five] = 5, 2
    expected[expected == 5] = 4
    expected[13][expected[13] == 2] = 0
    expected[15:18][expected[15:18] == 2] = 0
    folder, _ = copy
    opened = OpenedResult(folder)
    for frame in range(len(IDS)):
        np.testing.assert_array_equal(opened.ids(frame), expected[frame])
        np.testing.assert_array_equal(read_ids(folder / "masks" / f"{frame:05d}.png"), IDS[frame])


def test_what_cannot_be_done_is_said(page, copy):
    choose(page, 2, other=3)
    page.locator("#join").click()
    page.locator("#notice", has_text=re.compile("^Both entities are on frame 0; merge them instead$")).wait_for()
    assert page.locator("body").get_attribute("data-revision") == "0"


def stroke(page, points):
    for index, (x, y) in enumerate(points):
        page.mouse.move(*place(page, x, y))
        if not index:
            page.mouse.down()
    page.mouse.up()


def test_brush_eraser_and_a_new_entity(page, copy):
    only_tints(page)
    choose(page, 2)
    page.locator("#radius").fill("4")
    page.locator("#brush").click()
    ground = (90, 8)
    stroke(page, [(80, 8), (100, 8)])
    wait_revision(page, 1)
    assert pixel(page, *ground) == colour(2)
    page.locator("#eraser").click()
    stroke(page, [(90, 8)])
    wait_revision(page, 2)
    assert pixel(page, *ground) != colour(2)
    assert pixel(page, 80, 8) == colour(2)
    page.locator("#new-entity").click()
    stroke(page, [(60, 35)])
    wait_revision(page, 3)
    assert pixel(page, 60, 35) == colour(5)
    assert selected(page) == 5
    assert "Entity 5" in shown(page)
    page.locator("#forward").click()  # strokes are on one frame
    wait_frame(page, 1)
    assert pixel(page, *ground) == colour(1)


def test_an_enlarged_picture(page, copy):
    """Under the pointer the same pixel stays; what is seen, chosen and painted is where it is in the frame."""
    only_tints(page)
    page.locator("#picture").hover(position=inside(page, *middle(0, 4)))
    before = place(page, *middle(0, 4))
    page.keyboard.down("Control")
    page.mouse.wheel(0, -250)
    page.keyboard.up("Control")
    wait_until(page, "entitysam.picture.zoom > 3")
    np.testing.assert_allclose(place(page, *middle(0, 4)), before, atol=3)  # wheels are at whole pixels of the window
    assert pixel(page, *middle(0, 4)) == colour(4)
    click_pixel(page, *middle(0, 4))
    assert selected(page) == 4
    page.keyboard.press("Shift+Z")
    page.keyboard.press("Shift+Z")
    assert page.evaluate("entitysam.picture.zoom") == 1
    choose(page, 3)
    for _ in range(6):
        page.keyboard.press("z")  # to the selected entity
    assert page.evaluate("entitysam.picture.zoom") == 16
    assert pixel(page, *middle(0, 3)) == colour(3)
    page.locator("#farther").click()
    page.locator("#farther").click()
    x, y = place(page, *middle(0, 3))
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + 100, y + 60, steps=5)  # moves it, and chooses nothing
    page.mouse.up()
    np.testing.assert_allclose(place(page, *middle(0, 3)), (x + 100, y + 60), atol=0.5)
    assert selected(page) == 3
    page.locator("#side").check()
    np.testing.assert_array_equal(pixel(page, *middle(0, 3)), colour(3))
    page.locator("#side").uncheck()
    page.locator("#radius").fill("1")
    page.locator("#eraser").click()
    page.locator("#picture").hover(position=inside(page, *middle(0, 3)))
    ring = page.locator("#ring").bounding_box()
    assert abs(ring["width"] - 2 * page.evaluate("entitysam.picture.layout().scale")) < 1
    stroke(page, [middle(0, 3)])
    wait_revision(page, 1)
    x, y = middle(0, 3)
    opened = OpenedResult(copy[0]).ids(0)
    changed = np.argwhere(opened != IDS[0])
    assert opened[y, x] == 0
    assert np.abs(changed - [y, x]).max() <= 1
    page.reload()
    wait_revision(page, 1)
    assert page.evaluate("entitysam.picture.zoom") == 1


def test_two_fingers_enlarge_the_picture(browser, server, copy):
    with open_page(browser, server.url, 390, 844, has_touch=True, is_mobile=True) as (page, problems):
        (left, y), (right, _) = place(page, 40, 36), place(page, 80, 36)
        touches = page.context.new_cdp_session(page)

        def touch(kind, *points):
            given = [{"x": x, "y": y, "id": number} for number, x in enumerate(points)]
            touches.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": given})

        choose(page, 2)
        page.locator("#brush").click()
        page.evaluate("window.scrollTo(0, 0)")
        touch("touchStart", left)
        touch("touchStart", left, right)
        for step in (10, 20, 30):
            touch("touchMove", left - step, right + step)
        touch("touchEnd")
        zoom = page.evaluate("entitysam.picture.zoom")
        assert zoom == pytest.approx((right - left + 60) / (right - left), rel=0.1)
        np.testing.assert_allclose([place(page, x, 36)[0] for x in (40, 80)], [left - 30, right + 30], atol=6)
        assert page.evaluate("entitysam.state.revision") == 0  # nothing is painted
        assert problems == []


def test_two_tabs_see_the_same(browser, server, page, copy):
    with open_page(browser, server.url) as (other, problems):
        choose(page, 2, other=3)
        page.locator("#merge").click()
        other.wait_for_selector("body[data-revision='1']")
        assert shown(other) == ["Entity 1", "Entity 2", "Entity 4"]
        choose(other, 4)
        other.locator("#delete").click()
        page.wait_for_selector("body[data-revision='2']")
        assert shown(page) == shown(other) == ["Entity 1", "Entity 2"]
        # An edit on a state that is not the newest one is refused and the tab brought up to date.
        page.route(
            "**/edits",
            lambda route: route.continue_(post_data=route.request.post_data.replace('"revision":2', '"revision":1')),
        )
        choose(page, 1)
        page.locator("#split").click()
        page.locator("#notice", has_text="another tab").wait_for()
        page.unroute("**/edits")
        page.locator("#delete").click()
        wait_revision(page, 3)
        assert shown(page) == ["Entity 2"]
        assert problems == []


def test_edits_of_an_earlier_run_are_kept_and_said(browser, server, folder, tmp_path):
    target = tmp_path / "run"
    shutil.copytree(folder, target)
    lines = [{"journal": 1, "result": "0123456789abcdef"}, {"do": {"kind": "merge", "id": 2, "into": 3}}]
    (target / "edits.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    entry = server.workspace.open_folder(target)
    with open_page(browser, server.url) as (page, problems):
        page.wait_for_selector("#notice:not([hidden])")
        assert "edits-0123456789ab.jsonl" in page.locator("#notice").inner_text()
        assert problems == []
    server.workspace.remove(entry.key)


def test_boxes_without_masks(browser, server, tmp_path):
    """They are filled; what paints is not offered, and back with the next result."""
    entry = server.workspace.open_folder(write_boxes(tmp_path / "boxes", 8))
    with open_page(browser, server.url) as (page, problems):
        wait_until(page, "entitysam.meta.title === 'boxes'")
        only_tints(page)
        assert [pixel(page, *at) for at in [(20, 20), (50, 30), (5, 65)]] == [colour(1), colour(2), colour(3)]
        click_pixel(page, 50, 30)
        assert selected(page) == 2
        hidden = ["#by-hand", "#new-entity", "#prompts", "#corrections", "[data-export=maps]"]
        assert not any(page.locator(name).is_visible() for name in hidden[:3])
        for tab in ("#tab-export", "#tab-entity"):
            page.locator(tab).click()
            assert not any(page.locator(name).is_visible() for name in hidden)
        page.keyboard.press("b")
        page.locator("#notice", has_text="boxes, which cannot be painted").wait_for()
        page.keyboard.press("Shift+Delete")
        wait_revision(page, 1)
        assert pixel(page, 50, 30) == colour(1)
        page.keyboard.press("Control+z")
        wait_revision(page, 2)
        assert pixel(page, 50, 30) == colour(2)
        answer = page.evaluate(
            "fetch(`/api/results/${entitysam.key}/edits`, {method: 'POST', headers: {'X-Tab': sessionStorage.getItem('tab'),"
            " 'Content-Type': 'application/json'}, body: JSON.stringify({revision: 2, edit: {kind: 'paint', id: 1, frame: 0,"
            " points: [[1, 1]], radius: 2}})}).then(async (a) => [a.status, (await a.json()).error])"
        )
        assert answer == [422, "this result has boxes, which cannot be painted"]
        assert problems == []
    server.workspace.remove(entry.key)


def test_another_result_and_the_same_one_after_a_restart(browser, folder, tmp_path):
    """Edits that wait go to the result that they were made for, the review list is of the open one; a page that stays open while the
    server is started again goes on."""
    folders = [tmp_path / "one", tmp_path / "two"]
    for target in folders:
        shutil.copytree(folder, target)

    def start(port=0):
        workspace = Workspace()
        keys = [workspace.open_folder(target).key for target in [*folders, folders[0]]]
        assert keys[2] == keys[0]
        return BackgroundServer(workspace, port=port), *keys[:2]

    first, one, two = start()
    with open_page(browser, first.url) as (page, problems):
        choose(page, 2)
        page.locator("#tab-review").click()
        page.wait_for_selector("#findings[data-revision='0']", state="attached")
        page.evaluate("entitysam.work.list([{frame: 3, ids: [2], text: 'of the first'}])")
        page.evaluate(
            "(key) => { document.getElementById('delete').click(); const result = document.getElementById('result');"
            " result.value = key; result.dispatchEvent(new Event('change')); }",
            two,
        )
        wait_until(page, f"entitysam.key === '{two}' && entitysam.state")
        page.locator("#findings", has_text="Of the first").wait_for(state="detached")
        assert [OpenedResult(target).revision for target in folders] == [1, 0]
        choose(page, 4)
        page.locator("#tab-entity").click()
        page.locator("#name").fill("typed")
        for key in (one, two):
            page.locator("#result").select_option(key)
            wait_until(page, f"entitysam.key === '{key}' && entitysam.state")
        wait_revision(page, 1)
        assert "typed 4" in shown(page)
        first.close()
        page.locator("#notice", has_text="does not answer").wait_for()
        second, *_ = start(int(first.url.split(":")[2].strip("/")))
        with second:
            page.wait_for_selector("#notice", state="hidden")
            choose(page, 3)
            page.locator("#delete").click()
            wait_revision(page, 2)
            assert OpenedResult(folders[1]).revision == 2
            second.workspace.remove(two)
            page.locator("#notice", has_text="does not have this result").wait_for()
        assert [text for text in problems if "ERR_CONNECTION" not in text] == []


@pytest.mark.parametrize("width", [390])
def test_it_works_by_touch_on_a_narrow_screen(browser, server, copy, width):
    with open_page(browser, server.url, width, 844, has_touch=True, is_mobile=True) as (page, problems):
        spot = place(page, *middle(0, 2))
        page.touchscreen.tap(*spot)
        assert selected(page) == 2
        page.locator("#delete").tap()
        wait_revision(page, 1)
        assert shown(page) == ["Entity 1", "Entity 3", "Entity 4"]
        page.locator("#undo").tap()
        wait_revision(page, 2)
        assert problems == []
