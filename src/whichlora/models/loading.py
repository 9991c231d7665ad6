"""The base model and its tokenizer: the packaged default, a local folder or a hub id."""

from __future__ import annotations

import copy
import hashlib
import json
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from whichlora.errors import OptionError
from whichlora.models.packaged import (
    MODEL_NAME,
    PackagedModelError,
    packaged_model_digest,
    packaged_model_path,
)

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True, kw_only=True)
class ModelSource:
    """Where a base model lies and what it is.

    Attributes:
        name: as the user gave it.
        place: folder or hub id, for `from_pretrained`.
        revision: the hub's commit; None for a folder.
        digest: of the content of a folder, or id and commit on the hub.
    """

    name: str
    place: str
    revision: str | None
    digest: str


@dataclass(frozen=True, kw_only=True)
class ModelShape:
    """What can be known of a model without its weights.

    Attributes:
        blocks: name of the list of decoder blocks: block 3 is `{blocks}.3`.
        linears: linear layers within the decoder blocks, by full name, as (in_features, out_features).
        parameters: all parameters, tied ones counted once.
        context: the longest text it reads, in tokens; None where its configuration does not say.
    """

    n_layers: int
    blocks: str
    linears: Mapping[str, tuple[int, int]]
    parameters: int
    context: int | None

    def module_names(self) -> list[str]:
        """Return the last parts of the linear layers' names, in the order of the model."""
        return list(dict.fromkeys(name.rpartition(".")[2] for name in self.linears))


def locate(name: str) -> ModelSource:
    """Find the model called `name` without loading its weights.

    Raises:
        OptionError: it is neither packaged, nor a folder with a model, nor on the hub or in its cache.
    """
    if name == MODEL_NAME:
        try:
            place = packaged_model_path()
        except PackagedModelError as error:
            raise OptionError("model", name, str(error)) from error
        return ModelSource(name=name, place=str(place), revision=None, digest=packaged_model_digest())
    folder = Path(name).expanduser()
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise OptionError("model", name, "the folder has no config.json")
        stamps = [(p, p.stat().st_size, p.stat().st_mtime_ns) for p in _files(folder)]
        return ModelSource(name=name, place=str(folder), revision=None, digest=_digest(tuple(stamps)))
    commit = _commit(name)
    return ModelSource(name=name, place=name, revision=commit, digest=f"{name}@{commit}")


@lru_cache(maxsize=4)
def _commit(name: str) -> str | None:
    """Return the commit of a model on the hub or in its cache."""
    from transformers import AutoConfig

    try:
        commit: str | None = AutoConfig.from_pretrained(name)._commit_hash
    except Exception as error:  # the libraries raise many kinds, here and below, none of which tells what to do
        allowed = f"allowed are {MODEL_NAME}, a folder with a saved model, or a hub id that can be reached"
        raise OptionError("model", name, f"{allowed} ({_first_line(error)})") from error
    return commit


