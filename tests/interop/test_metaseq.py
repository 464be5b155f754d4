"""Metaseq files of each kind, made from one model, give exactly that model."""

import argparse
import dataclasses

import jax
import numpy as np
import pytest

from optiml_jax.errors import InputError
from optiml_jax.interop import huggingface, huggingface_config, metaseq
from optiml_jax.model import decoder

from . import models

pytestmark = pytest.mark.parity
torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

HEADS = {"decoder_attention_heads": models.HEADS}


@pytest.fixture(scope="module")
def model():
    return models.hf_model("pre").half().float()


@pytest.fixture(scope="module")
def config(model):
    found = huggingface_config.from_hf(model.config.to_dict(), "model")
    return dataclasses.replace(found, dtype="float32")


@pytest.fixture(scope="module")
def params(model, config):
    state = {name: value.detach().numpy() for name, value in model.state_dict().items()}
    return huggingface.params_from_hf(state, config)


def load(paths, num_heads=None, norm_placement=None):
    checkpoint = metaseq.open_checkpoint([str(path) for path in paths])
    config = metaseq.infer_config(checkpoint, num_heads, norm_placement)
    assert not metaseq.check(checkpoint, config)
    shardings = huggingface.param_shardings(config)
    params, problems = huggingface.load(checkpoint.arrays, config, shardings)
    assert not problems + metaseq.differing_copies(checkpoint, 0.0)
    return config, params


def save_parts(folder, model, num_parts, num_shards=1, dtype="float16", metadata=True):
    state = {
        name: value.to(getattr(torch, dtype)) for name, value in models.metaseq_state(model).items()
    }
    paths = []
    for rank, part in enumerate(models.cut_for_parts(state, num_parts)):
        if num_shards == 1:
            path = folder / f"checkpoint_1_4000.pt-model_part-{rank}.pt"
            paths.append(models.save_metaseq(path, part, **HEADS))
            continue
        for shard, (weights, told) in enumerate(models.flatten(part, num_shards)):
            path = folder / f"checkpoint_last-model_part-{rank}-shard{shard}.pt"
            told = told if metadata else None
            paths.append(models.save_metaseq(path, weights, told, **HEADS))
    return paths


def save_kind(kind, folder, model):
    """The files of one way in which metaseq saved models."""
    if kind == "consolidated":
        state = models.metaseq_state(model)
        return [models.save_metaseq(folder / "restored.pt", state, **HEADS)]
    if kind == "separate_qkv":
        state = models.metaseq_state(model, fused=False)
        return [models.save_metaseq(folder / "reshard.pt", state, **HEADS)]
    if kind == "two_parts":
        return save_parts(folder, model, 2)
    if kind == "shards":
        whole = models.metaseq_state(model)
        return [
            models.save_metaseq(folder / f"checkpoint_last-shard{shard}.pt", weights, told, **HEADS)
            for shard, (weights, told) in enumerate(models.flatten(whole, 5))
        ]
    return save_parts(folder, model, 4, 3)


@pytest.mark.parametrize(
    "kind", ["consolidated", "separate_qkv", "two_parts", "shards", "parts_and_shards"]
)
def test_every_kind_gives_the_same_model(kind, tmp_path, model, config, params):
    paths = save_kind(kind, tmp_path, model)
    found_config, found = load(paths[::-1])
    assert found_config.architecture() == config.architecture()
    for path, leaf in jax.tree.leaves_with_path(params):
        theirs = found
        for key in path:
            theirs = theirs[key.key]
        np.testing.assert_array_equal(theirs, leaf, err_msg=str(path))


def test_logits_are_those_of_the_original(tmp_path, model, config):
    ids = models.ids()
    positions = np.broadcast_to(np.arange(ids.shape[1], dtype=np.int32), ids.shape)
    _, params = load(save_parts(tmp_path, model, 2))
    hidden, _ = decoder.hidden_states(config, params, ids, np.ones_like(ids), positions)
    ours = np.asarray(decoder.logits(config, params, hidden))
    with torch.no_grad():
        expected = model(torch.tensor(ids, dtype=torch.long)).logits.numpy()
    assert np.abs(ours - expected).max() <= 2e-5 * np.abs(expected).max()


