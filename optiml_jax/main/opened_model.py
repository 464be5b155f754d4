"""A checkpoint, opened for text: card, vocabulary and mesh are checked before its arrays are read.

Neighbours: `infer_job` and `generate` use it; `eval_job` opens its own beside a store.
"""

import dataclasses

from jax.sharding import Mesh

from optiml_jax.data import store as store_lib
from optiml_jax.data import vocabularies
from optiml_jax.infer import decoding, engine
from optiml_jax.infer.settings import DecodingConfig
from optiml_jax.main import checks, eval_job
from optiml_jax.model import partitioning
from optiml_jax.model.config import OptConfig
from optiml_jax.model.partitioning import MeshConfig
from optiml_jax.train import checkpoints


@dataclasses.dataclass(frozen=True)
class OpenedModel:
    """What `load` needs.

    Attributes:
        checkpoint: as the user named it.
        step: of the checkpoint.
    """

    checkpoint: str
    step: int
    config: OptConfig
    prompt_prefix: tuple[int, ...]
    vocabulary: vocabularies.Vocabulary
    mesh: Mesh

    def make_engine(self, batch_size: int = 1) -> engine.Engine:
        """An engine without parameters, which can check prompts only."""
        return engine.Engine(
            *(self.config, None, self.vocabulary, self.prompt_prefix, self.mesh),
            generate_batch_size=batch_size,
            rank_batch_size=batch_size,
        )

    def load(self, batch_size: int = 1) -> engine.Engine:
        """The engine, its parameters on the mesh."""
        _, params, _ = checkpoints.load_params(
            self.checkpoint, self.mesh, step=self.step, inference_dtype=self.config.dtype
        )
        return dataclasses.replace(self.make_engine(batch_size), params=params)


def open_model(
    path: str, dtype: str | None, mesh: MeshConfig, settings: DecodingConfig
) -> OpenedModel:
    """Reads what lies beside a checkpoint's arrays, and checks that all fits.

    Raises:
        InputError: no checkpoint there, a vocabulary that is not its own, a mesh that does not
            divide it, or no room for so many new tokens.
    """
    card, step = checks.read_checkpoint(path)
    config = dataclasses.replace(card.config, dtype=dtype) if dtype else card.config
    folder = checks.model_dir_of(path)
    vocabulary = vocabularies.load_vocabulary(folder / store_lib.VOCABULARY_FOLDER)
    checks.check_vocabulary(config, vocabulary, f"checkpoint '{path}'")
    prefix = eval_job.prompt_prefix(card)
    decoding.check_room(config, settings.max_new_tokens, len(prefix))
    made = partitioning.make_mesh(mesh)
    partitioning.check_divides(config, made)
    return OpenedModel(path, step, config, prefix, vocabulary, made)
