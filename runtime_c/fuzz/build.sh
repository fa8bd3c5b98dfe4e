#!/bin/bash -eu
# Builds the fuzz targets as OSS-Fuzz asks for it (https://google.github.io/oss-fuzz/getting-started/new-project-guide):
# CC, CFLAGS, LIB_FUZZING_ENGINE and OUT are given. By hand, with clang:
#
#   CC=clang CFLAGS="-O1 -g -fsanitize=fuzzer-no-link,address,undefined" LIB_FUZZING_ENGINE=-fsanitize=fuzzer \
#     OUT=/tmp/fuzz fuzz/build.sh
#
# SAMPLES: what tests/write_samples.py wrote; without it they are written (numpy, onnx). Every target gets a corpus as
# NAME_seed_corpus.zip; `samples/` beside fuzz_open holds the tables that stand for those which a file names.
cd "$(dirname "$0")/.."
: "${CC:=clang}" "${CFLAGS:=-O1 -g}" "${LIB_FUZZING_ENGINE:=-fsanitize=fuzzer}"
include=(-std=c11 -D_GNU_SOURCE -Iinclude -Isrc -Itests -Ibackends -Itools -Ifuzz)
mkdir -p "$OUT"

if [ -z "${SAMPLES:-}" ]; then
  SAMPLES=$(mktemp -d)
  PYTHONPATH=.. "${PYTHON:-python3}" tests/write_samples.py "$SAMPLES"
fi
mkdir -p "$OUT/samples/routing"
cp "$SAMPLES/word_piece.bin" "$OUT/samples/"
cp "$SAMPLES/routing/table.bin" "$OUT/samples/routing/"

# shellcheck disable=SC2086  # CFLAGS are words
$CC $CFLAGS "${include[@]}" src/*/*.c backends/*.c backends/*/*.c fuzz/fuzz_{init,open,router,text,log}.c \
  tests/null_backend.c $LIB_FUZZING_ENGINE -ldl -lm -pthread -o "$OUT/fuzz_open"
# shellcheck disable=SC2086
$CC $CFLAGS "${include[@]}" src/base/*.c tools/{signed,sha256,command_line}.c fuzz/fuzz_signed.c \
  $LIB_FUZZING_ENGINE -ldl -lm -pthread -o "$OUT/fuzz_signed"

for target in open signed; do
  corpus=tests/corpus
  [ "$target" = open ] || corpus=fuzz/corpus_$target
  (cd "$corpus" && "${PYTHON:-python3}" -m zipfile -c "$OUT/fuzz_${target}_seed_corpus.zip" ./*)
done
