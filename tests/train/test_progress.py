import io

import pytest

from optiml_jax.train import progress
from optiml_jax.train.progress import Progress


class _Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize(
    ("seconds", "text"), [(7, "7s"), (75, "1m15s"), (7500, "2h05m"), (180000, "2d02h"), (-1, "0s")]
)
def test_seconds(seconds, text):
    assert progress.format_seconds(seconds) == text


def test_plain_lines_in_a_file():
    stream = io.StringIO()
    show = Progress(300, stream)
    show.update(1, 10.5, 12345.0, None)
    show.update(20, 9.25, 1.5e6, 75.0)
    show.message("saved")
    show.close()
    assert stream.getvalue().splitlines() == [
        "step   1/300  loss 10.5000  12.3k tokens/s",
        "step  20/300  loss 9.2500  1.50M tokens/s  1m15s left",
        "saved",
    ]


def test_one_live_line_on_a_terminal():
    stream = _Terminal()
    show = Progress(3, stream)
    show.update(1, 1.0, 10.0, None)
    show.update(2, 1.0, 10.0, 1.0)
    assert "\n" not in stream.getvalue()
    assert stream.getvalue().count("\r") == 2
    show.message("saved")
    assert stream.getvalue().endswith("1s left\x1b[K\nsaved\n")


class _NoReader(io.StringIO):
    def write(self, text, /):
        raise BrokenPipeError


@pytest.mark.parametrize("stream", [_NoReader(), None])
def test_a_stream_that_is_gone_stops_nothing(monkeypatch, stream):
    monkeypatch.setattr("sys.stderr", stream)
    show = Progress(3)
    show.update(1, 1.0, 10.0, None)
    show.message("saved")
    show.close()
