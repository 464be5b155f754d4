"""The words of the mini benchmark's small world, and what is known about them.

`CLASSES` is the heart: kinds of things and the words that name them. Tasks of many categories ask
about the same kinds in different ways, so that what an instruction names can be learned in one
category and used in another. No word stands in two classes.
"""

from collections.abc import Mapping


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


CLASSES: Mapping[str, tuple[str, ...]] = {
    "animal": _words(
        "fox bear horse rabbit goat lion tiger wolf monkey camel mouse sheep donkey frog"
    ),
    "fruit": _words(
        "apple pear plum peach lemon mango melon cherry banana grape fig lime kiwi papaya"
    ),
    "color": _words(
        "red blue green yellow white black brown pink purple gray golden silver violet beige"
    ),
    "place": _words(
        "park market school station library harbor museum garden bakery hospital theater castle"
        " bridge stadium"
    ),
    "tool": _words(
        "hammer spade drill wrench shovel rake axe ladder chisel pliers brush needle knife rope"
    ),
    "vehicle": _words(
        "car bus truck train bicycle tractor boat plane taxi scooter van tram ferry sled"
    ),
    "job": _words(
        "baker doctor farmer teacher pilot nurse painter sailor lawyer judge miner tailor barber"
        " clerk"
    ),
    "garment": _words(
        "hat coat shirt scarf dress jacket sweater skirt glove belt vest cap apron robe"
    ),
    "drink": _words(
        "water milk tea coffee juice cocoa lemonade cider soda wine beer broth punch nectar"
    ),
    "instrument": _words(
        "piano violin flute drum guitar trumpet harp cello banjo organ oboe horn lute tuba"
    ),
    "tree": _words(
        "oak pine birch willow maple cedar elm ash beech palm spruce poplar alder larch"
    ),
    "sport": _words(
        "tennis soccer hockey chess golf rugby cricket boxing judo rowing karate polo archery"
        " curling"
    ),
    "country": _words(
        "France Spain Italy Egypt Japan Brazil Canada India Kenya Peru Norway Greece Chile Poland"
    ),
    "metal": _words(
        "iron copper tin lead zinc nickel steel bronze brass cobalt chrome titanium platinum"
        " mercury"
    ),
}
"""Kind of thing -> its words."""

PLURALS: Mapping[str, str] = {
    "animal": "animals",
    "fruit": "fruits",
    "color": "colors",
    "place": "places",
    "tool": "tools",
    "vehicle": "vehicles",
    "job": "jobs",
    "garment": "garments",
    "drink": "drinks",
    "instrument": "instruments",
    "tree": "trees",
    "sport": "sports",
    "country": "countries",
    "metal": "metals",
}

CLASS_OF: Mapping[str, str] = {word: kind for kind, words in CLASSES.items() for word in words}

WOMEN = _words("Mia Anna Lena Rosa Emma Clara Nora Julia Lucy Sara Ida Eva Ruth Nina")
MEN = _words("Tom Ben Max Paul Hugo Leo Oscar Felix Adam Karl Omar Ivan Noah Otto")
NAMES = WOMEN + MEN

GOOD = _words("great lovely wonderful excellent perfect pleasant superb delightful fine splendid")
BAD = _words("bad awful terrible poor horrible dull nasty dreadful weak disappointing")
PLAIN = _words("ordinary average normal usual common plain standard typical regular medium")

OPPOSITES = (
    ("hot", "cold"),
    ("big", "small"),
    ("fast", "slow"),
    ("old", "young"),
    ("tall", "short"),
    ("rich", "poor"),
    ("wet", "dry"),
    ("early", "late"),
    ("light", "dark"),
    ("full", "empty"),
    ("loud", "quiet"),
    ("hard", "soft"),
    ("clean", "dirty"),
    ("happy", "sad"),
    ("open", "closed"),
    ("strong", "weak"),
)

PAST = (
    ("walk", "walked"),
    ("see", "saw"),
    ("eat", "ate"),
    ("go", "went"),
    ("buy", "bought"),
    ("sing", "sang"),
    ("write", "wrote"),
    ("give", "gave"),
    ("make", "made"),
    ("run", "ran"),
    ("take", "took"),
    ("find", "found"),
    ("drive", "drove"),
    ("wear", "wore"),
    ("drink", "drank"),
    ("jump", "jumped"),
)

SCENE_VERBS = _words("saw wore ate drove bought found gave drank carried lost painted fed")

REASONS = (
    # (what was so, what was done about it)
    ("was hungry", "ate a {fruit}"),
    ("was thirsty", "drank some {drink}"),
    ("was cold", "put on a {garment}"),
    ("was late", "took the {vehicle}"),
    ("was bored", "played {sport}"),
    ("loved music", "bought a {instrument}"),
    ("felt ill", "stayed at the {place}"),
    ("had time", "planted a {tree}"),
    ("won money", "flew to {country}"),
    ("saw a {animal}", "ran away"),
)

DIGITS = _words("zero one two three four five six seven eight nine ten")
TEENS = _words("eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen")
TENS = _words("twenty thirty forty fifty sixty seventy eighty ninety")

FRENCH: Mapping[str, str] = {
    "red": "rouge",
    "blue": "bleu",
    "green": "vert",
    "white": "blanc",
    "black": "noir",
    "apple": "pomme",
    "pear": "poire",
    "lemon": "citron",
    "water": "eau",
    "milk": "lait",
    "horse": "cheval",
    "rabbit": "lapin",
    "mouse": "souris",
    "hat": "chapeau",
    "dress": "robe",
    "car": "voiture",
    "boat": "bateau",
    "school": "ecole",
    "bridge": "pont",
    "tree": "arbre",
}
SPANISH: Mapping[str, str] = {
    "red": "rojo",
    "blue": "azul",
    "green": "verde",
    "white": "blanco",
    "black": "negro",
    "apple": "manzana",
    "pear": "pera",
    "lemon": "limon",
    "water": "agua",
    "milk": "leche",
    "horse": "caballo",
    "rabbit": "conejo",
    "mouse": "raton",
    "hat": "sombrero",
    "dress": "vestido",
    "car": "coche",
    "boat": "barco",
    "school": "escuela",
    "bridge": "puente",
    "tree": "arbol",
}

FEMALE_PRONOUNS = ("she", "her")
MALE_PRONOUNS = ("he", "him")


def article(word: str) -> str:
    """ "a" or "an", as the word wants it."""
    return "an" if word[0] in "aeiou" else "a"


def number_word(number: int) -> str:
    """A number below 100 in words.

    Example:
        42 is "forty two".
    """
    if number <= 10:
        return DIGITS[number]
    if number < 20:
        return TEENS[number - 11]
    tens, ones = divmod(number, 10)
    return TENS[tens - 2] + (f" {DIGITS[ones]}" if ones else "")
