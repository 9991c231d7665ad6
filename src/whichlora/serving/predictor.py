"""Predicts the answers of texts with a saved model, as its run predicted those of the test items."""

from __future__ import annotations

import threading
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from whichlora.config.context import check_scored, check_turns
from whichlora.data.chat import ChatTemplate
from whichlora.data.encoding import Encoder
from whichlora.data.tasks.items import Item
from whichlora.errors import OptionError
from whichlora.evaluation.scoring_methods import prompt_scoring
from whichlora.models.loading import ModelSource, load_tokenizer
from whichlora.models.quiet import quiet_about_kernels
from whichlora.serving import saved as saved_models
from whichlora.serving.base_model import find_base
from whichlora.serving.inputs import LANGUAGE, items_of
from whichlora.serving.saved import SavedModel
from whichlora.tracking.model_files import ADAPTER
from whichlora.variants import get_variant

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class Predictor:
    """A saved model, ready to predict. Several threads may use it; they wait for each other.

    Attributes:
        saved: what is stored beside the adapter.
        fields: names of the columns that a table must have.
        optional_fields: names of the columns that it may have besides.
        labels: the possible answers of a task with labels; empty for other tasks.
    """

    def __init__(self, saved: SavedModel, model: Any, encoder: Encoder, kept_open: ExitStack) -> None:
        self.saved, self._model, self._encoder, self._kept_open = saved, model, encoder, kept_open
        optional = saved.input.optional
        self.fields = (
            *(name for name in saved.input.texts if name not in optional),
            *([LANGUAGE] if saved.input.needs_language else []),
        )
        self.optional_fields = optional
        self.labels = saved.labels
        self._scoring = prompt_scoring(encoder.task, saved.scoring)
        self._lock = threading.Lock()  # scoring patches modules of the model

    @classmethod
    def load(cls, folder: str | Path, base: str | None = None, *, any_base: bool = False) -> Predictor:
        """Load the model in a folder, and the base model that it refers to.

        Args:
            folder: holds `whichlora.json`, and the adapter in the subfolder `adapter` or beside it, unless the base
                model alone predicts.
            base: folder, hub id or packaged name of the base model; None for that of the reference.
            any_base: whether `base` may be another model than that on which the adapter was trained.

        Raises:
            OptionError: the folder or the base model cannot be used; the message says what to do.
        """
        quiet_about_kernels()  # whoever loads the model, such as MLflow, does not
        folder = Path(folder)
        saved = saved_models.read(folder)
        task = saved.task.task()
        trained = folder / ADAPTER if (folder / ADAPTER).is_dir() else folder
        config = {"adapter": "adapter_config.json", "model": "config.json"}.get(saved.form)
        if config is not None and not (trained / config).is_file():
            lost = f"neither in it nor in a subfolder {ADAPTER}: it was deleted, or left out of an archive"
            raise OptionError("model", folder, f"has no {config}, {lost}")
        if saved.form == "model" and (trained / "tokenizer_config.json").is_file():  # it needs no other model
            source = ModelSource(name=saved.name, name_or_path=str(trained), revision=None, digest=saved.fingerprint)
        else:
            source = find_base(saved.base, base, any_base=any_base)
        tokenizer = load_tokenizer(source)
        chat = None if saved.chat_template is None else _chat(tokenizer, saved.chat_template)
        kept_open = ExitStack()
        model = _load(saved, source, trained, kept_open)
        return cls(saved, model, Encoder(task, tokenizer, max_length=saved.context, chat=chat), kept_open)

    def predict(self, frame: pd.DataFrame, batch_size: int | None = None) -> pd.DataFrame:
        """Return the predictions for the rows of a table, with its index.

        Args:
            frame: has the columns `fields`, and others that are ignored.
            batch_size: the most rows that are read at once; None for as many as the memory allows. Rows of similar
                length are read together in any case.

        Returns:
            The column `predicted`, a label or text, None if generated text is no label; and for labels scored by
            likelihood their probabilities, `p_<label>`.

        Raises:
            OptionError: a column is missing, or a row cannot be used; the message names it.
        """
        if batch_size is not None and batch_size < 1:
            raise OptionError("batch_size", batch_size, "must be a whole number from 1")
        items = items_of(frame, self.saved, self._encoder.task)
        with self._lock:
            parts = [
                self._predict(items[i : i + (batch_size or len(items))])
                for i in range(0, len(items), batch_size or max(1, len(items)))
            ]
        return pd.concat(parts or [self._table([], None)], ignore_index=True).set_index(frame.index)

    def _predict(self, items: list[Item]) -> pd.DataFrame:
        from whichlora.evaluation.scores import predict

        check_turns(self._encoder, items)
        check_scored(self._encoder, items, self._scoring)
        found = predict(self._model, self._encoder, items, scoring=self._scoring, name="predicting")
        return self._table(found.predicted, found.probabilities)

    def _table(self, predicted: list[str | None], probabilities: np.ndarray[Any, Any] | None) -> pd.DataFrame:
        columns: dict[str, Any] = {"predicted": pd.Series(predicted, dtype=object)}
        if self.saved.scoring == "likelihood":
            values = np.empty((0, len(self.labels))) if probabilities is None else probabilities
            columns |= {f"p_{label}": values[:, i] for i, label in enumerate(self.labels)}
        return pd.DataFrame(columns)


def _chat(tokenizer: PreTrainedTokenizerBase, text: str) -> ChatTemplate:
    try:
        return ChatTemplate(tokenizer, text)
    except ValueError as error:
        raise OptionError("base", tokenizer.name_or_path, f"the chat template of the model {error}") from error


def _load(saved: SavedModel, source: ModelSource, trained: Path, kept_open: ExitStack) -> Any:
    """Return the model as its run scored it: an adapter merged in fp32, or else with fast kernels, kept open."""
    from whichlora.models.checks import load_adapter
    from whichlora.models.kernels import fast_paths
    from whichlora.models.loading import load_model

    if saved.form == "model":
        own = replace(source, name_or_path=str(trained), revision=None)
        return load_model(own, precision=saved.precision, quantization="none")
    model = load_model(source, precision=saved.precision, quantization=saved.quantization)
    if saved.form == "base":
        return model
    get_variant(saved.variant)  # that of another package tells PEFT of its method
    adapted = load_adapter(model, trained)
    if saved.precision == "fp32" and saved.quantization == "none":
        return adapted.merge_and_unload()
    kept_open.enter_context(fast_paths.scoring(adapted, narrow=not saved.exact_factors))
    return adapted
