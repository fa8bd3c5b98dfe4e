"""Blocks on running: time, routing, sensors, hardening, serving."""

from __future__ import annotations

import json
import statistics

from docs.figures import MISSING, ROOT, duration_text, figures_of


def ticks() -> str:
    """What the control thread pays per tick while a worker computes."""
    figures = figures_of("profiles/host/ticks.json")
    if not figures:
        return MISSING
    lines = ["| busy threads beside | call | times | median, µs | p99.9, µs | max, µs |", "|---|---|---|---|---|---|"]
    words = {"pop": "an action", "pop_and_request": "an action and a new observation", "memcpy": "a bare copy of the action"}
    for row in figures["rows"]:
        for name, call in words.items():
            if (r := row[name]) is not None:
                lines.append(f"| {row['spinners']} | {call} | {r['count']} | {r['median'] / 1e3:.2f} | {r['p99_9'] / 1e3:.2f} | "
                             f"{r['max'] / 1e3:.0f} |")
    where, row = figures["machine"], figures["rows"][0]
    return "\n".join([*lines, "", f"{row['ticks']} ticks of {row['period_us']} µs, an action of {row['action_dim']} numbers; "
                      f"{where['cpu']}, {where['cores']} cores, no real-time priority: the largest times are those of the "
                      "scheduler.", ""])


def delays() -> str:
    """Replans that take a stated number of ticks, and three ways of living with that."""
    path = ROOT / "examples/libero_goal/results/delays/light.jsonl"
    if not path.is_file():
        return MISSING
    groups: dict[tuple[int, str], list[dict]] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        groups.setdefault((row["delay"], row["way"]), []).append(row)
    lines = ["| replan takes | the robot | success | jerk, m/s³ | steps when solved |", "|---|---|---|---|---|"]
    words = {"waits": "stands still meanwhile", "newest": "goes on; the new chunk from its beginning",
             "aligned": "goes on; the new chunk from the present tick (libvlart)",
             "ahead": "the same, asked for so much earlier (`lead_ticks`)"}
    for (delay, way), rows in sorted(groups.items(), key=lambda g: (g[0][0], list(words).index(g[0][1]))):
        solved = [r["steps"] for r in rows if r["success"]]
        lines.append(f"| {delay} ticks | {words[way]} | {len(solved)}/{len(rows)} | "
                     f"{statistics.fmean(r['jerk'] for r in rows):.0f} | {statistics.fmean(solved or [0]):.0f} |")
    return "\n".join([*lines, ""])


def routing() -> str:
    """The pair on recorded episodes, routed by a table of other states."""
    figures = figures_of("profiles/host/routing.json")
    if not figures:
        return MISSING
    lines = ["| | success | ms per episode | escalated |", "|---|---|---|---|"]
    for name, r in figures["outcomes"].items():
        lines.append(f"| {name} | {100 * r['success']:.1f} % | {r['cost_ms']:.1f} | {100 * r['heavy']:.0f} % |")
    return "\n".join([*lines, "", "Recorded episodes, not a routed closed loop; each half of the states is routed by a table of the "
                      "other half. The limit on the mean cost was added after looking at held-out results.", ""])


def routed() -> str:
    """The pair in the simulator, routed, beside the heavy member on the same initial states."""
    lines = ["| | initial states | success | ms per episode | of heavy | escalated | p |", "|---|---|---|---|---|---|---|"]
    for row in figures_of("profiles/host/routed.json").values():
        heavy = row["outcomes"]["heavy"]
        for name, o in row["outcomes"].items():
            label = name + (", learning on" if row["learns"] and name == "routed" else "")
            lines.append(f"| {label} | {o['episodes']} | {100 * o['success']:.1f} % | {o['cost_ms']:.1f} | "
                         f"{100 * o['cost_ms'] / heavy['cost_ms']:.0f} % | {100 * o['heavy']:.0f} % | "
                         + (f"{row['p']:.2f} |" if name == "routed" else "|"))
        lost = 100 * (heavy["success"] - row["outcomes"]["routed"]["success"])
        lines.append(f"| | | {'within' if row['within'] else 'misses'} the aim | | | {lost:.1f} points lost | |")
    first = next(iter(figures_of("profiles/host/routed.json").values()))
    return "\n".join([*lines, "", f"The table was fitted on states {first['fitted_on']}, others were played. The aim: at most "
                      f"{100 * first['allowed']:g} point lost at {100 * first['budget']:g} % of the cost. p: exact McNemar.", ""])


def sensors() -> str:
    """What it costs to look at what a sensor gives."""
    us = figures_of("profiles/host/sensors.json").get("us")
    if not us:
        return MISSING
    lines = ["| a write of other bytes, microseconds | no check | NaN, infinity, denormals | and range and age |", "|---|---|---|---|"]
    lines += [f"| {what} | {us[f'{n} off']:.1f} | {us[f'{n} finite']:.1f} | {us[f'{n} guarded']:.1f} |"
              for n, what in (("frame", "camera frame, f32 [1,3,224,224]"), ("state", "state, f32 [1,14]"))]
    where = figures_of("profiles/host/sensors.json")["machine"]
    return "\n".join([*lines, "", f"Medians through Python; {where['cpu']}. A step on denormal numbers, stored as zeros: "
                      f"{us['step flushed']:.1f} us; as they are: {us['step denormal']:.1f} us; on normal ones: "
                      f"{us['step normal']:.1f} us.", ""])


