"""What an endpoint costs beside the model: CPU milliseconds per token of `truthkit serve`, as a ratio to bare batches.

    python benchmarks/serve.py --clients 1 4 16 --out serve.json
    python benchmarks/serve.py --transformers MODEL_FOLDER     # transformers serve beside it, which needs its extra

Every client asks one question after the other, each of its own; the bare way is one `generate` of as many prompts,
left-padded, in a process of its own too. Whole and streamed answers, greedy, float32, one thread. A process's own CPU
time is counted, not its clients'; rounds are interleaved, and medians reported with all rounds.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import socket
import statistics
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil

_BARE = """
import json, sys, time
import torch
import truthkit as tk
torch.set_num_threads(1)
model, tokenizer = tk.load()
for line in sys.stdin:
    asked = json.loads(line)
    chats = [[{"role": "user", "content": one}] for one in asked["prompts"]]
    texts = tokenizer.apply_chat_template(chats, tokenize=False, add_generation_prompt=True)
    began = time.process_time()
    inputs = tokenizer(texts, return_tensors="pt", padding=True, add_special_tokens=False)
    made = model.generate(**inputs, max_new_tokens=asked["tokens"], do_sample=False)
    new = made[:, inputs["input_ids"].shape[1]:]
    ends = (new == model.generation_config.eos_token_id).int()
    count = int((ends.cumsum(1) - ends == 0).sum())
    print(json.dumps([time.process_time() - began, count]), flush=True)
"""

_TOPICS = (
    *("the sea", "the moon", "iron", "the French revolution", "chess", "bees", "volcanoes", "silk"),
    *("the violin", "rice", "glaciers", "the compass", "paper", "whales", "bridges", "salt"),
)


def question(client: int, turn: int) -> str:
    """Of about one length for all."""
    return f"Tell me at length about {_TOPICS[(client + turn) % len(_TOPICS)]}, part {client + 1}.{turn + 1}."


class Bare:
    """`generate` in a process of its own."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", _BARE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def run(self, clients: int, turns: int, tokens: int) -> float:
        """CPU milliseconds per new token."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        seconds, count = 0.0, 0
        for turn in range(turns):
            prompts = [question(client, turn) for client in range(clients)]
            self._process.stdin.write(json.dumps({"prompts": prompts, "tokens": tokens}) + "\n")
            self._process.stdin.flush()
            took, made = json.loads(self._process.stdout.readline())
            seconds, count = seconds + took, count + made
        return 1000 * seconds / count

    def close(self) -> None:
        """End it."""
        self._process.kill()
        self._process.wait()


class Served:
    """A server in a process of its own, and clients here.

    Args:
        command: starts it on the port that is put behind.
        model: what the clients call the model.
    """

    def __init__(self, command: list[str], model: str):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port = free.getsockname()[1]
        self._model = model
        self._process = subprocess.Popen([*command, str(self._port)], stdout=subprocess.DEVNULL)
        self._watched = psutil.Process(self._process.pid)
        until = time.monotonic() + 180
        while time.monotonic() < until:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{self._port}/health", timeout=5).close()
                return
            except OSError:
                time.sleep(0.5)
        raise SystemExit(f"{command[0]} did not start.")

    def run(self, clients: int, turns: int, tokens: int, *, stream: bool = False) -> float:
        """CPU milliseconds of the server per new token."""

        def ask(client: int) -> int:
            return sum(self._ask(question(client, turn), tokens, stream) for turn in range(turns))

        began = sum(self._watched.cpu_times()[:2])
        with ThreadPoolExecutor(clients) as pool:
            count = sum(pool.map(ask, range(clients)))
        return 1000 * (sum(self._watched.cpu_times()[:2]) - began) / count

    def _ask(self, text: str, tokens: int, stream: bool) -> int:
        document: dict[str, Any] = {"model": self._model, "messages": [{"role": "user", "content": text}]}
        document |= {"max_tokens": tokens, "temperature": 0, "stream": stream}
        if stream:
            document["stream_options"] = {"include_usage": True}
        request = urllib.request.Request(
            f"http://127.0.0.1:{self._port}/v1/chat/completions",
            json.dumps(document).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=600) as response:
            if not stream:
                return int(json.load(response)["usage"]["completion_tokens"])
            events = [json.loads(line[6:]) for line in response if line.startswith(b"data: {")]
        usage = [event["usage"] for event in events if event.get("usage")]
        return int(usage[-1]["completion_tokens"])

    def close(self) -> None:
        """End it."""
        self._process.terminate()
        self._process.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument("--turns", type=int, default=2, help="questions of each client in a round")
    parser.add_argument("--tokens", type=int, default=64, help="of an answer, at most")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--transformers", metavar="FOLDER", help="serve this folder by transformers serve, too")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the rounds as JSON")
    args = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    bare = Bare()
    served = Served([sys.executable, "-m", "truthkit.cli", "serve", "--port"], "smollm2")
    ways: dict[str, Callable[..., float]] = {
        "generate": bare.run,
        "truthkit serve": served.run,
        "truthkit serve, streamed": lambda *asked: served.run(*asked, stream=True),
    }
    opened: list[Any] = [bare, served]
    if args.transformers:
        start = "import torch; torch.set_num_threads(1); from transformers.cli.transformers import main; main()"
        command = [sys.executable, "-W", "ignore", "-c", start, "serve", args.transformers]
        other = Served([*command, "--device", "cpu", "--dtype", "float32", "--port"], args.transformers)
        ways |= {"transformers serve": other.run}
        opened.append(other)
    results: dict[str, dict[str, list[float]]] = {}
    try:
        for way in ways.values():
            way(1, 1, 8)
        for clients in args.clients:
            rounds: dict[str, list[float]] = {name: [] for name in ways}
            for _ in range(args.rounds):
                for name, way in ways.items():
                    rounds[name].append(way(clients, args.turns, args.tokens))
            base = statistics.median(rounds["generate"])
            for name, values in rounds.items():
                middle = statistics.median(values)
                spread = f"{min(values):.2f} to {max(values):.2f}"
                print(
                    f"{clients:>3} clients  {name:<26} {middle:7.2f} ms/token  {middle / base:5.2f}x  ({spread})",
                    flush=True,
                )
            results[str(clients)] = rounds
    finally:
        for one in opened:
            one.close()
    if args.out:
        about = {"machine": platform.processor() or platform.machine(), "load": os.getloadavg(), **vars(args)}
        args.out.write_text(json.dumps({"about": about, "rounds": results}, indent=1, default=str))


if __name__ == "__main__":
    main()
