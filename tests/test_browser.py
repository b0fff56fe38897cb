"""The notebooks in a browser: opened in headless Chromium, clicked, and the files that come of it.

Debian's packages chromium and chromium-driver are needed; `make test` installs them where it may.
"""

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.notebooks import TASKS, name_folders, write_example

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
ROOT = Path(__file__).parents[1]
PNG = b"\x89PNG\r\n\x1a\n"
PATIENCE = 60.0  # seconds; on an idle machine everything takes a few

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("default"),  # those of selenium are its own
    pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="needs Debian's packages chromium and chromium-driver"),
]

# marimo's controls are within shadow roots, which no selector of selenium reaches
ELEMENTS = """
const found = [];
const walk = root => root.querySelectorAll('*').forEach(element => {
    found.push(element);
    if (element.shadowRoot) walk(element.shadowRoot);
});
walk(document);
"""
FIND_TEXT = ELEMENTS + "return found.filter(e => e.matches(arguments[0]) && e.textContent.trim() === arguments[1])[0];"
FIND_OPTION = ELEMENTS + "return found.filter(e => e.matches('option') && e.textContent.trim() === arguments[0])[0];"
COUNT_PICTURES = ELEMENTS + "return found.filter(e => e.matches('img, canvas') && e.clientWidth > 300).length;"
ALL_TEXT = ELEMENTS + "return found.filter(e => e.matches('code, p')).map(e => e.textContent).join('\\n');"


@pytest.fixture(scope="module")
def browser(tmp_path_factory) -> Iterator[Any]:
    """A headless Chromium with a fresh profile that calls nobody."""
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    profile = tmp_path_factory.mktemp("profile")
    flags = "headless no-sandbox disable-gpu disable-quic no-first-run disable-background-networking "
    flags += (
        f"disable-component-update disable-sync disable-dev-shm-usage window-size=1400,2000 user-data-dir={profile}"
    )
    for flag in flags.split():
        options.add_argument(f"--{flag}")
    driver = webdriver.Chrome(options, webdriver.ChromeService(DRIVER))
    driver.set_page_load_timeout(PATIENCE)
    driver.set_script_timeout(PATIENCE)
    yield driver
    driver.quit()


@contextmanager
def serve(command: str, name: str, flags: dict[str, str], home: Path) -> Iterator[str]:
    """Serve a notebook on a free port while the block runs; yield its address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    marimo = [sys.executable, "-m", "marimo", command, f"{name}.py", "--headless", "--no-token", "--port", str(port)]
    arguments = [text for key, value in flags.items() for text in (f"--{key}", value)]
    environment = os.environ | {"HOME": str(home), "XDG_CONFIG_HOME": str(home), "XDG_STATE_HOME": str(home)}
    log = home / "server.log"
    with log.open("w") as output:
        server = subprocess.Popen(
            [*marimo, "--", *arguments], cwd=ROOT, env=environment, stdout=output, stderr=subprocess.STDOUT
        )
        try:
            address = f"http://127.0.0.1:{port}"
            wait_for(lambda: answers(address, server), f"{command} {name} to answer", log.read_text)
            yield address
        finally:
            server.terminate()
            try:
                server.wait(10)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()


def answers(address: str, server: subprocess.Popen) -> bool:
    assert server.poll() is None, "the server ended"
    try:
        with urllib.request.urlopen(f"{address}/health", timeout=5) as reply:
            return reply.status == 200
    except (urllib.error.URLError, OSError):
        return False


def wait_for(look: Callable[[], Any], what: str, explain: Callable[[], str] = str) -> Any:
    """Return what `look` finds, as soon as it finds anything."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        found = look()
        if found:
            return found
        time.sleep(0.1)
    raise AssertionError(f"waited {PATIENCE:.0f} s for {what}\n{explain()}")


def click(browser: Any, kind: str, text: str) -> None:
    def try_click() -> bool:
        element = browser.execute_script(FIND_TEXT, kind, text)
        if element is not None:
            browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", element)
            element.click()
        return element is not None

    from selenium.common.exceptions import WebDriverException

    def patient() -> bool:
        try:
            return try_click()
        except WebDriverException:  # redrawn between finding and clicking
            return False

    wait_for(patient, f"{kind} {text!r}", lambda: browser.execute_script(ALL_TEXT))


def choose(browser: Any, option: str) -> None:
    """Choose an option of a drop-down list."""
    found = wait_for(lambda: browser.execute_script(FIND_OPTION, option), f"option {option!r}")
    found.click()


def open_page(browser: Any, address: str) -> None:
    browser.get(address)
    wait_for(lambda: browser.execute_script(COUNT_PICTURES), "a figure", lambda: browser.execute_script(ALL_TEXT))


def save_and_find(browser: Any, path: Path) -> None:
    """Press save; the figure is there, and the page says where."""
    assert not path.exists()

    def press_and_look() -> bool:  # again, because a press may come before the page has taken the choice
        click(browser, "button", "Save as PNG")
        end = time.monotonic() + 5
        while time.monotonic() < end and not path.exists():
            time.sleep(0.1)
        return path.exists()

    wait_for(press_and_look, path.name, lambda: browser.execute_script(ALL_TEXT))
    assert path.read_bytes().startswith(PNG)
    wait_for(lambda: str(path) in browser.execute_script(ALL_TEXT), "the path on the page")


def test_a_grouping_is_picked_and_saved(browser, tmp_path):
    flags = write_example(tmp_path)
    folder = Path(flags["plots_dir"]) / TASKS[0] / "trial_1" / "seed_0"
    with serve("run", "routing_viz", flags, tmp_path) as address:
        open_page(browser, address)
        choose(browser, "Starting room")
        save_and_find(browser, folder / "routing_heatmap_by_starting_room.png")
        click(browser, "[role=tab]", "Paths")
        save_and_find(browser, folder / "routing_paths.png")


def test_tasks_are_compared_and_saved(browser, tmp_path):
    flags = write_example(tmp_path)
    with serve("run", "cross_task_viz", flags, tmp_path) as address:
        open_page(browser, address)
        save_and_find(browser, Path(flags["plots_dir"]) / "success_lpc.png")
        click(browser, "[role=tab]", "Tasks")
        save_and_find(browser, Path(flags["plots_dir"]) / "tasks.png")


@pytest.mark.parametrize("name", ["routing_viz", "cross_task_viz"])
def test_the_editor_shows_figures_too(name, browser, tmp_path):
    with serve("edit", name, write_example(tmp_path), tmp_path) as address:
        open_page(browser, address)


def test_an_empty_folder_says_what_to_run(browser, tmp_path):
    with serve("run", "routing_viz", name_folders(tmp_path), tmp_path) as address:
        browser.get(address)
        wait_for(lambda: "python train_mop.py" in browser.execute_script(ALL_TEXT), "what to run")
