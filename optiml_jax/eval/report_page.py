"""The page of a report: charts as plain geometry, the template, and the file.

The page is one file that asks for nothing: style and script are inside, and its content security
policy allows exactly those two by their digest, so that nothing a task says can load or run.
Tables and charts stand in the HTML; only sorting, filters and samples need the script.

Neighbours: `report` gathers the content; report_files/ holds template, style and script.
"""

import base64
import hashlib
import json
import math
import os
import pathlib
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any

import jinja2
import markupsafe

from optiml_jax.bench import splits
from optiml_jax.errors import InputError

FOLDER = pathlib.Path(__file__).parent / "report_files"

LEVELS = {
    "overall": ("Overall", "mean of all categories of all levels"),
    "fully_held_out": ("Fully held out", "categories absent from training"),
    "partially_supervised": ("Partially supervised", "new tasks of trained categories"),
    "fully_supervised": ("Fully supervised", "unseen instances of trained tasks"),
}
BASELINES = {
    "majority": ("Majority", "the task's most frequent answer, every time"),
    "copy_input": ("Copy input", "the instance's own text"),
    "copy_demonstration": ("Copy demonstration", "the answer of a solved example"),
}
METRICS = {"rouge_l": "ROUGE-L", "exact_match": "exact match", "accuracy": "accuracy"}

# Steps of a training loss that a chart of this width can show.
_MAX_POINTS = 300
_MISSING = "–"


def write(path: str | os.PathLike[str], content: Mapping[str, Any]) -> pathlib.Path:
    """Renders the page and writes it whole or not at all; returns its path.

    Raises:
        InputError: the file cannot be written there.
    """
    path = pathlib.Path(path)
    page = render(content)
    try:
        if path.is_dir():
            raise IsADirectoryError(0, "it is a folder")
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, staged = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "w", encoding="utf-8", newline="\n") as file:
                file.write(page)
            # mkstemp makes files that only their owner reads; a page is to be shared.
            os.chmod(staged, 0o644)
            os.replace(staged, path)
        except BaseException:
            os.unlink(staged)
            raise
    except OSError as error:
        is_file = isinstance(error, FileExistsError | NotADirectoryError)
        reason = "a file stands where its folder should be" if is_file else error.strerror
        raise InputError(
            f"--out: '{path}' cannot be written ({reason}). Give the path of a file in a"
            " folder that you may write to."
        ) from None
    return path


