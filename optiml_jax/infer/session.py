"""A conversation with a model: one source after the other, continued token by token.

Neighbours: `engine` continues many sources at once; both go through `decoding`, and the pieces
given here are, joined, the text given there.
"""

from collections.abc import Iterator, Sequence

from optiml_jax.errors import InputError
from optiml_jax.infer import buckets, decoding
from optiml_jax.infer.engine import Engine
from optiml_jax.infer.settings import DecodingConfig


class Session:
    """One source after the other, each continued in pieces as its tokens come.

    Args:
        engine: its weights are prepared once, for all sources.
        settings: without beams: their text is known at the end only.
    """

    def __init__(self, engine: Engine, settings: DecodingConfig) -> None:
        if settings.num_beams > 1:
            raise InputError("beam search cannot be streamed: its text is known at the end only.")
        self._engine = engine
        self._settings = settings
        self._number = 0
        self._compiled: set[int] = set()

    def length_to_compile(self, source: str) -> int | None:
        """The bucket of a source whose programs are not compiled yet, or None."""
        length = self._length(source)
        return None if length in self._compiled else length

    def warm_up(self) -> None:
        """Compiles the programs of short sources."""
        next(iter(self._tokens("")), None)

    def stream(self, source: str) -> Iterator[str]:
        """The continuation in pieces; joined, the text of `Engine.generate`.

        What may still change is held back: the bytes of a character that is not whole, what may
        become a stop string, white space at the end. Sampled, a source said again is answered
        anew: each draws by its place in the session.
        """
        ids: list[int] = []
        shown = ""
        number, self._number = self._number, self._number + 1
        for token in self._tokens(source, number):
            ids.append(token)
            text = self._engine.vocabulary.decode(ids)
            if self._settings.end_of(text) is not None:
                break
            safe = _without_open_end(text, self._settings.stop).strip()
            if len(safe) > len(shown):
                yield safe[len(shown) :]
                shown = safe
        rest = self._engine.text_of(ids, self._settings)[len(shown) :]
        if rest:
            yield rest

    def _tokens(self, source: str, number: int = 0) -> Iterator[int]:
        engine = self._engine
        self._compiled.add(self._length(source))
        return decoding.stream(
            *(engine.config, engine.params, engine.weights, engine.prompts_of([source])[0]),
            *(self._settings, engine.vocabulary.eos_id),
            num_prefix=len(engine.prompt_prefix),
            number=number,
            mesh=engine.mesh,
        )

    def _length(self, source: str) -> int:
        engine = self._engine
        room = decoding.check_room(
            engine.config, self._settings.max_new_tokens, len(engine.prompt_prefix)
        )
        (prompt,) = engine.prompts_of([source])
        return buckets.bucket(min(len(prompt), room), buckets.length_buckets(room))


def _without_open_end(text: str, stops: Sequence[str]) -> str:
    """`text` without what later tokens may change at its end."""
    # Bytes of a character that is not whole are decoded to U+FFFD.
    text = text.rstrip("\ufffd")
    longest = max(
        (size for stop in stops for size in range(1, len(stop)) if text.endswith(stop[:size])),
        default=0,
    )
    return text[: len(text) - longest]
