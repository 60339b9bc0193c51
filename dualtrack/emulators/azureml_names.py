"""Names of experiments in an Azure ML workspace (facts/backends A4, checklist item 5).

Strict, names are what azureml-core allows, and everything else is a 400. With the quirk of azure-sdk-for-python#45209
MLflow's API takes nearly any name, finds the experiment by its id, and shows it neither by its name nor in a search.
"""

import re
from dataclasses import replace
from typing import Final

from dualtrack.emulators.azureml_errors import MISSING, Objection, refused
from dualtrack.emulators.tracking import Call, Reply, Send, named_experiment

# azureml-core's pattern, with \w as the service means it: ASCII.
EXPERIMENT_NAME: Final = re.compile(r"[a-zA-Z0-9][\w\-]{0,254}", re.ASCII)
NAME_MAX: Final = 256  # A7, and what even the quirk does not take


def strict(call: Call) -> Objection | None:
    """Refuse a create or a rename to a name that the service's own clients would not send."""
    name = named_experiment(call)
    if name is None or EXPERIMENT_NAME.fullmatch(name):
        return None
    return Objection(
        message=f"Experiment name '{name}' is not valid: 1 to 255 characters, first a letter or a digit, then letters, "
        "digits, underscores and dashes."
    )


def lenient(call: Call) -> Objection | None:
    """Refuse only what is empty or too long."""
    name = named_experiment(call)
    if name is None or 0 < len(name) <= NAME_MAX:
        return None
    return Objection(message=f"Experiment name has {len(name)} characters: 1 to {NAME_MAX} are allowed.")


def unchanging(call: Call) -> Objection | None:
    """Refuse a rename: experiments of the service keep their names (A4)."""
    if not call.path.endswith("/mlflow/experiments/update"):
        return None
    return Objection(message="Renaming an experiment is not supported.", code="BAD_REQUEST")


async def hidden(call: Call, send: Send) -> Reply:
    """Leave experiments with odd names out of get-by-name and search: a middleware, for the lenient."""
    if call.path.endswith("/mlflow/experiments/get-by-name"):
        name = call.asked("experiment_name")
        if not EXPERIMENT_NAME.fullmatch(name):
            return refused(404, MISSING, f"Could not find experiment with name '{name}'.")
    reply = await send(call)
    if call.path.endswith("/mlflow/experiments/search") and reply.status == 200:
        listed = reply.document.get("experiments", [])
        shown = [each for each in listed if EXPERIMENT_NAME.fullmatch(each["name"])]
        return replace(reply, document={**reply.document, "experiments": shown})
    return reply
