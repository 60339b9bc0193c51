"""What a backend could not be given, as losses to be recorded; what did not fit is kept beside the run if wanted."""

from collections.abc import Iterable, Sequence

from dualtrack.core.ids import EntityKind, Ref, Twin
from dualtrack.core.loss import LossKind
from dualtrack.delivery.files import OVERFLOW, Files
from dualtrack.errors import RejectedError
from dualtrack.ports import Lane, Loss
from dualtrack.translate.fitting import Unfit


class Overflow:
    """The file of a run that holds what did not fit. `is_kept` says whether this backend has one."""

    def __init__(self, files: Files, *, is_kept: bool) -> None:
        self._files = files
        self._is_kept = is_kept

    async def keep(self, twin: Twin, unfit: Sequence[Unfit]) -> tuple[Loss, ...]:
        """Keep what did not fit by the run's files, if that is wanted, and answer what is to be recorded."""
        losses = recorded(unfit)
        if not unfit or not self._is_kept or twin.ref.kind is not EntityKind.RUN:
            return losses
        try:
            await self._files.overflow(twin, unfit)
        except RejectedError as error:
            detail = f"{OVERFLOW} of {twin.ref.key}: {error}"
            losses += (Loss(kind=LossKind.FILE, item=OVERFLOW, reason="not_copied", detail=detail),)
        return losses


def recorded(unfit: Iterable[Unfit]) -> tuple[Loss, ...]:
    return tuple(Loss(kind=item.kind, item=item.key, reason=item.reason, detail=item.detail) for item in unfit)


def of_entity(lane: Lane, ref: Ref, reason: str, words: str) -> Loss:
    """An entity is not there, or not as what it is: the lane's own as a whole, or another that a write names."""
    item = "" if ref.key == lane.key else ref.client_id
    return Loss(kind=LossKind(ref.kind), item=item, reason=reason, detail=f"{ref.key} {words}")


def as_files(lane: Lane, ref: Ref) -> Loss:
    """A model became files of its run, for want of logged models on that side."""
    return of_entity(lane, ref, "no_logged_models", "is files of its run there; what names it goes without")
