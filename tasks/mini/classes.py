"""Tasks about kinds of things: the same fourteen kinds, asked about in ten ways.

A grid of (way of asking, kind). Some cells are held out by the split `mini`: the way is known from
other kinds and the kind from other ways, so that an unseen task can be solved by who reads its
instructions.
"""

from collections.abc import Iterator, Sequence

from . import scenes
from .declaration import YES_NO, Draw, Instance, MiniTask, answer
from .lexicon import CLASSES, DIGITS, PLURALS
from .scenes import with_article

KINDS = tuple(CLASSES)


def make_tasks() -> Iterator[MiniTask]:
    """All tasks of the grid."""
    for kind in KINDS:
        yield _extract(kind)
    for kind in KINDS:
        yield _ask_which(kind)
    for kind in KINDS[:12]:
        yield _mentions(kind)
    for kind in KINDS[2:]:
        yield _choose(kind)
    for kind in KINDS[:10]:
        yield _list_all(kind)
    for kind in KINDS[4:]:
        yield _odd_one_out(kind)
    for kind in (*KINDS[:4], *KINDS[10:]):
        yield _keep(kind)
    for kind in KINDS[3:11]:
        yield _count(kind)
    for kind in KINDS[5:13]:
        yield _fill_blank(kind)
    for kind in KINDS[:8]:
        yield _answerable(kind)


def _extract(kind: str) -> MiniTask:
    def make(draw: Draw, number: int) -> Instance:
        scene = scenes.make_scene(draw, [kind])
        return answer(scene.text, scene.words[kind])

    return MiniTask(
        f"extract_{kind}",
        "Information Extraction",
        (
            f"Find the {kind} in the sentence.",
            f"Which word of the text names {with_article(kind)}? Write this word.",
            f"Extract the {kind} that is mentioned.",
        ),
        make,
        metric="exact_match",
    )


def _ask_which(kind: str) -> MiniTask:
    """Two people, one kind: the answer depends on whom the question names."""

    def make(draw: Draw, number: int) -> Instance:
        pair = scenes.make_scenes(draw, 2, [kind])
        asked = pair[number % 2]
        text = " ".join(scene.text for scene in pair)
        return answer(
            f"{text}\nQuestion: Which {kind} is in the sentence about {asked.name}?",
            asked.words[kind],
        )

    return MiniTask(
        f"question_{kind}",
        "Question Answering",
        (
            "Read the text and answer the question with one word.",
            "Answer the question about the text.",
        ),
        make,
        metric="exact_match",
    )


def _mentions(kind: str) -> MiniTask:
    def make(draw: Draw, number: int) -> Instance:
        if number % 2:
            return answer(scenes.make_scene(draw, [kind]).text, "yes")
        return answer(scenes.make_scene(draw, without=[kind]).text, "no")

    return MiniTask(
        f"mentions_{kind}",
        "Text Categorization",
        (
            f"Does the sentence mention {with_article(kind)}? Answer yes or no.",
            f"Say yes if there is {with_article(kind)} in the text, else no.",
        ),
        make,
        metric="accuracy",
        labels=YES_NO,
    )


def _other_words(draw: Draw, kind: str, num: int) -> list[str]:
    """Words of `num` different kinds other than `kind`."""
    kinds = draw.sample([other for other in KINDS if other != kind], num)
    return [draw.pick(CLASSES[other]) for other in kinds]


def _choose(kind: str) -> MiniTask:
    def make(draw: Draw, number: int) -> Instance:
        right = draw.pick(CLASSES[kind])
        options = draw.shuffled([right, *_other_words(draw, kind, 3)])
        return answer(", ".join(options), right, options)

    return MiniTask(
        f"choose_{kind}",
        "Word Semantics",
        (
            f"Which of the words is {with_article(kind)}?",
            f"One of these words is {with_article(kind)}. Choose it.",
        ),
        make,
        metric="accuracy",
    )


