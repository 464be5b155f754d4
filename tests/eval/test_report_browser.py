"""The report in Chromium: screens of a desktop and a phone, print, sorting, search, samples.

The address says which view is open, so tests go there or click their way and compare. Skipped
without a browser: `apt-get install chromium chromium-driver`.
"""

import base64
import importlib.util
import json
import pathlib
import urllib.parse

import pytest

from optiml_jax.eval import report, report_page

from .report_case import HOSTILE, TASKS, write_case

pytest.importorskip("selenium", reason="selenium is in the extra `dev`")
ROOT = pathlib.Path(__file__).parent.parent.parent
PHONE, DESKTOP = (390, 844), (1280, 900)
VISIBLE_TASKS = """
return Array.from(document.querySelectorAll('#tasks tr[data-task]'))
    .filter((row) => row.getClientRects().length).map((row) => row.dataset.task)
"""


def load_screenshots():
    """docs/make_screenshots.py, whose browser and screens are the same."""
    spec = importlib.util.spec_from_file_location(
        "make_screenshots", ROOT / "docs" / "make_screenshots.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


screenshots = load_screenshots()
if screenshots.find_browser() is None:
    pytest.skip("no Chromium with chromedriver on this machine", allow_module_level=True)


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    case = write_case(tmp_path_factory.mktemp("case"))
    content = report.gather([case / "before", case / "after"], model_dir=case / "run")
    return report_page.write(case / "report.html", content)


@pytest.fixture(scope="module")
def browser():
    with screenshots.open_browser(logs=True) as driver:
        driver.get("about:blank")  # Chromium's own first page asks for much.
        yield driver


@pytest.fixture
def visit(browser, page):
    """Opens the page anew; at the end nothing must have been logged or asked for."""

    def go(screen=DESKTOP, **state):
        screenshots.set_screen(browser, *screen)
        browser.get("about:blank")
        browser.get(f"{page.as_uri()}#{urllib.parse.urlencode(state)}")
        return browser

    forget(browser)
    yield go
    assert browser.get_log("browser") == []
    asked = {
        message["params"]["request"]["url"].partition("#")[0]
        for entry in browser.get_log("performance")
        if (message := json.loads(entry["message"])["message"])["method"]
        == "Network.requestWillBeSent"
    }
    assert asked <= {page.as_uri(), "data:,"}


def forget(browser):
    """Empties the logs of console and requests."""
    for kind in ("browser", "performance"):
        browser.get_log(kind)


def click(browser, selector):
    element = browser.find_element("css selector", selector)
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", element)
    element.click()


def overflow(browser):
    """Pixels by which the page is wider than its screen."""
    return browser.execute_script(
        "return document.scrollingElement.scrollWidth - document.documentElement.clientWidth"
    )


def scores(browser, index):
    return browser.execute_script(
        "return Array.from(document.querySelectorAll('#tasks tr[data-task]'))"
        f".filter((row) => !row.hidden).map((row) => Number(row.cells[{index}].dataset.v))"
    )


def state_of(browser):
    return dict(urllib.parse.parse_qsl(urllib.parse.urlsplit(browser.current_url).fragment))


@pytest.mark.parametrize("screen", [DESKTOP, PHONE, (320, 568), (834, 1112)])
@pytest.mark.parametrize("state", [{}, {"sort": "after"}, {"task": "mini__name_animal"}])
def test_the_page_is_never_wider_than_its_screen(visit, screen, state):
    browser = visit(screen, **state)
    assert overflow(browser) <= 0
    assert set(browser.execute_script(VISIBLE_TASKS)) == set(TASKS)


def test_sorting_by_click(visit):
    browser = visit()
    assert browser.find_elements("css selector", "[aria-sort]") == []
    column = browser.execute_script(
        "return document.querySelector('#tasks th[data-sort=after]').cellIndex"
    )
    click(browser, "#tasks th[data-sort=after] button")
    assert state_of(browser) == {"sort": "after", "dir": "desc"}
    falling = scores(browser, column)
    assert len(falling) == len(TASKS)
    assert falling == sorted(falling, reverse=True)
    header = browser.find_element("css selector", "#tasks th[data-sort=after]")
    assert header.get_attribute("aria-sort") == "descending"
    click(browser, "#tasks th[data-sort=after] button")
    rising = scores(browser, column)
    assert rising == sorted(rising)
    assert rising != falling
    click(browser, "#tasks th[data-sort=after] button")
    assert state_of(browser) == {}
    assert browser.find_elements("css selector", "[aria-sort]") == []


@pytest.mark.parametrize(
    "column", ["task", "level", "category", "metric", "n", "before", "difference", "baseline"]
)
def test_every_column_sorts(visit, column):
    browser = visit(sort=column, dir="asc")
    names = browser.execute_script(VISIBLE_TASKS)
    index = browser.execute_script(
        f"return document.querySelector('#tasks th[data-sort={column}]').cellIndex"
    )
    values = browser.execute_script(
        "return Array.from(document.querySelectorAll('#tasks tr[data-task]'))"
        f".map((row) => row.cells[{index}].dataset.v)"
    )
    assert sorted(names) == sorted(TASKS)
    if column in ("n", "before", "difference", "baseline"):
        values = [float(value) for value in values]
    assert values == sorted(values)


def test_search_narrows_and_reset_widens(visit):
    browser = visit()
    browser.find_element("id", "q").send_keys("colour rouge")
    assert browser.execute_script(VISIBLE_TASKS) == ["mini__name_colour"]
    assert browser.find_element("id", "count").text == "1 of 8 tasks"
    assert state_of(browser)["q"] == "colour rouge"
    browser.find_element("id", "q").send_keys(" nothing")
    assert browser.execute_script(VISIBLE_TASKS) == []
    assert browser.find_element("id", "nothing").is_displayed()
    click(browser, "#reset")
    assert len(browser.execute_script(VISIBLE_TASKS)) == len(TASKS)


def test_filters_in_the_address(visit):
    browser = visit(level="fully_held_out", category="Naming")
    assert browser.execute_script(VISIBLE_TASKS) == ["mini__name_animal", "mini__name_colour"]
    assert browser.find_element("id", "level").get_property("value") == "fully_held_out"
    browser.execute_script("location.hash = '#level=partially_supervised'")
    assert browser.execute_script(VISIBLE_TASKS) == ["mini__sort_letters"]


def test_categories_fold(visit):
    browser = visit()
    toggle = "#tasks tr[data-category=Naming] button.toggle"
    click(browser, toggle)
    assert "mini__name_animal" not in browser.execute_script(VISIBLE_TASKS)
    assert browser.find_element("css selector", toggle).get_attribute("aria-expanded") == "false"
    click(browser, "#fold")
    assert len(browser.execute_script(VISIBLE_TASKS)) == len(TASKS)
    click(browser, "#fold")
    assert browser.execute_script(VISIBLE_TASKS) == []


@pytest.mark.parametrize("screen", [DESKTOP, PHONE])
def test_a_task_opens_its_samples(visit, screen):
    browser = visit(screen)
    click(browser, "#tasks tr[data-task=mini__name_animal] button.open")
    assert state_of(browser) == {"task": "mini__name_animal"}
    samples = browser.find_elements("css selector", ".detail .sample")
    assert len(samples) == 8
    # Samples as wide as the table add no column to it.
    right = "return document.querySelector(arguments[0]).getBoundingClientRect().right"
    edges = ["#tasks tr.level", "#tasks tr.level > :last-child", ".detail"]
    assert len({round(browser.execute_script(right, edge)) for edge in edges}) == 1
    told = browser.find_element("css selector", ".detail .facts").text
    assert "8 of 12 samples shown" in told
    assert "Majority 25.0" in told
    texts = [sample.get_property("textContent") for sample in samples]
    for words in ("Expected", "word", "Answer before", "Answer after", "wording 0."):
        assert all(words in text for text in texts), words
    assert any(HOSTILE in text for text in texts)
    assert overflow(browser) <= 0
    button = browser.switch_to.active_element
    assert button.get_attribute("aria-expanded") == "true"
    browser.find_element("css selector", ".detail .close").send_keys("\ue00c")  # Escape
    assert browser.find_elements("css selector", ".detail") == []
    assert browser.switch_to.active_element.get_attribute("aria-expanded") == "false"


def test_the_keyboard_reaches_a_task(visit):
    browser = visit()
    opener = browser.find_element("css selector", "#tasks tr[data-task=mini__pick] button.open")
    browser.execute_script("arguments[0].focus()", opener)
    opener.send_keys("\ue007")  # Enter
    assert state_of(browser) == {"task": "mini__pick"}
    outline = browser.execute_script("return getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid"


def test_links_to_sections_keep_the_view(visit):
    browser = visit(q="sort")
    click(browser, 'nav a[href="#setup-section"]')
    assert state_of(browser) == {"q": "sort"}
    assert browser.execute_script("return document.activeElement.id") == "setup-section"


def test_without_javascript_the_scores_are_there(visit, browser):
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        visit()
        text = browser.find_element("css selector", "#tasks").text
        for name in TASKS:
            assert name.partition("__")[2] in text
        assert not browser.find_element("css selector", ".tools").is_displayed()
        assert "need JavaScript" in browser.find_element("css selector", "noscript").text
    finally:
        browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})


