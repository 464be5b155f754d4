"""Records to samples to results: the run of an evaluation.

Everything is checked before the model is asked; then examples are answered longest first, in
pieces that are on disk when the next one begins (`samples`), so that an evaluation that was
killed goes on where it stopped and ends with the same results.json.
"""

import dataclasses
import functools
import hashlib
import io
import json
import os
import sys
import time
from collections.abc import Iterable, Mapping
from typing import Any, TextIO

import jax
from jax.experimental import multihost_utils

from optiml_jax import errors
from optiml_jax.bench.record import EvalRecord
from optiml_jax.errors import InputError
from optiml_jax.eval import aggregation, baselines, metrics
from optiml_jax.eval import samples as samples_files
from optiml_jax.eval.tasks import EvalTask
from optiml_jax.infer import decoding, engine, scoring
from optiml_jax.train import progress

METHODS = ("by_task", "by_options", "generate", "rank")

# Batches between two writes: what a kill can cost, against sorting by length within them.
_BATCHES_PER_WRITE = 4
_SECONDS_BETWEEN_LINES = 10.0


@dataclasses.dataclass(frozen=True)
class EvalConfig:
    """How examples are answered and scored.

    Attributes:
        method: "by_task" ranks the options of tasks whose metric is accuracy and generates for the
            others (Super-NaturalInstructions: always generation); "by_options" ranks wherever there
            are options; "generate" and "rank" do one for all tasks. Ranked examples are scored by
            accuracy whatever the task's metric.
        max_examples_per_task: the first so many; None takes all that the view has.
        max_new_tokens: of a generation.
        normalization: of option scores, a name of `infer.scoring.NORMALIZATIONS`.
        score_eos: whether `</s>` counts in an option's score.
        shots: demonstrations of the view that the records come from; only told in the results.
        seed: of the intervals.
        num_resamples: of the intervals.
        generate_batch_size: rows decoded at a time; None takes the engine's.
        rank_batch_size: rows scored at a time; None takes the engine's.

    Source: OPT-IML (arXiv 2212.12017) §4.1, §5.
    """

    method: str = "by_task"
    max_examples_per_task: int | None = None
    max_new_tokens: int = decoding.MAX_NEW_TOKENS
    normalization: str = "none"
    score_eos: bool = False
    shots: int = 0
    seed: int = 0
    num_resamples: int = aggregation.NUM_RESAMPLES
    generate_batch_size: int | None = None
    rank_batch_size: int | None = None

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise errors.unknown("method", self.method, METHODS, "EvalConfig")
        if self.normalization not in scoring.NORMALIZATIONS:
            raise errors.unknown(
                "normalization", self.normalization, scoring.NORMALIZATIONS, "EvalConfig"
            )
        for name, least, optional in (
            ("max_examples_per_task", 1, True),
            ("max_new_tokens", 1, False),
            ("shots", 0, False),
            ("seed", 0, False),
            ("num_resamples", 100, False),
            ("generate_batch_size", 1, True),
            ("rank_batch_size", 1, True),
        ):
            value = getattr(self, name)
            if value is None and optional:
                continue
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise InputError(
                    f"EvalConfig.{name} is {value!r}, expected a whole number of at least {least}."
                )

    def answer_settings(self) -> dict[str, Any]:
        """What decides answers; samples of other settings do not mix."""
        names = ("max_new_tokens", "normalization", "score_eos")
        return {name: getattr(self, name) for name in names}


@dataclasses.dataclass(frozen=True)
class _Question:
    """An example that is to be answered."""

    record: EvalRecord
    task: EvalTask
    method: str

    @property
    def metric(self) -> str:
        """Name of the metric that scores the answer."""
        return "accuracy" if self.method == "rank" else self.task.metric

    @functools.cached_property
    def prompt_hash(self) -> str:
        """Digest of all text that the model sees."""
        text = json.dumps([self.record.source, *self.record.options])
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @functools.cached_property
    def key(self) -> str:
        """What tells the sample from all others of the file."""
        one = self.record
        return "|".join([one.task, one.id, one.prompt_id, self.prompt_hash, self.method])

    def is_scored(self, sample: Mapping[str, Any]) -> bool:
        """Whether a sample's score is by today's references and metric."""
        return (sample.get("references"), sample.get("metric")) == (
            list(self.record.references),
            self.metric,
        )

    def scores(self, prediction: str) -> dict[str, float]:
        """The scores of an answer by name, `metric` among them."""
        names = ["rouge_l", "exact_match"] if self.method == "generate" else []
        return {
            name: self.task.make_metric(name)(prediction, self.record.references)
            for name in dict.fromkeys([*names, self.metric])
        }

    def __str__(self) -> str:
        return f"task '{self.record.task}', example '{self.record.id}'"


