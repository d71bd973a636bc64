"""Accessibility: axe on every state at both widths and in both schemes, and the whole page by keyboard alone."""

import pytest
from support.pages import open_page, selected, wait_frame, wait_revision

axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="no axe: pip install 'entitysam[dev]'")
STATES = {
    "nothing selected": lambda page: None,
    "an entity": lambda page: page.locator("#lane-names button").nth(1).click(),
    "brush": lambda page: page.locator("#brush").click(),
    "review": lambda page: page.locator("#tab-review").click(),
    "edits": lambda page: page.locator("#tab-edits").click(),
    "export": lambda page: page.locator("#tab-export").click(),
    "new": lambda page: page.locator("#tab-new").click(),
    "keys": lambda page: page.evaluate("document.getElementById('keys').showModal()"),
}


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (1280, "dark"), (390, "light")])
def test_axe_finds_nothing(browser, server, copy, width, scheme):
    result = server.workspace.result(copy[1], "0" * 32)
    with open_page(browser, server.url, width, 844, color_scheme=scheme, bypass_csp=True) as (page, problems):
        for name, enter in STATES.items():
            enter(page)
            if (width, scheme) != (1280, "light") and name in ("nothing selected", "brush", "edits", "export"):
                continue  # nothing there that the other states do not have
            found = axe.Axe().run(page)
            assert len(found.response["passes"]) > 15
            assert found.violations_count == 0, f"{name}: {found.generate_report()}"
        assert problems == []
    assert result.revision == 0


def test_everything_by_keyboard(page):
    """From the first Tab on: every control is reached, what has the focus is seen, and an edit is made and undone."""
    reached = []
    page.locator("body").click(position={"x": 5, "y": 5})
    for _ in range(60):
        page.keyboard.press("Tab")
        state = page.evaluate(
            "(() => { const e = document.activeElement; const s = getComputedStyle(e);"
            " return [e.id || e.dataset.id || e.tagName, e === document.body || parseFloat(s.outlineWidth) > 0]; })()"
        )
        assert state[1], f"the focus on {state[0]} is not seen"
        if state[0] in reached and state[0] != "BODY":
            break
        reached.append(state[0])
    expected = {"help", "picture", "first", "back", "play", "forward", "frame", "opacity", "outlines", "labels", "alone",
                "side", "tab-entity", "sort", "zoom-in", "zoom-out", "new-entity", "1", "2", "3", "4"}  # fmt: skip
    assert expected <= set(reached), expected - set(reached)
    page.locator("#picture").focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    assert selected(page) == 2
    page.keyboard.press("ArrowRight")
    wait_frame(page, 1)
    page.keyboard.press("s")
    wait_revision(page, 1)
    page.keyboard.press("Control+z")
    wait_revision(page, 2)
    page.locator("#tab-entity").focus()
    for tab in ("review", "edits", "export", "new", "entity"):
        page.keyboard.press("ArrowRight")
        assert page.evaluate("document.activeElement.id") == f"tab-{tab}"
        assert page.locator(f"#panel-{tab}").is_visible()
    page.locator("#picture").focus()
    page.keyboard.press("?")
    assert page.locator("#keys").is_visible()
    page.keyboard.press("Escape")
    assert not page.locator("#keys").is_visible()
