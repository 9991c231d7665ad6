"""What the MLflow UI shows of runs and experiments: descriptions, order of metrics, views, user and source."""

from __future__ import annotations

import html
import json
import os
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from mlflow.tracking import MlflowClient
from runs import plan_of, run_of

from whichlora.errors import PrunedError
from whichlora.run.metric_guide import publish_page
from whichlora.text_tables import POINTS
from whichlora.tracking import views
from whichlora.tracking.client import connect, find_experiment
from whichlora.tracking.experiment_page import MEANS, RESULTS, TRIALS, link_report, results_line, store_about
from whichlora.tracking.markdown import code, escaped, run_address, table
from whichlora.tracking.runs import Tracker
from whichlora.variants.colors import RUN_COLOR, method_color

NOTE = "mlflow.note.content"
HOSTILE = "a|b\n# c *d* _e_ <script>alert(1)</script> [x](http://e.vil) `f` &lt; ![g](h) ~i~ $j$\n- k\n1. l\\ ```\u202e"


def note_of(run_id: str) -> str:
    return str(connect().get_run(run_id).data.tags[NOTE])


def test_names_in_descriptions_stay_names() -> None:
    text = escaped(HOSTILE)
    assert html.unescape(text) == " ".join(HOSTILE.replace("\u202e", "").split())
    assert not re.search(r"[|<>*_`\[\]\\~$!]", text)
    assert escaped("1. one").startswith("1&#46;")
    assert escaped("see WWW.e.vil, www2.e.vil") == "see WWW&#46;e.vil, www2.e.vil"
    assert escaped("atlas-nli 0.5, seed 1") == "atlas-nli 0.5, seed 1"
    rows = table(["a", "b"], [[escaped(HOSTILE), "1"]]).splitlines()
    assert [line.count("|") for line in rows] == [3, 3, 3]
    assert code(["a\n```\nb"]).splitlines() == ["```", "a ``` b", "```"]


def test_the_page_of_a_run(store: Path, tiny_model: str) -> None:
    plan = plan_of(tiny_model)
    result = run_of(plan)
    run = connect().get_run(result.run_id)
    note = run.data.tags[NOTE]
    assert f"**{100 * result.metrics['test/tl/f1']:.1f}**" in note
    assert f"{100 * result.metrics['test/en/f1_low']:.1f}-{100 * result.metrics['test/en/f1_high']:.1f}" in note
    assert POINTS.gain(result.metrics["gain/tl"]) in note
    assert "the same metrics in MLflow are between 0 and 1" in note
    assert all(text in note for text in ("Synthetic task", "20 Swahili", "20 English", "LoRA", "seed 42"))
    assert f"whichlora probe --run_id {result.run_id}" in note
    script = "\n".join(re.search(r"```python\n(.*?)```", note, re.DOTALL)[1].splitlines())  # type: ignore[index]
    scope: dict[str, object] = {}
    assert tiny_model not in note
    script = script.replace(f"PATH/TO/{Path(tiny_model).name}", tiny_model)
    exec(script, scope)  # what the page says does reload the adapter
    assert type(scope["model"]).__name__ == "PeftModelForCausalLM"
    frame = pd.DataFrame({"premise": ["a"], "hypothesis": ["b"]})
    assert len(scope["predictor"].predict(frame)) == 1  # type: ignore[attr-defined]
    assert f"\nwhichlora predict --run_id {result.run_id} --input " in note
    assert f"\nwhichlora export --run_id {result.run_id}\n" in note
    keys = [key for key in run.data.metrics if key != "train/loss" and not key.startswith("system/")]
    assert keys[:6] == [f"test/{role}/f1{end}" for role in ("en", "tl") for end in ("", "_low", "_high")]
    tags = run.data.tags
    ours = [tag for tag in tags if tag.startswith("whichlora.") and tag != "whichlora.adapter"]  # set at the end
    assert ours[-1].endswith("fingerprint")
    assert tags["mlflow.user"]
    assert tags["mlflow.source.type"] == "LOCAL"
    assert tags[RUN_COLOR] == method_color("lora", "matched")
    assert tags["mlflow.source.name"]
    assert plan.name == f"lora sw 0.5 seed 42 atlas-nli tiny n=40 {plan.spec.fingerprint[:6]}"


