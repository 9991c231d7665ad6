"""Checks that a saved model or adapter is complete, and that no file beside the weights changes it silently."""

from __future__ import annotations

import json
import warnings
from collections.abc import Collection, Iterable, Mapping, Sequence
from logging import LogRecord
from pathlib import Path
from typing import TYPE_CHECKING, Any

from whichlora.data.encoding import added_tokens, special_ids
from whichlora.errors import OptionError, ProofError, first_line

if TYPE_CHECKING:
    from transformers import GenerationConfig, PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

ADAPTER_FOUND = "holds an adapter (adapter_config.json), not a plain model; remove it, or merge it and save the model"
_WEIGHTS = ("model.safetensors", "pytorch_model.bin")
"""Files with weights, or the beginnings of the names of their indexes."""
_ATTENTION = (None, "eager", "sdpa")
_LISTED = 4
"""Most names that an error message lists."""


def check_files(name: str, folder: Path) -> None:
    """Check the files of a model folder whose presence decides what transformers loads.

    Raises:
        OptionError: there is an adapter, whose weights transformers would add to the model's; there is no config.json;
            or the index of the weights names files that are not in the folder.
    """
    if (folder / "adapter_config.json").exists():
        raise OptionError("model", name, f"the folder {ADAPTER_FOUND}")
    if not (folder / "config.json").is_file():
        raise OptionError("model", name, "the folder has no config.json")
    for weights in _WEIGHTS:
        index = folder / f"{weights}.index.json"
        if index.is_file():
            _check_shards(name, folder, index, weights)


def has_weights(folder: Path) -> bool:
    """Return whether a folder has weights, or an index of them; a configuration alone can be planned with."""
    return any((folder / f"{weights}{end}").is_file() for weights in _WEIGHTS for end in ("", ".index.json"))


def _check_shards(name: str, folder: Path, index: Path, weights: str) -> None:
    try:
        files = {str(file) for file in json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()}
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise OptionError("model", name, f"{index.name} cannot be read") from error
    if missing := sorted(file for file in files if Path(file).name != file or not (folder / file).is_file()):
        raise OptionError("model", name, f"weights are missing from the folder: {_listed(missing)} ({index.name})")
    if (folder / weights).is_file() and files != {weights}:
        allowed = f"has weights twice, in {weights} and in the files of {index.name}; remove one of them"
        raise OptionError("model", name, allowed)


def check_config(name: str, config: PreTrainedConfig) -> None:
    """Check a configuration for entries that change how or which weights are loaded.

    Raises:
        OptionError: the weights are quantised, they are in a file of another name, attention is code from the hub, or
            the padding token is not in the embedding.
    """
    for part in (config, config.get_text_config()):
        pad, vocabulary = getattr(part, "pad_token_id", None), getattr(part, "vocab_size", None)
        if pad is not None and vocabulary is not None and not -vocabulary <= pad < vocabulary:
            allowed = f"config.json sets pad_token_id={pad}, which is outside the embedding of {vocabulary} tokens"
            raise OptionError("model", name, allowed)
        for key in ("quantization_config", "compression_config"):
            settings = getattr(part, key, None)
            if settings:
                method = (settings if isinstance(settings, Mapping) else vars(settings)).get("quant_method", "unknown")
                allowed = (
                    f"its weights are already quantised ({key} in config.json, method {method}); use the unquantised "
                    f"model, with quantization=nf4 to quantise it on loading"
                )
                raise OptionError("model", name, allowed)
        if part._attn_implementation not in _ATTENTION:
            allowed = f"config.json sets attn_implementation={part._attn_implementation}; remove the entry"
            raise OptionError("model", name, allowed)
    if getattr(config, "transformers_weights", None):
        allowed = f"config.json names other weights (transformers_weights={config.transformers_weights}); remove it"
        raise OptionError("model", name, allowed)
    if "AutoModelForCausalLM" in (getattr(config, "auto_map", None) or {}):
        warnings.warn(
            f"model={name}: config.json names code of its own (auto_map), which is not executed; the architecture "
            f"{config.model_type} of transformers is used.",
            stacklevel=2,
        )


def check_declared_causal(name: str, model: PreTrainedModel) -> None:
    """Check what the architecture itself says about its attention.

    Image encoders, which may be bidirectional, are not checked.

    Raises:
        OptionError: the attention is bidirectional, so that the model would see the answer that it must predict.
    """
    # Architectures derived from BERT are encoders, whose layers say so, unless the configuration sets `is_decoder`.
    marks = [(module, mark) for module in model.get_decoder().modules() for mark in ("is_causal", "is_decoder")]
    if any(getattr(module, mark, True) is False for module, mark in marks):
        raise OptionError("model", name, "must be a causal language model, but its attention is bidirectional")


def plain_generation_config(config: PreTrainedConfig) -> GenerationConfig:
    """Return a generation config without settings of decoding, to be used in place of generation_config.json."""
    from transformers import GenerationConfig

    names = ("bos_token_id", "eos_token_id", "pad_token_id")
    return GenerationConfig(**{name: getattr(config.get_text_config(), name, None) for name in names})


