//! Never pay twice: answers that are kept, on their way, remembered or set, and how often the work was done all the same.
#![allow(clippy::disallowed_methods, reason = "runs go on beside the test")]

use super::*;
use crate::cache::{Flights, Memo};
use crate::definition::CacheScope;
use crate::event::Logged;
use crate::run::recall::now_ms;
use crate::store::{CacheEntry, EntryFilter, Memory, RunInfo, Store, Transaction};

/// A kind that does what its text says and notes the path of every attempt: `fail`, `flaky N` (as an attempt), `first` and
/// `first busy` (only the very first attempt of all fails), `sleep MS`; anything else it says again. Its answers are kept.
#[derive(Clone, Default)]
pub(super) struct Say {
    name: &'static str,
    attempts: Arc<Mutex<Vec<String>>>,
}

#[async_trait]
impl Node for Say {
    fn spec(&self) -> KindSpec {
        KindSpec {
            work_keys: if self.name == "llm" { vec!["ask".into()] } else { vec!["say".into()] },
            calls_model: true,
            samples: true,
            cache: CacheScope::Shared,
            retry: RetryPolicy { max: 2, on: vec![ErrorClass::Server], backoff_ms: 1_000 },
            ..KindSpec::leaf(if self.name.is_empty() { "say" } else { self.name })
        }
        .field("say", FieldFormat::Template, "what to do")
        .field("ask", FieldFormat::Slotted, "what to do, literal")
        .field("system", FieldFormat::Template, "background")
    }

    async fn run(&self, context: &NodeContext, input: Input) -> Result<Output, NodeError> {
        let is_first = {
            let mut attempts = self.attempts.lock().unwrap();
            attempts.push(context.path.to_string());
            attempts.len() == 1
        };
        let usage = Usage { calls: 1, prompt_tokens: 2, completion_tokens: 3 };
        let text = input.fields.get("say").or(input.fields.get("ask")).and_then(Value::as_str).unwrap_or_default();
        let (word, rest) = text.split_once(' ').unwrap_or((text, ""));
        let busy = StepError::new("busy", ErrorClass::Server, "busy");
        let failed = match (word, rest) {
            ("fail", _) => Some(StepError::terminal("no", "it fails")),
            ("flaky", most) if context.attempt <= most.parse().unwrap() => Some(busy),
            ("first", "busy") if is_first => Some(busy),
            ("first", "") if is_first => Some(StepError::terminal("no", "it fails")),
            _ => None,
        };
        if word == "sleep" {
            tokio::select! {
                () = tokio::time::sleep(Duration::from_millis(rest.parse().unwrap())) => {}
                () = context.cancelled().cancelled() => {
                    return Err(NodeError { usage, ..StepError::terminal("cancelled", "stopped").into() });
                }
            }
        }
        match failed {
            Some(error) => Err(NodeError { usage, ..error.into() }),
            None => Ok(Output { value: json!(text), usage, provenance: None }),
        }
    }
}

/// The workflow that is called by any name.
const CALLED: &str = "flowrun: 1\ninputs: {a: integer}\nnodes: {b: {say: 'called {{ a }}'}}\noutput: [b]";

/// A store, kinds whose attempts are counted, and flights: what runs of one process share.
#[derive(Clone, Default)]
pub(super) struct Bench {
    pub(super) store: Memory,
    pub(super) say: Say,
    pub(super) flights: Flights,
}

impl Bench {
    pub(super) fn kinds(&self) -> Kinds {
        let mut kinds = Kinds::new();
        kinds.register(self.say.clone()).register(Say { name: "llm", ..self.say.clone() });
        kinds
    }

    pub(super) fn workflow(&self, text: &str) -> Arc<Workflow> {
        let checked = check_text("t.yaml", &format!("flowrun: 1\n{text}"), self.kinds().specs(), &One(CALLED));
        checked.unwrap_or_else(|refused| panic!("{:#?}", refused.diagnostics)).0.workflow
    }

    /// How a run of this id is recorded here.
    pub(super) fn recording(&self, id: &str) -> Recording {
        let (workflow, origin) = ("t".to_owned(), Value::Null);
        let run = RunInfo { id: id.to_owned(), workflow, started_ms: now_ms(), origin, summary: None };
        Recording { store: Arc::new(self.store.clone()), run, durability: Default::default(), values: Vec::new() }
    }

    pub(super) fn options(&self, id: &str) -> RunOptions {
        RunOptions { record: Some(self.recording(id)), flights: self.flights.clone(), ..RunOptions::default() }
    }

