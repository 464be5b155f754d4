"""The report: what it gathers, that its page is whole and harmless, and what it refuses."""

import base64
import hashlib
import html.parser
import json
import math
import os
import re
import shutil

import pytest

from optiml_jax.data import summary
from optiml_jax.errors import InputError
from optiml_jax.eval import comparison, report, report_page, report_run, report_samples

from .report_case import (
    ARABIC,
    CHINESE,
    HOSTILE,
    TASKS,
    make_samples,
    write_case,
    write_evaluation,
)

VOID = {"meta", "link", "input", "wbr"}


@pytest.fixture(scope="module")
def case(tmp_path_factory):
    return write_case(tmp_path_factory.mktemp("case"))


@pytest.fixture(scope="module")
def content(case):
    return report.gather([case / "before", case / "after"], model_dir=case / "run")


@pytest.fixture(scope="module")
def page(content):
    return report_page.render(content)


class Page(html.parser.HTMLParser):
    """Elements, text outside scripts, and whether tags are balanced."""

    def __init__(self, text):
        super().__init__()
        self.stack, self.elements, self.words, self.scripts = [], [], [], []
        self.feed(text)
        self.close()
        assert self.stack == []

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.stack.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.stack.pop() == tag

    def handle_data(self, data):
        if self.stack and self.stack[-1] in ("script", "style"):
            self.scripts.append(data)
        else:
            self.words.append(data)

    @property
    def text(self):
        return " ".join("".join(self.words).split())


def row_of(content, name, level=None):
    (row,) = [r for r in content["rows"] if r["name"] == name and level in (None, r["level"])]
    return row


# --- what is gathered ----------------------------------------------------------------------------


def test_rows_are_the_tree_from_the_top(content):
    names = [(row["depth"], row["name"]) for row in content["rows"]]
    assert names == [
        (0, "fully_held_out"),
        (1, "Lonely"),
        (2, "mini__one"),
        (1, "Naming"),
        (2, "mini__name_animal"),
        (2, "mini__name_colour"),
        (0, "partially_supervised"),
        (1, "Sorting"),
        (2, "mini__sort_letters"),
        (0, "fully_supervised"),
        (1, "Dialogue"),
        (2, "dialogue__reply"),
        (1, "Sorting"),
        (2, "mini__pick"),
        (2, "mini__whole"),
        (3, "mini__part_a"),
        (3, "mini__part_b"),
    ]
    assert row_of(content, "mini__whole")["kind"] == "parent"
    assert row_of(content, "fully_supervised")["num_tasks"] == 3
    assert row_of(content, "Sorting", "fully_supervised")["num_tasks"] == 2


def test_a_row_has_both_scores_their_difference_and_the_best_baseline(content):
    row = row_of(content, "mini__name_animal")
    assert [node["score"] for node in row["scores"]] == [25, 75]
    assert row["difference"] == 50
    assert row["best"] == "majority"
    assert row["baselines"]["copy_input"] == {"score": 5.0, "ci": [2.0, 8.0], "n": 12}
    assert row_of(content, "mini__one")["scores"][1]["ci"] is None


def test_intervals_of_differences_are_those_of_the_comparison(case, content):
    one, two = (comparison.load(case / name) for name in ("before", "after"))
    tree = comparison.compare(one.results, two.results, one.samples, two.samples)
    assert content["overall"]["difference_ci"] == tree["overall"]["ci"]
    level = tree["levels"]["fully_held_out"]
    task = level["categories"]["Naming"]["tasks"]["mini__name_animal"]
    assert row_of(content, "fully_held_out")["difference_ci"] == level["ci"]
    assert row_of(content, "mini__name_animal")["difference_ci"] == task["ci"]
    assert row_of(content, "mini__name_animal")["p"] == task["p_adjusted"]
    assert row_of(content, "mini__part_a")["difference_ci"] is None


def test_a_run_has_points_in_the_order_of_steps(content):
    run = content["run"]
    assert [point["step"] for point in run["suites"]["mini"]] == [9, 20, 40]
    assert run["suites"]["mini"][2]["fully_held_out"]["score"] == pytest.approx(87.5)
    assert len(run["loss"]) == 40
    assert all(math.isfinite(loss) for _, loss in run["loss"])
    assert run["config"]["commit"] == "def456"


