"""What a compiled program sends between chips, read from its HLO text.

A loop's body stands once in the text and runs many times: a collective counts as often as its
loops go round. XLA's TPU compiler does not state how often that is; it stands in the loop's
condition (`compare(counter, 12), direction=LT`) and in its body (`counter + 1`). Loops whose
length depends on data (the chunks of the loss) run as often as the caller says.

Four things are not what they seem:
  1. One collective may be cut into several fusions that share its channel: it counts once.
  2. XLA turns a gather before a product into a ring of permutes around parts of the product; they
     are counted as the permutes that they are.
  3. An all-reduce of which a chip keeps a part only (a fusion named all-reduce-scatter) is a
     reduce-scatter.
  4. What crosses slices is a `send` to the host's network library.
"""

import collections
import dataclasses
import math
import re
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

KINDS = (
    "all-gather",
    "reduce-scatter",
    "all-reduce",
    "all-to-all",
    "collective-permute",
    "send",
)
MEGASCALE = "xla_megascale_runtime"
ITEM_BYTES = {
    "pred": 1, "s4": 0.5, "u4": 0.5, "s8": 1, "u8": 1, "s16": 2, "u16": 2, "bf16": 2, "f16": 2,
    "s32": 4, "u32": 4, "f32": 4, "s64": 8, "u64": 8, "f64": 8, "c64": 8,
}  # fmt: skip
_SAME_VALUE = ("copy", "bitcast", "convert", "copy-start", "copy-done", "optimization-barrier")
_CALLED = re.compile(r"(?:calls|to_apply|body|condition|branch_computations)=(\{[^}]*\}|%[^\s,)]+)")


@dataclasses.dataclass(frozen=True)
class Instruction:
    """One line of HLO."""

    name: str
    type: str
    opcode: str
    operands: tuple[str, ...]
    rest: str


@dataclasses.dataclass(frozen=True)
class Traffic:
    """Collectives of one kind in one run of the program.

    Attributes:
        count: how often one runs.
        bytes: what a chip sends in all of them.
        dcn_bytes: the part of `bytes` in groups that span slices.
    """

    count: int
    bytes: int
    dcn_bytes: int = 0


def traffic(
    text: str, *, data_dependent_trips: int = 1, slices: Sequence[int] = ()
) -> dict[str, Traffic]:
    """Collectives by kind, in `KINDS`'s order; kinds that do not occur are left out.

    What a chip of a group of n sends: of an all-gather or all-to-all (n - 1) / n of the output, of
    a reduce-scatter (n - 1) / n of the input, of an all-reduce both, of a permute the whole.

    Args:
        text: of the compiled program.
        data_dependent_trips: how often loops go round whose length is not a constant.
        slices: the slice of each device, in the order of the mesh.
    """
    computations = _computations(text)
    times = _times(computations, data_dependent_trips)
    found: dict[str, tuple[str, int, float, bool]] = {}
    for name, instructions in computations.items():
        if not times[name]:
            continue
        for instruction in instructions.values():
            kind = instruction.opcode.removesuffix("-start")
            if kind not in KINDS:
                continue
            if kind == "send":
                if MEGASCALE in instruction.rest:
                    key = f"{name}/{instruction.name}"
                    found[key] = (kind, times[name], _bytes(instruction), True)
                continue
            group = _group(instruction.rest)
            size, members = len(group), {slices[i] for i in group if i < len(slices)}
            if size < 2:
                continue
            if kind == "all-reduce" and "all-reduce-scatter" in name:
                kind = "reduce-scatter"
            channel = re.search(r"channel_id=(\d+)", instruction.rest)
            key = channel[1] if channel else f"{name}/{instruction.name}"
            sent = _bytes(instruction) * _share(kind, size)
            earlier = found.get(key)
            if earlier is None or earlier[1] < times[name]:
                found[key] = (kind, times[name], sent, len(members) > 1)
    sums = {}
    for kind in KINDS:
        rows = [row for row in found.values() if row[0] == kind]
        if rows:
            sums[kind] = Traffic(
                count=sum(number for _, number, _, _ in rows),
                bytes=round(sum(number * sent for _, number, sent, _ in rows)),
                dcn_bytes=round(sum(number * sent for _, number, sent, far in rows if far)),
            )
    return sums


def largest(text: str, kind: str) -> int:
    """Bytes of the largest array that a collective of this kind makes; 0 where there is none."""
    sizes = [
        round(_bytes(instruction))
        for instructions in _computations(text).values()
        for instruction in instructions.values()
        if instruction.opcode.removesuffix("-start") == kind
    ]
    return max(sizes, default=0)


