"""A user's own split: a table of rows, read and checked.

The file is UTF-8 text with columns parted by tabs, the first line naming them in any order; blank
lines and lines whose first sign is # do not count. The first row that matches a task counts.

    role        level           field     pattern              reason
    excluded                    source    big*bench*           evaluated as a suite
    test        fully_held_out  category  Textual Entailment   the question of this study
    validation  partially_supervised  name  flan__newsroom     as in OPT-IML
    train                       default                        all others

    role, level   as in `split_rules`; level may be blank where the role has only one, and the
                  column may be missing then
    field         one of `split_rules.FIELDS`, or, in the last row, `default` (a role for all other
                  tasks: train or excluded) or `split` (a named split that places them; no role)
    pattern       shell pattern, all of the value, case aside; blank for `default`
    reason        for people; may be blank or missing

Neighbours: `splits.find` reads it by its path; a store keeps its text and digest (`data.prepare`).
"""

import difflib
import os
import pathlib
import re
from collections.abc import Collection, Iterable, Mapping, Sequence

from optiml_jax.bench import catalog, opt_iml_split, taxonomy
from optiml_jax.bench.split_rules import (
    FIELDS,
    LEVELS,
    LEVELS_OF,
    ROLES,
    TRAIN,
    Assignment,
    Placement,
    Split,
    source_names,
)
from optiml_jax.errors import InputError, near_path, nearest, unknown

SUFFIX = ".tsv"
COLUMNS = ("role", "level", "field", "pattern", "reason")
NEEDED = ("role", "field", "pattern")
LAST = ("default", "split")
# Other signs that Unicode ends lines with may stand in a reason.
_LINE_END = re.compile(r"\r\n|\r|\n")
# Of a name that is a slip, in parts of one; below it, another name that begins alike.
_SLIP = 0.8
# Sentences on idle rows; a file with many is about other tasks than these.
_MOST_NOTES = 20
_EXAMPLE = "train<TAB><TAB>default<TAB><TAB>all others"


def is_path(split: str) -> bool:
    """True for what is meant as a file rather than as a split's name, whatever its ending."""
    return "." in split or "/" in split or os.sep in split


def unknown_split(split: str, named: Mapping[str, Split], where: str = "") -> InputError:
    """An error for a name that no split has, with the names in their order, families as one.

    Example:
        "flan_entailmnt" reads "unknown split 'flan_entailmnt'. Did you mean 'flan_entailment'?
        Known: opt_iml, ..., flan_* (17), ... A split file's name ends in .tsv."
    """
    families: dict[str, int] = {}
    for name, one in named.items():
        heads = [head for b in one.benchmarks if name.startswith(head := f"{b}_")]
        family = f"{heads[0]}*" if heads else name
        families[family] = families.get(family, 0) + 1
    shown = ", ".join(f"{one} ({n})" if one.endswith("*") else one for one, n in families.items())
    guess = nearest(split, named)
    return InputError(
        (f"{where}: " if where else "")
        + f"unknown split '{split}'."
        + (f" Did you mean '{guess}'?" if guess else "")
        + f" Known: {shown}; docs/splits.md tells of each. A split file's name ends in {SUFFIX}."
    )


def read(path: str | os.PathLike[str], named: Mapping[str, Split]) -> Split:
    """The split of a file, called as the file without its ending.

    Args:
        named: splits that a last row `split` may name; the file may not be called like one.

    Raises:
        InputError: the file's name does not end in .tsv or cannot be a mixture's, the file cannot
            be read, or see `parse`.
    """
    path = pathlib.Path(path)
    if path.suffix != SUFFIX:
        raise InputError(
            f"split file '{path}': the name of a split file ends in {SUFFIX}, as its columns are"
            f" parted by tabs. Rename it to '{path.with_name(path.stem)}{SUFFIX}', or give a"
            f" split's name: {', '.join(list(named)[:4])}, ... (docs/splits.md)."
        )
    try:
        text = path.read_text("utf-8")
    except FileNotFoundError:
        raise InputError(f"split file '{path}' does not exist.{near_path(path)}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"split file '{path}' cannot be read ({error}). Give a UTF-8 text file whose columns"
            " are parted by tabs."
        ) from error
    name = path.name.removesuffix(SUFFIX)
    if name in named:
        raise InputError(
            f"split file '{path}' has the name of the split '{name}' of this package, and results"
            " would be taken for its. Rename the file."
        )
    if not name or name != catalog.legal_name(name):
        legal = catalog.legal_name(name) or "mine"
        raise InputError(
            f"split file '{path}': its name becomes a mixture's, and SeqIO refuses '{name}'."
            f" Rename it, e.g. to '{legal}{SUFFIX}'."
        )
    return parse(text, name, named, str(path))


