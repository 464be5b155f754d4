"""What templates may do, and that those which may not are stopped soon and by name."""

import time

import jinja2
import pytest

from optiml_jax.bench.sources import promptsource_sandbox as sandbox
from optiml_jax.bench.sources import promptsource_work as work

ROW = {
    "text": "Some text",
    "label": 1,
    "tokens": ["a", "b", "a"],
    "answers": {"text": ["x", "y"], "start": [1, 2]},
    "nothing": None,
}
COUNT = "{% set n = namespace(c=0) %}{% for t in tokens %}{% set n.c = n.c + 1 %}{% endfor %}"
APPEND = "{% set all = [] %}{% for t in tokens %}{{ all.append(t) or '' }}{% endfor %}"


def render(source, fields=ROW, key="key", truncate=True):
    template = sandbox.compile_tree(sandbox.parse(source))
    return sandbox.render(template, fields, work.Work(key, truncate))


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("{{ text }}\n", "Some text"),
        ("a\n{% if label %}\nb\n{% endif %}\nc\n\n", "a\n\nb\n\nc\n"),
        ("{%- for t in tokens -%} {{t}} {%- endfor -%}", "aba"),
        ("{% for t in tokens %}{{ loop.index }}{{ t if loop.first }},{% endfor %}", "1a,2,3,"),
        ("{{ tokens | most_frequent | join('+') }} {{ [] | most_frequent }}", "a None"),
        ("{{ text | highlight }}", "<span style='color: #F08080'>Some text</span>"),
        ("{% for a, b in zip(tokens, answers.text) %}{{ a ~ b }};{% endfor %}", "ax;by;"),
        ("{% for i in range(3) %}{{ i }}{% endfor %}", "012"),
        ("{{ answers.text[label] }} {{ answers['start'][0] + 1 }}", "y 2"),
        ("{{ text.split(' ')[0].lower() }} {{ text[5:] }} {{ text[-4] }}", "some text t"),
        (COUNT + "{{ n.c }}", "3"),
        (APPEND + "{{ all }}", "['a', 'b', 'a']"),
        ("{{ {'a': 1, 'b': 2}['b'] }} {{ 'ab' in 'cabs' }} {{ 'a' in tokens }}", "2 True True"),
        ("{{ '%s-%03d' | format('a', 7) }} {{ 'x' * 3 }} {{ 2 ** 10 }}", "a-007 xxx 1024"),
        ("{{ '%(a)s' % {'a': text} }}", "Some text"),
        ("{{ (7 / 2) | round | int }} {{ [3, 1] | sort }} {{ [1, 2] | sum }}", "4 [1, 3] 3"),
        ("{{ tokens | select('equalto', 'a') | list | length }}", "2"),
        ("{{ [{'k': 'v'}] | map(attribute='k') | first }}", "v"),
        # Data sets have unanswered questions: what a list or None lacks is empty, as in Jinja.
        ("{{ tokens[9] }}|{{ nothing[0] }}|{{ nothing }}", "||None"),
        ("{{ missing | default('d') }} {% if missing is defined %}1{% endif %}", "d "),
        ("{% if missing %}1{% else %}2{% endif %}{% if not missing %}3{% endif %}", "23"),
        ("{% raw %}{{ text }}{% endraw %}", "{{ text }}"),
        ("{{ ['no', 'yes'][label] }}{# a note #}", "yes"),
    ],
)
def test_what_templates_do(source, text):
    assert render(source) == text


def test_long_texts_are_cut_as_in_the_library():
    long = "word " * 1000
    assert render("{{ text }}", {"text": long}) == long[:2045].rsplit(" ", 1)[0] + "..."
    assert render("{{ text }}", {"text": long}, truncate=False) == long
    # Jinja leaves up to five more characters.
    assert render("{{ text }}", {"text": "a" * 2053}) == "a" * 2053
    assert len(render("{{ text }}", {"text": "a b " * 514})) < 2049
    assert render("{{ text | length }}", {"text": long}) == "5000"


def test_draws_are_a_function_of_the_key():
    source = "{{ range(1000) | choice }} {{ range(1000) | random }} {{ tokens | choice }}"
    drawn = {render(source, key=str(key)) for key in range(50)}
    assert len(drawn) == 50
    assert render(source, key="7") == render(source, key="7")
    assert {render("{{ tokens | choice }}", key=str(key)) for key in range(50)} == {"a", "b"}


