import csv

import pytest

from optiml_jax.bench import taxonomy
from optiml_jax.errors import InputError


def test_there_are_76_categories_of_super_natural_instructions():
    assert len(taxonomy.SUPER_NATURAL_INSTRUCTIONS_CATEGORIES) == 76
    assert len({name.casefold() for name in taxonomy.CATEGORIES}) == len(taxonomy.CATEGORIES)


def test_case_and_blanks_do_not_matter():
    assert taxonomy.canonical_category(" fill in the blank ") == "Fill in The Blank"
    assert taxonomy.canonical_category("MMLU") == "MMLU"


def test_an_unknown_category_offers_the_nearest():
    with pytest.raises(InputError) as error:
        taxonomy.canonical_category("Textual Entailmant", "f.json: field 'Categories'")
    assert "f.json: field 'Categories': unknown category 'Textual Entailmant'." in str(error.value)
    assert "Did you mean 'Textual Entailment'?" in str(error.value)


def test_the_real_categories_are_spelled_like_this(real_folder):
    with open(real_folder / "index.tsv", encoding="utf-8") as file:
        names = {row["categories"] for row in csv.DictReader(file, delimiter="\t")}
    assert names == set(taxonomy.SUPER_NATURAL_INSTRUCTIONS_CATEGORIES)
