"""The page of `optiml leakage` in Chromium: it asks for nothing, sorts, searches, shows evidence.

Skipped without a browser: `apt-get install chromium chromium-driver`.
"""

import pytest

from optiml_jax.main import leakage_content, leakage_page

pytest.importorskip("selenium", reason="selenium is in the extra `dev`")
from . import test_report_browser as report_browser  # skips without a browser

HOSTILE = "</script><img src=x onerror=alert(1)>"
NUM_PAIRS = 450


def pair(number):
    return {
        "train": f"flan__training_task_{number:03d}",
        "eval": HOSTILE if number == 7 else f"t5__evaluated_{number % 5}",
        "num_eval": 1000 + number,
        "count": number + 20,
        "fraction": (number + 20) / 1000,
        "bare_count": number,
        "bare_fraction": number / 1000,
        **{"grams_per_example": 2.5, "num_whole": number % 3, "num_too_short": 0},
        "train_category": "Translation",
        "eval_category": "Question Answering",
        "eval_level": "fully_held_out" if number % 2 else "partially_supervised",
        "eval_role": "test",
        "train_sources": ["wmt"],
        "eval_sources": ["squad"],
        "shared": {"gram": f"gram {number}", "train_example": "train_0 3", "eval_example": "e1"},
        "verdict": "instances" if number > 10 else "wording",
    }


def make_content(pairs):
    verdicts = [one["verdict"] for one in pairs]
    return {
        **{"split": "opt_iml", "store": "stores/a", "against": "stores/a", "view": "eval_0shot"},
        **{"unit": "words", "n": 13, "threshold": 0.01, "inputs_only": False},
        **{"near_duplicates": False, "jaccard": None, "num_train_tasks": 450},
        **{"num_train_examples": 9000, "num_eval_tasks": 5, "num_eval_examples": 500},
        **{"num_pairs": 2250, "num_overlapping_pairs": 900, "num_listed_pairs": len(pairs)},
        **{"num_whole": 5, "num_too_short": 2},
        "short_eval_tasks": [
            {"task": HOSTILE, "num_eval": 9, "num_whole": 5, "num_too_short": 2},
        ],
        "not_compared": [
            {"task": HOSTILE, "views": ["eval_5shot"]},
            {"task": "t5__b", "views": []},
        ],
        "verdicts": {name: verdicts.count(name) for name in leakage_content.VERDICTS},
        "pairs": pairs,
        "suggested": [{"task": "flan__a", "reason": HOSTILE}],
        "excluded": [{"task": "flan__b", "category": "", "reason": "shares data"}],
    }


@pytest.fixture(scope="module")
def browser():
    with report_browser.screenshots.open_browser(logs=True) as driver:
        driver.get("about:blank")
        yield driver


@pytest.fixture
def visit(browser, tmp_path):
    """Opens the page; at the end nothing must have been logged."""

    def go(screen=report_browser.DESKTOP, num_pairs=NUM_PAIRS):
        page = tmp_path / "leakage.html"
        content = make_content([pair(number) for number in range(num_pairs)])
        page.write_text(leakage_page.render(content, {"command": "optiml leakage"}), "utf-8")
        report_browser.screenshots.set_screen(browser, *screen)
        browser.get(page.as_uri())
        return browser

    report_browser.forget(browser)
    yield go
    assert browser.get_log("browser") == []


def shown(browser):
    return browser.execute_script(
        "return Array.from(document.querySelectorAll('#pairs tr.pair'))"
        ".map((row) => row.querySelector('button').textContent)"
    )


def told(browser):
    return browser.find_element("css selector", "#count").text


@pytest.mark.parametrize("screen", [report_browser.DESKTOP, report_browser.PHONE])
def test_the_page_is_never_wider_than_its_screen(visit, screen):
    assert report_browser.overflow(visit(screen)) <= 0


def test_a_phone_shows_every_number_of_a_pair(visit):
    browser = visit(report_browser.PHONE)
    right = browser.execute_script(
        "return Math.max(...Array.from(document.querySelectorAll('#pairs tr.pair > *, #pairs th'))"
        ".map((cell) => cell.getBoundingClientRect().right))"
    )
    assert right <= report_browser.PHONE[0]
    hidden = browser.execute_script(
        "return Array.from(document.querySelectorAll('.scroll'))"
        ".filter((box) => box.scrollWidth > box.clientWidth).length"
    )
    assert hidden == 0
    report_browser.click(browser, "#pairs th[data-sort=bare_fraction] button")
    assert shown(browser)[0] == "flan__training_task_449"


def test_figures_stand_in_one_row(visit):
    browser = visit()
    tops = browser.execute_script(
        "return Array.from(document.querySelectorAll('.facts-list li'))"
        ".map((one) => one.getBoundingClientRect().top)"
    )
    assert (len(tops), len(set(tops))) == (6, 1)


def test_tasks_that_were_not_compared_are_named(visit):
    notes = visit().find_element("css selector", "aside.notes").text
    assert "2 evaluation tasks not compared, without the view eval_0shot" in notes
    assert f"{HOSTILE}: has eval_5shot" in notes
    assert "t5__b: has no evaluation view" in notes


def test_rows_come_a_few_hundred_at_a_time(visit):
    browser = visit()
    assert (len(shown(browser)), told(browser)) == (200, "450 pairs")
    report_browser.click(browser, "#more")
    report_browser.click(browser, "#more")
    assert len(set(shown(browser))) == NUM_PAIRS
    assert not browser.find_element("css selector", "#more").is_displayed()


def test_sorting(visit):
    browser = visit()
    selector = "#pairs th[data-sort=bare_fraction]"
    report_browser.click(browser, f"{selector} button")
    assert shown(browser)[0] == "flan__training_task_449"
    header = browser.find_element("css selector", selector)
    assert header.get_attribute("aria-sort") == "descending"
    report_browser.click(browser, f"{selector} button")
    assert shown(browser)[:2] == ["flan__training_task_000", "flan__training_task_001"]


def test_search_and_filters(visit):
    browser = visit()
    browser.find_element("css selector", "#q").send_keys("task_44 SQUAD")
    assert told(browser) == "10 of 450 pairs"
    browser.find_element("css selector", "#level option[value=fully_held_out]").click()
    assert told(browser) == "5 of 450 pairs"
    browser.find_element("css selector", "#verdict option[value=wording]").click()
    assert shown(browser) == []
    report_browser.click(browser, "#reset")
    assert told(browser) == "450 pairs"


def test_evidence_opens_and_closes(visit):
    browser = visit()
    report_browser.click(browser, "#pairs button.open")
    evidence = browser.find_element("css selector", ".evidence").text
    assert "“gram 0”" in evidence
    assert "20 of 1000, 2.5 shared grams each" in evidence
    report_browser.click(browser, "#pairs button.open")
    assert browser.find_elements("css selector", ".evidence") == []


def test_names_are_text_and_nothing_else(visit):
    browser = visit()
    assert browser.find_elements("css selector", "main img") == []
    assert HOSTILE in browser.find_element("css selector", "#pairs").text


def test_one_pair(visit):
    assert told(visit(num_pairs=1)) == "1 pair"


def test_no_pairs(visit):
    browser = visit(num_pairs=0)
    assert told(browser) == "0 pairs"
    assert "No pair is over the threshold." in browser.find_element("css selector", "main").text
