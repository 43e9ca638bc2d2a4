"""What was found in an image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import supervision


@dataclass(frozen=True, eq=False, repr=False)
class Detections:
    """What was found in an image, by falling confidence: n objects.

    ``supervision.Detections`` takes the arrays as they are; :meth:`to_supervision` hands them over.
    """

    xyxy: NDArray[np.float32]
    """Boxes (n, 4): left, top, right and bottom edge in pixels of the image, whose corner is (0, 0)."""
    confidence: NDArray[np.float32]
    """Probabilities (n,), 0 to 1."""
    class_id: NDArray[np.int64]
    """Classes (n,), as indices into ``names``."""
    names: tuple[str, ...]
    """What all classes of the model are called."""
    width: int
    """Of the image, upright, in pixels."""
    height: int
    """Of the image, upright, in pixels."""

    @property
    def class_names(self) -> NDArray[np.str_]:
        """The name of each object's class (n,)."""
        return np.array(self.names)[self.class_id]

    def to_supervision(self) -> supervision.Detections:
        """The same as ``supervision.Detections``, with ``data["class_name"]``, on the same arrays.

        Raises:
            ModuleNotFoundError: the package supervision is not installed.
        """
        import supervision

        data: dict[str, Any] = {"class_name": self.class_names}
        return supervision.Detections(self.xyxy, confidence=self.confidence, class_id=self.class_id, data=data)

    def __len__(self) -> int:
        return len(self.xyxy)

    def __repr__(self) -> str:
        found = ", ".join(f"{name} {share:.2f}" for name, share in zip(self.class_names, self.confidence))
        return f"<Detections in {self.width}x{self.height}: {found or 'nothing'}>"
