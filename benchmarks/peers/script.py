"""Trains an adapter and scores it by `generate()`: the script that a shell loop over a grid would call."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer, set_seed

from benchmarks.peers.usual import generated_texts, make_trainer, with_pad_token


def main() -> None:
    """Train one adapter and print its accuracy in each language."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--data", required=True, help="JSON file: texts to train on, and texts to score by language")
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument("--learning_rate", type=float, default=2e-3)
    parser.add_argument("--batch_size", type=int, default=16)
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="bf16")
    args = parser.parse_args()

    set_seed(args.seed)
    data = json.loads(Path(args.data).read_text())
    tokenizer = with_pad_token(AutoTokenizer.from_pretrained(args.model))
    examples = []
    for item in data["train"]:
        prompt = tokenizer(item["prompt"])["input_ids"]
        answer = [*tokenizer(item["answer"], add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
        examples.append(
            {
                "input_ids": prompt + answer,
                "attention_mask": [1] * len(prompt + answer),
                "labels": [-100] * len(prompt) + answer,
            }
        )
    base = AutoModelForCausalLM.from_pretrained(args.model)
    config = LoraConfig(r=8, lora_alpha=16, target_modules="all-linear", task_type="CAUSAL_LM")
    model = get_peft_model(base, config)
    make_trainer(
        model,
        tokenizer,
        examples,
        batch_size=args.batch_size,
        num_train_epochs=1,
        bf16=args.precision == "bf16",
        learning_rate=args.learning_rate,
        seed=args.seed,
    ).train()
    accuracy = {}
    for language, test_items in data["test"].items():
        prompts = [tokenizer(item["prompt"])["input_ids"] for item in test_items]
        texts = generated_texts(model, tokenizer, prompts, batch_size=args.batch_size, max_new_tokens=data["tokens"])
        accuracy[language] = sum(
            t.strip() == i["answer"].strip() for t, i in zip(texts, test_items, strict=True)
        ) / len(texts)
    print(json.dumps(accuracy))


if __name__ == "__main__":
    main()
