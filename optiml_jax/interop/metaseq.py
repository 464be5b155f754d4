"""Checkpoints of metaseq, as Hugging Face's names and shapes.

Three things were done to the arrays when they were saved, and are undone here in this order:

1. Fully sharded data parallelism flattened the parameters of a layer into `flat_param_*` and cut
   them into shards (`*-shard<i>.pt`). `shard_metadata` in each file tells names, shapes, padding.
2. Megatron cut the model (`*-model_part-<i>.pt`): qkv (each third for itself), fc1 and the token
   embedding by rows, out_proj and fc2 by columns; everything else is a copy in every part.
3. Query, key and value are one array `qkv_proj`, in the order key, value, query.

Pickled settings are never run (`torch_files`). A flattened file without `shard_metadata` is
refused: the order of its values is known to metaseq's own model code only.

Source: metaseq f7ffa5f, metaseq/scripts/reshard_fsdp.py, reshard_mp.py,
metaseq/distributed/stitch_fsdp_ckpt.py (order k, v, q); fairscale 146f1602,
fully_sharded_data_parallel.py `consolidate_shard_weights`; names: transformers'
convert_opt_original_pytorch_checkpoint_to_pytorch.py.
"""

import dataclasses
import pathlib
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from optiml_jax.errors import InputError
from optiml_jax.interop import huggingface, stored, torch_files
from optiml_jax.interop.stored import Cut, InFile, Joined, Stored, Unflattened
from optiml_jax.model import config as model_config
from optiml_jax.model import decoder
from optiml_jax.model.config import OptConfig

PART, SHARD = re.compile(r"model_part-(\d+)"), re.compile(r"shard(\d+)")
FLAT = "flat_param"
EMBEDDING = "decoder.embed_tokens.weight"
RENAMED = {
    "decoder.layer_norm.": "decoder.final_layer_norm.",
    "decoder.project_in_dim.": "decoder.project_in.",
    "decoder.project_out_dim.": "decoder.project_out.",
}
HEAD = "decoder.output_projection.weight"
# A constant that marks the layout's version; it holds nothing of the model.
UNUSED = ("decoder.version",)
FUSED, FUSED_ORDER = "qkv_proj", ("k", "v", "q")
BY_ROWS = re.compile(r"embed_tokens|output_projection|fc1|[qkv]_proj")
BY_COLUMNS = re.compile(r"(fc2|out_proj)\.weight")
# They tell the model's sizes, so they have to have two axes.
SIZED = ("embed_tokens.weight", "embed_positions.weight")
SHOWN_FILES = 4
ADVICE = (
    "Nothing was written. Give all files of one whole checkpoint; fetch those again that lack or "
    "cut a tensor."
)


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """A model's arrays by Hugging Face's names, not yet read.

    Attributes:
        problems: of arrays whose parts cannot be put together, a line each, by Hugging Face's
            name; `arrays` lacks them.
        copies: (name, what part 0 holds, what another part holds) that have to be equal.
        inert: names of pickled classes that were not loaded.
        settings: the pickled settings, for `torch_files.find`.
    """

    arrays: Mapping[str, Stored]
    problems: Mapping[str, str]
    copies: Sequence[tuple[str, Stored, Stored]]
    files: Sequence[pathlib.Path]
    inert: Sequence[str]
    settings: Any


@dataclasses.dataclass(frozen=True)
class _File:
    path: pathlib.Path
    arrays: Mapping[str, InFile]
    metadata: Any


@dataclasses.dataclass(frozen=True)
class _Part:
    """What one Megatron rank holds; `label` names it and its file in a message."""

    label: str
    arrays: Mapping[str, Stored]