@lru_cache(maxsize=4)
def read_shape(source: ModelSource) -> ModelShape:
    """Read a model's shape from its configuration, on the meta device.

    Raises:
        OptionError: it is not a causal language model that transformers knows.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    try:
        config = AutoConfig.from_pretrained(source.place, revision=source.revision)
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config)
    except Exception as error:
        allowed = f"must be a causal language model ({_first_line(error)})"
        raise OptionError("model", source.name, allowed) from error
    if any(getattr(module, "is_causal", True) is False for module in model.get_decoder().modules()):
        # Such a model would see the answer it is to learn. What an image encoder sees is its own affair.
        raise OptionError("model", source.name, "must be a causal language model, but its attention sees what follows")
    return shape_of(model)


def shape_of(model: PreTrainedModel) -> ModelShape:
    """Return the shape of a model that exists, on any device. Of one that reads images too, the text part counts.

    Raises:
        OptionError: its decoder is not a list of blocks.
    """
    import torch

    config = model.config.get_text_config()
    blocks = blocks_of(model)
    linears = {
        name: (module.in_features, module.out_features)
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and name.startswith(f"{blocks}.")
    }
    model.tie_weights()
    return ModelShape(
        n_layers=int(config.num_hidden_layers),
        blocks=blocks,
        linears=linears,
        parameters=sum(p.numel() for p in model.parameters()),
        context=getattr(config, "max_position_embeddings", None),
    )


def blocks_of(model: PreTrainedModel) -> str:
    """Return the name of a model's list of decoder blocks.

    Raises:
        OptionError: its decoder is not a list of blocks.
    """
    import torch

    config = model.config.get_text_config()
    n_layers = int(config.num_hidden_layers)
    within = {id(module) for module in model.get_decoder().modules()}
    lists: list[str] = [
        name
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.ModuleList) and len(module) == n_layers and id(module) in within
    ]
    if not lists:
        raise OptionError("model", config.name_or_path, f"has no list of {n_layers} decoder blocks")
    return min(lists, key=len)


def current_device() -> torch.device:
    """Return the accelerator of this process, or the CPU."""
    import torch

    return torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")


def check_quantization(quantization: str) -> None:
    """Check that a quantised model can be loaded here, before one is.

    Raises:
        OptionError: bitsandbytes is not installed, which has wheels for Linux alone.
    """
    if quantization != "none" and find_spec("bitsandbytes") is None:
        raise OptionError("quantization", quantization, "needs the package bitsandbytes; without it allowed is none")


@lru_cache(maxsize=4)
def load_tokenizer(source: ModelSource) -> PreTrainedTokenizerBase:
    """Return the tokenizer, with a padding token.

    Raises:
        OptionError: there is none to load.
    """
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(source.place, revision=source.revision)
    except Exception as error:
        raise OptionError("model", source.name, f"its tokenizer cannot be loaded ({_first_line(error)})") from error
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_model(source: ModelSource, *, precision: str, quantization: str) -> PreTrainedModel:
    """Load a model onto this process's device. `precision` is also what NF4 weights are computed in.

    Raises:
        OptionError: the weights are missing or cannot be read.
    """
    import torch
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    from whichlora.models.kernels import onednn

    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[precision]
    if precision == "bf16" and current_device().type == "cpu" and onednn.emulates_bf16():
        warnings.warn(
            "precision=bf16: this processor has no instructions for bf16, so its products take six to a hundred times "
            "as long as in fp32; precision=fp32 is faster here.",
            stacklevel=2,
        )
    extra: dict[str, Any] = {}
    if quantization == "nf4":
        extra["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=dtype
        )
    try:
        model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
            source.place, revision=source.revision, dtype=dtype, device_map={"": current_device()}, **extra
        )
    except Exception as error:
        if isinstance(error, torch.OutOfMemoryError):
            raise
        raise OptionError("model", source.name, f"its weights cannot be loaded ({_first_line(error)})") from error
    if quantization == "nf4":
        _keep_unpacked(model)
    onednn.use_onednn_linear(model)
    return model


def _keep_unpacked(model: PreTrainedModel) -> None:
    """Keep bitsandbytes from packing 4-bit weights for CPU inference.

    It does so for good on the first forward pass in eval mode where the CPU has AVX512-BF16, and through packed
    weights no gradient flows: after the first validation most modules would train no more, without an error.
    """
    from bitsandbytes.nn import Linear4bit

    for module in model.modules():
        if isinstance(module, Linear4bit):
            module.support_avx512bf16_for_cpu = False


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def _files(folder: Path) -> list[Path]:
    """The files that make a saved model and its tokenizer."""
    return [p for p in sorted(folder.iterdir()) if p.suffix in (".json", ".safetensors", ".bin", ".model", ".txt")]


@lru_cache(maxsize=4)
def _digest(stamps: tuple[tuple[Path, int, int], ...]) -> str:
    """SHA-256 over the names and contents of files. Their sizes and times only tell when they must be read again."""
    total = hashlib.sha256()
    for path, _, _ in stamps:
        with path.open("rb") as file:
            total.update(json.dumps([path.name, hashlib.file_digest(file, "sha256").hexdigest()]).encode())
    return total.hexdigest()


def copy_around_weights(model: PreTrainedModel) -> PreTrainedModel:
    """Return the same model in modules of its own, around the same weights."""
    weights = chain(model.parameters(), model.buffers())
    return copy.deepcopy(model, {id(tensor): tensor for tensor in weights})
