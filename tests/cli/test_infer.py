"""`optiml infer`: rows in, rows out, killed and resumed, and what it refuses."""

import dataclasses
import io
import json
import os
import signal
import subprocess
import sys

import jax
import pytest

from optiml_jax.main import cli, infer_job, opened_model


def write_rows(path, rows):
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    return path


def infer(checkpoint, source, output, *flags):
    return (
        *("infer", f"--checkpoint={checkpoint}", f"--input={source}", f"--output={output}"),
        *("--max_new_tokens=4", *flags),
    )


ROWS = [
    {"id": 7, "prompt": "Say the word again.\n\nword1"},
    {"prompt": "word2", "options": ["word", "again"], "note": {"a": [1, None]}},
    {"prompt": ""},
]


def test_rows_keep_order_and_other_keys(trained, tmp_path):
    source = write_rows(tmp_path / "in.jsonl", ROWS)
    assert cli.main(infer(trained, source, tmp_path / "out.jsonl")) == 0
    first, second, third = map(json.loads, (tmp_path / "out.jsonl").read_text().splitlines())
    assert list(first) == ["id", "prompt", "text", "num_tokens"]
    assert first["num_tokens"] <= 4
    assert list(second) == ["prompt", "options", "note", "log_probs", "choice"]
    assert second["note"] == {"a": [1, None]}
    assert second["choice"] == max(range(2), key=second["log_probs"].__getitem__)
    assert list(third) == ["prompt", "text", "num_tokens"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.jsonl", "out.jsonl"]


def test_empty_lines_and_a_byte_order_mark_change_nothing(trained, tmp_path, capsys, monkeypatch):
    """As editors and Windows leave them; parts are cut by rows, whatever lies between."""
    rows = [{"prompt": f"word{number}"} for number in range(12)]
    source = write_rows(tmp_path / "in.jsonl", rows)
    flags = ("--batch_size=2", "--temperature=1.0", "--seed=3")
    assert cli.main(infer(trained, source, tmp_path / "out.jsonl", *flags)) == 0
    lines = source.read_bytes().splitlines()
    spaced = tmp_path / "spaced.jsonl"
    spaced.write_bytes(b"\xef\xbb\xbf\r\n" + b"\r\n \r\n".join(lines) + b"\n\n\n")
    output = tmp_path / "spaced_out.jsonl"
    assert cli.main(infer(trained, spaced, output, *flags)) == 0
    whole = (tmp_path / "out.jsonl").read_bytes()
    assert output.read_bytes() == whole

    # So it is where a run goes on: rows are counted, not lines.
    answered = infer_job.answer

    def stop_after_one_part(model, rows, first, job):
        if first:
            raise KeyboardInterrupt
        return answered(model, rows, first, job)

    output.unlink()
    with monkeypatch.context() as patched:
        patched.setattr(infer_job, "answer", stop_after_one_part)
        assert cli.main(infer(trained, spaced, output, *flags)) == 130
    assert cli.main(infer(trained, spaced, output, *flags)) == 0
    assert "8 rows are there already, going on." in capsys.readouterr().err
    assert output.read_bytes() == whole


def test_beams_through_pipes(trained, tmp_path, monkeypatch, capfdbinary):
    content = write_rows(tmp_path / "in.jsonl", ROWS[:1]).read_bytes()
    stdin = io.TextIOWrapper(io.BytesIO(content))
    monkeypatch.setattr(sys, "stdin", stdin)
    flags = ("--num_beams=3", "--num_return_sequences=2")
    assert cli.main(infer(trained, "-", "-", *flags)) == 0
    sys.stdout.flush()
    row = json.loads(capfdbinary.readouterr().out.splitlines()[-1])
    best, second = row["sequences"]
    assert {key: row[key] for key in best} == best
    assert best["score"] >= second["score"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "has no rows"),
        (b"\n", "has no rows"),
        (b"\xef\xbb\xbf", "has no rows"),
        (b'{"prompt": "a"}\n[1]\n', "line 2: [1], expected an object"),
        (b'{"prompt": "a"}\n\n{"promt": "b"}\n', "line 3: field 'prompt' is missing"),
        (b'\n{"prompt": "a"}\n \n{"prompt": "a", "options": [""]}', "line 4: field 'options'"),
        (b'{"prompt": "a"}\n\xef\xbb\xbf{"prompt": "b"}\n', "line 2: begins with a byte order"),
        (b'{"prompt": "a"\n', "line 1: not JSON"),
        (b'{"prompt": "a\xff"}\n', "line 1: not UTF-8 at byte 14"),
        (b'{"promt": "a"}\n', "line 1: field 'prompt' is missing; found 'promt'. Rename 'promt'?"),
        (b'{"prompt": 3}\n', "line 1: field 'prompt' is 3, expected a text"),
        (b'{"prompt": "a", "x": NaN}\n', "line 1: not JSON: NaN is no number"),
        (b'{"prompt": "\\ud800"}\n', "field 'prompt' holds half of a UTF-16 pair"),
        (b'{"prompt": "a", "id": ["\\udc00"]}\n', "field 'id' holds half of a UTF-16 pair"),
        (b'{"prompt": "a", "\\ud800": 1}\n', "field '\\ud800' holds half of a UTF-16 pair"),
        (b'{"prompt": "a", "x": 1e999}\n', "field 'x' cannot be written again"),
        (b'{"prompt": "a", "options": []}\n', "field 'options' is [], expected a list of texts"),
        (b'{"prompt": "a", "options": "ab"}\n', "field 'options' is 'ab'"),
        (b'{"prompt": "a", "options": ["b", 2]}\n', "field 'options[1]' is 2, expected a text"),
        (b'{"prompt": "a"}\n{"prompt": "a", "options": ["b", " "]}', "line 2: field 'options'"),
        (b'{"prompt": "a", "text": "b"}\n', "field 'text' is what the output adds"),
    ],
)
def test_bad_rows(trained, tmp_path, content, message, capsys, monkeypatch):
    def load(*args):
        raise AssertionError("the model was loaded before the rows were checked")

    monkeypatch.setattr("optiml_jax.main.opened_model.OpenedModel.load", load)
    source = tmp_path / "in.jsonl"
    source.write_bytes(content)
    assert cli.main(infer(trained, source, tmp_path / "out.jsonl")) == 2
    told = capsys.readouterr().err
    assert message in told
    assert str(source) in told
    assert list(tmp_path.iterdir()) == [source]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--batch_size=0",), "--batch_size is 0"),
        (("--mesh=data=2,modl=1",), "unknown mesh axis 'modl'. Did you mean 'model'?"),
        (("--mesh=2",), "--mesh: '2', expected AXIS=N"),
        (("--mesh=data=3",), "does not fit 1 device(s)"),
        (("--top_k=3",), "'top_k' is 3, but with temperature 0"),
        (("--num_beams=2", "--stop=a"), "beam search does not go with stop strings"),
        (("--normalization=tokens",), "unknown normalization 'tokens'"),
        (("--max_new_tokens=5000",), "max_new_tokens is 5000, but the model has"),
        (("--dtype=float64",), "float64"),
        (("--checkpoint=nowhere",), "no model.json there"),
        (("--input=nowhere.jsonl",), "--input 'nowhere.jsonl' cannot be read"),
        (("--output=nowhere/out.jsonl",), "the folder 'nowhere' does not exist"),
    ],
)
def test_bad_flags(trained, tmp_path, flags, message, capsys):
    source = write_rows(tmp_path / "in.jsonl", ROWS)
    assert cli.main(infer(trained, source, tmp_path / "out.jsonl", *flags)) == 2
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == [source]


