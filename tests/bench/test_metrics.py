import json
import random
import time

import pytest
from rouge_score import rouge_scorer

from optiml_jax.bench import metrics
from optiml_jax.errors import InputError

TEXT = "the cats running quickly 'tis naïve U.S. 3.5 don't a é ਭਾਰਤ generalization nations"
WORDS = TEXT.split()


def texts(seed, number, longest):
    rng = random.Random(seed)
    pick = lambda: " ".join(rng.choice(WORDS) for _ in range(rng.randint(0, longest)))  # noqa: E731
    return [(pick(), [pick() for _ in range(rng.randint(1, 3))]) for _ in range(number)]


@pytest.mark.parametrize("longest", [3, 12, 90])
def test_rouge_l_is_rouge_score_to_the_last_bit(longest):
    scorer = rouge_scorer.RougeScorer(["rougeL"], use_stemmer=True)
    for prediction, references in texts(longest, 60, longest):
        expected = max(scorer.score(r, prediction)["rougeL"].fmeasure for r in references)
        assert metrics.rouge_l(prediction, references) == 100 * expected


@pytest.mark.parametrize(
    ("prediction", "reference", "score"),
    [
        ("the cat sat", "the cat sat down", 100 * 6 / 7),
        ("A", "(A)", 100.0),
        ("?", "?", 0.0),
        ("", "x", 0.0),
        ("भारत", "भारत", 0.0),
    ],
)
def test_rouge_l_of_known_pairs(prediction, reference, score):
    assert metrics.rouge_l(prediction, [reference]) == pytest.approx(score, abs=1e-12)


def bpe(text):
    """A stand-in for GPT-2's tokens: words, marked where a blank precedes them."""
    return [("Ġ" if i else "") + word for i, word in enumerate(text.split(" "))]


def test_xlingual_rouge_l_is_rouge_score_with_that_tokenizer():
    class Official:
        def tokenize(self, text):
            return [token.lstrip("Ġ") for token in bpe(text)]

    scorer = rouge_scorer.RougeScorer(["rougeL"], tokenizer=Official())
    metric = metrics.make_metric("rouge_l", ("Hindi",), bpe)
    for prediction, references in texts(5, 80, 20):
        expected = max(scorer.score(r, prediction)["rougeL"].fmeasure for r in references)
        assert metric(prediction, references) == 100 * expected
    assert metric("ਭਾਰਤ का", ["का ਭਾਰਤ का"]) == pytest.approx(80.0)


def test_the_official_xlingual_tokens_on_gpt2s_own_bpe(real_data):
    tokenizers = pytest.importorskip("tokenizers")
    bpe_files = [str(real_data / "gpt2_bpe" / f"gpt2-{n}") for n in ("vocab.json", "merges.txt")]
    gpt2 = tokenizers.ByteLevelBPETokenizer(*bpe_files)
    tokenize = metrics.XlingualTokenizer(lambda text: gpt2.encode(text).tokens)
    assert tokenize("Hello Hello world") == ["Hello", "Hello", "world"]
    scorer = rouge_scorer.RougeScorer(["rougeL"], tokenizer=tokenize)
    prediction, reference = "¿Dónde está la casa grande?", "¿dónde estaba la casa?"
    expected = 100 * scorer.score(reference, prediction)["rougeL"].fmeasure
    assert 0 < expected < 100
    metric = metrics.make_metric("rouge_l", ["Spanish"], lambda text: gpt2.encode(text).tokens)
    assert metric(prediction, [reference]) == expected


def test_only_english_outputs_take_the_default_tokenizer():
    assert not metrics.needs_xlingual_tokens(("English",))
    assert metrics.needs_xlingual_tokens(("Dutch", "English"))
    assert metrics.make_metric("rouge_l", ("English",)) is metrics.rouge_l
    assert metrics.make_metric("exact_match", ("Hindi",)) is metrics.exact_match
    with pytest.raises(InputError, match="outputs in Dutch, English needs a tokenizer"):
        metrics.make_metric("rouge_l", ("Dutch", "English"))
    with pytest.raises(InputError, match="Did you mean 'rouge_l'"):
        metrics.make_metric("rouge_1", ("English",))


def test_exact_match_keeps_articles():
    assert metrics.normalize_answer(" The  U.S.A.! ") == "the usa"
    assert metrics.exact_match("Yes.", ["no", "yes"]) == 100
    assert metrics.exact_match("the answer", ["answer"]) == 0


def test_accuracy_is_string_equality():
    assert metrics.accuracy("A", ["B", " A"]) == 100
    assert metrics.accuracy("A", ["a"]) == 0


@pytest.mark.parametrize("metric", metrics.METRICS.values())
def test_an_instance_without_references_is_refused(metric):
    with pytest.raises(InputError, match="no reference"):
        metric("x", [])
    with pytest.raises(InputError, match="expected a list"):
        metric("x", "yes")


def test_mean():
    assert metrics.mean([0.1] * 10) == 0.1
    with pytest.raises(InputError, match="nothing was evaluated"):
        metrics.mean([])


def test_ten_thousand_pairs_take_seconds():
    pairs = texts(1, 10_000, 12)
    start = time.perf_counter()
    for prediction, references in pairs:
        metrics.rouge_l(prediction, references)
    # 0.2 s on two cores; the bound leaves room for a busy machine.
    assert time.perf_counter() - start < 10


@pytest.mark.parametrize(
    ("output", "answer"),
    [
        ("Reasons. So the answer is (B).", "(B)"),
        ("(B)", "(B)"),
        ("the answer is ] ] .", "] ] "),
        ("So the answer is 3.5.", "3.5"),
    ],
)
def test_bbh_answers(output, answer):
    assert metrics.extract_bbh_answer(output) == answer


@pytest.mark.parametrize("kind", ["cot", "direct"])
def test_bbh_answers_give_the_published_accuracies(real_data, kind):
    files = sorted((real_data / "bbh" / "outputs" / kind).glob("*.metrics.jsonl"))
    assert len(files) == 13
    for file in files:
        rows = json.loads(file.with_name(file.name.replace(".metrics.jsonl", ".json")).read_text())
        hits = [metrics.extract_bbh_answer(r["prediction"]) == r["target"] for r in rows["outputs"]]
        published = json.loads(file.read_text())["accuracy"]
        assert 100 * sum(hits) / len(hits) == pytest.approx(published, abs=1e-9), file.name