def test_shares_add_up_by_benchmark_and_category():
    shares = [
        summary.MixtureShare(
            *(f"{benchmark}__{number}", benchmark, category, "train", "", 10),
            *(example, token, token, 5.0, 1.0),
        )
        for number, (benchmark, category, example, token) in enumerate(
            [("a", "X", 0.1, 0.2), ("a", "Y", 0.2, 0.2), ("b", "X", 0.7, 0.6)]
        )
    ]
    groups = report_run.summarize_mixture(shares)
    assert [row["name"] for row in groups["benchmarks"]] == ["b", "a"]
    assert groups["benchmarks"][1]["example_share"] == pytest.approx(0.3)
    assert groups["categories"][0]["name"] == "X"
    assert groups["categories"][0]["token_share"] == pytest.approx(0.8)
    assert groups["categories"][0]["num_examples"] == 20
    for field in ("example_share", "token_share", "target_share"):
        for rows in groups.values():
            assert sum(row[field] for row in rows) == pytest.approx(1)


# --- samples -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("total", "count", "expected"),
    [(30, 4, [0, 10, 19, 29]), (3, 8, [0, 1, 2]), (9, 1, [4]), (8, 8, list(range(8)))],
)
def test_ranks_hold_both_ends(total, count, expected):
    assert report_samples.ranks(total, count) == expected


def test_samples_go_from_the_lowest_to_the_highest_score(content):
    found = content["samples"]["mini__name_animal"]
    assert found["total"] == 12
    assert len(found["rows"]) == 8
    scores = [row["answers"][1]["score"] for row in found["rows"]]
    assert scores == sorted(scores)
    assert {scores[0], scores[-1]} == {0, 100}
    assert found["rows"][0]["rank"] == 1
    assert found["rows"][-1]["rank"] == 12
    first = found["rows"][0]
    assert first["answers"][0]["score"] <= first["answers"][1]["score"]
    assert first["references"] == ["word" + first["id"].rpartition("-")[2]]


def test_the_order_of_a_file_changes_nothing():
    samples = make_samples(2)
    assert report_samples.choose([samples]) == report_samples.choose([samples[::-1]])


def test_many_long_samples_stay_within_the_budget():
    samples = [
        {**sample, "task": f"t{k}", "source": "今天 " * 2000}
        for k in range(160)
        for sample in make_samples(2, {"t": TASKS["mini__pick"]}, count=30)
    ]
    chosen = report_samples.choose([samples, samples])
    size = len(json.dumps(chosen, ensure_ascii=False).encode())
    assert size <= report_samples.MAX_BYTES
    assert len(chosen) == 160
    assert all(task["total"] == 30 and task["rows"] for task in chosen.values())
    assert "characters left out" in chosen["t0"]["rows"][0]["source"]


def test_a_long_text_keeps_both_ends():
    text = "a" * 500 + "b" * 500
    short = report_samples.shorten(text, 300)
    assert short == "a" * 100 + "\n[… 700 characters left out …]\n" + "b" * 200
    assert report_samples.shorten("short", 300) == "short"


def test_a_sample_of_one_evaluation_only_is_kept():
    both, one = make_samples(2), make_samples(2, {"mini__pick": TASKS["mini__pick"]})
    chosen = report_samples.choose([one, both])
    assert chosen["dialogue__reply"]["rows"][0]["answers"][0] is None
    assert chosen["mini__pick"]["rows"][0]["answers"][0]["score"] == 0


# --- the page ------------------------------------------------------------------------------------


def test_scores_stand_in_the_html(page):
    text = Page(page).text
    for words in (
        "mini: before and after",
        "Fully held out",
        "categories absent from training",
        "25.0 → 75.0",
        "+50.0",
        "baseline 25.0 (majority)",
        "8 tasks, 4 categories, 85 answers, 0-shot",
        "Training loss",
        "optiml eval --gin_file=<x>",
        "abc123",
        "def456",
        "How to read the scores",
    ):
        assert words in text, words
    rows = [attrs for tag, attrs in Page(page).elements if tag == "tr" and "data-task" in attrs]
    assert {row["data-task"] for row in rows} == set(TASKS)


def test_curves_have_the_baseline_of_the_evaluation_shown(content):
    groups = [content["overall"], *(row for row in content["rows"] if row["kind"] == "level")]
    shown = content["evaluations"][-1]
    panels = report_page.panels(content["run"], shown, groups)
    scores = [panel for panel in panels if panel["kind"] == "score"]
    assert scores
    assert all(panel["floor"] for panel in scores)
    for field, other in (("suite", "x"), ("split", "x"), ("shots", 5)):
        panels = report_page.panels(content["run"], {**shown, field: other}, groups)
        assert not any(panel["floor"] for panel in panels), field


