"""Describes a model without its weights: its decoder blocks, the linear layers that adapters can reach, its context."""

from __future__ import annotations

import copy
import warnings
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from whichlora.errors import OptionError, first_line
from whichlora.models.rope_switch import switch_length

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_TOKENS = 32
"""Tokens of the text that shows which layers are trained."""


@dataclass(frozen=True, kw_only=True)
class ModelShape:
    """Properties of a model that do not depend on its weights.

    Attributes:
        blocks: name of the list of decoder blocks: block 3 is `{blocks}.3`.
        linears: (in_features, out_features) of the linear layers in the decoder blocks that PEFT can adapt, by full
            name.
        parameters: number of all parameters, tied ones counted once.
        context: maximum input length in tokens; None if the configuration does not state it.
        unadapted: share of the blocks' matrix entries in each matrix that no adapter reaches, by its name in a block:
            experts stored as one tensor, convolutions, and linear layers that PEFT refuses.
        switch: number of tokens from which LongRoPE uses its long factors; None without LongRoPE.
    """

    n_layers: int
    blocks: str
    linears: Mapping[str, tuple[int, int]]
    parameters: int
    context: int | None
    unadapted: Mapping[str, float] = field(default_factory=dict)
    switch: int | None = None

    def module_names(self) -> list[str]:
        """Return the distinct short names of the linear layers (`q_proj`, ...), in model order."""
        return list(dict.fromkeys(name.rpartition(".")[2] for name in self.linears))

    def unadapted_text(self) -> str:
        """Return the matrices that no adapter reaches with their shares, largest first; empty if there are none."""
        shares = sorted(self.unadapted.items(), key=lambda pair: -pair[1])
        return ", ".join(f"{name} ({share:.1%})" for name, share in shares)


def shape_of(model: PreTrainedModel, running: PreTrainedModel | None = None) -> ModelShape:
    """Return the shape of an instantiated model on any device, or of the language model of a vision-language model.

    Args:
        model: the model; its weights may be missing.
        running: the same with random weights or with fake tensors, for a forward and a backward pass that show which
            layers have a gradient; without it all are assumed to have one.

    Raises:
        OptionError: the model has no list of decoder blocks.
    """
    from torch import nn

    config = model.config.get_text_config()
    blocks = blocks_of(model)
    linears = {
        name: (module.in_features, module.out_features)
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and name.startswith(f"{blocks}.")
    }
    names = set(linears)
    reached = _adapted_by_peft(model, names if running is None or not names else _trainable(running, names))
    linears = {name: size for name, size in linears.items() if name in reached}
    model.tie_weights()
    return ModelShape(
        n_layers=int(config.num_hidden_layers),
        blocks=blocks,
        linears=linears,
        parameters=sum(p.numel() for p in model.parameters()),
        context=_context(model),
        unadapted=_unadapted(model, blocks, reached),
        switch=switch_length(config),
    )


def blocks_of(model: PreTrainedModel) -> str:
    """Return the name of a model's list of decoder blocks.

    Raises:
        OptionError: the model has no such list.
    """
    import torch

    config = model.config.get_text_config()
    n_layers = int(config.num_hidden_layers)
    decoder_modules = {id(module) for module in model.get_decoder().modules()}
    lists: list[str] = [
        name
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.ModuleList) and len(module) == n_layers and id(module) in decoder_modules
    ]
    if not lists:
        raise OptionError("model", config.name_or_path, f"has no list of {n_layers} decoder blocks")
    return min(lists, key=len)


def _adapted_by_peft(model: PreTrainedModel, names: set[str]) -> set[str]:
    """Return those of the linear layers that PEFT adapts if their full names are its targets.

    PEFT refuses some layers of state-space models, whose fused kernels use the weight without the adapter. In mixtures
    of experts it takes the names of dense layers, such as `gate_proj`, for those of experts in older checkpoints and
    adapts other tensors instead. Both apply when an adapter is loaded too.
    """
    from whichlora.models.packing import is_tested

    if is_tested(model.config) or not names or _peft_adapts(model, names):
        return names
    places = _by_place(names)
    return {name for same in places.values() if _peft_adapts(model, {same[0]}) for name in same}