def test_a_run_says_that_it_is_in_progress_or_why_it_ended(store: Path, tmp_path: Path) -> None:
    tracker = Tracker(connect(), "tests")
    tags = {"fingerprint": "f"}
    seen = []

    def attempt(kind: str, error: Exception) -> None:
        with tracker.once(kind, "a", tags, work=tmp_path / "w", about="What.") as begun:
            seen.append(begun.run_id)
            assert note_of(begun.run_id) == "**In progress.**\n\nWhat."
            raise error

    with pytest.raises(ValueError, match="no"):
        attempt("run", ValueError("no <b>luck</b>"))
    note = note_of(seen[0])
    assert note.startswith("**Failed:** ValueError&#58; no &#60;b&#62;luck")
    assert "The same command resumes it" in note
    assert note.endswith("What.")
    with tracker.once("run", "a", tags, work=tmp_path / "w", about="What.") as b:
        assert note_of(b.run_id) == "**In progress.**\n\nWhat."
        b.log.describe("Done.")
    assert b.run_id == seen[0]
    assert note_of(b.run_id) == "Done."
    with pytest.raises(PrunedError):
        attempt("trial", PrunedError("after report 1"))
    assert note_of(seen[1]) == "**Pruned** after report 1.\n\nWhat."


def test_names_begin_with_what_differs(tiny_model: str) -> None:
    plans = [
        plan_of(tiny_model, variant=variant, tl_ratio=ratio, language=language, seed=seed, **options)
        for variant, options in (("adalora", {}), ("rslora", {}), ("lora", {"rank": 4}))
        for ratio in (0, 0.5)
        for language in ("sw", "ur")
        for seed in (1, 2)
    ]
    assert len({plan.name[:23] for plan in plans}) == len(plans)
    assert len({plan.trial_name("3")[:20] for plan in plans[:1]} | {plans[0].trial_name("4")[:20]}) == 2
    recommended = plan_of(tiny_model, arm="recommended", learning_rate="auto", batch_size="auto")
    assert recommended.name.startswith("lora-recommended sw 0.5 seed 42 ")


