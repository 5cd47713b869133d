#!/bin/bash
# One shard of a certification for each task of a SLURM array: sbatch docs/examples/certify-array.sh
# When all are done: certmix merge runs/imagenet/shard-* --output runs/imagenet/whole
#SBATCH --job-name=certmix
#SBATCH --array=1-16
#SBATCH --gpus=1
#SBATCH --cpus-per-task=4
#SBATCH --mem=32G
#SBATCH --time=08:00:00
#SBATCH --requeue
#SBATCH --output=certmix-%A_%a.log

set -euo pipefail

# A task that was preempted or ran out of time goes on where it was: submit the array again.
certmix certify --sigma 0.5 --alpha 0.76 \
    --data "${IMAGENET:?folder with val/CLASS/*.JPEG}" --split val --resize 256 --crop 224 \
    --standard timm:resnet50 --robust nets.py:noisy --robust-weights noisy.safetensors \
    --inputs all --samples 100000 --device cuda --precision bf16 --workers 1 \
    --shard "${SLURM_ARRAY_TASK_ID}/${SLURM_ARRAY_TASK_COUNT}" \
    --output "runs/imagenet/shard-${SLURM_ARRAY_TASK_ID}" --format json
