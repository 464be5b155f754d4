"""Sentences about the small world: who, what, which color, where."""

import dataclasses
import re
from collections.abc import Collection, Mapping

from .declaration import Draw
from .lexicon import CLASSES, NAMES, article

# Sentence patterns; {name} is a person, other fields are classes. An article "a" before a field
# follows the word.
PATTERNS = (
    "{name} saw a {color} {animal} at the {place}.",
    "{name} wore a {color} {garment} in {country}.",
    "{name} ate a {fruit} and drank {drink} at the {place}.",
    "{name} the {job} played the {instrument} in {country}.",
    "{name} drove a {color} {vehicle} to the {place}.",
    "{name} left a {tool} under the {tree} near the {place}.",
    "{name} played {sport} with a {job} in {country}.",
    "{name} bought a {metal} {tool} and a {fruit}.",
    "{name} the {job} found a {animal} under the {tree}.",
    "{name} took the {vehicle} to play {sport}.",
    "{name} gave a {garment} and a {metal} {instrument} to a {job}.",
    "{name} drank {drink} under a {color} {tree}.",
    "{name} carried a {metal} {instrument} to the {place}.",
    "{name} lost a {garment} on the {vehicle}.",
    "{name} talked about {sport} and ordered {drink}.",
    "{name} painted the {metal} {vehicle} {color}.",
    "{name} fed a {fruit} to the {animal}.",
)

_FIELD = re.compile(r"\{(\w+)\}")


@dataclasses.dataclass(frozen=True)
class Scene:
    """A sentence and what it mentions.

    Attributes:
        words: class -> the word of that class, "name" -> the person.
    """

    text: str
    words: Mapping[str, str]

    @property
    def name(self) -> str:
        """The person of the sentence."""
        return self.words["name"]


def make_scene(
    draw: Draw,
    needed: Collection[str] = (),
    without: Collection[str] = (),
    used: Collection[str] = (),
    given: Mapping[str, str] | None = None,
) -> Scene:
    """A sentence that mentions the `needed` classes and none of `without`.

    Args:
        used: words and names that must not come again.
        given: class -> the word to take.
    """
    fitting = [
        pattern
        for pattern in PATTERNS
        if set(needed) <= set(_FIELD.findall(pattern))
        and not set(without) & set(_FIELD.findall(pattern))
    ]
    return fill(draw, draw.pick(fitting), used, **(given or {}))


def fill(draw: Draw, pattern: str, used: Collection[str] = (), **given: str) -> Scene:
    """A pattern with words drawn for its fields, save for the `given` ones."""
    words = {}
    for field in _FIELD.findall(pattern):
        choices = NAMES if field == "name" else CLASSES.get(field, ())
        words[field] = given.get(field) or draw.pick([w for w in choices if w not in used])
    text = _FIELD.sub(lambda match: words[match.group(1)], pattern)
    return Scene(re.sub(r"\b([Aa]) ([aeiou])", r"\1n \2", text), words)


def make_scenes(draw: Draw, num: int, needed: Collection[str] = ()) -> list[Scene]:
    """Sentences about different people, each of which mentions the `needed` classes."""
    scenes: list[Scene] = []
    for _ in range(num):
        used = {word for scene in scenes for word in scene.words.values()}
        scenes.append(make_scene(draw, needed, used=used))
    return scenes


def make_action(draw: Draw) -> str:
    """What somebody did, without the person and the full stop."""
    pattern = draw.pick([p for p in PATTERNS if p.startswith("{name} ") and " the {job}" not in p])
    return fill(draw, pattern.removeprefix("{name} ").removesuffix(".")).text


def change(draw: Draw, scene: Scene, kinds: Collection[str] = ()) -> str:
    """The scene's sentence with one word exchanged for another of its kind.

    Args:
        kinds: among which the exchanged word is drawn; all of the sentence when empty.
    """
    kind = draw.pick(sorted(kinds or scene.words))
    old = scene.words[kind]
    choices = NAMES if kind == "name" else CLASSES[kind]
    new = draw.pick([word for word in choices if word != old])
    text = re.sub(rf"\b{old}\b", new, scene.text, count=1)
    return re.sub(r"\b([Aa])n? (\w)", _with_right_article, text)


def _with_right_article(match: re.Match[str]) -> str:
    return f"{match.group(1)}{'n' if match.group(2) in 'aeiou' else ''} {match.group(2)}"


def with_article(word: str) -> str:
    """The word behind "a" or "an"."""
    return f"{article(word)} {word}"
