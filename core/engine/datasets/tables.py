"""The inputs of a table: numbers, marks of missing values, one-hot categories, and codes that a network embeds."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate

import torch
from torch import Tensor

from core.engine.datasets.fitting import MaskedColumns, fit_means, fit_medians, fit_moments, iterate_rows
from core.engine.datasets.quantiles import apply_quantiles, fit_quantiles
from core.engine.datasets.source import Source
from core.recipe.data.columns import Numbers
from core.recipe.data.manifest import ColumnFacts
from core.recipe.data.resolved import TableFeature


@dataclass(frozen=True, slots=True)
class TableLayout:
    """Where the inputs of a table come from, in their order.

    `numbers` are columns of the tensor `numbers`, and `marks` those of them whose missing values have an input.
    `categories` has for each categorical feature its column of `codes`, the values in the dataset, those that are kept,
    and whether it is one-hot; the one-hot ones come first.
    """

    numbers: tuple[int, ...]
    marks: tuple[int, ...]
    categories: tuple[tuple[int, int, int, bool], ...]

    @classmethod
    def of_features(
        cls, features: Sequence[TableFeature], columns: Sequence[ColumnFacts], cardinalities: Sequence[int]
    ) -> "TableLayout":
        """The layout of resolved features; `cardinalities` are those of the embedded ones."""
        named = {column.name: column for column in columns}
        kept = iter(cardinalities)
        numbers: list[int] = []
        marks: list[int] = []
        categories: list[tuple[int, int, int, bool]] = []
        for feature in features:
            column = named[feature.column]
            if feature.form == "number":
                numbers += column.numbers
            elif feature.form == "missing":
                marks.append(column.numbers[0])
            else:
                one_hot = feature.form == "one_hot"
                width = feature.width if one_hot else next(kept) - 1
                categories.append((column.code or 0, len(column.categories or ()), width, one_hot))
        return cls(tuple(numbers), tuple(marks), tuple(categories))

    @property
    def tensors(self) -> tuple[str, ...]:
        """The tensors of the source that it reads."""
        numbers = ("numbers", "missing") if self.numbers else ()
        return (*numbers, *(("codes",) if self.categories else ()))

    @property
    def width(self) -> int:
        wide = sum(kept if one_hot else 1 for _, _, kept, one_hot in self.categories)
        return len(self.numbers) + len(self.marks) + wide

    def offsets(self) -> list[int]:
        """Where the codes of each category begin among all codes, 0 of the first one included; and their number."""
        return [0, *accumulate(values + 1 for _, values, _, _ in self.categories)]


def missing_bits(raw: Mapping[str, Tensor], columns: Tensor) -> Tensor:
    """Whether each of these columns of `numbers` has no value, bool (b, len(columns))."""
    return (raw["missing"].index_select(1, columns // 8) >> (columns % 8) & 1).bool()


class TableTransform:
    """Raw rows -> inputs float32 (b, width). `fitted` are the tensors that are stored with weights.

    standardize.fill        float32 (f,): what replaces a missing value of each number
    standardize.mean, .std  float32 (f,), for the scale standard
    standardize.knots, .scores  float32 (f, k), for the scale quantile: see apply_quantiles
    standardize.codes       int64 (c,): of all codes of all categories side by side, each from 0 on, the code that the
                            network sees; 0 for what is missing, not kept, or not in the train split
    """

    def __init__(self, layout: TableLayout, fitted: Mapping[str, Tensor], device: torch.device) -> None:
        self.fitted = dict(fitted)
        self.shape = (layout.width,)
        own = {name: each.to(device) for name, each in fitted.items()}
        self._fitted = own
        self._numbers, self._marks = (torch.tensor(each, device=device) for each in (layout.numbers, layout.marks))
        self._one_hot = sum(one_hot for *_, one_hot in layout.categories)
        self._code_columns = torch.tensor([column for column, *_ in layout.categories], device=device)
        self._offsets = torch.tensor(layout.offsets()[:-1], device=device)
        pairs = [
            (place, code + 1)
            for place, (_, _, kept, one_hot) in enumerate(layout.categories)
            for code in range(kept if one_hot else 0)
        ]
        self._owner = torch.tensor([place for place, _ in pairs], dtype=torch.int64, device=device)
        self._value = torch.tensor([code for _, code in pairs], dtype=torch.int64, device=device)

    def __call__(self, raw: Mapping[str, Tensor]) -> Tensor:
        parts: list[Tensor] = []
        if len(self._numbers):
            parts.append(scale_numbers(self._filled(raw), self._fitted))
            if len(self._marks):
                parts.append(missing_bits(raw, self._marks).float())
        if len(self._code_columns):
            codes = raw["codes"].index_select(1, self._code_columns).long() + self._offsets
            seen = self._fitted["standardize.codes"][codes]  # (b, categories)
            if len(self._owner):
                parts.append((seen.index_select(1, self._owner) == self._value).float())
            parts.append(seen[:, self._one_hot :].float())
        return torch.cat(parts, 1)

    def _filled(self, raw: Mapping[str, Tensor]) -> Tensor:
        missing = missing_bits(raw, self._numbers)
        return torch.where(missing, self._fitted["standardize.fill"], raw["numbers"].index_select(1, self._numbers))


def scale_numbers(values: Tensor, fitted: Mapping[str, Tensor]) -> Tensor:
    """Filled numbers (b, f) on the scale of the fitted tensors."""
    if "standardize.knots" in fitted:
        return apply_quantiles(values, fitted["standardize.knots"], fitted["standardize.scores"])
    if "standardize.mean" in fitted:
        return (values - fitted["standardize.mean"]) / fitted["standardize.std"]
    return values


@dataclass(frozen=True, slots=True)
class TableFit:
    """Fits a table on the train rows of a mapped source, on the CPU."""

    source: Source
    layout: TableLayout
    options: Numbers
    split_seed: int
    _columns: Tensor = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_columns", torch.tensor(self.layout.numbers, dtype=torch.int64))

    @property
    def _row_numbers(self) -> int:
        return self.source.tensors["numbers"].shape[1]

    def fit(self, rows: Tensor) -> dict[str, Tensor]:
        """The tensors of a TableTransform; rows int64 (n,) are those of the train split."""
        fitted: dict[str, Tensor] = {}
        if self.layout.numbers:
            fitted["standardize.fill"] = fill = self._fit_fill(rows)

            def read(some: Tensor) -> Tensor:
                values, present = self._read(some)
                return torch.where(present, values, fill)

            if self.options.scale == "standard":
                scale = fit_moments(read, rows, self._row_numbers, per_channel=False)
                fitted |= {"standardize.mean": scale.mean, "standardize.std": scale.std}
            elif self.options.scale == "quantile":
                knots, scores = fit_quantiles(read, rows, self.split_seed)
                fitted |= {"standardize.knots": knots, "standardize.scores": scores}
        if self.layout.categories:
            fitted["standardize.codes"] = self._fit_codes(rows)
        return fitted

    def _read(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        raw = self.source.only(("numbers", "missing")).take(rows)
        return raw["numbers"].index_select(1, self._columns), ~missing_bits(raw, self._columns)

    def _fit_fill(self, rows: Tensor) -> Tensor:
        columns = MaskedColumns(self._read, len(self._columns), self._row_numbers)
        if self.options.missing == "zero" or not self.layout.marks:
            return torch.zeros(len(self._columns))
        return fit_means(columns, rows) if self.options.missing == "mean" else fit_medians(columns, rows)

    def _fit_codes(self, rows: Tensor) -> Tensor:
        offsets = self.layout.offsets()
        chosen = torch.tensor([column for column, *_ in self.layout.categories])
        counts = torch.zeros(offsets[-1], dtype=torch.int64)
        for chunk in iterate_rows(rows, self.source.tensors["codes"].shape[1]):
            codes = self.source.only(("codes",)).take(chunk)["codes"].index_select(1, chosen).long()
            counts += torch.bincount((codes + torch.tensor(offsets[:-1])).flatten(), minlength=offsets[-1])
        found = torch.zeros(offsets[-1], dtype=torch.int64)
        for start, (_, values, kept, _) in zip(offsets, self.layout.categories, strict=False):
            codes = torch.arange(values + 1)
            seen = (counts[start : start + values + 1] > 0) & (codes <= kept)
            found[start : start + values + 1] = torch.where(seen, codes, 0)
        return found
