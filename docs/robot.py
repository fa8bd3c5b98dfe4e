"""Blocks on running: time, routing, sensors, hardening, serving."""

from __future__ import annotations

import json
import statistics

from docs.figures import MISSING, ROOT, duration_text, figures_of, table


def ticks() -> str:
    """What the control thread pays per tick while a worker computes."""
    figures = figures_of("profiles/host/ticks.json")
    if not figures:
        return MISSING
    words = {"pop": "an action", "pop_and_request": "an action and a new observation",
             "memcpy": "a bare copy of the action"}
    rows = [[row["spinners"], call, r["count"], f"{r['median'] / 1e3:.2f}", f"{r['p99_9'] / 1e3:.2f}",
             f"{r['max'] / 1e3:.0f}"]
            for row in figures["rows"] for name, call in words.items() if (r := row[name]) is not None]
    where, first = figures["machine"], figures["rows"][0]
    return table(["busy threads beside", "call", "times", "median, µs", "p99.9, µs", "max, µs"], rows,
                 f"{first['ticks']} ticks of {first['period_us']} µs, an action of {first['action_dim']} numbers; "
                 f"{where['cpu']}, {where['cores']} cores, no real-time priority: the largest times are those of the "
                 "scheduler.")


def cameras() -> str:
    """From a camera's bytes to the policy's picture."""
    figures = figures_of("profiles/host/cameras.json")
    if not figures:
        return MISSING
    names = ("libvlart", "OpenCV", "Pillow")
    rows = [[r["pixels"], f"{r['width']} x {r['height']}",
             *(f"{r['ms'][n]:.2f}" if n in r["ms"] else "" for n in names),
             *(f"{r['difference'][n]:.2f}" if n in r["difference"] else "" for n in names)] for r in figures["rows"]]
    versions, (height, width) = figures["versions"], figures["out"]
    return table(["pixels", "frame", *(f"{n}, ms" for n in names), *(f"{n}, off by" for n in names)], rows,
                 f"To {width} x {height}, one thread, medians of {figures['rounds']} in turn, time of the thread "
                 f"itself; OpenCV {versions['OpenCV']} (INTER_AREA), Pillow {versions['Pillow']} (BILINEAR). Off by: "
                 f"mean distance to torchvision's picture, of 255. {figures['machine']['cpu']}.")


def delays() -> str:
    """Replans that take a stated number of ticks, and three ways of living with that."""
    path = ROOT / "examples/libero_goal/results/delays/light.jsonl"
    if not path.is_file():
        return MISSING
    groups: dict[tuple[int, str], list[dict]] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        groups.setdefault((row["delay"], row["way"]), []).append(row)
    words = {"waits": "stands still meanwhile", "newest": "goes on; the new chunk from its beginning",
             "aligned": "goes on; the new chunk from the present tick (libvlart)",
             "ahead": "the same, asked for so much earlier (`lead_ticks`)"}
    rows = []
    for (delay, way), of in sorted(groups.items(), key=lambda g: (g[0][0], list(words).index(g[0][1]))):
        solved = [r["steps"] for r in of if r["success"]]
        rows.append([f"{delay} ticks", words[way], f"{len(solved)}/{len(of)}",
                     f"{statistics.fmean(r['jerk'] for r in of):.0f}", f"{statistics.fmean(solved or [0]):.0f}"])
    return table(["replan takes", "the robot", "success", "jerk, m/s³", "steps when solved"], rows)


def routing() -> str:
    """The pair on recorded episodes, routed by a table of other states."""
    figures = figures_of("profiles/host/routing.json")
    if not figures:
        return MISSING
    rows = [[name, f"{100 * r['success']:.1f} %", f"{r['cost_ms']:.1f}", f"{100 * r['heavy']:.0f} %"]
            for name, r in figures["outcomes"].items()]
    return table(["", "success", "ms per episode", "escalated"], rows,
                 "Recorded episodes, not a routed closed loop; each half of the states is routed by a table of the "
                 "other half. The limit on the mean cost was added after looking at held-out results.")


def routed() -> str:
    """The pair in the simulator, routed, beside the heavy member on the same initial states."""
    rows = []
    for row in figures_of("profiles/host/routed.json").values():
        heavy = row["outcomes"]["heavy"]
        for name, o in row["outcomes"].items():
            label = name + (", learning on" if row["learns"] and name == "routed" else "")
            rows.append([label, o["episodes"], f"{100 * o['success']:.1f} %", f"{o['cost_ms']:.1f}",
                         f"{100 * o['cost_ms'] / heavy['cost_ms']:.0f} %", f"{100 * o['heavy']:.0f} %",
                         f"{row['p']:.2f}" if name == "routed" else ""])
        lost = 100 * (heavy["success"] - row["outcomes"]["routed"]["success"])
        verdict = "within the aim" if row["within"] else "misses the aim"
        rows.append(["", "", verdict, "", "", f"{lost:.1f} points lost", ""])
    first = next(iter(figures_of("profiles/host/routed.json").values()))
    return table(["", "initial states", "success", "ms per episode", "of heavy", "escalated", "p"], rows,
                 f"The table was fitted on states {first['fitted_on']}, others were played. The aim: at most "
                 f"{100 * first['allowed']:g} point lost at {100 * first['budget']:g} % of the cost. p: exact McNemar.")


