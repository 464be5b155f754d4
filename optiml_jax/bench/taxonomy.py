"""The categories of tasks: one level, one spelling for each.

Readers name every task's category through `canonical_category`, `splits` places whole categories,
`eval` averages over them. OPT-IML never printed its full list: it followed the 76 categories of
Super-NaturalInstructions and merged the other benchmarks' clusters into them by hand. Beyond the 76
stand the names that its figures and tables show, and those that clusters of the other benchmarks
need. How their clusters map to these names is data (`tasks/tables/categories.tsv`), explained in
docs/taxonomy.md.

Source: OPT-IML (arXiv 2212.12017) §2.2, Table 15, figures 31-64; Super-NaturalInstructions
(arXiv 2204.07705), task hierarchy of release 2.
"""

from optiml_jax.errors import unknown

SUPER_NATURAL_INSTRUCTIONS_CATEGORIES = (
    "Translation",
    "Question Answering",
    "Program Execution",
    "Question Generation",
    "Sentiment Analysis",
    "Text Categorization",
    "Text Matching",
    "Toxic Language Detection",
    "Cause Effect Classification",
    "Information Extraction",
    "Textual Entailment",
    "Wrong Candidate Generation",
    "Named Entity Recognition",
    "Commonsense Classification",
    "Fill in The Blank",
    "Text Completion",
    "Sentence Composition",
    "Title Generation",
    "Language Identification",
    "Question Understanding",
    "Sentence Perturbation",
    "Answerability Classification",
    "Summarization",
    "Coreference Resolution",
    "Text Quality Evaluation",
    "Text to Code",
    "Paraphrasing",
    "Dialogue Generation",
    "Question Rewriting",
    "Word Semantics",
    "Pos Tagging",
    "Linguistic Probing",
    "Story Composition",
    "Speaker Identification",
    "Word Analogy",
    "Data to Text",
    "Stereotype Detection",
    "Negotiation Strategy Detection",
    "Dialogue Act Recognition",
    "Gender Classification",
    "Coherence Classification",
    "Explanation",
    "Ethics Classification",
    "Word Relation Classification",
    "Sentence Ordering",
    "Answer Verification",
    "Mathematics",
    "Intent Identification",
    "Keyword Tagging",
    "Code to Text",
    "Dialogue State Tracking",
    "Text Simplification",
    "Stance Detection",
    "Fact Verification",
    "Grammar Error Detection",
    "Section Classification",
    "Number Conversion",
    "Style Transfer",
    "Speaker Relation Classification",
    "Irony Detection",
    "Question Decomposition",
    "Overlap Extraction",
    "Grammar Error Correction",
    "Spelling Error Detection",
    "Entity Generation",
    "Sentence Expansion",
    "Discourse Connective Identification",
    "Discourse Relation Classification",
    "Poem Generation",
    "Entity Relation Classification",
    "Punctuation Error Detection",
    "Spam Classification",
    "Paper Review",
    "Sentence Compression",
    "Preposition Prediction",
    "Misc.",
)

OTHER_CATEGORIES = (
    # Those that OPT-IML's figures and Table 15 show.
    "Reasoning",
    "MMLU",
    "Intent Classification",
    "Text Scoring",
    "Semantic Parsing",
    "Formal-Language-to-Text",
    "Entity Linking",
    "Knowledge-Intensive Language Tasks",
    # Clusters of FLAN, T0 and CrossFit that none of the 76 names.
    "Conversational Question Answering",
    "Knowledge Probing",
    "Language Modeling",
    "Linguistic Acceptability",
    "Sentence Completion",
    "Slot Filling",
    "Text Formatting",
    "Word Sense Disambiguation",
    # Tasks that belong to no cluster of their benchmark and to none of the 76.
    "Acronym Identification",
    "Argument Mining",
    "Authorship Attribution",
    "Code Repair",
    "Dialogue Evaluation",
    "Legal Judgment Prediction",
    "Machine-Generated Text Detection",
    "Political Bias Detection",
    "Readability Assessment",
    "Recommendation",
    "Sentence Fusion",
    "Sentence Splitting",
    "Temporal Reasoning",
)

INGREDIENT_CATEGORIES = ("Dialogue", "Pre-training Text")
"""What is mixed into tuning without instructions (OPT-IML §4.5, §4.7); never evaluated."""

CATEGORIES = SUPER_NATURAL_INSTRUCTIONS_CATEGORIES + OTHER_CATEGORIES + INGREDIENT_CATEGORIES

_BY_FOLDED_NAME = {name.casefold(): name for name in CATEGORIES}


def canonical_category(name: str, where: str = "") -> str:
    """The one spelling of a category; case and outer blanks do not matter.

    Args:
        where: file and field, for the message.

    Raises:
        InputError: no category has this name; the message offers the nearest.

    Example:
        "Fill in the blank" is "Fill in The Blank".
    """
    try:
        return _BY_FOLDED_NAME[name.strip().casefold()]
    except KeyError:
        raise unknown("category", name, CATEGORIES, where) from None
