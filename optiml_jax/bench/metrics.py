"""How an output is scored against its references, in percent.

Pure functions of strings. `METRICS` holds them by the name that a task's catalog row carries;
`make_metric` picks the right tokenizer for the task's output languages. Intervals, aggregation by
level and comparison of runs belong to `eval`, which re-exports this module.

Where Super-NaturalInstructions and OPT-IML leave a choice:
1. Rouge-L is the F-measure of the `rouge_score` library with Porter stemming, the best over the
   references. Tokens are that library's own; only the longest common subsequence is computed here
   (bit-parallel, equal result, so that long outputs do not cost seconds each).
2. Tasks whose outputs are not all English are scored on GPT-2 BPE tokens without stemming: the
   default tokenizer keeps [a-z0-9] only and gives every other script 0.
3. Exact match removes punctuation but no articles.

Source: Super-NaturalInstructions (arXiv 2204.07705) §4.1 and its evaluation script
eval/automatic/evaluation.py; OPT-IML (arXiv 2212.12017) §4.1.
"""

import functools
import math
import string
from collections.abc import Callable, Iterable, Sequence

from optiml_jax.errors import InputError, unknown

Metric = Callable[[str, Sequence[str]], float]
"""(prediction, references) -> percent."""

Tokenize = Callable[[str], list[str]]

_PUNCTUATION = str.maketrans("", "", string.punctuation)
_CACHED_TEXTS = 1 << 14
_BBH_MARK = "the answer is "


def rouge_l(prediction: str, references: Sequence[str], tokenize: Tokenize | None = None) -> float:
    """The best Rouge-L F-measure over the references, in percent.

    Args:
        tokenize: None for Rouge's own tokens with stemming (English), `XlingualTokenizer` for
            other languages.

    Raises:
        InputError: no reference.

    Example:
        rouge_l("the cat sat", ["the cat sat down"]) is 85.7: precision 3/3, recall 3/4.

    Source: Super-NaturalInstructions §4.1; `rouge_score` 0.1.2, `RougeScorer(["rougeL"],
    use_stemmer=True)`.
    """
    _check_references(references)
    tokenize = tokenize or _english_tokens
    predicted = tokenize(prediction)
    return 100.0 * max(_lcs_f_measure(tokenize(text), predicted) for text in references)


def exact_match(prediction: str, references: Sequence[str]) -> float:
    """100 if the prediction equals a reference after `normalize_answer`, else 0.

    Example:
        exact_match("the Answer.", ["answer"]) is 0: articles count.

    Source: Super-NaturalInstructions, eval/automatic/evaluation.py.
    """
    _check_references(references)
    normalized = normalize_answer(prediction)
    return 100.0 * any(normalized == normalize_answer(text) for text in references)


def accuracy(prediction: str, references: Sequence[str]) -> float:
    """100 if the chosen option is a reference, outer blanks aside, else 0.

    For rank classification: `prediction` is one of the task's options, so nothing is normalized.

    Source: OPT-IML §4.1.
    """
    _check_references(references)
    return 100.0 * (prediction.strip() in {text.strip() for text in references})


METRICS: dict[str, Metric] = {
    "rouge_l": rouge_l,
    "exact_match": exact_match,
    "accuracy": accuracy,
}


def make_metric(
    name: str, output_languages: Sequence[str], xlingual_tokenize: Tokenize | None = None
) -> Metric:
    """The metric as a task needs it.

    Args:
        name: a key of `METRICS`.
        output_languages: as in the task's catalog row; only ("English",) is English.
        xlingual_tokenize: GPT-2 BPE tokens of a text, with or without `XlingualTokenizer` around.

    Raises:
        InputError: unknown name, or Rouge-L in another language without `xlingual_tokenize`.
    """
    if name not in METRICS:
        raise unknown("metric", name, METRICS)
    if name != "rouge_l" or not needs_xlingual_tokens(output_languages):
        return METRICS[name]
    if xlingual_tokenize is None:
        raise InputError(
            f"rouge_l of outputs in {', '.join(output_languages)} needs a tokenizer: the default"
            " one keeps English letters only. Give `xlingual_tokenize` GPT-2's BPE tokens."
        )
    if not isinstance(xlingual_tokenize, XlingualTokenizer):
        xlingual_tokenize = XlingualTokenizer(xlingual_tokenize)
    return functools.partial(rouge_l, tokenize=xlingual_tokenize)