def open_checkpoint(paths: Sequence[str]) -> Checkpoint:
    """Reads the pickles of all files of one model, without their values.

    Tensors that do not fit are no error here: `check` lists them all.

    Args:
        paths: files, patterns with `*`, or a folder (its .pt files).

    Raises:
        InputError: a file, part or shard is missing or damaged, or they are not of one model.
    """
    files = _files(paths)
    numbered: dict[tuple[int, int], _File] = {}
    inert: set[str] = set()
    settings: Any = None
    for path in files:
        key = _number(PART, path), _number(SHARD, path)
        if key in numbered:
            raise InputError(
                f"{path}: is the same part of a model as {numbered[key].path}. Give the files of "
                "one checkpoint only."
            )
        read = torch_files.read_file(path)
        inert.update(read.inert)
        settings = read.content if settings is None else settings
        numbered[key] = _content(path, read.content)
    parts: list[_Part] = []
    num_parts = 1 + max(part for part, _ in numbered)
    for number in range(num_parts):
        shards = [numbered[key] for key in sorted(numbered) if key[0] == number]
        if not shards:
            raise _missing_part(files, number)
        label = shards[0].path.name
        if len(shards) > 1:
            label += f" and {len(shards) - 1} more shard(s)"
        if num_parts > 1:
            label = f"model part {number} ({label})"
        parts.append(_Part(label, _unflatten(shards)))
    _check_num_parts(parts, files)
    arrays, problems, copies = _join(parts)
    return Checkpoint(
        *(_renamed(arrays), _renamed(problems), copies, files, sorted(inert), settings)
    )


def check(checkpoint: Checkpoint, config: OptConfig) -> list[str]:
    """What does not fit, a line for each tensor: between the parts, or with the config."""
    problems = checkpoint.problems
    found = huggingface.check(checkpoint.arrays, config, told=problems)
    return [*dict.fromkeys(problems.values()), *found]


def differing_copies(checkpoint: Checkpoint, tolerance: float) -> list[str]:
    """A line for each array whose copies in the parts differ by more than `tolerance`."""
    gaps: dict[str, float] = {}
    for name, one, other in checkpoint.copies:
        gaps[name] = max(stored.differs(one, other), gaps.get(name, 0.0))
    return [
        f"not equal   {name}: its copies in the parts differ by up to {gap:g}"
        for name, gap in gaps.items()
        if not gap <= tolerance
    ]


def infer_config(
    checkpoint: Checkpoint,
    num_heads: int | None = None,
    norm_placement: str | None = None,
    max_listed: int = huggingface.SHOWN_PROBLEMS,
) -> OptConfig:
    """The config that the arrays' shapes tell; heads and placement are not among them.

    Heads are `num_heads`, or what the pickled settings say (`decoder_attention_heads`), or those
    of the published model of this depth and width. A model with a norm after the last layer is
    pre-LN; without one it is `norm_placement`, or as the published model.

    Args:
        max_listed: most tensors that an error lists; 0 for all.

    Raises:
        InputError: an array does not fit that tells a size (with all others that do not), one of
            the two stays unknown, or the sizes make no model.
    """
    _check_sized(checkpoint, max_listed)
    arrays = checkpoint.arrays
    names = {*arrays, *checkpoint.problems}
    vocab_size, embedding = arrays[huggingface.PREFIX + SIZED[0]].shape
    ffn_dim = _ffn_dim(checkpoint, max_listed)
    num_rows, width = arrays[huggingface.PREFIX + SIZED[1]].shape
    layers = [int(m.group(1)) for name in names if (m := re.search(r"layers\.(\d+)\.", name))]
    num_layers = 1 + max(layers, default=0)
    known = [
        one
        for one in model_config.PUBLISHED.values()
        if (one.num_layers, one.d_model, one.embedding_width) == (num_layers, width, embedding)
    ]
    told = torch_files.find(checkpoint.settings, "decoder_attention_heads")
    told = told if isinstance(told, int) else None
    if num_heads is not None and told is not None and num_heads != told:
        raise InputError(
            f"--num_heads={num_heads}: the settings in {checkpoint.files[0]} say {told}. Leave the "
            "flag out, or correct it."
        )
    heads = num_heads if num_heads is not None else told
    if heads is None and known:
        heads = known[0].num_heads
    if heads is None:
        raise InputError(
            f"{checkpoint.files[0]}: the number of heads cannot be read from weights, and no "
            f"published model has {num_layers} layers of width {width}. Give --num_heads=N."
        )
    final_norm = any(name.startswith(f"{huggingface.PREFIX}final_layer_norm.") for name in names)
    if final_norm and norm_placement == "post":
        raise InputError(
            "--norm_placement=post: this model has a norm after its last layer (decoder.layer_norm)"
            ", so it is pre-LN. Leave the flag out."
        )
    placement = "pre" if final_norm else norm_placement
    if placement is None and known and not known[0].final_norm:
        placement = known[0].norm_placement
    if placement is None:
        raise InputError(
            f"{checkpoint.files[0]}: no norm after the last layer (decoder.layer_norm), so the "
            "weights do not tell where a layer's norms stand. Give --norm_placement=pre or post."
        )
    try:
        return OptConfig(
            vocab_size=vocab_size,
            num_layers=num_layers,
            num_heads=heads,
            d_model=width,
            ffn_dim=ffn_dim,
            max_positions=num_rows - decoder.POSITION_OFFSET,
            norm_placement=placement,
            final_norm=final_norm,
            embedding_dim=None if embedding == width else embedding,
        )
    except InputError as error:
        raise InputError(f"{_told_files(checkpoint.files)}: {error}") from None


