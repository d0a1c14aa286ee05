# Every record that is missing, by one command: experts > distil and evaluate > tables.
#   snakemake -n                                     what would be made, with hours, memory and disk
#   snakemake                                        make it, one thread a job on as many as cores
#   snakemake --config 'grids=evidence photos*'      other grids; grids=paper is all of them
#   snakemake --workflow-profile profiles/slurm      by Slurm
# The jobs come from ld3m_min.experiments.sweep. A record that stands is none of them.
import atexit
import os
import shlex
import sys
from pathlib import Path

# the checkout's package, installed or not, here and in every job
sys.path.insert(0, str(workflow.basedir))
PATHS = [str(workflow.basedir), os.environ.get("PYTHONPATH", "")]
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, PATHS))

from ld3m_min.experiments import costs, sweep as sweeps

RECORDS = Path(config.get("records") or sweeps.RECORDS)
SWEEP = sweeps.sweep(config.get("grids") or sweeps.DIGITS, RECORDS)
JOBS = {job.name: job for job in SWEEP.jobs}
COSTS = costs.Costs(tflops=float(config.get("tflops", costs.GPU_TFLOPS)))


def needs(wildcards):
    return [ancient(str(JOBS[name].output)) for name in JOBS[wildcards.job].needs]


def command(wildcards):
    return JOBS[wildcards.job].command.replace("python", shlex.quote(sys.executable), 1)


def planned(ask):
    """A resource from the forecast of a job; nothing is counted for jobs of this machine."""

    def resource(wildcards, attempt):
        ahead = workflow.non_local_exec_or_dryrun
        return ask(COSTS.of(JOBS[wildcards.job]), attempt) if ahead else 0

    return resource


def records(wildcards):
    if workflow.dryrun:
        atexit.register(lambda: print(costs.forecast_text(SWEEP, COSTS)))
    return [str(job.output) for job in SWEEP.jobs if job.kind == "cell"]


rule all:
    input: records


for place, stage in enumerate(SWEEP.stages):
    rule:
        name: stage.name
        input: needs
        # nothing that is there is removed before a job or after one that fails
        output: temp(touch(stage.output)) if stage.kind == "experts" else update(stage.output)
        wildcard_constraints: job=stage.pattern
        log: str(sweeps.MARKS / "{job}.log")
        priority: len(SWEEP.stages) - place
        threads: 1
        params: command=command
        resources:
            gpu=int(stage.jobs[0].on_gpu),
            mem_mb=planned(lambda cost, attempt: int(cost.memory / 1e6 * (1 + attempt / 2))),
            runtime=planned(lambda cost, attempt: int(15 + cost.seconds / 60 * 3 * attempt)),
        # exit code 75: out of the time given, all is saved, and the same command goes on
        shell: "until {params.command} > {log} 2>&1; do code=$?; [ $code -eq 75 ] || exit $code; done"
