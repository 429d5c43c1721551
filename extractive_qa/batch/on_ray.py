"""Shards answered on a Ray cluster, by Ray Data.

The rows of the Dataset are shards, not questions: an actor of `map_batches`, which holds a Reader, answers a file from
its beginning to its end with what --workers answers it with, and gives back its Outcome. So the shard is the unit of
restart, its lock and progress are the same, and its bytes too. A node that dies has its shards begun by Ray on another,
where they resume; and a command without Ray may share the folder.

Why not rows of questions, `write_parquet` and Ray Data's checkpoint by id: who shares a batch, and with it the last
digits in int8, would depend on the cluster; answers would come in no order; all ids would be kept in memory. That
checkpoint (Ray 2.60) was tried: on two processors a complete run, begun again, waited for a processor until it was
stopped after two minutes.
"""

import logging
import time
from collections.abc import Callable
from pathlib import Path

from extractive_qa.batch.folder import Work, is_for_cpu
from extractive_qa.batch.run import BAR
from extractive_qa.batch.shards import Outcome, Shard
from extractive_qa.batch.workers import AGAIN
from extractive_qa.errors import QAError
from extractive_qa.progress import NoProgress

logger = logging.getLogger(__name__)

PACKAGE = Path(__file__).resolve().parents[1]


class ShardActor:
    """What `map_batches` makes on a node: each batch is one shard. What is wrong with the model or the folder is told
    with a shard, as Ray would start an actor that fails again and again."""

    def __init__(self, work: Work):
        try:
            self.answerer, self.fault = work.start(), ""
        except QAError as error:
            self.answerer, self.fault = None, str(error)

    def __call__(self, batch: dict) -> dict:
        shard = Shard(Path(batch["source"][0]), Path(batch["target"][0]))
        outcome = self.answerer.answer(shard) if self.answerer else Outcome(shard, fault=self.fault)
        row = batch | {name: [getattr(outcome, name)] for name in Outcome._fields if name != "shard"}
        return row | {"refused": [not self.answerer]}


def answer_on_ray(
    shards: list[Shard], work: Work, workers: int | None = None, address: str = "", progress: Callable = NoProgress
) -> list[Outcome]:
    """As answer_shards, on the cluster at `address`; "": on the one that RAY_ADDRESS names or that runs here, else on
    this machine alone. Every path is the same on all nodes: a shared folder. workers: actors at most; None: one a GPU,
    or where the cluster has none one for each `threads` processors (1 where work.reader has none)."""
    try:
        import ray
        import ray.data
    except ImportError:
        raise QAError("Ray is not installed. Run: pip install -r requirements-ray.txt") from None
    if not ray.is_initialized():
        try:
            # the nodes need the libraries, but no copy of this one
            ray.init(address or None, runtime_env={"py_modules": [str(PACKAGE)]}, log_to_driver=False,
                     logging_level=logging.WARNING)  # fmt: skip
        except (ConnectionError, ValueError, RuntimeError) as error:
            where = address or "this machine"
            raise QAError(f"no Ray cluster at {where}: {error}. Start one: ray start --head") from None
    ray.data.DataContext.get_current().enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.WARNING)
    work, needs, most = fit(work, ray.cluster_resources(), workers)
    outcomes, left = {}, {(str(shard.source.absolute()), str(shard.target.absolute())): shard for shard in shards}
    with progress(total=len(left), **BAR | {"unit": " files"}) as bar:
        while left:
            rows = [{"source": source, "target": target} for source, target in left]
            answered = ray.data.from_items(rows, override_num_blocks=len(rows)).map_batches(
                ShardActor, fn_constructor_args=(work,), batch_size=1, batch_format="numpy", **needs,
                # a shard at a time, so that none waits for a slow one; one actor is enough where nodes have gone
                compute=ray.data.ActorPoolStrategy(
                    min_size=1, initial_size=min(most, len(rows)), max_size=min(most, len(rows)),
                    max_tasks_in_flight_per_actor=1,
                ),
                max_restarts=-1, max_task_retries=-1,
            )  # fmt: skip
            for row in answered.iter_rows():
                if row["refused"]:
                    raise QAError(row["fault"])
                if row["in_use"]:
                    continue
                shard = left.pop((row["source"], row["target"]))
                outcome = Outcome(shard, *(row[name] for name in Outcome._fields if name != "shard"))
                if outcome.fault:
                    logger.warning(f"left out: {outcome.fault}")
                outcomes[shard] = outcome
                now = sum(one.now for one in outcomes.values())
                bar.set_postfix_str(f"{len(outcomes):,} files, {now:,} questions", refresh=False)
                bar.update()
            time.sleep(AGAIN if left else 0)  # what another run has is asked for again
    return [outcomes[shard] for shard in shards]


def fit(work: Work, cluster: dict, workers: int | None) -> tuple[Work, dict, int]:
    """`work` with absolute paths and the threads of each actor; what an actor needs of a cluster that has so much; and
    how many actors there are at most."""
    threads = work.reader.get("threads") or 1
    work = work._replace(
        reader=work.reader | {"threads": threads, "model_dir": Path(work.reader["model_dir"]).absolute()},
        folder=work.folder.absolute(), documents=work.documents and tuple(map(Path.absolute, work.documents)),
    )  # fmt: skip
    gpus = 0 if is_for_cpu(work.reader) else int(cluster.get("GPU", 0))
    needs = {"num_gpus": 1} if gpus else {"num_cpus": threads}
    return work, needs, max(1, workers or gpus or int(cluster.get("CPU", 1)) // threads)
