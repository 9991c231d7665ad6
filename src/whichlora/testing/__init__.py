"""The shared cases that variants and tasks pass, for the catalogue's and for those of other packages.

They need no test runner: `check_variant("my-variant", folder)` and `check_task(MyTask)` raise where something is wrong.
"""

from whichlora.testing.task_case import check_task
from whichlora.testing.tiny_model import save_tiny_model
from whichlora.testing.variant_case import check_variant

__all__ = ["check_task", "check_variant", "save_tiny_model"]
