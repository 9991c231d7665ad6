"""Creates a random model that trains in about a second, with a tokenizer trained on a packaged task."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def save_tiny_model(folder: Path, *, merges: bool = True, config: str = "LlamaConfig", **fields: Any) -> Path:
    """Save a random model with hidden size 32 and 3 decoder blocks, and its tokenizer, to `folder` and return it.

    Args:
        folder: folder to write.
        merges: whether the tokenizer merges bytes; if False every byte is a token, so all labels begin with the same
            token.
        config: name of the transformers config class of the architecture.
        fields: fields of the config that override the defaults.
    """
    import torch
    import transformers
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

    from whichlora.data.tasks import get_task

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=900 if merges else 259,
        special_tokens=["<unk>", "<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    task = get_task("atlas-nli")
    items = [item for language in ("en", "sw") for item in task.load(language, "train")[:150]]
    tokenizer.train_from_iterator([task.prompt(item) + task.answer(item) for item in items], trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", bos_token="<s>", eos_token="</s>", pad_token="</s>"
    )
    torch.manual_seed(0)
    usual = {
        "vocab_size": len(fast),
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 2048,
        "bos_token_id": fast.bos_token_id,
        "eos_token_id": fast.eos_token_id,
        "pad_token_id": fast.pad_token_id,
        "tie_word_embeddings": True,
    }
    model = AutoModelForCausalLM.from_config(getattr(transformers, config)(**{**usual, **fields}))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.normal_(std=0.3)  # with the default of 0.02 all answers would be equally likely
    model.save_pretrained(folder)
    fast.save_pretrained(folder)
    return folder
