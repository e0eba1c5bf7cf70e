"""One step of evaluation for several trials, in worker processes; equal candidates share one result."""

from collections.abc import Iterator, Mapping, Sequence

from mnas.evaluate.evaluation import Evaluation, Step
from mnas.search.measure import fail
from mnas.search.progress import Clock, Watcher
from mnas.study import StudyWriter
from mnas.workers import LocalWorkers, Task

FIELDS: dict[Step, str] = {"features": "features", "training": "evaluation"}
"""Step -> field of a trial's record that holds its result."""


def evaluated(
    run: StudyWriter,
    workers: LocalWorkers,
    numbers: Sequence[int],
    step: Step,
    watcher: Watcher,
    clock: Clock,
) -> Iterator[tuple[int, Evaluation]]:
    """Yield each of these trials with the result of the step, to be stored before the next one; mark those that fail.

    A candidate that was evaluated before is not evaluated again. Ends early where the search's time is over.
    """
    earlier = run.standing.first[FIELDS[step]]  # identity of a candidate -> number
    waiting, shared = list(numbers), list[int]()
    busy: dict[str, int] = {}  # identity -> number

    def next_task() -> Task | None:
        for number in list(waiting):
            trial = run.trials[number]
            if trial.identity in earlier:
                waiting.remove(number)
                shared.append(number)
            elif trial.identity not in busy:
                if clock.over:
                    return None
                waiting.remove(number)
                busy[trial.identity] = number
                clock.show(_activity(step, busy))
                return Task(number, trial.candidate, trial.seed, run.weights_path(number), step)
        return None

    def progressed() -> None:
        (clock.finished_one if step == "training" else clock.show)(_activity(step, busy))

    def of_equal_ones() -> Iterator[tuple[int, Evaluation]]:
        while shared:
            number = shared.pop(0)
            twin = run.trials[earlier[run.trials[number].identity]]
            if step == "training":
                run.note(number, same_as=twin.number)
            yield number, getattr(twin, FIELDS[step])
            progressed()

    for task, outcome in workers.run(next_task):
        del busy[run.trials[task.number].identity]
        if isinstance(outcome, Evaluation):
            yield task.number, outcome
        else:
            fail(run, task.number, outcome, watcher)
        progressed()
        yield from of_equal_ones()
    yield from of_equal_ones()


def _activity(step: Step, busy: Mapping[str, int]) -> str:
    doing = {"features": "scoring the features of", "training": "training"}[step]
    return f"{doing} {', '.join(map(str, sorted(busy.values())))}" if busy else ""
