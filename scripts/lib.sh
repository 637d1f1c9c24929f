# Shared by the scripts beside it: checks the tool chain, and starts and stops a local model server.
# Source it from the project's root after `set -euo pipefail`.

need_tools() {
    command -v cargo >/dev/null || { echo "error: \`cargo\` was not found; install Rust 1.92 or newer (https://rustup.rs)" >&2; exit 1; }
    local version minor
    version=$(rustc --version | cut -d' ' -f2)
    minor=$(echo "$version" | cut -d. -f2)
    if [ "$minor" -lt 92 ]; then
        echo "error: rustc $version is too old; flowrun needs 1.92 or newer (\`rustup update\`)" >&2
        exit 1
    fi
    command -v cc >/dev/null || { echo "error: no C compiler (\`cc\`) was found; install gcc or clang" >&2; exit 1; }
}

need_python() {
    python3 -c 'import sys, pip; sys.exit(sys.version_info < (3, 10))' 2>/dev/null && return
    cat >&2 <<'TEXT'
error: a local model needs Python 3.10 or newer with pip. Other ways to a model:
  OPENAI_BASE_URL=http://HOST:PORT/v1   any OpenAI-compatible server (llama.cpp, vLLM, Ollama, a hosted API)
TEXT
    return 1
}

# serve_model WEIGHTS: starts a server on a free loopback port; sets MODEL_URL and SERVER_PID.
serve_model() {
    local log
    log=$(mktemp)
    python3 scripts/local_model.py serve "$1" >"$log" 2>"$log.err" &
    SERVER_PID=$!
    trap stop_model EXIT
    for _ in $(seq 300); do
        MODEL_URL=$(grep -m1 '^http' "$log" || true)
        [ -n "$MODEL_URL" ] && break
        kill -0 "$SERVER_PID" 2>/dev/null || { cat "$log.err" >&2; echo "error: the model server did not start" >&2; return 1; }
        sleep 0.5
    done
    rm -f "$log" "$log.err"
    [ -n "$MODEL_URL" ] || { echo "error: the model server was not ready within 150 s" >&2; return 1; }
}

stop_model() {
    if [ -n "${SERVER_PID:-}" ]; then
        kill "$SERVER_PID" 2>/dev/null || true
        wait "$SERVER_PID" 2>/dev/null || true
        SERVER_PID=
    fi
}