def test_an_unlabelled_row_has_no_answer():
    source = "{{ answer_choices[label] }}"
    fields = {"answer_choices": ["no", "yes"], "label": 1}
    assert render(source, fields) == "yes"
    for label in (-1, None):
        with pytest.raises(sandbox.UnlabelledError):
            render(source, fields | {"label": label})
    with pytest.raises(sandbox.MissingError, match="uses '1' of a list"):
        render(source, fields | {"label": "1"})
    assert render("{% if label != -1 %}" + source + "{% endif %}", fields | {"label": -1}) == ""
    assert render("{{ answer_choices[-1] }}", fields) == "yes"


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("{{ missing }}", "uses the field 'missing', which the row lacks"),
        ("{% for x in missing %}{% endfor %}", "uses the field 'missing'"),
        ("{{ 'a' if missing == 'b' }}", "uses the field 'missing'"),
        ("{{ missing | length }}", "uses the field 'missing'"),
        ("{{ missing[0] }}", "uses the field 'missing'"),
        ("{{ missing.text }}", "uses the field 'missing'"),
        ("{{ missing ~ 'a' }}", "uses the field 'missing'"),
        ("{{ missing() }}", "uses the field 'missing'"),
        ("{{ answers.end }}", "uses the key 'end' of a value that has text, start"),
        ("{{ answers['end'] }}", "uses the key 'end' of a value that has text, start"),
        ("{{ text.end }}", "uses 'end' of a str"),
        ("{{ nothing.text.more }}", "uses 'text' of a NoneType"),
    ],
)
def test_missing_fields(source, message):
    with pytest.raises(sandbox.MissingError, match=message):
        render(source)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("{{ ''.__class__.__mro__ }}", "reaches for '__mro__'"),
        ("\n{{ text.__init__.__globals__ }}", "reaches for '__globals__'"),
        ("{{ ''['__class__'] }}", "uses '__class__' of a str"),
        ("{{ zip.__self__ }}", "reaches for '__self__'"),
        ("{{ zip._private }}", "reaches for '_private' of a function"),
        ("{{ text.format(1) }}", "reaches for 'format' of a str"),
        ("{{ text.encode() }}", "reaches for 'encode' of a str"),
        ("{{ answers.clear() }}", "reaches for 'clear' of a dict"),
        ("{{ [''] | map(attribute='__class__') | first }}", "uses '__class__' of a str"),
        ("{{ range.__doc__ }}", "reaches for '__doc__'"),
        ("{{ dict['x'] }}", "uses 'x' of a type"),
        ("{{ self.__dict__ }}", "reaches for '__dict__'"),
        ("{{ self }}", "uses the name 'self', which is not let in"),
        ("{{ 'a' ~ self.name }}", "uses the name 'self'"),
        ("{{ range }}", "puts in a function, which is no text"),
        ("{{ answers.items }}", "puts in a builtin_function_or_method, which is no text"),
        ("{% for a in tokens %}{{ loop }}{% endfor %}", "puts in a LoopContext"),
        ("{{ text('x') }}", "calls a str"),
        ("{{ namespace(a=1)._Namespace__attrs }}", "reaches for '_Namespace__attrs'"),
        ("{% include 'x' %}", "has the statement 'Include'"),
        ("{% import 'x' as y %}", "has the statement 'Import'"),
        ("{% extends 'x' %}", "has the statement 'Extends'"),
        ("{% block x %}{% endblock %}", "has the statement 'Block'"),
        ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "has the statement 'Macro'"),
        ("{% call text() %}{% endcall %}", "has the statement 'CallBlock'"),
        ("{{ text | tojson }}", "has the filter 'tojson'"),
        ("{{ text | attr('__class__') }}", "has the filter 'attr'"),
        ("{{ text is callable }}", "has the test 'callable'"),
        ("{% for a in tokens recursive %}{% endfor %}", "has a recursive loop"),
        ("{{ " + "(" * 2000 + "1" + ")" * 2000 + " }}", "nested too deeply|too many"),
        ("{{ " + "1 + " * 9000 + "1 }}", "nested too deeply"),
        ("{% if 1 %}" * 2000 + "{% endif %}" * 2000, "nested too deeply"),
        ("{% for a in tokens %}" * 30 + "{% endfor %}" * 30, "nested too deeply"),
        ("x" * 60_000, "has 60,000 characters, more than 50,000"),
        ("{{ [] | choice }}", "draws from an empty list"),
    ],
)
def test_what_is_not_let_in(source, message):
    with pytest.raises((work.StoppedError, jinja2.UndefinedError), match=message):
        render(source)


