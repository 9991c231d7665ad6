"""A bad option ends in status 2 and one line that names it, its value and what is allowed, and leaves nothing."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import asdict

import pytest

from whichlora.config import options
from whichlora.errors import OptionError
from whichlora.run.command import main
from whichlora.variants import CATALOGUE


def refused(capsys, empty_folder, tiny_model, values: dict[str, str]) -> str:
    """Call the entry point and return the error, after checking how it came."""
    options = {"model": tiny_model} | values
    status = main([text for name, value in options.items() for text in (f"--{name}", value)])
    out, err = capsys.readouterr()
    assert (status, out) == (2, "")
    assert err.startswith("error: ")
    assert err.endswith("\n")
    assert err.count("\n") == 1
    assert not list(empty_folder.iterdir())
    return err.removeprefix("error: ").rstrip("\n")


VARIANTS = ", ".join(CATALOGUE)
WHOLE = "a whole number from"
ALONE = [
    ("variant", "veraa", f"allowed are {VARIANTS}", "did you mean 'vera'"),
    ("variant", "LoRA", f"allowed are {VARIANTS}", ""),
    ("variant", "", f"allowed are {VARIANTS}", ""),
    ("arm", "match", "recommended, matched", "did you mean 'matched'"),
    ("task", "atlas-nil", "atlas-nli, atlas-qa, xnli, tydiqa, align-words", "did you mean 'atlas-nli'"),
    ("difficulty", "hrad", "normal, hard", "did you mean 'hard'"),
    ("language", "xx", "ur, sw, hi, bn, te", ""),
    ("language", "en", "ur, sw, hi, bn, te", ""),
    ("prompt_language", "sw", "en, item", ""),
    ("scoring", "generat", "likelihood, generate", "did you mean 'generate'"),
    ("select_on", "men", "en, tl, mean", "did you mean 'mean'"),
    ("precision", "fp23", "fp32, bf16", "did you mean 'fp32'"),
    ("quantization", "nf8", "none, nf4", "did you mean 'nf4'"),
    ("tl_ratio", "1.5", "at least 0 and at most 1", ""),
    ("tl_ratio", "-0.5", "at least 0 and at most 1", ""),
    ("tl_ratio", "nan", "at least 0 and at most 1", ""),
    ("tl_ratio", "half", "at least 0 and at most 1", ""),
    ("rank", "0", f"{WHOLE} 1", ""),
    ("rank", "8.5", f"{WHOLE} 1", ""),
    ("rank", "8_0", f"{WHOLE} 1", ""),
    ("rank", "9" * 5000, f"{WHOLE} 1", ""),
    ("alpha", "0", "above 0", ""),
    ("alpha", "inf", "above 0", ""),
    ("alpha", "2*rnk", "a multiple such as 2*rank", ""),
    ("alpha", "0*rank", "above 0", ""),
    ("alpha", "*rank", "above 0", ""),
    ("alpha", "1000000*rank", "at most 1000000", "at rank 8"),
    ("dropout", "1", "at least 0 and at most 0.9", ""),
    ("weight_decay", "-0.1", "at least 0 and at most 10", ""),
    ("scheduler", "cosin", "linear, cosine, constant", "did you mean 'cosine'"),
    ("learning_rate", "0", "above 0 and at most 1", ""),
    ("learning_rate", "nan", "above 0 and at most 1", ""),
    ("learning_rate", "2", "above 0 and at most 1", ""),
    ("epochs", "-1", f"{WHOLE} 1", ""),
    ("batch_size", "0", f"{WHOLE} 1", ""),
    ("warmup", "1.5", "at least 0 and at most 1", ""),
    ("train_size", "0", f"{WHOLE} 1", ""),
    ("validation_size", "0", f"{WHOLE} 1", ""),
    ("test_size", "many", f"{WHOLE} 1", ""),
    ("train_size", "99999", "21000", ""),
    ("validation_size", "99999", "2100", ""),
    ("test_size", "99999", "2100", ""),
    ("seed", str(2**32), f"{WHOLE} 0 to {2**32 - 1}", ""),
    ("seed", "-1", f"{WHOLE} 0 to {2**32 - 1}", ""),
    ("seed", "auto", f"{WHOLE} 0 to {2**32 - 1}", ""),
    ("model", "/no/such/folder", "smollm2-135m, gemma3-270m, a folder", ""),
    ("model", ".", "config.json", ""),
    ("data_dir", "/data", "take no folder", ""),
    ("target_modules", "q_proj,query", "q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj", "query"),
    ("target_modules", "lm_head", "all-linear", ""),
    ("rank", "33", "at most 32", "width"),
    ("layers", "first:0", "from 1", ""),
    ("layers", "some", "all, first:N, last:N, A-B or A", ""),
    ("layers", "1-3", "0-2", ""),
]


@pytest.mark.parametrize(("option", "value", "allowed", "hint"), ALONE)
def test_a_bad_value_is_named_with_what_is_allowed(capsys, empty_folder, tiny_model, option, value, allowed, hint):
    error = refused(capsys, empty_folder, tiny_model, {option: value})
    assert error.startswith(f"{option}={value}: ")
    assert allowed in error
    assert hint in error


TOGETHER = [
    ({"variant": "vera", "alpha": "16"}, "alpha=16", "vera has no alpha"),
    ({"variant": "vera", "alpha": "2*rank"}, "alpha=2*rank", "vera has no alpha"),
    ({"variant": "full", "alpha": "sqrt"}, "alpha=sqrt", "full has no adapter"),
    ({"variant": "ia3", "arm": "recommended", "dropout": "0.1"}, "dropout=0.1", "ia3 has no dropout"),
    ({"variant": "full", "dropout": "0.1"}, "dropout=0.1", "full has no adapter"),
    ({"variant": "none", "scheduler": "cosine"}, "scheduler=cosine", "none trains nothing"),
    ({"variant": "full", "layers": "first:1"}, "layers=first:1", "full has no adapter"),
    ({"variant": "full", "rank": "8"}, "rank=8", "full has no adapter"),
    ({"variant": "none", "target_modules": "q_proj"}, "target_modules=q_proj", "none has no adapter"),
    ({"variant": "pissa", "quantization": "nf4"}, "quantization=nf4", "pissa"),
    ({"variant": "full", "quantization": "nf4"}, "quantization=nf4", "full"),
    ({"variant": "pissa", "rank": "17"}, "rank=17", "at most 16"),
    ({"task": "atlas-qa", "scoring": "likelihood"}, "scoring=likelihood", "generate"),
    ({"task": "atlas-qa", "difficulty": "hard"}, "difficulty=hard", "normal"),
]


@pytest.mark.parametrize(("values", "named", "allowed"), TOGETHER)
def test_values_that_do_not_go_together_are_refused(capsys, empty_folder, tiny_model, values, named, allowed):
    error = refused(capsys, empty_folder, tiny_model, values)
    assert error.startswith(named)
    assert allowed in error


@pytest.mark.parametrize("arguments", [["--varaint", "vera"], ["--var", "vera"], ["--rank"], ["vera"]])
def test_what_is_no_option_ends_in_status_2(capsys, empty_folder, arguments):
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert arguments[0] in capsys.readouterr().err
    assert not list(empty_folder.iterdir())


def test_a_name_that_is_no_option_is_named_with_the_nearest():
    with pytest.raises(OptionError, match=r"option=varaint: .*did you mean 'variant'"):
        options.parse_options({"varaint": "vera"})


def test_every_default_is_allowed_and_auto_stands_for_none():
    values = asdict(options.parse_options({}))
    assert list(values) == list(options.RUN_OPTIONS)
    assert {n for n, v in values.items() if v is None} == {
        n for n, (d, _) in options.RUN_OPTIONS.items() if d == "auto"
    }
    assert (values["variant"], values["seed"], values["layers"]) == ("lora", 42, "all")


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("tl_ratio", "0", 0.0),
        ("tl_ratio", "1", 1.0),
        ("learning_rate", "1e-4", 1e-4),
        ("alpha", "16", 16.0),
        ("alpha", "rank", "rank"),
        ("alpha", "1*rank", "rank"),
        ("alpha", "2.0*rank", "2*rank"),
        ("alpha", "0.5*sqrt(rank)", "0.5*sqrt"),
        ("dropout", "0", 0.0),
        ("scheduler", "auto", None),
        ("rank", "8", 8),
        ("seed", "0", 0),
        ("seed", str(2**32 - 1), 2**32 - 1),
        ("data_dir", "auto", None),
    ],
)
def test_values_are_read(name, text, value):
    assert getattr(options.parse_options({name: text}), name) == value


def process(folder, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "whichlora.run", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, check=False)


def test_a_process_with_a_typing_error_ends_in_status_2(tmp_path):
    done = process(tmp_path, "--variant", "veraa")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"error: variant=veraa: allowed are {VARIANTS} (did you mean 'vera'?)\n"
    assert not list(tmp_path.iterdir())


def test_help_names_every_option_with_its_default(tmp_path):
    done = process(tmp_path, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    told = re.findall(r"^  --(\w+) VALUE(.*?)\[default:(.*?)\]$", done.stdout, re.MULTILINE | re.DOTALL)
    assert {name: default.strip() for name, _, default in told} == {
        n: default for n, (default, _) in options.RUN_OPTIONS.items()
    }
    assert not list(tmp_path.iterdir())


def test_the_documented_defaults():
    """Those that are part of the contract of the entry point."""
    defaults = {name: default for name, (default, _) in options.RUN_OPTIONS.items() if default != "auto"}
    assert defaults == {
        "variant": "lora",
        "arm": "matched",
        "task": "atlas-nli",
        "language": "sw",
        "model": "smollm2-135m",
        "composition": "substitution",
        "seed": "42",
        "layers": "all",
        "retention": "none",
        "forgetting": "none",
        "alignment": "none",
        "quantization": "none",
    }