def _share(kind: str, size: int) -> float:
    """Bytes sent by a chip for a byte of the instruction's result."""
    if kind == "collective-permute":
        return 1.0
    # The text gives an all-reduce's result for the reduce-scatter that it really is.
    return (2.0 if kind == "all-reduce" else 1.0) * (size - 1) / size


# --- reading -------------------------------------------------------------------------------------


def _computations(text: str) -> dict[str, dict[str, Instruction]]:
    """Name of each computation -> its instructions by name; the entry's name is "ENTRY"."""
    computations: dict[str, dict[str, Instruction]] = {}
    current: dict[str, Instruction] | None = None
    for line in text.splitlines():
        if line.startswith(("%", "ENTRY")) and line.rstrip().endswith("{"):
            name = "ENTRY" if line.startswith("ENTRY") else line.split()[0]
            current = computations.setdefault(name, {})
        elif line.rstrip() == "}":  # Attributes of kernels span lines and begin with it too.
            current = None
        elif current is not None and " = " in line:
            instruction = _instruction(line.strip())
            if instruction is not None:
                current[instruction.name] = instruction
    return computations


def _instruction(line: str) -> Instruction | None:
    """`[ROOT] %name = type opcode(operands), attributes`."""
    is_root = line.startswith("ROOT ")
    name, _, rest = line.removeprefix("ROOT ").partition(" = ")
    end = _closing(rest) + 1 if rest.startswith("(") else rest.find(" ")
    shape, rest = rest[:end], rest[end:].lstrip()
    opcode, bracket, _ = rest.partition("(")
    if not bracket or " " in opcode:
        return None
    rest = rest[len(opcode) :]
    end = _closing(rest)
    operands = tuple(re.findall(r"%[^\s,()]+", rest[:end]))
    constant = rest[: end + 1] if opcode == "constant" else ""
    attributes = constant + rest[end + 1 :]
    return Instruction("ROOT" if is_root else name, shape, opcode, operands, attributes)


def _closing(text: str) -> int:
    """Index of the bracket that closes the one at the beginning."""
    depth = 0
    for match in re.finditer(r"[()]", text):
        depth += 1 if match[0] == "(" else -1
        if depth == 0:
            return match.start()
    return len(text)


def _bytes(instruction: Instruction) -> float:
    """Bytes of the result; of the scattered or gathered whole for the kinds that change size."""
    arrays = [
        (kind, math.prod(int(size) for size in sizes.split(",") if size))
        for kind, sizes in re.findall(r"\b([a-z]+\d*)\[([\d,]*)\]", instruction.type)
        if kind in ITEM_BYTES
    ]
    if instruction.opcode.endswith("-start") and instruction.opcode != "all-reduce-start":
        # (inputs, outputs, context): as many outputs as operands.
        number = max(1, len(instruction.operands))
        arrays = arrays[number : 2 * number] or arrays
    if instruction.opcode == "send":  # (what is sent, context, token)
        arrays = arrays[:1]
    total: float = sum(ITEM_BYTES[kind] * number for kind, number in arrays)
    if instruction.opcode.startswith("reduce-scatter"):
        total *= len(_group(instruction.rest))
    return total


def _group(attributes: str) -> list[int]:
    """The first group of a collective: its members as positions in the program's device order.

    Three notations: `{{0,1},{2,3}}`, `[2,2]<=[4]` (with a transposition), and a mesh with the axes
    that are joined, `mesh['x'=2,'y'=2] {'y'}`.
    """
    if pairs := re.search(r"source_target_pairs=\{\{(\d+),(\d+)\}", attributes):
        return [int(pairs[1]), int(pairs[2])]
    if mesh := re.search(r"replica_groups=mesh\[([^\]]*)\][^{]*\{([^}]*)\}", attributes):
        return _mesh_group(mesh[1], mesh[2])
    if iota := re.search(
        r"replica_groups=\[(\d+),(\d+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?", attributes
    ):
        sizes = [int(size) for size in iota[3].split(",")]
        ids = np.arange(math.prod(sizes)).reshape(sizes)
        if iota[4]:
            ids = ids.transpose([int(axis) for axis in iota[4].split(",")])
        return ids.reshape(int(iota[1]), int(iota[2]))[0].tolist()
    if listed := re.search(r"replica_groups=\{\{([\d,]+)\}", attributes):
        return [int(member) for member in listed[1].split(",")]
    return []


