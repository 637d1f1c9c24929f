//! Traces of small made-up logs, as text.

use super::*;

fn log(lines: &[(u64, &str, &str)]) -> Vec<Logged> {
    let line = |(us, step, rest): &(u64, &str, &str)| {
        Logged::parse(&format!(r#"{{"v":1,"seq":0,"us":{us},"step":"{step}",{rest}}}"#)).unwrap()
    };
    lines.iter().map(line).collect()
}

#[test]
fn the_tree_shows_times_reasons_and_the_critical_path() {
    let (start, end) = (r#""type":"started","attempt":1"#, r#""type":"ended","state":"succeeded""#);
    let trace = Trace::new(&log(&[
        (0, "a", start),
        (0, "b", r#""type":"frame_opened","children":2"#),
        (0, "b[0]", start),
        (5, "b[1]", start),
        (10, "a", end),
        (30, "b[0]", end),
        (90, "b[1]", end),
        (90, "b", end),
        (90, "c", r#""type":"ended","state":"skipped","reason":"requires","source":"x""#),
        (91, "d", start),
        (100, "d", end),
    ]));
    let critical: Vec<&str> = trace.steps.iter().filter(|s| s.critical).map(|s| s.path.as_str()).collect();
    assert_eq!(critical, ["b[1]", "d"]);
    assert_eq!((trace.critical_path_us, trace.overlap), (94, 3));
    let text = trace.tree(100);
    let lines: Vec<&str> = text.lines().map(str::trim_end).collect();
    assert!(lines[2].starts_with("  ✓ [0]") && lines[3].ends_with('*'), "{text}");
    assert!(lines[4].contains("- c") && lines[4].ends_with("needs `x`"), "{text}");
    assert_eq!((counted(1, "call"), counted(1_200, "token")), ("1 call".into(), "1,200 tokens".into()));
    assert_eq!(trace.tree(20).lines().map(|line| line.chars().count()).max(), Some(20));
}

#[test]
fn numbers_for_people() {
    assert_eq!(
        (thousands(1_234_567), thousands(12), duration(999_900), duration(61_500_000)),
        ("1,234,567".into(), "12".into(), "999 ms".into(), "1 min 1 s".into())
    );
    let times = [0, 40, 60, 6_240, 8_000, 12_900, 1_240_000].map(duration);
    assert_eq!(times, ["0 ms", "0 ms", "0.1 ms", "6.2 ms", "8 ms", "12 ms", "1.2 s"]);
}

const READY: &str = r#""type":"ready""#;
const START: &str = r#""type":"started","attempt":1"#;
const SETTLED: &str = r#""type":"settled""#;
const END: &str = r#""type":"ended","state":"succeeded""#;
const FRAME: &str = r#""type":"frame_opened""#;

/// A run with everything that a timeline shows: waiting, a retry, a frame, a skip, a failure.
fn eventful() -> Trace {
    Trace::new(&log(&[
        (0, "parts", READY),
        (0, "parts", START),
        (20_000, "parts", END),
        (20_000, "notes", FRAME),
        (20_000, "notes[0]", READY),
        (20_000, "notes[1]", READY),
        (20_000, "risky", READY),
        (20_000, "notes[0]", START),
        (20_000, "notes[1]", START),
        (30_000, "notes[1]", SETTLED),
        (30_000, "notes[1]", r#""type":"backoff","attempt":1"#),
        (30_000, "risky", START),
        (40_000, "notes[1]", READY),
        (40_000, "notes[1]", START),
        (50_000, "notes[1]", END),
        (70_000, "risky", r#""type":"ended","state":"failed","error":{"message":"no"}"#),
        (90_000, "notes[0]", END),
        (90_000, "notes", END),
        (90_000, "dear", r#""type":"ended","state":"skipped","reason":"requires","source":"risky""#),
        (90_000, "sum", END),
        (90_000, "last", READY),
        (90_000, "last", START),
        (100_000, "last", END),
    ]))
}

/// A run whose only node has that many items, ten at once, each a group of two steps.
fn wide(items: u64) -> Trace {
    let mut lines = vec![(0, "all".to_owned(), FRAME)];
    for item in 0..items {
        let (path, start) = (format!("all[{item}]"), item / 10 * 1_000);
        lines.push((start, path.clone(), FRAME));
        for (step, at) in [("a", start), ("b", start + 410)] {
            lines.push((at, format!("{path}/{step}"), START));
            lines.push((at + 400 + item % 7, format!("{path}/{step}"), END));
        }
        lines.push((start + 900, path, END));
    }
    lines.push((items * 100, "all".to_owned(), END));
    lines.sort_by_key(|(at, ..)| *at);
    Trace::new(&log(&lines.iter().map(|(at, path, rest)| (*at, path.as_str(), *rest)).collect::<Vec<_>>()))
}

#[test]
fn the_timeline_shows_overlap_waiting_attempts_and_the_critical_path() {
    let expected = "
        0         20 ms     40 ms      60 ms     80 ms
        ├─────────┼─────────┼──────────┼─────────┼─────────┼
✓ parts ███████████                                          20 ms
✓ notes           ├───────────────────────────────────┤      70 ms
  ✓ [0]           █████████████████████████████████████      70 ms
  ✓ [1]           ▒▒▒▒▒▒~~~~▒▒▒▒▒▒                           30 ms
✗ risky           ·····▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒✗ no             40 ms
- dear                                  needs `risky` -
✓ last                                                ██████ 10 ms

█ critical path   ▒ running   · waiting for room
~ before another attempt
wall 100 ms; critical path 100 ms (100 %); all steps 160 ms
at once 1.6 on average, 3 at most
critical path: parts → notes[0] → last
";
    let text = eventful().timeline(66);
    assert_eq!(text, expected.strip_prefix('\n').unwrap(), "\n{text}");
}

#[test]
fn a_timeline_stays_readable_when_it_is_large_or_narrow() {
    let trace = wide(3_000);
    let text = trace.timeline(100);
    assert!(text.lines().count() < 60, "{text}");
    assert!(text.contains("2,988 more") && text.contains("▇▇▇▇▇▇▇▇▇▇") && text.contains("10 at once"), "{text}");
    for width in [30, 40, 41, 79, 200] {
        for trace in [&trace, &eventful()] {
            let text = trace.timeline(width);
            assert!(text.lines().all(|line| line.chars().count() <= width), "{width}\n{text}");
            assert!(text.contains('█') && text.contains('├'), "{text}");
        }
    }
    let mut trace = wide(100);
    let at = trace.steps.iter().position(|step| step.path == "all[77]").unwrap();
    trace.steps[at].state = "failed".to_owned();
    assert!(trace.timeline(80).contains("✗ [77]"), "a failed item is always a row");
    let empty = Trace::new(&[]).timeline(80);
    assert!(empty.contains("wall 0 ms"), "{empty}");
}

#[test]
fn a_part_of_a_run_has_an_axis_of_its_own() {
    let mut trace = eventful();
    let at = trace.steps.iter().position(|step| step.path == "notes").unwrap();
    trace.only(at);
    let text = trace.timeline(66);
    assert!(text.contains("wall 70 ms; critical path 70 ms (100 %)") && !text.contains("risky"), "{text}");
    assert!(!text.contains(" 0 ") && text.contains("60 ms"), "{text}");
}

#[test]
fn names_give_way_to_times() {
    let text = eventful().tree(80);
    assert!(text.starts_with("✓ parts  20 ms  *\n✓ notes  70 ms\n  ✓ [0]  70 ms  *\n"), "{text}");
    let long = "a_name_that_is_longer_than_the_terminal_is_wide";
    let end = r#""type":"ended","state":"failed","error":{"message":"why it failed"}"#;
    let trace = Trace::new(&log(&[(0, long, START), (0, "b", START), (5_000, "b", END), (250_000, long, end)]));
    let text = trace.tree(40);
    assert!(text.starts_with("✗ a_name_that_is_longer_than…  250 ms  *"), "{text}");
    assert!(text.lines().all(|line| line.contains(" ms") && line.chars().count() <= 40), "{text}");
}

#[test]
fn the_critical_path_of_a_failed_run_ends_at_the_step_that_failed_it() {
    let failed = r#""type":"ended","state":"failed","error":{"message":"no"}"#;
    let lines = [
        (0, "a", START),
        (10, "a", END),
        (10, "b", START),
        (10, "slow", START),
        (50, "b", failed),
        (60, "slow", r#""type":"ended","state":"cancelled""#),
    ];
    let mut events = log(&lines);
    let end =
        r#"{"v":1,"seq":9,"us":60,"type":"run_ended","status":"failed","failed_step":"b","error":{"message":"no"}}"#;
    events.push(Logged::parse(end).unwrap());
    let trace = Trace::new(&events);
    let critical: Vec<&str> = trace.steps.iter().filter(|s| s.critical).map(|s| s.path.as_str()).collect();
    assert_eq!((critical, trace.critical_path_us), (vec!["a", "b"], 50));
    assert_eq!(trace.failure, Some(("b".to_owned(), "no".to_owned())));
}

/// The slices of a chrome trace: lane, start, end, the event.
fn slices(chrome: &Value) -> Vec<(u64, u64, u64, &Value)> {
    let number = |event: &Value, key: &str| event[key].as_u64().unwrap();
    let events = chrome["traceEvents"].as_array().unwrap().iter().filter(|event| event["ph"] == "X");
    let slice = |event| {
        let (lane, start) = (number(event, "tid"), number(event, "ts"));
        (lane, start, start + number(event, "dur"), event)
    };
    events.map(slice).collect()
}

#[test]
fn slices_of_a_lane_nest_and_none_is_lost() {
    let (eventful, wide) = (eventful().chrome("run"), wide(500).chrome("run"));
    assert_eq!((slices(&eventful).len(), slices(&wide).len()), (8, 1 + 500 * 3));
    for chrome in [&eventful, &wide] {
        let mut sorted = slices(chrome);
        sorted.sort_by_key(|(lane, start, end, _)| (*lane, *start, std::cmp::Reverse(*end)));
        let mut open: Vec<(u64, u64)> = Vec::new();
        for (lane, start, end, event) in sorted {
            open.retain(|(other, ends)| *other == lane && *ends > start);
            assert!(open.last().is_none_or(|(_, ends)| end <= *ends), "{event} reaches over what is around it");
            open.push((lane, end));
        }
    }
    let lanes = slices(&wide).iter().map(|(lane, ..)| *lane).max();
    assert_eq!(lanes, Some(10));
}

#[test]
fn a_chrome_trace_says_what_a_step_was() {
    let chrome = eventful().chrome("the run");
    let find = |name: &str| slices(&chrome).into_iter().find(|slice| slice.3["name"] == name).unwrap();
    let (parts, last) = (find("parts"), find("last"));
    assert_eq!((parts.1, parts.2, &parts.3["cat"]), (0, 20_000, &"step,critical".into()));
    let risky = &find("risky").3["args"];
    assert_eq!((&risky["state"], &risky["waited_us"], &risky["why"]), (&"failed".into(), &10_000.into(), &"no".into()));
    assert_eq!(find("notes[1]").3["args"]["attempts"], 2);
    let (around, second) = (find("notes[1]"), find("attempt 2"));
    assert_eq!((second.0, second.1, second.2), (around.0, 40_000, 50_000));
    let events = chrome["traceEvents"].as_array().unwrap();
    let arrows: Vec<_> = events.iter().filter(|event| event["cat"] == "critical").collect();
    assert_eq!(arrows.len(), 4);
    assert_eq!(
        (&arrows[0]["ph"], &arrows[0]["ts"], &arrows[3]["ts"]),
        (&"s".into(), &19_999.into(), &(last.1 + 1).into())
    );
    assert!(events.iter().any(|event| event["ph"] == "M" && event["args"]["name"] == "flowrun the run"));
}

#[test]
fn passes_nest_by_what_the_log_says_of_them() {
    let frame = r#""type":"frame_opened","children":1"#;
    let inside = |pass: &str, rest: &str| format!(r#""in":"{pass}",{rest}"#);
    let (first, second) = (inside("loop(draft)#0", START), inside("loop(draft)#1", START));
    let (group, inner) = (inside("loop(draft)#1", FRAME), inside("loop(cell)#1#0", START));
    let nested = inside("loop(draft)#1", FRAME);
    let trace = Trace::new(&log(&[
        (0, "loop(draft)", frame),
        (0, "loop(draft)#0", frame),
        (0, "draft#0", &first),
        (10_000, "draft#0", END),
        (10_000, "loop(draft)#0", END),
        (10_000, "loop(draft)", r#""type":"pass_ended","pass":0,"end":"again""#),
        (10_000, "loop(draft)#1", frame),
        (10_000, "draft#1", &second),
        (20_000, "draft#1", END),
        (20_000, "judge#1", &group),
        (20_000, "judge#1/a", START),
        (25_000, "judge#1/a", END),
        (25_000, "judge#1", END),
        (25_000, "loop(cell)#1", &nested),
        (25_000, "loop(cell)#1#0", frame),
        (25_000, "cell#1.0", &inner),
        (30_000, "cell#1.0", END),
        (30_000, "loop(cell)#1#0", END),
        (30_000, "loop(cell)#1", r#""type":"pass_ended","pass":0,"end":"no_edge""#),
        (30_000, "loop(cell)#1", END),
        (30_000, "loop(draft)#1", END),
        (30_000, "loop(draft)", r#""type":"pass_ended","pass":1,"end":"exit""#),
        (30_000, "loop(draft)", END),
        (30_000, "lost", r#""type":"ended","state":"skipped","reason":"not_routed""#),
    ]));
    let names: Vec<String> =
        trace.tree(100).lines().map(|line| line.split("  *").next().unwrap().trim_end().to_owned()).collect();
    let expected = [
        "✓ loop(draft)     30 ms  left in pass #1",
        "  ✓ #0            10 ms",
        "    ✓ draft       10 ms",
        "  ✓ #1            20 ms",
        "    ✓ draft       10 ms",
        "    ✓ judge        5 ms",
        "      ✓ a          5 ms",
        "    ✓ loop(cell)   5 ms  1 pass",
        "      ✓ #0         5 ms",
        "        ✓ cell     5 ms",
        "- lost                   no edge led to it",
    ];
    assert_eq!(names, expected);
    assert_eq!(trace.critical_path_us, 30_000);
    // In the timeline and in viewers they nest as well.
    let timeline = trace.timeline(80);
    assert!(timeline.contains("\n    ✓ draft") && timeline.contains("\n        ✓ cell"), "{timeline}");
    let slices = trace.chrome("run");
    let named =
        |name: &str| slices["traceEvents"].as_array().unwrap().iter().find(|event| event["name"] == name).unwrap();
    assert_eq!(named("draft#1")["tid"], named("loop(draft)")["tid"], "one inside the other");
    assert_eq!(named("loop(draft)")["args"]["notes"][0], "left in pass #1");
    let found = |text: &str| trace.find(text).map(|at| trace.steps[at].path.as_str());
    for (text, path) in [
        ("draft#1", Some("draft#1")),
        ("loop(draft)#1/draft", Some("draft#1")),
        ("loop(draft)/#1/judge/a", Some("judge#1/a")),
        ("loop(draft)#1/loop(cell)/#0", Some("loop(cell)#1#0")),
        ("loop(draft)#1/dra", None),
        ("loop(draft)#1draft", None),
        ("draft", None),
        ("", None),
    ] {
        assert_eq!(found(text), path, "{text}");
    }
}

#[test]
fn losers_and_what_comes_after_a_prefix_decide_nothing() {
    let cancelled = r#""type":"ended","state":"cancelled""#;
    let trace = Trace::new(&log(&[
        (0, "quick", START),
        (0, "slow", START),
        (0, "few", FRAME),
        (0, "few[0]", START),
        (0, "few[1]", START),
        (5_000, "few[1]", END),
        (10_000, "few[0]", END),
        (10_000, "few", r#""type":"unused","from":1"#),
        (10_000, "few", END),
        (20_000, "quick", END),
        (20_000, "answer", r#""type":"ready","winner":"quick""#),
        (20_000, "answer", END),
        (21_000, "slow", cancelled),
    ]));
    let critical: Vec<&str> = trace.steps.iter().filter(|step| step.critical).map(|step| step.path.as_str()).collect();
    assert_eq!(critical, ["quick"]);
    let tree = trace.tree(100);
    let line = |name: &str| tree.lines().find(|line| line.contains(name)).unwrap().trim_end().to_owned();
    assert!(line("answer").ends_with("`quick` won") && line("[1]").ends_with("unused"), "{tree}");
    assert!(!line("[0]").ends_with("unused"), "{tree}");
}

/// A run that found one value in the cache and one in flight, made one itself after it had waited in vain, and was cut off once.
fn resumed() -> Trace {
    let held = r#""type":"decided","field":"input","input":"00","calls":1,"key":"01","held":true"#;
    let found = r#""type":"settled","attempt":0,"value":"02","provenance":"c1""#;
    let late = r#""type":"settled","attempt":1,"value":"02","provenance":"f1""#;
    let own = r#""type":"settled","attempt":2,"value":"02","provenance":"a1","usage":{"calls":1}"#;
    Trace::new(&log(&[
        (0, "cheap", READY),
        (0, "cheap", held),
        (0, "cheap", found),
        (0, "cheap", END),
        (0, "late", START),
        (10_000, "late", late),
        (10_000, "late", END),
        (10_000, "dear", READY),
        (10_000, "dear", held),
        (20_000, "dear", r#""type":"missed""#),
        (20_000, "dear", START),
        (30_000, "asks", r#""type":"suspended""#),
        (40_000, "", r#""type":"attached""#),
        (40_000, "dear", r#""type":"started","attempt":2"#),
        (60_000, "dear", own),
        (60_000, "dear", END),
        (70_000, "waits", held),
    ]))
}

fn report(hash: &str) -> Option<Value> {
    let report = |how: &str, calls: u64| {
        let usage = serde_json::json!({"calls": calls, "prompt_tokens": 20, "completion_tokens": 3});
        serde_json::json!({"from": {"how": how, "run": "r1", "step": "old", "usage": usage}})
    };
    match hash {
        "c1" => Some(report("cache", 2)),
        "f1" => Some(report("flight", 1)),
        "a1" => Some(serde_json::json!({"model": "m"})),
        _ => None,
    }
}

#[test]
fn hits_are_marked_and_what_they_saved_is_added_up() {
    let mut trace = resumed();
    assert_eq!((trace.savings().hits(), trace.savings().to_string().as_str()), (1, "1 found"), "the log alone");
    trace.look_up(report);
    assert_eq!(trace.savings().to_string(), "1 cached, 1 shared (3 calls saved)");
    let found = trace.steps[0].found.as_ref().expect("it was found");
    assert_eq!(found.payer(), "run r1, step `old`: 2 calls, 23 tokens");
    assert!(trace.steps[2].found.is_none(), "it paid itself");
    let text = trace.tree(120);
    let line = |start: &str| text.lines().find(|line| line.starts_with(start)).unwrap_or_else(|| panic!("{text}"));
    assert!(line("✓ cheap").trim_end().ends_with("cached") && line("✓ late").contains("shared"), "{text}");
    assert!(line("… waits").contains("waits for the same call of another step"), "{text}");
    let timeline = trace.timeline(80);
    let bar = timeline.lines().find(|line| line.starts_with("✓ cheap")).expect("a row");
    assert!(bar.contains("◆ cached") && timeline.contains("◆ found, not run"), "{timeline}");
    assert!(!eventful().timeline(80).contains('◆'));
}

#[test]
fn an_attempt_that_was_cut_off_is_said() {
    let trace = resumed();
    let dear = &trace.steps[2];
    assert_eq!(dear.path, "dear");
    let ends: Vec<(Option<u64>, bool)> = dear.attempts.iter().map(|one| (one.ended_us, one.is_cut_off)).collect();
    assert_eq!(ends, [(Some(30_000), true), (Some(50_000), false)], "nobody drove it for 10 ms");
    assert!(trace.tree(120).contains("2 attempts") && trace.tree(120).contains("cut off; started again"));
    assert_eq!((trace.steps[3].state.as_str(), trace.steps[3].attempts[0].ended_us), ("suspended", None));
}

/// A run that was killed at 30 ms and taken over at 5 s, while one step worked and a person was asked.
fn taken_over() -> Vec<Logged> {
    log(&[
        (0, "ask", r#""type":"suspended""#),
        (0, "w", START),
        (30_000, "x", END),
        (5_000_000, "", r#""type":"attached""#),
        (5_000_000, "w", START),
        (5_040_000, "w", END),
        (5_050_000, "ask", r#""type":"answered""#),
        (5_050_000, "ask", END),
    ])
}

#[test]
fn time_in_which_nobody_drove_the_run_is_left_out_everywhere() {
    let mut trace = Trace::new(&taken_over());
    let took: Vec<Option<u64>> = trace.steps.iter().map(TraceStep::duration_us).collect();
    assert_eq!(took, [Some(80_000), Some(70_000), None]);
    assert_eq!((trace.until_us, trace.critical_path_us), (80_000, 80_000));
    assert!(trace.timeline(80).contains("wall 80 ms; critical path 80 ms (100 %)"), "{}", trace.timeline(80));
    assert!(trace.tree(80).contains("✓ w    70 ms"), "{}", trace.tree(80));
    assert!(
        trace.chrome("r")["traceEvents"].as_array().unwrap().iter().all(|event| event["ts"].as_u64() <= Some(80_000))
    );
    // One that goes on has come as far as it was driven.
    trace.go_on_until(5_060_000);
    assert_eq!(trace.until_us, 90_000);
    // The part of a log that begins when the run was taken over has no gap.
    assert_eq!(driven_times(&taken_over()[3..]), [5_000_000, 5_000_000, 5_040_000, 5_050_000, 5_050_000]);
    let steps = [(9, "a", START), (3, "", r#""type":"attached""#), (7, "a", END), (2, "a", END)];
    assert_eq!(driven_times(&log(&steps)), [9, 3, 7, 2], "a clock that went back");
}

#[test]
fn a_report_may_say_anything() {
    let huge = serde_json::json!({"from": {"how": 1, "usage": {"calls": u64::MAX, "prompt_tokens": u64::MAX, "completion_tokens": -1}}});
    let found = Found::of(&huge).expect("somebody paid");
    assert_eq!(found.word(), "found");
    assert!(found.payer().contains("calls"));
    assert_eq!(Found::of(&serde_json::json!({"from": "x"})), None);
}
