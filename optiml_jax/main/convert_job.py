"""What `optiml convert` does: opens a source, checks it, and writes a target beside its name.

    open_source --> Source (config, vocabulary, arrays not yet read) --load--> parameters on a mesh
        --> MODEL_DIR (`train/checkpoints`) or a Hugging Face folder (`interop/huggingface_folder`)

The target grows under `<name>.partial` and is renamed when it is whole. Neighbours: `interop`
reads and writes files, this module decides what is said.
"""

import argparse
import contextlib
import dataclasses
import fcntl
import json
import math
import pathlib
import re
import shutil
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from optiml_jax import errors, types
from optiml_jax.data import store as store_lib
from optiml_jax.data import vocabularies
from optiml_jax.data.vocabularies import Vocabulary
from optiml_jax.errors import InputError
from optiml_jax.interop import huggingface, huggingface_folder, metaseq, tokenizer_files
from optiml_jax.interop.stored import Stored
from optiml_jax.main import checks
from optiml_jax.model import partitioning
from optiml_jax.model.config import NORM_PLACEMENTS, OptConfig
from optiml_jax.model.partitioning import MeshConfig
from optiml_jax.train import checkpoints

UNITS = {"KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}
DEFAULT_SHARD_BYTES = 5 * UNITS["GB"]
# Without a terminal, a line for every tenth of a model that takes minutes.
QUIET_BYTES = 4 * 10**9
PARTIAL = ".partial"


@dataclasses.dataclass(frozen=True)
class Source:
    """A model to convert, its weights not yet read.

    Attributes:
        kind: "hf", "metaseq" or "checkpoint".
        tokenizer: the folder of the vocabulary.
        arrays: by Hugging Face's names; None for a checkpoint of ours.
        files: that hold the weights.
        inert: names of pickled classes that were not loaded.
    """

    kind: str
    where: str
    config: OptConfig
    vocabulary: Vocabulary
    tokenizer: pathlib.Path
    prompt_prefix: str
    step: int
    arrays: Mapping[str, Stored] | None
    files: Sequence[pathlib.Path]
    inert: Sequence[str] = ()
    copies: metaseq.Checkpoint | None = None

    def to_json(self) -> dict[str, Any]:
        """What was found, for people's programs."""
        return {
            "kind": self.kind,
            "path": self.where,
            "num_params": self.config.num_params(),
            "dtypes": self.dtypes(),
            "num_files": len(self.files),
            "num_bytes": sum(path.stat().st_size for path in self.files),
            "step": self.step,
            "prompt_prefix": self.prompt_prefix,
            "vocabulary": {
                "name": tokenizer_files.told_name(self.vocabulary, self.tokenizer),
                "size": self.vocabulary.size,
            },
            "unread_classes": list(self.inert),
            "architecture": self.config.architecture(),
        }

    def dtypes(self) -> list[str]:
        """Names of the dtypes in the files."""
        arrays = (self.arrays or {}).values()
        return sorted({one.dtype.name for one in arrays}) if self.arrays else ["float32"]


def run(args: argparse.Namespace) -> int:
    """Converts as the flags say; prints what was read and written."""
    begun = time.perf_counter()
    target = pathlib.Path(args.out or args.to_hf).absolute()
    dtype, max_shard_bytes = _dtype(args.dtype), _size(args.max_shard_size)
    _check_free(target)
    if jax.process_count() > 1:
        raise InputError("optiml convert runs in one process. Start it on one host.")
    source = open_source(args)
    mesh = _mesh(args.mesh, source.config)
    if args.to_hf is not None:
        huggingface_folder.check_writable(source.config, dtype)
    content: dict[str, Any] = {"source": source.to_json(), "dry_run": args.dry_run}
    if not args.json:
        print(_describe(source), flush=True)
    if not args.dry_run:
        params = load(source, mesh, args)
        _save(args, source, params, target, dtype, max_shard_bytes, content)
        content["seconds"] = round(time.perf_counter() - begun, 3)
    if args.json:
        print(json.dumps(content, indent=1, ensure_ascii=False))
    elif args.dry_run:
        print(f"checked: every tensor is there and fits; nothing was read or written to {target}")
    else:
        print(_told(content["target"], content["seconds"]))
    return 0


def open_source(args: argparse.Namespace) -> Source:
    """Opens what the flags name and compares every name and shape with its config.

    Raises:
        InputError: something is missing, damaged or does not fit.
    """
    if args.from_checkpoint is not None:
        return _open_checkpoint(args.from_checkpoint)
    checkpoint = None
    inert: Sequence[str] = ()
    if args.from_hf is not None:
        where = folder = args.from_hf
        found = huggingface_folder.open_folder(pathlib.Path(folder))
        config, arrays, files = found.config, found.arrays, found.files
        advice = "Nothing was written. Fetch the files again, or correct config.json."
    else:
        where = ", ".join(args.from_metaseq)
        if args.norm_placement not in (None, *NORM_PLACEMENTS):
            raise errors.unknown("--norm_placement", args.norm_placement, NORM_PLACEMENTS)
        checkpoint = metaseq.open_checkpoint(args.from_metaseq)
        config = metaseq.infer_config(
            checkpoint, args.num_heads, args.norm_placement, args.max_listed
        )
        arrays, files, inert = checkpoint.arrays, checkpoint.files, checkpoint.inert
        folder = str(files[0].parent)
        advice = metaseq.ADVICE
    problems = (
        metaseq.check(checkpoint, config) if checkpoint else huggingface.check(arrays, config)
    )
    if problems:
        raise huggingface.refuse(where, problems, advice, args.max_listed)
    tokenizer = pathlib.Path(args.vocabulary or folder)
    vocabulary = tokenizer_files.read_vocabulary(tokenizer)
    if vocabulary.size != config.vocab_size:
        raise InputError(
            f"{where}: the model has {config.vocab_size:,} embedding rows, the vocabulary in "
            f"{tokenizer} needs {vocabulary.size:,} ({vocabulary.num_pieces:,} "
            "pieces). Give the model's own tokenizer files with --vocabulary=DIR."
        )
    prefix = vocabularies.SPECIAL_PIECES[types.EOS_ID]
    if args.from_hf is not None:
        prefix = tokenizer_files.read_prompt_prefix(tokenizer)
    kind = "metaseq" if checkpoint else "hf"
    return Source(
        *(kind, where, config, vocabulary, tokenizer),
        *(prefix, 0, arrays, files, inert, checkpoint),
    )


def _open_checkpoint(path: str) -> Source:
    card, step = checks.read_checkpoint(path)
    folder = checks.model_dir_of(path)
    tokenizer = folder / store_lib.VOCABULARY_FOLDER
    vocabulary = vocabularies.load_vocabulary(tokenizer)
    if vocabulary.size != card.config.vocab_size:
        raise InputError(
            f"{folder}: its vocabulary has {vocabulary.size:,} ids, its model "
            f"{card.config.vocab_size:,}. Restore the folder from the run."
        )
    arrays = folder / "checkpoints" / str(step)
    files = [one for one in arrays.rglob("*") if one.is_file()]
    return Source(
        *("checkpoint", path, card.config, vocabulary, tokenizer),
        *(card.prompt_prefix, step, None, files),
    )


def load(source: Source, mesh: Mesh, args: argparse.Namespace) -> dict[str, Any]:
    """The parameters on the mesh.

    Raises:
        InputError: values that are not finite, or copies that are not equal; all are named.
    """
    progress = _Progress("reading", 4 * source.config.num_params())
    if source.arrays is None:
        _, params, _ = checkpoints.load_params(source.where, mesh, step=source.step)
        problems = [
            f"not finite  {jax.tree_util.keystr(path, simple=True, separator='/')}"
            for path, leaf in jax.tree.leaves_with_path(params)
            if not jnp.isfinite(leaf).all()
        ]
    else:
        problems = []
        if source.copies is not None:
            problems = metaseq.differing_copies(source.copies, args.copy_tolerance or 0.0)
        shardings = huggingface.param_shardings(source.config, mesh)
        params, found = huggingface.load(source.arrays, source.config, shardings, progress)
        problems += found
    progress.end()
    if problems:
        raise huggingface.refuse(
            source.where,
            problems,
            "Nothing was written. Such weights give no useful model: fetch them again.",
            args.max_listed,
        )
    return params


def _save(args, source, params, target, dtype, max_shard_bytes, content):
    """Writes the target and tells of it in `content`."""
    written: dict[str, Any] = {"path": str(target)}
    with staged(target) as folder:
        if args.to_hf is not None:
            progress = _Progress("writing", 4 * source.config.num_params())
            done = huggingface_folder.write_weights(
                folder, params, source.config, dtype, max_shard_bytes, progress
            )
            tokenizer_files.write_tokenizer(folder, source.vocabulary, source.prompt_prefix)
            progress.end()
            written.update(
                kind="hf",
                dtype=dtype,
                num_files=len(done.files),
                num_bytes=done.total_bytes,
                num_rounded=done.num_rounded,
            )
        else:
            card = checkpoints.ModelCard(
                source.config, source.prompt_prefix, source.vocabulary.digest
            )
            checkpoints.prepare_model_dir(folder, card, source.vocabulary.save)
            with checkpoints.Checkpoints(folder) as saved:
                origin = {"kind": source.kind, "path": source.where}
                saved.save(source.step, {"policy": {"params": params}}, {"converted_from": origin})
            files = [one for one in (folder / "checkpoints").rglob("*") if one.is_file()]
            written.update(
                kind="checkpoint",
                dtype="float32",
                step=source.step,
                num_files=len(files),
                num_bytes=sum(one.stat().st_size for one in files),
            )
    content["target"] = written


@contextlib.contextmanager
def staged(target: pathlib.Path) -> Iterator[pathlib.Path]:
    """A folder beside `target` that takes its name in the end, and is removed after a failure.

    A process that was killed leaves `<target>.partial`, which the next one empties first.

    Raises:
        InputError: another process writes there, or the folder cannot be written.
    """
    partial = target.with_name(target.name + PARTIAL)
    try:
        partial.mkdir(parents=True, exist_ok=True)
        with (partial / ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            try:
                for leftover in partial.iterdir():
                    if leftover.is_dir() and not leftover.is_symlink():
                        shutil.rmtree(leftover)
                    elif leftover.name != ".lock":
                        leftover.unlink()
                yield partial
                (partial / ".lock").unlink()
                partial.rename(target)
            except BaseException:
                shutil.rmtree(partial, ignore_errors=True)
                raise
    except BlockingIOError:
        raise InputError(
            f"{target}: another `optiml convert` writes there. Wait for it, or choose another "
            "folder."
        ) from None
    except OSError as error:
        raise InputError(
            f"{target}: cannot be written ({error.strerror or error}). Choose a folder that you "
            "may write to, with space left."
        ) from None


class _Progress:
    """Tells on standard error how much of a model has passed."""

    def __init__(self, what: str, total_bytes: int) -> None:
        self.what, self.total, self.done, self.tenth = what, total_bytes, 0, 0
        self.is_terminal = sys.stderr.isatty()

    def __call__(self, name: str, num_bytes: int) -> None:
        self.done += num_bytes
        share = self.done / self.total
        if self.is_terminal:
            line = f"\r{self.what} {share:4.0%}  {name}"
            print(line.ljust(79)[:79], end="", file=sys.stderr, flush=True)
        elif self.total >= QUIET_BYTES and int(10 * share) > self.tenth:
            self.tenth = int(10 * share)
            print(f"{self.what}: {share:.0%}", file=sys.stderr, flush=True)

    def end(self) -> None:
        """Clears the line."""
        if self.is_terminal:
            print("\r" + " " * 79, end="\r", file=sys.stderr, flush=True)


def _check_free(target: pathlib.Path) -> None:
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        what = "is not empty" if target.is_dir() else "is a file"
        raise InputError(f"{target}: {what}. Choose a folder that is empty or not there yet.")


def _dtype(name: str | None) -> str:
    name = "float32" if name is None else name
    if name not in huggingface_folder.DTYPES:
        raise errors.unknown("--dtype", name, huggingface_folder.DTYPES)
    return name


def _size(text: str | None) -> int:
    """Bytes of a size such as 500MB.

    Example:
        "2GiB" is 2,147,483,648; "300" is 300.
    """
    if text is None:
        return DEFAULT_SHARD_BYTES
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMG]I?B)?\s*", text.upper())
    size = float(found.group(1)) * UNITS.get(found.group(2) or "", 1) if found else 0.0
    if not 1 <= size < math.inf:
        raise InputError(f"--max_shard_size is {text!r:.60}, expected a size such as 500MB or 5GB.")
    return int(size)


