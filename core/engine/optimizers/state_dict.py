"""The whole state of any torch optimizer, lists and counters included, as tensors; and back, bit for bit.

Tensors are named by their path ("state.0.exp_avg"). All else is JSON in one uint8 tensor, `tree`. It also holds the
strides of each tensor: a matrix product over transposed memory adds up in another order.
"""

import json
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

PLAIN = (bool, int, float, str, type(None))
DTYPES = {str(each): each for each in (torch.float32, torch.float64, torch.bfloat16, torch.float16)} | {
    str(each): each for each in (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool)
}


def pack_state(optimizers: Mapping[str, Optimizer], prefix: str) -> dict[str, Tensor]:
    """The state of optimizers, by name, as tensors whose names begin with `prefix`."""
    leaves: dict[str, Tensor] = {}
    tree = {
        name: _encode_node(_optimizer_content(each), f"{prefix}{name}", leaves) for name, each in optimizers.items()
    }
    text = json.dumps(tree).encode()
    return {f"{prefix}tree": torch.frombuffer(bytearray(text), dtype=torch.uint8), **leaves}


def expected_state(found: Mapping[str, Tensor], prefix: str, optimizers: Collection[str]) -> dict[str, Tensor]:
    """Names, shapes and types of the tensors that pack_state() wrote with the tree in `found`."""
    text = found.get(f"{prefix}tree", torch.tensor(list(b"{}"), dtype=torch.uint8))
    tree, leaves = _read_tree(text), {f"{prefix}tree": text}
    for name in optimizers:
        if name in tree:
            _outline_node(tree[name], f"{prefix}{name}", leaves)
        else:
            leaves[f"{prefix}{name}"] = torch.zeros(())
    return leaves


def unpack_state(found: Mapping[str, Tensor], prefix: str, optimizers: Mapping[str, Optimizer]) -> None:
    """The inverse of pack_state(), into optimizers of the same kinds on the same parameters."""
    tree = _read_tree(found[f"{prefix}tree"])
    own_places = any(place != "cpu" for place in _device_kinds(tree))
    for name, optimizer in optimizers.items():
        parameters = _group_parameters(optimizer)
        content = _decode_node(tree[name], f"{prefix}{name}", found, (parameters[0].device, own_places))
        optimizer.state.clear()
        for key, value in content["state"].items():
            optimizer.state[parameters[key] if isinstance(key, int) else key] = value
        for group, values in zip(optimizer.param_groups, content["groups"], strict=True):
            group.update(values)


def _group_parameters(optimizer: Optimizer) -> list[nn.Parameter]:
    return [each for group in optimizer.param_groups for each in group["params"]]


def _optimizer_content(optimizer: Optimizer) -> dict[str, Any]:
    """State by the parameter's number (or its own key if that is no parameter), and the options of each group.

    Options that JSON cannot hold, such as functions and types, come from the constructor and never change.
    """
    numbers = {id(each): number for number, each in enumerate(_group_parameters(optimizer))}
    kinds = (*PLAIN, Tensor, list, tuple, dict)
    groups = [
        {name: value for name, value in group.items() if name != "params" and type(value) in kinds}
        for group in optimizer.param_groups
    ]
    return {"state": {numbers.get(id(key), key): value for key, value in optimizer.state.items()}, "groups": groups}


def _encode_node(value: Any, path: str, leaves: dict[str, Tensor]) -> Any:
    if isinstance(value, Tensor):
        leaves[path] = value.detach().contiguous()
        strides = None if value.is_contiguous() or 0 in value.stride() else list(value.stride())
        return {"tensor": [list(value.shape), str(value.dtype), value.device.type, strides]}
    if isinstance(value, dict):
        return {"dict": [[key, _encode_node(each, f"{path}.{key}", leaves)] for key, each in value.items()]}
    if type(value) in {list, tuple}:
        return {type(value).__name__: [_encode_node(each, f"{path}.{i}", leaves) for i, each in enumerate(value)]}
    if type(value) in PLAIN:
        return value
    raise TypeError(f"{path} is a {type(value).__name__}, which no checkpoint can hold")


def _outline_node(node: Any, path: str, leaves: dict[str, Tensor]) -> None:
    if not isinstance(node, dict):
        return
    ((kind, content),) = node.items()
    if kind == "tensor":
        leaves[path] = torch.empty(content[0], dtype=DTYPES[content[1]])
    else:
        for key, each in content if kind == "dict" else enumerate(content):
            _outline_node(each, f"{path}.{key}", leaves)


def _device_kinds(node: Any) -> Iterator[str]:
    """The kind of device that each tensor of the tree was on."""
    if isinstance(node, dict) and set(node) == {"tensor"}:
        yield node["tensor"][2]
    elif isinstance(node, dict | list):
        for each in node.values() if isinstance(node, dict) else node:
            yield from _device_kinds(each)


def _decode_node(node: Any, path: str, found: Mapping[str, Tensor], target: tuple[torch.device, bool]) -> Any:
    """`target`: the parameters' device, and whether the tree shows which tensors an optimizer keeps on the host.

    A tree that was written on a CPU does not show it. Then torch's own rule applies: counters stay on the host, all
    else is on the parameters' device.
    """
    if not isinstance(node, dict):
        return node
    ((kind, content),) = node.items()
    if kind == "dict":
        return {key: _decode_node(each, f"{path}.{key}", found, target) for key, each in content}
    if kind in {"list", "tuple"}:
        values = [_decode_node(each, f"{path}.{i}", found, target) for i, each in enumerate(content)]
        return values if kind == "list" else tuple(values)
    shape, dtype, place, strides = content
    device, own_places = target
    on_host = place == "cpu" and (own_places or not shape)
    where = torch.device("cpu") if on_host else device
    own = torch.empty(shape, dtype=DTYPES[dtype], device=where)
    if strides:
        own = torch.empty_strided(shape, strides, dtype=DTYPES[dtype], device=where)
    return own.copy_(found[path])


def _read_tree(tree: Tensor) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(bytes(tree.cpu().tolist()))
    return content
