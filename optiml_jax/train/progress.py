"""What a person sees while a run goes on: one live line on a terminal, plain lines elsewhere."""

import contextlib
import sys
from typing import TextIO


class Progress:
    """Writes the state of a run to a stream (default: standard error).

    On a terminal the line is rewritten in place; in a file or pipe each call adds a line. A
    stream that cannot be written any more (its reader left) is no reason to stop a run.
    """

    def __init__(self, num_steps: int, stream: TextIO | None = None) -> None:
        self._num_steps = num_steps
        self._stream = sys.stderr if stream is None else stream
        # Without a standard error (`2>&-`) there is no stream.
        self._live = self._stream is not None and self._stream.isatty()
        self._open_line = False

    def update(
        self, step: int, loss: float, tokens_per_second: float, seconds_left: float | None
    ) -> None:
        """Shows the step, its loss, the speed and the time left."""
        line = (
            f"step {step:>{len(str(self._num_steps))}}/{self._num_steps}  loss {loss:.4f}  "
            f"{_thousands(tokens_per_second)} tokens/s"
        )
        if seconds_left is not None:
            line += f"  {format_seconds(seconds_left)} left"
        if self._live:
            # Return to the line's start and clear to its end.
            self._write(f"\r{line}\x1b[K")
            self._open_line = True
        else:
            self._write(line + "\n")

    def message(self, text: str) -> None:
        """Adds a line that stays."""
        self._write(("\n" if self._open_line else "") + text + "\n")
        self._open_line = False

    def close(self) -> None:
        """Ends the live line, so that what follows starts on its own."""
        if self._open_line:
            self._write("\n")
            self._open_line = False

    def _write(self, text: str) -> None:
        if self._stream is not None:
            with contextlib.suppress(OSError):
                self._stream.write(text)
                self._stream.flush()


def format_seconds(seconds: float) -> str:
    """A length of time as people say it.

    Example:
        7 -> "7s", 75 -> "1m15s", 7500 -> "2h05m", 180000 -> "2d02h"
    """
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    if whole < 86400:
        return f"{whole // 3600}h{whole % 3600 // 60:02d}m"
    return f"{whole // 86400}d{whole % 86400 // 3600:02d}h"


def _thousands(value: float) -> str:
    """1234567 -> "1.23M", 12345 -> "12.3k", 123 -> "123"."""
    if value >= 1e6:
        return f"{value / 1e6:.2f}M"
    if value >= 1e4:
        return f"{value / 1e3:.1f}k"
    return f"{value:.0f}"
