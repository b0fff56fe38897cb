"""The notebooks in a browser: opened in headless Chromium, clicked, and the files that come of it.

Debian's packages chromium and chromium-driver are needed; `make test` installs them where it may.
"""

import base64
import io
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from film.player import build_player
from plotting.page import show_player, write_page
from tests.notebooks import TASKS, name_folders, write_example, write_trained
from tests.short_episodes import write_short_episodes

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
FIND_TEXT = ELEMENTS + (
    "return found.filter(e => e.matches(arguments[0]) && e.textContent.trim().startsWith(arguments[1]))[0];"
)
FIND_OPTION = ELEMENTS + "return found.filter(e => e.matches('option') && e.textContent.trim() === arguments[0])[0];"
COUNT_PICTURES = ELEMENTS + "return found.filter(e => e.matches('.figure img') && e.naturalWidth > 300).length;"
FIND_PICTURE = ELEMENTS + "return found.filter(e => e.matches('.figure img') && e.complete)[0];"
FIND_PLAYER = ELEMENTS + "return found.filter(e => e.matches('iframe'))[0];"
MEASURE = """
const picture = arguments[0], column = picture.closest('.figure');
return {source: picture.src, shown: [picture.clientWidth, picture.clientHeight],
        natural: [picture.naturalWidth, picture.naturalHeight], top: picture.getBoundingClientRect().top,
        column: column.clientWidth, scrolled: column.scrollWidth,
        page: [document.documentElement.scrollWidth, document.documentElement.clientWidth],
        highest: getComputedStyle(picture.closest('.output-area') || picture).maxHeight};
"""
ALL_TEXT = ELEMENTS + "return found.filter(e => e.matches('code, p')).map(e => e.textContent).join('\\n');"


