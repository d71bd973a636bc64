"""A real server on loopback and a real Chromium."""

import shutil

import pytest
from support.pages import open_page
from support.small_result import moving_squares, write_result

from entitysam.serve.server import BackgroundServer
from entitysam.serve.workspace import Workspace

NAMES = ("chromium", "chromium-browser", "google-chrome")
ARGUMENTS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--use-fake-device-for-media-stream",
    "--use-fake-ui-for-media-stream",
]


@pytest.fixture(scope="module")
def browser():
    """Chromium, or the reason why there is none."""
    path = next(filter(None, map(shutil.which, NAMES)), None)
    if path is None:
        pytest.skip("no Chromium: install it (on Debian: apt-get install chromium)")
    playwright = pytest.importorskip("playwright.sync_api", reason="no playwright: pip install 'entitysam[dev]'")
    with playwright.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=path, args=ARGUMENTS)
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The result that all tests of a module look at; each edits a copy."""
    return write_result(tmp_path_factory.mktemp("results") / "squares", *moving_squares())


@pytest.fixture(scope="module")
def server():
    with BackgroundServer(Workspace()) as background:
        yield background


@pytest.fixture
def copy(folder, server, tmp_path):
    """A fresh copy of the result, opened in the server; (folder, key)."""
    target = tmp_path / "squares"
    shutil.copytree(folder, target)
    entry = server.workspace.open_folder(target)
    yield target, entry.key
    server.workspace.remove(entry.key)


@pytest.fixture
def page(browser, server, copy):
    """The page with the copy open at 1280 pixels; any message of the console fails the test."""
    with open_page(browser, server.url) as (page, problems):
        yield page
        assert problems == []
