# Sourced by runTraining.sh and runEval.sh: the published settings, each replaceable by a variable of the same name.
: "${BACKBONE:=efficientnet_b0}" "${INIT:=imagenet}" "${IMAGE_SIZE:=512}" "${PATCH_SIZE:=64}"
: "${BASELINE_BACKBONE:=$BACKBONE}" # of the whole-film network, where it is another one
: "${LR:=1e-4}" "${BATCH_SIZE:=16}" "${EPOCHS:=20}" "${SEED:=0}" "${DEVICE:=auto}"
: "${AGGREGATION:=mean}" # of the patch network: position, gate, noisy_or, attention or logsumexp
: "${TEACHER:=}" # weights whose patch logits the patch network learns beside the labels
: "${UNCERTAIN:=zeros}" "${PRECISION:=auto}" # zeros, ones or ignore; auto, fp32, bf16 or fp16
: "${WORKERS:=}" "${TRACK:=}"                # processes that read films (cores); tensorboard, wandb, or both
: "${PICKLES:=no}" "${PREPROCESSED_SIZE:=1024}" "${RESAMPLES:=100000}"
: "${CURVE_FILMS:=20}" # of which the audit makes deletion and insertion curves by forward passes
: "${STRIDE:=}" # evidence every so many pixels (3: corrected maps alone, 9 times faster) instead of STEPS_PER_PATCH
if [ -n "$STRIDE" ] && [ -n "${STEPS_PER_PATCH:-}" ]; then
  echo "error: STRIDE=$STRIDE and STEPS_PER_PATCH=$STEPS_PER_PATCH: set only one of the two" >&2
  exit 2
fi
if [ -n "$STRIDE" ]; then fineness=(--stride "$STRIDE"); else fineness=(--steps-per-patch "${STEPS_PER_PATCH:=64}"); fi
: "${MAP:=}" # nih, padchest, ...: test a CheXpert network on another set's labels; nih+approximate: see docs/data.md
: "${MODELS:=savedModels}" "${RESULTS:=results${MAP:+-$MAP}}"

# Where the preprocessed films are, or will be: DATA_DIR itself when preProcCheXpert.py or preProcFilms.py made it.
manifest=no # DATA_DIR lists its films in one table, as makeManifest.py writes it; else it holds CheXpert
for table in films.csv films.parquet metadata.csv; do
  if [ -f "$data/$table" ]; then manifest=yes; fi
done
if [ -f "$data/preprocessing.json" ]; then
  preprocessed=$data
elif [ $manifest = yes ]; then
  preprocessed=$data/films-$PREPROCESSED_SIZE
else
  preprocessed=$data/CheXpert-$PREPROCESSED_SIZE
fi
if [ $manifest = yes ]; then : "${DATASET_NAME:=$(basename "$data")}"; fi
: "${DATASET_NAME:=CheXpert}" "${FILMS:=$data}" # in tables and page; where the films of a manifest are
if [ -z "${chexlocalize:-}" ] && [ $manifest = yes ]; then
  chexlocalize=$preprocessed # maps are then drawn on the square copies
  if compgen -G "$preprocessed/*.npy" >/dev/null; then chexlocalize=; fi # none on packed ones
elif [ -z "${chexlocalize:-}" ]; then
  for chexlocalize in "$data/CheXlocalize" "$data/chexlocalize" "$(dirname "$data")/CheXlocalize"; do
    if [ -d "$chexlocalize" ]; then break; fi # an && that fails last would end the script without a word
  done
fi

preprocess() { # the films of DATA_DIR into square copies, unless it holds such; what is done already is not done again
  if [ "$preprocessed" = "$data" ]; then return; fi
  echo "== preprocessing into $preprocessed"
  if [ $manifest = yes ]; then
    python preprocessing/preProcFilms.py --manifest "$data" --films "$FILMS" --output "$preprocessed" \
      --size "$PREPROCESSED_SIZE"
  else
    python preprocessing/preProcCheXpert.py --chexpert "$data/CheXpert-v1.0" --chexlocalize "$chexlocalize" \
      --output "$preprocessed" --size "$PREPROCESSED_SIZE"
  fi
}
