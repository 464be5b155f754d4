"""A model that reads and writes text: what evaluators, `optiml infer` and users call.

`Engine` holds parameters and a vocabulary and offers two verbs: `generate` continues sources,
`rank` chooses among options. Tokenization is training's (`data.tokenization`): one space joins
source and answer, and both are tokenized as one text. Neighbour: `session` continues one source
after the other, token by token.

Where no token stands before the first one to predict (an empty source under an empty prefix),
`</s>` does: a model predicts nothing from nothing.
"""

import dataclasses
import functools
import hashlib
from collections.abc import Iterable, Sequence
from typing import Any, Protocol, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh

from optiml_jax import errors
from optiml_jax.data import tokenization, vocabularies
from optiml_jax.errors import InputError
from optiml_jax.infer import arrays, beam, decoding, scoring
from optiml_jax.infer.settings import DecodingConfig
from optiml_jax.model import partitioning
from optiml_jax.model.config import OptConfig

BATCH_SIZE = 32


class VocabularyLike(Protocol):
    """What an engine needs of `data.vocabularies.Vocabulary`."""

    @property
    def eos_id(self) -> int:
        """The id of `</s>`."""
        ...

    @property
    def size(self) -> int:
        """Rows of the embedding table."""
        ...

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of many texts, nothing added."""
        ...

    def decode(self, ids: Iterable[int]) -> str:
        """The text of `ids`, special ids left out."""
        ...


class PromptError(InputError):
    """A prompt that cannot be ranked; `index` tells which of those given."""

    def __init__(self, index: int, problem: str) -> None:
        super().__init__(f"prompt {index}: {problem}")
        self.index = index
        self.problem = problem


@dataclasses.dataclass(frozen=True)
class Generation:
    """What `Engine.generate` gives for one source.

    Attributes:
        text: what was generated, stripped of surrounding white space.
        num_tokens: tokens generated, `</s>` not counted.
        truncated: the source was cut on the left to fit.
        stopped: `</s>` or a stop string came before the limit.
        score: log-probability / length ** length_penalty of a beam; None where none was searched.
        others: the next best beams, where more than one was asked for.
    """

    text: str
    num_tokens: int
    truncated: bool
    stopped: bool = False
    score: float | None = None
    others: "tuple[Generation, ...]" = ()


@dataclasses.dataclass(frozen=True)
class Ranking:
    """What `Engine.rank` gives for one source and its options.

    Attributes:
        log_probs: summed log-probability of each option in nats, before any normalisation.
        choice: index of the best option after normalisation; the first of several that tie.
        num_tokens: tokens scored of each option.
        truncated: the source was cut on the left to fit.
        unconditional: log-probability of each option's tokens after the prompt prefix (or `</s>`)
            alone; () unless the normalisation uses it.
    """

    log_probs: tuple[float, ...]
    choice: int
    num_tokens: tuple[int, ...] = ()
    truncated: bool = False
    unconditional: tuple[float, ...] = ()


@dataclasses.dataclass(frozen=True, eq=False)
class Engine:
    """Parameters, vocabulary and how to run them.

    Attributes:
        params: the tree of `model.decoder.init_params`, wherever it lies.
        prompt_prefix: ids before every source: `</s>` for OPT itself and Hugging Face models,
            nothing for models tuned here, whose document mask never showed them one (metaseq
            prepends one at inference and masks it out again). It stays when a source is cut.
        mesh: of `model.partitioning.make_mesh`; None runs on one device.
        generate_batch_size: rows decoded at a time.
        rank_batch_size: rows scored at a time.
    """

    config: OptConfig
    params: Any
    vocabulary: VocabularyLike
    prompt_prefix: tuple[int, ...] = ()
    mesh: Mesh | None = None
    generate_batch_size: int = BATCH_SIZE
    rank_batch_size: int = BATCH_SIZE

    def __post_init__(self) -> None:
        for name in ("generate_batch_size", "rank_batch_size"):
            if getattr(self, name) < 1:
                raise InputError(f"Engine.{name} is {getattr(self, name)}, expected 1 or more.")
        if self.vocabulary.size > self.config.vocab_size:
            raise InputError(
                f"the vocabulary has {self.vocabulary.size} entries, the model"
                f" {self.config.vocab_size}. Use the vocabulary that lies beside the checkpoint."
            )
        if self.mesh is not None:
            partitioning.check_divides(self.config, self.mesh)

    def generate(
        self,
        sources: Sequence[str],
        max_new_tokens: int | None = None,
        batch_size: int | None = None,
        settings: DecodingConfig | None = None,
        numbers: Sequence[int] | None = None,
    ) -> list[Generation]:
        """Continues each source until `</s>`, a stop string or the limit; greedily by default.

        Trailing spaces of a source are dropped: the space before an answer is the answer's.

        Args:
            max_new_tokens: in place of the one of `settings`.
            numbers: what each source draws its random numbers by (default 0, 1, ...), so that a
                list may be given in parts.

        Raises:
            InputError: the model has no room for `max_new_tokens`, or its scores are not numbers.
        """
        settings = settings or DecodingConfig()
        if max_new_tokens is not None:
            decoding.check_room(self.config, max_new_tokens, len(self.prompt_prefix))
            settings = dataclasses.replace(settings, max_new_tokens=max_new_tokens)
        if not sources:
            return []
        prompts = self.prompts_of(sources)
        batch_size = batch_size or self.generate_batch_size
        eos_id, num_prefix = self.vocabulary.eos_id, len(self.prompt_prefix)
        if settings.num_beams > 1:
            beams = beam.search(
                *(self.config, self.params, prompts, settings, eos_id),
                num_prefix=num_prefix,
                batch_size=batch_size,
                mesh=self.mesh,
                weights=self.weights,
            )
            return [self._best(*found) for found in zip(beams.found, beams.truncated)]
        decoded = decoding.decode(
            *(self.config, self.params, prompts, settings, eos_id),
            num_prefix=num_prefix,
            numbers=numbers,
            ends=functools.partial(self._end, settings) if settings.stop else None,
            batch_size=batch_size,
            mesh=self.mesh,
            weights=self.weights,
        )
        return [
            Generation(self.text_of(ids, settings), len(ids), truncated, stopped)
            for ids, truncated, stopped in zip(decoded.tokens, decoded.truncated, decoded.stopped)
        ]

    def rank(
        self,
        prompts: Sequence[tuple[str, Sequence[str]]],
        normalization: str = "none",
        score_eos: bool = False,
        batch_size: int | None = None,
    ) -> list[Ranking]:
        """Scores the options of each source and chooses the best one.

        An option's score is the sum of log p over its own tokens, those behind the source in the
        joint tokenization of training. All options of a source see the same part of it.

        Args:
            prompts: (source, options).
            normalization: a name of `scoring.NORMALIZATIONS`; OPT-IML's is "none".
            score_eos: also score the `</s>` behind an option. Off by default: OPT-IML's paper ranks
                the candidates' own likelihood, as OPT and GPT-3 do. metaseq's validation loss
                during training includes `</s>`, which favours no option that is
                the beginning of another; that is this argument set to True.

        Raises:
            InputError: unknown normalisation, or a model whose parameters hold NaN.
            PromptError: a source without options; an empty option, or one that does not fit.

        Source: OPT-IML (arXiv 2212.12017) §4.1.
        """
        if normalization not in scoring.NORMALIZATIONS:
            raise errors.unknown("normalization", normalization, scoring.NORMALIZATIONS)
        sequences, cuts = self._sequences(prompts, score_eos)
        size = batch_size or self.rank_batch_size
        log_probs = self._log_probs(sequences, size)
        alone = self._alone(sequences, size) if normalization == "unconditional" else None
        rankings = []
        first = 0
        for (_, options), cut in zip(prompts, cuts):
            own = range(first, first + len(options))
            first = own.stop
            scores = [
                scoring.OptionScore(
                    log_probs[i],
                    len(sequences[i][0]) - sequences[i][1],
                    text.strip(),
                    alone[i] if alone else None,
                )
                for i, text in zip(own, options)
            ]
            values = [scoring.NORMALIZATIONS[normalization](score) for score in scores]
            rankings.append(
                Ranking(
                    log_probs=tuple(score.log_prob for score in scores),
                    choice=int(np.argmax(values)),
                    num_tokens=tuple(score.num_tokens for score in scores),
                    truncated=cut > 0,
                    unconditional=tuple(alone[i] for i in own) if alone else (),
                )
            )
        return rankings

    @functools.cached_property
    def weights(self) -> Any:
        """The parameters as decoding reads them: made once, kept as long as the engine."""
        with arrays.on_mesh(self.mesh):
            return decoding.prepare(self.config, self.params)

    @functools.cached_property
    def fingerprint(self) -> str:
        """A digest of architecture, compute dtype, prefix, vocabulary and all parameters.

        Two engines with equal fingerprints give equal samples; a training step changes it.
        """
        sha = hashlib.sha256()
        digest = getattr(self.vocabulary, "digest", self.vocabulary.size)
        described = [self.config.architecture(), self.config.dtype, self.prompt_prefix, digest]
        sha.update(repr(described).encode())
        with arrays.on_mesh(self.mesh):
            for values in jax.tree.leaves(_checksums(self.params)):
                sha.update(np.asarray(values).tobytes())
        return sha.hexdigest()[:16]

    def check_prompts(self, prompts: Sequence[tuple[str, Sequence[str]]]) -> None:
        """Checks what `rank` would refuse, without the model.

        Raises:
            PromptError: tells which prompt.
        """
        self._sequences(prompts, False)

    def prompts_of(self, sources: Sequence[str]) -> list[list[int]]:
        """Token ids of sources, behind the prefix."""
        encoded = self.vocabulary.encode_batch([source.rstrip(" ") for source in sources])
        return [[*self._prefix(ids), *ids] for ids in encoded]

    def text_of(self, ids: Sequence[int], settings: DecodingConfig) -> str:
        """The text of new tokens, cut before a stop string, without white space around it."""
        text = self.vocabulary.decode(ids)
        return text[: settings.end_of(text)].strip()

    def _end(self, settings: DecodingConfig, ids: Sequence[int]) -> int | None:
        """How many of `ids` it takes to spell the first stop string, or None."""
        if settings.end_of(self.vocabulary.decode(ids)) is None:
            return None
        counts = range(1, len(ids) + 1)
        return next(
            n for n in counts if settings.end_of(self.vocabulary.decode(ids[:n])) is not None
        )

    def _best(self, beams: Sequence[beam.Beam], truncated: bool) -> Generation:
        """The first beam, with the others."""
        first, *others = (
            Generation(
                self.vocabulary.decode(one.tokens).strip(),
                len(one.tokens),
                truncated,
                one.stopped,
                one.score,
            )
            for one in beams
        )
        return dataclasses.replace(first, others=tuple(others))

    def _prefix(self, ids: Sequence[int]) -> tuple[int, ...]:
        """What stands before a source of these ids."""
        return self.prompt_prefix or (() if len(ids) else (self.vocabulary.eos_id,))

    def _sequences(
        self, prompts: Sequence[tuple[str, Sequence[str]]], score_eos: bool
    ) -> tuple[list[tuple[list[int], int]], list[int]]:
        """Sequences to score, option by option, and how many tokens each source lost."""
        pairs = [(source, option) for source, options in prompts for option in options]
        vocabulary = cast(vocabularies.Vocabulary, self.vocabulary)
        tokenized = iter(tokenization.tokenize_examples(vocabulary, pairs))
        sequences, cuts = [], []
        for number, (_, options) in enumerate(prompts):
            if not options:
                raise PromptError(number, "no options to rank. Give at least one, or generate.")
            own = []
            for option in options:
                example = next(tokenized)
                ids = example.ids if score_eos else example.ids[:-1]
                if not option.strip() or len(ids) <= example.loss_start:
                    raise PromptError(
                        number,
                        f"option {option!r} has no tokens of its own. Every option needs a text"
                        " that is not empty.",
                    )
                prefix = self._prefix(example.ids[: example.loss_start])
                own.append(([*prefix, *ids], len(prefix) + example.loss_start))
            # Tokens of the source that are cut behind the prefix; at least one stays to predict.
            longest, start = max(own, key=lambda sequence: len(sequence[0]))
            cut = max(0, len(longest) - self.config.max_positions - 1)
            kept = len(self.prompt_prefix)
            if start - cut < max(kept, 1):
                raise PromptError(
                    number,
                    f"an option of {len(longest) - start} tokens does not fit the model's"
                    f" {self.config.max_positions} positions. Rank shorter options, or generate.",
                )
            cuts.append(cut)
            sequences += [(ids[:kept] + ids[kept + cut :], start - cut) for ids, start in own]
        return sequences, cuts

    def _alone(self, sequences: Sequence[tuple[list[int], int]], batch_size: int) -> list[float]:
        """Log-probabilities of the same scored tokens without their source."""
        prefix = self._prefix(())
        scored = [tuple(ids[start:]) for ids, start in sequences]
        distinct = list(dict.fromkeys(scored))
        values = self._log_probs([([*prefix, *ids], len(prefix)) for ids in distinct], batch_size)
        found = dict(zip(distinct, values))
        return [found[ids] for ids in scored]

    def _log_probs(
        self, sequences: Sequence[tuple[list[int], int]], batch_size: int
    ) -> list[float]:
        values = scoring.sequence_log_probs(
            self.config, self.params, sequences, batch_size=batch_size, mesh=self.mesh
        )
        if np.isnan(values).any():
            raise InputError(
                "the model gives log-probabilities that are not numbers: its parameters hold NaN or"
                " infinity, or overflow. Use an earlier checkpoint, or dtype 'float32'."
            )
        return values.tolist()


@jax.jit
def _checksums(params: Any) -> Any:
    """The bits of every array summed modulo 2 ** 32: the same for any layout over devices."""

    def checksum(leaf):
        bits = jnp.dtype(f"uint{8 * leaf.dtype.itemsize}")
        return jnp.sum(lax.bitcast_convert_type(leaf, bits), dtype=jnp.uint32)

    return jax.tree.map(checksum, params)
