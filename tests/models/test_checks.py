"""Models and adapters whose tensors or side files are not what would be scored are refused, in one line."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from runs import plan_of
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from whichlora.errors import OptionError, ProofError
from whichlora.models.loading import load_model, load_tokenizer, locate, read_shape
from whichlora.testing import save_tiny_model
from whichlora.training import adapter

Change = Callable[[dict[str, torch.Tensor]], object]
UP = "model.layers.1.mlp.up_proj.weight"


@pytest.fixture
def folder(tiny_model: str, tmp_path: Path) -> Path:
    """A copy of the tiny model."""
    return Path(shutil.copytree(tiny_model, tmp_path / "model"))


def rewrite(path: Path, change: Change) -> None:
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path, metadata={"format": "pt"})


def update(path: Path, **entries: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | entries))


def refused(action: Callable[[], object], error: type[Exception] = OptionError) -> str:
    """Return the message, of one line, with which an action is refused."""
    with pytest.raises(error) as caught:
        action()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def load(folder: Path, quantization: str = "none") -> Any:
    return load_model(locate(str(folder)), precision="fp32", quantization=quantization)


CHANGES: dict[str, tuple[Change, str]] = {
    "missing": (lambda t: t.pop(UP), f"1 missing: {UP}"),
    "missing norm": (lambda t: t.pop("model.norm.weight"), "1 missing: model.norm.weight"),
    "missing embedding": (lambda t: t.pop("model.embed_tokens.weight"), "missing: .*model.embed_tokens.weight"),
    "missing block": (
        lambda t: [t.pop(key) for key in list(t) if ".layers.1." in key],
        r"9 missing: model.layers.1.input_layernorm.weight, .*, \.\.\.$",
    ),
    "another shape": (
        lambda t: t.update({UP: torch.zeros(60, 32)}),
        rf"1 of another shape: {UP} \[60, 32\] instead of \[64, 32\]",
    ),
    "transposed": (lambda t: t.update({UP: t[UP].T.contiguous()}), r"\[32, 64\] instead of \[64, 32\]"),
    "one block more": (
        lambda t: t.update({"model.layers.3.mlp.up_proj.weight": torch.zeros(64, 32)}),
        "1 unexpected: model.layers.3.mlp.up_proj.weight",
    ),
    "biases": (
        lambda t: t.update({"model.layers.0.self_attn.q_proj.bias": torch.zeros(32)}),
        "1 unexpected: model.layers.0.self_attn.q_proj.bias",
    ),
    "another prefix": (
        lambda t: [t.update({f"net.{key}": t.pop(key)}) for key in list(t)],
        "missing: .*; .* unexpected: net.model",
    ),
}


@pytest.mark.parametrize("quantization", ["none", "nf4"])
@pytest.mark.parametrize("change", CHANGES)
def test_tensors_other_than_the_architectures_are_refused_by_name(
    folder: Path, change: str, quantization: str, capfd: pytest.CaptureFixture[str]
) -> None:
    if quantization == "nf4":
        pytest.importorskip("bitsandbytes")
    edit, message = CHANGES[change]
    rewrite(folder / "model.safetensors", edit)
    for action in (lambda: load(folder, quantization), lambda: read_shape(locate(str(folder)))):
        text = refused(action)
        assert text.startswith(f"model={folder}: its tensors are not those of config.json; ")
        assert re.search(message, text), text
    assert "LOAD REPORT" not in capfd.readouterr().err


@pytest.mark.parametrize(
    "fields",
    [
        {"tie_word_embeddings": False},
        {"config": "GPTNeoXConfig"},
        {"config": "GPT2Config"},
        {"config": "Gemma2Config", "head_dim": 8},
        {"config": "Qwen2Config"},
        {"config": "MixtralConfig", "num_local_experts": 2},
        {"config": "MambaConfig"},
    ],
    ids=str,
)
def test_whole_models_load_also_in_shards(tmp_path: Path, fields: dict[str, Any]) -> None:
    model = AutoModelForCausalLM.from_pretrained(save_tiny_model(tmp_path / "one", **fields))
    model.save_pretrained(tmp_path / "shards", max_shard_size="50KB")
    assert len(list((tmp_path / "shards").glob("*.safetensors"))) > 1
    for name in ("one", "shards"):
        loaded = load(tmp_path / name).state_dict()
        assert all(torch.equal(tensor, loaded[key]) for key, tensor in model.state_dict().items())


def test_a_checkpoint_with_old_rotary_buffers_loads(folder: Path) -> None:
    rewrite(
        folder / "model.safetensors",
        lambda t: t.update({"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(4)}),
    )
    load(folder)


@pytest.mark.parametrize("quantization", ["none", "nf4"])
def test_tied_tensors_that_differ_are_refused(folder: Path, quantization: str) -> None:
    """transformers would not tie them and say so in a log line only."""
    embedding = load_file(folder / "model.safetensors")["model.embed_tokens.weight"]
    rewrite(folder / "model.safetensors", lambda t: t.update({"lm_head.weight": embedding.clone()}))
    load(folder)
    rewrite(folder / "model.safetensors", lambda t: t.update({"lm_head.weight": embedding + 1}))
    assert "config.json ties lm_head.weight to another tensor" in refused(lambda: load(folder, quantization))


def test_a_torch_checkpoint_is_checked_too(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save(tensors, folder / "pytorch_model.bin")
    read_shape(locate(str(folder)))
    load(folder)
    torch.save({key: tensor for key, tensor in tensors.items() if key != UP}, folder / "pytorch_model.bin")
    for action in (lambda: load(folder), lambda: read_shape(locate(str(folder)))):
        assert f"1 missing: {UP}" in refused(action)
    (folder / "pytorch_model.bin").unlink()
    read_shape(locate(str(folder)))  # a grid can be planned before the weights are there
    assert "its weights cannot be loaded" in refused(lambda: load(folder))


def test_a_missing_expert_is_refused(tmp_path: Path) -> None:
    folder = save_tiny_model(tmp_path / "moe", config="MixtralConfig", num_local_experts=2)
    rewrite(folder / "model.safetensors", lambda t: t.pop(next(key for key in sorted(t) if "experts.1." in key)))
    assert "model=" in refused(lambda: load(folder))


@pytest.fixture
def shards(tiny_model: str, tmp_path: Path) -> Path:
    AutoModelForCausalLM.from_pretrained(tiny_model).save_pretrained(tmp_path / "shards", max_shard_size="50KB")
    return tmp_path / "shards"


def test_a_missing_shard_is_refused_by_name(shards: Path) -> None:
    last = max(shards.glob("*.safetensors"))
    last.unlink()
    assert f"weights are missing from the folder: {last.name} (" in refused(lambda: locate(str(shards)))


@pytest.mark.parametrize("name", ["../outside.safetensors", "sub/inside.safetensors"])
def test_a_shard_outside_the_folder_is_refused(shards: Path, name: str) -> None:
    index = shards / "model.safetensors.index.json"
    (shards / "sub").mkdir()
    shutil.copyfile(min(shards.glob("*.safetensors")), shards / name)
    content = json.loads(index.read_text())
    content["weight_map"][next(iter(content["weight_map"]))] = name
    index.write_text(json.dumps(content))
    assert f"weights are missing from the folder: {name}" in refused(lambda: locate(str(shards)))


def test_weights_that_are_there_twice_are_refused(shards: Path, folder: Path) -> None:
    shutil.copyfile(folder / "model.safetensors", shards / "model.safetensors")
    assert "has weights twice" in refused(lambda: locate(str(shards)))
    weight_map = dict.fromkeys(load_file(folder / "model.safetensors"), "model.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    load(folder)  # an index of the one file, which some tools write


@pytest.mark.parametrize("weights", [True, False])
def test_an_adapter_in_the_model_folder_is_refused(folder: Path, tmp_path: Path, weights: bool) -> None:
    from peft import LoraConfig, get_peft_model

    model = get_peft_model(AutoModelForCausalLM.from_pretrained(folder), LoraConfig(target_modules=["q_proj"]))
    model.save_pretrained(tmp_path / "adapter")
    shutil.copyfile(tmp_path / "adapter" / "adapter_config.json", folder / "adapter_config.json")
    if weights:
        shutil.copyfile(tmp_path / "adapter" / "adapter_model.safetensors", folder / "adapter_model.safetensors")
    message = refused(lambda: locate(str(folder)))
    assert message.startswith(f"model={folder}: the folder holds an adapter (adapter_config.json)")
    assert "the folder holds an adapter" in refused(lambda: locate(str(tmp_path / "adapter")))


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True}}, "already quantised .*bitsan"),
        ({"quantization_config": {"quant_method": "gptq", "bits": 4}}, "already quantised .*gptq"),
        ({"attn_implementation": "someone/kernel"}, "config.json sets attn_implementation=someone/kernel"),
        ({"transformers_weights": "other.safetensors"}, "names other weights"),
        ({"layer_types": ["full_attention"] * 9}, r"must be equal to the number of `layer_types` \(9\)"),
        ({"layer_types": ["none"] * 2}, r"The `layer_types` entries must be in "),
    ],
)
def test_settings_that_change_what_is_loaded_are_refused(folder: Path, entries: Any, message: str) -> None:
    update(folder / "config.json", **entries)
    assert re.search(message, refused(lambda: read_shape(locate(str(folder)))))


def test_settings_of_what_a_forward_pass_returns_are_overridden(folder: Path) -> None:
    update(folder / "config.json", return_dict=False, output_attentions=True, output_hidden_states=True)
    with torch.inference_mode():
        output = load(folder)(torch.tensor([[1, 2, 3]]))
    assert (output.logits.shape, output.attentions, output.hidden_states) == ((1, 3, 900), None, None)


BOMB = "from pathlib import Path\nPath(__file__).with_name('executed').touch()\nraise SystemExit(9)\n"


@pytest.mark.parametrize("model_type", ["llama", "nosuch"])
def test_code_in_the_folder_is_never_executed(
    folder: Path, model_type: str, monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    monkeypatch.setattr("builtins.input", lambda *_: "yes")
    (folder / "code.py").write_text(BOMB)
    classes = {"AutoConfig": "code.Config", "AutoModelForCausalLM": "code.Model", "AutoTokenizer": ["code.T", "code.T"]}
    update(folder / "config.json", auto_map=classes, model_type=model_type)
    update(folder / "tokenizer_config.json", auto_map=classes)
    if model_type == "llama":
        read_shape(locate(str(folder)))
        load(folder)
        load_tokenizer(locate(str(folder)))
        assert any("auto_map), which is not executed; the architecture llama" in str(w.message) for w in recwarn)
    else:
        message = refused(lambda: read_shape(locate(str(folder))))
        assert "it comes with code of its own (auto_map), which is never executed" in message
    assert not list(folder.rglob("executed"))


@pytest.mark.parametrize("variant", ["lora", "dora", "vera", "adalora", "olora", "shira"])
def test_saved_adapters_load_and_incomplete_or_foreign_ones_are_refused(
    tiny_model: str, tmp_path: Path, variant: str
) -> None:
    plan = plan_of(tiny_model, variant=variant, learning_rate="0.001")
    model, _, _ = adapter.attach(load(Path(tiny_model)), plan, total_steps=50)
    adapter.save_initial(model, plan, tmp_path)
    adapter.save(model, plan, tmp_path, initial=tmp_path)
    adapter.load_saved(plan, tmp_path, base=load(Path(tiny_model)))
    weights = tmp_path / "adapter_model.safetensors"
    whole = weights.read_bytes()

    def message() -> str:
        text = refused(lambda: adapter.load_saved(plan, tmp_path, base=load(Path(tiny_model))), ProofError)
        weights.write_bytes(whole)
        assert f"the adapter in {tmp_path} " in text
        return text

    lost = min(load_file(weights))
    rewrite(weights, lambda t: t.pop(lost))
    assert message().endswith(f"not those of its config; 1 missing: {lost}")
    foreign = "base_model.model.model.layers.9.mlp.up_proj.lora_A.weight"
    rewrite(weights, lambda t: t.update({foreign: torch.zeros(2, 2)}))
    assert message().endswith(f"not those of its config; 1 unexpected: {foreign}")
    if variant != "shira":  # PEFT takes its indices in any shape
        rewrite(weights, lambda t: t.update({lost: torch.zeros(3, 3)}))
        assert "cannot be loaded" in message()
    weights.write_bytes(whole[: len(whole) // 2])
    assert "cannot be loaded" in message()


def test_a_full_fine_tune_that_lost_a_tensor_is_refused(tiny_model: str, tmp_path: Path) -> None:
    plan = plan_of(tiny_model, variant="full", learning_rate="0.001")
    adapter.save(load(Path(tiny_model)), plan, tmp_path, initial=tmp_path)
    adapter.load_saved(plan, tmp_path, base=None)
    rewrite(tmp_path / "model.safetensors", lambda t: t.pop(UP))
    text = refused(lambda: adapter.load_saved(plan, tmp_path, base=None), ProofError)
    assert text.startswith(f"the model in {tmp_path} cannot be loaded: ")
    assert text.endswith(f"1 missing: {UP}")