def test_a_finished_output_is_not_overwritten(trained, tmp_path, capsys):
    source = write_rows(tmp_path / "in.jsonl", ROWS)
    (tmp_path / "out.jsonl").write_text("mine")
    assert cli.main(infer(trained, source, tmp_path / "out.jsonl")) == 2
    assert "exists already" in capsys.readouterr().err
    assert (tmp_path / "out.jsonl").read_text() == "mine"


def test_killed_and_started_again_it_gives_the_same_bytes(trained, tmp_path, capsys):
    """SIGKILL after some parts; the rest, and a torn line, change nothing."""
    rows = [
        {"prompt": f"word{number} " * (1 + number % 7)}
        | ({"options": ["word", "again"]} if number % 5 == 0 else {})
        for number in range(40)
    ]
    source = write_rows(tmp_path / "in.jsonl", rows)
    flags = ("--batch_size=2", "--temperature=1.0", "--top_k=20", "--seed=3")
    assert cli.main(infer(trained, source, tmp_path / "whole.jsonl", *flags)) == 0

    argv = infer(trained, source, tmp_path / "out.jsonl", *flags)
    process = subprocess.Popen(
        [sys.executable, "-m", "optiml_jax", *argv], stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("infer 8/40"):
            break
    process.send_signal(signal.SIGKILL)
    process.communicate()
    partial = tmp_path / "out.jsonl.partial"
    assert not (tmp_path / "out.jsonl").exists()
    assert partial.read_bytes().count(b"\n") >= 8
    with partial.open("ab") as file:
        file.write(b'{"prompt": "wo')

    other = infer(trained, source, tmp_path / "out.jsonl", *flags[:-1], "--seed=4")
    before = partial.read_bytes()
    assert cli.main(other) == 2
    assert "is of another run: settings is" in capsys.readouterr().err
    assert partial.read_bytes() == before

    assert cli.main(argv) == 0
    assert "rows are there already, going on." in capsys.readouterr().err
    assert (tmp_path / "out.jsonl").read_bytes() == (tmp_path / "whole.jsonl").read_bytes()
    assert not list(tmp_path.glob("out.jsonl.partial*"))


def test_two_processes_do_not_share_an_output(trained, tmp_path, capsys):
    import fcntl

    source = write_rows(tmp_path / "in.jsonl", ROWS)
    with open(tmp_path / "out.jsonl.partial", "ab") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert cli.main(infer(trained, source, tmp_path / "out.jsonl")) == 2
    assert "is being written by another process" in capsys.readouterr().err


def test_another_process_finished_meanwhile(trained, tmp_path, capsys, monkeypatch):
    """Its rows are neither cut, nor written over, nor taken for ours."""
    source = write_rows(tmp_path / "in.jsonl", ROWS)
    output, partial = tmp_path / "out.jsonl", tmp_path / "out.jsonl.partial"
    lock = infer_job.fcntl.flock

    def finish_first(file, how):
        partial.write_text("theirs")
        os.replace(partial, output)
        lock(file, how)

    monkeypatch.setattr(infer_job.fcntl, "flock", finish_first)
    assert cli.main(infer(trained, source, output)) == 2
    assert "exists already" in capsys.readouterr().err
    assert output.read_text() == "theirs"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.jsonl", "out.jsonl"]


def test_a_model_of_nans_leaves_nothing(trained, tmp_path, capsys, monkeypatch):
    load = opened_model.OpenedModel.load

    def broken(self, batch_size):
        model = load(self, batch_size)
        params = jax.tree.map(lambda leaf: leaf * leaf.dtype.type("nan"), model.params)
        return dataclasses.replace(model, params=params)

    monkeypatch.setattr(opened_model.OpenedModel, "load", broken)
    source = write_rows(tmp_path / "in.jsonl", ROWS[:1])
    assert cli.main(infer(trained, source, tmp_path / "out.jsonl")) == 2
    assert "scores that are not numbers" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == [source]


def test_a_reader_that_leaves(trained, tmp_path):
    """`| head -1`: exit code 141, no traceback."""
    source = write_rows(tmp_path / "in.jsonl", [{"prompt": f"word{i}"} for i in range(24)])
    read, write = os.pipe()
    argv = infer(trained, source, "-", "--batch_size=1")
    process = subprocess.Popen(
        [sys.executable, "-m", "optiml_jax", *argv],
        stdout=write,
        stderr=subprocess.PIPE,
        text=True,
    )
    os.close(write)
    assert json.loads(os.read(read, 65536).splitlines()[0])["prompt"] == "word0"
    os.close(read)
    _, told = process.communicate()
    assert process.returncode == 141, told
    assert "Traceback" not in told


def test_parts_are_cut_by_row_number(tmp_path):
    """What stays of a killed run is whole parts, whatever was on disk."""
    partial, identity = tmp_path / "a.partial", tmp_path / "a.partial.json"
    identity.write_text('{"x": 1}')
    partial.write_bytes(b"1\n22\n3\n44\n5")
    assert infer_job._resume(partial, identity, {"x": 1}, 2) == (4, 10)
    assert infer_job._resume(partial, identity, {"x": 1}, 3) == (3, 7)
    assert infer_job._resume(partial, identity, {"x": 1}, 8) == (0, 0)
    partial.write_bytes(b"")
    assert infer_job._resume(partial, identity, {"x": 2}, 2) == (0, 0)
    assert infer_job._resume(tmp_path / "b", identity, {"x": 1}, 2) == (0, 0)
