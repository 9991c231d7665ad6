"""Shows the data of a task before a first run: what there is, what a model will read, and what a run will do.

whichlora data check ./reviews.yaml --language tr
python -m whichlora.data_check check xnli --data_dir DIR

`inventory` lists files and counts items, labels and repeated items; `reading` measures lengths in tokens and shows
prompts; `running` says what runs will train on, and `estimate` how long one will take on this machine.
"""

from whichlora.data_check.command import COMMAND, main

__all__ = ["COMMAND", "main"]
