"""The TPU slices that a program can be compiled for without having one.

libtpu brings the compiler of every TPU kind; a slice is named by kind and shape in chips,
"v4:8x8x8". `CHIPS` holds what is known of a chip: what the compiler must be told, and the rates
that `estimate` divides by. Figures are Google's (Cloud TPU documentation, pages of each version);
the usable memory is what the compiler itself says when a program is too large for it.
"""

import dataclasses
import importlib.metadata
import importlib.util
import math
import os
import re
from collections.abc import Sequence
from typing import Any

from optiml_jax import errors
from optiml_jax.errors import InputError

GIB = 2**30


@dataclasses.dataclass(frozen=True)
class Chip:
    """One kind of TPU chip.

    Attributes:
        name: as in "v4:8x8x8".
        config: libtpu's name of the way in which a chip's cores act together. v4 needs "megacore":
            without it a chip would be two devices.
        dimensions: of the torus that links the chips of a slice.
        largest: most chips of one slice.
        limit_bytes: memory that a program may fill, from libtpu 0.0.42.1's "exceeds available HBM".
        peak_flops: bfloat16 operations a second.
        hbm_bytes_per_second: between memory and cores.
        ici_bytes_per_second: sent to the other chips of the slice, over all links together.
        dcn_bytes_per_second: sent to other slices, a chip's share of its host's network.
    """

    name: str
    config: str
    dimensions: int
    largest: int
    limit_bytes: int
    peak_flops: float
    hbm_bytes_per_second: float
    ici_bytes_per_second: float
    dcn_bytes_per_second: float


# Cloud TPU documentation, 2026: peak, HBM and interconnect per chip of "TPU v4", "v5e", "v5p" and
# "v6e"; it states ICI in both directions together, half of it is what a chip can send. v4's ICI:
# 6 links of 50 GB/s (arXiv 2304.01433, Table 4). DCN: v5e 6.4 Tbps and v6e 25.6 Tbps a pod of 256
# chips, v5p 50 Gbps a chip; v4's is not stated, v5p's is taken.
CHIPS: dict[str, Chip] = {
    chip.name: chip
    for chip in (
        Chip("v4", "megacore", 3, 4096, int(30.75 * GIB), 275e12, 1.2e12, 300e9, 6.25e9),
        Chip("v5e", "default", 2, 256, int(15.75 * GIB), 197e12, 0.819e12, 200e9, 3.125e9),
        Chip("v5p", "default", 3, 6144, int(95.74 * GIB), 459e12, 2.765e12, 600e9, 6.25e9),
        Chip("v6e", "default", 2, 256, int(31.25 * GIB), 918e12, 1.638e12, 400e9, 12.5e9),
    )
}
EXAMPLES = {
    "v4": "v4:2x2x1, v4:2x2x4, v4:4x4x4, v4:8x8x8",
    "v5e": "v5e:2x2, v5e:4x4, v5e:8x8, v5e:16x16",
    "v5p": "v5p:2x2x1, v5p:2x2x4, v5p:4x4x4, v5p:8x8x8",
    "v6e": "v6e:2x2, v6e:4x4, v6e:8x8, v6e:16x16",
}


@dataclasses.dataclass(frozen=True)
class Slice:
    """A slice by its shape, or several of the same shape.

    Attributes:
        shape: chips along each dimension of the torus.
        num_slices: slices, joined by the data-centre network.
    """

    chip: Chip
    shape: tuple[int, ...]
    num_slices: int = 1

    @property
    def name(self) -> str:
        """As a user writes it."""
        return f"{self.chip.name}:{'x'.join(map(str, self.shape))}"

    @property
    def num_chips(self) -> int:
        """Chips of all slices together."""
        return math.prod(self.shape) * self.num_slices


def parse(name: str, num_slices: int = 1) -> Slice:
    """Reads a slice's name.

    Example:
        "v4:8x8x8" is 512 chips of v4.

    Raises:
        InputError: no such kind, or no such shape of it; the known ones are listed.
    """
    kind, _, shape = name.partition(":")
    if kind not in CHIPS:
        listed = "; ".join(EXAMPLES.values())
        raise InputError(
            f"{errors.unknown('TPU', kind, CHIPS, '--topology')} For example: {listed}."
        )
    chip = CHIPS[kind]
    good = re.fullmatch(r"[1-9]\d*(x[1-9]\d*)*", shape)
    sizes = tuple(int(size) for size in shape.split("x")) if good else ()
    if len(sizes) != chip.dimensions or math.prod(sizes) > chip.largest:
        raise InputError(
            f"--topology: '{name}' is no slice of {kind}, expected {kind}: and "
            f"{' x '.join(['chips'] * chip.dimensions)}, at most {chip.largest:,} chips. For "
            f"example: {EXAMPLES[kind]}."
        )
    if num_slices < 1:
        raise InputError(f"--num_slices is {num_slices}, expected 1 or more.")
    return Slice(chip, sizes, num_slices)


# What libtpu reads where it starts on a machine without TPUs: no query of the cloud's metadata
# server, several processes at a time, a name for a host that it need not look for, no log.
ENVIRONMENT = {
    "TPU_SKIP_MDS_QUERY": "1",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-16",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_WORKER_ID": "0",
    "TPU_MIN_LOG_LEVEL": "2",
    "TF_CPP_MIN_LOG_LEVEL": "2",
    "JAX_PLATFORMS": "cpu",
}


def prepare_environment() -> None:
    """Sets what libtpu must find before JAX is imported; the user's own values stay."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)


def libtpu_version() -> str:
    """The version of the compiler.

    Raises:
        InputError: libtpu is not installed.
    """
    if importlib.util.find_spec("libtpu") is None:
        raise InputError(
            "the TPU compiler is not installed (Python package libtpu). Install it with "
            "pip install 'optiml_jax[tpu]'; no TPU is needed."
        )
    return importlib.metadata.version("libtpu")


def devices(of: Slice) -> Sequence[Any]:
    """The slice's devices, which can be compiled for and nothing else.

    Raises:
        InputError: libtpu is not installed, or does not know the shape.
    """
    libtpu_version()
    import jax
    from jax.experimental import topologies

    hosts = min(of.shape[0], 2), min(of.shape[1], 2), 1
    options: dict[str, Any] = {"num_slices": of.num_slices} if of.num_slices > 1 else {}
    try:
        described = topologies.get_topology_desc(
            platform="tpu",
            topology_name=of.name,
            chip_config_name=of.chip.config,
            chips_per_host_bounds=hosts,
            **options,
        )
    except jax.errors.JaxRuntimeError as error:
        raise InputError(
            f"--topology: libtpu has no slice '{of.name}': {str(error).splitlines()[0]} For "
            f"example: {EXAMPLES[of.chip.name]}."
        ) from error
    if len(described.devices) != of.num_chips:
        raise InputError(
            f"--topology: libtpu makes {len(described.devices)} devices of '{of.name}', expected "
            f"{of.num_chips}. For example: {EXAMPLES[of.chip.name]}."
        )
    return described.devices
