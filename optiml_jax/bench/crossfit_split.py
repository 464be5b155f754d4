"""CrossFit's published partitions, as data: a split `crossfit_PARTITION` for each of its eight.

Its training list trains, its dev list is for validation and its test list for test. Levels:
1. A partition that trains on none of a kind of task and tests that kind (`KINDS`) reports the
   tested tasks under that kind, and they are `fully_held_out`.
2. In the others a tested task is `fully_held_out` where no training task of the partition has its
   category in the catalog (`UNSEEN`), else `partially_supervised`.

Differences from the release: `sick` is in the training and the dev list of the partition that
holds out inference. It is one of inference, so it stays in dev and does not train.

The 145 tasks that OPT-IML has from another benchmark are tasks like any other here.

Source: CrossFit (arXiv 2104.08835) §3, Table 1; INK-USC/CrossFit, dataloader/custom_tasks_splits.
"""

from collections.abc import Mapping

from optiml_jax.bench import catalog
from optiml_jax.bench.split_rules import Assignment, Placement, Split

BENCHMARK = "crossfit"

PARTITIONS: Mapping[str, Mapping[str, str]] = {
    "random": {
        "train": """
            glue-mrpc math_qa quarel e2e_nlg_cleaned tweet_eval-stance_atheism lama-squad
            tab_fact aqua_rat tweet_eval-emoji glue-wnli codah tweet_eval-offensive wiki_qa
            blimp-ellipsis_n_bar_1 openbookqa sms_spam acronym_identification
            blimp-determiner_noun_agreement_with_adj_irregular_1 ethos-national_origin spider
            definite_pronoun_resolution hellaswag superglue-wsc numer_sense
            ade_corpus_v2-dosage blimp-ellipsis_n_bar_2 kilt_ay2 squad-no_context
            google_wellformed_query xsum wiqa tweet_eval-stance_abortion reddit_tifu-tldr
            ade_corpus_v2-effect qa_srl ethos-religion commonsense_qa jeopardy biomrc
            superglue-multirc ethos-race eli5-askh glue-qqp paws ethos-directed_vs_generalized
            glue-sst2 mocha tweet_eval-hate glue-rte blimp-anaphor_number_agreement
            lama-conceptnet hate_speech_offensive superglue-wic boolq kilt_hotpotqa
            quartz-no_knowledge aslg_pc12 sick tweet_eval-stance_climate tweet_eval-sentiment
            crows_pairs glue-mnli medical_questions_pairs break-QDMR-high-level qasc imdb
            ethos-gender trec-finegrained adversarialqa onestop_english web_questions duorc
            yelp_review_full swag proto_qa scitail tweet_eval-stance_feminist limit common_gen
            scicite blimp-irregular_past_participle_adjectives social_i_qa anli kilt_zsre
            cosmos_qa superglue-record squad-with_context emotion
            blimp-existential_there_quantifiers_1 race-middle kilt_wow sciq wino_grande
            rotten_tomatoes superglue-cb poem_sentiment ropes reddit_tifu-title piqa
            climate_fever lama-google_re search_qa wiki_auto mc_taco
            blimp-wh_questions_object_gap hotpot_qa emo kilt_nq kilt_trex
            quartz-with_knowledge dbpedia_14 yahoo_answers_topics app_reviews superglue-copa
            blimp-anaphor_gender_agreement hate_speech18 gigaword multi_news aeslc quail
        """,
        "dev": """
            cos_e kilt_fever eli5-asks trec eli5-eli5 art empathetic_dialogues tweet_qa
            wikisql lama-trex tweet_eval-stance_hillary discovery tweet_eval-emotion liar
            wiki_bio dream ade_corpus_v2-classification health_fact samsum
            financial_phrasebank
        """,
        "test": """
            quoref wiki_split ethos-disability yelp_polarity superglue-rte glue-cola
            ethos-sexual_orientation blimp-sentential_negation_npi_scope ai2_arc
            amazon_polarity race-high blimp-sentential_negation_npi_licensor_present
            tweet_eval-irony break-QDMR crawl_domain freebase_qa glue-qnli hatexplain ag_news
            circa
        """,
    },
    "train_classification_test_classification": {
        "train": """
            superglue-rte tweet_eval-sentiment discovery glue-rte superglue-wsc scicite
            glue-mrpc tweet_eval-stance_hillary tweet_eval-offensive emotion hatexplain
            glue-cola sick paws ethos-sexual_orientation glue-qqp tweet_eval-emotion sms_spam
            health_fact glue-mnli imdb ethos-disability glue-wnli scitail trec-finegrained
            yahoo_answers_topics liar glue-sst2 tweet_eval-stance_abortion circa
            tweet_eval-stance_climate glue-qnli tweet_eval-emoji ethos-directed_vs_generalized
            ade_corpus_v2-classification wiki_auto hate_speech_offensive superglue-wic
            google_wellformed_query tweet_eval-irony ethos-gender onestop_english trec
            rotten_tomatoes kilt_fever
        """,
        "dev": """
            tweet_eval-stance_feminist ethos-national_origin tweet_eval-hate ag_news
            amazon_polarity hate_speech18 poem_sentiment climate_fever medical_questions_pairs
            tweet_eval-stance_atheism
        """,
        "test": """
            superglue-cb dbpedia_14 wiki_qa emo yelp_polarity ethos-religion
            financial_phrasebank tab_fact anli ethos-race
        """,
    },
    "train_nonclassification_test_classification": {
        "train": """
            ade_corpus_v2-dosage art biomrc blimp-anaphor_number_agreement
            blimp-ellipsis_n_bar_2 blimp-sentential_negation_npi_licensor_present
            blimp-sentential_negation_npi_scope break-QDMR-high-level commonsense_qa
            crows_pairs dream duorc eli5-asks eli5-eli5 freebase_qa gigaword hellaswag
            hotpot_qa kilt_ay2 kilt_hotpotqa kilt_trex kilt_zsre lama-conceptnet
            lama-google_re lama-squad math_qa numer_sense openbookqa piqa proto_qa qa_srl
            quarel quartz-no_knowledge race-high reddit_tifu-title reddit_tifu-tldr ropes sciq
            social_i_qa spider superglue-multirc wiki_bio wikisql xsum yelp_review_full
        """,
        "dev": """
            tweet_eval-stance_feminist ethos-national_origin tweet_eval-hate ag_news
            amazon_polarity hate_speech18 poem_sentiment climate_fever medical_questions_pairs
            tweet_eval-stance_atheism
        """,
        "test": """
            superglue-cb dbpedia_14 wiki_qa emo yelp_polarity ethos-religion
            financial_phrasebank tab_fact anli ethos-race
        """,
    },
    "train_halfhalf_test_classification": {
        "train": """
            ade_corpus_v2-dosage biomrc blimp-ellipsis_n_bar_2
            blimp-sentential_negation_npi_scope commonsense_qa crows_pairs duorc hellaswag
            kilt_zsre lama-google_re lama-squad math_qa numer_sense openbookqa piqa proto_qa
            quartz-no_knowledge race-high reddit_tifu-tldr ropes sciq wiki_bio discovery
            emotion ethos-disability ethos-sexual_orientation glue-cola glue-mnli glue-mrpc
            glue-qqp glue-rte glue-wnli hatexplain health_fact imdb paws scicite sick sms_spam
            superglue-rte superglue-wsc tweet_eval-emotion tweet_eval-offensive
            tweet_eval-sentiment tweet_eval-stance_hillary
        """,
        "dev": """
            tweet_eval-stance_feminist ethos-national_origin tweet_eval-hate ag_news
            amazon_polarity hate_speech18 poem_sentiment climate_fever medical_questions_pairs
            tweet_eval-stance_atheism
        """,
        "test": """
            superglue-cb dbpedia_14 wiki_qa emo yelp_polarity ethos-religion
            financial_phrasebank tab_fact anli ethos-race
        """,
    },
    "train_non_nli_test_nli": {
        "train": """
            ade_corpus_v2-classification ag_news amazon_polarity circa climate_fever
            dbpedia_14 discovery emo emotion ethos-directed_vs_generalized ethos-disability
            ethos-gender ethos-national_origin ethos-race ethos-religion
            ethos-sexual_orientation financial_phrasebank glue-cola glue-mrpc glue-qqp
            glue-sst2 google_wellformed_query hate_speech18 hate_speech_offensive hatexplain
            health_fact imdb kilt_fever liar medical_questions_pairs onestop_english paws
            poem_sentiment rotten_tomatoes scicite sms_spam superglue-wic superglue-wsc
            tab_fact trec trec-finegrained tweet_eval-emoji tweet_eval-emotion tweet_eval-hate
            tweet_eval-irony tweet_eval-offensive tweet_eval-sentiment
            tweet_eval-stance_abortion tweet_eval-stance_atheism tweet_eval-stance_climate
            tweet_eval-stance_feminist tweet_eval-stance_hillary wiki_auto wiki_qa
            yahoo_answers_topics yelp_polarity
        """,
        "dev": """
            anli glue-mnli glue-qnli glue-rte glue-wnli scitail sick superglue-cb
        """,
    },
    "train_nonparaphrase_classification_test_paraphrase": {
        "train": """
            ade_corpus_v2-classification ag_news amazon_polarity anli circa climate_fever
            dbpedia_14 discovery emo emotion ethos-directed_vs_generalized ethos-disability
            ethos-gender ethos-national_origin ethos-race ethos-religion
            ethos-sexual_orientation financial_phrasebank glue-cola glue-mnli glue-qnli
            glue-rte glue-sst2 glue-wnli google_wellformed_query hate_speech18
            hate_speech_offensive hatexplain health_fact imdb kilt_fever liar onestop_english
            poem_sentiment rotten_tomatoes scicite scitail sick sms_spam superglue-cb
            superglue-rte superglue-wic superglue-wsc tab_fact trec trec-finegrained
            tweet_eval-emoji tweet_eval-emotion tweet_eval-hate tweet_eval-irony
            tweet_eval-offensive tweet_eval-sentiment tweet_eval-stance_abortion
            tweet_eval-stance_atheism tweet_eval-stance_climate tweet_eval-stance_feminist
            tweet_eval-stance_hillary wiki_auto wiki_qa yahoo_answers_topics yelp_polarity
        """,
        "dev": """
            glue-mrpc glue-qqp medical_questions_pairs paws
        """,
    },
    "train_non_mrc_qa_test_mrc": {
        "train": """
            ai2_arc aqua_rat boolq codah commonsense_qa cosmos_qa dream eli5-askh eli5-asks
            eli5-eli5 freebase_qa hellaswag jeopardy kilt_hotpotqa kilt_nq kilt_trex kilt_zsre
            lama-conceptnet lama-google_re lama-squad lama-trex math_qa mc_taco numer_sense
            openbookqa qasc quail quarel quartz-no_knowledge quartz-with_knowledge race-high
            race-middle sciq search_qa social_i_qa squad-no_context superglue-copa
            superglue-multirc swag web_questions wino_grande wiqa
        """,
        "dev": """
            adversarialqa biomrc duorc hotpot_qa quoref ropes squad-with_context
            superglue-record tweet_qa
        """,
    },
    "train_non_multiple_choice_qa_test_multiple_choice": {
        "train": """
            adversarialqa biomrc boolq duorc eli5-askh eli5-asks eli5-eli5 freebase_qa
            hotpot_qa jeopardy kilt_hotpotqa kilt_nq kilt_trex kilt_zsre lama-conceptnet
            lama-google_re lama-squad lama-trex mc_taco numer_sense quoref ropes search_qa
            squad-no_context squad-with_context superglue-multirc superglue-record tweet_qa
            web_questions
        """,
        "dev": """
            ai2_arc aqua_rat codah commonsense_qa cosmos_qa dream hellaswag math_qa openbookqa
            qasc quail quarel quartz-no_knowledge quartz-with_knowledge race-high race-middle
            sciq social_i_qa superglue-copa swag wino_grande wiqa
        """,
    },
}
"""Partition, by the name of its file -> list -> tasks."""

