"""Workers that die, for the tests of what is left then: a spawned process imports them by this module's name."""

import os
import signal

from extractive_qa.batch import folder, workers
from extractive_qa.batch.answer_file import AnswerFile

KILL = getattr(signal, "SIGKILL", signal.SIGTERM)


def die_once(pipe, number, work):
    """Dies with the first group of a shard written, if nobody has died here before."""
    write = AnswerFile.write

    def struck(self, *args):
        write(self, *args)
        try:
            (work.folder / "died").touch(exist_ok=False)
        except FileExistsError:
            return
        os.kill(os.getpid(), KILL)

    AnswerFile.write = struck
    workers.live(pipe, number, work)


def die_of_one(pipe, number, work):
    """Dies of the shard that is called poison."""
    answer = folder.ShardAnswerer.answer

    def struck(self, shard, *told):
        if shard.source.stem == "poison":
            os.kill(os.getpid(), KILL)
        return answer(self, shard, *told)

    folder.ShardAnswerer.answer = struck
    workers.live(pipe, number, work)


def die_at_once(pipe, number, work):
    os.kill(os.getpid(), KILL)