def render(content: Mapping[str, Any]) -> str:
    """The page of `report.gather`'s content; the same content gives the same text."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(FOLDER),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        score=format_score,
        signed=format_signed,
        interval=format_interval,
        sure=is_sure,
        breakable=breakable,
    )
    style, script = ((FOLDER / name).read_text("utf-8") for name in ("style.css", "script.js"))
    rows = content["rows"]
    groups = [content["overall"], *(row for row in rows if row["kind"] == "level")]
    tasks = [row for row in rows if row["kind"] == "task"]
    return environment.get_template("page.html").render(
        **content,
        style=markupsafe.Markup(style),
        script=markupsafe.Markup(script),
        style_digest=_digest(style),
        script_digest=_digest(script),
        level_names=LEVELS,
        baseline_names=BASELINES,
        metric_names=METRICS,
        groups=groups,
        headline=headline(groups),
        num_tasks=len(tasks),
        num_categories=len({row["category"] for row in rows if row["category"]}),
        levels=[level for level in splits.LEVELS if any(r["level"] == level for r in rows)],
        categories=sorted({row["category"] for row in rows if row["category"]}),
        benchmarks=sorted({row["benchmark"] for row in tasks}),
        has_baselines=any(row["baselines"] for row in rows),
        panels=panels(content["run"], content["evaluations"][-1], groups) if content["run"] else [],
        details=embed(_details(tasks, content["samples"])),
    )


def _digest(text: str) -> str:
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    return f"sha256-{digest}"


def embed(value: Any) -> markupsafe.Markup:
    """JSON that may stand between script tags whatever its strings hold.

    Example:
        "</script>" -> "\\u003c/script\\u003e"
    """
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), sort_keys=True)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return markupsafe.Markup(text)


def _details(
    tasks: Sequence[Mapping[str, Any]], samples: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    """What the script shows below a task."""
    return {
        row["name"]: {
            "baselines": [
                [BASELINES[name][0], format_score(node["score"])]
                for name, node in row["baselines"].items()
            ],
            "p": "" if row["p"] is None else format_p(row["p"]),
            "metrics": [
                [METRICS.get(name, name), *(format_score(m.get(name)) for m in row["metrics"])]
                for name in dict.fromkeys(name for m in row["metrics"] for name in m)
            ],
            **samples.get(row["name"], {"total": 0, "rows": []}),
        }
        for row in tasks
    }


def format_score(value: float | None) -> str:
    """A percentage with one decimal; a dash for None."""
    return _MISSING if value is None else f"{value:.1f}"


def format_signed(value: float | None) -> str:
    """A difference with its sign, U+2212 for minus."""
    if value is None:
        return _MISSING
    text = f"{abs(value):.1f}"
    return text if text == "0.0" else ("+" if value > 0 else "\u2212") + text


def format_interval(interval: Sequence[float] | None) -> str:
    """Both ends; signed ones are joined by a word, for a dash beside a minus misleads."""
    if not interval:
        return ""
    low, high = interval
    if low < 0:
        return f"{format_signed(low)} to {format_signed(high)}"
    return f"{low:.1f}\u2009–\u2009{high:.1f}"


def is_sure(interval: Sequence[float] | None) -> bool:
    """Whether an interval of a difference leaves out 0."""
    return bool(interval) and (interval[0] > 0 or interval[1] < 0)


def format_p(value: float) -> str:
    """A p-value with as many digits as its resamplings carry."""
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def breakable(name: str) -> markupsafe.Markup:
    """A name that may be broken after its underscores."""
    return markupsafe.Markup("_<wbr>").join(name.split("_"))


def headline(groups: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Dots and intervals of overall and the levels on one axis, in percent of its width."""
    ends = [0.0]
    for row in groups:
        for node in [*row["scores"], *row["baselines"].values()]:
            if node:
                ends.append((node["ci"] or [0, node["score"]])[1])
    ticks = nice_ticks(0, min(100.0, max(10.0, *ends)), 5)
    top = ticks[-1]
    rows = []
    for row in groups:
        best = row["baselines"].get(row["best"])
        marks = [_mark(node, top) for node in row["scores"]]
        rows.append({"row": row, "marks": marks, "baseline": _mark(best, top)})
    return {"rows": rows, "ticks": [(f"{tick:g}", _percent(tick / top)) for tick in ticks]}


def _mark(node: Mapping[str, Any] | None, top: float) -> dict[str, str] | None:
    if not node:
        return None
    low, high = node["ci"] or (node["score"], node["score"])
    return {
        "at": _percent(node["score"] / top),
        "low": _percent(low / top),
        "high": _percent(high / top),
    }


def _percent(share: float) -> str:
    return f"{100 * share:.2f}".rstrip("0").rstrip(".") + "%"


def nice_ticks(low: float, high: float, count: int) -> list[float]:
    """About `count` round numbers that enclose low..high.

    Example:
        nice_ticks(0, 43, 5) -> [0, 10, 20, 30, 40, 50]
    """
    span = max(high - low, 1e-9)
    power = 10.0 ** math.floor(math.log10(span / count))
    step = next(power * m for m in (1, 2, 2.5, 5, 10) if span / (power * m) <= count)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(i * step, 10) for i in range(first, max(last, first + 1) + 1)]


