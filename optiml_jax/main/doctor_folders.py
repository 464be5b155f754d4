"""Checks of what a user has made, for `optiml doctor`: task files, a store, a run."""

import pathlib

# setup.py maps the folder tasks/ to this name, which pyright does not know.
from optiml_jax import tasks as declarations  # pyright: ignore[reportAttributeAccessIssue]
from optiml_jax.data import store as store_lib
from optiml_jax.data import vocabularies
from optiml_jax.errors import InputError
from optiml_jax.main.doctor_checks import Finding
from optiml_jax.main.run_record import CONFIG_NAME

TASK_FILES_OF = "super_natural_instructions"
"""The benchmark whose file format a folder of task files is read as."""


def check_data_dir(path: str) -> list[Finding]:
    """Whether a folder holds task files that `optiml prepare` can read."""
    notes: list[str] = []
    try:
        tasks, _ = declarations.read(
            TASK_FILES_OF, pathlib.Path(path), "opt_iml", skip_bad=True, on_skip=notes.append
        )
    except InputError as error:
        return [Finding("problem", "data_dir", str(error))]
    skipped = [note for note in notes if note.startswith("skipped")]
    found = f"{path}: {len(tasks):,} tasks that can be read as {TASK_FILES_OF}"
    if skipped:
        advice = f"{skipped[0]} Mend the files, or prepare with --skip_bad."
        return [Finding("warning", "data_dir", f"{found}, {len(skipped):,} that cannot", advice)]
    told = f", {len(notes):,} with instances that are left out" if notes else ""
    return [Finding("ok", "data_dir", found + told)]


def check_store(path: str) -> list[Finding]:
    """Whether a store opens, its files are whole and its vocabulary is the one of its ids."""
    try:
        store = store_lib.open_store(path)
        vocabulary = store.vocabulary()
    except InputError as error:
        return [Finding("problem", "store", str(error))]
    num_examples = sum(task.num_train for task in store.tasks)
    found = (
        f"{path}: {len(store.tasks):,} tasks, {num_examples:,} training examples, vocabulary"
        f" {vocabulary.name} ({vocabulary.size:,}), split {store.meta['split']}"
    )
    if not num_examples:
        advice = "It can be evaluated on, not trained on. For training, prepare another --split."
        return [Finding("warning", "store", found, advice)]
    return [Finding("ok", "store", found)]


def check_run(path: str) -> list[Finding]:
    """Whether a run's model, vocabulary, configuration and checkpoints can be read."""
    from optiml_jax.main import checks  # Orbax and JAX

    folder = checks.model_dir_of(path)
    if not folder.is_dir():
        advice = "Give the MODEL_DIR of `optiml train`."
        return [Finding("problem", "run", f"'{folder}' does not exist.", advice)]
    try:
        card, step = checks.read_checkpoint(path)
    except InputError as error:
        return [Finding("problem", "run", str(error))]
    found = f"{folder}: step {step:,}, {card.config.num_params():,} parameters"
    findings = [Finding("ok", "run", found)]
    try:
        vocabulary = vocabularies.load_vocabulary(folder / store_lib.VOCABULARY_FOLDER)
        checks.check_vocabulary(card.config, vocabulary, f"run '{folder}'")
    except InputError as error:
        findings.append(Finding("problem", "run vocabulary", str(error)))
    else:
        found = f"{vocabulary.name}, {vocabulary.size:,} ids"
        findings.append(Finding("ok", "run vocabulary", found))
    if (folder / CONFIG_NAME).is_file():
        findings.append(Finding("ok", "run config", str(folder / CONFIG_NAME)))
    else:
        advice = "The run cannot be repeated from its folder; keep the command that started it."
        findings.append(Finding("warning", "run config", f"no {CONFIG_NAME} in {folder}", advice))
    return findings
