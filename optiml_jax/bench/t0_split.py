"""T0's splits, as data: what T0, T0p and T0pp train on, and the kinds of task they hold out.

`t0` trains on 38 data sets. `t0p` adds GPT-3's evaluation sets, `t0pp` those of SuperGLUE too,
except for inference; what they add trains, also where `t0` holds it out. A held-out task is
`fully_held_out` unless a task of its kind trains, which makes it `partially_supervised`.

Differences from the release:
1. T0 trains on each prompt as a task, here a data set is one: its prompts are metadata.
2. Its bias and fairness sets are left out: they test no generalization to unseen tasks.
3. ANLI is one task of PromptSource, all three rounds of it.

Source: T0 (arXiv 2110.08207) §4, Figure 2; bigscience-workshop/t-zero (Apache 2.0), its table of
data sets: the columns do_train (BASE, GPT_EVAL, SGLUE) and do_eval (BASE, BIAS_FAIRNESS).
"""

from collections.abc import Mapping

from optiml_jax.bench import catalog
from optiml_jax.bench.split_rules import Assignment, Placement, Split

BENCHMARK = "promptsource"

ADDED: Mapping[str, str] = {
    "t0": """
        glue/mrpc glue/qqp paws/labeled_final
        kilt_tasks/hotpotqa wiki_qa
        adversarial_qa/dbidaf adversarial_qa/dbert adversarial_qa/droberta duorc/SelfRC
        duorc/ParaphraseRC ropes quoref
        cos_e/v1.11 cosmos_qa dream qasc quail quarel quartz sciq social_i_qa
        wiki_hop/original wiqa
        amazon_polarity app_reviews imdb rotten_tomatoes yelp_review_full
        common_gen wiki_bio
        cnn_dailymail/3.0.0 gigaword multi_news samsum xsum
        ag_news dbpedia_14 trec
    """,
    "t0p": """
        ai2_arc/ARC-Challenge ai2_arc/ARC-Easy trivia_qa/unfiltered web_questions
        squad_v2
        openbookqa/main race/high race/middle piqa
        hellaswag
    """,
    "t0pp": """
        super_glue/wsc.fixed
        super_glue/record
        super_glue/boolq super_glue/copa super_glue/multirc
        super_glue/wic
    """,
}
"""Variant -> the data sets that it trains on beside those of the variants above it."""

HELD_OUT: Mapping[str, str] = {
    "Textual Entailment": "super_glue/cb super_glue/rte anli",
    "Coreference Resolution": "super_glue/wsc.fixed winogrande/winogrande_xl",
    "Sentence Completion": "story_cloze/2016 hellaswag super_glue/copa",
    "Word Sense Disambiguation": "super_glue/wic",
}
"""Kind of task that T0 holds out, by its category here -> its data sets. COPA is one of sentence
completion in Figure 2, and Cause Effect Classification in the catalog: the paper's counts."""

BIAS = """
    crows_pairs super_glue/axg wino_bias/type1_anti wino_bias/type2_anti wino_bias/type1_pro
    wino_bias/type2_pro
"""
"""Data sets of the bias and fairness evaluation."""

_WHY = {
    "t0": "in T0's training mixture",
    "t0p": "one of GPT-3's evaluation sets, which T0p adds to training",
    "t0pp": "one of SuperGLUE's sets, which T0pp adds to training",
}


def _placements(variant: str) -> tuple[Placement, ...]:
    variants = list(ADDED)[: list(ADDED).index(variant) + 1]
    trained = {task: _WHY[one] for one in variants for task in ADDED[one].split()}
    rows = []
    for category, tasks in HELD_OUT.items():
        seen = [task for task in tasks.split() if task in trained]
        level = "partially_supervised" if seen else "fully_held_out"
        reason = "of a kind of task that T0 holds out"
        if seen:
            reason += f", and of which {variant} trains on {', '.join(seen)}"
        for task in tasks.split():
            if task in trained:
                row = ("train", "fully_supervised", trained[task], category)
            else:
                row = ("test", level, reason, category)
            rows.append(Placement("name", catalog.task_name(BENCHMARK, task), *row))
    rows += [
        Placement(
            "name", catalog.task_name(BENCHMARK, task), "train", "fully_supervised", trained[task]
        )
        for task in trained
    ]
    rows += [
        Placement(
            *("name", catalog.task_name(BENCHMARK, task), "excluded", ""),
            "of T0's bias and fairness evaluation, which is no test of unseen tasks",
        )
        for task in BIAS.split()
    ]
    return tuple(rows)


SPLITS = tuple(
    Split(
        name=variant,
        summary=summary,
        placements=_placements(variant),
        default=Assignment("excluded", "", "not one of T0's data sets"),
        benchmarks=(BENCHMARK,),
        empty_levels={}
        if variant != "t0"
        else {"partially_supervised": "T0 holds out whole kinds"},
    )
    for variant, summary in {
        "t0": "T0's: four kinds of task are held out",
        "t0p": "T0p's: GPT-3's evaluation sets train too",
        "t0pp": "T0pp's: SuperGLUE's sets train too, save for inference",
    }.items()
)
