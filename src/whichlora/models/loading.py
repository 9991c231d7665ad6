"""Locates and loads the base model and its tokenizer: the packaged default, a local folder or a hub id."""

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

from whichlora.errors import OptionError, is_file, is_folder, user_path
from whichlora.models.folders import model_files
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
    """Location and identity of a base model.

    Attributes:
        name: the value of the option `model`.
        name_or_path: folder or hub id, for `from_pretrained`.
        revision: commit on the hub; None for a folder.
        digest: SHA-256 of a folder's content, or hub id and commit.
    """

    name: str
    name_or_path: str
    revision: str | None
    digest: str


@dataclass(frozen=True, kw_only=True)
class ModelShape:
    """Properties of a model that do not depend on its weights.

    Attributes:
        blocks: name of the list of decoder blocks: block 3 is `{blocks}.3`.
        linears: (in_features, out_features) of the linear layers in the decoder blocks, by full name.
        parameters: number of all parameters, tied ones counted once.
        context: maximum input length in tokens; None if the configuration does not state it.
    """

    n_layers: int
    blocks: str
    linears: Mapping[str, tuple[int, int]]
    parameters: int
    context: int | None

    def module_names(self) -> list[str]:
        """Return the distinct short names of the linear layers (`q_proj`, ...), in model order."""
        return list(dict.fromkeys(name.rpartition(".")[2] for name in self.linears))


def locate(name: str) -> ModelSource:
    """Find the model `name` without loading its weights.

    Raises:
        OptionError: `name` is neither the packaged model, nor a folder with a model, nor on the hub or in its cache.
    """
    if name == MODEL_NAME:
        try:
            path = packaged_model_path()
        except PackagedModelError as error:
            raise OptionError("model", name, str(error)) from error
        return ModelSource(name=name, name_or_path=str(path), revision=None, digest=packaged_model_digest())
    folder = user_path(name)
    if is_folder(folder):
        if not is_file(folder / "config.json"):
            raise OptionError("model", name, "the folder has no config.json")
        file_stats = [(p, p.stat().st_size, p.stat().st_mtime_ns) for p in model_files(folder)]
        return ModelSource(name=name, name_or_path=str(folder), revision=None, digest=_digest(tuple(file_stats)))
    commit = _commit(name)
    return ModelSource(name=name, name_or_path=name, revision=commit, digest=f"{name}@{commit}")


@lru_cache(maxsize=4)
def _commit(name: str) -> str | None:
    """Return the commit of a model on the hub or in its cache.

    Raises:
        OptionError: the model is in neither.
    """
    from transformers import AutoConfig

    try:
        commit: str | None = AutoConfig.from_pretrained(name)._commit_hash
    except Exception as error:  # here and below the libraries raise many types of exceptions
        allowed = f"allowed are {MODEL_NAME}, a folder with a saved model, or a hub id that can be reached"
        raise OptionError("model", name, f"{allowed} ({_first_line(error)})") from error
    return commit


