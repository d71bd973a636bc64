"""The edits. Each is plain data that a journal keeps as JSON; frames count from 0, coordinates are (x, y) pixels."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

MAX_ID = 2**24 - 1  # as many as an id PNG can hold
MAX_NAME = 200

EntityId = Annotated[int, Field(ge=1, le=MAX_ID)]
Frame = Annotated[int, Field(ge=0, lt=2**31)]
Coordinate = Annotated[float, Field(ge=-65536, le=65536)]


class EditError(ValueError):
    """An edit that cannot be made; the message says why."""


class _Edit(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Rename(_Edit):
    """Gives an entity a name; "" takes it away."""

    kind: Literal["rename"] = "rename"
    id: EntityId
    name: Annotated[str, Field(max_length=MAX_NAME, pattern=r"^[^\x00-\x1f\x7f]*$")]


class Recolour(_Edit):
    """Draws an entity in another colour, "#rrggbb"; "" gives it the colour of its id."""

    kind: Literal["recolour"] = "recolour"
    id: EntityId
    colour: Annotated[str, Field(pattern=r"^(#[0-9a-f]{6})?$")]


class Lock(_Edit):
    """Protects the pixels of an entity from all later edits, or frees them again."""

    kind: Literal["lock"] = "lock"
    id: EntityId
    locked: bool


class Merge(_Edit):
    """Two entities are one: all pixels of `id` belong to `into`."""

    kind: Literal["merge"] = "merge"
    id: EntityId
    into: EntityId


class Split(_Edit):
    """One entity is two: from `frame` on, the pixels of `id` belong to the entity `new`, which is not used before."""

    kind: Literal["split"] = "split"
    id: EntityId
    frame: Frame
    new: EntityId


class Swap(_Edit):
    """Two entities exchange their ids from `frame` on."""

    kind: Literal["swap"] = "swap"
    id: EntityId
    other: EntityId
    frame: Frame


class Delete(_Edit):
    """The pixels of an entity belong to nobody, on the frames `first`..`last`, both included."""

    kind: Literal["delete"] = "delete"
    id: EntityId
    first: Frame
    last: Frame


class Join(_Edit):
    """The entity `id`, which ends, comes back as `other`: they are one, and never on the same frame."""

    kind: Literal["join"] = "join"
    id: EntityId
    other: EntityId


class Paint(_Edit):
    """A stroke of the brush on one frame.

    Attributes:
        id: the entity that is painted.
        erase: take pixels from the entity instead.
        points: (x, y) of the stroke's line.
        radius: in pixels.
    """

    kind: Literal["paint"] = "paint"
    id: EntityId
    frame: Frame
    erase: bool = False
    points: Annotated[list[Annotated[list[Coordinate], Field(min_length=2, max_length=2)]], Field(min_length=1, max_length=10_000)]  # fmt: skip
    radius: Annotated[float, Field(ge=0.5, le=2000)]


class Masks(_Edit):
    """New masks of one entity; its old pixels on their frames belong to nobody.

    Attributes:
        id: the entity.
        masks: frame -> lengths of the runs of its mask, row by row, the first outside, the second inside, and so on.
    """

    kind: Literal["masks"] = "masks"
    id: EntityId
    masks: Annotated[dict[str, list[Annotated[int, Field(ge=0, lt=2**32)]]], Field(min_length=1)]


Edit = Annotated[
    Rename | Recolour | Lock | Merge | Split | Swap | Delete | Join | Paint | Masks, Field(discriminator="kind")
]
_ADAPTER: TypeAdapter[Edit] = TypeAdapter(Edit)


def read_edit(value: Any) -> Edit:
    """An edit from parsed JSON.

    Raises:
        EditError: it is none; the message names the first problem.
    """
    try:
        return _ADAPTER.validate_python(value)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        raise EditError(f"no edit: {place + ': ' if place else ''}{first['msg']}") from None


def describe(edit: Edit, name: Any = str) -> str:
    """An edit in words, for a list of what was done; `name(id)` gives the text of an entity."""
    if isinstance(edit, Rename):
        return f"{name(edit.id)} is named “{edit.name}”" if edit.name else f"{name(edit.id)} has no name"
    if isinstance(edit, Recolour):
        return f"{name(edit.id)} is drawn in {edit.colour or 'its first colour'}"
    if isinstance(edit, Lock):
        return f"{name(edit.id)} {'locked' if edit.locked else 'unlocked'}"
    if isinstance(edit, Merge):
        return f"{name(edit.id)} merged into {name(edit.into)}"
    if isinstance(edit, Split):
        return f"{name(edit.id)} split at frame {edit.frame}: {name(edit.new)}"
    if isinstance(edit, Swap):
        return f"{name(edit.id)} and {name(edit.other)} swapped from frame {edit.frame}"
    if isinstance(edit, Delete):
        return f"{name(edit.id)} deleted on frames {edit.first} to {edit.last}"
    if isinstance(edit, Join):
        return f"{name(edit.id)} goes on as {name(edit.other)}"
    if isinstance(edit, Paint):
        return f"{name(edit.id)} {'erased' if edit.erase else 'painted'} on frame {edit.frame}"
    return f"{name(edit.id)} followed anew on {len(edit.masks)} frames"
