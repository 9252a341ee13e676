#!/usr/bin/env bash
# Preprocess (when needed), train MedicalPatchNet, then its EfficientNet-B0 baseline, with the published settings.
#   ./runTraining.sh [DATA_DIR]
# DATA_DIR (default: data) holds CheXpert-v1.0/ and CheXlocalize/, or is a folder that is preprocessed already.
# Settings are variables: EPOCHS=3 BATCH_SIZE=8 ./runTraining.sh data
data=$(realpath "${1:-data}" 2>/dev/null || echo "${1:-data}")
. "$(dirname "${BASH_SOURCE[0]}")/setUp.sh" requirements.txt
. ./settings.sh

if [ "$preprocessed" != "$data" ]; then
  echo "== preprocessing into $preprocessed"
  python preprocessing/preProcCheXpert.py --chexpert "$data/CheXpert-v1.0" --chexlocalize "$chexlocalize" \
    --output "$preprocessed" --size "$PREPROCESSED_SIZE"
fi

train() { # NAME PATCH_SIZE
  echo "== training $1"
  python trainClassification.py --data "$preprocessed" --output "$MODELS/$1" --results "$RESULTS/$1" \
    --backbone "$BACKBONE" --init "$INIT" --patch-size "$2" --image-size "$IMAGE_SIZE" \
    --lr "$LR" --batch-size "$BATCH_SIZE" --epochs "$EPOCHS" --seed "$SEED" --device "$DEVICE"
}
train MedicalPatchNet "$PATCH_SIZE"
train EfficientNetB0 "$IMAGE_SIZE"