def evaluate(
    model: engine.Engine,
    records: Iterable[EvalRecord],
    tasks: Mapping[str, EvalTask],
    config: EvalConfig,
    directory: str | os.PathLike[str],
    *,
    model_name: str = "",
    step: int = 0,
    suite: str = "",
    split: str = "",
    stream: TextIO | None = None,
) -> dict[str, Any]:
    """Answers and scores all records; writes samples.jsonl and results.json; returns the latter.

    Started again on the same folder with the same model it answers only what is missing.

    Args:
        tasks: rows by name, see `eval.tasks`.
        model_name: e.g. the checkpoint's path; told in the results.
        step: of training; told in the results.
        stream: where progress is shown (default: standard error).

    Raises:
        InputError: no records; a record of an unknown task, without what its method needs, or
            given twice; a folder that holds another evaluation.
    """
    questions = plan(records, tasks, config)
    if any(q.method == "generate" for q in questions):
        decoding.check_room(model.config, config.max_new_tokens, len(model.prompt_prefix))
    header = {"model": model_name, "step": step, "suite": suite}
    is_first = jax.process_index() == 0
    file = open_samples(model, config, directory, header, writable=is_first)
    if jax.process_count() > 1:
        # Every process must have read the file before the first one adds to it.
        multihost_utils.sync_global_devices("evaluation: samples read")
    answer_missing(model, questions, config, file, stream if is_first else io.StringIO())
    results = aggregation.aggregate(
        [file.samples[q.key] for q in questions],
        tasks,
        model=model_name,
        step=step,
        suite=suite,
        split=split,
        shots=config.shots,
        settings=dataclasses.asdict(config),
        seed=config.seed,
        num_resamples=config.num_resamples,
    )
    results = baselines.add_baselines(
        results,
        [(q.record, q.metric) for q in questions],
        tasks,
        seed=config.seed,
        num_resamples=config.num_resamples,
    )
    if is_first:
        aggregation.write_results(directory, results)
    return results


def open_samples(
    model: engine.Engine,
    config: EvalConfig,
    directory: str | os.PathLike[str],
    header: Mapping[str, Any] | None = None,
    writable: bool = False,
) -> samples_files.SamplesFile:
    """The samples of a folder, for an evaluation of this model that goes on there.

    Args:
        header: what a new file tells people beside what decides its answers.

    Raises:
        InputError: the folder holds another evaluation, or a damaged file.
    """
    decisive = {"fingerprint": model.fingerprint, "settings": config.answer_settings()}
    return samples_files.SamplesFile(directory, {**(header or {}), **decisive}, writable)


def plan(
    records: Iterable[EvalRecord], tasks: Mapping[str, EvalTask], config: EvalConfig
) -> list[_Question]:
    """Which examples are answered and how, in the records' order.

    Raises:
        InputError: see `evaluate`.
    """
    counts: dict[str, int] = {}
    questions: dict[str, _Question] = {}
    for record in records:
        if record.task not in tasks:
            raise errors.unknown("task", record.task, tasks, f"example '{record.id}'")
        counts[record.task] = counts.get(record.task, 0) + 1
        if config.max_examples_per_task and counts[record.task] > config.max_examples_per_task:
            continue
        task = tasks[record.task]
        method = config.method
        if method == "by_task":
            method = "rank" if task.metric == "accuracy" else "generate"
        elif method == "by_options":
            method = "rank" if record.options else "generate"
        question = _Question(record, task, method)
        _check_question(question)
        if question.key in questions:
            raise InputError(
                f"{question}: given twice with the same prompt. Every example of a task needs an"
                " id of its own."
            )
        questions[question.key] = question
    if not questions:
        raise InputError(
            "no evaluation records: nothing to score. Check the view (shots) and the tasks asked"
            " for."
        )
    return list(questions.values())


def _check_question(question: _Question) -> None:
    record = question.record
    if not record.references:
        raise InputError(f"{question}: no references, so it cannot be scored. Drop the example.")
    if question.method != "rank":
        return
    if not record.options:
        raise InputError(
            f"{question}: no options to rank. Use EvalConfig.method 'generate', or give the task"
            " another metric than accuracy."
        )
    for option in record.options:
        if not option.strip():
            raise InputError(f"{question}: its option {option!r} has no text. Correct the options.")
    if not any(metrics.accuracy(option, record.references) for option in record.options):
        raise InputError(
            f"{question}: none of its options {list(record.options)!r:.80} is a reference"
            f" {list(record.references)!r:.80}, so no choice is right. Correct the options."
        )


