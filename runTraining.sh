#!/usr/bin/env bash
# Preprocesses (when needed), trains MedicalPatchNet, then its whole-film baseline, with the published settings.
#   ./runTraining.sh [DATA_DIR] [OPTIONS...]
#   ./runTraining.sh data --uncertain ignore --frontal-only --track tensorboard
# DATA_DIR (default: data) holds CheXpert-v1.0/ and CheXlocalize/, or is a folder that is preprocessed already, or one
# that makeManifest.py wrote; the films of the latter are below it, or below FILMS:
#   FILMS=ChestX-ray14 ./runTraining.sh manifests/nih
# OPTIONS go to trainClassification.py for both networks; trainClassification.py --help explains them. Settings of
# both scripts are variables: EPOCHS=3 BATCH_SIZE=8 ./runTraining.sh data    (settings.sh lists them)
for word in "$@"; do
  case $word in
  -h | --help) # before anything is installed
    sed -n '2,/^[^#]/s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
    exit 0
    ;;
  --data | --data=* | --output | --output=* | -savePath | --results | --results=* | \
    --patch-size | --patch-size=* | -patchSize | --image-size | --image-size=* | -imgSize | \
    --aggregation | --aggregation=* | --teacher | --teacher=*)
    names="MODELS, RESULTS, PATCH_SIZE, IMAGE_SIZE, AGGREGATION or TEACHER"
    echo "error: ${word%%=*} differs between the two networks: set $names instead" >&2
    exit 2
    ;;
  esac
done
data=data
if [ $# -gt 0 ] && [ "${1#-}" = "$1" ]; then
  data=$1
  shift
fi
data=$(realpath "$data" 2>/dev/null || echo "$data")
for name in FILMS INIT TEACHER; do # paths, seen from where the user is
  if [ -e "${!name:-}" ]; then printf -v "$name" %s "$(realpath "${!name}")"; fi
done
. "$(dirname "${BASH_SOURCE[0]}")/setUp.sh" requirements.txt
. ./settings.sh

options=(--init "$INIT" --image-size "$IMAGE_SIZE" --lr "$LR" --batch-size "$BATCH_SIZE"
  --epochs "$EPOCHS" --seed "$SEED" --device "$DEVICE" --uncertain "$UNCERTAIN" --precision "$PRECISION"
  --resamples "$RESAMPLES")
if [ -n "$WORKERS" ]; then options+=(--workers "$WORKERS"); fi
for service in $TRACK; do options+=(--track "$service"); done
options+=("$@")
of_patches=(--aggregation "$AGGREGATION")
if [ -n "$TEACHER" ]; then of_patches+=(--teacher "$TEACHER"); fi
check='import sys; sys.argv[0] = "trainClassification.py"; from training_options import parse_args; parse_args(None)'
python -c "$check" --data "$data" --patch-size "$PATCH_SIZE" \
  "${of_patches[@]}" "${options[@]}" # a wrong option is refused before the films are preprocessed

preprocess

train() { # NAME TITLE PATCH_SIZE BACKBONE OPTIONS
  echo "== training $2"
  python trainClassification.py --data "$preprocessed" --output "$MODELS/$1" --results "$RESULTS/$1" \
    --patch-size "$3" --backbone "$4" "${@:5}" "${options[@]}"
}
train MedicalPatchNet "MedicalPatchNet, $BACKBONE" "$PATCH_SIZE" "$BACKBONE" "${of_patches[@]}"
train EfficientNetB0 "the baseline, $BASELINE_BACKBONE on whole films" "$IMAGE_SIZE" "$BASELINE_BACKBONE" \
  --aggregation mean
