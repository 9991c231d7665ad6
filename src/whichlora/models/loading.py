"""Loads the base model and its tokenizer, or its shape alone."""

from __future__ import annotations

import copy
import warnings
from functools import lru_cache
from importlib.util import find_spec
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from whichlora.errors import OptionError
from whichlora.hub_access import retried
from whichlora.models import checks
from whichlora.models.folders.verified import check_recorded_files
from whichlora.models.hub import check_cached_files
from whichlora.models.packaged import CATALOGUE
from whichlora.models.quiet import without_log_of_transformers
from whichlora.models.shape import ModelShape, blocks_of, shape_of
from whichlora.models.sources import ModelSource, locate

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

__all__ = [
    "ModelShape",
    "ModelSource",
    "blocks_of",
    "check_quantization",
    "copy_sharing_weights",
    "current_device",
    "load_model",
    "load_tokenizer",
    "locate",
    "read_config",
    "read_shape",
    "shape_of",
]

_SMALL = 20_000_000
"""Parameters of a model up to which random weights are quickly created, to prove it causal before it is loaded."""
_FORWARD_OUTPUTS = {"return_dict": True, "output_attentions": False, "output_hidden_states": False}
"""Overrides of settings in config.json that decide what a forward pass returns."""


@lru_cache(maxsize=4)
def read_shape(source: ModelSource) -> ModelShape:
    """Return a model's shape, from its configuration alone: the model is built on the meta device, without weights.

    Names and shapes of the tensors in a folder, if it has any, are compared with it.

    Raises:
        OptionError: the model is not a causal language model that transformers supports, or a folder has other tensors.
    """
    import torch
    from transformers import AutoModelForCausalLM

    from whichlora.models.forward_checks import check_causal
    from whichlora.models.packing import is_tested

    config = read_config(source)
    checks.check_config(source.name, config)
    try:
        with torch.device("meta"), without_log_of_transformers():
            model = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    except Exception as error:
        allowed = f"must be a causal language model ({checks.reason_for(error)})"
        raise OptionError("model", source.name, allowed) from error
    checks.check_declared_causal(source.name, model)
    running = None
    if sum(p.numel() for p in model.parameters()) <= _SMALL:
        running = _with_random_weights(config)
        check_causal(source.name, running)
    elif not is_tested(config):
        running = _with_fake_weights(config)
    if checks.has_weights(Path(source.name_or_path)):  # weights on the hub are not downloaded before they are needed
        checks.check_weights(source.name, _from_pretrained(source, device_map={"": "meta"})[1])
    return shape_of(model, running)


def _with_random_weights(config: PreTrainedConfig) -> PreTrainedModel:
    """Return a model on the CPU, without a change of the random state."""
    import torch
    from transformers import AutoModelForCausalLM

    with torch.random.fork_rng(devices=[]), without_log_of_transformers():
        torch.manual_seed(0)
        model: PreTrainedModel = AutoModelForCausalLM.from_config(config, dtype=torch.float32, trust_remote_code=False)
        with torch.no_grad():
            for parameter in model.parameters():  # those that are zero at first would hide what depends on others
                parameter.add_(torch.randn_like(parameter), alpha=0.02)
    return model


def _with_fake_weights(config: PreTrainedConfig) -> PreTrainedModel | None:
    """Return a model that computes shapes and gradients' flow alone, without memory; None if it cannot be created so.

    On the meta device transformers' masks read values, which do not exist; they do not with fake tensors.
    """
    from torch._subclasses.fake_tensor import FakeTensorMode
    from transformers import AutoModelForCausalLM

    try:
        with FakeTensorMode(allow_non_fake_inputs=True), without_log_of_transformers():
            model: PreTrainedModel = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
            if model._can_set_experts_implementation():
                model.set_experts_implementation("batched_mm")  # the only one without a choice by values
    except Exception:  # what it shows is checked in training too
        return None
    return model


@lru_cache(maxsize=4)
def read_config(source: ModelSource) -> PreTrainedConfig:
    """Return a model's configuration.

    Raises:
        OptionError: it cannot be read, or is not that of a causal language model.
    """
    from transformers import AutoConfig

    try:
        config: PreTrainedConfig = AutoConfig.from_pretrained(
            source.name_or_path, revision=source.revision, trust_remote_code=False
        )
    except Exception as error:
        allowed = f"must be a causal language model ({checks.reason_for(error)})"
        raise OptionError("model", source.name, allowed) from error
    return config


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
        OptionError: the tokenizer cannot be loaded, or does not fit the model.
    """
    from transformers import AutoTokenizer

    try:
        tokenizer = retried(
            lambda: AutoTokenizer.from_pretrained(
                source.name_or_path, revision=source.revision, trust_remote_code=False
            ),
            f"the tokenizer of {source.name}",
        )
    except Exception as error:
        raise OptionError(
            "model", source.name, f"its tokenizer cannot be loaded ({checks.reason_for(error)})"
        ) from error
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    checks.check_tokenizer(source.name, tokenizer, getattr(read_config(source).get_text_config(), "vocab_size", None))
    return tokenizer


def load_model(source: ModelSource, *, precision: str, quantization: str) -> PreTrainedModel:
    """Load a model onto this process's device.

    Args:
        precision: "fp32" or "bf16": dtype of the weights; with NF4, the compute dtype.
        quantization: "none" or "nf4".

    Raises:
        OptionError: the weights are missing or damaged, cannot be loaded, or are not those of config.json.
    """
    import torch
    from transformers import BitsAndBytesConfig

    from whichlora.models.forward_checks import check_causal
    from whichlora.models.kernels import onednn
    from whichlora.models.kernels.nf4 import disable_cpu_packing, misshapen

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
    if source.revision is None:
        check_recorded_files(source.name, Path(source.name_or_path))
    else:
        check_cached_files(source.name_or_path, source.revision)
    model, report = _from_pretrained(source, dtype=dtype, device_map={"": current_device()}, **extra)
    if quantization == "nf4":
        report["mismatched_keys"] |= misshapen(model)
        disable_cpu_packing(model)
    checks.check_weights(source.name, report)
    checks.check_ties(source.name, model)
    if source.name not in CATALOGUE:
        check_causal(source.name, model)
    onednn.use_onednn_linear(model)
    return model


def _from_pretrained(source: ModelSource, **options: Any) -> tuple[PreTrainedModel, dict[str, Any]]:
    """Load a model, and return it with transformers' report of tensors that are missing or do not fit."""
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()  # loading weights takes a second
    log = logging.get_logger("transformers.modeling_utils")
    log.addFilter(checks.is_no_load_report)
    try:
        generation_config = checks.plain_generation_config(read_config(source))
        model, report = retried(
            lambda: AutoModelForCausalLM.from_pretrained(
                source.name_or_path,
                revision=source.revision,
                trust_remote_code=False,
                ignore_mismatched_sizes=True,  # `check_weights` names them
                output_loading_info=True,
                **_FORWARD_OUTPUTS,
                generation_config=generation_config,
                **options,
            ),
            source.name,
        )
    except Exception as error:
        if isinstance(error, torch.OutOfMemoryError):
            raise
        raise OptionError("model", source.name, f"its weights cannot be loaded ({checks.reason_for(error)})") from error
    finally:
        log.removeFilter(checks.is_no_load_report)
    return model, report


def copy_sharing_weights(model: PreTrainedModel) -> PreTrainedModel:
    """Return a copy of a model's modules that shares all parameters and buffers with the original."""
    weights = chain(model.parameters(), model.buffers())
    return copy.deepcopy(model, {id(tensor): tensor for tensor in weights})
