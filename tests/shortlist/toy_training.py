"""Toy trainings for child processes, with light imports only."""

import os
import signal
import time


def train_one(job, say):
    """Job 1 raises, job 2 is killed, and others write a file; in `slow` and, with our handlers, `real` they wait."""
    if job.folder.name == "real":
        from mnas.train.process import stop_requests

        with stop_requests() as stop:
            say(str(os.getpid()))
            while not stop.number:
                time.sleep(0.01)
            time.sleep(2)  # the training in progress
            job.folder.joinpath("checkpoint").touch()
            return
    if job.folder.name == "slow":
        signal.signal(signal.SIGTERM, lambda *_: _stopped(job))
        say("waiting")
        time.sleep(60)
    if job.number == 1:
        raise ValueError("diverged\non purpose")
    if job.number == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    say("half way")
    job.folder.joinpath(str(job.number)).write_text(os.environ.get("CUDA_VISIBLE_DEVICES", ""))


def _stopped(job):
    job.folder.joinpath("checkpoint").touch()
    os._exit(1)
