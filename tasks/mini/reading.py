"""Tasks about short texts: who did what, is it true, who is meant, what was the reason.

The four categories that the split `mini` holds out entirely are here: Textual Entailment, Cause
Effect Classification, Coreference Resolution and Overlap Extraction.
"""

from collections.abc import Callable, Iterator

from . import scenes
from .declaration import YES_NO, Draw, Instance, MiniTask, answer
from .lexicon import BAD, CLASSES, GOOD, MEN, NAMES, PLAIN, REASONS, WOMEN


def make_tasks() -> Iterator[MiniTask]:
    """All tasks about texts."""
    yield from _facts()
    yield from _people()
    yield from _overlaps()
    yield from _reasons()
    yield from _feelings()
    yield from _writing()
    yield from _talk()


def _changed(draw: Draw, scene: scenes.Scene) -> str:
    return scenes.change(draw, scene, [kind for kind in scene.words if kind != "name"])


def _about(draw: Draw, scene: scenes.Scene) -> str:
    return scenes.change(draw, scene, ["name"])


def _true_or_not(
    name: str,
    category: str,
    wordings: tuple[str, ...],
    form: str,
    num: int,
    change: Callable[[Draw, scenes.Scene], str],
    kind: str = "task",
) -> MiniTask:
    """Whether a second sentence says what the first text says."""

    def make(draw: Draw, number: int) -> Instance:
        told = scenes.make_scenes(draw, num)
        scene = draw.pick(told)
        claim = scene.text if number % 2 else change(draw, scene)
        text = form.format(text=" ".join(one.text for one in told), claim=claim)
        return answer(text, YES_NO[1 - number % 2])

    return MiniTask(name, category, wordings, make, kind, metric="accuracy", labels=YES_NO)


def _facts() -> Iterator[MiniTask]:
    is_true = (
        "Is the statement true? Answer yes or no.",
        "Say yes if the text supports the statement, else no.",
    )
    form = "Text: {text}\nStatement: {claim}"
    for name, num, change in (
        ("person", 1, _about),
        ("detail", 1, _changed),
        ("person_of_two", 2, _about),
        ("detail_of_two", 2, _changed),
    ):
        yield _true_or_not(f"fact_{name}", "Fact Verification", is_true, form, num, change)
    same = (
        "Do both sentences say the same? Answer yes or no.",
        "Say yes if the two sentences are equal, else no.",
    )
    for name, change in (("person", _about), ("detail", _changed)):
        yield _true_or_not(
            f"same_{name}", "Text Matching", same, "First: {text}\nSecond: {claim}", 1, change
        )
    entails = (
        "Does the hypothesis follow from the premise? Answer yes or no.",
        "Say yes if the premise entails the hypothesis, else no.",
    )
    form = "Premise: {text}\nHypothesis: {claim}"
    for name, num, change in (
        ("person", 1, _about),
        ("detail", 1, _changed),
        ("person_of_two", 2, _about),
        ("detail_of_two", 2, _changed),
    ):
        yield _true_or_not(f"entails_{name}", "Textual Entailment", entails, form, num, change)
    yield from _checked_answers()


def _checked_answers() -> Iterator[MiniTask]:
    for kind in ("animal", "color", "place", "garment", "drink"):

        def make(draw: Draw, number: int, kind: str = kind) -> Instance:
            pair = scenes.make_scenes(draw, 2, [kind])
            asked, other = draw.shuffled(pair)
            given = asked if number % 2 else other
            return answer(
                f"{' '.join(one.text for one in pair)}\nQuestion: Which {kind} is in the sentence"
                f" about {asked.name}?\nAnswer given: {given.words[kind]}",
                YES_NO[1 - number % 2],
            )

        yield MiniTask(
            f"verify_{kind}",
            "Answer Verification",
            (
                "Is the given answer right? Answer yes or no.",
                "Say yes if the answer to the question is correct, else no.",
            ),
            make,
            metric="accuracy",
            labels=YES_NO,
        )


