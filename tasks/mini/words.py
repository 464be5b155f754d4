"""Tasks about single words, numbers and lists."""

from collections.abc import Callable, Iterator, Mapping, Sequence

from . import scenes
from .declaration import YES_NO, Draw, Instance, MiniTask, answer
from .lexicon import (
    CLASS_OF,
    CLASSES,
    FRENCH,
    NAMES,
    OPPOSITES,
    PAST,
    PLURALS,
    SCENE_VERBS,
    SPANISH,
    number_word,
)

ALL_WORDS = tuple(CLASS_OF)
_PAIRS = OPPOSITES + tuple((second, first) for first, second in OPPOSITES)
_CONTEXTS = ("{word}", "the {word}", "this {word}", "my {word}", "one {word}", "that {word}")


def make_tasks() -> Iterator[MiniTask]:
    """All tasks about words."""
    yield from _kinds()
    yield from _completions()
    yield from _analogies()
    yield from _lists()
    yield from _numbers()
    yield from _languages()
    yield from _grammar()


def _kinds() -> Iterator[MiniTask]:
    def kind_of(draw: Draw, number: int) -> Instance:
        word = draw.pick(ALL_WORDS)
        return answer(draw.pick(_CONTEXTS).format(word=word), CLASS_OF[word])

    yield MiniTask(
        "kind_of_word",
        "Word Semantics",
        (
            f"What kind of thing is it? One of: {', '.join(CLASSES)}.",
            "Name the kind of thing that the word stands for.",
        ),
        kind_of,
        metric="exact_match",
    )

    def same_kind(draw: Draw, number: int) -> Instance:
        first = draw.pick(ALL_WORDS)
        kind = CLASS_OF[first]
        others = [w for w in ALL_WORDS if w != first and (CLASS_OF[w] == kind) == (number % 2 == 1)]
        return answer(f"{first} and {draw.pick(others)}", ("no", "yes")[number % 2])

    yield MiniTask(
        "same_kind",
        "Word Relation Classification",
        ("Are both words of the same kind? Answer yes or no.",),
        same_kind,
        metric="accuracy",
        labels=YES_NO,
    )

    def is_a(draw: Draw, number: int) -> Instance:
        word = draw.pick(ALL_WORDS)
        kinds = [k for k in CLASSES if (k == CLASS_OF[word]) == (number % 2 == 1)]
        kind = draw.pick(kinds)
        return answer(f"{word}, {kind}", ("no", "yes")[number % 2])

    yield MiniTask(
        "word_and_kind",
        "Word Relation Classification",
        ("Is the first word a kind of the second? Answer yes or no.",),
        is_a,
        metric="accuracy",
        labels=YES_NO,
    )

    def opposite(draw: Draw, number: int) -> Instance:
        word, other = draw.pick(_PAIRS)
        return answer(f"{word} {draw.pick(ALL_WORDS)}", other)

    yield MiniTask(
        "opposite",
        "Word Semantics",
        ("Write the opposite of the first word.", "What is the contrary of the first word?"),
        opposite,
        metric="exact_match",
    )


def _completions() -> Iterator[MiniTask]:
    """Sentences whose last word is known from a pair of words."""

    def kind(draw: Draw) -> tuple[str, str]:
        word = draw.pick(ALL_WORDS)
        form = draw.pick(("{} is a kind of what?", "the word {} names what?"))
        return form.format(word), CLASS_OF[word]

    def opposite(draw: Draw) -> tuple[str, str]:
        word, other = draw.pick(_PAIRS)
        form = draw.pick(("the opposite of {} is what?", "if it is not {} it is what?"))
        return form.format(word), other

    def past(draw: Draw) -> tuple[str, str]:
        now, then = draw.pick(PAST)
        form = draw.pick(("today they {}, yesterday they did what?", "the past of {} is what?"))
        return form.format(now), then

    def plural(draw: Draw) -> tuple[str, str]:
        one, many = draw.pick(tuple(PLURALS.items()))
        form = draw.pick(("one {} but two of what?", "more than one {} is called what?"))
        return form.format(one), many

    for name, pair in (("kind", kind), ("opposite", opposite), ("past", past), ("plural", plural)):

        def make(
            draw: Draw, number: int, pair: Callable[[Draw], tuple[str, str]] = pair
        ) -> Instance:
            question, right = pair(draw)
            name = draw.pick(NAMES)
            lead = draw.pick(("{} asks: ", "{} wants to know: ", "A question from {}: ")).format(
                name
            )
            return answer(lead + question, right)

        yield MiniTask(
            f"complete_{name}",
            "Text Completion",
            ("Complete the sentence with one word.", "Find the word that completes the sentence."),
            make,
            metric="exact_match",
        )


