"""Three SeqIO tasks of one's own, and a mixture of them with the embedded mini benchmark.

Plain SeqIO: copy this folder, change the names and the data. What SeqIO has no field for stands in
the table `OPTIML`. docs/register_your_tasks.md walks through it.

    my_plural     has a `train` split: it trains; its `validation` split is evaluated
    my_singular   has no `train` split, in a category that `my_plural` trains: partially supervised
    my_parity     has no `train` split, in a category that nothing trains: fully held out
"""

import json
import pathlib

import seqio
import tensorflow as tf

from optiml_jax import tasks

ROWS = [
    json.loads(line)
    for line in (pathlib.Path(__file__).parent / "nouns.jsonl").read_text("utf-8").splitlines()
]

OPTIML = {
    "my_plural": {"category": "Linguistic Probing", "metric": "exact_match"},
    "my_singular": {"category": "Linguistic Probing", "metric": "exact_match"},
    "my_parity": {"category": "Letter Counting", "metric": "accuracy", "options": ["odd", "even"]},
}

# The benchmark as SeqIO tasks and as the mixture "mini".
tasks.register("mini")
# Its vocabulary, so that SeqIO can stream the mixture too. Any other would do for `optiml`, which
# takes the text and tokenizes it itself.
FEATURES = seqio.get_mixture_or_task("mini").output_features


def rows_of(split, shuffle_files, seed=None):
    """The rows of a split: the last twelve are not trained on."""
    del shuffle_files, seed
    rows = ROWS[:-12] if split == "train" else ROWS[-12:]
    columns = {name: [row[name] for row in rows] for name in ("noun", "plural")}
    return tf.data.Dataset.from_tensor_slices(columns)


@seqio.map_over_dataset
def plural(row):
    """Asks for the plural of a noun."""
    return {"inputs": "What is the plural of " + row["noun"] + "?", "targets": row["plural"]}


@seqio.map_over_dataset
def singular(row):
    """Asks for the singular of a noun."""
    return {"inputs": "What is the singular of " + row["plural"] + "?", "targets": row["noun"]}


@seqio.map_over_dataset
def parity(row):
    """Asks whether a noun has an odd or an even number of letters."""
    is_odd = tf.strings.length(row["noun"]) % 2 == 1
    return {
        "inputs": "Has the word " + row["noun"] + " an odd or an even number of letters?",
        "targets": tf.where(is_odd, "odd", "even"),
    }


for name, ask, splits in (
    ("my_plural", plural, ["train", "validation"]),
    ("my_singular", singular, ["test"]),
    ("my_parity", parity, ["test"]),
):
    seqio.TaskRegistry.add(
        name,
        source=seqio.FunctionDataSource(rows_of, splits=splits),
        preprocessors=[ask, seqio.preprocessors.tokenize, seqio.preprocessors.append_eos],
        output_features=FEATURES,
    )

seqio.MixtureRegistry.add(
    "my_mixture",
    [("my_plural", 0.3), ("mini", 0.7), ("my_singular", 0.0), ("my_parity", 0.0)],
)
