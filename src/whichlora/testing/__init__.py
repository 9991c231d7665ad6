"""Conformance checks for variants and tasks, those of the catalogue and those of other packages.

`check_variant("my-variant", folder)` and `check_task(MyTask)` run all checks and raise if one fails; they need no test
runner. `variant_case`, `variant_runs` and `task_case` contain the single checks; `runs` and `interruption` carry out
and kill small runs on a model of `tiny_model`. `capability_probes` tries out what an adapter can do, and `capabilities`
writes the table.
"""

from whichlora.models.quiet import quiet_about_kernels

quiet_about_kernels()  # before the modules import PEFT

from whichlora.testing.task_case import check_task  # noqa: E402
from whichlora.testing.tiny_model import save_tiny_model  # noqa: E402
from whichlora.testing.variant_case import check_variant  # noqa: E402

__all__ = ["check_task", "check_variant", "save_tiny_model"]