def test_350m(tmp_path):
    """Projections, no final norm, post-LN: told by the flag, or by the published size."""
    small = models.hf_model("post")
    path = models.save_metaseq(tmp_path / "reshard.pt", models.metaseq_state(small), **HEADS)
    with pytest.raises(InputError, match=r"no norm after the last layer.*--norm_placement=pre or"):
        load([path])
    config, params = load([path], norm_placement="post")
    assert (config.norm_placement, config.final_norm, config.embedding_dim) == ("post", False, 24)
    np.testing.assert_array_equal(
        params["project_in"]["kernel"], small.model.decoder.project_in.weight.detach().numpy().T
    )
    # The published size, with the arrays alone that tell its shape.
    published = {
        name.replace("layers.0.", f"layers.{layer}."): torch.zeros(0)
        for name in models.metaseq_state(small)
        for layer in (range(24) if "layers.0." in name else (0,))
    }
    published = {name: value for name, value in published.items() if "layer_norm" in name}
    published["decoder.embed_tokens.weight"] = torch.zeros(1, 512).expand(50272, 512)
    published["decoder.embed_positions.weight"] = torch.zeros(1, 1).expand(2050, 1024)
    published["decoder.layers.0.fc1.weight"] = torch.zeros(1, 1).expand(4096, 1024)
    path = models.save_metaseq(tmp_path / "350m.pt", published)
    found = metaseq.infer_config(metaseq.open_checkpoint([str(path)]))
    assert found.norm_placement == "post"
    assert found.num_heads == 16


def test_heads_are_asked_for_where_nothing_tells(tmp_path, model):
    path = models.save_metaseq(tmp_path / "m.pt", models.metaseq_state(model))
    with pytest.raises(InputError, match=r"no published model has 3 layers of width 32.*num_heads"):
        load([path])
    config, _ = load([path], num_heads=8)
    assert config.num_heads == 8
    path = models.save_metaseq(tmp_path / "told.pt", models.metaseq_state(model), **HEADS)
    with pytest.raises(InputError, match=r"--num_heads=8: the settings in .*told\.pt say 4"):
        load([path], num_heads=8)


def test_settings_of_omegaconf_are_read(tmp_path, model):
    """A node there is an object that keeps its value under `_val`."""
    node = argparse.Namespace(_val=models.HEADS, _key="decoder_attention_heads")
    settings = {"_content": {"model": {"decoder_attention_heads": node}}}
    path = models.save_metaseq(tmp_path / "m.pt", models.metaseq_state(model), **settings)
    config, _ = load([path])
    assert config.num_heads == models.HEADS


def test_what_is_missing_is_named(tmp_path, model):
    parts = save_parts(tmp_path, model, 2)
    with pytest.raises(InputError, match=r"model part 1 of 2 is missing: no file '\*model_part-1"):
        load(parts[:1])
    with pytest.raises(InputError, match="model part 0 is missing"):
        load(parts[1:])
    folder = tmp_path / "shards"
    folder.mkdir()
    shards = save_parts(folder, model, 2, 3)
    told = (
        r"shard0\.pt: '.*' should have [\d,]+ values, the 2 shard.*every shard of the checkpoint\.$"
    )
    with pytest.raises(InputError, match=told):
        load([path for path in shards if "shard2" not in path.name])
    with pytest.raises(InputError, match=r"lacks|every shard|do not both"):
        load([path for path in shards if path.name != shards[-1].name])


def test_a_folder_and_a_pattern(tmp_path, model):
    paths = save_parts(tmp_path, model, 2)
    (tmp_path / "other.txt").write_text("x")
    assert metaseq.open_checkpoint([str(tmp_path)]).files == paths
    assert metaseq.open_checkpoint([str(tmp_path / "*part-*.pt")]).files == paths
    with pytest.raises(InputError, match=r"nothing\*\.pt': no file has such a name"):
        metaseq.open_checkpoint([str(tmp_path / "nothing*.pt")])
    with pytest.raises(InputError, match="is the same part of a model as"):
        metaseq.open_checkpoint([str(paths[0]), str(paths[0])])


