"""Accessibility: axe on every state at both widths and in both schemes, and the whole page by keyboard alone."""

import pytest
from support.pages import click_pixel, open_page, selected, wait_frame, wait_revision

from entitysam.serve.app import Settings
from entitysam.serve.segmenting import Prompter, Studio
from entitysam.serve.server import BackgroundServer
from entitysam.serve.sources import Sources, live_source
from entitysam.serve.workspace import Workspace

axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="no axe: pip install 'entitysam[dev]'")
JOBS = [
    {"kind": kind, "state": state, "key": f"{kind} {state}", "title": f"{kind} of squares", "done": 3, "total": 24,
     "message": "not a video that can be read" if state == "failed" else "", "stopping": False,
     "result": "0" if state == "done" else None, "download": "/api/x" if (kind, state) == ("export", "done") else None}
    for kind in ("segment", "export", "follow", "correct")
    for state in ("waiting", "running", "done", "failed", "cancelled")
]  # fmt: skip


def give_prompts(page):
    page.locator("#prompt").click()
    click_pixel(page, 60, 40)


def show_jobs(page):
    page.route("**/api/jobs", lambda route: route.fulfill(json=JOBS))
    page.evaluate("void entitysam.work.poll()")  # goes on
    page.locator("#uploads progress").first.wait_for(state="attached")


def play_live(page):
    """The state of the page while a camera runs, without a network: what `Live` does with the answers of the server."""
    page.evaluate("entitysam.live.on.started()")
    page.evaluate(
        "async () => { const packed = new Blob([new Uint32Array([1, 1, 1, 48])]).stream().pipeThrough(new CompressionStream('gzip'));"
        " const bytes = new Uint8Array(await new Response(packed).arrayBuffer()); const live = entitysam.live; live.begin({width: 8, height: 6});"
        " await live.show({frame: 0, runs: btoa(String.fromCharCode(...bytes)), entities: [{id: 1, name: '', colour: '#ff0000'}]}, null,"
        " [[0.5, 'born', 1]]); }"
    )
    assert page.locator("#camera-state").inner_text() == "1 entity"


# The state of the page that each step leads to; those of the second set have nothing that others do not have.
STATES = {
    "nothing selected": lambda page: None,
    "an entity": lambda page: page.locator("#lane-names button").nth(1).click(),
    "two entities": lambda page: page.locator("#lane-names button").nth(2).click(modifiers=["Shift"]),
    "brush": lambda page: page.locator("#brush").click(),
    "clicks and boxes": give_prompts,
    "a notice": lambda page: page.evaluate(
        "import('/static/main.js').then((main) => main.notice('the disk is full', true))"
    ),
    "review": lambda page: page.locator("#tab-review").click(),
    "edits": lambda page: page.locator("#tab-edits").click(),
    "export and CVAT": lambda page: page.locator("#tab-export").click(),
    "new and sources": lambda page: page.locator("#tab-new").click(),
    "jobs": show_jobs,
    "jobs of exports": lambda page: page.locator("#tab-export").click(),
    "jobs of prompts": lambda page: page.locator("#tab-entity").click(),
    "compare": lambda page: page.locator("#side").check(),
    "live": play_live,
    "keys": lambda page: page.evaluate("document.getElementById('keys').showModal()"),
}
PLAIN = {"nothing selected", "brush", "a notice", "edits", "export and CVAT", "new and sources", "compare", "live"}


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A server that offers all that the page can have."""
    studio = Studio(tmp_path_factory.mktemp("work"), prompter=Prompter("sam2_tiny", "random", {}))
    sources = Sources([live_source("rtsp://camera/live")])
    with BackgroundServer(Workspace(), Settings(), studio, sources) as background:
        yield background


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (1280, "dark"), (390, "light")])
def test_axe_finds_nothing(browser, server, copy, width, scheme):
    result = server.workspace.result(copy[1], "0" * 32)
    with open_page(browser, server.url, width, 844, color_scheme=scheme, bypass_csp=True) as (page, problems):
        for name, enter in STATES.items():
            enter(page)
            assert page.evaluate("document.documentElement.scrollWidth") <= width, name
            if (width, scheme) != (1280, "light") and name in PLAIN:
                continue
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
