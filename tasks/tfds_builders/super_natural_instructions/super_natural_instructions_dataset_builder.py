"""Super-NaturalInstructions as one data set of TensorFlow Datasets, from local task files.

Every task is a split (`task001_quoref_question_generation`), its instances the rows.
What else is read of a task's file (definition, demonstrations, categories, licences) is kept in the
data set's metadata under the task's name, the official split lists under `OFFICIAL_LISTS`, so that
`optiml prepare --tfds_data_dir` reads the same tasks as from the files.

TensorFlow Datasets has a data set `natural_instructions` of its own, which downloads a release by
another group, all tasks in one split.

Source: Wang et al. 2022 (arXiv 2204.07705), schema in tasks/README.md of its repository.
"""

import dataclasses
import json
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import tensorflow_datasets as tfds
from etils import epath

from optiml_jax.bench.sources import super_natural_instructions as reader
from optiml_jax.tasks.super_natural_instructions import (  # pyright: ignore[reportMissingImports]
    OFFICIAL_LISTS,
    TASK,
    TFDS_NAME,
    official_lists,
    split_name,
)


class Builder(tfds.core.GeneratorBasedBuilder):
    """Builds from `--manual_dir`: the official repository, or a folder of task files."""

    name = TFDS_NAME
    # TFDS would look for it by the module's name, which setup.py maps to another folder.
    code_path = epath.Path(__file__)
    pkg_dir_path = code_path.parent
    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES: ClassVar = {"1.0.0": "Instances by task; all else of a task in the metadata."}
    MANUAL_DOWNLOAD_INSTRUCTIONS = f"Clone {reader.REPOSITORY} and give its folder as --manual_dir."

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description="1,613 tasks with instructions in natural language; one split a task.",
            features=tfds.features.FeaturesDict(
                {
                    "id": tfds.features.Text(),
                    "input": tfds.features.Text(),
                    "output": tfds.features.Sequence(tfds.features.Text()),
                }
            ),
            homepage=reader.REPOSITORY,
            metadata=tfds.core.MetadataDict(),
            # Instances keep the file's order.
            disable_shuffling=True,
        )

    def _split_generators(
        self, dl_manager: tfds.download.DownloadManager
    ) -> dict[str, Iterator[tuple[int, Mapping[str, Any]]]]:
        # Every file is checked before the first is written.
        reader.read(dl_manager.manual_dir)
        splits = {}
        metadata: Any = self.info.metadata
        for path in reader.task_files(dl_manager.manual_dir):
            task, _ = reader.read_json(path)
            kept = {name: task[name] for name in reader.FIELDS if name in task}
            split = split_name(path.stem)
            metadata[split] = json.dumps({TASK: path.stem, **kept}, ensure_ascii=False)
            splits[split] = self._generate_examples(path)
        lists = official_lists(pathlib.Path(dl_manager.manual_dir))
        if lists:
            found = {track: dataclasses.asdict(one) for track, one in lists.items()}
            metadata[OFFICIAL_LISTS] = json.dumps(found)
        return splits

    def _generate_examples(self, path: Any) -> Iterator[tuple[int, Mapping[str, Any]]]:
        task, _ = reader.read_json(path)
        for number, row in enumerate(task["Instances"]):
            yield number, {name: row[name] for name in ("id", "input", "output")}