def test_flattened_without_metadata_is_refused(tmp_path, model):
    paths = save_parts(tmp_path, model, 1, 2, metadata=False)
    with pytest.raises(InputError, match=r"flattened.*no 'shard_metadata'.*convert_to_singleton"):
        load(paths)


def test_copies_that_differ_are_named(tmp_path, model):
    state = models.metaseq_state(model)
    parts = models.cut_for_parts(state, 3)
    parts[2]["decoder.layers.1.fc2.bias"][3] += 0.25
    paths = [
        models.save_metaseq(tmp_path / f"m-model_part-{rank}.pt", part, **HEADS)
        for rank, part in enumerate(parts)
    ]
    checkpoint = metaseq.open_checkpoint([str(path) for path in paths])
    (line,) = metaseq.differing_copies(checkpoint, 0.0)
    assert "decoder.layers.1.fc2.bias: its copies in the parts differ by up to 0.25" in line
    assert not metaseq.differing_copies(checkpoint, 0.3)


def problems(folder, parts, **flags):
    """What is told of one file a part."""
    for rank, part in enumerate(parts):
        models.save_metaseq(folder / f"m-model_part-{rank}.pt", part, **HEADS)
    checkpoint = metaseq.open_checkpoint([str(folder)])
    return metaseq.check(checkpoint, metaseq.infer_config(checkpoint, **flags))


def test_parts_of_two_models_are_refused(tmp_path, model):
    one, _ = models.cut_for_parts(models.metaseq_state(model), 2)
    _, two = models.cut_for_parts(models.metaseq_state(models.hf_model("no_final_norm")), 2)
    weight, bias = problems(tmp_path, (one, two))
    assert weight == (
        "missing     decoder.layer_norm.weight in model part 1 (m-model_part-1.pt); model part 0 "
        "(m-model_part-0.pt) holds it"
    )
    assert "decoder.layer_norm.bias in model part 1" in bias


def test_every_tensor_that_does_not_fit_is_told_once(tmp_path, model):
    """Those that lie in some parts only, in none, or were cut, in one list."""
    one, two = models.cut_for_parts(models.metaseq_state(model), 2)
    del two["decoder.layers.0.fc1.weight"]  # Which tells a size, beside those of other layers.
    del one["decoder.layers.1.fc2.bias"]
    for part in (one, two):
        del part["decoder.layers.2.fc2.bias"]
    name = "decoder.layers.1.self_attn.qkv_proj.weight"
    two[name] = two[name][:-1]
    one["decoder.layers.2.fc1.weight"] = one["decoder.layers.2.fc1.weight"][:, :-1]
    one["decoder.layers.2.fc1.bias"] = one["decoder.layers.2.fc1.bias"][:-1]
    one["decoder.layers.0.fc2.bias"] = torch.tensor(1.0)
    two["decoder.layers.2.self_attn.out_proj.weight"] = torch.zeros(3)
    one["decoder.layers.0.self_attn.qkv_proj.bias"] = torch.tensor(1.0)
    assert set(problems(tmp_path, (one, two))) == {
        "missing     decoder.layers.0.fc1.weight in model part 1 (m-model_part-1.pt); model part 0 "
        "(m-model_part-0.pt) holds it",
        "missing     decoder.layers.1.fc2.bias in model part 0 (m-model_part-0.pt); model part 1 "
        "(m-model_part-1.pt) holds it",
        "missing     model.decoder.layers.2.fc2.bias [32]",
        f"shape       {name} is [47, 32] in model part 1 (m-model_part-1.pt): its rows are not "
        "three equal blocks (key, value, query)",
        "shape       decoder.layers.0.self_attn.qkv_proj.bias is [] in model part 0 "
        "(m-model_part-0.pt): its rows are not three equal blocks (key, value, query)",
        "shape       decoder.layers.2.fc1.weight is [64, 31] float32 in model part 0 "
        "(m-model_part-0.pt), [64, 32] float32 in model part 1 (m-model_part-1.pt): they cannot "
        "be joined",
        "shape       decoder.layers.0.fc2.bias is [] float32 in model part 0 (m-model_part-0.pt), "
        "[32] float32 in model part 1 (m-model_part-1.pt): they cannot be joined",
        "shape       decoder.layers.2.self_attn.out_proj.weight is [32, 16] float32 in model part "
        "0 (m-model_part-0.pt), [3] float32 in model part 1 (m-model_part-1.pt): they cannot be "
        "joined",
        "shape       model.decoder.layers.2.fc1.bias is [127], not [128]",
    }


