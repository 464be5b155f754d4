"""The forms in which chain-of-thought sets come, and the one text that is made of them.

    cells   Could a fish drown?\\tno\\tFish have gills. Gills take oxygen from water.
    row     {"question": "Could a fish drown?", "answer": false, "facts": ["Fish have gills.", ...]}
    target  Fish have gills. Gills take oxygen from water. The answer is no.

A row of JSON is recognised by its fields, not by its set: a set in its own release's form, in the
plain form (question, answer, rationale) or both reads alike. `FORMS` lists them. The other sets
(CoQA, ECQA, ProofWriter, QED, SenseMaking, WinoWhy) come in the plain form or as cells: how their
releases nest or scatter a rationale is left out.

Where the source leaves a choice:
1. The rationale comes first, then "The answer is X." on the same line; the paper's figures part
   them by a full stop, and the last one is this package's. A rationale that ends without a mark
   gets a full stop; one that ends with this very sentence does not get it again.
2. Options stand below the question, parted by commas, as OPT-IML prints them. A block "Options:" at
   the end of FLAN's questions is rewritten so; a question whose block has another shape stays.

Source: OPT-IML (arXiv 2212.12017) §4.6, Table 6, figures 63-64; google-research/FLAN,
flan/v2/cot_data; the releases of GSM8K, MATH, AQuA-RAT, StrategyQA, QASC, CREAK, and TensorFlow
Datasets' esnli and cos_e.
"""

import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from optiml_jax.errors import InputError

CELLS = ("question", "answer", "rationale")

_ITEM = re.compile(r"- (?P<dashed>.*)|(?P<lettered>\([A-Z]\) .*)")
_LETTERED = re.compile(r"\(?([A-Z])[.)]\s*(.*)", re.DOTALL)
# GSM8K's marks for a calculator: "48/2 = <<48/2=24>>24".
_CALCULATION = re.compile(r"<<[^<>]*>>")


@dataclasses.dataclass(frozen=True)
class Solved:
    """A question with its answer and the way to it; blank fields are what the release lacks."""

    question: str
    answer: str
    rationale: str
    options: tuple[str, ...] = ()
    id: str = ""

    @property
    def is_usable(self) -> bool:
        """Whether nothing is blank."""
        return bool(self.question.strip() and self.answer.strip() and self.rationale.strip())

    @property
    def input(self) -> str:
        """The question, and its options below it, parted by commas."""
        if self.options:
            return f"{self.question.strip()}\n{', '.join(self.options)}"
        return self.question.strip()

    @property
    def target(self) -> str:
        """The rationale, and then the answer."""
        closing = f"The answer is {self.answer.strip().removesuffix('.')}"
        rationale = self.rationale.strip()
        if rationale.removesuffix(".").endswith(closing):
            rationale = rationale.removesuffix(".").removesuffix(closing).rstrip()
        if rationale and not rationale.rstrip("\"')”’").endswith((".", "!", "?")):
            rationale += "."
        return f"{rationale} {closing}.".lstrip()


def from_cells(cells: Sequence[str], where: str) -> Solved:
    """A line of a TSV file, "\\n" standing for a line break.

    Raises:
        InputError: not three cells.
    """
    if len(cells) != len(CELLS):
        raise InputError(
            f"{where}: the line has {len(cells)} columns, expected {len(CELLS)}"
            f" ({', '.join(CELLS)}), parted by tabs. It begins with {cells[0]!r:.40}. Write line"
            " breaks inside a cell as \\n and tabs as blanks."
        )
    if tuple(cell.strip().casefold() for cell in cells) == CELLS:
        raise InputError(
            f"{where}: the line has the names of the columns. FLAN's files have none: delete it."
        )
    question, answer, rationale = (cell.replace("\\n", "\n") for cell in cells)
    return _parted(Solved(question, answer, rationale))


def from_row(row: Mapping[str, Any], where: str) -> Solved:
    """A row of JSON or Parquet in any of `FORMS`.

    Raises:
        InputError: it is in none of them, or a field is not what the form has there.
    """
    for form in FORMS:
        if all(name in row for name in form.fields):
            return _parted(form.read(row, where))
    forms = "; ".join(f"{', '.join(form.fields)} ({form.name})" for form in FORMS)
    raise InputError(
        f"{where}: the row has the fields {sorted(row)!r:.160}, which are no form of a question"
        f" with its rationale. Known: {forms}. Give the row question, answer and rationale."
    )