def test_print_unfolds_and_hides_controls(visit):
    browser = visit(open="none")
    assert browser.execute_script(VISIBLE_TASKS) == []
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print", "features": []})
    assert len(browser.execute_script(VISIBLE_TASKS)) == len(TASKS)
    for selector in (".tools", "nav"):
        assert not browser.find_element("css selector", selector).is_displayed()
    assert overflow(browser) <= 0
    printed = browser.execute_cdp_cmd("Page.printToPDF", {"preferCSSPageSize": True})
    assert base64.b64decode(printed["data"]).startswith(b"%PDF")


def test_dark_screens_get_dark_paper(visit, browser):
    visit()
    colour = "return getComputedStyle(document.body).backgroundColor"
    assert browser.execute_script(colour) == "rgb(255, 255, 255)"
    screenshots.set_screen(browser, *DESKTOP, dark=True)
    assert browser.execute_script(colour) == "rgb(22, 23, 21)"


def test_the_policy_stops_what_would_load(visit, browser):
    """Of the page's own defence: an image that a script adds is refused."""
    visit()
    browser.execute_script(
        "const image = new Image(); image.src = 'https://example.invalid/x.png';"
        "document.body.append(image)"
    )
    (entry,) = browser.get_log("browser")
    assert "Content Security Policy" in entry["message"]
    forget(browser)
