"""The release's own templates: all are read, filled and compared with plain Jinja.

Without rows of a data set, rows are made of what its templates do with their fields (`Fields`):
a name that is looped over is a list, one that is compared with "cause" may be "cause". Real rows
are those of `nlu_clbenchmark`, parted again into the fields that they were put together from.
Prompts that T0 was trained on are compared with the text of their templates.
"""

import collections
import copy
import functools
import itertools
import json
import os
import pathlib
import re
import shutil
import zlib
from typing import Any

import pytest
from jinja2 import Environment, filters, nodes

from optiml_jax.bench import record
from optiml_jax.bench.sources import promptsource, promptsource_templates, promptsource_work
from optiml_jax.errors import InputError
from optiml_jax.tasks import promptsource as declaration

DATA = os.environ.get("OPTIML_TEST_DATA")
pytestmark = pytest.mark.skipif(
    DATA is None, reason="OPTIML_TEST_DATA names no folder of real data"
)
ROOT = pathlib.Path(DATA or ".", "promptsource")

TEXT_METHODS = (
    *("split", "lower", "upper", "replace", "strip", "startswith", "endswith"),
    *("capitalize", "title", "rstrip", "lstrip"),
)
ELEMENT_FILTERS = ("first", "last", "choice", "random")
LIST_FILTERS = (
    *("list", "sort", "unique", "reverse", "reject", "select", "selectattr", "rejectattr"),
)
TEXT_FILTERS = ("lower", "upper", "capitalize", "replace", "trim", "title")
GIVEN = frozenset(["answer_choices", "dict", "loop", "namespace", "range", "zip"])
NUMBER_FILTERS = frozenset(["round", "abs"])


