"""Writes results as lm-evaluation-harness 0.4.13 does with `--log_samples`, without its long texts of configuration."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

DATE = "2026-03-04T05-06-07.123456"


def write_results(
    output: Path,
    tasks: Mapping[str, Sequence[float]],
    *,
    model_args: Any = None,
    metric: str = "acc",
    kind: str = "none",
    date: str = DATE,
    results: Mapping[str, Any] | None = None,
) -> Path:
    """Write the folder of a model below `output` and return it.

    Args:
        tasks: the metric of each item by task.
        model_args: as lm_eval writes them; older versions wrote one text.
        results: values of the file of results that replace the usual ones.
    """
    args = model_args or {"pretrained": "org/base", "peft": "adapters/lora-1"}
    name = args["peft"] if isinstance(args, dict) else re.search(r"peft=([^,]+)", args)[1]
    folder = output / re.sub(r"[\"<>:/|\\?*\[\]]+", "__", name)
    folder.mkdir(parents=True, exist_ok=True)
    for task, values in tasks.items():
        lines = [json.dumps(sample(task, i, value, metric, kind), ensure_ascii=False) for i, value in enumerate(values)]
        (folder / f"samples_{task}_{date}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    content = {
        "results": {
            task: {
                "name": task,
                "alias": task,
                "sample_len": len(values),
                f"{metric},{kind}": sum(values) / len(values),
            }
            for task, values in tasks.items()
        },
        "group_subtasks": {},
        "n-shot": dict.fromkeys(tasks, 0),
        "n-samples": {task: {"original": len(values), "effective": len(values)} for task, values in tasks.items()},
        "config": {"model": "hf", "model_args": args, "limit": None, "random_seed": 0},
        "task_hashes": {task: digest(f"hash of {task}") for task in tasks},
        "model_source": "hf",
        "model_name": name,
        "chat_template_sha": None,
        **(results or {}),
    }
    (folder / f"results_{date}.json").write_text(json.dumps(content, indent=2))
    return folder


def sample(task: str, number: int, value: float, metric: str, kind: str) -> dict[str, Any]:
    """Return a line of a file of samples; the text has a line separator, which JSON does not escape."""
    if metric == "acc":
        gold, chosen = number % 3, number % 3 if value else (number + 1) % 3
        responses = [[str(-1.0 - (choice != chosen)), "False"] for choice in range(3)]
        target, raw = str(gold), [[response] for response in responses]
    else:
        target, responses = "Dar", ["Dar" if value else "Dodoma"]
        raw = [responses]
    document = {"premise": f"{task} {number}\u2028", "label": number % 3}
    return {
        **{"doc_id": number, "doc": document, "target": target},
        "arguments": {"gen_args_0": {"arg_0": "", "arg_1": f" {task} {number}"}},
        **{"resps": raw, "filtered_resps": responses, "filter": kind, "metrics": [metric]},
        **{"doc_hash": digest(document), "prompt_hash": digest(""), "target_hash": digest(target)},
        metric: value,
    }


def digest(content: Any) -> str:
    """Return SHA-256 of the JSON of a value."""
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()
