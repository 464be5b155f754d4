"""What the `opt_iml` split makes of the benchmarks other than Super-NaturalInstructions, as data.

`PLACEMENTS` stand before those of `splits` (first match wins), `EVALUATED_SOURCES` and `SAME_DATA`
beside those of the same name there; `splits` says how they are applied.

OPT-IML names its evaluation tasks of PromptSource, FLAN and UnifiedSKG (§5.2, §5.3, §5.5); the
other tasks of a category that is held out are left out of both training and evaluation.

Source: OPT-IML (arXiv 2212.12017) Table 15, §5.1-5.5; T0 (arXiv 2110.08207) §4: the four held-out
kinds of task.
"""

_TABLE_15 = "named task of a category that is trained on (OPT-IML Table 15)"
_T0 = "T0's held-out task of a category that is absent from training (OPT-IML §5.2)"
_FLAN = "FLAN's task of a category that is absent from training (OPT-IML §5.3)"
_FLAN_PARTIAL = "FLAN's task of a category that is trained on (OPT-IML §5.3)"
_SKG = "UnifiedSKG's task of a category that is trained on (OPT-IML §5.5)"
_REST = "of a category that is held out, not among the tasks that §5.2 and §5.3 evaluate"

_VALIDATION = (
    *("promptsource__jigsaw_unintended_bias", "promptsource__race_high"),
    *("promptsource__race_middle", "flan__newsroom", "reasoning__strategyqa", "reasoning__gsm8k"),
)
_T0_TESTS = (
    *("anli", "super_glue_cb", "super_glue_rte", "super_glue_axg", "super_glue_wsc.fixed"),
    *("winogrande_winogrande_xl", "story_cloze_2016", "hellaswag", "super_glue_wic"),
)
_FLAN_TESTS = (
    *("anli_r[123]", "cb", "mnli_matched", "mnli_mismatched", "rte", "snli", "wnli"),
    *("winogrande", "wsc"),
)
_FLAN_PARTIAL_TESTS = ("bool_q", "openbookqa", "arc_challenge", "arc_easy")
_REST_OF_PROMPTSOURCE = (
    *("esnli", "glue_ax", "glue_mnli*", "glue_rte", "glue_wnli", "hans", "multi_nli", "scitail_*"),
    *("sem_eval_2014_task_1", "sick", "snli", "super_glue_axb", "xnli_*"),
    *("mwsc", "winograd_wsc_*", "winogrande_*"),
)
_REST_OF_FLAN = ("wsc273", "definite_pronoun_resolution")

PLACEMENTS: tuple[tuple[str, str, str, str, str], ...] = (
    *(("name", name, "validation", "partially_supervised", _TABLE_15) for name in _VALIDATION),
    *(("name", f"promptsource__{name}", "test", "fully_held_out", _T0) for name in _T0_TESTS),
    (
        *("name", "promptsource__crows_pairs", "test", "fully_held_out"),
        "evaluated in §5.2, which says that its category is trained on; Table 15 holds it out",
    ),
    *(("name", f"flan__{name}", "test", "fully_held_out", _FLAN) for name in _FLAN_TESTS),
    *(
        ("name", f"flan__{name}", "test", "partially_supervised", _FLAN_PARTIAL)
        for name in _FLAN_PARTIAL_TESTS
    ),
    *(
        ("name", f"unifiedskg__{name}", "test", "partially_supervised", _SKG)
        for name in ("dart", "multiwoz")
    ),
    *(("name", f"promptsource__{name}", "excluded", "", _REST) for name in _REST_OF_PROMPTSOURCE),
    *(("name", f"flan__{name}", "excluded", "", _REST) for name in _REST_OF_FLAN),
    ("category", "Sentence Completion", "excluded", "", _REST),
    ("category", "Word Sense Disambiguation", "excluded", "", _REST),
)
"""(field, pattern, role, level, reason), as `splits.Placement`; "name" is `benchmark__task`."""

EVALUATED_SOURCES = {
    "arc": "ARC of FLAN, Question Answering (§5.3)",
    "boolq": "BoolQ of FLAN, Question Answering (§5.3)",
    "openbookqa": "OpenBookQA of FLAN, Question Answering (§5.3)",
    "piqa": "PIQA, one of OPT's 14 tasks (§5.1)",
    "multirc": "MultiRC, one of OPT's 14 tasks (§5.1)",
    "hellaswag": "HellaSwag, Sentence Completion (§5.1)",
    "story_cloze": "StoryCloze, Sentence Completion (§5.2)",
    "rocstories": "StoryCloze, Sentence Completion (§5.2): its training stories",
    "wic": "WiC, Word Sense Disambiguation (§5.2)",
    "cb": "CB, Textual Entailment (§5.2, §5.3)",
    "rte": "RTE, Textual Entailment (§5.2, §5.3)",
    "winogender": "WinoGender, Textual Entailment (§5.2)",
    "dart": "DART of UnifiedSKG, Data to Text (§5.5)",
    "multi_woz_v22": "MultiWoZ of UnifiedSKG, Dialogue State Tracking (§5.5)",
    "meta_woz": "MetaLWOz of Super-NaturalInstructions, Dialogue Act Recognition (§5.4)",
    "sherliic": "SherLIiC of Super-NaturalInstructions, Textual Entailment (§5.4)",
    "youtube_caption_corrections": "YouTube captions, Grammar Error Correction (Table 15)",
    # Made of the same texts as an evaluated data set.
    "mctaco": "MultiRC (§5.1), whose sentences it asks about (arXiv 1909.03065)",
    "swag": "HellaSwag (§5.1): both continue captions of ActivityNet (arXiv 1905.07830)",
    "abductive_nli": "StoryCloze and Glucose: ROCStories (arXiv 1908.05739)",
    "timetravel": "StoryCloze and Glucose: ROCStories (arXiv 1909.04076)",
    "storycommonsense": "StoryCloze and Glucose: ROCStories (arXiv 1805.06533)",
    "tellmewhy": "StoryCloze and Glucose: ROCStories (arXiv 2106.06132)",
    "sciq": "SciTail, whose hypotheses are its questions and answers (§5.4)",
    "web_nlg": "DART (§5.5), which has it as a part (arXiv 2007.02871)",
    "e2e": "DART (§5.5), which has it as a part (arXiv 2007.02871)",
    # Parts of RAFT (arXiv 2109.14076), an evaluation suite (Table 14).
    "ade_corpus_v2": "RAFT's ADE Corpus (Table 14)",
    "banking77": "RAFT's Banking 77 (Table 14)",
    "onestop_english": "RAFT's OneStopEnglish (Table 14)",
    "overruling": "RAFT's Overruling (Table 14)",
    "hateeval": "RAFT's Tweet Eval Hate (Table 14)",
}
"""Data sets of evaluation tasks -> which. With those of `splits` they are all that any other task
has too, so that a task's role does not depend on which benchmarks are read beside it."""

SAME_DATA = {
    "ai2_arc": ("arc", "ARC under another name"),
    "multi_woz": ("multi_woz_v22", "an edition of MultiWOZ"),
    "roc_stories": ("rocstories", "ROCStories under another name"),
    "xl_wic": ("wic", "its English part is WiC (arXiv 2010.06478)"),
}
"""Data set as a benchmark names it -> (the name that stands for its data, reason)."""