def _people() -> Iterator[MiniTask]:
    def who(draw: Draw, number: int, num: int, kind: str) -> Instance:
        told = scenes.make_scenes(draw, num, [kind])
        asked = draw.pick(told)
        text = " ".join(one.text for one in told)
        return answer(f"{text}\nWhose sentence has the word {asked.words[kind]}?", asked.name)

    for kind in ("animal", "tool", "sport", "drink", "garment"):
        yield MiniTask(
            f"who_{kind}",
            "Speaker Identification",
            ("Answer with a name.", "Read the text. Who is it? Write the name."),
            lambda draw, number, kind=kind: who(draw, number, 2, kind),
            metric="exact_match",
        )

    def named(draw: Draw, number: int, which: int) -> Instance:
        told = scenes.make_scenes(draw, 2)
        return answer(" ".join(one.text for one in told), told[which].name)

    def alone(draw: Draw, number: int) -> Instance:
        scene = scenes.make_scene(draw)
        return answer(scene.text, scene.name)

    for name, wordings, make in (
        (
            "only",
            ("Which person is it? Answer with a name.", "Write the name of the person."),
            alone,
        ),
        (
            "first",
            ("Which person comes first? Answer with a name.", "Who is named first?"),
            lambda draw, number: named(draw, number, 0),
        ),
        (
            "second",
            ("Which person comes second? Answer with a name.", "Who is named second?"),
            lambda draw, number: named(draw, number, 1),
        ),
    ):
        yield MiniTask(
            f"person_{name}", "Named Entity Recognition", wordings, make, metric="exact_match"
        )

    def gender(draw: Draw, number: int, in_scene: bool) -> Instance:
        names, label = ((WOMEN, "female"), (MEN, "male"))[number % 2]
        name = draw.pick(names)
        scene = scenes.make_scene(draw, used=[n for n in NAMES if n != name])
        return answer(scene.text if in_scene else f"{name}, {_age(draw)}", label)

    for name, in_scene in (("sentence", True), ("entry", False)):
        yield MiniTask(
            f"gender_{name}",
            "Gender Classification",
            ("Is the person male or female?", "Tell the gender of the person: male or female."),
            lambda draw, number, in_scene=in_scene: gender(draw, number, in_scene),
            metric="accuracy",
            labels=("female", "male"),
        )
    yield from _pronouns()


def _age(draw: Draw) -> str:
    return f"{20 + draw.below(60)} years old, {draw.pick(CLASSES['job'])}"


def _pronouns() -> Iterator[MiniTask]:
    """A woman, a man and a pronoun: the category is never trained on."""

    def make(draw: Draw, number: int, pattern: str) -> Instance:
        woman, man = draw.pick(WOMEN), draw.pick(MEN)
        pronoun, right = (("she", woman), ("he", man))[number % 2]
        first, second = draw.shuffled([woman, man])
        did = scenes.make_action(draw)
        return answer(pattern.format(first=first, second=second, pronoun=pronoun, did=did), right)

    for name, pattern in (
        ("met", "{first} met {second}. Then {pronoun} {did}."),
        ("while", "{first} waited for {second} while {pronoun} {did}."),
        ("after", "{first} wrote to {second} after {pronoun} {did}."),
        ("because", "{first} was proud of {second} because {pronoun} {did}."),
    ):
        yield MiniTask(
            f"pronoun_{name}",
            "Coreference Resolution",
            (
                "Who is meant by he or she? Write the name.",
                "Which person does the pronoun stand for? Answer with a name.",
            ),
            lambda draw, number, pattern=pattern: make(draw, number, pattern),
            metric="exact_match",
        )


def _overlaps() -> Iterator[MiniTask]:
    """A word that two sentences share: the category is never trained on."""
    for kind in ("animal", "color", "sport", "drink"):

        def make(draw: Draw, number: int, kind: str = kind) -> Instance:
            first = scenes.make_scene(draw, [kind])
            shared = first.words[kind]
            others = [word for word in first.words.values() if word != shared]
            second = scenes.make_scene(draw, [kind], used=others, given={kind: shared})
            return answer(f"First: {first.text}\nSecond: {second.text}", shared)

        yield MiniTask(
            f"overlap_{kind}",
            "Overlap Extraction",
            (
                f"Which {kind} do both sentences share?",
                f"Find the {kind} that is in the first and in the second sentence.",
            ),
            make,
            metric="exact_match",
        )


