#!/usr/bin/env bash
# Tests and benches of adamant on this machine's adapter, without a toolchain. Writes report.md beside this script.
#
#     ./run.sh            # all of it, within about an hour
#     ./run.sh --quick    # what matters most, within about ten minutes
#
# Every part has a time limit and leaves a log under work/logs; a part that fails is no end of the others. Needs bash,
# gzip and coreutils. Python 3 with numpy and torch, where present, is measured beside adamant.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")" || exit 1
here="$PWD"

quick=""
case "${1:-}" in
    "") ;;
    --quick) quick=1 ;;
    *) sed -n '2,8s/^# \{0,1\}//p' "$0"; exit 2 ;;
esac
# Seconds of each part: in full, or quickly.
limit() { if [ -n "$quick" ]; then echo "$2"; else echo "$1"; fi; }

mkdir -p work/bin work/logs
started="$(date +%s)"
report="$here/report.md"
# Where tests look for the files they read.
export CARGO_MANIFEST_DIR="$here" NODEVICE_SELECT=1 RUST_BACKTRACE=1
export XDG_RUNTIME_DIR="${XDG_RUNTIME_DIR:-$here/work}" TMPDIR="${TMPDIR:-/tmp}" HOME="${HOME:-$here/work}"

say() { printf '[%4d s] %s\n' "$(($(date +%s) - started))" "$*" >&2; }
tell() { printf '%s\n' "$*" >> "$report"; }

for packed in bin/*.gz; do
    name="$(basename "$packed" .gz)"
    [ -x "work/bin/$name" ] && [ "work/bin/$name" -nt "$packed" ] && continue
    gzip -dc "$packed" > "work/bin/$name" && chmod +x "work/bin/$name"
done
for packed in target/compare/rust*/release/burn-worker.gz; do
    [ -e "$packed" ] && [ ! -x "${packed%.gz}" ] && gzip -dc "$packed" > "${packed%.gz}" && chmod +x "${packed%.gz}"
done

: > "$report"
tell "# adamant on this machine"
tell ""
tell '```text'
{
    cat VERSION
    echo "run: $(date -u +%FT%TZ), $(uname -srm), $(nproc) cores${quick:+, --quick}"
    sed -n 's/^model name[^:]*: */processor: /p' /proc/cpuinfo 2> /dev/null | head -1
    command -v nvidia-smi > /dev/null && nvidia-smi --query-gpu=name,driver_version,memory.total,clocks.max.sm --format=csv,noheader
} >> "$report" 2>&1
tell '```'
tell ""

# A Vulkan loader and a driver, or a sentence that says what is missing.
adapters() { timeout 120 work/bin/bench-compare devices 2> work/logs/devices.log | tail -1; }
if ! work/bin/train --version > work/logs/train.log 2>&1; then
    tell "The programs do not start here: $(tail -1 work/logs/train.log)"
    say "the programs do not start here: $(tail -1 work/logs/train.log)"
    exit 1
fi
found="$(adapters)"
if [ "$found" = "[]" ] && [ -e lib/libvulkan.so.1 ]; then
    say "no adapter answers; trying the Vulkan loader of the bundle"
    export LD_LIBRARY_PATH="$here/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
    found="$(adapters)"
    [ "$found" = "[]" ] || tell "With the Vulkan loader of the bundle: the machine's own is missing or finds nothing."
fi
if [ "$found" = "[]" ]; then
    # Containers often bring NVIDIA's driver without the file that tells the loader of it.
    driver="$( (ldconfig -p 2> /dev/null; ls /usr/lib/x86_64-linux-gnu/libGLX_nvidia.so.0 /usr/lib64/libGLX_nvidia.so.0 2> /dev/null) | grep -o '/[^ ]*libGLX_nvidia\.so\.0' | head -1)"
    if [ -n "$driver" ]; then
        say "trying NVIDIA's driver at $driver"
        printf '{"file_format_version": "1.0.0", "ICD": {"library_path": "%s", "api_version": "1.3.0"}}\n' "$driver" > work/nvidia_icd.json
        export VK_DRIVER_FILES="$here/work/nvidia_icd.json" VK_ICD_FILENAMES="$here/work/nvidia_icd.json"
        found="$(adapters)"
        [ "$found" = "[]" ] || tell "With NVIDIA's driver named to the Vulkan loader by this script: the machine lacks its ICD file."
    fi