def _list_all(kind: str) -> MiniTask:
    def make(draw: Draw, number: int) -> Instance:
        pair = scenes.make_scenes(draw, 2, [kind])
        text = " ".join(scene.text for scene in pair)
        return answer(text, ", ".join(scene.words[kind] for scene in pair))

    return MiniTask(
        f"keywords_{kind}",
        "Keyword Tagging",
        (
            f"List the {PLURALS[kind]} in the text in their order.",
            f"Write down all {PLURALS[kind]} that are mentioned.",
        ),
        make,
    )


def _odd_one_out(kind: str) -> MiniTask:
    def make(draw: Draw, number: int) -> Instance:
        (other,) = _other_words(draw, kind, 1)
        words = draw.shuffled([*draw.sample(CLASSES[kind], 3), other])
        return answer(", ".join(words), other, words)

    return MiniTask(
        f"odd_one_out_{kind}",
        "Commonsense Classification",
        (
            f"Three of the words are {PLURALS[kind]}. Which word is not?",
            f"Find the word that is not {with_article(kind)}.",
        ),
        make,
        metric="accuracy",
    )


def _mixed_list(draw: Draw, kind: str, num: int, length: int) -> Sequence[str]:
    return draw.shuffled(
        [*draw.sample(CLASSES[kind], num), *_other_words(draw, kind, length - num)]
    )


def _keep(kind: str) -> MiniTask:
    def make(draw: Draw, number: int) -> Instance:
        words = _mixed_list(draw, kind, 1 + number % 3, 5)
        return answer(" ".join(words), " ".join(w for w in words if w in CLASSES[kind]))

    return MiniTask(
        f"keep_{kind}",
        "Program Execution",
        (
            f"Keep only the {PLURALS[kind]} of the list.",
            f"Remove every word of the list that is not {with_article(kind)}.",
        ),
        make,
        metric="exact_match",
    )


def _count(kind: str) -> MiniTask:
    def make(draw: Draw, number: int) -> Instance:
        num = number % 4
        return answer(" ".join(_mixed_list(draw, kind, num, 5)), DIGITS[num])

    return MiniTask(
        f"count_{kind}",
        "Mathematics",
        (
            f"How many {PLURALS[kind]} are in the list?",
            f"Count the {PLURALS[kind]} of the list.",
        ),
        make,
        metric="exact_match",
    )


def _fill_blank(kind: str) -> MiniTask:
    def make(draw: Draw, number: int) -> Instance:
        scene = scenes.make_scene(draw, [kind])
        right = scene.words[kind]
        text = scene.text.replace(f" {right}", " ___", 1)
        options = draw.shuffled([right, *_other_words(draw, kind, 2)])
        return answer(f"{text} Words: {', '.join(options)}", right, options)

    return MiniTask(
        f"blank_{kind}",
        "Fill in The Blank",
        (
            f"The missing word is {with_article(kind)}. Which of the words fits?",
            f"Fill in the blank with the {kind}.",
        ),
        make,
        metric="accuracy",
    )


def _answerable(kind: str) -> MiniTask:
    """A complete prompt per instance: whether the text answers a question."""
    forms = (
        "{text}\nCan this be answered from the text: which {kind} was it? Say yes or no.",
        "Text: {text}\nDoes it tell the {kind}? Say yes or no.",
        "Is {kind} something that this text tells? {text} Say yes or no.",
    )

    def make(draw: Draw, number: int) -> Instance:
        told = number % 2
        scene = scenes.make_scene(draw, [kind]) if told else scenes.make_scene(draw, without=[kind])
        prompt = draw.pick(forms).format(text=scene.text, kind=kind)
        return answer(prompt, "yes" if told else "no")

    return MiniTask(
        f"answerable_{kind}",
        "Answerability Classification",
        (),
        make,
        kind="instance",
        metric="accuracy",
        labels=YES_NO,
    )
