"""OPT-IML Bench as SeqIO sees it: real `seqio.Task`s and `seqio.Mixture`s.

Beside its inverse (`foreign_tasks`, `seqio_text`) the only module that imports SeqIO and
TensorFlow; nothing that trains, evaluates or prepares tasks of ours imports it. Texts come from
`rendering`, token ids from `tokenization`, rates from `mixing`: the same functions that fill a
store, so both hold the same examples (tested).

What a task gives: `inputs` and `targets` (ids; concatenated they are the joint tokenization, with
`</s>` at the end), `inputs_pretokenized`, `targets_pretokenized`, `references`, `id`. Splits:
`train` (where it has a training part) and `validation` (its evaluation part).

Overlong examples lose the left end of `inputs` (OPT-IML truncates on the left), where SeqIO by
itself would cut the right.
"""

import functools
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import seqio
import tensorflow as tf

from optiml_jax.bench import catalog, metrics, record, splits
from optiml_jax.data import mixing, rendering, tokenization, vocabularies

TRAIN_SPLIT = "train"
EVAL_SPLIT = "validation"


class SeqioVocabulary(seqio.Vocabulary):
    """Our BPE behind SeqIO's interface; SeqIO pads with 0, an id that OPT text never contains."""

    def __init__(self, vocabulary: vocabularies.Vocabulary):
        super().__init__(extra_ids=0)
        self.base = vocabulary

    @property
    def bos_id(self) -> int:
        """`</s>`: OPT's documents and prompts start with it, if with anything."""
        return self.base.eos_id

    @property
    def eos_id(self) -> int:
        """`</s>`, 2."""
        return self.base.eos_id

    @property
    def unk_id(self) -> int:
        """`<unk>`, 3; byte-level BPE never produces it."""
        return self.base.unk_id

    @property
    def _base_vocab_size(self) -> int:
        return self.base.size

    def _encode(self, s: Any) -> Sequence[int]:
        return self.base.encode(tf.compat.as_text(s))

    def _decode(self, ids: Any) -> str:
        return self.base.decode(ids)

    def _encode_tf(self, s: Any) -> Any:
        if s.shape.rank == 1:
            ragged = tf.RaggedTensorSpec([None], tf.int32, 0)
            return tf.map_fn(self._encode_tf, s, fn_output_signature=ragged)
        ids = tf.numpy_function(
            lambda text: np.asarray(self._encode(_bytes(text)), np.int32),
            [s],
            tf.int32,
            stateful=False,
        )
        return tf.ensure_shape(ids, [None])

    def _decode_tf(self, ids: Any) -> Any:
        if ids.shape.rank == 2:
            return tf.map_fn(self._decode_tf, ids, fn_output_signature=tf.string)
        text = tf.numpy_function(
            lambda row: np.asarray(self._decode(row).encode(), object), [ids], tf.string, False
        )
        return tf.ensure_shape(text, [])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SeqioVocabulary) and other.base.digest == self.base.digest

    def __hash__(self) -> int:
        return hash(self.base.digest)


class BenchSource(seqio.FunctionDataSource):
    """The source of a task of ours: by it our tasks are told from users' own.

    Attributes:
        task: what the SeqIO task was made of.
        assignment: its role and level under `config.split`.
        config: wording and split.
    """

    def __init__(
        self,
        task: catalog.BenchTask,
        assignment: splits.Assignment,
        config: rendering.RenderConfig,
    ):
        self.task = task
        self.assignment = assignment
        self.config = config
        super().__init__(
            functools.partial(_dataset, task=task, assignment=assignment, config=config),
            splits=(EVAL_SPLIT,) if assignment.role != "train" else (TRAIN_SPLIT, EVAL_SPLIT),
        )


