"""Hugging Face's names and layouts of OPT parameters, and ours: one table, read in both ways.

A linear weight is [out, in] there and [in, out] here, with heads as axes of their own; query, key
and value are three arrays there and one here; layers are numbered there and stacked here. 350M has
two projections more and no final norm. Files are not read here: `huggingface_folder` and
`metaseq` give arrays by Hugging Face's names, which `check` compares with a config and `load` puts
where the devices want them, part by part.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Container, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, SingleDeviceSharding

from optiml_jax import errors
from optiml_jax.interop import stored
from optiml_jax.interop.stored import Bounds, InMemory, Stored
from optiml_jax.model import decoder, partitioning
from optiml_jax.model.config import OptConfig

PREFIX = "model.decoder."
# A base model (`OPTModel`) and the files of the oldest uploads lack the leading "model.".
BASE_PREFIX = "decoder."
HEAD = "lm_head.weight"
SHOWN_PROBLEMS = 20
# Ten times the deepest published model.
MOST_LAYERS = 960
# The XLA client takes a host array without a copy where it is aligned like this.
ALIGNMENT = 64
Progress = Callable[[str, int], None]


@dataclasses.dataclass(frozen=True)
class Entry:
    """One Hugging Face array and its place in our tree.

    Attributes:
        name: after `PREFIX`; {layer} stands for the layer's number.
        path: keys of our tree.
        slot: index on the axis of (query, key, value), the one before the last, where fused.
        num_inputs: of a weight [out, in], how many axes `in` has here, before those of `out`; 0
            for arrays that are not transposed.
    """

    name: str
    path: tuple[str, ...]
    slot: int | None = None
    num_inputs: int = 0


def _linear(name: str, path: str, slot: int | None = None, num_inputs: int = 1) -> Sequence[Entry]:
    return (
        Entry(f"layers.{{layer}}.{name}.weight", ("layers", path, "kernel"), slot, num_inputs),
        Entry(f"layers.{{layer}}.{name}.bias", ("layers", path, "bias"), slot),
    )


def _norm(name: str, *path: str) -> Sequence[Entry]:
    return Entry(f"{name}.weight", (*path, "scale")), Entry(f"{name}.bias", (*path, "bias"))


TABLE: tuple[Entry, ...] = (
    Entry("embed_tokens.weight", ("token_embedding",)),
    Entry("embed_positions.weight", ("position_embedding",)),
    Entry("project_in.weight", ("project_in", "kernel"), num_inputs=1),
    *_norm("layers.{layer}.self_attn_layer_norm", "layers", "attention_norm"),
    *_linear("self_attn.q_proj", "qkv", 0),
    *_linear("self_attn.k_proj", "qkv", 1),
    *_linear("self_attn.v_proj", "qkv", 2),
    *_linear("self_attn.out_proj", "out", num_inputs=2),
    *_norm("layers.{layer}.final_layer_norm", "layers", "ffn_norm"),
    *_linear("fc1", "fc1"),
    *_linear("fc2", "fc2"),
    *_norm("final_layer_norm", "final_norm"),
    Entry("project_out.weight", ("project_out", "kernel"), num_inputs=1),
)


@dataclasses.dataclass(frozen=True)
class Place:
    """Where one Hugging Face array of a model lies in one of our arrays.

    Attributes:
        name: Hugging Face's, whole.
        layer: index on our first axis, None outside the layers.
        inner: the sizes of our axes that this array fills: without `layer` and `slot`.
    """

    name: str
    entry: Entry
    layer: int | None
    inner: tuple[int, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """The array's shape there."""
        if self.entry.num_inputs:
            inputs, outputs = self._split(self.inner)
            return math.prod(outputs), math.prod(inputs)
        return (math.prod(self.inner),) if self.layer is not None else self.inner

    def _split(self, axes):
        return axes[: self.entry.num_inputs], axes[self.entry.num_inputs :]

    def read(self, array: Stored, bounds: Bounds) -> np.ndarray:
        """The part of `array` that fills `bounds` of our inner axes, in our layout."""
        if not self.entry.num_inputs:
            if self.layer is None:
                return array.read(bounds)
            merged, picked = _merge(bounds, self.inner)
            return array.read((merged,)).reshape(-1, *self.inner[1:])[picked]
        (inputs, outputs), (in_sizes, out_sizes) = self._split(bounds), self._split(self.inner)
        (rows, out_picked), (columns, in_picked) = (
            _merge(outputs, out_sizes),
            _merge(inputs, in_sizes),
        )
        values = array.read((rows, columns)).T
        values = values.reshape(-1, *in_sizes[1:], rows[1] - rows[0])[in_picked]
        return values.reshape(*values.shape[:-1], -1, *out_sizes[1:])[
            (slice(None),) * len(in_sizes) + out_picked
        ]

    def write(self, leaf: Any) -> np.ndarray:
        """The array as it is there, from our leaf."""
        part = np.asarray(self.view(leaf))
        if self.entry.num_inputs:
            inputs, _ = self._split(self.inner)
            return part.reshape(math.prod(inputs), -1).T
        return part.reshape(self.shape)

    def view(self, leaf: Any) -> Any:
        """The part of our leaf that this array fills."""
        leaf = leaf if self.layer is None else leaf[self.layer]
        return leaf if self.entry.slot is None else leaf[..., self.entry.slot, :]


