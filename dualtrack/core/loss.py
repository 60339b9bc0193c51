"""What kinds of things a backend can be without (P7): a closed list, so that programs can act on a record of a loss.

A loss says its kind and its item; the item is named as the client names it, and `""` is the whole:

| kind                   | item                                                      |
|------------------------|-----------------------------------------------------------|
| param, tag, metric     | the key                                                   |
| file                   | the path below the artifact root                          |
| experiment, run, model | "" for the lane's own entity, otherwise the id of another |
| reference              | the ordering key of what is named and known to nobody     |
| write                  | the operation that was given up, where its items are not  |
|                        | known; "" if it cannot be read                            |
| unknown                | "": an earlier release wrote only a reason                |
"""

from enum import StrEnum


class LossKind(StrEnum):
    """What a loss is a loss of."""

    PARAM = "param"
    TAG = "tag"
    METRIC = "metric"
    FILE = "file"
    EXPERIMENT = "experiment"
    RUN = "run"
    MODEL = "model"
    REFERENCE = "reference"
    WRITE = "write"
    UNKNOWN = "unknown"