fi
tell "## Adapters"
tell ""
if [ "$found" = "[]" ] || [ -z "$found" ]; then
    text="No adapter was found: no Vulkan driver answers. What follows is the CPU executor's; tests of kernels fail."
    command -v nvidia-smi > /dev/null && text="$text nvidia-smi is here, so the driver's graphics part is missing: in a container set NVIDIA_DRIVER_CAPABILITIES=all, else install libnvidia-gl (and libvulkan1)."
    tell "$text"
    say "$text"
else
    names="$(grep -o '"driver":"[^"]*"' <<< "$found" | sed 's/"driver":"\(.*\)"/\1/')"
    tell "$(sed 's/^/- /' <<< "$names")"
    say "adapters: $names"
fi
tell ""

tell "## Tests on every adapter"
tell ""
tell "| test | outcome | seconds |"
tell "|---|---|--:|"
failed=""
run_test() { # NAME SECONDS
    local begun outcome code
    say "test $1 (at most $2 s)"
    begun="$(date +%s)"
    timeout "$2" "work/bin/test-$1" > "work/logs/test-$1.log" 2>&1
    code=$?
    outcome="$(grep '^test result:' "work/logs/test-$1.log" | sed 's/test result: //; s/; finished.*//; s/; 0 measured//; s/; 0 filtered out//')"
    [ $code = 124 ] && outcome="not done after $2 s: $(grep -c '^test .* ok$' "work/logs/test-$1.log") passed, $(grep -c '^test .* FAILED$' "work/logs/test-$1.log") failed so far"
    [ -n "$outcome" ] || outcome="ended with code $code: $(tail -1 "work/logs/test-$1.log")"
    [ $code = 0 ] || failed="$failed $1"
    tell "| $1 | $outcome | $(($(date +%s) - begun)) |"
}
run_test kernels "$(limit 900 150)"
run_test ops "$(limit 300 30)"
run_test submissions "$(limit 300 30)"
run_test models "$(limit 600 60)"
if [ -z "$quick" ]; then
    run_test augment 300
    run_test plan 600
    run_test attack_laws 600
fi
tell ""
for name in $failed; do
    tell "### What failed in $name"
    tell ""
    tell '```text'
    grep -E 'FAILED|panicked|^[^ ].*(error|Error)' -A 6 "work/logs/test-$name.log" | cut -c1-300 | head -60 >> "$report"
    tell '```'
    tell ""
done

run_bench() { # NAME SECONDS ARGUMENTS...
    local name="$1" seconds="$2" code
    shift 2
    say "bench $name $* (at most $seconds s)"
    timeout "$seconds" "work/bin/bench-$name" "$@" > "work/logs/bench-$name.log" 2> "work/logs/bench-$name.err"
    code=$?
    sed 's/^#/###/' "work/logs/bench-$name.log" >> "$report"
    [ $code = 124 ] && tell "(stopped after $seconds s)"
    [ $code = 0 ] || [ $code = 124 ] || tell "(ended with code $code: $(tail -1 "work/logs/bench-$name.err"))"
    tell ""
}
tell "## Benches"
tell ""
if [ -n "$quick" ]; then
    run_bench compare 100 W1 W2
else
    run_bench compare 400
    run_bench kernels 400
    run_bench step 300
fi

tell "## Beside PyTorch"
tell ""
python="$(command -v python3 || true)"
if [ -n "$python" ] && "$python" -c 'import numpy, torch' 2> /dev/null; then
    seconds="$(limit 1500 240)"
    say "tools/compare (at most $seconds s)"
    # Interrupted, it keeps what it has measured.
    # shellcheck disable=SC2086
    timeout -s INT -k 90 "$seconds" "$python" tools/compare --no-setup --python "$python" --adamant work/bin/bench-compare --out work/compare \
        ${quick:+--quick --works W1 W2c} > work/logs/compare.log 2> work/logs/compare.err
    code=$?
    if [ -e work/compare/compare.md ]; then sed 's/^#/###/' work/compare/compare.md >> "$report"; fi
    [ $code = 0 ] || tell "(ended with code $code: $(tail -c 300 work/logs/compare.err | tail -1))"
else
    tell "python3 with numpy and torch is not here: no peers were measured."
fi
tell ""

if [ -z "$quick" ]; then
    say "the main job (at most 300 s)"
    tell "## The main job"
    tell ""
    tell '```text'
    timeout 300 work/bin/train --out work/run < /dev/null > work/logs/train.log 2>&1
    tail -25 work/logs/train.log >> "$report"
    tell '```'
    tell ""
fi
say "done: $report"