def _merge(bounds: Bounds, sizes: Sequence[int]) -> tuple[tuple[int, int], tuple[slice, ...]]:
    """One range over axes that are one axis in the file, and what to pick from it after.

    Example:
        heads 2 to 4 of (8, 64) are rows 128 to 256, seen as (2, 64): pick all.
    """
    (start, stop), inner = bounds[0], math.prod(sizes[1:])
    return (start * inner, stop * inner), (slice(None), *stored.slices(bounds[1:]))


def places(config: OptConfig) -> list[Place]:
    """Every Hugging Face array of a model, in the order in which they are written."""
    shapes = _shapes(config)
    found = []
    for entry in TABLE:
        if entry.path[0] not in shapes:
            continue  # A variant without projections or without a final norm.
        sizes = _leaf(shapes, entry.path).shape
        in_layers = entry.path[0] == "layers"
        inner = sizes[1:] if in_layers else sizes
        if entry.slot is not None:
            inner = (*inner[:-2], inner[-1])
        for layer in range(config.num_layers) if in_layers else (None,):
            found.append(Place(PREFIX + entry.name.format(layer=layer), entry, layer, inner))
    # Layer by layer, what comes after the layers last; the sort keeps the table's order otherwise.
    after = ("final_norm", "project_out")
    return sorted(
        found,
        key=lambda place: (
            math.inf if place.entry.path[0] in after else -1 if place.layer is None else place.layer
        ),
    )


def normalised(arrays: Mapping[str, Stored]) -> dict[str, Stored]:
    """The arrays under whole names, where a base model's lack the beginning."""
    return {
        name if name == HEAD or name.startswith(PREFIX) else _with_prefix(name): array
        for name, array in arrays.items()
    }


def check(arrays: Mapping[str, Stored], config: OptConfig, told: Container[str] = ()) -> list[str]:
    """What does not fit, a line for each array; nothing is read.

    Args:
        told: names of arrays that are told of elsewhere; they are not called missing.
    """
    if config.num_layers > max(len(arrays), MOST_LAYERS):
        # A broken number would be listed layer by layer for hours.
        told = f"{config.num_layers:,} layers, more than there are tensors ({len(arrays):,})"
        return [f"missing     {told}"]
    problems = []
    wanted = {place.name: place.shape for place in places(config)}
    for name, shape in wanted.items():
        if name not in arrays and name not in told:
            problems.append(f"missing     {name} {list(shape)}")
    wanted[HEAD] = wanted[PREFIX + TABLE[0].name]
    for name, array in arrays.items():
        if name not in wanted:
            problems.append(f"unexpected  {name} {list(array.shape)}")
        elif array.shape != wanted[name]:
            problems.append(f"shape       {name} is {list(array.shape)}, not {list(wanted[name])}")
        elif array.dtype not in stored.FLOATS:
            problems.append(f"dtype       {name} is {array.dtype.name}, not a float")
    return problems


def refuse(
    where: str, problems: Sequence[str], advice: str, shown: int = SHOWN_PROBLEMS
) -> errors.InputError:
    """An error that lists problems, a line each, at most `shown` of them (0 shows all)."""
    listed = list(problems[:shown] if shown else problems)
    rest = len(problems) - len(listed)
    return errors.InputError(
        f"{where}: {len(problems):,} tensor(s) do not fit:\n"
        + "\n".join(f"  {line}" for line in listed)
        + (f"\n  ... and {rest:,} more (--max_listed=0 lists all)" if rest else "")
        + f"\n{advice}"
    )


