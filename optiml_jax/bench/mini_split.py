"""The split `mini`: which tasks of the embedded mini benchmark are held out, and why.

Matching is by category and by the task's own name, so the split gives any other task the role
`train`.
"""

from optiml_jax.bench.split_rules import Placement, Split

HELD_OUT_CATEGORIES = (
    "Cause Effect Classification",
    "Coreference Resolution",
    "Overlap Extraction",
    "Textual Entailment",
)
"""Three that OPT-IML never trains on either (Table 15, §5.4), and a fourth whose tasks ask for
skills that trained categories teach."""

HELD_OUT_TASKS = (
    # A kind of thing that the category's other tasks do not ask about.
    "extract_drink",
    "extract_vehicle",
    "question_place",
    "question_tree",
    "mentions_tool",
    "mentions_garment",
    "choose_vehicle",
    "choose_sport",
    "keywords_garment",
    "keywords_drink",
    "odd_one_out_instrument",
    "odd_one_out_tree",
    "keep_country",
    "keep_fruit",
    "count_drink",
    "blank_tree",
    "blank_garment",
    "answerable_color",
    "title_instrument",
    "ask_metal",
    "who_sport",
    "verify_place",
    # A subject that no other sentiment task has.
    "sentiment_music",
    "sentiment_matches",
    # A longer text, another order, another way to link two clauses.
    "fact_detail_of_two",
    "list_first_and_last",
    "why_therefore",
)
"""Unseen tasks of categories that are trained on."""

MINI = Split(
    name="mini",
    summary="the embedded mini benchmark's: unseen tasks and unseen categories",
    placements=(
        *(
            Placement(
                *("task", name, "validation", "partially_supervised"),
                "unseen task of the mini split",
            )
            for name in HELD_OUT_TASKS
        ),
        *(
            Placement(
                *("category", name, "test", "fully_held_out"), "unseen category of the mini split"
            )
            for name in HELD_OUT_CATEGORIES
        ),
    ),
)