def test_hostile_text_stays_text(page):
    parsed = Page(page)
    tags = [tag for tag, _ in parsed.elements]
    assert tags.count("script") == 2
    assert "img" not in tags
    assert "onerror" not in "".join(name for _, attrs in parsed.elements for name in attrs)
    (embedded,) = [text for text in parsed.scripts if text.startswith("{")]
    details = json.loads(embedded)
    sources = {row["source"][:-2] for row in details["mini__name_animal"]["rows"]}
    for text in (HOSTILE, ARABIC, CHINESE):
        assert any(source.startswith(text) for source in sources), text


@pytest.mark.parametrize("title", [HOSTILE, "{{ 7 * 7 }}"])
def test_a_title_is_text_too(case, title):
    page = report_page.render(report.gather([case / "after"], title=title))
    assert [tag for tag, _ in Page(page).elements].count("script") == 2
    assert " ".join(title.split()) in Page(page).text


def test_nothing_is_loaded_from_elsewhere(page):
    for tag, attrs in Page(page).elements:
        assert "src" not in attrs, tag
        assert "style" not in attrs, "the policy forbids style attributes"
        assert not [name for name in attrs if name.startswith("on")]
        if "href" in attrs:
            assert attrs["href"].startswith("#") or attrs["href"] == "data:,"
    assert "@import" not in page
    assert "url(" not in page


