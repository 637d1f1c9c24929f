//! What expressions and templates give, and what they refuse.

use super::*;
use serde_json::json;

struct Fixed(Value);

impl Scope for Fixed {
    fn get(&self, name: &str) -> Option<Arc<Datum>> {
        self.0.get(name).map(|value| Datum::new(value.clone()))
    }
}

fn scope() -> Arc<dyn Scope> {
    Arc::new(Fixed(json!({
        "a": 2, "b": 3.5, "text": "It is 1,234 apples.", "list": [3, 1, 2], "none_here": null,
        "poll": {"winner": "x", "share": 0.5}, "votes": [1, "1", 1.0, null, 2], "yes": true,
    })))
}

fn eval(text: &str) -> Result<Value, String> {
    let expression = Expression::parse(text).map_err(|error| error.to_string())?;
    expression.eval(&scope()).map_err(|error| error.to_string())
}

fn check(text: &str, expected: Value) {
    assert_eq!(eval(text), Ok(expected), "{text}");
}

fn refused(text: &str, part: &str) {
    let error = eval(text).expect_err(text);
    assert!(error.contains(part), "{text}: {error}");
}

#[test]
fn values() {
    check("a + 1", json!(3));
    check("a / 4", json!(0.5));
    check("poll.share < 0.7", json!(true));
    check("[a, b] | length", json!(2));
    check("'x' if yes else null", json!("x"));
    check("{'k': a}", json!({"k": 2}));
    check("none_here == null", json!(true));
    check("1 < a <= 2", json!(true));
    check("a == 2.0", json!(true));
    check("'a' in 'cat'", json!(true));
    check("list[:2]", json!([3, 1]));
    check("\"it's \\\"quoted\\\"\\n\"", json!("it's \"quoted\"\n"));
}

#[test]
fn whole_numbers_are_exact_or_refused() {
    let refused = |text: &str| refused(text, "does not fit into 64 bits");
    check("'all 18,446,744,073,709,551,615' | number", json!(u64::MAX));
    check("'all 12345678901234567890123' | number", json!(null));
    refused("'12345678901234567890123' | json");
    refused("'[1e400]' | json");
    check("'9007199254740993 thousand' | number(words=true)", json!(9_007_199_254_740_993_000_u64));
    check("'99999999 trillion' | number(words=true)", json!(null));
    check("'9007199254740993' | number_eq(9007199254740992)", json!(false));
    check("'12345678901234567890123' | number_eq(5)", json!(false));
    check("[9007199254740993, 9007199254740992] | unique | length", json!(2));
    check("[9007199254740993, 9007199254740992] | sort | first", json!(9_007_199_254_740_992_i64));
    check("[-9007199254740992, -9007199254740993] | sort | first", json!(-9_007_199_254_740_993_i64));
    check(
        "['1e3', '2.5E3 people', '-1e-2', '1e400', '3e', '7e2x'] | map('number')",
        json!([1000, 2500, -0.01, null, 3, 2]),
    );
    check("(1 | number_eq(1.0)) and not ('x' | number_eq(1))", json!(true));
}

#[test]
fn comparisons_are_checked() {
    refused("text > 3", "`>` between a text and a number");
    refused("text == 3", "between a text and a number");
    refused("list < 3", "between a list and a number");
    refused("none_here < 3", "between null and a number");
    refused("a.b == 1", "undefined");
}

#[test]
fn what_is_not_there_is_refused_with_a_way_out() {
    refused("poll.winer", "undefined");
    refused("a | nubmer", "no filter is called `nubmer`");
    refused("upper(text)", "is a filter, not a function");
    refused("nothing", "undefined");
    refused("a < 1e999", "too large");
    let help = |text: &str| Expression::parse(text).expect_err(text).help.join("\n");
    assert_eq!(help("a | nubmer"), "did you mean `number`?");
    assert!(help("{{ a }}").contains("write `a`"));
    assert!(help("hello big world").contains("\"'hello big world'\""));
    assert!(help("a + list | length").contains("(a + b) | f"));
    assert!(help("a && b").contains("`and`"));
    assert!(help("a = b").contains("`==`"));
}