def panels(
    run: Mapping[str, Any], evaluation: Mapping[str, Any], groups: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """Small line charts of a run: a score for each level and suite, and the training loss.

    A chart's baseline is that of the evaluation shown where suite, split and shots are the same:
    majority is counted on the evaluated instances, and of the few evaluated while training it is
    inflated (of three, any answer that stands twice scores 67). Elsewhere there is none.
    """
    shown = {row["name"]: row["baselines"][row["best"]]["score"] for row in groups if row["best"]}
    made = []
    for suite, points in run["suites"].items():
        names = [name for name in LEVELS if any(name in point for point in points)]
        found = [point[name] for point in points for name in names if name in point]
        fields = ("suite", "split", "shots")
        is_same = all(points[-1][field] == evaluation[field] for field in fields)
        floors = shown if is_same else {}
        high = max((n["ci"] or [0, n["score"]])[1] for n in found)
        high = max(high, *(floors.get(name, 0.0) for name in names))
        ticks = nice_ticks(0, min(100.0, max(10.0, high)), 4)
        for name in names:
            own = [(p["step"], p[name]) for p in points if name in p]
            series = [(s, n["score"], *(n["ci"] or [n["score"]] * 2)) for s, n in own]
            note = f"{suite}, n = {own[-1][1]['n']:,}"
            made.append(_panel(LEVELS[name][0], note, series, ticks, "score", floors.get(name)))
    if run["loss"]:
        series = [(step, loss, loss, loss) for step, loss in _thin(run["loss"])]
        losses = [loss for _, loss in run["loss"]]
        ticks = nice_ticks(min(losses), max(losses), 4)
        made.append(_panel("Training loss", "nats per target token", series, ticks, "loss"))
    return made


def _thin(points: Sequence[Sequence[float]]) -> list[tuple[float, float]]:
    """At most `_MAX_POINTS` points: means of neighbours."""
    size = math.ceil(len(points) / _MAX_POINTS)
    parts = [points[i : i + size] for i in range(0, len(points), size)]
    return [(part[-1][0], math.fsum(loss for _, loss in part) / len(part)) for part in parts]


def _panel(
    title: str,
    note: str,
    series: Sequence[tuple[float, float, float, float]],
    ticks: Sequence[float],
    kind: str,
    floor: float | None = None,
) -> dict[str, Any]:
    """One chart: paths in a box of 1000 x 1000, dots and ticks in percent."""
    steps = [step for step, *_ in series]
    first, last = min(0.0, *steps) if len(steps) == 1 else min(steps), max(steps)
    bottom, span = ticks[0], ticks[-1] - ticks[0]

    def x(step: float) -> float:
        return (step - first) / max(last - first, 1)

    def y(value: float) -> float:
        return 1 - (value - bottom) / span

    def path(points: Sequence[tuple[float, float]]) -> str:
        return "M" + "L".join(f"{1000 * x(s):.1f} {1000 * y(v):.1f}" for s, v in points)

    band = [(s, high) for s, _, _, high in series] + [(s, low) for s, _, low, _ in reversed(series)]
    ending = series[-1]
    return {
        "title": title,
        "note": note,
        "kind": kind,
        "floor": "" if floor is None else _percent(y(floor)),
        "line": path([(s, v) for s, v, *_ in series]),
        "band": path(band) + "Z" if kind == "score" and len(series) > 1 else "",
        "dots": [(_percent(x(s)), _percent(y(v)), f"step {s:,.0f}: {v:.4g}") for s, v, *_ in series]
        if len(series) <= 40
        else [],
        "x_ticks": [(f"{first:,.0f}", "0%", "start"), (f"{last:,.0f}", "100%", "end")],
        "y_ticks": [(f"{tick:g}", _percent(y(tick))) for tick in ticks],
        "last": f"{ending[1]:.1f}" if kind == "score" else f"{ending[1]:.3f}",
        "about": f"{title}, {note}: {series[0][1]:.4g} at step {steps[0]:,.0f}, {ending[1]:.4g} at"
        f" step {last:,.0f}.",
    }