def load(
    arrays: Mapping[str, Stored],
    config: OptConfig,
    shardings: Any,
    progress: Progress = lambda name, num_bytes: None,
) -> tuple[dict[str, Any], list[str]]:
    """Our float32 parameters, each part read by the process and for the device that holds it.

    Beside what the devices hold there is never more than one array of one layer in memory.

    Args:
        arrays: checked, see `check`.
        shardings: of every leaf of our tree.
        progress: told (name, bytes of ours) after each part.

    Returns:
        The parameters, and a line for each array that must not be used: not finite, or a head that
        is not the embedding.
    """
    by_leaf: dict[tuple[str, ...], list[Place]] = {}
    for place in places(config):
        by_leaf.setdefault(place.entry.path, []).append(place)
    problems: list[str] = []
    shapes = _shapes(config)
    params: dict[str, Any] = {}
    # The largest first: where a device copies what it is given, there is still room then.
    for path in sorted(by_leaf, key=lambda path: -_leaf(shapes, path).size):
        shape = _leaf(shapes, path).shape

        def make_part(index, path=path, shape=shape):
            return _make_part(arrays, by_leaf[path], shape, index, problems, progress)

        leaf = jax.make_array_from_callback(shape, _leaf(shardings, path), make_part)
        node = params
        for key in path[:-1]:
            node = node.setdefault(key, {})
        node[path[-1]] = leaf.block_until_ready()
    head = arrays.get(HEAD)
    if head is not None and (gap := stored.differs(head, arrays[PREFIX + TABLE[0].name])):
        problems.append(f"not tied    {HEAD} differs from the embedding by up to {gap:g}")
    return params, sorted(set(problems))


def _make_part(arrays, leaf_places, shape, index, problems, progress) -> np.ndarray:
    """One device's part of one of our arrays."""
    bounds = tuple(one.indices(size)[:2] for one, size in zip(index, shape))
    part = _aligned([stop - start for start, stop in bounds])
    for place in leaf_places:
        inner, target = bounds, part
        if place.layer is not None:
            (start, stop), *rest = bounds
            if not start <= place.layer < stop:
                continue
            inner, target = tuple(rest), part[place.layer - start]
        if place.entry.slot is not None:
            start, stop = inner[-2]
            if not start <= place.entry.slot < stop:
                continue
            target = target[..., place.entry.slot - start, :]
            inner = (*inner[:-2], inner[-1])
        target[...] = place.read(arrays[place.name], inner)
        if not np.isfinite(target).all():
            problems.append(f"not finite  {place.name} holds NaN or infinite values")
        progress(place.name, target.nbytes)
    return part


def _aligned(sizes: Sequence[int]) -> np.ndarray:
    """An array that the CPU backend takes over as it is, instead of copying it."""
    num_bytes = math.prod(sizes) * np.dtype(np.float32).itemsize
    raw = np.empty(num_bytes + ALIGNMENT, np.uint8)
    start = -raw.ctypes.data % ALIGNMENT
    return raw[start : start + num_bytes].view(np.float32).reshape(sizes)


def params_from_hf(state: Mapping[str, np.ndarray], config: OptConfig) -> dict[str, Any]:
    """Our float32 parameters from the state dict of an `OPTForCausalLM` or `OPTModel`.

    Raises:
        InputError: arrays are missing, unknown, of another shape or not finite, or the head is not
            tied to the embedding.
    """
    arrays = normalised({name: InMemory(np.asarray(array)) for name, array in state.items()})
    problems = check(arrays, config)
    params: dict[str, Any] = {}
    if not problems:
        params, problems = load(arrays, config, param_shardings(config))
    if problems:
        raise refuse(
            "Hugging Face weights", problems, "Compare the config with the model's own config.json."
        )
    return params


def params_to_hf(params: Mapping[str, Any], config: OptConfig) -> dict[str, np.ndarray]:
    """The state dict of an `OPTForCausalLM` (float32, the tied head included) from ours."""
    state = {
        place.name: np.ascontiguousarray(place.write(leaf_of(params, place)))
        for place in places(config)
    }
    state[HEAD] = state[PREFIX + TABLE[0].name]
    return state


def leaf_of(params: Mapping[str, Any], place: Place) -> np.ndarray:
    """Our array that holds a place, on the host (on a CPU device without a copy)."""
    return np.asarray(_leaf(params, place.entry.path))


def param_shardings(config: OptConfig, mesh: Mesh | None = None) -> Any:
    """Where each parameter lies on a mesh; without one on the first device."""
    if mesh is None:
        one = SingleDeviceSharding(jax.local_devices()[0])
        return jax.tree.map(lambda _: one, _shapes(config))
    return partitioning.shardings(mesh, decoder.logical_axes(config))


@functools.cache
def _shapes(config: OptConfig) -> dict[str, Any]:
    return jax.eval_shape(lambda rng: decoder.init_params(config, rng), jax.random.key(0))


def _leaf(tree: Any, path: tuple[str, ...]) -> Any:
    for key in path:
        tree = tree[key]
    return tree


def _with_prefix(name: str) -> str:
    return PREFIX + name.removeprefix(BASE_PREFIX)
