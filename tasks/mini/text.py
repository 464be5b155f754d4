"""The other ingredients: plain text for pre-training and replay, and dialogues.

Neither has instructions. The text tells facts of the small world and short stories that come back
to what they said: who reads them learns the words, their kinds and how to look something up, but
no task.
"""

from collections.abc import Iterator

from . import scenes
from .declaration import Draw, Instance, MiniTask
from .lexicon import (
    BAD,
    CLASS_OF,
    CLASSES,
    DIGITS,
    FRENCH,
    GOOD,
    MEN,
    NAMES,
    OPPOSITES,
    PAST,
    PLURALS,
    REASONS,
    SPANISH,
    WOMEN,
    number_word,
)
from .scenes import with_article


def make_replay() -> Iterator[MiniTask]:
    """Plain text, one document an instance."""
    for name, make in (("facts", _facts), ("stories", _story), ("lists", _lists)):
        yield MiniTask(name, "Pre-training Text", (), make, kind="text")


def make_dialogues() -> Iterator[MiniTask]:
    """Dialogues, one an instance, turns on lines."""
    yield MiniTask("small_talk", "Dialogue", (), _dialogue, kind="text")


def _facts(draw: Draw, number: int) -> Instance:
    return Instance("", (" ".join(_fact(draw) for _ in range(6)),))


def _fact(draw: Draw) -> str:
    word = draw.pick(tuple(CLASS_OF))
    kind = CLASS_OF[word]
    form = draw.below(12)
    if form < 3:
        return f"The word {word} names {with_article(kind)}."
    if form == 3:
        words = draw.sample(CLASSES[kind], 3)
        return f"Some {PLURALS[kind]} are {words[0]}, {words[1]} and {words[2]}."
    if form == 4:
        other = draw.pick([k for k in CLASSES if k != kind])
        return f"A word like {word} is not {with_article(other)} but {with_article(kind)}."
    if form == 5:
        first, second = draw.pick(OPPOSITES)
        return f"The opposite of {first} is {second}."
    if form == 6:
        language, table = draw.pick((("French", FRENCH), ("Spanish", SPANISH)))
        english = draw.pick(tuple(table))
        return f"In {language} {english} is {table[english]}."
    if form == 7:
        value = draw.below(100)
        return f"The number {value} is written {number_word(value)}."
    if form == 8:
        a, b = draw.below(10), draw.below(10)
        return f"{a} + {b} = {a + b}."
    if form == 9:
        name = draw.pick(NAMES)
        return f"{name} is a {'woman' if name in WOMEN else 'man'}."
    if form == 10:
        now, then = draw.pick(PAST)
        return f"Today they {now}, yesterday they {then}."
    feeling, word = draw.pick((("good", draw.pick(GOOD)), ("bad", draw.pick(BAD))))
    return f"What is {word} is {feeling}."


def _story(draw: Draw, number: int) -> Instance:
    """Some sentences, and what can be said about them."""
    told = scenes.make_scenes(draw, 2 + number % 2)
    lines = [scene.text for scene in told]
    for _ in range(3):
        lines.append(_remark(draw, told))
    if draw.chance(0.3):
        lines += _reason(draw)
    if draw.chance(0.3):
        lines += _meeting(draw)
    return Instance("", (" ".join(lines),))


def _claim(draw: Draw, scene: scenes.Scene) -> str:
    """The scene's sentence as it was or with one word changed, and whether that is right."""
    if draw.chance(0.5):
        return f"{scene.text} That is right."
    return f"{scenes.change(draw, scene)} That is wrong."


def _reason(draw: Draw) -> list[str]:
    state, action = draw.pick(REASONS)
    name = draw.pick(NAMES)
    pronoun = "she" if name in WOMEN else "he"
    cause = scenes.fill(draw, f"{name} {state}").text
    effect = scenes.fill(draw, f"{pronoun} {action}").text
    return [
        draw.pick((f"{cause}, so {effect}.", f"{effect.capitalize()} because {cause}.")),
        draw.pick((f"The cause: {cause}.", f"The effect: {effect}.")),
    ]


def _meeting(draw: Draw) -> list[str]:
    """Who did what is told by a pronoun first, then by name."""
    woman, man = draw.pick(WOMEN), draw.pick(MEN)
    first, second = draw.shuffled([woman, man])
    pronoun, name = draw.pick((("she", woman), ("he", man)))
    did = scenes.make_action(draw)
    return [f"{first} saw {second}. Later {pronoun} {did}.", f"The person was {name}."]


def _remark(draw: Draw, told: list[scenes.Scene]) -> str:
    """A sentence that says again, in part or whole, what was told."""
    scene, other = draw.sample(told, 2)
    kind = draw.pick([k for k in scene.words if k != "name"])
    word = scene.words[kind]
    pronoun = "she" if scene.name in WOMEN else "he"
    return draw.pick(
        (
            f"Once more: {scene.text}",
            f"The {kind} in the sentence about {scene.name} was {word}.",
            f"The sentence with the word {word} was about {scene.name}, not about {other.name}.",
            f"So {scene.name} knows the {kind} {word}, and {pronoun} tells it: {scene.text}",
            f"{draw.pick(NAMES)} says: {_claim(draw, scene)}",
        )
    )


def _lists(draw: Draw, number: int) -> Instance:
    """A list of words, and what can be said about it."""
    kind = draw.pick(tuple(CLASSES))
    num = 1 + draw.below(3)
    rest = [word for word in CLASS_OF if CLASS_OF[word] != kind]
    words = draw.shuffled([*draw.sample(CLASSES[kind], num), *draw.sample(rest, 2)])
    members = [word for word in words if word in CLASSES[kind]]
    remarks = (
        f"It begins with {words[0]} and ends with {words[-1]}.",
        f"Its second word is {words[1]} and its third word is {words[2]}.",
        f"In reverse order it is {' '.join(reversed(words))}.",
        f"Without its first word it is {' '.join(words[1:])}.",
        f"Without its last word it is {' '.join(words[:-1])}.",
        f"Once more, the list is {' '.join(words)}.",
        f"Of the {PLURALS[kind]} it has {DIGITS[num]}: {' '.join(members)}.",
    )
    lines = [f"The list is {' '.join(words)}.", *draw.sample(remarks, 4)]
    return Instance("", (" ".join(lines),))


def _dialogue(draw: Draw, number: int) -> Instance:
    first, second = draw.sample(NAMES, 2)
    kind = draw.pick(tuple(CLASSES))
    word, other = draw.sample(CLASSES[kind], 2)
    turns = [
        f"{first}: {draw.pick(('Hello', 'Hi', 'Good morning'))} {second}.",
        f"{second}: Hello {first}. {draw.pick(('How are you?', 'What is new?'))}",
        f"{first}: I was thinking of {with_article(kind)}: {word}.",
        f"{second}: {word}? I prefer {other}.",
        f"{first}: Then let it be {draw.pick((word, other))}.",
    ]
    return Instance("", ("\n".join(turns[: 3 + number % 3]),))