def _reasons() -> Iterator[MiniTask]:
    def parts(draw: Draw) -> tuple[str, str, str]:
        name = draw.pick(NAMES)
        state, action = draw.pick(REASONS)
        pronoun = "she" if name in WOMEN else "he"
        cause = scenes.fill(draw, f"{name} {state}").text
        effect = scenes.fill(draw, f"{pronoun} {action}").text
        return name, cause, effect

    orders = {
        "so": "{cause}, so {effect}.",
        "because": "{Effect} because {cause}.",
        "therefore": "{cause}. Therefore {effect}.",
    }

    def make(draw: Draw, number: int, order: str, wants: str) -> Instance:
        name, cause, effect = parts(draw)
        other = scenes.make_scene(draw, used=[name]).text
        text = orders[order].format(cause=cause, effect=effect, Effect=effect.capitalize())
        told = draw.shuffled([text, other]) if number % 2 else [text, other]
        return answer(" ".join(told), cause if wants == "cause" else effect)

    for order in ("so", "because", "therefore"):
        yield MiniTask(
            f"why_{order}",
            "Explanation",
            ("Why did it happen? Write the reason.", "What was the reason for the action?"),
            lambda draw, number, order=order: make(draw, number, order, "cause"),
        )
        yield MiniTask(
            f"then_{order}",
            "Explanation",
            ("What happened then? Write the result.", "What was the result of it?"),
            lambda draw, number, order=order: make(draw, number, order, "effect"),
        )
    for order, wants in (
        ("so", "cause"),
        ("because", "cause"),
        ("so", "effect"),
        ("because", "effect"),
    ):
        yield MiniTask(
            f"{wants}_{order}",
            "Cause Effect Classification",
            (f"Write the {wants} that the text tells.", f"What is the {wants} in this text?"),
            lambda draw, number, order=order, wants=wants: make(draw, number, order, wants),
        )

    def connective(draw: Draw, number: int) -> Instance:
        order = ("so", "because")[number % 2]
        _, cause, effect = parts(draw)
        text = orders[order].format(cause=cause, effect=effect, Effect=effect.capitalize())
        return answer(text.replace(f" {order} ", " ___ "), order)

    yield MiniTask(
        "connective",
        "Discourse Connective Identification",
        ("Which word fits into the blank: so or because?", "Choose so or because for the blank."),
        connective,
        metric="accuracy",
        labels=("so", "because"),
    )


_OPINIONS = {
    "food": ("The {fruit} was {word}.", "We had {fruit} with {drink}, it was {word}."),
    "place": ("The {place} is {word}.", "A {word} {place} in {country}."),
    "clothes": ("This {color} {garment} looks {word}.", "I bought a {word} {garment}."),
    "music": ("The {instrument} sounded {word}.", "A {word} evening with {instrument} music."),
    "travel": ("The {vehicle} to {country} was {word}.", "A {word} trip by {vehicle}."),
    "matches": ("The {sport} match was {word}.", "A {word} game of {sport} in {country}."),
    "tools": ("The {metal} {tool} is {word}.", "A {word} {tool} made of {metal}."),
}


def _feelings() -> Iterator[MiniTask]:
    labels = ((GOOD, "positive"), (BAD, "negative"), (PLAIN, "neutral"))

    def make(draw: Draw, number: int, subject: str) -> Instance:
        words, label = labels[number % 3]
        pattern = draw.pick(_OPINIONS[subject])
        return answer(scenes.fill(draw, pattern, word=draw.pick(words)).text, label)

    for subject in _OPINIONS:
        yield MiniTask(
            f"sentiment_{subject}",
            "Sentiment Analysis",
            (
                "Is the opinion positive, negative or neutral?",
                "Classify the review as positive, negative or neutral.",
            ),
            lambda draw, number, subject=subject: make(draw, number, subject),
            metric="accuracy",
            labels=("positive", "negative", "neutral"),
        )