def parse(text: str, name: str, named: Mapping[str, Split], where: str = "") -> Split:
    """The split that a file's text describes.

    Args:
        where: the file, for messages.

    Raises:
        InputError: unknown or missing columns, a row with a word that is not known or with a level
            that its role cannot have, one task in two rows that differ, or no last row for all
            other tasks.
    """
    where = where or f"split '{name}'"
    lines = [
        (number, line)
        for number, line in enumerate(_LINE_END.split(text.lstrip("\ufeff")), start=1)
        if line.strip() and not line.lstrip().startswith("#")
    ]
    if not lines:
        raise InputError(
            f"{where}: no rows. The first line names the columns: {', '.join(COLUMNS)}."
        )
    columns = _columns(lines[0][1], f"{where}:{lines[0][0]}")
    rows = [
        (f"{where}:{number}", _cells(line, columns, f"{where}:{number}"))
        for number, line in lines[1:]
    ]
    default, base = _last(rows, name, named, where)
    placements = tuple(
        _placement(cells, place, number)
        for (place, cells), (number, _) in zip(rows[:-1], lines[1:-1], strict=True)
    )
    _check_twice(placements, [place for place, _ in rows])
    return Split(
        name=name,
        summary=f"a user's, from {where}",
        placements=placements,
        default=default,
        base=base,
        where=where,
        rules=text,
    )


def notes(split: Split, specs: Iterable[catalog.TaskSpec]) -> list[str]:
    """A sentence for each row of a user's split that decides nothing for these tasks, 20 at most.

    Args:
        specs: all that are known, so that a row for a benchmark that is not read now is no slip.

    Raises:
        InputError: a row that takes tasks out of training names none, but nearly one: the task
            that is meant would train.
    """
    specs = list(specs)
    hits = [0] * len(split.placements)
    decided = [0] * len(split.placements)
    differ: dict[int, list[tuple[catalog.TaskSpec, Placement]]] = {}
    for spec in specs:
        numbers = split.matching(spec)
        for number in numbers:
            hits[number] += 1
            row, first = split.placements[number], split.placements[numbers[0]]
            decided[number] += row is first
            if row.outcome != first.outcome:
                differ.setdefault(number, []).append((spec, first))
    idle = [number for number, tasks in enumerate(decided) if not tasks]
    benchmarks = {spec.benchmark for spec in specs}
    known = {
        field: _known(split, field, specs) for field in {split.placements[n].field for n in idle}
    }
    for number in idle:
        if not hits[number]:
            _check_slip(split, split.placements[number], known, benchmarks)
    told = []
    for number in idle[:_MOST_NOTES]:
        row = split.placements[number]
        if hits[number]:
            told.append(
                f"{split.where}: the row {row.field} '{row.pattern}' ({row.outcome}) has no effect:"
                f" rows above it place {_all(hits[number])}"
                + (_differing(differ[number]) if number in differ else "")
                + "."
            )
        else:
            names = set().union(*known[row.field].values())
            near = _same_data(row, names) or _nearest(row.pattern, names, 0.7)
            told.append(
                f"{split.where}: no task has {row.field} '{row.pattern}'"
                + (f". Did you mean '{near}'?" if near else ".")
            )
    if (more := len(idle) - len(told)) > 0:
        told.append(f"{split.where}: and {more:,} more rows that place no task.")
    return told


def _same_data(row: Placement, names: Iterable[str]) -> str:
    """What the tasks call the data set that a row names; "" if they have no other name for it."""
    if row.field != "source":
        return ""
    data_of = opt_iml_split.SHARED_DATA.data_of
    wanted = data_of(row.pattern.casefold())
    return min((name for name in names if data_of(name) == wanted), default="")


def _all(tasks: int) -> str:
    return "its one task" if tasks == 1 else f"all {tasks:,} of its tasks"