def _parted(solved: Solved) -> Solved:
    """The same with the options out of the question's text, where it ends with a block of them."""
    if solved.options:
        return solved
    question, mark, block = solved.question.rstrip().rpartition("\nOptions:\n")
    items = [_ITEM.fullmatch(line) for line in block.split("\n")]
    if not mark or not all(items):
        return solved
    options = tuple((item["dashed"] or item["lettered"]).strip() for item in items if item)
    return dataclasses.replace(solved, question=question, options=options)


def _text(row: Mapping[str, Any], name: str, where: str) -> str:
    """A field as text: numbers as they are written, truth as yes or no, null as ""."""
    value = row.get(name)
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if not isinstance(value, str | int | float) or value != value:
        raise InputError(
            f"{where}: field '{name}' is {value!r:.60}, expected text. Correct the row."
        )
    return str(value)


def _texts(row: Mapping[str, Any], name: str, where: str) -> tuple[str, ...]:
    value = row.get(name)
    if value is None:
        return ()
    good = isinstance(value, list) and all(isinstance(v, str) and v.strip() for v in value)
    if not good:
        raise InputError(
            f"{where}: field '{name}' is {value!r:.60}, expected a list of texts, none blank."
            " Correct the row."
        )
    return tuple(v.strip() for v in value)


def _read_plain(row: Mapping[str, Any], where: str) -> Solved:
    steps = row["rationale"]
    rationale = (
        " ".join(_texts(row, "rationale", where))
        if isinstance(steps, list)
        else _text(row, "rationale", where)
    )
    return Solved(
        _text(row, "question", where),
        _text(row, "answer", where),
        rationale,
        _texts(row, "options", where),
        _text(row, "id", where),
    )


def _read_aqua(row: Mapping[str, Any], where: str) -> Solved:
    options = []
    for text in _texts(row, "options", where):
        match = _LETTERED.fullmatch(text)
        if not match:
            raise InputError(f"{where}: the option {text!r:.60} has no letter, like 'A)21'.")
        options.append(f"({match[1]}) {match[2]}".strip())
    correct = _text(row, "correct", where).strip()
    answer = f"({correct})" if correct else ""
    _check_among(answer, [text.split(" ")[0] for text in options], where)
    question, rationale = _text(row, "question", where), _text(row, "rationale", where)
    return Solved(question, answer, rationale, tuple(options))


def _read_strategyqa(row: Mapping[str, Any], where: str) -> Solved:
    rationale = " ".join(_texts(row, "facts", where))
    question, answer = _text(row, "question", where), _text(row, "answer", where)
    return Solved(question, answer, rationale, id=_text(row, "qid", where))


def _read_qasc(row: Mapping[str, Any], where: str) -> Solved:
    question, choices = row["question"], row.get("choices")
    if isinstance(question, Mapping):
        # The release has both under the question, the libraries of data sets beside each other.
        question, choices = question.get("stem"), question.get("choices")
    if isinstance(choices, Mapping):
        labels, texts = (_texts(choices, name, where) for name in ("label", "text"))
        if len(labels) == len(texts):
            pairs = zip(labels, texts, strict=True)
            choices = [{"label": label, "text": text} for label, text in pairs]
    if not isinstance(choices, list) or not all(isinstance(one, Mapping) for one in choices):
        raise InputError(
            f"{where}: field 'choices' is {choices!r:.60}, expected a list of labels with texts."
        )
    labels = [f"({_text(one, 'label', where)})" for one in choices]
    options = tuple(
        f"{label} {_text(one, 'text', where)}" for label, one in zip(labels, choices, strict=True)
    )
    key = _text(row, "answerKey", where).strip()
    answer = f"({key})" if key else ""
    _check_among(answer, labels, where)
    facts = (_text(row, name, where).strip() for name in ("fact1", "fact2", "combinedfact"))
    rationale = " ".join(_sentence(fact) for fact in facts if fact)
    stem = _text({"question": question}, "question", where)
    return Solved(stem, answer, rationale, options, _text(row, "id", where))


