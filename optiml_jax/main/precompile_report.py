"""What `optiml precompile` found out, as text for people."""

from collections.abc import Mapping
from typing import Any

from jax.sharding import Mesh

from optiml_jax.ahead.estimate import EFFICIENCY
from optiml_jax.ahead.topology import GIB, Slice
from optiml_jax.main.precompile_job import Recipe

Content = Mapping[str, Any]


def describe(recipe: Recipe, of: Slice, mesh: Mesh | None) -> str:
    """What would be compiled (`--dry_run`), on this mesh, or on many (None)."""
    job = recipe.job
    shape = {} if mesh is None else {name: int(size) for name, size in mesh.shape.items()}
    return _lines(
        {
            "recipe": " + ".join(recipe.files),
            "model": f"{job.model.num_params():,} parameters",
            "slice": f"{_slices(of.name, of.num_slices)}, {of.num_chips} chips",
            "mesh": _shape(shape) or "searched",
            "batch": f"{job.loop.batch_size} rows of {job.feature_length} tokens, "
            f"{job.loop.num_microbatches} microbatch(es)",
        }
    )


def text(content: Content) -> str:
    """The whole report of one compilation."""
    if content["mode"] == "decode":
        parts = [_lines(_what(content))]
        for name, program in content["programs"].items():
            parts.append(f"{name}\n{_lines(_memory(program))}")
            if program["collectives"]:
                parts.append(_collectives(program["collectives"]))
        parts.append(f"FLOPs a token: {content['flops_per_token']:.4g} (forward pass of a prompt)")
        if content["estimate"]:
            parts.append(_lines(_estimate(content["estimate"])))
        return "\n\n".join(parts)
    parts = [_lines(_what(content)), _lines(_memory(content))]
    if content["collectives"]:
        parts.append(_collectives(content["collectives"]))
    if "flops_per_token" in content:
        parts.append(_lines(_flops(content)))
    if content.get("estimate"):
        parts.append(_lines(_estimate(content["estimate"])))
    return "\n\n".join(parts)


def plan_text(content: Content) -> str:
    """The table of a search."""
    head = _what(content)
    del head["mesh"], head["remat"]
    head["searched"] = (
        f"{content['num_candidates']} ways that divide evenly; {content['num_pruned']} cannot fit "
        f"by the plainest count, {len(content['tried'])} were compiled"
    )
    rows: list[tuple[str, ...]] = [
        ("data", "fsdp", "model", "microbatches", "remat", "peak GiB", "", "step s", "MFU")
    ]
    for row in content["tried"]:
        found = row["estimate"]
        fits = row["fits"]
        rows.append(
            (
                *(str(row[name]) for name in ("data", "fsdp", "model", "num_microbatches")),
                row["remat"],
                f"{row['peak_bytes'] / GIB:.2f}",
                "fits" if fits else "too large",
                f"{found['seconds']:.3g}" if fits else "",
                f"{found['mfu']:.0%}" if fits else "",
            )
        )
    table = _table(rows)
    if content["best"] is None:
        closing = (
            "None fits. Take a larger slice, a smaller batch, or host memory for the optimizer."
        )
    else:
        best = content["best"]
        closing = (
            f"Best by the estimate (no measurement; see below):\n  --gin.MESH_DATA={best['data']} "
            f"--gin.MESH_FSDP={best['fsdp']} --gin.MESH_MODEL={best['model']} "
            f"--gin.NUM_MICROBATCHES={best['num_microbatches']} "
            f"--gin.OptConfig.remat=\"'{best['remat']}'\""
        )
        if best["rules"] != content["rules"]:
            closing += f' \\\n  --gin.LOGICAL_AXIS_RULES="{best["rules"]}"'
    return "\n\n".join([_lines(head), table, closing, _NOTE])


