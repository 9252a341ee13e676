#!/usr/bin/env bash
# Both models: predictions, statistics, heat maps, thresholds on validation, localization on test, tables, figures,
# and one HTML page of all this, whose place is printed at the end.
#   ./runEval.sh [DATA_DIR [CHEXLOCALIZE_DIR]]
# DATA_DIR (default: data) as for runTraining.sh, preprocessed first where it is not yet. Maps of a manifest are made
# from CHEXLOCALIZE_DIR, a folder of the same films with their films.csv (default: the square copies, unless packed),
# and scored where regions.json outlines them.
# Weights are taken from savedModels/; where it has none, the published ones are downloaded from the Hugging Face hub,
# once. Settings are variables:
#   STEPS_PER_PATCH=16 RESAMPLES=10000 ./runEval.sh data
#   STRIDE=3 WORKERS=8 ./runEval.sh data   (corrected maps alone, nine times faster; settings.sh lists the settings)
#   MAP=nih ./runEval.sh nih-1024          (labels of another data set as CheXpert's; into results-nih/)
# Heat maps are kept as small evidence files; PICKLES=yes writes CheXlocalize's pickles instead (some 200 GB).
case "${1:-}" in
-h | --help) # before anything is installed, or downloaded
  sed -n '2,/^[^#]/s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
  exit 0
  ;;
-*)
  echo "error: $1: ./runEval.sh takes no options, settings are variables: STEPS_PER_PATCH=16 ./runEval.sh data" >&2
  exit 2
  ;;
esac
data=$(realpath "${1:-data}" 2>/dev/null || echo "${1:-data}")
chexlocalize=$([ -z "${2:-}" ] || realpath "$2" 2>/dev/null || echo "$2")
if [ -e "${FILMS:-}" ]; then FILMS=$(realpath "$FILMS"); fi # a path, seen from where the user is
. "$(dirname "${BASH_SOURCE[0]}")/setUp.sh" requirements.txt
. ./settings.sh
if [ ! -d "$data" ]; then # before weights are downloaded
  echo "error: $data: no such folder; ./runEval.sh --help says what it should hold" >&2
  exit 2
fi

weights_of() { # NAME PUBLISHED_FILE...: the trained folder, else a published file, else its name on the hub
  local name=$1 file
  if [ -f "$MODELS/$name/training_state.pt" ] && [ ! -f "$MODELS/$name/training.json" ]; then
    echo "error: training of $name in $MODELS/ is not complete: run ./runTraining.sh again" >&2
    exit 2
  fi
  if [ -f "$MODELS/$name/model.safetensors" ]; then echo "$MODELS/$name"; return; fi
  shift
  for file in "$@"; do
    if [ -f "$MODELS/$file" ]; then echo "$MODELS/$file"; return; fi
  done
  echo "no weights of $name in $MODELS/ (./runTraining.sh trains some): taking the published ones" >&2
  echo "hf://patrick-w/MedicalPatchNet/$1"
}

of_patches=$(weights_of MedicalPatchNet MedicalPatchNet_weights.pt)
of_baseline=$(weights_of EfficientNetB0 EfficientNetB0_weights.pt EfficientNetV2S_weights.pt)
if [ ! -f "$preprocessed/preprocessing.json" ]; then preprocess; fi

workers=()
if [ -n "$WORKERS" ]; then workers=(--workers "$WORKERS"); fi
maps=()
if [ -n "$chexlocalize" ]; then maps=(--chexlocalize "$chexlocalize"); fi
mapping=()
if [ -n "$MAP" ]; then mapping=(--map "$MAP"); fi
evaluate() { # NAME TITLE PATCH_SIZE WEIGHTS
  local name=$1 patch_size=$3 weights=$4
  echo "== evaluating $2 ($weights)"
  local pickles=--no-pickles
  if [ "$PICKLES" = yes ]; then pickles=; fi
  python evalClassification.py --weights "$weights" --patch-size "$patch_size" --data "$preprocessed" \
    "${maps[@]}" "${mapping[@]}" --output "$RESULTS/$name" "${fineness[@]}" --resamples "$RESAMPLES" \
    --seed "$SEED" --device "$DEVICE" "${workers[@]}" $pickles
}
evaluate MedicalPatchNet MedicalPatchNet "$PATCH_SIZE" "$of_patches"
evaluate EfficientNetB0 "the baseline" "$IMAGE_SIZE" "$of_baseline"

outlines=() # of the test films, for the report
if [ $manifest = no ] || [ -f "$chexlocalize/regions.json" ]; then
  echo "== localization"
  python evalLocalization.py "$RESULTS/MedicalPatchNet" "$RESULTS/EfficientNetB0" --chexlocalize "$chexlocalize" \
    --seed "$SEED" "${workers[@]}"
  outlines=(--gt-path "$chexlocalize/CheXlocalize/gt_segmentations_test.json")
  if [ $manifest = yes ]; then outlines=(--gt-path "$chexlocalize/regions.json"); fi
fi
if [ ${#maps[@]} -gt 0 ]; then
  echo "== do the maps say what the networks do"
  pairs=() # films with and without one finding, which only drawn ones have
  if [ -f "$data/pairs/pairs.csv" ]; then pairs=(--pairs "$data/pairs"); fi
  python evalFaithfulness.py "$RESULTS/MedicalPatchNet" "$RESULTS/EfficientNetB0" --data "$preprocessed" \
    "${maps[@]}" "${pairs[@]}" --curve-films "$CURVE_FILMS" --seed "$SEED" --device "$DEVICE" "${workers[@]}"
fi
for name in MedicalPatchNet EfficientNetB0; do
  if [ -z "$MAP" ] && [ -f "$MODELS/$name/model.safetensors" ]; then # a description travels with weights of our own
    python convertWeights.py describe "$MODELS/$name" --results "$RESULTS/$name"
  fi
done
echo "== comparing the two"
python evalClassification.py --predictions "$RESULTS/MedicalPatchNet" --compare "$RESULTS/EfficientNetB0" \
  --resamples "$RESAMPLES" --seed "$SEED"
echo "== tables, figures and page"
python makeReport.py "$RESULTS" --dataset-name "$DATASET_NAME" --figures "${outlines[@]}"