def check_weights(name: str, report: Mapping[str, Any]) -> None:
    """Check that the saved tensors are those of the architecture.

    Args:
        report: the loading info that `from_pretrained` returns. Tied tensors, and tensors that transformers ignores
            for an architecture, are not in it.

    Raises:
        OptionError: tensors are missing, have other shapes, or are not part of the architecture.
    """
    if text := _differences(report["missing_keys"], report["unexpected_keys"], report["mismatched_keys"]):
        raise OptionError("model", name, f"its tensors are not those of config.json; {text}")


def check_ties(name: str, model: PreTrainedModel) -> None:
    """Check that the tensors that a loaded model shares are those that its configuration ties.

    Raises:
        OptionError: the saved tensors differ, so that transformers did not tie them.
    """
    if untied := model.get_expanded_tied_weights_keys(all_submodels=True).keys() - model.all_tied_weights_keys.keys():
        allowed = f"config.json ties {_listed(untied)} to another tensor, but both are saved and differ; "
        raise OptionError("model", name, f"{allowed}set tie_word_embeddings to false in config.json, or remove one")


def reason_for(error: Exception) -> str:
    """Return why a library cannot load a model, in one line."""
    if "custom code" in str(error):
        return "it comes with code of its own (auto_map), which is never executed"
    return first_line(error)


def is_no_load_report(record: LogRecord) -> bool:
    """Filter out transformers' table of the tensors that do not fit, which `check_weights` names."""
    return "LOAD REPORT" not in record.getMessage()


def check_tokenizer(name: str, tokenizer: PreTrainedTokenizerBase, embedded: int | None) -> None:
    """Check that a tokenizer's ids are in the embedding, and which special tokens it adds to a text.

    Args:
        embedded: number of tokens in the model's embedding; None if the configuration does not state it.

    Raises:
        OptionError: it has no end-of-text token or ids outside the embedding, or it adds special tokens twice or inside
            a text.
    """
    if tokenizer.eos_token_id is None:
        raise OptionError("model", name, "its tokenizer has no end-of-text token (eos_token in tokenizer_config.json)")
    if embedded is not None:
        # Tokens without a role that no text contains, such as Gemma 3's <image_soft_token>, may be outside.
        roles = {tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id, tokenizer.unk_token_id}
        unused = special_ids(tokenizer) - roles
        outside = {i: token for token, i in tokenizer.get_vocab().items() if i >= embedded and i not in unused}
        if outside:
            tokens = _listed(f"{token} ({i})" for i, token in sorted(outside.items()))
            allowed = f"its tokenizer has tokens outside the embedding of {embedded} tokens: {tokens}"
            raise OptionError("model", name, allowed)
    added = added_tokens(tokenizer)
    if added is None:
        raise OptionError("model", name, "its tokenizer adds special tokens inside a text, not only around it")
    if len(set(added.before)) < len(added.before):
        tokens = " ".join(tokenizer.convert_ids_to_tokens(list(added.before)))
        raise OptionError("model", name, f"its tokenizer begins each text with the same special token twice: {tokens}")


def load_adapter(base: PreTrainedModel, folder: Path) -> Any:
    """Return a base model with the adapter saved in `folder`, as PEFT loads it.

    Raises:
        ProofError: saved tensors are missing or do not belong to the adapter, of which PEFT at most warns.
    """
    import torch
    from peft import PeftModel, get_peft_model_state_dict
    from peft.utils import load_peft_weights

    from whichlora.models.kernels.onednn import plain_linears

    unexpected: set[str] = set()
    hook = base.register_load_state_dict_post_hook(lambda _, keys: unexpected.update(keys.unexpected_keys))
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Found missing adapter keys")
            with plain_linears(base):
                model = PeftModel.from_pretrained(base, str(folder))
        saved = load_peft_weights(str(folder), device="cpu")
        missing = get_peft_model_state_dict(model, save_embedding_layers=False).keys() - saved.keys()
    except Exception as error:  # PEFT and safetensors raise many types
        if isinstance(error, torch.OutOfMemoryError):
            raise
        raise ProofError(f"the adapter in {folder} cannot be loaded: {' '.join(str(error).split())}") from error
    finally:
        hook.remove()
    if text := _differences(missing, unexpected):
        raise ProofError(f"the tensors of the adapter in {folder} are not those of its config; {text}")
    return model


def _differences(
    missing: Collection[str],
    unexpected: Collection[str],
    mismatched: Collection[tuple[str, Sequence[int], Sequence[int]]] = (),
) -> str:
    """Return how saved tensors differ from the expected ones; empty if they do not.

    Args:
        mismatched: (name, saved shape, expected shape) of tensors.
    """
    shapes = [f"{key} {list(saved)} instead of {list(expected)}" for key, saved, expected in mismatched]
    kinds = {"missing": missing, "of another shape": shapes, "unexpected": unexpected}
    return "; ".join(f"{len(names)} {kind}: {_listed(names)}" for kind, names in kinds.items() if names)


def _listed(names: Iterable[str]) -> str:
    """Return names as a list that is cut after `_LISTED` of them."""
    ordered = sorted(names)
    return ", ".join(ordered[:_LISTED]) + (", ..." if len(ordered) > _LISTED else "")
