"""`templates.yaml`: what is read from it, what a template makes of a row, what broken files say."""

import json
import pickle

import pytest

from optiml_jax.bench import record
from optiml_jax.bench.sources import promptsource_templates
from optiml_jax.errors import InputError

YAML = """\
dataset: super_glue
subset: copa
templates:
  0edd: !Template
    answer_choices: '{{choice1}} ||| {{choice2}}'
    id: 0edd
    jinja: "{{ premise }} {% if question == \\"cause\\" %}because...{% else %}so...{% endif %}\\n\\
      - {{choice1}}\\n- {{choice2}} ||| {% if label != -1 %}{{ answer_choices[label] }}{% endif %}"
    metadata: !TemplateMetadata
      choices_in_prompt: true
      languages: &id001
      - en
      metrics:
      - Accuracy
      original_task: true
    name: so / because?
    reference: ''
  1abc: !Template
    answer_choices: null
    id: 1abc
    jinja: 'What follows? ||| {{ premise }}'
    metadata: !TemplateMetadata
      choices_in_prompt: null
      languages: *id001
      metrics: []
      original_task: false
    name: other
    reference: 'x'
    task_template: false
"""
DOUBLING = b"".join(b"%c: &%c [*%c, *%c]\n" % (c + 1, c + 1, c, c) for c in range(97, 121))
"""Each list holds the one before it twice: written out, the last has 2^24 items."""

ROW = {"premise": "It rained.", "choice1": "Wet.", "choice2": "Dry.", "question": "effect"}


@pytest.fixture
def path(tmp_path):
    made = tmp_path / "templates.yaml"
    made.write_text(YAML, encoding="utf-8")
    return made


def make(jinja, choices=None, **more):
    return promptsource_templates.Template(
        "p", "id", "p", jinja, choices, where="templates.yaml:4", **more
    )


def fill(jinja, choices=None, row=ROW, **fields):
    return make(jinja, choices).fill(record.Record("train-0", fields={**row, **fields}))


def test_read(path):
    one, other = promptsource_templates.read(path, "super_glue/copa")
    assert (one.prompt_id, one.name, one.id) == ("so___because_", "so / because?", "0edd")
    assert one.answer_choices == "{{choice1}} ||| {{choice2}}"
    assert one.original_task
    assert one.where == f"{path}:4"
    assert (other.answer_choices, other.original_task) == (None, False)
    filled = one.fill(record.Record("train-0", fields={**ROW, "label": 0}))
    assert filled == record.Filled("It rained. so...\n- Wet.\n- Dry.", ("Wet.",), ("Wet.", "Dry."))
    assert one.fill(record.Record("test-0", fields={**ROW, "label": -1})) is None
    assert pickle.loads(pickle.dumps(one)) == one


@pytest.mark.parametrize(
    ("jinja", "choices", "expected"),
    [
        (" a\n\n|||\n {{premise}} \n", None, record.Filled("a", ("It rained.",))),
        ("a ||| b ||| c", None, record.Filled("a", ("b", "c"))),
        ("a ||| Wet.", "{{choice1}} ||| {{choice2}}|||{{choice1}}", ("Wet.", "Dry.")),
        ("a ||| {{answer_choices[1]}}", "No ||| Yes", ("No", "Yes")),
        ("a ||| Maybe", "No ||| Yes", ()),
        ("a ||| Yes", " ||| Yes", ("Yes",)),
        ("{% if question == 'cause' %}a ||| b{% endif %}", None, None),
        ("a {{ '|||' if false }}", None, None),
        ("a ||| {{ '' }}", None, None),
        ("||| b", None, None),
        ("a ||| {{ answer_choices }}", None, record.Filled("a", ("None",))),
    ],
)
def test_fill(jinja, choices, expected):
    filled = fill(jinja, choices)
    if isinstance(expected, tuple):
        assert filled is not None
        assert filled.options == expected
    else:
        assert filled == expected


def test_the_separator_in_a_row_parts_nothing():
    text = "a ||| b"
    filled = fill(
        "{{t}} {{u.v[0]}} ||| {{answer_choices[0]}}", "{{t}} ||| c", t=text, u={"v": [text]}
    )
    assert filled == record.Filled("a ||| b a ||| b", ("a ||| b",), ("a ||| b", "c"))


def test_a_template_cannot_change_a_row():
    row = {"tokens": ["a"]}
    filled = fill("{{ tokens.append('b') or '' }}{{ tokens | join }} ||| c", row=row)
    assert filled is not None
    assert filled.input == "ab"
    assert row == {"tokens": ["a"]}


def test_long_choices_are_not_cut_but_prompts_are():
    long = "word " * 500
    filled = fill("{{ t }} ||| {{ answer_choices[0] }}", "{{ t }}", t=long)
    assert filled is not None
    assert len(filled.input) <= 2048
    assert filled.input.endswith("...")
    # The answer is put into the prompt's template, where it is cut: no choice is like it.
    assert filled.references[0].endswith("...")
    assert filled.options == ()


def test_draws_depend_on_row_and_template():
    source = "{{ range(1000) | choice }} ||| b"
    texts = {make(source).fill(record.Record(f"train-{i}", fields={})) for i in range(20)}
    assert len(texts) > 15
    other = promptsource_templates.Template("q", "other", "q", source)
    one = record.Record("train-0", fields={})
    assert make(source).fill(one) == make(source).fill(one)
    assert make(source).fill(one) != other.fill(one)


