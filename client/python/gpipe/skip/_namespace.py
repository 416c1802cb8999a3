"""What tells skips of the same name apart."""

from __future__ import annotations

import dataclasses
import uuid
from typing import TypeAlias


@dataclasses.dataclass(frozen=True, order=True)
class Namespace:
    """Differs from every other one, and equals its copies, so that the skips of a copied model match as before."""

    id: uuid.UUID = dataclasses.field(default_factory=uuid.uuid4)


# None is the namespace of what is not isolated.
Key: TypeAlias = tuple[Namespace | None, str]
