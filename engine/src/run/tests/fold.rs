//! Taking runs up again: from every prefix of their logs, and from logs that are not theirs.

use super::recall::{Bench, Person};
use super::*;
use crate::cache::Memo;
use crate::event::Logged;
use crate::store::{EntryFilter, Memory, RunInfo, Store, Stored, Transaction, hashes_in};

/// A loop, a map with an equal pair, samples, a retry, passes, an expansion, a person, and a step whose answer is not kept.
const RICH: &str = "
inputs: {plan: any}
nodes:
  list: {value: ['\"x\"', '\"y\"', '\"x\"']}
  each: {for_each: list, say: 'echo {{ item }}'}
  many: {samples: 2, say: draw}
  shaky: {say: flaky 1}
  turn: {say: 'turn {{ iteration }}', next: [{when: iteration < 2, to: turn, max: 5}, {to: after}]}
  after: {say: 'after {{ turn }}', cache: off}
  draft: {repeat: {until: this == 'draft 1', max: 4}, say: 'draft {{ iteration }}'}
  parts: {graph: plan}
  ask: {kind: human, prompt: 'Which {{ after }}?', schema: integer}
  last_word: {say: 'echo {{ ask }}', when: ask > 3, output: this ~ '!'}
output: [each, many, shaky, after, draft, parts.answer, last_word]";