def _differing(tasks: Sequence[tuple[catalog.TaskSpec, Placement]]) -> str:
    spec, first = tasks[0]
    others = f"{len(tasks):,} of them otherwise" if len(tasks) > 1 else "otherwise"
    return (
        f", {others}: '{spec.name}' stays {first.outcome} by row"
        f" {first.line} ({first.field} '{first.pattern}'). The first row that matches counts: move"
        " this one above it, or take one out"
    )


def _check_slip(
    split: Split,
    row: Placement,
    known_of: Mapping[str, Mapping[tuple[str, ...], set[str]]],
    benchmarks: Collection[str],
) -> None:
    """A row that holds tasks out must not fail for a slip in its one name."""
    if row.role == "train" or not row.is_literal:
        return
    if _same_data(row, set().union(*known_of[row.field].values())):
        return
    # Another number is another task or edition, perhaps one that is not read now.
    known = known_of[row.field].get(_numbers(row.pattern), set())
    pattern, head = row.pattern, ""
    if row.field == "name":
        benchmark, mark, task = pattern.partition("__")
        if mark and benchmark in benchmarks:
            # The common head would make all tasks of the benchmark alike.
            head, pattern = benchmark + mark, task
            known = {one.removeprefix(head) for one in known if one.startswith(head)}
    if row.pattern.casefold() in {(head + one).casefold() for one in known}:
        return
    if near := _nearest(pattern, known, _SLIP):
        raise InputError(
            f"{split.where}:{row.line}: no task has {row.field} '{row.pattern}', so the row would"
            f" take nothing out of training. Did you mean '{head}{near}'? Correct the row, or take"
            " it out."
        )


def _columns(line: str, where: str) -> list[str]:
    columns = [cell.strip() for cell in line.split("\t")]
    if len(columns) == 1:
        raise InputError(
            f"{where}: the line has one column, '{columns[0][:60]}'. Part the columns by tabs:"
            f" {', '.join(COLUMNS)}."
        )
    for column in columns:
        if column not in COLUMNS:
            raise unknown("column", column, COLUMNS, where)
        if columns.count(column) > 1:
            raise InputError(f"{where}: column '{column}' is there twice. Take one out.")
    if missing := [column for column in NEEDED if column not in columns]:
        raise InputError(
            f"{where}: column '{missing[0]}' is missing. The columns are {', '.join(COLUMNS)};"
            " level and reason may be left out."
        )
    return columns


def _cells(line: str, columns: Sequence[str], where: str) -> dict[str, str]:
    cells = [cell.strip() for cell in line.split("\t")]
    # Editors drop blank cells at a line's end.
    cells += [""] * (len(columns) - len(cells))
    if len(cells) > len(columns):
        raise InputError(
            f"{where}: the row has {len(cells)} cells, expected {len(columns)}"
            f" ({', '.join(columns)}), parted by tabs."
        )
    return dict.fromkeys(COLUMNS, "") | dict(zip(columns, cells, strict=True))


def _last(
    rows: Sequence[tuple[str, Mapping[str, str]]],
    name: str,
    named: Mapping[str, Split],
    where: str,
) -> tuple[Assignment, Split | None]:
    """What becomes of all other tasks."""
    for place, cells in rows[:-1]:
        if cells["field"] in LAST:
            raise InputError(
                f"{place}: field '{cells['field']}' is for all other tasks, so its row is the last"
                " one. Move it to the end, or take it out."
            )
    place, cells = rows[-1] if rows else (where, {"field": ""})
    if cells["field"] == "split":
        if cells["role"] or cells["level"]:
            raise InputError(
                f"{place}: field 'split' lets the split '{cells['pattern']}' give roles and"
                " levels. Leave both blank here."
            )
        return TRAIN, _base(cells["pattern"], name, named, place)
    if cells["field"] != "default":
        raise InputError(
            f"{place}: the last row says what becomes of all other tasks, and field is"
            f" '{cells['field']}' here. End the file with {_EXAMPLE}, or with the field split and"
            " the pattern opt_iml."
        )
    if cells["role"] not in ("train", "excluded"):
        raise unknown("role", cells["role"], ("train", "excluded"), f"{place}: field 'default'")
    if cells["pattern"] not in ("", "*"):
        raise InputError(
            f"{place}: field 'default' is for all other tasks, and pattern is '{cells['pattern']}'."
            " Leave it blank."
        )
    level = _level(cells, place)
    return Assignment(cells["role"], level, cells["reason"] or "all other tasks"), None


