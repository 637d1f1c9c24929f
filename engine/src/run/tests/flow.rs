//! Branches, loops, folds, races and people with real values: what the simulation decides at random is evaluated here.

use super::*;

#[tokio::test]
async fn a_branch_is_taken_by_the_first_case_that_holds() {
    let text = |n: u32| {
        format!(
            "
nodes:
  a: {{value: {n}, next: [{{when: a > 5, to: [big, both]}}, {{when: this > 2, to: middle}}, {{to: small}}]}}
  big: {{value: \"'big'\", next: end}}
  both: {{value: \"'both'\"}}
  middle: {{value: \"'middle'\", next: end}}
  small: {{when: 'false', value: \"'small'\", next: end}}
  end: {{value: \"[big | default('-'), middle | default('-'), small | default('-')]\"}}
output: {{end: end | default('nowhere'), both: both | default('-')}}"
        )
    };
    assert_eq!(output(&text(9)).await, json!({"end": ["big", "-", "-"], "both": "both"}));
    assert_eq!(output(&text(3)).await, json!({"end": ["-", "middle", "-"], "both": "-"}));
    assert_eq!(output(&text(1)).await, json!({"end": "nowhere", "both": "-"}), "the next case is not tried");
}

#[tokio::test]
async fn joins_count_live_edges_or_needs() {
    let text = |join: &str| {
        format!(
            "
nodes:
  a: {{value: 1, next: {{to: [b, c, d]}}}}
  b: {{value: 1, next: e}}
  c: {{value: 2, next: [{{when: c > 5, to: e}}, {{to: other}}]}}
  d: {{when: 'false', value: 3, next: e}}
  other: {{value: 4}}
  e: {{join: {join}, value: \"'here'\"}}
output: e | default('skipped')"
        )
    };
    for (join, expected) in [("any", "here"), ("all", "skipped"), ("{quorum: 1}", "here"), ("{quorum: 2}", "skipped")] {
        assert_eq!(output(&text(join)).await, json!(expected), "{join}");
    }
    let needs = |join: &str| {
        format!(
            "
nodes:
  a: {{act: fail, on_error: skip}}
  b: {{value: 2}}
  c: {{value: 3}}
  d: {{needs: [a, b, c], join: {join}, value: \"[a | default(0), b, c]\"}}
output: d | default('skipped')"
        )
    };
    for (join, runs) in [("any", true), ("all", false), ("{quorum: 2}", true), ("{quorum: 3}", false)] {
        let expected = if runs { json!([0, 2, 3]) } else { json!("skipped") };
        assert_eq!(output(&needs(join)).await, expected, "{join}");
    }
}

#[tokio::test]
async fn loops_read_what_came_before() {
    let text = "
inputs: {n: integer = 3}
nodes:
  start: {value: 10}
  a: {value: (last.a | default(start)) + 1, next: b}
  b: {act: 'echo {{ a }} after {{ past.a | join(\",\") }}, pass {{ iteration }}', next: [{when: a < 14, to: a, max: n}, {to: c}]}
  c: {value: '[a, b]'}
  rep: {repeat: {until: this > 5, max: 9}, value: (last.rep | default(1)) * 2}
  grp:
    repeat: {until: x + y > 10, max: 9}
    nodes:
      x: {value: (last.y | default(1)) + iteration}
      y: {value: x + 1}
      deep: {nodes: {z: {value: '[last.x | default(none), pass]'}}, output: z}
    output: {y: y, deep: deep, all: 'past.y + [y]'}
output: {c: c, rep: rep, grp: grp}";
    let expected = json!({
        "c": [14, "echo 14 after 11,12,13, pass 3"], "rep": 8,
        "grp": {"y": 7, "deep": [3, [2]], "all": [2, 4, 7]},
    });
    assert_eq!(output(text).await, expected);
}

#[tokio::test]
async fn nested_loops_start_afresh_and_are_left_together() {
    let text = "
nodes:
  row: {value: (last.row | default(0)) + 1, next: cell}
  cell:
    value: (last.cell | default(0)) + 1
    next: [{when: row * 10 + cell == 23, to: found}, {when: cell < 4, to: cell, max: 9}, {to: row, max: 5}]
  found: {value: '[row, cell]'}
output: found";
    assert_eq!(output(text).await, json!([2, 3]));
}

#[tokio::test]
async fn a_bound_that_is_reached_keeps_the_last_value_and_is_recorded() {
    let text = |more: &str| {
        format!(
            "nodes: {{a: {{value: (last.a | default(0)) + 1, next: [{{when: a < 9, to: a, max: 2{more}}}, {{to: b}}]}}, b: {{value: a}}}}\noutput: b"
        )
    };
    let outcome = run_with(&text(""), RunOptions::default()).await;
    assert_eq!((outcome.status, outcome.output), (Status::Success, Some(json!(3))));
    assert_eq!(outcome.limits_reached, ["loop(a)"]);
    assert_eq!(failure(&text(", on_limit: fail")).await, ("a#2".into(), "limit_reached".into()));

    let repeat =
        |more: &str| format!("nodes: {{a: {{repeat: {{{more}}}, value: (last.a | default(0)) + 1}}}}\noutput: a");
    let outcome = run_with(&repeat("until: this > 9, max: 4"), RunOptions::default()).await;
    assert_eq!((outcome.output, outcome.limits_reached), (Some(json!(4)), vec!["a".to_owned()]));
    assert_eq!(run_with(&repeat("max: 4"), RunOptions::default()).await.limits_reached, [""; 0]);
    assert_eq!(failure(&repeat("until: this > 9, max: 4, on_limit: fail")).await, ("a".into(), "limit_reached".into()));
    let inputs = "limits: {iterations: 3}\ninputs: {n: integer = 90}\n";
    let limited = format!("{inputs}{}", text("").replace("max: 2", "max: n"));
    assert_eq!(failure(&limited).await, ("loop(a)".into(), "limit_iterations".into()));
}

#[tokio::test]
async fn who_stands_outside_of_a_loop_sees_its_last_pass() {
    let text = "
nodes:
  a: {value: (last.a | default(0)) + 1, next: b}
  b: {value: a, next: [{when: b < 3, to: fix}, {to: done}]}
  fix: {value: '\"fixed \" ~ b', next: [{to: a, max: 5}]}
  done: {value: b}
  aside: {value: a}
output: {done: done, fix: fix | default('skipped in the last pass'), aside: aside}";
    assert_eq!(output(text).await, json!({"done": 3, "fix": "skipped in the last pass", "aside": 3}));
}

#[tokio::test]
async fn the_map_of_all_values_has_the_nodes_of_loops_as_of_the_last_pass() {
    let text = "
nodes:
  a: {value: iteration, next: b}
  c: {value: b, next: d}
  b: {value: a + 1, next: [{to: a, max: 1}, {to: d}]}
  d: {join: any, value: b}
  g: {nodes: {x: {value: iteration, next: [{to: x, max: 2}]}}}";
    let found = output(text).await;
    assert_eq!(found.to_string(), r#"{"a":1,"c":2,"b":2,"d":2,"g":{"x":2}}"#);
}

#[tokio::test]
async fn folds_and_prefixes_go_in_order() {
    let text = "
nodes:
  sum: {for_each: '[3, 4, 5]', sequential: true, value: (last.sum | default(0)) + item}
  path: {for_each: '[\"a\", \"b\"]', as: letter, index: at, sequential: true, act: 'echo {{ at }}{{ letter }}{{ past.path | length }}'}
  few: {for_each: '[1, 2, 3, 4]', value: item, stop_when: this | sum > 4}
  all: {for_each: '[1, 2]', value: item, stop_when: this | sum > 9}
  kept: {for_each: '[1, 2, 3]', act: '{% if item == 2 %}fail{% else %}{{ item }}{% endif %}', on_item_error: drop, stop_when: this | length == 2}
  drawn: {samples: 9, act: echo x, stop_when: this | length > 1, max_parallel: 3}
  votes: {for_each: '[1, 2, 3]', act: '{% if item == 2 %}fail{% else %}{{ item }}{% endif %}', quorum: 2}
output: {sum: sum, path: path, few: few, all: all, kept: kept, drawn: drawn | length, votes: votes}";
    let expected = json!({
        "sum": [3, 7, 12], "path": ["echo 0a0", "echo 1b1"], "few": [1, 2, 3], "all": [1, 2], "kept": ["1", "3"], "drawn": 2,
        "votes": ["1", null, "3"],
    });
    assert_eq!(output(text).await, expected);
    let quorum = "nodes: {a: {for_each: '[1, 2]', act: fail, quorum: 1}}\noutput: a";
    assert_eq!(failure(quorum).await, ("a".into(), "quorum".into()));
}

#[tokio::test]
async fn a_failure_beyond_the_prefix_that_stops_does_not_matter() {
    let text = |first: &str| {
        format!(
            "nodes: {{a: {{for_each: ['{first}', '\"fail\"'], act: '{{{{ item }}}}', max_parallel: 2, stop_when: this | length == 1}}}}\noutput: a"
        )
    };
    assert_eq!(output(&text("\"sleep 30\"")).await, json!(["slept"]));
    assert_eq!(failure(&text("\"fail\"")).await.1, "no");
}

#[tokio::test(start_paused = true)]
async fn the_first_wins_and_the_losers_are_stopped() {
    let mut kinds = kinds();
    let stopped = Arc::new(AtomicU32::new(0));
    kinds.register(Act { stopped: stopped.clone(), ..Act::default() });
    let text = "
nodes:
  slow: {act: sleep 90000, on_error: skip}
  quick: {act: sleep 10, on_error: skip}
  feeder: {act: sleep 80000}
  fed: {needs: [feeder], act: echo x, on_error: skip}
  win: {needs: [slow, quick, fed], join: first, value: '[slow, quick, fed] | select | list'}
output: win";
    let started = tokio::time::Instant::now();
    let outcome = run(&workflow(text), Map::new(), &kinds, RunOptions::default()).await.unwrap();
    assert_eq!(outcome.output, Some(json!(["slept"])));
    assert!(started.elapsed().as_millis() < 100, "nobody waits for the losers");
    assert_eq!(stopped.load(Ordering::SeqCst), 2, "`slow`, and `feeder`, which ran for a loser alone");
}

#[tokio::test]
async fn errors_can_be_read_and_followed() {
    let text = "
nodes:
  a: {act: fail, on_error: {to: mend}, next: fine}
  fine: {value: 1, next: end}
  mend: {value: error.a.code ~ ' ' ~ error.a.message, next: end}
  end: {value: mend | default(fine)}
  g: {nodes: {x: {act: fail}}, on_error: skip}
  why: {value: '[error.g.code, error.end]'}
output: [end, why]";
    assert_eq!(output(text).await, json!(["no it fails", ["step_failed", null]]));
}

#[tokio::test]
async fn what_a_body_requires_from_outside_skips_it_there() {
    let text = "
nodes:
  gone: {when: 'false', value: 1}
  g: {nodes: {x: {value: gone}, y: {value: gone | default('y')}, z: {value: x}}}
  h: {nodes: {w: {value: 1}}, output: gone}
output: {g: g, h: h | default('skipped')}";
    assert_eq!(output(text).await, json!({"g": {"x": null, "y": "y", "z": null}, "h": "skipped"}));
}

#[tokio::test(start_paused = true)]
async fn people_are_asked_and_the_rest_goes_on() {
    let text = "
nodes:
  other: {act: echo done}
  ask: {kind: human, prompt: 'How many {{ 1 + 1 }}?', schema: integer, output: this * 10}
output: {ask: ask, other: other}";
    let outcome = run_with(text, RunOptions::default()).await;
    assert_eq!((outcome.status, outcome.asked.as_slice()), (Status::Suspended, &["ask".to_owned()][..]));

    let answers = Answers::default();
    let options = RunOptions { answers: Some(answers.clone()), ..RunOptions::default() };
    let person = async {
        assert_eq!(answers.answer("nobody", json!(1)).await, Err(AnswerError::NotAsked("nobody".into())));
        assert!(matches!(answers.answer("ask", json!("many")).await, Err(AnswerError::BadAnswer(_))));
        assert_eq!(answers.answer("ask", json!(4)).await, Ok(()));
    };
    let (outcome, ()) = tokio::join!(run_with(text, options), person);
    assert_eq!(outcome.output, Some(json!({"ask": 40, "other": "echo done"})));
    assert!(answers.answer("ask", json!(4)).await.is_err(), "the run is over");
}

#[tokio::test(start_paused = true)]
async fn a_question_may_run_out_of_time() {
    let text = |more: &str| format!("nodes: {{ask: {{kind: human, prompt: Well?, timeout: 1h{more}}}}}\noutput: ask");
    assert_eq!(output(&text(", default: \"'no'\"")).await, json!("no"));
    assert_eq!(failure(&text("")).await, ("ask".into(), "timeout".into()));
    assert_eq!(output(&text(", on_error: {value: \"'late'\"}")).await, json!("late"));
}

#[tokio::test]
async fn an_unfinished_loop_counts_as_its_last_complete_pass() {
    let text = "
budget: {calls: 3}
nodes:
  a: {act: 'echo {{ iteration }}', next: [{to: a, max: 9}]}
  r: {needs: ['a?'], value: 1}
output: a";
    let outcome = run_with(text, RunOptions::default()).await;
    assert_eq!((outcome.status, outcome.output), (Status::Exhausted, Some(json!("echo 2"))));
}
