"""Small models of every variant, saved as their makers save them; needs torch and transformers."""

import argparse
import collections
import json

import numpy as np

from optiml_jax.data import vocabularies

CORPUS = ["The cat sat on the mat, and the dog sat on the cat.", "Is it so? yes or no"] * 4
VOCAB_SIZE = 272
LAYERS, WIDTH, HEADS, POSITIONS = 3, 32, 4, 48
VARIANTS = {
    "pre": {},
    "post": {"do_layer_norm_before": False, "word_embed_proj_dim": 24},
    "no_final_norm": {"_remove_final_layer_norm": True},
    "projected": {"word_embed_proj_dim": 24},
}


def vocabulary():
    return vocabularies.train_vocabulary(CORPUS, VOCAB_SIZE)


def hf_model(variant="pre", **changes):
    """An `OPTForCausalLM` in which every array is random, so that a misplaced one shows."""
    import torch
    import transformers

    torch.manual_seed(0)
    settings = {
        "vocab_size": vocabulary().size,
        "hidden_size": WIDTH,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "ffn_dim": 4 * WIDTH,
        "max_position_embeddings": POSITIONS,
        "word_embed_proj_dim": WIDTH,
        "dropout": 0.0,
        "attn_implementation": "eager",
    }
    config = transformers.OPTConfig(**{**settings, **VARIANTS[variant], **changes})
    model = transformers.OPTForCausalLM(config).float().eval()
    with torch.no_grad():
        for name, value in model.named_parameters():
            if "layer_norm" in name and name.endswith("weight"):
                value.normal_(1.0, 0.2)
            else:
                value.normal_(0.0, 0.25)
    return model


def save_tokenizer(folder):
    """The files of an OPT upload: the pair of files, and what is to be added before a text."""
    vocabulary().save(folder)
    (folder / vocabularies.SETTINGS_FILE).unlink()
    special = {"bos_token": "</s>", "eos_token": "</s>", "unk_token": "</s>", "pad_token": "<pad>"}
    settings = {"tokenizer_class": "GPT2Tokenizer", "add_bos_token": True, **special}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))


def save_hf(model, folder, *, dtype="float16", form="safetensors", max_shard_size="1GB"):
    """A Hugging Face folder: safetensors as transformers writes it, or `.bin` files of torch."""
    import torch

    model = model.to(getattr(torch, dtype))
    model.save_pretrained(folder, max_shard_size=max_shard_size)
    save_tokenizer(folder)
    if form.startswith("bin"):
        for path in folder.glob("model*"):
            path.unlink()
        state = dict(model.state_dict())
        names = list(state)
        parts = [names] if form == "bin" else [names[0::2], names[1::2]]
        files = [f"pytorch_model-{n + 1:05}-of-{len(parts):05}.bin" for n in range(len(parts))]
        files = ["pytorch_model.bin"] if form == "bin" else files
        for part, file in zip(parts, files):
            torch.save({name: state[name] for name in part}, folder / file)
        if form == "bin_shards":
            index = {name: file for part, file in zip(parts, files) for name in part}
            (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": index}))
    return folder


def ids(rows=3, length=40):
    return np.random.default_rng(0).integers(4, VOCAB_SIZE - 8, (rows, length)).astype(np.int32)


def metaseq_state(model, *, fused=True):
    """The arrays of a Hugging Face model as metaseq names them."""
    import torch

    state = collections.OrderedDict()
    for name, value in model.state_dict().items():
        name = name.removeprefix("model.")
        name = name.replace("decoder.final_layer_norm.", "decoder.layer_norm.")
        name = name.replace("project_in.", "project_in_dim.").replace(
            "project_out.", "project_out_dim."
        )
        if name == "lm_head.weight":
            name = "decoder.output_projection.weight"
        state[name] = value.clone()
    if fused:
        for name in [name for name in state if ".q_proj." in name]:
            letters = (name.replace(".q_proj.", f".{letter}_proj.") for letter in "kvq")
            state[name.replace(".q_proj.", ".qkv_proj.")] = torch.cat(
                [state.pop(n) for n in letters]
            )
    state["decoder.version"] = torch.tensor([3.0])
    return state


def cut_for_parts(state, count):
    """What each of `count` Megatron ranks holds of a state with fused qkv."""
    import torch

    parts = [collections.OrderedDict() for _ in range(count)]
    for name, value in state.items():
        if "qkv_proj" in name:
            thirds = [third.chunk(count) for third in value.chunk(3)]
            pieces = [torch.cat([third[rank] for third in thirds]) for rank in range(count)]
        elif any(one in name for one in ("embed_tokens", "output_projection", "fc1")):
            pieces = value.chunk(count)
        elif name.endswith(("fc2.weight", "out_proj.weight")):
            pieces = value.chunk(count, dim=1)
        else:
            pieces = [value] * count
        for part, piece in zip(parts, pieces):
            part[name] = piece.clone()
    return parts


def flatten(state, count):
    """What each of `count` FSDP ranks saves: one flat parameter a layer, one for the rest."""
    import torch

    buffers = {name: value for name, value in state.items() if name == "decoder.version"}
    # The head is the embedding itself, so it is no parameter of its own.
    tied = "decoder.output_projection.weight"
    groups = collections.defaultdict(list)
    for name in state:
        if name not in buffers and name != tied:
            path = ".".join(name.split(".")[:3]) if ".layers." in name else ""
            groups[path].append(name)
    shards = [(collections.OrderedDict(buffers), []) for _ in range(count)]
    for path, names in groups.items():
        flat = torch.cat([state[name].reshape(-1) for name in names])
        pieces = list(flat.chunk(count))
        for (weights, metadata), piece in zip(shards, pieces):
            padding = pieces[0].numel() - piece.numel()
            weights[f"{path}.flat_param_0" if path else "flat_param_0"] = torch.nn.functional.pad(
                piece, [0, padding]
            )
            shared = [("decoder.embed_tokens.weight", tied)] if not path and tied in state else []
            info = {
                "names": [name.removeprefix(f"{path}.") if path else name for name in names],
                "shapes": [state[name].shape for name in names],
                "numels": [state[name].numel() for name in names],
                "padding": padding,
            }
            metadata.append(
                {
                    "fsdp_path": path,
                    "params": {"flat_param_0": info},
                    "no_broadcast_optim_state": False,
                    "shared_param_info": shared,
                }
            )
    return [
        (weights, {"param_metadata": metadata, "buffer_names": list(buffers)})
        for weights, metadata in shards
    ]


def save_metaseq(path, state, metadata=None, **settings):
    """One file as metaseq's trainer writes it, settings and optimizer history included."""
    import torch

    content = {
        "cfg": {"model": argparse.Namespace(**settings), "_name": None},
        "args": None,
        "model": state,
        "optimizer_history": [{"num_updates": 7, "optimizer_name": "MemoryEfficientFP16Optimizer"}],
        "extra_state": {"train_iterator": {"epoch": 1}, "val_loss": np.float64(2.5)},
    }
    if metadata is not None:
        content["shard_metadata"] = metadata
    torch.save(content, path)
    return path
