"""Converts any GGUF file of a language model that transformers reads to a folder that it loads.

Transformers dequantises the weights to float32. What it would drop without a word is refused here: tensors and scaled
rotary embeddings that it does not read, and pre-tokenizers that it does not know, for each of which another model
would be trained than the one in the file.
"""

from __future__ import annotations

import re
import shutil
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from whichlora.announcements import announce
from whichlora.errors import OptionError, first_line
from whichlora.models.folders.created import NotCreatedError
from whichlora.models.gguf.conversion import share_weights, write_json
from whichlora.models.quiet import without_log_of_transformers

if TYPE_CHECKING:
    from gguf import GGUFReader

_PART = re.compile(r"-\d{5}-of-(\d{5})\.gguf$", re.IGNORECASE)
_HARMLESS = {"vocab_size", "rope.dimension_count", "attention.value_length", "attention.key_length"}
"""Metadata of an architecture that transformers need not read, because tensors or other metadata say the same."""
_GPT2_SPLITS = ("gpt-2", "gpt2", "mpt", "olmo", "jais", "trillion", "phi-2")
"""Pre-tokenizers of llama.cpp that split texts as GPT-2 does, which is what transformers assumes."""
_DIGIT_SPLITS = ("smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b")
"""Pre-tokenizers of llama.cpp that split digits first, and then as GPT-2 does. Transformers drops the digits."""


def write_conversion(name: str, file: Path, work: Path, folder: Path) -> str | None:
    """Write the model in a GGUF file to a folder, and return the licence that its metadata states.

    Args:
        name: the value of the option `model`, for messages.
        work: a folder for files that are not kept.

    Raises:
        OptionError: it is no GGUF file of a language model with a tokenizer that transformers reads.
        NotCreatedError: the disk is full.
    """
    reader = _read(name, file)
    _check_kind(name, file, reader)
    _name_unread(name, reader)
    size = 4 * sum(int(tensor.n_elements) for tensor in reader.tensors)
    announce(f"Converting {file.name}, once: it takes {size / 1e9:.1f} GB of the disk and twice that of memory.")
    try:
        with without_log_of_transformers():
            alone = _alone(file, work)
            _write_tokenizer(alone, reader, folder)
            _write_model(name, alone, reader, folder)
    except OSError as error:
        if error.errno is not None:  # of the disk, not of transformers
            raise NotCreatedError(f"could not write {folder}: {error}") from error
        raise OptionError("model", name, f"transformers cannot read it ({first_line(error)})") from error
    except (OptionError, MemoryError):
        raise
    except Exception as error:  # the libraries raise many types
        raise OptionError("model", name, f"transformers cannot read it ({first_line(error)})") from error
    return _value(reader, "general.license")


def _alone(file: Path, work: Path) -> Path:
    """Return the file in a folder of its own: transformers would prefer a tokenizer.json that lies beside it."""
    place = work / "alone" / "model.gguf"
    place.parent.mkdir()
    try:
        place.symlink_to(file.absolute())
    except OSError:  # without links, as on some Windows machines
        shutil.copyfile(file, place)
    return place


def _read(name: str, file: Path) -> GGUFReader:
    from gguf import GGUFReader

    try:
        with file.open("rb") as opened:
            if opened.read(4) != b"GGUF":
                raise OptionError("model", name, "is not a GGUF file: it does not begin with GGUF")
        reader = GGUFReader(str(file))
        _ = [tensor.n_elements for tensor in reader.tensors]
    except OSError as error:
        raise OptionError("model", name, f"the file cannot be read: {error.strerror or error}") from error
    except OptionError:
        raise
    except Exception as error:  # the library raises many types
        raise OptionError("model", name, f"the GGUF file is damaged or not complete ({first_line(error)})") from error
    return reader


def _check_kind(name: str, file: Path, reader: GGUFReader) -> None:
    """Check what is in the file before anything is converted."""

    def refuse(allowed: str) -> None:
        raise OptionError("model", name, allowed)

    part = _PART.search(file.name)
    if (_value(reader, "split.count") or 1) > 1 or part:
        count = _value(reader, "split.count") or int(part[1] if part else 0)
        refuse(f"is one of {count} parts of a GGUF file; join them with `llama-gguf-split --merge`")
    architecture = _value(reader, "general.architecture")
    kind = _value(reader, "general.type") or "model"
    if kind != "model" or architecture == "clip":
        what = "a projector of images" if architecture == "clip" or kind == "mmproj" else f"of the type {kind}"
        refuse(f"must be a GGUF file with a language model, and is {what}")
    if not architecture or not reader.tensors:
        refuse("the GGUF file holds no model")
    scaling = _value(reader, f"{architecture}.rope.scaling.type")
    if scaling not in (None, "none") or f"{architecture}.rope.scale_linear" in reader.fields:
        refuse(f"its rotary embeddings are scaled ({scaling or 'linear'}), which transformers does not read from GGUF")
    if "tokenizer.ggml.tokens" not in reader.fields:
        refuse("the GGUF file has no tokenizer")
    pre = _value(reader, "tokenizer.ggml.pre")
    if _value(reader, "tokenizer.ggml.model") == "gpt2" and pre not in _known_splits():
        refuse(f"its tokenizer splits texts by rules that transformers does not know (tokenizer.ggml.pre is {pre})")