def _by_place(names: Iterable[str]) -> dict[str, list[str]]:
    """Group names by their place in a block: those that differ only in the number of the block or of an expert."""
    places: dict[str, list[str]] = {}
    for name in sorted(names):
        places.setdefault(".".join(part for part in name.split(".") if not part.isdecimal()), []).append(name)
    return places


def _trainable(model: PreTrainedModel, names: set[str]) -> set[str]:
    """Return those of the layers whose output is a product with their weight and has a gradient.

    Mamba uses the weight of its `dt_proj` without a call of the layer, decoders of translation models have attention to
    an encoder, sparse attention chooses tokens by an index, which has no gradient, and a subclass of Linear may
    multiply each group of channels by its own matrix. With fake tensors a few architectures cannot run; all names are
    then returned.

    Raises:
        OptionError: gradients cannot be computed.
    """
    import torch
    from torch._subclasses.fake_tensor import FakeTensor

    from whichlora.models.forward_checks import sample_text

    # A text reaches only some of the experts; another reaches the others.
    places = {name: [name] for name in names if "expert" not in name}
    places |= _by_place(name for name in names if "expert" in name)
    reached: set[str] = set()
    weight = model.get_input_embeddings().weight
    mode = weight.fake_mode if isinstance(weight, FakeTensor) else None

    def watch(place: str) -> Any:
        def note(gradient: torch.Tensor) -> None:
            if mode is not None or gradient.any():
                reached.add(place)

        def hook(module: Any, arguments: Any, output: Any) -> None:
            if not (isinstance(output, torch.Tensor) and output.requires_grad):
                return
            if output.shape == (*arguments[0].shape[:-1], module.out_features):
                output.register_hook(note)  # type: ignore[no-untyped-call]

        return hook

    required = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    handles = [
        model.get_submodule(n).register_forward_hook(watch(place)) for place, same in places.items() for n in same
    ]
    try:
        with mode or nullcontext(), torch.enable_grad():
            for name, parameter in model.named_parameters():
                parameter.requires_grad_(name.removesuffix(".weight") in names)
            ids = torch.tensor([sample_text(model, _TOKENS)], device=model.device)
            model(input_ids=ids, use_cache=False).logits.float().square().sum().backward()
    except Exception as error:
        if mode is None:
            allowed = f"its gradients cannot be computed ({type(error).__name__}: {first_line(error)})"
            raise OptionError("model", model.config.name_or_path, allowed) from error
        return set(names)
    finally:
        for handle in handles:
            handle.remove()
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(required[name])
            parameter.grad = None
    return {name for place in reached for name in places[place]}


def _peft_adapts(model: PreTrainedModel, targets: set[str]) -> bool:
    """Return whether PEFT adapts exactly these modules of a model."""
    import torch
    from peft import LoraConfig, inject_adapter_in_model
    from peft.tuners.tuners_utils import BaseTunerLayer

    with torch.device("meta"), warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # PEFT's, about targets that it changed itself
        copied = copy.deepcopy(model).to("meta")
        try:
            inject_adapter_in_model(LoraConfig(r=1, target_modules=sorted(targets)), copied)
        except ValueError:
            return False
    return targets == {name for name, module in copied.named_modules() if isinstance(module, BaseTunerLayer)}


def _unadapted(model: PreTrainedModel, blocks: str, reached: set[str]) -> dict[str, float]:
    """Return the share of each matrix in the blocks that is not the weight of one of the layers `reached`."""
    sizes: Counter[str] = Counter()
    total = 0
    for name, parameter in model.named_parameters():
        if not name.startswith(f"{blocks}.") or parameter.ndim < 2:
            continue
        total += parameter.numel()
        module = name.removesuffix(".weight")
        if module not in reached:
            sizes[module.removeprefix(f"{blocks}.").partition(".")[2]] += parameter.numel()
    return {name: size / total for name, size in sizes.items()}


def _context(model: PreTrainedModel) -> int | None:
    """Return the maximum number of tokens of a text; None if the configuration does not state it.

    Embeddings of positions count from the padding token's id plus one in architectures derived from RoBERTa.
    """
    from torch import nn

    stated = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    tables = [
        module.num_embeddings - module.padding_idx - 1
        for name, module in model.get_decoder().named_modules()
        if isinstance(module, nn.Embedding) and "position" in name and module.padding_idx is not None
    ]
    limits = [limit for limit in (stated, *tables) if limit is not None]
    return min(limits, default=None)
