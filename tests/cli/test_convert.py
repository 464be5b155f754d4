"""`optiml convert`, both ways, from the command line; and everything that it refuses."""

import json
import os
import re
import signal
import subprocess
import sys

import jax
import numpy as np
import pytest

from optiml_jax.data import vocabularies
from optiml_jax.interop import huggingface_folder
from optiml_jax.main import cli
from optiml_jax.train import checkpoints

from ..interop import models

pytestmark = pytest.mark.parity
torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A Hugging Face folder in float16; tests only read it."""
    path = tmp_path_factory.mktemp("hf")
    return models.save_hf(models.hf_model("pre"), path, max_shard_size="40KB")


@pytest.fixture
def copied(folder, tmp_path):
    """The same folder, to be damaged."""
    target = tmp_path / "hf"
    target.mkdir()
    for path in folder.iterdir():
        (target / path.name).write_bytes(path.read_bytes())
    return target


def convert(*flags):
    return cli.main(["convert", *map(str, flags)])


def arrays(folder):
    """Every array of a Hugging Face folder, as transformers reads it."""
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype="auto")
    return {name: value.numpy() for name, value in model.state_dict().items()}


def assert_same(one, other):
    assert set(one) == set(other)
    for name, array in one.items():
        assert array.dtype == other[name].dtype
        np.testing.assert_array_equal(array, other[name], err_msg=name)


@pytest.mark.parametrize("dtype", ["float16", "float32", "bfloat16"])
@pytest.mark.parametrize("variant", models.VARIANTS)
def test_there_and_back_is_identical(variant, dtype, tmp_path):
    source = models.save_hf(models.hf_model(variant), tmp_path / "hf", dtype=dtype)
    assert convert(f"--from_hf={source}", f"--out={tmp_path / 'ours'}") == 0
    target = tmp_path / "back"
    flags = (f"--from_checkpoint={tmp_path / 'ours'}", f"--to_hf={target}", f"--dtype={dtype}")
    assert convert(*flags, "--max_shard_size=30KB") == 0
    one, other = (
        transformers.AutoModelForCausalLM.from_pretrained(path, dtype="auto").state_dict()
        for path in (source, target)
    )
    assert set(one) == set(other)
    for name, value in one.items():
        assert value.dtype == other[name].dtype == getattr(torch, dtype)
        assert torch.equal(value, other[name]), name


def test_ours_there_and_back_is_identical(folder, tmp_path):
    """float32 weights that no float16 file could hold."""
    source = models.save_hf(models.hf_model("post"), tmp_path / "hf", dtype="float32")
    assert convert(f"--from_hf={source}", f"--out={tmp_path / 'one'}") == 0
    assert convert(f"--from_checkpoint={tmp_path / 'one'}", f"--to_hf={tmp_path / 'hf2'}") == 0
    assert convert(f"--from_hf={tmp_path / 'hf2'}", f"--out={tmp_path / 'two'}") == 0
    (one, first, _), (two, second, _) = (
        checkpoints.load_params(tmp_path / name) for name in ("one", "two")
    )
    assert one == two
    jax.tree.map(np.testing.assert_array_equal, first, second)


@pytest.mark.parametrize("form", ["safetensors", "bin", "bin_shards"])
def test_every_form_of_weights_is_read(form, tmp_path, capsys):
    source = models.save_hf(models.hf_model("pre"), tmp_path / "hf", form=form)
    assert convert(f"--from_hf={source}", f"--to_hf={tmp_path / 'out'}", "--dtype=float16") == 0
    assert "every value exact" in capsys.readouterr().out
    expected = {
        name: value.numpy() for name, value in models.hf_model("pre").half().state_dict().items()
    }
    assert_same(arrays(tmp_path / "out"), expected)


def test_transformers_loads_the_folder_without_a_word(folder, tmp_path):
    out = tmp_path / "out"
    assert convert(f"--from_hf={folder}", f"--to_hf={out}", "--max_shard_size=30KB") == 0
    model, told = transformers.AutoModelForCausalLM.from_pretrained(out, output_loading_info=True)
    assert not any(told.values()), told
    ids = torch.tensor(models.ids(), dtype=torch.long)
    with torch.no_grad():
        original = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        assert torch.equal(model(ids).logits, original(ids).logits)
    index = json.loads((out / "model.safetensors.index.json").read_text())
    sizes = [path.stat().st_size for path in out.glob("model-*.safetensors")]
    assert index["metadata"]["total_size"] == 4 * 48480
    assert len(sizes) == len(set(index["weight_map"].values())) > 1
    assert model.generation_config.eos_token_id == 2


def test_the_tokenizer_gives_equal_ids(folder, tmp_path):
    out, back = tmp_path / "out", tmp_path / "back"
    assert convert(f"--from_hf={folder}", f"--to_hf={out}") == 0
    text = "The cat isn't on  the mat — yes?\n"
    expected = [2, *models.vocabulary().encode(text)]
    tokenizer = transformers.AutoTokenizer.from_pretrained(out)
    assert tokenizer(text).input_ids == expected
    assert tokenizer.decode(expected, skip_special_tokens=True) == text
    assert transformers.AutoTokenizer.from_pretrained(folder)(text).input_ids == expected
    # What transformers writes today is tokenizer.json alone; it is read too.
    for name in ("vocab.json", "merges.txt", "tokenizer.json", "tokenizer_config.json"):
        (out / name).unlink()
    tokenizer.save_pretrained(out)
    assert not (out / "vocab.json").exists()
    assert convert(f"--from_hf={out}", f"--out={back}") == 0
    card = checkpoints.read_card(back)
    assert card.prompt_prefix == "</s>"
    assert card.vocabulary_digest == models.vocabulary().digest


def test_a_model_without_prefix_stays_without(trained, tmp_path):
    """Models tuned here begin a prompt with nothing; their tokenizer adds nothing."""
    assert convert(f"--from_checkpoint={trained}", f"--to_hf={tmp_path / 'hf'}") == 0
    card = checkpoints.read_card(trained)
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "hf")
    assert card.prompt_prefix == ""
    assert 2 not in tokenizer("word 7").input_ids
    assert convert(f"--from_hf={tmp_path / 'hf'}", f"--out={tmp_path / 'ours'}") == 0
    assert checkpoints.read_card(tmp_path / "ours").prompt_prefix == ""
    assert checkpoints.read_card(tmp_path / "ours").vocabulary_digest == card.vocabulary_digest


def test_a_run_becomes_a_model_without_its_optimizer(trained, tmp_path, capsys):
    assert convert(f"--from_checkpoint={trained}", f"--out={tmp_path / 'ours'}", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["target"]["step"] == told["source"]["step"] == 2
    assert told["target"]["num_bytes"] < told["source"]["num_bytes"] / 2
    (_, one, _), (_, other, step) = (
        checkpoints.load_params(path) for path in (trained, tmp_path / "ours")
    )
    assert step == 2
    np.testing.assert_array_equal(one["token_embedding"], other["token_embedding"])


def test_metaseq_parts(tmp_path, capsys):
    parts = models.cut_for_parts(models.metaseq_state(models.hf_model("pre")), 2)
    paths = [
        models.save_metaseq(tmp_path / f"m-model_part-{rank}.pt", part)
        for rank, part in enumerate(parts)
    ]
    out = tmp_path / "ours"
    flags = ["--from_metaseq", *paths, f"--out={out}"]
    assert convert(*flags) == 2
    assert "no published model has 3 layers of width 32" in capsys.readouterr().err
    flags.append("--num_heads=4")
    assert convert(*flags) == 2
    assert f"{tmp_path}: no tokenizer there" in capsys.readouterr().err
    files = tmp_path / "tokenizer"
    files.mkdir()
    models.save_tokenizer(files)
    flags.append(f"--vocabulary={files}")
    assert convert(*flags, "--dry_run") == 0
    assert not out.exists()
    capsys.readouterr()
    assert convert(*flags) == 0
    assert "not loaded:" in (told := capsys.readouterr().out)
    assert "argparse.Namespace" in told
    assert checkpoints.read_card(out).config.num_heads == 4


def test_metaseq_tensors_that_do_not_fit_are_listed(tmp_path, capsys):
    one, two = models.cut_for_parts(models.metaseq_state(models.hf_model("pre")), 2)
    del two["decoder.layers.0.fc1.weight"]
    name = "decoder.layers.1.self_attn.qkv_proj.weight"
    one[name] = one[name][:-1]
    for part in (one, two):
        del part["decoder.layers.2.fc2.bias"]
    for rank, part in enumerate((one, two)):
        models.save_metaseq(tmp_path / f"m-model_part-{rank}.pt", part)
    files = tmp_path / "m-model_part-*.pt"
    flags = ("--from_metaseq", files, "--num_heads=4", f"--out={tmp_path / 'ours'}")
    assert convert(*flags) == 2
    error = capsys.readouterr().err
    assert f"error: {files}: 3 tensor(s) do not fit:" in error
    assert "fc1.weight in model part 1 (m-model_part-1.pt); model part 0" in error
    assert f"{name} is [47, 32] in model part 0 (m-model_part-0.pt)" in error
    assert "missing     model.decoder.layers.2.fc2.bias [32]" in error
    assert "Nothing was written. Give all files of one whole checkpoint" in error
    assert not (tmp_path / "ours").exists()
    assert convert(*flags, "--max_listed=1") == 2
    assert "... and 2 more (--max_listed=0 lists all)" in capsys.readouterr().err


def test_a_vocabulary_is_called_by_its_file_unless_it_is_released(
    folder, trained, tmp_path, capsys
):
    flags = ("--dry_run", f"--out={tmp_path / 'ours'}")
    assert convert(f"--from_hf={folder}", *flags) == 0
    told = capsys.readouterr().out
    assert f"vocabulary:  vocab.json of {folder}, 272 pieces, 272 rows; prompts begin" in told
    assert convert(f"--from_hf={folder}", *flags, "--json") == 0
    told = json.loads(capsys.readouterr().out)["source"]["vocabulary"]
    assert told == {"name": f"vocab.json of {folder}", "size": 272}
    assert convert(f"--from_checkpoint={trained}", *flags) == 0
    assert "vocabulary:  small, " in capsys.readouterr().out


def damage_config(**changes):
    def damage(folder):
        path = folder / "config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))

    return damage


def shard(folder, number=1):
    return sorted(folder.glob("model-*.safetensors"))[number]


def remove(name):
    return lambda folder: (folder / name).unlink()


def cut_short(folder):
    path = shard(folder)
    path.write_bytes(path.read_bytes()[:-100])


def rewrite(change):
    """Changes the arrays of all shards, written as one file."""

    def damage(folder):
        import safetensors.torch

        state = {}
        for path in folder.glob("model-*.safetensors"):
            state.update(safetensors.torch.load_file(path))
            path.unlink()
        (folder / "model.safetensors.index.json").unlink()
        change(state)
        safetensors.torch.save_file(state, folder / "model.safetensors", {"format": "pt"})

    return damage


def poison(state):
    state["model.decoder.layers.0.fc1.weight"][3, 5] = float("nan")
    state["model.decoder.layers.2.fc2.bias"][0] = float("inf")


def smaller_vocabulary(folder):
    vocabularies.train_vocabulary(models.CORPUS, 264).save(folder)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            damage_config(activation_function="gelu"),
            r"activation_function is 'gelu', optiml_jax has",
        ),
        (damage_config(enable_bias=False), r"config\.json: enable_bias is False"),
        (damage_config(layer_norm_elementwise_affine=False), r"elementwise_affine is False"),
        (damage_config(tie_word_embeddings=False), r"tie_word_embeddings is False"),
        (damage_config(model_type="llama"), r"model_type is 'llama'"),
        (damage_config(quantization_config={"bits": 4}), r"quantization_config is {'bits': 4}"),
        (damage_config(do_layer_norm_before="yes"), r"do_layer_norm_before is 'yes'"),
        (damage_config(num_attention_heads=5), r"config\.json: .*does not divide into 5 heads"),
        (damage_config(num_hidden_layers="3"), r"'num_layers' is '3', expected a whole number"),
        (
            damage_config(max_position_embeddings=40),
            r"embed_positions\.weight is \[50, 32\], not \[42",
        ),
        (
            damage_config(do_layer_norm_before=False),
            r"unexpected  model\.decoder\.final_layer_norm",
        ),
        (damage_config(num_hidden_layers=5), r"missing     .*layers\.3\.fc1\.weight \[128, 32\]"),
        (damage_config(num_hidden_layers=10**9), r"missing     1,000,000,000 layers, more than"),
        (damage_config(hidden_size=2**62), r"hidden_size is 4,611,686,018,427,387,904, expected"),
        (damage_config(dropout="0.1"), r"dropout is '0\.1', expected a number"),
        (remove("config.json"), r"no config\.json there"),
        (lambda folder: shard(folder).unlink(), r"1 of \d shards are missing: model-00002"),
        (cut_short, r"model-00002.*cut short"),
        (
            rewrite(lambda state: state.pop("model.decoder.layers.1.fc1.bias")),
            r"missing +.*1\.fc1\.bias",
        ),
        (
            rewrite(lambda state: state.update({"lora_A": torch.zeros(2)})),
            r"unexpected  model\.decoder\.lora_A \[2\]",
        ),
        (rewrite(poison), r"0\.fc1\.weight holds NaN or infinite.*\n.*2\.fc2\.bias holds NaN"),
        (smaller_vocabulary, r"has 272 embedding rows, the vocabulary in .* needs 264"),
        (
            lambda folder: (folder / "added_tokens.json").write_text('{"<new>": 272}'),
            r"adds the piece '<new>' with id 272",
        ),
        (remove("vocab.json"), r"no tokenizer there.*--vocabulary=DIR|has no vocab\.json"),
    ],
)
def test_a_wrong_folder_is_refused_and_nothing_written(damage, message, copied, tmp_path, capsys):
    damage(copied)
    out = tmp_path / "deep" / "ours"
    assert convert(f"--from_hf={copied}", f"--out={out}") == 2
    error = capsys.readouterr().err
    assert error.startswith("optiml convert: error: ")
    assert "Traceback" not in error
    assert re.search(message, error), error
    assert not list(tmp_path.glob("deep/*"))


def test_long_lists_are_cut_unless_asked_for(copied, tmp_path, capsys):
    damage_config(num_hidden_layers=8)(copied)
    flags = (f"--from_hf={copied}", f"--out={tmp_path / 'ours'}")
    assert convert(*flags) == 2
    error = capsys.readouterr().err
    assert "80 tensor(s) do not fit" in error
    assert error.count("missing     ") == 20
    assert "... and 60 more (--max_listed=0 lists all)" in error
    assert convert(*flags, "--max_listed=0") == 2
    assert capsys.readouterr().err.count("missing     ") == 80


def test_a_pickle_with_code_is_refused(tmp_path, capsys):
    class Evil:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path / 'touched'}",)

    source = models.save_hf(models.hf_model("pre"), tmp_path / "hf", form="bin")
    state = torch.load(source / "pytorch_model.bin")
    torch.save({**state, "evil": Evil()}, source / "pytorch_model.bin")
    assert convert(f"--from_hf={source}", f"--out={tmp_path / 'ours'}") == 2
    assert "asks for 'posix.system'" in capsys.readouterr().err
    assert not (tmp_path / "touched").exists()
    assert not (tmp_path / "ours").exists()


def test_values_beyond_float16_are_named(tmp_path, capsys):
    model = models.hf_model("pre")
    with torch.no_grad():
        model.model.decoder.layers[1].fc2.weight[0, 0] = 1e5
    source = models.save_hf(model, tmp_path / "hf", dtype="float32")
    flags = (f"--from_hf={source}", f"--to_hf={tmp_path / 'out'}")
    assert convert(*flags, "--dtype=float16") == 2
    assert "layers.1.fc2.weight holds values that are too large" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["hf"]
    assert convert(*flags, "--dtype=bfloat16") == 0
    assert "values rounded" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ((), "reads from one place: give one of --from_hf"),
        (("--from_hf=HF", "--from_checkpoint=HF", "--out=OUT"), "given: --from_hf and --from_ch"),
        (("--from_hf=HF",), "writes to one place: give one of --out, --to_hf"),
        (("--from_hf=HF", "--out=OUT", "--dtype=float16"), "--dtype has no effect without --to_hf"),
        (("--from_hf=HF", "--out=OUT", "--num_heads=4"), "no effect without --from_metaseq"),
        (("--from_hf=HF", "--to_hf=OUT", "--dtype=fp16"), "unknown --dtype 'fp16'. Did you mean"),
        (("--from_hf=HF", "--to_hf=OUT", "--max_shard_size=big"), "--max_shard_size is 'big'"),
        (("--from_hf=HF", "--to_hf=OUT", f"--max_shard_size={'9' * 400}GB"), "--max_shard_size is"),
        (("--from_hf=HF", "--out=OUT", "--mesh=fdsp=2"), "unknown mesh axis 'fdsp'"),
        (("--from_hf=HF", "--out=OUT", "--mesh=fsdp=64"), "does not fit 1 device"),
        (("--from_hf=HF", "--out=OUT", "--mesh=fsdp"), "'fsdp' is not AXIS=N"),
        (("--from_hf=HF", "--out=HF"), "is not empty. Choose a folder"),
        (("--from_hf=nowhere", "--out=OUT"), "'nowhere' is not there, expected the folder"),
        (("--from_metaseq=nowhere.pt", "--out=OUT"), "nowhere.pt: cannot be read (No such file"),
        (("--from_checkpoint=nowhere", "--to_hf=OUT"), "nowhere: no model.json there"),
        (("--from_hf=HF", "--out=OUT", "--max_listed=-1"), "--max_listed is -1"),
        (("--from_hf=HF", "--out=OUT", "--vocabulary=nowhere"), "nowhere: no tokenizer there"),
        (("--from_hf=", "--out=OUT"), "--from_hf is '', expected the name of a file or folder"),
    ],
)
def test_wrong_flags(flags, message, folder, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert convert(*(flag.replace("HF", str(folder)).replace("OUT", "out") for flag in flags)) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_dry_run_reads_no_weights(copied, tmp_path, capsys):
    path = shard(copied)
    content = path.read_bytes()
    path.write_bytes(content[:-64] + b"\xff" * 64)  # NaN, were it read.
    flags = (f"--from_hf={copied}", f"--out={tmp_path / 'ours'}")
    assert convert(*flags, "--dry_run") == 0
    assert "checked: every tensor is there and fits" in capsys.readouterr().out
    assert not (tmp_path / "ours").exists()
    assert convert(*flags) == 2


def test_a_folder_that_cannot_be_written(folder, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert convert(f"--from_hf={folder}", f"--out={tmp_path / 'file' / 'ours'}") == 2
    assert "cannot be written (Not a directory)" in capsys.readouterr().err


def test_killed_while_writing_leaves_nothing_under_the_name(folder, tmp_path):
    out = tmp_path / "out"
    slow = (
        "import sys, time; from optiml_jax.interop import huggingface_folder as h;"
        "from optiml_jax.main import cli;"
        "old = h.safetensors.write_arrays\n"
        "def write(*args):\n    old(*args); print('one', flush=True); time.sleep(60)\n"
        "h.safetensors.write_arrays = write; sys.exit(cli.main(sys.argv[1:]))"
    )
    flags = ("convert", f"--from_hf={folder}", f"--to_hf={out}", "--max_shard_size=30KB")
    with subprocess.Popen(
        [sys.executable, "-c", slow, *flags], stdout=subprocess.PIPE, text=True
    ) as process:
        while "one" not in process.stdout.readline():
            assert process.poll() is None
        assert convert(*flags[1:]) == 2  # The other one holds the place.
        process.send_signal(signal.SIGKILL)
    assert [path.name for path in tmp_path.iterdir()] == ["out.partial"]
    assert convert(*flags[1:]) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert not (out / ".lock").exists()
    assert set(arrays(out)) == set(arrays(folder))


def test_stopped_by_ctrl_c_leaves_nothing(folder, tmp_path, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(huggingface_folder.safetensors, "write_arrays", interrupt)
    assert convert(f"--from_hf={folder}", f"--to_hf={tmp_path / 'out'}") == 130
    assert not list(tmp_path.iterdir())


def test_eight_devices_give_the_same(folder, tmp_path):
    """Cut along the mesh while reading; equal to one device in every bit."""
    env = {**os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=8"}
    command = [sys.executable, "-m", "optiml_jax", "convert", f"--from_hf={folder}"]
    for name, mesh in (("fsdp", ()), ("cut", ("--mesh=fsdp=2,model=4",))):
        done = subprocess.run(
            [*command, f"--out={tmp_path / name}", *mesh], env=env, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
    assert convert(f"--from_hf={folder}", f"--out={tmp_path / 'one'}") == 0
    _, expected, _ = checkpoints.load_params(tmp_path / "one")
    for name in ("fsdp", "cut"):
        _, found, _ = checkpoints.load_params(tmp_path / name)
        jax.tree.map(np.testing.assert_array_equal, found, expected)