def needs_xlingual_tokens(output_languages: Sequence[str]) -> bool:
    """True unless every output language is English; no language at all counts as English."""
    return any(language.strip().casefold() != "english" for language in output_languages)


class XlingualTokenizer:
    """Super-NaturalInstructions' tokens for Rouge-L in languages other than English.

    GPT-2's byte-level BPE marks a word's first token with "Ġ" where a blank precedes it; the mark
    is stripped, so that a word counts the same at the start of a text and inside it.

    Args:
        tokenize: text -> BPE tokens as strings (not ids).

    Source: Super-NaturalInstructions, eval/automatic/evaluation.py (`GPTTokenizer`).
    """

    def __init__(self, tokenize: Tokenize):
        self._tokens = functools.lru_cache(_CACHED_TEXTS)(
            lambda text: [token.lstrip("Ġ") for token in tokenize(text)]
        )

    def __call__(self, text: str) -> list[str]:
        """BPE tokens of the text without the mark."""
        return self._tokens(text)

    def tokenize(self, text: str) -> list[str]:
        """The same under the name that `rouge_score` asks a tokenizer for."""
        return self._tokens(text)


def normalize_answer(text: str) -> str:
    """Lower case, without punctuation, blanks collapsed; articles stay (SQuAD removes them).

    Example:
        "The  U.S.A.!" is "the usa".

    Source: Super-NaturalInstructions, eval/automatic/evaluation.py (`normalize_answer`).
    """
    return " ".join(text.lower().translate(_PUNCTUATION).split())


def extract_bbh_answer(output: str) -> str:
    """The answer in a BIG-Bench Hard output: what follows "the answer is ", one final dot dropped.

    An output without these words is its own answer. With this rule and string equality the
    published outputs of code-davinci-002 give the published accuracies (a test checks 26 files).

    Example:
        "... So the answer is (B)." is "(B)".

    Source: BIG-Bench Hard (arXiv 2210.09261), code-davinci-002-outputs.
    """
    parts = output.split(_BBH_MARK)
    answer = (parts[1] if len(parts) > 1 else parts[0]).strip()
    return answer.removesuffix(".")


def mean(scores: Iterable[float]) -> float:
    """The arithmetic mean, exactly rounded, so that the order of the scores does not matter.

    Raises:
        InputError: no score.
    """
    scores = list(scores)
    if not scores:
        raise InputError("mean of no score: nothing was evaluated. Check the task's records.")
    return math.fsum(scores) / len(scores)


def _check_references(references: Sequence[str]) -> None:
    if isinstance(references, str):
        raise InputError(f"references are the string {references!r:.60}, expected a list of them.")
    if not references:
        raise InputError("an instance has no reference, so it cannot be scored. Drop the instance.")


def _lcs_f_measure(reference: Sequence[str], predicted: Sequence[str]) -> float:
    if not reference or not predicted:
        return 0.0
    common = _lcs_length(reference, predicted)
    precision, recall = common / len(predicted), common / len(reference)
    return 2 * precision * recall / (precision + recall) if common else 0.0


def _lcs_length(a: Sequence[str], b: Sequence[str]) -> int:
    """Length of the longest common subsequence.

    A row of the usual table is kept as one integer whose zero bits mark where the row grows
    (Hyyrö, "Bit-parallel LCS-length computation revisited", 2004).
    """
    places: dict[str, int] = {}
    for i, token in enumerate(a):
        places[token] = places.get(token, 0) | 1 << i
    full = (1 << len(a)) - 1
    row = full
    for token in b:
        matches = row & places.get(token, 0)
        row = (row + matches | row - matches) & full
    return len(a) - row.bit_count()


@functools.lru_cache(_CACHED_TEXTS)
def _english_tokens(text: str) -> list[str]:
    return _rouge_tokenizer()(text)


@functools.cache
def _rouge_tokenizer() -> Tokenize:
    # Imported here: nltk takes most of a second, and this module is imported by every command.
    from nltk.stem import porter
    from rouge_score import tokenize

    class CachedStemmer:
        stem = staticmethod(functools.lru_cache(1 << 16)(porter.PorterStemmer().stem))

    return functools.partial(tokenize.tokenize, stemmer=CachedStemmer())
