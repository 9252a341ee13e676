#!/usr/bin/env bash
# Set up, then the whole chain on a small synthetic CheXpert, on a CPU: films, preprocessing, training of both models,
# evaluation, heat maps, localization, tables and figures. Everything lies in demo/; what is complete is not done again.
. "$(dirname "${BASH_SOURCE[0]}")/setUp.sh" requirements.txt

echo "== drawing the demo films"
python preprocessing/makeDemoDataset.py --output demo/data --patients 500 --seed 0

export BACKBONE=timm/test_efficientnet INIT=random IMAGE_SIZE=256 PATCH_SIZE=64 PREPROCESSED_SIZE=256
export LR=5e-3 EPOCHS=6 BATCH_SIZE=16 STEPS_PER_PATCH=4 DEVICE=cpu
export MODELS=demo/savedModels RESULTS=demo/results DATASET_NAME="synthetic demo films"
./runTraining.sh demo/data
./runEval.sh demo/data