def _name_unread(name: str, reader: GGUFReader) -> None:
    """Warn of metadata of the architecture for which transformers takes a default of its own."""
    from transformers.integrations.ggml import GGUF_CONFIG_MAPPING

    architecture = _value(reader, "general.architecture")
    if architecture not in GGUF_CONFIG_MAPPING:
        return
    prefix = f"{architecture}."
    stated = {key.removeprefix(prefix) for key in reader.fields if key.startswith(prefix)}
    if unread := sorted(stated - GGUF_CONFIG_MAPPING[architecture].keys() - _HARMLESS):
        warnings.warn(
            f"model={name}: transformers does not read {', '.join(unread)} of the GGUF file, and uses its defaults.",
            stacklevel=2,
        )


def _known_splits() -> set[str]:
    from transformers.integrations.gguf.gguf_tokenizer_mapping import GGUF_PRE_TOKENIZER_SPLITS

    return {*GGUF_PRE_TOKENIZER_SPLITS, *_GPT2_SPLITS, *_DIGIT_SPLITS}


def _write_tokenizer(file: Path, reader: GGUFReader, folder: Path) -> None:
    """Write the tokenizer that transformers makes of the metadata, in a form that is read as it is."""
    from tokenizers import pre_tokenizers
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(str(file.parent), gguf_file=file.name, trust_remote_code=False)
    backend = tokenizer.backend_tokenizer
    if _value(reader, "tokenizer.ggml.pre") in _DIGIT_SPLITS:
        digits = pre_tokenizers.Digits(individual_digits=True)
        backend.pre_tokenizer = pre_tokenizers.Sequence([digits, backend.pre_tokenizer])
    backend.save(str(folder / "tokenizer.json"))
    found = {role: getattr(tokenizer, role) for role in ("bos_token", "eos_token", "unk_token", "pad_token")}
    settings: dict[str, Any] = {role: str(token) for role, token in found.items() if token is not None}
    # Another class would build the tokenizer from its vocabulary again.
    settings |= {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False}
    if tokenizer.chat_template:
        settings["chat_template"] = tokenizer.chat_template
    write_json(folder / "tokenizer_config.json", settings)


def _write_model(name: str, file: Path, reader: GGUFReader, folder: Path) -> None:
    """Write weights and configuration.

    A model from a GGUF file cannot be saved itself, since transformers takes it for a quantised one.
    """
    import numpy as np
    import torch
    from transformers import AutoModelForCausalLM, GenerationConfig, GgufConfig
    from transformers.utils import logging

    from whichlora.models.checks import check_weights

    bars = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        read, report = AutoModelForCausalLM.from_pretrained(
            str(file.parent),
            gguf_file=file.name,
            dtype=torch.float32,
            device_map={"": "cpu"},
            trust_remote_code=False,
            output_loading_info=True,
            quantization_config=GgufConfig(dequantize=True),
        )
        check_weights(name, report)
        stored, parameters = sum(int(t.n_elements) for t in reader.tensors), sum(p.numel() for p in read.parameters())
        if stored != parameters:
            allowed = f"transformers reads a model of {parameters:,} parameters from it, but it holds {stored:,} values"
            raise OptionError("model", name, allowed)
        config = read.config
        if hasattr(config, "quantization_config"):
            del config.quantization_config
        for key, value in config.to_dict().items():
            if isinstance(value, float) and key.endswith(("eps", "epsilon")):
                setattr(config, key, float(str(np.float32(value))))  # stored as a float32
        with torch.device("meta"):
            plain = type(read)(config)
        plain.load_state_dict(read.state_dict(), assign=True)
        plain.tie_weights()
        ids = {key: getattr(config, key, None) for key in ("bos_token_id", "eos_token_id", "pad_token_id")}
        plain.generation_config = GenerationConfig(**ids)
        plain.save_pretrained(folder, max_shard_size="1000GB")
    finally:
        if bars:
            logging.enable_progress_bar()
    share_weights(folder)


def _value(reader: GGUFReader, key: str) -> Any:
    field = reader.fields.get(key)
    return None if field is None else field.contents()