def _mesh_group(mesh: str, joined: str) -> list[int]:
    """The group of device 0 along axes of a mesh; `'x':(2)4` is a part of the axis 'x'."""
    sizes = {name: int(size) for name, size in re.findall(r"'([^']+)'=(\d+)", mesh)}
    parts = [
        (name, int(before or 1), int(size or sizes[name]))
        for name, before, size in re.findall(r"'([^']+)'(?::\((\d+)\)(\d+))?", joined)
    ]
    members = [0]
    strides = {}
    stride = 1
    for name in reversed(sizes):
        strides[name] = stride
        stride *= sizes[name]
    for name, before, size in parts:
        step = strides[name] * (sizes[name] // (before * size))
        members = [member + step * i for member in members for i in range(size)]
    return members


# --- how often -----------------------------------------------------------------------------------


def _times(
    computations: Mapping[str, Mapping[str, Instruction]], data_dependent_trips: int
) -> dict[str, int]:
    """How often each computation runs in one run of the program."""
    times: dict[str, int] = collections.defaultdict(int)

    def visit(name: str, number: int) -> None:
        times[name] += number
        for instruction in computations[name].values():
            for called, trips in _calls(computations, name, instruction, data_dependent_trips):
                if called in computations:
                    visit(called, number * trips)

    visit("ENTRY", 1)
    return times


def _calls(computations, name, instruction, data_dependent_trips) -> Iterator[tuple[str, int]]:
    """(computation, how often) that an instruction calls."""
    for match in _CALLED.finditer(instruction.rest):
        trips = 1
        if instruction.opcode == "while" and match[0].startswith("body="):
            trips = _trips(computations, name, instruction) or data_dependent_trips
        for called in re.findall(r"%[^\s,{}]+", match[1]):
            yield called, trips


def _trips(computations, caller: str, loop: Instruction) -> int | None:
    """How often a loop goes round; None where that depends on data."""
    if stated := re.search(r'known_trip_count[":{\s]+n[":\s]+(\d+)', loop.rest):
        return int(stated[1])
    condition = computations.get(_called(loop, "condition"), {})
    body = computations.get(_called(loop, "body"), {})
    test = condition.get("ROOT")
    if test is None or test.opcode != "compare" or len(test.operands) != 2:
        return None
    if "direction=LT" not in test.rest:
        return None
    counter = _element(condition, test.operands[0])
    if counter is None:
        return None
    start = _constant(computations[caller], _initial(computations[caller], loop, counter))
    bound = _constant(condition, test.operands[1])
    if bound is None:
        index = _element(condition, test.operands[1])
        initial = None if index is None else _initial(computations[caller], loop, index)
        bound = _constant(computations[caller], initial)
    step = _step(body, counter)
    if bound is None or not step:
        return None
    # A counter that starts elsewhere is one that XLA cut a first round off.
    return max(0, math.ceil((bound - (start or 0)) / step))


def _called(instruction: Instruction, role: str) -> str:
    match = re.search(rf"{role}=(%[^\s,)]+)", instruction.rest)
    return match[1] if match else ""


def _follow(instructions: Mapping[str, Instruction], name: str | None) -> Instruction | None:
    """The instruction that makes a value, copies and conversions aside."""
    found = instructions.get(name) if name else None
    while found is not None and found.opcode in _SAME_VALUE and found.operands:
        found = instructions.get(found.operands[0])
    return found


def _constant(instructions: Mapping[str, Instruction], name: str | None) -> int | None:
    found = _follow(instructions, name)
    if found is None or found.opcode != "constant":
        return None
    match = re.match(r"\((-?\d+)\)", found.rest)
    return int(match[1]) if match else None


def _element(instructions: Mapping[str, Instruction], name: str) -> int | None:
    """Which element of the computation's parameter a value is."""
    found = _follow(instructions, name)
    if found is None or found.opcode != "get-tuple-element":
        return None
    match = re.search(r"index=(\d+)", found.rest)
    return int(match[1]) if match else None


def _initial(instructions: Mapping[str, Instruction], loop: Instruction, index: int) -> str | None:
    """What an element of a loop's state is before the first round."""
    state = _follow(instructions, loop.operands[0]) if loop.operands else None
    if state is None or state.opcode != "tuple" or index >= len(state.operands):
        return None
    return state.operands[index]


def _step(body: Mapping[str, Instruction], counter: int) -> int | None:
    """What a round adds to the counter."""
    result = body.get("ROOT")
    if result is None or result.opcode != "tuple" or counter >= len(result.operands):
        return None
    addition = _follow(body, result.operands[counter])
    if addition is None or addition.opcode != "add":
        return None
    steps = [_constant(body, operand) for operand in addition.operands]
    return next((step for step in steps if step is not None), None)