@pytest.mark.parametrize(
    ("jinja", "message"),
    [
        (
            "a\n{{ premises }} ||| b",
            r"^templates\.yaml:4: template 'p' \(jinja, line 2\) on rows/train\.jsonl: row 3: the"
            r" template uses the field 'premises', which the row lacks\. Add it to the row",
        ),
        ("{{ ''.__class__.__mro__ }} ||| b", "reaches for '__mro__'.*Correct the template"),
        ("{% for i in range(10**9) %}{% endfor %} ||| b", "more than 20,000,000 units of work"),
        ("{{ 'a' * 10**9 }} ||| b", "more than 20,000,000 units of work"),
        (
            "{% for i in range(2000) %}{{ 'a' * 2000 }}{% endfor %} ||| b",
            "writes more than 2,000,000 characters",
        ),
        ("{% include 'x' %} ||| b", "has the statement 'Include'"),
        ("{{ 1 / 0 }} ||| b", "the template raises ZeroDivisionError: division by zero"),
        ("{{ premise + 1 }} ||| b", "the template raises TypeError"),
        ("{{ premise.index('z') }} ||| b", "the template raises ValueError"),
        ("{{ [] | choice }} ||| b", "draws from an empty list"),
        ("{% if %} ||| b", r"\(jinja, line 1\).*not Jinja: Expected an expression"),
    ],
)
def test_bad_templates_and_rows(jinja, message):
    one = make(jinja, files={"train": "rows/train.jsonl"})
    with pytest.raises(InputError, match=message):
        one.fill(record.Record("train-2", fields=ROW))


def test_a_bad_template_in_choices():
    with pytest.raises(InputError, match=r"\(answer_choices, line 1\) on row 'train-0'"):
        fill("a ||| b", "{{ choice3 }}")
    with pytest.raises(InputError, match=r"\(answer_choices, line 1\): .*statement 'Include'"):
        make("a ||| b", "{% include 'x' %}").check()
    with pytest.raises(InputError, match=r"\(jinja, line 2\): .*has the filter 'nofilter'"):
        make("a\n{{ a | nofilter }} ||| b").check()
    with pytest.raises(InputError, match="the row's field 'answer_choices'"):
        fill("a ||| b", answer_choices=["x"])


def test_a_deep_row():
    with pytest.raises(InputError, match="nested too deeply"):
        fill("{{ deep }} ||| b", deep=json.loads("[" * 900 + "]" * 900))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("!Template\n", "!!python/object:os.system\n", r"yaml:4: .*tag 'tag:yaml.org,2002:python"),
        ("''\n", "!!python/object/apply:os.system ['true']\n", r"yaml:17: .*not let in"),
        ("name: other", "name: 0x" + "f" * 5000, "is a number of 20000 bits, expected a text"),
        ("''\n", "!Other {}\n", r"yaml:17: .*tag '!Other' makes an object that is not let in"),
        ("!Template\n", "\n", r"templates\['0edd'\] is a dict, expected a !Template"),
        ("!TemplateMetadata\n", "\n", r"field 'metadata' is a dict, expected !TemplateMetadata"),
        ("  1abc:", "  0edd:", r"yaml:18: .*the key '0edd' is there twice"),
        ("id: 1abc", "id: 0edd", r"yaml:18: template 'other' has the name or id of another"),
        ("name: other", "name: 'so / because!'", r"yaml:18: .* has the name or id of another"),
        ("name: other", "name: ' '", r"yaml:18: field 'name' is blank"),
        ("name: other", "name: 3", r"yaml:18: field 'name' is 3, expected a text"),
        ("    name: other\n", "", r"yaml:18: field 'name' is None, expected a text"),
        ("original_task: true", "original_task: 'yes'", r"yaml:4: field 'original_task' is 'yes'"),
        ("What follows? |||", "What follows?", r"field 'jinja' has no '\|\|\|'"),
        (
            "dataset: ",
            "size: " + "1" * 5000 + "\ndataset: ",
            r"its YAML has a whole number of more",
        ),
        ("templates:\n", "templates: [\n", r"yaml:\d+: not YAML that can be read"),
        ("templates:\n", "templates: " + "[" * 50 + "\n", "nested deeper than 20 levels"),
        ("templates:\n", "other:\n", "holds a dict, expected `dataset: NAME`"),
        ("subset: copa", "subset: rte", "is about 'super_glue/rte'.*lies under 'super_glue/copa'"),
        ("reference: 'x'", "reference: \x07", "not YAML that can be read"),
        ("reference: 'x'", "<<: *id001", "not let in|not YAML"),
        ("reference: 'x'", "reference: 2001-99-99", "not YAML that can be read"),
        ("reference: 'x'", "[a]: b", "a key that is no text|not YAML"),
    ],
)
def test_broken_files(path, old, new, message):
    assert old in YAML
    path.write_text(YAML.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(InputError, match=message):
        promptsource_templates.read(path, "super_glue/copa")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "holds None, expected `dataset: NAME`"),
        (b"dataset: a\ntemplates: {}\n", "'templates' is empty"),
        ("dataset: \xe9\n".encode("latin-1"), r"not UTF-8 at byte 9 \(0xe9\)"),
        (b"[" * 100_000, "nested deeper than 20 levels"),
        (b"a: &a [x]\n" + DOUBLING, "holds a dict"),
        (b"&a [*a]", "holds a list"),
    ],
)
def test_odd_files(path, content, message):
    path.write_bytes(content)
    with pytest.raises(InputError, match=message):
        promptsource_templates.read(path)


def test_no_file(tmp_path):
    with pytest.raises(InputError, match=r"templates\.yaml: cannot be read"):
        promptsource_templates.read(tmp_path / "templates.yaml")