def _writing() -> Iterator[MiniTask]:
    def title(draw: Draw, number: int, kind: str) -> Instance:
        first = scenes.make_scene(draw, [kind])
        second = scenes.make_scene(draw, without=[kind], used=first.words.values())
        text = f"{first.text} {second.text}"
        return answer(text, f"The {first.words[kind]} of {first.name}")

    for kind in ("animal", "vehicle", "instrument", "garment", "tool"):
        yield MiniTask(
            f"title_{kind}",
            "Title Generation",
            (
                f"Write a title: the {kind} of the first person.",
                f"Make a title from the {kind} and the first name of the story.",
            ),
            lambda draw, number, kind=kind: title(draw, number, kind),
        )

    def question(draw: Draw, number: int, kind: str) -> Instance:
        scene = scenes.make_scene(draw, [kind])
        return answer(scene.text, f"Which {kind}, {scene.name}?")

    for kind in ("animal", "fruit", "color", "job", "sport", "metal"):
        yield MiniTask(
            f"ask_{kind}",
            "Question Generation",
            (
                f"Write a question to the person: which {kind}.",
                f"Ask the person by name which {kind} it is.",
            ),
            lambda draw, number, kind=kind: question(draw, number, kind),
            metric="exact_match",
        )

    def from_data(draw: Draw, number: int, form: str) -> Instance:
        name = draw.pick(NAMES)
        words = scenes.fill(draw, "{color} {animal} {place}").words
        rows = [("color", words["color"]), ("animal", words["animal"]), ("place", words["place"])]
        data = "; ".join(f"{key}: {value}" for key, value in draw.shuffled([("name", name), *rows]))
        text = form.format(name=name, **words)
        return answer(data, scenes.fill(draw, text).text)

    for verb, form in (
        ("saw", "{name} saw a {color} {animal} at the {place}."),
        ("has", "{name} has a {color} {animal} in the {place}."),
        ("met", "At the {place} {name} met a {color} {animal}."),
    ):
        yield MiniTask(
            f"sentence_{verb}",
            "Data to Text",
            (
                f"Write a sentence with the word {verb} that tells these data.",
                f"Turn the data into a sentence with {verb}.",
            ),
            lambda draw, number, form=form: from_data(draw, number, form),
        )


_INTENTS = {
    "play music": ("Play the {instrument}.", "I want to hear some {instrument} music."),
    "order drink": ("A glass of {drink}, please.", "Bring me {drink}."),
    "book trip": ("I need a {vehicle} to {country}.", "Take me to {country} by {vehicle}."),
    "buy clothes": ("I am looking for a {color} {garment}.", "How much is this {garment}?"),
}


def _talk() -> Iterator[MiniTask]:
    def intent(draw: Draw, number: int) -> Instance:
        label = list(_INTENTS)[number % len(_INTENTS)]
        text = scenes.fill(draw, draw.pick(_INTENTS[label])).text
        start = draw.pick(("", "Hello. ", "Hi! ", "Excuse me. ", "Good morning. "))
        return answer(start + text, label)

    yield MiniTask(
        "intent",
        "Intent Identification",
        (
            "What does the customer want: play music, order drink, book trip or buy clothes?",
            "Tell the intent: play music, order drink, book trip or buy clothes.",
        ),
        intent,
    )

    def reply(draw: Draw, number: int, kind: str) -> Instance:
        word, other = draw.sample(CLASSES[kind], 2)
        name = draw.pick(NAMES)
        return answer(
            f"{name}: I like {word}. And you?\nYou ({other}):",
            f"I prefer {other}, {name}.",
        )

    for kind in ("fruit", "drink", "sport"):
        yield MiniTask(
            f"reply_{kind}",
            "Dialogue Generation",
            (
                "Reply: tell what you prefer and name the other person.",
                "Continue the dialogue: say what you prefer, and to whom.",
            ),
            lambda draw, number, kind=kind: reply(draw, number, kind),
        )