def test_one_file_with_a_cut_tensor(tmp_path, model):
    state = models.metaseq_state(model)
    name = "decoder.layers.1.self_attn.qkv_proj.weight"
    state[name] = state[name][:-5]
    assert problems(tmp_path, [state]) == [
        f"shape       {name} is [91, 32] in m-model_part-0.pt: its rows are not three equal blocks "
        "(key, value, query)"
    ]


def test_half_of_the_last_norm(tmp_path, model):
    """It is no model without a last norm: what lacks is named."""
    state = models.metaseq_state(model)
    del state["decoder.layer_norm.weight"]
    assert problems(tmp_path, [state]) == ["missing     model.decoder.final_layer_norm.weight [32]"]


def test_without_the_embeddings_the_rest_is_told_too(tmp_path, model):
    """Their sizes are the model's, so no config can be inferred; the list is the same."""
    one, two = models.cut_for_parts(models.metaseq_state(model), 2)
    del two["decoder.embed_tokens.weight"]
    for part in (one, two):
        part["decoder.embed_positions.weight"] = torch.zeros(3)
    del two["decoder.layers.1.fc2.bias"]
    with pytest.raises(InputError) as caught:
        problems(tmp_path, (one, two))
    message = str(caught.value)
    assert message.startswith(
        f"{tmp_path / 'm-model_part-0.pt'}, {tmp_path / 'm-model_part-1.pt'}: 3 tensor(s) do not"
    )
    assert "missing     decoder.embed_tokens.weight in model part 1 (m-model_part-1.pt)" in message
    assert "missing     decoder.layers.1.fc2.bias in model part 1" in message
    assert "shape       decoder.embed_positions.weight is [3], expected two axes" in message
    assert message.endswith(metaseq.ADVICE)
    with pytest.raises(InputError, match=r"and 2 more \(--max_listed=0 lists all\)"):
        problems(tmp_path, (one, two), max_listed=1)


def test_sizes_that_make_no_model_name_the_file(tmp_path, model):
    state = models.metaseq_state(model)
    state["decoder.embed_positions.weight"] = torch.zeros(50, 31)
    with pytest.raises(InputError, match=r"m-model_part-0\.pt: model config: d_model 31 does not"):
        problems(tmp_path, [state])


def test_shards_lacking_what_their_metadata_list(tmp_path, model):
    shards = models.flatten(models.metaseq_state(model), 2)
    del shards[1][0]["decoder.layers.1.flat_param_0"]
    for number, (weights, told) in enumerate(shards):
        models.save_metaseq(tmp_path / f"m-shard{number}.pt", weights, told, **HEADS)
    with pytest.raises(
        InputError,
        match=r"m-shard1\.pt: lacks 'decoder\.layers\.1\.flat_param_0', .*Fetch the file again\.$",
    ):
        metaseq.open_checkpoint([str(tmp_path)])


def test_no_layer_that_tells_the_feed_forward_width(tmp_path, model):
    state = models.metaseq_state(model)
    state = {name: value for name, value in state.items() if not name.endswith("fc1.weight")}
    with pytest.raises(InputError) as caught:
        problems(tmp_path, [state])
    assert str(caught.value) == (
        f"{tmp_path / 'm-model_part-0.pt'}: 1 tensor(s) do not fit:\n"
        "  missing     decoder.layers.0.fc1.weight, and that of every other layer\n"
        f"{metaseq.ADVICE}"
    )