def _base(wanted: str, name: str, named: Mapping[str, Split], place: str) -> Split:
    """The split that a last row names."""
    if wanted == name or is_path(wanted):
        raise InputError(
            f"{place}: field 'split' names '{wanted}', which is "
            + ("this file itself" if wanted in (name, name + SUFFIX) else "a file")
            + ", and takes a split of this package alone, such as opt_iml. Copy the rows that you"
            " mean into this file."
        )
    if wanted not in named:
        raise unknown_split(wanted, named, place)
    if named[wanted].track:
        raise InputError(
            f"{place}: the split '{wanted}' cannot place the other tasks: its lists lie beside the"
            " tasks of one benchmark, and a split file is for all. Give it as --split without a"
            " file, or end this file with the field default and write rows of your own for the"
            " tasks of the lists."
        )
    return named[wanted]


def _placement(cells: Mapping[str, str], where: str, line: int) -> Placement:
    if cells["role"] not in ROLES:
        raise unknown("role", cells["role"], ROLES, where)
    if cells["field"] not in FIELDS:
        raise unknown("field", cells["field"], (*FIELDS, *LAST), where)
    if not cells["pattern"]:
        raise InputError(f"{where}: pattern is blank. Write a {cells['field']}, or * for any.")
    return Placement(
        cells["field"],
        cells["pattern"],
        cells["role"],
        _level(cells, where),
        # Not the row's place: a reason is part of a stored task's key, and rows move.
        cells["reason"] or f"its {cells['field']} matches '{cells['pattern']}'",
        line=line,
    )


def _level(cells: Mapping[str, str], where: str) -> str:
    level, role = cells["level"], cells["role"]
    if level and level not in LEVELS:
        raise unknown("level", level, LEVELS, where)
    possible = LEVELS_OF[role]
    if not level and len(possible) == 1:
        return possible[0]
    if level not in possible:
        told = " or ".join(possible) if possible != ("",) else "none: leave it blank"
        if not level:
            raise InputError(f"{where}: role '{role}' needs a level: {told}.")
        only = "train" if level == LEVELS_OF["train"][0] else "validation and test"
        raise InputError(
            f"{where}: role '{role}' has the level '{level}', which is for the role {only};"
            f" expected {told}."
        )
    return level


def _check_twice(placements: Sequence[Placement], places: Sequence[str]) -> None:
    """A value that two rows name in full, with different outcomes, is a contradiction."""
    seen: dict[tuple[str, str], int] = {}
    for number, row in enumerate(placements):
        first = seen.setdefault((row.field, row.pattern.casefold()), number)
        other = placements[first]
        if (row.role, row.level) != (other.role, other.level):
            raise InputError(
                f"{places[number]}: {row.field} '{row.pattern}' is {row.outcome} here and"
                f" {other.outcome} in {places[first]}. Take one of the two rows out."
            )


def _known(
    split: Split, field: str, specs: Sequence[catalog.TaskSpec]
) -> dict[tuple[str, ...], set[str]]:
    """The values that tasks have in a field, by the numbers in them."""
    if field == "source":
        values = {source for spec in specs for source in source_names(spec)}
    elif field == "category":
        values = {name for spec in specs for name in split.category_names(spec)}
        values.update(taxonomy.CATEGORIES)
    else:
        column = {"task": "original_name", "name": "name", "benchmark": "benchmark"}[field]
        values = {getattr(spec, column) for spec in specs}
    known: dict[tuple[str, ...], set[str]] = {}
    for value in values:
        known.setdefault(_numbers(value), set()).add(value)
    return known


def _numbers(text: str) -> tuple[str, ...]:
    return tuple(re.findall(r"\d+", text))


def _nearest(name: str, known: Iterable[str], cutoff: float) -> str:
    """The nearest of the names, case aside; "" if none is as near as `cutoff`, from 0 to 1."""
    folded = {one.casefold(): one for one in sorted(known)}
    matches = difflib.get_close_matches(name.casefold(), folded, n=1, cutoff=cutoff)
    return folded[matches[0]] if matches else ""