@lru_cache(maxsize=4)
def read_shape(source: ModelSource) -> ModelShape:
    """Return a model's shape, from its configuration alone: the model is built on the meta device, without weights.

    Raises:
        OptionError: the model is not a causal language model that transformers supports.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    try:
        config = AutoConfig.from_pretrained(source.name_or_path, revision=source.revision)
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config)
    except Exception as error:
        allowed = f"must be a causal language model ({_first_line(error)})"
        raise OptionError("model", source.name, allowed) from error
    if any(getattr(module, "is_causal", True) is False for module in model.get_decoder().modules()):
        # It would see the answer that it must predict. Image encoders, which may be bidirectional, are not checked.
        raise OptionError("model", source.name, "must be a causal language model, but its attention is bidirectional")
    return shape_of(model)


def shape_of(model: PreTrainedModel) -> ModelShape:
    """Return the shape of an instantiated model on any device, or of the language model of a vision-language model.

    Raises:
        OptionError: the model has no list of decoder blocks.
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
        OptionError: the model has no such list.
    """
    import torch

    config = model.config.get_text_config()
    n_layers = int(config.num_hidden_layers)
    decoder_modules = {id(module) for module in model.get_decoder().modules()}
    lists: list[str] = [
        name
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.ModuleList) and len(module) == n_layers and id(module) in decoder_modules
    ]
    if not lists:
        raise OptionError("model", config.name_or_path, f"has no list of {n_layers} decoder blocks")
    return min(lists, key=len)


def current_device() -> torch.device:
    """Return the current CUDA device of this process, or the CPU if CUDA is not available."""
    import torch

    return torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")


def check_quantization(quantization: str) -> None:
    """Check, before loading a model, that this installation can quantise it.

    Raises:
        OptionError: bitsandbytes is not installed (its wheels are for Linux only).
    """
    if quantization != "none" and find_spec("bitsandbytes") is None:
        raise OptionError(
            "quantization", quantization, "needs the package bitsandbytes; without it only none is allowed"
        )


@lru_cache(maxsize=4)
def load_tokenizer(source: ModelSource) -> PreTrainedTokenizerBase:
    """Return the tokenizer, with the end-of-sequence token as padding token if it has none.

    Raises:
        OptionError: the tokenizer cannot be loaded.
    """
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(source.name_or_path, revision=source.revision)
    except Exception as error:
        raise OptionError("model", source.name, f"its tokenizer cannot be loaded ({_first_line(error)})") from error
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_model(source: ModelSource, *, precision: str, quantization: str) -> PreTrainedModel:
    """Load a model onto this process's device.

    Args:
        precision: "fp32" or "bf16": dtype of the weights; with NF4, the compute dtype.
        quantization: "none" or "nf4".

    Raises:
        OptionError: the weights are missing or cannot be loaded.
    """
    import torch
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig
    from transformers.utils import logging

    from whichlora.models.kernels import onednn

    logging.disable_progress_bar()  # loading weights takes a second
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[precision]
    if precision == "bf16" and current_device().type == "cpu" and onednn.emulates_bf16():
        warnings.warn(
            "precision=bf16: this processor has no bf16 instructions, so matrix products take 6 to 100 times as long "
            "as in fp32; precision=fp32 is faster here.",
            stacklevel=2,
        )
    extra: dict[str, Any] = {}
    if quantization == "nf4":
        extra["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=dtype
        )
    try:
        model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
            source.name_or_path, revision=source.revision, dtype=dtype, device_map={"": current_device()}, **extra
        )
    except Exception as error:
        if isinstance(error, torch.OutOfMemoryError):
            raise
        raise OptionError("model", source.name, f"its weights cannot be loaded ({_first_line(error)})") from error
    if quantization == "nf4":
        _disable_cpu_packing(model)
    onednn.use_onednn_linear(model)
    return model


def _disable_cpu_packing(model: PreTrainedModel) -> None:
    """Prevent bitsandbytes from packing 4-bit weights for CPU inference.

    On a CPU with AVX512-BF16 it packs them permanently in the first forward pass in eval mode. Packed weights do not
    propagate gradients: after the first validation most modules would silently stop training.
    """
    from bitsandbytes.nn import Linear4bit

    for module in model.modules():
        if isinstance(module, Linear4bit):
            module.support_avx512bf16_for_cpu = False


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


@lru_cache(maxsize=4)
def _digest(file_stats: tuple[tuple[Path, int, int], ...]) -> str:
    """Return the SHA-256 over names and contents of files; their sizes and times are part of the cache key only."""
    digest = hashlib.sha256()
    for path, _, _ in file_stats:
        with path.open("rb") as file:
            digest.update(json.dumps([path.name, hashlib.file_digest(file, "sha256").hexdigest()]).encode())
    return digest.hexdigest()


def copy_sharing_weights(model: PreTrainedModel) -> PreTrainedModel:
    """Return a copy of a model's modules that shares all parameters and buffers with the original."""
    weights = chain(model.parameters(), model.buffers())
    return copy.deepcopy(model, {id(tensor): tensor for tensor in weights})