def _read_creak(row: Mapping[str, Any], where: str) -> Solved:
    answers = {"true": "yes", "false": "no", "yes": "yes", "no": "no", "": ""}
    label = _text(row, "label", where).strip().casefold()
    _check_among(label, list(answers), where)
    claim, why = _text(row, "sentence", where), _text(row, "explanation", where)
    return Solved(claim, answers[label], why, ("yes", "no"), _text(row, "ex_id", where))


def _read_esnli(row: Mapping[str, Any], where: str) -> Solved:
    # Integers are the classes of the libraries of data sets, -1 for no agreement.
    classes = {"0": "yes", "1": "it is not possible to tell", "2": "no", "-1": "", "": ""}
    names = {"entailment": "0", "neutral": "1", "contradiction": "2"}
    label = _text(row, "label", where).strip().casefold()
    label = names.get(label, label)
    _check_among(label, [*classes, *names], where)
    premise, hypothesis = (_text(row, name, where).strip() for name in ("premise", "hypothesis"))
    question = f"Premise: {premise}\nHypothesis: {hypothesis}" if premise and hypothesis else ""
    options = tuple(classes[name] for name in "012")
    return Solved(question, classes[label], _text(row, "explanation_1", where), options)


def _read_cose(row: Mapping[str, Any], where: str) -> Solved:
    options, answer = _texts(row, "choices", where), _text(row, "answer", where).strip()
    _check_among(answer, options, where)
    why = _text(row, "abstractive_explanation", where)
    return Solved(_text(row, "question", where), answer, why, options, _text(row, "id", where))


def _read_math(row: Mapping[str, Any], where: str) -> Solved:
    solution = _text(row, "solution", where)
    return Solved(_text(row, "problem", where), _boxed(solution), solution)


def _read_gsm8k(row: Mapping[str, Any], where: str) -> Solved:
    rationale, mark, answer = _text(row, "answer", where).rpartition("\n####")
    if not mark:
        raise InputError(
            f"{where}: field 'answer' is {row['answer']!r:.60}, expected GSM8K's steps and then a"
            " line '#### <answer>'. In other forms the steps are the field 'rationale'."
        )
    return Solved(_text(row, "question", where), answer, _CALCULATION.sub("", rationale))


def _boxed(solution: str) -> str:
    """What stands in the last \\boxed{...}, "" if there is none."""
    start = solution.rfind("\\boxed{")
    if start < 0:
        return ""
    start += len("\\boxed{")
    depth = 1
    for end in range(start, len(solution)):
        depth += {"{": 1, "}": -1}.get(solution[end], 0)
        if not depth:
            return solution[start:end]
    return ""


def _sentence(fact: str) -> str:
    """FLAN's files have QASC's facts, which are not written as sentences, as sentences."""
    return fact[0].upper() + fact[1:] + ("" if fact.endswith((".", "!", "?")) else ".")


def _check_among(answer: str, options: Sequence[str], where: str) -> None:
    if answer and answer not in options:
        raise InputError(
            f"{where}: the answer '{answer:.60}' is none of {list(options)!r:.160}. Correct the"
            " row."
        )


@dataclasses.dataclass(frozen=True)
class Form:
    """One way of writing a row: it has these fields, whatever else it has."""

    name: str
    fields: tuple[str, ...]
    read: Callable[[Mapping[str, Any], str], Solved]


FORMS = (
    # The first that fits is taken: forms with more fields of their own come first.
    Form("plain", ("question", "answer", "rationale"), _read_plain),
    Form("AQuA-RAT", ("question", "options", "rationale", "correct"), _read_aqua),
    Form("StrategyQA", ("question", "answer", "facts"), _read_strategyqa),
    Form("QASC", ("question", "answerKey", "fact1", "fact2"), _read_qasc),
    Form("CREAK", ("sentence", "label", "explanation"), _read_creak),
    Form("e-SNLI", ("premise", "hypothesis", "label", "explanation_1"), _read_esnli),
    Form("CoS-E", ("question", "choices", "answer", "abstractive_explanation"), _read_cose),
    Form("MATH", ("problem", "solution"), _read_math),
    Form("GSM8K", ("question", "answer"), _read_gsm8k),
)