class Shape:
    """What is known about one value: it may have keys, elements, or be text or a number."""

    def __init__(self, name=""):
        self.name = name
        self.keys = {}
        self.element: Shape | None = None
        self.is_element = False
        self.is_number = self.is_text = False
        self.equal_to = []
        self.member_of: Shape | None = None
        self.parts_of_text = []
        self.parts: list[Shape] = []

    def key(self, name):
        made = self.keys.setdefault(name, Shape(name))
        made.is_element = self.is_element
        return made

    def item(self):
        if self.element is None:
            self.element = Shape(self.name)
            self.element.is_element = True
        return self.element

    def make(self, variant, number=None):
        """A value; different variants take different sides of the template's conditions."""
        if self.member_of is not None:
            return self.member_of.make(variant, 0)
        if self.keys and self.element is None:
            return {name: shape.make(variant, number) for name, shape in self.keys.items()}
        if self.element is not None and not self.is_text:
            self.element.keys.update(self.keys)
            length = (3, 6, 2, 5, 1, 4)[variant // 2 % 6]
            return [self.element.make(variant, i) for i in range(length)]
        drawn = zlib.crc32(f"{self.name} {variant} {number}".encode()) >> 4
        if self.equal_to and drawn % (len(self.equal_to) + 2) < len(self.equal_to):
            return self.equal_to[drawn % (len(self.equal_to) + 2)]
        if self.is_number:
            return drawn % 3
        if number is None:
            text = f"some {self.name}; and more of it. Yes" if variant % 2 else f"one {self.name}"
        else:
            text = f"{self.name} {number}"
        for part in self.parts_of_text:
            text += f"{part}{text}{part}{text}"
        return text


class Fields:
    """Walks a template once and keeps the shape of each of its free names."""

    def __init__(self, *sources):
        self.free = {}
        for source in sources:
            self.bound = {}
            tree = Environment().parse(source)
            for node in tree.body:
                self.statement(node)

    def row(self, variant):
        return {name: shape.make(variant) for name, shape in sorted(self.free.items())}

    def statement(self, node):
        if isinstance(node, nodes.Assign):
            self.bind(node.target, self.shape(node.node))
        elif isinstance(node, nodes.For):
            self.bind(node.target, self.shape(node.iter).item())
            if node.test is not None:
                self.shape(node.test)
            for child in (*node.body, *node.else_):
                self.statement(child)
        elif isinstance(node, nodes.If):
            self.shape(node.test)
            for child in (*node.body, *node.elif_, *node.else_):
                self.statement(child)
        else:
            for child in node.iter_child_nodes():
                self.shape(child)

    def bind(self, target, shape):
        if isinstance(target, nodes.Tuple):
            for number, one in enumerate(target.items):
                self.bind(one, shape.parts[number] if shape.parts else Shape())
        elif isinstance(target, nodes.Name):
            self.bound[target.name] = shape
        elif isinstance(target, nodes.NSRef):
            self.bound[f"{target.name}.{target.attr}"] = shape

    def shape(self, node):
        method = getattr(self, f"of_{type(node).__name__.lower()}", None)
        if method is not None:
            return method(node)
        for child in node.iter_child_nodes():
            self.shape(child)
        return Shape()

    def of_name(self, node):
        if node.name in self.bound:
            return self.bound[node.name]
        if node.name in GIVEN:
            return Shape()
        return self.free.setdefault(node.name, Shape(node.name))

    def of_getattr(self, node):
        if isinstance(node.node, nodes.Name) and f"{node.node.name}.{node.attr}" in self.bound:
            return self.bound[f"{node.node.name}.{node.attr}"]
        return self.shape(node.node).key(node.attr)

    def of_getitem(self, node):
        owner = self.shape(node.node)
        if isinstance(node.arg, nodes.Slice):
            for one in node.arg.iter_child_nodes():
                self.shape(one).is_number = True
            return owner
        if isinstance(node.arg, nodes.Const) and isinstance(node.arg.value, str):
            return owner.key(node.arg.value)
        index = self.shape(node.arg)
        if not isinstance(node.node, nodes.Dict):
            index.is_number = True
        else:
            index.equal_to += [_constant(pair.key) for pair in node.node.items]
        return owner.item()

    def of_list(self, node):
        made = Shape()
        made.item().equal_to += [one.value for one in node.items if isinstance(one, nodes.Const)]
        for one in node.items:
            self.shape(one)
        return made

    def of_call(self, node):
        arguments = [self.shape(one) for one in (*node.args, *(k.value for k in node.kwargs))]
        function = node.node
        made = Shape()
        if isinstance(function, nodes.Name) and function.name == "zip":
            made.item().parts = [one.item() for one in arguments]
        elif isinstance(function, nodes.Name) and function.name == "range":
            for one in arguments:
                one.is_number = True
        elif isinstance(function, nodes.Getattr):
            owner = self.shape(function.node)
            if function.attr in TEXT_METHODS:
                owner.is_text = True
                if function.attr == "split":
                    owner.parts_of_text += [_constant(one) for one in node.args]
            elif function.attr == "join":
                arguments[0].item()
            elif function.attr == "index":
                owner.item().equal_to += [a.value for a in node.args if isinstance(a, nodes.Const)]
                if owner.element is not arguments[0]:
                    arguments[0].member_of = owner.element
            elif function.attr in ("keys", "items"):
                owner.key("some key")
        return made

    def of_filter(self, node):
        value = self.shape(node.node) if node.node is not None else Shape()
        for one in (*node.args, *(k.value for k in node.kwargs)):
            self.shape(one)
        if node.name in ELEMENT_FILTERS:
            return value.item()
        if node.name in LIST_FILTERS:
            value.item()
            if node.name in ("selectattr", "rejectattr"):
                known = [_constant(one) for one in node.args]
                value.item().key(known[0]).equal_to += known[2:]
            return value
        if node.name in ("join", "most_frequent"):
            value.item()
        elif node.name == "map":
            attribute = next((k.value.value for k in node.kwargs if k.key == "attribute"), None)
            made = Shape()
            made.element = value.item().key(attribute) if attribute else value.item()
            return made
        elif node.name in TEXT_FILTERS:
            value.is_text = True
        elif node.name in NUMBER_FILTERS:
            value.is_number = True
        elif node.name in ("default", "int", "float", "string"):
            return value
        return Shape()

    def of_compare(self, node):
        left = self.shape(node.expr)
        for operand in node.ops:
            right = self.shape(operand.expr)
            if operand.op == "eq" and left.name and right.name and left is not right:
                within, other = (left, right) if left.is_element else (right, left)
                other.member_of = within
            for shape, other in ((left, operand.expr), (right, node.expr)):
                known = _constant(other)
                if operand.op in ("in", "notin"):
                    if isinstance(known, list):
                        left.equal_to += known
                    continue
                if known is None or isinstance(known, list):
                    continue
                if isinstance(known, bool | str):
                    shape.equal_to += [known, not known] if isinstance(known, bool) else [known]
                else:
                    shape.is_number = True
                    shape.equal_to += [known, known + 1, max(0, known - 1)]
        return Shape()

    def _arithmetic(self, node):
        for side, other in itertools.permutations((node.left, node.right)):
            shape = self.shape(side)
            if not isinstance(node, nodes.Add) or isinstance(_constant(other), int | float):
                shape.is_number = True
        return Shape()

    of_add = of_sub = of_mul = of_div = of_mod = _arithmetic


def _constant(node) -> Any:
    if isinstance(node, nodes.Const):
        return node.value
    if isinstance(node, nodes.Neg):
        return -_constant(node.node)
    if isinstance(node, nodes.List):
        return [_constant(one) for one in node.items]
    return None


EVIDENCE = {
    "Prompts": {
        "Annotations": [{"Annotations": [1], "Label": ["no significant difference"]}],
        "Intervention": ["a drug"],
        "Comparator": ["nothing"],
        "Outcome": ["pain"],
    }
}
KNOWN = {
    "cbt/raw": [{"title": "Some_Author___The_Story.txt.out"}],
    "evidence_infer_treatment/1.1": [EVIDENCE],
    "evidence_infer_treatment/2.0": [EVIDENCE],
    "e2e_nlg_cleaned": [
        {
            "meaning_representation": "name[The Eagle], eatType[pub], food[Thai], area[centre],"
            " familyFriendly[yes], near[the inn], customer rating[5], priceRange[cheap]"
        }
    ],
    "great_code": [{"source_tokens": ["def add(", "a", ")", ":", "#NEWLINE#", "return", "a"]}],
    "humicroedit/subtask-1": [{"original": "He <eats/> it .", "meanGrade": 1.2}],
    "humicroedit/subtask-2": [
        {"original1": "He <eats/> it .", "original2": "He eats <it/> .", "label": 1}
    ],
    "nlu_evaluation_data": [{"scenario": "alarm"}],
    "openai_humaneval": [{"test": "def check(f):\n    assert f(2) == 4\n    assert f(3) == 9"}],
    "piqa": [{"sol1": "Eat it.", "sol2": "Throw it.", "label": 1}],
    "scientific_papers/arxiv": [{"article": "a\nb\nc\nd\ne\nf"}],
    "scientific_papers/pubmed": [{"article": "a\nb\nc\nd\ne\nf"}],
    "selqa/answer_selection_analysis": [{"answers": [0]}],
    "trec": [
        {"coarse_label": 2, "fine_label": 24},
        {"coarse_label": 3, "fine_label": 28},
        {"coarse_label": 4, "fine_label": 32},
        {"coarse_label": 5, "fine_label": 37},
    ],
    "tydiqa/secondary_task": [{"id": "english-1"}],
    "wiki_hop/masked": [{"question": "place_of_birth of someone"}],
} | {
    f"subjqa/{domain}": [{"domain": domain}]
    for domain in ["books", "electronics", "grocery", "movies", "restaurants", "tripadvisor"]
}

NUM_VARIANTS = 40
NUM_COMPARED = 6


@functools.cache
def templates():
    """All templates, with the names of their data sets."""
    found = []
    for path in sorted(ROOT.glob("templates/**/templates.yaml")):
        name = path.parent.relative_to(ROOT / "templates").as_posix()
        found += [(name, one) for one in promptsource_templates.read(path, name)]
    return found


def rows_for(name, one):
    """Rows of the fields that a template uses."""
    fields = Fields(one.jinja, one.answer_choices or "")
    for variant in range(NUM_VARIANTS):
        for known in [{}, *KNOWN.get(name, [])]:
            row = fields.row(variant)
            yield row | {field: value for field, value in known.items() if field in row}


@functools.cache
def plain(field):
    """Jinja as PromptSource sets it up, but that it draws the first of all choices."""
    made = Environment()
    if field == "jinja":
        made.finalize = lambda value: filters.do_truncate(made, str(value), 2048)
    made.globals["zip"] = zip
    made.filters |= {
        "choice": lambda items: items[0],
        "random": lambda items: items[0],
        "highlight": lambda text: f"<span style='color: #F08080'>{text}</span>",
        "most_frequent": most_frequent,
    }
    return made


def most_frequent(items):
    counts = collections.Counter(items)
    return [one for one in counts if counts[one] == max(counts.values())] or None


@functools.cache
def plain_template(field, source):
    return plain(field).from_string(source)


def apply_plainly(one, row):
    """The parts of a row's text by plain Jinja, and its choices."""

    def parts(field, source, more):
        text = plain_template(field, source).render(**copy.deepcopy(row), **more)
        return [part.strip() for part in text.split("|||")]

    choices = None
    if one.answer_choices is not None:
        choices = parts("answer_choices", one.answer_choices, {})
    return parts("jinja", one.jinja, {"answer_choices": choices}), choices


def compare(one, row, filled):
    (prompt, *answers), choices = apply_plainly(one, row)
    assert (filled.input, filled.references) == (prompt, tuple(answers))
    assert set(filled.options) <= set(choices or ())
    if filled.references[0] in (choices or ()):
        assert filled.options == tuple(dict.fromkeys(filter(None, choices or ())))


def test_the_release_is_whole():
    assert len(templates()) == 2085
    assert len({name for name, _ in templates()}) == 279
    assert sum(one.original_task for _, one in templates()) == 1535
    assert len({name for name, one in templates() if one.original_task}) == 259


def test_every_template_is_read_and_fills_a_row(monkeypatch):
    monkeypatch.setattr(promptsource_work.Work, "draw", lambda self, count: 0)
    num_compared = 0
    unfilled = []
    for name, one in templates():
        one.check()
        num_filled = 0
        for row in rows_for(name, one):
            try:
                filled = one.fill(record.Record("train-0", fields=row))
            except InputError:
                # Some of the rows that were made up are not what the template is for.
                continue
            if filled is not None:
                compare(one, row, filled)
                num_filled += 1
            if num_filled == NUM_COMPARED:
                break
        num_compared += num_filled
        if not num_filled:
            unfilled.append((name, one.name))
    assert unfilled == []
    assert num_compared > 12_000


def test_the_catalog_has_every_data_set_with_a_template_of_its_original_task():
    known = declaration.data_sets()
    assert {name for name, one in templates() if one.original_task} <= set(known)


def test_templates_that_turn_a_task_around_are_of_the_release():
    """The table is for data sets of which the release marks no template as the original task."""
    unmarked = {name for name, _ in templates()}
    unmarked -= {name for name, one in templates() if one.original_task}
    known = {(name, one.name) for name, one in templates() if name in unmarked}
    left_out = {(n, t) for n, row in declaration.data_sets().items() for t in row.inverted}
    assert len(left_out) == 23
    assert left_out <= known
    assert {name for name, _ in known - left_out} == unmarked


def real_rows(task, split, pattern, labels):
    path = pathlib.Path(DATA or ".", "nlu_clbenchmark", task, f"{split}.json")
    for row in json.loads(path.read_text(encoding="utf-8")) if path.is_file() else ():
        found = re.fullmatch(pattern, row["sentence"], re.DOTALL)
        assert found, row
        yield {**found.groupdict(), "label": labels[row["label"]]}


PAIR = "sentence 1: (?P<premise>.*)\nsentence 2: (?P<hypothesis>.*)"
REAL = {
    "super_glue/copa": (
        "COPA/COPA",
        'Which sentence is the (?P<question>cause|effect) of "(?P<premise>.*)"\\? Choose one'
        " between A and B.\nA: (?P<choice1>.*)\nB: (?P<choice2>.*)",
        {"A": 0, "B": 1},
    ),
    "super_glue/cb": (
        "NLI/CB",
        PAIR,
        {"entailment": 0, "contradiction": 1, "neutral": 2},
    ),
    "super_glue/rte": ("NLI/RTE", PAIR, {"entailment": 0, "contradiction": 1}),
    "super_glue/wic": (
        "WiC/WiC",
        "word: (?P<word>[^\n]*)\n(?P<sentence1>[^\n]*)\n(?P<sentence2>.*)",
        {"False": 0, "True": 1},
    ),
    "glue/sst2": ("SC/SST-2", "Text: (?P<sentence>.*)", {"Bad": 0, "Good": 1}),
    "glue/qqp": (
        "QQP/QQP",
        "first sentence: (?P<question1>.*)\nsecond sentence: (?P<question2>.*)",
        {"False": 0, "True": 1},
    ),
}


@pytest.mark.parametrize("name", REAL)
def test_real_rows(name, tmp_path):
    task, pattern, labels = REAL[name]
    (tmp_path / "templates" / name).mkdir(parents=True)
    shutil.copy(ROOT / "templates" / name / "templates.yaml", tmp_path / "templates" / name)
    folder = tmp_path / "rows" / name
    folder.mkdir(parents=True)
    num_rows = 0
    for split in ("train", "dev"):
        rows = list(itertools.islice(real_rows(task, split, pattern, labels), 200))
        if rows:
            lines = "".join(json.dumps(row) + "\n" for row in rows)
            (folder / f"{split}.jsonl").write_text(lines, encoding="utf-8")
        num_rows += len(rows)
    assert num_rows >= 50
    (found,) = promptsource.read(tmp_path, declaration.data_sets(), on_skip=pytest.fail)
    assert found.spec.num_examples == num_rows
    content = found.load()
    is_closed = found.spec.metric == "accuracy"
    num_filled = 0
    for one in content.records:
        for template in content.templates:
            filled = template.fill(one)
            if filled is None:
                continue
            compare(template, one.fields, filled)
            assert not is_closed or filled.references[0] in filled.options
            num_filled += 1
    # COPA has templates for causes alone and for effects alone.
    share = num_filled / num_rows / len(content.templates)
    assert share == 1 or (name == "super_glue/copa" and share > 0.5)


GAP = None
"""What a template inserts, among the texts that it has itself."""

T0_EXCEPTIONS: dict[str, str] = {}
"""Sets of T0's prompts that do not hold the text of their template, and why. There is none."""


def paths(body):
    """The texts and gaps of a template, for each way through its conditions."""
    found = [[]]
    for node in body:
        if isinstance(node, nodes.Output):
            ways = [[literal(one) for one in node.nodes]]
        elif isinstance(node, nodes.If):
            bodies = [node.body, *(branch.body for branch in node.elif_), node.else_]
            ways = [way for one in bodies for way in paths(one)]
        else:
            ways = [[GAP]] if isinstance(node, nodes.For) else [[]]
        found = [head + way for head in found for way in ways]
    return found


def literal(node):
    if isinstance(node, nodes.TemplateData):
        return node.data
    return str(node.value) if isinstance(node, nodes.Const) else GAP


def in_order(way, text):
    """True if the texts of a way stand in a text in their order, and nothing else at its ends."""
    texts = [""]
    for part in way:
        if part is not GAP:
            texts[-1] += part
        else:
            texts.append("")
    texts[0], texts[-1] = texts[0].lstrip(), texts[-1].rstrip()
    if len(texts) == 1:
        return texts[0].strip() == text
    at = len(texts[0])
    if not text.startswith(texts[0]):
        return False
    for part in texts[1:-1]:
        at = text.find(part, at) + len(part)
        if at < len(part):
            return False
    return text.endswith(texts[-1]) and len(text) - len(texts[-1]) >= at


def halves(way):
    """The way to the prompt and the way to the answer, None where the way has no answer."""
    made = [[]]
    for part in way:
        first, *rest = part.split("|||") if part is not GAP else [GAP]
        made[-1].append(first)
        made += [[one] for one in rest]
    return made if len(made) == 2 else None


def key(text):
    return re.sub(r"[^A-Za-z0-9]+", "_", text).strip("_")


def test_prompts_of_t0_hold_the_text_of_their_templates():
    by_key = {key(f"{name}_{one.name}"): one for name, one in templates()}
    sets = sorted(ROOT.glob("t0_train_rendered/*.jsonl"))
    num_prompts = 0
    strange = set()
    for path in sets:
        ways = paths(Environment().parse(by_key[key(path.stem)].jinja).body)
        ways = [way for way in map(halves, ways) if way is not None]
        for line in path.read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            prompt = row["prompt"].strip()
            answer = row["completion"].removesuffix("<|endoftext|>").strip()
            num_prompts += 1
            if not any(in_order(ask, prompt) and in_order(told, answer) for ask, told in ways):
                strange.add(path.stem)
    assert strange == set(T0_EXCEPTIONS)
    assert (len(sets), num_prompts) == (243, 5304)


def field_pattern(body):
    """A template that only inserts fields, as a regular expression; None for all others."""
    made, known = "", set()
    for node in body:
        for one in node.nodes if isinstance(node, nodes.Output) else [node]:
            if isinstance(one, nodes.TemplateData):
                made += re.escape(one.data)
            elif isinstance(one, nodes.Name) and one.name != "answer_choices":
                made += f"(?P={one.name})" if one.name in known else f"(?P<{one.name}>.*?)"
                known.add(one.name)
            else:
                return None
    return re.compile(made, re.DOTALL)


def test_prompts_of_t0_are_made_again():
    """Where a template only inserts fields, they are found in its prompts and fill it again."""
    by_key = {key(f"{name}_{one.name}"): one for name, one in templates()}
    num_sets = num_prompts = 0
    for path in sorted(ROOT.glob("t0_train_rendered/*.jsonl")):
        one = by_key[key(path.stem)]
        bare = "|||".join(half.strip() for half in one.jinja.split("|||"))
        pattern = field_pattern(Environment().parse(bare).body)
        if pattern is None or one.answer_choices is not None:
            continue
        num_sets += 1
        for line in path.read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            answer = row["completion"].removesuffix("<|endoftext|>").strip()
            prompt = row["prompt"].strip()
            found = pattern.fullmatch(f"{prompt}|||{answer}")
            assert found is not None, path
            filled = one.fill(record.Record("train-0", fields=found.groupdict()))
            assert filled == record.Filled(prompt, (answer,))
            num_prompts += 1
    assert (num_sets, num_prompts) == (39, 841)
