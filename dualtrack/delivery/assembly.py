"""Puts the rooms of one backend's delivery together.

worker ─▶ attempt ─┬▶ overtaken
                   ├▶ batches ─┐
                   ├▶ creates ─┼▶ looking ─▶ answers
                   ├▶ changes ─┘
                   └▶ uploads ─▶ files
"""

from dualtrack.delivery.answers import Answers, Health
from dualtrack.delivery.attempt import Attempt
from dualtrack.delivery.batches import Batches
from dualtrack.delivery.changes import Changes
from dualtrack.delivery.creates import Creates
from dualtrack.delivery.doubts import Doubts
from dualtrack.delivery.experiments import Experiments
from dualtrack.delivery.files import Files
from dualtrack.delivery.looking import Looking
from dualtrack.delivery.losses import Overflow
from dualtrack.delivery.order import Order
from dualtrack.delivery.overtaken import Overtaken
from dualtrack.delivery.policy import Policy
from dualtrack.delivery.resolver import Resolver
from dualtrack.delivery.stand_ins import StandIns
from dualtrack.delivery.uploads import Uploads
from dualtrack.delivery.worker import Worker
from dualtrack.metrics import Metrics
from dualtrack.ports import Backend, Clock, Looker, Queue


def make_worker(
    backend: Backend,
    queue: Queue,
    looker: Looker,
    resolver: Resolver,
    experiments: Experiments,
    files: Files,
    clock: Clock,
    metrics: Metrics,
    policy: Policy,
    health: Health,
) -> Worker:
    """Make what delivers to `backend`. `health` hears how it fares."""
    name, doubts, order = backend.name, Doubts(), Order(queue, looker)
    answers = Answers(name, clock, metrics, policy.retry, health)
    looking = Looking(name, queue, looker, answers)
    overflow = Overflow(files, is_kept=policy.keeps_overflow)
    uploads = Uploads(resolver, files, answers)
    batches = Batches(backend, looker, looking, overflow, doubts, answers, policy.fitter)
    stand_ins = StandIns(name, looker, files, order)
    creates = Creates(backend, queue, looker, looking, experiments, stand_ins, overflow, answers, metrics, policy)
    changes = Changes(backend, queue, looking, experiments, files, order, answers, policy)
    overtaken = Overtaken(files.source.looker)
    attempt = Attempt(resolver, overtaken, order, batches, creates, changes, uploads, answers)
    return Worker(name, queue, attempt, uploads, doubts, clock, metrics, policy, health)