def answer_missing(
    model: engine.Engine,
    questions: Iterable[_Question],
    config: EvalConfig,
    file: samples_files.SamplesFile,
    stream: TextIO | None = None,
) -> None:
    """Answers the questions that the file lacks, longest first, and appends their samples.

    Answers that are there are scored anew where references or metric were changed since.
    """
    questions = list(questions)
    missing = [q for q in questions if q.key not in file.samples]
    old = [(q, file.samples[q.key]) for q in questions if q.key in file.samples]
    file.append(
        [{**s, **_common(q, s["prediction"])} for q, s in old if not q.is_scored(s)],
    )
    show = _Progress(len(missing), stream)
    for method, answer, batch_size in (
        ("rank", _rank, config.rank_batch_size or model.rank_batch_size),
        ("generate", _generate, config.generate_batch_size or model.generate_batch_size),
    ):
        # Characters stand for tokens: neighbours then fit one shape, and memory is short at once
        # or never.
        own = sorted(
            (q for q in missing if q.method == method),
            key=lambda q: (-len(q.record.source), q.key),
        )
        size = batch_size * _BATCHES_PER_WRITE
        for start in range(0, len(own), size):
            part = own[start : start + size]
            try:
                made = answer(model, part, config)
            except engine.PromptError as error:
                raise InputError(f"{part[error.index]}: {error.problem}") from error
            file.append(made)
            show.add(len(part))
    show.close()


def _rank(model, questions, config) -> list[dict[str, Any]]:
    """Samples of ranked questions."""
    rankings = model.rank(
        [(q.record.source, q.record.options) for q in questions],
        normalization=config.normalization,
        score_eos=config.score_eos,
        batch_size=config.rank_batch_size,
    )
    made = []
    for question, ranking in zip(questions, rankings):
        prediction = question.record.options[ranking.choice]
        made.append(
            {
                **_common(question, prediction),
                "choice": ranking.choice,
                "log_probs": list(ranking.log_probs),
                "num_tokens": list(ranking.num_tokens),
                "unconditional": list(ranking.unconditional),
                "truncated": ranking.truncated,
            }
        )
    return made


def _generate(model, questions, config) -> list[dict[str, Any]]:
    """Samples of generated answers."""
    generations = model.generate(
        [q.record.source for q in questions],
        max_new_tokens=config.max_new_tokens,
        batch_size=config.generate_batch_size,
    )
    made = []
    for question, generation in zip(questions, generations):
        made.append(
            {
                **_common(question, generation.text),
                "num_tokens": generation.num_tokens,
                "stopped": generation.stopped,
                "truncated": generation.truncated,
            }
        )
    return made


def _common(question: _Question, prediction: str) -> dict[str, Any]:
    """What samples of both methods hold."""
    record = question.record
    scores = question.scores(prediction)
    return {
        "key": question.key,
        "task": record.task,
        "id": record.id,
        "prompt_id": record.prompt_id,
        "prompt_hash": question.prompt_hash,
        "method": question.method,
        "source": record.source,
        "references": list(record.references),
        "options": list(record.options),
        "prediction": prediction,
        "metric": question.metric,
        "score": scores[question.metric],
        "scores": scores,
    }


class _Progress:
    """Examples done, per second, time left: a live line on a terminal, else one now and then."""

    def __init__(self, total: int, stream: TextIO | None = None) -> None:
        self._total = total
        self._done = 0
        self._stream = sys.stderr if stream is None else stream
        self._live = self._stream.isatty()
        self._start = time.monotonic()
        self._last_line = self._start

    def add(self, count: int) -> None:
        """Notes `count` examples more."""
        self._done += count
        now = time.monotonic()
        waited = now - self._last_line >= _SECONDS_BETWEEN_LINES
        if not (self._live or waited or self._done == self._total):
            return
        self._last_line = now
        rate = self._done / max(now - self._start, 1e-9)
        line = f"eval {self._done:>{len(str(self._total))}}/{self._total} examples  {rate:.1f}/s"
        if self._done < self._total:
            left = progress.format_seconds((self._total - self._done) / rate)
            line += f"  {left} left"
        # On a terminal: return to the line's start and clear to its end.
        self._stream.write(f"\r{line}\x1b[K" if self._live else f"{line}\n")
        self._stream.flush()

    def close(self) -> None:
        """Ends the live line."""
        if self._live and self._done:
            self._stream.write("\n")
            self._stream.flush()
