"""Two evaluations and a run on disk, with texts that a page must not be broken by."""

import json

from optiml_jax.eval import aggregation
from optiml_jax.eval.tasks import EvalTask

HOSTILE = "</script><img src=http://example.com/x.png onerror=alert(1)><!-- & \u2028 'q' \"d\""
ARABIC = "ما هي عاصمة مصر؟"
CHINESE = "今天天气很好，我们去公园散步吧。"

TASKS = {
    row.name: row
    for row in (
        EvalTask("mini__name_animal", "mini", "Naming", "exact_match", "fully_held_out"),
        EvalTask("mini__name_colour", "mini", "Naming", "rouge_l", "fully_held_out"),
        EvalTask("mini__one", "mini", "Lonely", "exact_match", "fully_held_out"),
        EvalTask("mini__sort_letters", "mini", "Sorting", "rouge_l", "partially_supervised"),
        EvalTask("dialogue__reply", "dialogue", "Dialogue", "rouge_l", "fully_supervised"),
        EvalTask("mini__pick", "mini", "Sorting", "accuracy", "fully_supervised"),
        EvalTask(
            "mini__part_a", "mini", "Sorting", "accuracy", "fully_supervised", parent="mini__whole"
        ),
        EvalTask(
            "mini__part_b", "mini", "Sorting", "accuracy", "fully_supervised", parent="mini__whole"
        ),
    )
}
TEXTS = ("Name it: ", HOSTILE, ARABIC, CHINESE)


def make_samples(right_in_four, tasks=TASKS, count=12):
    """Samples of which `right_in_four` of every four are right."""
    made = []
    for name, task in tasks.items():
        for number in range(1 if name == "mini__one" else count):
            is_right = number % 4 < right_in_four
            score = 100.0 if is_right else 0.0
            ranked = task.metric == "accuracy"
            made.append(
                {
                    "key": f"{name}|{number}",
                    "task": name,
                    "id": f"{name}-{number}",
                    "prompt_id": f"0.{number % 2}",
                    "prompt_hash": "h",
                    "method": "rank" if ranked else "generate",
                    "source": f"{TEXTS[number % 4]} word{number}",
                    "references": [f"word{number}"],
                    "options": [f"word{number}", "other"] if ranked else [],
                    "prediction": f"word{number}" if is_right else ("other" if ranked else HOSTILE),
                    "metric": task.metric,
                    "score": score,
                    "scores": {task.metric: score},
                    "truncated": False,
                }
            )
    return made


def write_evaluation(folder, samples, step, *, tasks=TASKS, with_baselines=True, **changes):
    """results.json and samples.jsonl of an evaluation."""
    told = {"model": "runs/mini", "suite": "mini", "split": "mini", "shots": 0, **changes}
    settings = {"method": "by_task", "max_new_tokens": 8, "num_resamples": 200}
    results = aggregation.aggregate(
        samples, tasks, step=step, settings=settings, num_resamples=200, **told
    )
    if with_baselines:
        add_baselines(results)
    aggregation.write_results(folder, results)
    lines = [{"schema": 1, "fingerprint": "f", "settings": {}}, *samples]
    text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    (folder / "samples.jsonl").write_text(text, "utf-8")
    return folder


def add_baselines(node):
    """Baselines of 25, 5 and 10 for every node of a tree."""
    for name, child in node.items():
        if name in ("levels", "categories", "tasks", "subtasks"):
            for inner in child.values():
                add_baselines(inner)
        elif name == "overall":
            add_baselines(child)
    if "score" in node:
        n = node["n"]
        node["baselines"] = {
            "majority": {"score": 25.0, "ci": [20.0, 30.0], "n": n},
            "copy_input": {"score": 5.0, "ci": [2.0, 8.0], "n": n},
            "copy_demonstration": {"score": 10.0, "ci": None, "n": n},
        }


def write_case(folder):
    """before/ (a quarter right), after/ (three quarters), run/ with curves and a configuration."""
    write_evaluation(folder / "before", make_samples(1), 0)
    write_evaluation(folder / "after", make_samples(3), 40)
    header = "# optiml_jax 0.1.0\n# commit abc123\n# command optiml eval --gin_file=<x>\n\nA = 1\n"
    (folder / "after" / "config.gin").write_text(header)
    for step, right in ((20, 2), (40, 3), (9, 1)):
        samples = make_samples(right, count=4)
        write_evaluation(folder / "run" / "eval" / "mini" / str(step), samples, step)
    (folder / "run" / "eval" / "mini" / "60").mkdir()  # An evaluation that was stopped.
    losses = [{"step": step, "loss": 5.0 / (1 + step / 10)} for step in range(1, 41)]
    losses.append({"step": 41, "loss": float("nan")})
    (folder / "run" / "metrics.jsonl").write_text("".join(f"{json.dumps(x)}\n" for x in losses))
    (folder / "run" / "config.gin").write_text("# optiml_jax 0.1.0\n# commit def456\n\nB = 2\n")
    return folder
