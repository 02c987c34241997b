"""Weight files: read without executing code, and compared with the network that will use them."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from defectflow.core.files import UserError

# Where training scripts put the weights among other things, in the order of preference.
INSIDE = ("state_dict_ema", "model_ema", "state_dict", "model_state_dict", "model", "teacher", "student", "net")
WRAPPED = ("module.", "_orig_mod.", "backbone.", "model.")  # what wrappers put before all names
NAMED = 3  # tensors named in an error


def read_state(path: str | Path, name: str) -> dict[str, Tensor]:
    """Tensors by name of a .safetensors file or of one that torch wrote (.pth, .pt, .bin), wrappers taken off.

    Args:
        path: of the file.
        name: of the network, for errors.

    Raises:
        UserError: the file is absent, not such a file, or holds objects that would have to be executed.
    """
    path, what = Path(path), f"weights of backbone '{name}'"
    if not path.is_file():
        raise UserError(f"{what}: no file {path}")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            state = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # both libraries raise many kinds for a file that is not theirs
        remedy = ""
        if "weights_only" in str(error) or "Unsupported" in str(error):
            remedy = ": it holds more than tensors (save the tensors alone: torch.save(model.state_dict(), path))"
        raise UserError(f"{what}: {path} is not a readable state dict{remedy}") from error
    while isinstance(state, dict) and (inside := next((k for k in INSIDE if isinstance(state.get(k), dict)), None)):
        state = state[inside]
    state = {key: value for key, value in state.items() if isinstance(value, Tensor)} if isinstance(state, dict) else {}
    if not state:
        raise UserError(f"{what}: {path} is not a state dict")
    while prefix := next((p for p in WRAPPED if all(key.startswith(p) for key in state)), None):
        state = {key.removeprefix(prefix): value for key, value in state.items()}
    return state


def load_state(model: nn.Module, state: Mapping[str, Tensor], path: str | Path, name: str) -> None:
    """Give an extractor its weights. Those above its top layer may be in ``state`` or not; all others must be.

    Names are the same if they differ in dots and underscores alone: timm makes one list of nested stages.

    Args:
        model: the extractor.
        state: tensors by name.
        path, name: of the file and of the network, for errors.

    Raises:
        UserError: a tensor that the extractor needs is missing or misshapen, or holds numbers that are not finite.
    """
    own = model.state_dict()
    known = {_flat(key): value for key, value in state.items()}
    needed = {key: _flat(key) for key in own if not key.endswith("num_batches_tracked")}
    # timm wraps transformers once more, under "model."
    found = {k: known.get(flat, known.get(flat.removeprefix("model_"))) for k, flat in needed.items()}
    missing = [key for key, value in found.items() if value is None]
    shaped = [
        f"{key} ({_shape(value)}, wanted {_shape(own[key])})"
        for key, value in found.items()
        if value is not None and value.shape != own[key].shape
    ]
    if missing or shaped:
        taken = {flat for key, flat in needed.items()} | {flat.removeprefix("model_") for flat in needed.values()}
        strange = [key for key in state if _flat(key) not in taken] if missing else []
        faults = {"missing": missing, "of another shape": shaped, "of other names in the file": strange}
        told = "; ".join(f"{len(keys)} {fault}: {_some(keys)}" for fault, keys in faults.items() if keys)
        raise UserError(
            f"weights of backbone '{name}': {path} does not fit, of {len(needed)} tensors {told} "
            "(give those of this network, up to its highest layer)"
        )
    tensors = {key: value for key, value in found.items() if value is not None}
    broken = [key for key, value in tensors.items() if value.is_floating_point() and not value.isfinite().all()]
    if broken:
        raise UserError(f"weights of backbone '{name}': {path} holds numbers that are not finite: {_some(broken)}")
    model.load_state_dict({key: value.to(own[key].dtype) for key, value in tensors.items()}, strict=False)


def refuse_deeper(state: Mapping[str, Tensor], whole: nn.Module, path: str | Path, name: str) -> None:
    """Refuse the weights of a network with more blocks in a stage: all that is needed would be there, and be wrong.

    Args:
        state: tensors by timm's names.
        whole: the whole network, of any weights, also on the meta device.
        path, name: of the file and of the network, for errors.

    Raises:
        UserError: ``state`` is of a deeper network.
    """
    last: dict[str, int] = {}  # highest number of a block, by name of the stage
    for key in whole.state_dict():
        for stage, number in _numbered(key):
            last[stage] = max(number, last.get(stage, 0))
    more = [key for key in state if any(number > last.get(stage, number) for stage, number in _numbered(key))]
    if more:
        raise UserError(
            f"weights of backbone '{name}': {path} is of a deeper network, {len(more)} tensors are of blocks that this "
            f"one does not have: {_some(more)} (give those of this network)"
        )


def _numbered(key: str) -> list[tuple[str, int]]:
    """(name of what holds it, number) of each number in the name of a tensor."""
    parts = key.split(".")
    return [(".".join(parts[:i]), int(part)) for i, part in enumerate(parts) if part.isdigit()]


def _flat(key: str) -> str:
    return key.replace(".", "_")


def _shape(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "a number"


def _some(keys: list[str]) -> str:
    return ", ".join(keys[:NAMED]) + (" ..." if len(keys) > NAMED else "")
