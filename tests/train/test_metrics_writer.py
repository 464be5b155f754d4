import json

import numpy as np
from tensorboardX.proto import event_pb2

from optiml_jax.train import metrics_writer
from optiml_jax.train.metrics_writer import MetricsWriter


def _write(directory, start, steps, offset=0.0):
    with MetricsWriter(directory, start) as writer:
        for step in steps:
            writer.write(step, {"loss": offset + step / 3})


def test_full_precision(tmp_path):
    value = float(np.float32(1) / np.float32(3))
    with MetricsWriter(tmp_path, 0) as writer:
        writer.write(1, {"loss": value, "target_tokens": 7})
    (line,) = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert json.loads(line) == {"step": 1, "loss": value, "target_tokens": 7}
    assert np.float32(json.loads(line)["loss"]) == np.float32(1) / np.float32(3)


def test_a_resumed_run_has_one_value_a_step(tmp_path):
    _write(tmp_path, 0, [1, 2, 3, 4, 5])
    _write(tmp_path, 3, [4, 5, 6], offset=10.0)
    values = {line["step"]: line["loss"] for line in metrics_writer.read_metrics(tmp_path)}
    assert [line["step"] for line in metrics_writer.read_metrics(tmp_path)] == [1, 2, 3, 4, 5, 6]
    assert values[3] == 1.0
    assert values[4] == 10 + 4 / 3


def test_a_torn_line_is_dropped(tmp_path):
    _write(tmp_path, 0, [1, 2])
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 3, "lo')
    assert [line["step"] for line in metrics_writer.read_metrics(tmp_path)] == [1, 2]
    _write(tmp_path, 2, [3])
    assert [line["step"] for line in metrics_writer.read_metrics(tmp_path)] == [1, 2, 3]


def test_lines_can_be_read_while_the_run_goes_on(tmp_path):
    with MetricsWriter(tmp_path, 0) as writer:
        writer.write(1, {"loss": 1.0})
        assert len(metrics_writer.read_metrics(tmp_path)) == 1


def test_tensorboard_has_the_same_numbers(tmp_path):
    with MetricsWriter(tmp_path, 0) as writer:
        writer.write(1, {"loss": 0.5})
        writer.write_evaluation(1, {"rouge": 25.0})
    (path,) = (tmp_path / "tensorboard").iterdir()
    data, found = path.read_bytes(), {}
    while data:
        # TFRecord: length (8 bytes), its checksum (4), the record, its checksum (4).
        size = int.from_bytes(data[:8], "little")
        event = event_pb2.Event.FromString(data[12 : 12 + size])
        found |= {value.tag: (event.step, value.simple_value) for value in event.summary.value}
        data = data[16 + size :]
    assert found == {"train/loss": (1, 0.5), "eval/rouge": (1, 25.0)}
