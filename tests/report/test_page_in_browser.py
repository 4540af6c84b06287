"""The page of a run in Chromium, as a user meets it: by keys and clicks, from the disk."""

import csv
import io
import json
import re
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from data_prep.folder import prepare
from spaudio.io.csv_files import from_csv
from spaudio.report.page.render import write_page
from spaudio.report.run_files import PAGE
from tests.report.test_page import ODD, odd_page

BROWSER, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(
    not (BROWSER and DRIVER), reason="needs chromium and chromedriver, from the system's packages"
)


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    webdriver = pytest.importorskip("selenium.webdriver")
    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu",
                     "--autoplay-policy=no-user-gesture-required"):  # fmt: skip
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    downloads = tmp_path_factory.mktemp("downloads")
    options.add_experimental_option("prefs", {"download.default_directory": str(downloads)})
    driver = webdriver.Chrome(options, webdriver.ChromeService(DRIVER))
    driver.downloads = downloads
    yield driver
    driver.quit()


def wait(condition: Callable[[], Any]) -> Any:
    """Returns what a condition gives once it holds."""
    for _ in range(500):
        if value := condition():
            return value
        time.sleep(0.01)
    raise AssertionError("it has not come true in 5 s")


def test_errors_are_heard_and_labels_put_right(driver: Any, page_run: Path) -> None:
    def js(code: str, *arguments: Any) -> Any:
        return driver.execute_script(f"return {code}", *arguments)

    def press(key: str) -> None:
        driver.switch_to.active_element.send_keys(key)

    def click(selector: str) -> None:
        js("document.querySelector(arguments[0]).click()", selector)

    def cards() -> int:
        return int(js("document.querySelectorAll('#list article').length"))

    driver.get_log("performance")
    driver.get((page_run / PAGE).as_uri())
    errors = js("data.clips.filter((c) => !c.l.includes(c.t[0][0])).length")
    assert cards() == min(errors, 20)

    # The first error is played; the head moves over its spectrogram, which is drawn.
    press("j")
    assert js("document.activeElement.clip === data.clips[0]")
    press(" ")
    # Asked at once, as it may have ended by the next question.
    left, off = wait(
        lambda: js(
            "playing && !playing.head.hidden && audio.currentTime > 0.05 &&"
            " [parseFloat(playing.head.style.left), audio.duration - playing.seconds]"
        )
    )
    assert left > 0
    assert abs(off) < 0.02
    assert js("$('img', document.activeElement).naturalWidth") > 20
    press("2")  # the most similar training clip of the predicted class
    wait(lambda: js("audio.ended"))
    assert js("audio.error === null && playing === null")

    press("e")
    assert js("getComputedStyle($('.veil', document.activeElement)).display") == "block"

    # One label is wrong, one right, one answer is taken back; a third clip is left out.
    press("n")
    for key in "jyjnu":
        press(key)
    press("n")
    js("(() => { const s = document.activeElement.querySelector('select'); s.value = LEFT_OUT;"
       "s.dispatchEvent(new Event('change')); })()")  # fmt: skip
    click("#save")
    file = wait(lambda: next(iter(driver.downloads.glob("*.csv")), None))
    with file.open(newline="", encoding="utf-8") as text:
        rows = list(csv.DictReader(text))
    names = js("data.clips.slice(0, 3).map((c) => [c.p, ...[c.l[0], c.t[0][0]]"
               ".map((i) => data.classes[i])])")  # fmt: skip
    assert [(row["clip"], row["label"], row["was"]) for row in rows] == [
        (names[0][0], names[0][2], names[0][1]),
        (names[1][0], names[1][1], names[1][1]),
        (names[2][0], "", names[2][1]),
    ]
    # They are kept with the page, and recipes/folder takes them.
    driver.refresh()
    assert js("labels.size") == 3
    # A page with other labels has corrections of its own, and classes are kept by name.
    other = page_run / "other.html"
    text = (page_run / PAGE).read_text(encoding="utf-8")
    key = js("data.key")
    kept = json.loads(js("localStorage.getItem(data.key)"))
    assert {name for _, name in kept} <= {None, *js("data.classes")}
    other.write_text(text.replace(key, f"{key}2"), encoding="utf-8")
    driver.get(other.as_uri())
    assert js("labels.size") == 0
    js("localStorage.setItem(data.key, JSON.stringify([['gone.wav', data.classes[0]],"
       " [data.clips[0].p, 'gone']]))")  # fmt: skip
    driver.refresh()
    assert js("labels.size") == 0
    driver.get((page_run / PAGE).as_uri())
    source = page_run.parents[2] / "sounds"
    found = prepare(page_run, source=str(source), labels=str(file))
    assert found.warnings[:1] == [f"1 label changed by labels={file.name}, which leaves out 1 clip"]
    now = {clip.path: clip.label for clip in found.clips}
    assert now[names[0][0]] == names[0][2]
    assert names[2][0] not in now

    # A cell of the matrix lists its clips, a class those that have to do with it.
    click(".cell.wrong")
    cell = js("{...$('.cell[aria-pressed=true]').dataset}")
    there = js("data.clips.filter((c) => c.l[0] == arguments[0].label && "
               "c.t[0][0] == arguments[0].predicted).length", cell)  # fmt: skip
    assert cards() == there > 0
    # The keys do not act on a clip that is no longer listed.
    driver.find_element("tag name", "body").send_keys("n")
    assert js("labels.size") == 3
    click("#unfilter")
    click("[data-view=suspects]")
    assert cards() == min(20, js("data.suspects.length"))
    click(".cell.right")
    assert js("state.view") == "all"
    click("[data-view=suspects]")
    # A threshold leaves the more confident predictions.
    before = js("$('.classes .recall').textContent")
    js(
        "(() => { $('#threshold').value = 99;"
        " $('#threshold').dispatchEvent(new Event('input')); })()"
    )
    assert js("$('.classes .recall').textContent") < before
    assert js("$('.classes .every output').textContent") == "0.99"
    js(
        "(() => { const own = $('tr[data-class] input'); own.value = 0;"
        " own.dispatchEvent(new Event('input')); })()"
    )
    assert js("$('.classes .every output').textContent") == "mixed"

    # On a telephone nothing is wider than the screen, with all details open.
    js("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
    driver.set_window_size(360, 740)
    wait(lambda: js("innerWidth == 360 && document.documentElement.scrollWidth <= innerWidth"))
    assert not driver.get_log("browser")
    log = [json.loads(entry["message"])["message"] for entry in driver.get_log("performance")]
    requested = {
        entry["params"]["request"]["url"]
        for entry in log
        if entry["method"] == "Network.requestWillBeSent"
    }
    assert {url for url in requested if not url.startswith(("data:", "blob:"))} == {
        (page_run / PAGE).as_uri(),
        other.as_uri(),
    }


def test_corrections_name_classes_as_they_are(driver: Any, tmp_path: Path) -> None:
    """The page shows characters that cannot be printed, such as U+200C, as their codes."""
    page, media = odd_page(tmp_path)
    write_page(tmp_path / "run", page, media)
    driver.get((tmp_path / "run" / PAGE).as_uri())
    given = driver.execute_script(
        "for (const clip of data.clips) give(clip, (clip.l[0] + 1) % 3); return corrections()"
    )
    rows = {row["clip"]: row for row in csv.DictReader(io.StringIO(given, newline=""))}
    for clip in page.clips:
        row, (label,) = rows[clip.path], clip.labels
        assert [from_csv(row[name]) for name in ("was", "label")] == [ODD[label], ODD[label - 2]]


def test_links_of_the_navigation_lead_to_their_sections(driver: Any, page_run: Path) -> None:
    """Although a page that is scrolled past its clips loads more of them."""
    text = (page_run / PAGE).read_text(encoding="utf-8")
    head, data, tail = re.split('(?<= id="data">)(.*?)(?=</script>)', text)
    long = page_run / "long.html"
    more = json.loads(data)
    more["clips"] *= 20
    long.write_text(f"{head}{json.dumps(more)}{tail}", encoding="utf-8")
    driver.set_window_size(1280, 800)
    sections = re.findall('<a href="(#[a-z]+)">', text)
    assert {"#clips", "#classes", "#calibration", "#filters", "#training"} <= set(sections)
    for section in sections:
        driver.get("about:blank")
        driver.get(long.as_uri())
        driver.find_element("css selector", f"nav [href='{section}']").click()
        time.sleep(0.5)
        heading = driver.find_element("css selector", f"{section} h2")
        top = driver.execute_script("return arguments[0].getBoundingClientRect().top", heading)
        assert 50 < top < 150, section