def sensors() -> str:
    """What it costs to look at what a sensor gives."""
    figures = figures_of("profiles/host/sensors.json")
    us = figures.get("us")
    if not us:
        return MISSING
    rows = [[what, *(f"{us[f'{n} {how}']:.1f}" for how in ("off", "finite", "guarded"))]
            for n, what in (("frame", "camera frame, f32 [1,3,224,224]"), ("state", "state, f32 [1,14]"))]
    titles = ["a write of other bytes, microseconds", "no check", "NaN, infinity, denormals", "and range and age"]
    return table(titles, rows,
                 f"Medians through Python; {figures['machine']['cpu']}. A step on denormal numbers, stored as zeros: "
                 f"{us['step flushed']:.1f} us; as they are: {us['step denormal']:.1f} us; on normal ones: "
                 f"{us['step normal']:.1f} us.")


def fuzz() -> str:
    """What the readers were fed with."""
    figures = figures_of("profiles/host/fuzz.json")
    if not figures:
        return MISSING
    words = {"libvlart": "libvlart's readers", "signatures": "signed bundles", "openpi": "openpi's messages",
             "lerobot": "LeRobot's pickles", "device": "answers of a device"}
    rows = [[words[r.get("target", "libvlart")], r["day"], f"`{r['sources'][:12]}`", duration_text(r["seconds"]),
             f"{r['executions']:,}", f"{r['edges']:,} of {r['edges_in_all']:,}" if "edges" in r else "",
             len(r["crashes"])] for r in figures["runs"]]
    executed, seconds = (sum(r[k] for r in figures["runs"]) for k in ("executions", "seconds"))
    return table(["target", "day", "sha256 of the sources", "time", "executions", "edges reached", "crashes"], rows,
                 f"{executed:,} executions in {duration_text(seconds)}, those of libvlart's readers each of a file as "
                 "the fuzzer made it and again with its checksums corrected. Not all edges can be reached: the program "
                 "also has the code that calls engines and writes files, which no reader calls.")


def flash_faults() -> str:
    """What went wrong with a flash, by kind, and what the device ran then."""
    figures = figures_of("profiles/host/flash-faults.json")
    if not figures:
        return MISSING
    rows = []
    for kind in dict.fromkeys(r["kind"] for r in figures["rows"]):
        of = [r for r in figures["rows"] if r["kind"] == kind]
        ran = ", ".join(f"{name}: {sum(r['runs'] == name for r in of)}" for name in ("old", "new")
                        if any(r["runs"] == name for r in of))
        held = sum(not r["wrong"] for r in of)
        rows.append([kind, len(of), sum(r["code"] != 0 for r in of), ran, sum(r["again"] == 0 for r in of),
                     f"{held} of {len(of)}", f"{max(r['seconds'] for r in of):.0f}"])
    return table(["what goes wrong", "faults", "told as an error", "what runs then, whole", "the same again ends well",
                  "all held", "longest command, s"], rows,
                 f"{figures['day']}, {figures['machine']['cpu']}, the device an sshd on its loopback, the machine busy "
                 "with other work. Held: one whole bundle runs, `--status --check` says which, flashing again ends "
                 "well, `--rollback` goes back or is refused, nothing is left behind on either side. "
                 "`python -m benchmarks.flash_faults`")


def size() -> str:
    """Bytes of the library."""
    figures = figures_of("profiles/host/size.json")
    if not figures:
        return MISSING
    parts, whole = list(figures["rows"][0]["parts"]), ("code", "constants", "data", "zeros", "file")
    rows = [[r["configuration"], *(f"{r[k]:,}" for k in whole), *(f"{r['parts'][p]:,}" for p in parts)]
            for r in figures["rows"]]
    compilers = "; ".join(f"{r['configuration']}: {r['compiler']} {r['flags']}" for r in figures["rows"])
    return table(["libvlart for", *whole[:-1], "stripped file", *parts], rows,
                 "Bytes; code and constants of the core and of each engine's adapter on the right. Data and zeros are "
                 f"of the start-up code that compilers add: a test says that no object has any. {compilers}.")