KINDS: Mapping[str, str] = {
    "train_nonclassification_test_classification": "Classification",
    "train_non_nli_test_nli": "Natural Language Inference",
    "train_nonparaphrase_classification_test_paraphrase": "Paraphrase Identification",
    "train_non_mrc_qa_test_mrc": "Machine Reading Comprehension",
    "train_non_multiple_choice_qa_test_multiple_choice": "Multiple-Choice QA",
}
"""Partition -> the kind of task, in CrossFit's words, that it tests and never trains on."""

UNSEEN: Mapping[str, str] = {
    "random": """
        cos_e art discovery wiki_split glue-cola tweet_eval-irony crawl_domain glue-qnli
    """,
    "train_classification_test_classification": """
        wiki_qa
    """,
    "train_halfhalf_test_classification": """
        ag_news dbpedia_14 wiki_qa
    """,
}
"""Partition -> those of its dev and test tasks whose category in the catalog no training task of
it has."""

_ROLES = {"train": "train", "dev": "validation", "test": "test"}


def _rows(partition: str) -> tuple[Placement, ...]:
    kind = KINDS.get(partition, "")
    unseen = set(UNSEEN.get(partition, "").split())
    rows = []
    for listed, tasks in PARTITIONS[partition].items():
        for task in tasks.split():
            reason = f"in the {listed} list of CrossFit's partition"
            if listed == "train":
                row = (_ROLES[listed], "fully_supervised", reason)
            elif kind:
                reason += f", which trains on no {kind}"
                row = (_ROLES[listed], "fully_held_out", reason, kind)
            elif task in unseen:
                row = (
                    _ROLES[listed],
                    "fully_held_out",
                    reason + "; its category is not trained on",
                )
            else:
                row = (_ROLES[listed], "partially_supervised", reason)
            rows.append(Placement("name", catalog.task_name(BENCHMARK, task), *row))
    return tuple(rows)


SPLITS = tuple(
    Split(
        name=f"crossfit_{partition}",
        summary=f"CrossFit's partition {partition}",
        placements=_rows(partition),
        default=Assignment("excluded", "", "in none of the partition's lists"),
        benchmarks=(BENCHMARK,),
        empty_levels=(
            {"partially_supervised": "the partition holds out a whole kind of task"}
            if partition in KINDS
            else {}
        ),
    )
    for partition in PARTITIONS
)
