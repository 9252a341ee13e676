#!/usr/bin/env bash
# Set up, then the whole chain on a small synthetic CheXpert, on a CPU: films, preprocessing, training of both models,
# evaluation, heat maps, localization, tables and figures. Everything lies in demo/; what is complete is not done again.
#   ./runDemo.sh
#   PATIENTS=40 EPOCHS=1 ./runDemo.sh     # smaller and quicker, into an empty demo/
if [ "${1:-}" = -h ] || [ "${1:-}" = --help ]; then # before anything is installed
  sed -n '2,/^[^#]/s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
  exit 0
fi
. "$(dirname "${BASH_SOURCE[0]}")/setUp.sh" requirements.txt
: "${PATIENTS:=500}" "${EPOCHS:=12}"
if [ -z "${STRIDE:-}" ]; then : "${STEPS_PER_PATCH:=8}"; fi
: "${PAIRS:=8}" # films drawn with and without a finding, of each

echo "== drawing the demo films"
python preprocessing/makeDemoDataset.py --output demo/data --patients "$PATIENTS" --seed 0 --pairs "$PAIRS"

export EPOCHS STEPS_PER_PATCH="${STEPS_PER_PATCH:-}"
export BACKBONE=dense64 BASELINE_BACKBONE=timm/test_efficientnet INIT=random
export IMAGE_SIZE=256 PATCH_SIZE=64 PREPROCESSED_SIZE=256 LR=3e-3 BATCH_SIZE=8 DEVICE=cpu
export MODELS=demo/savedModels RESULTS=demo/results DATASET_NAME="synthetic demo films"
./runTraining.sh demo/data
./runEval.sh demo/data
