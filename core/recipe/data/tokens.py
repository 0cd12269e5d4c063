"""How a text becomes tokens: asked for when it is prepared, and checked when a job names it."""

from typing import Annotated, Literal

from pydantic import Field

from core.recipe.component import Spec


class BytePairs(Spec):
    """A vocabulary of at most `bpe` tokens, which is trained on the text itself: the bytes, and pairs of tokens."""

    bpe: Annotated[int, Field(ge=257, le=65536)]


Tokenizer = Literal["bytes"] | BytePairs