class BenchMixture(seqio.Mixture):
    """A mixture of our tasks; `spec` is what its rates were computed by."""

    def __init__(self, *args: Any, spec: mixing.MixtureSpec, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.spec = spec


def registered_sources(benchmarks: Collection[str]) -> list[BenchSource]:
    """The sources of all registered tasks of these benchmarks, trained or not, by name."""
    found = [seqio.TaskRegistry.get(name).source for name in sorted(seqio.TaskRegistry.names())]
    return [
        source
        for source in found
        if isinstance(source, BenchSource) and source.task.spec.benchmark in benchmarks
    ]


def register_tasks(
    tasks: Sequence[catalog.BenchTask],
    assignments: Mapping[str, splits.Assignment],
    vocabulary: vocabularies.Vocabulary,
    config: rendering.RenderConfig,
) -> list[str]:
    """Adds every task that is not excluded to `seqio.TaskRegistry`; returns their names.

    A task that is registered already, with the same text and role, is left as it is: two modules of
    a user may both ask for the benchmark.

    Raises:
        ValueError: SeqIO already has another task of this name.
    """
    features = {
        name: seqio.Feature(vocabulary=SeqioVocabulary(vocabulary), add_eos=name == "targets")
        for name in ("inputs", "targets")
    }
    names = []
    for task in tasks:
        assignment = assignments[task.spec.name]
        if assignment.role == "excluded":
            continue
        names.append(task.spec.name)
        source: Any = BenchSource(task, assignment, config)
        if _is_registered(task.spec.name, source, features):
            continue
        seqio.TaskRegistry.add(
            task.spec.name,
            source=source,
            # SeqIO's own tools may cache the texts; nothing here reads such a cache.
            preprocessors=[
                seqio.CacheDatasetPlaceholder(),
                functools.partial(_tokenize, vocabulary=vocabulary),
            ],
            output_features=features,
            postprocess_fn=_postprocess,
            metric_fns=[_metric_fn(task.spec)],
            # SeqIO repeats a task before it shuffles: a larger buffer is filled with repeats.
            shuffle_buffer_size=max(1, min(1000, task.spec.num_examples)),
        )
    return names


def register_mixture(
    name: str,
    tasks: Sequence[catalog.BenchTask],
    assignments: Mapping[str, splits.Assignment],
    spec: mixing.MixtureSpec,
    config: rendering.RenderConfig,
) -> None:
    """Adds `name`, the training mixture of these registered tasks, to `seqio.MixtureRegistry`.

    Rates are computed when SeqIO first asks for one: they need every task's size. A mixture that
    is registered already, of the same tasks and `spec`, is left as it is.
    """
    trained = [t for t in tasks if assignments[t.spec.name].role == "train"]
    if name in seqio.MixtureRegistry.names():
        other = seqio.MixtureRegistry.get(name)
        same = isinstance(other, BenchMixture) and other.spec == spec
        if same and {t.name for t in other.tasks} == {t.spec.name for t in trained}:
            return

    @functools.cache
    def rates() -> dict[str, float]:
        specs = [task.spec for task in trained]
        sizes = [
            len(rendering.partition(t.spec, t.load(), assignments[t.spec.name], config).train)
            for t in trained
        ]
        return dict(zip([s.name for s in specs], mixing.mixing_rates(spec, specs, sizes).tolist()))

    seqio.MixtureRegistry.add(
        name,
        [(task.spec.name, lambda seqio_task: rates()[seqio_task.name]) for task in trained],
        mixture_cls=BenchMixture,
        spec=spec,
    )


def _is_registered(name: str, source: BenchSource, features: Mapping[str, Any]) -> bool:
    if name not in seqio.TaskRegistry.names():
        return False
    other = seqio.TaskRegistry.get(name)
    return (
        isinstance(other.source, BenchSource)
        and other.source.task.digest == source.task.digest
        and other.source.assignment == source.assignment
        and other.source.config == source.config
        and other.output_features == features
    )


def _bytes(value: Any) -> bytes:
    """What `tf.numpy_function` hands over: bytes in a graph, an array of one object when eager."""
    return np.asarray(value, object).item()


def _examples(
    task: catalog.BenchTask,
    assignment: splits.Assignment,
    config: rendering.RenderConfig,
    split: str,
) -> Iterator[record.Example]:
    content = task.load()
    parts = rendering.partition(task.spec, content, assignment, config)
    if split == EVAL_SPLIT:
        yield from rendering.eval_examples(task.spec, content, parts, config)
    else:
        yield from rendering.train_examples(task.spec, content, parts, config, rendering=0)


def _dataset(
    split: str,
    shuffle_files: bool,
    seed: int | None = None,
    *,
    task: catalog.BenchTask,
    assignment: splits.Assignment,
    config: rendering.RenderConfig,
) -> tf.data.Dataset:
    """SeqIO's dataset function; a task is one small file, so there are no files to shuffle."""
    del shuffle_files, seed

    def generate() -> Iterator[dict[str, Any]]:
        for example in _examples(task, assignment, config, split):
            yield {
                "source": example.source,
                "target": example.target,
                "references": list(example.references),
                "id": example.id,
            }

    text = tf.TensorSpec([], tf.string)
    signature = {
        "source": text,
        "target": text,
        "references": tf.TensorSpec([None], tf.string),
        "id": text,
    }
    return tf.data.Dataset.from_generator(generate, output_signature=signature)


def _tokenize(
    dataset: tf.data.Dataset,
    sequence_length: Mapping[str, int | None] | None = None,
    *,
    vocabulary: vocabularies.Vocabulary,
) -> tf.data.Dataset:
    lengths = sequence_length or {}

    def split_ids(source: Any, target: Any) -> tuple[np.ndarray, np.ndarray]:
        (one,) = tokenization.tokenize_examples(
            vocabulary, [(_bytes(source).decode(), _bytes(target).decode())]
        )
        inputs, targets = one.ids[: one.loss_start], one.ids[one.loss_start :]
        kept = [
            ids[-length:] if (length := lengths.get(name)) else ids
            for name, ids in (("inputs", inputs), ("targets", targets))
        ]
        return np.asarray(kept[0], np.int32), np.asarray(kept[1], np.int32)

    def tokenize(example: dict[str, Any]) -> dict[str, Any]:
        inputs, targets = tf.numpy_function(
            split_ids, [example["source"], example["target"]], (tf.int32, tf.int32), stateful=False
        )
        return {
            "inputs": tf.ensure_shape(inputs, [None]),
            "targets": tf.ensure_shape(targets, [None]),
            "inputs_pretokenized": example["source"],
            "targets_pretokenized": example["target"],
            "references": example["references"],
            "id": example["id"],
        }

    return dataset.map(tokenize, num_parallel_calls=tf.data.AUTOTUNE)


def _postprocess(output: str, example: Mapping[str, Any], is_target: bool) -> Any:
    """SeqIO calls this on both sides: references for a target, the text for a prediction."""
    if is_target:
        return [reference.decode() for reference in example["references"]]
    return output


def _metric_fn(task: catalog.TaskSpec) -> Any:
    metric = metrics.make_metric(task.metric, task.output_languages, vocabularies.gpt2_pieces)

    def mean_score(
        targets: Sequence[Sequence[str]], predictions: Sequence[str]
    ) -> dict[str, float]:
        scores = [metric(p, references) for p, references in zip(predictions, targets)]
        return {task.metric: float(np.mean(scores))}

    return mean_score