def start() -> str:
    """Starts with and without a cache of packed weights; by benchmarks/start.py."""
    figures = figures_of("profiles/host/start.json")
    if not figures:
        return MISSING
    rows = [[kind, f"{r['cpu_s']:.2f}", *(f"{r[k]:.0f}" for k in ("peak_mb", "resident_mb", "anonymous_mb")),
             f"{r['peak_mb'] / r['resident_mb']:.2f}", f"{r['stored_mb']:.0f}" if r["stored_mb"] else "-"]
            for kind, r in figures["starts"].items()]
    where = figures["machine"]
    return table(["start", "processor, s", "peak, MB", "resident, MB", "anonymous, with Python, MB", "peak / resident",
                  "on the disk, MB"], rows,
                 f"The {figures['bundle']} policy of the demo, {figures['weights_mb']:.0f} MB of weights, one thread; "
                 f"{figures['rounds']} process(es) of each in turns, medians, while other work shared the machine: "
                 f"processor time, not the clock's, and files in the page cache. {where['cpu']}, onnxruntime "
                 f"{where['versions']['onnxruntime']}.")


def serve() -> str:
    """A server's latency and memory under as much load as so many clients can make, by protocol."""
    openpi = _served("profiles/host/serve.json", "openpi's own client", "Clients are at different episodes: from two "
                     "on, almost every request brings another instruction.")
    lerobot = _served("profiles/host/serve-lerobot.json", "the four calls of LeRobot's client", "One session serves "
                      "them in turn, and a request here is what a robot's is: an observation streamed in, then a "
                      "call for actions.")
    return openpi + "\n" + lerobot


def board_loops() -> str:
    """Closed loops with the graphs that a board runs."""
    figures = figures_of("profiles/host/board-loops.json")
    if not figures:
        return MISSING
    words = {"fp32": "fp32, the host's", "int8": "int8, static ranges", "int8-fp16": "int8 beside fp16"}
    rows = [[words.get(mode, mode), f"{r['solved']}/{r['episodes']}",
             "" if mode == "fp32" else f"{r['only_it']} / {r['only_fp32']}", "" if mode == "fp32" else f"{r['p']:.2f}",
             f"{r['jerk']:.1f}", f"{r['jump']:.3f}", f"{r['step']:.3f}"] for mode, r in figures["modes"].items()]
    return table(["graphs", "success", "solved by it alone / by fp32 alone", "exact McNemar p",
                  "jerk of the hand, m/s³", "jump into a chunk", "step within one"], rows,
                 f"LIBERO-Goal, {figures['member']}, initial states {figures['states']} of each of the eight tasks. "
                 f"Graphs for {figures['target']} by the stand-in, fp16 as computed in PyTorch with its rounding. "
                 "Jump, step: mean distance between successive commands of the arm, each in [-1, 1]^6.")


def week() -> str:
    """Ticks in accelerated time beside the reference."""
    figures = figures_of("profiles/host/week.json")
    if not figures:
        return MISSING
    seen = figures["happened"]
    rows = [[f"{figures['ticks']:,}", f"{figures['ticks'] / figures['hz'] / 86400:.1f} days", figures["cases"],
             f"{seen['OK'] + seen.get('DEADLINE_MISSED', 0):,}", f"{seen['SAFE_ACTION']:,}", f"{seen['QUEUE_EMPTY']:,}",
             f"{seen['episode']:,}", f"{seen['keep'] + seen['drop']:,}", f"{seen['tokens']:,}"]]
    titles = ["ticks", f"at {figures['hz']} Hz", "policies, limits and rules", "actions of chunks", "safe actions",
              "nothing to hold yet", "episodes", "cancels", "instructions"]
    if "DEADLINE_MISSED" in seen:
        titles.append("actions of chunks while the next one was late")
        rows[0].append(f"{seen['DEADLINE_MISSED']:,}")
    return table(titles, rows)


def ros2() -> str:
    """What became of the messages of a faulty robot."""
    figures = figures_of("profiles/host/ros2.json")
    if not figures:
        return MISSING
    reasons = {"unfit": "wrong or without a time", "late": "late", "ahead": "from the future", "duplicate": "twice",
               "incomplete": "without the others"}
    rows = [[f"`{topic}`", f"{a['received']:,}", f"{a['used']:,}", f"{a['superseded']:,}",
             *(f"{a.get(f'refused: {why}', 0):,}" for why in reasons), a["waiting"], a["lost"]]
            for topic, a in figures["accounts"].items()]
    return table(["topic", "received", "used", "superseded", *(f"refused: {said}" for said in reasons.values()),
                  "waiting at the end", "lost"], rows,
                 f"{figures['messages']:,} messages, {figures['observations']:,} observations, {figures['chunks']:,} "
                 f"chunks, {figures['actions']:,} actions. rclpy: a double; {figures['machine']['cpu']}.")