    async fn run_with(&self, text: &str, options: RunOptions) -> RunOutcome {
        run(&self.workflow(text), Map::new(), &self.kinds(), options).await.unwrap()
    }

    async fn run(&self, id: &str, text: &str) -> RunOutcome {
        self.run_with(text, self.options(id)).await
    }

    /// The paths of the attempts since this was asked last, in the order of their beginnings.
    pub(super) fn attempts(&self) -> Vec<String> {
        std::mem::take(&mut *self.say.attempts.lock().unwrap())
    }

    fn entries(&self) -> Vec<CacheEntry> {
        self.store.entries(&EntryFilter::default()).unwrap()
    }

    pub(super) fn logged(&self, id: &str) -> Vec<Logged> {
        let lines: Vec<String> = self.store.log(id, 0).unwrap().into_iter().map(|stored| stored.lines).collect();
        lines.iter().flat_map(|lines| lines.lines()).map(|line| Logged::parse(line).unwrap()).collect()
    }

    fn memo(&self, id: &str) -> Option<Arc<Memo>> {
        Some(Arc::new(Memo::new(id, &self.logged(id), |hash| self.value(hash))))
    }

    pub(super) fn value(&self, hash: ValueHash) -> Option<Value> {
        serde_json::from_str(&self.store.value(hash).unwrap()?).ok()
    }
}

fn steps_and_calls(outcome: &RunOutcome) -> (u64, u64, u64) {
    assert_eq!(outcome.status, Status::Success, "{outcome:?}");
    (outcome.reused.steps, outcome.reused.usage.calls, outcome.usage.calls)
}

#[tokio::test]
async fn what_was_paid_once_is_found_again() {
    let bench = Bench::default();
    let text = "nodes: {a: {say: one}, b: {say: one}, c: {say: '{{ a }} two', output: this ~ '!'}}\noutput: [a, b, c]";
    let first = bench.run("r1", text).await;
    assert_eq!(steps_and_calls(&first), (1, 1, 2), "`b` takes what `a` gave");
    assert_eq!(bench.attempts(), ["a", "c"]);
    let second = bench.run("r2", text).await;
    assert_eq!(steps_and_calls(&second), (3, 3, 0));
    assert_eq!((bench.attempts().len(), second.steps), (0, 0));
    assert_eq!(
        (second.output, first.output),
        (Some(json!(["one", "one", "one two!"])), Some(json!(["one", "one", "one two!"])))
    );
    let from = bench.entries().into_iter().map(|entry| (entry.run, entry.step, entry.usage.calls));
    assert_eq!(
        from.collect::<BTreeSet<_>>(),
        BTreeSet::from([("r1".into(), "a".into(), 1), ("r1".into(), "c".into(), 1)])
    );
}

#[tokio::test]
async fn the_scope_says_how_far_an_answer_goes() {
    for (scope, attempts) in [("shared", [1, 0]), ("run", [1, 1]), ("off", [2, 2])] {
        let bench = Bench::default();
        let text = format!("nodes: {{a: {{say: x, cache: {scope}}}, b: {{say: x, needs: [a], cache: {scope}}}}}");
        for (id, attempts) in ["r1", "r2"].into_iter().zip(attempts) {
            bench.run(id, &text).await;
            assert_eq!(bench.attempts().len(), attempts, "{scope} {id}");
        }
        assert_eq!(bench.entries().is_empty(), scope != "shared");
    }
}

#[tokio::test]
async fn keys_salts_and_samples_say_what_is_the_same() {
    let bench = Bench::default();
    let items = |more: &str| format!("nodes: {{a: {{for_each: [1, 2, 3], {more}}}}}\noutput: a");
    let keyed = bench.run("r1", &items("say: 'echo {{ item }}', key: item % 2, max_parallel: 1")).await;
    assert_eq!(keyed.output, Some(json!(["echo 1", "echo 2", "echo 1"])));
    let count = async |id: &str, text: &str| {
        bench.attempts();
        assert_eq!(bench.run(id, text).await.status, Status::Success);
        bench.attempts().len()
    };
    assert_eq!(count("r2", &items("say: same")).await, 1);
    assert_eq!(count("r3", &items("say: salted, salt: item")).await, 3);
    assert_eq!(count("r4", &items("say: salted, salt: item + 2")).await, 2, "3 was among the first three");
    assert_eq!(count("r5", "nodes: {a: {samples: 3, say: drawn}}").await, 3);
    assert_eq!(count("r6", "nodes: {a: {samples: 5, say: drawn}}").await, 2);
    let looped = |salt: &str| format!("nodes: {{a: {{repeat: {{max: 3}}, say: again{salt}}}}}");
    assert_eq!(count("r7", &looped("")).await, 1, "the pass is not in the key");
    assert_eq!(count("r8", &looped(", salt: iteration")).await, 3);
}