def _check_sized(checkpoint: Checkpoint, max_listed: int) -> None:
    """Raises InputError where an array does not fit that tells a size of the model."""
    problems = dict(checkpoint.problems)
    for name in SIZED:
        array = checkpoint.arrays.get(huggingface.PREFIX + name)
        told = huggingface.BASE_PREFIX + name
        if array is None:
            line = f"missing     {told}, without which this is no OPT model of metaseq"
            problems.setdefault(huggingface.PREFIX + name, line)
        elif len(array.shape) != 2:
            line = f"shape       {told} is {list(array.shape)}, expected two axes"
            problems[huggingface.PREFIX + name] = line
    if any(huggingface.PREFIX + name in problems for name in SIZED):
        lines = list(dict.fromkeys(problems.values()))
        raise huggingface.refuse(_told_files(checkpoint.files), lines, ADVICE, max_listed)


def _ffn_dim(checkpoint: Checkpoint, max_listed: int) -> int:
    """The feed-forward width of the first layer that tells it."""
    pattern = re.compile(re.escape(huggingface.PREFIX) + r"layers\.(\d+)\.fc1\.weight")
    found = {
        int(m.group(1)): array.shape[0]
        for name, array in checkpoint.arrays.items()
        if (m := pattern.fullmatch(name)) and array.shape
    }
    if not found:
        lines = list(dict.fromkeys(checkpoint.problems.values()))
        if not any(".fc1.weight" in line for line in lines):
            lines.append("missing     decoder.layers.0.fc1.weight, and that of every other layer")
        raise huggingface.refuse(_told_files(checkpoint.files), lines, ADVICE, max_listed)
    return found[min(found)]


def _told_files(files: Sequence[pathlib.Path]) -> str:
    shown = ", ".join(map(str, files[:SHOWN_FILES]))
    return shown + (f", ... ({len(files)} files)" if len(files) > SHOWN_FILES else "")


def _files(paths: Sequence[str]) -> list[pathlib.Path]:
    found: list[pathlib.Path] = []
    for text in paths:
        path = pathlib.Path(text)
        if path.is_dir():
            inside = sorted(path.glob("*.pt"))
            if not inside:
                raise InputError(f"{path}: no .pt file in this folder.")
            found += inside
        elif "*" in text:
            matching = sorted(path.parent.glob(path.name))
            if not matching:
                raise InputError(f"'{text}': no file has such a name.")
            found += matching
        else:
            found.append(path)
    return found


