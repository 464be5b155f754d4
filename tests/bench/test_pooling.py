"""Pools of templates: how many are drawn, from which; the order of files does not count."""

import collections
import dataclasses
import random

import pytest

from optiml_jax.bench import catalog, pooling, prompts, record, splits
from optiml_jax.data import rendering

SPEC = catalog.TaskSpec(
    name="made__colours",
    original_name="colours",
    benchmark="made",
    category="Question Answering",
    instruction_kind="instance",
    sources=("made",),
    metric="accuracy",
    input_languages=("English",),
    output_languages=("English",),
    licence="",
    num_examples=60,
    path="",
)


@dataclasses.dataclass(frozen=True)
class Asks:
    """A template; `only` leaves out the rows whose number it does not divide."""

    prompt_id: str
    text: str
    only: int = 1

    def fill(self, one):
        if one.fields["number"] % self.only:
            return None
        return record.Filled(
            self.text.format(**one.fields), (one.fields["answer"],), ("red", "blue")
        )


TEMPLATES = (
    Asks("plain", "Is {number} red?"),
    Asks("polite", "Please tell: {number}"),
    Asks("rare", "Third? {number}", only=3),
)
ROWS = tuple(
    record.Record(f"train-{i}", fields={"number": i, "answer": ("red", "blue")[i % 2]})
    for i in range(60)
)
CONTENT = catalog.TaskContent("", (), ROWS, templates=TEMPLATES)
TRAIN = splits.Assignment("train", "fully_supervised", "")


def drawn(number, seed=0, turn=0, content=CONTENT, rows=ROWS):
    return pooling.draw("task", content, rows, number, seed, turn)


def test_the_pool_gives_as_many_as_rows_whatever_the_templates():
    found = drawn(len(ROWS))
    assert len(found) == len(ROWS)
    pool = 60 + 60 + 20
    assert len(list(pooling.everything(CONTENT, ROWS))) == pool
    assert len(drawn(1000)) == pool
    # Drawn from the pool: some rows twice, some not at all; a rare template has its share.
    per_row = collections.Counter(one.row.id for one in found)
    assert max(per_row.values()) > 1
    assert len(per_row) < len(ROWS)
    rare = sum(
        len([1 for one in drawn(60, seed) if one.template is TEMPLATES[2]]) for seed in range(50)
    )
    assert rare / (50 * 60) == pytest.approx(20 / pool, abs=0.03)


def test_draws_depend_on_neither_order():
    rows, templates = list(ROWS), list(TEMPLATES)
    random.Random(0).shuffle(rows)
    templates.reverse()
    shuffled = drawn(
        40, content=dataclasses.replace(CONTENT, templates=tuple(templates)), rows=rows
    )
    names = {one.example.id for one in drawn(40)}
    assert {one.example.id for one in shuffled} == names
    assert {one.example.id for one in drawn(40, turn=1)} != names


def test_a_row_without_a_version_is_skipped():
    content = dataclasses.replace(CONTENT, templates=(TEMPLATES[2],))
    found = drawn(60, content=content)
    assert [one.row.fields["number"] for one in found] == list(range(0, 60, 3))


def parts(role, **options):
    config = rendering.RenderConfig(**options)
    assignment = dataclasses.replace(TRAIN, role=role)
    return rendering.partition(SPEC, CONTENT, assignment, config), config


def test_validation_draws_and_a_test_takes_all():
    some, config = parts("validation", max_eval_examples=50, max_eval_prompts=25)
    found = rendering.eval_records(SPEC, CONTENT, some, config, 0)
    assert len(found) == len({one.id for one in found}) == 25
    every, config = parts("test", max_eval_examples=30)
    found = rendering.eval_records(SPEC, CONTENT, every, config, 0)
    # The third template asks every third row alone.
    assert len(found) == 30 + 30
    assert found[0].id == "train-0/plain"
    assert found[0].prompt_id.startswith("plain/")
    assert found[0].options == ("red", "blue")


def test_evaluation_leaves_out_templates_that_ask_some_rows_only():
    assert pooling.with_even_templates(CONTENT, ROWS).templates == TEMPLATES[:2]
    # Rows that nobody asks (without labels) do not count against a template.
    uneven = dataclasses.replace(CONTENT, templates=TEMPLATES[2:])
    assert pooling.with_even_templates(uneven, ROWS).templates == TEMPLATES[2:]
    some = (Asks("a", "{number}", only=2), Asks("b", "{number}", only=3))
    assert (
        pooling.with_even_templates(dataclasses.replace(CONTENT, templates=some), ROWS).templates
        == some
    )


def test_training_has_the_size_of_the_rows_and_never_what_is_held_out():
    found, config = parts("train")
    examples = rendering.train_examples(SPEC, CONTENT, found, config, 0)
    assert len(examples) == len(found.train)
    held_out = {row.id for row in found.evaluation}
    assert held_out
    assert not {one.id.split("/")[0] for one in examples} & held_out


