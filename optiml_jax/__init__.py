"""OPT-IML in JAX: instruction meta-learning from task files to scores at three levels.

One direction of imports: errors, types -> bench -> data -> model -> infer -> train -> eval -> main.
Importing this package imports nothing else. Gin files and task declarations stand in the top-level
folders gin/ and tasks/ of a checkout, and are installed as `optiml_jax/gin_files` and
`optiml_jax.tasks`.
"""

from pathlib import Path

__version__ = "0.1.0"

# A checkout that is the working directory shadows an installed wheel, and holds tasks/ beside this
# folder instead of in it: let `optiml_jax.tasks` be found there.
if not Path(__path__[0], "tasks").exists() and Path(__path__[0], "..", "tasks").is_dir():
    __path__.append(str(Path(__path__[0]).parent))
