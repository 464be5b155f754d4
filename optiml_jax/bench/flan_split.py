"""FLAN's splits, as data: for each of its clusters a split that holds it out.

A split `flan_CLUSTER` tests the tasks of a cluster and trains on those of all others, except for
the clusters that FLAN takes out with it. The categories of these splits are FLAN's clusters, so a
tested task is `fully_held_out` in FLAN's own terms, although our catalog may have its category in
training too (Question Answering is four clusters of FLAN's).

Differences from the release:
1. `wsc273`, which the code defines and puts into no cluster, counts to `coreference`.
2. The clusters are those of the code, 17. The paper draws 12: six small ones are its "misc.".

Source: FLAN (arXiv 2109.01652) §2.2 and its footnotes; google-research/FLAN (Apache 2.0),
flan/task_splits.py.
"""

from collections.abc import Mapping

from optiml_jax.bench import catalog
from optiml_jax.bench.split_rules import Assignment, Placement, Split

BENCHMARK = "flan"

CLUSTERS: Mapping[str, str] = {
    "summarization": """
        aeslc cnn_dailymail gigaword multi_news newsroom samsum xsum ag_news_subset
        opinion_abstracts_rotten_tomatoes opinion_abstracts_idebate wiki_lingua_english_en
    """,
    "structure_to_text": """
        web_nlg_en common_gen e2e_nlg dart
    """,
    "reading_comprehension": """
        squad_v1 squad_v2 drop multirc openbookqa bool_q
    """,
    "open_domain_qa": """
        trivia_qa natural_questions arc_challenge arc_easy
    """,
    "paraphrase": """
        glue_mrpc glue_qqp paws_wiki stsb
    """,
    "sentiment": """
        imdb_reviews sentiment140 yelp_polarity_reviews sst2
    """,
    "text_formatting": """
        true_case fix_punct word_segment
    """,
    "common_sense": """
        copa hellaswag story_cloze piqa
    """,
    "translation": """
        para_crawl_enes wmt14_enfr wmt16_translate_deen wmt16_translate_tren
        wmt16_translate_csen wmt16_translate_fien wmt16_translate_roen wmt16_translate_ruen
    """,
    "coreference": """
        definite_pronoun_resolution winogrande wsc wsc273
    """,
    "entailment": """
        anli_r1 anli_r2 anli_r3 cb rte mnli_matched mnli_mismatched qnli wnli snli
    """,
    "math": """
        math_dataset
    """,
    "conversational_qa": """
        quac coqa
    """,
    "word_disambiguation": """
        wic
    """,
    "linguistic_acceptability": """
        cola
    """,
    "question_classification": """
        trec
    """,
    "read_comp_and_common_sense": """
        record cosmos_qa
    """,
}
"""Cluster -> its tasks."""

_READING = "reading comprehension with common sense belongs to both clusters (FLAN §2.2)"
_INFERENCE = "paraphrase and inference ask nearly the same (FLAN §2.2)"

LEAVE_TOGETHER: Mapping[str, tuple[tuple[str, ...], str]] = {
    "read_comp_and_common_sense": (("reading_comprehension", "common_sense"), _READING),
    "reading_comprehension": (("read_comp_and_common_sense",), _READING),
    "common_sense": (("read_comp_and_common_sense",), _READING),
    "entailment": (("paraphrase",), _INFERENCE),
    "paraphrase": (("entailment",), _INFERENCE),
}
"""Cluster that is held out -> (clusters that do not train beside it, reason)."""


def _rows(held_out: str) -> tuple[Placement, ...]:
    related, why = LEAVE_TOGETHER.get(held_out, ((), ""))
    rows = []
    for cluster, tasks in CLUSTERS.items():
        if cluster == held_out:
            row = ("test", "fully_held_out", f"of the held-out cluster {cluster}", cluster)
        elif cluster in related:
            row = ("excluded", "", f"of {cluster}, which leaves with {held_out}: {why}", cluster)
        else:
            row = ("train", "fully_supervised", f"of {cluster}, which is trained on", cluster)
        rows += [
            Placement("name", catalog.task_name(BENCHMARK, task), *row) for task in tasks.split()
        ]
    return tuple(rows)


SPLITS = tuple(
    Split(
        name=f"flan_{cluster}",
        summary=f"FLAN's, its cluster {cluster} held out",
        placements=_rows(cluster),
        default=Assignment("excluded", "", "not one of FLAN's tasks"),
        benchmarks=(BENCHMARK,),
        empty_levels={"partially_supervised": "FLAN holds out a whole cluster"},
    )
    for cluster in CLUSTERS
)