def _analogies() -> Iterator[MiniTask]:
    """First is to second as third is to what."""

    def pairs(draw: Draw, relation: str) -> list[tuple[str, str]]:
        if relation == "kind":
            return [(draw.pick(CLASSES[kind]), kind) for kind in draw.sample(tuple(CLASSES), 2)]
        if relation == "opposite":
            return draw.sample(_PAIRS, 2)
        if relation == "past":
            return draw.sample(PAST, 2)
        return [(kind, PLURALS[kind]) for kind in draw.sample(tuple(CLASSES), 2)]

    for relation in ("kind", "opposite", "past", "plural"):

        def make(draw: Draw, number: int, relation: str = relation) -> Instance:
            (first, second), (third, fourth) = pairs(draw, relation)
            return answer(f"{first} is to {second} as {third} is to what?", fourth)

        yield MiniTask(
            f"analogy_{relation}",
            "Word Analogy",
            ("Complete the analogy with one word.", "Find the word that completes the comparison."),
            make,
            metric="exact_match",
        )


_Operation = Callable[[Sequence[str]], Sequence[str]]
_OPERATIONS: Mapping[str, tuple[str, str, _Operation]] = {
    "first": ("Write the first word of the list.", "Which word stands first?", lambda w: w[:1]),
    "last": ("Write the last word of the list.", "Which word stands last?", lambda w: w[-1:]),
    "second": ("Write the second word of the list.", "Which word stands second?", lambda w: w[1:2]),
    "third": ("Write the third word of the list.", "Which word stands third?", lambda w: w[2:3]),
    "reverse": ("Write the list in reverse order.", "Turn the list around.", lambda w: w[::-1]),
    "drop_first": (
        "Write the list without its first word.",
        "Leave out the first word.",
        lambda w: w[1:],
    ),
    "drop_last": (
        "Write the list without its last word.",
        "Leave out the last word.",
        lambda w: w[:-1],
    ),
    "first_and_last": (
        "Write the first and the last word of the list.",
        "Which words stand first and last?",
        lambda w: (w[0], w[-1]),
    ),
    "swap_ends": (
        "Exchange the first and the last word of the list.",
        "Write the list with its ends swapped.",
        lambda w: (w[-1], *w[1:-1], w[0]),
    ),
}


def _lists() -> Iterator[MiniTask]:
    for name, (wording, other, operation) in _OPERATIONS.items():

        def make(draw: Draw, number: int, operation: _Operation = operation) -> Instance:
            words = draw.sample(ALL_WORDS, 3 + number % 3)
            return answer(" ".join(words), " ".join(operation(words)))

        yield MiniTask(
            f"list_{name}", "Program Execution", (wording, other), make, metric="exact_match"
        )

    def twice(draw: Draw, number: int) -> Instance:
        words = draw.sample(ALL_WORDS, 4)
        words[1 + draw.below(3)] = words[0]
        return answer(" ".join(draw.shuffled(words)), words[0])

    yield MiniTask(
        "list_repeated",
        "Program Execution",
        ("Which word is in the list twice?", "Write the word that is repeated."),
        twice,
        metric="exact_match",
    )


def _numbers() -> Iterator[MiniTask]:
    def apples(draw: Draw, number: int, plus: bool) -> Instance:
        a, b = 2 + draw.below(8), 1 + draw.below(8)
        if not plus:
            a, b = a + b, b
        name = draw.pick(NAMES)
        thing = draw.pick(("apples", "pears", "hats", "coins", "books", "cups"))
        verb, sign, result = ("gets", "+", a + b) if plus else ("loses", "-", a - b)
        return answer(
            f"{name} has {a} {thing} and {verb} {b}. How many {thing} are there now?",
            f"{a} {sign} {b} = {result}. The answer is {result}.",
        )

    for name, plus in (("gain", True), ("loss", False)):
        yield MiniTask(
            f"story_{name}",
            "Reasoning",
            (
                "Solve the problem. Write the calculation first, then the answer.",
                "Think in steps: first calculate, then say the answer.",
            ),
            lambda draw, number, plus=plus: apples(draw, number, plus),
            metric="exact_match",
        )

    def taller(draw: Draw, number: int, word: str) -> Instance:
        top, middle, low = draw.sample(NAMES, 3)
        facts = [f"{top} is {word}er than {middle}.", f"{middle} is {word}er than {low}."]
        return answer(
            " ".join(draw.shuffled(facts)) + f" Who is the {word}est?",
            f"{top} is {word}er than {middle} and {middle} is {word}er than {low}."
            f" The answer is {top}.",
        )

    for word in ("tall", "old", "fast"):
        yield MiniTask(
            f"order_{word}",
            "Reasoning",
            (
                "Answer the question. Explain first, then say the answer.",
                "Give the reason before the answer.",
            ),
            lambda draw, number, word=word: taller(draw, number, word),
            metric="exact_match",
        )

    def compare(draw: Draw, number: int, largest: bool) -> Instance:
        numbers = draw.sample(range(10, 100), 3)
        right = max(numbers) if largest else min(numbers)
        return answer(" ".join(map(str, numbers)), str(right))

    for name, largest in (("largest", True), ("smallest", False)):
        yield MiniTask(
            f"number_{name}",
            "Mathematics",
            (f"Which number is the {name}?", f"Write the {name} of the numbers."),
            lambda draw, number, largest=largest: compare(draw, number, largest),
            metric="exact_match",
        )

    def convert(draw: Draw, number: int, to_words: bool) -> Instance:
        value = draw.below(100)
        thing = draw.pick(("apples", "pears", "hats", "coins", "books", "cups"))
        pair = (f"{value} {thing}", f"{number_word(value)} {thing}")
        return answer(*(pair if to_words else pair[::-1]))

    for name, to_words in (("words", True), ("digits", False)):
        yield MiniTask(
            f"number_in_{name}",
            "Number Conversion",
            (f"Write the number in {name}.", f"Change the number to {name}."),
            lambda draw, number, to_words=to_words: convert(draw, number, to_words),
            metric="exact_match",
        )