def _number(pattern: re.Pattern, path: pathlib.Path) -> int:
    found = pattern.search(path.name)
    return int(found.group(1)) if found else 0


def _content(path: pathlib.Path, content: Any) -> _File:
    content = content if isinstance(content, Mapping) else {}
    model = content.get("model", content)
    arrays = {}
    if isinstance(model, Mapping):
        arrays = {name: one for name, one in model.items() if isinstance(one, InFile)}
    if not arrays:
        raise InputError(f"{path}: holds no model (a dict 'model' of tensors).")
    return _File(path, arrays, content.get("shard_metadata"))


def _unflatten(shards: Sequence[_File]) -> dict[str, Stored]:
    """The arrays of one part of the model by their own names."""
    first = shards[0]
    if not any(FLAT in name for name in first.arrays):
        if len(shards) > 1:
            raise InputError(
                f"{shards[1].path}: is one shard of several, but its parameters are not flattened. "
                "Give the files of one checkpoint only."
            )
        return dict(first.arrays)
    for one in shards:
        if one.metadata is None:
            raise InputError(
                f"{one.path}: its parameters are flattened ({FLAT}_0) and it has no "
                "'shard_metadata', so the order of its values is unknown. Restore it with "
                "metaseq's convert_to_singleton, or use the Hugging Face upload of this model."
            )
    try:
        return _by_metadata(shards)
    except InputError:
        raise
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        raise InputError(
            f"{first.path}: its 'shard_metadata' is damaged or of another version ({error!r})."
        ) from None


def _by_metadata(shards: Sequence[_File]) -> dict[str, Stored]:
    arrays: dict[str, Stored] = {}
    shared: list[tuple[str, str]] = []
    for number, group in enumerate(shards[0].metadata["param_metadata"]):
        prefix = f"{group['fsdp_path']}." if group["fsdp_path"] else ""
        shared += [(prefix + source, prefix + copy) for source, copy in group["shared_param_info"]]
        for flat_name, info in group["params"].items():
            name = prefix + flat_name
            pieces = []
            for shard in shards:
                if name not in shard.arrays:
                    raise InputError(
                        f"{shard.path}: lacks '{name}', which its 'shard_metadata' lists. Fetch "
                        "the file again."
                    )
                array = shard.arrays[name]
                own = shard.metadata["param_metadata"][number]["params"][flat_name]
                (length,) = array.shape
                pieces.append(Cut(array, 0, 0, length - own["padding"]))
                if group["no_broadcast_optim_state"]:
                    break  # This group is whole in every shard.
            flat = Joined(pieces, 0)
            if flat.shape[0] != sum(info["numels"]):
                raise InputError(
                    f"{shards[0].path}: '{name}' should have {sum(info['numels']):,} values, the "
                    f"{len(shards)} shard(s) given hold {flat.shape[0]:,}. Give every shard of the "
                    "checkpoint."
                )
            start = 0
            for own_name, shape, length in zip(info["names"], info["shapes"], info["numels"]):
                arrays[prefix + own_name] = Unflattened(flat, start, tuple(shape))
                start += length
    for source, copy in shared:
        arrays[copy] = arrays[source]
    for name in shards[0].metadata["buffer_names"]:
        if name in shards[0].arrays:
            arrays[name] = shards[0].arrays[name]
    return arrays