#[tokio::test]
async fn an_answer_that_is_too_old_is_made_anew() {
    let bench = Bench::default();
    let text = "nodes: {a: {say: news, ttl: 1h}}";
    bench.run("r1", text).await;
    for (age_ms, attempts) in [(3_500_000, 0), (3_700_000, 1)] {
        let aged = bench.entries().into_iter().map(|entry| CacheEntry { created_ms: now_ms() - age_ms, ..entry });
        let (lines, values, summary) = (String::new(), Vec::new(), None);
        let old = Transaction { run: "r1".into(), first: 999, lines, values, entries: aged.collect(), summary };
        bench.store.append(old, Box::new(|result| result.unwrap()));
        bench.attempts();
        bench.run(&format!("r{age_ms}"), text).await;
        assert_eq!(bench.attempts().len(), attempts, "{age_ms}");
    }
    assert_eq!(bench.entries()[0].run, "r3700000", "the new answer takes the place of the old one");
}

#[tokio::test]
async fn a_fresh_run_reads_nothing_and_writes_all() {
    let bench = Bench::default();
    let text = "nodes: {a: {say: x}, b: {say: x, needs: [a]}}";
    bench.run("r1", text).await;
    let outcome = bench.run_with(text, RunOptions { fresh: true, ..bench.options("r2") }).await;
    assert_eq!(steps_and_calls(&outcome), (1, 1, 1), "once in the run is enough all the same");
    assert_eq!(bench.entries().iter().map(|entry| entry.run.as_str()).collect::<Vec<_>>(), ["r2"]);
}

#[tokio::test(start_paused = true)]
async fn equal_questions_of_a_run_are_one_call() {
    let bench = Bench::default();
    let text = "nodes: {a: {for_each: 'range(64) | list', max_parallel: 64, say: sleep 100}}\noutput: a | length";
    let outcome = bench.run_with(text, RunOptions { flights: bench.flights.clone(), ..RunOptions::default() }).await;
    assert_eq!((steps_and_calls(&outcome), outcome.output), ((63, 63, 1), Some(json!(64))));
    assert_eq!(bench.attempts(), ["a[0]"]);
}

#[tokio::test(start_paused = true)]
async fn equal_questions_of_two_runs_are_one_call() {
    let bench = Bench::default();
    let text = "nodes: {a: {say: sleep 100}, b: {say: sleep 100}}\noutput: [a, b]";
    let unrecorded = || RunOptions { flights: bench.flights.clone(), ..RunOptions::default() };
    let (first, second) = tokio::join!(bench.run_with(text, unrecorded()), bench.run_with(text, unrecorded()));
    assert_eq!((steps_and_calls(&first), steps_and_calls(&second)), ((1, 1, 1), (2, 2, 0)));
    assert_eq!(second.output, Some(json!(["sleep 100", "sleep 100"])));
    assert_eq!(bench.attempts().len(), 1);
    let alone = bench.run_with(text, RunOptions::default()).await;
    assert_eq!(steps_and_calls(&alone), (1, 1, 1), "nothing is kept of runs that are not recorded");
}