#[test]
fn filters() {
    check(
        "votes | vote",
        json!({"winner": 1, "share": 0.5, "margin": 0.25, "tie": false, "voters": 4,
        "counts": [{"value": 1, "votes": 2}, {"value": "1", "votes": 1}, {"value": 2, "votes": 1}]}),
    );
    check("([] | vote).winner", json!(null));
    check("(['a','b'] | vote).tie", json!(true));
    check("(['a','b'] | vote).winner", json!("a"));
    check("(['a','b','b'] | vote(weights=[3,1,1])).winner", json!("a"));
    check("text | number", json!(1234));
    check("'no digits' | number", json!(null));
    check("'about 37.4 million' | number(words=true)", json!(37_400_000));
    check("'from -5 to -7.50' | number", json!(-7.5));
    check("'costs $18.00.' | number", json!(18));
    check("'3-4' | number", json!(4));
    check("none_here | default([])", json!([]));
    check("nothing | default(7)", json!(7));
    check("none_here | flatten", json!([]));
    check("[[1],[2,null]] | flatten", json!([1, 2, null]));
    check("list | sort", json!([1, 2, 3]));
    refused("['a', 1] | sort", "different types");
    check("list | top_k(2)", json!([3, 2]));
    check("list | best(by=[1,5,5])", json!(1));
    check("list | best(by=[1,5,5], lowest=true)", json!(3));
    check("[1, 1.0, '1'] | unique", json!([1, "1"]));
    check("[1,2] | zip(['a','b'])", json!([[1, "a"], [2, "b"]]));
    refused("[1] | zip([])", "lists of 1 and 0");
    check("'a: 12; b: 13' | regex('b: (\\\\d+)')", json!("13"));
    check("'One. Two.' | first_sentence", json!("One."));
    check("'\\na\\n\\n b \\n' | lines", json!(["a", "b"]));
    check("'x\\ny\\n' | last_line", json!("y"));
    check("'1,000' | number_eq(1000)", json!(true));
    check("{'a': 1} | merge({'a': null, 'b': 2})", json!({"a": 1, "b": 2}));
    check("[1,1,1,1,1] | decided", json!(true));
    check("[1,2] | decided", json!(false));
    check("[1,1] | decided(window=2)", json!(true));
    check("[1,1,2] | decided(total=4)", json!(false));
    refused("list | vote(bye=1)", "no parameter `bye`");
}

#[test]
fn templates_print_for_models() {
    let render = |text: &str| Template::parse(text).and_then(|t| t.render(&scope())).map_err(|error| error.to_string());
    assert_eq!(render("{{ a }} {{ b }} {{ yes }} {{ list }}").unwrap(), "2 3.5 true [3,1,2]");
    assert_eq!(render("{% for x in list %}\n- {{ x }}\n{% endfor %}\nend\n").unwrap(), "- 3\n- 1\n- 2\nend\n");
    assert_eq!(
        render("{% if a > 1 %}big{% else %}small{% endif %} {{ '{{' }} 100 %} # }").unwrap(),
        "big {{ 100 %} # }"
    );
    assert_eq!(render("{% set x = a * 2 %}{{ x }}{{ loop_free | default('-') }}").unwrap(), "4-");
    assert!(render("{{ none_here }}").unwrap_err().contains("null is printed"));
    assert!(render("{{ nothing }}").unwrap_err().contains("undefined"));
    assert!(render("{% if text > 1 %}{% endif %}").unwrap_err().contains("between a text"));
    assert!(render("{% include 'x' %}").is_err());
    assert!(render("{% for x in list if loop.first %}{% endfor %}").unwrap_err().contains("`loop`"));
}

#[test]
fn names_are_found_with_attributes_defaults_and_places() {
    let template =
        Template::parse("{% for x in list %}{{ x }}{{ loop.index }}{{ poll.winner }}{% endfor %}{{ z | default(1) }}");
    let names: Vec<_> =
        template.unwrap().names().iter().map(|n| (n.name.clone(), n.attributes.clone(), n.defaulted)).collect();
    let expected = [("list", vec![], false), ("poll", vec!["winner".to_owned()], false), ("z", vec![], true)];
    assert_eq!(names, expected.map(|(name, attributes, defaulted)| (name.into(), attributes, defaulted)));
    let expression = Expression::parse("a + (poll.x | default(b))").unwrap();
    let places: Vec<_> = expression.names().iter().map(|name| (&*name.name, name.range.clone())).collect();
    assert_eq!(places, [("a", 0..1), ("poll", 5..9), ("b", 22..23)]);
}

#[test]
fn trees_are_built_from_their_leaves() {
    let tree = Tree::parse(&json!({"n": "a + 1", "k": [1, "list | length", null]})).unwrap();
    assert_eq!(tree.eval(|leaf| leaf.eval(&scope())).unwrap(), json!({"n": 3, "k": [1, 3, null]}));
    assert_eq!(tree.leaves().iter().map(|(path, _)| path.join(".")).collect::<Vec<_>>(), ["n", "k.1"]);
    assert_eq!(Tree::parse(&json!({"a": [1, true]})).unwrap().constant(), Some(&json!({"a": [1, true]})));
    let problems = Tree::parse(&json!({"x": "a +", "y": ["| b"]})).unwrap_err();
    assert_eq!(problems.iter().map(|(path, _)| path.join(".")).collect::<Vec<_>>(), ["x", "y.0"]);
}

#[test]
fn hostile_texts_end_quickly() {
    for text in [
        "(".repeat(100_000),
        "a".to_owned() + &"+a".repeat(900),
        "range(1000000000) | list".to_owned(),
        "'x' * 100000000".to_owned(),
        "[".repeat(1_000),
        "not ".repeat(490) + "a",
    ] {
        let _ =
            Expression::parse(&text).map(|expression| expression.eval(&scope()).map(|value| value.to_string().len()));
    }
    for text in [
        "{% for x in range(100000) %}{% for y in range(100000) %}{{ x }}{% endfor %}{% endfor %}".to_owned(),
        "{% if a %}".repeat(10_000),
        format!("{{{{ {} }}}}", "a+".repeat(100_000)),
    ] {
        assert!(Template::parse(&text).and_then(|template| template.render(&scope())).is_err());
    }
}