def test_the_page_of_an_experiment(
    store: Path, tiny_model: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    plan, client = plan_of(tiny_model), connect()
    tracker = Tracker(client, "tests")
    report = tracker.open("report", "report tests", {"fingerprint": "r"}).run_id
    number = find_experiment(client, "tests").experiment_id  # type: ignore[union-attr]
    store_about(client, number, HOSTILE)
    publish_page(plan, tracker)
    tags = client.get_experiment(number).tags
    note = tags[NOTE]
    assert f"viewStateShareKey={RESULTS}" in note.splitlines()[0]
    assert escaped(HOSTILE) in note
    assert note.count("test/en/f1`") == 1
    state = json.loads(json.loads(tags[views.PREFIX + RESULTS])["state"])
    assert state["searchFilter"] == "tags.`whichlora.kind` = 'run'"
    assert [c["metricKey"] for c in state["compareRunCharts"][1:]] == ["test/en/f1", "test/tl/f1"]
    assert state["compareRunCharts"][0]["selectedParams"] == ["variant"]
    assert state["selectedColumns"][-1] == "metrics.`train/seconds`"
    link_report(client, [number], report)
    publish_page(plan, tracker)  # another run does not remove the link
    assert f"[report]({run_address(number, report)})" in client.get_experiment(number).tags[NOTE]
    newer = tracker.open("report", "report tests", {"fingerprint": "r2"}).run_id
    link_report(client, [number], newer)
    assert re.findall(r"\[report\]\(.*?\)", client.get_experiment(number).tags[NOTE]) == [
        f"[report]({run_address(number, newer)})"
    ]
    publish_page(plan_of(tiny_model, retention="atlas-qa"), tracker)
    wider = json.loads(json.loads(client.get_experiment(number).tags[views.PREFIX + RESULTS])["state"])
    assert "metrics.`test/retention/en/f1`" in wider["selectedColumns"]
    assert set(state["selectedColumns"]) < set(wider["selectedColumns"])
    assert views.PREFIX + TRIALS not in client.get_experiment(number).tags
    publish_page(plan, tracker, "trial")
    trials = json.loads(json.loads(client.get_experiment(number).tags[views.PREFIX + TRIALS])["state"])
    assert trials["searchFilter"] == "tags.`whichlora.kind` = 'trial'"
    assert trials["orderByKey"] == "metrics.`validation/tl/f1`"
    address = f"#/experiments/{number}/runs?viewStateShareKey={RESULTS}"
    assert address in results_line(client, "tests")
    monkeypatch.setattr(sys, "argv", ["experiment_page", "5001"])
    monkeypatch.delitem(sys.modules, "whichlora.tracking.experiment_page")  # as in a process of its own
    runpy.run_module("whichlora.tracking.experiment_page", run_name="__main__")
    assert f"tests: http://127.0.0.1:5001/{address}" in capsys.readouterr().out


def test_what_users_wrote_and_changed_stays(store: Path, tiny_model: str) -> None:
    plan, client = plan_of(tiny_model), connect()
    tracker = Tracker(client, "tests")
    run_id = tracker.open("run", "a", {"fingerprint": "f"}).run_id
    number = find_experiment(client, "tests").experiment_id  # type: ignore[union-attr]
    publish_page(plan, tracker)
    mine = "mine" + client.get_experiment(number).tags[NOTE]
    changed = json.dumps({"name": "n", "createdAt": 1, "updatedAt": 2, "state": "{}"})
    client.set_experiment_tag(number, NOTE, mine)
    client.set_experiment_tag(number, views.PREFIX + RESULTS, changed)
    client.set_experiment_tag(number, views.PREFIX + MEANS, "deflate;not-one-of-ours")
    publish_page(plan, tracker)
    link_report(client, [number], run_id)
    tags = client.get_experiment(number).tags
    assert (tags[NOTE], tags[views.PREFIX + RESULTS]) == (mine, changed)
    assert tags[views.PREFIX + MEANS] == "deflate;not-one-of-ours"


def test_a_report_that_ends_while_a_run_begins_is_linked(
    store: Path, tiny_model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, client = plan_of(tiny_model), connect()
    tracker = Tracker(client, "tests")
    report = tracker.open("report", "report tests", {"fingerprint": "r"}).run_id
    number = find_experiment(client, "tests").experiment_id  # type: ignore[union-attr]
    publish_page(plan, tracker)
    store_about(client, number, "Changed.")
    set_tag = MlflowClient.set_experiment_tag
    waiting = [report]

    def report_first(client: MlflowClient, experiment_id: str, key: str, value: str) -> None:
        if key == NOTE and waiting:  # the other process has read the tags and has yet to write the description
            link_report(client, [number], waiting.pop())
        set_tag(client, experiment_id, key, value)

    monkeypatch.setattr(MlflowClient, "set_experiment_tag", report_first)
    publish_page(plan, tracker)
    note = client.get_experiment(number).tags[NOTE]
    assert f"[report]({run_address(number, report)})" in note
    assert "Changed." in note
    client.delete_run(report)
    publish_page(plan, tracker)
    assert "[report]" not in client.get_experiment(number).tags[NOTE]


@pytest.mark.slow
def test_the_commit_is_that_of_the_code(tmp_path: Path) -> None:
    source = Path(__file__).parents[2] / "src" / "whichlora"
    shutil.copytree(source, tmp_path / "src" / "whichlora", ignore=shutil.ignore_patterns("__pycache__"))
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b"]
    for command in (["init", "-q"], ["add", "src"], ["commit", "-q", "-m", "a"]):
        subprocess.run([*git, *command], check=True)
    head = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()
    script = "import json; from whichlora.tracking.context import context_tags; print(json.dumps(dict(context_tags())))"

    def tags() -> dict[str, str]:
        environment = {**os.environ, "PYTHONPATH": str(tmp_path / "src"), "PYTHONDONTWRITEBYTECODE": "1"}
        command = [sys.executable, "-c", script]
        done = subprocess.run(command, env=environment, cwd="/", check=True, capture_output=True, text=True)
        return dict(json.loads(done.stdout.splitlines()[-1]))

    assert (tags()["mlflow.source.git.commit"], tags()["whichlora.git_dirty"]) == (head, "false")
    with (tmp_path / "src" / "whichlora" / "errors.py").open("a") as file:
        file.write("\n")
    assert (tags()["mlflow.source.git.commit"], tags()["whichlora.git_dirty"]) == (head, "true")
    # As a package installed in an environment within a repository of the user's own.
    subprocess.run([*git, "rm", "-rq", "--cached", "src"], check=True)
    (tmp_path / ".gitignore").write_text("src/\n")
    subprocess.run([*git, "commit", "-qam", "b"], check=True)
    assert not {"mlflow.source.git.commit", "whichlora.git_dirty"} & tags().keys()