def test_the_policy_allows_exactly_the_style_and_the_script(page):
    parsed = Page(page)
    (policy,) = [a["content"] for tag, a in parsed.elements if a.get("http-equiv")]
    assert policy.startswith("default-src 'none';")
    for tag in ("style", "script"):
        (text,) = re.findall(rf"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy


def test_the_same_files_give_the_same_page(case, page):
    folders = [case / "before", case / "after"]
    assert report_page.render(report.gather(folders, model_dir=case / "run")) == page


def test_one_evaluation(case):
    page = report_page.render(report.gather([case / "after"]))
    text = Page(page).text
    assert "Score" in text
    assert "Difference" not in text
    assert "→" not in text
    assert "No run was given" in text


def test_missing_parts_are_told(tmp_path):
    folder = write_evaluation(tmp_path / "e", make_samples(2), 5, with_baselines=False)
    (folder / "samples.jsonl").unlink()
    content = report.gather([folder])
    text = Page(report_page.render(content)).text
    assert "samples.jsonl is missing: no samples from there" in text
    assert "hold no baselines" in text
    assert "No run and no store were given" in text
    assert content["samples"] == {}


def test_a_run_without_evaluations(case, tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 3, "loss": 2.5}\n')
    content = report.gather([case / "after"], model_dir=tmp_path)
    text = Page(report_page.render(content)).text
    assert "2.500" in text
    assert "No scores while training" in text


def test_tasks_of_one_evaluation_only(tmp_path):
    fewer = {name: TASKS[name] for name in list(TASKS)[1:]}
    one = write_evaluation(tmp_path / "a", make_samples(1, fewer), 0, tasks=fewer)
    two = write_evaluation(tmp_path / "b", make_samples(3, count=8), 9)
    content = report.gather([one, two])
    row = row_of(content, "mini__name_animal")
    assert row["scores"][0] is None
    assert row["difference"] is None
    notes = " ".join(content["notes"])
    assert "1 tasks are in only one of the two evaluations" in notes
    assert "6 tasks were scored on different numbers of instances" in notes
    assert "Differences stand without intervals" in notes
    Page(report_page.render(content))


def test_differing_settings_are_told(tmp_path):
    folders = [
        write_evaluation(tmp_path / str(shots), make_samples(2), 5, shots=shots) for shots in (0, 5)
    ]
    assert "Setting 'shots' differs: 0 before, 5 after." in report.gather(folders)["notes"]


@pytest.mark.parametrize(
    ("low", "high", "count"), [(0, 43, 5), (0, 100, 4), (1.18, 6.2, 4), (2, 2, 4), (0, 0.003, 4)]
)
def test_ticks_enclose(low, high, count):
    ticks = report_page.nice_ticks(low, high, count)
    assert ticks[0] <= low
    assert ticks[-1] >= high
    assert 2 <= len(ticks) <= count + 2
    assert ticks == sorted(set(ticks))


def test_numbers_as_text():
    assert report_page.format_signed(-3.25) == "\u22123.2"
    assert report_page.format_signed(0.04) == "0.0"
    assert report_page.format_interval([-1.0, 2.0]) == "\u22121.0 to +2.0"
    assert report_page.format_interval(None) == ""
    assert report_page.is_sure([0.1, 3.0])
    assert not report_page.is_sure([-0.1, 3.0])
    assert not report_page.is_sure(None)


# --- what is refused -----------------------------------------------------------------------------


def test_no_such_folder(tmp_path):
    with pytest.raises(InputError, match=r"EVAL_DIR '.*none' does not exist"):
        report.gather([tmp_path / "none"])
    with pytest.raises(InputError, match=r"has no results\.json"):
        report.gather([tmp_path])


@pytest.mark.parametrize("field", ["suite", "split"])
def test_other_suites_are_not_compared(case, tmp_path, field):
    other = write_evaluation(tmp_path / "o", make_samples(1), 0, **{field: "flan"})
    with pytest.raises(InputError, match=f"of different {field}s: 'flan' in .* 'mini' in"):
        report.gather([other, case / "after"])


def test_another_schema(case, tmp_path):
    results = json.loads((case / "after" / "results.json").read_text())
    (tmp_path / "results.json").write_text(json.dumps({**results, "schema": 9}))
    with pytest.raises(InputError, match="schema 9, this version reads 1"):
        report.gather([tmp_path])


def test_a_sample_without_a_field(case, tmp_path):
    results = (case / "after" / "results.json").read_text()
    (tmp_path / "results.json").write_text(results)
    (tmp_path / "samples.jsonl").write_text('{"fingerprint": ""}\n{"task": "a", "id": "1"}\n')
    with pytest.raises(InputError, match=r"samples\.jsonl, line 2: field 'prompt_id' is missing"):
        report.gather([tmp_path])


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("score", "high"),
        ("score", None),
        ("score", float("nan")),
        ("references", None),
        ("references", [1]),
        ("options", [3]),
        ("source", None),
        ("prediction", 5),
        ("task", 3),
    ],
)
def test_a_sample_with_another_kind_of_value(case, tmp_path, field, value):
    """As `compare` says it, not as Python does."""
    after = shutil.copytree(case / "after", tmp_path / "after")
    text = (after / "samples.jsonl").read_text("utf-8")
    lines = [json.loads(line) for line in text.split("\n") if line]
    lines[3][field] = value
    (after / "samples.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(InputError, match=rf"samples\.jsonl, line 4: field '{field}' is "):
        report.gather([after])
    if field in ("source", "prediction"):  # which `compare` does not read
        return
    one, two = comparison.load(case / "before"), comparison.load(after)
    with pytest.raises(InputError, match=rf"samples\.jsonl, line 4: field '{field}' is "):
        comparison.compare(one.results, two.results, one.samples, two.samples)


@pytest.mark.parametrize("settings", [None, [], "absent"])
def test_results_of_other_tools_need_no_settings(case, tmp_path, settings):
    results = json.loads((case / "after" / "results.json").read_text())
    results["settings"] = settings
    if settings == "absent":
        del results["settings"]
    (tmp_path / "results.json").write_text(json.dumps(results))
    assert report.gather([tmp_path])["evaluations"][0]["settings"] == {}
    assert report.gather([case / "before", tmp_path])["notes"]


def test_losses_that_are_no_numbers_are_left_out(case, tmp_path):
    lines = ({"step": 1, "loss": None}, {"step": 2, "loss": "x"}, {"step": 3, "loss": 2.0})
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert report.gather([case / "after"], model_dir=tmp_path)["run"]["loss"] == [[3, 2.0]]


def test_a_folder_that_is_no_run(case, tmp_path):
    with pytest.raises(InputError, match=r"holds neither config\.gin nor metrics\.jsonl"):
        report.gather([case / "after"], model_dir=tmp_path)
    with pytest.raises(InputError, match="does not exist"):
        report.gather([case / "after"], model_dir=tmp_path / "none")


def test_a_page_is_written_whole_or_not_at_all(content, page, tmp_path, monkeypatch):
    path = report_page.write(tmp_path / "new" / "r.html", content)
    assert path.read_text("utf-8") == page
    path.write_text("old")

    def fail(*names):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", fail)
        with pytest.raises(InputError, match=r"cannot be written \(No space left on device\)"):
            report_page.write(path, content)
    assert path.read_text() == "old"
    assert [p.name for p in path.parent.iterdir()] == ["r.html"]


def test_a_path_that_cannot_be_written(content, tmp_path):
    (tmp_path / "file").write_text("")
    for path in (tmp_path, tmp_path / "file" / "r.html"):
        with pytest.raises(InputError, match=r"--out: '.*' cannot be written"):
            report_page.write(path, content)