@pytest.fixture(scope="module")
def browser(tmp_path_factory) -> Iterator[Any]:
    """A headless Chromium with a fresh profile that calls nobody."""
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    profile = tmp_path_factory.mktemp("profile")
    flags = "headless no-sandbox disable-gpu disable-quic no-first-run disable-background-networking "
    flags += "disable-features=BackForwardCache "  # a page that was left is closed, and so is its session

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
def serve(command: str, name: str, flags: dict[str, str], home: Path, options: Sequence[str] = ()) -> Iterator[str]:
    """Serve a notebook on a free port while the block runs; yield its address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    level = ["--log-level", "DEBUG"] if options else []  # the log tells of sessions; in the editor, cells show it too
    marimo = [sys.executable, "-m", "marimo", *level, command, f"{name}.py", "--headless", "--no-token"]
    arguments = [text for key, value in flags.items() for text in (f"--{key}", value)]
    environment = os.environ | {"HOME": str(home), "XDG_CONFIG_HOME": str(home), "XDG_STATE_HOME": str(home)}
    log = home / "server.log"
    with log.open("w") as output:
        server = subprocess.Popen(
            [*marimo, "--port", str(port), *options, "--", *arguments],
            cwd=ROOT,
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
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


def patiently(look: Callable[[], Any]) -> Callable[[], Any]:
    """Return what finds nothing where an element is redrawn between being found and being used."""
    from selenium.common.exceptions import WebDriverException

    def patient() -> Any:
        try:
            return look()
        except WebDriverException:
            return None

    return patient


def click(browser: Any, kind: str, text: str) -> None:
    def try_click() -> bool:
        element = browser.execute_script(FIND_TEXT, kind, text)
        if element is not None:
            browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", element)
            element.click()
        return element is not None

    wait_for(patiently(try_click), f"{kind} {text!r}", lambda: browser.execute_script(ALL_TEXT))


def measure(browser: Any, before: str = "", patience: float = PATIENCE) -> dict[str, Any] | None:
    """Return the measures of the first figure, once it is another picture than the one with source `before`."""

    def look() -> dict[str, Any] | None:
        picture = browser.execute_script(FIND_PICTURE)
        found = picture and browser.execute_script(MEASURE, picture)
        return found if found and found["source"] != before else None

    end = time.monotonic() + patience
    while time.monotonic() < end:
        if found := patiently(look)():
            return found
        time.sleep(0.1)
    return None


def click_and_measure(browser: Any, before: str, *clicks: tuple[str, str]) -> dict[str, Any]:
    """Click until the first figure is another picture; again, because the page may not have taken a click yet."""

    def click_and_look() -> dict[str, Any] | None:
        for kind, text in clicks:
            click(browser, kind, text)
        return measure(browser, before, patience=10)

    return wait_for(click_and_look, f"another figure after {clicks}", lambda: browser.execute_script(ALL_TEXT))


def check_whole(browser: Any, found: dict[str, Any]) -> None:
    """A figure fills its column, in its own shape, and what is on the screen is the whole picture."""
    assert found["shown"][0] == found["column"] == found["scrolled"]
    assert found["page"][0] == found["page"][1]
    width, height = found["natural"]
    assert found["shown"][1] == pytest.approx(found["shown"][0] * height / width, abs=1.5)
    source = Image.open(io.BytesIO(base64.b64decode(found["source"].partition(",")[2]))).convert("RGB")

    def look() -> Image.Image | None:
        screen = Image.open(io.BytesIO(browser.execute_script(FIND_PICTURE).screenshot_as_png)).convert("RGB")
        apart = np.abs(np.subtract(screen, source.resize(screen.size, Image.Resampling.BOX), dtype=np.int16))
        return screen if apart.mean() < 6 else None  # of 255; edges differ as they are scaled

    # Not at once: what is being drawn anew is pale until it is there
    screen = wait_for(patiently(look), "the whole picture on the screen")
    assert screen.size == pytest.approx(found["shown"], abs=2)
    # Colour bars are at the right: nothing of what is drawn there is missing
    edge = np.asarray(screen)[:, -screen.width // 8 :]
    assert (edge.max(axis=2) - edge.min(axis=2) > 60).any()


def choose(browser: Any, option: str) -> None:
    """Choose an option of a drop-down list."""

    def look() -> bool:
        found = browser.execute_script(FIND_OPTION, option)
        if found is not None:
            found.click()
        return found is not None

    wait_for(patiently(look), f"option {option!r}")


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


COUNT_WHAT_IF = ELEMENTS + (
    "return found.filter(e => e.matches('.figure img') && e.alt.startsWith(`routing what if ${arguments[0]}`)).length;"
)


def test_a_change_is_chosen_played_and_saved(browser, tmp_path):
    flags = write_trained(tmp_path)
    with serve("run", "routing_viz", flags, tmp_path) as address:
        open_page(browser, address)
        assert browser.execute_script(COUNT_WHAT_IF, "") == 0
        click(browser, "[role=tab]", "What if")
        wait_for(lambda: browser.execute_script(COUNT_WHAT_IF, "complexity dial"), "the dial's figure")
        choose(browser, "knock-out")
        wait_for(lambda: browser.execute_script(COUNT_WHAT_IF, "all of size 32"), "the knock-out's figure")
        (folder,) = (path.parent for path in (tmp_path / "checkpoints").rglob("*.pt"))
        name = "routing_what_if_all_of_size_32_silent_0_by_overall.png"
        save_and_find(browser, tmp_path / "plots" / folder.relative_to(tmp_path / "checkpoints") / name)


def test_tasks_are_compared_and_saved(browser, tmp_path):
    flags = write_example(tmp_path)
    with serve("run", "cross_task_viz", flags, tmp_path) as address:
        open_page(browser, address)
        save_and_find(browser, Path(flags["plots_dir"]) / "success_lpc.png")
        click(browser, "[role=tab]", "Tasks")
        save_and_find(browser, Path(flags["plots_dir"]) / "tasks.png")


@pytest.fixture
def laptop(browser) -> Iterator[Any]:
    """The browser with a window of 1400 x 900."""
    size = {"width": 1400, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    yield browser
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


@pytest.mark.parametrize("name", ["routing_viz", "cross_task_viz"])
def test_the_editor_shows_a_figure_without_scrolling(name, laptop, tmp_path):
    with serve("edit", name, write_example(tmp_path), tmp_path) as address:
        open_page(laptop, address)
        found = measure(laptop)
        assert found["top"] < 450
        assert found["shown"][0] == found["column"] > 700
        assert found["highest"] == "none"  # else a high figure scrolls in a box of its own


def test_figures_are_whole_whatever_was_shown_before(laptop, tmp_path):
    with serve("run", "routing_viz", write_example(tmp_path), tmp_path) as address:
        open_page(laptop, address)
        first = measure(laptop)
        assert first["top"] < 250
        check_whole(laptop, first)
        counts = click_and_measure(laptop, first["source"], ("label", "numbers of steps in the cells"))
        check_whole(laptop, counts)
        paths = click_and_measure(laptop, counts["source"], ("[role=tab]", "Paths"))
        again = click_and_measure(laptop, paths["source"], ("[role=tab]", "Heatmaps"))
        assert again["source"] == counts["source"]
        check_whole(laptop, again)
        other = click_and_measure(laptop, again["source"], ("button", "GoToObj"), ("[role=option]", "Unlock"))
        assert other["natural"] != again["natural"]
        check_whole(laptop, other)


def test_figures_are_there_after_the_session_that_drew_them_has_ended(browser, tmp_path):
    with serve("run", "routing_viz", write_example(tmp_path), tmp_path, ["--session-ttl", "1"]) as address:
        open_page(browser, address)
        first = measure(browser)
        browser.get("about:blank")
        wait_for(lambda: "Closing session" in (tmp_path / "server.log").read_text(), "the session to end")
        open_page(browser, address)
        assert measure(browser)["natural"] == first["natural"]
        assert "/@file/" not in browser.execute_script("return document.documentElement.outerHTML")
        check_whole(browser, measure(browser))


def test_a_film_is_played_from_a_page_without_a_server(browser, tmp_path):
    player = build_player(write_short_episodes(tmp_path / "routing_data.json"), 0)
    page = write_page(tmp_path / "film.html", "Film", [show_player(player.html, player.size)])
    browser.get(page.as_uri())
    browser.switch_to.frame(browser.execute_script(FIND_PLAYER))
    try:
        last = f"step {player.steps[-1]} of {player.steps[-1]}"
        wait_for(lambda: browser.find_element("id", "where").text.startswith("step 0 of"), "the first frame")
        before = browser.find_element("id", "frame").screenshot_as_png
        browser.find_element("id", "play").click()
        wait_for(lambda: browser.find_element("id", "where").text == last, last)
        wait_for(lambda: "Play" in browser.find_element("id", "play").text, "the film to stop")
        assert browser.find_element("id", "frame").screenshot_as_png != before
        browser.find_element("id", "back").click()
        wait_for(lambda: browser.find_element("id", "where").text != last, "a step back")
    finally:
        browser.switch_to.default_content()


def test_an_empty_folder_says_what_to_run(browser, tmp_path):
    with serve("run", "routing_viz", name_folders(tmp_path), tmp_path) as address:
        browser.get(address)
        wait_for(lambda: "python train_mop.py" in browser.execute_script(ALL_TEXT), "what to run")
