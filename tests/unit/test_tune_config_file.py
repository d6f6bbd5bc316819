"""config.pbtxt, rewritten with no more changes than were meant."""

from pathlib import Path

import pytest
from google.protobuf import text_format

from loadtest.errors import LoadTestError
from loadtest.tune.config_file import BACKUP, edited, read_config, write_config
from proto.model_config_pb2 import ModelConfig

TEXT = """# A model card says more.
name: "m"  # the folder's
max_batch_size: 8 # rows
input [ { name: "x" data_type: TYPE_FP32 dims: [ 3 ] } ]  # { not a bracket "
instance_group [
  # one lane
  { count: 1 kind: KIND_CPU }
]
dynamic_batching { }
parameters { key: "image.mean" value { string_value: "} # no comment" } }
parameters { key: "slo_ms" value { string_value: "5" } };
"""


def wanted(text: str = TEXT) -> ModelConfig:
    return text_format.Parse(text, ModelConfig())


def test_only_the_fields_that_change_are_written_anew() -> None:
    config = wanted()
    config.max_batch_size = 32
    config.parameters["intra_op_thread_count"].string_value = "2"
    text = edited(TEXT, config)

    assert wanted(text) == config
    before, after = TEXT.splitlines(), text.splitlines()
    assert after[:2] == before[:2] and after[3 : len(before)] == before[3:]
    assert after[2] == "max_batch_size: 32 # rows"
    assert 'key: "intra_op_thread_count"' in "\n".join(after[len(before) :])


def test_a_parameter_that_goes_leaves_the_others_as_they_are() -> None:
    config = wanted()
    config.parameters.pop("slo_ms")
    text = edited(TEXT, config)

    assert wanted(text) == config
    assert text.splitlines() == TEXT.splitlines()[:-1]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "max_batch_size: 8",
        "parameters [ { key: 'a' value { string_value: 'b' } }, { key: 'slo_ms' value { string_value: '5' } } ]",
        "instance_group { count: 1 } instance_group { count: 2 }, dynamic_batching: < preferred_batch_size: [4, 8] >",
        'name: "m" \'n\' platform: "onnxruntime_onnx" # the end, without a line break',
        "instance_group: [] max_batch_size: 8",
    ],
)
def test_every_form_of_the_text_comes_out_as_it_was_meant(text: str) -> None:
    config = wanted(text)
    config.max_batch_size = 16
    del config.instance_group[:]
    config.instance_group.add(count=4)
    config.dynamic_batching.max_queue_delay_microseconds = 100
    config.parameters["slo_ms"].string_value = '7"'

    assert wanted(edited(text, config)) == config


def folder_with(tmp_path: Path, text: str | None = TEXT) -> Path:
    if text is not None:
        (tmp_path / "config.pbtxt").write_text(text)
    return tmp_path


def test_the_old_file_is_kept_and_lost_comments_are_named(tmp_path: Path) -> None:
    folder = folder_with(tmp_path)
    (folder / "config.pbtxt").chmod(0o640)
    text, config = read_config(folder)
    config.instance_group[0].count = 2
    written = write_config(folder, text, config)

    assert read_config(folder)[1] == config
    assert (folder / BACKUP).read_text() == TEXT
    assert written.lost_comments == ("# one lane",)
    assert (folder / "config.pbtxt").stat().st_mode & 0o777 == 0o640
    assert sorted(path.name for path in folder.iterdir()) == ["config.pbtxt", BACKUP]


def test_a_model_without_a_file_gets_one(tmp_path: Path) -> None:
    text, config = read_config(folder_with(tmp_path, None))
    config.max_batch_size = 4
    written = write_config(tmp_path, text, config)

    assert (tmp_path / "config.pbtxt").read_text() == "max_batch_size: 4\n"
    assert written.backup is None and not (tmp_path / BACKUP).exists()


def test_a_file_that_somebody_changed_meanwhile_is_left_alone(tmp_path: Path) -> None:
    folder = folder_with(tmp_path)
    text, config = read_config(folder)
    (folder / "config.pbtxt").write_text("max_batch_size: 9")

    with pytest.raises(LoadTestError, match="has changed"):
        write_config(folder, text, config)
    assert (folder / "config.pbtxt").read_text() == "max_batch_size: 9"


def test_a_file_that_is_no_configuration_is_named(tmp_path: Path) -> None:
    with pytest.raises(LoadTestError, match=r"config\.pbtxt: 1:1"):
        read_config(folder_with(tmp_path, "nonsense: 1"))
