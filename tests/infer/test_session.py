"""Stop strings and pieces of text: the same text however it is cut into steps."""

import dataclasses

import pytest

from optiml_jax.errors import InputError
from optiml_jax.infer import decoding
from optiml_jax.infer.session import Session
from optiml_jax.infer.settings import DecodingConfig

SOURCES = ("The cat", "Is the sky blue?", "", "Answer the question: what")
DRAWN = DecodingConfig(max_new_tokens=40, temperature=1.0, seed=2)


@pytest.fixture(scope="module")
def generations(tiny_engine):
    return tiny_engine.generate(SOURCES, settings=DRAWN)


@pytest.mark.parametrize("stopped", [False, True])
def test_pieces_make_the_generated_text(tiny_engine, generations, stopped):
    settings = DRAWN
    if stopped:
        middle = generations[0].text[4:7]
        settings = dataclasses.replace(DRAWN, stop=(middle,))
    wanted = tiny_engine.generate(SOURCES, settings=settings)
    session = Session(tiny_engine, settings)
    for source, generation in zip(SOURCES, wanted):
        pieces = list(session.stream(source))
        assert "".join(pieces) == generation.text
        assert len(pieces) > 1 or len(generation.text) < 8


def test_a_stop_string_ends_the_text_before_it(tiny_engine, generations):
    whole = generations[1].text
    # Random bytes: U+FFFD would stand for several.
    place = next(i for i in range(3, len(whole) - 2) if "\ufffd" not in whole[i : i + 2])
    stop = whole[place : place + 2]
    settings = dataclasses.replace(DRAWN, stop=(stop,))
    found = tiny_engine.generate(SOURCES, settings=settings)[1]
    assert found.text == whole[: whole.index(stop)].strip()
    assert found.stopped
    assert found.num_tokens < generations[1].num_tokens
    # As many tokens as it takes to spell the stop string, not those of the rest of the chunk.
    ids = tiny_engine.prompts_of(SOURCES)[1]
    row = decoding.decode(
        *(tiny_engine.config, tiny_engine.params, [ids], DRAWN, 2), numbers=[1]
    ).tokens[0]
    decode = tiny_engine.vocabulary.decode
    assert stop in decode(row[: found.num_tokens])
    assert stop not in decode(row[: found.num_tokens - 1])


@pytest.mark.parametrize("steps", [1, 3, 64])
def test_the_host_may_look_whenever_it_likes(tiny_engine, generations, steps, monkeypatch):
    settings = dataclasses.replace(DRAWN, stop=(generations[0].text[5:7],))
    wanted = tiny_engine.generate(SOURCES, settings=settings)
    monkeypatch.setattr(decoding, "CHUNK_STEPS", steps)
    assert tiny_engine.generate(SOURCES, settings=settings) == wanted


def test_rows_that_stopped_leave_the_loop(tiny_engine, monkeypatch):
    """When all rows have met their stop string, no further chunk is run."""
    asked = []
    advance = decoding._Run.advance

    def counted(self, until, ended=None):
        asked.append(until)
        return advance(self, until, ended)

    monkeypatch.setattr(decoding._Run, "advance", counted)
    tokens = decoding.decode(
        *(tiny_engine.config, tiny_engine.params, [[5, 6]], DecodingConfig(max_new_tokens=64), -1),
        ends=lambda ids: 2 if len(ids) >= 2 else None,
    )
    assert [len(row) for row in tokens.tokens] == [2]
    assert tokens.stopped == [True]
    # One look too many: the devices tell that all are done.
    assert asked == [16, 32]


def test_characters_are_whole(tiny_engine, monkeypatch):
    """A character of three bytes, one token each, comes in one piece."""
    vocabulary = tiny_engine.vocabulary
    ids = [*vocabulary.encode("a"), *vocabulary.encode("東"), *vocabulary.encode("b c ")]
    assert len(vocabulary.encode("東")) == 3
    monkeypatch.setattr(decoding, "stream", lambda *args, **options: iter(ids))
    session = Session(tiny_engine, DecodingConfig(max_new_tokens=8))
    assert list(session.stream("x")) == ["a", "東", "b", " c"]
    session = Session(tiny_engine, DecodingConfig(max_new_tokens=8, stop=("b d",)))
    # "b c" begins like the stop string, so it is held back until it differs.
    assert list(session.stream("x")) == ["a", "東", "b c"]


def test_lengths_to_compile(tiny_engine):
    session = Session(tiny_engine, DecodingConfig(max_new_tokens=4))
    assert session.length_to_compile("The cat") == 64
    session.warm_up()
    assert session.length_to_compile("The cat") is None
    assert session.length_to_compile("cat " * 90) == 92


def test_beams_are_not_streamed(tiny_engine):
    with pytest.raises(InputError, match="beam search cannot be streamed"):
        Session(tiny_engine, DecodingConfig(num_beams=2))
