#!/usr/bin/env bash
# Half-open breakers of Python let all callers through, and pybreaker lets one call at a time through while all is well.
#
# Guess: a breaker whose pause is over tries the upstream with one call, or a few, and opens again when it fails.
# Is: of 100 calls at once that fail after 50 ms, circuitbreaker (threads and tasks), aiobreaker and purgatory send all 100. pybreaker sends one, because it
#   holds a lock during each call: 100 good calls of 50 ms at once take 5 s through a closed breaker. In JavaScript opossum and cockatiel send one,
#   mollitia two.
# Version: pybreaker 1.4.1, circuitbreaker 2.1.3, aiobreaker 1.2.0, purgatory 3.0.1; opossum 10.0.0, cockatiel 4.0.0, mollitia 0.1.1.
# Matters: a model that has just come back from an overload gets the whole crowd in the first second, from each process. A relay behind such
#   callers sees the burst whatever their breaker says, and needs its own probes; a service that wraps its calls in pybreaker has a concurrency of one.
set -euo pipefail
dir=$(mktemp -d); trap 'rm -rf "$dir"' EXIT; cd "$dir"
python3 -m venv venv
venv/bin/pip install -q --disable-pip-version-check pybreaker==1.4.1 circuitbreaker==2.1.3 aiobreaker==1.2.0 purgatory==3.0.1
npm init -y >/dev/null
npm install --no-audit --no-fund --loglevel=error --ignore-scripts opossum@10.0.0 cockatiel@4.0.0 mollitia@0.1.1 >/dev/null
cat > run.py <<'EOF'
import asyncio, datetime, threading, time
import aiobreaker, circuitbreaker, purgatory, pybreaker
CALLS, LASTS, OPEN = 100, 0.05, 0.1

class Down(Exception): pass

def in_threads(call, fails):
    sent, start = [], threading.Barrier(CALLS)
    def ask():
        sent.append(1)
        time.sleep(LASTS)
        if fails: raise Down
    def caller():
        start.wait()
        try: call(ask)
        except Exception: pass
    callers = [threading.Thread(target=caller) for _ in range(CALLS)]
    began = time.monotonic()
    for each in callers: each.start()
    for each in callers: each.join()
    return len(sent), time.monotonic() - began

async def in_tasks(call):
    sent = []
    async def ask():
        sent.append(1)
        await asyncio.sleep(LASTS)
        raise Down
    await asyncio.gather(*(call(ask) for _ in range(CALLS)), return_exceptions=True)
    return len(sent)

def down(): raise Down
async def down_too(): raise Down

sent, took = in_threads(pybreaker.CircuitBreaker().call, False)
print(f"pybreaker, closed: {sent} good calls, {'one after the other' if took > 0.8 * CALLS * LASTS else 'together'}")
for name, breaker in {
    "pybreaker": pybreaker.CircuitBreaker(fail_max=1, reset_timeout=OPEN),
    "circuitbreaker": circuitbreaker.CircuitBreaker(failure_threshold=1, recovery_timeout=OPEN),
}.items():
    try: breaker.call(down)
    except Exception: pass
    time.sleep(1.5 * OPEN)
    print(f"{name}, half open, threads: {in_threads(breaker.call, True)[0]} of {CALLS} sent")

async def main():
    purgatories = purgatory.AsyncCircuitBreakerFactory(default_threshold=1, default_ttl=OPEN)
    async def through_purgatory(ask):
        async with await purgatories.get_breaker("upstream"): await ask()
    for name, call in {
        "circuitbreaker": circuitbreaker.CircuitBreaker(failure_threshold=1, recovery_timeout=OPEN).call_async,
        "aiobreaker": aiobreaker.CircuitBreaker(fail_max=1, timeout_duration=datetime.timedelta(seconds=OPEN)).call_async,
        "purgatory": through_purgatory,
    }.items():
        try: await call(down_too)
        except Exception: pass
        await asyncio.sleep(1.5 * OPEN)
        print(f"{name}, half open, tasks: {await in_tasks(call)} of {CALLS} sent")
asyncio.run(main())
EOF
cat > run.mjs <<'EOF'
import Opossum from "opossum";
import { ConsecutiveBreaker, circuitBreaker, handleAll } from "cockatiel";
import { Circuit, SlidingCountBreaker } from "mollitia";
const CALLS = 100, LASTS = 50, OPEN = 100;
const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
const fail = async () => { throw new Error("down"); };
const opossum = new Opossum((ask) => ask(), { resetTimeout: OPEN, volumeThreshold: 1, errorThresholdPercentage: 1, timeout: false });
const cockatiel = circuitBreaker(handleAll, { halfOpenAfter: OPEN, breaker: new ConsecutiveBreaker(1) });
const mollitia = new Circuit({ options: { modules: [
  new SlidingCountBreaker({ failureRateThreshold: 50, slidingWindowSize: 1, minimumNumberOfCalls: 1, openStateDelay: OPEN })] } });
for (const [name, call] of Object.entries({
  opossum: (ask) => opossum.fire(ask), cockatiel: (ask) => cockatiel.execute(ask), mollitia: (ask) => mollitia.fn(ask).execute(),
})) {
  await call(fail).catch(() => {});
  await pause(1.5 * OPEN);
  let sent = 0;
  const ask = async () => { sent++; await pause(LASTS); throw new Error("down"); };
  await Promise.all(Array.from({ length: CALLS }, async () => call(ask).catch(() => {})));
  console.log(`${name}, half open: ${sent} of ${CALLS} sent`);
}
process.exit();
EOF
{ venv/bin/python run.py; node run.mjs; } | tee seen
diff seen - <<'EOF' && echo "as found"
pybreaker, closed: 100 good calls, one after the other
pybreaker, half open, threads: 1 of 100 sent
circuitbreaker, half open, threads: 100 of 100 sent
circuitbreaker, half open, tasks: 100 of 100 sent
aiobreaker, half open, tasks: 100 of 100 sent
purgatory, half open, tasks: 100 of 100 sent
opossum, half open: 1 of 100 sent
cockatiel, half open: 1 of 100 sent
mollitia, half open: 2 of 100 sent
EOF