def fuzz() -> str:
    """What the readers were fed with."""
    figures = figures_of("profiles/host/fuzz.json")
    if not figures:
        return MISSING
    rows = [f"| {r['day']} | `{r['sources'][:12]}` | {duration_text(r['seconds'])} | {r['executions']:,} | {r['edges']:,} of "
            f"{r['edges_in_all']:,} | {len(r['crashes'])} |" for r in figures["runs"]]
    executed, seconds = (sum(r[k] for r in figures["runs"]) for k in ("executions", "seconds"))
    return "\n".join(["| day | sha256 of the sources | time | executions | edges reached | crashes |", "|---|---|---|---|---|---|",
                      *rows, "", f"{executed:,} executions in {duration_text(seconds)}, each of a file as it is and with right "
                      "checksums. What calls engines and what writes files is in the same program, and no reader reaches it.",
                      ""])


def size() -> str:
    """Bytes of the library."""
    figures = figures_of("profiles/host/size.json")
    if not figures:
        return MISSING
    parts = list(figures["rows"][0]["parts"])
    lines = ["| libvlart for | code | constants | data | zeros | stripped file | " + " | ".join(parts) + " |",
             "|---" * (6 + len(parts)) + "|"]
    lines += [f"| {r['configuration']} | " + " | ".join(f"{r[k]:,}" for k in ("code", "constants", "data", "zeros", "file"))
              + " | " + " | ".join(f"{r['parts'][p]:,}" for p in parts) + " |" for r in figures["rows"]]
    return "\n".join([*lines, "", "Bytes; code and constants of the core and of each engine's adapter on the right. "
                      "Data and zeros are of the start-up code that compilers add: a test says that no object has any. "
                      + "; ".join(f"{r['configuration']}: {r['compiler']} {r['flags']}" for r in figures["rows"]) + ".", ""])


def serve() -> str:
    """A server's latency and memory under as much load as so many clients can make, by protocol."""
    return _served("profiles/host/serve.json", "openpi's own client", "Clients are at different episodes: from two on, almost "
                   "every request brings another instruction.") + "\n" + _served(
        "profiles/host/serve-lerobot.json", "the four calls of LeRobot's client", "One session serves them in turn, and a "
        "request here is what a robot's is: an observation streamed in, then a call for actions.")


def _served(record: str, client: str, load: str) -> str:
    figures = figures_of(record)
    if not figures:
        return MISSING
    lines = [f"| clients, {figures['protocol']} | requests per second | median, ms | p95, ms | p99, ms | max, ms | server's memory, MB |",
             "|---|---|---|---|---|---|---|"]
    alone = figures["in_process_ms"]
    cells = " | ".join(f"{alone[k]:.2f}" for k in ("median", "p95", "p99", "max"))
    lines.append(f"| none: a session in the process | {1e3 / alone['median']:.0f} | {cells} | |")
    for r in figures["load"]:
        cells = " | ".join(f"{r['ms'][k]:.2f}" for k in ("median", "p95", "p99", "max"))
        lines.append(f"| {r['clients']} | {r['requests_per_s']:.0f} | {cells} | {r['server_memory_bytes'] / 1e6:.0f} |")
    where = figures["machine"]
    total = sum(r["requests"] for r in figures["load"])
    return "\n".join([*lines, "", f"{figures['policy']}, one session on {figures['threads']} thread(s), {client} "
                      f"on the loopback, {figures['message_bytes'] / 1e3:.0f} kB per observation, every client asking again "
                      f"as soon as it is answered, {figures['seconds']:g} s each. {load} All {total} answers equal those of a "
                      f"session in the process, to the last bit. {where['cpu']}, {where['cores']} cores, clients on the same "
                      "ones.", ""])


def lanes() -> str:
    """A control loop beside a slow lane that sleeps, computes or stalls."""
    figures = figures_of("profiles/host/lanes.json")
    if not figures:
        return MISSING
    words = {"asleep": "asleep", "computing": "computing without a pause", "stalled": f"stalled {figures['stall_s']:g} s in every step"}
    lines = ["| the slow thread is | ticks | a period late or more | a tick takes, µs: median | p99 | max | slow steps |",
             "|---|---|---|---|---|---|---|"]
    for way, r in figures["runs"].items():
        lines.append(f"| {words[way]} | {r['ticks']} | {r['missed']} | {r['took_us']['median']:.0f} | {r['took_us']['p99']:.0f} | "
                     f"{r['took_us']['max']:.0f} | {r['slow_steps']} |")
    where = figures["machine"]
    return "\n".join([*lines, "", f"The light LIBERO-Goal policy, control loop at {figures['hz']:g} Hz with the wrist camera and the "
                      f"state, the instruction and the other camera in the lane; {where['cpu']}, {where['cores']} cores.", ""])


def backbones() -> str:
    """The pair in one bundle and in two."""
    figures = figures_of("profiles/host/backbones.json")
    if not figures:
        return MISSING
    names = list(figures["ways"]["joined"]["ms"])
    lines = ["| the pair is | MB | ready, s | resident, MB | " + " | ".join(f"{n}, ms" for n in names) + " |",
             "|---|---|---|---|" + "---|" * len(names)]
    words = {"joined": "one bundle", "apart": "two bundles"}
    for way, r in figures["ways"].items():
        lines.append(f"| {words[way]} | {r['bytes'] / 1e6:.1f} | {r['ready_s']:.2f} | {r['resident_mb']:.0f} | "
                     + " | ".join(f"{r['ms'][n]:.2f}" for n in names) + " |")
    where = figures["machine"]
    return "\n".join([*lines, "", f"The LIBERO-Goal pair in fp32, one thread, medians of {figures['rounds']} processes of each, in turns; "
                      "\"over to\": the other backbone on the observation that was just computed. Most bytes are the two language "
                      f"encoders, which share nothing. {where['cpu']}, {where['cores']} cores.", ""])
