#!/bin/bash
# Ten seeds of five prices of complexity on a cluster with Slurm, one job for each seed:
#
#     rlmop init && rlmop train --config configs/debug.yaml --num_updates 1    # once, so that jobs find it compiled
#     mkdir -p logs && sbatch examples/slurm.sh                                # flags may follow: --num_updates 2000
#     sbatch --dependency=afterok:JOB --wrap "rlmop evaluate --num_episodes 1000 --jobs 4"
#     rlmop ls                                                                 # how far it is
#
# Two minutes before its time is up, and when it is preempted, a job saves and goes back into the queue; started again,
# it goes on where it was, and ends with the same bits. What no signal announces costs --checkpoint_minutes, 5, at most.
#SBATCH --job-name=rlmop
#SBATCH --array=0-9
#SBATCH --time=04:00:00
#SBATCH --cpus-per-task=5
#SBATCH --mem=10G
#SBATCH --signal=B:USR1@120
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=logs/%x_%A_%a.log

# SIGTERM is what training takes for a wish to save and stop; Slurm's signals come to this shell, perhaps at once.
training= stop=
trap 'stop=1; [ -z "$training" ] || kill -TERM "$training" 2>/dev/null' USR1 TERM
rlmop train --config config.yaml --trial 1 --seeds "$SLURM_ARRAY_TASK_ID" --lpc_alphas 0,1e-6,1e-5,1e-4,1e-3 \
    --jobs "$SLURM_CPUS_PER_TASK" --max_replicas 1 --resume "$@" &
training=$!
[ -z "$stop" ] || kill -TERM "$training"
while kill -0 "$training" 2>/dev/null; do
    wait "$training" # ends early at a signal
done
wait "$training"
code=$?

if [ "$code" -eq 143 ]; then # stopped by SIGTERM, all saved
    scontrol requeue "${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID"
fi
exit "$code"