LOOP = "{% for i in range(1000) %}"
GROW = "{% set n = namespace(v='aaaaaaaaaa') %}"


@pytest.mark.parametrize(
    "source",
    [
        "{% for i in range(10**9) %}{% endfor %}",
        "{% for i in range(10**30) %}{% endfor %}",
        LOOP * 3 + "{{ i }}" + "{% endfor %}" * 3,
        LOOP * 9 + "{% endfor %}" * 9,
        "{{ 'a' * 10**9 }}",
        "{{ 10**9 * 'a' }}",
        "{{ [1] * 10**9 }}",
        "{{ 10 ** (10 ** 10) }}",
        "{{ 9 ** 9 ** 9 ** 9 ** 9 }}",
        "{% set n = namespace(v=9) %}" + LOOP + "{% set n.v = n.v * n.v %}{% endfor %}",
        GROW + LOOP + "{% set n.v = n.v + n.v %}{% endfor %}",
        GROW + LOOP + "{% set n.v = n.v ~ n.v %}{% endfor %}",
        GROW + LOOP + "{% set n.v = [n.v, n.v] %}{% endfor %}{{ n.v }}",
        GROW + LOOP + "{% set n.v = n.v.replace('a', 'aaaa') %}{% endfor %}",
        GROW + LOOP + "{% set n.v = n.v | replace('a', 'aaaa') %}{% endfor %}",
        GROW + LOOP + "{% set n.v = n.v.join(n.v) %}{% endfor %}",
        GROW + LOOP + "{% set n.v = n.v | join(n.v) %}{% endfor %}",
        "{% set a = [1] %}{% for i in range(60) %}{{ a.extend(a) or '' }}{% endfor %}",
        "{% set a = [1] %}{% for i in a %}{{ a.append(1) or '' }}{% endfor %}{{ a * 10**8 }}",
        "{% set a = [] %}{{ a.append(a) or '' }}{{ a }}",
        "{{ '%999999999d' % 1 }}",
        "{{ '%*d' % (999999999, 1) }}",
        "{{ '%999999999d' | format(1) }}",
        "{{ ('%(a)s' * 5000) % {'a': 'b' * 50000} }}",
        "{{ ('%(a)999d' * 500000) % {'a': 1} }}",
        "{{ range(10**9) | list }}",
        "{{ range(10**9) | sum }}",
        "{{ range(10**9) | join('x') }}",
        "{{ 'x' in range(10**9) }}",
        "{{ range(10**9) | sort | length }}",
        "{{ zip(range(10**9), range(10**9)) }}",
        "{{ 1.5 | round(10**8) }}",
        "{{ ([[1] * 1000] * 1000) | sum(start=[]) }}",
        "{{ ('1' * 10**6) | int(base=2) }}",
        "{% set a = range(100000) | list %}" + LOOP + "{{ a[::2] | length }}{% endfor %}",
        "{% set a = range(100000) | list %}" + LOOP + "{{ -1 in a }}{% endfor %}",
        "{% set a = range(100000) | list %}" + LOOP + "{{ a.insert(0, 1) or '' }}{% endfor %}",
        "{% set a = range(100000) | list %}{{ a | select('in', a) | list | length }}",
        "{% set a = dict(zip(range(100000), range(100000))) %}"
        + LOOP
        + "{{ -1 in a.values() }}{% endfor %}",
        "{% for i in range(20000) %}{{ '" + "x" * 1000 + "' }}{% endfor %}",
    ],
)
def test_what_would_not_end(source):
    begin = time.monotonic()
    with pytest.raises((work.StoppedError, OverflowError, MemoryError)):
        render(source)
    assert time.monotonic() - begin < 10


def test_failed_line():
    template = sandbox.compile_tree(sandbox.parse("a\n{{ text }}\n{{ missing }}"))
    with pytest.raises(sandbox.MissingError) as caught:
        sandbox.render(template, ROW, work.Work("key"))
    assert sandbox.failed_line(caught.value) == 3
    with pytest.raises(jinja2.TemplateSyntaxError) as caught:
        sandbox.parse("a\n{% if %}")
    assert sandbox.failed_line(caught.value) == 2
    with pytest.raises(work.StoppedError) as caught:
        sandbox.parse("a\n\n{{ text.__class__ }}")
    assert sandbox.failed_line(caught.value) == 3