def _languages() -> Iterator[MiniTask]:
    tables = {"French": FRENCH, "Spanish": SPANISH}
    shared = sorted(set(FRENCH) & set(SPANISH))

    def translate(draw: Draw, number: int, table: Mapping[str, str], back: bool) -> Instance:
        words = draw.sample(shared, 2 + number % 2)
        pair = " ".join(words), " ".join(table[word] for word in words)
        return answer(*(pair[::-1] if back else pair))

    for language, table in tables.items():
        for back in (False, True):
            source, target = (language, "English") if back else ("English", language)
            yield MiniTask(
                f"translate_{source}_to_{target}".lower(),
                "Translation",
                (
                    f"Translate the {source} words to {target}.",
                    f"Write these {source} words in {target}.",
                ),
                lambda draw, number, table=table, back=back: translate(draw, number, table, back),
                input_language=source,
                output_language=target,
            )

    def identify(draw: Draw, number: int) -> Instance:
        language = ("English", "French", "Spanish")[number % 3]
        words = draw.sample(shared, 3)
        table = tables.get(language, {})
        return answer(" ".join(table.get(word, word) for word in words), language)

    yield MiniTask(
        "language",
        "Language Identification",
        ("Which language is it: English, French or Spanish?", "Name the language of the words."),
        identify,
        metric="accuracy",
        labels=("English", "French", "Spanish"),
    )


def _grammar() -> Iterator[MiniTask]:
    def article_error(draw: Draw, number: int) -> Instance:
        while True:
            text = scenes.make_scene(draw, ["color"]).text
            wrong = text.replace(" an ", " A ").replace(" a ", " an ").replace(" A ", " a ")
            if wrong != text:
                return answer(wrong if number % 2 else text, _yes(number))

    yield MiniTask(
        "article_error",
        "Grammar Error Detection",
        ("Is there an error with a or an? Answer yes or no.",),
        article_error,
        metric="accuracy",
        labels=YES_NO,
    )

    def full_stop(draw: Draw, number: int) -> Instance:
        text = scenes.make_scene(draw).text
        return answer(text if number % 2 else text[:-1] + draw.pick((",", "", ";")), _yes(number))

    yield MiniTask(
        "full_stop",
        "Punctuation Error Detection",
        ("Does the sentence end with a full stop? Answer yes or no.",),
        full_stop,
        metric="accuracy",
        labels=YES_NO,
    )

    def tag(draw: Draw, number: int) -> Instance:
        label = ("noun", "verb", "adjective")[number % 3]
        while True:
            scene = scenes.make_scene(draw)
            nouns = [word for kind, word in scene.words.items() if kind not in ("name", "color")]
            colors = [word for kind, word in scene.words.items() if kind == "color"]
            found = {"noun": nouns, "verb": _verbs(scene.text), "adjective": colors}[label]
            if found:
                return answer(f"{scene.text} Word: {draw.pick(found)}", label)

    yield MiniTask(
        "part_of_speech",
        "Pos Tagging",
        (
            "Is the word a noun, a verb or an adjective?",
            "Tell whether the word is a noun, a verb or an adjective in the sentence.",
        ),
        tag,
        metric="exact_match",
    )

    def find_verb(draw: Draw, number: int) -> Instance:
        while True:
            text = scenes.make_scene(draw).text
            if found := _verbs(text):
                return answer(text, found[0])

    yield MiniTask(
        "find_verb",
        "Pos Tagging",
        ("Write the verb of the sentence.", "Which word of the sentence is the verb?"),
        find_verb,
        metric="exact_match",
    )


def _verbs(text: str) -> list[str]:
    return [word for word in text.rstrip(".").split() if word in SCENE_VERBS]


def _yes(number: int) -> str:
    return "yes" if number % 2 else "no"