def _mesh(text: str | None, config: OptConfig) -> Mesh:
    """The mesh of the flag; by default every device takes a part where the width divides."""
    if text is None:
        ways = jax.device_count()
        divides = not math.gcd(config.d_model, config.embedding_width) % ways
        if divides:
            return partitioning.make_mesh(MeshConfig(data=1, fsdp=ways))
        return partitioning.make_mesh(MeshConfig(data=1), jax.local_devices()[:1])
    sizes: dict[str, int] = {"data": 1}
    for part in text.split(","):
        name, _, value = (piece.strip() for piece in part.partition("="))
        if name not in partitioning.MESH_AXES:
            raise errors.unknown("mesh axis", name, partitioning.MESH_AXES, "--mesh")
        if not re.fullmatch(r"-?\d+", value):
            raise InputError(f"--mesh: '{part}' is not AXIS=N. Write e.g. --mesh=fsdp=4,model=2.")
        sizes[name] = int(value)
    mesh = partitioning.make_mesh(MeshConfig(**sizes))
    partitioning.check_divides(config, mesh)
    return mesh


def _describe(source: Source) -> str:
    config = source.config
    kind = {"hf": "Hugging Face", "metaseq": "metaseq", "checkpoint": "checkpoint of ours"}
    norms = f"{config.norm_placement}-LN" + ("" if config.final_norm else ", no final norm")
    width = "" if config.embedding_dim is None else f", embeddings of {config.embedding_dim:,}"
    found = source.to_json()
    prefix = f"prompts begin with {source.prompt_prefix}" if source.prompt_prefix else "no prefix"
    lines = {
        "read": f"{source.where} ({kind[source.kind]}), {_bytes(found['num_bytes'])} in "
        f"{found['num_files']:,} file(s), {' and '.join(found['dtypes'])}"
        + (f", step {source.step}" if source.arrays is None else ""),
        "model": f"{found['num_params']:,} parameters: {config.num_layers} layers, "
        f"{config.num_heads} heads, width {config.d_model:,}{width}, feed-forward "
        f"{config.ffn_dim:,}, {config.max_positions:,} positions, {norms}",
        "vocabulary": f"{found['vocabulary']['name']}, {source.vocabulary.num_pieces:,} pieces, "
        f"{source.vocabulary.size:,} rows; {prefix}",
    }
    if source.inert:
        shown = ", ".join(source.inert[:6]) + (", ..." if len(source.inert) > 6 else "")
        lines["not loaded"] = f"{len(source.inert)} pickled class(es) that are no tensors: {shown}"
    return "\n".join(f"{name + ':':<12} {text}" for name, text in lines.items())


def _told(target: Mapping[str, Any], seconds: float) -> str:
    what = f"{target['path']}: {_bytes(target['num_bytes'])} in {target['num_files']:,} file(s), "
    if target["kind"] == "checkpoint":
        what += f"float32, checkpoint of step {target['step']}"
    else:
        rounded = target["num_rounded"]
        what += f"{target['dtype']}, " + (
            f"{rounded:,} values rounded" if rounded else "every value exact"
        )
    return f"{'wrote:':<12} {what}; {seconds:.1f} s"


def _bytes(count: int) -> str:
    for unit, size in (("GB", 10**9), ("MB", 10**6), ("KB", 10**3)):
        if count >= size:
            return f"{count / size:,.2f} {unit}"
    return f"{count} B"