#[tokio::test(start_paused = true)]
async fn who_follows_a_failure_asks_again() {
    let bench = Bench::default();
    let both = "nodes: {a: {say: first, on_error: skip}, b: {say: first, on_error: skip}}\noutput: [a | default(0), b | default(0)]";
    let outcome = bench.run("r1", both).await;
    assert_eq!((outcome.output, bench.attempts().len()), (Some(json!([0, "first"])), 2));

    let busy = "nodes: {a: {say: first busy}, b: {say: first busy}}\noutput: [a, b]";
    let outcome = bench.run("r2", busy).await;
    assert_eq!(steps_and_calls(&outcome), (1, 1, 2), "the one that backs off finds what the other made");
    assert_eq!(bench.attempts(), ["a", "b"]);

    let bench = Bench::default();
    let patient = "nodes: {a: {say: sleep 10, on_error: skip}}\noutput: a | default(0)";
    let hasty = patient.replace("sleep 10", "sleep 10, timeout: 5ms");
    let unrecorded = || RunOptions { flights: bench.flights.clone(), ..RunOptions::default() };
    let (first, second) = tokio::join!(bench.run_with(&hasty, unrecorded()), bench.run_with(patient, unrecorded()));
    assert_eq!((first.output, second.output), (Some(json!(0)), Some(json!("sleep 10"))));
    assert_eq!(bench.attempts().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn who_follows_a_cancelled_leader_asks_again() {
    let bench = Bench::default();
    let text = "
nodes:
  g: {timeout: 1s, on_error: skip, nodes: {x: {say: sleep 5000}}}
  z: {value: 1}
  b: {say: sleep 5000, needs: [z]}
output: b";
    let outcome = bench.run("r1", text).await;
    assert_eq!((outcome.output, bench.attempts()), (Some(json!("sleep 5000")), vec!["g/x".to_owned(), "b".to_owned()]));

    let text = "nodes: {a: {say: sleep 700}}\noutput: a";
    let unrecorded = || RunOptions { flights: bench.flights.clone(), ..RunOptions::default() };
    let options = unrecorded();
    let cancel = options.cancel.clone();
    let later = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        cancel.cancel();
    };
    let (first, second, ()) = tokio::join!(bench.run_with(text, options), bench.run_with(text, unrecorded()), later);
    assert_eq!((first.status, second.output), (Status::Cancelled, Some(json!("sleep 700"))));
    assert_eq!((bench.attempts().len(), second.usage.calls), (2, 1));
}

#[tokio::test]
async fn only_what_fits_is_kept() {
    let bench = Bench::default();
    let outcome =
        bench.run("r1", "nodes: {a: {say: fail, on_error: skip}, b: {say: x, schema: integer, on_error: skip}}").await;
    assert_eq!((outcome.status, bench.attempts().len()), (Status::Success, 2));
    assert_eq!(bench.entries(), []);
    let outcome = bench.run("r2", "nodes: {b: {say: x, schema: integer}}").await;
    assert_eq!((outcome.status, bench.attempts().len()), (Status::Failed, 1), "{outcome:?}");
}

#[tokio::test]
async fn a_replay_takes_what_the_old_run_gave() {
    let bench = Bench::default();
    let text = "
nodes:
  a: {say: x}
  b: {say: '{{ a }} y', cache: off}
  c: {say: '{{ b }} z', cache: run}
  ask: {kind: human, prompt: 'How many {{ a }}?', schema: integer}
output: [a, b, c, ask]";
    let answers = Answers::default();
    let mut options = RunOptions { answers: Some(answers.clone()), ..bench.options("r1") };
    options.observers.add(Arc::new(Person(answers)));
    let first = bench.run_with(text, options).await;
    assert_eq!((first.output, bench.attempts().len()), (Some(json!(["x", "x y", "x y z", 7])), 3));
    let replay = async |id: &str, text: &str| {
        let options = RunOptions { memo: bench.memo("r1"), fresh: true, ..bench.options(id) };
        (bench.run_with(text, options).await, bench.attempts())
    };
    let (same, attempts) = replay("r2", text).await;
    assert_eq!((same.output, attempts.len(), same.reused.steps), (Some(json!(["x", "x y", "x y z", 7])), 0, 4));
    assert_eq!((same.reused.usage.calls, same.usage.calls), (3, 0));
    let renamed = text.replace("b: {", "d: {").replace("{{ b }}", "{{ d }}").replace("a, b,", "a, d,");
    let (_, attempts) = replay("r3", &renamed).await;
    assert_eq!(attempts, ["d"], "without `cache` an answer is that of the step, and `c` has the same input as before");
    let (asked, attempts) = replay("r4", &text.replace("How many", "How much")).await;
    assert_eq!((asked.status, asked.asked, attempts.len()), (Status::Suspended, vec!["ask".to_owned()], 0));
    let (_, attempts) = replay("r5", &text.replace("say: x", "say: w")).await;
    assert_eq!(attempts, ["a", "b", "c"]);
}

#[tokio::test]
async fn a_correction_stands_in_place_of_the_step() {
    let bench = Bench::default();
    let text = "
nodes:
  a: {say: x, output: this ~ '?'}
  v: {value: a ~ a}
  b: {say: '{{ v }}'}
  n: {say: '{{ a | length }}'}
  each: {for_each: [1, 2], say: 'item {{ item }}'}
  ask: {kind: human, prompt: Well?}
output: [b, n, each, ask]";
    let set = |pairs: &[(&str, Value)]| pairs.iter().map(|(path, value)| ((*path).to_owned(), value.clone())).collect();
    let corrections = set(&[("a", json!("cut")), ("each[1]", json!("other")), ("ask", json!("yes"))]);
    let first = bench.run_with(text, RunOptions { corrections, ..bench.options("r1") }).await;
    assert_eq!(first.output, Some(json!(["cutcut", "3", ["item 1", "other"], "yes"])));
    assert_eq!(bench.attempts().into_iter().collect::<BTreeSet<_>>(), ["b", "each[0]", "n"].map(str::to_owned).into());
    assert!(
        bench.entries().iter().all(|entry| entry.step != "a" && entry.step != "each[1]"),
        "it is of this run alone"
    );
    // What was set is no answer that the memo has: whoever wants it again sets it again.
    let again = ("each[1]", json!("other"));
    let corrections = set(&[("a", json!("saw")), ("v", json!("cutcut")), ("ask", json!("no")), again]);
    let options = RunOptions { corrections, memo: bench.memo("r1"), fresh: true, ..bench.options("r2") };
    let second = bench.run_with(text, options).await;
    assert_eq!(second.output, Some(json!(["cutcut", "3", ["item 1", "other"], "no"])), "early cut-off");
    assert_eq!(bench.attempts(), [""; 0]);
}

/// Answers every question with 7.
pub(super) struct Person(pub(super) Answers);

impl Observer for Person {
    fn asked(&self, question: &Question) {
        drop(self.0.hand_in(&question.path, json!(7)));
    }
}

/// An answer that is found at once ends steps that begin in the same moment.
#[tokio::test(start_paused = true)]
async fn what_is_found_ends_what_is_about_to_begin() {
    for (text, status) in [
        (
            "nodes: {v: {for_each: \"['a', 'sleep 100']\", say: '{{ item }}', stop_when: 'true'}}\noutput: v",
            Status::Success,
        ),
        (
            "nodes: {quick: {say: q}, slow: {say: sleep 100}, first: {needs: [quick, slow], join: first, value: quick}}\n\
             output: first",
            Status::Success,
        ),
        (
            "nodes: {m: {say: hello}, b: {say: sleep 100}, g: {say: 'c {{ m | float }}'}}\noutput: [m, b, g]",
            Status::Failed,
        ),
        ("nodes: {m: {say: hello, output: this | float}, b: {say: sleep 100}}\noutput: [m, b]", Status::Failed),
    ] {
        let bench = Bench::default();
        let first = bench.run("r1", text).await;
        assert_eq!(first.status, status, "{text}");
        bench.attempts();
        let second = bench.run("r2", text).await;
        assert_eq!((second.status, &second.output), (status, &first.output), "{text}");
        assert_eq!((second.usage.calls, bench.attempts()), (0, Vec::new()), "{text}");
    }
}

/// A step that follows another run's attempt and is stopped has asked nobody, and ends at once.
#[tokio::test(start_paused = true)]
async fn who_is_stopped_while_another_asks_costs_nothing() {
    let bench = Bench::default();
    let leading = bench.workflow("nodes: {a: {say: sleep 9000}}\noutput: a");
    let following =
        bench.workflow("nodes: {first: {say: sleep 20, cache: off}, a: {say: sleep 9000}}\noutput: [first, a]");
    // It has looked for an answer before anybody asked, and begins to ask after the other has.
    let cancel = CancellationToken::new();
    let options = RunOptions { cancel: cancel.clone(), max_parallel: 1, ..bench.options("r2") };
    let second = tokio::spawn(begin(&following, Map::new(), &bench.kinds(), options).unwrap());
    tokio::time::sleep(Duration::from_millis(10)).await;
    let first = tokio::spawn(begin(&leading, Map::new(), &bench.kinds(), bench.options("r1")).unwrap());
    tokio::time::sleep(Duration::from_millis(100)).await;
    cancel.cancel();
    let began = tokio::time::Instant::now();
    let second = second.await.unwrap();
    assert_eq!((second.status, second.usage.calls, bench.attempts().len()), (Status::Cancelled, 1, 2), "{second:?}");
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    assert_eq!(first.await.unwrap().usage.calls, 1);
}

#[tokio::test]
async fn a_failed_step_has_nothing_that_a_replay_takes() {
    let bench = Bench::default();
    let text = "nodes: {a: {say: hello, output: this | float, cache: off}, b: {say: fine, cache: off}}\noutput: b";
    assert_eq!(bench.run("r1", text).await.status, Status::Failed);
    bench.attempts();
    let options = RunOptions { memo: bench.memo("r1"), ..bench.options("r2") };
    assert_eq!(bench.run_with(text, options).await.status, Status::Failed);
    assert_eq!(bench.attempts(), ["a"], "it is asked again");
}