def newest() -> str:
    """How old observations are when they are answered, with more of them than the server can compute."""
    figures = figures_of("profiles/host/newest.json")
    if not figures:
        return MISSING
    rows = [[r["server"], r["robots"], f"{r['sent_per_s']:.0f}", f"{r['answers_per_s']:.1f}",
             f"{r['least_per_s']:.1f} to {r['most_per_s']:.1f}", f"{r['age_ms']['median']:.0f}",
             f"{r['age_ms']['p95']:.0f}", r["superseded"], r["refused"], r["unanswered"]] for r in figures["load"]]
    where = figures["machine"]
    return table(["server", "robots", "observations per second", "actions per second", "per robot",
                  "age of the observation, median, ms", "p95, ms", "superseded", "refused", "not answered"], rows,
                 f"{figures['policy']}, openpi's protocol on the loopback, {figures['hz']:g} observations per second "
                 f"and robot for {figures['seconds']:g} s, then 5 s for answers that are under way. {where['cpu']}, "
                 f"{where['cores']} cores, which the robots and other programs share.")


def _served(record: str, client: str, load: str) -> str:
    figures = figures_of(record)
    if not figures:
        return MISSING
    alone, columns = figures["in_process_ms"], ("median", "p95", "p99", "max")
    rows = [["none: a session in the process", f"{1e3 / alone['median']:.0f}",
             *(f"{alone[k]:.2f}" for k in columns), ""]]
    rows += [[_clients(r), f"{r['requests_per_s']:.0f}", *(f"{r['ms'][k]:.2f}" for k in columns),
              f"{r['server_memory_bytes'] / 1e6:.0f}"] for r in figures["load"]]
    where, total = figures["machine"], sum(r["requests"] for r in figures["load"])
    titles = [f"clients, {figures['protocol']}", "requests per second", *(f"{k}, ms" for k in columns),
              "server's memory, MB"]
    return table(titles, rows, f"{figures['policy']}, sessions of {figures['threads']} thread(s), {client} on the "
                 f"loopback, {figures['message_bytes'] / 1e3:.0f} kB per observation, every client asking again as "
                 f"soon as it is answered, {figures['seconds']:g} s each. {load} All {total} answers equal those of a "
                 f"session in the process, to the last bit. {where['cpu']}, {where['cores']} cores, clients on "
                 "the same ones.")


def _clients(row: dict) -> str:
    sessions = row.get("sessions", 1)
    return str(row["clients"]) + ("" if sessions == 1 else f", of {sessions} sessions")


def lanes() -> str:
    """A control loop beside a slow lane that sleeps, computes or stalls."""
    figures = figures_of("profiles/host/lanes.json")
    if not figures:
        return MISSING
    words = {"asleep": "asleep", "computing": "computing without a pause",
             "stalled": f"stalled {figures['stall_s']:g} s in every step"}
    rows = [[words[way], r["ticks"], r["missed"], *(f"{r['took_us'][k]:.0f}" for k in ("median", "p99", "max")),
             r["slow_steps"]] for way, r in figures["runs"].items()]
    where = figures["machine"]
    titles = ["the slow thread is", "ticks", "a period late or more", "a tick takes, µs: median", "p99", "max",
              "slow steps"]
    return table(titles, rows, f"The light LIBERO-Goal policy, control loop at {figures['hz']:g} Hz with the wrist "
                 f"camera and the state, the instruction and the other camera in the lane; {where['cpu']}, "
                 f"{where['cores']} cores.")


def backbones() -> str:
    """The pair in one bundle and in two."""
    figures = figures_of("profiles/host/backbones.json")
    if not figures:
        return MISSING
    names, words = list(figures["ways"]["joined"]["ms"]), {"joined": "one bundle", "apart": "two bundles"}
    rows = [[words[way], f"{r['bytes'] / 1e6:.1f}", f"{r['ready_s']:.2f}", f"{r['resident_mb']:.0f}",
             *(f"{r['ms'][n]:.2f}" for n in names)] for way, r in figures["ways"].items()]
    where = figures["machine"]
    return table(["the pair is", "MB", "ready, s", "resident, MB", *(f"{n}, ms" for n in names)], rows,
                 f"The LIBERO-Goal pair in fp32, one thread, medians of {figures['rounds']} processes of each, in "
                 'turns; "over to": the other backbone on the observation that was just computed. Most bytes are the '
                 f"two language encoders, which share nothing. {where['cpu']}, {where['cores']} cores.")