def test_what_a_release_evaluates_is_held_out():
    marked = tuple(
        dataclasses.replace(row, metadata={record.HELD_OUT: "test"}) if i >= 50 else row
        for i, row in enumerate(ROWS)
    )
    content = dataclasses.replace(CONTENT, records=marked)
    config = rendering.RenderConfig()
    trained = rendering.partition(SPEC, content, TRAIN, config)
    assert [row.id for row in trained.evaluation] == [f"train-{i}" for i in range(50, 60)]
    assert len(trained.train) == 50
    tested = rendering.partition(
        SPEC,
        content,
        dataclasses.replace(TRAIN, role="test"),
        dataclasses.replace(config, max_eval_examples=12),
    )
    # Its train rows are there for demonstrations alone.
    assert [row.id for row in tested.evaluation] == [f"train-{i}" for i in range(50, 60)]
    assert {row.id for row in tested.pool} == {f"train-{i}" for i in range(50)}
    assert not tested.train


def test_records_that_ask_the_same_are_held_out_together():
    rows = tuple(
        record.Record(f"train-{i}", input=f" question {i % 20} ", references=("yes",))
        for i in range(400)
    )
    content = catalog.TaskContent("", (), rows)
    some = rendering.partition(SPEC, content, TRAIN, rendering.RenderConfig())
    asked = [{row.input for row in part} for part in (some.train, some.evaluation)]
    assert asked[0]
    assert asked[1]
    assert not asked[0] & asked[1]
    # Where all ask the same, nothing can be held out.
    same = tuple(dataclasses.replace(row, input="one") for row in rows)
    content = catalog.TaskContent("", (), same)
    some = rendering.partition(SPEC, content, TRAIN, rendering.RenderConfig())
    assert (len(some.train), some.evaluation) == (400, ())
    # Of rows whose fields are filled in later, the fields count.
    fields = tuple(record.Record(r.id, fields={"q": r.input}) for r in rows)
    content = dataclasses.replace(CONTENT, records=fields)
    some = rendering.partition(SPEC, content, TRAIN, rendering.RenderConfig())
    held_out = {row.fields["q"] for row in some.evaluation}
    assert held_out
    assert not held_out & {row.fields["q"] for row in some.train}


def test_how_much_is_evaluated():
    """A test takes all of a release's test set, Super-NI its first 100, validation 250 prompts."""
    rows = tuple(
        record.Record(
            f"{split}-{i}", fields={"number": i, "answer": "red"}, metadata={record.HELD_OUT: split}
        )
        for split in ("validation", "test")
        for i in range(400)
    )
    plain = tuple(dataclasses.replace(row, input="x", references=("red",)) for row in rows)
    config = rendering.RenderConfig()
    for benchmark, role, templates, number in (
        ("flan", "test", TEMPLATES[:2], 800),
        ("flan", "validation", TEMPLATES[:2], 250),
        ("reasoning", "test", (), 400),
        ("reasoning", "validation", (), 250),
        ("super_natural_instructions", "test", (), 100),
    ):
        spec = dataclasses.replace(SPEC, benchmark=benchmark)
        content = dataclasses.replace(
            CONTENT, records=rows if templates else plain, templates=templates
        )
        some = rendering.partition(spec, content, dataclasses.replace(TRAIN, role=role), config)
        found = rendering.eval_records(spec, content, some, config, 0)
        assert len(found) == number, (benchmark, role)
        assert {one.id.partition("-")[0] for one in found} == (
            {role} if benchmark != "super_natural_instructions" else {"test"}
        )


def test_demonstrations_do_not_depend_on_the_order_of_the_file():
    config = rendering.RenderConfig(shots=(2,))
    shuffled = dataclasses.replace(CONTENT, records=tuple(random.Random(3).sample(ROWS, len(ROWS))))
    texts = []
    for content in (CONTENT, shuffled):
        some = rendering.partition(SPEC, content, TRAIN, config)
        made = rendering.eval_records(SPEC, content, some, config, 2)
        texts.append({one.id: one.source for one in made})
    assert texts[0] == texts[1]


def test_demonstrations_are_in_the_wording_of_the_example():
    found, config = parts("test", max_eval_examples=10)
    for one in rendering.eval_records(SPEC, CONTENT, found, config, shots=3):
        name = one.prompt_id.split("/")[0]
        (template,) = (t for t in TEMPLATES if t.prompt_id == name)
        before = template.text.split("{")[0]
        assert one.source.count(before) == 4
        assert one.prompt_id.endswith(".3shot")
        own = one.id.split("/")[0].removeprefix("train-")
        assert one.source.count(template.text.format(number=own)) >= 1


def test_render_takes_rows_with_text_of_their_own():
    content = catalog.TaskContent("Say it.", (), (record.Record("a", "x", ("y",)),))
    found = prompts.render(SPEC, content, content.records[0], prompts.PromptConfig(), 0, 0)
    assert found.source.startswith("Say it.\nx")
    assert (found.id, found.target) == ("a", "y")
