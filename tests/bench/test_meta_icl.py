"""Zipf's law of demonstrations, what training examples show by it, and where their loss begins."""

import collections
import dataclasses
import re

import pytest

from optiml_jax.bench import catalog, meta_icl, pooling, prompts, record
from optiml_jax.errors import InputError

SPEC = catalog.TaskSpec(
    name="made__sums",
    original_name="sums",
    benchmark="made",
    category="Mathematics",
    instruction_kind="task",
    sources=("made",),
    metric="exact_match",
    input_languages=("English",),
    output_languages=("English",),
    licence="",
    num_examples=40,
    path="",
)
ROWS = tuple(record.Record(f"r{i}", f"{i} + {i}", (str(2 * i),)) for i in range(40))
SHOWN = (record.Demonstration("100 + 1", "101"),)
CONTENT = catalog.TaskContent("Add.", SHOWN, ROWS)


# The shares of the paper (section 4.7) and those that follow from the law, by hand.
@pytest.mark.parametrize(
    ("exponent", "expected"),
    [
        (2.0, (0.6705, 0.1676, 0.0745, 0.0419, 0.0268, 0.0186)),
        (4.0, (0.9250, 0.0578, 0.0114, 0.0036, 0.0015, 0.0007)),
        (0.0, (1 / 6,) * 6),
    ],
)
def test_shares(exponent, expected):
    found = meta_icl.shares(meta_icl.MetaIclConfig(exponent))
    assert found == pytest.approx(expected, abs=5e-5)
    assert sum(found) == pytest.approx(1.0, abs=1e-12)


@pytest.mark.parametrize("exponent", [2.0, 4.0])
def test_draws_follow_the_law(exponent):
    config = meta_icl.MetaIclConfig(exponent)
    number = 20_000
    drawn = collections.Counter(
        meta_icl.draw_shots(config, 0, "task", str(i), 0) for i in range(number)
    )
    for k, share in enumerate(meta_icl.shares(config)):
        # Four standard deviations of a count.
        assert drawn[k] == pytest.approx(number * share, abs=4 * (number * share) ** 0.5 + 1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"exponent": -1}, "expected a number of 0 or more"),
        ({"exponent": float("inf")}, "expected a number of 0 or more"),
        ({"exponent": "4"}, "expected a number of 0 or more"),
        ({"max_shots": 0}, "expected 1 or more"),
        ({"suffix_loss": 1}, "expected True or False"),
    ],
)
def test_bad_settings(options, message):
    with pytest.raises(InputError, match=message):
        meta_icl.MetaIclConfig(**options)


def training(kind, config, row, rendering=0):
    spec = dataclasses.replace(SPEC, instruction_kind=kind)
    version = pooling.Version(row, row)
    return prompts.render_training(spec, CONTENT, version, config, 7, rendering, ROWS)


@pytest.mark.parametrize("kind", ["task", "instance"])
def test_suffix_loss_moves_text_and_changes_none(kind):
    plain = prompts.PromptConfig(meta_icl=meta_icl.MetaIclConfig(1.0))
    suffix = dataclasses.replace(plain, meta_icl=meta_icl.MetaIclConfig(1.0, suffix_loss=True))
    shots = collections.Counter()
    for row in ROWS:
        whole, cut = training(kind, plain, row), training(kind, suffix, row)
        joint = f"{whole.source.rstrip(' ')} {whole.target}"
        assert f"{cut.source.rstrip(' ')} {cut.target}" == joint
        assert whole.prompt_id == cut.prompt_id
        assert "100 + 1" not in joint  # The benchmark's own examples are no training instances.
        shown = whole.source.count("+") - 1
        shots[shown] += 1
        if not shown:
            assert (whole.source, whole.target) == (cut.source, cut.target)
            continue
        assert whole.prompt_id.endswith(f".{shown}shot")
        # The loss begins at the first demonstration's answer: one instance stands before it.
        assert cut.source.count("+") == 1
        number = int(re.findall(r"(\d+) \+", cut.source)[0])
        assert cut.target.startswith(str(2 * number))
        assert cut.target.count(plain.separator) == shown
        assert str(int(row.input.split()[0])) != str(number)
    assert len(shots) > 3


def test_no_meta_icl_shows_nothing_and_evaluation_has_its_own_shots():
    config = prompts.PromptConfig(shots=1, meta_icl=meta_icl.MetaIclConfig(0.0))
    without = dataclasses.replace(config, meta_icl=None)
    assert all("shot" not in training("task", without, row).prompt_id for row in ROWS)
    found = prompts.render(SPEC, CONTENT, ROWS[0], config, 7, 0, ROWS)
    assert "100 + 1" in found.source
    assert found.prompt_id.endswith(".1shot")


def test_separators_are_drawn_per_example():
    several = ("\n\n", "\n###\n", " | ")
    config = prompts.PromptConfig(separators=several, meta_icl=meta_icl.MetaIclConfig(0.0))
    used = collections.Counter()
    for row in ROWS:
        example = training("task", config, row)
        present = [one for one in several if one in example.source]
        if "shot" in example.prompt_id:
            assert len(present) == 1
            used[present[0]] += 1
        else:
            assert not present
    assert set(used) == set(several)


def test_a_configuration_survives_json():
    config = prompts.PromptConfig(
        separators=("a", "b"), meta_icl=meta_icl.MetaIclConfig(2.0, 3, True)
    )
    assert prompts.PromptConfig.from_json(config.to_json()) == config
    assert (
        prompts.PromptConfig.from_json(prompts.PromptConfig().to_json()) == prompts.PromptConfig()
    )


def test_options_that_are_off_leave_keys_of_stores_as_they_were():
    # Of release 0.1's defaults.
    assert prompts.PromptConfig().digest() == OLD_DIGEST
    assert prompts.PromptConfig(separators=("x",)).digest() != OLD_DIGEST
    assert prompts.PromptConfig(meta_icl=meta_icl.MetaIclConfig()).digest() != OLD_DIGEST


OLD_DIGEST = "1cf9817df0f484474a2888b09d8c60c72772c1386ad52830105e9a012bc34bc9"


def test_user_text_is_left_alone():
    config = prompts.PromptConfig(meta_icl=meta_icl.MetaIclConfig(0.0))
    assert {training("verbatim", config, row).source for row in ROWS} <= {
        prompts.render(
            dataclasses.replace(SPEC, instruction_kind="verbatim"), CONTENT, row, config, 7, 0
        ).source
        for row in ROWS
    }
