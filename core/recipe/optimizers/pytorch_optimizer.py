import json
import math
from collections.abc import Iterator
from functools import cache
from importlib import resources
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, JsonValue, model_validator

from core.errors import FieldProblem
from core.recipe.component import LARGEST, Positive, cross_field_error
from core.recipe.optimizers.base import OptimizerSpec
from core.suggest import did_you_mean

TYPES: dict[str, tuple[type, ...]] = {
    "number": (float, int),
    "integer": (int,),
    "boolean": (bool,),
    "string": (str,),
    "null": (type(None),),
}
DRAWING_ELSEWHERE = frozenset({"kron", "sara"})  # from NumPy's generator, and from Python's
PARAMETER_FREE = frozenset({"adamg", "dadaptadagrad", "dadaptadam", "dadaptadan", "dadaptlion", "dadaptsgd", "prodigy"})
Options = Annotated[dict[Annotated[str, Field(max_length=64)], JsonValue], Field(max_length=32)]


class PytorchOptimizer(OptimizerSpec):
    """An optimizer of the package pytorch-optimizer 4.1, with the name and the options that it has there.

    Names and options are checked when the job is submitted. The worker needs the extra `optim`. Every parameter is
    passed as a tensor with its own shape. Optimizers that need a closure, second derivatives or the whole model are
    refused.
    """

    summary: ClassVar[str] = "One of a hundred optimizers of the package pytorch-optimizer, by name."
    implementation: ClassVar[str] = "pytorch_optimizer"
    stepper: ClassVar[str] = "core.engine.optimizers.per_parameter:build"
    extra: ClassVar[str | None] = "optim"
    name: Literal["pytorch_optimizer"] = "pytorch_optimizer"
    optimizer: Annotated[str, Field(max_length=64)]
    lr: Positive
    options: Options = Field(default_factory=dict)

    @model_validator(mode="after")
    def is_offered(self) -> Self:
        if found := tuple(self._option_problems()):
            raise cross_field_error(*found)
        return self

    def _option_problems(self) -> Iterator[FieldProblem]:
        known = offered_optimizers()
        if self.optimizer in known["refused"]:
            message = f'"{self.optimizer}" cannot be used here: it {known["refused"][self.optimizer]}'
            yield FieldProblem("/optimizer", message, "docs/recipe.md lists the supported ones")
        elif self.optimizer not in known["accepted"]:
            hint = did_you_mean(self.optimizer, known["accepted"]) or "docs/recipe.md lists them"
            yield FieldProblem("/optimizer", f'pytorch-optimizer has no "{self.optimizer}"', hint)
        else:
            options = known["accepted"][self.optimizer]["options"]
            for name, value in self.options.items():
                pointer = "/options/" + name.replace("~", "~0").replace("/", "~1")
                if name not in options:
                    hint = did_you_mean(name, options) or f"it has {', '.join(options)}"
                    yield FieldProblem(pointer, f'"{self.optimizer}" has no option "{name}"', hint)
                elif not any(value_fits(value, kind) for kind in options[name]["kinds"]):
                    forms = " or ".join(dict.fromkeys(describe_form(kind) for kind in options[name]["kinds"]))
                    yield FieldProblem(
                        pointer, f"must be {forms}", f"its default is {json.dumps(options[name]['default'])}"
                    )

    def unknown_name(self) -> FieldProblem | None:
        if self.optimizer in offered_optimizers()["accepted"]:
            return None
        return FieldProblem("/optimizer", f"this release has no {self.optimizer!r}")

    def kwargs(self) -> dict[str, Any]:
        return {**{name: lists_to_tuples(value) for name, value in self.options.items()}, "lr": self.lr}

    def import_string(self) -> str:
        return f"{self.implementation}:{offered_optimizers()['accepted'][self.optimizer]['class']}"

    @property
    def no_lr_sweep_reason(self) -> str | None:
        if self.optimizer in PARAMETER_FREE:
            return "it estimates its own step size, and lr is only a factor"
        return super().no_lr_sweep_reason

    @property
    def uses_foreign_rng(self) -> bool:
        return self.optimizer in DRAWING_ELSEWHERE

    def resolved(self) -> Self:
        """The same spec with the defaults of all options filled in, except infinite ones, which JSON cannot express."""
        options = offered_optimizers()["accepted"][self.optimizer]["options"]
        defaults = {name: each["default"] for name, each in options.items() if each["default"] != math.inf}
        return self.model_copy(update={"options": {**defaults, **self.options}})

    @property
    def has_weight_decay(self) -> bool:
        decay = self.resolved().options.get("weight_decay", 0.0)
        return isinstance(decay, float | int) and decay > 0


@cache
def offered_optimizers() -> dict[str, Any]:
    """{"accepted": {name: {"class", "options"}}, "refused": {name: why}}; a test compares it with the package."""
    text = (resources.files("core.recipe.optimizers") / "pytorch_optimizer.json").read_text(encoding="utf-8")
    table: dict[str, Any] = json.loads(text)
    return table


def value_fits(value: JsonValue, kind: Any) -> bool:
    """Whether an option's value has one of the forms of the table."""
    if isinstance(kind, list):
        return (
            isinstance(value, list)
            and len(value) == len(kind)
            and all(any(value_fits(each, form) for form in forms) for each, forms in zip(value, kind, strict=True))
        )
    if isinstance(kind, dict):
        return value in kind["one of"]
    return type(value) in TYPES[kind] and (not isinstance(value, float | int) or abs(value) <= LARGEST)


def describe_form(kind: Any) -> str:
    """The description of a form for a message."""
    if isinstance(kind, list):
        return f"{len(kind)} numbers"
    if isinstance(kind, dict):
        return " or ".join(json.dumps(each) for each in kind["one of"])
    return {"null": "null", "integer": "a whole number", "boolean": "true or false"}.get(kind, f"a {kind}")


def lists_to_tuples(value: JsonValue) -> Any:
    """Arrays as the tuples that Python code expects."""
    return tuple(lists_to_tuples(each) for each in value) if isinstance(value, list) else value