def _join(parts: Sequence[_Part]):
    """The arrays of the whole model, `qkv_proj` taken apart; what does not fit; the copies."""
    arrays: dict[str, Stored] = {}
    problems: dict[str, str] = {}
    copies: list[tuple[str, Stored, Stored]] = []
    for name in dict.fromkeys(name for part in parts for name in part.arrays):
        if name in UNUSED:
            continue
        own_names = [name]
        if FUSED in name:
            own_names = [name.replace(FUSED, f"{letter}_proj") for letter in FUSED_ORDER]
        problem = _unfit(name, parts)
        if problem is not None:
            problems.update(dict.fromkeys(own_names, problem))
            continue
        pieces = [part.arrays[name] for part in parts]
        axis = _axis(name)
        if axis is None:
            arrays[name] = pieces[0]
            copies += [(name, pieces[0], piece) for piece in pieces[1:]]
        elif FUSED in name:
            for third, own_name in enumerate(own_names):
                arrays[own_name] = _joined([_third(piece, third) for piece in pieces], axis)
        else:
            arrays[name] = _joined(pieces, axis)
    return arrays, problems, copies


def _axis(name: str) -> int | None:
    """The axis on which Megatron cut this array; None where every part holds it whole."""
    if FUSED in name or BY_ROWS.search(name):
        return 0
    return 1 if BY_COLUMNS.search(name) else None


def _unfit(name: str, parts: Sequence[_Part]) -> str | None:
    """Why what the parts hold of an array cannot be put together, in a line; None where it can."""
    holding = [part for part in parts if name in part.arrays]
    lacking = [part.label for part in parts if name not in part.arrays]
    if lacking:
        return f"missing     {name} in {', '.join(lacking)}; {holding[0].label} holds it"
    axis = _axis(name)
    if FUSED in name:
        for part in parts:
            shape = part.arrays[name].shape
            if not shape or shape[0] % len(FUSED_ORDER):
                return (
                    f"shape       {name} is {list(shape)} in {part.label}: its rows are not three "
                    "equal blocks (key, value, query)"
                )
    first = parts[0]
    for part in parts[1:]:
        if not _fits(first.arrays[name], part.arrays[name], axis):
            one, other = (
                f"{list(array.shape)} {array.dtype.name} in {label}"
                for array, label in (
                    (first.arrays[name], first.label),
                    (part.arrays[name], part.label),
                )
            )
            return f"shape       {name} is {one}, {other}: they cannot be joined"
    return None


def _fits(one: Stored, other: Stored, axis: int | None) -> bool:
    if axis is None:
        return one.shape == other.shape

    def kind(array: Stored):
        return array.dtype, array.shape[:axis], array.shape[axis + 1 :]

    return kind(one) == kind(other) and axis < len(one.shape) == len(other.shape)


def _check_num_parts(parts: Sequence[_Part], files: Sequence[pathlib.Path]) -> None:
    """A part that is missing at the end shows in how far the others were cut."""
    ratios = [
        array.shape[0] // array.shape[1]
        for name, array in parts[0].arrays.items()
        if name.endswith("self_attn.out_proj.weight") and len(array.shape) == 2 and array.shape[1]
    ]
    # The least: one layer's array alone that was cut is told with the tensors that do not fit.
    if ratios and min(ratios) > len(parts):
        raise _missing_part(files, len(parts), min(ratios))


def _missing_part(files: Iterable[pathlib.Path], number: int, wanted: int | None = None):
    return InputError(
        f"model part {number}{f' of {wanted}' if wanted else ''} is missing: no file "
        f"'*model_part-{number}*.pt' among {', '.join(one.name for one in files)}."
    )


def _third(array: Stored, third: int) -> Stored:
    rows = array.shape[0] // len(FUSED_ORDER)
    return Cut(array, 0, third * rows, (third + 1) * rows)


def _joined(pieces: Sequence[Stored], axis: int) -> Stored:
    return pieces[0] if len(pieces) == 1 else Joined(pieces, axis)


def _renamed(arrays: Mapping[str, Any]) -> dict[str, Any]:
    """The same by Hugging Face's names."""
    found: dict[str, Any] = {}
    for name, array in arrays.items():
        for ours, theirs in RENAMED.items():
            if name.startswith(ours):
                name = theirs + name.removeprefix(ours)
        found[huggingface.HEAD if name == HEAD else name] = array
    return huggingface.normalised(found)