/// People in items and passes, failures that something takes the place of, folds, prefixes, a call, groups, a bound.
const WIDE: &str = "
inputs: {plan: any}
nodes:
  people: {for_each: ['\"p\"', '\"q\"'], as: who, kind: human, prompt: 'And {{ who }}?', schema: integer}
  shaky: {for_each: [1, 2, 3], say: '{% if item == 2 %}fail{% else %}item {{ item }}{% endif %}', on_item_error: {value: \"'none'\"}}
  folded: {for_each: ['\"a\"', '\"b\"'], as: letter, sequential: true, say: '{{ letter }} {{ past.folded | length }}'}
  few: {for_each: [1, 2, 3, 4], say: 'n {{ item }}', stop_when: this | length == 2}
  broken: {say: fail, on_error: {to: mend}, next: fine}
  fine: {value: 1}
  mend: {say: 'it said {{ error.broken.code }}'}
  called: {workflow: '@one', with: {a: people | sum}}
  groups: {for_each: [1, 2], as: number, nodes: {x: {say: 'x {{ number }}'}, y: {say: '{{ x }} y'}}, output: {y: y}}
  laps:
    repeat: {until: x == 'lap 1', max: 3}
    nodes:
      x: {say: 'lap {{ iteration }}'}
      ask: {kind: human, prompt: '{{ x }}?', needs: [x]}
    output: '[x, ask]'
  no: {when: people | length > 5, say: never}
  bound: {repeat: {until: this == 'nothing', max: 2}, say: 'bound {{ iteration }}'}
output: [shaky, folded, few, mend, called, groups, laps, no | default('-'), bound]";

/// A race, timeouts of an attempt, a group and a person.
const LATE: &str = "
inputs: {plan: any}
nodes:
  slow: {say: sleep 90000, on_error: skip}
  quick: {say: sleep 10, on_error: skip}
  win: {needs: [slow, quick], join: first, value: '[slow, quick] | select | list'}
  late: {say: sleep 5000, timeout: 1s, retry: {max: 1, on: [timeout], backoff: 1s}, on_error: {value: \"'late'\"}}
  group: {timeout: 2s, on_error: {value: \"'over'\"}, nodes: {x: {say: sleep 60000}}}
  ask: {kind: human, prompt: Who?, timeout: 1h, default: \"'nobody'\"}
output: [win, late, group, ask]";

fn inputs() -> Map<String, Value> {
    let plan = json!({"question": "Why?", "steps": [
        {"id": "a", "ask": "A?", "type": "text"},
        {"id": "six", "ask": "2 * 3", "type": "calc"},
        {"id": "b", "ask": "B of {a} and {six}?", "type": "text"},
        {"id": "answer", "ask": "{question}", "type": "text", "needs": ["a?", "six?", "b?"]},
    ]});
    Map::from_iter([("plan".to_owned(), plan)])
}

/// Options of a run that is recorded; a person is there, or nobody.
fn options(bench: &Bench, id: &str, answered: bool) -> RunOptions {
    let mut options = bench.options(id);
    if answered {
        let answers = Answers::default();
        options.observers.add(Arc::new(Person(answers.clone())));
        options.answers = Some(answers);
    }
    options
}

/// A bench whose store has the first transactions of a run, the values that they name, and the answers of earlier runs.
fn prefix_of(bench: &Bench, id: &str, log: &[Stored]) -> Bench {
    let cut = Bench { store: Memory::default(), ..bench.clone() };
    let run = RunInfo { origin: json!({"inputs": inputs()}), ..cut.recording(id).run };
    cut.store.begin(&run).unwrap();
    let mut entries = bench.store.entries(&EntryFilter::default()).unwrap();
    entries.retain(|entry| entry.run != id);
    let values = entries.iter().filter_map(|entry| Some((entry.value, bench.store.value(entry.value).unwrap()?)));
    let (values, lines) = (values.collect(), String::new());
    let earlier = Transaction { run: "earlier".into(), first: 0, lines, values, entries, summary: None };
    cut.store.begin(&RunInfo { id: "earlier".into(), ..run }).unwrap();
    cut.store.append(earlier, Box::new(|result| result.unwrap()));
    for stored in log {
        let values = hashes_in(&stored.lines).filter_map(|hash| Some((hash, bench.store.value(hash).unwrap()?)));
        let transaction = Transaction {
            run: id.into(),
            first: stored.first,
            lines: stored.lines.clone(),
            values: values.collect(),
            entries: Vec::new(),
            summary: None,
        };
        cut.store.append(transaction, Box::new(|result| result.unwrap()));
    }
    cut
}

/// Takes a run up again that is in the bench's store.
async fn resumed(bench: &Bench, text: &str, id: &str, answered: bool) -> Result<RunOutcome, StartError> {
    let mut options = options(bench, id, answered);
    if let (Some(record), Some(known)) = (&mut options.record, bench.store.run(id).unwrap()) {
        record.run = known;
    }
    Ok(resume(&bench.workflow(text), &bench.kinds(), options)?.await)
}

/// The paths of leaf steps that have their answers.
fn settled(log: &[Logged]) -> BTreeSet<String> {
    let settled = log.iter().filter(|line| line.kind == "settled" && line.text("value").is_some());
    settled.map(|line| line.step.clone()).collect()
}

/// What the log says that was used, and how many answers it says were found, corrections aside.
fn told(bench: &Bench, log: &[Logged]) -> (Usage, u64) {
    let mut usage = Usage::default();
    let mut found = 0;
    for line in log.iter().filter(|line| line.kind == "settled") {
        usage += line.usage();
        let provenance = line.text("provenance").and_then(ValueHash::from_hex);
        let told = provenance.map(|hash| bench.store.value(hash).unwrap().unwrap());
        let from = told.filter(|told| told.contains("\"from\":{\"how\":") && !told.contains("\"correction\""));
        found += u64::from(from.is_some());
    }
    (usage, found)
}

async fn whole(text: &str, answered: bool) -> (Bench, RunOutcome, Vec<Stored>) {
    let bench = Bench::default();
    let outcome = run(&bench.workflow(text), inputs(), &bench.kinds(), options(&bench, "r", answered)).await.unwrap();
    assert_eq!(outcome.status, Status::Success, "{outcome:?}");
    let log = bench.store.log("r", 0).unwrap();
    (bench, outcome, log)
}

#[tokio::test(start_paused = true)]
async fn a_run_goes_on_from_wherever_it_was() {
    let outcome = goes_on_from_everywhere(RICH).await;
    let answer = outcome.output.as_ref().map(|output| output[5].clone());
    assert!(answer.is_some_and(|answer| answer.to_string().contains("B of A? and 6?")), "{:?}", outcome.output);
}

#[tokio::test(start_paused = true)]
async fn whatever_a_run_has_met_is_there_again() {
    let outcome = goes_on_from_everywhere(WIDE).await;
    let expected = json!([
        ["item 1", "none", "item 3"], ["a 0", "b 1"], ["n 1", "n 2"], "it said no", ["called 14"],
        [{"y": "x 1 y"}, {"y": "x 2 y"}], ["lap 1", 7], "-", "bound 1",
    ]);
    assert_eq!((outcome.output, outcome.limits_reached), (Some(expected), vec!["bound".to_owned()]));
}

/// Cuts a run off after every transaction and takes it up again.
async fn goes_on_from_everywhere(text: &str) -> RunOutcome {
    let (bench, outcome, log) = whole(text, true).await;
    assert!(log.len() > 15, "{} transactions", log.len());
    for length in 0..log.len() {
        let cut = prefix_of(&bench, "r", &log[..length]);
        let done = settled(&cut.logged("r"));
        cut.attempts();
        let again = resumed(&cut, text, "r", true).await.unwrap();
        assert_eq!(
            (again.status, &again.output),
            (Status::Success, &outcome.output),
            "after {length}: {:?}",
            again.error
        );
        for path in cut.attempts() {
            assert!(!done.contains(&path), "`{path}` ran again after {length}");
        }
        let all = cut.logged("r");
        let numbers: Vec<u64> = all.iter().map(|line| line.sequence).collect();
        assert_eq!(numbers, (0..all.len() as u64).collect::<Vec<_>>(), "events are numbered on, after {length}");
        assert_eq!((again.usage, again.reused.steps), told(&cut, &all), "after {length}");
        assert_eq!((again.steps, again.reused), (outcome.steps, outcome.reused), "after {length}");
        assert_eq!(again.limits_reached, outcome.limits_reached, "after {length}");
        assert!(matches!(resumed(&cut, text, "r", true).await, Err(StartError::Over { .. })), "after {length}");
    }
    outcome
}

#[tokio::test(start_paused = true)]
async fn timers_and_races_go_on_too() {
    let (bench, outcome, log) = whole(LATE, false).await;
    assert_eq!(outcome.output, Some(json!([["sleep 10"], "late", "over", "nobody"])));
    for length in 0..log.len() {
        let cut = prefix_of(&bench, "r", &log[..length]);
        let done = settled(&cut.logged("r"));
        cut.attempts();
        let again = resumed(&cut, LATE, "r", false).await.unwrap();
        assert_eq!(
            (again.status, &again.output),
            (Status::Success, &outcome.output),
            "after {length}: {:?}",
            again.error
        );
        assert!(cut.attempts().iter().all(|path| !done.contains(path)), "after {length}");
        assert!(again.wall_ms < 3_700_000, "the hour for the answer begins anew after {length}: {} ms", again.wall_ms);
    }
}

#[tokio::test(start_paused = true)]
async fn a_run_may_be_cut_off_again_and_again() {
    for text in [RICH, WIDE] {
        cut_off_again_and_again(text).await;
    }
}

async fn cut_off_again_and_again(text: &str) {
    let (bench, outcome, _) = whole(text, true).await;
    let mut log: Vec<Stored> = Vec::new();
    let mut from = bench.clone();
    loop {
        let cut = prefix_of(&from, "r", &log);
        let again = resumed(&cut, text, "r", true).await.unwrap();
        assert_eq!((again.status, &again.output), (Status::Success, &outcome.output), "{:?}", again.error);
        let all = cut.store.log("r", 0).unwrap();
        if all.len() <= log.len() + 3 {
            return assert!(log.len() > 15, "{} transactions", log.len());
        }
        log = all[..log.len() + 3].to_vec();
        from = cut;
    }
}

#[tokio::test(start_paused = true)]
async fn what_others_paid_is_counted_over_all_drivers() {
    let bench = Bench::default();
    // `a` backs off, `b` makes the answer, `a` finds it when its time has come; `off` is remembered at its start.
    let text = "
inputs: {plan: any}
nodes:
  a: {say: first busy}
  b: {say: first busy}
  off: {say: x, cache: off}
  set: {say: y}
  twin: {say: y, needs: [set]}
  end: {say: '{{ [a, b, off, set, twin] | join(\",\") }}'}
output: end";
    let memo = {
        let old = Bench::default();
        run(&old.workflow(text), inputs(), &old.kinds(), options(&old, "r0", false)).await.unwrap();
        let log = old.logged("r0").into_iter().filter(|line| line.step == "off");
        Some(Arc::new(Memo::new("r0", &log.collect::<Vec<_>>(), |hash| old.value(hash))))
    };
    let replaying = |bench: &Bench| RunOptions {
        memo: memo.clone(),
        corrections: BTreeMap::from([("set".to_owned(), json!("z"))]),
        ..options(bench, "r", false)
    };
    let keep_x = |bench: &Bench| {
        let values = vec![(ValueHash::of(&json!("x")), "\"x\"".into())];
        let (lines, entries) = (String::new(), Vec::new());
        bench.store.begin(&bench.recording("r0").run).unwrap();
        let kept = Transaction { run: "r0".into(), first: 0, lines, values, entries, summary: None };
        bench.store.append(kept, Box::new(|result| result.unwrap()));
    };
    keep_x(&bench);
    let outcome = run(&bench.workflow(text), inputs(), &bench.kinds(), replaying(&bench)).await.unwrap();
    assert_eq!((&outcome.output, outcome.reused.steps), (&Some(json!("first busy,first busy,x,z,y")), 2));
    assert_eq!((outcome.usage.calls, outcome.reused.usage.calls), (4, 2));
    let log = bench.store.log("r", 0).unwrap();
    for length in 0..log.len() {
        let cut = prefix_of(&bench, "r", &log[..length]);
        keep_x(&cut);
        let mut options = replaying(&cut);
        options.record.iter_mut().for_each(|record| record.run = cut.store.run("r").unwrap().unwrap());
        let again = resume(&cut.workflow(text), &cut.kinds(), options).unwrap().await;
        assert_eq!((again.status, &again.output), (Status::Success, &outcome.output), "after {length}");
        assert_eq!((again.usage, again.reused.steps), told(&cut, &cut.logged("r")), "after {length}");
        assert_eq!(again.reused, outcome.reused, "after {length}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_earlier_runs_paid_is_found_by_every_driver() {
    let (bench, _, _) = whole(RICH, true).await;
    let outcome = run(&bench.workflow(RICH), inputs(), &bench.kinds(), options(&bench, "r2", true)).await.unwrap();
    let log = bench.store.log("r2", 0).unwrap();
    assert_eq!((outcome.usage.calls, outcome.steps), (1, 1), "`after` alone is made again");
    for length in 0..log.len() {
        let cut = prefix_of(&bench, "r2", &log[..length]);
        let again = resumed(&cut, RICH, "r2", true).await.unwrap();
        assert_eq!((again.status, &again.output), (Status::Success, &outcome.output), "after {length}");
        assert_eq!((again.usage, again.reused), (outcome.usage, outcome.reused), "after {length}");
    }
}

#[tokio::test]
async fn a_suspended_run_takes_its_answer_later() {
    let bench = Bench::default();
    let workflow = bench.workflow(RICH);
    let outcome = run(&workflow, inputs(), &bench.kinds(), options(&bench, "r", false)).await.unwrap();
    assert_eq!((outcome.status, outcome.asked.as_slice()), (Status::Suspended, &["ask".to_owned()][..]));
    bench.attempts();
    let still = resumed(&bench, RICH, "r", false).await.unwrap();
    assert_eq!((still.status, still.asked, still.usage), (Status::Suspended, outcome.asked, outcome.usage));
    let outcome = resumed(&bench, RICH, "r", true).await.unwrap();
    assert_eq!(
        (outcome.status, outcome.output.map(|output| output[6].clone())),
        (Status::Success, Some(json!("echo 7!")))
    );
    assert_eq!(bench.attempts(), ["last_word"]);
}

#[tokio::test]
async fn a_log_that_is_not_that_of_the_workflow_is_refused() {
    let (bench, _, log) = whole(RICH, true).await;
    let half = &log[..log.len() / 2];
    let refused = async |log: &[Stored], text: &str| {
        let cut = prefix_of(&bench, "r", log);
        resumed(&cut, text, "r", true).await.unwrap_err()
    };
    let changed = refused(half, &RICH.replace("say: draw", "say: paint")).await;
    assert_eq!(changed, StartError::Changed("r".into()));
    let over = refused(&log, RICH).await;
    assert_eq!(over, StartError::Over { id: "r".into(), status: Status::Success });
    for (from, to) in [
        ("\"type\":\"started\",\"attempt\":1", "\"type\":\"started\",\"attempt\":2"),
        ("\"type\":\"ready\"", "\"type\":\"suspended\""),
        ("\"type\":\"settled\",\"attempt\":1", "\"type\":\"settled\",\"attempt\":3"),
        ("\"field\":\"items\"", "\"field\":\"guard\""),
        ("\"count\":3", "\"count\":2"),
        ("{\"v\":1", "{\"v\":1,"),
    ] {
        let at = half.iter().position(|stored| stored.lines.contains(from)).unwrap_or_else(|| panic!("no {from}"));
        let mut forged = half.to_vec();
        forged[at].lines = forged[at].lines.replacen(from, to, 1);
        let error = refused(&forged, RICH).await;
        assert!(matches!(&error, StartError::Unfoldable { id, .. } if id == "r"), "{to}: {error}");
    }
    let mut short = half.to_vec();
    short[0].lines = short[0].lines.lines().take(2).map(|line| format!("{line}\n")).collect();
    assert!(matches!(refused(&short, RICH).await, StartError::Unfoldable { .. }), "lines are missing");
    let lock = bench.store.lock("r").unwrap();
    let driven = resumed(&bench, RICH, "r", true).await.unwrap_err();
    assert_eq!((lock.is_some(), driven), (true, StartError::Driven("r".into())));
}
