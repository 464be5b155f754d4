"""The splits `opt_iml` and `opt_iml_max`, as data: every decision with its reason.

How `opt_iml` decides, first match wins:
1. `PLACEMENTS`, in their order: copies of evaluation suites leave; then the tasks that the paper
   names, those of other benchmarks than Super-NaturalInstructions first; then the rest of the
   categories that are held out, and what belongs to one of them under another name.
2. A task that shares its data with an evaluation task leaves training (the paper's first rule
   against leakage). Overlap of texts is not looked for here (`leakage` does).
3. All other tasks train, and their held-out instances are evaluated.

OPT-IML names its evaluation tasks of PromptSource, FLAN and UnifiedSKG (§5.2, §5.3, §5.5) and its
validation tasks (Table 15), and counts those of Super-NaturalInstructions (§5.4: 44 of three
categories); the other tasks of a category that is held out are left out of both training and
evaluation. Templates that turn a task around leave where PromptSource and FLAN are read
(`sources`).

`opt_iml_max` trains on everything but the copies of evaluation suites; parts of RAFT and the bias
suites' data train there.

Source: OPT-IML (arXiv 2212.12017) §2.3, §4.1, §5.1-5.5, Tables 14, 15; T0 (arXiv 2110.08207) §4:
the four held-out kinds of task; OPT (arXiv 2205.01068) §4: bias suites.
"""

from collections.abc import Mapping

from optiml_jax.bench.split_rules import Placement, SharedData, Split

_TABLE_15_CATEGORY = "named task of a category that is absent from training (OPT-IML Table 15)"
_REST_OF_TABLE_15 = "of a category that is held out, not among the tasks that Table 15 names"
_TEST_CATEGORY = "test category, absent from training (OPT-IML §5.4)"
_MMLU_NAME = "measuring_massive_multitask_language_understanding"
_MMLU = "copy of MMLU, which is an evaluation suite (OPT-IML Tables 14, 15)"
_BIG_BENCH = "copy of BIG-bench, whose hard tasks are an evaluation suite (OPT-IML Table 14)"
_TABLE_15 = "named task of a category that is trained on (OPT-IML Table 15)"
_T0 = "T0's held-out task of a category that is absent from training (OPT-IML §5.2)"
_FLAN = "FLAN's task of a category that is absent from training (OPT-IML §5.3)"
_FLAN_PARTIAL = "FLAN's task of a category that is trained on (OPT-IML §5.3)"
_SKG = "UnifiedSKG's task of a category that is trained on (OPT-IML §5.5)"
_REST = "of a category that is held out, not among the tasks that §5.2 and §5.3 evaluate"
_NOT_ENGLISH = (
    "of a category that is held out; §5.4's 44 tasks are those in English, this is Persian"
)
_KIND = (
    "Sentence Completion by its data, which is held out, whatever its own category (OPT-IML §5.2)"
)

