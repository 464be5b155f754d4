"""Super-NaturalInstructions: task files in the official schema, with the official split lists.

They lie in a folder, or prepared by TFDS (`tfds_builders/super_natural_instructions`): one split a
task, the rest of the task in the metadata.

Source: Wang et al. 2022 (arXiv 2204.07705); OPT-IML (arXiv 2212.12017) Table 1 uses version 2.6.
"""

import functools
import hashlib
import json
import pathlib
import re
from collections.abc import Mapping
from typing import Any

from optiml_jax.bench import splits
from optiml_jax.bench.sources import super_natural_instructions as reader
from optiml_jax.data import tfds_rows
from optiml_jax.errors import InputError

from .declaration import Benchmark, ReadResult, Request

TFDS_NAME = "super_natural_instructions"
OFFICIAL_LISTS = "official split lists"
"""Key of the metadata beside the splits' names: track -> lists."""
TASK = "Task"
"""Field of a split's metadata: the name of its task."""


def split_name(task: str) -> str:
    """A task's name as TFDS allows it for a split."""
    return re.sub(r"\W", "_", task)


def _read(request: Request) -> ReadResult:
    if request.data_dir is None and request.tfds_data_dir is not None:
        return _read_tfds(request, request.tfds_data_dir)
    folder = request.folder()
    return ReadResult(
        tasks=reader.read(folder, request.skip_bad, request.on_skip),
        official=official_lists(folder),
    )


def official_lists(folder: pathlib.Path) -> dict[str, splits.OfficialLists]:
    """The lists beside the tasks by track; only a split by them minds lists that cannot be used."""
    found = {}
    for track in reader.TRACKS:
        try:
            lists = reader.read_official_lists(folder, track)
        except InputError as error:
            lists = splits.OfficialLists(str(folder), train=(), test=(), problem=str(error))
        if lists is not None:
            found[track] = lists
    return found


def _read_tfds(request: Request, tfds_data_dir: str) -> ReadResult:
    opened = tfds_rows.open_rows(
        TFDS_NAME, tfds_data_dir, download=request.tfds_download, all_splits=True
    )
    sources = []
    for split in sorted(opened.splits):
        name = json.loads(opened.metadata[split])[TASK]
        read = functools.partial(_task, opened, split)
        sources.append(reader.TaskSource(name, f"{opened.where}, {split}", read))
    tasks = reader.read_sources(sources, opened.where, request.skip_bad, request.on_skip)
    found = json.loads(opened.metadata.get(OFFICIAL_LISTS, "{}"))
    return ReadResult(tasks, {track: _official(one, opened.where) for track, one in found.items()})


def _task(opened: tfds_rows.TfdsRows, split: str) -> tuple[Mapping[str, Any], str]:
    kept = opened.metadata[split]
    digest = hashlib.sha256(f"{opened.digest((split,))}\0{kept}".encode()).hexdigest()
    return {**json.loads(kept), "Instances": list(opened.read(split))}, digest


def _official(lists: Mapping[str, Any], where: str) -> splits.OfficialLists:
    train, test, excluded, dev = (tuple(lists[x]) for x in ("train", "test", "excluded", "dev"))
    return splits.OfficialLists(where, train, test, excluded, dev, problem=lists.get("problem", ""))


BENCHMARK = Benchmark(
    name="super_natural_instructions",
    summary="a folder like the official repository's (tasks/*.json, splits/), or just task files",
    read=_read,
    tfds=True,
)