def _what(content: Content) -> dict[str, str]:
    mesh = content["mesh"] or {}
    rules = ", ".join(f"{name} on {axis}" for name, axis in content["rules"].items())
    return {
        "recipe": " + ".join(content["files"]),
        "model": f"{content['num_params']:,} parameters, attention {content['attention']} "
        f"({content['attention_reason']})",
        "slice": f"{_slices(content['topology'], content['num_slices'])}, {content['num_chips']} "
        "chips",
        "mesh": _shape(mesh) + (f"; {rules}" if rules else ""),
        "batch": _batch(content),
        **({} if content["mode"] == "decode" else {"remat": content["remat"]}),
        "compiler": f"libtpu {content['libtpu']}, no TPU used",
    }


def _batch(content: Content) -> str:
    if content["mode"] == "decode":
        return (
            f"{content['batch_size']} rows, prompts of {content['prompt_length']} tokens, "
            f"{content['new_tokens']} new ones"
        )
    tokens = content["batch_size"] * content["length"]
    return (
        f"{content['batch_size']} rows of {content['length']} tokens = {tokens:,} a step, "
        f"{content['num_microbatches']} microbatch(es)"
    )


def _memory(content: Content) -> dict[str, str]:
    peak, limit = content["peak_bytes"], content["limit_bytes"]
    if content["fits"]:
        verdict = f"yes, {(limit - peak) / GIB:.2f} GiB stay free"
    else:
        verdict = f"no, by at least {(peak - limit) / GIB:.2f} GiB a chip"
    host, resident = content.get("host_bytes", 0), content.get("resident_bytes", 0)
    return {
        "arguments": f"{content['argument_bytes'] / GIB:.2f} GiB a chip",
        **(
            {"beside them": f"{resident / GIB:.2f} GiB a chip, weights of the other"}
            if resident
            else {}
        ),
        **({"in the host": f"{host / GIB:.2f} GiB for each chip"} if host else {}),
        "peak": f"{peak / GIB:.2f} GiB a chip",
        "limit": f"{limit / GIB:.2f} GiB a chip",
        "fits": verdict,
        "compiled in": f"{content['compile_seconds']:.0f} s",
    }


def _collectives(collectives: Mapping[str, Any]) -> str:
    across = any(row["dcn_bytes"] for row in collectives.values())
    rows = [("collective", "times", "GiB sent a chip") + (("between slices",) if across else ())]
    for kind, row in collectives.items():
        cells = (kind, f"{row['count']:,}", f"{row['bytes'] / GIB:.3f}")
        rows.append(cells + ((f"{row['dcn_bytes'] / GIB:.3f}",) if across else ()))
    return _table(rows)


def _flops(content: Content) -> dict[str, str]:
    return {
        "FLOPs a token": f"{content['flops_per_token_6nd']:.4g} (6 a parameter)",
        "": f"{content['flops_per_token']:.4g} (matrix products, attention causal)",
        " ": f"{content['flops_per_token_with_remat']:.4g} (with what remat computes again)",
    }


_NOTE = (
    f"An estimate, not a measurement: the longest of compute, memory and links at their full rate, "
    f"divided by {EFFICIENCY}."
)


def _estimate(found: Mapping[str, Any]) -> dict[str, str]:
    parts = ", ".join(f"{name} {seconds:.3g}" for name, seconds in found["parts"].items())
    return {
        "ESTIMATE": _NOTE,
        "step": f"{found['seconds']:.3g} s, bound by {found['bound_by']} ({parts} s)",
        "tokens": f"{found['tokens_per_second']:,.0f} a second",
        "MFU": f"{found['mfu']:.1%} (matrix products and attention, nothing recomputed)",
    }


def _shape(mesh: Mapping[str, int]) -> str:
    return " x ".join(f"{name}={size}" for name, size in mesh.items())


def _slices(name: str, number: int) -> str:
    return name if number == 1 else f"{number} x {name}"


def _lines(values: Mapping[str, str]) -> str:
    width = max(len(name) for name in values) + 2
    return "\n".join(
        f"{(name.strip() + ':' if name.strip() else ''):<{width}}{text}"
        for name, text in values.items()
    )


def _table(rows: list[tuple[str, ...]]) -> str:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows
    )