_VALIDATION = (
    *("promptsource__jigsaw_unintended_bias", "promptsource__race_high"),
    *("promptsource__race_middle", "flan__newsroom", "reasoning__strategyqa", "reasoning__gsm8k"),
)
_TABLE_15_HELD_OUT = (
    # field, pattern.
    ("name", "promptsource__super_glue_copa"),
    ("name", "promptsource__wino_bias_*"),
    ("name", "flan__copa"),
    ("task", "task391_causal_relationship"),
    ("task", "task392_inverse_causal_relationship"),
    ("task", "task393_plausible_result_generation"),
    ("task", "task614_glucose_cause_event_detection"),
    ("task", "task827_copa_commonsense_reasoning"),
    ("task", "task828_copa_commonsense_cause_effect"),
    ("task", "task1393_superglue_copa_text_completion"),
    ("task", "task1557_jfleg_answer_generation"),
    ("task", "task1664_winobias_text_generation"),
    ("task", "task115[2-9]_bard_analogical_reasoning_*"),
)
_T0_TESTS = (
    *("anli", "super_glue_cb", "super_glue_rte", "super_glue_wsc.fixed"),
    *("winogrande_winogrande_xl", "story_cloze_2016", "super_glue_wic"),
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

SUITE_COPIES = (
    Placement("source", _MMLU_NAME, "excluded", "", _MMLU),
    # No catalog task names these two; text may.
    Placement("source", "mmlu*", "excluded", "", _MMLU),
    Placement(
        *("source", "raft*", "excluded", ""),
        "copy of RAFT, which is an evaluation suite (OPT-IML Table 14)",
    ),
    Placement("source", "big*bench*", "excluded", "", _BIG_BENCH),
    Placement("source", "bbh*", "excluded", "", _BIG_BENCH),
    Placement("task", "task*_bbh_*", "excluded", "", _BIG_BENCH),
    Placement("task", "task*_bigbench_*", "excluded", "", _BIG_BENCH),
)
"""What trains in no mixture."""

_OTHER_BENCHMARKS: tuple[tuple[str, str, str, str, str], ...] = (
    *(("name", name, "validation", "partially_supervised", _TABLE_15) for name in _VALIDATION),
    *(("name", f"promptsource__{name}", "test", "fully_held_out", _T0) for name in _T0_TESTS),
    (
        *("name", "promptsource__super_glue_axg", "test", "fully_held_out"),
        "WinoGender, evaluated in §5.2 beside T0's tasks; its category is held out here",
    ),
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
"""(field, pattern, role, level, reason); "name" is `benchmark__task`."""

PLACEMENTS = (
    *SUITE_COPIES,
    *(Placement(*row) for row in _OTHER_BENCHMARKS),
    Placement(
        "task",
        "task172[0-5]_civil_comments_*",
        "validation",
        "partially_supervised",
        _TABLE_15,
    ),
    # The two tasks of RACE whose category is Question Answering.
    Placement(
        "task",
        "task309_race_answer_generation",
        "validation",
        "partially_supervised",
        _TABLE_15,
    ),
    Placement(
        "task", "task310_race_classification", "validation", "partially_supervised", _TABLE_15
    ),
    *(
        Placement(field, pattern, "validation", "fully_held_out", _TABLE_15_CATEGORY)
        for field, pattern in _TABLE_15_HELD_OUT
    ),
    *(
        Placement("category", category, "excluded", "", _REST_OF_TABLE_15)
        for category in (
            "Cause Effect Classification",
            "Grammar Error Correction",
            "Stereotype Detection",
            "Word Analogy",
        )
    ),
    *(
        Placement("task", task, "excluded", "", _NOT_ENGLISH)
        for task in (
            "task463_parsinlu_entailment_classification",
            "task464_parsinlu_entailment_sentence_generation",
            "task534_farstail_entailment",
        )
    ),
    *(
        Placement("category", category, "test", "fully_held_out", _TEST_CATEGORY)
        for category in ("Textual Entailment", "Coreference Resolution", "Dialogue Act Recognition")
    ),
    # The same kind of task in Super-NaturalInstructions, which calls it Text Completion.
    *(Placement("source", data, "excluded", "", _KIND) for data in ("hellaswag", "swag", "codah")),
    # Data that the file names wrongly or not at all.
    Placement(
        "task",
        "task105_story_cloze-rocstories_*",
        "excluded",
        "",
        "stories of StoryCloze, which is evaluated (OPT-IML §5.2); its file names another source",
    ),
    Placement(
        "task",
        "task047_miscellaneous_answering_science_questions",
        "excluded",
        "",
        "questions of ARC, which is evaluated (OPT-IML §5.3); its file names no source",
    ),
    Placement(
        "task",
        "task045_miscellaneous_sentence_paraphrasing",
        "excluded",
        "",
        "questions and sentences of SciTail, which is evaluated (OPT-IML §5.4); its file names no"
        " source",
    ),
    Placement(
        "source",
        "detoxifying_lms",
        "excluded",
        "",
        "judges continuations of prompts, their toxicity first, as RealToxicityPrompts does, a bias"
        " suite (OPT §4); the prompts are others (arXiv 2104.06390)",
    ),
)
"""The rows of `opt_iml`, first match wins."""

CATEGORY_EXCEPTIONS: Mapping[str, tuple[str, str]] = {
    "task1664_winobias_text_generation": (
        "Stereotype Detection",
        "Table 15 lists Super-NI's Winobias under Stereotype Detection; its file says Coreference"
        " Resolution. Of the 24 + 14 + 7 official test tasks of the three test categories §5.4"
        " evaluates 44: all but this one.",
    ),
}
"""Own task name -> (category under which `opt_iml` reports it, reason)."""

EVALUATED_SOURCES: Mapping[str, str] = {
    "race": "Race, Question Answering (Table 15)",
    "civil_comments": "Civil Comments, Toxic Language Detection (Table 15)",
    "jigsaw": "Jigsaw of PromptSource, Toxic Language Detection (Table 15)",
    "newsroom": "Newsroom of FLAN, Summarization (Table 15)",
    "strategyqa": "StrategyQA, Reasoning (Table 15)",
    "gsm8k": "GSM8K, Reasoning (Table 15)",
    "copa": "COPA, Cause Effect Classification (Table 15)",
    "glucose": "Glucose, Cause Effect Classification (Table 15)",
    "jfleg": "Jfleg, Grammar Error Correction (Table 15)",
    "bard": "Bard Analogical Reasoning, Word Analogy (Table 15)",
    "wino_bias": "Winobias, Stereotype Detection (Table 15)",
    "stereoset": "StereoSet, a bias suite (OPT §4)",
    "crows_pairs": "CrowS-Pairs, Stereotype Detection (§5.2)",
    "ethos": "ETHOS, a bias suite (OPT §4)",
    "anli": "ANLI, Textual Entailment (§5.2-5.4)",
    "snli": "SNLI, Textual Entailment (§5.3, §5.4)",
    "multinli": "MNLI, Textual Entailment (§5.3, §5.4)",
    "scitail": "SciTail, Textual Entailment (§5.4)",
    "sick": "SICK, Textual Entailment (§5.4)",
    "imppres": "IMPPRES, Textual Entailment (§5.4)",
    "winograd_wsc": "Winograd schemas, Coreference Resolution (§5.2-5.4)",
    "winogrande": "Winogrande, Coreference Resolution (§5.2-5.4)",
    "winowhy": "WinoWhy, Coreference Resolution (§5.4)",
    "gap": "GAP, Coreference Resolution (§5.4)",
    "dailydialog": "DailyDialog, Dialogue Act Recognition (§5.4)",
    "schema_guided_dstc8": "Schema-Guided Dialogue, Dialogue Act Recognition (§5.4)",
    "spolin": "SPOLIN, Dialogue Act Recognition (§5.4)",
    "arc": "ARC of FLAN, Question Answering (§5.3)",
    "boolq": "BoolQ of FLAN, Question Answering (§5.3)",
    "openbookqa": "OpenBookQA of FLAN, Question Answering (§5.3)",
    "piqa": "PIQA, one of OPT's 14 tasks (§5.1)",
    "multirc": "MultiRC, one of OPT's 14 tasks (§5.1)",
    "story_cloze": "StoryCloze, Sentence Completion (§5.2)",
    "rocstories": "StoryCloze, Sentence Completion (§5.2): its training stories",
    "wic": "WiC, Word Sense Disambiguation (§5.2)",
    "cb": "CB, Textual Entailment (§5.2, §5.3)",
    "rte": "RTE, Textual Entailment (§5.2, §5.3)",
    "winogender": "WinoGender (§5.2)",
    "dart": "DART of UnifiedSKG, Data to Text (§5.5)",
    "multi_woz_v22": "MultiWoZ of UnifiedSKG, Dialogue State Tracking (§5.5)",
    "meta_woz": "MetaLWOz of Super-NaturalInstructions, Dialogue Act Recognition (§5.4)",
    "sherliic": "SherLIiC of Super-NaturalInstructions, Textual Entailment (§5.4)",
    # Made of the same texts as an evaluated data set.
    "mctaco": "MultiRC (§5.1), whose sentences it asks about (arXiv 1909.03065)",
    "abductive_nli": "StoryCloze and Glucose: ROCStories (arXiv 1908.05739)",
    "timetravel": "StoryCloze and Glucose: ROCStories (arXiv 1909.04076)",
    "storycommonsense": "StoryCloze and Glucose: ROCStories (arXiv 1805.06533)",
    "tellmewhy": "StoryCloze and Glucose: ROCStories (arXiv 2106.06132)",
    "atomic": "Defeasible NLI (§5.4), whose premises and hypotheses are ATOMIC's events",
    "dialogsum": "DailyDialog (§5.4), which is a part of it (arXiv 2105.06762)",
    "essential": "ARC (§5.3) and SciTail (§5.4), made of the same science exams",
    "sciq": "SciTail, whose hypotheses are its questions and answers (§5.4)",
    "web_nlg": "DART (§5.5), which has it as a part (arXiv 2007.02871)",
    "e2e": "DART (§5.5), which has it as a part (arXiv 2007.02871)",
    "nyc": "DART (§5.5): E2E's restaurants in other words",
    "wikisql": "DART (§5.5), whose sentences are its questions and answers (arXiv 2007.02871)",
    "wiki_table_questions": "DART (§5.5), which describes its tables (arXiv 2007.02871)",
    "msr_sqa": "DART (§5.5): both use the tables of WikiTableQuestions",
    # Parts of RAFT (arXiv 2109.14076), an evaluation suite (Table 14).
    "ade_corpus_v2": "RAFT's ADE Corpus (Table 14)",
    "banking77": "RAFT's Banking 77 (Table 14)",
    "onestop_english": "RAFT's OneStopEnglish (Table 14)",
    "overruling": "RAFT's Overruling (Table 14)",
    "hateeval": "RAFT's Tweet Eval Hate (Table 14)",
}
"""Data sets of evaluation tasks -> which; all that any other task has too, so that a task's role
does not depend on which benchmarks are read beside it."""

SAME_DATA: Mapping[str, tuple[str, str]] = {
    "jigsaw": (
        "civil_comments",
        "Jigsaw's Unintended Bias data are Civil Comments with more labels",
    ),
    "winomt": ("wino_bias", "WinoMT is WinoGender and WinoBias together (arXiv 1906.00591)"),
    "wsc": ("winograd_wsc", "the Winograd schemas under another name"),
    "wsc_fiexed": ("winograd_wsc", "the Winograd schemas under another name"),
    "mwsc": ("winograd_wsc", "the Winograd schemas as questions (arXiv 1806.08730)"),
    "enhanced_wsc": ("winograd_wsc", "perturbed Winograd schemas (arXiv 2005.01348)"),
    "e_snli": ("snli", "SNLI with explanations (arXiv 1812.01193)"),
    "scitailv1.1": ("scitail", "a release of SciTail"),
    "ai2_arc": ("arc", "ARC under another name"),
    "multi_woz": ("multi_woz_v22", "an edition of MultiWOZ"),
    "roc_stories": ("rocstories", "ROCStories under another name"),
    "xl_wic": ("wic", "its English part is WiC (arXiv 2010.06478)"),
    "daily_dialog": ("dailydialog", "DailyDialog under another name"),
    "ijcnlp_dailydialog": ("dailydialog", "DailyDialog's folder, as its authors call it"),
    "sgd": ("schema_guided_dstc8", "Schema-Guided Dialogue under another name"),
    "dstc8-schema-guided-dialogue": (
        "schema_guided_dstc8",
        "Schema-Guided Dialogue's repository, as its authors call it",
    ),
    "schema_guided_dialogue": ("schema_guided_dstc8", "Schema-Guided Dialogue under another name"),
}
"""Data set as a benchmark names it -> (the name that stands for its data, reason)."""

COLLECTIONS: Mapping[str, str] = {
    "indicnlp": "a catalogue of unrelated data sets, COPA among them",
    "pasinlu": "ParsiNLU is six unrelated data sets, an entailment set among them",
    "parsinlu": "ParsiNLU is six unrelated data sets, an entailment set among them",
}
"""Sources that several tasks name without sharing data -> reason. §2.3 keeps pairs that share
only a broad origin."""

SHARED_DATA = SharedData(EVALUATED_SOURCES, SAME_DATA, COLLECTIONS)

OPT_IML = Split(
    name="opt_iml",
    summary="OPT-IML's: validation tasks of Table 15, test tasks of §5, the rest trains",
    placements=PLACEMENTS,
    categories=CATEGORY_EXCEPTIONS,
    shared_data=SHARED_DATA,
    skips_elsewhere=True,
)

_ALL_TRAIN = "every task trains, as OPT-IML-Max does"

OPT_IML_MAX = Split(
    name="opt_iml_max",
    summary="OPT-IML-Max's: every task trains, save copies of evaluation suites",
    placements=SUITE_COPIES,
    skips_elsewhere=True,
    empty_levels={"fully_held_out": _ALL_TRAIN, "partially_supervised": _ALL_TRAIN},
)
